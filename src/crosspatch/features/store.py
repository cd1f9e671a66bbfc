"""Finished cells on disk, one at a time, safe against a killed process."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crosspatch.errors import RecordingError
from crosspatch.features.outcome import CellFeatures, Failure

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cells (
    path TEXT NOT NULL,
    settings TEXT NOT NULL,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL,
    cell_id TEXT,
    head TEXT,
    vector BLOB,
    reason TEXT,
    again INTEGER NOT NULL,
    PRIMARY KEY (path, settings)
)
"""


class CellStore:
    """A SQLite file with a row a recording and settings; used in a ``with`` block.

    Parameters
    ----------
    file : path

    Raises
    ------
    RecordingError
        On any use, if the file cannot be written or is no store.
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

    def has(self, path: Path, settings: str) -> bool:
        """Whether this file, as it is now, is done with these settings."""
        try:
            status = path.stat()
        except OSError:
            return False
        row = self._one(
            "SELECT size, modified, again FROM cells WHERE path = ? AND settings = ?",
            (str(path), settings),
        )
        return row == (status.st_size, status.st_mtime_ns, 0)

    def failures(self, paths: Sequence[Path], settings: str) -> int:
        """How many of these files are known to fail."""
        return sum(
            self._one(
                "SELECT 1 FROM cells WHERE path = ? AND settings = ? AND vector IS NULL "
                "AND again = 0",
                (str(path), settings),
            )
            is not None
            for path in paths
        )

    def put(self, path: Path, settings: str, outcome: CellFeatures | Failure) -> None:
        """Keep what a file gave."""
        try:
            status = path.stat()
            size, modified = status.st_size, status.st_mtime_ns
        except OSError:
            size = modified = -1
        row: tuple[Any, ...] = (None, None, None)
        reason, again = None, False
        if isinstance(outcome, Failure):
            reason, again = outcome.reason, outcome.again
        else:
            vector = np.asarray(outcome.values, dtype="<f4").tobytes()
            row = (outcome.cell_id, json.dumps(outcome.head), vector)
        try:
            with self._base:
                self._base.execute(
                    "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (str(path), settings, size, modified, *row, reason, int(again)),
                )
        except sqlite3.Error as error:
            raise self._error(error) from error

    def cells(
        self, paths: Sequence[Path], settings: str
    ) -> Iterator[tuple[Path, CellFeatures | Failure]]:
        """What these files gave, in their order."""
        for path in paths:
            row = self._one(
                "SELECT cell_id, head, vector, reason, again FROM cells "
                "WHERE path = ? AND settings = ?",
                (str(path), settings),
            )
            if row is None:
                continue
            cell_id, head, vector, reason, again = row
            if vector is None:
                yield path, Failure(str(reason), bool(again))
            else:
                values = np.frombuffer(vector, dtype="<f4").astype(np.float32)
                yield path, CellFeatures(str(cell_id), values, json.loads(head))

    def _one(self, query: str, values: tuple[Any, ...]) -> Any:
        try:
            return self._base.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> RecordingError:
        return RecordingError(
            f"{self.file} cannot be used as the store of finished cells: {error}; free space, or "
            "give another --out"
        )
