"""Trains of spikes: rate, latency, intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crosspatch.features.measuring.spikes import Spikes

_NAN = float("nan")


@dataclass(frozen=True)
class Train:
    """The spikes of a sweep in time; NaN where there are too few."""

    rate: float = 0.0  # Spikes/s, 0 without a spike
    latency: float = _NAN  # from the start of the stimulus to the first threshold, s
    mean_isi: float = _NAN  # of the intervals, s
    median_isi: float = _NAN
    first_isi: float = _NAN
    isi_cv: float = _NAN  # standard deviation over mean of the intervals
    adaptation: float = _NAN  # mean of the differences of neighbouring intervals over their sums


def measure_train(spikes: Spikes, start: float, end: float) -> Train:
    """Measure the spikes of a window, in s (Gouwens et al. 2019; IPFX's spike train features)."""
    times = spikes["threshold_t"]
    if not len(times):
        return Train()
    inside = np.count_nonzero((times >= start) & (times <= end))
    rate, latency = float(inside / (end - start)), float(times[0] - start)
    intervals = np.diff(times)
    if not len(intervals):
        return Train(rate, latency)
    mean = float(intervals.mean())
    changes = np.diff(intervals) / (intervals[1:] + intervals[:-1])
    return Train(
        rate,
        latency,
        mean,
        float(np.median(intervals)),
        float(intervals[0]),
        float(intervals.std()) / mean,
        float(changes.mean()) if len(changes) else _NAN,
    )
