"""What a model looks at, and what really happens without it, on held-out donors."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, TypedDict, Unpack

import anndata
import pandas as pd

from crosspatch.cohorts.cells import Cells
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import EvaluationError
from crosspatch.evaluation import runner
from crosspatch.evaluation.protocols import TASKS, Protocol, protocol_named
from crosspatch.evaluation.results import ResultFolder, Settings, read_settings, read_tables
from crosspatch.evaluation.runner import RunKeywords, RunSettings
from crosspatch.evaluation.splits import Fold, derived_seed, make_folds
from crosspatch.explanation import ablation, attention
from crosspatch.explanation.components import cells_by_species
from crosspatch.explanation.result_tables import TABLE_COLUMNS
from crosspatch.features.layouts import Layout
from crosspatch.models.classifier import fit_copy
from crosspatch.models.registry import ModelEntry, model_entry
from crosspatch.species import HUMAN, MOUSE
from crosspatch.versions import code_digest

#: ``kind`` in the settings of a result folder.
EXPLANATION = "explanation"
#: Tables of an explanation's folder, each a csv file.
EXPLANATION_TABLES = tuple(TABLE_COLUMNS)

#: One model with attention, and the best of those without.
EXPLAINED_MODELS = ("bilstm-attention", "boosting")

# What identifies a fit in the tables.
_PLACE = ["species", "features", "model", "run", "fold", "seed"]


@dataclass(frozen=True)
class Explanation:
    """What came out of `explain_models`."""

    #: Those of `EXPLANATION_TABLES` by name. ``results``: scores of every fold and condition;
    #: ``importance``: what each family is worth; ``attention``: by true class and family;
    #: ``agreement``: of the two, of seeds and of species, with a verdict in words; ``conserved``,
    #: ``separation``, ``map``, ``loadings`` and ``examples`` are about the cells and not about a
    #: model.
    tables: Mapping[str, pd.DataFrame]
    settings: Settings  # what it was run with


class _Outcome(TypedDict, total=False):
    """What a part gave, as it is stored."""

    rows: list[Any]  # of the results, or of a table about cells
    columns: list[str]
    attention: list[dict[str, object]]
    seconds: float


@dataclass(frozen=True)
class _Fit:
    """One model fitted once on a fold, and all that it is tested with."""

    species: str
    entry: ModelEntry
    protocol: Protocol
    fold: Fold
    cells: Cells
    device: str
    seed: int  # 0: the fold's own; its families are permuted
    without: str | None  # a family that the model never sees
    key: str

    @property
    def name(self) -> str:
        what = "whole" if not self.seed else f"seed-{self.seed}"
        if self.without is not None:
            what = "without-" + re.sub(r"\W+", "-", self.without)
        place = f"{self.protocol.name}-r{self.fold.run:02d}-f{self.fold.number}"
        return f"{self.species}-{self.entry.name}-{place}-{what}-{self.key[:12]}"

    @property
    def place(self) -> dict[str, object]:
        who = (self.species, self.cells.features, self.entry.name)
        return dict(zip(_PLACE, (*who, self.fold.run, self.fold.number, self.seed), strict=True))


@dataclass(frozen=True)
class _Table:
    """A table about cells."""

    title: str
    make: Callable[[], pd.DataFrame]
    key: str

    @property
    def name(self) -> str:
        return f"table-{self.title}-{self.key[:12]}"


def explain_models(
    cohorts: Mapping[str, anndata.AnnData],
    *,
    models: Sequence[str] = EXPLAINED_MODELS,
    runs: int | None = None,
    seeds: int = 3,
    removed: bool = True,
    **settings: Unpack[RunKeywords],
) -> Explanation:
    """Say what models look at, and check it against what happens without it.

    In every fold each model is fitted on the training donors and scored on the others: with all
    families; with one family permuted among the tested cells (its columns together, ten times,
    without fitting again); and fitted again without the family. Both species are in the classes
    that they share, so that they can be compared. Every fit is stored as it is done; called again
    with the same settings, what is stored is taken over. The numbers do not depend on `jobs`.

    The cohorts are in one layout; the models learn from one species. There are `runs` runs of five
    folds, if not as many as the protocol has; `seeds` further fits of models with attention in
    every fold, with other seeds; and, where `removed`, fits without each family, the most of the
    time. Settings are as in `crosspatch.evaluation.runner.RunSettings`, but the protocol is
    ``quick`` by default.
    """
    settings.setdefault("protocol", "quick")
    run = RunSettings(**settings)
    if seeds < 0:
        raise EvaluationError("", hint=f"{{seeds}} must be at least 0, not {seeds}")
    protocol = protocol_named(run.protocol, runs)
    entries = _entries(models)
    cells = cells_by_species(cohorts, run.alignment)
    fits = list(_fits(cells, entries, protocol, seeds, removed, run))
    run.require_device_for(entries)
    about_cells = _tables({name: cohorts[name] for name in cells}, cells, run.alignment, run.seed)
    told = runner.run_settings(
        EXPLANATION,
        cohorts,
        models=[entry.name for entry in entries],
        protocol=protocol.name,
        protocol_about=protocol.about,
        runs=protocol.runs,
        features={species: part.features for species, part in cells.items()},
        alignment=run.alignment,
        seed=run.seed,
        seeds=seeds,
        removed=removed,
        jobs=run.jobs,
        device=run.device,
    )
    needs = frozenset({"rows", "seconds"})
    folder = run.begun(told, partial(ResultFolder, tables=EXPLANATION_TABLES, needs=needs))
    # Long ones first, so that the last worker is not left with one; then what needs no model.
    ordered = sorted(fits, key=lambda fit: (not fit.entry.uses_device, -len(fit.cells.y)))
    parts: list[_Fit | _Table] = [*ordered, *about_cells]
    outcomes = runner.run_units(parts, _evaluate, run, folder)
    # With one species nothing is conserved: an empty table, with its columns.
    tables = {name: pd.DataFrame(columns=columns) for name, columns in TABLE_COLUMNS.items()}
    tables |= _of_models(fits, outcomes, run.seed)
    for part in about_cells:
        outcome = outcomes[part.name]
        tables[part.title] = pd.DataFrame(outcome["rows"], columns=outcome["columns"])
    if folder is not None:
        folder.finish(tables, told)
    return Explanation(tables, told)


def read_explanation(path: str | Path) -> Explanation:
    """Read a result folder of `explain_models`.

    Raises
    ------
    EvaluationError
        If the folder is not there, is damaged, of another kind, or its run was not finished.
    """
    settings = read_settings(path, EXPLANATION)
    return Explanation(read_tables(path, EXPLANATION_TABLES), settings)


def _entries(names: Sequence[str]) -> list[ModelEntry]:
    entries = [model_entry(name) for name in dict.fromkeys(names)]
    if not entries:
        raise EvaluationError("there is no model to explain", hint="give {models}")
    for entry in entries:
        if entry.needs_source:
            raise EvaluationError(
                f"model '{entry.name}' learns from a second species and cannot be explained "
                "species by species",
                hint="choose another of {models}",
            )
    return entries


def _fits(
    cells: Mapping[str, Cells],
    entries: Sequence[ModelEntry],
    protocol: Protocol,
    seeds: int,
    removed: bool,
    settings: RunSettings,
) -> Iterator[_Fit]:
    # The human task of both species: shared classes, and five folds.
    task, device = TASKS["human"], settings.device
    for species, part in cells.items():
        digest = part.digest
        for entry in entries:
            ways = _ways(entry, part.layout, seeds, removed)
            for run in range(protocol.runs):
                folds = make_folds(part.y, part.donors, protocol, task, run, settings.seed)
                for fold, (number, without) in product(folds, ways):
                    # Every further seed has a fold of its own, with the same cells.
                    again = replace(fold, seed=derived_seed(fold.seed, number))
                    theirs = again if number else fold
                    key = runner.fold_key(entry, protocol, theirs, digest, "", device)
                    key = _key(key, number if without is None else without)
                    yield _Fit(species, entry, protocol, theirs, part, device, number, without, key)


def _ways(
    entry: ModelEntry, layout: Layout, seeds: int, removed: bool
) -> list[tuple[int, str | None]]:
    """Number of the seed, and the family that is left out, of every fit of a fold."""
    others = seeds if attention.attends(entry.build(layout, 0, "cpu")) else 0
    families = layout.families if removed else ()
    for family in families:
        ablation.layout_without(layout, family)  # raises if nothing is left
    return [*((number, None) for number in range(others + 1)), *((0, name) for name in families)]


def _key(*parts: object) -> str:
    """Checksum of parts, of all code that numbers come from, this room's too, and of libraries."""
    return runner.outcome_key(*parts, code_digest("explanation"))


def _tables(
    cohorts: Mapping[str, anndata.AnnData], cells: Mapping[str, Cells], alignment: str, seed: int
) -> list[_Table]:
    whole = {
        species: hashlib.sha256(cohort.obs.to_csv().encode()).hexdigest()
        for species, cohort in cohorts.items()
    }
    digests = {species: part.digest for species, part in cells.items()}
    depends = (whole, digests, alignment, seed, version("umap-learn"))
    makers = _makers(cohorts, cells, alignment, seed)
    return [_Table(title, make, _key(title, *depends)) for title, make in makers.items()]


def _makers(
    cohorts: Mapping[str, anndata.AnnData], cells: Mapping[str, Cells], alignment: str, seed: int
) -> dict[str, Callable[[], pd.DataFrame]]:
    """What makes each table that is about cells and not about a model."""
    from crosspatch.explanation.components import examples_table, loadings_table, spaces_of
    from crosspatch.explanation.conserved import conserved_table
    from crosspatch.explanation.map import lay_out
    from crosspatch.explanation.separation import separation_table

    makers: dict[str, Callable[[], pd.DataFrame]] = {
        "separation": lambda: separation_table(spaces_of(cells), seed=seed),
        "map": lambda: lay_out(cells, seed)[0].table,
        "loadings": lambda: loadings_table(spaces_of(cells)),
        "examples": lambda: examples_table(spaces_of(cells)),
    }
    compared = [cohorts[each.name] for each in (MOUSE, HUMAN) if each.name in cohorts]
    if len(compared) == 2:
        makers["conserved"] = partial(conserved_table, *compared, alignment=alignment, seed=seed)
    return makers


def _evaluate(part: _Fit | _Table) -> _Outcome:
    """Do a part, on one core."""
    started = time.perf_counter()
    with runner.one_core():
        outcome = _tested(part) if isinstance(part, _Fit) else _made(part)
    return {**outcome, "seconds": time.perf_counter() - started}


def _made(part: _Table) -> _Outcome:
    frame = part.make()
    # As plain values, whether it was stored in between or not.
    return {"columns": list(frame.columns), "rows": frame.astype(object).to_numpy().tolist()}


def _tested(part: _Fit) -> _Outcome:
    fold, cells = part.fold, part.cells
    layout, X, train = cells.layout, cells.X, fold.train
    if part.without is not None:
        layout, kept = ablation.layout_without(cells.layout, part.without)
        X = cells.X[:, kept]
        # Cells that had nothing but this family cannot be learned from; they stay among those
        # tested, so that the scores are of the same cells.
        train = train[layout.present(X[train]).any(axis=1)]
    model = runner.build_model(part.entry, layout, part.protocol, fold.seed, part.device)
    donors = cells.donors[train] if part.protocol.by_donor else None
    model = fit_copy(model, X[train], cells.y[train], donors, cells.types[train])
    tested = ablation.HeldOut(layout, X[fold.test], cells.y[fold.test], cells.classes)
    condition = ablation.ALL_PRESENT
    if part.without is not None:
        condition = ablation.condition_of(ablation.REMOVED, part.without)
    scores = {condition: ablation.scores_of(model, tested)}
    if part.without is None and not part.seed:
        for family in layout.families:
            permuted = ablation.permuted_scores(model, tested, family, fold.seed)
            scores[ablation.condition_of(ablation.PERMUTED, family)] = permuted
    numbers = {"n_train": len(train), "n_test": len(fold.test)}
    outcome: _Outcome = {
        "rows": [{"condition": name, **numbers, **found} for name, found in scores.items()]
    }
    if part.without is None and attention.attends(model):
        weights = model.attention(tested.X)
        outcome["attention"] = attention.attention_by_class(
            weights, tested.y, cells.classes, layout.families
        )
    return outcome


def _of_models(
    fits: Sequence[_Fit], outcomes: Mapping[str, _Outcome], seed: int
) -> dict[str, pd.DataFrame]:
    """Tables that come from the models."""
    found = [(fit.place, outcomes[fit.name]) for fit in fits]
    scores = pd.DataFrame([place | row for place, outcome in found for row in outcome["rows"]])
    weights = [place | row for place, outcome in found for row in outcome.get("attention", ())]
    by_fold = pd.DataFrame(weights, columns=[*_PLACE, "subclass", "family", "weight", "cells"])
    classes = load_taxonomy().ordered(name for fit in fits for name in fit.cells.classes)
    return {
        "results": scores,
        "importance": ablation.importance_table(scores, classes),
        "attention": attention.attention_table(by_fold),
        "agreement": attention.agreement_table(scores, by_fold, seed),
    }
