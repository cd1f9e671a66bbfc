"""The cells of other people's tables, in batches that a model can take."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from crosspatch.errors import CohortError
from crosspatch.prediction.batches import Batch, ReadSettings, species_said
from crosspatch.tables.column_map import ColumnMap
from crosspatch.tables.columns import map_columns
from crosspatch.tables.endings import CHUNK, suffix_of
from crosspatch.tables.mapping import Override, Overrides
from crosspatch.tables.reading import PROBLEMS, read_chunks, reading_h5ad
from crosspatch.tables.values import Counted
from crosspatch.telling import Ask, Say

if TYPE_CHECKING:
    import anndata

#: A file whose ending is one of `TABLE_SUFFIXES`, or a table in memory.
Table: TypeAlias = "Path | pd.DataFrame | anndata.AnnData"

#: What a table in memory is called.
_IN_MEMORY = Path("table")


def read_table(
    table: Table, settings: ReadSettings, say: Say, *, ask: Ask | None = None
) -> Iterator[Batch]:
    """The cells of a table, some thousand at a time; the next ones are read meanwhile.

    `say` is told what was taken for what; `ask` is asked about ambiguous columns, which are left
    out without it. A CohortError if the table cannot be read, or no column is a feature.
    """
    waiting: list[str] = []
    meanwhile = False

    def tell(line: str) -> None:
        (waiting.append if meanwhile else say)(line)

    batches = _TableReader(table, settings, tell).batches(ask)
    batch, meanwhile = next(batches, None), True
    with ThreadPoolExecutor(1) as reader:
        while batch is not None:
            coming = reader.submit(next, batches, None)
            yield batch
            try:
                batch = coming.result()
            finally:
                for line in waiting:
                    say(line)
                waiting.clear()


def first_rows(table: Table, settings: ReadSettings, say: Say) -> pd.DataFrame | None:
    """The first rows of a table, by which its columns are mapped.

    None where it is in the model's own features, so that there is nothing to map. A CohortError if
    the table cannot be read or is empty.
    """
    return _TableReader(table, settings, say).first_rows()


class _TableReader:
    """A table, and how it is read."""

    def __init__(self, table: Table, settings: ReadSettings, say: Say):
        self.path = table if isinstance(table, Path) else _IN_MEMORY
        self.settings = settings
        self.say = say
        self.mapping = "the mapping" if settings.columns is None else settings.columns.name
        self.table = self._opened(table)

    def _opened(self, table: Table) -> anndata.AnnData | Iterator[pd.DataFrame]:
        """An AnnData, or the chunks of another table."""
        if isinstance(table, pd.DataFrame):
            return _chunks(table)
        if not isinstance(table, Path):
            return table
        if not table.is_file():
            raise CohortError(f"{table} does not exist")
        if suffix_of(table) != ".h5ad":
            return read_chunks(table, self.say)
        import anndata
        import h5py

        if not h5py.is_hdf5(table):
            raise CohortError(f"{table} is not an h5ad file")
        with reading_h5ad(table):
            return anndata.read_h5ad(table, backed="r")

    def _chunks(self) -> Iterator[pd.DataFrame] | None:
        """The chunks of a table to be mapped; None for a cohort table in our own features."""
        if isinstance(self.table, Iterator):
            return self.table
        ours = isinstance(self.table.uns.get("crosspatch"), Mapping)
        if ours and {"family", "unit"} <= set(self.table.var.columns):
            return None
        return self._annotated(self.table)

    def _annotated(self, cells: anndata.AnnData) -> Iterator[pd.DataFrame]:
        """Any AnnData as a table: its variables, and its observations' own columns."""
        with reading_h5ad(self.path):
            for part in _parts(cells):
                frame = part.to_df()
                for name in part.obs:
                    if name not in frame:
                        frame[name] = part.obs[name].astype(object)
                if "cell_id" not in frame:
                    frame.insert(0, "cell_id", part.obs_names.astype(str))
                yield frame.reset_index(drop=True)

    def first_rows(self) -> pd.DataFrame | None:
        """See the function of this name."""
        chunks = self._chunks()
        return None if chunks is None else self._first(chunks)

    def _first(self, chunks: Iterator[pd.DataFrame]) -> pd.DataFrame:
        first = next(chunks, None)
        if first is None or first.empty:
            raise CohortError(f"{self.path}: the table has no rows")
        return first

    def batches(self, ask: Ask | None) -> Iterator[Batch]:
        """See `read_table`."""
        chunks = self._chunks()
        if chunks is None:
            with reading_h5ad(self.path):
                yield from self._cohort(self.table)
            return
        first = self._first(chunks)
        columns = self._mapped(first, ask)
        counted: dict[str, Counted] = {}
        number = 0
        for chunk in itertools.chain([first], chunks):
            batch, odd = self._batch(chunk, columns, number)
            for name, count in odd.items():
                counted[name] = counted.get(name, Counted()) + count
            yield batch
            number += len(chunk)
        for name, count in counted.items():
            self.say(f"{self.path.name}: column '{name}', taken as missing: {count}")

    def _mapped(self, first: pd.DataFrame, ask: Ask | None) -> ColumnMap:
        """Which column is which feature, said and asked."""
        layout, overrides = self.settings.layout, self.settings.columns
        # One mapping file may be for several tables.
        columns = map_columns(first, layout, overrides, absent_ok=True)
        for name in columns.absent:
            self.say(f"{self.path.name}: has no column '{name}', which {self.mapping} names")
        if ask is not None and columns.ambiguous:
            answers = {
                each.column: Override(
                    ask(each.column, each.candidates) or "ignore", source="the answer"
                )
                for each in columns.ambiguous
            }
            given = {} if overrides is None else overrides.columns
            overrides = Overrides(self.mapping, given | answers)
            columns = map_columns(first, layout, overrides, absent_ok=True)
        for line in columns.lines():
            self.say(f"{self.path.name}: {line}")
        if not columns.taken:
            raise CohortError(
                f"{self.path}: no column is a feature of layout '{layout.name}'",
                "name them with {columns} mapping.yaml",
            )
        return columns

    def _batch(
        self, chunk: pd.DataFrame, columns: ColumnMap, before: int
    ) -> tuple[Batch, Mapping[str, Counted]]:
        """The cells of a chunk, and what was taken as missing."""
        values, odd = columns.values(chunk)
        named = [""] * len(chunk) if columns.cell_id is None else _names(chunk[columns.cell_id])
        ids = [name or f"row {before + k}" for k, name in enumerate(named, 1)]
        notes: list[tuple[str, ...]] = [()] * len(chunk)
        for row, problem in chunk.attrs.get(PROBLEMS, {}).items():
            notes[row] = (problem,)
            values[row] = np.nan
        species = self._species(None if columns.species is None else chunk[columns.species], ids)
        return Batch(self.path.name, ids, species, values, notes=notes), odd

    def _species(self, said: pd.Series | None, ids: Sequence[str]) -> list[str | None]:
        if said is None:
            return [self.settings.species] * len(ids)
        which, distinct = pd.factorize(said)
        found = [species_said(value) or self.settings.species for value in distinct]
        found.append(self.settings.species)  # of -1, where it is not said
        return [found[k] for k in which]

    def _cohort(self, cells: anndata.AnnData) -> Iterator[Batch]:
        """The cells of a cohort table in our own features."""
        from crosspatch.cohorts.table import is_simulated

        layout = self.settings.layout
        self._require_features(cells)
        simulated = is_simulated(cells)
        for part in _parts(cells):
            values = part.to_df().reindex(columns=layout.feature_names).to_numpy(np.float32)
            values[~np.isfinite(values)] = np.nan
            ids = part.obs_names.astype(str).tolist()
            quality = [""] * len(ids)
            if "qc_reasons" in part.obs:
                quality = ["" if pd.isna(v) else str(v) for v in part.obs["qc_reasons"]]
            species = self._species(part.obs.get("species"), ids)
            yield Batch(
                self.path.name, ids, species, values, quality, simulated=[simulated] * len(ids)
            )

    def _require_features(self, cells: anndata.AnnData) -> None:
        """Check that a cohort table has features of the model, in its units."""
        layout, units = self.settings.layout, cells.var["unit"].astype(str)
        there = [feature for feature in layout.features if feature.name in units.index]
        for feature in there:
            if units[feature.name] != feature.unit:
                raise CohortError(
                    f"{self.path}: feature '{feature.name}' is in {units[feature.name]}, the model "
                    f"has it in {feature.unit}; convert it"
                )
        if not there:
            raise CohortError(
                f"{self.path}: a table of layout '{cells.uns['crosspatch'].get('layout')}' has no "
                f"feature of the model's layout '{layout.name}'"
            )
        lacking = [f.name for f in layout.features if f not in there]
        if lacking:
            self.say(
                f"{self.path.name}: {len(lacking)} features are missing, the first is "
                f"'{lacking[0]}'"
            )


def _parts(cells: anndata.AnnData) -> Iterator[anndata.AnnData]:
    for start in range(0, cells.n_obs, CHUNK):
        yield cells[start : start + CHUNK].to_memory()


def _chunks(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Chunks; an index that is not just numbered names the cells, as a first column would."""
    if not isinstance(frame.index, pd.RangeIndex):
        name = str(frame.index.name or "cell_id")
        if name not in frame:
            frame = frame.set_axis(frame.index.astype(str)).rename_axis(name).reset_index()
    for start in range(0, len(frame), CHUNK):
        yield frame.iloc[start : start + CHUNK].reset_index(drop=True)


def _names(column: pd.Series) -> list[str]:
    """Cell ids as text, empty where there is none."""
    if isinstance(column.dtype, pd.ArrowDtype):
        return pc.utf8_trim_whitespace(pa.array(column.array)).fill_null("").to_pylist()
    return [_name(value) for value in column]


def _name(value: Any) -> str:
    """A cell id as text; a whole number that was stored as a float has no point."""
    if pd.isna(value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
