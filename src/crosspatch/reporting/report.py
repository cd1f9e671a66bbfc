"""One report of any number of result folders: a page that needs nothing else."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from crosspatch.cohorts.dataset import datasets
from crosspatch.errors import CrosspatchError, ModelError
from crosspatch.evaluation.learning_curve import LEARNING_CURVE
from crosspatch.evaluation.results import BENCHMARK
from crosspatch.explanation.explain import EXPLANATION
from crosspatch.models.registry import model_entry
from crosspatch.reporting.benchmark_sections import (
    by_source,
    calibration_blocks,
    class_f1_blocks,
    cohorts_blocks,
    confusion_blocks,
    gain_blocks,
    results_blocks,
)
from crosspatch.reporting.explanation_sections import (
    conserved_blocks,
    curve_blocks,
    explanation_blocks,
    pictures_blocks,
    separation_blocks,
)
from crosspatch.reporting.findings import findings
from crosspatch.reporting.numbers import (
    Content,
    ResultSource,
    Setting,
    checksum,
    listed,
    read_source,
    say,
)
from crosspatch.reporting.page import (
    Block,
    Commands,
    Heading,
    Paragraph,
    Points,
    Section,
    Table,
    write_page,
)
from crosspatch.telling import Progress

_TITLE = "Transcriptomic subclass from patch-clamp recordings"

_SIMULATED = "SIMULATED recordings: the results say nothing about real neurons."

# Sections in their order: id, title, kind of folder, what makes its blocks.
_SECTIONS: tuple[tuple[str, str, str, Callable[[ResultSource], Iterator[Block]]], ...] = (
    ("results", "Results", BENCHMARK, results_blocks),
    ("confusion", "Confusion of subclasses", BENCHMARK, confusion_blocks),
    ("f1-by-subclass", "F1 by subclass", BENCHMARK, class_f1_blocks),
    ("gain-from-mouse", "Gain from mouse", BENCHMARK, gain_blocks),
    ("learning-curve", "Learning curve", LEARNING_CURVE, curve_blocks),
    ("calibration", "Calibration and prediction sets", BENCHMARK, calibration_blocks),
    ("explanation", "What the models go by", EXPLANATION, explanation_blocks),
    ("conserved", "What means the same in both species", EXPLANATION, conserved_blocks),
    ("separation", "Separation of subclasses", EXPLANATION, separation_blocks),
    ("cells", "The cells and their features", EXPLANATION, pictures_blocks),
)

# What a report can hold, in words, and the command that makes it.
_MAKES = {
    "results": ("scores of models", "crosspatch run --out results"),
    "gain-from-mouse": ("the gain from mouse", "crosspatch run --task transfer --out transfer"),
    "learning-curve": ("the learning curve", "crosspatch learning-curve --out learning-curve"),
    "calibration": (
        "calibration",
        "crosspatch run --calibration --task human --models vote --out calibration",
    ),
    "explanation": ("explanations", "crosspatch explain-models --out explanation"),
}

_METHOD = (
    "Schwider, Ramezani: Cross-Species Transfer Learning for Electrophysiology-to-Transcriptomics "
    "Mapping in Cortical GABAergic Interneurons. arXiv 2603.11000 (2026): the method, and the "
    "published numbers."
)
_MEASURING = "IPFX, Allen Institute: the measurement of features."


def citation() -> tuple[str, ...]:
    """What to cite: the method, the cells, the features."""
    return (_METHOD, *(each.citation for each in datasets().values()), _MEASURING)


def write_report(
    folders: Sequence[str | Path], out: str | Path, progress: Progress | None = None
) -> list[Path]:
    """Write one page about result folders, and its figures beside it.

    Parameters
    ----------
    folders : sequence of path
        Of any kind: benchmarks, learning curves, explanations. Several of one kind stand one
        below the other, under the names of the folders.
    out : path
        The page, ``.html``. Figures go to ``<stem>_figures`` beside it, as PNG and SVG.
    progress : callable, optional
        Told how many figures are done, of how many.

    Returns
    -------
    list of Path
        Files that were written, the page first.

    Raises
    ------
    CrosspatchError
        If a folder holds no results or unfinished ones, real and simulated cells are mixed, or
        the report cannot be written.

    Examples
    --------
    >>> write_report(["results"], "report.html")  # doctest: +SKIP
    """
    sources = read_sources(folders)
    kinds = {
        kind: [source for source in sources if source.kind == kind]
        for kind in (BENCHMARK, LEARNING_CURVE, EXPLANATION)
    }
    made: dict[str, list[Block]] = {}
    for name, _, kind, blocks in _SECTIONS:
        of = kinds[kind]
        made[name] = list(by_source(of, [list(blocks(source)) for source in of]))
    found = list(findings(*kinds.values()))
    cohorts = list(cohorts_blocks(sources))
    sections = [
        Section("about", "What was done", list(_about(sources))),
        Section("findings", "Main findings", [Points(found)] if found else []),
        Section("cohorts", "Cohorts", cohorts),
        *(Section(name, title, made[name]) for name, title, *_ in _SECTIONS),
        Section("settings", "Settings, versions, checksums", list(_settings(sources))),
        Section("missing", "Not in this report", list(_missing(made, sources))),
    ]
    banner = _SIMULATED if any(source.simulated for source in sources) else ""
    return write_page(Path(out), _TITLE, sections, banner=banner, progress=progress)


def read_sources(folders: Sequence[str | Path]) -> list[ResultSource]:
    """Open result folders, each under a name of its own.

    Raises
    ------
    CrosspatchError
        If there is none, one is not whole, or real and simulated cells are mixed.
    """
    paths = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not paths:
        raise CrosspatchError("no result folder was given; give the folder of `crosspatch run`")
    names = [path.name for path in paths]
    sources: list[ResultSource] = []
    for path in paths:
        label = path.name if names.count(path.name) == 1 else f"{path.parent.name}/{path.name}"
        while any(source.label == label for source in sources):
            label += "+"
        sources.append(read_source(path, label))
    made_up = [source for source in sources if source.simulated]
    if made_up and len(made_up) < len(sources):
        real = next(source for source in sources if not source.simulated)
        raise CrosspatchError(
            f"{made_up[0].path} holds results on simulated recordings, {real.path} on real ones; "
            "give a report of each by itself"
        )
    return sources


def _about(sources: Sequence[ResultSource]) -> Iterator[Block]:
    yield Paragraph(
        "Which transcriptomic subclass a cortical interneuron belongs to is learned from "
        "recordings of cells that were sequenced too (Patch-seq), and tested on cells that the "
        "models have not seen."
    )
    for source in sources:
        yield Paragraph(_done(source))
    unverified = {
        species
        for source in sources
        for species, about in source.settings.get("cohorts", {}).items()
        if about.get("sha256") and not about.get("verified", True)
    }
    if unverified:
        yield Paragraph(
            say(
                "The source files of the cells of {species} are not the pinned versions "
                "(--unverified): the numbers need not agree with those of others.",
                species=listed(sorted(unverified)),
            ),
            "warning",
        )


_DONE = {
    BENCHMARK: "scores of {models}{tasks}",
    LEARNING_CURVE: "scores of {models} with few and with many labelled human cells, with and "
    "without mouse cells",
    EXPLANATION: "what decides in {models}: scores without each family of features, and attention "
    "where a model has it",
}


def _done(source: ResultSource) -> Markup:
    settings = source.settings
    models = listed([str(name) for name in settings.get("models", ())]) or Markup("Models")
    tasks: Content = ""
    if source.kind == BENCHMARK and settings.get("tasks"):
        names = list(map(str, settings["tasks"]))
        word = "tasks" if len(names) > 1 else "task"
        tasks = say(" on the {word} {tasks}", word=word, tasks=listed(list(names)))
    parts: list[Content] = [
        say(_DONE[source.kind], models=models, tasks=tasks),
        ", trained and calibrated as by crosspatch train" * bool(settings.get("calibration")),
    ]
    cohorts = [
        say(
            "{cells} {species} cells of {donors} donors",
            cells=Setting(source, ("cohorts", species, "cells")),
            species=species,
            donors=Setting(source, ("cohorts", species, "donors")),
        )
        for species in settings.get("cohorts", {})
    ]
    if cohorts:
        parts.append(say("; {cohorts}", cohorts=listed(list(cohorts))))
    more: list[Content] = []
    if "protocol_about" in settings:
        about = Setting(source, ("protocol_about",))
        more.append(say("Protocol {name}: {about}.", name=settings["protocol"], about=about))
    if "seed" in settings:
        more.append(say("Seed {seed}.", seed=Setting(source, ("seed",))))
    if "machine" in settings:
        more.append(
            say("On {machine}{when}.", machine=Setting(source, ("machine",)), when=_when(settings))
        )
    return say(
        "Folder <code>{label}</code>: {text}. {more}",
        label=source.label,
        text=Markup("").join(parts),
        more=Markup(" ").join(more),
    )


def _when(settings: Mapping[str, Any]) -> Content:
    started = settings.get("started")
    if not started:
        return ""
    try:
        day = datetime.datetime.fromisoformat(started)
    except ValueError:
        return ""
    shown = f"{day.day} {day:%B %Y}"
    return say(', <time datetime="{iso}">{shown}</time>', iso=day.date().isoformat(), shown=shown)


def _missing(
    made: Mapping[str, Sequence[Block]], sources: Sequence[ResultSource]
) -> Iterator[Block]:
    there = {name for name, blocks in made.items() if blocks}
    if "learning-curve" in there:
        there.add("gain-from-mouse")
    lacking = [name for name in _MAKES if name not in there]
    if not lacking:
        return
    yield Paragraph(
        say(
            "No results were given for {what}. These commands make them; give their folders to "
            "crosspatch report together with the others.",
            what=listed([_MAKES[name][0] for name in lacking], "or"),
        )
    )
    names = shlex.join(str(source.label) for source in sources)
    made_in = " ".join(_MAKES[name][1].rsplit(" ", 1)[1] for name in lacking)
    yield Commands(
        [
            *(_MAKES[name][1] for name in lacking),
            f"crosspatch report {names} {made_in} --out report.html",
        ]
    )


def _settings(sources: Sequence[ResultSource]) -> Iterator[Block]:
    for source in sources:
        yield Heading(say("Folder <code>{label}</code>", label=source.label))
        yield Commands([command_of(source)])
        yield Table(
            say("Settings of folder {label}", label=_code(source.label)),
            ("Setting", "Value"),
            [
                (" ".join(path).replace("_", " "), Setting(source, path))
                for path in _leaves(source.settings)
            ],
            last_text=True,
            folded=True,
        )
    yield Heading("Files")
    hashes: dict[tuple[str, str, str], None] = {}
    for source in sources:
        for species, about in source.settings.get("cohorts", {}).items():
            for file, digest in about.get("sha256", {}).items():
                hashes[(f"source of {species} cells", file, digest)] = None
        for file in source.files:
            hashes[("result", f"{source.label}/{file.name}", checksum(file))] = None
    yield Table(
        "Checksums (sha256) of what this report is made from",
        ("What", "File", "Sha256"),
        [(what, _code(file), _code(digest)) for what, file, digest in hashes],
        texts=3,
        folded=True,
    )
    yield Heading("Models")
    models = dict.fromkeys(n for s in sources for n in s.settings.get("models", ()))
    yield Table(
        "Models by name",
        ("Name", "What it is"),
        [(n, _about_model(n)) for n in models],
        last_text=True,
    )
    yield Heading("Please cite")
    yield Points(citation())


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def _about_model(name: str) -> str:
    try:
        return model_entry(name).about
    except ModelError:
        return "not in this version of crosspatch"


def _leaves(settings: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all values, but for what has a table of its own."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            if key not in ("sha256", "subclasses", "dropped"):
                yield from _leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key))


def command_of(source: ResultSource) -> str:
    """The command that makes a folder's results again."""
    settings = source.settings
    commands = {EXPLANATION: "explain-models", LEARNING_CURVE: "learning-curve"}
    words = ["crosspatch", commands.get(source.kind, "run")]
    if source.kind == BENCHMARK:
        words += ["--task", *settings.get("tasks", ())]
    if settings.get("models"):
        words += ["--models", *settings["models"]]
    layouts = {str(name).split(" (")[0] for name in settings.get("features", {}).values()}
    if source.simulated:
        words += ["--cohort", "simulated"]
    if len(layouts) == 1:
        words += ["--features", *layouts]
    for name in ("protocol", "runs", "alignment", "seed", "seeds"):
        if name in settings:
            words += [f"--{name}", str(settings[name])]
    if settings.get("calibration"):
        words.append("--calibration")
    if not settings.get("removed", True):
        words.append("--no-removed")
    if any(
        about.get("sha256") and not about.get("verified", True)
        for about in settings.get("cohorts", {}).values()
    ):
        words.append("--unverified")
    return shlex.join([*words, "--out", source.label])
