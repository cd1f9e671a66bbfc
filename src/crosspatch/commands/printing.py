"""How commands say what goes on, show progress and ask."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer

from crosspatch.commands.terminal import print_text
from crosspatch.errors import CrosspatchError, as_flag

if TYPE_CHECKING:
    import anndata

    from crosspatch.features.many import ExtractionProgress


class ShowProgress(Protocol):
    """Told what is being done, how many pieces of it, of how many, and a note beside it."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...  # noqa: D102


def say_on_stderr(said: str | CrosspatchError) -> None:
    """One line for the user, beside the output; an error names parameters as flags."""
    if isinstance(said, CrosspatchError):
        said = " ".join(said.in_words(as_flag).split())
    line = f"crosspatch: {said}"
    if sys.stderr.isatty():
        print_text(line, 2, sys.stderr)
    else:  # a line each, for whatever reads them
        print(line, file=sys.stderr)


def exit_if_failed(failed: Mapping[str, str]) -> None:
    """End with code 1 where some of the inputs could not be read."""
    if failed:
        say_on_stderr(f"{len(failed)} of the inputs could not be read: {', '.join(failed)}")
        raise typer.Exit(1)


def print_warning(text: str) -> None:
    """What must not be overlooked."""
    if text:
        print_text(f"\n*** {text} ***\n")


def ask_at_terminal(column: str, candidates: Sequence[str]) -> str | None:
    """Ask at the terminal what a column is."""
    shown = ", ".join(f"{k} {name}" for k, name in enumerate(candidates, 1))

    def chosen(answer: str) -> int:
        if answer.strip() not in map(str, range(len(candidates) + 1)):
            raise typer.BadParameter(f"write a number from 0 to {len(candidates)}")
        return int(answer)

    answer = typer.prompt(f"Column '{column}' is: {shown}, 0 none of these", value_proc=chosen)
    return candidates[answer - 1] if answer else None


@contextmanager
def progress_bar(*, goes_on: bool = True) -> Iterator[ShowProgress]:
    """A bar on stderr with rate and remaining time.

    `goes_on` says whether the same command, given again after a stop, goes on where it was.
    """
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        "{task.fields[rate]}",
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    lines: dict[str, tuple[progress.TaskID, float, int]] = {}

    def tell(what: str, done: int, total: int, note: str = "") -> None:
        bar.start()
        if what not in lines:
            lines[what] = bar.add_task(what, total=total, rate=""), time.monotonic(), done
        line, begun, before = lines[what]
        passed = time.monotonic() - begun
        rate = f"{(done - before) / passed:.2f}/s" if done > before and passed > 0 else ""
        shown = f"{what} ({note})" if note else what
        bar.update(line, description=shown, completed=done, total=total, rate=rate)

    try:
        yield tell
    except KeyboardInterrupt:
        bar.stop()
        again = "; give the same command again to go on" if goes_on else ""
        say_on_stderr(f"stopped{again}")
        raise typer.Exit(130) from None
    finally:
        if bar.live.is_started:
            bar.stop()


def recordings_done(tell: ShowProgress) -> Callable[[ExtractionProgress], None]:
    """Tells how many recordings are done, and how many failed."""
    return lambda state: tell("recordings", state.done, state.total, f"{state.failed} failed")


def print_joined(cohort: anndata.AnnData) -> None:
    """Where the cells of a cohort come from."""
    from crosspatch.cohorts.table import head_of

    head = head_of(cohort)
    name = ", ".join(sorted(set(cohort.obs["dataset"].astype(str))))
    if head.joined:
        counts = ", ".join(f"{key} {value:,}" for key, value in head.joined.items())
        print_text(f"{name}: {sum(head.joined.values()):,} labelled cells joined ({counts})", 2)
    dropped = [f"{count} {reason}" for reason, count in head.dropped.items() if count]
    print_text(f"{name}: {cohort.n_obs:,} cells kept; left out: {', '.join(dropped) or 'none'}", 2)
    if head.sources and not head.verified:
        print_text(f"{name}: built from files that are not the pinned versions (--unverified)", 2)
