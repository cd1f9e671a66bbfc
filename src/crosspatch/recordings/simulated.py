"""Simulated cells of both species, recorded with the Allen stimulus set and written as NWB.

For tests, examples and the embedded default run, never for science: every file, table and
description says that it is simulated. What the subclasses look like is data,
``data/simulated_cells.csv``: the means and spreads of published recordings, and the few values
fitted to them.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import get_reusable_executor
from numpy.typing import NDArray
from scipy.signal import lfilter

from crosspatch.errors import RecordingError
from crosspatch.recordings.model import CURRENT_CLAMP, VOLTAGE_CLAMP
from crosspatch.recordings.nwb_writer import SessionNotes, WrittenSweep, write_nwb
from crosspatch.recordings.point_neuron import PointNeuron, SpikeShape, simulate
from crosspatch.writing import replacing

SPECIES = ("mouse", "human")
SUBCLASSES = ("Lamp5", "Pvalb", "Sst", "Vip")

#: Table of the cells of a folder.
CELLS_FILE = "cells.csv"

#: Cells of a subclass among any twenty in a row: the shares of the Allen sets, evened out so that
#: a small folder has cells of every subclass.
_SHARES = {
    "mouse": {"Lamp5": 3, "Pvalb": 5, "Sst": 7, "Vip": 5},
    "human": {"Lamp5": 4, "Pvalb": 7, "Sst": 5, "Vip": 4},
}

#: Part of the variance of a parameter that cells of one donor share.
_DONOR_SHARE = 0.15

#: Most cells of a donor: fewer than in the Allen sets (median 4 a mouse, 3 a person), so that a
#: small cohort has donors enough for folds.
_MOST_OF_DONOR = 3

#: Parameters that vary together: the weights of others and of the cell's own. Within subclasses of
#: Gouwens et al. 2020 and Lee, Dalley et al. 2023 the correlations are about 0.6 (time constant and
#: resistance), 0.7 (height and upstroke), -0.65 (width and upstroke), 0.4 (width and ratio of the
#: strokes) and 0.15 (upstroke and that ratio).
_GOES_WITH = {
    "tau": ({"input_resistance": 0.6}, 0.8),
    "height": ({"upstroke": 0.7}, 0.71),
    "width": ({"upstroke": -0.65}, 0.76),
    "upstroke_downstroke_ratio": ({"width": 0.86, "upstroke": 0.71}, 0.74),
}

# First words of the seeds, so that cells, donors and the order of subclasses draw independently.
_CELL, _DONOR, _DONOR_SIZE, _ORDER = range(4)


@dataclass(frozen=True)
class Protocol:
    """The stimulus set, after the Allen Institute's Patch-seq recordings (Gouwens et al. 2020).

    Attributes
    ----------
    rate : float
        Samples a second.
    test_pulse_start, test_pulse_length, test_pulse : float
        The pulse before every stimulus: s, s, pA.
    onset, after : float
        Start of the stimulus, and recording after its end, s.
    long_square, short_square : float
        Their lengths, s.
    lowest, step : float
        First amplitude of the long squares, and from one to the next, pA.
    highest : float
        Amplitude at which the search for the rheobase gives up, pA.
    offsets : tuple of float
        Long squares above the rheobase, pA.
    repeats : int
        Short squares at the lowest amplitude that fires.
    ramp_slope : float
        pA/s.
    ramp_longest : float
        Longest ramp, s.
    ramps : int
    """

    rate: float = 50_000.0
    test_pulse_start: float = 0.02
    test_pulse_length: float = 0.01
    test_pulse: float = -10.0
    onset: float = 0.62
    after: float = 0.6
    long_square: float = 1.0
    short_square: float = 0.003
    lowest: float = -110.0
    step: float = 20.0
    highest: float = 690.0
    offsets: tuple[float, ...] = (20.0, 40.0, 60.0, 80.0, 100.0, 140.0)
    repeats: int = 3
    ramp_slope: float = 25.0
    ramp_longest: float = 26.0
    ramps: int = 2


@dataclass(frozen=True)
class Trouble:
    """How often something goes wrong, as probabilities.

    Attributes
    ----------
    failed_sweep : float
        A sweep is stopped early, drifts, is noisy or saturates.
    repeated : float
        A failed sweep is recorded again.
    no_ramp, no_short_square, few_long_squares : float
        A cell lacks these stimuli.
    unbalanced_bridge, poor_seal : float
        Of a cell.
    """

    failed_sweep: float = 0.02
    repeated: float = 0.8
    no_ramp: float = 0.05
    no_short_square: float = 0.05
    few_long_squares: float = 0.06
    unbalanced_bridge: float = 0.03
    poor_seal: float = 0.03


NO_TROUBLE = Trouble(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

LONG_SQUARE_COARSE = "C1LSCOARSE150216"
LONG_SQUARE_FINE = "C1LSFINEST150112"
SHORT_SQUARE_COARSE = "C1SSCOARSE150112"
SHORT_SQUARE_FINE = "C1SSFINEST150112"
RAMP = "C1RP25PR1S141203"

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

#: Keyword of files with the whole set.
WHOLE_SET = "whole stimulus set"

#: Pulses of the tests in voltage clamp, mV; the first of a sweep, at the time of the test pulse in
#: current clamp, is one that IPFX skips, the others begin at this time, s.
_CLAMP_PULSE, _CLAMP_PULSES_FROM = 10.0, 0.06

#: A ramp goes on after an interruption with this probability, and the interruption lasts this many
#: samples: 44 of 73 ramps and 960 to 1,983 in files of DANDI 000020.
_RESUMED, _INTERRUPTION = 0.6, (960, 1983)


class PlannedCell(NamedTuple):
    """What is settled about a cell before it is simulated."""

    number: int
    species: str
    subclass: str
    donor: int
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell and stem of its file."""
        return f"sim-{self.species}-{self.number:04d}"

    @property
    def identifier(self) -> str:
        """Identifier of the file's session; tells the seed apart."""
        return f"{self.name}-seed-{self.seed}"

    @property
    def donor_name(self) -> str:
        """Name of the donor, the same for all of its cells."""
        return f"sim-{self.species}-donor-{self.seed}-{self.donor:04d}"


def simulate_cells(
    out: str | Path,
    cells: int,
    species: str,
    *,
    seed: int = 0,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    whole_set: bool = False,
) -> Path:
    """Simulate cells of a species and write their recordings.

    A cell depends on the seed, the species and its number alone. Files that are there already are
    kept, so that a run that was stopped can go on; with the whole set where it is not wanted, or
    without it where it is, they are made anew.

    Parameters
    ----------
    out : path
        Folder for ``sim-<species>-0001.nwb``, … and ``cells.csv``.
    cells : int
        Number of cells.
    species : str
        mouse or human.
    seed : int
    jobs : int, optional
        Processes; all cores by default.
    progress : callable, optional
        Called with the cells done and the cells to do.
    whole_set : bool
        Add what files of the DANDI archive hold besides the sweeps that are measured, and store
        the samples as they do: files that are several times as large, with the same cells.

    Returns
    -------
    Path
        The table ``cells.csv``: file, species, subclass, t_type, donor, dataset.

    Raises
    ------
    RecordingError
        If an argument makes no sense, the folder holds files of another seed, or a file cannot be
        written.
    """
    out = Path(out)
    for name, value, least in (("cells", cells, 1), ("seed", seed, 0), ("jobs", jobs or 1, 1)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise RecordingError(f"{name} must be a whole number of at least {least}, not {value}")
    if jobs == 0:
        raise RecordingError("jobs must be a whole number of at least 1, not 0")
    plan = plan_cells(cells, species, seed=seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordingError(f"{out} cannot be made a folder: {error}") from error
    missing = [cell for cell in plan if not _is_written(out / f"{cell.name}.nwb", cell, whole_set)]
    done = len(plan) - len(missing)
    if progress:
        progress(done, len(plan))
    for _ in _written(missing, out, jobs, whole_set):
        done += 1
        if progress:
            progress(done, len(plan))
    table = pd.DataFrame(
        {
            "file": [f"{cell.name}.nwb" for cell in plan],
            "species": species,
            "subclass": [cell.subclass for cell in plan],
            "t_type": "simulated",
            "donor": [cell.donor_name for cell in plan],
            "dataset": f"simulated-{species}",
        }
    )
    path = out / CELLS_FILE
    with replacing(path, RecordingError) as temporary:
        table.to_csv(temporary, index=False)
    return path


def _written(
    missing: list[PlannedCell], out: Path, jobs: int | None, whole_set: bool
) -> Iterator[None]:
    jobs = min(jobs or cpu_count(), len(missing))
    if jobs <= 1:
        for cell in missing:
            write_cell(cell, out, whole_set=whole_set)
            yield
        return
    # Compiled here, the processes find the machine code in numba's cache.
    simulate(PointNeuron(), np.zeros(10))
    try:
        yield from Parallel(n_jobs=jobs, return_as="generator_unordered")(
            delayed(write_cell)(cell, out, whole_set=whole_set) for cell in missing
        )
    finally:
        get_reusable_executor().shutdown(wait=True)  # what comes next needs the memory


def _is_written(path: Path, cell: PlannedCell, whole_set: bool) -> bool:
    if not path.exists():
        return False
    try:
        with h5py.File(path, "r") as file:
            found = file["identifier"].asstr()[()]
            keywords = list(file["general/keywords"].asstr()[()])
    except (OSError, KeyError) as error:
        raise RecordingError(
            f"{path} is no simulated recording; choose another folder ({error})"
        ) from error
    if found != cell.identifier:
        raise RecordingError(
            f"{path} holds '{found}', not '{cell.identifier}'; choose another folder or seed"
        )
    return (WHOLE_SET in keywords) == whole_set


def plan_cells(cells: int, species: str, *, seed: int = 0) -> list[PlannedCell]:
    """Subclass and donor of each cell; more cells never change the first ones.

    Raises
    ------
    RecordingError
        If the species is unknown.
    """
    _require_known(species)
    which = SPECIES.index(species)
    block = [name for name, count in _SHARES[species].items() for _ in range(count)]
    order = np.random.default_rng([_ORDER, seed, which])
    subclasses: list[str] = []
    while len(subclasses) < cells:
        subclasses += [block[place] for place in order.permutation(len(block))]
    sizes = np.random.default_rng([_DONOR_SIZE, seed, which])
    donors: list[int] = []
    while len(donors) < cells:
        donor = donors[-1] + 1 if donors else 1
        donors += [donor] * int(sizes.integers(1, _MOST_OF_DONOR + 1))
    return [
        PlannedCell(number, species, subclasses[number - 1], donors[number - 1], seed)
        for number in range(1, cells + 1)
    ]


def simulated_neuron(
    species: str,
    subclass: str,
    rng: np.random.Generator | int,
    *,
    donor: np.random.Generator | int | None = None,
) -> PointNeuron:
    """Draw a neuron of a subclass.

    Parameters
    ----------
    species, subclass : str
    rng : Generator or int
        Source of what is the cell's own, or its seed.
    donor : Generator or int, optional
        Source of what cells of a donor share; without it the donor is a new one.

    Raises
    ------
    RecordingError
        If species or subclass is unknown.
    """
    _require_known(species, subclass)
    rng = np.random.default_rng(rng)
    of_donor = np.random.default_rng(rng.integers(2**63) if donor is None else donor)
    rows = _parameters()[species, subclass]
    own = rng.standard_normal(len(rows))
    shared = of_donor.standard_normal(len(rows))
    drawn = np.sqrt(1 - _DONOR_SHARE) * own + np.sqrt(_DONOR_SHARE) * shared
    z = {row.parameter: float(value) for row, value in zip(rows, drawn, strict=True)}
    for name, (others, rest) in _GOES_WITH.items():
        z[name] = rest * z[name] + sum(weight * z[other] for other, weight in others.items())
    values = {}
    for row in rows:
        deviation = row.spread * min(max(z[row.parameter], -2.5), 2.5)
        if row.distribution == "lognormal":
            values[row.parameter] = row.mean * float(np.exp(deviation))
        else:
            values[row.parameter] = row.mean + deviation
    return neuron_with(values)


class _Parameter(NamedTuple):
    parameter: str
    mean: float
    spread: float
    distribution: str


@cache
def _parameters() -> dict[tuple[str, str], tuple[_Parameter, ...]]:
    text = files("crosspatch.recordings").joinpath("data/simulated_cells.csv")
    found: dict[tuple[str, str], tuple[_Parameter, ...]] = {}
    with text.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cell = (row["species"], row["subclass"])
            parameter = _Parameter(
                row["parameter"], float(row["mean"]), float(row["spread"]), row["distribution"]
            )
            found[cell] = (*found.get(cell, ()), parameter)
    return found


#: Rounds in which conductance, capacitance and Ih are adjusted, and the samples of the test step.
_ROUNDS, _STEP_RATE = 8, 10_000


def neuron_with(values: Mapping[str, float]) -> PointNeuron:
    """The neuron that shows the given features; names and units as in ``simulated_cells.csv``.

    Leak, capacitance and Ih are adjusted until a hyperpolarising step shows the input resistance,
    time constant and sag; currents given in mV or in leaks are scaled by the conductance.
    """
    rest = values["rest"]
    total = 1e3 / values["input_resistance"]
    wanted_sag = float(np.clip(values["sag"], 0.0, 0.55))
    neuron = PointNeuron(
        rest=float(rest),
        slope_factor=values["slope_factor"],
        spike=SpikeShape(
            # A threshold near rest would make a cell that fires on its own.
            threshold=float(np.clip(values["threshold"], rest + 18.0, -20.0)),
            height=float(np.clip(values["height"], 35.0, 110.0)),
            trough=float(np.clip(values["trough"], 3.0, 45.0)),
            width=values["width"],
            upstroke=values["upstroke"],
            upstroke_downstroke_ratio=max(values["upstroke_downstroke_ratio"], 1.0),
        ),
        threshold_gain=min(values["threshold_gain"], 0.6),
        h_tau=values["h_tau"],
        d_conductance=values["d_current"] * total,
        adaptation_jump=values["adaptation_jump"] * total,
        adaptation_tau=values["adaptation_tau"],
        after_jump=values["after_jump"] * total,
        after_tau=values["after_tau"],
        fatigue=values["fatigue"],
        noise=values["noise"] * total,
    )
    h_rest = 1 / (1 + np.exp((rest - neuron.h_half) / neuron.h_slope))
    step = max(-110.0, (-100.0 - rest) * total)
    tau, h = values["tau"], 0.3 * wanted_sag * total
    passive = total
    for _ in range(_ROUNDS):
        # What is open at rest is part of the input conductance; most of it must stay leak.
        h = min(h, 0.7 * passive / h_rest)
        leak = passive - h * h_rest
        neuron = replace(
            neuron, leak=float(leak), capacitance=float(passive * tau), h_conductance=float(h)
        )
        resistance, found_tau, sag = _step_features(neuron, step)
        passive *= resistance / values["input_resistance"]
        tau *= float(np.clip(values["tau"] / found_tau, 0.7, 1.4))
        h *= float(np.clip(wanted_sag / max(sag, 1e-3), 0.4, 2.5))
    return neuron


def _step_features(neuron: PointNeuron, step: float) -> tuple[float, float, float]:
    """Input resistance (MOhm), time constant (ms) and sag of the response to a step in pA."""
    voltage, _ = simulate(neuron, np.full(_STEP_RATE, step), _STEP_RATE)
    deflection = neuron.rest - voltage
    peak = deflection.max()
    charged = np.flatnonzero(deflection >= (1 - np.exp(-1)) * peak)[0]
    steady = deflection[-_STEP_RATE * 3 // 100 :].mean()
    return -1e3 * peak / step, 1e3 * (charged + 1) / _STEP_RATE, 1 - steady / peak


def _require_known(species: str, subclass: str | None = None) -> None:
    if species not in SPECIES:
        raise RecordingError(f"species '{species}' is unknown; use {' or '.join(SPECIES)}")
    if subclass is not None and subclass not in SUBCLASSES:
        raise RecordingError(f"subclass '{subclass}' is unknown; use {', '.join(SUBCLASSES)}")


def write_cell(
    cell: PlannedCell, out: Path, trouble: Trouble | None = None, *, whole_set: bool = False
) -> Path:
    """Simulate a planned cell and write its recording; returns the file.

    Parameters
    ----------
    cell : PlannedCell
    out : Path
        Folder.
    trouble : Trouble, optional
        What may go wrong.
    whole_set : bool
        As for `simulate_cells`.

    Raises
    ------
    RecordingError
        If the file cannot be written.
    """
    trouble = trouble or Trouble()
    which = SPECIES.index(cell.species)
    donor_seed = [_DONOR, cell.seed, which, cell.donor]
    rng = np.random.default_rng([_CELL, cell.seed, which, cell.number])
    neuron = simulated_neuron(
        cell.species, cell.subclass, rng, donor=np.random.default_rng(donor_seed)
    )
    # A generator of its own: the donor's sex and age do not depend on what was drawn before.
    donor = np.random.default_rng([*donor_seed, 1])
    age = (
        f"P{donor.integers(45, 75)}D" if cell.species == "mouse" else f"P{donor.integers(20, 75)}Y"
    )
    poor = rng.random() < trouble.poor_seal
    seal = float(rng.uniform(0.4, 0.9) if poor else rng.lognormal(np.log(2.5), 0.4) + 1.0)
    access = float(np.clip(rng.normal(13.0, 3.5), 5.0, 25.0))
    notes = SessionNotes(
        identifier=cell.identifier,
        description=f"Simulated recording, no real cell: a model {cell.species} {cell.subclass} "
        "interneuron",
        experiment="Simulated by crosspatch with a point neuron; the stimulus set is that of the "
        "Allen Institute's Patch-seq recordings",
        keywords=(
            *("simulated", "patch-clamp", "current clamp", "interneuron", cell.subclass),
            *((WHOLE_SET,) if whole_set else ()),
        ),
        start=datetime(2020, 1, 1, 9, tzinfo=UTC) + timedelta(hours=cell.number),
        species=cell.species,
        donor=cell.donor_name,
        donor_description="Simulated donor, no animal or person",
        sex=str(donor.choice(["M", "F"])),
        age=age,
        institution="none: simulated",
        lab="none: simulated",
        seal=seal,
        access_resistance=access,
    )
    sweeps = record(
        neuron, rng, trouble=trouble, access_resistance=access, seal=seal, whole_set=whole_set
    )
    path = out / f"{cell.name}.nwb"
    write_nwb(path, notes, sweeps, like_archive=whole_set)
    return path


def record(
    neuron: PointNeuron,
    rng: np.random.Generator | int,
    *,
    protocol: Protocol | None = None,
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
    protocol : Protocol, optional
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
    rig = _Rig(neuron, rng, protocol or Protocol(), trouble, access_resistance)
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
        protocol: Protocol,
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
            _, spikes = simulate(self.neuron, current, rate, stop_after=1)
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
            voltage, _ = simulate(
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
            self.keep(RAMP, current, voltage, may_fail=False)

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
            voltage, spikes = simulate(self.neuron, current, rate, rng=self.rng)
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
        voltage, _ = simulate(rig.neuron, current, rig.protocol.rate, rng=rng)
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
