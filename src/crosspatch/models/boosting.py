"""Gradient-boosted trees (LightGBM), which take missing values as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightgbm import LGBMClassifier


@dataclass(frozen=True)
class BoostingSettings:
    """LightGBM; its own defaults unless a comment says otherwise."""

    trees: int = 100
    learning_rate: float = 0.1
    leaves: int = 31
    min_cells_in_leaf: int = 20
    class_weight: str | None = "balanced"  # as for the forest: rare subclasses count as much


def build_boosting(
    random_state: int | None = None, settings: BoostingSettings | None = None
) -> LGBMClassifier:
    """LightGBM on one core, with the same numbers every time."""
    from lightgbm import LGBMClassifier  # when a model is built, not when models are listed

    settings = settings or BoostingSettings()
    return LGBMClassifier(
        n_estimators=settings.trees,
        learning_rate=settings.learning_rate,
        num_leaves=settings.leaves,
        min_child_samples=settings.min_cells_in_leaf,
        class_weight=settings.class_weight,
        random_state=random_state,
        n_jobs=1,
        deterministic=True,
        force_row_wise=True,
        verbosity=-1,
    )
