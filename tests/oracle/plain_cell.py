"""Steps measured in a second way: numpy and scipy, on whole sweeps, from the definitions alone.

Potentials in mV, currents in pA, times in s. Nothing of `crosspatch.features` is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.signal import find_peaks

Trace = NDArray[np.floating]


@dataclass(frozen=True)
class PlainSweep:
    """A sweep with a step between two samples."""

    voltage: Trace
    rate: float
    first: int
    last: int
    amplitude: float

    @property
    def rest(self) -> float:
        """Mean of at most 0.1 s before the step."""
        return float(self.voltage[max(self.first - round(0.1 * self.rate), 0) : self.first].mean())

    def peaks(self, window: float = 1.0) -> NDArray[np.int64]:
        """Samples at which spikes peak in the window from the start of the step."""
        last = min(self.last, self.first + round(window * self.rate))
        width = round(0.05 * self.rate) | 1
        beyond = self.voltage[self.first : last + round(0.005 * self.rate)]
        found, _ = find_peaks(beyond, prominence=15, wlen=width)
        return found[found < last - self.first] + self.first

    def deepest(self, window: float = 1.0) -> tuple[float, int]:
        """The lowest potential in the window, and its sample."""
        last = min(self.last, self.first + round(window * self.rate))
        at = self.first + int(self.voltage[self.first : last].argmin())
        return float(self.voltage[at]), at


def step_sweep(voltage: Trace, current: Trace, rate: float, first: int, last: int) -> PlainSweep:
    """A sweep with a step between these samples."""
    height = np.median(current[first:last]) - np.median(current[: min(first, 50)])
    return PlainSweep(np.asarray(voltage, dtype=np.float64), rate, first, last, float(height))


def rheobase(sweeps: Sequence[PlainSweep]) -> float:
    """The smallest depolarising step with a spike, pA."""
    return min(s.amplitude for s in sweeps if s.amplitude > 0 and len(s.peaks()))


def input_resistance(sweeps: Sequence[PlainSweep]) -> float:
    """Slope of the lowest potential over current; of one size, the mean deflection over it."""
    amplitudes = np.array([s.amplitude for s in sweeps])
    lowest = np.array([s.deepest()[0] for s in sweeps])
    if np.ptp(amplitudes) < 1:
        return float(np.mean((lowest - [s.rest for s in sweeps]) / amplitudes) * 1e3)
    return float(np.polyfit(amplitudes, lowest, 1)[0] * 1e3)


def time_constant(sweeps: Sequence[PlainSweep]) -> float:
    """Mean of exponentials fitted from a tenth of the deflection to its lowest point, s.

    That is the median one of the sweeps, where it is earlier.
    """
    found = []
    median = np.median([s.deepest()[1] for s in sweeps])
    for s in sweeps:
        last = int(min(s.deepest()[1], median))
        goal = s.rest + 0.1 * (s.voltage[last] - s.rest)
        begin = s.first + int(np.argmax(s.voltage[s.first : last] <= goal))
        t = np.arange(last - begin) / s.rate

        def decay(t: Trace, a: float, tau: float, end: float) -> Trace:
            return end + a * np.exp(-t / tau)

        guess = (s.rest - s.voltage[last], 0.02, s.voltage[last])
        (_, tau, _), _ = curve_fit(decay, t, s.voltage[begin:last], guess)
        found.append(tau)
    return float(np.mean(found))


def first_spike(voltage: Trace, rate: float, peak: int, upstrokes: float) -> tuple[float, float]:
    """Threshold in mV and width in s of a spike, given the mean upstroke of its sweep in mV/ms.

    Threshold is where dV/dt was last at 5 % of that before the steepest rise. The width is at half
    the height above the fast trough, where dV/dt is back to 1 % of the steepest fall, or above
    threshold where that level is below it.
    """
    speed = np.diff(voltage) * rate * 1e-3
    rising = speed[max(peak - round(0.005 * rate), 0) : peak]
    steepest = peak - len(rising) + int(rising.argmax())
    threshold = steepest
    while speed[threshold] > 0.05 * upstrokes:
        threshold -= 1
    falling = peak + int(speed[peak : peak + round(0.005 * rate)].argmin())
    trough = falling
    while speed[trough] < 0.01 * speed[falling]:
        trough += 1
    level = (voltage[peak] + voltage[trough]) / 2
    if level < voltage[threshold]:
        level = (voltage[peak] + voltage[threshold]) / 2
    up = peak - int(np.argmax(voltage[peak::-1] <= level))
    down = peak + int(np.argmax(voltage[peak:] <= level))
    return float(voltage[threshold]), (down - up) / rate


def upstroke(voltage: Trace, rate: float, peaks: Iterable[int]) -> float:
    """Mean of the steepest rises before peaks, mV/ms."""
    speed = np.diff(voltage) * rate * 1e-3
    return float(np.mean([speed[max(p - round(0.005 * rate), 0) : p].max() for p in peaks]))
