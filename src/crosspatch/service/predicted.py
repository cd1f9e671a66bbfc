"""Predicted cells of an upload, kept in a small database: sorted, filtered, counted, read again."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.cohorts.taxonomy import ONTOLOGY, load_taxonomy
from crosspatch.prediction.levels import CHANCE, T_TYPES, runner_up_columns
from crosspatch.prediction.prediction import IN_NOTES, LISTS

if TYPE_CHECKING:
    import pandas as pd

    from crosspatch.prediction.prediction import Prediction
    from crosspatch.prediction.predictor import Predictor

#: Columns by which cells can be sorted.
SORTS = (
    "cell_id",
    "name",
    "species",
    "subclass",
    "probability",
    "verdict",
    "p_reference",
    "p_interneuron",
    "completeness",
)
#: Columns by whose values cells can be chosen.
CHOICES = ("verdict", "subclass", "species")
#: A row: the ``file``'s number, ``row``, the file's ``name``, and the columns; notes in words.
Row = dict[str, object]
_FILE = "cells.sqlite"
_REAL = (
    *("probability", "p_reference", "p_interneuron", "completeness"),
    *(name for name in T_TYPES if name.endswith("probability")),
)
_FLAGS = ("species_known", "simulated", "aligned")
#: Columns that are of use here only; ``words`` is what is to be said of a cell, in one line.
INNER = ("words", "source", *IN_NOTES)


@dataclass(frozen=True)
class Query:
    """Which cells, in which order."""

    text: str = ""  #: stands in the cell's id, its file's name, quality or notes
    #: Column of `CHOICES` to the value wanted.
    chosen: Mapping[str, str] = field(default_factory=dict)
    sort: str = ""  #: one of `SORTS`; empty for the order in which they came
    descending: bool = False
    offset: int = 0
    limit: int = 100

    @property
    def asked(self) -> dict[str, str]:
        """What cells have to be like, by parameter."""
        return {name: said for name, said in {"text": self.text, **self.chosen}.items() if said}


class Results:
    """The predicted cells of an upload, in its folder; see `cell_columns` for the columns."""

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

    def put(self, file: int, label: str, parts: Sequence[Prediction]) -> int:
        """Keep the cells of a file, whose ids differ, in place of those before; how many rows."""
        import numpy as np

        marks = ", ".join("?" * (4 + len(self.columns)))
        count = 0
        with self._open() as db:
            db.execute("DELETE FROM cells WHERE file = ?", (file,))
            for part in parts:
                cells = part.cells[list(self.columns)].astype(object)
                for name in LISTS:  # kept as JSON
                    cells[name] = cells[name].map(json.dumps)
                cells["verdict"] = cells["verdict"].map(str)
                cells = cells.where(cells.notna(), None)
                cells["words"] = part.to_table()["notes"].to_numpy()
                rows = enumerate(cells.itertuples(index=False, name=None), count)
                db.executemany(
                    f"INSERT INTO cells VALUES ({marks})",  # noqa: S608, question marks only
                    ((file, row, label, *values) for row, values in rows),
                )
                count += len(part)
            X = np.vstack([part.X for part in parts]) if parts else np.zeros((0, 0))
            np.save(self._values(file), X.astype(np.float32))
        return count

    def _values(self, file: int) -> Path:
        return self.folder / f"values-{file}.npy"

    def remove(self, file: int) -> None:
        """Forget the cells of a file."""
        with self._open() as db:
            db.execute("DELETE FROM cells WHERE file = ?", (file,))
        self._values(file).unlink(missing_ok=True)

    def select(self, query: Query) -> tuple[int, list[Row]]:
        """How many cells were asked for, on all pages, and those of one."""
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

    def holds(self, file: int, row: int) -> bool:
        """Whether a row is there."""
        with self._open() as db:
            found = db.execute("SELECT 1 FROM cells WHERE file = ? AND row = ?", (file, row))
            return found.fetchone() is not None

    def beside(self, file: int, row: int, way: int) -> Row | None:
        """The row before (-1) or after (1) another, in the order in which they came."""
        sign, order = ("<", "DESC") if way < 0 else (">", "ASC")
        with self._open() as db:
            found = db.execute(
                "SELECT file, row, cell_id, species FROM cells "  # noqa: S608, two fixed words
                f"WHERE (file, row) {sign} (?, ?) "
                f"ORDER BY file {order}, row {order} LIMIT 1",
                (file, row),
            ).fetchone()
        return None if found is None else dict(found)

    def counts(self) -> list[tuple[str, str, str, int]]:
        """Species, subclass, verdict, and how many rows have them."""
        names = "species, subclass, verdict"
        with self._open() as db:
            rows = db.execute(f"SELECT {names}, COUNT(*) FROM cells GROUP BY {names}")  # noqa: S608
            return [(row[0], row[1], row[2], int(row[3])) for row in rows]

    def prediction(self, file: int, predictor: Predictor) -> Prediction | None:
        """The cells of a file as they were predicted; None where there is none."""
        import numpy as np
        import pandas as pd

        from crosspatch.prediction.in_turn import realigned
        from crosspatch.prediction.prediction import Prediction, as_records

        with self._open() as db:
            kept = pd.read_sql_query(
                "SELECT * FROM cells WHERE file = ? ORDER BY row", db, params=(file,)
            )
        if kept.empty:
            return None
        cells = pd.DataFrame({name: _read(kept[name]) for name in self.columns})
        X = np.load(self._values(file), allow_pickle=False)
        found = Prediction(as_records(cells), X, predictor.layout, predictor.header)
        return replace(found, alignments=realigned(predictor, found))

    def predictions(self, files: Sequence[int], predictor: Predictor) -> dict[int, Prediction]:
        """The cells of some files, in the order given, with ids that stand once in all of them."""
        import numpy as np

        from crosspatch.prediction.batches import Batch, SeenIds, unique
        from crosspatch.prediction.prediction import as_records

        seen = SeenIds()
        found = {}
        for file in files:
            kept = self.prediction(file, predictor)
            if kept is None:
                continue
            once = kept.cells.drop_duplicates("cell_id")
            ids = once["cell_id"].tolist()
            nothing = np.zeros((len(ids), 0), dtype=np.float32)
            batch = Batch("", ids, [None] * len(ids), nothing, given_ids=once["given_id"].tolist())
            names = dict(zip(ids, unique(batch, seen, lambda line: None).cell_ids, strict=True))
            cells = kept.cells.assign(cell_id=kept.cells["cell_id"].map(names))
            found[file] = replace(kept, records=as_records(cells))
        return found


def _told(row: sqlite3.Row) -> Row:
    """A row with its notes in words, and the term for its subclass."""
    found = dict(row)
    for name in ("prediction_set", "families"):
        found[name] = json.loads(found[name])
    found |= {"notes": found["words"], ONTOLOGY: load_taxonomy().term(found["subclass"]) or ""}
    chances = {k.removeprefix(CHANCE): p for k, p in found.items() if k.startswith(CHANCE)}
    return found | runner_up_columns(found["subclass"], chances)


def _read(kept: pd.Series) -> pd.Series:
    """A column as a prediction has it."""
    from crosspatch.models.verdicts import Verdict

    name = str(kept.name)
    if name == "verdict":
        return kept.map(Verdict)
    if name in LISTS:
        return kept.map(lambda text: None if text == "null" else tuple(json.loads(text)))
    return kept.astype({"REAL": float, "INTEGER": bool, "TEXT": object}[_kind(name)])


def _kind(column: str) -> str:
    if column in _REAL or column.startswith("probability_"):
        return "REAL"
    return "INTEGER" if column in _FLAGS else "TEXT"


def _where(query: Query) -> tuple[str, list[str]]:
    chosen = {name: value for name, value in query.chosen.items() if name in CHOICES and value}
    parts, values = [f'"{name}" = ?' for name in chosen], [*chosen.values()]
    if query.text:
        escaped = query.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        columns = ("cell_id", "name", "quality", "words", "subclass")
        parts.append("(" + " OR ".join(f"\"{c}\" LIKE ? ESCAPE '\\'" for c in columns) + ")")
        values += [f"%{escaped}%"] * len(columns)
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values
