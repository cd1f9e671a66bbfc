"""Finished cells on disk, one at a time, safe against a killed process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from crosspatch.archive.dandi import Asset
from crosspatch.errors import RecordingError
from crosspatch.features.outcome import CellFeatures, Failure

_Source = TypeVar("_Source", bound="Path | Asset")

# What is large comes last: the rest is read without it.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outcomes (
    source TEXT NOT NULL,
    settings TEXT NOT NULL,
    content TEXT NOT NULL,
    again INTEGER NOT NULL,
    reason TEXT,
    cell_id TEXT,
    head TEXT,
    vector BLOB,
    PRIMARY KEY (source, settings)
)
"""


def _content_of(source: Path | Asset) -> str | None:
    """What changes when the file does; None for a file that is gone."""
    if isinstance(source, Asset):
        return source.digest
    try:
        status = source.stat()
    except OSError:
        return None
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"


class CellStore:
    """A SQLite file with one row per recording and settings; used in a ``with`` block.

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
            with suppress(sqlite3.OperationalError):  # it is there
                self._base.execute("ALTER TABLE outcomes ADD COLUMN hint TEXT")
            self._base.commit()
        except (OSError, sqlite3.Error) as error:
            raise self._error(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()

    def has(self, source: Path | Asset, settings: str) -> bool:
        """Whether this file, as it is now, is done with these settings."""
        content = _content_of(source)
        row = self._one(
            "SELECT content, again FROM outcomes WHERE source = ? AND settings = ?",
            (str(source), settings),
        )
        return content is not None and row == (content, 0)

    def failures(self, sources: Sequence[Path | Asset], settings: str) -> int:
        """How many of these files are known to fail."""
        return sum(
            self._one(
                "SELECT 1 FROM outcomes WHERE source = ? AND settings = ? AND cell_id IS NULL "
                "AND again = 0",
                (str(source), settings),
            )
            is not None
            for source in sources
        )

    def put(self, source: Path | Asset, settings: str, outcome: CellFeatures | Failure) -> None:
        """Keep what a file gave."""
        row: tuple[object, ...]
        if isinstance(outcome, Failure):
            row = (int(outcome.again), outcome.message, None, None, None, outcome.hint)
        else:
            vector = np.asarray(outcome.values, dtype="<f4").tobytes()
            row = (0, None, outcome.cell_id, json.dumps(outcome.head), vector, None)
        row = (str(source), settings, _content_of(source) or "gone", *row)
        try:
            with self._base:
                self._base.execute(
                    "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row
                )
        except sqlite3.Error as error:
            raise self._error(error) from error

    def cells(
        self, sources: Sequence[_Source], settings: str
    ) -> Iterator[tuple[_Source, CellFeatures | Failure]]:
        """What these files gave, in their order."""
        for source in sources:
            row = self._one(
                "SELECT cell_id, head, vector, reason, again, hint FROM outcomes "
                "WHERE source = ? AND settings = ?",
                (str(source), settings),
            )
            if row is None:
                continue
            cell_id, head, vector, reason, again, hint = row
            if vector is None:
                yield source, Failure(str(reason), bool(again), hint or "")
            else:
                values = np.frombuffer(vector, dtype="<f4").astype(np.float32)
                yield source, CellFeatures(str(cell_id), values, json.loads(head))

    def _one(self, query: str, values: tuple[str, ...]) -> Any:
        try:
            return self._base.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> RecordingError:
        return RecordingError(
            f"{self.file} cannot be used as the store of finished cells: {error}",
            hint="free space, or give another {out}",
        )
