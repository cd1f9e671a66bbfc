"""Which inputs of an ABF file hold potentials of cells, and where their currents are.

A file does not say. Units and names are evidence, and where they leave a choice the samples are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from crosspatch.errors import RecordingError
from crosspatch.recordings.abf_inputs import (
    FOLLOWS,
    STILL_MV,
    STILL_PA,
    AnalogInput,
    follows,
    jumps_with,
    same_cell,
    share_in_common,
    stays_still,
)
from crosspatch.recordings.abf_protocol import AnalogOutput
from crosspatch.recordings.model import CURRENT_CLAMP, VOLTAGE_CLAMP, Samples, to_millivolts
from crosspatch.recordings.reading_options import Reading

_Named = TypeVar("_Named", "AnalogInput", AnalogOutput)
#: The clamp, and what counted.
_Clamp = tuple[str, str | None]


@dataclass(frozen=True, eq=False)
class ClampedCell:
    """A cell in current clamp: where its potential, its command and its current are."""

    voltage: AnalogInput
    output: AnalogOutput | None
    measured: AnalogInput | None
    clamp: str
    why: str | None  # it is in this clamp, None if nothing spoke against it
    notes: tuple[str, ...] = ()
    electrode: str | None = None  # its name, where the file has several cells

    def as_told(self) -> ClampedCell:
        """In current clamp, whatever speaks against it."""
        if self.clamp == CURRENT_CLAMP:
            return self
        notes = (*self.notes, f"taken for {CURRENT_CLAMP} as told")
        return replace(self, clamp=CURRENT_CLAMP, notes=notes)


def cells_in_abf(
    name: str, inputs: Sequence[AnalogInput], outputs: Sequence[AnalogOutput], reading: Reading
) -> list[ClampedCell]:
    """The cells in current clamp, as the evidence has it or the user says; none is an error."""
    potentials, pairs, notes = _chosen(name, inputs, outputs, reading)
    driven = list(pairs) or potentials
    notes += [
        f"{each.label} follows no output, it is left out"
        for each in potentials
        if each not in driven
    ]
    currents = [each for each in inputs if each.is_current]
    cells = [_cell(each, pairs.get(each), currents, driven, outputs) for each in driven]
    if reading.clamp == "current":
        cells = [each.as_told() for each in cells]
    kept = _in_current_clamp(name, inputs[0].sweeps, cells)
    return [
        replace(cell, notes=(*notes, *cell.notes), electrode=electrode)
        for cell, electrode in zip(kept, _electrodes(kept), strict=True)
    ]


def _in_current_clamp(name: str, sweeps: int, cells: Sequence[ClampedCell]) -> list[ClampedCell]:
    """Those with a current, if any has one."""
    kept = [each for each in cells if each.clamp == CURRENT_CLAMP]
    if not kept:
        why = "; ".join(str(each.why) for each in cells)
        raise _voltage_clamp(name, sweeps, why, "where that is wrong, give {clamp} current")
    return [each for each in kept if each.output or each.measured] or kept


def _cell(
    voltage: AnalogInput,
    output: AnalogOutput | None,
    currents: Sequence[AnalogInput],
    cells: Sequence[AnalogInput],
    outputs: Sequence[AnalogOutput],
) -> ClampedCell:
    measured = _measured(voltage, output, currents, cells)
    clamp, why = _clamp(voltage, measured, output, outputs)
    notes = [] if why is None else [f"{clamp}: {why}"]
    choices = len(_injecting(outputs))
    if output is not None and (choices > 1 or output.number != 0):
        notes.append(_why_paired(voltage, output, choices))
    return ClampedCell(voltage, output, measured, clamp, why, tuple(notes))


def _injecting(outputs: Sequence[AnalogOutput]) -> list[AnalogOutput]:
    return [output for output in outputs if output.injects]


def _chosen(
    name: str, inputs: Sequence[AnalogInput], outputs: Sequence[AnalogOutput], reading: Reading
) -> tuple[list[AnalogInput], dict[AnalogInput, AnalogOutput], list[str]]:
    """The potentials, which output drives which, and what is said."""
    injecting = _injecting(outputs)
    potentials, notes = _potentials(inputs, len(injecting))
    if reading.channel is not None:
        chosen = _channel(name, reading.channel, inputs)
        # Where several outputs may be its own, the other cells have theirs.
        others = [each for each in potentials if each is not chosen and len(injecting) > 1]
        potentials, notes = [chosen, *others], []
    if not potentials:
        raise _no_potential(name, inputs, outputs)
    pairs = _pairs(potentials, injecting)
    if reading.channel is not None:
        potentials = potentials[:1]
    if reading.electrode is not None:
        return *_of_electrode(name, reading.electrode, potentials, pairs, outputs), notes
    return potentials, {each: pairs[each] for each in potentials if each in pairs}, notes


def _channel(name: str, channel: str, inputs: Sequence[AnalogInput]) -> AnalogInput:
    chosen = _named(channel, inputs)
    if chosen is not None and chosen.is_voltage:
        return chosen
    what = f"no input {channel!r}"
    if chosen is not None:
        what = f"{chosen.label} in {chosen.unit}, which is no potential"
    raise RecordingError(
        f"{name} has {what}; its inputs are {_list(inputs)}",
        hint="choose one in mV or V with {channel}",
    )


def _electrodes(cells: Sequence[ClampedCell]) -> Sequence[str | None]:
    """Names of several cells: those of their outputs or else of their inputs, if they differ."""
    if len(cells) == 1:
        return [None]
    names = [[cell.output.name if cell.output else "" for cell in cells]]
    names.append([cell.voltage.name for cell in cells])
    numbers = [str(cell.voltage.number) for cell in cells]
    return next((each for each in names if all(each) and len(set(each)) == len(each)), numbers)


def _voltage_clamp(name: str, sweeps: int, why: str, hint: str = "") -> RecordingError:
    return RecordingError(
        f"{name} has no current-clamp sweep (its {sweeps} sweeps are in {VOLTAGE_CLAMP}: {why}); "
        "nothing to analyse",
        hint=hint,
    )


def _list(things: Sequence[AnalogInput] | Sequence[AnalogOutput]) -> str:
    return ", ".join(f"{each.number} {each.name!r} ({each.unit})" for each in things)


def _named(wanted: str, things: Sequence[_Named]) -> _Named | None:
    """The one of this name, or else of this number."""
    plain = wanted.strip().lower()
    by_name = [each for each in things if each.name.strip().lower() == plain]
    by_number = [each for each in things if str(each.number) == plain]
    return next(iter(by_name or by_number), None)


def _potentials(
    inputs: Sequence[AnalogInput], injecting: int
) -> tuple[list[AnalogInput], list[str]]:
    """The inputs that hold potentials of different cells, and what is said about the others."""
    volts = [each for each in inputs if each.is_voltage]
    if len(inputs) == 1 or not volts:
        return volts, []
    fit = [each for each in volts if not each.why_no_membrane]
    if not fit and len(volts) == len(inputs):
        return volts[:1], []  # nothing better is there; its sweeps are judged one by one
    potentials = _resting(fit)
    if len(potentials) > max(injecting, 1):  # else there is an output for each of them
        potentials = _different(potentials)
    return potentials, _why_these(potentials, volts)


def _resting(fit: Sequence[AnalogInput]) -> list[AnalogInput]:
    """Those that rest like cells, or else the one most like a potential by name."""
    by_name = sorted(fit, key=lambda each: not each.is_named_membrane)
    return [each for each in fit if each.rests_like_a_cell] or by_name[:1]


def _why_these(potentials: Sequence[AnalogInput], volts: Sequence[AnalogInput]) -> list[str]:
    if not potentials or len(volts) == 1:
        return []
    notes = [f"the potential is that of {' and '.join(each.label for each in potentials)}"]
    left = [each for each in volts if each not in potentials]
    return notes + [f"{each.label} is left out: {_why_left(each)}" for each in left]


def _why_left(voltage: AnalogInput) -> str:
    resting = "it records the same cell" if voltage.rests_like_a_cell else None
    return voltage.why_no_membrane or resting or f"it rests at {voltage.rest:.3g} mV"


def _different(inputs: Sequence[AnalogInput]) -> list[AnalogInput]:
    """Without those that record the cell of another one again."""
    kept: list[AnalogInput] = []
    for each in sorted(inputs, key=lambda each: (not each.is_named_membrane, each.number)):
        if not any(same_cell(each, other) for other in kept):
            kept.append(each)
    return sorted(kept, key=lambda each: each.number)


def _of_output(voltage: AnalogInput, output: AnalogOutput) -> Callable[[int], Samples]:
    return lambda sweep: output.waveform(sweep, len(voltage.seen[sweep]))


def _of_electrode(
    name: str,
    electrode: str,
    potentials: list[AnalogInput],
    pairs: dict[AnalogInput, AnalogOutput],
    outputs: Sequence[AnalogOutput],
) -> tuple[list[AnalogInput], dict[AnalogInput, AnalogOutput]]:
    """What is left of the pairs when an output, or the input of a cell, is named."""
    injecting = _injecting(outputs)
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


def _no_potential(
    name: str, inputs: Sequence[AnalogInput], outputs: Sequence[AnalogOutput]
) -> RecordingError:
    against = [f"{each.label}: {each.why_no_membrane}" for each in inputs if each.is_voltage]
    current = next((each for each in inputs if each.is_current), None)
    if current is None:
        why = "; ".join(against) or "no channel has a unit of voltage or current"
        return RecordingError(
            f"{name} holds no membrane potential ({why}); its inputs are {_list(inputs)}",
            hint="choose one in mV or V with {channel}",
        )
    put_out = [f"{each.label} in {each.unit}" for each in outputs if each.enabled]
    why = ", ".join([f"{current.label} is in {current.unit}", *put_out, *against])
    return _voltage_clamp(name, inputs[0].sweeps, f"{why}, and no input holds a potential")


def _pair_score(voltage: AnalogInput, output: AnalogOutput) -> float:
    """How much speaks for an output to drive a cell: the response, then the number."""
    response = follows(voltage, _of_output(voltage, output))
    return max(response, 0.0) + 0.1 * (voltage.number == output.number)


def _pairs(
    potentials: Sequence[AnalogInput], outputs: Sequence[AnalogOutput]
) -> dict[AnalogInput, AnalogOutput]:
    """Which output drives which cell, each at most one; all where there is no choice."""
    if len(potentials) == len(outputs) == 1:
        return {potentials[0]: outputs[0]}
    scores = [
        (-_pair_score(voltage, output), k, j)
        for k, voltage in enumerate(potentials)
        for j, output in enumerate(outputs)
    ]
    pairs: dict[AnalogInput, AnalogOutput] = {}
    for _, k, j in sorted(scores):
        if potentials[k] not in pairs and outputs[j] not in pairs.values():
            pairs[potentials[k]] = outputs[j]
    return pairs


def _why_paired(voltage: AnalogInput, output: AnalogOutput, choices: int) -> str:
    why = "the only one that plays a current"
    if choices > 1:
        response = follows(voltage, _of_output(voltage, output))
        why = f"its potential follows it, r = {response:.2f}"
        if response < FOLLOWS:
            why = "by number and order, its potential follows none"
    return f"{voltage.label} is driven by {output.label} ({why})"


def _measured(
    voltage: AnalogInput,
    output: AnalogOutput | None,
    currents: Sequence[AnalogInput],
    cells: Sequence[AnalogInput],
) -> AnalogInput | None:
    """The input that measures the current of this cell."""
    if len(currents) == len(cells) == 1:
        return currents[0]

    def score(current: AnalogInput) -> float:
        apart = abs(current.number - voltage.number)
        if output is None:
            return follows(voltage, lambda sweep: current.seen[sweep]) - 0.01 * apart
        return share_in_common(current, _of_output(current, output)) - 0.01 * apart

    best = max(currents, key=score, default=None)
    return best if best is not None and score(best) >= FOLLOWS else None


def _clamp(
    voltage: AnalogInput,
    measured: AnalogInput | None,
    output: AnalogOutput | None,
    outputs: Sequence[AnalogOutput],
) -> _Clamp:
    """The clamp, and what counted; None if nothing speaks against current clamp."""
    # Outputs that play a potential.
    unlike = [each for each in outputs if each.enabled and to_millivolts(each.unit)]
    if measured is None:
        if voltage.mode == 0 and output is None and unlike:
            return VOLTAGE_CLAMP, f"the amplifier's telegraph and {unlike[0].label} say so"
        return CURRENT_CLAMP, None
    found = _by_jumps(voltage, measured) or _by_telegraph(voltage, measured)
    if found is not None or output is not None:
        return found or (CURRENT_CLAMP, None)
    return _by_stillness(voltage, measured, unlike)


def _by_jumps(voltage: AnalogInput, measured: AnalogInput) -> _Clamp | None:
    jumps = jumps_with(voltage, measured)
    if jumps is None:
        return None
    how = "jumps with" if jumps else "changes slowly where"
    why = f"the potential of {voltage.label} {how} the current of {measured.label}"
    return (VOLTAGE_CLAMP, why) if jumps else (CURRENT_CLAMP, why + " jumps")


def _by_telegraph(voltage: AnalogInput, measured: AnalogInput) -> _Clamp | None:
    mode = voltage.mode if voltage.mode is not None else measured.mode
    if mode is None:
        return None
    return (CURRENT_CLAMP if mode else VOLTAGE_CLAMP), "the amplifier's telegraph says so"


def _by_stillness(
    voltage: AnalogInput, measured: AnalogInput, unlike: Sequence[AnalogOutput]
) -> _Clamp:
    if not stays_still(voltage, STILL_MV):
        return CURRENT_CLAMP, f"the potential of {voltage.label} moves on its own"
    if unlike or not stays_still(measured, STILL_PA):
        return VOLTAGE_CLAMP, f"the potential of {voltage.label} is held"
    return CURRENT_CLAMP, None
