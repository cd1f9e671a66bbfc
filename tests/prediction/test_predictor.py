"""Verdicts, species, files written."""

from __future__ import annotations

import csv
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import crosspatch
from crosspatch.cohorts import table
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CrosspatchError, ModelError
from crosspatch.features.layouts import Layout, load_layout
from crosspatch.models.verdicts import Verdict, verdicts
from crosspatch.prediction.batches import Batch, ReadSettings
from crosspatch.prediction.explained import explain_prediction
from crosspatch.prediction.in_turn import predict_batches, realigned
from crosspatch.prediction.output import Output, header_lines, open_output
from crosspatch.prediction.prediction import joined
from crosspatch.prediction.predictor import Predictor
from crosspatch.prediction.table_cells import read_table
from crosspatch.prediction.training import train
from tests import made
from tests.prediction.conftest import COUNTS

SHARED, FULL = load_layout("shared"), load_layout("full")


@pytest.fixture(scope="module")
def cohort():
    return made.cohort("human", COUNTS, donors=50, spread=1.5, seed=1)


def batch_of(cohort, species=None, ids=None) -> Batch:
    n = cohort.n_obs
    species = ["human"] * n if species is None else species
    ids = cohort.obs_names.tolist() if ids is None else ids
    return Batch("cells", ids, species, np.asarray(cohort.X).copy())


def test_a_prediction_is_typed_and_says_what_it_is(models, cohort):
    batch = batch_of(cohort)
    batch.X[0] = np.nan
    batch.X[1] += 40 * np.random.default_rng(0).normal(size=batch.X.shape[1])
    found = Predictor([models["human"]]).predict(batch)
    cells = list(found)
    assert {type(cell.verdict) for cell in cells} == {Verdict}
    assert [cell.verdict for cell in cells[:2]] == [Verdict.INSUFFICIENT, Verdict.OUTSIDE]
    assert all(isinstance(cell.prediction_set, tuple) for cell in cells)
    assert cells[1].unusual
    assert cells[2].unusual is None
    assert sum(found.verdicts.values()) == len(found) == cohort.n_obs
    assert len(repr(found)) < 200
    assert " outside reference" in repr(found)
    shown = found._repr_html_()
    assert shown.count("<tr") == 41  # the head, and the first 40 rows
    assert "&lt;" not in repr(found)
    with pytest.raises(FrozenInstanceError):
        found.layout = None  # type: ignore[misc,assignment]


def test_the_rule_for_sets_with_limits_of_their_own():
    """Alone in its set, a class that is not the most probable one is no confident answer."""
    p = np.array([[0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3], [np.nan, np.nan]])
    sets = np.array([[1, 0], [0, 1], [1, 1], [1, 0], [0, 0]], dtype=bool)
    found = verdicts(p, sets, np.array([0.5, 0.5, 0.5, 0.01, np.nan]))
    assert found.tolist() == [
        Verdict.CONFIDENT,
        Verdict.AMBIGUOUS,
        Verdict.AMBIGUOUS,
        Verdict.OUTSIDE,
        Verdict.INSUFFICIENT,
    ]
    assert {type(each) for each in found} == {Verdict}


def test_verdicts(models, cohort):
    batch = batch_of(cohort)
    batch.X[0] = np.nan
    batch.X[1] += 40 * np.random.default_rng(0).normal(size=batch.X.shape[1])
    found = Predictor([models["human"]]).predict(batch).to_table()
    assert found["cell_id"].tolist() == batch.cell_ids
    first = found.iloc[0]
    assert first["verdict"] == "insufficient data"
    assert first["subclass"] == ""
    assert np.isnan(first["probability"])
    assert found.iloc[1]["verdict"] == "outside reference"
    assert "unlike human: " in found.iloc[1]["notes"]
    sizes = np.array([len(text.split("|")) if text else 0 for text in found["prediction_set"]])
    judged = found["verdict"].isin(["confident", "ambiguous"])
    confident = found["verdict"] == "confident"
    # A rarer class than the most probable one can be alone in the set: then it is not confident.
    assert (confident == (found["prediction_set"] == found["subclass"]))[judged].all()
    assert (sizes[confident] == 1).all()
    assert (found["p_reference"] >= 0.05)[judged].all()
    right = found["subclass"] == cohort.obs["subclass"].to_numpy()
    assert right[found["verdict"] == "confident"].mean() > 0.85
    p = found[[f"probability_{name}" for name in models["human"].classes]]
    np.testing.assert_allclose(p[1:].sum(axis=1), 1)
    np.testing.assert_allclose(p[1:].max(axis=1), found["probability"][1:])


def test_a_cell_is_predicted_alike_in_any_company(models, cohort):
    predictor = Predictor([models["human"]])
    whole = predictor.predict(batch_of(cohort)).to_table()
    alone = predictor.predict(batch_of(cohort[5:6])).to_table()
    assert alone["subclass"][0] == whole["subclass"][5]
    assert alone["probability"][0] == pytest.approx(whole["probability"][5], abs=1e-9)


def test_without_a_species_cells_are_judged_by_both(models, cohort):
    species = [None, "mouse", "human"] + [None] * (cohort.n_obs - 3)
    found = Predictor(list(models.values())).predict(batch_of(cohort, species)).to_table()
    assert found["cell_id"].tolist()[:4] == ["human-0", "human-0", "human-1", "human-2"]
    assert found["species"].tolist()[:4] == ["human", "mouse", "mouse", "human"]
    assert found["species_known"].tolist()[:4] == [False, False, True, True]


def test_a_cell_of_a_species_without_a_model_is_not_given_a_class(models, cohort):
    said: list[str] = []
    species = ["mouse", "Rat"] + ["human"] * (cohort.n_obs - 2)
    found = Predictor([models["human"]]).predict(batch_of(cohort, species), said.append).to_table()
    assert found["verdict"].tolist()[:2] == ["outside reference"] * 2
    assert found["subclass"].tolist()[:2] == ["", ""]
    assert "the reference is of human cells" in found["notes"][0]
    assert any("1 of 'mouse', 1 of 'Rat'" in line for line in said)


def shifted(cohort) -> Batch:
    """Cells of another rig: every feature is elsewhere, by a standard deviation within a class."""
    batch = batch_of(cohort)
    batch.X[:] += 1.5 * np.random.default_rng(2).normal(size=batch.X.shape[1])
    return batch


def test_a_batch_of_other_cells_is_warned_about_and_one_like_the_reference_is_not(models, cohort):
    said: list[str] = []
    predictor = Predictor([models["human"]])
    predictor.predict(batch_of(cohort), said.append)
    assert not said
    other = batch_of(cohort)
    other.X[:] = 8 * np.random.default_rng(1).normal(size=other.X.shape)
    predictor = Predictor([models["human"]])
    predictor.predict(other, said.append)
    predictor.predict(other, said.append)
    assert sum("outside the human reference" in line for line in said) == 1


def test_a_shifted_batch_is_moved_onto_the_reference(models, cohort):
    said: list[str] = []
    plain = Predictor([models["human"]], adapt=False).predict(shifted(cohort), said.append)
    assert any("judged as they are" in line for line in said)
    moved = Predictor([models["human"]]).predict(shifted(cohort), said.append)
    truth = cohort.obs["subclass"].to_numpy()
    right = [(each.to_table()["subclass"] == truth).mean() for each in (plain, moved)]
    assert right[1] > right[0] + 0.1
    outside = [
        (each.to_table()["verdict"] == "outside reference").mean() for each in (plain, moved)
    ]
    assert outside[0] > 0.3
    assert outside[1] < 0.15
    np.testing.assert_array_equal(moved.X, shifted(cohort).X)  # as measured
    assert "human reference" in said[-1]
    assert "moved onto it" in said[-1]
    assert all(cell.aligned and "moved onto" in cell.text for cell in moved)
    assert moved.to_table()["notes"].tolist() == [cell.text for cell in moved]
    assert not any(cell.aligned for cell in plain)


def test_the_first_cells_of_a_file_decide_how_all_are_moved(models, cohort):
    batch, predictor = shifted(cohort), Predictor([models["human"]])
    rest = replace(batch.first(5), cell_ids=[f"more {k}" for k in range(5)])
    said: list[str] = []
    (_, first), (_, more) = predict_batches(predictor, [batch, rest], said.append)
    assert sum("moved onto it" in line for line in said) == 1
    assert more.records["probability"].to_pylist() == first.records["probability"].to_pylist()[:5]
    alone = predictor.predict(rest)  # five cells say too little
    assert not any(cell.aligned for cell in alone)
    (_, other) = next(iter(predict_batches(predictor, [replace(rest, source="other")])))
    assert not any(cell.aligned for cell in other)


def test_cells_of_unknown_species_are_not_moved(models, cohort):
    batch = replace(shifted(cohort), species=[None] * cohort.n_obs)
    assert not any(cell.aligned for cell in Predictor([models["human"]]).predict(batch))


def test_what_is_explained_of_a_moved_cell_is_what_was_judged(models, cohort):
    predictor = Predictor([models["human"]])
    found = predictor.predict(shifted(cohort)).rows(np.arange(2))
    for cell in explain_prediction(predictor, found, ReadSettings(predictor.layout)):
        of_class = cell.contributions.groupby("class").agg({"contribution": "sum", "base": "first"})
        for name, p in cell.cell.probabilities.items():
            assert of_class.loc[name].sum() == pytest.approx(p, abs=1e-6)


def test_how_cells_were_moved_is_found_again_from_them(models, cohort):
    predictor = Predictor([models["human"]])
    like = replace(batch_of(cohort), source="like")
    both = joined([predictor.predict(each) for each in (shifted(cohort), like)])
    again = realigned(predictor, replace(both, alignments={}))
    of = ("cells", "human")
    assert list(again) == list(both.alignments) == [of]
    np.testing.assert_array_equal(again[of].shift, both.alignments[of].shift)
    assert realigned(predictor, predictor.predict(batch_of(cohort))) == {}


def test_labelled_cells_move_a_batch_that_is_too_small_by_itself(model_folders, cohort, tmp_path):
    truth = cohort.obs["subclass"].to_numpy()
    cells = cohort.copy()
    cells.X = shifted(cohort).X
    cells.obs["line"] = ["PV" if name == "Pvalb" else name for name in truth]
    cells.obs.loc[cells.obs_names[:3], "line"] = ["unknown", "pyramidal", "n.d."]
    said: list[str] = []
    settings = {"model": model_folders["human"], "say": said.append}
    few = cells[-8:]
    assert not any(cell.aligned for cell in crosspatch.predict(few, **settings))
    cells[:60].write_h5ad(tmp_path / "mine.h5ad")
    mine = {"my_labelled": tmp_path / "mine.h5ad", "my_label": "line"}
    found = crosspatch.predict(few, **settings, **mine)
    assert all(cell.aligned for cell in found)
    assert any("labelled cells that have a say: 57 human cells (" in line for line in said)
    assert np.mean([cell.subclass for cell in found] == truth[-8:]) > 0.8
    for wrong in ({"my_label": "colour"}, {"my_label": None}, {"my_label": "donor"}):
        with pytest.raises(CrosspatchError, match="column"):
            crosspatch.predict(few, **settings, **(mine | wrong))


def test_batches_side_by_side_stay_in_order_and_are_spoken_of_once(models, cohort):
    strange = batch_of(cohort)
    strange.X[:, :6] += 40
    parts = [
        Batch("cells", strange.cell_ids[k : k + 20], ["human"] * 20, strange.X[k : k + 20])
        for k in range(0, 200, 20)
    ]
    said: list[str] = []
    judged = predict_batches(Predictor([models["human"]]), parts, said.append)
    found = [prediction for _, prediction in judged]
    alone: list[str] = []
    first = Predictor([models["human"]]).predict(parts[0], alone.append)
    assert first.to_table().equals(found[0].to_table())
    assert said == alone
    assert len(said) > 0
    ids = [cell.cell_id for part in found for cell in part]
    assert ids == strange.cell_ids[:200]


def test_sets_by_class_are_larger(models, cohort):
    plain, by_class = (
        Predictor([models["human"]], sets=sets).predict(batch_of(cohort)).to_table()
        for sets in ("all-cells", "by-class")
    )
    assert not plain["prediction_set"].equals(by_class["prediction_set"])
    for found in (plain, by_class):
        sure = found[found["verdict"] == "confident"]
        assert len(sure)
        assert (sure["prediction_set"] == sure["subclass"]).all()
    with pytest.raises(ModelError, match="by-class"):
        Predictor([models["human"]], sets="none")


def test_two_models_of_one_species_are_refused(models):
    with pytest.raises(ModelError, match="two models of human"):
        Predictor([models["human"], models["human"]])


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A human model of all 93 features."""
    cells = made.cohort("human", COUNTS, donors=50, spread=1.5, layout=FULL)
    return train(cells, model="logistic", out=tmp_path_factory.mktemp("wide") / "human")


def test_models_side_by_side_take_their_own_features(models, wide, cohort):
    """A mouse cell is judged by the 32 features of its model as if nothing else were known."""
    both, mouse = Predictor([models["mouse"], wide]), Predictor([models["mouse"]])
    assert both.layout.features == FULL.features
    values = np.full((cohort.n_obs, len(FULL.features)), np.nan, dtype=np.float32)
    values[:, [FULL.feature_names.index(name) for name in SHARED.feature_names]] = cohort.X
    values[:, FULL.columns["chirp"]] = 1e6  # no feature of the mouse's
    species = ["mouse", None, *["mouse"] * (cohort.n_obs - 2)]
    batch = replace(batch_of(cohort, species), X=values)
    found = both.predict(batch)
    rows = found.to_table()
    ours = rows[rows["species"] == "mouse"].reset_index(drop=True)
    alone = mouse.predict(batch_of(cohort, species)).to_table()
    assert len(rows) == len(ours) + 1  # the cell of which nothing is known is also judged as human
    pd.testing.assert_frame_equal(ours, alone[ours.columns])
    assert found.layout == FULL
    np.testing.assert_array_equal(found.X[:1], values[:1])
    human = rows[rows["species"] == "human"].iloc[0]
    assert "chirp" in human["families"]
    assert human["completeness"] < ours["completeness"][1]
    mouse_cell, _, *others = explain_prediction(both, found.rows(np.arange(3)), ReadSettings(FULL))
    assert len(mouse_cell.values) == len(SHARED.features)
    assert set(mouse_cell.contributions["family"]) <= set(SHARED.families)
    assert {len(each.values) for each in others} <= {32, 93}


def test_only_features_that_the_model_of_the_cells_takes_are_missed(models, wide):
    both = Predictor([models["mouse"], wide])
    how = ReadSettings(both.layout, layouts=both.layouts)
    mouse, human = made.cohort("mouse"), made.cohort("human")
    unknown = human.copy()
    unknown.obs["species"] = None
    for cells, missing in ((mouse, 0), (mouse[:, 1:], 1), (human, 61), (unknown, 61)):
        said: list[str] = []
        assert sum(map(len, read_table(cells, how, said.append))) == cells.n_obs
        assert [line.split(" features")[0] for line in said if "missing" in line] == (
            [f"table: {missing}"] if missing else []
        )


def test_models_whose_features_do_not_nest_are_refused(models, wide, tmp_path):
    other = Layout("few", (*SHARED.features[:4], replace(SHARED.features[5], unit="nA")))
    cells = made.cohort("mouse", COUNTS, donors=50, layout=other)
    odd = train(cells, model="logistic", out=tmp_path / "odd")
    with pytest.raises(
        ModelError, match=r"does not hold 'rheobase_i' \(nA\) of layout 'few'"
    ) as refused:
        Predictor([wide, odd])
    assert "give models of one layout" in str(refused.value)


def test_a_csv_explains_itself_and_is_no_formula(models, cohort, tmp_path):
    ids = ["=HYPERLINK(1)", "@x", "-12", "Cell #7", 'say "hi", you']
    prediction = Predictor([models["human"]]).predict(batch_of(cohort[:5], ids=ids))
    with Output(tmp_path / "p.csv") as output:
        output.add(prediction)
        output.add(prediction)
    text = (tmp_path / "p.csv").read_text()
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert any(models["human"].digest in line for line in head)
    assert any("taxonomy" in line for line in head)
    assert any("parameters" in line for line in head)
    found = pd.read_csv(tmp_path / "p.csv", comment="#")
    assert found["cell_id"].tolist()[:5] == ["'=HYPERLINK(1)", "'@x", "-12", "Cell #7", ids[4]]
    assert len(found) == 10
    np.testing.assert_allclose(
        found["probability_Sst"][:5], prediction.to_table()["probability_Sst"], atol=1e-6
    )
    rows = list(csv.reader(line for line in text.splitlines() if not line.startswith("#")))
    assert len({len(row) for row in rows}) == 1


def test_nothing_is_written_where_nothing_was_predicted(models, cohort, tmp_path):
    prediction = Predictor([models["human"]]).predict(batch_of(cohort[:5]))
    with Output(tmp_path / "none.csv"):
        pass
    with pytest.raises(RuntimeError), Output(tmp_path / "half.csv") as output:
        output.add(prediction)
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with pytest.raises(CrosspatchError, match="change the name"):
        open_output(tmp_path / "p.docx")


def test_h5ad_keeps_features_and_predictions(models, cohort, tmp_path):
    species = [None] + ["human"] * (cohort.n_obs - 1)
    prediction = Predictor(list(models.values())).predict(batch_of(cohort, species))
    with Output(tmp_path / "p.h5ad") as output:
        output.add(prediction)
    found = anndata.read_h5ad(tmp_path / "p.h5ad")
    assert found.obs_names.tolist()[:3] == ["human-0 (human)", "human-0 (mouse)", "human-1"]
    assert found.obs["verdict"].astype(str).tolist() == prediction.to_table()["verdict"].tolist()
    np.testing.assert_array_equal(found.X, prediction.X)
    known = {**load_taxonomy().ontology, "": ""}  # nothing where there is no subclass
    terms = found.obs["subclass"].astype(str).map(known)
    assert found.obs["cell_ontology_id"].astype(str).tolist() == terms.tolist()
    lines = header_lines(prediction.header)
    assert any("Lamp5 CL:4023011, Pvalb CL:4023018" in line for line in lines)


def test_the_python_call_gives_all_of_it(model_folders, cohort, tmp_path):
    table.write(cohort, tmp_path / "cells.h5ad")
    prediction = crosspatch.predict(
        tmp_path / "cells.h5ad", model=model_folders["human"], say=lambda line: None
    )
    assert len(prediction) == cohort.n_obs
    figure = prediction.plot(most=10)
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels[0] == "human-0 (human)"
    assert len(labels) == 10
    with pytest.raises(CrosspatchError, match="does not exist"):
        crosspatch.predict(tmp_path / "no.csv", model=model_folders["human"], say=lambda line: None)


def test_recordings_are_measured_and_failures_kept(model_folders, real_data: Path):
    said: list[str] = []
    prediction = crosspatch.predict(
        sorted((real_data / "recordings").glob("*.abf")),
        model=list(model_folders.values()),
        species="mouse",
        say=said.append,
    )
    found = prediction.to_table().set_index("cell_id")
    assert len(found) == 6
    steps = ["18713001", "171116sh_0018", "190619B_0003"]
    assert (found.loc[steps, "subclass"] != "").all()
    assert (found.loc[steps, "completeness"] > 0.5).all()
    voltage_clamp = found.loc["171116sh_0013_voltage_clamp"]
    assert voltage_clamp["verdict"] == "insufficient data"
    assert "voltage clamp" in voltage_clamp["notes"]
    assert any("voltage clamp" in line for line in said)
    # A ramp alone is little of the layout, and tells enough for an answer.
    ramp = found.loc[["17o05027_ic_ramp"]]
    assert (ramp["completeness"] < 0.25).all()
    assert (ramp["subclass"] != "").all()
