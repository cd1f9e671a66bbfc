"""Predicted cells of a batch, kept in a small database: sorted, filtered, counted, read again."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosspatch.prediction.prediction import IN_NOTES

if TYPE_CHECKING:
    from crosspatch.prediction.prediction import Prediction

#: Columns by which cells can be sorted.
SORTS = (
    "cell_id",
    "name",
    "species",
    "subclass",
    "probability",
    "verdict",
    "p_reference",
    "completeness",
)

#: Columns by whose values cells can be chosen.
CHOICES = ("verdict", "subclass", "species")

_FILE = "cells.sqlite"
_REAL = ("probability", "p_reference", "completeness")
_FLAGS = ("species_known", "simulated", "aligned")

#: Columns that hold several words, kept as JSON.
_LISTS = ("prediction_set", "families", "notes", "unusual", "references")

#: Columns that are of use here only; ``words`` is what is to be said of a cell, in one line.
INNER = ("words", "source", *IN_NOTES)


@dataclass(frozen=True)
class Query:
    """Which cells, in which order."""

    #: Stands in the cell's id, its file's name, quality or notes.
    text: str = ""
    #: Column of `CHOICES` to the value wanted.
    chosen: Mapping[str, str] = field(default_factory=dict)
    #: One of `SORTS`; empty for the order in which they came.
    sort: str = ""
    descending: bool = False
    offset: int = 0
    limit: int = 100


class Results:
    """The predicted cells of a batch.

    Parameters
    ----------
    folder : Path
        The batch's; the database is made if it is not there.
    columns : sequence of str
        Those of `crosspatch.prediction.prediction.cell_columns`.
    """

    def __init__(self, folder: Path, columns: Sequence[str]):
        self.folder = folder
        self.columns = tuple(columns)
        kinds = ", ".join(f'"{name}" {_kind(name)}' for name in (*self.columns, "words"))
        with self._open() as db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS cells (file INTEGER, row INTEGER, name TEXT, "
                f"{kinds}, PRIMARY KEY (file, row))"
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # The worker and the server share it; each writes for a moment only.
        with closing(sqlite3.connect(self.folder / _FILE, timeout=60)) as db:
            db.row_factory = sqlite3.Row
            with db:
                yield db

    def put(self, upload: int, label: str, parts: Sequence[Prediction]) -> int:
        """Keep the cells of a file in place of what was kept of it; returns how many rows.

        Parameters
        ----------
        upload : int
            Number of the file in its batch.
        label : str
            The file's name.
        parts : sequence of Prediction
            With ids that stand once in the file.
        """
        import numpy as np

        marks = ", ".join("?" * (4 + len(self.columns)))
        count = 0
        with self._open() as db:
            db.execute("DELETE FROM cells WHERE file = ?", (upload,))
            for part in parts:
                cells = part.cells[list(self.columns)].astype(object)
                for name in _LISTS:
                    cells[name] = [json.dumps(value) for value in cells[name]]
                cells["verdict"] = [str(verdict) for verdict in cells["verdict"]]
                cells = cells.where(cells.notna(), None)
                cells["words"] = part.to_table()["notes"].to_numpy()
                db.executemany(
                    f"INSERT INTO cells VALUES ({marks})",  # noqa: S608, question marks only
                    (
                        (upload, row, label, *values)
                        for row, values in enumerate(
                            cells.itertuples(index=False, name=None), count
                        )
                    ),
                )
                count += len(part)
            X = np.vstack([part.X for part in parts]) if parts else np.zeros((0, 0))
            np.save(self._values(upload), X.astype(np.float32))
        return count

    def _values(self, upload: int) -> Path:
        return self.folder / f"values-{upload}.npy"

    def remove(self, upload: int) -> None:
        """Forget the cells of a file."""
        with self._open() as db:
            db.execute("DELETE FROM cells WHERE file = ?", (upload,))
        self._values(upload).unlink(missing_ok=True)

    def select(self, query: Query) -> tuple[int, list[dict[str, Any]]]:
        """How many cells there are, and some of them.

        Returns
        -------
        int
            Cells that were asked for, on all pages.
        list of dict
            Rows with the ``file``'s number, ``row``, the file's ``name``, and the columns.
        """
        where, values = _where(query)
        order = "file, row"
        if query.sort in SORTS:
            # Cells without a value come last, whichever way round.
            way = "DESC" if query.descending else "ASC"
            empty = f'"{query.sort}" IS NULL OR "{query.sort}" = \'\''
            order = f'{empty}, "{query.sort}" COLLATE NOCASE {way}, file, row'
        with self._open() as db:
            total = db.execute(f"SELECT COUNT(*) FROM cells {where}", values).fetchone()[0]  # noqa: S608
            rows = db.execute(
                f"SELECT * FROM cells {where} ORDER BY {order} LIMIT ? OFFSET ?",  # noqa: S608
                (*values, query.limit, query.offset),
            ).fetchall()
        return int(total), [_told(row) for row in rows]

    def one(self, upload: int, row: int) -> dict[str, Any] | None:
        """One row, None if it is not there."""
        with self._open() as db:
            found = db.execute(
                "SELECT * FROM cells WHERE file = ? AND row = ?", (upload, row)
            ).fetchone()
        return None if found is None else _told(found)

    def beside(self, upload: int, row: int, way: int) -> dict[str, Any] | None:
        """The row before (-1) or after (1) another, in the order in which they came."""
        sign, order = ("<", "DESC") if way < 0 else (">", "ASC")
        with self._open() as db:
            found = db.execute(
                "SELECT file, row, cell_id FROM cells "  # noqa: S608, two fixed words
                f"WHERE (file, row) {sign} (?, ?) "
                f"ORDER BY file {order}, row {order} LIMIT 1",
                (upload, row),
            ).fetchone()
        return None if found is None else dict(found)

    def counts(self) -> list[tuple[str, str, str, int]]:
        """Species, subclass, verdict, and how many rows have them."""
        with self._open() as db:
            rows = db.execute(
                "SELECT species, subclass, verdict, COUNT(*) FROM cells "
                "GROUP BY species, subclass, verdict"
            ).fetchall()
        return [(row[0], row[1], row[2], int(row[3])) for row in rows]

    def predictions(
        self, uploads: Sequence[int], layout: Any, header: Mapping[str, Any]
    ) -> list[Prediction]:
        """The cells of some files as they were predicted, ids unique over all of them.

        Parameters
        ----------
        uploads : sequence of int
            In the order wanted.
        layout : Layout
        header : mapping
        """
        import numpy as np
        import pandas as pd

        from crosspatch.models.verdicts import Verdict
        from crosspatch.prediction.batches import Batch, unique
        from crosspatch.prediction.prediction import Prediction

        seen: Counter[str] = Counter()
        found = []
        for upload in uploads:
            with self._open() as db:
                cells = pd.read_sql_query(
                    "SELECT * FROM cells WHERE file = ? ORDER BY row", db, params=(upload,)
                )
            if cells.empty:
                continue
            for name in self.columns:
                kind = _kind(name)
                if kind != "TEXT":
                    cells[name] = cells[name].astype(float if kind == "REAL" else bool)
                elif name in _LISTS:
                    cells[name] = pd.Series(map(_read_list, cells[name]), dtype=object)
            cells["verdict"] = list(map(Verdict, cells["verdict"]))
            once = cells.drop_duplicates("cell_id")
            nothing = np.zeros((len(once), 0), dtype=np.float32)
            ids = once["cell_id"].tolist()
            batch = Batch("", ids, [None] * len(ids), nothing, given_ids=once["given_id"].tolist())
            named = unique(batch, seen, lambda line: None).cell_ids
            cells["cell_id"] = cells["cell_id"].map(dict(zip(ids, named, strict=True)))
            X = np.load(self._values(upload), allow_pickle=False)
            found.append(Prediction(cells[list(self.columns)], X, layout, header))
        return found

    def prediction(
        self, upload: int, row: int, layout: Any, header: Mapping[str, Any]
    ) -> Prediction:
        """One row as it was predicted."""
        import numpy as np

        (whole,) = self.predictions([upload], layout, header)
        X = np.asarray(whole.X[[row]])
        return replace(whole, cells=whole.cells.iloc[[row]].reset_index(drop=True), X=X)


def _told(row: sqlite3.Row) -> dict[str, Any]:
    """A row as it is shown, in words."""
    found = dict(row)
    for name in ("prediction_set", "families"):
        found[name] = "|".join(json.loads(found[name]))
    return found | {"notes": found["words"]}


def _read_list(text: str) -> tuple[str, ...] | None:
    found = json.loads(text)
    return None if found is None else tuple(found)


def _kind(column: str) -> str:
    if column in _REAL or column.startswith("probability_"):
        return "REAL"
    return "INTEGER" if column in _FLAGS else "TEXT"


def _where(query: Query) -> tuple[str, list[Any]]:
    parts, values = [], []
    for column, value in query.chosen.items():
        if column in CHOICES and value:
            parts.append(f'"{column}" = ?')
            values.append(value)
    if query.text:
        escaped = query.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        columns = ("cell_id", "name", "quality", "words", "subclass")
        parts.append("(" + " OR ".join(f"\"{c}\" LIKE ? ESCAPE '\\'" for c in columns) + ")")
        values += [f"%{escaped}%"] * len(columns)
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values
