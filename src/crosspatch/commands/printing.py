"""How commands print, say what goes on, show progress and ask."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from string import Formatter
from typing import TYPE_CHECKING, Literal, Protocol

import typer

from crosspatch.errors import CrosspatchError, as_flag

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from crosspatch.features.many import ExtractionProgress


class ShowProgress(Protocol):
    """Told what is being done, how many pieces of it, of how many, and a note beside it."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...  # noqa: D102


def say_on_stderr(said: str | CrosspatchError) -> None:
    """One line for the user, beside the output; an error names parameters as flags."""
    if isinstance(said, CrosspatchError):
        said = " ".join(said.in_words(as_flag).split())
    print(f"crosspatch: {said}", file=sys.stderr)


def exit_if_failed(failed: Mapping[str, str]) -> None:
    """End with code 1 where some of the inputs could not be read."""
    if failed:
        say_on_stderr(f"{len(failed)} of the inputs could not be read: {', '.join(failed)}")
        raise typer.Exit(1)


def print_warning(text: str) -> None:
    """A line that must not be overlooked."""
    if text:
        print(f"\n*** {text} ***\n")


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


def print_frame(
    title: str,
    frame: pd.DataFrame,
    columns: Iterable[str | tuple[str, ...]],
    n_text: int = 2,
    fold: tuple[int, ...] = (),
) -> None:
    """A table of a DataFrame, in formats.

    A column is its name in the frame, or its header and the parts of its format, which name the
    frame's columns; a part is left out where a value of it is missing.
    """
    shown = [(each, f"{{{each}}}") if isinstance(each, str) else each for each in columns]

    def text(row: dict[str, object], part: str) -> str:
        fields = [name for _, name, _, _ in Formatter().parse(part) if name]
        return "" if any(row[name] != row[name] for name in fields) else part.format_map(row)

    rows = [
        ["".join(text(row, part) for part in parts) for _, *parts in shown]
        for row in ({str(k): v for k, v in each.items()} for each in frame.to_dict("records"))
    ]
    print_rows(title, [header for header, *_ in shown], rows, n_text, fold)


def print_table(title: str, frame: pd.DataFrame, shares: Iterable[str] = ()) -> None:
    """A whole DataFrame as it is; some of its columns are `shares`."""

    def text(name: str, value: object) -> str:
        if name in shares:
            return f"{value:.1%}"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    header = [str(name) for name in frame.columns]
    rows = [
        [text(name, value) for name, value in zip(header, row, strict=True)]
        for row in frame.itertuples(index=False)
    ]
    print_rows(title, header, rows)


def print_rows(
    title: str,
    header: Sequence[str],
    rows: Iterable[Iterable[str]],
    n_text: int = 2,
    fold: tuple[int, ...] = (),
) -> None:
    """A table; columns in `fold` are broken into lines where the terminal is narrow."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for number, name in enumerate(header):
        justify: Literal["left", "right"] = "left" if number < n_text else "right"
        table.add_column(name, justify=justify, no_wrap=number not in fold, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # not as markup: a cell may be called [/x]
    # Into a pipe or file, as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)


def number_text(value: float, digits: int = 1) -> str:
    """Empty where it is missing."""
    return "" if value != value else f"{value:.{digits}f}"


def print_joined(cohort: anndata.AnnData) -> None:
    """Where the cells of a cohort come from."""
    from crosspatch.cohorts.table import head_of

    head = head_of(cohort)
    name = ", ".join(sorted(set(cohort.obs["dataset"].astype(str))))
    if head.joined:
        counts = ", ".join(f"{key} {value:,}" for key, value in head.joined.items())
        print(f"{name}: {sum(head.joined.values()):,} labelled cells joined ({counts})")
    dropped = [f"{count} {reason}" for reason, count in head.dropped.items() if count]
    print(f"{name}: {cohort.n_obs:,} cells kept; left out: {', '.join(dropped) or 'none'}")
    if head.sources and not head.verified:
        print(f"{name}: built from files that are not the pinned versions (--unverified)")
