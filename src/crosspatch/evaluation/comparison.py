"""Compare two models on the same folds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from crosspatch.errors import EvaluationError
from crosspatch.evaluation.intervals import interval_of, p_value_of

#: Columns of a table of paired differences.
COMPARED = ["task", "model_a", "model_b", "delta_macro_f1", "ci_low", "ci_high", "p_value"]
COMPARED += ["features", "protocol", "folds"]


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of two models on the same folds, with its 95 % interval."""

    delta: float
    ci_low: float
    ci_high: float
    p_value: float


def corrected_resampled_t(
    a: ArrayLike, b: ArrayLike, test_share: float, confidence: float = 0.95
) -> PairedDifference:
    """Corrected resampled t-test of `a` minus `b`: scores of two models, one per fold of all runs.

    Training sets of the folds overlap, so that the usual variance of the mean is too small. It is
    enlarged from 1/n to 1/n + `test_share`, the test cells divided by the training cells of a fold
    (Nadeau and Bengio: Inference for the generalization error. Machine Learning 52, 2003). There
    must be two folds at least.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape or a.size < 2:
        raise EvaluationError(
            f"a paired test needs the same folds, at least two; got {a.size} and {b.size} scores"
        )
    difference = a - b
    n = len(difference)
    delta = float(difference.mean())
    error = float(np.sqrt((1 / n + test_share) * difference.var(ddof=1)))
    if error == 0:
        return PairedDifference(delta, delta, delta, 1.0 if delta == 0 else 0.0)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    p_value = float(2 * stats.t.sf(abs(delta) / error, n - 1))
    return PairedDifference(delta, delta - half, delta + half, p_value)


def held_out_share(results: pd.DataFrame) -> float:
    """Test cells divided by training cells, the mean over rows with ``n_test`` and ``n_train``."""
    return float((results["n_test"] / results["n_train"]).mean())


def paired_differences(
    part: pd.DataFrame, fold: list[str], pairs: Iterable[tuple[str, str]]
) -> Iterator[tuple[str | int | float, ...]]:
    """Both models, number of folds and `PairedDifference` of macro-F1, for pairs of models.

    The folds are those that both were scored on, named by the columns `fold`; a pair with fewer
    than two is left out.
    """
    wide = part.pivot_table(index=fold, columns="model", values="macro_f1", sort=False)
    share = held_out_share(part)
    for pair in pairs:
        both = wide.reindex(columns=list(pair)).dropna()
        if len(both) >= 2:
            found = corrected_resampled_t(both[pair[0]], both[pair[1]], share)
            yield *pair, len(both), found.delta, found.ci_low, found.ci_high, found.p_value


def paired_by_donor(
    summary: pd.DataFrame, draws: Mapping[tuple[str, str], NDArray | None]
) -> pd.DataFrame:
    """Paired differences of every two models of a task, with intervals by resampled donors.

    `draws` has by task and model the macro-F1 of each resample, as
    `crosspatch.evaluation.intervals.resampled_f1` gives it. There is no interval where a task's
    cells are of too few donors.
    """
    rows = []
    for (task, features, protocol), part in summary.groupby(
        ["task", "features", "protocol"], sort=False
    ):
        scores = part.set_index("model")["macro_f1_mean"]
        runs = int(part["runs"].iloc[0])
        for b, a in combinations(scores.index, 2):
            of_a, of_b = draws[str(task), a], draws[str(task), b]
            gap = None if of_a is None or of_b is None else of_a - of_b
            found = (scores[a] - scores[b], *interval_of(gap), p_value_of(gap))
            rows.append((task, a, b, *found, features, protocol, runs))
    return pd.DataFrame(rows, columns=COMPARED)
