"""Features with what follows from them, as normal scores: what the discriminant and the vote see.

Differences and ratios with a reading (a capacitance is a time constant over a resistance, a drive
the way from rest to threshold) let a model of few parameters see what it would have to learn.
``data/physics.csv`` names them. Ranks stand for values, so that a skewed feature needs no logarithm
and a failed measurement weighs no more than the next cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.features.layouts import LAYER, Layout
from crosspatch.models.arrays import Arrays, part_of, require_array, under
from crosspatch.models.coordinates import Coordinates
from crosspatch.texts import data_rows, is_number

#: Quantiles of a training set that are kept of every coordinate, and the scores that they have.
_QUANTILES = 200
_SHARES = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
_SCORES = np.array([NormalDist().inv_cdf(share) for share in _SHARES])

_LAYERS = (1, 2, 3, 4, 5, 6)

#: Scores beyond this are set to it: about what a training set of a few hundred cells determines.
_CLIP = 2.8


@dataclass(frozen=True)
class Derived:
    """A number that follows from others."""

    name: str
    #: A sum, else a product: terms are added or multiplied.
    is_sum: bool
    factor: float
    #: Names of features and of numbers above, and whether they are subtracted or divided by.
    terms: tuple[tuple[str, bool], ...]

    def of(self, known: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Its values; NaN where a part is missing or a divisor is not above zero."""
        found = np.full(len(next(iter(known.values()))), 0.0 if self.is_sum else self.factor)
        for name, inverse in self.terms:
            value = known[name]
            if self.is_sum:
                found = found - value if inverse else found + value
            elif inverse:
                found = found / np.where(value > 0, value, np.nan)
            else:
                found = found * value
        return found


@cache
def _all_derived() -> tuple[Derived, ...]:
    found = []
    for row in data_rows("models", "physics"):
        numbers = [float(term) for term in row["terms"].split() if is_number(term)]
        terms = (term for term in row["terms"].split() if not is_number(term))
        signed = tuple((term.removeprefix("-"), term.startswith("-")) for term in terms)
        factor = float(np.prod(numbers)) if numbers else 1.0
        found.append(Derived(row["name"], row["form"] == "sum", factor, signed))
    return tuple(found)


def derived_from(layout: Layout) -> tuple[Derived, ...]:
    """What follows from the features of a layout, in an order in which parts come first."""
    known, found = set(layout.feature_names), []
    for each in _all_derived():
        if known.issuperset(name for name, _ in each.terms):
            known.add(each.name)
            found.append(each)
    return tuple(found)


@dataclass(frozen=True, eq=False)
class PhysicsInputs:
    """Cells as points of which every coordinate is normal in the cells that it was fitted on."""

    layout: Layout
    coordinates: Coordinates  # of what is measured
    #: Shape (coordinates, quantiles). NaN where too few cells were measured: no score is given.
    quantiles: NDArray[np.float64]

    @classmethod
    def fit(cls, layout: Layout, X: ArrayLike) -> PhysicsInputs:
        """Learn the quantiles of every coordinate; ``X`` is NaN where missing."""
        X = np.asarray(X, dtype=np.float64)
        coordinates = Coordinates.fit(layout.measured, X)
        raw = cls(layout, coordinates, np.empty((0, _QUANTILES)))._raw(X)
        quantiles = np.full((raw.shape[1], _QUANTILES), np.nan)
        for values, into in zip(raw.T, quantiles, strict=True):
            known = values[np.isfinite(values)]
            if len(known) > 2:
                into[:] = np.quantile(known, _SHARES)
        return cls(layout, coordinates, quantiles)

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Normal scores, shape (cells, coordinates); NaN where a part was not measured."""
        raw = self._raw(np.asarray(X, dtype=np.float64))
        scores = np.full_like(raw, np.nan)
        for column, (points, of_points) in enumerate(self._scales):
            if len(points):
                scores[:, column] = np.interp(raw[:, column], points, of_points)
        scores[~np.isfinite(raw)] = np.nan
        return scores

    @cached_property
    def _scales(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Of every coordinate its distinct quantiles and the mean score of each; else neither."""
        found = []
        scores = np.clip(_SCORES, -_CLIP, _CLIP)
        for row in self.quantiles:
            known = row[np.isfinite(row).all() & np.isfinite(row)]
            values, which, count = np.unique(known, return_inverse=True, return_counts=True)
            found.append((values, np.bincount(which, scores[: len(known)]) / count))
        return found

    @cached_property
    def _derived(self) -> tuple[Derived, ...]:
        return derived_from(self.layout)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the coordinates in a layout without traces."""
        names = self.layout.feature_names
        own = [names[column] for column in self.coordinates.columns]
        layers = [f"layer {layer}" for layer in _LAYERS] if self.layout.has_layer else []
        return (*own, *layers, *(each.name for each in self._derived))

    def _raw(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        parts = [self.coordinates.of(X)]
        known = dict(zip(self.layout.feature_names, X.T, strict=True))
        if self.layout.has_layer:
            # Subclasses have no order in depth. A cell at a border is half in either layer.
            away = np.abs(known[LAYER.name][:, None] - np.array(_LAYERS))
            parts.append(np.clip(1 - away, 0, None))
        for each in self._derived:
            known[each.name] = each.of(known)
            parts.append(known[each.name][:, None])
        return np.hstack(parts)

    def arrays(self) -> dict[str, NDArray]:
        """What was learnt, to be stored."""
        return {"quantiles": self.quantiles, **under("coordinates", self.coordinates.arrays())}

    @classmethod
    def of_arrays(cls, layout: Layout, arrays: Arrays) -> PhysicsInputs:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        coordinates = Coordinates.of_arrays(layout.measured, part_of("coordinates", arrays))
        count = coordinates.count + len(derived_from(layout))
        count += len(_LAYERS) if layout.has_layer else 0
        quantiles = arrays["quantiles"]
        require_array("quantiles", np.nan_to_num(quantiles), (count, _QUANTILES))
        return cls(layout, coordinates, quantiles)
