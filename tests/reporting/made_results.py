"""Made-up result folders, with the tables that real ones have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosspatch.evaluation.results import CalibrationTables, ResultFolder, benchmark_result

CLASSES = {
    "mouse": ["Lamp5", "Pvalb", "Sst", "Vip", "Sncg"],
    "human": ["Lamp5", "Pvalb", "Sst", "Vip"],
    "transfer": ["Lamp5", "Pvalb", "Sst", "Vip"],
}
FAMILIES = ["subthreshold", "spike_shape", "train"]
MODELS = ("forest", "boosting", "bilstm-attention", "finetune")


def settings(kind: str, *, simulated: bool = False, **more: Any) -> dict[str, Any]:
    """Settings as a run writes them."""
    cohort = {
        "dataset": ["allen-human"],
        "simulated": simulated,
        "cells": 702,
        "donors": 109,
        "subclasses": {"Pvalb": 369, "Sst": 155, "Vip": 111, "Lamp5": 67},
        "dropped": {"without a label": 0, "not in a feature file": 74},
        "verified": True,
        "sha256": {
            "human/meta.csv": "c6c72fd87a9fdd67b08ed105f46529383962d05c1617b3fe2220e46e8af1"
        },
    }
    return {
        "kind": kind,
        "crosspatch": "0.1.0",
        "tasks": ["human"],
        "models": list(MODELS),
        "protocol": "quick",
        "protocol_about": "5 folds stratified and grouped by donor, 2 runs: a first look",
        "features": {"human": "shared"},
        "alignment": "hodge2019",
        "seed": 0,
        "jobs": 1,
        "device": "cpu",
        "calibration": False,
        "cohorts": {
            "human": cohort,
            "mouse": cohort | {"dataset": ["allen-mouse"], "cells": 4221, "donors": 1171},
        },
        "libraries": {"numpy": "2.4.6", "torch": "2.13.0+cpu"},
        "python": "3.11.7",
        "machine": "x86_64, 2 cores",
        "started": "2026-11-23T03:30:14+00:00",
    } | more


def cohorts_table() -> pd.DataFrame:
    """Table ``cohorts`` of both species."""
    rows = [
        ("human", "all", "all", 702, 109, 1.0),
        ("human", "left out", "not in a feature file", 74, np.nan, np.nan),
        *(("human", "subclass", n, c, c // 6, c / 702) for n, c in _HUMAN.items()),
        ("human", "condition", "acute", 401, 70, 401 / 702),
        ("human", "condition", "culture", 301, 39, 301 / 702),
        ("human", "disease", "epilepsy", 500, 80, 500 / 702),
        ("human", "disease", "tumor", 202, 29, 202 / 702),
        *(("human", "missing family", n, 12 * k, 9 * k, 12 * k / 702) for k, n in _NAMED),
        *(("mouse", "subclass", n, c, c // 4, c / 4221) for n, c in _MOUSE.items()),
        *(("mouse", "missing family", n, 55 * k, 40 * k, 55 * k / 4221) for k, n in _NAMED),
    ]
    return pd.DataFrame(rows, columns=["species", "group", "name", "cells", "donors", "share"])


_HUMAN = {"Lamp5": 67, "Pvalb": 369, "Sst": 155, "Vip": 111}
_MOUSE = {"Lamp5": 477, "Pvalb": 888, "Sst": 1824, "Vip": 797, "Sncg": 235}
_NAMED = list(enumerate(FAMILIES))


def benchmark_folder(
    folder: Path,
    models: Sequence[str] = MODELS,
    tasks: Sequence[str] = ("human",),
    *,
    runs: int = 2,
    folds: int = 5,
    calibration: bool = False,
    simulated: bool = False,
) -> Path:
    """A folder as `crosspatch run` writes it."""
    rng = np.random.default_rng(1)
    rows, confusion = [], []
    features = "shared (simulated)" if simulated else "shared"
    for task in tasks:
        names = CLASSES[task]
        for number, model in enumerate(models):
            if model in ("finetune", "joint") and task != "transfer":
                continue
            for run in range(runs):
                for fold in range(folds):
                    place: dict[str, Any] = {"task": task, "features": features, "model": model}
                    place |= {"protocol": "quick", "run": run, "fold": fold}
                    f1 = {f"f1_{n}": 0.55 + 0.08 * k for k, n in enumerate(names)}
                    f1 = {n: v + 0.01 * number + 0.02 * rng.normal() for n, v in f1.items()}
                    score = float(np.mean(list(f1.values())))
                    rows.append(
                        place
                        | {"n_train": 561, "n_test": 141, "macro_f1": score}
                        | {"accuracy": score + 0.08, "balanced_accuracy": score + 0.01}
                        | f1
                        | {"seconds": 3.0}
                    )
                    for true in names:
                        for predicted in names:
                            cells = rng.poisson(20 if true == predicted else 2)
                            pair = {"true": true, "predicted": predicted, "cells": int(cells)}
                            confusion.append(place | pair)
    told = settings("benchmark", simulated=simulated, tasks=list(tasks), calibration=calibration)
    told |= {"models": list(models), "features": dict.fromkeys(tasks, features)}
    tables = _calibration(tasks, models, features) if calibration else None
    cuts = _cuts(tasks, models, features, calibration)
    result = benchmark_result(
        pd.DataFrame(rows), pd.DataFrame(confusion), cohorts_table(), cuts, told, tables
    )
    return _write(folder, result.tables, told)


def _cuts(
    tasks: Sequence[str], models: Sequence[str], features: str, calibration: bool
) -> pd.DataFrame:
    every = "Lamp5, Pvalb, Sst, Vip"
    known = [
        ("all", 702, 109, every, np.nan, 0.82),
        ("labels: agree with SEA-AD", 622, 101, every, np.nan, 0.86),
        ("labels: disagree", 40, 30, np.nan, "40 cells, fewer than 100", np.nan),
        ("layer: 1", 135, 51, "Lamp5, Vip", np.nan, 0.85),
        ("layer: 2/3", 494, 95, every, np.nan, 0.83),
    ]
    rows = []
    for task in tasks:
        for model in models:
            for cut, cells, donors, classes, reason, score in known[: 1 if task == "mouse" else 5]:
                row: dict[str, object] = {
                    "task": task,
                    "features": features,
                    "model": model,
                    "protocol": "quick",
                }
                row |= {"cut": cut, "cells": cells, "donors": donors, "classes": classes}
                row |= {"reason": reason, "runs": 2, "macro_f1_mean": score, "macro_f1_sd": 0.004}
                shares = ["accuracy", "as_lee2023", "as_sea_ad"]
                shares += ["coverage", "confident"] * calibration
                for k, name in enumerate(shares):
                    row |= {f"{name}_mean": 0.43 + 0.07 * k, f"{name}_sd": 0.002 * (k + 1)}
                rows.append(row)
    return pd.DataFrame(rows)


def _calibration(tasks: Sequence[str], models: Sequence[str], features: str) -> CalibrationTables:
    who = [
        {"task": task, "features": features, "model": model, "protocol": "quick"}
        for task in tasks
        for model in models
    ]
    spread = {"coverage_mean": 0.9, "coverage_sd": 0.01, "set_size_mean": 1.4, "set_size_sd": 0.1}
    kinds = [(k, c) for k in ("over all cells", "by class") for c in ("all", *CLASSES["human"])]
    centres = [(k + 0.5) / 15 for k in range(5, 15)]
    return CalibrationTables(
        predictions=pd.DataFrame([w | {"run": 0, "fold": 0, "cell_id": "1"} for w in who]),
        calibration=pd.DataFrame(
            [
                w
                | {"runs": 2, "ece_mean": 0.034, "ece_sd": 0.003, "confident_mean": 0.73}
                | {"confident_sd": 0.01, "accuracy_confident_mean": 0.9, "outside_mean": 0.05}
                | {"accuracy_confident_sd": 0.006, "outside_sd": 0.004, "refused_mean": 0.004}
                | {"refused_sd": 0.0}
                for w in who
            ]
        ),
        coverage=pd.DataFrame(
            [w | {"sets": k, "class": c, "runs": 2} | spread for w in who for k, c in kinds]
        ),
        reliability=pd.DataFrame(
            [
                w
                | {"bin_low": x - 0.5 / 15, "bin_high": x + 0.5 / 15, "cells": int(200 * x)}
                | {"confidence": x, "accuracy": min(x + 0.02, 1)}
                for w in who
                for x in centres
            ]
        ),
        families=pd.DataFrame(
            [
                w
                | {"present": p, "runs": 2, "macro_f1_mean": 0.7, "macro_f1_sd": 0.02}
                | {"refused_mean": 0.01, "refused_sd": 0.0}
                | spread
                for w in who
                for p in ("all", "long squares only", *(f"without {n}" for n in FAMILIES))
            ]
        ),
    )


PAIRS = (
    ("finetune", "bilstm-attention"),
    ("lda-mouse", "lda-unlabelled"),
    ("lda-mouse", "best without mouse"),
)


def learning_curve_folder(folder: Path, *, simulated: bool = False) -> Path:
    """A folder as `crosspatch learning-curve` writes it."""
    rng = np.random.default_rng(2)
    counts = {"0": 0, "5": 20, "10": 40, "20": 80, "40": 160, "all": 560}
    cuts = ["all", "condition: acute", "condition: culture", "disease: epilepsy"]
    summary, gains = [], []
    for model, without in PAIRS:
        for cut in cuts:
            for k, (count, labelled) in enumerate(counts.items()):
                place = {"features": "shared", "cells_per_class": count, "cut": cut, "draws": 20}
                for name, mouse in ((without, False), (model, True)):
                    if count == "0" and not mouse:
                        continue
                    score = 0.4 + 0.06 * k + 0.05 * mouse * (k < 2) + 0.01 * rng.normal()
                    summary.append(
                        place
                        | {"model": name, "mouse": mouse, "n_labelled": labelled}
                        | {"macro_f1_mean": score, "macro_f1_sd": 0.02}
                        | {"ci_low": score - 0.03, "ci_high": score + 0.03}
                        | {"accuracy_mean": score + 0.1}
                    )
                if count != "0":
                    delta = 0.06 * (k < 2) + 0.005 * rng.normal()
                    gains.append(
                        place
                        | {"model": model, "without": without, "delta_macro_f1": delta}
                        | {"ci_low": delta - 0.03, "ci_high": delta + 0.03, "p_value": 0.2}
                    )
    tables = {"summary": pd.DataFrame(summary), "gains": pd.DataFrame(gains)}
    tables["cohorts"] = cohorts_table()
    return _write(folder, tables, settings("learning-curve", simulated=simulated))


def explanation_folder(folder: Path, *, simulated: bool = False) -> Path:
    """A folder as `crosspatch explain-models` writes it."""
    told = settings("explanation", simulated=simulated, species=["mouse", "human"])
    return _write(folder, explanation_tables(), told | {"models": ["bilstm-attention"]})


def explanation_tables() -> dict[str, pd.DataFrame]:
    """Tables of an explanation."""
    rng = np.random.default_rng(3)
    who = [
        {"species": s, "features": "shared", "model": "bilstm-attention"}
        for s in ("mouse", "human")
    ]
    classes = ["all", *CLASSES["human"]]
    importance = [
        w
        | {"how": how, "family": f, "scope": scope, "drop": d, "folds": 10}
        | {"ci_low": d - 0.03, "ci_high": d + 0.03, "p_value": 0.03}
        for w in who
        for how in ("permuted", "removed")
        for k, f in enumerate(FAMILIES)
        for scope in ("macro_f1", *CLASSES["human"])
        for d in [0.05 * k + 0.01 * rng.normal()]
    ]
    attention = [
        w | {"subclass": c, "family": f, "weight": x, "sd": 0.03, "cells": 100}
        for w in who
        for c in classes
        for f, x in zip(FAMILIES, rng.dirichlet([5, 5, 5]), strict=True)
    ]
    agreement = [
        {"what": what, "species": s, "model": "bilstm-attention", "spearman": r}
        | {"ci_low": r - 0.3, "ci_high": min(r + 0.3, 1), "families": 12, "folds": 10}
        | {"p_value": 0.03}
        | {"verdict": verdict}
        for what, s, r, verdict in (
            ("attention and permuted", "mouse", 0.2, "attention does not explain the model"),
            ("attention and permuted", "human", 0.7, "attention explains part of the model"),
            ("permuted and removed", "mouse", 0.9, "they agree"),
            ("attention between seeds", "mouse", 0.8, "stable"),
            ("mouse and human, permuted", "both", 0.6, "families matter alike"),
        )
    ]
    verdicts = ["same", "opposite", "mouse only", "neither"]
    conserved = [
        {"level": level, "group": g, "feature": f"feature_{k}", "family": FAMILIES[k % 3]}
        | {"unit": "mV", "mouse_auc": m, "mouse_low": m - 0.04, "mouse_high": m + 0.04}
        | {"human_auc": h, "human_low": h - 0.06, "human_high": h + 0.06}
        | {"mouse_cells": 477, "human_cells": 67, "verdict": verdicts[k % 4]}
        | {"mouse_balanced_auc": m, "mouse_balanced_low": m - 0.04, "mouse_balanced_high": m + 0.04}
        | {"human_balanced_auc": h, "human_balanced_low": h - 0.06, "human_balanced_high": h + 0.06}
        | {"balanced_verdict": "same" if k == 1 else verdicts[k % 4]}
        for level, groups in (
            ("subclass", CLASSES["human"]),
            ("homologous type", ["Sst CHODL", "Lamp5 LCP2 1"]),
        )
        for g in groups
        for k in range(8)
        for m, h in [(0.5 + 0.05 * (k - 3), 0.5 + 0.05 * (k - 3) * (-1) ** k)]
    ]
    pairs = [(a, b) for k, a in enumerate(classes[1:]) for b in classes[k + 2 :]]
    separation = [
        {"species": s, "features": "shared", "metric": metric, "a": a, "b": b, "value": v}
        | {"p_value": 0.001, "permutations": 999, "cells": 702, "components": 30}
        for s in ("mouse", "human")
        for metric, places in (
            ("silhouette", [("all", "all"), *((c, "rest") for c in classes[1:])]),
            ("d_prime", pairs),
        )
        for a, b in places
        for v in [0.1 if metric == "silhouette" else 1.4 + 0.2 * rng.normal()]
    ]
    labels = rng.choice(classes[1:], 600)
    spots = {name: 4 * rng.normal(size=2) for name in classes[1:]}
    points = np.array([spots[name] for name in labels]) + rng.normal(size=(600, 2))
    where = pd.DataFrame(
        {"cell_id": [f"cell-{k}" for k in range(600)], "subclass": labels}
        | {"species": np.where(rng.random(600) < 0.85, "mouse", "human")}
        | {"x": points[:, 0], "y": points[:, 1]}
    )
    # Families with many features are drawn as traces, others as scalars.
    wide = [(f, k) for f, n in zip(FAMILIES, (40, 40, 6), strict=True) for k in range(n)]
    loadings = [
        {"species": s, "features": "shared", "family": f, "component": c, "position": k}
        | {"feature": f"{f}[{k}]", "unit": "mV", "loading": x * (abs(x) > 0.3)}
        | {"mean": float(np.sin(k / 6)), "variance": 0.3 / (c + 1)}
        for s in ("mouse", "human")
        for f, k in wide
        for c in range(2)
        for x in [float(np.sin(k / 5 + c))]
    ]
    examples = [
        {"species": s, "features": "shared", "subclass": c, "family": f, "position": k}
        | {"feature": f"{f}[{k}]", "unit": "mV", "example": v + 0.1, "cell_id": f"{s}-{c}"}
        | {"low": v - 0.5, "median": v, "high": v + 0.5}
        for s in ("mouse", "human")
        for c in CLASSES["human"]
        for f, k in wide
        for v in [float(np.sin(k / 6 + len(c)))]
    ]
    results = [
        w
        | {"run": 0, "fold": fold, "seed": 0, "condition": "all present", "n_train": 500}
        | {"n_test": 100, "macro_f1": 0.7, "accuracy": 0.8, "balanced_accuracy": 0.7}
        for w in who
        for fold in range(2)
    ]
    return {
        "results": pd.DataFrame(results),
        "importance": pd.DataFrame(importance),
        "attention": pd.DataFrame(attention),
        "agreement": pd.DataFrame(agreement),
        "conserved": pd.DataFrame(conserved),
        "separation": pd.DataFrame(separation),
        "map": where,
        "loadings": pd.DataFrame(loadings),
        "examples": pd.DataFrame(examples),
    }


def _write(folder: Path, tables: dict[str, pd.DataFrame], told: dict[str, Any]) -> Path:
    results = ResultFolder(folder, tables=tuple(tables))
    results.begin(told)
    results.finish(tables, told)
    return folder
