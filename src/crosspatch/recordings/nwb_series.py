"""The series of an NWB 2 file: what they hold, when, and their samples, against any damage.

Longer than 400 lines: all that is read of a file passes the same guards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.chunks import AS_STORED, Scale, Unpacker, stored_chunks
from crosspatch.recordings.hdf5 import Bytes, DoubtfulBytesError, GuardedFile
from crosspatch.recordings.model import (
    CURRENT_CLAMP,
    MAX_RATE,
    MIN_RATE,
    VOLTAGE_CLAMP,
    Samples,
    to_millivolts,
    to_picoamperes,
)
from crosspatch.recordings.reading_options import Reading

#: Where electrodes and tables are.
ICEPHYS = "general/intracellular_ephys"
#: What else is there.
_TABLES = {
    *("sweep_table", "intracellular_recordings", "simultaneous_recordings", "filtering"),
    *("sequential_recordings", "repetitions", "experimental_conditions"),
}
#: Neurodata type to (clamp, whether it is the response).
_TYPES = {
    "CurrentClampSeries": (CURRENT_CLAMP, True),
    "IZeroClampSeries": (CURRENT_CLAMP, True),
    "CurrentClampStimulusSeries": (CURRENT_CLAMP, False),
    "VoltageClampSeries": (VOLTAGE_CLAMP, True),
    "VoltageClampStimulusSeries": (VOLTAGE_CLAMP, False),
}
#: What pynwb writes for a stimulus that has no name.
_NAMELESS = ("n/a", "na", "none", "not described", "no description", "unknown")
_MAX_POINTS = 200_000_000
#: Samples that take more room than this are more than the file's bytes can hold if they take that
#: many times as much (deflate reaches 1032).
_LARGE = 1 << 26
_MAX_COMPRESSION = 5000
#: Bytes of a table or a note.
_MAX_CONTENT = 1 << 26
#: Types that are read; HDF5 (2.0.0) brings the process down over damaged ones of other classes.
_PLAIN = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM, h5py.h5t.REFERENCE)
#: Sweeps of a file; more rows than that of a table are damage.
_MOST_ROWS = 100_000
#: Integers that reach no further than this (mV) are no membrane potential, whatever their unit is.
_LEAST_REACH = 1.0

#: Whether a series is left out: told its clamp and what the file calls its stimulus.
Unwanted = Callable[[str, str], bool]


class UnreadableError(Exception):
    """A series or sweep that cannot be used; the message says why."""


@dataclass
class Opened:
    """A file that is being read, and what is found on the way."""

    path: str  # what it is called in messages
    file: h5py.File
    source: GuardedFile
    reading: Reading = field(default_factory=Reading)
    #: Series to the reason why it cannot be used.
    unreadable: dict[str, str] = field(default_factory=dict)
    #: Those of `unreadable` that are stimuli in current clamp.
    bad_stimuli: list[str] = field(default_factory=list)
    #: Electrode to responses in current clamp that nobody wants, and in voltage clamp.
    left_out: Counter[str | None] = field(default_factory=Counter)
    left_out_clamped: int = 0

    @cached_property
    def unpacker(self) -> Unpacker:
        """Unpacks samples of this file."""
        return Unpacker(self.source.read_samples)

    @cached_property
    def chunks(self) -> Callable[[h5py.Dataset], list[h5py.h5d.StoreInfo]]:
        """The chunks of samples; of a series that holds many sweeps they are looked up once."""
        return lru_cache(maxsize=4)(stored_chunks)

    @cached_property
    def electrodes(self) -> dict[int, str]:
        """Names of electrodes by their addresses."""
        parent = self.file.get(ICEPHYS)
        if not isinstance(parent, h5py.Group):
            return {}
        links = ((name, parent.id.links.get_info(name.encode())) for name in parent)
        hard = h5py.h5l.TYPE_HARD
        return {ln.u: name for name, ln in links if ln.type == hard and name not in _TABLES}


class _Found(NamedTuple):
    """A series of which it is known what it is, and that it is wanted."""

    path: str
    group: h5py.Group
    clamp: str
    is_response: bool
    description: str
    overruled: bool  # whether the user says that it is in current clamp, which the file does not


@dataclass(frozen=True, eq=False)
class Series:
    """A series of the file and what its attributes say."""

    path: str
    group: h5py.Group
    data: h5py.Dataset
    address: int
    clamp: str
    is_response: bool
    number: int | None
    electrode: str | None
    #: Start in s and rate in Hz, where the file says them; else there are time stamps.
    start: float | None
    rate: float
    points: int
    factor: float
    conversion: float
    offset: float
    description: str

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Span:
    """Samples of a series that are one sweep, and when they were taken."""

    series: Series
    first: int  # number of the first sample
    points: int
    start: float  # s
    rate: float  # Hz

    @property
    def key(self) -> tuple[str, int, int]:
        """Tells it from other spans of the file."""
        return self.series.path, self.first, self.points

    @property
    def duration(self) -> float:
        """Length in s."""
        return self.points / self.rate


def all_series(nwb: Opened, unwanted: Unwanted | None) -> Iterator[Series]:
    """The series that can be used; why others cannot is noted in `Opened.unreadable`."""
    content, parents = nwb.source.content, _parents(nwb.file)
    content.look_ahead(parents.values())
    wanted = [each for place in parents for each in _wanted(nwb, place, parents[place], unwanted)]
    content.look_for_samples([each.group for each in wanted])
    for each in wanted:
        with noting(each.path, nwb.unreadable):
            if not content.protected:
                _require_checksum(each.group["data"])
            yield _series(nwb, each)
        if each.path in nwb.unreadable and each.clamp == CURRENT_CLAMP and not each.is_response:
            nwb.bad_stimuli.append(each.path)


def _parents(file: h5py.File) -> dict[str, h5py.Group]:
    """The groups that hold series, by their places."""
    places = {place: file.get(place) for place in ("acquisition", "stimulus/presentation")}
    return {place: each for place, each in places.items() if isinstance(each, h5py.Group)}


def _wanted(
    nwb: Opened, place: str, parent: h5py.Group, unwanted: Unwanted | None
) -> Iterator[_Found]:
    """The series that are looked at."""
    for name in parent:
        path = f"/{place}/{name}"
        with noting(path, nwb.unreadable):
            found = _found(nwb, path, _group(parent, name))
            if found is None:
                continue
            if unwanted is not None and unwanted(found.clamp, found.description):
                _leave_out(nwb, found)
                continue
            yield found


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    if parent.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_EXTERNAL:
        raise UnreadableError("it lies in another file, which is not followed")
    item = h5py.h5o.open(parent.id, name.encode())
    return h5py.Group(item) if isinstance(item, h5py.h5g.GroupID) else parent[name]


def _found(nwb: Opened, path: str, group: h5py.Group) -> _Found | None:
    """What a group is; None if it is no patch-clamp series."""
    kind = text_of(attribute(group, "neurodata_type"))
    if kind not in _TYPES:
        return None
    clamp, is_response = _TYPES[kind]
    overruled = clamp == VOLTAGE_CLAMP and nwb.reading.clamp == "current"
    clamp = CURRENT_CLAMP if overruled else clamp
    description = named(text_of(attribute(group, "stimulus_description")))
    return _Found(path, group, clamp, is_response, description, overruled)


def _leave_out(nwb: Opened, found: _Found) -> None:
    """Count a response that nobody wants."""
    if not found.is_response:
        return
    nwb.left_out_clamped += found.clamp == VOLTAGE_CLAMP
    if found.clamp == CURRENT_CLAMP:
        several = len(nwb.electrodes) > 1  # else there is nothing to be looked up
        nwb.left_out[_electrode(nwb, found.group) if several else None] += 1


def named(text: str | None) -> str:
    """What a stimulus is called; empty where that is a word for nothing."""
    return "" if text is None or text.strip().lower() in _NAMELESS else text


@contextmanager
def noting(path: str, unreadable: dict[str, str]) -> Iterator[None]:
    """Keep why a series cannot be used; a damaged one must not hide the others."""
    try:
        yield
    except UnreadableError as error:
        unreadable[path] = str(error)
    except Exception as error:
        unreadable[path] = f"damaged: {in_words(error)}"


def _require_checksum(data: h5py.Dataset) -> None:
    """Samples that came wrong would look like others, but for the checksum deflate ends with."""
    if data.compression != "gzip" and not data.fletcher32:
        raise UnreadableError("its samples have no checksum")


def _require_samples(data: h5py.Dataset) -> None:
    shape, dtype = data.shape, data.dtype
    row = len(shape) == 2 and shape[1] == 1  # one sample a row
    if not (len(shape) == 1 or row) or dtype.kind not in "iuf":
        raise UnreadableError(f"its data have shape {shape} and type {dtype}")
    if not 0 < shape[0] <= _MAX_POINTS:
        raise UnreadableError(f"it has {shape[0]:,} samples")
    if shape[0] * dtype.itemsize > _LARGE:
        try:
            _stored_at(data, 0, shape[0], stored_chunks(data) if data.chunks else [])
        except ValueError as error:
            raise UnreadableError(str(error)) from error


def _series(nwb: Opened, found: _Found) -> Series:
    group, clamp, is_response = found.group, found.clamp, found.is_response
    data = _dataset(group, "data")
    if data is None:
        raise UnreadableError("it has no data")
    _require_samples(data)
    is_voltage = (clamp == CURRENT_CLAMP) == is_response
    factor = _factor(data, found, is_voltage)
    start, rate = _starting_time(group, data.shape[0])
    conversion = float(attribute(data, "conversion", 1.0))
    offset = float(attribute(data, "offset", 0.0))
    if not np.isfinite([conversion, offset, start or 0.0]).all() or conversion == 0:
        raise UnreadableError(f"its conversion is {conversion} and its offset {offset}")
    if is_voltage and is_response and data.dtype.kind in "iu":
        most = factor * (abs(conversion) * np.iinfo(data.dtype).max + abs(offset))
        if most < _LEAST_REACH:
            raise UnreadableError(
                f"its samples reach {most:.2g} mV at most, as no membrane potential does: is it a "
                "current that was written as a potential?"
            )
    number = attribute(group, "sweep_number")
    return Series(
        path=found.path,
        group=group,
        data=data,
        address=h5py.h5o.get_info(group.id).addr,
        clamp=clamp,
        is_response=is_response,
        number=None if number is None else int(number),
        electrode=_electrode(nwb, group),
        start=start,
        rate=rate,
        points=int(data.shape[0]),
        factor=factor,
        conversion=conversion,
        offset=offset,
        description=found.description,
    )


def _factor(data: h5py.Dataset, found: _Found, is_voltage: bool) -> float:
    """From the unit of samples to mV or pA."""
    usual = {True: "volts", False: "amperes"}
    unit = text_of(attribute(data, "unit")) or usual[is_voltage]
    if found.overruled and unit == usual[not is_voltage]:  # the schema's, which says nothing
        unit = usual[is_voltage]
    factor = (to_millivolts if is_voltage else to_picoamperes)(unit)
    if factor is None:
        wanted = "voltage" if is_voltage else "current"
        raise UnreadableError(f"its unit is '{unit}', expected a unit of {wanted}")
    return factor


def _electrode(nwb: Opened, group: h5py.Group) -> str | None:
    """Name of the electrode of a series; nothing of the electrode itself is read."""
    if not group.id.links.exists(b"electrode"):
        return None
    link = group.id.links.get_info(b"electrode")
    if link.type == h5py.h5l.TYPE_HARD:
        return nwb.electrodes.get(link.u, str(link.u))
    if link.type == h5py.h5l.TYPE_SOFT:
        place = group.id.links.get_val(b"electrode").decode("utf-8", "replace")
        return str(place.rstrip("/").rsplit("/", 1)[-1]) or None
    return None


def _starting_time(group: h5py.Group, points: int) -> tuple[float | None, float]:
    """Start in s and rate in Hz, from ``starting_time``; no start where there are time stamps."""
    time = _dataset(group, "starting_time")
    if time is not None:
        rate = float(attribute(time, "rate", np.nan))
        _require_rate(rate)
        return _number(time), rate
    stamps = _dataset(group, "timestamps")
    if stamps is None:
        raise UnreadableError("it has neither a starting time nor time stamps")
    if stamps.ndim != 1 or stamps.dtype.kind not in "iuf":
        raise UnreadableError("its time stamps are no list of numbers")
    if stamps.shape[0] != points:
        raise UnreadableError(f"it has {points:,} samples, but {stamps.shape[0]:,} time stamps")
    _require_samples(stamps)
    return None, 0.0


def _require_rate(rate: float) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise UnreadableError(f"its sampling rate is {rate:g} Hz")


def span_of(nwb: Opened, series: Series, first: int = 0, points: int | None = None) -> Span:
    """Samples of a series as a sweep; an `UnreadableError` if they are not there, or not even."""
    points = series.points - first if points is None else points
    if not 0 <= first < first + points <= series.points:
        raise UnreadableError(
            f"its samples {first:,} to {first + points:,} are asked for, but it has "
            f"{series.points:,}"
        )
    if series.start is not None:
        return Span(series, first, points, series.start + first / series.rate, series.rate)
    stamps = np.asarray(_values(nwb, series.group["timestamps"], first, points), dtype=float)
    return Span(series, first, points, *_even(stamps))


def spans_of(nwb: Opened, series: Series) -> list[Span]:
    """A series as one sweep; as several of one length where its time stamps jump between them.

    An `UnreadableError` if its samples are not even.
    """
    try:
        return [span_of(nwb, series)]
    except UnreadableError:
        if series.start is not None:
            raise
        stamps = np.asarray(_values(nwb, series.group["timestamps"], 0, series.points), dtype=float)
        steps = np.diff(stamps)
        edges = [0, *(np.flatnonzero(steps > 1.5 * np.median(steps)) + 1), series.points]
        lengths = np.diff(edges)
        if not 1 < len(lengths) <= _MOST_ROWS or np.ptp(lengths) > 1 or lengths.min() < 2:
            raise
        places = zip(edges[:-1], lengths, strict=True)
        return [Span(series, int(k), int(n), *_even(stamps[k : k + n])) for k, n in places]


def _even(stamps: NDArray[np.float64]) -> tuple[float, float]:
    """Start and rate of time stamps that are even but for less than half a sample.

    The rate is a round number where that fits them as well.
    """
    if len(stamps) < 2:
        raise UnreadableError("it has a single time stamp, so no sampling rate")
    if not np.isfinite(stamps).all() or stamps[-1] <= stamps[0]:
        raise UnreadableError("its time stamps do not go on")
    start = float(stamps[0])
    sample = np.arange(len(stamps))
    slope = (len(stamps) - 1) / float(stamps[-1] - start)
    for rate in (float(f"{slope:.3g}"), float(f"{slope:.5g}"), slope):
        off = (stamps - start) * rate - sample
        if np.ptp(off) < 1:  # half a sample to either side
            _require_rate(rate)
            return start + float(off.max() + off.min()) / 2 / rate, rate
    raise UnreadableError(_uneven(stamps))


def _uneven(stamps: NDArray[np.float64]) -> str:
    """What is wrong with time stamps."""
    steps = np.diff(stamps)
    usual = float(np.median(steps))
    jumps = np.flatnonzero(steps > 1.5 * usual)
    if usual <= 0 or not len(jumps) or (np.abs(np.delete(steps, jumps) - usual) > usual / 2).any():
        return "its time stamps are not evenly spaced"
    return (
        f"its time stamps are not evenly spaced: they jump {len(jumps):,} times, first by "
        f"{steps[jumps[0]]:.3g} s after {stamps[jumps[0]] - stamps[0]:.3g} s"
    )


def reader(nwb: Opened, span: Span, number: int) -> Callable[..., Samples]:
    """Reads the samples of a sweep in mV or pA: all, or the first so many."""
    path, file, source, series = nwb.path, nwb.file, nwb.source, span.series
    scale = Scale(series.conversion, series.offset, series.factor)

    def read(points: int = span.points) -> Samples:
        try:
            with np.errstate(all="ignore"):  # what a damaged conversion makes is judged later
                return _values(nwb, series.data, span.first, points, scale)
        except Exception as error:  # damaged chunks and compression raise many kinds
            require_bytes(source.content)
            if source.content.doubtful():
                raise DoubtfulBytesError(f"{path}, sweep {number}: came damaged") from error
            what = "the file was closed" if not file.id.valid else in_words(error)
            raise RecordingError(f"{path}, sweep {number}: cannot be read: {what}") from error

    return read


def require_bytes(content: Bytes) -> None:
    """What looks like damage may be bytes that did not come."""
    if content.failure is not None:
        raise content.failure


def _values(
    nwb: Opened, data: h5py.Dataset, first: int, points: int, scale: Scale = AS_STORED
) -> NDArray[Any]:
    """Some numbers of a dataset, of which no more chunks are read than they lie in."""
    chunks: list[h5py.h5d.StoreInfo] = []
    if data.chunks and not data.is_virtual:
        width, last = data.chunks[0], first + points
        chunks = [each for each in nwb.chunks(data) if first - width < each.chunk_offset[0] < last]
    nwb.source.expect(_stored_at(data, first, points, chunks))
    try:
        found = nwb.unpacker.samples(data, chunks, first, points, scale)
        return scale.of(np.ravel(data[first : first + points])) if found is None else found
    finally:
        nwb.source.expect([])


def _stored_at(
    data: h5py.Dataset, first: int, points: int, chunks: Sequence[h5py.h5d.StoreInfo]
) -> list[tuple[int, int]]:
    """Where some samples lie in the file, in these chunks if in any: (offset, bytes)."""
    needed = points * data.dtype.itemsize
    if data.is_virtual:
        return []
    if data.chunks is None:
        offset, whole = data.id.get_offset(), data.id.get_storage_size()
        before = first * data.dtype.itemsize
        found = [] if offset is None else [(offset + before, min(needed, whole - before))]
        stored = whole
    else:
        found = [(chunk.byte_offset, chunk.size) for chunk in chunks]
        stored = sum(count for _, count in found)
    if not stored or needed > max(_LARGE, _MAX_COMPRESSION * stored):
        raise ValueError(
            f"its {points:,} samples are not in the file, which has {stored:,} bytes of them"
        )
    return found


# Members, attributes and tables, of which a damaged one may be anything


def noted(group: h5py.Group) -> tuple[float, float]:
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
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, value, _IN_MEMORY[value.dtype])
        return float(value)
    return float(np.ravel(content_of(dataset))[0]) if dataset.size else float("nan")


def content_of(dataset: h5py.Dataset) -> Any:
    """All of a dataset that does not hold samples; a damaged one may claim to be of any size."""
    kind = dataset.id.get_type()
    _require_plain(kind, dataset.name)
    if (dataset.size or 0) * kind.get_size() > _MAX_CONTENT:
        raise ValueError(f"{dataset.name} has {dataset.size:,} entries")
    return dataset[()]


#: What a single value is read as, by the class of its type.
_SINGLE = {h5py.h5t.INTEGER: np.dtype("i8"), h5py.h5t.FLOAT: np.dtype("f8")}
_TEXT = h5py.string_dtype()
#: These as HDF5 knows them.
_IN_MEMORY = {each: h5py.h5t.py_create(each) for each in (*_SINGLE.values(), _TEXT)}


def rows_of(dataset: h5py.Dataset) -> Any:
    """All of a column of a table."""
    rows = content_of(dataset)
    if len(rows) > _MOST_ROWS:
        raise ValueError(f"{dataset.name} has {len(rows):,} rows")
    return rows


def attribute(item: h5py.Group | h5py.Dataset, name: str, default: Any = None) -> Any:
    """An attribute of a group or dataset."""
    if not h5py.h5a.exists(item.id, name.encode()):
        return default
    found = h5py.h5a.open(item.id, name.encode())
    kind = found.get_type()
    _require_plain(kind, name)
    text = kind.get_class() == h5py.h5t.STRING and kind.is_variable_str()
    dtype = _TEXT if text else _SINGLE.get(kind.get_class())
    if dtype is None or found.get_space().get_simple_extent_type() != h5py.h5s.SCALAR:
        return item.attrs[name]
    value = np.empty((), dtype)
    found.read(value, _IN_MEMORY[dtype])
    return value[()]


def _require_plain(kind: h5py.h5t.TypeID, name: str) -> None:
    if kind.get_class() == h5py.h5t.COMPOUND:
        for member in range(kind.get_nmembers()):
            _require_plain(kind.get_member_type(member), name)
    elif kind.get_class() not in _PLAIN:
        raise ValueError(f"{name} is neither number nor text")


def text_of(value: Any) -> str | None:
    """A text as HDF5 gives it; the first of several."""
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)
