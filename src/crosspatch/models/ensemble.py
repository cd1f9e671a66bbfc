"""A soft vote whose members and weights are chosen on inner folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.metrics import f1_score
from sklearn.utils.validation import check_is_fitted

from crosspatch.models.classifier import ProbabilisticClassifier, fit_copy
from crosspatch.models.validation import inner_folds


@dataclass(eq=False, repr=False)
class SoftVote(ProbabilisticClassifier):
    """Weighted mean of class probabilities.

    Members vote on inner folds of the training cells. Starting from none, the member whose vote
    raises macro-F1 most is added, again and again, a member as often as it helps; the weights are
    the shares of the best set met. Ties go to the lower log loss.

    Attributes
    ----------
    weights_ : dict
        Member to its weight.
    inner_scores_ : dict
        Member to its macro-F1 on the inner folds; ``vote`` for the weighted mean.

    References
    ----------
    Caruana et al.: Ensemble selection from libraries of models. ICML 2004.
    """

    members: Sequence[tuple[str, BaseEstimator]]  # name and classifier
    _: KW_ONLY
    n_folds: int = 3  # inner folds, stratified and grouped by donor where donors are given
    rounds: int = 20  # how often a member is added at most
    random_state: int | None = None  # seed of the inner folds

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> SoftVote:
        """Choose the weights on inner folds, then fit the chosen members on all cells."""
        X, y = np.asarray(X), np.asarray(y)
        groups = None if groups is None else np.asarray(groups)
        self.classes_, codes = np.unique(y, return_inverse=True)
        votes = np.full((len(self.members), len(y), len(self.classes_)), np.nan)
        for chosen, held in inner_folds(codes, groups, self.n_folds, self.random_state):
            inner = None if groups is None else groups[chosen]
            for member, (_, model) in enumerate(self.members):
                fitted = fit_copy(model, X[chosen], y[chosen], inner)
                votes[member, held] = fitted.predict_proba(X[held])
        seen = np.isfinite(votes).all(axis=(0, 2))
        weights, score = _select(votes[:, seen], codes[seen], self.rounds)
        names = [name for name, _ in self.members]
        self.inner_scores_ = {
            name: _macro_f1(votes[member][seen], codes[seen]) for member, name in enumerate(names)
        } | {"vote": score}
        self.weights_ = dict(zip(names, weights.tolist(), strict=True))
        self.fitted_ = [
            (weight, fit_copy(model, X, y, groups))
            for weight, (_, model) in zip(weights, self.members, strict=True)
            if weight > 0
        ]
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class probabilities, shape (cells, classes)."""
        check_is_fitted(self, "fitted_")
        return np.sum([weight * model.predict_proba(X) for weight, model in self.fitted_], axis=0)


def _macro_f1(votes: NDArray, codes: NDArray) -> float:
    return float(f1_score(codes, votes.argmax(axis=1), average="macro"))


def _select(votes: NDArray, codes: NDArray, rounds: int) -> tuple[NDArray[np.float64], float]:
    """Greedy selection with replacement: the members' weights, macro-F1 of the weighted mean.

    The votes have shape (members, cells, classes).
    """

    def quality(sum_of_votes: NDArray, count: int) -> tuple[float, float]:
        mean = sum_of_votes / count
        likelihood = np.log(np.clip(mean[np.arange(len(codes)), codes], 1e-12, None)).mean()
        return _macro_f1(mean, codes), float(likelihood)

    counts = np.zeros(len(votes))
    total = np.zeros(votes.shape[1:])
    best, best_counts = (-1.0, -np.inf), counts
    for size in range(1, rounds + 1):
        qualities = [quality(total + vote, size) for vote in votes]
        winner = max(range(len(votes)), key=lambda member: qualities[member])
        counts = counts + (np.arange(len(votes)) == winner)
        total = total + votes[winner]
        if qualities[winner] > best:
            best, best_counts = qualities[winner], counts
    return best_counts / best_counts.sum(), best[0]
