"""Cells of another laboratory, moved onto those that a model learned from.

Another amplifier, temperature or solution shifts all cells of a batch alike: potentials by so many
mV, widths, times, currents and resistances by a factor. So does recording one class only, or other
neurons. Here the cells are a mixture of the types that the model knows, in any proportions, with
one shift per feature, and the shift is taken back where it is large beyond doubt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.errors import ModelError
from crosspatch.models.laboratory import FAR_SHIFTED, FREEDOM, Laboratory, by_class, whitened
from crosspatch.models.missing import over_rows
from crosspatch.models.verdicts import COVERAGE

#: Fewest cells that are moved by themselves, and by labelled ones; most that are looked at.
MIN_CELLS, MIN_LABELLED, MOST_CELLS = 20, 10, 2000

# What a shift must add to the logarithm of the likelihood, per value (benchmarks/adaptation.py): of
# batches of held-out donors it is 0.05 at most, of human cells in another condition 0.11, of one
# class of these 0.18; the motor cortex of another laboratory has 0.7 to 1.1.
_GAIN = 0.2
#: From so many cells on, less than that is said, though nothing is moved.
_SAID_GAIN, _SAID_CELLS = 0.04, 30
#: A batch of one class alone may as well be of another kind of neuron.
_ONE_CLASS = 0.9
# Cells without a shift, that it is drawn towards.
_STILL_CELLS = 1.0
# The mean of a class gives way to a user's cells as if it were of so many, per feature.
_OWN_CELLS = 2.0
_ITERATIONS, _TOLERANCE = 60, 1e-3


class Difference(NamedTuple):
    """A feature in which a batch differs from a model's laboratory, in cells of the same type."""

    feature: str
    unit: str
    is_factor: bool
    amount: float  # a factor, or a difference in `unit`
    in_sd: float  # of cells about their type

    def __str__(self) -> str:
        if self.is_factor:
            return f"{self.feature} ×{self.amount:.3g}"
        return f"{self.feature} {self.amount:+.3g}{'' if self.unit == 'ratio' else f' {self.unit}'}"


@dataclass(frozen=True, eq=False)
class Alignment:
    """How a batch differs from a model's laboratory, and whether that is taken back."""

    laboratory: Laboratory
    #: Shape (features,). The shift that was found, in coordinates of the laboratory.
    shift: NDArray[np.float64]
    #: Shape (classes, features). How far the mean of each class gives way to the user's own cells.
    offsets: NDArray[np.float64]
    proportions: NDArray[np.float64]  # shape (classes,): estimated shares of the batch
    cells: int  # cells that counted
    gain: float  # what the shift adds to the logarithm of the likelihood, per value
    why_not: str  # why cells are left as they are; empty if they are moved

    @property
    def moves(self) -> bool:
        """Whether `moved` changes anything."""
        return not self.why_not

    @property
    def unlike(self) -> bool:
        """Whether the batch differs by more than donors do, moved or not."""
        return self.moves or (self.gain >= _SAID_GAIN and self.cells >= _SAID_CELLS)

    def moved(self, X: ArrayLike) -> NDArray[np.float64]:
        """Cells as the model's laboratory would have measured them, in the units of the layout.

        Shape (cells, features), NaN where they are NaN, and as they are where they are not moved;
        columns behind those of the laboratory's layout, where cells lie, are left alone.
        """
        found = np.array(X, dtype=np.float64)
        if not self.moves:
            return found
        here = self.laboratory
        values, shift = found[:, : len(here.layout.features)], self.shift * here.scale
        positive = here.logs & (values > 0)
        scaled = values * np.exp(-np.where(here.logs, shift, 0.0))
        values[:] = np.where(positive, scaled, np.where(here.logs, values, values - shift))
        return found

    def evidence(self, X: ArrayLike) -> NDArray[np.float64] | None:
        """What the user's own cells add to the logarithm of probabilities, shape (cells, classes).

        Of cells as `moved` gives them. None where there are no such cells.
        """
        if not self.offsets.any():
            return None
        Z = np.clip(self.laboratory.coordinates(X), -FAR_SHIFTED, FAR_SHIFTED)
        means = self.laboratory.gaussians.means
        own = means + self.offsets[self.laboratory.class_of]
        return by_class(self.laboratory, Z, own) - by_class(self.laboratory, Z, means)

    def differences(self) -> list[Difference]:
        """Features that are shifted by half a standard deviation or more, largest first."""
        here = self.laboratory
        in_sd, amount = self.shift / here.spread, self.shift * here.scale
        found = [
            Difference(
                feature.name,
                feature.unit,
                bool(here.logs[k]),
                float(np.exp(amount[k]) if here.logs[k] else amount[k]),
                float(in_sd[k]),
            )
            for k, feature in enumerate(here.layout.features)
            if abs(in_sd[k]) >= 0.5
        ]
        return sorted(found, key=lambda difference: -abs(difference.in_sd))

    def in_words(self, species: str, *, moves: bool) -> str:
        """What is said of a batch that is measured differently, which may be moved or not."""
        found = self.differences()
        shifts = ", ".join(map(str, found[:4])) + (", …" if len(found) > 4 else "")
        first = f"its cells are measured differently than the {species} reference ({shifts})"
        if not self.moves:
            return (
                f"{first}, as those of another condition or laboratory; they are judged as they "
                f"are ({self.why_not}), and their sets may cover less than {COVERAGE:.0%}"
            )
        if not moves:
            return f"{first}; they are judged as they are, as was asked for"
        return (
            f"{first}; they are moved onto it, as if measured there, before they are judged; that "
            f"their sets cover {COVERAGE:.0%} is then no promise (`crosspatch validate`)"
        )


class Labelled(NamedTuple):
    """A user's own cells whose class is known."""

    X: NDArray[np.float64]  # shape (cells, features), in the units of the layout
    codes: NDArray[np.intp]  # shape (cells,): numbers of their classes


def align(
    X: ArrayLike,
    laboratory: Laboratory,
    *,
    labelled: Labelled | None = None,
    counted: NDArray[np.bool_] | None = None,
) -> Alignment:
    """How a batch of one laboratory and species differs from a model's.

    ``X``, shape (cells, features), is in the units of the layout, NaN where missing. The cells are
    a mixture of the model's types, t distributions about means that are all shifted alike, with
    free proportions of the classes; both are fitted by expectation maximisation, from no shift and
    from that of the means. `labelled` cells are of their class. Those not `counted`, such as cells
    that are no interneurons, have no say; where they are more than half, nothing is moved. Nor is
    it where there are fewer than `MIN_CELLS`, where the shift gains less than 0.2 per value, and
    where nearly all cells seem to be of one class of which none is labelled: cells of another kind
    could be moved onto it.

    Peel D, McLachlan GJ (2000) Robust mixture modelling using the t distribution. Statistics and
    Computing 10:339-348. Saerens M, Latinne P, Decaestecker C (2002) Adjusting the outputs of a
    classifier to new a priori probabilities. Neural Computation 14:21-41.
    """
    n_classes, n_features = len(laboratory.priors), len(laboratory.layout.features)
    X = np.asarray(X, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] < n_features:
        raise ModelError(
            f"cells to align must be an array of {n_features} features (layout "
            f"'{laboratory.layout.name}'), not of shape {X.shape}"
        )
    count = np.ones(len(X), dtype=bool) if counted is None else counted
    X = X[count]
    some = np.linspace(0, len(X) - 1, MOST_CELLS).astype(np.intp) if len(X) > MOST_CELLS else ...
    Z = laboratory.coordinates(X[some])
    codes = np.full(len(Z), -1)
    if labelled is not None:
        Z = np.vstack([laboratory.coordinates(labelled.X), Z])
        codes = np.append(labelled.codes, codes)
    known = np.isfinite(Z)
    Z, codes = Z[known.any(axis=1)], codes[known.any(axis=1)]
    nothing = np.zeros(n_features), np.zeros((n_classes, n_features)), laboratory.priors
    if len(Z) < MIN_CELLS and (codes >= 0).sum() < MIN_LABELLED:
        why = f"{len(Z)} cells with values are fewer than {MIN_CELLS}"
        return Alignment(laboratory, *nothing, len(Z), 0.0, why)
    mixture = _Mixture(laboratory, np.clip(Z, -FAR_SHIFTED, FAR_SHIFTED), codes)
    still = mixture.fit(None)
    best = max((mixture.fit(start) for start in mixture.starts()), key=lambda fit: fit.height)
    gain = (best.height - still.height) / known.sum()
    why = _why_not(gain, best.proportions, codes, count)
    chosen = still if why else best
    return Alignment(
        laboratory,
        best.shift,
        mixture.offsets(chosen) if labelled is not None else nothing[1],
        best.proportions,
        len(Z),
        float(gain),
        why,
    )


def _why_not(
    gain: float,
    proportions: NDArray[np.float64],
    codes: NDArray[np.intp],
    counted: NDArray[np.bool_],
) -> str:
    if gain < _GAIN:
        return "they are not shifted as a whole"
    if len(counted) and counted.mean() < 0.5:
        return "most of them seem to be no interneurons"
    largest = proportions.argmax()
    if proportions[largest] > _ONE_CLASS and largest not in codes:
        return "they seem to be of one class, onto which cells of another kind could be moved"
    return ""


class _Fit(NamedTuple):
    """A mixture that was fitted."""

    shift: NDArray[np.float64]
    proportions: NDArray[np.float64]
    shares: NDArray[np.float64]  # shape (cells, types): how probable each is
    height: float  # logarithm of the likelihood, with what draws shift and proportions


class _Mixture:
    """Cells as a mixture of shifted types; codes are -1 where the class is not known."""

    def __init__(self, laboratory: Laboratory, Z: NDArray, codes: NDArray[np.intp]):
        self.laboratory, self.Z, self.codes = laboratory, Z, codes
        self.known = np.isfinite(Z)
        self.counts = self.known.sum(axis=1)
        gaussians = laboratory.gaussians
        self.white = whitened(Z, gaussians.means, gaussians.covariance)
        self.allowed = (codes[:, None] < 0) | (codes[:, None] == laboratory.class_of)
        #: Made-up cells of every class, so that none is ruled out.
        self.made_up = laboratory.priors * len(laboratory.priors)
        self.pull = np.where(self.known.any(axis=0), _STILL_CELLS / laboratory.spread**2, 0.0)

    def starts(self) -> list[NDArray[np.float64]]:
        """Shifts to begin with: none, and what sets the mean apart from that of all types."""
        here = self.laboratory
        mean = (here.priors[here.class_of] * here.shares) @ here.gaussians.means
        apart = over_rows(np.nanmean, self.Z, 0.0) - mean
        return [np.zeros(len(apart)), np.where(self.known.any(axis=0), apart, 0.0)]

    def fit(self, start: NDArray[np.float64] | None) -> _Fit:
        """Expectation maximisation; without a start nothing is shifted."""
        shift = np.zeros(self.Z.shape[1]) if start is None else start
        proportions = self.laboratory.priors
        classes = np.eye(len(proportions))[self.laboratory.class_of]
        free = self.codes < 0
        for _ in range(_ITERATIONS):
            squared, shares, height = self._expect(shift, proportions)
            before = np.append(shift, proportions)
            found = shares[free].sum(axis=0) @ classes + self.made_up
            proportions = found / found.sum()
            if start is not None:
                shift = self._maximise(squared, shares)
            if np.abs(np.append(shift, proportions) - before).max() < _TOLERANCE:
                break
        height += float(self.made_up @ np.log(proportions) - self.pull @ shift**2 / 2)
        return _Fit(shift, proportions, shares, height)

    def _expect(
        self, shift: NDArray[np.float64], proportions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Squared distances, how probable each type is, and the log likelihood but a constant."""
        here, squared = self.laboratory, np.empty(self.allowed.shape)
        for part in self.white:
            squared[part.rows] = part.squared(shift)
        score = np.log(proportions[here.class_of] * here.shares)
        half = (FREEDOM + self.counts[:, None]) / 2
        score = np.where(self.allowed, score - half * np.log1p(squared / FREEDOM), -np.inf)
        top = score.max(axis=1, keepdims=True)
        shares = np.exp(score - top)
        total = shares.sum(axis=1, keepdims=True)
        return squared, shares / total, float((top + np.log(total)).sum())

    def _maximise(
        self, squared: NDArray[np.float64], shares: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        weights = shares * (FREEDOM + self.counts[:, None]) / (FREEDOM + squared)
        information, pulled = np.diag(self.pull), np.zeros(self.Z.shape[1])
        for part in self.white:
            here = weights[part.rows]
            of_cells = here.sum(axis=1)
            rest = of_cells @ part.cells - here.sum(axis=0) @ part.types
            precision = part.factor.T @ part.factor
            information[np.ix_(part.columns, part.columns)] += of_cells.sum() * precision
            pulled[part.columns] += part.factor.T @ rest
        measured = self.known.any(axis=0)
        shift = np.zeros(len(pulled))
        shift[measured] = np.linalg.solve(information[np.ix_(measured, measured)], pulled[measured])
        return shift

    def offsets(self, fit: _Fit) -> NDArray[np.float64]:
        """How far the labelled cells of each class are from its types, drawn to nothing."""
        rest = np.where(self.known, self.Z - fit.shift, 0.0)
        rest -= np.where(self.known, fit.shares @ self.laboratory.gaussians.means, 0.0)
        least = _OWN_CELLS * self.known.any(axis=0).sum()
        of_class = np.eye(len(self.laboratory.priors) + 1)[:-1, self.codes]  # -1: of none
        return (of_class @ rest) / (of_class @ self.known + least)
