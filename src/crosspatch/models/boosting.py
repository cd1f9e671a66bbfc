"""Gradient-boosted trees (LightGBM), which take missing values as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightgbm import LGBMClassifier


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
