"""Shrunk linear discriminant analysis on physics inputs, and its vote with small trees.

Both see normal scores of features and of what follows from them (`crosspatch.models.physics`). A
missing value takes no part in the discriminant. The trees see what is expected in its place, given
what was measured, so that absence, which tells one dataset from another, tells them nothing.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.models.absence import with_copies
from crosspatch.models.boosting import build_boosting
from crosspatch.models.classifier import MaybeArray, ProbabilisticClassifier
from crosspatch.models.estimator import MaybeLayout
from crosspatch.models.gaussian import Gaussians, types_of
from crosspatch.models.physics import PhysicsInputs
from crosspatch.models.plain import Discriminant, DiscriminantVote
from crosspatch.models.trees import Trees

#: Priors are shares to this power: rare subclasses count more than they are found, common ones
#: more than rare ones. Chosen on mouse and human cells in the trial that the method names.
PRIOR_POWER = 0.25

# Smaller trees than LightGBM's own, and of fewer features: most are redundant, and cells are few.
_small_boosting = partial(
    build_boosting,
    num_leaves=12,
    learning_rate=0.06,
    colsample_bytree=0.25,
    subsample=0.5,
    subsample_freq=1,
)
# Trees of a class for n cells: so many times the root of n.
_TREES = 5


@dataclass(eq=False, repr=False)
class LinearDiscriminant(ProbabilisticClassifier):
    """Normal distributions with one shrunk covariance: of classes, or of types that make them up.

    A class of several types need not be normal itself. Hastie and Tibshirani, J. R. Stat. Soc. B 58
    (1996), with the types known.
    """

    layout: MaybeLayout = None
    _: KW_ONLY
    prior_power: float = PRIOR_POWER

    def fit(
        self, X: ArrayLike, y: ArrayLike, unlabelled: MaybeArray = None, types: MaybeArray = None
    ) -> LinearDiscriminant:
        """Learn the distributions; ``X`` is NaN where missing."""
        X, y = self._learnable(X, y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        others = X if unlabelled is None else self._checked(unlabelled)
        inputs = PhysicsInputs.fit(self.layout_, others)
        of_type, class_of = types_of(codes, codes if types is None else types)
        gaussians = Gaussians.fit(inputs.transform(X), of_type)
        shares = np.bincount(of_type) / np.bincount(codes)[class_of]
        priors = log_priors(codes, self.prior_power)[class_of] + np.log(shares)
        self.model_ = Discriminant(inputs, gaussians, priors, class_of)
        return self


@dataclass(eq=False, repr=False)
class VoteClassifier(ProbabilisticClassifier):
    """Equal vote of a linear discriminant and small boosted trees.

    The trees also learn from copies of the cells with features taken away.
    """

    layout: MaybeLayout = None
    _: KW_ONLY
    prior_power: float = PRIOR_POWER
    copies: int = 4  # of every cell
    random_state: int | None = None

    def fit(
        self, X: ArrayLike, y: ArrayLike, unlabelled: MaybeArray = None, types: MaybeArray = None
    ) -> VoteClassifier:
        """Learn both; ``X`` is NaN where missing."""
        X, y = self._learnable(X, y)
        others = None if unlabelled is None else self._checked(unlabelled)
        discriminant = LinearDiscriminant(self.layout, prior_power=self.prior_power)
        discriminant.fit(X, y, others, types)
        inputs = discriminant.model_.inputs
        rng = np.random.default_rng(self.random_state)
        copies, rows = with_copies(X, self.layout_, self.copies, rng)
        taught = inputs.transform(copies)
        Z = taught[: len(X)] if others is None else inputs.transform(others)
        cells = Gaussians.fit(Z, np.zeros(len(Z), dtype=np.intp))
        trees = _small_boosting(self.random_state, n_estimators=round(_TREES * np.sqrt(len(X))))
        trees.fit(cells.filled(taught), y[rows])
        self.classes_ = discriminant.classes_
        self.model_ = DiscriminantVote(discriminant.model_, cells, Trees.of(trees))
        return self


def log_priors(codes: NDArray[np.intp], power: float) -> NDArray[np.float64]:
    """Logarithms of priors, shape (classes,): shares of the classes to a power, normalised."""
    priors = (np.bincount(codes) / len(codes)) ** power
    return np.log(priors / priors.sum())
