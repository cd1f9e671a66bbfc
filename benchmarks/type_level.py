"""T-types of mouse cells: how many are named, how many of these rightly, what probabilities hold.

    CROSSPATCH_DATA=… python benchmarks/type_level.py [--data-dir …] [--runs 2]

writes benchmarks/results/type-level.md and prints it. Takes about 25 minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crosspatch.cohorts.cells import Cells, cells_of
from crosspatch.cohorts.loading import load_cohort
from crosspatch.evaluation.protocols import TASKS, protocol_named
from crosspatch.evaluation.splits import make_folds
from crosspatch.models.absence import without
from crosspatch.models.alignment import align
from crosspatch.models.registry import build_calibrated, model_entry
from crosspatch.models.stored import StoredClassifier
from crosspatch.models.t_type_fitting import fit_t_types
from crosspatch.models.verdicts import Verdict, verdicts

RESULTS = Path(__file__).parent / "results" / "type-level.md"
#: A label that its publisher is at least so sure of.
SURE = 0.9
# What numbers types of Yao et al. 2021 that share their markers.
_NUMBER = r"_\d+$"


def trained(cells: Cells, rows: NDArray[np.intp], seed: int) -> StoredClassifier:
    """A calibrated model that knows t-types, as it is stored."""
    model = build_calibrated(model_entry("vote"), cells.layout, seed, "cpu", 1)
    X, y, donors, types = cells.X[rows], cells.y[rows], cells.donors[rows], cells.types[rows]
    model.fit(X, y, groups=donors, types=types)
    found, _ = fit_t_types(cells.layout, X, y, donors, types, taxonomy="tasic2018", seed=seed)
    return StoredClassifier.of(model, "mouse", None, found)


def answers(
    model: StoredClassifier, X: NDArray[np.floating], y: NDArray, types: NDArray
) -> pd.DataFrame:
    """What is said of cells; t-types of confident ones only, as `crosspatch predict` does."""
    how = align(X, model.laboratory_) if model.laboratory_ is not None else None
    evidence = None
    if how is not None and how.moves:
        X = how.moved(X)
        evidence = how.evidence(X)
    judged = model.judge(X, evidence)
    confident = verdicts(judged.probabilities, judged.sets, judged.p_reference) == (
        Verdict.CONFIDENT
    )
    rows = np.flatnonzero(confident)
    found = model.t_types(X[rows], judged.probabilities[rows])
    if found is None or model.types is None:
        raise TypeError("the model knows no t-types")
    told = pd.DataFrame({"label": types, "subclass": y, "confident": confident})
    for name, values in found._asdict().items():
        told[name] = pd.Series(values, index=rows).reindex(told.index)
    told["named"] = told["named"].eq(True)
    told["limit"] = float(model.types.limit)
    given = model.classes_[np.nan_to_num(judged.probabilities, nan=-1).argmax(axis=1)]
    told["subclass_right"] = given == y
    return told


def share(hits: pd.Series) -> float:
    """In percent; NaN of none."""
    return round(100 * float(hits.mean()), 1) if len(hits) else float("nan")


def score(told: pd.DataFrame) -> dict[str, object]:
    """How many are named, how many rightly, and how far probabilities are off, in percent."""
    sure, named = told[told["confident"]], told[told["named"]]
    right = sure["best"] == sure["label"]
    bins = np.minimum((sure["probability"] * 10).astype(int), 9)
    gaps = (sure["probability"] - right).groupby(bins).agg(["mean", "size"])
    known = named[named["sure"] >= SURE] if "sure" in named else named[:0]
    return {
        "cells": len(told),
        "confident": share(told["confident"]),
        "guess right": share(right),
        "calibration error": round(
            100 * float((gaps["mean"].abs() * gaps["size"]).sum() / len(sure)), 1
        ),
        "named": share(told["named"]),
        "of these right": share(named["best"] == named["label"]),
        "right subclass": share(named["subclass_right"]),
        "right where the label is sure": share(known["best"] == known["label"]),
        "limit": f"{told['limit'].min():.2f} to {told['limit'].max():.2f}",
    }


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """A table in Markdown."""
    heads = list(rows[0])
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(str(r[h]) for h in heads) + " |" for r in rows)])


def by_donor(data_dir: str | None, runs: int) -> dict[str, pd.DataFrame]:
    """Outer folds by donor: complete cells, cells without layer, and with features taken away."""
    cohort = load_cohort("allen-mouse", None, data_dir)
    cells = cells_of(cohort, None, layer=True)
    sure = cohort.obs["t_type_confidence"].to_numpy(float)
    parts: dict[str, list[pd.DataFrame]] = {}
    protocol = protocol_named("quick", runs)
    for run in range(runs):
        for fold in make_folds(cells.y, cells.donors, protocol, TASKS["mouse"], run, 0):
            model = trained(cells, fold.train, fold.seed)
            X = cells.X[fold.test].astype(float)
            bare = X.copy()
            bare[:, -1] = np.nan
            fewer, kept = without(X, cells.layout, np.random.default_rng(fold.seed))
            kinds = {
                "complete": (X, np.arange(len(X))),
                "without the layer": (bare, np.arange(len(X))),
                "features taken away": (fewer, kept),
            }
            for kind, (given, rows) in kinds.items():
                at = fold.test[rows]
                told = answers(model, given, cells.y[at], cells.types[at])
                told["sure"], told["run"] = sure[at], run
                parts.setdefault(kind, []).append(told)
            so_far = score(pd.concat(parts["complete"], ignore_index=True))
            print(f"run {run} fold {fold.number}: {so_far}", flush=True)
    return {kind: pd.concat(each, ignore_index=True) for kind, each in parts.items()}


def elsewhere(data_dir: str | None) -> pd.DataFrame:
    """Another laboratory's cells, labelled by another taxonomy: types with the same markers."""
    ours = cells_of(load_cohort("allen-mouse", None, data_dir), None, layer=True)
    theirs = load_cohort("scala-mouse-m1", "shared", data_dir)
    theirs = theirs[theirs.obs["subclass"].notna().to_numpy()].copy()
    cells = cells_of(theirs, None, layer=True)
    model = trained(ours, np.arange(len(ours.y)), 0)
    return answers(model, cells.X.astype(float), cells.y, cells.types)


def _marker(names: pd.Series) -> pd.Series:
    """Subclass and first marker of t-types: ``Sst Hpse`` of ``Sst Hpse Cbln4`` and ``Sst Hpse``."""
    return names.str.replace(_NUMBER, "", regex=True).str.split().str[:2].str.join(" ")


def _elsewhere_text(told: pd.DataFrame) -> str:
    known = set(_marker(told["label"]))
    guessed = told[told["confident"] & (told["best"].fillna("") != "")].copy()
    guessed["marker"], guessed["theirs"] = _marker(guessed["best"]), _marker(guessed["label"])
    both = guessed[guessed["marker"].isin(known)]
    lines = []
    for kind, part in (("named", both[both["named"]]), ("every guess", both)):
        agree = (part["marker"] == part["theirs"]).mean() if len(part) else float("nan")
        lines.append(
            {
                "cells": kind,
                "of a marker in both": len(part),
                "same marker": f"{100 * agree:.1f}",
                "mean probability": f"{100 * part['probability'].mean():.1f}",
            }
        )
    counts = both[both["named"]].groupby(["best", "theirs"]).size().sort_values(ascending=False)
    most = counts.head(12).reset_index(name="n")
    listed = "; ".join(f"{a} → {b} ({n})" for a, b, n in most.itertuples(index=False, name=None))
    return (
        f"{len(told)} cells, {100 * told['confident'].mean():.1f} % confident, "
        f"{int(told['named'].sum())} named.\n\n{table(lines)}\n\n"
        f"Named, and the marker of their label: {listed or 'none'}."
    )


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir")
    parser.add_argument("--runs", type=int, default=2)
    given = parser.parse_args()
    found = by_donor(given.data_dir, given.runs)
    scored = [{"test cells": kind, **score(told)} for kind, told in found.items()]
    whole = found["complete"]
    each: list[dict[str, Any]] = []
    for name, part in whole[whole["named"]].groupby("best"):
        right = int((part["best"] == part["label"]).sum())
        of_type = (whole["label"] == name).sum()
        each.append(
            {"t-type": name, "named so": len(part), "right": right, "cells of the type": of_type}
        )
    each.sort(key=lambda row: -row["named so"])
    sure = score(whole[whole["sure"] >= SURE])
    text = _TEXT.format(
        runs=given.runs,
        scored=table(scored),
        sure=f"{sure['guess right']} % of guesses",
        labels=f"{100 * (whole['sure'] >= SURE).mean():.0f}",
        each=table(each),
        elsewhere=_elsewhere_text(elsewhere(given.data_dir)),
    )
    RESULTS.write_text(text, encoding="utf-8")
    print(text)


_TEXT = """# T-types: the level below the subclass
Mouse cells (`allen-mouse`, t-types of Tasic et al. 2018 as mapped by Gouwens et al. 2020), model
`vote` with the layer. A confident cell is given the most probable t-type of its subclass
(`t_type_guess`) and its calibrated probability; it is named (`t_type`) from a limit that inner
folds set, above which nine in ten are labelled so. Numbers are percent, but for cells and the
limit.

## Donors held out, as the quick protocol does ({runs} runs of 5 folds)
{scored}

Calibration error is of the probability of the guess of confident cells, in ten bins. A label is
sure where its publisher gives it at least 0.9, which holds for {labels} % of cells; of these {sure}
are right.

The way of calibrating (sharpness by the share of features, then a table of which types are labelled
as which) was chosen on the folds of run 0, among some twenty variants that differ by little.

Which are named, of complete cells of all runs:

{each}

## Another laboratory
Cells of `scala-mouse-m1` (motor cortex, room temperature, t-types of Yao et al. 2021), as one
batch, with a model of all `allen-mouse` cells. The taxonomies share no t-type; some share subclass
and first marker (`Sst Hpse Cbln4` and `Sst Hpse`), which is all that can be compared.

{elsewhere}

So nothing is claimed for other laboratories: their recordings lack inputs or differ, and t-types
are hardly ever named there; probabilities of guesses are about as high as the share that agrees.
"""

if __name__ == "__main__":
    main()
