"""How far apart the subclasses lie: silhouette and d′, with permutation p-values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, islice

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import pairwise_distances

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import EvaluationError
from crosspatch.explanation.components import Space
from crosspatch.explanation.result_tables import table_of

#: Groups of donors in the cross-validation of d′.
_FOLDS = 5
#: Permutations whose silhouettes are computed at once.
_BATCH = 25
#: Silhouettes are sums of single-precision distances; ties within this count as ties.
_ROUNDING = 1e-6


def separation_table(
    spaces: Mapping[str, Space], *, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Separation of the subclasses in the sparse-PCA space, per species.

    Every species has the space fitted on its own cells, without labels, and only cells that have
    every family are measured: a filled-in family would put cells where they are not. See
    `separation` for the measures and for what the p-values test. ``cells`` are those of both groups
    that were measured, ``components`` the dimensions of the space.
    """
    parts = []
    for species, space in spaces.items():
        cells, here = space.cells, space.complete
        measured = space.scores[here], cells.y[here], cells.donors[here]
        try:
            part = separation(*measured, permutations=permutations, seed=seed)
        except EvaluationError as error:
            raise EvaluationError(f"{species} cells that have every family: {error}") from error
        parts.append(part.assign(species=species, features=cells.features))
    return table_of("separation", parts)


def separation(
    Z: ArrayLike, y: ArrayLike, donors: ArrayLike, *, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Silhouette and d′ of classes of cells, with permutation p-values.

    Silhouette (Rousseeuw 1987): of all cells, and the mean over each class. It compares the
    distance to the own class with that to the nearest other, so it is low for classes that overlap
    or hold several groups, even where they can be told apart.

    d′ of two classes (Green and Swets 1966, with the mean of both variances as in Simpson and
    Fitter 1973): the distance between their means in standard deviations, along the line through
    the means. The line is found without the donors that are measured on it, in five groups of
    donors: on its own cells it would fit their noise and give a d′ above 0 where there is none.

    The p-value is (1 + permutations at least as separated) / (1 + permutations), one-sided. It
    tests that labels say nothing about the cells, among donors as well as within them. Cells of a
    donor are alike, and donors were often chosen for one class (the Cre line of a mouse), so free
    shuffling of the cells would find separation where only donors differ. Labels are therefore
    exchanged as a whole between donors with the same number of cells, and among the cells of a
    donor (multi-level block permutation, Winkler et al. 2015). What a class shares because its
    donors are of one line or one disease is still part of the separation.

    `Z`, shape (cells, components), has no missing values; the seed is for the groups of donors and
    the permutations. The table has ``metric``, ``a``, ``b``, ``cells``, ``value`` (NaN where a
    class has too few donors for a d′), ``p_value``, ``permutations`` and ``components``.

    Green DM, Swets JA (1966) Signal detection theory and psychophysics.
    Rousseeuw PJ (1987) Silhouettes. J Comput Appl Math 20:53-65.
    Simpson AJ, Fitter MJ (1973) What is the best index of detectability? Psychol Bull 80:481-488.
    Winkler AM et al. (2015) Multi-level block permutation. NeuroImage 123:253-268.
    """
    points = np.asarray(Z, dtype=np.float64)
    labels, blocks = np.asarray(y).astype(str), np.asarray(donors).astype(str)
    classes = load_taxonomy().ordered(labels)
    if len(classes) < 2:
        raise EvaluationError("separation needs cells of at least two subclasses")
    if len(set(blocks)) < 2:
        raise EvaluationError("separation needs cells of at least two donors")
    codes = np.array([classes.index(name) for name in labels])
    pairs = list(combinations(range(len(classes)), 2))
    rng = np.random.default_rng(seed)
    measure = _Measures(points, _folds(blocks, rng), len(classes), pairs)
    observed = measure(codes[None, :])[0]
    reached = np.zeros(len(observed))
    shuffled = islice(_permuted(codes, blocks, rng), permutations)
    while batch := list(islice(shuffled, _BATCH)):
        reached += (measure(np.stack(batch)) >= observed - _ROUNDING).sum(axis=0)
    counts = np.bincount(codes, minlength=len(classes))
    who: list[tuple[str, str, str, int]] = [
        ("silhouette", "all", "all", len(codes)),
        *(("silhouette", name, "rest", len(codes)) for name in classes),
        *(("d_prime", classes[a], classes[b], counts[a] + counts[b]) for a, b in pairs),
    ]
    return pd.DataFrame(who, columns=["metric", "a", "b", "cells"]).assign(
        value=observed,
        p_value=np.where(np.isfinite(observed), (1 + reached) / (1 + permutations), np.nan),
        permutations=permutations,
        components=points.shape[1],
    )


def _folds(donors: NDArray[np.str_], rng: np.random.Generator) -> NDArray[np.intp]:
    """Group of every cell; by donor and blind to labels, so that permutations share them."""
    names, which = np.unique(donors, return_inverse=True)
    groups = np.arange(len(names)) % min(_FOLDS, len(names))
    return rng.permutation(groups)[which]


def _permuted(codes: NDArray, donors: NDArray, rng: np.random.Generator) -> Iterator[NDArray]:
    """Labels exchanged among donors of the same size, and within donors; without end."""
    by_size: dict[int, list[NDArray[np.intp]]] = {}
    for donor in np.unique(donors):
        cells = np.flatnonzero(donors == donor)
        by_size.setdefault(len(cells), []).append(cells)
    blocks = [np.stack(of_donors) for of_donors in by_size.values()]  # each (donors, their cells)
    while True:
        shuffled = np.empty_like(codes)
        for block in blocks:
            shuffled[block] = rng.permuted(rng.permutation(codes[block], axis=0), axis=1)
        yield shuffled


class _Measures:
    """All measures of many labellings of the same cells."""

    def __init__(
        self, points: NDArray, folds: NDArray, n_classes: int, pairs: list[tuple[int, int]]
    ):
        self.points = points
        self.rows_of_fold = [np.flatnonzero(folds == fold) for fold in range(folds.max() + 1)]
        self.n_classes = n_classes
        self.first, self.second = (np.array(side) for side in zip(*pairs, strict=True))
        # Single precision: a few thousand labellings are multiplied with it.
        self.distances = pairwise_distances(points).astype(np.float32)

    def __call__(self, codes: NDArray[np.intp]) -> NDArray[np.float64]:
        """Overall silhouette, silhouettes of the classes, d′ of the pairs, one row per labelling.

        The labellings have shape (labellings, cells).
        """
        silhouettes = self._silhouettes(codes)
        of_class = [
            np.where(codes == k, silhouettes, 0.0).sum(axis=1) / (codes == k).sum(axis=1)
            for k in range(self.n_classes)
        ]
        primes = np.stack([self._d_primes(labelling) for labelling in codes])
        return np.hstack([np.column_stack([silhouettes.mean(axis=1), *of_class]), primes])

    def _silhouettes(self, codes: NDArray[np.intp]) -> NDArray[np.float64]:
        """Of every cell, as scikit-learn's `silhouette_samples`, which takes them one by one."""
        labellings, n = codes.shape
        member = codes[:, :, None] == np.arange(self.n_classes)
        counts = member.sum(axis=1)  # (labellings, classes)
        flat = member.transpose(1, 0, 2).reshape(n, -1).astype(np.float32)
        sums = (self.distances @ flat).reshape(n, labellings, -1).transpose(1, 0, 2)
        own = np.take_along_axis(sums, codes[:, :, None], axis=2)[:, :, 0].astype(np.float64)
        own_count = np.take_along_axis(counts, codes, axis=1)
        within = own / np.maximum(own_count - 1, 1)
        means = sums / np.maximum(counts, 1)[:, None, :]
        between = np.where(member | (counts == 0)[:, None, :], np.inf, means).min(axis=2)
        wider = np.maximum(within, between)
        values = np.divide(between - within, wider, out=np.zeros_like(within), where=wider > 0)
        return np.where(own_count > 1, values, 0.0)

    def _d_primes(self, codes: NDArray[np.intp]) -> NDArray[np.float64]:
        """Of every pair, held-out donors measured along the line through the others' means."""
        member = (codes[:, None] == np.arange(self.n_classes)).astype(np.float64)
        sums_of_fold = np.stack([member[rows].T @ self.points[rows] for rows in self.rows_of_fold])
        counts_of_fold = np.stack([member[rows].sum(axis=0) for rows in self.rows_of_fold])
        sums, counts = sums_of_fold.sum(axis=0), counts_of_fold.sum(axis=0)
        shape = (self.n_classes, len(self.first))
        total, first_moment, second_moment = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for fold, rows in enumerate(self.rows_of_fold):
            left = counts - counts_of_fold[fold]
            means = (sums - sums_of_fold[fold]) / np.maximum(left, 1)[:, None]
            a, b = means[self.first], means[self.second]
            length = np.linalg.norm(a - b, axis=1)
            usable = (left[self.first] > 0) & (left[self.second] > 0) & (length > 0)
            axes = (a - b) / np.where(length > 0, length, 1.0)[:, None]
            # From the middle between the means, so that all folds are on one scale.
            along = self.points[rows] @ axes.T - ((a + b) / 2 * axes).sum(axis=1)
            here = member[rows].T
            total += counts_of_fold[fold][:, None] * usable
            first_moment += (here @ along) * usable
            second_moment += (here @ along**2) * usable
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = first_moment / total
            variance = (second_moment - total * mean**2) / (total - 1)
            variance = np.where(total > 1, np.maximum(variance, 0.0), np.nan)
            pair = np.arange(len(self.first))
            spread = np.sqrt((variance[self.first, pair] + variance[self.second, pair]) / 2)
            values = (mean[self.first, pair] - mean[self.second, pair]) / spread
        return np.where(np.isfinite(values), values, np.nan)
