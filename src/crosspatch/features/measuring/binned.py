"""Spikes of a step in bins of time, and steps that are missing made up from their neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Vector = NDArray[np.float64]


class Bins:
    """Equal bins of `width` ms of a step from start to end, s; one not whole is left out."""

    def __init__(self, start: float, end: float, width: int) -> None:
        self.edges = np.linspace(start, end, round((end - start) * 1000) // width + 1)

    def __len__(self) -> int:
        return len(self.edges) - 1

    def _places(self, times: _Vector) -> NDArray[np.intp]:
        """The bin of each time, s, from 1 on; the last one's end belongs to it."""
        places = np.searchsorted(self.edges, times, side="right")
        places[np.abs(times - self.edges[-1]) < 5e-8] = len(self)
        return places

    def rate(self, times: _Vector) -> _Vector:
        """Spikes/s in every bin."""
        counts = np.bincount(self._places(times), minlength=len(self) + 2)[1:-1]
        return np.asarray(counts / (self.edges[1] - self.edges[0]))

    def means(self, times: _Vector, values: _Vector) -> _Vector:
        """Mean of what falls into each bin; empty ones lie on the line between their neighbours."""
        places = self._places(times)
        counts = np.bincount(places, minlength=len(self) + 2)[1:-1]
        sums = np.bincount(places, values, len(self) + 2)[1:-1]
        there = np.flatnonzero(counts)
        if not len(there):
            return np.full(len(self), np.nan)
        return np.interp(np.arange(len(self)), there, sums[there] / counts[there])

    def instantaneous_rate(self, times: _Vector) -> _Vector:
        """Inverse of the mean interval before and after each spike, spikes/s, in every bin.

        The step's start counts as a spike, and its end as one where it is later than the last
        interval would have it (Gouwens et al. 2020).
        """
        start, end = self.edges[0], self.edges[-1]
        intervals = np.diff(times, prepend=start)
        intervals = np.append(intervals, max(intervals[-1], end - times[-1]))
        inverse = (intervals[1:] + intervals[:-1]) / 2
        inverse = np.concatenate([intervals[:1], inverse, intervals[-1:]])
        return self.means(np.concatenate([[start], times, [end]]), 1 / inverse)


def steps_at(amplitudes: _Vector, targets: Sequence[float], tolerance: float) -> list[int | None]:
    """For every target the first step within a tolerance, pA."""
    near = [np.flatnonzero(np.abs(amplitudes - target) <= tolerance) for target in targets]
    return [int(found[0]) if len(found) else None for found in near]


def one_per_step(amplitudes: _Vector, rates: _Vector) -> list[int]:
    """One sweep of each amplitude, by first appearance: of repeats, that of the median rate."""
    chosen = []
    for amplitude in dict.fromkeys(amplitudes.tolist()):
        same = np.flatnonzero(amplitudes == amplitude)
        off = np.abs(rates[same] - np.median(rates[same]))
        chosen.append(int(same[off.argmin()]))
    return chosen


def filled(parts: Sequence[_Vector | None]) -> NDArray[np.float64]:
    """All parts, shape (parts, bins): a missing one is the mean of its neighbours, or the only."""
    there = {k: part for k, part in enumerate(parts) if part is not None}
    result = []
    for k in range(len(parts)):
        below = [part for j, part in there.items() if j < k][-1:]
        above = [part for j, part in there.items() if j > k][:1]
        result.append(there[k] if k in there else np.mean([*below, *above], axis=0))
    return np.asarray(result)
