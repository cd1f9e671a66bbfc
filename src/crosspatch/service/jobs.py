"""What happens to an upload, from its first byte to its deletion."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sqlite3
import threading
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLateError
from dataclasses import replace
from pathlib import Path
from typing import Any

from crosspatch.errors import CohortError
from crosspatch.features.cortical_layer import require_layer
from crosspatch.recordings.reading_options import Reading
from crosspatch.service import messages
from crosspatch.service.examples import SIMULATED_EXAMPLES
from crosspatch.service.mapping_screen import Columns
from crosspatch.service.messages import RECORDING
from crosspatch.service.predicted import Results
from crosspatch.service.queue import QueuedTask, Workers
from crosspatch.service.settings import ServiceSettings
from crosspatch.service.uploads import (
    FINAL,
    WORKED_ON,
    Batches,
    RefusedUploadError,
    State,
    Upload,
    UploadedFile,
)
from crosspatch.species import SPECIES
from crosspatch.tables.mapping import Override

#: What was written for a page.
Json = dict[str, Any]

_SWEEP = 20.0  #: how often it is looked for uploads whose time is over, s
_BUSY = "it is being worked on; wait or cancel it"
# Bytes written between two looks at how much room is left.
_ROOM = 64 * 2**20


class Jobs:
    """Uploads, and the workers that see to them; the workers are started."""

    def __init__(self, settings: ServiceSettings, workers: Workers):
        self.settings, self.workers = settings, workers
        self.batches = Batches(settings)
        self._closing = threading.Event()
        threading.Thread(target=self._sweep, daemon=True).start()

    def close(self) -> None:
        """Stop working and delete everything."""
        self._closing.set()
        self.workers.close()
        self.batches.close()

    def _sweep(self) -> None:
        while not self._closing.wait(_SWEEP):
            for upload in self.batches.expired():
                self.remove(upload)
            self.batches.clear_leftovers()

    # Uploads

    def new(self, species: str | None, reading: Reading, layer: str | None = None) -> Upload:
        """An empty upload; refused for an unknown species or layer, or if there are too many."""
        if species is not None and species not in SPECIES:
            raise RefusedUploadError(f"no species '{species}'; use {' or '.join(SPECIES)}", 422)
        if layer is not None and not self.workers.about.takes_layer:
            raise RefusedUploadError("the models here do not take the cortical layer", 422)
        try:
            require_layer(layer)
        except CohortError as error:
            raise RefusedUploadError(error.message, 422, error.hint) from error
        return self.batches.new(species, reading, layer)

    def remove(self, upload: Upload) -> None:
        """Stop what is done for an upload, and delete it."""
        with upload.lock:
            for file in upload.files:
                self._stop(file)
                file.state = State.CANCELLED
            upload.uploads.clear()
        self.batches.remove(upload)

    def results(self, upload: Upload) -> Results:
        """The predicted cells of an upload."""
        return Results(upload.folder, self.workers.about.columns)

    # Files

    async def receive(
        self,
        upload: Upload,
        name: str,
        content: AsyncIterator[bytes],
        *,
        length: int | None,
        confirm: bool,
    ) -> UploadedFile:
        """Take in a file, of which so many bytes are announced, and let it wait for its turn.

        It is refused if it is too large, too slow, empty, or of a kind that cannot be read.
        """
        if length is not None and length > self.settings.upload:
            raise self._too_large(name)
        await asyncio.to_thread(self.batches.require_room, length or 0)
        file = self.batches.add(upload, name, confirm=confirm)
        try:
            await self._write(file, content, name)
        except BaseException as error:
            self.batches.drop(file)
            if isinstance(error, OSError):
                why = error.strerror or type(error).__name__
                raise RefusedUploadError(f"{file.label} cannot be kept: {why}", 507) from error
            raise
        self._begin(file)
        return file

    async def _write(self, file: UploadedFile, content: AsyncIterator[bytes], name: str) -> None:
        """Write what comes of a file, within all limits."""
        unlooked = 0
        with file.path.open("xb") as out:
            async for chunk in self._in_time(content, file):
                file.size += len(chunk)
                unlooked += len(chunk)
                if file.size > self.settings.upload:
                    raise self._too_large(name)
                if file.state is State.CANCELLED:
                    raise file.refused("cancelled", 409)
                if unlooked >= _ROOM:
                    await asyncio.to_thread(self.batches.require_room, 0)
                    unlooked = 0
                out.write(chunk)
        if not file.size:
            raise file.refused("the file is empty", 422)

    async def _in_time(
        self, content: AsyncIterator[bytes], file: UploadedFile
    ) -> AsyncIterator[bytes]:
        """What comes, unless for too long nothing does."""
        silence = self.settings.silence
        try:
            while (chunk := await asyncio.wait_for(anext(content, None), silence)) is not None:
                yield chunk
        except TimeoutError:
            raise file.refused(f"nothing came for {silence:g} s", 408, "send it again") from None

    def _too_large(self, name: str) -> RefusedUploadError:
        gib = self.settings.upload / 2**30
        return RefusedUploadError(
            f"{name[-80:]}: larger than the {gib:g} GiB that this server takes",
            413,
            "use the command line, or start the server with a larger {upload}",
        )

    def example(self, upload: Upload, example: str) -> UploadedFile:
        """A simulated recording or table; refused if there is none of this name."""
        if example not in SIMULATED_EXAMPLES:
            raise RefusedUploadError(
                f"no example '{example[:80]}'", 404, f"there are {', '.join(SIMULATED_EXAMPLES)}"
            )
        self.batches.require_room(0)
        label = SIMULATED_EXAMPLES[example].label
        file = self.batches.add(upload, label, confirm=True, example=example)
        self._begin(file)
        return file

    def choose_columns(
        self, file: UploadedFile, choices: Mapping[str, Override], sheet: str | None, *, go: bool
    ) -> Columns:
        """Say what sheet and columns of a table are, and have it predicted if that is wanted.

        It is refused if the file is not a table that waits for this, or the choices cannot be.
        """
        if file.columns is None:
            raise file.refused("there are no columns to be chosen", 409)
        if file.state in WORKED_ON:
            raise file.refused(_BUSY, 409)
        given = replace(file.given, choices=dict(choices), sheet=sheet)
        found = self._wait(file.upload, messages.FindColumns(given), 422)
        if not isinstance(found, messages.Found) or found.columns is None:
            raise file.refused("there are no columns to be chosen", 409)
        with file.upload.lock:
            if file.state in WORKED_ON or file.upload.uploads.get(file.number) is not file:
                raise file.refused("meanwhile it was predicted or deleted", 409)
            file.choices, file.sheet, file.columns = dict(choices), sheet, found.columns
            file.messages = found.messages
            if go and not found.columns.given:
                hint = "say what at least some of them are"
                raise file.refused("no column is a feature", 422, hint)
            if go:
                self._queue(file, messages.PredictTable(file.given))
        return found.columns

    def read_again(self, file: UploadedFile, reading: Reading) -> None:
        """Say how a recording is read, and have it measured again."""
        if file.kind != RECORDING:
            raise file.refused("it is a table, not a recording", 409)
        with file.upload.lock:
            if file.state not in FINAL:
                raise file.refused(_BUSY, 409)
            file.reading, file.drawn = reading, None
            self._queue(file, messages.Measure(file.given))

    def cancel(self, file: UploadedFile) -> None:
        """Stop what is done with a file; a finished one is deleted."""
        with file.upload.lock:
            if file.state not in FINAL:
                self._stop(file)
                file.state, file.stage = State.CANCELLED, ""
                return
        self._forget(file)
        self.batches.drop(file)

    def _forget(self, file: UploadedFile) -> None:
        """Delete the results of a file."""
        self.results(file.upload).remove(file.number)
        file.forget()

    def _stop(self, file: UploadedFile) -> None:
        if file.task is not None:
            file.task.stopped.set()
            file.task = None

    def _begin(self, file: UploadedFile) -> None:
        """The first thing that is done with a file, unless it was cancelled on its way here."""
        with file.upload.lock:
            if file.state is State.CANCELLED:
                return
            if file.example is not None:
                self._queue(file, messages.Simulate(file.given, file.example))
            else:
                first = messages.Measure if file.kind == RECORDING else messages.FindColumns
                self._queue(file, first(file.given))

    def _queue(self, file: UploadedFile, request: messages.FileRequest) -> None:
        with file.upload.lock:
            file.state, file.stage, file.fault = State.WAITING, "", None

            def told(said: messages.Told) -> None:
                with file.upload.lock:
                    match said:
                        case messages.Doing(stage, done) if file.state in WORKED_ON:
                            file.state, file.stage = State.WORKING, stage
                            file.done = file.done if done is None else done
                        case messages.Drawn():
                            file.drawn = said

            task = file.task = QueuedTask(file.upload.id, request, told)
        task.outcome.add_done_callback(lambda found: self._finished(file, task, found))
        self.workers.put(task)

    def _finished(
        self, file: UploadedFile, task: QueuedTask, future: Future[messages.WorkerOutcome]
    ) -> None:
        """Take in what came of a task; called in its worker's thread."""
        if future.cancelled():
            return
        outcome = future.result()
        with file.upload.lock:
            current = file.task is None or file.task is task
            if current:
                file.task = None
            if outcome == messages.STOPPED or file.state is State.CANCELLED or not current:
                # It may have come as far as its results; the upload may be gone already.
                if current:
                    file.rows = 0
                    with contextlib.suppress(OSError, sqlite3.Error):
                        self._forget(file)
                return
            file.stage = ""
            self._go_on(file, task.request, outcome)

    def _go_on(
        self, file: UploadedFile, request: messages.WorkerRequest, outcome: messages.WorkerOutcome
    ) -> None:
        """What follows from an outcome."""
        match outcome:
            case messages.Fault() if isinstance(request, messages.Measure):
                # As for the command line: a cell without values, with the reason.
                self._queue(file, messages.Refuse(file.given, outcome))
            case messages.Fault():
                file.state, file.fault = State.FAILED, outcome
            case messages.Done():  # the example is there
                file.size, file.example = file.path.stat().st_size, None
                self._begin(file)
            case messages.Found(columns, said):
                file.messages = said
                file.columns = columns or file.columns
                if columns is not None and file.confirm:
                    file.state = State.COLUMNS
                else:
                    self._queue(file, messages.PredictTable(file.given))
            case messages.Predicted(rows, said, fault):
                file.rows, file.messages, file.fault = rows, said, fault
                file.state = State.DONE if fault is None else State.FAILED

    # What is shown

    def details(self, file: UploadedFile, row: int) -> tuple[Json, Json | None]:
        """What is said of a cell, and what was recorded; refused if there is no such cell.

        They are those of `crosspatch.reporting.cell_view`, as JSON; nothing was recorded of a row
        of a table.
        """
        if not self.results(file.upload).holds(file.number, row):
            raise RefusedUploadError(f"{file.label} has no cell {row}", 404)
        if not file.details(row).exists():
            self._wait(file.upload, messages.ExplainRow(file.given, row), 409, f"{file.label}: ")
        return json.loads(file.details(row).read_bytes()), self.recorded(file, self.part(file, row))

    def recorded(self, file: UploadedFile, part: int = 0) -> Json | None:
        """What was recorded and measured; None of a table, and until it is measured."""
        with contextlib.suppress(FileNotFoundError):
            return json.loads(file.recorded(part).read_bytes())
        return None

    def part(self, file: UploadedFile, row: int) -> int:
        """Which of the cells of a recording a row is of."""
        with contextlib.suppress(FileNotFoundError, IndexError):
            return int(json.loads(file.parts.read_bytes())["rows"][row])
        return 0

    def export(self, upload: Upload, ending: str) -> Path:
        """Write the cells to a file, which the caller deletes; refused if there is none."""
        out = upload.folder / f"export-{secrets.token_hex(8)}.{ending}"
        request = _export(upload, out)
        if not request.files:
            raise RefusedUploadError("there is no predicted cell yet", 409)
        try:
            self._wait(upload, request, 409)
        except RefusedUploadError:
            # A process that was ended leaves what it had written so far.
            for file in upload.folder.glob(f"*{out.name}*"):
                file.unlink(missing_ok=True)
            raise
        return out

    def _wait(
        self, upload: Upload, request: messages.WorkerRequest, status: int, name: str = ""
    ) -> messages.WorkerOutcome:
        """What comes of something that an answer waits for.

        Where nothing does it is refused with the status; ``name`` stands before the reason.
        """
        task = QueuedTask(upload.id, request)
        self.workers.put(task, first=True)
        try:
            outcome = task.outcome.result(2 * self.settings.seconds)
        except TooLateError:
            task.stopped.set()
            raise RefusedUploadError("the server is busy; try again later", 503) from None
        if isinstance(outcome, messages.Fault):
            raise RefusedUploadError(name + outcome.message, status, outcome.hint)
        return outcome


def _export(upload: Upload, out: Path) -> messages.Export:
    """What is to be written of an upload as it is now."""
    with upload.lock:
        files = [each for each in upload.files if each.rows]
        # As the command line has it: recordings, then tables.
        files.sort(key=lambda each: (each.kind != RECORDING, each.number))
        unread = [each for each in upload.files if each.fault and not each.rows]
        return messages.Export(
            out,
            files=tuple(each.given for each in files),
            said=tuple(line for each in files for line in each.messages),
            unread=tuple((each.label, str(each.reason)) for each in unread),
        )
