"""What really happens to a model's scores when it must do without a family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from crosspatch.errors import EvaluationError
from crosspatch.evaluation import metrics
from crosspatch.evaluation.comparison import corrected_resampled_t, held_out_share
from crosspatch.evaluation.splits import derived_seed
from crosspatch.evaluation.uncertainty import predicted_classes
from crosspatch.explanation.result_tables import TABLE_COLUMNS
from crosspatch.features.layouts import Layout

#: ``condition`` of the scores with every family as it was measured.
ALL_PRESENT = "all present"
#: Ways of taking a family away: exchanged among the cells that are tested, or never shown.
PERMUTED, REMOVED = "permuted", "removed"
#: Permutations of a family whose scores are averaged.
REPEATS = 10


@dataclass(frozen=True)
class HeldOut:
    """Cells that a model is tested on and has not seen."""

    layout: Layout
    X: NDArray[np.floating]  # shape (cells, features)
    y: NDArray[np.str_]  # shape (cells,)
    classes: Sequence[str]  # that are scored


def condition_of(how: str, family: str) -> str:
    """How the results name a condition: ``permuted: spike_train``."""
    return f"{how}: {family}"


def layout_without(layout: Layout, family: str) -> tuple[Layout, NDArray[np.intp]]:
    """The layout without a family, and the columns that are left."""
    if family not in layout.families:
        raise EvaluationError(
            f"layout '{layout.name}' has no family '{family}'; choose from: "
            f"{', '.join(layout.families)}"
        )
    if len(layout.families) == 1:
        raise EvaluationError(
            f"layout '{layout.name}' has the family '{family}' only, and nothing is left without "
            "it; use features of several families"
        )
    kept = np.array([k for k, each in enumerate(layout.features) if each.family != family])
    return Layout(layout.name, tuple(layout.features[k] for k in kept)), kept


def scores_of(model: BaseEstimator, tested: HeldOut) -> dict[str, float]:
    """Scores of a fitted classifier.

    A cell that has nothing of the layout is given no class, which counts as a wrong one, by every
    model alike.
    """
    X = tested.X
    there = tested.layout.present(X).any(axis=1)
    probabilities = np.full((len(X), len(model.classes_)), np.nan)
    if there.any():
        probabilities[there] = model.predict_proba(X[there])
    predicted = predicted_classes(probabilities, model.classes_)
    return metrics.scores(tested.y, predicted, tested.classes)


def permuted_scores(
    model: BaseEstimator, tested: HeldOut, family: str, seed: int, repeats: int = REPEATS
) -> dict[str, float]:
    """Mean scores of a fitted classifier when cells are given the family of another cell.

    All columns of the family move together, and so does its being absent (Breiman: Random
    forests. Machine Learning 45, 2001).
    """
    columns = tested.layout.columns[family]
    number = 1 + tested.layout.families.index(family)
    each = []
    for repeat in range(repeats):
        # A seed of its own for every family and repeat, so that their order means nothing.
        rng = np.random.default_rng(derived_seed(seed, number, repeat))
        shuffled = tested.X.copy()
        shuffled[:, columns] = tested.X[rng.permutation(len(shuffled))][:, columns]
        each.append(scores_of(model, replace(tested, X=shuffled)))
    return {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}


def drops(results: pd.DataFrame, how: str, score: str = "macro_f1") -> pd.DataFrame:
    """Fall in a score of one model, with every family taken away, fold by fold.

    The results are those of one species and model. Index of the table: run and fold; columns:
    families, none where nothing was taken away in this way. Positive where the score is lower
    without the family.
    """
    first = results[results["seed"] == 0]
    wide = first.pivot_table(index=["run", "fold"], columns="condition", values=score, sort=False)
    start = condition_of(how, "")
    chosen = [name for name in wide.columns if str(name).startswith(start)]
    fall = -wide[chosen].sub(wide[ALL_PRESENT], axis=0)
    return fall.rename(columns={name: str(name).removeprefix(start) for name in chosen})


def share_of_tests(results: pd.DataFrame) -> float:
    """Test cells divided by training cells, mean over folds with all families."""
    return held_out_share(results[results["condition"] == ALL_PRESENT])


def importance_table(results: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """What each family is worth to each model: the fall in F1 without it.

    The results have one row per species, model, run, fold, seed and condition; the table has one
    per species, model, way of taking a family away, family and scope (``macro_f1``, or a class: its
    F1). Intervals and p-values are of the corrected resampled t-test over folds
    (`crosspatch.evaluation.comparison.corrected_resampled_t`), each row for itself.
    """
    scopes = {"macro_f1": "macro_f1"} | {name: f"f1_{name}" for name in classes}
    rows = []
    for place, part in results.groupby(["species", "features", "model"], sort=False):
        share = share_of_tests(part)
        for how, (scope, score) in product((PERMUTED, REMOVED), scopes.items()):
            if score not in part or part[score].isna().all():
                continue
            fall = drops(part, how, score)
            for family in fall.columns:
                test = corrected_resampled_t(fall[family], np.zeros(len(fall)), share)
                found = (test.delta, test.ci_low, test.ci_high, test.p_value, len(fall))
                rows.append((*place, how, family, scope, *found))
    return pd.DataFrame(rows, columns=TABLE_COLUMNS["importance"])
