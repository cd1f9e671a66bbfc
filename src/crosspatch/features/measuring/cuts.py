"""Sweeps as they are measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Cut:
    """A sweep, cut to the part that is measured."""

    number: int  # the sweep's number in its file
    rate: float  # Hz
    #: Shape (samples,), contiguous. mV.
    voltage: NDArray[np.float64]
    #: Number of the first sample on the time axis: that of sample k is (k + first) / rate, in s.
    first: int
    onset: int  # sample of the cut at which the stimulus begins
    duration: float  # how long it lasts, s
    amplitude: float  # of the stimulus above holding, pA

    def time(self, sample: float) -> float:
        """When a sample was taken, s."""
        return (sample + self.first) / self.rate

    def nearest(self, time: float) -> int:
        """The sample nearest to a time in s, the first of two; an end for what lies beyond it."""
        last = len(self.voltage) - 1
        near = min(max(round(time * self.rate) - self.first, 0), last)
        around = range(max(near - 1, 0), min(near + 1, last) + 1)
        return min(around, key=lambda sample: abs(self.time(sample) - time))

    def mean(self, start: float, end: float) -> float:
        """Mean potential from one time, s, to before another; NaN where that is no sample."""
        part = self.voltage[self.nearest(start) : self.nearest(end)]
        return float(part.mean()) if len(part) else float("nan")


def on_one_axis(cuts: Sequence[Cut]) -> tuple[list[Cut], float, float]:
    """Sweeps on the time axis that they share, and when their stimulus begins and ends on it, s.

    Where onsets differ, the commonest counts and the others are shifted.
    """
    rate = cuts[0].rate
    onset = Counter(cut.first + cut.onset for cut in cuts).most_common(1)[0][0]
    moved = [replace(cut, first=onset - cut.onset) for cut in cuts]
    return moved, onset / rate, (onset + round(cuts[0].duration * rate)) / rate
