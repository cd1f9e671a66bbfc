"""Which inputs of an ABF file hold potentials of cells, and which outputs and inputs their currents.

A file does not say. Units and names are evidence, and where they leave a choice the samples are:
a membrane rests below zero and follows its command with its time constant; under voltage clamp it
jumps with the command.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError
from crosspatch.recordings.abf_protocol import Output
from crosspatch.recordings.model import (
    CURRENT_CLAMP,
    VOLTAGE_CLAMP,
    Samples,
    to_millivolts,
    to_picoamperes,
)

#: What inputs are called that hold no potential of a cell.
_NO_MEMBRANE = re.compile(
    r"(?<![a-z])(trig|ttl|photo|pd\b|led\b|laser|light|lamp|temp|sync|stim|v?cmd|command|clock|frame"
    r"|shutter|camera|piezo|pressure|valve|lfp|field|eeg|ecg|emg|wheel)",
    re.IGNORECASE,
)
_CURRENT = re.compile(
    r"(?<![a-z])(i(m|memb|membrane|mon|inj|clamp|patch|cmd)?|current)(?![a-z])", re.IGNORECASE
)
_MEMBRANE = re.compile(
    r"(?<![a-z])(vm|v|memb\w*|vmon|vpatch|potential|voltage)(?![a-z])", re.IGNORECASE
)
#: A potential stays within the first; nearly all of it within the second, mV. Amplifiers end at
#: 10 V behind a gain of 10 or more.
_MOST, _NEARLY_ALL = 1100.0, 250.0
#: Between which cells rest, mV.
_RESTS = (-120.0, -20.0)
#: Two inputs that follow each other this closely, sample by sample, are on the same cell.
_SAME = 0.7
#: Share of the whole change that a membrane has made after 1 ms; more is voltage clamp.
_JUMPS = 0.6
#: An output drives the cell whose potential follows it at least so closely (correlation).
FOLLOWS = 0.5
#: Looked at for evidence: so many sweeps, spread evenly, and so many samples of each.
_SWEEPS, _SAMPLES = 5, 1_000_000


_Named = TypeVar("_Named", "Input", Output)


class Reads(Protocol):
    """Reads the samples of one sweep, at most so many, in mV or pA where the unit is one."""

    def __call__(self, sweep: int, most: int | None = None) -> Samples: ...


@dataclass(frozen=True, eq=False)
class Input:
    """One input of the digitizer."""

    number: int
    name: str
    unit: str
    mode: int | None  # of a MultiClamp, by telegraph: 0 voltage clamp, 1 current clamp, 2 I=0
    rate: float  # Hz
    sweeps: int
    read: Reads = field(repr=False)

    @property
    def label(self) -> str:
        """For messages."""
        return f"input {self.number} {self.name!r}"

    @property
    def is_voltage(self) -> bool:
        """Whether its unit is one of voltage."""
        return to_millivolts(self.unit) is not None

    @property
    def is_current(self) -> bool:
        """Whether its unit is one of current."""
        return to_picoamperes(self.unit) is not None

    @property
    def is_named_current(self) -> bool:
        """Whether it is called a current."""
        return _CURRENT.search(self.name) is not None

    @cached_property
    def seen(self) -> dict[int, Samples]:
        """Some of its sweeps."""
        numbers = np.unique(np.linspace(0, self.sweeps - 1, _SWEEPS).round().astype(int))
        return {number: self.read(number, _SAMPLES) for number in numbers.tolist()}

    @cached_property
    def why_no_membrane(self) -> str | None:
        """What speaks against it, None if nothing does."""
        if _NO_MEMBRANE.search(self.name):
            return "by its name no membrane"
        if self.is_named_current:
            return f"by its name a current, but in {self.unit}"
        values = np.concatenate(list(self.seen.values()))
        low, *inner, high = np.percentile(values, [0, 1, 99, 100])
        far = max(-low, high)
        if not np.isfinite(far) or far > _MOST or max(-inner[0], inner[1]) > _NEARLY_ALL:
            return f"reaches {far:.3g} mV"
        return "always the same" if low == high else None

    @cached_property
    def rests_like_a_cell(self) -> bool:
        """Whether it lies where membranes do."""
        middle = float(np.median(np.concatenate(list(self.seen.values()))))
        return _RESTS[0] <= middle <= _RESTS[1]


@dataclass(frozen=True, eq=False)
class Cell:
    """A cell in current clamp: where its potential, its command and its current are."""

    voltage: Input
    output: Output | None
    measured: Input | None
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its electrode."""
        return (self.output.name if self.output else "") or self.voltage.name


def cells_of(
    name: str,
    inputs: Sequence[Input],
    outputs: Sequence[Output],
    clamp: str | None,
    channel: str | None,
    electrode: str | None,
) -> list[Cell]:
    """The cells in current clamp, as the evidence has it or the user says; none is an error."""
    potentials, notes = _potentials(name, inputs, channel)
    currents = [each for each in inputs if each.is_current]
    _require_potential(name, inputs, potentials, currents, outputs)
    injecting = [output for output in outputs if output.injects]
    named = [each for each in potentials if channel and each is _named(channel, inputs)]
    # Where several outputs may be that of the input that is named, the other cells have theirs.
    pairs = _pairs(potentials if len(injecting) > 1 else named or potentials, injecting)
    potentials = named or potentials
    if electrode is not None:
        potentials, pairs = _of_electrode(name, electrode, potentials, pairs, outputs)
    cells, clamped = [], []
    for voltage in potentials:
        output = pairs.get(voltage)
        if output is None and pairs:
            notes.append(f"{voltage.label} follows no output, it is left out")
            continue
        measured = _measured(voltage, output, currents, len(potentials))
        found, why = _clamp(voltage, measured, output, outputs)
        said = [] if why is None else [f"{found}: {why}"]
        if found == VOLTAGE_CLAMP:
            if clamp != "current":
                clamped.append(why)
                continue
            said = [f"taken for {CURRENT_CLAMP} as told, although {why}"]
        if output is not None and (len(injecting) > 1 or output.number != 0):
            said.append(_why_paired(voltage, output, len(injecting)))
        cells.append(Cell(voltage, output, measured, tuple(said)))
    if not cells:
        raise _voltage_clamp(name, inputs[0].sweeps, "; ".join(clamped))
    return [replace(cell, notes=(*notes, *cell.notes)) for cell in cells]


def _voltage_clamp(name: str, sweeps: int, why: str) -> RecordingError:
    return RecordingError(
        f"{name} has no current-clamp sweep (its {sweeps} sweeps are in {VOLTAGE_CLAMP}: {why}); "
        "nothing to analyse",
        hint="where the file is wrong, give {clamp} current",
    )


def _list(things: Sequence[Input] | Sequence[Output]) -> str:
    return ", ".join(f"{each.number} {each.name!r} ({each.unit})" for each in things)


def _named(wanted: str, things: Sequence[_Named]) -> _Named | None:
    """The one of this name, or else of this number."""
    plain = wanted.strip().lower()
    by_name = [each for each in things if each.name.strip().lower() == plain]
    by_number = [each for each in things if str(each.number) == plain]
    return next(iter(by_name or by_number), None)


def _potentials(
    name: str, inputs: Sequence[Input], channel: str | None
) -> tuple[list[Input], list[str]]:
    """The inputs that hold potentials of different cells, and what is said about the others."""
    if channel is not None:
        chosen = _named(channel, inputs)
        if chosen is None or not chosen.is_voltage:
            what = "no input" if chosen is None else f"{chosen.label} in {chosen.unit}, no potential"
            raise RecordingError(
                f"{name} has {what}, where {channel!r} is asked for; its inputs are {_list(inputs)}",
                hint="choose one in mV or V with {channel}",
            )
        potentials, _ = _potentials(name, inputs, None)
        return list({each.number: each for each in [chosen, *potentials]}.values()), []
    volts = [each for each in inputs if each.is_voltage]
    if len(inputs) == 1 or not volts:
        return volts, []
    notes = [
        f"{each.label} is left out: {each.why_no_membrane}"
        for each in volts
        if each.why_no_membrane
    ]
    fit = [each for each in volts if not each.why_no_membrane]
    if not fit and len(volts) == len(inputs):
        return volts[:1], []  # nothing better is there; its sweeps are judged one by one
    resting = [each for each in fit if each.rests_like_a_cell]
    by_name = sorted(fit, key=lambda each: not _MEMBRANE.search(each.name))
    potentials = _different(resting) if resting else by_name[:1]
    notes += [f"{each.label} is left out" for each in fit if each not in potentials]
    if potentials and len(volts) > 1:
        which = " and ".join(each.label for each in potentials)
        notes.insert(0, f"the potential is that of {which}")
    return potentials, notes


def _different(inputs: Sequence[Input]) -> list[Input]:
    """Without those that record the cell of another one again."""
    kept: list[Input] = []
    for each in sorted(inputs, key=lambda each: (not _MEMBRANE.search(each.name), each.number)):
        if not any(_same_cell(each, other) for other in kept):
            kept.append(each)
    return sorted(kept, key=lambda each: each.number)


def _same_cell(one: Input, other: Input) -> bool:
    """Judged where the potential moves most: the spikes of two cells do not coincide."""
    liveliest = max(one.seen, key=lambda sweep: float(np.ptp(one.seen[sweep])))
    pair = one.seen[liveliest], other.seen[liveliest]
    width = max(round(0.0005 * one.rate), 1)
    fast = [np.diff(_means(samples, width)) for samples in pair]
    return _correlation(*fast) > _SAME


def _means(samples: Samples, width: int) -> NDArray[np.float64]:
    """Means of so many samples each."""
    whole = len(samples) // width * width
    return np.asarray(samples[:whole], dtype=np.float64).reshape(-1, width).mean(axis=1)


def _correlation(one: Samples, other: Samples) -> float:
    """0 where one is constant or not finite."""
    one, other = one - np.mean(one), other - np.mean(other)
    size = float(np.sqrt(np.dot(one, one) * np.dot(other, other)))
    return float(np.dot(one, other)) / size if np.isfinite(size) and size > 0 else 0.0


def follows(voltage: Input, current: Callable[[int], Samples]) -> float:
    """How closely a potential follows a current: the correlation over some sweeps.

    Spikes are cut off; 0 where the current is constant or cannot be known.
    """
    width = max(round(0.001 * voltage.rate), 1)
    potentials, currents = [], []
    try:
        for sweep, samples in voltage.seen.items():
            potentials.append(_means(samples, width))
            currents.append(_means(current(sweep)[: len(samples)], width))
    except (ValueError, RecordingError):
        return 0.0
    potential = np.concatenate(potentials)
    potential = np.minimum(potential, np.median(potential) + 30.0)
    return _correlation(potential, np.concatenate(currents))


def _of_output(voltage: Input, output: Output) -> Callable[[int], Samples]:
    return lambda sweep: output.waveform(sweep, len(voltage.seen[sweep]))


def _of_electrode(
    name: str,
    electrode: str,
    potentials: list[Input],
    pairs: dict[Input, Output],
    outputs: Sequence[Output],
) -> tuple[list[Input], dict[Input, Output]]:
    """What is left of the pairs when an output, or the input of a cell, is named."""
    injecting = [output for output in outputs if output.injects]
    output = _named(electrode, injecting)
    if output is not None:
        own = [each for each in potentials if pairs.get(each) is output]
        best = own or [max(potentials, key=lambda each: _pair_score(each, output))]
        return best, {best[0]: output}
    voltage = _named(electrode, potentials)
    if voltage is not None:
        return [voltage], {each: of for each, of in pairs.items() if each is voltage}
    there = _list(injecting) or "none, of " + _list(outputs)
    raise RecordingError(
        f"{name} has no electrode {electrode!r}; its outputs of current are {there}, its "
        f"potentials {_list(potentials)}",
        hint="choose one with {electrode}",
    )


def _require_potential(
    name: str,
    inputs: Sequence[Input],
    potentials: Sequence[Input],
    currents: Sequence[Input],
    outputs: Sequence[Output],
) -> None:
    if potentials:
        return
    if not currents:
        raise RecordingError(
            f"{name}: no channel has a unit of voltage or current that a cell can have; its "
            f"inputs are {_list(inputs)}",
            hint="choose one in mV or V with {channel}",
        )
    others = [each for each in outputs if each.enabled]
    why = f"{currents[0].label} is in {currents[0].unit}"
    why += "".join(f", {each.label} in {each.unit}" for each in others)
    why += "".join(
        f", {each.label} is {each.why_no_membrane}" for each in inputs if each.is_voltage
    )
    raise _voltage_clamp(name, inputs[0].sweeps, f"{why}, and no input holds a potential")


def _pair_score(voltage: Input, output: Output) -> float:
    """How much speaks for an output to drive a cell: the response, then the number."""
    response = follows(voltage, _of_output(voltage, output))
    return max(response, 0.0) + 0.1 * (voltage.number == output.number)


def _pairs(potentials: Sequence[Input], outputs: Sequence[Output]) -> dict[Input, Output]:
    """Which output drives which cell, each at most one; all where there is no choice."""
    if len(potentials) == len(outputs) == 1:
        return {potentials[0]: outputs[0]}
    scores = [
        (-_pair_score(voltage, output), k, j)
        for k, voltage in enumerate(potentials)
        for j, output in enumerate(outputs)
    ]
    pairs: dict[Input, Output] = {}
    for _, k, j in sorted(scores):
        if potentials[k] not in pairs and outputs[j] not in pairs.values():
            pairs[potentials[k]] = outputs[j]
    return pairs


def _why_paired(voltage: Input, output: Output, choices: int) -> str:
    why = "the only one that plays a current"
    if choices > 1:
        response = follows(voltage, _of_output(voltage, output))
        why = f"its potential follows it, r = {response:.2f}"
        if response < FOLLOWS:
            why = "by number and order, its potential follows none"
    return f"{voltage.label} is driven by {output.label} ({why})"


def _measured(
    voltage: Input, output: Output | None, currents: Sequence[Input], cells: int
) -> Input | None:
    """The input that measures the current of this cell."""
    if len(currents) == 1 and cells == 1:
        return currents[0]

    def score(current: Input) -> float:
        known = 0.0
        if output is not None:
            known = follows(current, _of_output(current, output))
        return max(known, follows(voltage, lambda sweep: current.seen[sweep])) + 0.01 * (
            abs(current.number - voltage.number) <= 1
        )

    best = max(currents, key=score, default=None)
    return best if best is not None and score(best) >= FOLLOWS else None


def _clamp(
    voltage: Input, measured: Input | None, output: Output | None, outputs: Sequence[Output]
) -> tuple[str, str | None]:
    """The clamp, and what counted; None if nothing speaks against current clamp."""
    unlike = [each for each in outputs if each.enabled and to_millivolts(each.unit)]
    if measured is None:
        if voltage.mode == 0 and output is None and unlike:
            return VOLTAGE_CLAMP, f"the amplifier's telegraph and {unlike[0].label} say so"
        return CURRENT_CLAMP, None
    share = _share_after_1_ms(voltage, measured)
    if share is not None:
        jumps = share > _JUMPS
        how = "jumps with" if jumps else "changes slowly where"
        why = f"the potential of {voltage.label} {how} the current of {measured.label}"
        return (VOLTAGE_CLAMP, why) if jumps else (CURRENT_CLAMP, why + " jumps")
    mode = voltage.mode if voltage.mode is not None else measured.mode
    if mode is not None:
        return (CURRENT_CLAMP if mode else VOLTAGE_CLAMP), "the amplifier's telegraph says so"
    if output is not None or not unlike:
        return CURRENT_CLAMP, None
    moves = float(np.ptp(np.concatenate(list(voltage.seen.values())))) > 10.0
    if moves:
        return CURRENT_CLAMP, f"the potential of {voltage.label} moves on its own"
    return VOLTAGE_CLAMP, f"{unlike[0].label} is in {unlike[0].unit}, and the potential is still"


def _share_after_1_ms(voltage: Input, measured: Input) -> float | None:
    """Of the change that follows the largest jump of the current, the share made after 1 ms."""
    shares = []
    ms = voltage.rate / 1000
    near, late = max(round(ms), 1), round(20 * ms)
    for sweep, potential in voltage.seen.items():
        current = measured.seen[sweep]
        if len(current) < 4 * late:
            continue
        sums = np.cumsum(np.concatenate([[0.0], current]))
        means = (sums[2 * near :] - sums[: -2 * near]) / (2 * near)
        jumps = np.abs(means[2 * near :] - means[: -2 * near])[late : -late - 2 * near]
        at = int(np.argmax(jumps)) + 2 * near + late
        before = float(np.median(potential[at - 5 * near : at - 2 * near]))
        soon = float(np.median(potential[at + near // 2 : at + near + near // 2 + 1]))
        whole = float(np.median(potential[at + late // 2 : at + late])) - before
        if abs(whole) > 2.0 and jumps.max() > 5 * np.median(jumps):
            shares.append((soon - before) / whole)
    return float(np.median(shares)) if shares else None
