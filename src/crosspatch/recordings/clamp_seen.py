"""Which of potential and current was commanded, by what they look like."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.model import CURRENT_CLAMP, VOLTAGE_CLAMP


def clamp_seen(voltage: NDArray[np.float64], current: NDArray[np.float64], rate: float) -> str:
    """What one sweep says: the clamp, ``both`` are steps, or nothing."""
    if _has_spikes(_means(voltage, rate)):
        return CURRENT_CLAMP
    of_voltage, of_current = (_unexplained(_means(each, rate)) for each in (voltage, current))
    v_steps, i_steps = of_voltage < _STEPS, of_current < _STEPS
    if v_steps and i_steps:
        near = max(of_voltage, of_current) < 2 * min(of_voltage, of_current) + 0.01
        return "both" if near else VOLTAGE_CLAMP if of_voltage < of_current else CURRENT_CLAMP
    return VOLTAGE_CLAMP if v_steps else CURRENT_CLAMP if i_steps else ""


#: What is left of a command when its pieces are taken for lines, as a share of its span; an edge is
#: at least this share of it within 1 ms.
_STEPS, _EDGE = 0.06, 0.25


def _means(samples: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Means over half a millisecond."""
    width = max(1, round(rate * 5e-4))
    count = len(samples) // width
    return samples[: count * width].reshape(count, width).mean(axis=1)


def _has_spikes(voltage: NDArray[np.float64]) -> bool:
    """Whether a potential rises by 25 mV or more and is back within 6 ms, but not at once."""
    middle = voltage[12:-12]
    around = np.maximum(voltage[:-24], voltage[24:])
    return bool(len(middle) and np.any((middle - around > 25) & (voltage[11:-13] < middle)))


def _unexplained(means: NDArray[np.float64]) -> float:
    """How far a signal is from lines between edges, as a share of its span; NaN without an edge."""
    if len(means) < 40:
        return float("nan")
    low, high = np.percentile(means, (0.5, 99.5))
    span = float(high - low)
    edges = np.flatnonzero(np.abs(means[2:] - means[:-2]) > _EDGE * span) + 1
    if span == 0 or not len(edges):
        return float("nan")
    bounds = [-1, *edges, len(means)]
    left, used = 0.0, 0
    for first, last in pairwise(bounds):
        piece = means[first + 2 : last - 1]  # without the edges themselves
        if len(piece) > 2:
            line = np.polynomial.Polynomial.fit(np.arange(len(piece)), piece, 1)
            left += float(np.sum((piece - line(np.arange(len(piece)))) ** 2))
            used += len(piece)
    return float(np.sqrt(left / used)) / span if used > len(means) / 2 else float("nan")
