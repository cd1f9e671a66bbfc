"""How sure scores of few cells are: intervals of 95 % confidence that know of donors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

#: Of every interval.
CONFIDENCE = 0.95
#: With fewer donors the spread between them is not known, and there is no interval of a macro-F1.
LEAST_DONORS = 5

_RESAMPLES = 2000

Interval = tuple[float, float]
NO_INTERVAL: Interval = (float("nan"), float("nan"))


def share_interval(right: ArrayLike, donors: ArrayLike) -> Interval:
    """Wilson's interval of a share of cells, which allows for cells of one donor being alike.

    `right` is True or False, `donors` the donor of each, shape (cells,). The number of cells is
    divided by the design effect of the donors (Rao and Scott: A simple method for the analysis of
    clustered binary data. Biometrics 48, 1992); where all cells agree, each donor counts once.
    """
    right = np.asarray(right, dtype=float)
    n = len(right)
    if not n:
        return NO_INTERVAL
    _, of = np.unique(np.asarray(donors), return_inverse=True)
    p, n_donors = right.mean(), int(of.max()) + 1
    worth = float(n_donors)
    if 0 < p < 1 and n_donors > 1:
        away = np.bincount(of, right - p)
        spread = n_donors / (n_donors - 1) * float(away @ away) / n**2
        worth = min(float(n), n * p * (1 - p) / (n - 1) / spread) if spread else float(n)
    z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
    middle = (p + z**2 / (2 * worth)) / (1 + z**2 / worth)
    half = z / (1 + z**2 / worth) * np.sqrt(p * (1 - p) / worth + z**2 / (4 * worth**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def counts_by_donor(
    y: ArrayLike, predicted: ArrayLike, donors: ArrayLike, classes: ArrayLike
) -> NDArray[np.int64]:
    """Cells by donor, true and predicted class, shape (donors, classes, classes + 1).

    The last column counts what is predicted to be none of the `classes`; every cell is truly one.
    """
    names = {str(name): k for k, name in enumerate(np.asarray(classes))}
    true = np.array([names[str(name)] for name in np.asarray(y)])
    said = np.array([names.get(str(name), len(names)) for name in np.asarray(predicted)])
    known, of = np.unique(np.asarray(donors), return_inverse=True)
    counts = np.zeros((len(known), len(names), len(names) + 1), dtype=np.int64)
    np.add.at(counts, (of, true, said), 1)
    return counts


def f1_of_counts(counts: NDArray) -> NDArray[np.float64]:
    """Macro-F1 of counts of shape (…, classes, classes + 1), over the classes that have a cell."""
    inside = counts[..., :-1]
    of_class = counts.sum(axis=-1)
    hits = np.diagonal(inside, axis1=-2, axis2=-1)
    total = of_class + inside.sum(axis=-2)
    f1 = np.divide(2 * hits, total, out=np.zeros(total.shape), where=total > 0)
    there = of_class > 0
    return (f1 * there).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)


def resampled_f1(counts: NDArray) -> NDArray[np.float64] | None:
    """Macro-F1 of resamples of the donors, each the mean over runs; None of too few donors.

    `counts` has shape (runs, donors, classes, classes + 1). The same donors are drawn for
    every model, so that differences of two are paired.
    """
    _, n, *shape = counts.shape
    if n < LEAST_DONORS:
        return None
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    of_runs = [(drawn @ run.reshape(n, -1)).reshape(-1, *shape) for run in counts]
    return np.mean([f1_of_counts(each) for each in of_runs], axis=0)


def interval_of(draws: NDArray | None) -> Interval:
    """The middle 95 % of what resamples gave."""
    if draws is None:
        return NO_INTERVAL
    low, high = np.quantile(draws, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return float(low), float(high)


def p_value_of(differences: NDArray | None) -> float:
    """Two-sided p-value that resampled differences are of no difference."""
    if differences is None:
        return float("nan")
    below, above = (differences <= 0).mean(), (differences >= 0).mean()
    return float(min(1.0, 2 * max(min(below, above), 1 / (len(differences) + 1))))
