"""A point neuron with interneuron currents and a spike of given shape, compiled with numba.

The membrane is the adaptive exponential integrate-and-fire model (Brette and Gerstner 2005,
J Neurophysiol 94:3637) with four additions that make recordings of cortical interneurons
recognisable: Ih for the sag, a slowly inactivating D-type K current for late spiking (Storm 1988,
Nature 336:379), a threshold that follows the membrane potential (Platkiewicz and Brette 2010, PLoS
Comput Biol 6:e1000850), and channel noise that grows with depolarisation. A spike is not computed
but inserted, with the shape asked for.

Units throughout: mV, ms, pA, nS, pF; hence mV/ms for slopes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from crosspatch.errors import RecordingError

STEP = 0.02  #: longest integration step, ms
#: Slow variables (Ih, D current, adaptation, noise) are updated once in so many steps.
_BLOCK = 10
#: The spike is inserted where the upstroke has reached this part of its maximum: IPFX's definition
#: of the threshold.
_THRESHOLD_FRACTION = 0.05
_SHAPE_POINTS = 257  #: points of the rising and of the falling part of the spike
#: A raised threshold lowers the peak and lifts the trough by this part of the rise. In the Allen
#: recordings the spikes at threshold of ramps, long and short squares differ so.
_SHAPE_FOLLOWS_THRESHOLD = 0.4


@dataclass(frozen=True)
class SpikeShape:
    """The shape of a spike fired from rest."""

    threshold: float = -38.0  # membrane potential where the slope reaches 5 % of the upstroke, mV
    height: float = 65.0  #: peak above threshold, mV
    trough: float = 15.0  #: fast trough below threshold, mV
    width: float = 0.6  #: width halfway between peak and fast trough, ms
    upstroke: float = 300.0  #: steepest rise, mV/ms
    upstroke_downstroke_ratio: float = 2.0  #: steepest rise over steepest fall


@dataclass(frozen=True)
class PointNeuron:
    """Parameters of the model."""

    rest: float = -70.0  #: resting potential, mV; the leak's reversal potential follows from it
    leak: float = 6.0  #: leak conductance, nS
    capacitance: float = 70.0  #: membrane capacitance, pF
    slope_factor: float = 1.5  #: sharpness of spike onset, mV: smaller is sharper
    spike: SpikeShape = field(default_factory=SpikeShape)
    #: The threshold rises by this part of a depolarisation, with this time constant in ms.
    threshold_gain: float = 0.0
    threshold_tau: float = 8.0
    h_conductance: float = 0.0  # Ih: nS, mV, mV, ms, mV
    h_half: float = -82.0
    h_slope: float = 9.0
    h_tau: float = 60.0
    h_reversal: float = -40.0
    d_conductance: float = 0.0  # D-type K current, activation: nS, mV, mV
    d_half: float = -48.0
    d_slope: float = 5.0
    d_inactivation_half: float = -72.0  # its inactivation: mV, mV, ms
    d_inactivation_slope: float = 7.0
    d_tau: float = 400.0
    k_reversal: float = -92.0  #: reversal potential of K, mV
    adaptation_conductance: float = 0.0  # adaptation current: nS, pA per spike, ms
    adaptation_jump: float = 0.0
    adaptation_tau: float = 150.0
    #: Current after a spike, pA and ms: positive hyperpolarises, negative depolarises.
    after_jump: float = 0.0
    after_tau: float = 12.0
    #: Part of the height that one spike takes from the next, and its recovery, ms.
    fatigue: float = 0.0
    fatigue_tau: float = 60.0
    broadening: float = 1.0  #: relative widening of a spike per relative loss of height
    #: Standard deviation of the noise current when depolarised, pA, and its correlation time, ms.
    noise: float = 0.0
    noise_tau: float = 5.0
    noise_at_rest: float = 0.1  #: part of the noise that remains at rest

    @property
    def leak_reversal(self) -> float:
        """Reversal potential of the leak that makes `rest` the resting potential, mV."""
        h = _sigmoid((self.h_half - self.rest) / self.h_slope)
        d = _sigmoid((self.rest - self.d_half) / self.d_slope) * _sigmoid(
            (self.d_inactivation_half - self.rest) / self.d_inactivation_slope
        )
        others = self.h_conductance * h * (self.rest - self.h_reversal)
        others += self.d_conductance * d * (self.rest - self.k_reversal)
        onset = np.exp((self.rest - self.onset) / self.slope_factor)
        return float(self.rest + others / self.leak - self.slope_factor * onset)

    @property
    def onset(self) -> float:
        """Potential at which the exponential current starts a spike at rest, mV.

        It lies below the threshold by as much as the exponential current needs to reach the slope
        that defines the threshold.
        """
        return self.spike.threshold - self._onset_to_threshold

    @property
    def _onset_to_threshold(self) -> float:
        slope = _THRESHOLD_FRACTION * self.spike.upstroke
        tau = self.capacitance / self.leak
        return self.slope_factor * float(np.log(max(slope * tau / self.slope_factor, np.e)))


def simulate_neuron(
    neuron: PointNeuron,
    current: NDArray[np.floating],
    rate: float = 50_000.0,
    *,
    rng: np.random.Generator | int | None = None,
    stop_after: int | None = None,
    tail: float = 0.1,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The response to an injected current: membrane potential, mV, and times of spikes, s.

    The current is in pA, shape (samples,), at a rate in Hz, and so is the potential; the times are
    those at which spikes crossed their threshold. `rng` is the source of the channel noise or its
    seed, without it there is none. After so many spikes (`stop_after`) it goes on for `tail`
    seconds and stops; the potential then is shorter than the current. A `RecordingError` if the
    current is not one row of finite numbers, or rate or neuron make no sense.
    """
    current = np.ascontiguousarray(current, dtype=np.float64)
    if current.ndim != 1 or not np.isfinite(current).all():
        raise RecordingError("the injected current must be one row of finite numbers in pA")
    if not rate > 0:
        raise RecordingError(f"the sampling rate must be above 0 Hz, it is {rate}")
    for name in ("leak", "capacitance", "slope_factor"):
        if not getattr(neuron, name) > 0:
            raise RecordingError(f"{name} of a neuron must be above 0")
    substeps = max(1, int(np.ceil(1e3 / rate / STEP - 1e-9)))
    step = 1e3 / rate / substeps
    blocks = len(current) * substeps // _BLOCK + 2
    normals = np.zeros(blocks)
    if rng is not None:
        normals = np.random.default_rng(rng).standard_normal(blocks)
    parameters, template = _parameters(neuron), spike_template(neuron.spike)
    limit = (-1 if stop_after is None else stop_after, round(tail * rate))
    voltage, spikes = _integrate(parameters, template, current, normals, step, substeps, *limit)
    return voltage, spikes * 1e-3


#: Rising part from threshold (0) to peak (1) and falling part from peak (1) to trough (0), at even
#: times, and the durations of both, ms.
SpikeTemplate = tuple[NDArray[np.float64], NDArray[np.float64], float, float]


@lru_cache(maxsize=256)
def spike_template(shape: SpikeShape) -> SpikeTemplate:
    """Rising and falling part of a spike.

    The slope of either part is a beta curve over its duration. Height, upstroke and downstroke fix
    the durations; the roundness of the fall is what makes the width come out.
    """
    x = np.linspace(0.0, 1.0, _SHAPE_POINTS)
    slope = x**1.5 * (1 - x) ** 0.9
    slope = slope / slope.max() + _THRESHOLD_FRACTION * (1 - x) ** 3
    slope /= slope.max()
    rise, area = _accumulated(slope)
    rise_time = shape.height / (shape.upstroke * area)
    half = 1 - 0.5 * (shape.height + shape.trough) / shape.height
    rise_half = rise_time * (1 - float(np.interp(max(half, 0.0), rise, x)))

    drop = shape.height + shape.trough
    downstroke = shape.upstroke / shape.upstroke_downstroke_ratio
    wanted = shape.width - rise_half
    # Rounder or squarer than this no spike is; the width then gives way.
    low, high = 0.4, 8.0
    for _ in range(40):
        roundness = 0.5 * (low + high)
        fall, fall_time, fall_half = _fall(x, roundness, drop / downstroke)
        low, high = (roundness, high) if fall_half < wanted else (low, roundness)
    return rise, 1 - fall, rise_time, fall_time


def _fall(
    x: NDArray[np.float64], roundness: float, shortest: float
) -> tuple[NDArray[np.float64], float, float]:
    slope = x**roundness * (1 - x) ** (1.6 * roundness)
    slope /= slope.max()
    part, area = _accumulated(slope)
    duration = shortest / area
    return part, duration, duration * float(np.interp(0.5, part, x))


def _accumulated(slope: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    total = np.concatenate([[0.0], np.cumsum(0.5 * (slope[1:] + slope[:-1]))])
    return total / total[-1], float(total[-1] / (len(slope) - 1))


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _parameters(neuron: PointNeuron) -> tuple[float, ...]:
    """All that `_integrate` unpacks: the fields of a neuron in their order, and what follows."""
    own = [float(getattr(neuron, each.name)) for each in fields(neuron) if each.name != "spike"]
    spike = neuron.spike
    derived = (neuron.leak_reversal, neuron.onset, neuron._onset_to_threshold)
    return (*own, float(spike.height), float(spike.trough), *derived)


@njit(cache=True)  # pragma: no cover - compiled
def _logistic(x: float) -> float:
    return 1.0 / (1.0 + np.exp(-x))


@njit(cache=True)  # pragma: no cover - compiled
def _integrate(
    parameters: tuple[float, ...],
    template: SpikeTemplate,
    current: NDArray[np.floating],
    normals: NDArray[np.floating],
    step: float,
    substeps: int,
    stop_after: int,
    tail: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    (rest, leak, capacitance, slope_factor, threshold_gain, threshold_tau) = parameters[:6]
    (h_max, h_half, h_slope, h_tau, h_reversal) = parameters[6:11]
    (d_max, d_half, d_slope, i_half, i_slope, d_tau, k_reversal) = parameters[11:18]
    (a, b, w_tau, after_jump, after_tau, fatigue_jump, fatigue_tau) = parameters[18:25]
    (broadening, noise_sd, noise_tau, noise_at_rest) = parameters[25:29]
    (height, trough_depth, leak_reversal, onset, onset_to_threshold) = parameters[29:]
    rise, fall, rise_time, fall_time = template

    samples = len(current)
    voltage = np.empty(samples)
    spikes = np.empty(samples)
    count = 0
    points = len(rise) - 1

    block = step * _BLOCK
    h_decay = 1.0 - np.exp(-block / h_tau)
    d_decay = 1.0 - np.exp(-block / d_tau)
    w_decay = 1.0 - np.exp(-block / w_tau)
    after_decay = np.exp(-block / after_tau)
    fatigue_decay = np.exp(-block / fatigue_tau)
    noise_keep = np.exp(-block / noise_tau)
    noise_new = np.sqrt(1.0 - noise_keep * noise_keep)
    threshold_decay = 1.0 - np.exp(-step / threshold_tau)

    v, v_onset = rest, onset
    h = _logistic((h_half - rest) / h_slope)
    available = _logistic((i_half - rest) / i_slope)
    w = after = fatigue = 0.0
    noise, drawn = normals[0], 1
    g_h = g_d = i_slow = 0.0
    until_block = 0

    in_spike = False
    since = v_start = v_peak = v_trough = t_rise = t_fall = 0.0
    end = samples

    for n in range(samples):
        if n >= end:
            break
        for s in range(substeps):
            if until_block == 0:
                until_block = _BLOCK
                h += (_logistic((h_half - v) / h_slope) - h) * h_decay
                available += (_logistic((i_half - v) / i_slope) - available) * d_decay
                w += (a * (v - rest) - w) * w_decay
                after *= after_decay
                fatigue *= fatigue_decay
                noise = noise * noise_keep + noise_new * normals[drawn]
                drawn += 1
                open_channels = _logistic((v - (onset - 8.0)) / 4.0)
                loud = noise_at_rest + (1.0 - noise_at_rest) * open_channels
                g_h = h_max * h
                g_d = d_max * _logistic((v - d_half) / d_slope) * available
                i_slow = g_h * h_reversal + g_d * k_reversal - w - after + noise_sd * loud * noise
            until_block -= 1

            if in_spike:
                since += step
                if since < t_rise:
                    x = since / t_rise * points
                    i = int(x)
                    part = rise[i] + (rise[i + 1] - rise[i]) * (x - i)
                    v = v_start + (v_peak - v_start) * part
                elif since < t_rise + t_fall:
                    x = (since - t_rise) / t_fall * points
                    i = int(x)
                    part = fall[i] + (fall[i + 1] - fall[i]) * (x - i)
                    v = v_trough + (v_peak - v_trough) * part
                else:
                    v = v_trough
                    in_spike = False
            else:
                over = min((v - v_onset) / slope_factor, 20.0)
                i_total = leak * (leak_reversal + slope_factor * np.exp(over)) + i_slow + current[n]
                g_total = leak + g_h + g_d
                x = step * g_total / capacitance
                v += (i_total / g_total - v) * (x - x * x * 0.5 + x * x * x / 6.0)
                if v >= v_onset + onset_to_threshold:
                    # A current too strong for the model's slope must not overshoot the threshold.
                    v = min(v, v_onset + onset_to_threshold + 1.0)
                    spikes[count] = (n * substeps + s + 1) * step
                    count += 1
                    if count == stop_after:
                        end = min(samples, n + tail)
                    raised = v_onset - onset
                    less = min(fatigue, 0.6)
                    follows = _SHAPE_FOLLOWS_THRESHOLD * raised
                    rest_threshold = onset + onset_to_threshold
                    v_start = v
                    v_peak = rest_threshold + height * (1.0 - less) - follows
                    v_peak = max(v_peak, v_start + 0.3 * height)
                    v_trough = rest_threshold - trough_depth + follows
                    v_trough = min(v_trough, v_start - 0.3 * trough_depth - 1.0)
                    stretch = 1.0 + broadening * less
                    t_rise = rise_time * stretch * (v_peak - v_start) / height
                    t_fall = fall_time * stretch
                    since = 0.0
                    in_spike = True
                    w += b
                    after += after_jump
                    fatigue += fatigue_jump * (1.0 - less)
            target = onset + threshold_gain * max(min(v, 0.0) - rest, 0.0)
            v_onset += (target - v_onset) * threshold_decay
        voltage[n] = v
    return voltage[:end].copy(), spikes[:count].copy()
