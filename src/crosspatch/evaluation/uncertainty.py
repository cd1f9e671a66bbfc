"""How honest is a model's uncertainty: calibration, coverage, cells unlike the reference.

And how good it is where families are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, compress
from typing import TypedDict

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import f1_score

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.evaluation.results import WHO, over_runs
from crosspatch.features.layouts import Layout
from crosspatch.models.calibrated import CalibratedClassifier
from crosspatch.models.calibration import Calibration
from crosspatch.models.verdicts import Verdict, verdicts

#: Bins of the reliability diagram, of equal width (Guo et al. 2017).
BINS = 15
#: What stands in place of a class where too little is known of a cell.
REFUSED = Verdict.INSUFFICIENT.value

#: Stimuli by the ending of a family's name, for scalar layouts.
_OTHER_STIMULI = ("_ramp", "_short_square")


class PartOutcome(TypedDict):
    """What a model says of test cells of which some features are there, as a fold's file has it."""

    predicted: list[str]
    sets: list[list[int]]


class JudgedOutcome(TypedDict):
    """What a calibrated model says of test cells, as a fold's file has it."""

    sets: list[list[int]]
    class_sets: list[list[int]]
    p_reference: list[float]
    enough: list[bool]
    settings: str
    conditions: dict[str, PartOutcome]


class FoldOutcome(TypedDict):
    """What a fold's file has."""

    classes: list[str]
    cell_ids: list[str]
    y: list[str]
    probabilities: list[list[float]]
    n_train: int
    judged: JudgedOutcome | None
    seconds: float


#: Where a row of a table comes from: task, features, model, protocol, run, fold.
Place = dict[str, str | int]


def conditions(layout: Layout) -> dict[str, NDArray[np.bool_]]:
    """What is there, in words, to which features those are: an array of bool, shape (features,).

    All; long squares only; without one family; two families; 40 % of scalars, drawn at random.
    """
    family_of = np.array([feature.family for feature in layout.features])
    columns = np.arange(len(family_of))
    found = {"all": columns >= 0}
    long_square = [name for name in layout.families if not name.endswith(_OTHER_STIMULI)]
    if len(long_square) < len(layout.families):
        found["long squares only"] = np.isin(family_of, long_square)
    for family in layout.families:
        found[f"without {family}"] = family_of != family
    if len(layout.families) <= 6:
        for pair in combinations(layout.families, 2):
            found[f"only {pair[0]} and {pair[1]}"] = np.isin(family_of, pair)
    if not layout.traces:
        rng = np.random.default_rng(0)
        for number in range(3):
            chosen = rng.choice(len(columns), round(0.4 * len(columns)), replace=False)
            some = np.isin(columns, chosen)
            found[f"{int(some.sum())} features, draw {number + 1}"] = some
    return found


def judged_outcome(model: CalibratedClassifier, X: NDArray) -> JudgedOutcome:
    """What a fitted model says of test cells, complete and with features taken away."""
    found = model.judge(X)
    less: dict[str, PartOutcome] = {}
    for name, there in conditions(model.layout_).items():
        part = found if there.all() else model.judge(np.where(there, X, np.nan))
        less[name] = {
            "predicted": predicted_classes(part.probabilities, model.classes_).tolist(),
            "sets": part.sets.astype(int).tolist(),
        }
    return {
        "sets": found.sets.astype(int).tolist(),
        "class_sets": found.class_sets.astype(int).tolist(),
        "p_reference": found.p_reference.tolist(),
        "enough": found.enough.tolist(),
        "settings": model.chosen_,
        "conditions": less,
    }


def predicted_classes(probabilities: ArrayLike, classes: ArrayLike) -> NDArray[np.str_]:
    """The most probable class of each cell, from probabilities of shape (cells, classes).

    These are NaN for cells of which too little is known: `REFUSED` stands in place of their class,
    and counts as a wrong one.
    """
    p = np.asarray(probabilities, dtype=float)
    best = np.asarray(classes, dtype=str)[np.nan_to_num(p).argmax(axis=1)]
    return np.where(np.isnan(p).any(axis=1), REFUSED, best)


def prediction_rows(
    place: Place, outcome: FoldOutcome, classes: Sequence[str]
) -> Iterator[dict[str, object]]:
    """One row per test cell of a fold: probabilities; where it was judged, its sets and p-value."""
    found, names = outcome["judged"], outcome["classes"]
    predicted = predicted_classes(outcome["probabilities"], names).tolist()
    for row, cell_id in enumerate(outcome["cell_ids"]):
        p = dict(zip(names, outcome["probabilities"][row], strict=True))
        cell = {**place, "cell_id": cell_id, "true": outcome["y"][row], "predicted": predicted[row]}
        cell |= {f"p_{name}": p.get(name, np.nan) for name in classes}
        if found is not None:
            cell["set"] = tuple(compress(names, found["sets"][row]))
            cell["class_set"] = tuple(compress(names, found["class_sets"][row]))
            cell["p_reference"] = found["p_reference"][row]
        yield cell


def cross_validated(model: CalibratedClassifier) -> pd.DataFrame:
    """What a model said of its own training cells when they were held back.

    Each fold is calibrated by the others. One row per cell of which enough is known, with the
    columns of `prediction_rows`.
    """
    held = model.held_
    names = [str(name) for name in model.classes_]
    parts = []
    for fold in np.unique(held.fold):
        fitted = Calibration.fit(held.where(held.fold != fold), model.coverage)
        part = held.where((held.fold == fold) & held.whole)
        p = fitted.probabilities(part.log_p, part.information)
        frame = pd.DataFrame(p, columns=[f"p_{name}" for name in names])
        frame["true"] = np.asarray(names)[part.codes]
        frame["predicted"] = predicted_classes(p, names)
        for kind, by_class in (("set", False), ("class_set", True)):
            sets = p >= fitted.limits(part.information, by_class=by_class)
            frame[kind] = [tuple(compress(names, row)) for row in sets]
        frame["p_reference"] = fitted.p_values(part.distance, part.information)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True).assign(run=0, **dict.fromkeys(WHO, ""))


def condition_rows(
    place: Place, outcome: FoldOutcome, classes: Sequence[str]
) -> Iterator[dict[str, object]]:
    """One row per fold and choice of features."""
    y = np.asarray(outcome["y"])
    names = np.asarray(outcome["classes"])
    parts = outcome["judged"]["conditions"] if outcome["judged"] else {}
    for condition, part in parts.items():
        predicted = np.asarray(part["predicted"])
        sets = np.asarray(part["sets"], dtype=bool).reshape(len(y), len(names))
        enough = predicted != REFUSED
        inside = (sets & (names[None, :] == y[:, None])).any(axis=1)
        of_class = f1_score(y, predicted, labels=list(classes), average="macro", zero_division=0)
        yield {
            **place,
            "present": condition,
            "macro_f1": float(of_class),
            "accuracy": float(np.mean(predicted == y)),
            "coverage": float(inside[enough].mean()) if enough.any() else np.nan,
            "set_size": float(sets[enough].sum(axis=1).mean()) if enough.any() else np.nan,
            "refused": float(1 - enough.mean()),
        }


def expected_calibration_error(confidence: NDArray, correct: NDArray) -> float:
    """Mean distance between confidence and accuracy over `BINS` bins of equal width.

    See Guo et al.: On calibration of modern neural networks. ICML 2017. Both arrays have shape
    (cells,); confidence is the probability of the predicted class.
    """
    which = _bin(confidence)
    gaps = [abs(confidence[which == k].sum() - correct[which == k].sum()) for k in range(BINS)]
    return float(np.sum(gaps) / len(confidence))


def _bin(confidence: NDArray) -> NDArray[np.intp]:
    return np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)


def calibration_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Mean and SD over runs: one row per task and model.

    ``ece`` is of the predicted class; ``confident`` the share of cells with that verdict,
    ``accuracy_confident`` how many of those are right; ``outside`` the share called unlike the
    reference, all of which are true cells of it; ``refused`` the share with too little data, which
    take no part in the rest.
    """
    keys = [*WHO, "run"]
    cells = predictions.groupby(keys, sort=False).size().to_dict()
    rows = []
    for place, part in judged_cells(predictions).groupby(keys, sort=False):
        right, confidence = part["right"].to_numpy(), part["confidence"].to_numpy()
        confident = (part["verdict"] == Verdict.CONFIDENT).to_numpy()
        rows.append(
            dict(zip(keys, place, strict=True))
            | {"ece": expected_calibration_error(confidence, right), "accuracy": right.mean()}
            | {"mean_confidence": confidence.mean(), "confident": confident.mean()}
            | {"accuracy_confident": right[confident].mean() if confident.any() else np.nan}
            | {"outside": (part["verdict"] == Verdict.OUTSIDE).mean()}
            | {"refused": 1 - len(part) / cells[place]}
        )
    return over_runs(pd.DataFrame(rows), WHO)


def coverage_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Coverage and mean size of the prediction sets, mean and SD over runs.

    One row per task, model, kind of set and class; ``all`` for all cells together.
    """
    keys = [*WHO, "run"]
    rows = []
    for place, part in judged_cells(predictions).groupby(keys, sort=False):
        true = part["true"].to_numpy()
        classes = load_taxonomy().ordered(true)
        for kind, column in (("over all cells", "set"), ("by class", "class_set")):
            size = part[column].map(len).to_numpy()
            inside = np.array([t in chosen for t, chosen in zip(true, part[column], strict=True)])
            for name in ["all", *classes]:
                of = np.ones(len(true), bool) if name == "all" else true == name
                rows.append(
                    dict(zip(keys, place, strict=True))
                    | {"sets": kind, "class": name, "coverage": inside[of].mean()}
                    | {"set_size": size[of].mean(), "one_class": (size[of] == 1).mean()}
                    | {"empty": (size[of] == 0).mean()}
                )
    return over_runs(pd.DataFrame(rows), [*WHO, "sets", "class"])


def reliability_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Confidence and accuracy by bin of confidence, all runs together."""
    return pd.DataFrame(
        dict(zip(WHO, place, strict=True)) | row
        for place, part in judged_cells(predictions).groupby(WHO, sort=False)
        for row in reliability_rows(part["confidence"].to_numpy(), part["right"].to_numpy())
    )


def reliability_rows(confidence: NDArray, right: NDArray) -> Iterator[dict[str, float]]:
    """One row per bin of confidence that has cells; both arrays have shape (cells,)."""
    which = _bin(confidence)
    for k in np.unique(which):
        here = which == k
        yield {
            "bin_low": k / BINS,
            "bin_high": (k + 1) / BINS,
            "cells": int(here.sum()),
            "confidence": float(confidence[here].mean()),
            "accuracy": float(right[here].mean()),
        }


def families_table(by_fold: pd.DataFrame) -> pd.DataFrame:
    """Macro-F1 and coverage by what is there, mean and SD over runs of the mean of folds."""
    keys = [*WHO, "present"]
    scores = ["macro_f1", "accuracy", "coverage", "set_size", "refused"]
    runs = by_fold.groupby([*keys, "run"], sort=False)[scores].mean()
    return over_runs(runs.reset_index(), keys)


def judged_cells(predictions: pd.DataFrame) -> pd.DataFrame:
    """Cells of which enough is known: also whether they are right, how surely, the verdict."""
    cells = predictions[predictions["predicted"] != REFUSED]
    columns = [str(column) for column in cells if column != "p_reference"]
    names = [column.removeprefix("p_") for column in columns if column.startswith("p_")]
    # Classes of another task have no probabilities.
    p = np.nan_to_num(cells[[f"p_{name}" for name in names]].to_numpy(dtype=float))
    sets = np.array([[name in chosen for name in names] for chosen in cells["set"]], dtype=bool)
    found = verdicts(p, sets.reshape(p.shape), cells["p_reference"].to_numpy())
    right = cells["predicted"] == cells["true"]
    return cells.assign(right=right, confidence=p.max(axis=1), verdict=found)
