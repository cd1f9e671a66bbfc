"""From cells to predictions: each by the model of its species."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import LayoutError, ModelError
from crosspatch.features.cortical_layer import layer_name
from crosspatch.features.layouts import LAYER, Layout
from crosspatch.models.alignment import Alignment, Labelled, align
from crosspatch.models.artifact import Artifact, load
from crosspatch.models.missing import distinct_rows
from crosspatch.models.screen import EXCITATORY
from crosspatch.models.verdicts import COVERAGE, OUTSIDE_P, Verdict, verdicts
from crosspatch.prediction.batches import Batch
from crosspatch.prediction.levels import T_TYPES, t_type_columns
from crosspatch.prediction.prediction import Prediction, records_schema
from crosspatch.species import SPECIES, require_species
from crosspatch.tables.endings import CHUNK
from crosspatch.telling import Say

#: Kinds of prediction sets: coverage over all cells, or for every class.
SETS = ("all-cells", "by-class")

#: Of a column: one value per row, or that of all.
_Values: TypeAlias = "pa.Array | NDArray | str | float | list[str] | None"

# What is said of a cell that can be no interneuron and is unlike the excitatory cells too.
_OF_NEITHER = "neither interneurons nor the excitatory cells that are known look so"
_NOT_COMPARED = (Verdict.INSUFFICIENT, Verdict.NOT_INTERNEURON)

#: How the cells of a batch differ from the reference of each species.
Alignments: TypeAlias = Mapping[str, Alignment]


class Predictor:
    """Models in memory, one per species.

    Sets are ``all-cells``, so that 90 % of all cells have their class in the set, or ``by-class``:
    90 % of the cells of every class, whatever the composition of a batch; these are larger. A batch
    that is plainly shifted as a whole, as by another rig, is moved onto the reference before it is
    judged, unless `adapt` is False; `labelled` cells of the user's own, by species, have a say in
    it (`crosspatch.models.alignment`). Cells are read in the `layout` of the model with the most
    features, and each model takes its own of them. A ModelError if there are two models of one
    species, or the models' layouts do not nest.
    """

    def __init__(self, models: Sequence[Artifact], *, sets: str = "all-cells", adapt: bool = True):
        require_sets(sets)
        self.labelled: dict[str, Labelled] = {}
        self.models: dict[str, Artifact] = {}
        for model in models:
            if model.species in self.models:
                raise ModelError(f"there are two models of {model.species} cells; give one")
            self.models[model.species] = model
        layouts = [model.layout for model in models]
        widest = max((each.measured for each in layouts), key=lambda a: len(a.features))
        layered = any(each.has_layer for each in layouts)
        self.layout: Layout = widest.with_layer() if layered else widest
        self._columns = {each.species: _columns_of(each, self.layout) for each in models}
        self.sets = sets
        self.adapt = adapt
        self._warned: set[tuple[str, str]] = set()
        whys = {each.species: each.about["screen"] for each in models}
        self._no_screen = {name: why for name, why in whys.items() if why and isinstance(why, str)}
        self.classes = load_taxonomy().ordered(name for each in models for name in each.classes)
        parameters = {"sets": sets, "adapt": adapt, "coverage": COVERAGE, "outside_p": OUTSIDE_P}
        self.header: dict[str, Any] = {
            "crosspatch": version("crosspatch"),
            "models": [_said_of(model) for model in models],
            "parameters": parameters,
        }

    def alignments(self, batch: Batch, say: Say = lambda line: None) -> Alignments:
        """How cells of known species differ from the reference; `say` is told where they do."""
        found = {}
        for species, model in self.models.items():
            rows = np.flatnonzero([name == species for name in batch.species])
            laboratory = model.classifier.laboratory_
            own = self.labelled.get(species)
            if laboratory is None or not (len(rows) or own is not None):
                continue
            X = self.features_of(species, batch.X[rows])
            counted = ~model.classifier.rather_excitatory(X)
            found[species] = how = align(X, laboratory, labelled=own, counted=counted)
            if how.unlike:
                say(f"{batch.source}: {how.in_words(species, moves=self.adapt)}")
        return found

    def predict(
        self, batch: Batch, say: Say = lambda line: None, alignments: Alignments | None = None
    ) -> Prediction:
        """Judge cells, each by the model of its species; by every model where that is unknown.

        `say` is told where a batch differs from the reference. It is moved by its own `alignments`,
        if not by those of a larger one that it is part of.
        """
        batch = batch.encodable()
        for species in [*self._no_screen]:
            why = self._no_screen.pop(species)
            say(f"the {species} model takes every cell for an interneuron: {why}")
        if alignments is None:
            alignments = self.alignments(batch, say)
        if not self.adapt:
            alignments = {}
        said = np.array([name or "" for name in batch.species], dtype=object)
        parts: list[tuple[str, NDArray[np.intp], pa.Table]] = []
        for species, model in self.models.items():
            rows = np.flatnonzero((said == "") | (said == species))
            if len(rows):
                how = alignments.get(species)
                parts.append((species, rows, self._judged(batch, rows, model, how, say)))
        others = np.flatnonzero(~np.isin(said, ["", *self.models]))
        if len(others):
            parts.append(("", others, self._foreign(batch, others, say)))
        # A cell that both species' models judged has a row for each, one below the other.
        parts.sort(key=lambda part: part[0])
        rows = np.concatenate([part[1] for part in parts])
        order = np.argsort(rows, kind="stable")
        records = pa.concat_tables([part[2] for part in parts])
        recordings = dict(zip(batch.cell_ids, batch.files, strict=False))
        electrodes = dict(zip(batch.cell_ids, batch.electrodes, strict=False))
        return Prediction(
            records.take(order) if len(parts) > 1 else records,
            batch.X[rows[order]],
            self.layout,
            self.header,
            recordings,
            {name: electrode for name, electrode in electrodes.items() if electrode is not None},
            {(batch.source, species): how for species, how in alignments.items() if how.moves},
        )

    def features_of(self, species: str, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the model of a species takes of cells, shape (cells, its features)."""
        return X[:, self._columns[species]]

    def _judged(
        self, batch: Batch, rows: NDArray[np.intp], model: Artifact, how: Alignment | None, say: Say
    ) -> pa.Table:
        species = model.species
        X = self.features_of(species, batch.X[rows])
        known = np.array([batch.species[k] is not None for k in rows])
        evidence = None
        if how is not None:
            X = np.where(known[:, None], how.moved(X), X).astype(np.float32)
            evidence = how.evidence(X)
        found = model.classifier.judge(X, evidence)
        sets = found.class_sets if self.sets == "by-class" else found.sets
        screened = model.classifier.screened(X)
        verdict = verdicts(found.probabilities, sets, found.p_reference, screened)
        self._warn(batch.source, species, verdict, say)
        p, classes, given = found.probabilities, model.classes, found.enough
        if screened is not None:
            # What it is, if an interneuron, is not said of a cell that can be none.
            given = given & screened.interneuron
            p = np.where(screened.interneuron[:, None], p, np.nan)
            # One that may be excitatory has the most probable subclass beside it, if it may be one.
            bare = np.flatnonzero(given & screened.excitatory & ~sets.any(axis=1))
            sets = np.column_stack([sets & given[:, None], screened.excitatory & found.enough])
            sets[bare, p[bare].argmax(axis=1)] = True
            classes = (*classes, EXCITATORY)
        subclass = np.full(len(rows), "", dtype=object)
        subclass[given] = np.asarray(classes, dtype=object)[p[given].argmax(axis=1)]
        outside = np.flatnonzero((verdict == Verdict.OUTSIDE) & given)
        unusual = model.classifier.reference_.unusual(X[outside], subclass[outside].astype(str))
        unusual = pa.concat_arrays([unusual, pa.array([[_OF_NEITHER]])])
        place = np.full(len(rows), -1)
        place[(verdict == Verdict.OUTSIDE) & ~given] = len(outside)
        place[outside] = np.arange(len(outside))
        judged: dict[str, _Values] = {
            "species": species,
            "species_known": known,
            "subclass": subclass,
            "probability": p.max(axis=1),
            "prediction_set": _words(classes, sets),
            "verdict": verdict,
            "p_reference": found.p_reference,
            "p_interneuron": np.where(found.enough, screened.p_interneuron, np.nan)
            if screened is not None
            else np.nan,
            "unusual": unusual.take(pa.array(place, mask=place < 0)),
            "aligned": known & (how is not None and how.moves),
        }
        judged |= {
            f"probability_{name}": of_class
            for name, of_class in zip(model.classes, p.T, strict=True)
        }
        judged |= t_type_columns(
            model, X, p, np.flatnonzero((verdict == Verdict.CONFIDENT) & given)
        )
        return self._records(batch, rows, model.layout, X, judged)

    def _foreign(self, batch: Batch, rows: NDArray[np.intp], say: Say) -> pa.Table:
        """Cells of a species that no model is of."""
        there = " and ".join(self.models)
        counts = Counter(str(batch.species[k]) for k in rows)
        named = ", ".join(f"{count:,} of '{name}'" for name, count in counts.most_common(5))
        say(
            f"{batch.source}: cells of another species than the reference, which is {there}: "
            f"{named}; they are given no subclass"
        )
        X = batch.X[rows]
        enough = np.any(
            [
                model.classifier.enough(self.features_of(species, X))
                for species, model in self.models.items()
            ],
            axis=0,
        )
        judged: dict[str, _Values] = {
            "species": pa.array(batch.species, pa.string()).take(rows),
            "species_known": True,
            "verdict": np.where(enough, Verdict.OUTSIDE, Verdict.INSUFFICIENT),
            "references": list(self.models),
        }
        return self._records(batch, rows, self.layout.measured, X, judged)

    @property
    def layouts(self) -> dict[str, Layout]:
        """What the model of each species takes."""
        return {species: model.layout for species, model in self.models.items()}

    @property
    def columns(self) -> list[str]:
        """Columns of `Prediction.cells`."""
        return records_schema(self.classes).names

    def _records(
        self,
        batch: Batch,
        rows: NDArray[np.intp],
        layout: Layout,
        X: NDArray[np.float32],
        judged: Mapping[str, _Values],
    ) -> pa.Table:
        """Rows of `Prediction.records`: what a batch says of cells, and what was judged."""
        found: dict[str, _Values] = {
            "subclass": "",
            "prediction_set": [],
            "completeness": layout.completeness(X),
            "families": _words(layout.measured.families, layout.measured.present(X)),
            "layer": _layers(layout, X),
            **dict.fromkeys((name for name in T_TYPES if not name.endswith("probability")), ""),
            "unusual": None,
            "aligned": False,
            "references": [],
            "source": batch.source,
            **judged,
        }
        of_batch: dict[str, list] = {
            "cell_id": batch.cell_ids,
            "given_id": batch.given_ids,
            "quality": batch.quality,
            "notes": batch.notes,
            "simulated": batch.simulated,
            "unread": batch.unread,
        }
        schema = records_schema(self.classes)
        return pa.table(
            [
                pa.array(of_batch[field.name], field.type).take(rows)
                if field.name in of_batch
                else _column(found.get(field.name, np.nan), field.type, len(rows))
                for field in schema
            ],
            schema=schema,
        )

    def _warn(self, source: str, species: str, verdict: NDArray[np.object_], say: Say) -> None:
        """Say, once a file, where more of its cells are outside than should be."""
        if (source, species) in self._warned:
            return
        self._warned.add((source, species))
        first = f" (of its first {len(verdict):,} rows)" if len(verdict) >= CHUNK else ""
        judged = len(verdict) - int(np.isin(verdict, _NOT_COMPARED).sum())
        outside = int(np.sum(verdict == Verdict.OUTSIDE))
        if too_many(outside, judged):
            say(
                f"{source}: {outside:,} of {judged:,} cells{first} are outside the {species} "
                f"reference ({OUTSIDE_P:.0%} expected); another cell type, protocol, laboratory, "
                "or definition of a feature?"
            )


def _columns_of(model: Artifact, layout: Layout) -> NDArray[np.intp] | slice:
    """Where the layout that cells are read in has the features of a model."""
    try:
        return model.layout.within(layout)
    except LayoutError as error:
        raise ModelError(
            f"the models have different features: {error}; give models of one layout, or one whose "
            "layout holds those of the others"
        ) from error


def too_many(outside: int, judged: int) -> bool:
    """Whether more cells are called outside than chance explains, at 1 %."""
    if outside < 2:  # one of however many has a probability of 5 % at least
        return False
    counts = np.arange(1, judged + 1)
    steps = np.log((judged - counts + 1) / counts * OUTSIDE_P / (1 - OUTSIDE_P))
    of_count = judged * np.log1p(-OUTSIDE_P) + np.cumsum(steps)  # logarithms of binomial chances
    return bool(np.sum(np.exp(of_count[outside - 1 :])) < 0.01)


def _column(values: _Values, kind: pa.DataType, n: int) -> pa.Array:
    """A column of so many rows; one value is that of all."""
    if isinstance(values, pa.Array | np.ndarray):
        return pa.array(values, kind)
    return pa.repeat(pa.scalar(values, kind), n)


def _layers(layout: Layout, X: NDArray[np.float32]) -> _Values:
    """Names of the cortical layers of cells, empty where not known or not of the layout."""
    if not layout.has_layer:
        return ""
    column = layout.feature_names.index(LAYER.name)
    depths, which = np.unique(X[:, column], return_inverse=True)
    return np.array([layer_name(float(depth)) for depth in depths], dtype=object)[which]


def _words(names: Sequence[str], inside: NDArray[np.bool_]) -> pa.ListArray:
    """Of each row the names of the columns that are True."""
    patterns, which = distinct_rows(inside)
    found = [[name for name, there in zip(names, row, strict=True) if there] for row in patterns]
    return pa.array(found, pa.list_(pa.string())).take(which)


def _said_of(model: Artifact) -> dict[str, Any]:
    """What the header says of a model."""
    terms = {name: load_taxonomy().term(name) for name in model.classes}
    cohorts = model.about["cohorts"]
    learnt = [cohort for cohort in (cohorts["target"], cohorts["source"]) if cohort]
    datasets = [name for cohort in learnt for name in cohort.get("dataset", ())]
    return {
        "species": model.species,
        "model": model.about["model"],
        "layout": model.layout.title,
        "layer": model.layout.has_layer,
        "classes": list(model.classes),
        "ontology": {name: term for name, term in terms.items() if term},
        "taxonomy": model.about["alignment"] or "as the source has it",
        "simulated": bool(model.about["simulated"]),
        "screen": model.about["screen"],
        "t_types": model.about.get("t_types"),
        "elsewhere": model.about["scores"].get("elsewhere", []),
        "trained_on": list(dict.fromkeys(datasets)),
        "digest": model.digest,
    }


def require_sets(sets: str) -> None:
    """Refuse a kind of prediction sets that is not known, by a ModelError."""
    if sets not in SETS:
        raise ModelError(f"no prediction sets '{sets}'; choose from: {', '.join(SETS)}")


def load_predictor(
    models: Sequence[str | Path] = (),
    species: str | None = None,
    *,
    sets: str = "all-cells",
    adapt: bool = True,
    data_dir: str | Path | None = None,
    jobs: int | None = 1,
    say: Say = lambda line: None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Predictor:
    """Load models from their folders, or the default ones, which may have to be trained once.

    `species` is that of all cells whose file does not say: only its default model is loaded. A
    ModelError or CohortError if a model cannot be loaded, or the species is unknown.
    """
    require_species(species)
    if models:
        found = [load(folder) for folder in models]
    else:
        from crosspatch.prediction.default import default_model

        wanted = tuple(SPECIES) if species is None else (species,)
        found = [
            default_model(name, say, data_dir=data_dir, jobs=jobs, progress=progress)
            for name in wanted
        ]
    return Predictor(found, sets=sets, adapt=adapt)
