"""The cells of other people's tables, in batches that a model can take."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crosspatch.errors import CohortError
from crosspatch.prediction.batches import Batch, ReadSettings, species_said
from crosspatch.tables.column_map import ColumnMap
from crosspatch.tables.columns import map_columns
from crosspatch.tables.mapping import Override, Overrides
from crosspatch.tables.meanings import is_feature
from crosspatch.tables.opened import OpenTable, Table, anndata_parts, rows_by_what, without_rows
from crosspatch.tables.reading import PROBLEMS, reading_h5ad
from crosspatch.tables.rows import said_of, statistic_of, texts_of
from crosspatch.tables.values import Counted, read_layers
from crosspatch.telling import Ask, Say

if TYPE_CHECKING:
    import anndata

# Columns that are named where one is missing.
_MOST_NAMED = 20
# Rows without a name, of a chunk, that are compared with those above.
_FEW_NAMELESS = 20


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


def require_table(table: Table, settings: ReadSettings, *, any_feature: bool) -> None:
    """A CohortError if a table cannot be read, or none of its columns can be a feature.

    A model of the user's own may have features of any name.
    """
    reader = _TableReader(table, settings, lambda line: None)
    first = reader.first_rows()
    given = settings.columns.columns if settings.columns else {}
    if first is None or any_feature:
        return
    if not any(name in given or is_feature(name) for name in map(str, first.columns)):
        raise reader.no_feature(first)


def first_rows(table: Table, settings: ReadSettings, say: Say) -> pd.DataFrame | None:
    """The first rows of a table, by which its columns are mapped.

    None where it is in the model's own features, so that there is nothing to map. A CohortError if
    the table cannot be read or is empty.
    """
    return _TableReader(table, settings, say).first_rows()


def columns_there(table: Table, settings: ReadSettings) -> tuple[list[str], bool]:
    """Columns that a table has of its cells, and whether it is a cohort table."""
    first = first_rows(table, settings, lambda line: None)
    if first is not None:
        return list(map(str, first.columns)), False
    if isinstance(table, Path):
        import anndata

        return list(map(str, anndata.read_h5ad(table, backed="r").obs.columns)), True
    cells = table if isinstance(table, pd.DataFrame) else table.obs
    return list(map(str, cells.columns)), True


def named_columns(there: Iterable[object]) -> str:
    """The first columns of a table by name, those that are no features if there are any."""
    names = list(map(str, there))
    shown = [name for name in names if not is_feature(name)] or names
    return ", ".join(shown[:_MOST_NAMED]) + ", …" * (len(shown) > _MOST_NAMED)


def no_column(path: object, name: str, there: Iterable[object]) -> CohortError:
    """The error where a table has no column that was asked for."""
    return CohortError(f"{path} has no column '{name}'; it has: {named_columns(there)}")


class _TableReader:
    """A table, and how it is read."""

    def __init__(self, table: Table, settings: ReadSettings, say: Say):
        self.settings = settings
        self.say = say
        self.mapping = "the mapping" if settings.columns is None else settings.columns.name
        self.given = {} if settings.columns is None else dict(settings.columns.columns)
        ignored = Override("ignore", source="the command, which reads it as a label or donor,")
        self.given |= dict.fromkeys(settings.carry, ignored)
        own = [each.column for each in settings.layout.features if each.column]
        self.opened = OpenTable(table, say, sheet=settings.sheet, known=[*self.given, *own])
        self.path = self.opened.path
        self._ignored = [name for name, each in self.given.items() if each.target == "ignore"]

    def first_rows(self) -> pd.DataFrame | None:
        """See the function of this name."""
        chunks = self.opened.chunks()
        if chunks is None:
            return None
        first, cells = self.opened.first(chunks, self._ignored)
        left_out = cells.left_out(first)
        self._say_left_out(rows_by_what(first, cells, left_out))
        return without_rows(first, left_out)

    def no_feature(self, first: pd.DataFrame) -> CohortError:
        """The error where no column is a feature."""
        rows = [str(value) for value in first.iloc[:, 0].dropna().head(40)]
        turned = sum(map(is_feature, rows)) > 2
        hint = "it has features in rows; give one row per cell" if turned else ""
        return CohortError(
            f"{self.path}: no column is a feature", hint or "name them with {columns} mapping.yaml"
        )

    def _say_left_out(self, left_out: dict[str, list[str]]) -> None:
        if left_out:
            self.say(f"{self.path.name}: {said_of(left_out)}")

    def batches(self, ask: Ask | None) -> Iterator[Batch]:
        """See `read_table`."""
        chunks = self.opened.chunks()
        if chunks is None:
            with reading_h5ad(self.path):
                yield from self._cohort(self.opened.content)
            return
        first, cells = self.opened.first(chunks, self._ignored)
        columns = self._mapped(without_rows(first, cells.left_out(first)), ask)
        counted: dict[str, Counted] = {}
        left_out: dict[str, list[str]] = {}
        number = 0
        for chunk in itertools.chain([first], chunks):
            others = cells.left_out(chunk)
            others |= self._statistics(chunk, columns, others)
            for what, called in rows_by_what(chunk, cells, others).items():
                left_out.setdefault(what, []).extend(called)
            batch, odd = self._batch(without_rows(chunk, others), columns, number)
            for name, count in odd.items():
                counted[name] = counted.get(name, Counted()) + count
            yield batch
            number += len(chunk)
        self._say_left_out(left_out)
        self._say_missing(counted)

    def _say_missing(self, counted: Mapping[str, Counted]) -> None:
        for name, count in counted.items():
            self.say(f"{self.path.name}: column '{name}', taken as missing: {count}")

    def _mapped(self, first: pd.DataFrame, ask: Ask | None) -> ColumnMap:
        """Which column is which feature, said and asked."""
        layout, overrides = self.settings.layout, self.settings.columns
        if self.settings.carry:
            overrides = Overrides(self.mapping, self.given)
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
            overrides = Overrides(self.mapping, self.given | answers)
            columns = map_columns(first, layout, overrides, absent_ok=True)
        for line in columns.lines():
            self.say(f"{self.path.name}: {line}")
        if not columns.taken:
            raise self.no_feature(first)
        return columns

    def _statistics(
        self, chunk: pd.DataFrame, columns: ColumnMap, left_out: Mapping[int, str]
    ) -> dict[int, str]:
        """Rows without a name that are the mean, or the like, of those above them."""
        named = [] if columns.cell_id is None else texts_of(chunk[columns.cell_id])
        nameless = [k for k, name in enumerate(named) if not name and k not in left_out]
        if not 0 < len(nameless) <= _FEW_NAMELESS:
            return {}
        values, _ = columns.values(chunk)
        cells = np.array([bool(name) and k not in left_out for k, name in enumerate(named)])
        found = {k: statistic_of(values[k], values[:k][cells[:k]]) for k in nameless}
        return {k: f"{what} of the rows above" for k, what in found.items() if what}

    def _batch(
        self, chunk: pd.DataFrame, columns: ColumnMap, before: int
    ) -> tuple[Batch, Mapping[str, Counted]]:
        """The cells of a chunk, and what was taken as missing."""
        values, odd = columns.values(chunk)
        named = [""] * len(chunk) if columns.cell_id is None else texts_of(chunk[columns.cell_id])
        places = chunk.index.tolist()
        ids = [name or f"row {before + k + 1}" for k, name in zip(places, named, strict=True)]
        problems = chunk.attrs.get(PROBLEMS, {})
        notes: list[tuple[str, ...]] = [(problems[k],) if k in problems else () for k in places]
        values[[bool(note) for note in notes]] = np.nan
        layers, unread = columns.layers(chunk)
        species = self._species(None if columns.species is None else chunk[columns.species], ids)
        X = self.settings.placed(values, layers)
        carried = self._carried(chunk)
        return Batch(self.path.name, ids, species, X, notes=notes, carried=carried), odd | unread

    def _carried(self, chunk: pd.DataFrame) -> list[tuple[str, ...]]:
        """What stands in the columns that are carried along; a CohortError if one is missing."""
        for name in self.settings.carry:
            if name not in chunk:
                raise no_column(self.path, name, chunk.columns)
        return list(zip(*(texts_of(chunk[name]) for name in self.settings.carry), strict=True))

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

        layout = self.settings.layout.measured
        self._require_features(cells)
        simulated = is_simulated(cells)
        unread = Counted()
        for part in anndata_parts(cells):
            values = part.to_df().reindex(columns=layout.feature_names).to_numpy(np.float32)
            values[~np.isfinite(values)] = np.nan
            layers = np.full(part.n_obs, np.nan)
            if "layer" in part.obs and self.settings.layout.has_layer:
                layers, odd = read_layers(part.obs["layer"])
                unread += odd
            X = self.settings.placed(values, layers)
            ids = part.obs_names.astype(str).tolist()
            quality = [""] * len(ids)
            if "qc_reasons" in part.obs:
                quality = ["" if pd.isna(v) else str(v) for v in part.obs["qc_reasons"]]
            species = self._species(part.obs.get("species"), ids)
            yield Batch(
                self.path.name,
                ids,
                species,
                X,
                quality,
                simulated=[simulated] * len(ids),
                carried=self._carried(part.obs),
            )
        self._say_missing({"layer": unread} if unread.total else {})

    def _require_features(self, cells: anndata.AnnData) -> None:
        """Check that a cohort table has features of the model, in its units."""
        layout, units = self.settings.layout.measured, cells.var["unit"].astype(str)
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
        species = set(self._species(cells.obs.get("species"), cells.obs_names))
        expected = self.settings.expected(species).features
        lacking = [each.name for each in expected if each not in there]
        if lacking:
            self.say(
                f"{self.path.name}: {len(lacking)} features are missing, the first is "
                f"'{lacking[0]}'"
            )
