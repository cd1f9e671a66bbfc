"""Where a score comes from: tested cells cut by labels, nucleus, layer, dataset and tissue."""

from __future__ import annotations

from collections.abc import Mapping

import anndata
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import f1_score

from crosspatch.cohorts.table import CONDITIONS
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.evaluation.results import WHO, over_runs
from crosspatch.evaluation.uncertainty import judged_cells
from crosspatch.features.cortical_layer import layer_depth
from crosspatch.models.verdicts import Verdict

#: The cut of every cell.
ALL_CELLS = "all"
#: Cuts by whether two taxonomies give a cell the same subclass.
AGREE, DISAGREE = "labels: agree with SEA-AD", "labels: disagree"
#: A cut is scored where it has this many cells, over the classes that it has so many cells of.
CUT_CELLS, CUT_CELLS_OF_CLASS = 100, 10

#: Taxonomies of human labels, by the column of obs with its subclasses.
_TAXONOMIES = {"lee2023": "subclass_lee2023", "sea_ad": "subclass_sea_ad"}
#: Layers as they are cut, by depth; a cell between two cuts is in none.
_LAYERS = {1: "1", 2: "2/3", 2.5: "2/3", 3: "2/3", 4: "4", 5: "5", 6: "6"}


def cuts_of(cohort: anndata.AnnData, alignment: str) -> pd.DataFrame:
    """Which cells are in which cut: a column of bool per cut, one row per cell, by its id.

    A cell of which the cohort does not say what it is cut by is in no cut of that kind. A cut that
    would hold every cell is left out, but for `ALL_CELLS`.
    """
    obs = cohort.obs
    kinds = {"labels": _agreement(obs, alignment)}
    nucleus = _column(obs, "post_patch")
    absent = nucleus.eq("nucleus_absent").map({True: "absent", False: "not absent"})
    kinds["nucleus"] = absent.where(nucleus.notna())
    kinds["layer"] = _column(obs, "layer").map(layer_depth).map(_LAYERS)
    kinds |= {name: _column(obs, name) for name in ("dataset", *CONDITIONS)}
    found = {ALL_CELLS: np.ones(len(obs), dtype=bool)}
    for kind, values in kinds.items():
        for value in sorted(values.dropna().unique()):
            inside = (values == value).to_numpy()
            if not inside.all():
                found[f"{kind}: {value}"] = inside
    return pd.DataFrame(found, index=obs.index.astype(str))


def scored_classes(y: ArrayLike) -> list[str]:
    """The classes that a cut with these labels is scored on, in the order of the taxonomy.

    None where it has fewer cells than `CUT_CELLS`, or fewer than two classes of
    `CUT_CELLS_OF_CLASS` cells.
    """
    counts = pd.Series(np.asarray(y)).value_counts()
    enough = set(counts.index[counts >= CUT_CELLS_OF_CLASS])
    if counts.sum() < CUT_CELLS or len(enough) < 2:
        return []
    return list(load_taxonomy().ordered(enough))


def cuts_table(
    predictions: pd.DataFrame, cohorts: Mapping[str, anndata.AnnData], alignment: str
) -> pd.DataFrame:
    """Scores by cut, mean and SD over runs, from predictions of tested cells and cohorts by task.

    Folds of a run are pooled. Macro-F1 is over ``classes``, those of `scored_classes` in every run;
    where there are none it is missing, and ``reason`` says why. All else is a share of the cells:
    ``accuracy``; of the cells that have a label by a taxonomy, those predicted ``as_lee2023`` and
    ``as_sea_ad``; of the cells with enough of the layout, ``coverage`` of the prediction sets and
    ``confident``. ``cells`` and ``donors`` are the fewest that a run tests. A cut of fewer than
    `CUT_CELLS_OF_CLASS` cells has no row.
    """
    cuts = {task: cuts_of(cohort, alignment) for task, cohort in cohorts.items()}
    about: list[dict[str, object]] = []
    scores: list[dict[str, object]] = []
    for who, part in predictions.groupby(WHO, sort=False):
        place: dict[str, object] = dict(zip(WHO, who, strict=True))
        task = str(place["task"])
        obs, inside = cohorts[task].obs, cuts[task].loc[part["cell_id"]]
        shares = _shares(part, obs, alignment)
        part = part.assign(donor=obs.loc[part["cell_id"], "donor"].astype(str).to_numpy())
        for cut in inside:
            here = inside[cut].to_numpy()
            runs = list(part[here].groupby("run"))
            cells = min((len(run) for _, run in runs), default=0)
            if cells < CUT_CELLS_OF_CLASS:
                continue
            classes = [scored_classes(run["true"]) for _, run in runs]
            common = [name for name in classes[0] if all(name in each for each in classes)]
            common = common if len(common) > 1 else []
            donors = min(run["donor"].nunique() for _, run in runs)
            counted: dict[str, object] = {"cut": cut, "cells": cells, "donors": donors}
            about.append(place | counted | _scored_on(common, cells))
            for number, run in runs:
                score = {"cut": cut, "run": number, "macro_f1": _macro_f1(run, common)}
                scores.append(place | score | dict(shares.loc[run.index].mean()))
    keys = [*WHO, "cut"]
    return pd.DataFrame(about).merge(over_runs(pd.DataFrame(scores), keys), on=keys)


def _column(obs: pd.DataFrame, name: str) -> pd.Series:
    """Texts of a column, missing where they are empty, or everywhere where there is no column."""
    if name not in obs:
        return pd.Series(index=obs.index, dtype=object)
    return obs[name].astype(object).replace("", np.nan)


def _labels(obs: pd.DataFrame, taxonomy: str, alignment: str) -> pd.Series:
    """Subclasses by a taxonomy, aligned; missing where it has none."""
    found = _column(obs, _TAXONOMIES[taxonomy])
    return pd.Series(load_taxonomy().align(found, alignment), obs.index).where(found.notna())


def _agreement(obs: pd.DataFrame, alignment: str) -> pd.Series:
    """Whether the labels of a cell by both taxonomies agree, missing where one has none."""
    ours, theirs = (_labels(obs, name, alignment) for name in _TAXONOMIES)
    said = {kind: cut.removeprefix("labels: ") for kind, cut in ((True, AGREE), (False, DISAGREE))}
    return (ours == theirs).map(said).where(ours.notna() & theirs.notna())


def _shares(part: pd.DataFrame, obs: pd.DataFrame, alignment: str) -> pd.DataFrame:
    """What is true of each prediction, 1 or 0; missing where it cannot be said."""
    predicted = part["predicted"].to_numpy()
    found = {"accuracy": (predicted == part["true"].to_numpy()).astype(float)}
    for taxonomy, column in _TAXONOMIES.items():
        if column in obs:
            labels = _labels(obs, taxonomy, alignment).loc[part["cell_id"]]
            same = (labels == predicted).astype(float).where(labels.notna())
            found[f"as_{taxonomy}"] = same.to_numpy()
    shares = pd.DataFrame(found, index=part.index)
    if "set" in part:
        cells = judged_cells(part)  # others have no row in it
        inside = [name in chosen for name, chosen in zip(cells["true"], cells["set"], strict=True)]
        shares["coverage"] = pd.Series(inside, cells.index).astype(float)
        shares["confident"] = (cells["verdict"] == Verdict.CONFIDENT).astype(float)
    return shares


def _scored_on(classes: list[str], cells: int) -> dict[str, object]:
    reason: object = np.nan
    if cells < CUT_CELLS:
        reason = f"{cells} cells, fewer than {CUT_CELLS}"
    elif not classes:
        reason = f"fewer than two classes with {CUT_CELLS_OF_CLASS} cells"
    return {"classes": ", ".join(classes) or np.nan, "reason": reason}


def _macro_f1(run: pd.DataFrame, classes: list[str]) -> float:
    if not classes:
        return np.nan
    y, found = run["true"], run["predicted"]
    return float(f1_score(y, found, labels=classes, average="macro", zero_division=0))
