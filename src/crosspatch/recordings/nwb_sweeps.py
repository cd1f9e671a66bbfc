"""The sweeps of an NWB 2 file: which samples belong together, of which electrode, and when.

What says so is, in this order: the table ``intracellular_recordings`` (one row, one sweep), the
``sweep_table``, the attribute ``sweep_number``, the number in the names of series, their order.

Longer than 400 lines: each of these ways leads to the same pairs, placed on one clock.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import h5py
import numpy as np

from crosspatch.recordings.model import CURRENT_CLAMP, VOLTAGE_CLAMP, Samples, Sweep, refusing
from crosspatch.recordings.nwb_series import (
    ICEPHYS,
    Opened,
    Series,
    Span,
    UnreadableError,
    Unwanted,
    content_of,
    named,
    noted,
    noting,
    reader,
    rows_of,
    span_of,
    spans_of,
    text_of,
)

#: A stimulus may start or end so much before its response by a rounding of lengths, s; the current
#: is then taken to stay as it is at that edge.
_ROUNDING = 1e-3
#: A stimulus that covers less than this share of its response tells too little of it.
_LEAST_COVERED = 0.25
#: A number in a name that is larger than this is a date or a time of day.
_MOST_SWEEPS = 99_999
#: A sweep has two series.
_MOST_REFERENCES = 2 * _MOST_SWEEPS
#: So many stimuli are compared by their names, of which so much.
_MOST_ALIKE, _LONGEST = 50, 100
#: So many numbers of a name are looked at.
_MOST_NUMBERS = 12
#: What names an input in the name of a series.
_INPUT = re.compile(
    r"(?:AD|DA|ADC|ch|chan|channel|in|input|hs|headstage)[_ -]?(\d+)", re.IGNORECASE
)


@dataclass
class Pair:
    """One sweep: its response, its stimulus if there is one, and what they are called."""

    number: int
    response: Span
    stimulus: Span | None
    description: str
    #: Whether both begin at once, though their clocks say otherwise.
    at_start: bool = False


@dataclass
class Electrode:
    """What was recorded with one electrode, or with several that are one cell's."""

    name: str | None  # of the electrode; None where series name none
    pairs: list[Pair] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or "no electrode"

    @property
    def stimulated(self) -> bool:
        """Whether it has a sweep in current clamp with a stimulus."""
        return any(
            pair.stimulus is not None and pair.response.series.clamp == CURRENT_CLAMP
            for pair in self.pairs
        )


def sweeps_by_electrode(
    nwb: Opened, series: Sequence[Series], unwanted: Unwanted | None
) -> list[Electrode]:
    """What was recorded of every electrode, with its sweeps in order of their numbers."""
    pairs, used = _rows(nwb, {each.address: each for each in series}, unwanted)
    cells: dict[str | None, Electrode] = {}
    for pair in pairs:
        name = pair.response.series.electrode
        cells.setdefault(name, Electrode(name)).pairs.append(pair)
    for cell in cells.values():
        _number_rows(cell)
    _add_rest(nwb, cells, [each for each in series if each.path not in used])
    for cell in cells.values():
        cell.pairs.sort(key=lambda pair: pair.number)
    return [cell for cell in cells.values() if cell.pairs]


def _add_rest(nwb: Opened, cells: dict[str | None, Electrode], rest: list[Series]) -> None:
    """Add the sweeps of series that have no rows."""
    numbers = _from_sweep_table(nwb.file, {each.address: each for each in rest})
    electrodes = dict.fromkeys(each.electrode for each in rest if each.is_response)
    for name in electrodes:
        mine = [each for each in rest if _belongs(each, name, electrodes)]
        mine.sort(key=lambda each: each.electrode != name)  # stimuli of others stand last
        _add_keyed(nwb, cells.setdefault(name, Electrode(name)), mine, numbers)


def _belongs(series: Series, electrode: str | None, electrodes: Collection[str | None]) -> bool:
    """Whether a series is of an electrode, one of those with which something was recorded."""
    if series.is_response or series.electrode in electrodes:
        return series.electrode == electrode
    # Stimuli of electrodes with which nothing was recorded belong to whom they can belong.
    return series.electrode is None or electrode is None or len(electrodes) == 1


# The newer tables


def _rows(
    nwb: Opened, by_address: dict[int, Series], unwanted: Unwanted | None
) -> tuple[list[Pair], set[str]]:
    """Sweeps that the table ``intracellular_recordings`` names, and the series that have rows."""
    table = nwb.file.get(f"{ICEPHYS}/intracellular_recordings")
    if not isinstance(table, h5py.Group):
        return [], set()
    responses = _references(nwb.file, table, "responses/response", by_address)
    stimuli = _references(nwb.file, table, "stimuli/stimulus", by_address)
    stimuli += [None] * (len(responses) - len(stimuli))
    names = _row_names(nwb.file, table, len(responses))
    pairs: list[Pair] = []
    counts: Counter[str | None] = Counter()
    for response, row in _first_rows(responses).items():
        series = response[0]
        number = counts[series.electrode]
        counts[series.electrode] += 1
        description = series.description or named(names[row])
        if unwanted is not None and unwanted(series.clamp, description):
            nwb.left_out[series.electrode] += series.clamp == CURRENT_CLAMP
            continue
        which = "" if response[1:] == (0, series.points) else f", row {row}"
        with noting(series.path + which, nwb.unreadable):
            pair = Pair(number, span_of(nwb, *response), None, description)
            _add_stimulus(nwb, pair, stimuli[row], which)
            pairs.append(pair)
    _require_one_clock(pairs)
    return pairs, {each[0].path for each in [*responses, *stimuli] if each is not None}


def _first_rows(responses: Sequence[_Reference | None]) -> dict[_Reference, int]:
    """Responses, and the first row in which each stands."""
    rows: dict[_Reference, int] = {}
    for row, response in enumerate(responses):
        if response is not None and response[0].is_response:
            rows.setdefault(response, row)
    return rows


def _add_stimulus(nwb: Opened, pair: Pair, stimulus: _Reference | None, which: str) -> None:
    """Add the stimulus that is named beside a response, if it fits it and can be used."""
    if stimulus is not None and _fits(stimulus[0], pair.response.series):
        with _noting_stimulus(nwb, stimulus[0].path + which):
            pair.stimulus = span_of(nwb, *stimulus)
        pair.description = pair.description or stimulus[0].description


@contextmanager
def _noting_stimulus(nwb: Opened, path: str) -> Iterator[None]:
    """Keep why a stimulus cannot be used; its response is read without."""
    with noting(path, nwb.unreadable):
        yield
    if path in nwb.unreadable and path not in nwb.bad_stimuli:
        nwb.bad_stimuli.append(path)


def _fits(stimulus: Series, response: Series) -> bool:
    return not stimulus.is_response and stimulus.clamp == response.clamp


_Reference = tuple[Series, int, int]  # and the first sample and how many


def _references(
    file: h5py.File, table: h5py.Group, name: str, by_address: dict[int, Series]
) -> list[_Reference | None]:
    """What the rows of a column stand for; -1 stands for nothing."""
    column = table.get(name)
    if not isinstance(column, h5py.Dataset):
        return []
    found: list[_Reference | None] = []
    for row in rows_of(column):
        series = _target(file, row["timeseries"] if column.dtype.names else row, by_address)
        if series is None:
            found.append(None)
            continue
        first, count = 0, series.points
        if column.dtype.names:
            first, count = int(row["idx_start"]), int(row["count"])
        found.append(None if first < 0 or count < 0 else (series, first, count))
    return found


def _target(
    file: h5py.File, reference: h5py.Reference, by_address: dict[int, Series]
) -> Series | None:
    """The series a reference stands for; HDF5 would search the whole file for its name."""
    try:
        target = h5py.h5r.dereference(reference, file.id)
        return by_address.get(h5py.h5o.get_info(target).addr) if reference else None
    except Exception:  # a damaged reference leaves its row without a series
        return None


def _row_names(file: h5py.File, table: h5py.Group, count: int) -> list[str | None]:
    """What the stimulus of each row is called: in the table, or in that of sequential ones."""
    try:
        if isinstance(table.get("stimulus_type"), h5py.Dataset):
            return [text_of(each) for each in content_of(table["stimulus_type"])]
        return _sequence_names(file, count)
    except Exception:  # damaged tables: sweeps have no names
        return [None] * count


def _sequence_names(file: h5py.File, count: int) -> list[str | None]:
    names: list[str | None] = [None] * count
    sequences = file.get(f"{ICEPHYS}/sequential_recordings")
    together = file.get(f"{ICEPHYS}/simultaneous_recordings")
    if not isinstance(sequences, h5py.Group) or not isinstance(together, h5py.Group):
        return names
    rows = _listed(together, "recordings")
    kinds = content_of(sequences["stimulus_type"])
    members = _listed(sequences, "simultaneous_recordings")
    for kind, sequence in zip(kinds, members, strict=False):
        for row in (row for member in sequence for row in rows[member]):
            names[row] = text_of(kind)
    return names


def _listed(table: h5py.Group, name: str) -> list[Any]:
    """The rows of another table that each row of this one names."""
    ends = content_of(table[f"{name}_index"]).astype(int)
    return np.split(content_of(table[name]).astype(int), ends[:-1])


def _require_one_clock(pairs: Sequence[Pair]) -> None:
    """Have rows begin at once where their series are put together differently.

    A series of sweeps put end to end with a rate has no clock: a second passes in it while a minute
    passed in the room. Where its stimuli are put together by other lengths, times do not compare.
    """
    groups: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for pair in pairs:
        stimulus = pair.stimulus
        if stimulus is not None and None not in (stimulus.series.start, pair.response.series.start):
            groups[pair.response.series.path, stimulus.series.path].append(pair)
    for members in groups.values():
        shifts = [_shift(pair.response, pair.stimulus) for pair in members if pair.stimulus]
        if max(shifts) - min(shifts) > 1:
            for pair in members:
                pair.at_start = True


def _number_rows(cell: Electrode) -> None:
    """Number sweeps as the file does; else they keep the numbers of their rows."""
    numbers = [pair.response.series.number for pair in cell.pairs]
    if None not in numbers and len(set(numbers)) == len(numbers):
        for pair, number in zip(cell.pairs, numbers, strict=True):
            pair.number = number or 0
        return
    cell.notes.append("sweeps are numbered by their rows in intracellular_recordings, from 0")


# Numbers of series, and those in their names


@dataclass(frozen=True)
class _Keyed:
    """A series and the number of its sweep, in a run of sweeps."""

    series: Series
    number: int
    run: object  # what series of one run have in common


def _add_keyed(nwb: Opened, cell: Electrode, series: list[Series], numbers: dict[str, int]) -> None:
    """Pair responses with stimuli of the same number."""
    stimuli: dict[int, list[Series]] = defaultdict(list)
    for key in _keyed(series, numbers, responses=False):
        stimuli[key.number].append(key.series)
    sweeps: list[tuple[_Keyed, Pair]] = []
    known: dict[str, list[Span]] = {}
    for key in _keyed(series, numbers, responses=True):
        response = key.series
        with noting(response.path, nwb.unreadable):
            fitting = [each for each in stimuli[key.number] if _fits(each, response)]
            spans = spans_of(nwb, response)
            for span in spans:
                stimulus = _best(nwb, span, fitting, known)
                words = response.description or (stimulus.series.description if stimulus else "")
                sweeps.append((key, Pair(key.number, span, stimulus, words)))
            if len(spans) > 1:
                cell.notes.append(
                    f"{response.name} is read as {len(spans)} sweeps, between which its time "
                    "stamps jump"
                )
    sweeps = _without_second_inputs(nwb, sweeps)
    _number_repeated(cell, sweeps)
    cell.pairs += [pair for _, pair in sweeps]


def _number_repeated(cell: Electrode, sweeps: list[tuple[_Keyed, Pair]]) -> None:
    """Number sweeps in the order of their runs where a number stands more than once."""
    taken = [pair.number for pair in cell.pairs] + [key.number for key, _ in sweeps]
    if len(set(taken)) == len(taken):
        return
    twice = Counter(taken).most_common(1)[0][0]
    runs: dict[object, tuple[int, str]] = {}
    for key, _ in sweeps:
        runs.setdefault(key.run, (len(runs), key.series.name))
    sweeps.sort(key=lambda each: (runs[each[0].run][0], each[0].number))
    first = 1 + max((pair.number for pair in cell.pairs), default=-1)
    for number, (_, pair) in enumerate(sweeps, first):
        pair.number = number
    names = ", ".join(name for _, name in islice(runs.values(), 3))
    cell.notes.append(
        f"sweep {twice} stands more than once (runs that begin with {names}): all are kept, "
        f"numbered in their order from {first}"
    )


def _keyed(series: list[Series], numbers: dict[str, int], *, responses: bool) -> list[_Keyed]:
    """The sweep number of each response, or each stimulus."""
    series = [each for each in series if each.is_response == responses]
    in_names = numbers_in_names([each.name for each in series])
    found = []
    for position, each in enumerate(series):
        run, counted = in_names[each.name]
        number = numbers.get(each.path, each.number)
        if number is None:
            number = counted
        if number is None:
            number = position
        found.append(_Keyed(each, number, run))
    return found


def numbers_in_names(names: Iterable[str]) -> dict[str, tuple[object, int | None]]:
    """The number in each name that counts the sweeps, and what names of one run share.

    That is the number that varies by one while the others, a date or a cell's number, stay; None
    where there is none.
    """
    shapes: dict[tuple[str, ...], list[tuple[str, tuple[int, ...]]]] = defaultdict(list)
    for name in names:
        parts = re.split(r"(\d{1,15})", name, maxsplit=_MOST_NUMBERS)
        shapes[tuple(parts[::2])].append((name, tuple(map(int, parts[1::2]))))
    found: dict[str, tuple[object, int | None]] = {}
    for shape, members in shapes.items():
        rows = [numbers for _, numbers in members]
        place = max(range(len(rows[0])), key=partial(_counts, rows), default=None)
        for name, numbers in members:
            if place is None or numbers[place] > _MOST_SWEEPS:
                found[name] = (shape, numbers), None
            else:
                run = (shape, numbers[:place], numbers[place + 1 :])
                found[name] = run, numbers[place]
    return found


def _counts(rows: list[tuple[int, ...]], place: int) -> tuple[bool, int, int, int]:
    """How well the numbers at a place count: steps of one, and values while the others stay."""
    runs: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for row in rows:
        runs[row[:place] + row[place + 1 :]].append(row[place])
    steps = np.concatenate([np.diff(np.sort(values)) for values in runs.values()])
    alone = len({row[place] for row in rows})
    small = max(row[place] for row in rows) <= _MOST_SWEEPS
    return small, int((steps == 1).sum()), len(steps), alone


def _best(
    nwb: Opened, response: Span, stimuli: list[Series], known: dict[str, list[Span]]
) -> Span | None:
    """The stimulus of a response among those of its number: of its time, else its name.

    Clocks that are `known` are not read again.
    """
    spans = _nearest(response, [s for each in stimuli for s in _known_spans(nwb, each, known)])
    if len(spans) < 2:
        return next(iter(spans), None)
    from difflib import SequenceMatcher  # hardly ever needed

    name = response.series.name[:_LONGEST]

    def alike(span: Span) -> float:
        return SequenceMatcher(None, span.series.name[:_LONGEST], name).ratio()

    return max(spans[:_MOST_ALIKE], key=alike)


def _known_spans(nwb: Opened, stimulus: Series, known: dict[str, list[Span]]) -> list[Span]:
    if stimulus.path not in known:
        known[stimulus.path] = []
        with _noting_stimulus(nwb, stimulus.path):
            known[stimulus.path] = spans_of(nwb, stimulus)
    return known[stimulus.path]


def _nearest(response: Span, stimuli: list[Span]) -> list[Span]:
    """Of stimuli those of the electrode of a response that begin with it, where there are any."""
    mine = response.series.electrode
    stimuli = [each for each in stimuli if each.series.electrode == mine] or stimuli
    at_once = [s for s in stimuli if abs(s.start - response.start) * response.rate < 1]
    return at_once or stimuli


def _without_second_inputs(
    nwb: Opened, sweeps: list[tuple[_Keyed, Pair]]
) -> list[tuple[_Keyed, Pair]]:
    """Sweeps without those recorded with the same electrode at the same time on another input."""
    first: dict[int, Span] = {}
    kept = []
    for key, pair in sweeps:
        span = pair.response
        before = first.setdefault(key.number, span)
        inputs = [_INPUT.findall(each.series.name) for each in (before, span)]
        if inputs[0] != inputs[1] and _overlap(before, span) > 0.5:
            nwb.unreadable[span.series.path] = (
                f"sweep {key.number} has two responses of one electrode at the same time; only "
                f"{before.series.name} is used, unless another is chosen with 'channel'"
            )
            continue
        kept.append((key, pair))
    return kept


def _from_sweep_table(file: h5py.File, by_address: dict[int, Series]) -> dict[str, int]:
    """Series to sweep number, as the ``sweep_table`` of MIES and the DANDI archive says."""
    table = file.get(f"{ICEPHYS}/sweep_table")
    numbers: dict[str, int] = {}
    if not isinstance(table, h5py.Group):
        return numbers
    try:
        rows = content_of(table["sweep_number"])
        ends = content_of(table["series_index"])
        addresses = _addresses(table["series"])
        start = 0
        for number, end in zip(rows, ends, strict=False):
            for address in addresses[start : int(end)]:
                series = by_address.get(address)
                if series is not None:
                    numbers[series.path] = int(number)
            start = int(end)
    except Exception:  # a damaged table: the series' own numbers and names still pair them
        return {}
    return numbers


def _addresses(column: h5py.Dataset) -> list[int]:
    """Where the objects lie that a column of references names; HDF5 need not open them for that."""
    references = h5py.h5t.STD_REF_OBJ
    if not column.id.get_type().equal(references) or len(column) > _MOST_REFERENCES:
        raise ValueError(f"{column.name} holds no references")
    found = np.zeros(column.shape, np.uint64)
    column.id.read(h5py.h5s.ALL, h5py.h5s.ALL, found, references)
    return list(map(int, found))


# Response and stimulus on one clock


def sweep_of(nwb: Opened, pair: Pair, decided: dict[str, list[int]]) -> Sweep:
    """A sweep to be read; what was decided on the way is added, with its number."""
    number, response, stimulus = pair.number, pair.response, pair.stimulus
    clamped = response.series.clamp == VOLTAGE_CLAMP
    voltage = reader(nwb, response, number)
    current = None
    if stimulus is not None:
        placed = _placed(pair, response, stimulus)
        current = _on_clock(reader(nwb, stimulus, number), response, stimulus, placed)
        if placed.note:
            decided.setdefault(placed.note, []).append(number)
    elif not clamped and nwb.bad_stimuli:
        current = refusing(f"sweep {number}: {_bad_stimulus(nwb, number)}")
    if clamped:
        missing = refusing(f"{nwb.path}, sweep {number}: there is no voltage to read")
        voltage, current = current or missing, voltage
    return Sweep(
        number=number,
        rate=response.rate,
        points=response.points,
        clamp=response.series.clamp,
        description=pair.description,
        read_voltage=voltage,
        read_current=current,
        read_voltage_until=None if clamped else voltage,
        read_noted=partial(noted, response.series.group),
    )


def _bad_stimulus(nwb: Opened, number: int) -> str:
    """Why a sweep has no stimulus, where there is one that cannot be used."""
    in_names = numbers_in_names([path.rsplit("/", 1)[1] for path in nwb.bad_stimuli])
    same = [p for p in nwb.bad_stimuli if in_names[p.rsplit("/", 1)[1]][1] == number]
    path = next(iter(same or nwb.bad_stimuli))
    return f"its stimulus series cannot be used ({path}: {nwb.unreadable[path]})"


@dataclass(frozen=True)
class _Placed:
    """Where a stimulus lies on the clock of its response."""

    shift: float  # from the first sample of the response to that of the stimulus, in the latter's
    note: str = ""


def _shift(response: Span, stimulus: Span) -> float:
    """By how many samples of the stimulus it starts before its response."""
    return (response.start - stimulus.start) * stimulus.rate


def _overlap(one: Span, other: Span) -> float:
    """The share of the shorter one that both cover."""
    first, last = (
        max(one.start, other.start),
        min(one.start + one.duration, other.start + other.duration),
    )
    return (last - first) / min(one.duration, other.duration)


def _placed(pair: Pair, response: Span, stimulus: Span) -> _Placed:
    """Place a stimulus by its starting time; an `UnreadableError` if it cannot be."""
    shift, words = _shift(response, stimulus), "aligned by their starting times"
    if pair.at_start or _overlap(response, stimulus) < 0.5:
        shift, words = 0.0, "taken to begin with them: their times do not fit together"
    late, early = -shift / stimulus.rate, response.duration - stimulus.duration
    early += shift / stimulus.rate
    covered = response.duration - max(late, 0) - max(early, 0)
    if covered < _LEAST_COVERED * response.duration:
        raise UnreadableError(
            f"sweep {pair.number} has {response.points:,} samples of response, but "
            f"{stimulus.points:,} of stimulus ({covered:.3g} of {response.duration:.3g} s)"
        )
    notes = []
    half = 0.75 / response.rate
    same_clock = abs(stimulus.rate - response.rate) * response.duration < 0.5
    if not same_clock:
        notes.append(f"at {stimulus.rate:g} Hz, put on the {response.rate:g} Hz of the responses")
    missing = _gaps(late, early, half)
    if missing:
        notes.append(f"{missing} ({words}), {_outside(max(late, early))}")
    elif abs(late) > half or words.startswith("taken"):
        notes.append(words)
    return _Placed(shift, "stimuli are " + ", ".join(notes) if notes else "")


def _gaps(late: float, early: float, least: float) -> str:
    """In words where a stimulus begins late or ends early, by more than the least (all in s)."""
    gaps = [(late, "late"), (early, "short")]
    return " and ".join(f"{1e3 * gap:.3g} ms {where}" for gap, where in gaps if gap > least)


def _outside(gap: float) -> str:
    if gap <= _ROUNDING:
        return "and taken to stay as at that edge"
    return "and the current is taken to be at its holding level where they are not"


def _on_clock(
    read: Callable[..., Samples], response: Span, stimulus: Span, placed: _Placed
) -> Callable[[], Samples]:
    """Reads a stimulus sample by sample of its response."""
    same_rate = abs(stimulus.rate - response.rate) * response.duration < 0.5
    shift = round(placed.shift) if same_rate else placed.shift
    if same_rate and not shift and stimulus.points == response.points:
        return read

    def on_clock() -> Samples:
        values = read()
        step = 1.0 if same_rate else stimulus.rate / response.rate
        # A level lasts until the next sample.
        places = np.floor(np.arange(response.points) * step + shift + 1e-3).astype(np.int64)
        before, after = places < 0, places >= len(values)
        result = values[np.clip(places, 0, len(values) - 1)]
        level = _level_outside(values)
        for missing in (before, after):
            if np.count_nonzero(missing) > _ROUNDING * response.rate:
                result[missing] = level
        return result

    return on_clock


def _level_outside(values: Samples) -> float:
    """The current in pA where a stimulus does not say it, from what it says.

    It goes to the level at which it starts or ends, whichever is nearer zero. One that never leaves
    that level is the step itself: outside of it there is none.
    """
    edge = max(len(values) // 200, 1)
    levels = [float(np.median(part)) for part in (values[:edge], values[-edge:])]
    level = min(levels, key=abs)
    spread = float(np.ptp(values))
    return 0.0 if spread < 0.2 * abs(level) else level
