"""How honest is a model's uncertainty: calibration, coverage, strangers, missing families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import f1_score

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.features.layouts import Layout
from crosspatch.models.calibrated import CalibratedClassifier
from crosspatch.models.calibration import Calibration
from crosspatch.models.verdicts import OUTSIDE_P

#: Bins of the reliability diagram, of equal width (Guo et al. 2017).
BINS = 15

#: What stands in place of a class where a cell has too little of the layout.
REFUSED = "insufficient data"

#: Stimuli by the ending of a family's name, for scalar layouts.
_OTHER_STIMULI = ("_ramp", "_short_square")

#: Columns that identify a model's results.
_WHO = ["task", "features", "model", "protocol"]


def conditions(layout: Layout, seed: int = 0) -> dict[str, NDArray[np.bool_]]:
    """Which features are there: all, long squares only, without a family, two families, 40 %.

    Parameters
    ----------
    layout : Layout
    seed : int
        Of the features drawn at random.

    Returns
    -------
    dict
        What is there, in words, to an array of bool, shape (features,).
    """
    whole = np.ones(len(layout.features), dtype=bool)

    def of(families: Sequence[str]) -> NDArray[np.bool_]:
        there = np.zeros(len(whole), dtype=bool)
        for family in families:
            there[layout.columns[family]] = True
        return there

    found = {"all": whole}
    long_square = [name for name in layout.families if not name.endswith(_OTHER_STIMULI)]
    if len(long_square) < len(layout.families):
        found["long squares only"] = of(long_square)
    for family in layout.families:
        found[f"without {family}"] = ~of([family])
    if len(layout.families) <= 6:
        for pair in combinations(layout.families, 2):
            found[f"only {pair[0]} and {pair[1]}"] = of(pair)
    if not layout.traces:
        rng = np.random.default_rng(seed)
        for number in range(3):
            some = np.zeros(len(whole), dtype=bool)
            some[rng.choice(len(whole), round(0.4 * len(whole)), replace=False)] = True
            found[f"{int(some.sum())} features, draw {number + 1}"] = some
    return found


def judge(model: CalibratedClassifier, X: NDArray, seed: int = 0) -> dict[str, Any]:
    """What a fitted model says of test cells, complete and with features taken away.

    Parameters
    ----------
    model : CalibratedClassifier
    X : array, shape (cells, features)
    seed : int

    Returns
    -------
    dict
        Lists, as they are kept in a fold's file.
    """
    found = model.judge(X)
    less = {}
    for name, there in conditions(model.layout, seed).items():
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
    """The most probable class of each cell, shape (cells,).

    Parameters
    ----------
    probabilities : array, shape (cells, classes)
        NaN for cells with too little of the layout; `REFUSED` stands in place of their class, and
        counts as a wrong one.
    classes : array of str, shape (classes,)
    """
    p = np.asarray(probabilities, dtype=float)
    best = np.asarray(classes, dtype=str)[np.nan_to_num(p).argmax(axis=1)]
    return np.where(np.isnan(p).any(axis=1), REFUSED, best)


def prediction_rows(
    place: Mapping[str, Any], outcome: Mapping[str, Any], classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A row a test cell of a fold: probabilities, prediction sets, p-value."""
    judged = outcome["judged"]
    names = outcome["classes"]
    predicted = predicted_classes(outcome["probabilities"], names).tolist()
    for row, cell_id in enumerate(outcome["cell_ids"]):
        p = dict(zip(names, outcome["probabilities"][row], strict=True))
        yield (
            dict(place)
            | {"cell_id": cell_id, "true": outcome["y"][row], "predicted": predicted[row]}
            | {f"p_{name}": p.get(name, np.nan) for name in classes}
            | {
                kind: "|".join(
                    n for n, inside in zip(names, judged[of][row], strict=True) if inside
                )
                for kind, of in (("set", "sets"), ("class_set", "class_sets"))
            }
            | {"p_reference": judged["p_reference"][row]}
        )


def cross_validated(model: CalibratedClassifier) -> pd.DataFrame:
    """What a model said of its own training cells when they were held back.

    Each fold is calibrated by the others.

    Returns
    -------
    DataFrame
        A row a cell that has enough of the layout, with the columns of `prediction_rows`.
    """
    held = model.held_
    names = [str(name) for name in model.classes_]
    parts = []
    for fold in np.unique(held.fold):
        fitted = Calibration.fit(held.where(held.fold != fold), model.coverage)
        part = held.where((held.fold == fold) & held.whole)
        p = fitted.probabilities(part.log_p, part.completeness)
        frame = pd.DataFrame(p, columns=[f"p_{name}" for name in names])
        frame["true"] = np.asarray(names)[part.codes]
        frame["predicted"] = np.asarray(names)[p.argmax(axis=1)]
        for kind, by_class in (("set", False), ("class_set", True)):
            frame[kind] = [
                set_text(names, row) for row in fitted.sets(p, part.completeness, by_class=by_class)
            ]
        frame["p_reference"] = fitted.p_values(part.distance, part.completeness)
        parts.append(frame)
    return pd.concat(parts, ignore_index=True).assign(run=0, **dict.fromkeys(_WHO, ""))


def set_text(names: Sequence[str], inside: Sequence[Any]) -> str:
    """The classes of a prediction set as text: ``Sst|Vip``."""
    return "|".join(name for name, there in zip(names, inside, strict=True) if there)


def condition_rows(
    place: Mapping[str, Any], outcome: Mapping[str, Any], classes: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """A row a fold and choice of features."""
    y = np.asarray(outcome["y"])
    names = np.asarray(outcome["classes"])
    for condition, part in outcome["judged"]["conditions"].items():
        predicted = np.asarray(part["predicted"])
        sets = np.asarray(part["sets"], dtype=bool).reshape(len(y), len(names))
        enough = predicted != REFUSED
        inside = (sets & (names[None, :] == y[:, None])).any(axis=1)
        of_class = f1_score(y, predicted, labels=list(classes), average="macro", zero_division=0)
        yield dict(place) | {
            "present": condition,
            "macro_f1": float(of_class),
            "accuracy": float(np.mean(predicted == y)),
            "coverage": float(inside[enough].mean()) if enough.any() else np.nan,
            "set_size": float(sets[enough].sum(axis=1).mean()) if enough.any() else np.nan,
            "refused": float(1 - enough.mean()),
        }


def expected_calibration_error(confidence: NDArray, correct: NDArray) -> float:
    """Mean distance between confidence and accuracy over `BINS` bins of equal width.

    Parameters
    ----------
    confidence : array, shape (cells,)
        Probability of the predicted class.
    correct : array of bool, shape (cells,)

    References
    ----------
    Guo et al.: On calibration of modern neural networks. ICML 2017.
    """
    which = _bin(confidence)
    gaps = [abs(confidence[which == k].sum() - correct[which == k].sum()) for k in range(BINS)]
    return float(np.sum(gaps) / len(confidence))


def _bin(confidence: NDArray) -> NDArray[np.intp]:
    return np.minimum((np.asarray(confidence) * BINS).astype(int), BINS - 1)


def calibration_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Mean and SD over runs, a row a task and model.

    ``ece`` is of the predicted class; ``confident`` the share of cells with one class in their
    set that are not called outside, ``accuracy_confident`` how many of those are right;
    ``outside`` the share called outside the reference, all of which are true cells of it;
    ``refused`` the share with too little data, which take no part in the rest.
    """
    rows = []
    for (*who, run), part in predictions.groupby([*_WHO, "run"], sort=False):
        judged = part[part["predicted"] != REFUSED]
        best = _confidence(judged)
        right = (judged["predicted"] == judged["true"]).to_numpy()
        size = _sizes(judged["set"])
        confident = (size == 1) & (judged["p_reference"] >= OUTSIDE_P).to_numpy()
        rows.append(
            dict(zip(_WHO, who, strict=True))
            | {
                "run": run,
                "ece": expected_calibration_error(best, right),
                "accuracy": right.mean(),
                "mean_confidence": best.mean(),
                "confident": confident.mean(),
                "accuracy_confident": right[confident].mean() if confident.any() else np.nan,
                "outside": (judged["p_reference"] < OUTSIDE_P).mean(),
                "refused": 1 - len(judged) / len(part),
            }
        )
    return _over_runs(pd.DataFrame(rows), _WHO)


def coverage_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Coverage and mean size of the prediction sets, mean and SD over runs.

    A row a task, model, kind of set and class; ``all`` for all cells together.
    """
    rows = []
    for (*who, run), part in predictions.groupby([*_WHO, "run"], sort=False):
        judged = part[part["predicted"] != REFUSED]
        for kind, column in (("over all cells", "set"), ("by class", "class_set")):
            size = _sizes(judged[column])
            inside = np.array(
                [t in s.split("|") for t, s in zip(judged["true"], judged[column], strict=True)]
            )
            there = set(judged["true"])
            for name in ["all", *(n for n in load_taxonomy().subclasses if n in there)]:
                of = np.ones(len(judged), bool) if name == "all" else judged["true"] == name
                rows.append(
                    dict(zip(_WHO, who, strict=True))
                    | {"sets": kind, "class": name, "run": run, "coverage": inside[of].mean()}
                    | {"set_size": size[of].mean(), "one_class": (size[of] == 1).mean()}
                    | {"empty": (size[of] == 0).mean()}
                )
    return _over_runs(pd.DataFrame(rows), [*_WHO, "sets", "class"])


def reliability_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Confidence and accuracy by bin of confidence, all runs together."""
    rows = []
    for who, part in predictions.groupby(_WHO, sort=False):
        judged = part[part["predicted"] != REFUSED]
        best = _confidence(judged)
        right = (judged["predicted"] == judged["true"]).to_numpy()
        which = _bin(best)
        for k in np.unique(which):
            here = which == k
            rows.append(
                dict(zip(_WHO, who, strict=True))
                | {"bin_low": k / BINS, "bin_high": (k + 1) / BINS, "cells": int(here.sum())}
                | {"confidence": best[here].mean(), "accuracy": right[here].mean()}
            )
    return pd.DataFrame(rows)


def families_table(by_fold: pd.DataFrame) -> pd.DataFrame:
    """Macro-F1 and coverage by what is there, mean and SD over runs of the mean of folds."""
    scores = ["macro_f1", "accuracy", "coverage", "set_size", "refused"]
    keys = [*_WHO, "present"]
    runs = by_fold.groupby([*keys, "run"], sort=False)[scores].mean().reset_index()
    return _over_runs(runs, keys)


def _over_runs(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    scores = [name for name in rows.columns if name not in (*keys, "run")]
    grouped = rows.groupby(list(keys), sort=False)[scores]
    mean, deviation = grouped.mean(), grouped.std(ddof=1)
    table = mean.add_suffix("_mean").join(deviation.add_suffix("_sd"))
    table = table[[f"{name}_{kind}" for name in scores for kind in ("mean", "sd")]]
    table.insert(0, "runs", grouped.size())
    return table.reset_index()


def _confidence(predictions: pd.DataFrame) -> NDArray[np.float64]:
    columns = [name for name in predictions if str(name).startswith("p_") and name != "p_reference"]
    return np.nanmax(predictions[columns].to_numpy(dtype=float), axis=1)


def _sizes(sets: pd.Series) -> NDArray[np.intp]:
    return np.array([len(text.split("|")) if text else 0 for text in sets.fillna("")])
