"""What users give: recordings and tables, in batches of cells that a model can take."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import anndata
import numpy as np
import pandas as pd
import platformdirs
from numpy.typing import NDArray

from crosspatch.cohorts.table import is_simulated
from crosspatch.errors import CohortError, RecordingError
from crosspatch.features.extraction import ExtractionSettings, StepDescription
from crosspatch.features.finding import Source
from crosspatch.features.layouts import LAYOUT_NAMES, Layout, load_layout
from crosspatch.features.many import ExtractionProgress, extract_many, extract_one
from crosspatch.features.outcome import CellFeatures, Failure
from crosspatch.features.store import CellStore
from crosspatch.species import species_within
from crosspatch.tables.columns import ColumnMap, map_columns
from crosspatch.tables.mapping import Override, Overrides
from crosspatch.tables.reading import (
    CHUNK,
    read_chunks,
    reading_h5ad,
    suffix_of,
)
from crosspatch.tables.values import Counted
from crosspatch.telling import Ask, Say
from crosspatch.versions import code_digest


@dataclass(frozen=True)
class Batch:
    """Cells to be predicted."""

    #: The file they are from, or ``recordings``.
    source: str
    #: Each stands once; see `unique`.
    cell_ids: list[str]
    #: ``mouse``, ``human``, what else a table says, or None where nothing says it.
    species: list[str | None]
    #: Shape (cells, features). In the layout's units, NaN where missing.
    X: NDArray[np.float32]
    #: What quality control found wrong with a cell; empty if nothing.
    quality: list[str] = field(default_factory=list)
    #: What else is to be said of a cell.
    notes: list[tuple[str, ...]] = field(default_factory=list)
    #: Whether the cell's file says that it was simulated.
    simulated: list[bool] = field(default_factory=list)
    #: Why a recording gave no feature; None where it did, and for rows of a table.
    unread: list[str | None] = field(default_factory=list)
    #: Ids as the files have them, which may stand more than once; by default `cell_ids`.
    given_ids: list[str] = field(default_factory=list)
    #: The recording each cell is from; empty where they are rows of a table.
    files: list[Source] = field(default_factory=list)

    def __post_init__(self) -> None:
        n = len(self.cell_ids)
        nothing: dict[str, list[Any]] = {
            "quality": [""] * n,
            "notes": [()] * n,
            "simulated": [False] * n,
            "unread": [None] * n,
            "given_ids": list(self.cell_ids),
        }
        for name, values in nothing.items():
            if not getattr(self, name):
                object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.cell_ids)

    def first(self, count: int) -> Batch:
        """The first cells."""
        cut = {f.name: getattr(self, f.name)[:count] for f in fields(self) if f.name != "source"}
        return Batch(self.source, **cut)

    @staticmethod
    def joined(batches: Sequence[Batch]) -> Batch:
        """One batch of several of the same source."""
        lists = {
            f.name: [value for batch in batches for value in getattr(batch, f.name)]
            for f in fields(Batch)
            if f.name not in ("source", "X")
        }
        return Batch(batches[0].source, X=np.vstack([batch.X for batch in batches]), **lists)


@dataclass(frozen=True)
class ReadSettings:
    """How inputs are read."""

    #: What the model measures a cell by.
    layout: Layout
    #: Of cells whose file does not say.
    species: str | None = None
    #: From `crosspatch.tables.mapping.read_mapping`.
    columns: Overrides | None = None
    #: Thresholds for recordings.
    quality: str = "default"
    #: For recordings without a command waveform.
    step: StepDescription | None = None
    #: Recordings at a time.
    jobs: int = 1
    #: Seconds after which a recording is given up.
    limit: float = 300.0


def unique(batch: Batch, seen: Counter[str], say: Say) -> Batch:
    """A batch with cell ids that stand once: a second one gets a number.

    Parameters
    ----------
    batch : Batch
    seen : Counter
        Ids of the batches before; those of this one are added.
    say : callable
    """
    ids, twice = [], []
    for cell_id in batch.given_ids:
        name = cell_id
        while name in seen:
            seen[cell_id] += 1
            name = f"{cell_id}#{seen[cell_id]}"
        if name != cell_id:
            twice.append(cell_id)
        seen[name] = 1
        ids.append(name)
    if twice:
        say(
            f"{batch.source}: cell id '{twice[0]}' stands more than once ({len(twice)} such rows); "
            f"they are kept apart as '{twice[0]}#2' and so on"
        )
    return replace(batch, cell_ids=ids)


# Recordings


@contextmanager
def _store() -> Iterator[Path]:
    """Where measured recordings are kept, so that a stopped command can go on: the user's cache.

    Where that cannot be written, a temporary folder.
    """
    name = f"{code_digest('recordings', 'features')[:12]}.sqlite"
    kept = platformdirs.user_cache_path("crosspatch") / "recordings" / name
    try:
        with CellStore(kept):
            pass
    except RecordingError:
        with tempfile.TemporaryDirectory(prefix="crosspatch-") as folder:
            yield Path(folder) / "cells.sqlite"
        return
    yield kept


def read_recordings(
    files: Sequence[Source],
    settings: ReadSettings,
    say: Say,
    progress: Callable[[ExtractionProgress], None] | None = None,
) -> Batch:
    """Measure recordings; one that gives no feature is a cell without values, with the reason.

    Parameters
    ----------
    files : sequence of Path or Asset
    settings : ReadSettings
    say : callable
        Told what could not be read.
    progress : callable, optional
        Told after every recording.

    Raises
    ------
    RecordingError
        If the model's features cannot be measured on recordings.
    """
    how = extraction_settings(settings)
    if len(files) == 1 and isinstance(files[0], Path):
        outcome = extract_one(files[0], how, settings.limit)
        if progress is not None:
            progress(ExtractionProgress(1, 1, int(isinstance(outcome, Failure)), 0))
        return recordings_batch([(files[0], outcome)], settings, say)
    with _store() as store_file:
        extract_many(
            files, store_file, how, jobs=settings.jobs, limit=settings.limit, progress=progress
        )
        with CellStore(store_file) as store:
            return recordings_batch(store.cells(files, how.key), settings, say)


def extraction_settings(settings: ReadSettings) -> ExtractionSettings:
    """What is measured on a recording for a model.

    Raises
    ------
    RecordingError
        If the model's features cannot be measured on recordings.
    """
    layout = settings.layout
    if layout.name not in LAYOUT_NAMES or load_layout(layout.name).features != layout.features:
        raise RecordingError(
            f"the model's layout '{layout.name}' cannot be measured on recordings; give a table, "
            f"or train a model in one of: {', '.join(LAYOUT_NAMES)}"
        )
    return ExtractionSettings(layout.name, settings.quality, settings.step)


def recordings_batch(
    measured: Iterable[tuple[Source, CellFeatures | Failure]], settings: ReadSettings, say: Say
) -> Batch:
    """Recordings that were measured, or could not be, as cells.

    Parameters
    ----------
    measured : iterable of (Source, CellFeatures or Failure)
        At least one. One that gave no feature is a cell without values, with the reason in its
        notes.
    settings : ReadSettings
    say : callable
        Told what could not be read.
    """
    ids, species, values, quality, files = [], [], [], [], []
    notes: list[tuple[str, ...]] = []
    simulated: list[bool] = []
    unread: list[str | None] = []
    for path, outcome in measured:
        files.append(path)
        if isinstance(outcome, Failure):
            ids.append(path.stem)
            species.append(settings.species)
            values.append(np.full(len(settings.layout.features), np.nan, dtype=np.float32))
            quality.append("")
            reason = outcome.reason.replace(f"{path}: ", "").replace(str(path), "").strip()
            notes.append(())
            simulated.append(False)
            unread.append(reason)
            say(f"{path.name}: {reason}")
            continue
        head = outcome.head
        ids.append(outcome.cell_id)
        species.append(_species(head.get("species")) or settings.species)
        values.append(outcome.values)
        quality.append(str(head["qc_reasons"] or ""))
        rejected = int(head["sweeps_rejected"])
        said = [f"{rejected} of {head['sweeps']} sweeps rejected"] if rejected else []
        notes.append((*said, *head["notes"]))
        simulated.append(bool(head["simulated"]))
        unread.append(None)
    stacked = np.stack(values)
    return Batch(
        "recordings", ids, species, stacked, quality, notes, simulated, unread, files=files
    )


# Tables


#: A file whose ending is one of `TABLE_SUFFIXES`, or a table in memory.
Table: TypeAlias = Path | pd.DataFrame | anndata.AnnData

#: What a table in memory is called.
_IN_MEMORY = Path("table")


def read_table(
    table: Table, settings: ReadSettings, say: Say, *, ask: Ask | None = None
) -> Iterator[Batch]:
    """The cells of a table, some thousand at a time.

    Parameters
    ----------
    table : Path, DataFrame or AnnData
    settings : ReadSettings
    say : callable
        Told what was taken for what.
    ask : callable, optional
        Asked about ambiguous columns; without it they are left out.

    Raises
    ------
    CohortError
        If the table cannot be read, or no column is a feature.
    """
    path = table if isinstance(table, Path) else _IN_MEMORY
    for part in _parts(table, settings, say):
        if isinstance(part, Batch):
            yield part
        else:
            yield from _mapped(path, part, settings, say, ask)


def first_rows(path: Path, settings: ReadSettings, say: Say) -> pd.DataFrame | None:
    """The first rows of a table, by which its columns are mapped.

    Returns
    -------
    DataFrame or None
        None where the table is in the model's own features, so that there is nothing to map.

    Raises
    ------
    CohortError
        If the table cannot be read or is empty.
    """
    for part in _parts(path, settings, say):
        if isinstance(part, Batch):
            return None
        return _first(path, part)
    return None


def _parts(
    table: Table, settings: ReadSettings, say: Say
) -> Iterator[Batch | Iterator[pd.DataFrame]]:
    """Batches, of a table in the model's own features; else the chunks of one to be mapped."""
    if isinstance(table, pd.DataFrame):
        yield _in_memory(table)
        return
    if isinstance(table, anndata.AnnData):
        yield from _cells(_IN_MEMORY, table, settings, say)
        return
    path = table
    if not path.is_file():
        raise CohortError(f"{path} does not exist")
    if suffix_of(path) == ".h5ad":
        yield from _h5ad(path, settings, say)
    else:
        yield read_chunks(path, say)


def _in_memory(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Chunks; an index that is not just numbered names the cells, as a first column would."""
    if not isinstance(frame.index, pd.RangeIndex):
        name = str(frame.index.name or "cell_id")
        if name not in frame:
            frame = frame.set_axis(frame.index.astype(str)).rename_axis(name).reset_index()
    for start in range(0, len(frame), CHUNK):
        yield frame.iloc[start : start + CHUNK].reset_index(drop=True)


def _first(path: Path, chunks: Iterator[pd.DataFrame]) -> pd.DataFrame:
    first = next(chunks, None)
    if first is None or first.empty:
        raise CohortError(f"{path}: the table has no rows")
    return first


def _mapped(
    path: Path,
    chunks: Iterator[pd.DataFrame],
    settings: ReadSettings,
    say: Say,
    ask: Ask | None,
) -> Iterator[Batch]:
    first = _first(path, chunks)
    # One mapping file may be for several tables.
    columns = map_columns(first, settings.layout, settings.columns, absent_ok=True)
    for name in columns.absent:
        say(f"{path.name}: has no column '{name}', which {_mapping_name(settings)} names")
    if ask is not None and columns.ambiguous:
        given = {} if settings.columns is None else settings.columns.columns
        answers = {
            each.column: Override(
                ask(each.column, each.candidates) or "ignore", source="the answer"
            )
            for each in columns.ambiguous
        }
        overrides = Overrides(_mapping_name(settings), given | answers)
        columns = map_columns(first, settings.layout, overrides, absent_ok=True)
    for line in columns.lines():
        say(f"{path.name}: {line}")
    if not columns.taken:
        raise CohortError(
            f"{path}: no column is a feature of layout '{settings.layout.name}'; name them with "
            "--columns mapping.yaml"
        )
    counted: dict[str, Counted] = {}
    number = 0
    for chunk in itertools.chain([first], chunks):
        values, odd = columns.values(chunk)
        for name, count in odd.items():
            counted[name] = counted.get(name, Counted()) + count
        yield _batch(path, chunk, values, columns, settings, number)
        number += len(chunk)
    for name, count in counted.items():
        say(f"{path.name}: column '{name}', taken as missing: {count}")


def _mapping_name(settings: ReadSettings) -> str:
    return "the mapping" if settings.columns is None else settings.columns.name


def _batch(
    path: Path,
    chunk: pd.DataFrame,
    values: NDArray[np.float32],
    columns: ColumnMap,
    settings: ReadSettings,
    before: int,
) -> Batch:
    n = len(chunk)
    ids = [f"row {before + k + 1}" for k in range(n)]
    if columns.cell_id is not None:
        given = chunk[columns.cell_id]
        ids = [
            _name(value) if pd.notna(value) and str(value).strip() else ids[k]
            for k, value in enumerate(given)
        ]
    species: list[str | None] = [settings.species] * n
    if columns.species is not None:
        species = [_species(value) or settings.species for value in chunk[columns.species]]
    notes: list[tuple[str, ...]] = [()] * n
    if "__problem__" in chunk.attrs:
        for row, problem in chunk.attrs["__problem__"].items():
            notes[row] = (problem,)
            values[row] = np.nan
    return Batch(path.name, ids, species, values, notes=notes)


def _name(value: Any) -> str:
    """A cell id as text; a whole number that was stored as a float has no point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _species(value: Any) -> str | None:
    """The species a table or recording names; another one stays as it is written."""
    if value is None or pd.isna(value) or not str(value).strip():
        return None
    text = str(value).strip()
    return species_within(text) or text


def _h5ad(path: Path, settings: ReadSettings, say: Say) -> Iterator[Batch | Iterator[pd.DataFrame]]:
    import h5py

    if not h5py.is_hdf5(path):
        raise CohortError(f"{path} is not an h5ad file")
    with reading_h5ad(path):
        yield from _cells(path, anndata.read_h5ad(path, backed="r"), settings, say)


def _cells(
    path: Path, cells: anndata.AnnData, settings: ReadSettings, say: Say
) -> Iterator[Batch | Iterator[pd.DataFrame]]:
    """A cohort table in the model's own features, or any AnnData with columns to be mapped."""
    ours = isinstance(cells.uns.get("crosspatch"), Mapping)
    if ours and {"family", "unit"} <= set(cells.var.columns):
        yield from _cohort(path, cells, settings, say)
    else:
        yield _annotated(path, cells)


def _cohort(
    path: Path, cells: anndata.AnnData, settings: ReadSettings, say: Say
) -> Iterator[Batch]:
    layout = settings.layout
    units = dict(zip(cells.var_names.astype(str), cells.var["unit"].astype(str), strict=True))
    there = {f.name: units.get(f.name) for f in layout.features}
    for feature in layout.features:
        if there[feature.name] not in (None, feature.unit):
            raise CohortError(
                f"{path}: feature '{feature.name}' is in {there[feature.name]}, the model has it "
                f"in {feature.unit}; convert it"
            )
    lacking = [name for name, unit in there.items() if unit is None]
    if len(lacking) == len(there):
        raise CohortError(
            f"{path}: a table of layout '{cells.uns['crosspatch'].get('layout')}' has no feature "
            f"of the model's layout '{layout.name}'"
        )
    if lacking:
        say(f"{path.name}: {len(lacking)} features are missing, the first is '{lacking[0]}'")
    place = {str(name): column for column, name in enumerate(cells.var_names)}
    simulated = is_simulated(cells)
    for start in range(0, cells.n_obs, CHUNK):
        part = cells[start : start + CHUNK].to_memory()
        values = np.full((part.n_obs, len(layout.features)), np.nan, dtype=np.float32)
        full = part.to_df().to_numpy(dtype=np.float32)
        for column, feature in enumerate(layout.features):
            if feature.name in place:
                values[:, column] = full[:, place[feature.name]]
        values[~np.isfinite(values)] = np.nan
        species: list[str | None] = [settings.species] * part.n_obs
        if "species" in part.obs:
            species = [_species(value) or settings.species for value in part.obs["species"]]
        quality = [""] * part.n_obs
        if "qc_reasons" in part.obs:
            quality = ["" if pd.isna(v) else str(v) for v in part.obs["qc_reasons"]]
        ids, n = part.obs_names.astype(str).tolist(), part.n_obs
        yield Batch(path.name, ids, species, values, quality, simulated=[simulated] * n)


def _annotated(path: Path, cells: anndata.AnnData) -> Iterator[pd.DataFrame]:
    """Any AnnData as a table: its variables, and its observations' own columns."""
    with reading_h5ad(path):
        for start in range(0, cells.n_obs, CHUNK):
            part = cells[start : start + CHUNK].to_memory()
            frame = part.to_df()
            for name in part.obs:
                if name not in frame:
                    frame[name] = part.obs[name].astype(object)
            if "cell_id" not in frame:
                frame.insert(0, "cell_id", part.obs_names.astype(str))
            yield frame.reset_index(drop=True)
