"""What happens to an upload, from its first byte to its deletion."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sqlite3
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLateError
from pathlib import Path
from typing import Any

from crosspatch.features.extraction import StepDescription
from crosspatch.recordings.quality import THRESHOLDS
from crosspatch.service.predicted import Results
from crosspatch.service.queue import QueuedTask, Workers
from crosspatch.service.settings import ServiceSettings
from crosspatch.service.traces import INDEX, STRETCHES, read_traces
from crosspatch.service.uploads import (
    FINAL,
    RECORDING,
    TABLE,
    Batches,
    RefusedUploadError,
    State,
    Upload,
    UploadedFile,
)
from crosspatch.service.worker import DETAILS, EXAMPLE_TABLE, EXAMPLES, RECORDED, forget_details
from crosspatch.species import SPECIES

#: How often it is looked for batches whose time is over, s.
_SWEEP = 20.0

# Bytes written between two looks at how much room is left.
_ROOM = 64 * 2**20

_EXAMPLE_LABELS = {
    name: f"simulated {species} {subclass}.nwb" for name, (species, subclass) in EXAMPLES.items()
} | {EXAMPLE_TABLE: "simulated table of another laboratory.csv"}


class Jobs:
    """Batches, and the workers that see to them.

    Parameters
    ----------
    settings : ServiceSettings
    workers : Workers
        Started.
    """

    def __init__(self, settings: ServiceSettings, workers: Workers):
        self.settings, self.workers = settings, workers
        self.batches = Batches(
            keep=settings.keep,
            most=settings.batches,
            files=settings.files,
            storage=settings.storage,
        )
        self._tasks: dict[tuple[str, int], QueuedTask] = {}
        self._closing = threading.Event()
        self._janitor = threading.Thread(target=self._sweep, daemon=True)
        self._janitor.start()

    @property
    def about(self) -> dict[str, Any]:
        """What the workers said of the models."""
        return self.workers.about

    def close(self) -> None:
        """Stop working and delete everything."""
        self._closing.set()
        self.workers.close()
        self.batches.close()

    def _sweep(self) -> None:
        while not self._closing.wait(_SWEEP):
            for batch in self.batches.expired():
                self.remove(batch)
            self.batches.clear_leftovers()

    # Batches

    def new(self, species: str | None, quality: str) -> Upload:
        """An empty batch; see `Batches.new`.

        Raises
        ------
        RefusedUploadError
            If there is no such species or quality, or there are too many batches.
        """
        if species is not None and species not in SPECIES:
            raise RefusedUploadError(f"no species '{species}'; use {' or '.join(SPECIES)}", 422)
        if quality not in THRESHOLDS:
            raise RefusedUploadError(f"no quality '{quality}'; use {', '.join(THRESHOLDS)}", 422)
        return self.batches.new(species, quality)

    def remove(self, batch: Upload) -> None:
        """Stop what is done for a batch, and delete it."""
        with batch.lock:
            for upload in list(batch.uploads.values()):
                self._stop(batch, upload)
                upload.state = State.CANCELLED
            batch.uploads.clear()
        self.batches.remove(batch)

    def results(self, batch: Upload) -> Results:
        """The predicted cells of a batch."""
        return Results(batch.folder, self.about["columns"])

    # Files

    async def receive(
        self,
        batch: Upload,
        name: str,
        content: AsyncIterator[bytes],
        *,
        length: int | None,
        confirm: bool,
    ) -> UploadedFile:
        """Take in a file and let it wait for its turn.

        Parameters
        ----------
        batch : Upload
        name : str
            What the user calls it.
        content : async iterator of bytes
        length : int or None
            Bytes that are announced.
        confirm : bool
            Whether a table's columns are shown before anything is predicted.

        Raises
        ------
        RefusedUploadError
            If it is too large, too slow, empty, or of a kind that cannot be read.
        """
        if length is not None and length > self.settings.upload:
            raise self._too_large(name)
        await asyncio.to_thread(self.batches.require_room, length or 0)
        upload = self.batches.add(batch, name, confirm=confirm)
        try:
            with upload.path.open("xb") as file:
                unlooked = 0
                waiting = aiter(content)
                while True:
                    try:
                        chunk = await asyncio.wait_for(anext(waiting, None), self.settings.silence)
                    except TimeoutError:
                        raise RefusedUploadError(
                            f"{upload.label}: nothing came for {self.settings.silence:g} s; send "
                            "it again",
                            408,
                        ) from None
                    if chunk is None:
                        break
                    upload.size += len(chunk)
                    unlooked += len(chunk)
                    if upload.size > self.settings.upload:
                        raise self._too_large(name)
                    if upload.state is State.CANCELLED:
                        raise RefusedUploadError(f"{upload.label}: cancelled", 409)
                    if unlooked >= _ROOM:
                        await asyncio.to_thread(self.batches.require_room, 0)
                        unlooked = 0
                    file.write(chunk)
            if not upload.size:
                raise RefusedUploadError(f"{upload.label}: the file is empty", 422)
        except BaseException as error:
            self.batches.drop(batch, upload)
            if isinstance(error, OSError):
                why = error.strerror or type(error).__name__
                raise RefusedUploadError(f"{upload.label} cannot be kept: {why}", 507) from error
            raise
        self._begin(batch, upload)
        return upload

    def _too_large(self, name: str) -> RefusedUploadError:
        gib = self.settings.upload / 2**30
        return RefusedUploadError(
            f"{name[-80:]}: larger than the {gib:g} GiB that this server takes; use `crosspatch "
            "predict`, or start the server with a larger --upload",
            413,
        )

    def example(self, batch: Upload, example: str) -> UploadedFile:
        """A simulated recording or table.

        Raises
        ------
        RefusedUploadError
            If there is none of this name.
        """
        if example not in _EXAMPLE_LABELS:
            raise RefusedUploadError(
                f"no example '{example[:80]}'; there are {', '.join(_EXAMPLE_LABELS)}", 404
            )
        self.batches.require_room(0)
        upload = self.batches.add(batch, _EXAMPLE_LABELS[example], confirm=True, example=example)
        self._begin(batch, upload)
        return upload

    def choose_columns(
        self,
        batch: Upload,
        upload: UploadedFile,
        choices: Mapping[str, Mapping[str, Any]],
        *,
        go: bool,
    ) -> dict[str, Any]:
        """Say what columns of a table are, and have it predicted if that is wanted.

        Parameters
        ----------
        batch : Upload
        upload : UploadedFile
        choices : mapping
            Column to ``feature`` and ``unit``.
        go : bool
            Whether to predict.

        Raises
        ------
        RefusedUploadError
            If the file is no table that waits for this, or the choices cannot be.
        """
        if upload.kind != TABLE or upload.columns is None:
            raise RefusedUploadError(f"{upload.label}: there are no columns to be chosen", 409)
        if upload.state in (State.WAITING, State.WORKING):
            raise RefusedUploadError(
                f"{upload.label}: it is being worked on; wait or cancel it", 409
            )
        given = {name: dict(each) for name, each in choices.items()}
        task = QueuedTask(batch.id, self._request("columns", batch, upload) | {"choices": given})
        answer = self._wait(task)
        if answer["error"] is not None:
            raise RefusedUploadError(answer["error"], 422)
        with batch.lock:
            if (
                upload.state in (State.WAITING, State.WORKING)
                or batch.uploads.get(upload.number) is not upload
            ):
                raise RefusedUploadError(
                    f"{upload.label}: meanwhile it was predicted or deleted", 409
                )
            upload.choices, upload.columns = given, answer
            if go:
                if not any(each["feature"] for each in answer["columns"]):
                    raise RefusedUploadError(
                        f"{upload.label}: no column is a feature; say what at least some of them "
                        "are",
                        422,
                    )
                self._queue(batch, upload, "table")
        return answer

    def describe_step(
        self,
        batch: Upload,
        upload: UploadedFile,
        start: float,
        end: float,
        amplitudes: Sequence[float],
    ) -> None:
        """Say what was injected where a recording has no command, and have it measured again.

        Raises
        ------
        RefusedUploadError
            If the file is no recording, or is being worked on.
        """
        if upload.kind != RECORDING:
            raise RefusedUploadError(
                f"{upload.label}: a step is of recordings; this is a table", 409
            )
        with batch.lock:
            if upload.state not in FINAL:
                raise RefusedUploadError(
                    f"{upload.label}: it is being worked on; wait or cancel it", 409
                )
            upload.step = StepDescription(start, end, tuple(amplitudes))
            self._queue(batch, upload, "recording")

    def cancel(self, batch: Upload, upload: UploadedFile) -> None:
        """Stop what is done with a file; a finished one is deleted."""
        with batch.lock:
            if upload.state not in FINAL:
                self._stop(batch, upload)
                upload.state, upload.stage = State.CANCELLED, ""
                return
        self._forget(batch, upload)
        self.batches.drop(batch, upload)

    def _forget(self, batch: Upload, upload: UploadedFile) -> None:
        """Delete the results of a file."""
        self.results(batch).remove(upload.number)
        forget_details(batch.folder, upload.number)

    def _stop(self, batch: Upload, upload: UploadedFile) -> None:
        task = self._tasks.pop((batch.id, upload.number), None)
        if task is not None:
            task.stop()

    def _request(self, task: str, batch: Upload, upload: UploadedFile) -> dict[str, Any]:
        return {
            "task": task,
            "batch": str(batch.folder),
            "upload": upload.number,
            "path": str(upload.path),
            "label": upload.label,
            "species": batch.species,
            "quality": batch.quality,
            "step": upload.step,
            "choices": upload.choices,
        }

    def _begin(self, batch: Upload, upload: UploadedFile) -> None:
        """The first thing that is done with a file, unless it was cancelled on its way here."""
        with batch.lock:
            if upload.state is State.CANCELLED:
                return
            if upload.example is not None:
                self._queue(batch, upload, "example", example=upload.example)
            else:
                self._queue(batch, upload, RECORDING if upload.kind == RECORDING else "columns")

    def _queue(self, batch: Upload, upload: UploadedFile, task_name: str, **more: Any) -> None:
        with batch.lock:
            upload.state, upload.stage, upload.reason = State.WAITING, "", None

            def told(said: dict[str, Any]) -> None:
                with batch.lock:
                    if upload.state in (State.WAITING, State.WORKING):
                        upload.state = State.WORKING
                        upload.stage = said.get("stage", upload.stage)
                        upload.done = int(said.get("done", upload.done))

            task = QueuedTask(batch.id, self._request(task_name, batch, upload) | more, told)
            self._tasks[batch.id, upload.number] = task
        task.answer.add_done_callback(
            lambda answer: self._finished(batch, upload, task, task_name, answer)
        )
        self.workers.put(task)

    def _finished(
        self,
        batch: Upload,
        upload: UploadedFile,
        task: QueuedTask,
        task_name: str,
        future: Future[dict[str, Any]],
    ) -> None:
        """Take in a worker's answer; called in its thread."""
        if future.cancelled():
            return
        answer = future.result()
        with batch.lock:
            current = self._tasks.get((batch.id, upload.number), task) is task
            if current:
                self._tasks.pop((batch.id, upload.number), None)
            if answer.get("stopped") or upload.state is State.CANCELLED or not current:
                # It may have come as far as its results; the batch may be gone already.
                if current:
                    upload.rows = 0
                    with contextlib.suppress(OSError, sqlite3.Error):
                        self._forget(batch, upload)
                return
            upload.stage = ""
            if answer["error"] is not None:
                if upload.kind == RECORDING and task_name == "recording":
                    # As for the command line: a cell without values, with the reason.
                    self._queue(batch, upload, "refuse", reason=answer["error"])
                    return
                reason = str(answer["error"]).removeprefix(upload.label).lstrip(": ")
                upload.state, upload.reason = State.FAILED, reason
                return
            upload.messages = answer.get("messages", upload.messages)
            if task_name == "example":
                upload.size = answer["size"]
                upload.example = None
                self._begin(batch, upload)
            elif task_name == "columns":
                self._columns_known(batch, upload, answer)
            else:
                upload.rows, upload.reason = answer["rows"], answer.get("failed")
                upload.state = State.FAILED if upload.reason else State.DONE

    def _columns_known(self, batch: Upload, upload: UploadedFile, answer: dict[str, Any]) -> None:
        if answer["own"]:
            self._queue(batch, upload, "table")
            return
        upload.columns = answer
        if upload.confirm:
            upload.state = State.COLUMNS
        else:
            self._queue(batch, upload, "table")

    # What is shown

    def details(self, batch: Upload, number: int, row: int) -> dict[str, Any]:
        """What a page about a cell is made from.

        Returns
        -------
        dict
            ``details`` as `crosspatch.reporting.cell_view.CellView.as_json` has them;
            ``recording``, None for a row of a table.

        Raises
        ------
        RefusedUploadError
            If there is no such cell, or it cannot be explained.
        """
        upload = batch.upload(number)
        if self.results(batch).one(number, row) is None:
            raise RefusedUploadError(f"{upload.label} has no cell {row}", 404)
        file = batch.folder / DETAILS.format(upload=number, row=row)
        if not file.exists():
            task = QueuedTask(batch.id, self._request("explain", batch, upload) | {"row": row})
            answer = self._wait(task)
            if answer["error"] is not None:
                raise RefusedUploadError(f"{upload.label}: {answer['error']}", 409)
        recorded = batch.folder / RECORDED.format(upload=number)
        return {"details": _read(file), "recording": _read(recorded) if recorded.exists() else None}

    def sweeps(
        self,
        batch: Upload,
        number: int,
        kind: str,
        start: float | None,
        end: float | None,
        stretches: int = STRETCHES,
    ) -> list[dict[str, Any]]:
        """Sweeps of one kind of stimulus; see `read_traces`.

        Raises
        ------
        RefusedUploadError
            If there are none.
        """
        upload = batch.upload(number)
        if not (upload.folder / INDEX).exists():
            raise RefusedUploadError(f"{upload.label}: there are no sweeps", 404)
        found = read_traces(upload.folder, kind, start=start, end=end, stretches=stretches)
        if not found:
            raise RefusedUploadError(
                f"{upload.label}: there is no sweep with stimulus '{kind}'", 404
            )
        return found

    def export(self, batch: Upload, format_: str) -> Path:
        """Write the cells of a batch to a file, which the caller deletes.

        Raises
        ------
        RefusedUploadError
            If there is no cell, or it takes too long.
        """
        with batch.lock:
            uploads = sorted(
                (each for each in batch.uploads.values() if each.rows),
                # As the command line has it: recordings, then tables.
                key=lambda each: (each.kind != RECORDING, each.number),
            )
            known = [
                self._request("", batch, each)
                | {
                    "kind": each.kind,
                    "rows": each.rows,
                    "failed": each.reason,
                    "messages": list(each.messages),
                }
                for each in uploads
            ]
            unread = [
                (each.label, each.reason)
                for each in batch.uploads.values()
                if each.reason and not each.rows
            ]
        if not known:
            raise RefusedUploadError("there is no predicted cell yet", 409)
        out = batch.folder / f"export-{secrets.token_hex(8)}.{format_}"
        request = {
            "task": "export",
            "batch": str(batch.folder),
            "format": format_,
            "out": str(out),
            "uploads": known,
            "unread": unread,
        }
        try:
            answer = self._wait(QueuedTask(batch.id, request))
            if answer["error"] is not None:
                raise RefusedUploadError(answer["error"], 409)
        except RefusedUploadError:
            # A process that was ended leaves what it had written so far.
            for file in batch.folder.glob(f"*{out.name}*"):
                file.unlink(missing_ok=True)
            raise
        return out

    def _wait(self, task: QueuedTask) -> dict[str, Any]:
        """Have something done that a request waits for."""
        try:
            return self.workers.put(task, first=True).answer.result(2 * self.settings.seconds)
        except TooLateError:
            task.stop()
            raise RefusedUploadError("the server is busy; try again later", 503) from None


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))
