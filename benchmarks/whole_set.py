"""Simulated recordings with all that files of the DANDI archive hold, stored as they store it.

Besides the sweeps that are measured they have tests in voltage clamp, checks, a chirp and noise:
files that are several times as large, with the same cells.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from crosspatch.recordings.model import VOLTAGE_CLAMP
from crosspatch.recordings.nwb_writer import Storage, Stored, WrittenSweep
from crosspatch.simulation.cells import Style
from crosspatch.simulation.point_neuron import simulate_neuron
from crosspatch.simulation.rig import Rig, RigStage, filtered_noise
from crosspatch.simulation.subclasses import step_features

#: Codes of a 16-bit converter (3200 per volt) in a mV of membrane potential, with a gain of 50 as
#: in the files of the archive, and in a pA of a voltage clamp, with 5 mV per pA.
CODES_PER_MV, CODES_PER_PA = 160.0, 16.0

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


class Extras:
    """What the whole set has besides the sweeps that are measured; adds it to those of a rig.

    The whole set begins with tests in voltage clamp, of the pipette, the seal and the access, and
    ends with one; between them come checks of the resistance. Triple short squares, checks of the
    capacitance, a chirp and noise follow the sweeps that are measured, which are those recorded
    without the whole set but for the ramps: most of them go on after an interruption. The cell in
    voltage clamp is an access resistance before a linear membrane, with the pipette's capacitance
    compensated; everything in current clamp is the model neuron's.

    Parameters
    ----------
    seal : float
        GOhm.
    """

    def __init__(self, seal: float) -> None:
        self.seal = seal

    def __call__(self, rig: Rig, stage: RigStage) -> None:
        """Record what comes after a stage, as `crosspatch.simulation.rig.Extra`."""
        if stage is RigStage.START:
            self.start(rig)
            self.tests()
        elif stage is RigStage.LONG_SQUARES:
            self.resistance_checks(2)
            self.capacitance_checks()
        elif stage is RigStage.SHORT_SQUARES:
            self.triple_short_squares()
            self.resistance_checks(2)
            self.first_ramp = len(rig.sweeps)
        else:
            self.resume(self.first_ramp)
            self.resistance_checks(2)
            self.chirp()
            self.noise()
            self.resistance_checks(3)
            self.end()

    def start(self, rig: Rig) -> None:
        """Begin with a cell."""
        self.rig = rig
        # Generators of their own, spawned without a draw: what is measured stays the same.
        self.rng, self.interruptions = rig.rng.spawn(2)
        # A small step, which hardly opens Ih.
        self.resistance, _, _ = step_features(rig.neuron, -20.0)  # MOhm
        self.pipette = self.rng.uniform(5.0, 8.0)  # MOhm
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
        current += filtered_noise(len(command), self.rng, 0.3)
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


def _on_lattice(values: NDArray[np.float32], codes: float) -> NDArray[np.float32]:
    """Values as a 16-bit converter with so many codes per unit gives them."""
    limits = np.iinfo(np.int16)
    found = np.rint(np.asarray(values, np.float32) * np.float32(codes))
    return np.clip(found, limits.min, limits.max) / np.float32(codes)


def _converted(sweep: WrittenSweep) -> Stored:
    """A response as the archive's files have it."""
    if sweep.clamp == VOLTAGE_CLAMP:
        return Stored(_on_lattice(sweep.current, CODES_PER_PA), "amperes", 1e-12)
    return Stored(_on_lattice(sweep.voltage, CODES_PER_MV), "volts", 1e-3)


#: As MIES stores the archive's files: float32 in mV on the lattice of a 16-bit converter, in small
#: chunks; they take more room and time than our 16-bit integers.
ARCHIVE = Storage(samples=8_192, level=3, growing=True, response=_converted)

#: For `crosspatch.simulation.cells.simulate_cells`.
WHOLE_SET = Style(("whole stimulus set",), Extras, ARCHIVE)
