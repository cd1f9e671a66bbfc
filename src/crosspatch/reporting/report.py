"""One report of any number of result folders: a page that needs nothing else."""

from __future__ import annotations

import datetime
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from crosspatch.cohorts.dataset import datasets
from crosspatch.errors import CrosspatchError, ModelError
from crosspatch.evaluation.learning_curve import LEARNING_CURVE
from crosspatch.evaluation.results import BENCHMARK, Settings
from crosspatch.evaluation.validation_tables import VALIDATION
from crosspatch.explanation.explain import EXPLANATION
from crosspatch.models.registry import model_entry
from crosspatch.reporting import benchmark_sections as scores
from crosspatch.reporting import explanation_sections as reasons
from crosspatch.reporting.curves import curve_blocks
from crosspatch.reporting.findings import findings
from crosspatch.reporting.numbers import (
    Content,
    ResultSource,
    Setting,
    checksum,
    code,
    enumerated,
    open_results,
    report_data,
    say,
)
from crosspatch.reporting.page import (
    Block,
    Commands,
    Heading,
    Paragraph,
    Points,
    Section,
    TableBlock,
    write_page,
)
from crosspatch.reporting.score_cuts import cuts_blocks
from crosspatch.reporting.source_blocks import paragraph
from crosspatch.reporting.validation_sections import validation_blocks
from crosspatch.telling import Progress

_TITLE = "Transcriptomic subclass from patch-clamp recordings"
_SIMULATED = "SIMULATED recordings: the results say nothing about real neurons."

# Sections in their order: id, title, kind of folder, what makes its blocks.
_SECTIONS: tuple[tuple[str, str, str, Callable[[ResultSource], Iterator[Block]]], ...] = (
    ("results", "Results", BENCHMARK, scores.results_blocks),
    ("confusion", "Confusion of subclasses", BENCHMARK, scores.confusion_blocks),
    ("f1-by-subclass", "F1 by subclass", BENCHMARK, scores.class_f1_blocks),
    ("cuts", "Where the score comes from", BENCHMARK, cuts_blocks),
    ("gain-from-mouse", "Gain from mouse", BENCHMARK, scores.gain_blocks),
    ("learning-curve", "Learning curve", LEARNING_CURVE, curve_blocks),
    ("calibration", "Calibration and prediction sets", BENCHMARK, scores.calibration_blocks),
    ("validation", "What the answers are worth on labelled cells", VALIDATION, validation_blocks),
    ("explanation", "What the models go by", EXPLANATION, reasons.explanation_blocks),
    ("conserved", "What means the same in both species", EXPLANATION, reasons.conserved_blocks),
    ("separation", "Separation of subclasses", EXPLANATION, reasons.separation_blocks),
    ("cells", "The cells and their features", EXPLANATION, reasons.pictures_blocks),
)


def citation() -> tuple[str, ...]:
    """What to cite: the method, the cells, the features."""
    cite = report_data("blocks")["cite"]
    return (cite["method"], *(each.citation for each in datasets().values()), cite["measuring"])


def write_report(
    folders: Sequence[str | Path], out: str | Path, progress: Progress | None = None
) -> list[Path]:
    """Write one page about result folders, and its figures beside it.

    The folders are of any kind: benchmarks, learning curves, explanations. Several of one kind
    stand one below the other, under their names. Figures go to ``<stem>_figures`` beside the page,
    as PNG and SVG. Gives back the files that were written, the page first. A CrosspatchError if a
    folder holds no results or unfinished ones, real and simulated cells are mixed, or the report
    cannot be written.
    """
    sources = _read_sources(folders)
    kinds = {
        kind: [source for source in sources if source.kind == kind]
        for kind in (BENCHMARK, LEARNING_CURVE, EXPLANATION, VALIDATION)
    }
    made: dict[str, list[Block]] = {}
    for name, _, kind, blocks in _SECTIONS:
        made[name] = list(scores.by_source(kinds[kind], blocks))
    found = findings(kinds[BENCHMARK], kinds[LEARNING_CURVE], kinds[EXPLANATION])
    sections = [
        Section("about", "What was done", list(_about(sources))),
        Section("findings", "Main findings", [Points(found)] if found else []),
        Section("cohorts", "Cohorts", list(scores.cohorts_blocks(sources))),
        *(Section(name, title, made[name]) for name, title, *_ in _SECTIONS),
        Section("settings", "Settings, versions, checksums", list(_settings(sources))),
        Section("missing", "Not in this report", list(_missing(made, sources))),
    ]
    banner = _SIMULATED if any(source.simulated for source in sources) else ""
    return write_page(Path(out), _TITLE, sections, banner=banner, progress=progress)


def _read_sources(folders: Sequence[str | Path]) -> list[ResultSource]:
    """Open result folders, each under a name of its own; real and simulated ones do not mix."""
    paths = list(dict.fromkeys(Path(folder).resolve() for folder in folders))
    if not paths:
        raise CrosspatchError("no result folder was given; give the folder of `crosspatch run`")
    sources = [open_results(path, label) for label, path in _labelled(paths).items()]
    made_up = [source.path for source in sources if source.simulated]
    real = [source.path for source in sources if not source.simulated]
    if made_up and real:
        raise CrosspatchError(
            f"{made_up[0]} holds results on simulated recordings, {real[0]} on real ones; give a "
            "report of each by itself"
        )
    return sources


def _labelled(paths: Sequence[Path]) -> dict[str, Path]:
    """Folders by name; with the folder above it, and a plus, where several have one name."""
    names = Counter(path.name for path in paths)
    found: dict[str, Path] = {}
    for path in paths:
        label = path.name if names[path.name] == 1 else f"{path.parent.name}/{path.name}"
        while label in found:
            label += "+"
        found[label] = path
    return found


def _about(sources: Sequence[ResultSource]) -> Iterator[Block]:
    yield paragraph("question")
    for source in sources:
        yield Paragraph(_done(source))
    unverified = sorted({species for source in sources for species in _unverified(source)})
    if unverified:
        yield paragraph("unverified", "warning", species=enumerated(unverified))


def _unverified(source: ResultSource) -> list[str]:
    """Species of the cohorts whose source files are not the pinned versions."""
    cohorts = source.settings.get("cohorts", {}).items()
    return [name for name, each in cohorts if each.get("sha256") and not each.get("verified", True)]


def _done(source: ResultSource) -> Markup:
    settings = source.settings
    models = enumerated(settings.get("models", ())) or Markup("Models")
    tasks: Content = ""
    if source.kind == BENCHMARK and settings.get("tasks"):
        word = "tasks" if len(settings["tasks"]) > 1 else "task"
        tasks = say(" on the {word} {tasks}", word=word, tasks=enumerated(settings["tasks"]))
    cohorts = [
        say(
            "{cells} {species} cells of {donors} donors",
            cells=Setting(source, ("cohorts", species, "cells")),
            species=species,
            donors=Setting(source, ("cohorts", species, "donors")),
        )
        for species in settings.get("cohorts", {})
    ]
    return say(
        "Folder {folder}: {what}{trained}{cohorts}. {more}",
        folder=code(source.label),
        what=say(report_data("blocks")["done"][source.kind], models=models, tasks=tasks),
        trained=", trained and calibrated as by crosspatch train"
        * bool(settings.get("calibration")),
        cohorts=say("; {cohorts}", cohorts=enumerated(cohorts)) if cohorts else "",
        more=Markup(" ").join(_circumstances(source)),
    )


def _circumstances(source: ResultSource) -> Iterator[Markup]:
    """Protocol, seed and machine, as far as the settings have them."""
    settings = source.settings
    if "protocol_about" in settings:
        about = Setting(source, ("protocol_about",))
        yield say("Protocol {name}: {about}.", name=settings["protocol"], about=about)
    if "seed" in settings:
        yield say("Seed {seed}.", seed=Setting(source, ("seed",)))
    if "machine" in settings:
        machine = Setting(source, ("machine",))
        yield say("On {machine}{when}.", machine=machine, when=_when(settings))


def _when(settings: Settings) -> Content:
    try:
        day = datetime.datetime.fromisoformat(settings.get("started") or "")
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
    lacking = [of for name, of in report_data("blocks")["makes"].items() if name not in there]
    if not lacking or all(source.kind == VALIDATION for source in sources):
        return
    what, commands = zip(*lacking, strict=True)
    yield paragraph("missing", what=enumerated(what, "or"))
    names = [source.label for source in sources] + [words.split()[-1] for words in commands]
    report = shlex.join(["report", *names, "--out", "report.html"])
    yield Commands([f"crosspatch {words}" for words in (*commands, report)])


def _settings(sources: Sequence[ResultSource]) -> Iterator[Block]:
    for source in sources:
        yield Heading(say("Folder {label}", label=code(source.label)))
        yield Commands([command_of(source)])
        yield TableBlock(
            say("Settings of folder {label}", label=code(source.label)),
            ("Setting", "Value"),
            [
                (" ".join(path).replace("_", " "), Setting(source, path))
                for path in _leaves(source.settings)
            ],
            last_text=True,
            folded=True,
        )
    yield Heading("Files")
    hashes = dict.fromkeys(each for source in sources for each in _hashes(source))
    yield TableBlock(
        "Checksums (sha256) of what this report is made from",
        ("What", "File", "Sha256"),
        [(what, code(file), code(digest)) for what, file, digest in hashes],
        texts=3,
        folded=True,
    )
    yield Heading("Models")
    models = dict.fromkeys(n for s in sources for n in s.settings.get("models", ()))
    about = [(name, _about_model(name)) for name in models]
    yield TableBlock("Models by name", ("Name", "What it is"), about, last_text=True)
    yield Heading("Please cite")
    yield Points(citation())


def _hashes(source: ResultSource) -> Iterator[tuple[str, str, str]]:
    """What a file is, its name, and its checksum."""
    for species, about in source.settings.get("cohorts", {}).items():
        for file, digest in about.get("sha256", {}).items():
            yield f"source of {species} cells", file, digest
    for path in source.files:
        yield "result", f"{source.label}/{path.name}", checksum(path)


def _about_model(name: str) -> str:
    try:
        return model_entry(name).about
    except ModelError:
        return "not in this version of crosspatch"


def _leaves(settings: Settings, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all values, but for what has a table of its own."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            if key not in ("sha256", "subclasses", "dropped"):
                yield from _leaves(value, (*above, str(key)))
        else:
            yield (*above, str(key))


def command_of(source: ResultSource) -> str:
    """The command that makes a folder's results again."""
    if source.kind == VALIDATION:
        return _validation_command(source)
    commands = {EXPLANATION: "explain-models", LEARNING_CURVE: "learning-curve"}
    words = ["crosspatch", commands.get(source.kind, "run")]
    for name, values in (_options(source) | {"out": [source.label]}).items():
        words += [f"--{name}", *map(str, values)]
    return shlex.join(words)


def _validation_command(source: ResultSource) -> str:
    settings = source.settings
    if names := [name for each in settings["cohorts"].values() for name in each["dataset"]]:
        words = ["crosspatch", "validate", "--cohort", "+".join(names)]
    else:
        words = ["crosspatch", "validate", settings["cells"], "--label", settings["label"]]
        words += ["--group", settings["group"]] if settings["group"] else []
    for folder in settings["model_folders"]:
        words += ["--model", folder]
    for name in ("species", "sets"):
        words += [f"--{name}", settings[name]] if settings[name] else []
    words += ["--new-cells"] if settings["new_cells"] else []
    return shlex.join([*words, "--out", source.label])


def _options(source: ResultSource) -> dict[str, Sequence[object]]:
    """Options of that command, and what they are given."""
    settings = source.settings
    options: dict[str, Sequence[object]] = {}
    if source.kind == BENCHMARK:
        options["task"] = settings.get("tasks", ())
    if settings.get("models"):
        options["models"] = settings["models"]
    if source.simulated:
        options["cohort"] = ["simulated"]
    elif source.kind == BENCHMARK and "skipped" in settings:
        options["cohort"] = [
            name for each in settings["cohorts"].values() for name in each["dataset"]
        ]
    if settings.get("held_out"):
        options["held-out"] = settings["held_out"]
    layouts = {str(name).split(" (")[0] for name in settings.get("features", {}).values()}
    if len(layouts) == 1:
        options["features"] = [*layouts]
    # Settings are called as their options are.
    options |= {name: [settings[name]] for name in _NAMED if name in settings}
    flags = {
        "calibration": bool(settings.get("calibration")),
        "layer": bool(settings.get("layer")),
        "no-removed": not settings.get("removed", True),
        "unverified": _unverified(source),
    }
    return options | {name: () for name, given in flags.items() if given}


_NAMED = ("protocol", "runs", "alignment", "seed", "seeds")
