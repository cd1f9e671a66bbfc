"""Fitted models as plain arrays: how the default models are stored, and predict.

Each class gives its arrays by name, and is made of them again with every one checked: what stands
in a model folder is data, and no library is imported to use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import (
    Arrays,
    class_probabilities,
    part_of,
    require_array,
    score_count,
    under,
)
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
    bias: NDArray[np.float64]  # shape (scores,)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        values, present = self.inputs.transform(X)
        cells = np.hstack([values, present]).astype(np.float64)
        return class_probabilities(cells @ self.weights.T + self.bias)

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        inputs = under("inputs", self.inputs.arrays())
        return {"weights": self.weights, "bias": self.bias, **inputs}

    @classmethod
    def of_arrays(cls, layout: Layout, classes: int, arrays: Arrays) -> Logistic:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        shape = score_count(classes), len(layout.features) + len(layout.families)
        require_array("weights", arrays["weights"], shape)
        require_array("weights", arrays["bias"], shape[:1])
        inputs = SequenceInputs.of_arrays(layout, part_of("inputs", arrays))
        return cls(inputs, arrays["weights"], arrays["bias"])


@dataclass(frozen=True, eq=False)
class Standardised:
    """A model of features in standard deviations, as `PooledClassifier` learns it."""

    inputs: SequenceInputs
    model: PlainModel

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        return self.model.predict_proba(self.inputs.standardised(X))

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        return under("inputs", self.inputs.arrays()) | under("model", arrays_of(self.model))

    @classmethod
    def of_arrays(cls, layout: Layout, classes: int, arrays: Arrays) -> Standardised:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        inputs = SequenceInputs.of_arrays(layout, part_of("inputs", arrays))
        return cls(inputs, read_model(layout, classes, part_of("model", arrays), _SINGLE))


@dataclass(frozen=True, eq=False)
class Vote:
    """The mean of several models."""

    members: tuple[PlainModel, ...]

    def predict_proba(self, X: NDArray) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        return np.mean([member.predict_proba(X) for member in self.members], axis=0)

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        found = {"members": np.asarray(len(self.members))}
        for number, member in enumerate(self.members):
            found |= under(str(number), arrays_of(member))
        return found

    @classmethod
    def of_arrays(cls, layout: Layout, classes: int, arrays: Arrays) -> Vote:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        if not 0 < (members := int(arrays["members"])) <= _MOST_MEMBERS:
            raise ModelError(f"its vote has {members} members")
        parts = (part_of(str(number), arrays) for number in range(members))
        return cls(tuple(read_model(layout, classes, part, _SINGLE) for part in parts))


PlainModel: TypeAlias = Trees | Logistic | Standardised | Vote

#: By the name that they are stored under: those that stand in others, and all.
_SINGLE: Mapping[str, type[PlainModel]] = {"trees": Trees, "logistic": Logistic}
_KINDS = {**_SINGLE, "standardised": Standardised, "vote": Vote}


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
            return inner and Standardised(model.inputs_, inner)
        case VotingClassifier():
            members = tuple(map(plain_model, model.estimators_))
            return None if None in members else Vote(cast("tuple[PlainModel, ...]", members))
    return None


def arrays_of(model: PlainModel) -> dict[str, NDArray]:
    """A model as arrays by name."""
    return {"kind": np.asarray(type(model).__name__.lower()), **model.arrays()}


def read_model(
    layout: Layout, classes: int, arrays: Arrays, kinds: Mapping[str, type[PlainModel]] = _KINDS
) -> PlainModel:
    """The model that arrays by name are; a ModelError, or KeyError, if they are none."""
    kind = str(arrays["kind"])
    if kind not in kinds:
        raise ModelError(f"its model is a '{kind}', which is not known here")
    return kinds[kind].of_arrays(layout, classes, arrays)
