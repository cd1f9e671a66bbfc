"""What commands print, and how they show progress and ask."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import typer

from crosspatch.species import SPECIES
from crosspatch.telling import Stage

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from crosspatch.evaluation.results import BenchmarkResult


def number(value: float, digits: int = 1) -> str:
    """Empty where it is missing."""
    return "" if value != value else f"{value:.{digits}f}"


def print_sweeps(recording: Any, analysis: Any) -> None:
    """A recording's sweeps with their stimuli and quality."""
    from crosspatch.recordings.quality import SweepQuality

    spikes: dict[int, int] = {}
    for responses in (analysis.long_square, analysis.short_square, analysis.ramp):
        if responses is not None:
            spikes |= dict(
                zip(responses.numbers, map(len, responses.features["spikes_set"]), strict=False)
            )
    rows = []
    for sweep in recording.current_clamp:
        stimulus = analysis.stimuli.get(sweep.number)
        quality = analysis.qualities.get(sweep.number, SweepQuality(reasons=("not measured",)))
        there = stimulus is not None and stimulus.kind != "none"
        rows.append(
            (
                str(sweep.number),
                stimulus.kind if stimulus is not None else "unknown",
                sweep.description + (" (!)" if stimulus is not None and stimulus.disagrees else ""),
                number(stimulus.amplitude) if there else "",
                number(stimulus.start, 4) if there else "",
                number(stimulus.duration, 4) if there else "",
                f"{sweep.rate / 1e3:g}",
                number(quality.baseline),
                number(quality.drift, 2),
                number(quality.fast_noise, 3),
                str(spikes.get(sweep.number, "")),
                "passed" if quality.passed else "; ".join(quality.reasons),
            )
        )
    measures = ("pA", "start s", "lasts s", "kHz", "baseline mV", "drift mV", "noise mV", "spikes")
    print_rows("Sweeps", ("sweep", "stimulus", "name", *measures, "quality"), rows, n_text=3)


def print_extracted(cohort: anndata.AnnData) -> None:
    """What an extraction gave."""
    obs = cohort.obs
    labelled = int(obs["subclass"].notna().sum())
    print(f"{labelled} cells have a label, {cohort.n_obs - labelled} have none")
    failed = obs[~obs["qc_passed"].astype(bool)]
    if len(failed):
        print(f"{len(failed)} cells fail quality control (qc_passed, qc_reasons), the first:")
        for name, reason in failed["qc_reasons"].head(3).items():
            print(f"  {name}: {reason}")
    if obs["simulated"].astype(bool).any():
        print(f"{int(obs['simulated'].sum())} cells are SIMULATED")
    if "bytes_read" in obs:
        read, whole = obs["bytes_read"].sum(), obs["file_bytes"].sum()
        share = (obs["bytes_read"] / obs["file_bytes"]).quantile([0, 0.5, 1])
        print(
            f"{read / 1e6:.1f} MB read of {whole / 1e6:.1f} MB ({read / whole:.1%}; of a file "
            f"{share.iloc[0]:.0%} to {share.iloc[2]:.0%}, half of them below {share.iloc[1]:.0%})"
        )


@contextmanager
def progress_bar(*, goes_on: bool = True) -> Iterator[Stage]:
    """A bar on stderr with rate and remaining time.

    `goes_on` says whether the same command, given again after a stop, goes on where it was.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    lines: dict[str, TaskID] = {}
    started: dict[str, tuple[float, int]] = {}

    def tell(what: str, done: int, total: int) -> None:
        bar.start()
        name = what.split(" (")[0]
        if name not in lines:
            lines[name] = bar.add_task(what, total=total, rate="")
            started[name] = (time.monotonic(), done)
        begun, before = started[name]
        passed = time.monotonic() - begun
        rate = f"{(done - before) / passed:.2f}/s" if done > before and passed > 0 else ""
        bar.update(lines[name], description=what, completed=done, total=total, rate=rate)

    try:
        yield tell
    except KeyboardInterrupt:
        bar.stop()
        again = "; give the same command again to go on" if goes_on else ""
        print(f"crosspatch: stopped{again}", file=sys.stderr)
        raise typer.Exit(130) from None
    finally:
        if bar.live.is_started:
            bar.stop()


def recordings_done(tell: Stage) -> Callable[[Any], None]:
    """Tells how many recordings are done, and how many failed."""
    return lambda state: tell(f"recordings ({state.failed} failed)", state.done, state.total)


def print_predictions(output: Any) -> None:
    """Predictions, the first 40 rows."""
    shown = output.first.to_table().head(40)
    rows = [
        (
            str(row["cell_id"]),
            row["species"] + ("" if row["species_known"] else " (assumed)"),
            str(row["subclass"]),
            number(row["probability"], 2),
            str(row["prediction_set"]).replace("|", ", "),
            str(row["verdict"]),
            number(row["p_reference"], 3),
            f"{row['completeness']:.0%}",
        )
        for _, row in shown.iterrows()
    ]
    header = ("cell", "species", "subclass", "p", "90 % set", "verdict", "p reference", "measured")
    print_rows("Predictions", header, rows, n_text=3, fold=(0, 1, 4, 5, 6, 7))
    for _, row in shown.drop_duplicates(["cell_id", "notes"]).iterrows():
        for kind in ("quality", "notes"):
            if row[kind]:
                print(
                    f"  {row['cell_id']}: {'fails quality control: ' * (kind == 'quality')}"
                    f"{row[kind]}"
                )
    if not shown["species_known"].all():
        known = " or ".join(sorted(SPECIES))
        print(f"species unknown: judged by both references; give --species {known}")
    if output.rows > len(shown):
        print(f"{output.rows:,} rows in all, the first {len(shown)} are shown; --out keeps all")
    counts = ", ".join(f"{name} {count:,}" for name, count in output.verdicts.most_common())
    print(f"verdicts: {counts}")
    if any(model["simulated"] for model in output.first.header["models"]):
        print_warning("The model was trained on SIMULATED recordings")


def print_warning(text: str) -> None:
    """A line that must not be overlooked."""
    if text:
        print(f"\n*** {text} ***\n")


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


def print_result(result: BenchmarkResult) -> None:
    """Scores and paired differences."""
    summary = result.summary
    print(f"\n{result.settings['protocol']}: {result.settings['protocol_about']}")

    def spread(row: Any, name: str) -> str:
        return f"{row[f'{name}_mean']:.4f} ± {row[f'{name}_sd']:.4f}"

    def theirs(row: Any, name: str) -> str:
        value = row[f"published_{name}"]
        return "" if value != value else f"{value:.4f}"

    rows = [
        (
            row["task"],
            row["features"],
            row["model"],
            spread(row, "macro_f1"),
            theirs(row, "macro_f1"),
            spread(row, "accuracy"),
            theirs(row, "accuracy"),
        )
        for _, row in summary.iterrows()
    ]
    header = ("task", "features", "model", "macro-F1", "published", "accuracy", "published")
    print_rows("Results (mean ± SD over runs)", header, rows, n_text=3)
    if summary["published_macro_f1"].notna().any():
        print(
            "published: arXiv 2603.11000, other cells (after its own QC of recordings) and "
            "features, folds that ignore the donor; for orientation, not a like-for-like comparison"
        )
    if len(result.comparisons):
        differences = [
            (
                row["task"],
                f"{row['model_a']} − {row['model_b']}",
                f"{row['delta_macro_f1']:+.4f}",
                f"[{row['ci_low']:+.4f}, {row['ci_high']:+.4f}]",
                f"{row['p_value']:.3f}",
            )
            for _, row in result.comparisons.iterrows()
        ]
        print_rows(
            "Paired differences, corrected resampled t-test",
            ("task", "difference", "macro-F1", "95 % interval", "p"),
            differences,
        )


def ask_at_terminal(column: str, candidates: Any) -> str | None:
    """Ask at the terminal what a column is."""
    from click import IntRange

    shown = ", ".join(f"{k} {name}" for k, name in enumerate(candidates, 1))
    choice = IntRange(0, len(candidates))
    answer = typer.prompt(f"Column '{column}' is: {shown}, 0 none of these", type=choice)
    return candidates[answer - 1] if answer else None


def say_on_stderr(line: str) -> None:
    """A line for the user, beside the output."""
    print(f"crosspatch: {line}", file=sys.stderr)


def print_explanation(found: Any) -> None:
    """What an explanation of models found."""

    def interval(row: Any) -> str:
        low, high = row["ci_low"], row["ci_high"]
        return "" if low != low else f"[{low:+.3f}, {high:+.3f}]"

    importance = found.tables["importance"]
    every = importance[importance["scope"] == "macro_f1"]
    print_rows(
        "Fall in macro-F1 without a family, on held-out donors",
        ("species", "model", "family", "how", "fall", "95 % interval"),
        [
            (
                *(str(row[n]) for n in ("species", "model", "family", "how")),
                f"{row['drop']:+.3f}",
                interval(row),
            )
            for _, row in every.iterrows()
        ],
        n_text=4,
    )
    print_rows(
        "Does attention say so? Rank correlation over families",
        ("compared", "species", "model", "Spearman", "95 % interval", "verdict"),
        [
            (
                *(str(row[n]) for n in ("what", "species", "model")),
                number(row["spearman"], 2),
                interval(row),
                str(row["verdict"]),
            )
            for _, row in found.tables["agreement"].iterrows()
        ],
        n_text=3,
    )
    conserved = found.tables["conserved"]
    if len(conserved):
        counts = conserved.groupby(["level", "group"], sort=False)["verdict"].value_counts()
        kinds = ("same", "opposite", "mouse only", "human only", "neither")
        print_rows(
            "Features that separate a group from the rest, in mouse and human",
            ("level", "group", *kinds),
            [
                (
                    str(level),
                    str(group),
                    *(str(counts.get((level, group, kind), 0)) for kind in kinds),
                )
                for level, group in dict.fromkeys((k[0], k[1]) for k in counts.index)
            ],
        )
    separation = found.tables["separation"]
    print_rows(
        "How far subclasses lie apart in the sparse-PCA space",
        ("species", "measure", "a", "b", "value", "p"),
        [
            (
                *(str(row[n]) for n in ("species", "metric", "a", "b")),
                number(row["value"], 2),
                number(row["p_value"], 3),
            )
            for _, row in separation.iterrows()
        ],
        n_text=4,
    )


def print_curve(curve: Any) -> None:
    """The learning curve."""

    def interval(row: Any) -> str:
        low, high = row["ci_low"], row["ci_high"]
        return "" if low != low else f"[{low:+.4f}, {high:+.4f}]"

    print(f"\n{curve.settings['protocol']}: {curve.settings['protocol_about']}")
    every = curve.summary[curve.summary["cut"] == "all"]
    print_rows(
        "Macro-F1 by labelled human cells of each class (mean ± SD over draws)",
        ("model", "mouse", "cells a class", "macro-F1"),
        [
            (
                row["model"],
                "with" if row["mouse"] else "without",
                str(row["cells_per_class"]),
                f"{row['macro_f1_mean']:.4f} ± {row['macro_f1_sd']:.4f}",
            )
            for _, row in every.iterrows()
        ],
    )
    print_rows(
        "What mouse adds, corrected resampled t-test",
        ("difference", "cut", "cells a class", "macro-F1", "95 % interval", "p"),
        [
            (
                f"{row['model']} − {row['without']}",
                row["cut"],
                str(row["cells_per_class"]),
                f"{row['delta_macro_f1']:+.4f}",
                interval(row),
                number(row["p_value"], 3),
            )
            for _, row in curve.gains.iterrows()
        ],
    )


def print_calibration(result: BenchmarkResult) -> None:
    """How honest the uncertainty is."""
    found = result.calibration
    assert found is not None  # noqa: S101, for the type checker

    def spread(row: Any, name: str) -> str:
        mean, deviation = row[f"{name}_mean"], row[f"{name}_sd"]
        return f"{mean:.3f}" + ("" if deviation != deviation else f" ± {deviation:.3f}")

    who = ("task", "model")
    names: tuple[str, ...] = ("ece", "confident", "accuracy_confident", "outside", "refused")
    print_rows(
        "Calibration (expected calibration error; shares of cells)",
        (*who, *(name.replace("_", " ") for name in names)),
        [
            (*(row[name] for name in who), *(spread(row, name) for name in names))
            for _, row in found.calibration.iterrows()
        ],
    )
    names = ("coverage", "set_size", "one_class", "empty")
    print_rows(
        "90 % prediction sets",
        (*who, "sets", "class", *(name.replace("_", " ") for name in names)),
        [
            (*(row[n] for n in (*who, "sets", "class")), *(spread(row, name) for name in names))
            for _, row in found.coverage.iterrows()
        ],
        n_text=4,
    )
    names = ("macro_f1", "accuracy", "coverage", "set_size", "refused")
    print_rows(
        "By what is present",
        (*who, "present", *(name.replace("_", " ") for name in names)),
        [
            (*(row[n] for n in (*who, "present")), *(spread(row, name) for name in names))
            for _, row in found.families.iterrows()
        ],
        n_text=3,
    )


def exit_if_failed(failed: Mapping[str, str]) -> None:
    """End with code 1 where some of the inputs could not be read."""
    if failed:
        say_on_stderr(f"{len(failed)} of the inputs could not be read: {', '.join(failed)}")
        raise typer.Exit(1)


def print_table(title: str, frame: pd.DataFrame, shares: Iterable[str] = ()) -> None:
    """A DataFrame."""

    def text(name: str, value: Any) -> str:
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
    header: Iterable[str],
    rows: Iterable[Iterable[str]],
    n_text: int = 2,
    fold: tuple[int, ...] = (),
) -> None:
    """Print a table; columns in `fold` are broken into lines where the terminal is narrow."""
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
