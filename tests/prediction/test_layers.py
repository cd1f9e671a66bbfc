"""The cortical layer, an optional input of models that take it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

import crosspatch
from crosspatch.errors import CrosspatchError, EvaluationError, LayoutError
from crosspatch.explanation.contributions import contributions
from crosspatch.features.layouts import LAYER, Layout, load_layout
from crosspatch.models import artifact
from crosspatch.models.absence import random_masks
from tests import made
from tests.prediction.conftest import layered_cells
from tests.recordings.made_files import write_nwb

SHARED = load_layout("shared")


@pytest.fixture(scope="module")
def placed(tmp_path_factory) -> Path:
    """The folder of a model that takes the layer."""
    folder = tmp_path_factory.mktemp("placed") / "human"
    crosspatch.train(layered_cells(0), model="lda", out=folder)
    return folder


@pytest.fixture(scope="module")
def plain(model_folders) -> Path:
    """The folder of a model that does not."""
    return model_folders["human"]


def frame_of(cohort: anndata.AnnData, **more: object) -> pd.DataFrame:
    frame = cohort.to_df().reset_index().rename(columns={"index": "cell_id"})
    return frame.assign(species="human", **more)


def test_location_comes_last_and_is_not_measured():
    layout = SHARED.with_layer()
    assert layout.features == (*SHARED.features, LAYER)
    assert layout.with_layer() is layout
    assert layout.measured == SHARED
    assert SHARED.measured is SHARED
    assert (layout.has_layer, SHARED.has_layer) == (True, False)
    assert (layout.title, SHARED.title) == ("shared + layer", "shared")
    X = np.full((2, len(layout.features)), np.nan)
    X[:, :5] = 1.0
    X[1, -1] = 5.0
    assert layout.completeness(X).tolist() == [SHARED.completeness(X[:1, :-1])[0]] * 2
    with pytest.raises(LayoutError, match="before those of location"):
        Layout("odd", (LAYER, *SHARED.features))


def test_models_learn_to_do_without():
    masks = random_masks(SHARED.with_layer(), 1000, np.random.default_rng(0))
    assert 0.3 < masks[:, -1].mean() < 0.7


def test_the_layer_tells_the_class_and_nothing_of_the_rest(placed):
    cohort = layered_cells(1)
    known = (cohort.obs["layer"].notna()).to_numpy()
    model = artifact.load(placed)
    assert model.layout == SHARED.with_layer()
    there = crosspatch.predict(cohort, model=placed)
    bare = cohort.copy()
    del bare.obs["layer"]
    absent = crosspatch.predict(bare, model=placed)
    truth = cohort.obs["subclass"].to_numpy()
    with_layer = (there.cells["subclass"] == truth)[known].mean()
    assert with_layer > (absent.cells["subclass"] == truth)[known].mean() + 0.05
    assert there.cells["families"].tolist() == absent.cells["families"].tolist()
    for name in ("completeness", "p_reference"):
        np.testing.assert_array_equal(there.cells[name], absent.cells[name])
    outside = there.cells["verdict"] == "outside reference"
    assert outside.tolist() == (absent.cells["verdict"] == "outside reference").tolist()
    assert not any("layer" in each for said in there.cells["unusual"].dropna() for each in said)
    np.testing.assert_array_equal(
        there.cells.loc[~known, "probability"], absent.cells.loc[~known, "probability"]
    )
    assert there.cells["layer"].tolist() == [
        {"L1": "1", "6a": "6", None: ""}.get(each, each) for each in cohort.obs["layer"]
    ]
    assert set(absent.cells["layer"]) == {""}
    assert set(there.to_table()["layer"]) == {"", "1", "2/3", "5", "6"}


def test_a_cohort_tables_layers(placed):
    cohort = layered_cells(2)[:4].copy()
    cohort.obs["layer"] = ["L1", "L4?", None, "2/3"]
    found = crosspatch.predict(cohort, model=placed, layer="5")
    assert found.cells["layer"].tolist() == ["1", "", "5", "2/3"]
    (line,) = [each for each in found.messages if "L4?" in each]
    assert line.endswith("column 'layer', taken as missing: 1 not a cortical layer, such as 'L4?'")


@pytest.mark.parametrize("name", ["Layer", "cortical_layer", "structure__layer"])
def test_a_tables_column_of_layers(placed, tmp_path, name):
    cohort = layered_cells(2)[:6]
    said = ["L1", "5", "L4?", "", "VISp6a", "layer II/III"]
    frame_of(cohort, **{name: said}).to_csv(tmp_path / "cells.csv", index=False)
    found = crosspatch.predict(tmp_path / "cells.csv", model=placed)
    assert found.cells["layer"].tolist() == ["1", "5", "", "", "6", "2/3"]
    assert f"cells.csv: layer: {name}" in found.messages
    (line,) = [each for each in found.messages if "L4?" in each]
    assert line == (
        f"cells.csv: column '{name}', taken as missing: 1 not a cortical layer, such as 'L4?'"
    )
    without = crosspatch.predict(frame_of(cohort), model=placed)
    assert found.cells["probability"][2] == pytest.approx(without.cells["probability"][2])
    assert found.cells["probability"][0] != pytest.approx(without.cells["probability"][0])


def test_a_mapping_says_which_column_is_the_layer(placed, tmp_path):
    frame_of(layered_cells(2)[:2], depth=["1", "5"]).to_csv(tmp_path / "cells.csv", index=False)
    (tmp_path / "mapping.yaml").write_text('"depth": layer\n')
    how = {"model": placed, "columns": tmp_path / "mapping.yaml"}
    found = crosspatch.predict(tmp_path / "cells.csv", **how)
    assert found.cells["layer"].tolist() == ["1", "5"]


def test_a_layer_for_all_is_of_cells_that_do_not_say_theirs(placed):
    frame = frame_of(layered_cells(2)[:3], layer=["5", None, "superficial"])
    found = crosspatch.predict(frame, model=placed, layer="L2/3")
    # What a table says is not replaced, even where it is not understood.
    assert found.cells["layer"].tolist() == ["5", "2/3", ""]
    with pytest.raises(CrosspatchError, match="'deep' is not a cortical layer"):
        crosspatch.predict(frame, model=placed, layer="deep")


def test_recordings_say_it_in_the_location_of_their_electrode(placed, tmp_path):
    file = write_nwb(tmp_path / "cell.nwb")
    with h5py.File(file, "a") as nwb:
        del nwb["general/subject/species"]
        nwb["general/subject/species"] = "Homo sapiens"

    def layer(layer: str | None = None) -> str:
        (cell,) = crosspatch.predict(file, model=placed, layer=layer)
        return cell.layer

    assert layer() == ""
    assert layer(layer="6a") == "6"
    with h5py.File(file, "a") as nwb:
        nwb["general/intracellular_ephys/electrode_0/location"] = "V1, layer 2/3"
    assert layer() == layer(layer="6a") == "2/3"
    with h5py.File(file, "a") as nwb:
        del nwb["general/intracellular_ephys/electrode_0/location"]
        nwb["general/intracellular_ephys/electrode_0/location"] = "V1, L4?"
    assert layer() == layer(layer="6a") == ""
    assert (
        "the cortical layer in 'V1, L4?' is not understood and taken as missing"
        in next(iter(crosspatch.predict(file, model=placed))).notes
    )


def test_a_model_that_takes_no_layer_says_so(plain):
    frame = frame_of(layered_cells(2)[:3], layer=["5", "5", "1"])
    found = crosspatch.predict(frame, model=plain, layer="5")
    assert "the models do not take the cortical layer; it is not used" in found.messages
    assert set(found.cells["layer"]) == {""}
    same = crosspatch.predict(frame.drop(columns="layer"), model=plain)
    assert found.cells["probability"].tolist() == same.cells["probability"].tolist()


def test_models_with_and_without_predict_side_by_side(placed, model_folders):
    frame = frame_of(layered_cells(2)[:3], layer=["5", "5", "1"])
    frame["species"] = ["human", "mouse", ""]
    found = crosspatch.predict(frame, model=[placed, model_folders["mouse"]])
    said = found.cells.set_index(["cell_id", "species"])["layer"].to_dict()
    ids = frame["cell_id"]
    assert said == {
        (ids[0], "human"): "5",
        (ids[1], "mouse"): "",
        (ids[2], "human"): "1",
        (ids[2], "mouse"): "",
    }


def test_the_layer_has_a_share_in_what_speaks_for_a_class(placed):
    model = artifact.load(placed)
    X = np.column_stack([np.asarray(layered_cells(1).X)[:4], [1.0, np.nan, 5.0, 2.5]])
    shares = contributions(model.classifier, X, model.layout)
    assert set(shares.loc[shares["family"] == "location", "cell"]) == {0, 2, 3}
    first = shares[(shares["cell"] == 0) & (shares["family"] == "location")]
    assert first.set_index("class")["contribution"].idxmax() == "Lamp5"
    explained = crosspatch.explain(frame_of(layered_cells(2)[:1], layer=["1"]), model=placed)
    assert "location" in set(explained[0].contributions["family"])


def test_a_model_says_that_it_takes_the_layer(placed, plain):
    assert "and the cortical layer where it is known" in (placed / "card.md").read_text()
    assert "32 features" in (placed / "card.md").read_text()
    assert "layer" not in (plain / "card.md").read_text().replace("layout", "")


def test_a_cohort_that_knows_no_layer_gives_a_model_without(tmp_path):
    model = crosspatch.train(made.cohort("human"), model="lda", out=tmp_path / "m")
    assert model.layout == SHARED


def test_an_evaluation_with_the_layer_says_so():
    cohort = layered_cells(0)
    models = ["lda", "logistic"]
    how: dict[str, Any] = {"protocol": "quick", "tasks": ["human"], "models": models}
    without = crosspatch.benchmark({"human": cohort}, **how)
    found = crosspatch.benchmark({"human": cohort}, layer=True, **how)
    assert set(without.summary["features"]) == {"shared"}
    assert found.summary.set_index("model")["features"].to_dict() == {
        "lda": "shared + layer",
        "logistic": "shared",  # takes none
    }
    scores = [each.summary.set_index("model")["macro_f1_mean"] for each in (found, without)]
    assert scores[0]["lda"] > scores[1]["lda"] + 0.05
    assert scores[0]["logistic"] == scores[1]["logistic"]
    assert (found.settings["layer"], without.settings["layer"]) == (True, False)
    with pytest.raises(EvaluationError, match="none of the models chosen takes the cortical layer"):
        crosspatch.benchmark({"human": cohort}, layer=True, **how | {"models": ["logistic"]})
    del cohort.obs["layer"]
    with pytest.raises(EvaluationError, match="of no cell of the cohort the cortical layer"):
        crosspatch.benchmark({"human": cohort}, layer=True, **how)
