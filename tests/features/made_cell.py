"""A neuron whose every response is a formula, so that its properties are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.model import CURRENT_CLAMP, Recording, Sweep

Change = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class MadeCell:
    """Passive properties in mV, MOhm, s; spikes come `latency` after the step, then regularly."""

    rest: float = -70.0
    resistance: float = 200.0
    tau: float = 0.015
    #: Share of the deflection that an h-current takes back, with its time constant in s.
    sag: float = 0.0
    tau_sag: float = 0.15
    rheobase: float = 60.0
    latency: float = 0.063
    #: Spikes a second for every pA above rheobase, from 4 spikes/s at rheobase.
    gain: float = 0.17
    threshold: float = -40.0
    height: float = 70.0
    noise: float = 0.0
    slower: float = 1.0  # factor by which spikes are slower
    #: Rate of spikes without current, spikes/s; steps that hyperpolarise silence it.
    rest_rate: float = 0.0

    def spike_times(self, amplitude: float, duration: float = 1.0) -> NDArray[np.float64]:
        """Times of the steepest rise, s after the onset of a step."""
        if amplitude < self.rheobase:
            return np.zeros(0)
        interval = 1 / (4 + self.gain * (amplitude - self.rheobase))
        return np.arange(self.latency, duration - 0.02, interval)

    def step(self, time: NDArray, onset: float, duration: float, amplitude: float) -> NDArray:
        """Potential in mV for a step of current."""

        def response(t: NDArray) -> NDArray:
            t = np.maximum(t, 0)
            charge = 1 - np.exp(-t / self.tau)
            return charge - self.sag * (1 - np.exp(-t / self.tau_sag))

        shape = response(time - onset) - response(time - onset - duration)
        deflection = amplitude * self.resistance * 1e-3
        if amplitude > 0:  # stays below threshold
            deflection = min(deflection, 20.0)
        voltage = self.rest + deflection * shape
        times = [onset + self.spike_times(amplitude, duration)]
        if self.rest_rate:
            interval = 1 / self.rest_rate
            times.append(np.arange(onset - 0.3 * interval, 0.01, -interval))
            times.append(np.arange(onset + duration + interval, time[-1], interval))
        for spike in np.concatenate(times):
            voltage = voltage + self._spike(time - spike)
        return voltage

    def _spike(self, t: NDArray) -> NDArray:
        """A smooth spike: steep rise, slower fall, then a trough that decays."""
        t = t * 1e3 / self.slower  # ms
        rise = 1 / (1 + np.exp(-np.clip(t / 0.04, -500, 500)))
        fall = np.exp(-np.clip(t - 0.1, 0, 500) / 0.35)
        trough = -12 * rise * (1 - np.exp(-np.clip(t, 0, 500) / 0.8))
        trough = trough * np.exp(-np.clip(t, 0, 5000) / 12)
        return (self.height * rise * fall + trough) * (t > -5)


def made_recording(
    cell: MadeCell | None = None,
    *,
    amplitudes: tuple[float, ...] = (-110, -90, -70, -50, -30, -10, 10, 40, 60, 80, 100, 120, 160),
    rate: float = 50_000.0,
    onset: float = 0.5,
    duration: float = 1.0,
    after: float = 0.5,
    shift: float = 0.0,
    holding: float = 0.0,
    test_pulse: bool = True,
    name: str = "made",
    description: str = "",
) -> Recording:
    """Long squares of a made cell; `shift` mV are added to every potential."""
    cell = cell or MadeCell()
    points = round((onset + duration + after) * rate)
    time = np.arange(points) / rate
    rng = np.random.default_rng(0)
    sweeps = []
    for number, amplitude in enumerate(amplitudes):
        current = np.full(points, float(holding))
        first = round(onset * rate)
        current[first : first + round(duration * rate)] += amplitude
        voltage = cell.step(time, first / rate, duration, amplitude) + shift
        if test_pulse:
            current[round(0.02 * rate) : round(0.03 * rate)] += -20
            voltage = voltage + MadeCell().step(time, 0.02, 0.01, -20) - MadeCell().rest
        voltage = voltage + cell.noise * rng.normal(size=points)
        sweeps.append(made_sweep(number, rate, voltage, current, description))
    return Recording(name, name, "made", tuple(sweeps))


def joined(*recordings: Recording) -> Recording:
    """Sweeps of several made recordings as those of one cell."""
    sweeps = [sweep for recording in recordings for sweep in recording.sweeps]
    return replace(
        recordings[0],
        sweeps=tuple(replace(sweep, number=number) for number, sweep in enumerate(sweeps)),
    )


def changed(recording: Recording, numbers: Iterable[int], change: Change) -> Recording:
    """A recording in which the potentials of some sweeps are changed, given their times."""

    def read(sweep: Sweep) -> Sweep:
        if sweep.number not in wanted:
            return sweep
        voltage = change(sweep.time, np.array(sweep.voltage))
        return replace(sweep, read_voltage=lambda: voltage)

    wanted = set(numbers)
    return replace(recording, sweeps=tuple(map(read, recording.sweeps)))


def made_sweep(
    number: int, rate: float, voltage: NDArray, current: NDArray | None, description: str = ""
) -> Sweep:
    """A sweep of arrays."""
    read = None if current is None else (lambda: current)
    return Sweep(number, rate, len(voltage), CURRENT_CLAMP, description, lambda: voltage, read)
