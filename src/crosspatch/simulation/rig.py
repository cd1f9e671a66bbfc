"""A simulated rig: stimuli, amplifier, noise, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from crosspatch.recordings.model import CURRENT_CLAMP, VOLTAGE_CLAMP
from crosspatch.simulation.nwb_writer import WrittenSweep
from crosspatch.simulation.point_neuron import PointNeuron, simulate_neuron
from crosspatch.simulation.subclasses import (
    _step_features,
)


@dataclass(frozen=True)
class StimulusSet:
    """The stimulus set, after the Allen Institute's Patch-seq recordings (Gouwens et al. 2020)."""

    #: Samples a second.
    rate: float = 50_000.0
    #: The pulse before every stimulus: s, s, pA.
    test_pulse_start: float = 0.02
    test_pulse_length: float = 0.01
    test_pulse: float = -10.0
    #: Start of the stimulus, and recording after its end, s.
    onset: float = 0.62
    after: float = 0.6
    #: Their lengths, s.
    long_square: float = 1.0
    short_square: float = 0.003
    #: First amplitude of the long squares, and from one to the next, pA.
    lowest: float = -110.0
    step: float = 20.0
    #: Amplitude at which the search for the rheobase gives up, pA.
    highest: float = 690.0
    #: Long squares above the rheobase, pA.
    offsets: tuple[float, ...] = (20.0, 40.0, 60.0, 80.0, 100.0, 140.0)
    #: Short squares at the lowest amplitude that fires.
    repeats: int = 3
    #: pA/s.
    ramp_slope: float = 25.0
    #: Longest ramp, s.
    ramp_longest: float = 26.0
    ramps: int = 2


@dataclass(frozen=True)
class Trouble:
    """How often something goes wrong, as probabilities."""

    #: A sweep is stopped early, drifts, is noisy or saturates.
    failed_sweep: float = 0.02
    #: A failed sweep is recorded again.
    repeated: float = 0.8
    #: A cell lacks these stimuli.
    no_ramp: float = 0.05
    no_short_square: float = 0.05
    few_long_squares: float = 0.06
    #: Of a cell.
    unbalanced_bridge: float = 0.03
    poor_seal: float = 0.03


NO_TROUBLE = Trouble(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


LONG_SQUARE_COARSE = "C1LSCOARSE150216"


LONG_SQUARE_FINE = "C1LSFINEST150112"


SHORT_SQUARE_COARSE = "C1SSCOARSE150112"


SHORT_SQUARE_FINE = "C1SSFINEST150112"


RAMP_NAME = "C1RP25PR1S141203"


def record(
    neuron: PointNeuron,
    rng: np.random.Generator | int,
    *,
    protocol: StimulusSet | None = None,
    trouble: Trouble = NO_TROUBLE,
    access_resistance: float = 12.0,
    seal: float = 3.0,
    whole_set: bool = False,
) -> list[WrittenSweep]:
    """Record a neuron with the stimulus set, as an experimenter would.

    The whole set begins with tests in voltage clamp, of the pipette, the seal and the access, and
    ends with one; between them come checks of the resistance. Triple short squares, checks of the
    capacitance, a chirp and noise follow the sweeps that are measured, which are those recorded
    without the whole set but for the ramps: most of them go on after an interruption. The cell in
    voltage clamp is an access resistance before a linear membrane, with the pipette's capacitance
    compensated; everything in current clamp is the model neuron's.

    Parameters
    ----------
    neuron : PointNeuron
    rng : Generator or int
        Source of all noise and trouble, or its seed.
    protocol : StimulusSet, optional
    trouble : Trouble
        What may go wrong; by default nothing does.
    access_resistance : float
        MOhm, compensated by the bridge.
    seal : float
        GOhm, for the whole set.
    whole_set : bool
        Record what files of the DANDI archive hold besides the sweeps that are measured.

    Returns
    -------
    list of WrittenSweep
        In the order of recording.
    """
    rng = np.random.default_rng(rng)
    rig = _Rig(neuron, rng, protocol or StimulusSet(), trouble, access_resistance)
    extras = None
    if whole_set:
        # Generators of their own, spawned without a draw: what is measured stays the same.
        drawn, interruptions = rng.spawn(2)
        extras = _Extras(rig, drawn, interruptions, seal)
        extras.tests()
    rig.long_squares(few=rng.random() < trouble.few_long_squares)
    if extras:
        extras.resistance_checks(2)
        extras.capacitance_checks()
    if rng.random() >= trouble.no_short_square:
        rig.short_squares()
    if extras:
        extras.triple_short_squares()
        extras.resistance_checks(2)
    if rng.random() >= trouble.no_ramp:
        before = len(rig.sweeps)
        rig.ramps()
        if extras:
            extras.resume(before)
    if extras:
        extras.resistance_checks(2)
        extras.chirp()
        extras.noise()
        extras.resistance_checks(3)
        extras.end()
    return rig.sweeps


class _Rig:
    """The amplifier and the experimenter: keeps the sweeps, the clock and the slow drift."""

    def __init__(
        self,
        neuron: PointNeuron,
        rng: np.random.Generator,
        protocol: StimulusSet,
        trouble: Trouble,
        access_resistance: float,
    ) -> None:
        self.neuron = neuron
        self.rng = rng
        self.protocol = protocol
        self.trouble = trouble
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
        protocol = self.protocol
        length = protocol.long_square
        amplitude = protocol.lowest
        while amplitude <= protocol.highest:
            wanted = not few or amplitude > 0 or amplitude in (protocol.lowest, -50.0)
            if wanted and self.square(LONG_SQUARE_COARSE, length, amplitude) and amplitude > 0:
                break
            amplitude += protocol.step
        else:
            return
        rheobase = amplitude
        half = amplitude - 0.5 * protocol.step
        if half > 0 and self.square(LONG_SQUARE_FINE, length, half):
            rheobase = half
        for offset in protocol.offsets[: 2 if few else None]:
            self.square(LONG_SQUARE_FINE, length, rheobase + offset)

    def short_squares(self) -> None:
        protocol = self.protocol
        length = protocol.short_square
        step = 10.0
        lowest = self.lowest_short_square()
        for part in (0.8, 0.9, 0.95):
            self.square(SHORT_SQUARE_COARSE, length, step * round(part * lowest / step))
        amplitude = step * np.ceil(lowest / step)
        for _ in range(20):
            if self.square(SHORT_SQUARE_COARSE, length, amplitude):
                break
            amplitude += step
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
        protocol, rng = self.protocol, self.rng
        rate = protocol.rate
        for _ in range(protocol.ramps):
            start = round(protocol.onset * rate)
            ramp = np.arange(1, round(protocol.ramp_longest * rate) + 1) * (
                protocol.ramp_slope / rate
            )
            current = np.concatenate([self.before(), ramp])
            voltage, _ = simulate_neuron(
                self.neuron,
                current,
                rate,
                rng=rng,
                stop_after=int(rng.integers(4, 9)),
                tail=rng.uniform(0.05, 0.3),
            )
            # The acquisition is stopped by hand; the program pads what was planned with zeros.
            planned = start + round(np.ceil(len(voltage) / rate) * rate)
            current = np.concatenate([current[:planned], np.zeros(round(protocol.after * rate))])
            self.keep(RAMP_NAME, current, voltage, may_fail=False)

    def before(self) -> NDArray[np.float64]:
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
        current = np.concatenate(
            [
                self.before(),
                np.full(round(length * rate), amplitude),
                np.zeros(round(protocol.after * rate)),
            ]
        )
        late = 0.0 if length > 0.1 else 0.05
        while True:
            voltage, spikes = simulate_neuron(self.neuron, current, rate, rng=self.rng)
            fired = bool(
                np.any((spikes >= protocol.onset) & (spikes < protocol.onset + length + late))
            )
            failed = self.keep(code, current, voltage)
            if not failed or self.rng.random() >= self.trouble.repeated:
                return fired

    def keep(
        self,
        code: str,
        current: NDArray[np.float64],
        voltage: NDArray[np.float64],
        *,
        may_fail: bool = True,
    ) -> bool:
        """Add what the rig adds, and keep the sweep; whether it failed."""
        rng = self.rng
        response = self.amplified(current, voltage, rng)
        next_drift = self.drift * 0.98 + rng.normal(0.0, 0.15)
        response += np.linspace(self.drift, next_drift, len(voltage), dtype=np.float32)
        self.drift = next_drift
        failed = may_fail and rng.random() < self.trouble.failed_sweep
        if failed:
            response = self.failure(response)
        recorded = np.zeros(len(current), dtype=np.float32)
        recorded[: len(response)] = response
        self.append(code, current.astype(np.float32), recorded)
        return failed

    def amplified(
        self, current: NDArray[np.float64], voltage: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """The membrane potential with what the amplifier adds: noise, hum, error of the bridge."""
        samples = len(voltage)
        time = np.arange(samples, dtype=np.float32) / np.float32(self.protocol.rate)
        response = voltage.astype(np.float32)
        response += _filtered_noise(samples, rng, self.noise)
        response += self.unbalance * 1e-3 * current[:samples]
        response += self.hum * np.sin(2 * np.pi * (60.0 * time + rng.random()))
        return response

    def append(
        self,
        code: str,
        current: NDArray[np.float32],
        voltage: NDArray[np.float32],
        clamp: str = CURRENT_CLAMP,
    ) -> None:
        """Keep a sweep as it is, and wait a second for the next."""
        rate = self.protocol.rate
        self.sweeps.append(
            WrittenSweep(
                stimulus_code=code,
                current=current,
                voltage=voltage,
                rate=rate,
                start=self.clock,
                bridge_balance=self.bridge,
                bias_current=self.bias,
                clamp=clamp,
            )
        )
        self.clock += round(len(current) / rate + 1.0, 3)

    def failure(self, response: NDArray[np.float32]) -> NDArray[np.float32]:
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


def _filtered_noise(
    samples: int, rng: np.random.Generator, deviation: float
) -> NDArray[np.float32]:
    white = rng.standard_normal(samples + 2, dtype=np.float32)
    # A three-point mean as the amplifier's low-pass filter; it takes the noise to 0.61.
    white = 0.25 * (white[2:] + white[:-2]) + 0.5 * white[1:-1]
    return white * (deviation / 0.61)


# What files of the archive hold besides: tests in voltage clamp, and sweeps that are not measured.
SMOKE = "EXTPSMOKET180424"


IN_BATH = "EXTPINBATH180424"


CELL_ATTACHED = "EXTPCllATT180424"


BREAK_IN = "EXTPBREAKN180424"


RESISTANCE_CHECK = "EXTPRSCHEK150209"


END = "EXTPGGAEND180424"


SHORT_SQUARE_TRIPLE = "C2SSTRIPLE171103"


CAPACITANCE_CHECK = "C1SQCAPCHK141203"


CHIRP = "C2CHIRP180503"


NOISE = "C2NSD1SHORT17110"


#: Pulses of the tests in voltage clamp, mV; the first of a sweep, at the time of the test pulse in
#: current clamp, is one that IPFX skips, the others begin at this time, s.
_CLAMP_PULSE, _CLAMP_PULSES_FROM = 10.0, 0.06


#: A ramp goes on after an interruption with this probability, and the interruption lasts this many
#: samples: 44 of 73 ramps and 960 to 1,983 in files of DANDI 000020.
_RESUMED, _INTERRUPTION = 0.6, (960, 1983)


class _Extras:
    """What the whole set has besides the sweeps that are measured; adds it to those of a rig."""

    def __init__(
        self, rig: _Rig, rng: np.random.Generator, interruptions: np.random.Generator, seal: float
    ) -> None:
        self.rig = rig
        self.rng = rng
        self.interruptions = interruptions
        self.seal = seal  # GOhm
        # A small step, which hardly opens Ih.
        self.resistance, _, _ = _step_features(rig.neuron, -20.0)  # MOhm
        self.pipette = rng.uniform(5.0, 8.0)  # MOhm
        self.access = rig.bridge  # MOhm

    def tests(self) -> None:
        """Smoke test and bath, the seal as it forms and once it holds, break-in, the first checks.

        Of several tests of a kind the last one counts.
        """
        self.clamp_test(SMOKE, 0.1, self.pipette)
        self.clamp_test(IN_BATH, 0.1, self.pipette)
        self.clamp_test(CELL_ATTACHED, 0.5, 1e3 * self.seal * self.rng.uniform(0.2, 0.6))
        self.clamp_test(CELL_ATTACHED, 0.5, 1e3 * self.seal)
        self.clamp_test(BREAK_IN, 0.5, self.access, self.resistance)
        self.resistance_checks(3)

    def resistance_checks(self, count: int) -> None:
        """Checks of a cell whose access gets slowly worse."""
        for _ in range(count):
            self.access *= self.rng.uniform(1.0, 1.03)
            self.clamp_test(RESISTANCE_CHECK, 0.2, self.access, self.resistance)

    def end(self) -> None:
        """The pipette is pulled off, and a patch of membrane seals it."""
        self.clamp_test(END, 0.3, 1e3 * self.rng.uniform(0.3, 2.0))

    def clamp_test(
        self, code: str, length: float, access: float, membrane: float | None = None
    ) -> None:
        """Record pulses in voltage clamp.

        Parameters
        ----------
        code : str
        length : float
            Of the sweep, s.
        access : float
            Resistance of the pipette, or of what it touches, MOhm.
        membrane : float, optional
            Input resistance of the cell, MOhm; without it there is no cell behind `access`.
        """
        rig, protocol = self.rig, self.rig.protocol
        rate = protocol.rate
        command = np.zeros(round(length * rate), dtype=np.float32)
        start = round(protocol.test_pulse_start * rate)
        command[start : start + round(protocol.test_pulse_length * rate)] = _CLAMP_PULSE
        # The capacitance of a cell takes longer to charge.
        pulse = round((0.01 if membrane is None else 0.02) * rate)
        for begin in range(round(_CLAMP_PULSES_FROM * rate), len(command) - pulse, 2 * pulse):
            command[begin : begin + pulse] = _CLAMP_PULSE
        across = np.zeros(len(command))
        if membrane is not None:
            share = membrane / (access + membrane)
            tau = 1e-6 * rig.neuron.capacitance * access * share  # s
            keep = np.exp(-1 / (rate * tau))
            across = lfilter([0.0, (1 - keep) * share], [1.0, -keep], command)
        holding = self.rng.normal(0.0, 10.0)  # pA
        current = holding + 1e3 * (command - across) / access
        current += _filtered_noise(len(command), self.rng, 0.3)
        rig.append(code, current.astype(np.float32), command, VOLTAGE_CLAMP)

    def capacitance_checks(self) -> None:
        """Pulses of 0.5 ms and 200 pA, up and down in turn, ten times a second for two seconds."""
        rate = self.rig.protocol.rate
        stimulus = np.zeros(round(2.0 * rate))
        for place in range(20):
            first = round(0.1 * place * rate)
            stimulus[first : first + round(0.0005 * rate)] = 200.0 if place % 2 == 0 else -200.0
        for _ in range(2):
            self.current_clamp(CAPACITANCE_CHECK, stimulus)

    def triple_short_squares(self) -> None:
        """Three short squares in a row, a fifth above the lowest that fires."""
        rig = self.rig
        rate, length = rig.protocol.rate, rig.protocol.short_square
        amplitude = 10.0 * np.ceil(0.12 * rig.lowest_short_square())
        for interval in (0.03, 0.02, 0.0125):  # s
            stimulus = np.zeros(round((2 * interval + length) * rate))
            for place in range(3):
                first = round(place * interval * rate)
                stimulus[first : first + round(length * rate)] = amplitude
            self.current_clamp(SHORT_SQUARE_TRIPLE, stimulus)

    def chirp(self) -> None:
        """A sinusoid from 0.2 to 40 Hz in 20 s, of about 5 mV at its slowest; 23.6 s in all."""
        protocol = self.rig.protocol
        time = np.arange(round(20.0 * protocol.rate)) / protocol.rate
        growth = np.log(40.0 / 0.2) / 20.0
        phase = 2 * np.pi * 0.2 * np.expm1(growth * time) / growth
        amplitude = np.round(5e3 / self.resistance)
        self.current_clamp(CHIRP, amplitude * np.sin(phase), 23.6 - 20.0 - protocol.onset)

    def noise(self) -> None:
        """Three times 3 s of noise, correlated over 3 ms, around more and more current.

        The middle one is around what should take the cell to its threshold; 24 s in all.
        """
        protocol, neuron = self.rig.protocol, self.rig.neuron
        rate = protocol.rate
        near = 1e3 * (neuron.spike.threshold - neuron.rest) / self.resistance
        keep = np.exp(-1 / (0.003 * rate))
        stimulus = np.zeros(round(19.0 * rate))
        for place, part in enumerate((0.75, 1.0, 1.25)):
            white = self.rng.standard_normal(round(3.0 * rate))
            coloured = lfilter([np.sqrt(1 - keep**2)], [1.0, -keep], white)
            first = round(8.0 * place * rate)
            stimulus[first : first + len(white)] = near * part * (1 + 0.2 * coloured)
        self.current_clamp(NOISE, stimulus, 24.0 - 19.0 - protocol.onset)

    def current_clamp(
        self, code: str, stimulus: NDArray[np.float64], after: float | None = None
    ) -> None:
        """Record a stimulus as others are, with `after` seconds after it."""
        rig, protocol = self.rig, self.rig.protocol
        after = protocol.after if after is None else after
        rest = np.zeros(round(after * protocol.rate))
        current = np.concatenate([rig.before(), stimulus, rest])
        rig.append(code, current.astype(np.float32), self.response(current, self.rng))

    def response(
        self, current: NDArray[np.float64], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """What is recorded of the neuron, at the drift that the last sweep has reached."""
        rig = self.rig
        voltage, _ = simulate_neuron(rig.neuron, current, rig.protocol.rate, rng=rng)
        return rig.amplified(current, voltage, rng) + np.float32(rig.drift)

    def resume(self, first: int) -> None:
        """Let most ramps from a sweep on go on after an interruption, at rest.

        MIES stops a ramp after its spikes, sets the command to zero from there, and goes on; what
        it missed is zero.
        """
        rng = self.interruptions
        for number, sweep in enumerate(self.rig.sweeps[first:], start=first):
            resumed = rng.random() < _RESUMED
            stopped = int(np.flatnonzero(sweep.voltage)[-1]) + 1
            on = stopped + int(rng.integers(*_INTERRUPTION, endpoint=True))
            # A ramp that was not stopped has come to its end.
            if not resumed or on >= len(sweep.voltage) or sweep.current[stopped] == 0:
                continue
            current, voltage = sweep.current.copy(), sweep.voltage.copy()
            current[stopped:] = 0.0
            voltage[on:] = self.response(np.zeros(len(voltage) - on), rng)
            self.rig.sweeps[number] = replace(sweep, current=current, voltage=voltage)
