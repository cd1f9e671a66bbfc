"""Fitted models as plain arrays: how the default models are stored, and predict.

Each class gives its arrays by name, and is made of them again with every one checked: what stands
in a model folder is data, and no library is imported to use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

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
    softmax,
    under,
)
from crosspatch.models.gaussian import Gaussians
from crosspatch.models.judging import Probabilistic
from crosspatch.models.physics import PhysicsInputs
from crosspatch.models.sequence_inputs import SequenceInputs
from crosspatch.models.trees import Trees


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
class Discriminant:
    """Linear discriminant analysis, whatever was measured, of classes that consist of types."""

    inputs: PhysicsInputs
    gaussians: Gaussians  # of the types
    log_priors: NDArray[np.float64]  # shape (types,)
    class_of: NDArray[np.intp]  # shape (types,)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        return self.of_inputs(self.inputs.transform(X))

    def of_inputs(self, Z: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same of the inputs' scores; the priors where a cell has none."""
        of_types = softmax(self.type_scores(Z))
        return of_types @ np.eye(self.class_of.max() + 1)[self.class_of]

    def type_scores(self, Z: NDArray[np.float64]) -> NDArray[np.float64]:
        """How probable each type is: logarithms but for what they share, shape (cells, types)."""
        return self.log_priors - np.nan_to_num(self.gaussians.squared_distances(Z)) / 2

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        inputs = under("inputs", self.inputs.arrays())
        own = {"log_priors": self.log_priors, "class_of": self.class_of}
        return own | inputs | self.gaussians.arrays()

    @classmethod
    def of_arrays(cls, layout: Layout, classes: int, arrays: Arrays) -> Discriminant:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        class_of, types = arrays["class_of"], arrays["class_of"].shape
        require_array("types", class_of, types[:1], np.intp, classes)
        require_array("priors", arrays["log_priors"], types)
        if set(class_of.tolist()) != set(range(classes)):
            raise ModelError("its types are not of all classes")
        inputs = PhysicsInputs.of_arrays(layout, part_of("inputs", arrays))
        gaussians = Gaussians.of_arrays(len(class_of), len(inputs.quantiles), arrays)
        return cls(inputs, gaussians, arrays["log_priors"], class_of)


@dataclass(frozen=True, eq=False)
class DiscriminantVote:
    """The mean of a discriminant and of trees that see missing values as expected."""

    discriminant: Discriminant
    cells: Gaussians  # all cells as one class: what is expected of a missing value
    trees: Trees  # of the discriminant's inputs

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        Z = self.discriminant.inputs.transform(X)
        by_trees = self.trees.predict_proba(self.cells.filled(Z))
        return (self.discriminant.of_inputs(Z) + by_trees) / 2

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        found = under("discriminant", self.discriminant.arrays())
        return found | under("cells", self.cells.arrays()) | under("trees", self.trees.arrays())

    @classmethod
    def of_arrays(cls, layout: Layout, classes: int, arrays: Arrays) -> DiscriminantVote:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        discriminant = Discriminant.of_arrays(layout, classes, part_of("discriminant", arrays))
        inputs = len(discriminant.inputs.quantiles)
        cells = Gaussians.of_arrays(1, inputs, part_of("cells", arrays))
        trees = Trees.checked(inputs, classes, part_of("trees", arrays))
        return cls(discriminant, cells, trees)


PlainModel: TypeAlias = Trees | Logistic | Discriminant | DiscriminantVote

#: By the name that they are stored under.
_KINDS: Mapping[str, type[PlainModel]] = {
    "trees": Trees,
    "logistic": Logistic,
    "discriminant": Discriminant,
    "discriminantvote": DiscriminantVote,
}


def plain_model(model: Probabilistic) -> PlainModel | None:
    """A fitted model as plain arrays; None where it is of a kind that has no such form."""
    if isinstance(model, PlainModel):
        return model
    from lightgbm import LGBMClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

    from crosspatch.models.absence import FamilyDropout
    from crosspatch.models.boosting import BoostedTrees
    from crosspatch.models.discriminant import LinearDiscriminant, VoteClassifier
    from crosspatch.models.kernel import StandardInputs

    match model:
        case FamilyDropout() | BoostedTrees():
            return plain_model(model.model_)
        case LGBMClassifier():
            return Trees.of(model)
        case Pipeline(steps=[(_, StandardInputs() as inputs), (_, LogisticRegression() as fitted)]):
            return Logistic(inputs.inputs_, fitted.coef_, fitted.intercept_)
        case LinearDiscriminant() | VoteClassifier():
            return model.model_
    return None


def discriminant_of(model: Probabilistic) -> Discriminant | None:
    """The discriminant of a stored model, or in it; None where there is none."""
    found = model.discriminant if isinstance(model, DiscriminantVote) else model
    return found if isinstance(found, Discriminant) else None


def arrays_of(model: PlainModel) -> dict[str, NDArray]:
    """A model as arrays by name."""
    return {"kind": np.asarray(type(model).__name__.lower()), **model.arrays()}


def read_model(layout: Layout, classes: int, arrays: Arrays) -> PlainModel:
    """The model that arrays by name are; a ModelError, or KeyError, if they are none."""
    kind = str(arrays["kind"])
    if kind not in _KINDS:
        raise ModelError(f"its model is a '{kind}', which is not known here")
    return _KINDS[kind].of_arrays(layout, classes, arrays)
