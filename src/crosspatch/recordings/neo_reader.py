"""AxoGraph and WinWCP, by neo."""

from __future__ import annotations

import logging
import struct
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.formats import whole_content
from crosspatch.recordings.model import Recorded, Recording
from crosspatch.recordings.signals import Episode, InputSignal, OpenedSignals, recordings_of

if TYPE_CHECKING:
    from neo.rawio.baserawio import BaseRawIO

    from crosspatch.recordings.reading_options import Reading

#: Sweeps and inputs that a file has at most.
_MOST_SWEEPS, _MOST_INPUTS = 50_000, 1000

#: Of a record of WinWCP: its analysis block begins with the status, at 20 the interval in s, then
#: the full scale of every input, V.
_RECORD_HEAD = struct.Struct("<8s4sfff8f")


def read_axograph(path: Path, reading: Reading) -> list[Recording]:
    """Open an AxoGraph file."""
    return _read(path, reading, _axograph)


def read_winwcp(path: Path, reading: Reading) -> list[Recording]:
    """Open a WinWCP file."""
    return _read(path, reading, _winwcp)


def _read(path: Path, reading: Reading, of: Callable[[Path], OpenedSignals]) -> list[Recording]:
    logging.getLogger("neo").setLevel(logging.CRITICAL)
    with warnings.catch_warnings(action="ignore"):
        return recordings_of(of(path), reading)


def _axograph(path: Path) -> OpenedSignals:
    from neo.rawio import AxographRawIO

    content = whole_content(path)
    _require_columns(content)
    # neo's own way to sweeps takes the columns to be in turn.
    raw = AxographRawIO(filename=str(path), force_single_segment=True)
    raw.parse_header()
    (columns,) = _signals(raw)
    sweeps = _sweeps(columns, _groups(raw, len(columns)))
    episodes = [Episode(number, tuple(found)) for number, found in enumerate(sweeps)]
    when = raw.raw_annotations["blocks"][0].get("rec_datetime")
    version = f"AxoGraph {raw.info['format_ver']}"
    session = when.isoformat() if when else None
    return OpenedSignals(path, path.stem, version, episodes, Recorded(session=session))


def _require_columns(content: bytes) -> None:
    """Refuse more columns than a file can hold, each of which neo would look for."""
    columns = struct.unpack(">l", content[8:12])[0] if content[:4] == b"axgx" else 0
    if not 0 <= columns <= min(_MOST_SWEEPS, len(content) // 8):
        raise ValueError(f"its header names {columns:,} columns")


def _groups(raw: BaseRawIO, columns: int) -> list[tuple[str, str]] | None:
    """Name and unit of every column's input, by the groups that the file puts them in."""
    traces = raw.info.get("trace_header_info_list", {}).values()
    titles = raw.info.get("group_header_info_list", {})
    # Column 0 is the time.
    groups = {each["y_index"] - 1: each["group_id_for_this_trace"] for each in traces}
    if set(groups) != set(range(columns)) or not set(groups.values()) <= set(titles):
        return None
    return [(titles[groups[k]]["title"], titles[groups[k]]["units"]) for k in range(columns)]


def _sweeps(
    columns: list[InputSignal], groups: list[tuple[str, str]] | None
) -> list[list[InputSignal]]:
    """The sweeps that columns make: the first of every input, the second, and so on.

    Without groups, inputs are told by the columns' titles.
    """
    alike: dict[tuple[str, str], list[InputSignal]] = defaultdict(list)
    for (name, unit), each in zip(groups or _titles(columns), columns, strict=True):
        alike[name, unit].append(replace(each, name=name or "input", unit=unit))
    most = max(map(len, alike.values()))
    return [[each[k] for each in alike.values() if k < len(each)] for k in range(most)]


def _titles(columns: list[InputSignal]) -> list[tuple[str, str]]:
    """Name and unit of every column's input by its title; of one input only the first has one."""
    titles = [(each.name, each.unit) for each in columns]
    named = {name for name, _ in titles}
    if len(named - {""}) == 1:
        return [titles[0]] * len(columns)
    if len(columns) > 1 and "" in named:
        raise ValueError("it does not say which columns are of which input")
    return titles


def _winwcp(path: Path) -> OpenedSignals:
    from neo.rawio import WinWcpRawIO

    content = whole_content(path)
    lines = content[:1024].decode("latin-1").split("\r\n")
    about = dict(line.split("=", 1) for line in lines if line.count("=") == 1)
    count, inputs, blocks = map(int, itemgetter("NR", "NC", "NBD")(about))
    size = 512 * blocks + 1024
    if not (0 < count <= _MOST_SWEEPS and 0 < inputs <= 8 and blocks > 0):
        raise ValueError(f"its header names {count:,} records of {inputs} inputs")
    if 1024 + count * size > len(content) + size:
        raise ValueError(f"its header names {count:,} records; it was cut short")
    raw = WinWcpRawIO(filename=str(path))
    raw.parse_header()
    heads = [_RECORD_HEAD.unpack_from(content, 1024 + size * k) for k in range(count)]
    episodes, unreadable = [], {}
    for number, (found, head) in enumerate(zip(_signals(raw), heads, strict=True), start=1):
        if b"REJ" in head[0].upper():
            unreadable[f"record {number}"] = "it is marked as rejected in WinWCP"
            continue
        signals = _record(found, head, heads[-1], about.get("NP"))
        episodes.append(Episode(number, tuple(signals), about.get("ID", "").strip()))
    session = None
    with suppress(KeyError, ValueError):
        session = datetime.strptime(about["RTIME"].strip(), "%d/%m/%Y %H:%M:%S").isoformat()
    return OpenedSignals(
        path,
        path.stem,
        f"WinWCP {about.get('VER', '')}".strip(),
        episodes,
        Recorded(session=session),
        unreadable=unreadable,
    )


def _record(
    found: list[InputSignal], head: Sequence[float], last: Sequence[float], most: str | None
) -> list[InputSignal]:
    """The signals of a record by its own head, of no more points; neo goes by the last head."""
    # The interval has but seven digits.
    rate = float(f"{1 / head[4]:.6g}") if head[4] > 0 else float("nan")
    signals = []
    for k, each in enumerate(found, start=5):
        factor = head[k] / last[k]
        points = each.points if most is None else min(each.points, int(most))
        if points:
            read = partial(_scaled, each.read, points, factor)
            signals.append(replace(each, rate=rate, points=points, read=read))
    return signals


def _scaled(
    read: Callable[[], NDArray[np.generic]], points: int, factor: float
) -> NDArray[np.float64]:
    return np.asarray(read()[:points], np.float64) * factor


def _signals(raw: BaseRawIO) -> list[list[InputSignal]]:
    """What neo found: the signals of every segment."""
    channels = raw.header["signal_channels"]
    segments = raw.segment_count(0)
    if not 0 < segments <= _MOST_SWEEPS or not 0 < len(channels) <= _MOST_INPUTS * 50:
        raise ValueError(f"{segments:,} sweeps of {len(channels):,} inputs cannot be")
    found: list[list[InputSignal]] = []
    for segment in range(segments):
        signals = []
        for stream in range(len(raw.header["signal_streams"])):
            own = channels[channels["stream_id"] == raw.header["signal_streams"][stream]["id"]]
            points = int(raw.get_signal_size(0, segment, stream))
            for k, channel in enumerate(own):
                read = partial(_samples, raw, segment, stream, k)
                name, unit, rate = channel["name"], channel["units"], channel["sampling_rate"]
                signals.append(InputSignal(str(name), str(unit), float(rate), points, read))
        found.append(signals)
    return found


def _samples(raw: BaseRawIO, segment: int, stream: int, k: int) -> NDArray[np.float64]:
    chunk = raw.get_analogsignal_chunk(0, segment, stream_index=stream, channel_indexes=[k])
    return raw.rescale_signal_raw_to_float(
        chunk, "float64", stream_index=stream, channel_indexes=[k]
    )[:, 0]
