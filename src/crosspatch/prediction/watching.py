"""Recordings that come into folders, predicted each once it is whole.

Folders are looked through every few seconds. Systems tell programs of changes (inotify and its
like), but not of those that another machine makes on a network share, and never that a file is
whole; libraries that look for themselves still leave that to be found out by size and time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crosspatch.errors import CrosspatchError, RecordingError
from crosspatch.features.finding import recordings_in
from crosspatch.features.many import extract_here
from crosspatch.features.measuring.first_use import prepare
from crosspatch.features.outcome import CellFeatures, Failure, Outcomes
from crosspatch.features.store import CellStore, stamp_of
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.batches import (
    Batch,
    SeenIds,
    extraction_settings,
    recordings_batch,
    unique,
)
from crosspatch.prediction.in_turn import predict_batches
from crosspatch.prediction.pipeline import Pipeline
from crosspatch.prediction.prediction import PredictedCell, Prediction
from crosspatch.processes import cores
from crosspatch.telling import Say

#: A file that came while we watched is read so often before it is given up; another one once.
TRIES = 3
#: Each pause before it is read again is so many times as long as the last.
_PATIENCE = 4
#: Files that are measured before what they gave is judged and written, for each process.
_AT_ONCE = 10
# After so many seconds a file that cannot be opened, or a folder, is looked at again.
_LATER = 30.0
# Names that are listed in a line.
_NAMED = 3


@dataclass
class _Waiting:
    """A file that is not done."""

    content: str  # what `stamp_of` it was
    since: float  # when it was first seen like that
    arrived: bool  # whether it came, or changed, while we watched
    tries: int = 0  # how often it was read in vain
    until: float = 0.0  # when it is looked at again
    said: bool = False  # whether it was said that it waits

    def put_off(self, until: float) -> _Waiting:
        """The same, to be looked at again later."""
        return replace(self, until=until, said=True)


class Arrivals:
    """The files of folders that are not done, each with what it was when it was seen.

    One is ready when it has been the same for `settle` seconds by our own clock, since that of a
    network share may be another, and can be opened.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        settle: float,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._folders = [folder.resolve() for folder in folders]
        self._settle, self._say, self._clock = settle, say, clock
        self._waiting: dict[Path, _Waiting] = {}
        self._looked = False
        self._lost = ""  # why the folders cannot be looked through
        self._there: set[Path] | None = None  # the files that are there, where that is known

    def ready(self, done: Mapping[Path, str]) -> list[Path]:
        """The files that can be read now, except those that are done and have not changed."""
        files = self._found()
        self._there = None if files is None else set(files)
        if files is None or self._there is None:
            return []
        now, ready = self._clock(), []
        for file in files:
            content = stamp_of(file)
            if content is None or (done.get(file) == content and file not in self._waiting):
                continue
            if self._settled(file, content, now) and self._opens(file, now):
                ready.append(file)
        self._waiting = {file: each for file, each in self._waiting.items() if file in self._there}
        self._looked = True
        return ready

    def _found(self) -> list[Path] | None:
        """The files that are there; None where the folders cannot be looked through."""
        try:
            missing = next((each for each in self._folders if not each.is_dir()), None)
            if missing is not None:
                raise RecordingError(f"{missing} is not there")
            found = [each for each in recordings_in(self._folders) if isinstance(each, Path)]
        except (CrosspatchError, OSError) as error:
            if str(error) != self._lost:
                self._say(f"{error}; looking for it again")
            self._lost = str(error)
            return None
        if self._lost:
            self._say("the folder is there again")
        self._lost = ""
        return found

    def _settled(self, file: Path, content: str, now: float) -> bool:
        before = self._waiting.get(file)
        if before is None or before.content != content:
            grows = before is not None and not before.said
            if grows:
                self._say(f"{file.name} is being written; it is read when that has ended")
            self._waiting[file] = _Waiting(content, now, self._looked, said=before is not None)
            return False
        return now >= before.since + self._settle and now >= before.until

    def _opens(self, file: Path, now: float) -> bool:
        before = self._waiting[file]
        try:
            if file.is_file():
                file.open("rb").close()
        except OSError as error:
            if not before.said:
                why = error.strerror or error
                self._say(f"{file.name} cannot be opened: {why}; tried again until it can be")
            self._waiting[file] = before.put_off(now + _LATER)
            return False
        return True

    def gone(self, files: Collection[Path]) -> set[Path]:
        """Which of some files were in the folders, and are not."""
        there = self._there
        absent = [] if there is None else [each for each in files if each not in there]
        return {each for each in absent if any(map(each.is_relative_to, self._folders))}

    def unchanged(self, file: Path) -> str | None:
        """What a file is, if it is what it was when it was ready; else it waits again."""
        content = stamp_of(file)
        return content if content == self._waiting[file].content else None

    def failed(self, file: Path, *, again: bool) -> int:
        """Note that a file was read in vain: how often, or 0 where it is tried again.

        Only what came while we watched is, and what may succeed `again`.
        """
        waiting = self._waiting[file]
        waiting.tries += 1
        if waiting.tries >= TRIES or not (waiting.arrived or again):
            del self._waiting[file]
            return waiting.tries
        pause = self._settle * _PATIENCE ** (waiting.tries - 1)
        waiting.until = self._clock() + pause
        return 0

    def done(self, file: Path) -> None:
        """A file waits no longer, until it changes."""
        self._waiting.pop(file, None)


class Update(NamedTuple):
    """All cells as they are judged now, and which of them are new."""

    prediction: Prediction  # in the order in which their files were done
    new: list[PredictedCell]  # of files that were read since the last one


class Watch:
    """Folders that are watched, and what they gave so far.

    What was measured is kept in a store, by which a watch that is given again goes on. All cells
    are judged together, as `predict` judges the cells of a folder: with each the batch grows, of
    which it is told whether another rig measures otherwise.
    """

    def __init__(self, pipeline: Pipeline, store: CellStore, arrivals: Arrivals):
        self._pipeline, self._store, self._arrivals = pipeline, store, arrivals
        self._settings = extraction_settings(pipeline.settings)
        self._say = pipeline.listener.say
        self._done = {Path(k): v for k, v in store.contents(self._settings.key).items()}
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._fresh: set[Path] = set()  # files read since the last update
        self._gone: set[Path] = set()
        self._busy = False
        self._told: object = None  # of how the batch differs
        self.lines: list[str] = []  # what was said of the batch the last time
        prepare(self._say)

    @property
    def busy(self) -> bool:
        """Whether files are ready that were not read yet."""
        return self._busy

    @property
    def files(self) -> int:
        """How many files are done."""
        return len(self._done)

    def look(self) -> bool:
        """Look through the folders and read some of what is ready; whether that gave anything."""
        ready = self._arrivals.ready(self._done)
        self._notice_gone()
        request = self._pipeline.request
        jobs = request.jobs or cores()
        some = ready[: _AT_ONCE * jobs]
        self._busy = len(some) < len(ready)
        if some:
            with closing(extract_here(some, self._settings, request.limit, jobs)) as outcomes:
                for file, cells in outcomes:
                    if isinstance(file, Path):
                        self._take(file, cells)
        return bool(self._fresh)

    def _take(self, file: Path, cells: Outcomes) -> None:
        """Keep what a file gave, if it is still the same file."""
        content = self._arrivals.unchanged(file)
        if content is None:
            return  # it changed while it was read
        again, changed = self._done.get(file) == content, file in self._done
        failures = [each for each in cells if isinstance(each, Failure)]
        if len(failures) == len(cells):
            tries = self._arrivals.failed(file, again=any(each.again for each in failures))
            if tries > 1:
                self._say(
                    f"{file.name} is given up after {tries} tries; it is read again when it changes"
                )
            if again:
                return  # it says what it said before
        else:
            self._arrivals.done(file)
        if changed and not again:
            self._say(f"{file.name} has changed and is predicted again")
        self._keep(file, cells, content)
        self._fresh.add(file)

    def _keep(self, file: Path, cells: Outcomes, content: str) -> None:
        self._store.put(file, self._settings.key, cells, content)
        self._done.pop(file, None)  # what is done last stands last
        self._done[file] = content
        for other in [each for each in self._gone if _same(self._of(each), cells)]:
            self._say(f"{other.name} is called {file.name} now")
            self._forget(other)

    def _of(self, file: Path) -> Outcomes:
        """What a file gave."""
        return [cell for _, cell in self._store.cells([file], self._settings.key)]

    def _forget(self, file: Path) -> None:
        self._store.put(file, self._settings.key, [], None)
        self._done.pop(file, None)
        self._gone.discard(file)

    def _notice_gone(self) -> None:
        """Of files that are gone what was measured stays, but not that nothing was."""
        gone = self._arrivals.gone(self._done)
        new, self._gone = gone - self._gone, gone
        kept = []
        for file in sorted(new):
            if any(isinstance(cell, CellFeatures) for cell in self._of(file)):
                kept.append(file.name)
            else:
                self._forget(file)
        if kept:
            self._say(f"no longer there: {_listed(kept)}; what was measured is kept")

    def update(self) -> Update | None:
        """Judge all cells that were measured; None where there are none."""
        measured = self._store.cells(list(self._done), self._settings.key)
        cells = [(file, cell) for file, cell in measured]
        if not cells:
            return None
        lines: list[str] = []
        words = self._pipeline.listener.words
        found = recordings_batch(cells, self._pipeline.settings, lambda line: None, words)
        batch = unique(found, SeenIds(), lines.append)
        ((_, prediction),) = predict_batches(self._pipeline.predictor, [batch], lines.append)
        self._tell(prediction, lines)
        new = self._new(prediction, batch)
        self._fresh.clear()
        return Update(prediction, new)

    def _tell(self, prediction: Prediction, lines: list[str]) -> None:
        """Say what is to be said of the batch where it is not what it was, numbers aside."""
        now = len(lines), sorted(prediction.alignments)
        if now != self._told:
            for line in lines:
                self._say(line)
        self._told, self.lines = now, lines

    def _new(self, prediction: Prediction, batch: Batch) -> list[PredictedCell]:
        """The cells of files that were read last; it is said which others changed verdict."""
        file_of = dict(zip(batch.cell_ids, batch.files, strict=True))
        new, changed = [], []
        verdicts = {}
        for cell in prediction:
            who = cell.cell_id, cell.species
            verdicts[who] = cell.verdict
            if file_of[cell.cell_id] in self._fresh:
                new.append(cell)
            elif (before := self._verdicts.get(who, cell.verdict)) != cell.verdict:
                changed.append(f"{cell.cell_id} ({before}, now {cell.verdict})")
        self._verdicts = verdicts
        if changed:
            self._say(f"judged anew with the cells that came: {_listed(changed)}")
        return new


def _same(before: Outcomes, now: Outcomes) -> bool:
    """Whether two files had the same bytes."""

    def digests(cells: Outcomes) -> set[str]:
        return {each.head["sha256"] for each in cells if isinstance(each, CellFeatures)}

    return bool(digests(before) & digests(now))


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def newest_first(prediction: Prediction) -> Prediction:
    """Rows in the other order; the rows of a cell stay in theirs."""
    numbers = prediction.records["cell_id"].combine_chunks().dictionary_encode().indices
    return prediction.rows(np.argsort(-numbers.to_numpy(), kind="stable"))
