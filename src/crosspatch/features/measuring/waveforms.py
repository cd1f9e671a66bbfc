"""Mean traces: first action potentials, interspike intervals, responses to steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from crosspatch.features.layouts import VectorSettings
from crosspatch.features.measuring.cuts import Cut
from crosspatch.features.measuring.spikes import Spikes

Vector = NDArray[np.float64]

#: Of a single spike the interval ends where the potential is within this of the steady one, mV,
#: which is the mean at the end of the step, s, or after this time, s.
_RETURN, _STEADY, _LONGEST = 1.0, 0.1, 0.1
#: Spikes that a sweep should have to show the mean interval.
_ENOUGH = 5


def bin_means(values: Vector, width: int) -> Vector:
    """Means of so many values each, shape (values // width,)."""
    bins = len(values) // width
    return np.asarray(values[: bins * width].reshape(bins, width).mean(axis=1))


def first_waveform(
    cuts: Sequence[Cut], spikes: Sequence[Spikes], settings: VectorSettings
) -> Vector | None:
    """Mean of the sweeps' first action potentials from threshold on, mV.

    At the rate of the settings: averaged in bins from a multiple of it, or by a cubic spline. None
    where the recordings end too early.
    """
    rate = cuts[0].rate
    factor = rate / settings.ap_rate
    native = factor >= 1 and abs(factor - round(factor)) < 1e-6
    window = settings.ap_window if native else settings.ap_window + 2 / rate
    points = int(round(rate) * window)
    starts = [int(each["threshold_index"][0]) for each in spikes]
    parts = [c.voltage[at : at + points] for c, at in zip(cuts, starts, strict=True)]
    whole = [part for part in parts if len(part) == points]
    if not whole:
        return None
    mean = np.mean(whole, axis=0)
    if native:
        return bin_means(mean, round(factor))
    wanted = np.arange(round(settings.ap_window * settings.ap_rate)) / settings.ap_rate
    return _spline(mean, wanted * rate)


def _spline(values: Vector, at: Vector) -> Vector:
    """Values between samples by a cubic spline without a knot at the last sample but one."""
    points = len(values)
    # Second derivatives: slopes are continuous, and near both ends so are third derivatives.
    left, right = np.zeros((points, points)), np.zeros(points)
    inner = np.arange(1, points - 1)
    left[inner, inner - 1] = left[inner, inner + 1] = 1.0
    left[inner, inner] = 4.0
    right[inner] = 6 * (values[:-2] - 2 * values[1:-1] + values[2:])
    left[0, :3] = left[-1, -3:] = (1.0, -2.0, 1.0)
    curved = np.linalg.solve(left, right)
    k = np.clip(at.astype(int), 0, points - 2)
    y = at - k
    x = 1 - y
    straight = x * values[k] + y * values[k + 1]
    return np.asarray(
        straight + ((x**3 - x) * curved[k] + (y**3 - y) * curved[k + 1]) / 6, dtype=np.float64
    )


def sweep_of_intervals(amplitudes: Vector, counts: Vector) -> int:
    """Which depolarising sweep shows the mean interspike interval, of these spikes each.

    The smallest step with enough spikes, or the sweep with most, or the smallest step.
    """
    steps = np.rint(amplitudes)
    enough = np.flatnonzero(counts >= _ENOUGH)
    if len(enough):
        return int(enough[np.argmin(steps[enough])])
    return int(np.argmax(counts)) if (counts > 1).any() else int(np.argmin(steps))


def interspike_shape(cut: Cut, spikes: Spikes, end: float, points: int) -> Vector | None:
    """Mean potential between spikes above threshold, mV, each interval in so many bins.

    From the fast trough to the next threshold (Gouwens et al. 2020). With a single spike, to where
    the potential is back. None where no interval is long enough.
    """
    troughs, thresholds = spikes["fast_trough_index"], spikes["threshold_index"]
    if len(spikes) > 1:
        bounds = list(zip(troughs[:-1], thresholds[1:], strict=True))
    else:
        bounds = [(troughs[0], _returned(cut, troughs[0], end, points))]
    shapes = [
        bin_means(cut.voltage[int(first) : int(last)], int(last - first) // points)[:points] - level
        for (first, last), level in zip(bounds, spikes["threshold_v"], strict=False)
        if last - first >= points and last <= len(cut.voltage)
    ]
    return np.mean(shapes, axis=0) if shapes else None


def _returned(cut: Cut, trough: float, end: float, points: int) -> float:
    """Sample at which the potential after a single spike is back; NaN without a fast trough."""
    if trough != trough:
        return trough
    first, last = int(trough), cut.nearest(end)
    if cut.time(first) < end - _STEADY:
        last = cut.nearest(cut.time(first) + _LONGEST)
        back = cut.voltage[first:] >= cut.mean(end - _STEADY, end) - _RETURN
        if back.any():
            last = min(first + int(back.argmax()), last)
    return max(last, first + points)


class BinnedResponses:
    """Responses to hyperpolarising steps in bins, from before a step to after it.

    Sweeps are by their amplitude in whole pA; start and end, s, are of the part that is measured.
    """

    def __init__(
        self, sweeps: Mapping[float, Cut], start: float, end: float, settings: VectorSettings
    ) -> None:
        self._settings, self._start = settings, start
        self._bins = round((end - start) / settings.subthreshold_bin)
        self._around = round(settings.around_step / settings.subthreshold_bin)
        self._amplitudes = np.array(list(sweeps))
        binned = [self._binned(cut) for cut in sweeps.values()]
        self._values = dict(zip(sweeps, (values for values, _ in binned), strict=True))
        #: Bins of which every sweep has all samples.
        self._recorded = np.all([there for _, there in binned], axis=0)

    def _binned(self, cut: Cut) -> tuple[Vector, NDArray[np.bool_]]:
        """Means, where the baseline stands in for what was not recorded, and what was."""
        voltage, rate = cut.voltage, cut.rate
        onset = self._start * rate - cut.first
        width = round(self._settings.subthreshold_bin * rate)
        fitting = width / self._settings.subthreshold_bin
        if abs(fitting - rate) > 1e-6 * rate:
            # Bins that are not whole samples: onto the nearest rate at which they are.
            points = int(len(voltage) / rate * fitting)
            places = np.arange(points) / fitting
            voltage = np.interp(places, np.arange(len(voltage)) / rate, voltage)
            onset, rate = onset * fitting / rate, fitting
        begin = round(onset)
        first = begin - self._around * width
        last = begin + (self._bins + self._around) * width
        lead, tail = max(-first, 0), max(last - len(voltage), 0)
        part, there = voltage[max(first, 0) : max(last, 0)], np.ones(last - first, dtype=np.bool_)
        if lead or tail:
            baseline = float(voltage[max(begin - round(0.1 * rate), 0) : begin].mean())
            part = np.pad(part, (lead, tail), constant_values=baseline)
            there[:lead] = there[len(there) - tail :] = False
        return bin_means(part, width), np.asarray(there.reshape(-1, width).all(axis=1))

    def at(self, amplitude: float) -> Vector:
        """The response to a step, or its neighbours' scaled to it, mV."""
        off = np.abs(self._amplitudes - amplitude)
        if off.min() <= 5:
            return self._values[self._amplitudes[off.argmin()]]
        others = self._amplitudes[self._amplitudes != 0]
        below, above = others[others < amplitude], others[others > amplitude]
        near = [*below[np.argsort(-below)][:1], *above[np.argsort(above)][:1]]
        if not near:
            return np.full(self._bins + 2 * self._around, np.nan)
        mean = np.mean([self._values[each] for each in near], axis=0)
        last = -self._around if len(near) > 1 else None
        during = slice(self._around, last)
        base = mean[: self._around].mean()
        mean[during] = (mean[during] - base) * (amplitude / np.mean(near)) + base
        return mean

    def nearest(self, amplitude: float) -> float:
        """The step nearest to an amplitude, pA."""
        return float(self._amplitudes[np.abs(self._amplitudes - amplitude).argmin()])

    def on_reference(self, responses: Sequence[Vector], duration: float) -> Vector:
        """Bins where the reference has them, joined; others are missing.

        What follows a step of another duration, in s, does not follow the same step.
        """
        parts = np.where(self._recorded, np.asarray(responses), np.nan)
        around, step = self._around, round(self._settings.step / self._settings.subthreshold_bin)
        result = np.full((len(parts), step + 2 * around), np.nan)
        result[:, : around + self._bins] = parts[:, : around + self._bins]
        if abs(duration - self._settings.step) < self._settings.subthreshold_bin:
            result[:, around + step :] = parts[:, around + self._bins :]
        return result.ravel()
