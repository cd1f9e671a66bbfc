"""Fitted models as plain arrays: how the default models are stored, and predict.

Each class gives `arrays`, arrays by name, and is made of them again with every one checked: what
stands in a model folder is data, and no library is imported to use it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import Arrays, class_probabilities, part_of, require_array, under
from crosspatch.models.judging import Probabilistic
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.trees import Trees

#: Members of a vote: more are not a model of ours.
_MOST_MEMBERS = 20


@dataclass(frozen=True, eq=False)
class Logistic:
    """Multinomial logistic regression on `crosspatch.models.kernel.StandardInputs`."""

    inputs: SequenceInputs
    #: Shape (scores, features + families). One score for two classes, else one per class.
    weights: NDArray[np.float64]
    #: Shape (scores,).
    bias: NDArray[np.float64]

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        values, present = self.inputs.transform(X)
        cells = np.hstack([values, present]).astype(np.float64)
        return class_probabilities(cells @ self.weights.T + self.bias)


@dataclass(frozen=True, eq=False)
class Standardised:
    """A model of features in standard deviations, as `PooledClassifier` learns it."""

    inputs: SequenceInputs
    model: PlainModel

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        return self.model.predict_proba(self.inputs.standardised(X))


@dataclass(frozen=True, eq=False)
class Vote:
    """The mean of several models."""

    members: tuple[PlainModel, ...]

    def predict_proba(self, X: NDArray) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        return np.mean([member.predict_proba(X) for member in self.members], axis=0)


PlainModel: TypeAlias = Trees | Logistic | Standardised | Vote


def plain_model(model: Probabilistic) -> PlainModel | None:
    """A fitted model as plain arrays; None where it is of a kind that has no such form."""
    if isinstance(model, PlainModel):
        return model
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    from crosspatch.models.absence import FamilyDropout
    from crosspatch.models.kernel import StandardInputs
    from crosspatch.models.pooled import PooledClassifier

    match model:
        case FamilyDropout():
            return plain_model(model.model_)
        case LGBMClassifier():
            return Trees.of(model)
        case Pipeline(steps=[(_, StandardInputs() as inputs), (_, LogisticRegression() as fitted)]):
            return Logistic(inputs.inputs_, fitted.coef_, fitted.intercept_)
        case PooledClassifier():
            inner = plain_model(model.model_)
            return None if inner is None else Standardised(model.inputs_, inner)
        case VotingClassifier():
            members = [plain_model(member) for member in model.estimators_]
            found = tuple(member for member in members if member is not None)
            return Vote(found) if len(found) == len(members) else None
    return None


def arrays_of(model: PlainModel) -> dict[str, NDArray]:
    """A model as arrays by name."""
    match model:
        case Trees():
            found = {each.name: np.asarray(getattr(model, each.name)) for each in fields(model)}
        case Logistic():
            found = {"weights": model.weights, "bias": model.bias}
            found |= under("inputs", model.inputs.arrays())
        case Standardised():
            found = under("inputs", model.inputs.arrays()) | under("model", arrays_of(model.model))
        case Vote():
            found = {"members": np.asarray(len(model.members))}
            for number, member in enumerate(model.members):
                found |= under(str(number), arrays_of(member))
    return found | {"kind": np.asarray(type(model).__name__.lower())}


def read_model(arrays: Arrays, layout: Layout, classes: int, depth: int = 0) -> PlainModel:
    """The model that arrays by name are; a ModelError, or KeyError, if they are none."""
    kind = str(arrays["kind"])
    if kind == "trees":
        parts: dict[str, Any] = {each.name: arrays[each.name] for each in fields(Trees)}
        sizes = {name: int(parts[name]) for name in ("n_features", "n_scores")}
        trees = Trees(**parts | sizes)
        if trees.n_features != len(layout.features) or trees.n_scores != _scores(classes):
            raise ModelError("its trees are of other features or classes")
        return trees
    if kind == "logistic":
        inputs = SequenceInputs.of_arrays(layout, part_of("inputs", arrays))
        weights, bias = arrays["weights"], arrays["bias"]
        shape = _scores(classes), len(layout.features) + len(layout.families)
        require_array("weights", weights, shape)
        require_array("weights", bias, shape[:1])
        return Logistic(inputs, weights, bias)
    if kind == "standardised" and not depth:
        inputs = SequenceInputs.of_arrays(layout, part_of("inputs", arrays))
        return Standardised(inputs, read_model(part_of("model", arrays), layout, classes, 1))
    if kind == "vote" and not depth and 0 < (members := int(arrays["members"])) <= _MOST_MEMBERS:
        each = (part_of(str(number), arrays) for number in range(members))
        return Vote(tuple(read_model(part, layout, classes, 1) for part in each))
    raise ModelError(f"its model is a '{kind}', which is not known here")


def _scores(classes: int) -> int:
    return 1 if classes == 2 else classes
