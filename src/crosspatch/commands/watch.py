"""Recordings are predicted as a rig writes them."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crosspatch.commands import options
from crosspatch.commands.printing import progress_bar, say_on_stderr
from crosspatch.commands.root import command
from crosspatch.errors import CohortError, CrosspatchError, as_flag

if TYPE_CHECKING:
    from crosspatch.commands.options import Asked
    from crosspatch.prediction.pipeline import Pipeline
    from crosspatch.prediction.watching import Update, Watch

# The page has a picture of each of the last cells, and a browser loads it again, s.
_PICTURES, _RELOAD = 3, 30
# While files wait, the page is written no more often than this, s.
_BETWEEN_PAGES = 60.0
# Looking through the folders takes no more than this share of the time.
_LOOKING = 1 / 3


@command(
    "watch", "My cells", "watch /rig/today --species mouse --out results.csv --page results.html"
)
@options.with_request
def watch(
    *,
    folders: Annotated[list[Path], typer.Argument(help="Folders, and what is below them.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="File that is kept up to date, .csv.")
    ] = Path("results.csv"),
    page: Annotated[
        Path | None,
        typer.Option(help="Page that is kept up to date, .html; a browser reloads it by itself."),
    ] = None,
    settle: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="SECONDS", help="A file that has not changed for so long is whole."
        ),
    ] = 5.0,
    asked: Asked,
) -> None:
    """Predict recordings as they come into folders, until it is stopped (Ctrl-C).

    Prints a line for each cell. All cells are judged together, as `crosspatch predict FOLDER` does;
    what was measured is kept beside the csv, and the same command goes on where it was.
    """
    from crosspatch.features.many import store_beside
    from crosspatch.features.store import CellStore
    from crosspatch.prediction.output import open_output
    from crosspatch.prediction.pipeline import Listener, Pipeline
    from crosspatch.prediction.watching import Arrivals, Watch
    from crosspatch.telling import Messages

    for folder in folders:
        if not folder.is_dir():
            raise CohortError(f"{folder} is not a folder")
    if out.suffix != ".csv":
        raise CohortError(f"{out}: it is kept up to date as .csv; change the name")
    open_output(out, (), None, page)
    with progress_bar(goes_on=False) as tell:
        listener = Listener(Messages(say_on_stderr), None, tell, as_flag)
        pipeline = Pipeline(asked(list(folders)), listener, later=True)
    with CellStore(store_beside(out)) as store, _stopped_by_signals():
        watched = Watch(pipeline, store, Arrivals(folders, settle, listener.say))
        if out.exists() and not watched.files:
            raise CohortError(
                f"{out} is there, but nothing of how it was measured (in {store.file.name}), or "
                "that was by other settings or another version",
                hint="give another {out}, or move it away",
            )
        written = _Written(out, page, pipeline)
        try:
            _watch(watched, written, settle, ", ".join(map(str, folders)))
        except KeyboardInterrupt:
            written.add(watched.update(), watched)
            written.write(final=True)
            print(f"stopped; {watched.files:,} files are done, in {out}")


def _watch(watched: Watch, written: _Written, settle: float, where: str) -> None:
    """Look, predict and write, without end."""
    print(f"watching {where}; Ctrl-C ends it", flush=True)
    if watched.files:
        print(f"{watched.files:,} files are done already", flush=True)
        written.add(watched.update(), watched)
    while True:
        begun = time.monotonic()
        if watched.look():
            written.add(watched.update(), watched)
        written.write()
        looked = time.monotonic() - begun
        time.sleep(max(settle / 3, looked * (1 / _LOOKING - 1)) if not watched.busy else 0)


class _Written:
    """What is kept up to date: lines, the csv, the page."""

    def __init__(self, out: Path, page: Path | None, pipeline: Pipeline):
        self._out, self._page, self._pipeline = out, page, pipeline
        self._update: Update | None = None
        self._lines: list[str] = []
        self._due = {"csv": False, "page": False}
        self._failed = ""  # why something could not be written
        self._busy = False
        self._page_at = -_BETWEEN_PAGES

    def add(self, update: Update | None, watched: Watch) -> None:
        """Take what is known of all cells, and print those that are new."""
        if update is None:
            return
        now = time.strftime("%H:%M:%S")
        for cell in update.new:
            print(f"{now} {cell.line}", flush=True)
        self._update, self._lines, self._busy = update, watched.lines, watched.busy
        self._due = {"csv": True, "page": self._page is not None}

    def write(self, *, final: bool = False) -> None:
        """Write what is not written yet; what cannot be is tried again, which is said once."""
        try:
            if self._due["csv"]:
                self._write_csv()
            early = self._busy and time.monotonic() < self._page_at + _BETWEEN_PAGES
            if self._due["page"] and (final or not early):
                self._write_page()
            self._failed = ""
        except CrosspatchError as error:
            if str(error) != self._failed:
                say_on_stderr(f"{error}; tried again")
            self._failed = str(error)

    def _write_csv(self) -> None:
        from crosspatch.prediction.output import Output

        assert self._update is not None  # noqa: S101, for the type checker
        with Output(self._out) as output:
            output.add(self._update.prediction)
        self._due["csv"] = False

    def _write_page(self) -> None:
        from datetime import datetime

        from crosspatch.prediction.explained import explain_first
        from crosspatch.prediction.watching import newest_first
        from crosspatch.reporting.batch_report import write_batch_report

        assert self._update is not None and self._page is not None  # noqa: S101, PT018
        prediction = newest_first(self._update.prediction)
        write_batch_report(
            prediction,
            self._page,
            explanations=explain_first(self._pipeline, prediction, _PICTURES),
            messages=self._lines,
            title="Predicted subclasses, the last cell first",
            when=datetime.now().astimezone(),
            again=_RELOAD,
        )
        self._page_at = time.monotonic()
        self._due["page"] = False


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Have the signal by which systems end programs do what Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
