"""A simulated rig: stimuli, amplifier, noise, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.model import CURRENT_CLAMP
from crosspatch.recordings.nwb_writer import WrittenSweep
from crosspatch.simulation.point_neuron import PointNeuron, simulate_neuron

# Of a sweep, as they are computed and as they are written.
_Samples = NDArray[np.float64]
_Written = NDArray[np.float32]


@dataclass(frozen=True)
class StimulusSet:
    """The stimulus set, after the Allen Institute's Patch-seq recordings (Gouwens et al. 2020)."""

    rate: float = 50_000.0  #: samples per second
    test_pulse_start: float = 0.02  # the pulse before every stimulus: s, s, pA
    test_pulse_length: float = 0.01
    test_pulse: float = -10.0
    onset: float = 0.62  # start of the stimulus, and recording after its end, s
    after: float = 0.6
    long_square: float = 1.0  # their lengths, s
    short_square: float = 0.003
    lowest: float = -110.0  # first amplitude of the long squares, and from one to the next, pA
    step: float = 20.0
    highest: float = 690.0  #: amplitude at which the search for the rheobase gives up, pA
    #: Long squares above the rheobase, pA.
    offsets: tuple[float, ...] = (20.0, 40.0, 60.0, 80.0, 100.0, 140.0)
    repeats: int = 3  #: short squares at the lowest amplitude that fires
    ramp_slope: float = 25.0  #: pA/s
    ramp_longest: float = 26.0  #: longest ramp, s
    ramps: int = 2


@dataclass(frozen=True)
class Trouble:
    """How often something goes wrong, as probabilities."""

    failed_sweep: float = 0.02  #: a sweep is stopped early, drifts, is noisy or saturates
    repeated: float = 0.8  #: a failed sweep is recorded again
    no_ramp: float = 0.05  # a cell lacks these stimuli
    no_short_square: float = 0.05
    few_long_squares: float = 0.06
    unbalanced_bridge: float = 0.03  # of a cell
    poor_seal: float = 0.03


USUAL_TROUBLE = Trouble()
NO_TROUBLE = Trouble(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

LONG_SQUARE_COARSE = "C1LSCOARSE150216"
LONG_SQUARE_FINE = "C1LSFINEST150112"
SHORT_SQUARE_COARSE = "C1SSCOARSE150112"
SHORT_SQUARE_FINE = "C1SSFINEST150112"
RAMP_NAME = "C1RP25PR1S141203"


class RigStage(Enum):
    """What has been recorded of the stimulus set."""

    START = auto()
    LONG_SQUARES = auto()
    SHORT_SQUARES = auto()
    RAMPS = auto()


#: Adds sweeps of its own to a rig's after each stage, also after one whose stimuli a cell lacks.
Extra = Callable[["Rig", RigStage], None]


def no_extra(rig: Rig, stage: RigStage) -> None:
    """Add no sweep."""


def record(
    neuron: PointNeuron,
    rng: np.random.Generator | int,
    *,
    protocol: StimulusSet | None = None,
    trouble: Trouble = NO_TROUBLE,
    access_resistance: float = 12.0,
    extra: Extra = no_extra,
) -> list[WrittenSweep]:
    """Record a neuron with the stimulus set, as an experimenter would; sweeps in their order.

    `rng` is the source of all noise and trouble, or its seed. The access resistance, MOhm, is
    compensated by the bridge. What `extra` draws from generators of its own changes nothing else.
    """
    rng = np.random.default_rng(rng)
    rig = Rig(neuron, rng, protocol or StimulusSet(), trouble, access_resistance)
    extra(rig, RigStage.START)
    rig.long_squares(few=rng.random() < trouble.few_long_squares)
    extra(rig, RigStage.LONG_SQUARES)
    if rng.random() >= trouble.no_short_square:
        rig.short_squares()
    extra(rig, RigStage.SHORT_SQUARES)
    if rng.random() >= trouble.no_ramp:
        rig.ramps()
    extra(rig, RigStage.RAMPS)
    return rig.sweeps


class Rig:
    """The amplifier and the experimenter: keeps the sweeps, the clock and the slow drift."""

    def __init__(
        self,
        neuron: PointNeuron,
        rng: np.random.Generator,
        protocol: StimulusSet,
        trouble: Trouble,
        access_resistance: float,
    ) -> None:
        self.neuron, self.rng, self.protocol, self.trouble = neuron, rng, protocol, trouble
        self.sweeps: list[WrittenSweep] = []
        self.clock = 0.0
        self.bridge = access_resistance
        self.unbalance = rng.normal(0.0, 0.2)  # MOhm
        if rng.random() < trouble.unbalanced_bridge:
            self.unbalance = rng.choice([-1.0, 1.0]) * rng.uniform(4.0, 10.0)
        self.bias = rng.normal(0.0, 15.0)  # pA
        self.noise = rng.uniform(0.015, 0.035)  # mV
        self.hum = rng.exponential(0.01)  # mV
        self.drift = 0.0  # mV since the first sweep

    def long_squares(self, *, few: bool) -> None:
        """Record long squares from below rest to above the rheobase; `few` leaves most out."""
        protocol = self.protocol
        length, step = protocol.long_square, protocol.step
        count = int((protocol.highest - protocol.lowest) // step) + 1
        amplitudes = protocol.lowest + step * np.arange(count)
        if few:
            amplitudes = amplitudes[(amplitudes > 0) | np.isin(amplitudes, (protocol.lowest, -50))]
        rheobase = self.first_to_fire(LONG_SQUARE_COARSE, length, amplitudes.tolist())
        if rheobase is None:
            return
        half = rheobase - 0.5 * step
        if half > 0 and self.square(LONG_SQUARE_FINE, length, half):
            rheobase = half
        for offset in protocol.offsets[: 2 if few else None]:
            self.square(LONG_SQUARE_FINE, length, rheobase + offset)

    def first_to_fire(self, code: str, length: float, amplitudes: list[float]) -> float | None:
        """Record squares up to the first depolarising one, pA, at which the cell fires."""
        for amplitude in amplitudes:
            if self.square(code, length, amplitude) and amplitude > 0:
                return amplitude
        return None

    def short_squares(self) -> None:
        """Record short squares around the lowest amplitude that fires, and repeat that one."""
        protocol = self.protocol
        length = protocol.short_square
        step = 10.0
        lowest = self.lowest_short_square()
        for part in (0.8, 0.9, 0.95):
            self.square(SHORT_SQUARE_COARSE, length, step * round(part * lowest / step))
        amplitudes = [step * (np.ceil(lowest / step) + k) for k in range(21)]
        found = self.first_to_fire(SHORT_SQUARE_COARSE, length, amplitudes[:20])
        amplitude = amplitudes[-1] if found is None else found
        for _ in range(protocol.repeats):
            self.square(SHORT_SQUARE_FINE, length, amplitude)

    def lowest_short_square(self) -> float:
        """Amplitude at which the cell fires but for the noise, pA; the trials are not kept."""
        rate, length = self.protocol.rate, self.protocol.short_square
        low, high = 0.0, 10_000.0
        current = np.zeros(round((length + 0.03) * rate))
        while high - low > 5.0:
            middle = 0.5 * (low + high)
            current[: round(length * rate)] = middle
            _, spikes = simulate_neuron(self.neuron, current, rate, stop_after=1)
            low, high = (low, middle) if len(spikes) else (middle, high)
        return high

    def ramps(self) -> None:
        """Record ramps until a few spikes after the first."""
        protocol, rng = self.protocol, self.rng
        rate = protocol.rate
        for _ in range(protocol.ramps):
            start = round(protocol.onset * rate)
            steps = np.arange(1, round(protocol.ramp_longest * rate) + 1)
            current = np.concatenate([self.before(), steps * (protocol.ramp_slope / rate)])
            spikes, tail = int(rng.integers(4, 9)), rng.uniform(0.05, 0.3)
            voltage, _ = simulate_neuron(
                self.neuron, current, rate, rng=rng, stop_after=spikes, tail=tail
            )
            # The acquisition is stopped by hand; the program pads what was planned with zeros.
            planned = start + round(np.ceil(len(voltage) / rate) * rate)
            current = np.concatenate([current[:planned], np.zeros(round(protocol.after * rate))])
            self.keep(RAMP_NAME, current, voltage, may_fail=False)

    def before(self) -> _Samples:
        """Current before a stimulus, pA: rest with the test pulse."""
        protocol = self.protocol
        current = np.zeros(round(protocol.onset * protocol.rate))
        start = round(protocol.test_pulse_start * protocol.rate)
        end = start + round(protocol.test_pulse_length * protocol.rate)
        current[start:end] = protocol.test_pulse
        return current

    def square(self, code: str, length: float, amplitude: float) -> bool:
        """Record a square; whether the cell fired between its start and 50 ms after its end."""
        protocol = self.protocol
        rate = protocol.rate
        stimulus, after = np.full(round(length * rate), amplitude), round(protocol.after * rate)
        current = np.concatenate([self.before(), stimulus, np.zeros(after)])
        late = 0.0 if length > 0.1 else 0.05
        while True:
            voltage, spikes = simulate_neuron(self.neuron, current, rate, rng=self.rng)
            until = protocol.onset + length + late
            fired = bool(np.any((spikes >= protocol.onset) & (spikes < until)))
            failed = self.keep(code, current, voltage)
            if not failed or self.rng.random() >= self.trouble.repeated:
                return fired

    def keep(
        self, code: str, current: _Samples, voltage: _Samples, *, may_fail: bool = True
    ) -> bool:
        """Add what the rig adds, and keep the sweep; whether it failed."""
        rng = self.rng
        response = self.amplified(current, voltage, rng)
        next_drift = self.drift * 0.98 + rng.normal(0.0, 0.15)
        response += np.linspace(self.drift, next_drift, len(voltage), dtype=np.float32)
        self.drift = next_drift
        failed = may_fail and rng.random() < self.trouble.failed_sweep
        if failed:
            response = self._failure(response)
        recorded = np.zeros(len(current), dtype=np.float32)
        recorded[: len(response)] = response
        self.append(code, current.astype(np.float32), recorded)
        return failed

    def amplified(self, current: _Samples, voltage: _Samples, rng: np.random.Generator) -> _Written:
        """The membrane potential with what the amplifier adds: noise, hum, error of the bridge."""
        samples = len(voltage)
        time = np.arange(samples, dtype=np.float32) / np.float32(self.protocol.rate)
        response = voltage.astype(np.float32)
        response += filtered_noise(samples, rng, self.noise)
        response += self.unbalance * 1e-3 * current[:samples]
        response += self.hum * np.sin(2 * np.pi * (60.0 * time + rng.random()))
        return response

    def append(
        self, code: str, current: _Written, voltage: _Written, clamp: str = CURRENT_CLAMP
    ) -> None:
        """Keep a sweep as it is, and wait a second for the next."""
        rate = self.protocol.rate
        self.sweeps.append(
            WrittenSweep(
                f"{code}_DA_0", current, voltage, rate, self.clock, self.bridge, self.bias, clamp
            )
        )
        self.clock += round(len(current) / rate + 1.0, 3)

    def _failure(self, response: _Written) -> _Written:
        rng = self.rng
        samples = len(response)
        kind = rng.choice(["stopped", "drifting", "noisy", "saturated"])
        if kind == "stopped":
            return response[: int(samples * rng.uniform(0.35, 0.7))]
        if kind == "drifting":
            way = rng.choice([-1.0, 1.0]) * rng.uniform(5.0, 15.0)
            return response + np.linspace(0.0, way, samples, dtype=np.float32)
        if kind == "noisy":
            rough = rng.standard_normal(samples, dtype=np.float32)
            return response + np.float32(rng.uniform(0.4, 1.5)) * rough
        start = int(samples * rng.uniform(0.1, 0.8))
        end = start + int(samples * rng.uniform(0.05, 0.3))
        response = response.copy()
        response[start:end] = rng.choice([-200.0, 200.0])  # the amplifier's limits, mV
        return response


def filtered_noise(samples: int, rng: np.random.Generator, deviation: float) -> _Written:
    """An amplifier's noise with this standard deviation."""
    white = rng.standard_normal(samples + 2, dtype=np.float32)
    # A three-point mean as the amplifier's low-pass filter; it takes the noise to 0.61.
    white = 0.25 * (white[2:] + white[:-2]) + 0.5 * white[1:-1]
    return white * (deviation / 0.61)
