"""Feature layouts: which families there are, in which order, with which features and units."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import LayoutError

#: Layouts shipped with the package: the features both species share, and the human table's own.
LAYOUT_NAMES = ("shared", "full")


@dataclass(frozen=True)
class Feature:
    """One number measured on a cell.

    Attributes
    ----------
    name : str
        Name in IPFX's vocabulary, for example ``threshold_v_rheo``.
    family : str
        The family it belongs to.
    unit : str
        Unit as text, for example ``mV``; ``ratio`` where it has none.
    """

    name: str
    family: str
    unit: str


@dataclass(frozen=True)
class Layout:
    """An ordered set of features in families: the meaning of the columns of a feature array."""

    name: str
    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        names = [feature.name for feature in self.features]
        if not names:
            raise LayoutError(f"layout '{self.name}' has no features")
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise LayoutError(f"layout '{self.name}' names a feature twice: {', '.join(twice)}")

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Feature names, in column order."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def families(self) -> tuple[str, ...]:
        """Family names, in order of first appearance."""
        return tuple(dict.fromkeys(feature.family for feature in self.features))

    @cached_property
    def columns(self) -> dict[str, NDArray[np.intp]]:
        """Column indices of every family."""
        return {
            family: np.flatnonzero([feature.family == family for feature in self.features])
            for family in self.families
        }

    @property
    def width(self) -> int:
        """Number of features in the largest family."""
        return max(len(columns) for columns in self.columns.values())

    def present(self, X: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Which families a cell has: those with at least one finite value.

        Parameters
        ----------
        X : array, shape (cells, features)
            Feature values, NaN where missing.

        Returns
        -------
        array of bool, shape (cells, families)
        """
        finite = np.isfinite(X)
        columns = self.columns.values()
        return np.stack([finite[:, family].any(axis=1) for family in columns], axis=1)


@cache
def load_layout(name: str) -> Layout:
    """Read one of the layouts shipped with the package.

    Parameters
    ----------
    name : str
        One of `LAYOUT_NAMES`.

    Raises
    ------
    LayoutError
        If there is no layout of this name.
    """
    if name not in LAYOUT_NAMES:
        raise LayoutError(f"no layout '{name}'; choose from: {', '.join(LAYOUT_NAMES)}")
    text = (files("crosspatch.features") / "data" / f"{name}.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return Layout(name, tuple(Feature(r["feature"], r["family"], r["unit"]) for r in rows))
