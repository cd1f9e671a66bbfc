"""Axon text files (.atf) of Clampex, Clampfit and others."""

from __future__ import annotations

import io
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosspatch.recordings.formats import whole_content
from crosspatch.recordings.model import Recorded, Recording, to_seconds
from crosspatch.recordings.signals import Episode, InputSignal, OpenedSignals, recordings_of

if TYPE_CHECKING:
    from crosspatch.recordings.reading_options import Reading

#: Lines of a header and columns that a file has at most.
_MOST = 50_000


def read_atf(path: Path, reading: Reading) -> list[Recording]:
    """Open an Axon text file, whose samples are read at once.

    Its columns are the time and, one after another, the inputs of every sweep.
    """
    table = AxonText.of(whole_content(path))
    titles, values = table.titles, table.values
    of_time = name_and_unit(titles[0])[1]
    interval = _interval(values[:, 0]) * (to_seconds(of_time or "s") or float("nan"))
    named = _named(table.header.get("Signals", ""), titles[1:])
    sweeps: list[list[InputSignal]] = []
    for k, (name, title) in enumerate(zip(named, titles[1:], strict=True), start=1):
        # A sweep begins where an input comes again.
        if not sweeps or any(each.name == name for each in sweeps[-1]):
            sweeps.append([])
        column = np.ascontiguousarray(values[:, k])
        read = partial(_same, column)
        sweeps[-1].append(
            InputSignal(name, name_and_unit(title)[1], 1 / interval, len(column), read)
        )
    episodes = [Episode(number, tuple(signals)) for number, signals in enumerate(sweeps)]
    start = table.header.get("SweepStartDateTime") or table.header.get("AcquisitionDate")
    recorded = Recorded(session=start)
    opened = OpenedSignals(path, path.stem, f"ATF {table.version}", episodes, recorded)
    return recordings_of(opened, reading)


class AxonText(NamedTuple):
    """What an Axon text file holds."""

    version: str
    header: dict[str, str]
    titles: list[str]  # of the columns
    values: NDArray[np.float64]  # shape (rows, columns)

    @classmethod
    def of(cls, content: bytes) -> AxonText:
        """Of the content of a file; a ValueError, or another, if it is damaged."""
        lines = io.BytesIO(content)

        def line() -> str:
            return lines.readline(1 << 20).decode("latin-1").strip("\r\n")

        version = line().split()[1]
        items, columns = (int(part) for part in line().split()[:2])
        if not 0 <= items <= _MOST or not 2 <= columns <= _MOST:
            raise ValueError(f"it names {items} lines of header and {columns} columns")
        header = {}
        for _ in range(items):
            key, _, value = line().strip().strip('"').partition("=")
            header[key.strip()] = value.strip('"\t ')
        titles = [title.strip(' "') for title in re.split("[\t,]", line())]
        if len(titles) < columns:
            raise ValueError(f"it has {len(titles)} titles for {columns} columns")
        separator = "," if b"," in content[lines.tell() : lines.tell() + 2000] else "\t"
        used = range(columns)
        values = np.loadtxt(lines, delimiter=separator, ndmin=2, usecols=used, comments=None)
        return cls(version, header, titles[:columns], values)


def _same(column: NDArray[np.float64]) -> NDArray[np.float64]:
    return column


def name_and_unit(title: str) -> tuple[str, str]:
    """Name and unit of a title such as ``Trace #1 (mV)``."""
    found = re.fullmatch(r"(.*?)\s*\(([^()]*)\)", title.strip())
    return (found.group(1), found.group(2).strip()) if found else (title, "")


def _named(signals: str, titles: list[str]) -> list[str]:
    """Inputs by the header's list of signals if it is one of all columns, else by their titles.

    These are taken without the number of the sweep, and by unit.
    """
    listed = [name for each in signals.split("\t") if (name := each.strip(' "'))]
    if len(listed) == len(titles):
        return listed
    bare = []
    for title in titles:
        name, unit = name_and_unit(title)
        kept = re.sub(r"(?:\b(?:trace|sweep|episode)\s*#?|#)\s*\d+", "", name, flags=re.IGNORECASE)
        bare.append((kept.strip(" ,:-"), unit))
    return [name or unit or "trace" for name, unit in bare]


def _interval(times: NDArray[np.float64]) -> float:
    """Between samples; a ValueError if they are not even to a tenth of it."""
    count = len(times) - 1
    interval = float(times[-1] - times[0]) / count if count > 0 else float("nan")
    digits = 1e-5 * float(np.abs(times).max())  # as many are written
    even = times[0] + interval * np.arange(count + 1)
    if not (interval > 0 and np.abs(times - even).max() < 0.1 * interval + digits):
        raise ValueError("its times are not evenly spaced")
    return interval
