"""Gradient-boosted trees (LightGBM), which take missing values as they are."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from crosspatch.models.classifier import ProbabilisticClassifier
from crosspatch.models.estimator import MaybeLayout

if TYPE_CHECKING:
    from lightgbm import LGBMClassifier


@dataclass(eq=False, repr=False)
class BoostedTrees(ProbabilisticClassifier):
    """LightGBM with its own defaults, class-balanced.

    LightGBM by itself looks at the number of a table's columns only; here they are checked by name.
    """

    layout: MaybeLayout = None
    _: KW_ONLY
    n_estimators: int = 100
    learning_rate: float = 0.1
    num_leaves: int = 31
    min_child_samples: int = 20
    random_state: int | None = None

    def fit(self, X: ArrayLike, y: ArrayLike) -> BoostedTrees:
        """Learn the trees; ``X`` is NaN where missing."""
        X, y = self._learnable(X, y)
        trees = build_boosting(
            self.random_state,
            n_estimators=self.n_estimators,
            learning_rate=self.learning_rate,
            num_leaves=self.num_leaves,
            min_child_samples=self.min_child_samples,
        )
        self.model_ = trees.fit(X, y)
        self.classes_ = self.model_.classes_
        return self


def build_boosting(random_state: int | None = None, **settings: Any) -> LGBMClassifier:
    """LightGBM on one core, with the same numbers every time.

    The settings are its own, with its own defaults. Classes are balanced, as for the forest: rare
    subclasses count as much, unless `class_weight` is given.
    """
    from lightgbm import LGBMClassifier  # when a model is built, not when models are listed

    return LGBMClassifier(
        **({"class_weight": "balanced"} | settings),
        random_state=random_state,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    )
