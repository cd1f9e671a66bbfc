"""Answers for cells that may be excitatory: verdict, set, csv, card, validation."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import crosspatch
from crosspatch.cohorts import table
from crosspatch.errors import CohortError
from crosspatch.features.layouts import load_layout
from crosspatch.models.artifact import Artifact
from crosspatch.models.screening import KindCells, fit_screen
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.batches import ReadSettings
from crosspatch.prediction.explained import explain_prediction, write_contributions
from crosspatch.prediction.kinds import kind_cells, screen_for
from crosspatch.prediction.predictor import Predictor
from crosspatch.prediction.training import train
from tests import made
from tests.prediction.conftest import COUNTS

SHARED = load_layout("shared")
APART = [SHARED.feature_names.index(name) for name in ("width_rheo", "sag", "tau", "latency_rheo")]


def interneurons(seed: int) -> anndata.AnnData:
    return made.cohort("human", COUNTS, donors=50, spread=1.0, seed=seed)


def excitatory(seed: int) -> np.ndarray:
    """Cells of no subclass, far from all in four features."""
    X = np.asarray(interneurons(seed).X)[:120].copy()
    X[:, APART] = 9.0 + np.random.default_rng(seed).normal(size=(120, len(APART)))
    return X


def rig(name: str, shift: float, seed: int) -> KindCells:
    inside, others = np.asarray(interneurons(seed).X), excitatory(seed + 100)
    X = np.vstack([inside, others])
    X[:, 0] += shift
    donors = np.array([f"{name}-{k % 40}" for k in range(len(X))])
    return KindCells(X, np.arange(len(X)) >= len(inside), np.full(len(X), name), donors)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    parts = zip(*(rig(str(k), shift, k) for k, shift in enumerate((0, 1, -1))), strict=True)
    screen = fit_screen(SHARED, KindCells._make(map(np.concatenate, parts)), ("here", "there"))
    out = tmp_path_factory.mktemp("trained") / "human"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crosspatch.prediction.training.screen_for", lambda *_, **__: screen)
        train(interneurons(0), model="logistic", out=out)
    return out


def labelled(seed: int) -> anndata.AnnData:
    """A laboratory's cells: interneurons by subclass, and pyramidal cells."""
    cohort = interneurons(seed)
    others = cohort.obs.astype(object).iloc[:120].assign(subclass=np.nan, t_type=np.nan)
    others.index = [f"p{k}" for k in range(120)]
    cells = pd.concat([cohort.obs.astype(object), others]).rename_axis("cell_id")
    cells["type"] = cells["subclass"].fillna("pyramidal")
    X = np.vstack([np.asarray(cohort.X), excitatory(seed)])
    return table.build(X, cells, SHARED, table.Head({}, True, {}, {}))


def quiet(line: str) -> None:
    """Nobody listens."""


def test_an_excitatory_cell_is_given_no_subclass(folder: Path):
    cells = labelled(5)
    found = crosspatch.predict(cells, model=folder, say=quiet).to_table()
    pyramidal = (cells.obs["type"] == "pyramidal").to_numpy()
    others, inside = found[pyramidal], found[~pyramidal]
    assert (others["verdict"] == Verdict.NOT_INTERNEURON).mean() > 0.95
    assert (inside["verdict"] == Verdict.NOT_INTERNEURON).mean() < 0.05
    assert (inside["verdict"] == Verdict.CONFIDENT).mean() > 0.5
    called = found[found["verdict"] == Verdict.NOT_INTERNEURON]
    assert (called["subclass"] == "").all()
    assert (called["prediction_set"] == "Glutamatergic").all()
    assert (called["p_interneuron"] < 0.03).all()
    assert called.filter(like="probability").isna().all(axis=None)
    sure = found[found["verdict"] == Verdict.CONFIDENT]
    assert not sure["prediction_set"].str.contains("Glutamatergic").any()


def test_a_cell_that_may_be_either_is_ambiguous(folder: Path):
    cohort = interneurons(5)
    cohort.X[:, APART] = np.nan  # what tells the kinds apart was not measured
    found = crosspatch.predict(cohort, model=folder, say=quiet).to_table()
    either = found["prediction_set"].str.endswith("|Glutamatergic")
    assert either.any()
    assert set(found.loc[either, "verdict"]) <= {Verdict.AMBIGUOUS, Verdict.OUTSIDE}
    assert (found.loc[either, "subclass"] != "").all()


def test_validation_counts_excitatory_cells_by_themselves(folder: Path):
    found = crosspatch.validate(labelled(5), label="type", model=folder, say=quiet)
    scores = found.tables.scores.set_index("class")
    assert scores.loc["all", "cells"] == sum(COUNTS.values())
    row = scores.loc["Glutamatergic"].to_dict()
    assert row["cells"] == 120
    assert row["not_interneuron"] == row["right"] > 0.95
    assert row["confident"] < 0.05
    assert row["covered"] > 0.9
    assert scores["not_interneuron"]["all"] < 0.05
    assert not len(found.tables.unknown)
    confusion = found.tables.confusion
    wrong = confusion[(confusion["true"] == "Glutamatergic") & (confusion["predicted"] == "Vip")]
    assert wrong["cells"].sum() < 6


def test_the_card_and_the_csv_say_what_is_known(folder: Path, models: dict[str, Artifact]):
    card = (folder / "card.md").read_text()
    assert "told from interneurons by cells of 2 datasets (here, there)" in card
    model = models["human"]
    assert model.classifier.screen is None
    said: list[str] = []
    crosspatch.predict(interneurons(5)[:3], model=folder, say=said.append)
    assert not any("interneuron" in line for line in said)


def test_a_model_that_takes_all_for_interneurons_says_so_and_why(tmp_path: Path):
    why = "the tables are not here"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crosspatch.prediction.training.screen_for", lambda *_, **__: why)
        train(interneurons(0), model="logistic", out=tmp_path / "model")
    assert why in (tmp_path / "model" / "card.md").read_text()
    said: list[str] = []
    crosspatch.predict(interneurons(5)[:3], model=tmp_path / "model", say=said.append)
    assert f"the human model takes every cell for an interneuron: {why}" in said


def test_without_tables_or_their_features_there_is_no_screen(tmp_path: Path):
    with pytest.raises(CohortError, match="the tables of 0 rigs"):
        kind_cells(tmp_path)
    assert "0 rigs" in str(screen_for(SHARED, tmp_path))
    assert "layout 'shared'" in str(screen_for(load_layout("paper"), tmp_path))


def test_the_published_tables_give_both_kinds_of_every_rig(real_data: Path):
    cells, names = kind_cells(real_data)
    by_rig = pd.DataFrame({"rig": cells.rigs, "excitatory": cells.excitatory})
    counts = by_rig.groupby("rig")["excitatory"].agg(["size", "sum"])
    assert counts.to_dict("index") == {
        "mouse, allen-patch-seq": {"size": 4354, "sum": 133},
        "mouse, allen-cell-types-mouse": {"size": 856, "sum": 571},
        "mouse, scala-mouse-m1": {"size": 1226, "sum": 409},
        "human, allen-patch-seq": {"size": 1209, "sum": 283},
        "human, allen-cell-types-human": {"size": 277, "sum": 216},
    }
    assert len(names) == 8


def test_an_excitatory_cell_is_explained_without_contributions(folder: Path, tmp_path: Path):
    cells = labelled(5)
    found = crosspatch.predict(cells[-3:], model=folder, say=quiet)
    assert set(found.verdicts) == {Verdict.NOT_INTERNEURON}
    predictor = Predictor([crosspatch.load_model(folder)])
    explained = explain_prediction(predictor, found, ReadSettings(SHARED))
    write_contributions(explained, tmp_path / "contributions.csv")
    lines = (tmp_path / "contributions.csv").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")][1:] == []


def test_a_table_of_excitatory_cells_alone_has_no_macro_f1(folder: Path):
    cells = labelled(5)
    alone = cells[(cells.obs["type"] == "pyramidal").to_numpy()].copy()
    found = crosspatch.validate(alone, label="type", model=folder, say=quiet)
    (row,) = found.tables.scores.to_dict("records")
    assert row["class"] == "Glutamatergic"
    assert np.isnan(row["f1"])
    assert row["right"] > 0.95


def test_a_set_holds_the_subclass_that_is_given(folder: Path):
    table = crosspatch.predict(labelled(5), model=folder, say=quiet).to_table()
    either = table["prediction_set"].str.endswith("Glutamatergic") & (table["subclass"] != "")
    inside = [
        name in chosen
        for name, chosen in zip(table["subclass"], table["prediction_set"], strict=True)
    ]
    assert np.array(inside)[either].all()
    assert table.loc[table["verdict"] == Verdict.INSUFFICIENT, "p_interneuron"].isna().all()
