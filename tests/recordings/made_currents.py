"""Currents as an amplifier measures them: a command, and all that rides on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.model import Recording
from tests.features.made_cell import made_sweep


@dataclass(frozen=True)
class Dirt:
    """What rides on a measured current, in pA."""

    noise: float = 2.0  # standard deviation of a sample
    flicker: float = 0.0  # of noise that is slower than a sample, as 1/f
    hum: float = 0.0  # amplitude
    mains: float = 50.0  # Hz
    drift: float = 0.0  # from the start to the end of a sweep
    bend: float = 0.0  # of the drift in the middle
    crosstalk: float = 0.0  # of a spike, at its peak
    firing: float = 0.0  # spikes/s during a tall step
    transient: float = 0.0  # share of the jump that overshoots at an edge …
    fading: float = 0.002  # … and decays with this time constant, s
    smooth: float = 0.0  # time constant of the amplifier's filter, s
    grain: float = 0.0  # step of the digitiser

    def on(
        self, command: NDArray[np.float64], rate: float, fires: slice, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """The command as it is measured; spikes come in a part of it."""
        time = np.arange(len(command)) / rate
        share = time / time[-1]
        result = command + self.drift * share + 4 * self.bend * share * (1 - share)
        result = result + self._edges(command, rate)
        result += self.hum * np.sin(2 * np.pi * (self.mains * time + rng.random()))
        result += 0.2 * self.hum * np.sin(2 * np.pi * (3 * self.mains * time + rng.random()))
        result += rng.normal(0, max(self.noise, 1e-6), len(time))
        if self.flicker:
            knots = np.arange(0, time[-1] + 0.02, 0.01)
            result += np.interp(time, knots, rng.normal(0, self.flicker, len(knots)))
        if self.crosstalk and self.firing:
            result += self._spikes(time, fires, rng)
        return np.round(result / self.grain) * self.grain if self.grain else result

    def _edges(self, command: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
        added = np.zeros(len(command))
        for edge in np.flatnonzero(np.abs(np.diff(command)) > 0.2 * np.ptp(command)) + 1:
            jump = command[edge] - command[edge - 1]
            after = np.arange(len(command) - edge) / rate
            added[edge:] += self.transient * jump * np.exp(-after / self.fading)
            if self.smooth:
                added[edge:] -= jump * np.exp(-after / self.smooth)
        return added

    def _spikes(
        self, time: NDArray[np.float64], fires: slice, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """The derivative of a spike: 0.3 ms up, 1 ms down."""
        start, end = time[fires][[0, -1]]
        added = np.zeros(len(time))
        now = start + rng.uniform(0.005, 0.05)
        while now < end:
            near = slice(*np.searchsorted(time, [now - 0.002, now + 0.005]))
            t = (time[near] - now) * 1e3
            added[near] += self.crosstalk * np.exp(-((t / 0.2) ** 2))
            added[near] -= 0.35 * self.crosstalk * np.exp(-(((t - 0.8) / 0.5) ** 2))
            now += rng.uniform(0.8, 1.2) / self.firing
        return added


@dataclass(frozen=True)
class Protocol:
    """The commands of a family of sweeps; times in s, currents in pA."""

    kind: str = "long square"
    rate: float = 20_000.0
    onset: float = 0.3
    length: float = 1.0
    after: float = 0.4
    heights: tuple[float, ...] = (-100.0, -50.0, 0.0, 50.0, 100.0, 150.0, 200.0)
    holding: tuple[float, ...] = (0.0,)  # of every sweep, or of all
    test: tuple[float, float, float] | None = None  # start, length and height of a test pulse

    def commands(self) -> list[NDArray[np.float64]]:
        """One for each height."""
        points = round((self.onset + self.length + self.after) * self.rate)
        first, last = self.part.start, self.part.stop
        found = []
        for k, height in enumerate(self.heights):
            command = np.full(points, self.holding[k % len(self.holding)])
            rising = np.linspace(0, 1, last - first) if self.kind == "ramp" else 1.0
            command[first:last] += height * rising
            if self.test:
                start, length, level = self.test
                command[round(start * self.rate) : round((start + length) * self.rate)] += level
            found.append(command)
        return found

    @property
    def part(self) -> slice:
        """The samples of the stimulus."""
        return slice(round(self.onset * self.rate), round((self.onset + self.length) * self.rate))

    def measured(self, dirt: Dirt, seed: int) -> Recording:
        """The recording as it would be read."""
        rng = np.random.default_rng(seed)
        currents = []
        for command, height in zip(self.commands(), self.heights, strict=True):
            spiking = height > 0.3 * max(self.heights)
            quiet = Dirt(**{**vars(dirt), "crosstalk": dirt.crosstalk if spiking else 0.0})
            currents.append(quiet.on(command, self.rate, self.part, rng))
        return recording_of(currents, self.rate)


def recording_of(currents: Sequence[NDArray[np.float64]], rate: float) -> Recording:
    """A recording with these currents, and a potential at rest."""
    sweeps = [
        made_sweep(k, rate, np.full(len(current), -70.0), current)
        for k, current in enumerate(currents)
    ]
    return Recording("made", "made", "made", tuple(sweeps))
