"""The membrane's response to steps: deflection, sag, resistance, time constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.measuring.cuts import Cut

_NAN = float("nan")
#: Means that sag is made of: around the peak, and at the end of the step, s.
_PEAK_WIDTH, _STEADY = 0.005, 0.03
#: A time constant is fitted from where this share of the deflection is reached …
_FIT_FROM = 0.1
#: … if the deflection is so many times the noise, and kept if the fit is as close as this, mV.
_LEAST_SIGNAL, _LARGEST_ERROR = 20.0, 1.0


@dataclass(frozen=True)
class StepResponse:
    """The potential during a step of current."""

    baseline: float  # mean before the step, mV
    #: The farthest that a hyperpolarising step takes it down, or another one up, mV.
    deflection: float
    lowest: float  # the lowest potential, mV, and its sample
    lowest_at: int
    sag: float  # share of the peak hyperpolarisation that is gone at the end of the step


def step_response(cut: Cut, start: float, end: float, before: float) -> StepResponse:
    """Measure the response to a step between two times, with a baseline of so many s before it."""
    first, last = cut.nearest(start), cut.nearest(end)
    during = cut.voltage[first:last]
    lowest_at = first + int(during.argmin())
    lowest, middle = float(cut.voltage[lowest_at]), cut.time(lowest_at)
    steady = min(before, _STEADY)
    peak = cut.mean(middle - _PEAK_WIDTH / 2, middle + _PEAK_WIDTH / 2)
    deflected = peak - cut.mean(start - steady, start)
    return StepResponse(
        baseline=cut.mean(start - before, start),
        deflection=float(during.max()) if cut.amplitude >= 0 else lowest,
        lowest=lowest,
        lowest_at=lowest_at,
        sag=(peak - cut.mean(end - steady, end)) / deflected if deflected else _NAN,
    )


def time_constant(
    cuts: Sequence[Cut], steps: Sequence[StepResponse], start: float, before: float
) -> float:
    """Mean time constant of responses to small hyperpolarising steps, s; NaN if none shows it.

    An exponential is fitted from a tenth of the deflection to the lowest point, or to the median
    time of those where that is earlier (Gouwens et al. 2019).
    """
    median = float(np.median([c.time(s.lowest_at) for c, s in zip(cuts, steps, strict=True)]))
    found = [
        _fitted(cut, step, start, min(cut.nearest(median), step.lowest_at), before)
        for cut, step in zip(cuts, steps, strict=True)
    ]
    fitted = [each for each in found if each == each]
    return float(np.mean(fitted)) if fitted else _NAN


def _fitted(cut: Cut, step: StepResponse, start: float, last: int, before: float) -> float:
    """The time constant of one sweep, from an exponential that ends before a sample."""
    first = cut.nearest(start)
    peak = float(cut.voltage[last])
    noise = float(cut.voltage[cut.nearest(start - before) : first].std())
    if abs(step.baseline - peak) < _LEAST_SIGNAL * noise:
        return _NAN
    reached = cut.voltage[first:last] <= _FIT_FROM * (peak - step.baseline) + step.baseline
    begin = first + int(reached.argmax()) if reached.any() else last
    if last - begin < 3:
        return _NAN
    return decaying(cut.voltage[begin:last], cut.rate)


def decaying(voltage: NDArray[np.float64], rate: float) -> float:
    """Time constant of the exponential fitted to a contiguous potential, s; NaN if none fits."""
    from crosspatch.features.measuring import kernels

    inverse, error = kernels.decay(voltage, rate)
    return 1.0 / inverse if error <= _LARGEST_ERROR else _NAN


def input_resistance(cuts: Sequence[Cut], steps: Sequence[StepResponse]) -> float:
    """Slope of the lowest potential over the current of small steps, MOhm.

    With steps of one size there is no slope: it is the mean deflection from baseline over current.
    """
    amplitudes = np.array([cut.amplitude for cut in cuts])
    lowest = np.array([step.lowest for step in steps])
    if np.ptp(amplitudes) == 0:
        baselines = np.array([step.baseline for step in steps])
        return float(np.mean((lowest - baselines) / amplitudes) * 1e3)
    return straight_slope(amplitudes, lowest) * 1e3


def straight_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the straight line of least squares."""
    off = x - x.mean()
    return float(off @ (y - y.mean()) / (off @ off))
