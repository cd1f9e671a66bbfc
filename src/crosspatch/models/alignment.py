"""Cells of another laboratory, moved onto the reference without labels.

Another amplifier, temperature or liquid junction potential moves the means of a batch. So does
recording one class only. Here the classes of the reference may have any proportions, and only what
these do not explain counts as a shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.errors import ModelError
from crosspatch.models.reference import Reference

#: Fewest cells that are aligned or judged.
MIN_CELLS = 10
# Chosen on mouse cells and simulated shifts; see benchmarks/adaptation.py.
_PRIOR_CELLS = 20.0
_FREEDOM = 10.0
#: What batches of one laboratory differ by anyway (donors, days), SD within a class.
_USUAL = 0.15
_LEVEL = 0.05
_ITERATIONS = 200
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Difference:
    """A feature in which a batch differs from the reference."""

    feature: str
    unit: str
    shift: float  # batch minus reference for cells of the same class, in `unit`, drawn towards 0
    in_sd: float  # the shift in standard deviations of the reference's cells about their class
    p: float  # Two-sided, times the number of features measured (Bonferroni), at most 1


@dataclass(frozen=True)
class Alignment:
    """What `align` did to a batch."""

    #: Shape (features,). What was subtracted from every cell, in the units of the layout; 0 if
    #: nothing was.
    shift: NDArray[np.float64]
    differences: tuple[Difference, ...]  # as `differs` gives them
    #: Class to its estimated share of the batch; empty if the batch is too small.
    proportions: dict[str, float]
    cells: int  # cells with at least one value
    why_not: str  # why the batch was left as it is; empty if it was aligned

    @property
    def aligned(self) -> bool:
        """Whether anything was subtracted."""
        return not self.why_not


def align(X: ArrayLike, reference: Reference) -> tuple[NDArray[np.float64], Alignment]:
    """Subtract from a batch of cells what sets it apart from the reference.

    The cells are taken as a mixture of the reference's classes with free proportions and one shift
    per feature, fitted by expectation maximisation. The classes are t distributions with 10 degrees
    of freedom, so that odd cells count less (Peel and McLachlan 2000). The shift is drawn to zero
    as by 20 cells without one. A batch in which no feature `differs`, or of fewer than `MIN_CELLS`
    cells, is left as it is.

    For a difference of instruments or temperature only, in a batch of one laboratory and species.
    Simulated ones were taken back; between acute and cultured human cells, and between mouse and
    human, predictions after this were worse than without it (benchmarks/results/adaptation.md).
    The classes of such cells differ each in its own way, or are no longer told apart.

    The cells, shape (cells, features), are in the units of the reference's layout, which must have
    single numbers only; what is given back is a copy, NaN where they are NaN.

    Peel D, McLachlan GJ (2000) Robust mixture modelling using the t distribution. Statistics and
    Computing 10:339-348.
    Saerens M, Latinne P, Decaestecker C (2002) Adjusting the outputs of a classifier to new a
    priori probabilities. Neural Computation 14:21-41. (Proportions of classes by expectation
    maximisation.)
    """
    X = np.array(X, dtype=np.float64)
    Z = _coordinates(X, reference)
    cells = int(np.isfinite(Z).any(axis=1).sum())
    still = np.zeros(X.shape[1])
    if cells < MIN_CELLS:
        why = f"it has {cells} cells with values, fewer than {MIN_CELLS}"
        return X, Alignment(still, (), {}, cells, why)
    shift, error, proportions = _fit(Z, reference)
    found = tuple(_differences(Z, shift, error, reference))
    shares = dict(zip(reference.classes_.tolist(), proportions.tolist(), strict=True))
    if not found:
        why = "no feature differs from the reference"
        return X, Alignment(still, found, shares, cells, why)
    known = np.isfinite(reference.scale_)
    still[reference.coordinates_.columns] = np.where(known, shift * reference.scale_, 0.0)
    return X - still, Alignment(still, found, shares, cells, "")


def differs(X: ArrayLike, reference: Reference) -> list[Difference]:
    """The features in which a batch differs from the reference, whatever its classes.

    A feature is named where its shift (see `align`, also for what is given and raised) is more than
    chance and a standard deviation of 0.15 between batches of one laboratory explain, at 5 % over
    all features together. Of batches of held-out donors, mouse and human, at most 1 % had such a
    feature (benchmarks/results/adaptation.md). Largest first; none for fewer
    than `MIN_CELLS` cells.
    """
    return list(align(X, reference)[1].differences)


def _coordinates(X: NDArray[np.float64], reference: Reference) -> NDArray[np.float64]:
    layout = reference.layout
    if reference.coordinates_.traces or len(reference.scale_) != len(layout.features):
        raise ModelError(
            f"layout '{layout.name}' has traces, and only layouts of single numbers can be aligned",
            hint="use the features of {layout} shared or full, or do not align",
        )
    # Where cells lie comes after what is measured, and is not aligned.
    if X.ndim != 2 or X.shape[1] < len(layout.features):
        raise ModelError(
            f"cells to align must be an array of {len(layout.features)} features (layout "
            f"'{layout.name}'), not of shape {X.shape}"
        )
    return reference.coordinates(np.where(np.isfinite(X), X, np.nan))


def _fit(Z: NDArray, reference: Reference) -> tuple[NDArray, NDArray, NDArray]:
    """Shift and its standard error in coordinates, and class proportions."""
    measured = np.isfinite(Z)
    patterns, which = np.unique(measured[measured.any(axis=1)], axis=0, return_inverse=True)
    Z = Z[measured.any(axis=1)]
    which = np.ravel(which)
    groups = [
        (np.flatnonzero(which == number), _precision(reference.covariance_, pattern))
        for number, pattern in enumerate(patterns)
    ]
    counts = patterns.sum(axis=1)[which][:, None]
    classes = len(reference.means_)
    apart = np.where(np.isfinite(Z), Z, 0.0)[:, None, :] - reference.means_
    distance = np.empty((len(Z), classes))
    prior = np.diag(_PRIOR_CELLS / np.diag(reference.covariance_))
    shift: NDArray[np.float64] = np.zeros(Z.shape[1])
    proportions = np.asarray(reference.priors_, dtype=np.float64)
    for _ in range(_ITERATIONS):
        for rows, precision in groups:
            rest = apart[rows] - shift
            distance[rows] = ((rest @ precision) * rest).sum(axis=-1)
        score = np.log(proportions) - (_FREEDOM + counts) / 2 * np.log1p(distance / _FREEDOM)
        share = np.exp(score - score.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        # One made-up cell of every class, so that no class is ruled out.
        proportions = (share.sum(axis=0) + 1) / (len(Z) + classes)
        weight = share * (_FREEDOM + counts) / (_FREEDOM + distance)
        information, pull = prior.copy(), np.zeros(Z.shape[1])
        for rows, precision in groups:
            information += weight[rows].sum() * precision
            pull += precision @ np.einsum("ic,icf->f", weight[rows], apart[rows])
        before = shift
        shift = np.asarray(np.linalg.solve(information, pull), dtype=np.float64)
        if np.abs(shift - before).max() < _TOLERANCE:
            break
    inverse = np.linalg.inv(information)
    error = np.sqrt(np.diag(inverse @ (information - prior) @ inverse))
    return shift, error, proportions


def _precision(covariance: NDArray[np.float64], pattern: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Inverse of the covariance of what was measured, zero elsewhere."""
    precision = np.zeros_like(covariance)
    here = np.ix_(pattern, pattern)
    precision[here] = np.linalg.inv(covariance[here])
    return precision


def _differences(
    Z: NDArray, shift: NDArray, error: NDArray, reference: Reference
) -> list[Difference]:
    from scipy.special import ndtr  # not for single cells

    spread = np.sqrt(np.diag(reference.covariance_))
    measured = np.isfinite(Z).any(axis=0)
    score = np.abs(shift / spread) / np.hypot(error / spread, _USUAL)
    p = np.minimum(2 * ndtr(-score) * measured.sum(), 1.0)
    features = [reference.layout.features[column] for column in reference.coordinates_.columns]
    found = [
        Difference(
            feature=features[k].name,
            unit=features[k].unit,
            shift=float(shift[k] * reference.scale_[k]),
            in_sd=float(shift[k] / spread[k]),
            p=float(p[k]),
        )
        for k in np.flatnonzero(measured & (p < _LEVEL))
    ]
    return sorted(found, key=lambda difference: -abs(difference.in_sd))
