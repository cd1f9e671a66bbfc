"""What users give: recordings and tables, in batches of cells that a model can take."""

from __future__ import annotations

import itertools
import math
import re
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import CrosspatchError, RecordingError
from crosspatch.features.cortical_layer import layer_in
from crosspatch.features.extraction import ExtractionSettings
from crosspatch.features.finding import Source
from crosspatch.features.layouts import LAYOUT_NAMES, OWN, Layout
from crosspatch.features.many import ExtractionProgress, extract_many, extract_one
from crosspatch.features.measuring.first_use import prepare
from crosspatch.features.outcome import CellFeatures, Failure
from crosspatch.features.store import CellStore
from crosspatch.processes import cores
from crosspatch.recordings.reading_options import Reading
from crosspatch.species import species_within
from crosspatch.telling import Say
from crosspatch.versions import code_digest

if TYPE_CHECKING:
    from crosspatch.tables.mapping import Overrides

_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Batch:
    """Cells to be predicted."""

    source: str  # the file they are from, or ``recordings``
    cell_ids: list[str]  # each stands once; see `unique`
    #: ``mouse``, ``human``, what else a table says, or None where nothing says it.
    species: list[str | None]
    #: Shape (cells, features). In the layout's units, NaN where missing.
    X: NDArray[np.float32]
    #: What quality control found wrong with a cell; empty if nothing.
    quality: list[str] = field(default_factory=list)
    notes: list[tuple[str, ...]] = field(default_factory=list)  # what else is to be said of a cell
    #: Whether the cell's file says that it was simulated.
    simulated: list[bool] = field(default_factory=list)
    #: Why a recording gave no feature; None where it did, and for rows of a table.
    unread: list[str | None] = field(default_factory=list)
    #: Ids as the files have them, which may stand more than once; by default `cell_ids`.
    given_ids: list[str] = field(default_factory=list)
    #: The recording each cell is from; empty where they are rows of a table.
    files: list[Source] = field(default_factory=list)
    #: The electrode each cell was recorded with, where a recording has several; empty as `files`.
    electrodes: list[str | None] = field(default_factory=list)
    #: What stands in the columns of a table that are carried along; see `ReadSettings.carry`.
    carried: list[tuple[str, ...]] = field(default_factory=list)

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

    def encodable(self) -> Batch:
        """The same without the half characters that names of files, but no other text, may have."""
        texts = [*self.cell_ids, *self.given_ids, *self.quality, *itertools.chain(*self.notes)]
        try:
            "".join([self.source, *texts, *filter(None, self.species + self.unread)]).encode()
        except UnicodeEncodeError:
            lists = ("cell_ids", "given_ids", "quality", "notes", "species", "unread", "source")
            return replace(self, **{name: _encodable(getattr(self, name)) for name in lists})
        return self

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


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    return type(value)(map(_encodable, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class ReadSettings:
    """How inputs are read."""

    layout: Layout  # what the model measures a cell by
    species: str | None = None  # of cells whose file does not say
    columns: Overrides | None = None  # from `crosspatch.tables.mapping.read_mapping`
    reading: Reading = field(default_factory=Reading)  # how recordings are read
    sheet: str | int | None = None  # of a workbook, by name or number; see `Workbook.chosen`
    jobs: int | None = 1  # recordings at a time; None is one per core
    limit: float = 300.0  # seconds after which a recording is given up
    layer: float = np.nan  # of cells whose file does not say, in order of depth
    #: Columns of a table whose texts go along with its cells, and are no features.
    carry: tuple[str, ...] = ()
    #: What the model of each species takes of `layout`; where nothing is said, all.
    layouts: Mapping[str, Layout] = field(default_factory=dict)

    def expected(self, species: Collection[str | None]) -> Layout:
        """What is measured on cells of some species that a model takes; of None, of any."""
        any_of = None in species
        asked = [each for name, each in self.layouts.items() if any_of or name in species]
        widest = max(asked, key=lambda each: len(each.features), default=self.layout)  # they nest
        return widest.measured

    def placed(
        self, measured: NDArray[np.float32], layers: NDArray[np.floating]
    ) -> NDArray[np.float32]:
        """What was measured on cells, in the order of the layout, and where they lie.

        Layers, shape (cells,), are NaN where nothing is said, and infinite where that is not
        understood: such a cell has none, whatever layer the others are given.
        """
        if not self.layout.has_layer:
            return measured
        layers = np.where(np.isnan(layers), self.layer, layers)
        layers = np.where(np.isinf(layers), np.nan, layers)
        return np.column_stack([measured, layers]).astype(np.float32)


class SeenIds:
    """The names that cells were given: eight bytes each, since there may be millions.

    Two ids have the same hash once in some ten million tables of a million rows; the second cell is
    then numbered, and said to be, as if it had the first one's id.
    """

    def __init__(self) -> None:
        self._hashes = np.zeros(0, dtype=np.int64)
        self._numbers: dict[str, int] = {}

    def name(self, ids: Sequence[str]) -> list[str]:
        """Names that stand once for some more ids: a second one gets a number."""
        hashes = np.fromiter(map(hash, ids), np.int64, len(ids))
        order = np.argsort(hashes)
        ascending = hashes[order]
        there = self._holds(ascending)
        names = list(ids)
        if there.any() or (ascending[1:] == ascending[:-1]).any():
            before = np.zeros(len(ids), dtype=bool)
            before[order] = there
            names = self._numbered(ids, before)
            ascending = np.sort(np.fromiter(map(hash, names), np.int64, len(names)))
        place = np.searchsorted(self._hashes, ascending)
        self._hashes = np.insert(self._hashes, place, ascending)
        return names

    def _numbered(self, ids: Sequence[str], before: NDArray[np.bool_]) -> list[str]:
        names: dict[str, None] = {}
        for cell_id, taken in zip(ids, before.tolist(), strict=True):
            name = cell_id
            while taken or name in names:
                number = self._numbers[cell_id] = self._numbers.get(cell_id, 1) + 1
                name = f"{cell_id}#{number}"
                taken = bool(self._holds(np.array([hash(name)]))[0])
            names[name] = None
        return list(names)

    def _holds(self, hashes: NDArray[np.int64]) -> NDArray[np.bool_]:
        place = np.searchsorted(self._hashes, hashes)
        found = place < len(self._hashes)
        found[found] = self._hashes[place[found]] == hashes[found]
        return found


def unique(batch: Batch, seen: SeenIds, say: Say) -> Batch:
    """A batch with cell ids that stand once in all batches: a second one gets a number, said."""
    batch = batch.encodable()
    ids = seen.name(batch.given_ids)
    twice = [given for given, name in zip(batch.given_ids, ids, strict=True) if name != given]
    if twice:
        say(
            f"{batch.source}: cell id '{twice[0]}' stands more than once ({len(twice)} such rows); "
            f"they are kept apart as '{twice[0]}#2' and so on"
        )
    return replace(batch, cell_ids=ids)


@contextmanager
def _store() -> Iterator[Path]:
    """Where measured recordings are kept, so that a stopped command can go on: the user's cache.

    Where that cannot be written, a temporary folder.
    """
    import platformdirs

    name = f"{code_digest('archive', 'recordings', 'features')[:12]}.sqlite"
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
    words: Callable[[CrosspatchError], str] = str,
) -> Batch:
    """Measure recordings; one that gives no feature is a cell without values, with the reason.

    `say` is told what could not be read, in the `words` for its error; `progress` after every
    recording. A RecordingError if the model's features cannot be measured on recordings.
    """
    how = extraction_settings(settings)
    prepare(say)
    if len(files) == 1 and isinstance(files[0], Path):
        cells = extract_one(files[0], how, settings.limit)
        if progress is not None:
            failed = all(isinstance(cell, Failure) for cell in cells)
            progress(ExtractionProgress(1, 1, int(failed), 0))
        return recordings_batch([(files[0], cell) for cell in cells], settings, say, words)
    with _store() as store_file:
        extract_many(
            files,
            store_file,
            how,
            jobs=settings.jobs or cores(),
            limit=settings.limit,
            progress=progress,
        )
        with CellStore(store_file) as store:
            return recordings_batch(store.cells(files, how.key), settings, say, words)


def extraction_settings(settings: ReadSettings) -> ExtractionSettings:
    """What is measured on a recording for a model; a RecordingError if it cannot be."""
    layout = settings.layout.measured
    if layout.measured_in is None:
        raise RecordingError(_not_measured(layout))
    return ExtractionSettings(layout.measured_in, settings.reading)


def _not_measured(layout: Layout) -> str:
    """Why the features of a model cannot be measured on recordings."""
    if layout.name != OWN:
        return (
            f"the model's layout '{layout.name}' cannot be measured on recordings; give a table, "
            f"or train a model in one of: {', '.join(LAYOUT_NAMES)}"
        )
    own = [each.name for each in layout.features if each.family == each.name]
    some = ", ".join(f"'{name}'" for name in own[:3]) + (", …" if len(own) > 3 else "")
    return (
        f"the model is of a laboratory's own table, and {len(own)} of its {len(layout.features)} "
        f"features cannot be measured on recordings ({some}); give a table with these columns"
    )


def recordings_batch(
    measured: Iterable[tuple[Source, CellFeatures | Failure]],
    settings: ReadSettings,
    say: Say,
    words: Callable[[CrosspatchError], str] = str,
) -> Batch:
    """Recordings that were measured, at least one, as cells; see `read_recordings`."""
    cells = [_of_recording(file, outcome, settings, words) for file, outcome in measured]
    for cell in cells:
        if cell.unread[0] is not None:
            which = f", electrode {cell.electrodes[0]}" if cell.electrodes[0] else ""
            say(f"{cell.files[0].name}{which}: {cell.unread[0]}")
    return Batch.joined(cells)


def _of_recording(
    file: Source,
    outcome: CellFeatures | Failure,
    settings: ReadSettings,
    words: Callable[[CrosspatchError], str],
) -> Batch:
    if isinstance(outcome, Failure):
        reason = words(outcome.error).replace(f"{file}: ", "").replace(str(file), "").strip()
        nothing = np.full((1, len(settings.layout.features)), np.nan, dtype=np.float32)
        return Batch(
            "recordings",
            [outcome.cell_id or file.stem],
            [species_said(outcome.species or "") or settings.species],
            nothing,
            unread=[reason],
            files=[file],
            electrodes=[outcome.electrode],
        )
    head = outcome.head
    rejected = int(head["sweeps_rejected"])
    said = [f"{rejected} of {head['sweeps']} sweeps rejected"] if rejected else []
    values = outcome.values[None, settings.layout.measured.places]
    location = head.get("location") or ""
    layer = layer_in(location)
    if math.isinf(layer) and settings.layout.has_layer:
        said.append(f"the cortical layer in '{location}' is not understood and taken as missing")
    return Batch(
        "recordings",
        [outcome.cell_id],
        [species_said(head.get("species") or "") or settings.species],
        settings.placed(values, np.array([layer])),
        quality=[str(head["qc_reasons"] or "")],
        notes=[(*said, *head["notes"])],
        simulated=[bool(head["simulated"])],
        files=[file],
        electrodes=[outcome.electrode],
    )


def species_said(value: Any) -> str | None:
    """The species a table or recording names; another one stays as it is written."""
    if not isinstance(value, str):
        import pandas as pd

        value = "" if pd.isna(value) else str(value)
    text = value.strip()
    return species_within(text) or text or None


def side_by_side(predict: Callable[[Batch], _Found], batches: Iterable[Batch]) -> Iterator[_Found]:
    """Predict batches on all cores, in order; the first of a source, which is spoken of, alone."""
    for _, group in itertools.groupby(batches, lambda batch: batch.source):
        of_source = iter(group)
        yield predict(next(of_source))
        second = next(of_source, None)
        if second is None:
            continue
        from concurrent.futures import Future, ThreadPoolExecutor  # not for a single recording

        running: deque[Future[_Found]] = deque()
        with ThreadPoolExecutor(cores()) as pool:
            for batch in itertools.chain([second], of_source):
                running.append(pool.submit(predict, batch))
                if len(running) > cores():
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
