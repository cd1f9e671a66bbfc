"""Batches of other laboratories, judged as they are and moved onto the reference.

    CROSSPATCH_DATA=… python benchmarks/adaptation.py [--data-dir …] [--seeds 3]

writes benchmarks/results/adaptation.md and prints it. Takes about 5 minutes on one core, and one
more for each seed beyond three.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.loading import load_cohort
from crosspatch.evaluation.protocols import PROTOCOLS, TASKS
from crosspatch.evaluation.splits import make_folds
from crosspatch.models.alignment import Alignment, Labelled, align
from crosspatch.models.calibrated import CalibratedClassifier
from crosspatch.models.laboratory import Laboratory
from crosspatch.models.registry import build_calibrated, model_entry
from crosspatch.models.verdicts import OUTSIDE_P

RESULTS = Path(__file__).parent / "results" / "adaptation.md"
MODEL = "vote"
#: Standard deviations, within a type, of simulated shifts; 0: held-out donors as they are.
SHIFTS = (0.0, 0.5, 1.0, 1.5)

Array = NDArray[np.float64]


class Case(NamedTuple):
    """A model, and cells of donors that it has not seen."""

    name: str
    model: CalibratedClassifier
    X: Array
    y: NDArray[np.str_]

    @property
    def laboratory(self) -> Laboratory:
        """That of the model."""
        if self.model.laboratory_ is None:
            raise TypeError("the model has no single numbers")
        return self.model.laboratory_


def trained(cells: Cells, rows: NDArray[np.intp], seed: int) -> CalibratedClassifier:
    """A calibrated model of some cells."""
    model = build_calibrated(model_entry(MODEL), cells.layout, seed, "cpu", 1)
    groups, types = cells.donors[rows], cells.types[rows]
    return model.fit(cells.X[rows], cells.y[rows], groups=groups, types=types)


def across(
    name: str, cells: Cells, train: NDArray[np.bool_], test: NDArray[np.bool_], seed: int
) -> Case:
    """Some cells learnt from, others, of other donors, predicted."""
    apart = train & ~np.isin(cells.donors, cells.donors[test])
    rows, held = np.flatnonzero(apart), np.flatnonzero(test)
    return Case(name, trained(cells, rows, seed), cells.X[held].astype(float), cells.y[held])


def batches(y: NDArray[np.str_], seed: int) -> dict[str, list[NDArray[np.intp]]]:
    """Rows of batches of several kinds."""
    rng, rows = np.random.default_rng(seed), np.arange(len(y))
    drawn: dict[str, list[NDArray[np.intp]]] = {"whole": [rows]}
    for size in (100, 30, 20):
        drawn[f"{size} cells"] = [rng.permutation(rows)[:size] for _ in range(300 // size)]
    drawn["one class, up to 60"] = [rng.permutation(rows[y == c])[:60] for c in np.unique(y)]
    drawn["80 % of one class"] = [
        np.r_[rng.permutation(rows[y == c])[:48], rng.permutation(rows[y != c])[:12]]
        for c in np.unique(y)
    ]
    return drawn


def answers(
    case: Case, y: NDArray[np.str_], X: Array, evidence: Array | None = None
) -> pd.DataFrame:
    """What is said of cells; Sncg and Vip count as one."""
    found = case.model.judge(X, evidence)
    classes = np.where(case.model.classes_ == "Sncg", "Vip", case.model.classes_)
    true = np.where(y == "Sncg", "Vip", y)
    best = classes[np.nan_to_num(found.probabilities, nan=-1).argmax(axis=1)]
    covered = (found.sets & (classes == true[:, None])).any(axis=1)
    outside = found.p_reference < OUTSIDE_P
    return pd.DataFrame(
        {
            "true": true,
            "best": np.where(found.enough, best, ""),
            "covered": np.where(found.enough, covered, np.nan),
            "outside": outside,
            "confident": (found.sets.sum(axis=1) == 1) & ~outside,
        }
    )


def score(found: pd.DataFrame) -> dict[str, float]:
    """Macro-F1, accuracy, coverage and verdicts, in percent."""
    right = found["true"] == found["best"]
    options = {"labels": sorted(set(found["true"])), "average": "macro", "zero_division": 0}
    parts = {
        "macro-F1": f1_score(found["true"], found["best"], **options),
        "right": right.mean(),
        "covered": found["covered"].mean(),
        "outside": found["outside"].mean(),
        "confident": found["confident"].mean(),
        "of these right": right[found["confident"]].mean(),
    }
    return {name: 100 * float(value) for name, value in parts.items()}


def compared(case: Case, kinds: dict[str, list[NDArray[np.intp]]], sd: float = 0.0) -> pd.DataFrame:
    """Scores as they are and moved, for every kind of batch, of cells that are shifted."""
    here, lines = case.laboratory, []
    rng = np.random.default_rng(17)
    nothing = np.zeros((len(here.priors), len(here.scale)))
    for kind, drawn in kinds.items():
        still, moved, shares = [], [], []
        for rows in drawn:
            planted = sd * rng.normal(size=len(here.scale)) * here.spread
            back = Alignment(here, -planted, nothing, here.priors, 0, 0.0, "")
            still.append(back.moved(case.X[rows]))
            how = align(still[-1], here)
            moved.append(how.moved(still[-1]))
            shares.append(how.moves)
        for way, parts in {"as they are": still, "moved": moved}.items():
            scores = score(answers(case, case.y[np.concatenate(drawn)], np.vstack(parts)))
            told = {"cells": case.name, "shift": sd, "batch": kind, "judged": way}
            share = 100 * float(np.mean(shares)) if way == "moved" else 0.0
            lines.append(told | scores | {"batches moved": share})
    return pd.DataFrame(lines)


def with_labels(case: Case, draws: int = 6) -> pd.DataFrame:
    """Scores of the other cells, where some of each class are labelled."""
    laboratory, lines = case.laboratory, []
    codes = np.searchsorted(case.model.classes_, case.y)
    for count in (0, 3, 10, 30):
        found = []
        for draw in range(draws if count else 1):
            rng = np.random.default_rng([count, draw])
            drawn = [rng.permutation(np.flatnonzero(codes == c)) for c in np.unique(codes)]
            mine = np.concatenate([rows[: min(count, len(rows) // 2)] for rows in drawn])
            rest = np.setdiff1d(np.arange(len(codes)), mine)
            own = Labelled(case.X[mine], codes[mine]) if count else None
            how = align(case.X[rest], laboratory, labelled=own)
            X = how.moved(case.X[rest])
            found.append(score(answers(case, case.y[rest], X, how.evidence(X))))
        mean = pd.DataFrame(found).mean().to_dict()
        lines.append({"cells": case.name, "labelled of each class": str(count), **mean})
    return pd.DataFrame(lines)


def cases(data_dir: str | None, seeds: int) -> Iterator[tuple[str, Case]]:
    """What is measured: donors held out, other datasets, conditions."""
    mouse = cells_of(load_cohort("allen-mouse", "shared", data_dir), None)
    folds = make_folds(mouse.y, mouse.donors, PROTOCOLS["donor"], TASKS["mouse"], 1, 0)
    for fold in folds[:2]:
        X, y = mouse.X[fold.test].astype(float), mouse.y[fold.test]
        yield "donors", Case("mouse, other donors", trained(mouse, fold.train, fold.seed), X, y)
    for seed in range(seeds):
        model = trained(mouse, np.arange(len(mouse.y)), seed)
        for name, dataset in (
            ("motor cortex", "scala-mouse-m1"),
            ("Cell Types Database", "allen-cell-types-mouse"),
        ):
            other = cells_of(load_cohort(dataset, "shared", data_dir), None)
            new = ~np.isin(other.donors, mouse.donors)
            X, y = other.X[new].astype(float), other.y[new]
            yield "elsewhere", Case(f"mouse, {name}", model, X, y)
    cohort = load_cohort("allen-human+allen-human-l1", "full", data_dir)
    human = cells_of(cohort, "hodge2019")
    obs = cohort.obs.loc[human.cell_ids]
    condition, dataset = (obs[name].astype(str).to_numpy() for name in ("condition", "dataset"))
    every = np.ones(len(human.y), dtype=bool)
    donors = np.random.default_rng(1).permutation(np.unique(human.donors))
    held = np.isin(human.donors, donors[: len(donors) // 3])
    yield "donors", across("human, other donors", human, every, held, 0)
    acute, culture = condition == "acute", condition == "culture"
    yield "elsewhere", across("human, acute to culture", human, acute, culture, 0)
    yield "elsewhere", across("human, culture to acute", human, culture, acute, 0)
    first = dataset == "allen-human-l1"
    yield "elsewhere", across("human, layer 1", human, ~first, first, 0)


FOUND = """\
Two ways of judging a batch: as it is, and moved as `crosspatch.models.alignment` says, where its
test passes. Coverage is of the 90 % sets over all cells.
The model is `vote`, calibrated. Numbers are percent; Sncg counts as Vip.

What was looked at when: that logarithms, types and free proportions are worth having was seen on
the motor cortex as well as on the others, and so was how little a shift is to be drawn to none. The
threshold of the test was set on held-out donors, simulated shifts and the human cells; the weight
of labelled cells so that held-out human donors lose nothing, with the gains of the others in sight.
Also tried: a scale of every feature (a little better on the motor cortex, worse on donors
that are not shifted); classes by the votes of the model in place of types (worse in batches of one
class); excitatory cells of other laboratories as a further class (they are shifted too, so that a
batch of them alone is moved onto interneurons).
"""


def markdown(frame: pd.DataFrame) -> str:
    """A table with one digit."""
    text = frame.astype(object).map(lambda v: f"{v:.1f}" if isinstance(v, float) else str(v))
    head = "| " + " | ".join(text.columns) + " |\n" + "|---" * len(text.columns) + "|\n"
    return head + "\n".join("| " + " | ".join(row) + " |" for row in text.to_numpy()) + "\n"


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    parts: dict[str, list[pd.DataFrame]] = {"donors": [], "elsewhere": [], "labels": []}
    for number, (where, case) in enumerate(cases(given.data_dir, given.seeds)):
        kinds = batches(case.y, number)
        for sd in SHIFTS if where == "donors" else SHIFTS[:1]:
            parts[where].append(compared(case, kinds, sd))
        parts["labels"].append(with_labels(case))
        print(case.name, flush=True)
    keys = ["cells", "shift", "batch", "judged", "labelled of each class"]
    tables = {}
    for name, frames in parts.items():
        frame = pd.concat(frames)
        by = [key for key in keys if key in frame]
        tables[name] = frame.groupby(by, sort=False).mean().reset_index()
    shown = ["macro-F1", "right", "covered", "outside", "confident", "of these right"]
    text = [
        "# Adaptation: batches of other laboratories",
        FOUND,
        "## Donors held out, as they are and with simulated shifts",
        "A shift of every feature, drawn with this standard deviation, in units of that within a "
        "type, of logarithms but for potentials.\n",
        markdown(tables["donors"][[*keys[:4], "right", "covered", "outside", "batches moved"]]),
        "## Other laboratories, conditions and layers",
        f"Mean over {given.seeds} seeds of the model for mouse.\n",
        markdown(tables["elsewhere"].drop(columns="shift")),
        "## A few labelled cells of the same batch",
        "Mean over 6 draws; scores are of the other cells.\n",
        markdown(tables["labels"][[keys[0], keys[4], *shown]]),
    ]
    RESULTS.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
