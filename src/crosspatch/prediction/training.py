"""Train a model on all cells of a cohort, to be used on new ones."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import anndata
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from crosspatch.cohorts.cells import Cells, cells_of, layers_of, provenance
from crosspatch.cohorts.dataset import datasets
from crosspatch.cohorts.loading import load_cohort
from crosspatch.cohorts.table import head_of
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT, load_taxonomy
from crosspatch.errors import CrosspatchError, ModelError
from crosspatch.evaluation import metrics, uncertainty
from crosspatch.evaluation.protocols import TASKS, protocol_named
from crosspatch.evaluation.runner import pretrained, require_device, source_arguments
from crosspatch.evaluation.splits import Fold, make_folds
from crosspatch.features.layouts import Layout
from crosspatch.models import artifact
from crosspatch.models.artifact import Artifact, ModelAbout
from crosspatch.models.calibrated import CalibratedClassifier
from crosspatch.models.gaussian import types_of
from crosspatch.models.plain import discriminant_of, plain_model
from crosspatch.models.registry import build_calibrated, model_entry
from crosspatch.models.screen import Screen
from crosspatch.models.stored import StoredClassifier
from crosspatch.models.t_types import RIGHT, TTypes
from crosspatch.prediction.elsewhere import scores_elsewhere
from crosspatch.prediction.kinds import screen_for
from crosspatch.species import SPECIES
from crosspatch.telling import Progress, notebook_bar

#: Best measured (README).
BEST_MODEL = {name: each.best_model for name, each in SPECIES.items()}

#: Taxonomies of cohorts whose t-types were tried on cells held out, and whose they are; see
#: benchmarks/results/type-level.md.
T_TYPE_TAXONOMIES = {"tasic2018": "Tasic et al. 2018"}


@dataclass(frozen=True)
class LeftOut:
    """A fold of `crosspatch run` whose test cells a model must not see, to be checked on them."""

    run: int
    fold: int
    protocol: str = "donor"


def left_out(text: str | None, protocol: str = "donor") -> LeftOut | None:
    """Read RUN:FOLD; a ModelError if it is something else."""
    if text is None:
        return None
    run, _, fold = text.partition(":")
    if not (run.isdecimal() and fold.isdecimal()):
        raise ModelError(
            f"'{text}' is not a fold that can be left out",
            "{leave_out} takes a run and a fold of an evaluation, as 0:2",
        )
    return LeftOut(int(run), int(fold), protocol)


def train(  # noqa: PLR0913 - what the command line has as options
    target: anndata.AnnData,
    source: anndata.AnnData | None = None,
    *,
    model: str | None = None,
    alignment: str | None = None,
    seed: int = 0,
    jobs: int = 1,
    device: str = "cpu",
    leave_out: LeftOut | None = None,
    data_dir: str | Path | None = None,
    progress: Progress | None = None,
    out: str | Path,
) -> Artifact:
    """Train a model on a cohort and write it.

    Parameters
    ----------
    target : AnnData
        Cohort table of the species that is to be predicted. Where ``obs["layer"]`` says the
        cortical layer of cells, a model that takes it learns it too, and to do without.
    source : AnnData, optional
        Cohort table of a second species, for models that learn from it.
    model : str, optional
        By default the one that measured best for the species (`BEST_MODEL`).
    alignment : str, optional
        Reading that maps mouse subclasses to the shared ones. By default ``hodge2019`` for human
        cells and with a source; none for mouse cells alone, which keep Sncg.
    seed : int
        Of all that is drawn at random.
    jobs : int
        Processes; they do not change the result.
    device : str
        ``cpu`` or ``cuda``.
    leave_out : LeftOut, optional
        Train as an evaluation with calibration does for this fold: without its test cells.
    data_dir : path, optional
        Data directory with the tables that excitatory cells are known from; see
        `crosspatch.cohorts.sources.data_directory`.
    progress : callable, optional
        Told how many fits are done, of how many; by default a bar in a notebook.
    out : path
        Folder to write.

    Raises
    ------
    ModelError, EvaluationError, CohortError
        If the model or cohort does not allow it.

    Examples
    --------
    >>> import crosspatch
    >>> cohort = crosspatch.load_cohort("human.h5ad")
    >>> model = crosspatch.train(cohort, model="logistic", out="trained")
    >>> model.species, model.classes
    ('human', ('Lamp5', 'Pvalb', 'Sst', 'Vip'))
    """
    species = _species_of(target)
    entry = model_entry(model or BEST_MODEL[species])
    if entry.needs_source and source is None:
        raise ModelError(f"model '{entry.name}' learns from a second species", "give {source}")
    if entry.uses_device:
        require_device(device)
    own = head_of(target).own is not None
    if alignment is None and not own and (SPECIES[species].aligned or entry.needs_source):
        alignment = DEFAULT_ALIGNMENT
    layer = entry.uses_layer and bool(np.isfinite(layers_of(target)).any())
    learnt = {"target": _Learnt.of(target, alignment, layer=layer)}
    shared_seed = seed
    if leave_out is not None:
        learnt["target"], fold = _without(learnt["target"], species, alignment, leave_out, seed)
        seed, shared_seed = fold.seed, fold.run_seed
    more: dict[str, Any] = {}
    if entry.needs_source and source is not None:
        learnt["source"] = _Learnt.of(source, alignment)
        more = source_arguments(entry, learnt["source"].cells)
    if len({part.cells.measured.layout.features for part in learnt.values()}) > 1:
        raise ModelError("source and target have different features", "use {features} shared")
    cells, rows = learnt["target"].cells, learnt["target"].rows
    more |= pretrained(entry, cells.layout, shared_seed, device, more)
    classifier = build_calibrated(entry, cells.layout, seed, device, jobs)
    classifier.fit(
        cells.X[rows],
        cells.y[rows],
        groups=cells.donors[rows],
        types=cells.types[rows],
        progress=progress or notebook_bar("fits"),
        **more,
    )
    simulated = any(part.cells.simulated for part in learnt.values())
    screen = _screen(learnt["target"], simulated or own, data_dir, jobs)
    types, known_types = t_types_of(classifier, learnt["target"].cells, rows, target, seed)
    about = {
        "crosspatch": version("crosspatch"),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": entry.name,
        "model_about": entry.about,
        "species": species,
        "simulated": simulated,
        "screen": screen if isinstance(screen, str) else list(screen.datasets),
        "classes": [str(name) for name in classifier.classes_],
        "alignment": alignment,
        **_fitted(classifier, cells.layout),
        "cohorts": {"target": None, "source": None}
        | {name: part.about() for name, part in learnt.items()},
        "scores": training_scores(classifier, cells),
        "t_types": known_types,
    }
    kept = None if isinstance(screen, str) else screen
    rigs = kept.held_out if kept else ()
    about["scores"] |= {"held_rigs": [each._asdict() for each in rigs], "elsewhere": []}
    about["settings"] |= {"seed": seed, "left_out": vars(leave_out) if leave_out else None}
    if not (simulated or own):
        here = Artifact(
            StoredClassifier.of(classifier, species, kept, types), cast(ModelAbout, about), ""
        )
        about["scores"] |= {"elsewhere": scores_elsewhere(here, data_dir)}
    return artifact.save(out, classifier, about, card(about), kept, types)


def t_types_of(
    classifier: CalibratedClassifier,
    cells: Cells,
    rows: NDArray[np.intp],
    cohort: anndata.AnnData,
    seed: int,
) -> tuple[TTypes | None, dict[str, Any] | None]:
    """The t-types that a model knows, and what its file says of them; None where it knows none.

    It must have a discriminant, and learn from cells labelled by one of `T_TYPE_TAXONOMIES`.
    """
    taxonomy = T_TYPE_TAXONOMIES.get(head_of(cohort).taxonomy)
    plain = plain_model(classifier.model_)
    discriminant = None if plain is None else discriminant_of(plain)
    if taxonomy is None or cells.simulated or discriminant is None:
        return None, None
    from crosspatch.models.t_type_fitting import fit_t_types

    X, y, donors, types = cells.X[rows], cells.y[rows], cells.donors[rows], cells.types[rows]
    if len(types_of(np.unique(y, return_inverse=True)[1], types)[1]) != len(discriminant.class_of):
        return None, None  # it learnt no types
    found, scores = fit_t_types(cells.layout, X, y, donors, types, taxonomy=taxonomy, seed=seed)
    names = [str(name) for name in found.names if name]
    limit = None if found.limit > 1 else round(float(found.limit), 4)
    said = {"taxonomy": taxonomy, "names": names, "limit": limit, "right_wanted": RIGHT}
    return found, said | {key: round(value, 4) for key, value in scores._asdict().items()}


def _screen(learnt: _Learnt, without: bool, data_dir: str | Path | None, jobs: int) -> Screen | str:
    """What is to tell excitatory cells from the classes, or why nothing does.

    Nothing, which goes without saying, where recordings are simulated or classes a laboratory's.
    """
    if without:
        return ""
    cells = learnt.cells
    left_out = set(cells.donors.tolist()) - set(cells.donors[learnt.rows].tolist())
    return screen_for(cells.layout, data_dir, without_donors=left_out, jobs=jobs)


def _species_of(cohort: anndata.AnnData) -> str:
    species = sorted(set(cohort.obs["species"].astype(str)))
    if len(species) != 1:
        raise ModelError(
            f"the target holds {' and '.join(species)} cells; train a model for each species",
            "" if head_of(cohort).own is None else "name one with {species}",
        )
    return species[0]


@dataclass(frozen=True)
class _Learnt:
    """Cells of a cohort that a model learns from."""

    cohort: anndata.AnnData
    cells: Cells
    rows: NDArray[np.intp]  # numbers of the cells that are used

    @staticmethod
    def of(cohort: anndata.AnnData, alignment: str | None, *, layer: bool = False) -> _Learnt:
        cells = cells_of(cohort, alignment, layer=layer)
        return _Learnt(cohort, cells, np.arange(len(cells.y)))

    def about(self) -> dict[str, object]:
        """What the model's file says of them."""
        names, counts = np.unique(self.cells.y[self.rows], return_counts=True)
        return provenance(self.cohort) | {
            "cells": len(self.rows),
            "donors": len(np.unique(self.cells.donors[self.rows])),
            "subclasses": dict(zip(names.tolist(), counts.tolist(), strict=True)),
            "cells_sha256": self.cells.digest,
        }


def _without(
    ours: _Learnt, species: str, alignment: str | None, leave_out: LeftOut, seed: int
) -> tuple[_Learnt, Fold]:
    """The training cells of a fold, and the fold."""
    if alignment is not None and not SPECIES[species].aligned:
        raise ModelError(
            f"a fold of task {species}, which has no alignment, cannot be left out of a model "
            "that has one",
            "leave {alignment} out",
        )
    protocol, cells = protocol_named(leave_out.protocol), ours.cells
    if leave_out.run >= protocol.runs:
        raise ModelError(f"protocol '{protocol.name}' has runs 0 to {protocol.runs - 1}")
    folds = make_folds(cells.y, cells.donors, protocol, TASKS[species], leave_out.run, seed)
    if leave_out.fold >= len(folds):
        raise ModelError(f"a run of protocol '{protocol.name}' has folds 0 to {len(folds) - 1}")
    fold = folds[leave_out.fold]
    return replace(ours, rows=fold.train), fold


def cells_learned(model: Artifact, data_dir: str | Path | None = None) -> Cells | None:
    """The cells that a model learned from, of published datasets; None where they are not at hand.

    Where it cannot be known which ones a fold left out, all.
    """
    learnt, settings = model.about["cohorts"]["target"], model.about["settings"]
    names, taxonomies = learnt["dataset"], learnt["taxonomy"].split()
    taxonomy = taxonomies[0] if len(taxonomies) == 1 else None
    if not set(names) <= set(datasets()):
        return None
    try:
        cohort = load_cohort(
            "+".join(names), model.layout.measured.name, data_dir, verify=False, taxonomy=taxonomy
        )
    except CrosspatchError:
        return None
    found = _Learnt.of(cohort, model.about["alignment"])
    if isinstance(left_out := settings.get("left_out"), dict):
        part, fold = _without(found, model.species, None, LeftOut(**left_out), 0)
        found = part if fold.seed == settings.get("seed") else found
    cells, rows = found.cells, found.rows
    one_per_cell = ("X", "y", "donors", "cell_ids")
    return replace(cells, **{name: getattr(cells, name)[rows] for name in one_per_cell})


def _fitted(classifier: CalibratedClassifier, layout: Layout) -> dict[str, Any]:
    """What was fitted, as the model's file says it."""
    calibration = vars(classifier.calibration_).items()
    return {
        "layout": {
            "name": layout.name,
            "features": [list(astuple(each)) for each in layout.features],
        },
        "scaling": {
            "center": classifier.feature_center_.tolist(),
            "scale": classifier.feature_scale_.tolist(),
        },
        "settings": {
            "chosen": classifier.chosen_,
            "log_loss": classifier.log_loss_,
            "folds": classifier.n_folds,
            "coverage": classifier.coverage,
            "minimum_information": round(classifier.calibration_.least, 4),
        },
        "calibration": {name: part.tolist() for name, part in calibration if name != "distances"},
    }


def training_scores(classifier: CalibratedClassifier, cells: Cells) -> dict[str, Any]:
    """Cross-validated scores on the training cells: macro-F1, calibration, coverage by class.

    Folds are those on which settings were chosen, so that the scores are a little too good;
    an evaluation with calibration chooses inside its folds.
    """
    found = uncertainty.cross_validated(classifier)
    best = metrics.scores(found["true"], found["predicted"], cells.classes)
    honest = uncertainty.calibration_table(found).iloc[0]
    coverage = uncertainty.coverage_table(found)
    return (
        {name: round(value, 4) for name, value in best.items()}
        | {
            name: round(float(honest[f"{name}_mean"]), 4)
            for name in ("ece", "confident", "accuracy_confident", "outside")
        }
        | {
            "sets": [
                {
                    "sets": row["sets"],
                    "class": row["class"],
                    "coverage": round(row["coverage_mean"], 4),
                    "size": round(row["set_size_mean"], 3),
                }
                for _, row in coverage.iterrows()
            ]
        }
    )


def card(about: Mapping[str, Any]) -> str:
    """The model card: what a model is, what it was trained on, how good it is, in words."""
    found = about["scores"]
    sets = {(row["sets"], row["class"]): row for row in found["sets"]}
    rows = [
        {
            "name": name,
            "f1": found["macro_f1" if name == "all" else f"f1_{name}"],
            "over": sets["over all cells", name],
            "by": sets["by class", name],
        }
        for name in ("all", *about["classes"])
    ]
    environment = Environment(  # noqa: S701, the card is not HTML
        loader=PackageLoader("crosspatch.prediction"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    terms = {name: load_taxonomy().term(name) for name in about["classes"]}
    ontology = {name: term for name, term in terms.items() if term}
    return environment.get_template("card.md").render(about, rows=rows, ontology=ontology)
