"""NWB 2, read through h5py on the schema's layout.

pynwb builds an object for every series of a file before the first sample can be read; going
to the groups directly opens a file in milliseconds, which matters for thousands of them.

Longer than 400 lines: every table of the schema is read by the same guards against damage.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import PurePath
from typing import Any, NamedTuple

import h5py
import numpy as np

from crosspatch.errors import NetworkError, RecordingError, in_words
from crosspatch.recordings.chunks import StoredChunk, Unpacker, stored_chunks
from crosspatch.recordings.hdf5 import Bytes, DoubtfulBytesError, GuardedFile
from crosspatch.recordings.model import (
    CURRENT_CLAMP,
    MAX_RATE,
    MIN_RATE,
    VOLTAGE_CLAMP,
    Recorded,
    Recording,
    Samples,
    Sweep,
    refusing,
    to_millivolts,
    to_picoamperes,
)
from crosspatch.recordings.reading_options import Reading
from crosspatch.species import species_called

#: Neurodata type to (clamp, whether it is the response).
_TYPES = {
    "CurrentClampSeries": (CURRENT_CLAMP, True),
    "IZeroClampSeries": (CURRENT_CLAMP, True),
    "CurrentClampStimulusSeries": (CURRENT_CLAMP, False),
    "VoltageClampSeries": (VOLTAGE_CLAMP, True),
    "VoltageClampStimulusSeries": (VOLTAGE_CLAMP, False),
}
_ICEPHYS = "general/intracellular_ephys"
_MAX_POINTS = 200_000_000
#: Samples that take more room than this are more than the file's bytes can hold if they take that
#: many times as much (deflate reaches 1032).
_LARGE = 1 << 26
_MAX_COMPRESSION = 5000
#: Bytes of a table or a note.
_MAX_CONTENT = 1 << 26
#: Types that are read; HDF5 (2.0.0) brings the process down over damaged ones of other classes.
_PLAIN = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM, h5py.h5t.REFERENCE)


class _Found(NamedTuple):
    """A series of which it is known what it is, and that it is wanted."""

    path: str
    group: h5py.Group
    clamp: str
    is_response: bool
    description: str


@dataclass(frozen=True, eq=False)
class _Series:
    """A series of the file and what its attributes say."""

    path: str
    group: h5py.Group
    data: h5py.Dataset
    address: int
    clamp: str
    is_response: bool
    number: int | None
    electrode: str | None
    start: float
    rate: float
    points: int
    factor: float
    conversion: float
    offset: float
    description: str


@dataclass
class _Opened:
    """A file that is being read, and what is found on the way."""

    path: str  # what it is called in messages
    file: h5py.File
    source: GuardedFile
    #: Series to the reason why it cannot be used.
    unreadable: dict[str, str] = field(default_factory=dict)
    left_out: int = 0  # responses in current clamp that nobody wants

    @cached_property
    def unpacker(self) -> Unpacker:
        """Unpacks samples of this file."""
        return Unpacker(self.source.read_samples)


#: Whether a series is left out: told its clamp and what the file calls its stimulus.
Unwanted = Callable[[str, str], bool]


def read_nwb(
    content: Bytes, path: str, unwanted: Unwanted | None = None, reading: Reading | None = None
) -> Recording:
    """Open an NWB 2 file; samples are not read.

    Series are paired by ``sweep_table`` or ``sweep_number``, by the newer
    ``intracellular_recordings`` table, by the number in their names, or by electrode and order. The
    content is closed with the recording; the path is what messages call it, and the cell is named
    after its last part. Of series that are `unwanted` little more than the name is read.

    A `RecordingError` if the file is damaged, not an NWB 2 file, or holds no patch-clamp series; a
    `NetworkError` if it is not here and bytes of it cannot be had, or (`DoubtfulBytesError`) do not
    make a sound file.
    """
    try:
        recording = _open(content, path, unwanted)
    except RecordingError as error:
        if content.doubtful():
            raise DoubtfulBytesError(str(error)) from error
        raise
    if content.doubtful() and recording.unreadable:
        recording.close()
        raise DoubtfulBytesError(f"{path}: {next(iter(recording.unreadable.values()))}")
    return recording


def _open(content: Bytes, path: str, unwanted: Unwanted | None) -> Recording:
    with ExitStack() as opened:
        try:
            source = opened.enter_context(GuardedFile(content))
            file = opened.enter_context(h5py.File(source, "r"))
        except (OSError, RuntimeError, ValueError) as error:
            _require_bytes(content)
            raise RecordingError(
                f"{path} is a damaged HDF5 file: {in_words(error)}; copy it again from its source"
            ) from error
        try:
            recording = _recording(_Opened(path, file, source), unwanted)
        except (RecordingError, NetworkError):
            _require_bytes(content)
            raise
        except Exception as error:  # h5py raises many kinds for damaged groups
            _require_bytes(content)
            raise RecordingError(f"{path} is a damaged NWB file: {in_words(error)}") from error
        _require_bytes(content)
        return replace(recording, close_file=opened.pop_all().close)


def _require_bytes(content: Bytes) -> None:
    """What looks like damage may be bytes that did not come."""
    if content.failure is not None:
        raise content.failure


def _recording(nwb: _Opened, unwanted: Unwanted | None) -> Recording:
    path, unreadable = nwb.path, nwb.unreadable
    version = _version(path, nwb.file)
    found = list(_all_series(nwb, unwanted))
    if nwb.source.content.doubtful():
        _require_alike(path, found)
    if not found and unreadable:
        first, reason = next(iter(unreadable.items()))
        raise RecordingError(f"{path} has no readable patch-clamp series; {first}: {reason}")
    if not found:
        raise RecordingError(f"{path} has no patch-clamp series; is it another kind of recording?")
    sweeps = []
    for number, response, stimulus in _pairs(nwb, found):
        with _noting(response.path, unreadable):
            sweeps.append(_sweep(nwb, number, response, stimulus))
    if not sweeps:
        first, reason = next(iter(unreadable.items()), ("acquisition", "no response series"))
        raise RecordingError(f"{path} has no readable sweep; {first}: {reason}")
    return Recording(
        name=path,
        cell_id=PurePath(path).stem,
        format=f"NWB {version}",
        sweeps=tuple(sweeps),
        unreadable=unreadable,
        recorded=_recorded(nwb.file),
        left_out=nwb.left_out,
    )


def _version(path: str, file: h5py.File) -> str:
    """The version of NWB, which must be 2."""
    version = _text(_attribute(file, "nwb_version"))
    if version is None and "nwb_version" in file:
        raise RecordingError(
            f"{path} is NWB 1 ({_text(_content(file['nwb_version']))}); convert it to NWB 2"
        )
    if version is None:
        raise RecordingError(
            f"{path} is an HDF5 file but no NWB file: it has no nwb_version; export it as NWB 2"
        )
    if not version.removeprefix("NWB-").startswith("2"):
        raise RecordingError(f"{path} has NWB version {version}; convert it to NWB 2")
    return version.removeprefix("NWB-")


def _sweep(nwb: _Opened, number: int, response: _Series, stimulus: _Series | None) -> Sweep:
    if stimulus is not None and stimulus.points != response.points:
        raise _UnreadableError(
            f"sweep {number} has {response.points:,} samples of response, but "
            f"{stimulus.points:,} of stimulus"
        )
    if stimulus is not None and not np.isclose(stimulus.rate, response.rate, rtol=1e-3):
        raise _UnreadableError(
            f"sweep {number} has its response at {response.rate:g} Hz, but its stimulus at "
            f"{stimulus.rate:g} Hz"
        )
    voltage = _reader(nwb, response, number)
    current = None if stimulus is None else _reader(nwb, stimulus, number)
    clamped = response.clamp == VOLTAGE_CLAMP
    if clamped:
        missing = refusing(f"{nwb.path}, sweep {number}: there is no voltage to read")
        voltage, current = current or missing, voltage
    return Sweep(
        number=number,
        rate=response.rate,
        points=response.points,
        clamp=response.clamp,
        description=response.description or (stimulus.description if stimulus else ""),
        read_voltage=voltage,
        read_current=current,
        read_voltage_until=None if clamped else voltage,
        read_noted=partial(_noted, response.group),
    )


def _require_alike(path: str, found: list[_Series]) -> None:
    """One sweep in another unit or at another rate than all others may be a byte come wrong."""
    for is_response in (True, False):
        scales = Counter(
            (each.rate, each.factor, each.offset, each.conversion)
            for each in found
            if each.clamp == CURRENT_CLAMP and each.is_response == is_response
        )
        if len(scales) > 1 and min(scales.values()) == 1:
            raise DoubtfulBytesError(f"{path}: a sweep is scaled unlike all others")


def _all_series(nwb: _Opened, unwanted: Unwanted | None) -> Iterator[_Series]:
    content = nwb.source.content
    parents = {place: nwb.file.get(place) for place in ("acquisition", "stimulus/presentation")}
    parents = {name: each for name, each in parents.items() if isinstance(each, h5py.Group)}
    content.look_ahead(parents.values())
    wanted = [each for place in parents for each in _wanted(nwb, place, parents[place], unwanted)]
    content.look_for_samples([each.group for each in wanted])
    for each in wanted:
        with _noting(each.path, nwb.unreadable):
            if not content.protected:
                _require_checksum(each.group["data"])
            yield _series(each)


def _wanted(
    nwb: _Opened, place: str, parent: h5py.Group, unwanted: Unwanted | None
) -> Iterator[_Found]:
    """The series that are looked at."""
    for name in parent:
        path = f"/{place}/{name}"
        with _noting(path, nwb.unreadable):
            if parent.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_EXTERNAL:
                raise _UnreadableError("it lies in another file, which is not followed")
            item = h5py.h5o.open(parent.id, name.encode())
            group = h5py.Group(item) if isinstance(item, h5py.h5g.GroupID) else parent[name]
            kind = _text(_attribute(group, "neurodata_type"))
            if kind not in _TYPES:
                continue
            clamp, is_response = _TYPES[kind]
            description = _text(_attribute(group, "stimulus_description")) or ""
            if unwanted is not None and unwanted(clamp, description):
                nwb.left_out += clamp == CURRENT_CLAMP and is_response
                continue
            yield _Found(path, group, clamp, is_response, description)


@contextmanager
def _noting(path: str, unreadable: dict[str, str]) -> Iterator[None]:
    """Keep why a series cannot be used; a damaged one must not hide the others."""
    try:
        yield
    except _UnreadableError as error:
        unreadable[path] = str(error)
    except Exception as error:
        unreadable[path] = f"damaged: {in_words(error)}"


def _require_checksum(data: h5py.Dataset) -> None:
    """Samples that came wrong would look like others, but for the checksum deflate ends with."""
    if data.compression != "gzip" and not data.fletcher32:
        raise _UnreadableError("its samples have no checksum")


class _UnreadableError(Exception):
    """A series that cannot be used; the message says why."""


def _require_samples(data: h5py.Dataset) -> None:
    if data.ndim != 1 or data.dtype.kind not in "iuf":
        raise _UnreadableError(f"its data have shape {data.shape} and type {data.dtype}")
    if not 0 < data.shape[0] <= _MAX_POINTS:
        raise _UnreadableError(f"it has {data.shape[0]:,} samples")
    if data.shape[0] * data.dtype.itemsize > _LARGE:
        try:
            points = data.shape[0]
            _stored_at(data, points, stored_chunks(data, points) if data.chunks else [])
        except ValueError as error:
            raise _UnreadableError(str(error)) from error


def _series(found: _Found) -> _Series:
    group, clamp, is_response = found.group, found.clamp, found.is_response
    data = _dataset(group, "data")
    if data is None:
        raise _UnreadableError("it has no data")
    _require_samples(data)
    is_voltage = (clamp == CURRENT_CLAMP) == is_response
    unit = _text(_attribute(data, "unit")) or ("volts" if is_voltage else "amperes")
    factor = (to_millivolts if is_voltage else to_picoamperes)(unit)
    if factor is None:
        wanted = "voltage" if is_voltage else "current"
        raise _UnreadableError(f"its unit is '{unit}', expected a unit of {wanted}")
    start, rate = _timing(group)
    conversion = float(_attribute(data, "conversion", 1.0))
    offset = float(_attribute(data, "offset", 0.0))
    if not np.isfinite([conversion, offset, start]).all() or conversion == 0:
        raise _UnreadableError(f"its conversion is {conversion} and its offset {offset}")
    number = _attribute(group, "sweep_number")
    return _Series(
        path=found.path,
        group=group,
        data=data,
        address=h5py.h5o.get_info(group.id).addr,
        clamp=clamp,
        is_response=is_response,
        number=None if number is None else int(number),
        electrode=_electrode(group),
        start=start,
        rate=rate,
        points=int(data.shape[0]),
        factor=factor,
        conversion=conversion,
        offset=offset,
        description=found.description,
    )


def _electrode(group: h5py.Group) -> str | None:
    """What tells electrodes apart; the name that h5py gives is that of the link, not the target."""
    electrode = _member(group, "electrode")
    return None if electrode is None else str(h5py.h5o.get_info(electrode).addr)


def _noted(group: h5py.Group) -> tuple[float, float]:
    """Bridge balance in MOhm and bias current in pA; some files have them in ohms and amperes."""
    bridge, bias = _scalar(group, "bridge_balance"), _scalar(group, "bias_current")
    bridge *= 1e-6 if abs(bridge) > 1e3 else 1.0
    return bridge, bias * 1e12 if abs(bias) < 1e-6 else bias


def _scalar(group: h5py.Group, name: str) -> float:
    dataset = _dataset(group, name)
    return float("nan") if dataset is None else _number(dataset)


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """A member of a group if it is a dataset."""
    item = _member(group, name)
    return h5py.Dataset(item) if isinstance(item, h5py.h5d.DatasetID) else None


def _member(group: h5py.Group, name: str) -> h5py.h5g.GroupID | h5py.h5d.DatasetID | None:
    """What a group has under a name; several times as fast as its own `get`."""
    try:
        return h5py.h5o.open(group.id, name.encode())
    except KeyError:
        return None


def _number(dataset: h5py.Dataset) -> float:
    kind = dataset.id.get_type().get_class()
    if kind in _SINGLE and dataset.shape == ():
        value = np.empty((), np.float64)
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, value)
        return float(value)
    return float(np.ravel(_content(dataset))[0]) if dataset.size else float("nan")


def _content(dataset: h5py.Dataset) -> Any:
    """All of a dataset that does not hold samples; a damaged one may claim to be of any size."""
    kind = dataset.id.get_type()
    _require_plain(kind, dataset.name)
    if (dataset.size or 0) * kind.get_size() > _MAX_CONTENT:
        raise ValueError(f"{dataset.name} has {dataset.size:,} entries")
    return dataset[()]


#: What a single value is read as, by the class of its type.
_SINGLE = {h5py.h5t.INTEGER: np.dtype("i8"), h5py.h5t.FLOAT: np.dtype("f8")}
_TEXT = h5py.string_dtype()


def _attribute(item: h5py.Group | h5py.Dataset, name: str, default: Any = None) -> Any:
    if not h5py.h5a.exists(item.id, name.encode()):
        return default
    attribute = h5py.h5a.open(item.id, name.encode())
    kind = attribute.get_type()
    _require_plain(kind, name)
    text = kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
    dtype = _TEXT if text else _SINGLE.get(kind.get_class())
    if dtype is None or attribute.get_space().get_simple_extent_type() != h5py.h5s.SCALAR:
        return item.attrs[name]
    value = np.empty((), dtype)
    attribute.read(value)
    return value[()]


def _require_plain(kind: h5py.h5t.TypeID, name: str) -> None:
    if kind.get_class() == h5py.h5t.COMPOUND:
        for member in range(kind.get_nmembers()):
            _require_plain(kind.get_member_type(member), name)
    elif kind.get_class() not in _PLAIN:
        raise ValueError(f"{name} is neither number nor text")


def _timing(group: h5py.Group) -> tuple[float, float]:
    """Start in s and rate in Hz, from ``starting_time`` or regular ``timestamps``."""
    time = _dataset(group, "starting_time")
    if time is not None:
        start, rate = _number(time), float(_attribute(time, "rate", np.nan))
    elif "timestamps" in group:
        stamps = group["timestamps"]
        if stamps.ndim != 1 or stamps.dtype.kind not in "iuf":
            raise _UnreadableError("its time stamps are no list of numbers")
        count = int(stamps.shape[0])
        if count < 2:
            raise _UnreadableError("it has a single time stamp, so no sampling rate")
        first, second, last = float(stamps[0]), float(stamps[1]), float(stamps[-1])
        rate = (count - 1) / (last - first) if last > first else float("nan")
        if not abs((second - first) * rate - 1) < 1e-3:
            raise _UnreadableError("its time stamps are not evenly spaced")
        start = first
    else:
        raise _UnreadableError("it has neither a starting time nor time stamps")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise _UnreadableError(f"its sampling rate is {rate:g} Hz")
    return start, rate


_Pair = tuple[int, _Series, _Series | None]


def _pairs(nwb: _Opened, series: list[_Series]) -> list[_Pair]:
    """Every response with its stimulus, in order of sweep number."""
    by_address = {each.address: each for each in series}
    pairs = _from_recordings_table(nwb.file, by_address) or _from_keys(nwb, series, by_address)
    return sorted(pairs, key=lambda pair: pair[0])


def _from_recordings_table(file: h5py.File, by_address: dict[int, _Series]) -> list[_Pair]:
    """The newer tables, which say outright which response belongs to which stimulus."""
    table = file.get(f"{_ICEPHYS}/intracellular_recordings")
    if not isinstance(table, h5py.Group):
        return []
    responses = _references(file, table, "responses/response", by_address)
    stimuli = _references(file, table, "stimuli/stimulus", by_address)[: len(responses)]
    pairs: list[_Pair] = []
    used = set()
    for row, (response, stimulus) in enumerate(zip_longest(responses, stimuli)):
        if response is None or not response.is_response or response.path in used:
            continue
        used.add(response.path)
        if stimulus is not None and (stimulus.is_response or stimulus.clamp != response.clamp):
            stimulus = None
        pairs.append((row if response.number is None else response.number, response, stimulus))
    if len({number for number, _, _ in pairs}) < len(pairs):  # two electrodes at a time
        pairs = [(row, response, stimulus) for row, (_, response, stimulus) in enumerate(pairs)]
    return pairs


def _references(
    file: h5py.File, table: h5py.Group, name: str, by_address: dict[int, _Series]
) -> list[_Series | None]:
    column = table.get(name)
    if column is None:
        return []
    return [
        _target(file, row["timeseries"] if column.dtype.names else row, by_address)
        for row in _content(column)
    ]


def _target(
    file: h5py.File, reference: h5py.Reference, by_address: dict[int, _Series]
) -> _Series | None:
    """The series a reference stands for; HDF5 would search the whole file for its name."""
    try:
        target = h5py.h5r.dereference(reference, file.id)
        return by_address.get(h5py.h5o.get_info(target).addr) if reference else None
    except Exception:  # a damaged reference leaves its row without a series
        return None


def _from_keys(nwb: _Opened, series: list[_Series], by_address: dict[int, _Series]) -> list[_Pair]:
    numbers = _from_sweep_table(nwb.file, by_address)
    grouped: dict[int, list[_Series]] = defaultdict(list)
    for position, each in enumerate(series):
        number = numbers.get(each.path, each.number)
        if number is None:
            number = _number_in_name(each.path)
        if number is None:  # by order, among those of one electrode and role
            number = sum(
                (other.is_response, other.electrode) == (each.is_response, each.electrode)
                for other in series[:position]
            )
        grouped[number].append(each)
    pairs: list[_Pair] = []
    for number, members in grouped.items():
        responses = [each for each in members if each.is_response]
        for response in responses[:1]:
            pairs.append((number, response, _stimulus_of(response, members)))
        for response in responses[1:]:
            nwb.unreadable[response.path] = (
                f"sweep {number} has {len(responses)} responses; only the first is used"
            )
    return pairs


def _stimulus_of(response: _Series, members: list[_Series]) -> _Series | None:
    """The stimulus of a sweep's response: of its electrode, if there is one of it."""
    alike = [each for each in members if not each.is_response and each.clamp == response.clamp]
    same = [each for each in alike if each.electrode == response.electrode]
    return next(iter(same or alike), None)


def _from_sweep_table(file: h5py.File, by_address: dict[int, _Series]) -> dict[str, int]:
    """Series to sweep number, as the ``sweep_table`` of MIES and the DANDI archive says."""
    table = file.get(f"{_ICEPHYS}/sweep_table")
    numbers: dict[str, int] = {}
    if not isinstance(table, h5py.Group):
        return numbers
    try:
        rows = _content(table["sweep_number"])
        ends = _content(table["series_index"])
        references = _content(table["series"])
        start = 0
        for number, end in zip(rows, ends, strict=False):
            for reference in references[start : int(end)]:
                series = _target(file, reference, by_address)
                if series is not None:
                    numbers[series.path] = int(number)
            start = int(end)
    except Exception:  # a damaged table: the series' own numbers and names still pair them
        return {}
    return numbers


def _number_in_name(path: str) -> int | None:
    """The first number in a series' name: ``data_00012_AD0`` is sweep 12."""
    digits = re.search(r"\d+", path.rsplit("/", 1)[1])
    return int(digits.group()) if digits else None


def _reader(nwb: _Opened, series: _Series, number: int) -> Callable[..., Samples]:
    """Reads the samples of a series: all, or the first so many."""
    path, file, source = nwb.path, nwb.file, nwb.source

    def stored(points: int) -> Samples:
        data = series.data
        chunks = stored_chunks(data, points) if data.chunks and not data.is_virtual else []
        source.expect(_stored_at(data, points, chunks))
        try:
            found = nwb.unpacker.samples(data, chunks, points)
            return data[:points] if found is None else found
        finally:
            source.expect([])

    def read(points: int = series.points) -> Samples:
        try:
            raw = stored(points)
        except Exception as error:  # damaged chunks and compression raise many kinds
            _require_bytes(source.content)
            if source.content.doubtful():
                raise DoubtfulBytesError(f"{path}, sweep {number}: came damaged") from error
            what = "the file was closed" if not file.id.valid else in_words(error)
            raise RecordingError(f"{path}, sweep {number}: cannot be read: {what}") from error
        with np.errstate(all="ignore"):  # what a damaged conversion makes is judged later
            values = raw * series.conversion
            if series.offset:
                values = values + series.offset
            return values * series.factor

    return read


def _stored_at(
    data: h5py.Dataset, points: int, chunks: Sequence[StoredChunk]
) -> list[tuple[int, int]]:
    """Where the first samples lie in the file, in these chunks if in any: (offset, bytes)."""
    needed = points * data.dtype.itemsize
    if data.is_virtual:
        return []
    if data.chunks is None:
        offset, whole = data.id.get_offset(), data.id.get_storage_size()
        found = [] if offset is None else [(offset, min(needed, whole))]
        stored = whole
    else:
        found = [(chunk.offset, chunk.size) for chunk in chunks]
        stored = sum(count for _, count in found)
    if not stored or needed > max(_LARGE, _MAX_COMPRESSION * stored):
        raise ValueError(
            f"its {points:,} samples are not in the file, which has {stored:,} bytes of them"
        )
    return found


def _recorded(file: h5py.File) -> Recorded:
    def text(name: str) -> str | None:
        item = file.get(name)
        return _text(_content(item)) if isinstance(item, h5py.Dataset) else None

    words = " ".join(
        text(name) or "" for name in ("session_description", "general/experiment_description")
    )
    keywords = file.get("general/keywords")
    if isinstance(keywords, h5py.Dataset):
        words += " " + " ".join(_text(word) or "" for word in np.ravel(_content(keywords)))
    electrodes = file.get(_ICEPHYS)
    if not isinstance(electrodes, h5py.Group):
        electrodes = ()

    def noted(name: str, unit: float) -> float | None:
        """Of the first electrode of which it is known."""
        values = (_resistance(text(f"{_ICEPHYS}/{each}/{name}"), unit) for each in electrodes)
        return next((value for value in values if value is not None), None)

    return Recorded(
        species=species_called(text("general/subject/species") or ""),
        donor=text("general/subject/subject_id"),
        session=text("session_start_time"),
        seal=noted("seal", 1e9),
        access_resistance=noted("initial_access_resistance", 1e6),
        simulated="simulated" in words.lower(),
    )


def _resistance(text: str | None, unit: float) -> float | None:
    """A resistance noted in words, in the unit asked for; bare numbers are in that unit already."""
    match = re.match(r"\s*([0-9.]+(?:[eE][-+]?\d+)?)\s*([GMk]?)", text or "")
    if not match:
        return None
    try:
        value = float(match.group(1))
    except ValueError:
        return None
    prefix = {"G": 1e9, "M": 1e6, "k": 1e3}.get(match.group(2))
    return value * prefix / unit if prefix else value


def _text(value: Any) -> str | None:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)
