"""Finished cells on disk, one at a time, safe against a killed process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crosspatch.archive.dandi import Asset
from crosspatch.errors import RecordingError
from crosspatch.features.outcome import CellFeatures, Failure, Outcomes
from crosspatch.recordings.formats import files_of

_Source = TypeVar("_Source", bound="Path | Asset")

# What is large comes last: the rest is read without it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    source TEXT NOT NULL,
    settings TEXT NOT NULL,
    part INTEGER NOT NULL,
    content TEXT NOT NULL,
    again INTEGER NOT NULL,
    reason TEXT,
    hint TEXT,
    cell_id TEXT,
    electrode TEXT,
    head TEXT,
    vector BLOB,
    PRIMARY KEY (source, settings, part)
)
"""


def stamp_of(source: Path | Asset) -> str | None:
    """What changes when the file does; None for a file that is gone."""
    if isinstance(source, Asset):
        return source.digest
    try:
        found = [file.stat() for file in files_of(source)]
    except OSError:
        return None
    size, last = sum(each.st_size for each in found), max(each.st_mtime_ns for each in found)
    return f"{size} bytes, {last} ns"


def _row(cell: CellFeatures | Failure) -> tuple[object, ...]:
    """What is kept of a cell."""
    if isinstance(cell, Failure):
        said = (int(cell.again), cell.message, cell.hint, cell.cell_id, cell.electrode)
        return (*said, json.dumps({"species": cell.species}), None)
    vector = np.asarray(cell.values, dtype="<f4").tobytes()
    return (0, None, None, cell.cell_id, None, json.dumps(cell.head), vector)


class CellStore:
    """A SQLite file with a row per cell of a recording and settings; used in a ``with`` block.

    Any use raises a `RecordingError` if the file cannot be written or is not a store.
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)

    def __enter__(self) -> CellStore:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(self.file, timeout=60)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute(_SCHEMA)
            self._base.commit()
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def has(self, source: Path | Asset, settings: str) -> bool:
        """Whether this file, as it is now, is done with these settings."""
        content = stamp_of(source)
        row = self._one(
            "SELECT MIN(content), MAX(again) FROM cells WHERE source = ? AND settings = ?",
            (str(source), settings),
        )
        return content is not None and row == (content, 0)

    def failures(self, sources: Sequence[Path | Asset], settings: str) -> int:
        """How many of these files are known to fail."""
        return sum(
            self._one(
                "SELECT COUNT(vector), MAX(again) FROM cells WHERE source = ? AND settings = ?",
                (str(source), settings),
            )
            == (0, 0)
            for source in sources
        )

    def contents(self, settings: str) -> dict[str, str]:
        """The files that are done, in the order in which they were put, as they were then."""
        query = (
            "SELECT source, MIN(content) FROM cells WHERE settings = ? "
            "GROUP BY source HAVING MAX(again) = 0 ORDER BY MAX(rowid)"
        )
        return dict(self._all(query, (settings,)))

    def put(
        self, source: Path | Asset, settings: str, cells: Outcomes, content: str | None
    ) -> None:
        """Keep what a file gave, whose `stamp_of` was this before it was read.

        In place of what it gave before; without cells that is forgotten.
        """
        place = (str(source), settings)
        content = content or "gone"
        rows = [(*place, part, content, *_row(cell)) for part, cell in enumerate(cells)]
        try:
            with self._base:
                self._base.execute("DELETE FROM cells WHERE source = ? AND settings = ?", place)
                self._base.executemany(
                    "INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
                )
        except sqlite3.Error as error:
            raise self._error(error) from error

    def cells(
        self, sources: Sequence[_Source], settings: str
    ) -> Iterator[tuple[_Source, CellFeatures | Failure]]:
        """What these files gave, in their order, a cell at a time."""
        for source in sources:
            for row in self._all(
                "SELECT again, reason, hint, cell_id, electrode, head, vector FROM cells "
                "WHERE source = ? AND settings = ? ORDER BY part",
                (str(source), settings),
            ):
                again, reason, hint, cell_id, electrode, head, vector = row
                about = json.loads(head or "{}")  # older stores have none of what failed
                if vector is None:
                    yield source, Failure(reason, bool(again), hint, cell_id, electrode, **about)
                else:
                    values = np.frombuffer(vector, dtype="<f4").astype(np.float32)
                    yield source, CellFeatures(cell_id, values, about)

    def _one(self, query: str, values: tuple[str, ...]) -> Any:
        return self._all(query, values)[0]

    def _all(self, query: str, values: tuple[str, ...]) -> list[Any]:
        try:
            return self._base.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> RecordingError:
        return RecordingError(
            f"{self.file} cannot be used as the store of finished cells: {error}",
            hint="free space, or give another {out}",
        )
