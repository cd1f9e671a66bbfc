"""A table that is opened: a file, a DataFrame or an AnnData, and which of its rows are cells."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import pandas as pd

from crosspatch.errors import CohortError
from crosspatch.tables.endings import CHUNK, suffix_of
from crosspatch.tables.reading import read_chunks, reading_h5ad
from crosspatch.tables.rows import CellRows, require_cells
from crosspatch.telling import Say

if TYPE_CHECKING:
    import anndata

#: A file whose ending is one of `TABLE_SUFFIXES`, or a table in memory.
Table: TypeAlias = "Path | pd.DataFrame | anndata.AnnData"

#: What a table in memory is called.
_IN_MEMORY = Path("table")


class OpenTable:
    """A table whose rows are read, some thousand at a time; a CohortError if it cannot be.

    `known` are names of columns that are no feature's, such as those of a mapping file.
    """

    def __init__(
        self, table: Table, say: Say, *, sheet: str | int | None = None, known: Collection[str] = ()
    ):
        self.in_memory = not isinstance(table, Path)
        self.path = table if isinstance(table, Path) else _IN_MEMORY
        self.say, self._sheet, self._known = say, sheet, known
        self.content = self._opened(table)

    def _opened(self, table: Table) -> anndata.AnnData | Iterator[pd.DataFrame]:
        """An AnnData, or the chunks of another table."""
        if isinstance(table, pd.DataFrame):
            return _chunks(table)
        if not isinstance(table, Path):
            return table
        if not table.is_file():
            raise CohortError(f"{table} does not exist")
        if suffix_of(table) != ".h5ad":
            return read_chunks(table, self.say, sheet=self._sheet, known=self._known)
        import anndata
        import h5py

        if not h5py.is_hdf5(table):
            raise CohortError(f"{table} is not an h5ad file")
        with reading_h5ad(table):
            with h5py.File(table) as file:
                backed: Literal["r"] | None = "r" if "X" in file else None
            return anndata.read_h5ad(table, backed=backed)

    def chunks(self) -> Iterator[pd.DataFrame] | None:
        """The chunks of a table to be mapped; None for a cohort table in our own features."""
        if isinstance(self.content, Iterator):
            return self.content
        ours = isinstance(self.content.uns.get("crosspatch"), Mapping)
        if ours and {"family", "unit"} <= set(self.content.var.columns):
            return None
        return self._annotated(self.content)

    def _annotated(self, cells: anndata.AnnData) -> Iterator[pd.DataFrame]:
        """Any AnnData as a table: its variables, and its observations' own columns."""
        with reading_h5ad(self.path):
            for part in anndata_parts(cells):
                frame = self._values(part)
                for name in part.obs:
                    if name not in frame:
                        frame[name] = part.obs[name].astype(object)
                if "cell_id" not in frame:
                    frame.insert(0, "cell_id", part.obs_names.astype(str))
                yield frame.reset_index(drop=True)

    def _values(self, part: anndata.AnnData) -> pd.DataFrame:
        """The variables of some cells: their matrix, else the only layer; and named embeddings."""
        layers = list(part.layers)
        if part.X is None and len(layers) > 1:
            several = ", ".join(map(repr, layers[:12]))
            raise CohortError(
                f"{self.path}: it has no X, and several layers: {several}; make one of them X"
            )
        if part.X is not None or layers:
            frame = part.to_df(layer=None if part.X is not None else layers[0])
        else:
            frame = pd.DataFrame(index=part.obs_names)
        for each in part.obsm.values():
            for name in each.columns if isinstance(each, pd.DataFrame) else ():
                if name not in frame:
                    frame[str(name)] = each[name].to_numpy()
        return frame

    def first(
        self, chunks: Iterator[pd.DataFrame], ignored: Sequence[str] = ()
    ) -> tuple[pd.DataFrame, CellRows]:
        """The first rows, and what tells cells by them; columns that are ignored say nothing.

        A CohortError if there is no row, or if a row is a sweep.
        """
        first = next(chunks, None)
        if first is None or first.empty:
            raise CohortError(f"{self.path}: the table has no rows")
        require_cells(self.path, first, ignored)
        return first, CellRows(first)


def anndata_parts(cells: anndata.AnnData) -> Iterator[anndata.AnnData]:
    """Some thousand cells at a time, in memory."""
    for start in range(0, cells.n_obs, CHUNK):
        part = cells[start : start + CHUNK]
        yield part.to_memory() if cells.isbacked else part


def _chunks(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Chunks; an index that is not just numbered names the cells, as a first column would."""
    if not isinstance(frame.index, pd.RangeIndex):
        name = str(frame.index.name or "cell_id")
        if name not in frame:
            frame = frame.set_axis(frame.index.astype(str)).rename_axis(name).reset_index()
    for start in range(0, len(frame), CHUNK):
        yield frame.iloc[start : start + CHUNK].reset_index(drop=True)


def without_rows(chunk: pd.DataFrame, left_out: Mapping[int, str]) -> pd.DataFrame:
    """A chunk without some rows; its index has the places of the others."""
    return chunk.drop(index=list(left_out)) if left_out else chunk


def rows_by_what(
    chunk: pd.DataFrame, cells: CellRows, left_out: Mapping[int, str]
) -> dict[str, list[str]]:
    """The names of rows that are left out, by what they are."""
    found: dict[str, list[str]] = {}
    for row, what in sorted(left_out.items()):
        found.setdefault(what, []).append(cells.name(chunk, row))
    return found
