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
#: … if the deflection is so many times the noise, and kept if the fit is as close as this, mV, or
#: as so many times the noise.
_LEAST_SIGNAL, _LARGEST_ERROR, _LARGEST_SHARE = 20.0, 1.0, 1.5
#: Steps show a slope if they differ by more than this share of the largest, and if its error is no
#: more than this share of it.
_LEAST_SPREAD, _LARGEST_SLOPE_ERROR = 0.1, 0.25
#: Of steps that silence a cell: the mean at their end is of so long, s, and the exponential of so
#: long from their start, if for so long before it, s, the potential changes no more than this, mV.
_SILENCED_STEADY, _SILENCED_WITHIN, _NO_SPIKE, _FLAT = 0.1, 0.2, 0.005, 10.0
#: After the step the potential counts for so many time constants, until so many ms before it rises
#: by more than so much in one, mV: a spike.
_RELEASED_WITHIN, _BEFORE_SPIKE, _RISING = 3.0, 2, 8.0


@dataclass(frozen=True)
class StepResponse:
    """The potential during a step of current."""

    baseline: float  # mean before the step, mV
    #: The farthest that a hyperpolarising step takes it down, or another one up, mV.
    deflection: float
    lowest: float  # the lowest potential, mV, and its sample
    lowest_at: int
    sag: float  # share of the peak hyperpolarisation that is gone at the end of the step
    noise: float  # standard deviation before the step, mV


def step_response(
    cut: Cut, start: float, end: float, before: float, *, spiking: bool = False
) -> StepResponse:
    """Measure the response to a step between two times, with a baseline of so many s before it.

    With spikes before the step the baseline is the median.
    """
    rest = cut.voltage[cut.nearest(start - before) : cut.nearest(start)]
    first, last = cut.nearest(start), cut.nearest(end)
    during = cut.voltage[first:last]
    lowest_at = first + int(during.argmin())
    lowest, middle = float(cut.voltage[lowest_at]), cut.time(lowest_at)
    steady = min(before, _STEADY)
    peak = cut.mean(middle - _PEAK_WIDTH / 2, middle + _PEAK_WIDTH / 2)
    deflected = peak - cut.mean(start - steady, start)
    return StepResponse(
        baseline=float(np.median(rest) if spiking else rest.mean()) if len(rest) else _NAN,
        deflection=float(during.max()) if cut.amplitude >= 0 else lowest,
        lowest=lowest,
        lowest_at=lowest_at,
        sag=(peak - cut.mean(end - steady, end)) / deflected if deflected else _NAN,
        noise=float(rest.std()) if len(rest) else _NAN,
    )


def time_constant(cuts: Sequence[Cut], steps: Sequence[StepResponse], start: float) -> float:
    """Mean time constant of responses to small hyperpolarising steps, s; NaN if none shows it.

    An exponential is fitted from a tenth of the deflection to the lowest point, or to the median
    time of those where that is earlier (Gouwens et al. 2019).
    """
    median = float(np.median([c.time(s.lowest_at) for c, s in zip(cuts, steps, strict=True)]))
    found = [
        _fitted(cut, step, start, min(cut.nearest(median), step.lowest_at))
        for cut, step in zip(cuts, steps, strict=True)
    ]
    return _mean(found)


def _mean(found: Sequence[float]) -> float:
    """Of those that are numbers; NaN if none is."""
    there = [each for each in found if each == each]
    return float(np.mean(there)) if there else _NAN


def _fitted(cut: Cut, step: StepResponse, start: float, last: int) -> float:
    """The time constant of one sweep, from an exponential that ends before a sample."""
    first = cut.nearest(start)
    peak = float(cut.voltage[last])
    if abs(step.baseline - peak) < _LEAST_SIGNAL * step.noise:
        return _NAN
    reached = cut.voltage[first:last] <= _FIT_FROM * (peak - step.baseline) + step.baseline
    begin = first + int(reached.argmax()) if reached.any() else last
    if last - begin < 3:
        return _NAN
    return decaying(cut.voltage[begin:last], cut.rate, step.noise)


def decaying(voltage: NDArray[np.float64], rate: float, noise: float = 0.0) -> float:
    """Time constant of the exponential fitted to a contiguous potential, s; NaN if none fits.

    The noise is that of the potential, mV.
    """
    from crosspatch.features.measuring import kernels

    inverse, error = kernels.decay(voltage, rate)
    return 1.0 / inverse if error <= max(_LARGEST_ERROR, _LARGEST_SHARE * noise) else _NAN


def input_resistance(cuts: Sequence[Cut], steps: Sequence[StepResponse]) -> float:
    """Slope of the lowest potential over the current of small steps, MOhm.

    Where the steps hardly differ, in relation to their size or to how the potential varies from
    sweep to sweep, there is no slope: it is the mean deflection from baseline over current.
    """
    amplitudes = np.array([cut.amplitude for cut in cuts])
    lowest = np.array([step.lowest for step in steps])
    baselines = np.array([step.baseline for step in steps])
    slope = _spread_slope(amplitudes, lowest, float(baselines.std()))
    if slope == slope:
        return slope * 1e3
    return float(np.mean((lowest - baselines) / amplitudes) * 1e3)


def _spread_slope(currents: np.ndarray, potentials: np.ndarray, noise: float) -> float:
    """Slope of potentials, each with this noise, over currents; NaN where these hardly differ."""
    off = currents - currents.mean()
    if np.ptp(currents) <= _LEAST_SPREAD * np.abs(currents).max():
        return _NAN
    slope = straight_slope(currents, potentials)
    error = noise / float(np.sqrt(off @ off))
    return slope if error <= _LARGEST_SLOPE_ERROR * abs(slope) else _NAN


def silenced_resistance(cuts: Sequence[Cut], tau: float) -> float:
    """Deflection over current of steps that silence a cell with a time constant in s, MOhm.

    It has no rest before a step, so that the potential counts that it goes back to after the step.
    NaN where not two steps show that, or they differ.
    """
    found = np.array([_released(cut, tau) for cut in cuts]) if tau > 0 else np.zeros(0)
    found = found[np.isfinite(found)]
    if len(found) < 2 or np.ptp(found) > _LARGEST_SLOPE_ERROR * abs(float(np.median(found))):
        return _NAN
    return float(np.median(found)) * 1e3


def _released(cut: Cut, tau: float) -> float:
    """Deflection over current from where an exponential leads after a step, GOhm; NaN if unseen."""
    block = max(round(0.001 * cut.rate), 1)
    end = cut.onset + round(cut.duration * cut.rate)
    after = cut.voltage[end : end + round(_RELEASED_WITHIN * tau * cut.rate)]
    means = after[: len(after) // block * block].reshape(-1, block).mean(axis=1)
    spikes = np.flatnonzero(np.diff(means) > _RISING)
    means = means[: spikes[0] - _BEFORE_SPIKE] if len(spikes) else means
    if len(means) * block < tau * cut.rate or len(means) < 3:
        return _NAN
    times = (np.arange(len(means)) + 0.5) * block / cut.rate
    shape = np.column_stack([np.ones(len(times)), np.exp(-times / tau)])
    rest = np.linalg.lstsq(shape, means, rcond=None)[0][0]
    steady = cut.voltage[max(end - round(_SILENCED_STEADY * cut.rate), cut.onset) : end].mean()
    return float(steady - rest) / cut.amplitude


def silenced_tau(cuts: Sequence[Cut], start: float, end: float) -> float:
    """Mean time constant with which steps silence a cell, s; NaN if none shows it.

    An exponential is fitted from the start of a step on, where no spike comes shortly before.
    """
    found = []
    for cut in cuts:
        first = cut.nearest(start)
        last = cut.nearest(min(end, start + _SILENCED_WITHIN))
        just_before = cut.voltage[max(first - round(_NO_SPIKE * cut.rate), 0) : first]
        rest = cut.voltage[last : cut.nearest(end)]
        if not len(just_before) or not len(rest) or np.ptp(just_before) > _FLAT:
            continue
        moved = abs(float(cut.voltage[first]) - float(rest.mean()))
        if moved >= _LEAST_SIGNAL * float(rest.std()):
            found.append(decaying(cut.voltage[first:last], cut.rate, float(rest.std())))
    return _mean(found)


def straight_slope(x: np.ndarray, y: np.ndarray) -> float:
    """Slope of the straight line of least squares."""
    off = x - x.mean()
    return float(off @ (y - y.mean()) / (off @ off))
