"""Pulses of a command: what departs from the holding current, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.model import Samples

FLAT, RISING, SHAPELESS = "flat", "ramp", "other"

#: A ramp rises for at least this long, s.
RAMP_LENGTH = 0.1
#: Departure of a ramp from a straight line, as a share of its height.
STRAIGHT = 0.03
#: Smallest pulse, pA.
SMALLEST = 0.5
#: A test pulse ends before this time, s (IPFX 2.1.2, epochs.TEST_PULSE_MAX_TIME).
TEST_PULSE_BEFORE = 0.4
#: Changes no further apart than this belong together, s …
_TOGETHER = 0.05
#: … and so many of them are edges of squares, not a wave.
_EDGES = 8
#: A digital command has no more changes than this, or seldom turns; one that was measured turns
#: at such a share of its changes, at so many of its samples or by no more than this, pA …
_FEW, _FLICKERS, _GRAIN = 50, 0.2, 5.0
_LOOKED_AT = 20_000  # changes, from the first on
#: … or it is not constant in its first part, s, and turns there so often.
_BEGINNING, _TURNS = 0.04, 2
#: An edge that a filter made smooth lasts less than this, s.
_SMOOTH = 0.005


@dataclass(frozen=True)
class Pulse:
    """A departure from the holding current: samples [first, last), and its shape."""

    first: int
    last: int
    rate: float  # Hz
    level: float  # above the holding current, pA
    shape: str  # "flat", "ramp" or "other"
    alone: bool = True

    @property
    def times(self) -> tuple[float, float]:
        """Start and end, s."""
        return self.first / self.rate, self.last / self.rate

    def same(self, other: Pulse) -> bool:
        """Whether two pulses are alike: times to 0.2 ms, levels to 2 % or 0.5 pA."""
        apart = max(
            abs(ours - theirs) for ours, theirs in zip(self.times, other.times, strict=True)
        )
        near = max(0.5, 0.02 * abs(self.level))
        return apart < 2e-4 and abs(self.level - other.level) <= near


def changes_of(current: Samples) -> NDArray[np.int64]:
    """The samples that differ from the one before; those that are no number always do."""
    return np.flatnonzero(current[1:] != current[:-1]) + 1


def is_measured(current: Samples, changes: NDArray[np.int64], rate: float) -> bool:
    """Whether a command was measured: it flickers, or is never constant."""
    if len(changes) <= _FEW:
        return False
    changes = changes[:_LOOKED_AT]
    steps = np.diff(current[changes])
    turns = _turns(steps)
    coarse = float(np.median(np.abs(steps))) < _GRAIN
    if turns >= _FLICKERS * (len(steps) if coarse else changes[-1] - changes[0]):
        return True
    beginning = steps[: np.searchsorted(changes, _BEGINNING * rate)]
    return len(beginning) > 0.25 * _BEGINNING * rate and _turns(beginning) >= _TURNS


def _turns(steps: Samples) -> int:
    return int(np.count_nonzero(steps[1:] * steps[:-1] < 0))


def has_smooth_edges(pulses: list[Pulse]) -> bool:
    """Whether the waves of a digital command are short enough to be edges behind a filter."""
    waves = [pulse for pulse in pulses if pulse.shape == SHAPELESS]
    return bool(waves) and all(pulse.last - pulse.first < _SMOOTH * pulse.rate for pulse in waves)


def pulses_of(current: Samples, changes: NDArray[np.int64], rate: float) -> list[Pulse]:
    """The pulses of a digital command."""
    waves, edges = [], [0]
    for cluster in _clusters(changes, round(_TOGETHER * rate)):
        if len(cluster) > _EDGES:
            waves.append((int(cluster[0]), int(cluster[-1])))
        else:
            edges += cluster.tolist()
    pulses = [_wave(current, first, last, rate) for first, last in waves]
    # Constant runs between the edges that lie outside waves.
    holding = float(current[0])
    runs = [
        (first, last)
        for first, last in pairwise([*edges, len(current)])
        if abs(float(current[first]) - holding) >= SMALLEST
        and not any(first < stop and start < last for start, stop in waves)
    ]
    pulses += _flat(current, rate, runs)
    return sorted(pulses, key=lambda pulse: pulse.first)


def _clusters(places: NDArray[np.int64], gap: int) -> list[NDArray[np.intp]]:
    """Sorted places in runs that are no more than a gap apart from one place to the next."""
    runs = np.split(places, np.flatnonzero(np.diff(places) > gap) + 1)
    return [run for run in runs if len(run)]


def _flat(current: Samples, rate: float, runs: list[tuple[int, int]]) -> Iterator[Pulse]:
    """Pulses of constant runs, which stand alone if nothing borders on them."""
    firsts, lasts = ({run[side] for run in runs} for side in (0, 1))
    for first, last in runs:
        alone = first not in lasts and last not in firsts and last < len(current)
        yield Pulse(first, last, rate, float(current[first]) - float(current[0]), FLAT, alone)


def _wave(current: Samples, first: int, last: int, rate: float) -> Pulse:
    """A stretch in which the command keeps changing: a ramp if it rises in a straight line."""
    from crosspatch.recordings import passes

    part = np.ascontiguousarray(current[first - 1 : last])
    level = float(part[-1]) - float(part[0])
    if len(part) >= RAMP_LENGTH * rate and level:
        span, off, step = passes.departures(part)
        # Digitised finely or coarsely, a ramp stays within a step of the line.
        if span >= SMALLEST and off <= STRAIGHT * abs(level) + step:
            return Pulse(first, last, rate, level, RISING)
    part = part.astype(np.float64)
    level = float(part[np.argmax(np.abs(part - part[0]))] - part[0])
    return Pulse(first, last, rate, level, SHAPELESS)
