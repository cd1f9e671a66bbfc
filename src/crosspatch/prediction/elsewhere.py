"""How a model does on datasets that it has not learned from: what its card says of other rigs."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np

from crosspatch.cohorts.cells import cells_of
from crosspatch.cohorts.dataset import Dataset, datasets
from crosspatch.cohorts.loading import load_cohort
from crosspatch.cohorts.sources import data_directory
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CohortError, LayoutError
from crosspatch.evaluation.metrics import scores
from crosspatch.models.artifact import Artifact
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.batches import Batch
from crosspatch.prediction.predictor import Predictor


class Elsewhere(TypedDict):
    """Answers for the labelled cells of a dataset; shares are from 0 to 1.

    Rare subclasses count as those that species share, such as Sncg as Vip.
    """

    dataset: str
    cells: int
    macro_f1: float  # of the most probable subclass, over those that are there
    covered: float  # have their subclass in the 90 % set
    confident: float
    right: float  # of the confident
    outside: float


def scores_elsewhere(model: Artifact, data_dir: str | Path | None = None) -> list[Elsewhere]:
    """Scores of the datasets of a model's species whose tables are at hand, as one batch each.

    Without those that it learned from, and without cells of its donors.
    """
    try:
        directory = data_directory(data_dir)
    except CohortError:
        return []
    target, source = model.about["cohorts"]["target"], model.about["cohorts"]["source"]
    learnt = {*target["dataset"], *(source["dataset"] if source else ())}
    subclasses = set(load_taxonomy().subclasses)
    others = [
        each
        for each in datasets().values()
        if each.species == model.species
        and each.name not in learnt
        and subclasses & set(each.labels.values())
        and each.at_hand(directory)
    ]
    known = [load_cohort(name, data_dir=directory).obs for name in learnt & {*datasets()}]
    donors = {donor for obs in known for donor in obs["donor"]}
    found = (_scored(model, each, donors, directory) for each in others)
    return [row for row in found if row is not None]


def _scored(model: Artifact, of: Dataset, donors: set[str], directory: Path) -> Elsewhere | None:
    cohort = load_cohort(of.name, data_dir=directory)
    cohort = cohort[~cohort.obs["donor"].isin(donors).to_numpy()]
    if not cohort.n_obs:
        return None
    predictor = Predictor([model])
    cells = cells_of(cohort, model.about["alignment"])
    X = np.full((len(cells.y), len(predictor.layout.features)), np.nan, dtype=np.float32)
    try:
        X[:, cells.layout.within(predictor.layout)] = cells.X
    except LayoutError:
        return None
    batch = Batch(of.name, cells.cell_ids.tolist(), [model.species] * len(X), X)
    said = predictor.predict(batch).cells
    align, verdict = load_taxonomy().align, said["verdict"]
    y, subclass = align(cells.y), align(said["subclass"].to_numpy(str))
    inside = [name in align(s) for name, s in zip(y, said["prediction_set"], strict=True)]
    confident = (verdict == Verdict.CONFIDENT).to_numpy()
    return Elsewhere(
        dataset=of.name,
        cells=len(X),
        macro_f1=round(scores(y, subclass, sorted(set(y)))["macro_f1"], 3),
        covered=round(float(np.mean(inside)), 3),
        confident=round(float(confident.mean()), 3),
        right=round(float((subclass == y)[confident].mean()) if confident.any() else 0.0, 3),
        outside=round(float((verdict == Verdict.OUTSIDE).mean()), 3),
    )
