"""The header of an ABF file, and its samples.

After Axon's own description of the two formats (abfheadr.h and ProtocolStructs.h of AxABFFIO32).
What a header says is checked before it is believed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from crosspatch.errors import RecordingError, in_words
from crosspatch.recordings.model import MAX_RATE, MIN_RATE, Samples

#: Bytes of the header of ABF 1.6 and later; older files end before epochs, lists and telegraphs.
_LONG_HEADER = 6144
_SHORT_HEADER = 2048
#: Sections of ABF 2.
PROTOCOL, _INPUTS, OUTPUTS, EPOCHS, USER_LISTS, _STRINGS, _SAMPLES, _SYNCH = (
    0,
    1,
    2,
    5,
    6,
    9,
    10,
    15,
)
#: What is read of an entry of each, and nothing of its pads.
_FORMS = {
    # Mode, interval, unit of sweep times, sweeps of a run, range and resolution, active output,
    # whether outputs take turns.
    PROTOCOL: struct.Struct("<hf8xf12xi76xf4xi20xh38xh"),
    # Number; telegraph, instrument, its gain and mode; gains, scale and offsets; name and unit.
    _INPUTS: struct.Struct("<hhhf8xh8xf8x4f18xii"),
    OUTPUTS: struct.Struct("<h10xf8xii8x3h2fi2xh20x2f2xh24xi"),
    EPOCHS: struct.Struct("<3h2f4i"),
    USER_LISTS: struct.Struct("<4hi"),
    _STRINGS: struct.Struct("<x"),
    _SAMPLES: struct.Struct("<h"),
    _SYNCH: struct.Struct("<ii"),
}
#: ABF 2 keeps a table of sections from this byte on: block, bytes per entry, entries.
_SECTIONS_AT, _SECTIONS = 76, 18
_SECTIONS_END = _SECTIONS_AT + 16 * _SECTIONS
#: Its strings begin behind a head of so many bytes.
_STRINGS_HEAD = 44
#: Bytes.
_BLOCK = 512
#: Sections are read entry by entry, but for the samples; a recording has fewer entries.
_MAX_ENTRIES = 50_000
_MAX_TEXT = 1 << 20
#: Sweeps follow one another without a gap in this mode.
_GAP_FREE = 3
#: How a telegraph names a MultiClamp.
_MULTICLAMP = 24
#: Sampling intervals are 32-bit floats, which make a rate whole to this share.
_WHOLE = 1e-6


class SampledInput(NamedTuple):
    """One input of the digitizer, as the header has it."""

    number: int
    name: str
    unit: str
    gain: float  # of an integer sample
    offset: float
    mode: int | None  # of a MultiClamp, by telegraph: 0 voltage clamp, 1 current clamp, 2 I=0


@dataclass(frozen=True, eq=False)
class AbfHeader:
    """What the header of an ABF file says, checked."""

    path: Path
    version: str  # such as 2.6
    mode: int  # how Clampex recorded
    rate: float  # Hz
    inputs: Sequence[SampledInput]
    in_run: int  # sweeps of its protocol; 0 where that is not known
    session: str | None  # when it was recorded
    dtype: np.dtype[Any]  # of samples
    samples_at: int  # byte
    points: int  # samples of all inputs and sweeps
    sweeps: int
    lengths: Sequence[int]  # samples of each sweep and all inputs; empty if they are not listed
    head: bytes  # the fixed part of the header

    @property
    def is_1(self) -> bool:
        """Whether it is ABF 1."""
        return self.version.startswith("1")

    @property
    def is_short(self) -> bool:
        """Whether it ends before epochs, lists and telegraphs."""
        return self.is_1 and self.samples_at < _LONG_HEADER

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """First sample and number of samples of every sweep; a RecordingError if cut short."""
        count, channels = self.sweeps, len(self.inputs)
        lengths = [self.points // count // channels] * count
        if count > 1 and len(set(self.lengths)) > 1:
            lengths = [length // channels for length in self.lengths]
        elif count > 1 and self.points != lengths[0] * count * channels:
            raise damaged(
                self.path,
                f"its {self.points:,} samples are not {count} sweeps of {channels} channels and "
                "equal length",
            )
        starts = [int(start) for start in np.cumsum([0, *lengths[:-1]])]
        size = self.path.stat().st_size - self.samples_at
        needed = (starts[-1] + lengths[-1]) * channels * self.dtype.itemsize
        if min(lengths) <= 0 or needed > size or self.samples_at <= 0:
            raise damaged(
                self.path,
                f"its {count} sweeps need {needed:,} bytes of samples, the file has "
                f"{max(size, 0):,}; it was cut short",
            )
        return list(zip(starts, lengths, strict=True))

    def read(self, place: int, sweep: int, most: int | None = None) -> Samples:
        """The samples of an input, by its place, in one sweep: at most so many, in its unit."""
        (start, points), channels = self.bounds[sweep], len(self.inputs)
        points = points if most is None else min(points, most)
        at = self.samples_at + start * channels * self.dtype.itemsize
        try:
            raw = np.fromfile(self.path, self.dtype, points * channels, offset=at)
        except OSError as error:
            raise RecordingError(f"{self.path}, sweep {sweep}: {in_words(error)}") from error
        if len(raw) != points * channels:
            raise RecordingError(
                f"{self.path}, sweep {sweep}: expected {points * channels:,} samples, found "
                f"{len(raw):,}; the file was cut short"
            )
        values = raw.reshape(points, channels)[:, place].astype(np.float64)
        of = self.inputs[place]
        return values * of.gain + of.offset if self.dtype.kind == "i" else values


def damaged(path: Path, problem: str) -> RecordingError:
    """What is raised for a header that cannot be true."""
    return RecordingError(f"{path} is a damaged ABF file: {problem}")


def read_header(path: Path) -> AbfHeader:
    """The header of an ABF file; a RecordingError where it cannot be true."""
    with path.open("rb") as file:
        head = file.read(_LONG_HEADER)
        is_2 = head[:4] == b"ABF2"
        if len(head) < (_SECTIONS_END if is_2 else _SHORT_HEADER):
            raise damaged(path, f"it ends after {len(head)} bytes, inside its header")
        size = path.stat().st_size
        if problem := _problem_of_2(head, size) if is_2 else _problem_of_1(head, size):
            raise damaged(path, problem)
        return _header_of_2(path, head, file) if is_2 else _header_of_1(path, head, file)


def _problem_of_2(head: bytes, size: int) -> str | None:
    (sweeps,) = numbers(head, "I", 12)
    if sweeps > _MAX_ENTRIES:
        return f"its header names {sweeps:,} sweeps"
    problems = (_problem_of_section(section, head, size) for section in range(_SECTIONS))
    return next(filter(None, problems), None)


def _problem_of_section(section: int, head: bytes, size: int) -> str | None:
    block, width, count = _place(head, section)
    end = block * _BLOCK + width * count
    if not 0 <= count <= size or width > size or end > size:
        return f"section {section} of its header lies outside the file; it was cut short"
    if section not in _FORMS:
        return None
    if count and width < _FORMS[section].size:
        return f"section {section} of its header has entries of {width} bytes"
    if section != _SAMPLES and count > _MAX_ENTRIES:
        return f"section {section} of its header has {count:,} entries"
    if section == _STRINGS and width * count > _MAX_TEXT:
        return f"its header has {width * count:,} bytes of text"
    return None


def _problem_of_1(head: bytes, size: int) -> str | None:
    (points,), (sweeps,) = numbers(head, "i", 10), numbers(head, "i", 16)
    if not 0 <= points <= size:
        return f"its header names {points:,} samples; it was cut short"
    if not 0 <= sweeps <= _MAX_ENTRIES:
        return f"its header names {sweeps:,} sweeps"
    block, count = numbers(head, "ii", 92)
    if not 0 <= count <= _MAX_ENTRIES:
        return f"its header names {count:,} sweep times"
    if count and not 0 <= block * _BLOCK <= size - _FORMS[_SYNCH].size * count:
        return "its sweep times lie outside the file; it was cut short"
    return None


def _place(head: bytes, section: int) -> tuple[int, int, int]:
    block, width, count = struct.unpack_from("<IIq", head, _SECTIONS_AT + 16 * section)
    return block, width, count


def section_entries(head: bytes, file: BinaryIO, section: int) -> list[tuple[Any, ...]]:
    """The entries of a section of ABF 2, as far as they are read."""
    block, width, count = _place(head, section)
    file.seek(block * _BLOCK)
    content = file.read(width * count)
    return [_FORMS[section].unpack_from(content, width * k) for k in range(count)]


def texts(head: bytes, file: BinaryIO) -> list[str]:
    """The strings of an ABF 2 file, by number; number 0 is empty."""
    block, width, count = _place(head, _STRINGS)
    file.seek(block * _BLOCK + _STRINGS_HEAD)
    content = file.read(max(width * min(count, 1) - _STRINGS_HEAD, 0))
    return ["", *map(fixed_text, content.lstrip(b"\0").split(b"\0"))]


def numbers(head: bytes, kind: str, at: int) -> tuple[Any, ...]:
    """Numbers of a header from some byte on."""
    return struct.unpack_from(f"<{kind}", head, at)


def fixed_text(field: bytes) -> str:
    """A field of fixed length, without what fills it."""
    text = field.split(b"\0")[0].replace(b"\xb5", b"u")  # of micro
    return text.decode("ascii", "replace").strip()


def fixed_texts(head: bytes, at: int, width: int, count: int) -> list[str]:
    """Several fields of fixed length."""
    return [fixed_text(head[at + k * width :][:width]) for k in range(count)]


def _header_of_2(path: Path, head: bytes, file: BinaryIO) -> AbfHeader:
    found = section_entries(head, file, PROTOCOL)
    if not found:
        raise damaged(path, "its header has no protocol")
    mode, interval, unit, in_run, most, resolution, *_ = found[0]
    (sweeps, date, time), (kind,) = numbers(head, "3I", 12), numbers(head, "H", 30)
    block, _, points = _place(head, _SAMPLES)
    said = texts(head, file)
    inputs = []
    for (
        number,
        by,
        instrument,
        more,
        clamp,
        gain,
        scale,
        offset,
        signal,
        shift,
        *at,
    ) in section_entries(head, file, _INPUTS):
        name, of = (said[k] if 0 <= k < len(said) else "" for k in at)
        gains = (scale, signal, gain, more if by == 1 else 1.0)
        gain = _gain(path, f"input {number}", gains, most, resolution)
        known = by == 1 and instrument == _MULTICLAMP
        inputs.append(
            SampledInput(
                number, name or "?", of or "?", gain, offset - shift, clamp if known else None
            )
        )
    minor, major = head[6], head[7]
    sweeps = (1 if mode == _GAP_FREE else sweeps) or 1
    listed = [length for _, length in section_entries(head, file, _SYNCH)]
    return AbfHeader(
        path,
        f"{major}.{minor}",
        mode,
        _rate(path, interval, len(inputs)),
        inputs,
        in_run,
        _session(date, time / 1000),
        _dtype(path, kind),
        block * _BLOCK,
        points,
        sweeps,
        _lengths(listed, sweeps, points, unit),
        head,
    )


def _header_of_1(path: Path, head: bytes, file: BinaryIO) -> AbfHeader:
    version, mode, points, ignored, sweeps, date, time = numbers(head, "fhihiii", 4)
    (count, first, second, unit), (kind,) = numbers(head, "hfff", 120), numbers(head, "h", 100)
    (change,), (of_sweep,), (in_run,) = (numbers(head, "i", at) for at in (194, 138, 146))
    if second not in (0, first) and 0 < change < of_sweep:
        raise RecordingError(
            f"{path} changes its sampling interval within each sweep, from {first:g} to "
            f"{second:g} us, which is not read"
        )
    (block,), (listed_at, listed) = numbers(head, "i", 40), numbers(head, "ii", 92)
    (more,) = numbers(head, "h", 366)  # ms
    file.seek(max(listed_at, 0) * _BLOCK)
    times = _FORMS[_SYNCH].iter_unpack(file.read(_FORMS[_SYNCH].size * listed))
    dtype = _dtype(path, kind)
    at = block * _BLOCK + ignored * dtype.itemsize
    sweeps = (1 if mode == _GAP_FREE else sweeps) or 1
    return AbfHeader(
        path,
        f"1.{round(version * 100) // 10 % 10}",
        mode,
        _rate(path, first * count, count),
        _inputs_of_1(path, head, count, at >= _LONG_HEADER),
        in_run,
        _session(date, time + more / 1000),
        dtype,
        at,
        points,
        sweeps,
        _lengths([length for _, length in times], sweeps, points, unit),
        head,
    )


def _inputs_of_1(path: Path, head: bytes, count: int, is_long: bool) -> list[SampledInput]:
    order = numbers(head, "16h", 410)[:count]
    if count > len(order) or not all(0 <= at < 16 for at in order):
        raise damaged(path, f"it has {count} inputs, of numbers {order}")
    names, units = fixed_texts(head, 442, 10, 16), fixed_texts(head, 602, 8, 16)
    gain, scale, offset, signal, shift = (
        numbers(head, "16f", at) for at in (730, 922, 986, 1050, 1114)
    )
    (most,), (resolution,) = numbers(head, "f", 244), numbers(head, "i", 252)
    by, instrument, clamp = ((0,) * 16,) * 3  # behind a short header there are samples
    more: tuple[float, ...] = (1.0,) * 16
    if is_long:
        by, instrument, clamp = (numbers(head, "16h", at) for at in (4512, 4544, 4768))
        more = numbers(head, "16f", 4576)
    inputs = []
    for at in order:
        gains = (scale[at], signal[at], gain[at], more[at] if by[at] == 1 else 1.0)
        known = by[at] == 1 and instrument[at] == _MULTICLAMP
        inputs.append(
            SampledInput(
                at,
                names[at] or "?",
                units[at] or "?",
                _gain(path, f"input {at}", gains, most, resolution),
                offset[at] - shift[at],
                clamp[at] if known else None,
            )
        )
    return inputs


def _gain(path: Path, of: str, gains: Sequence[float], most: float, resolution: int) -> float:
    """What an integer sample is multiplied with."""
    result = 1.0
    for gain in gains:
        if gain == 0:
            raise damaged(path, f"a gain of {of} is 0")
        result /= gain
    if resolution == 0:
        raise damaged(path, "the resolution of its digitizer is 0")
    return result * most / resolution


def _dtype(path: Path, kind: int) -> np.dtype[Any]:
    if kind not in (0, 1):
        raise damaged(path, f"its samples are of kind {kind}")
    return np.dtype("<i2" if kind == 0 else "<f4")


def _rate(path: Path, interval: float, channels: int) -> float:
    rate = 1e6 / interval if interval > 0 else 0.0
    if not MIN_RATE <= rate <= MAX_RATE or not 0 < channels <= 64:
        raise damaged(path, f"{channels} channels at {rate:g} Hz cannot be")
    return float(round(rate)) if abs(rate - round(rate)) <= _WHOLE * rate else rate


def _session(date: int, seconds: float) -> str | None:
    """When it was recorded, from a date such as 20200131; None where that is no date."""
    try:
        begun = datetime(date // 10_000, date // 100 % 100, date % 100) + timedelta(seconds=seconds)
    except (ValueError, OverflowError):
        return None
    return begun.isoformat(timespec="milliseconds") if begun.year > 1980 else None


def _lengths(lengths: Sequence[int], count: int, total: int, unit: float) -> list[int]:
    """Samples of each sweep and all channels, as far as the file lists them."""
    lengths = lengths[:count]
    if len(lengths) < count:
        return []
    if unit > 0 and abs(sum(lengths) / unit - total) < abs(sum(lengths) - total):
        return [round(length / unit) for length in lengths]  # kept as times
    return list(lengths)
