"""What all estimators have in common: scikit-learn's contract, for cells with features missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout, load_layout, plain_layout

if TYPE_CHECKING:
    import pandas as pd
    from _typeshed import DataclassInstance

#: What the columns of cells are: a layout, the name of one that is shipped, or None where nothing
#: is known of them. Then each is a family of its own (`crosspatch.features.layouts.plain_layout`).
MaybeLayout = Layout | str | None

# Single precision is kept where cells have it.
_FLOATS = (np.float64, np.float32)


class CellEstimator(BaseEstimator):
    """An estimator that takes cells: features in columns, NaN where missing.

    Subclasses are dataclasses, so that a constructor does nothing but store its parameters;
    comparing and showing them is left to scikit-learn. Settings, which are frozen dataclasses, can
    be set one by one: ``training__epochs``.
    """

    layout: MaybeLayout
    #: The dataclass of every parameter that is one; None stands for its defaults.
    _SETTINGS: ClassVar[Mapping[str, type[DataclassInstance]]] = {}

    @property
    def layout_(self) -> Layout:
        """What the columns are, once fitted."""
        known = known_layout(self.layout)
        return plain_layout(self.n_features_in_) if known is None else known

    def _checked(self, X: ArrayLike, *, fitting: bool = False) -> NDArray[np.floating]:
        """Cells as an array, shape (cells, features), in the order of the layout.

        Columns of a table are matched with a layout by their names, and must have the order that
        they were fitted in where there is no layout.
        """
        return self._validated(X, fitting)[0]

    def _learnable(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.floating], NDArray]:
        """Cells to fit on, as `_checked` gives them, and their classes."""
        X, y = self._validated(X, True, y=y)
        check_classification_targets(y)
        return X, y

    def _validated(self, X: ArrayLike, fitting: bool, **y: ArrayLike) -> tuple[NDArray, ...]:
        known = known_layout(self.layout)
        names = list(getattr(X, "columns", ()))
        if known is not None and any(isinstance(name, str) for name in names):
            _require_columns(names, known)
            table = cast("pd.DataFrame", X)[list(known.feature_names)]
            # What was fitted on an array of the layout knows the names all the same.
            named = fitting or hasattr(self, "feature_names_in_")
            X = table if named else table.to_numpy()
        found = validate_data(
            self,
            X,
            reset=fitting,
            dtype=_FLOATS,
            ensure_all_finite="allow-nan",
            ensure_min_samples=2 if fitting else 0,
            **y,
        )
        found = found if y else (found,)
        shape = found[0].shape
        if known is not None and shape[1] != len(known.features):
            raise ModelError(
                f"the features have shape {shape}, layout '{known.name}' has "
                f"{len(known.features)} columns"
            )
        return found

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """The parameters and, if deep, those of estimators and settings among them."""
        found = super().get_params(deep)
        for name, kind in self._SETTINGS.items() if deep else ():
            settings = kind() if found[name] is None else found[name]
            for each in fields(kind) if isinstance(settings, kind) else ():
                found[f"{name}__{each.name}"] = getattr(settings, each.name)
        return found

    def set_params(self, **params: object) -> CellEstimator:
        """Set parameters, also those of estimators and settings: ``training__epochs``."""
        for name, kind in self._SETTINGS.items():
            head = f"{name}__"
            changes = {key: params.pop(key) for key in list(params) if key.startswith(head)}
            if not changes:
                continue
            own = {each.name for each in fields(kind)}
            changes = {key.removeprefix(head): value for key, value in changes.items()}
            if odd := sorted(changes.keys() - own):
                known = ", ".join(f"{head}{each}" for each in sorted(own))
                raise ModelError(f"there is no parameter '{head}{odd[0]}'; choose from: {known}")
            before = params.get(name, getattr(self, name))
            params[name] = replace(before if isinstance(before, kind) else kind(), **changes)
        return super().set_params(**params)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


class CellPipeline(Pipeline):
    """A pipeline whose first step takes cells: it says that they may have gaps."""

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def known_layout(layout: MaybeLayout) -> Layout | None:
    """The layout, or that of this name; None where nothing is known of the columns."""
    return load_layout(layout) if isinstance(layout, str) else layout


def _require_columns(names: list[str], layout: Layout) -> None:
    """Refuse columns that are not those of the layout, in whatever order."""
    gone = [name for name in layout.feature_names if name not in set(names)]
    odd = [name for name in names if name not in set(layout.feature_names)]
    for which, what in ((gone, "has no column"), (odd, "has a column that is no feature:")):
        if which:
            more = f" and {len(which) - 1} more" if len(which) > 1 else ""
            raise ModelError(
                f"for layout '{layout.name}' the table {what} '{which[0]}'{more}",
                "give a column for each feature, empty where it was not measured, and no other",
            )
    if len(names) > len(layout.features):
        raise ModelError("two columns of the table have one name")
