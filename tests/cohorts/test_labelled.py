"""Cohorts of laboratories' own labelled tables."""

from __future__ import annotations

from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest

from crosspatch.cohorts import table
from crosspatch.cohorts.cells import layers_of
from crosspatch.cohorts.labelled import load_labelled
from crosspatch.errors import CohortError
from crosspatch.tables.mapping import Override, Overrides
from tests import made

FEATURES = ["input_resistance", "width_rheo", "Wildness", "hump"]


@pytest.fixture
def frame() -> pd.DataFrame:
    return made.own_table()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def load(said) -> Callable[..., anndata.AnnData]:
    def load_it(cells, **more) -> anndata.AnnData:
        given = {"label": "type", "group": "mouse", "species": "mouse"} | more
        return load_labelled(cells, say=said.append, **given)

    return load_it


def left_out(said: list[str]) -> dict[str, str]:
    """Columns that were left out, one by one, and why."""
    lines = [line.removeprefix("table: left out: ") for line in said if ": left out: " in line]
    parts = [line.partition(": ") for line in lines if ": " in line]
    return {name: why for names, _, why in parts for name in names.split(", ")}


def test_columns_are_features_by_our_names_or_as_they_stand(frame, load, said):
    cohort = load(frame)
    assert cohort.var_names.tolist() == FEATURES
    assert cohort.var["unit"].tolist() == ["MOhm", "ms", "unspecified", "mV"]
    assert cohort.var["family"].tolist() == ["subthreshold", "ap_long_square", "Wildness", "hump"]
    ours = frame[["Rin (MOhm)", "half width (ms)", "Wildness", "hump (mV)"]]
    np.testing.assert_allclose(cohort.X, ours.to_numpy(np.float32))
    assert cohort.obs_names.tolist() == frame["Neuron ID"].tolist()
    assert cohort.obs["subclass"].tolist() == frame["type"].tolist()
    assert cohort.obs["donor"].tolist() == frame["mouse"].tolist()
    assert "table: labels of column 'type': FS 60 (15 donors), RS 60 (15 donors)" in said
    assert not [line for line in said if "WARNING" in line]


def test_it_is_written_and_read_as_any_cohort(frame, load, tmp_path):
    cohort = load(frame.replace({"type": {"FS": "L2/3 IT"}}))
    table.write(cohort, tmp_path / "own.h5ad")
    again = table.read(tmp_path / "own.h5ad")
    assert table.layout_of(again) == table.layout_of(cohort)
    assert table.head_of(again).own == table.OwnTable("table", "type", "mouse")
    assert set(again.obs["subclass"]) == {"L2/3 IT", "RS"}


def test_labels_stay_as_they_stand_with_their_term(frame, load):
    cohort = load(frame.replace({"type": {"FS": "PV", "RS": "odd ones"}}))
    terms = cohort.obs.groupby("subclass", observed=True)["cell_ontology_id"].agg(set)
    assert terms["PV"] == {"CL:4023018"}
    assert pd.isna(terms["odd ones"].pop())


@pytest.mark.parametrize(
    ("column", "values", "why"),
    [
        ("notes", lambda n: ["clear", "dim"] * (n // 2), "text"),
        ("when", lambda n: pd.date_range("2024-01-01", periods=n), "dates"),
        ("cluster no", lambda n: np.arange(n) % 7, "by its name"),
        ("soma size (g)", lambda n: np.linspace(1, 2, n), "by its unit"),
        ("spread", lambda n: ["3 ± 0.5", "4 ± 1"] * (n // 2), "means with their deviations"),
        ("gain", lambda n: np.full(n, 3.5), "one value for all cells"),
        ("rare", lambda n: np.where(np.arange(n) < 5, np.arange(n), np.nan), "nearly all missing"),
        ("nothing", lambda n: np.full(n, np.nan), "it holds no values"),
        ("counter", lambda n: np.arange(n) + 7, "a number of the cell"),
        ("number", lambda n: np.random.default_rng(0).permutation(n), "a number of the cell"),
        ("made", lambda n: 20240101 + np.arange(n) % 28, "dates"),
        ("code", lambda n: 10 + np.arange(n) % 2, "a code that gives the label away"),
    ],
)
def test_what_is_no_feature_is_left_out_and_said(column, values, why, frame, load, said):
    frame[column] = values(len(frame))
    assert load(frame).var_names.tolist() == FEATURES
    assert left_out(said)[column].startswith(why)


def test_what_says_whose_cell_it_is_is_left_out(frame, load, said):
    frame["heaviness"] = frame["mouse"].str[1:].astype(float) / 3
    assert load(frame).var_names.tolist() == FEATURES
    assert left_out(said)["heaviness"].startswith("one value for each donor")


def test_a_code_with_a_few_errors_is_still_one_and_loud(frame, load, said):
    rng = np.random.default_rng(1)
    frame["kind"] = np.where(frame["type"] == "FS", rng.integers(0, 4, 120), 10)
    frame.loc[0, "kind"] = 10
    assert load(frame).var_names.tolist() == FEATURES
    (line,) = [line for line in said if "WARNING" in line]
    assert "'kind'" in line
    assert "left out" in line


def test_a_count_that_merely_helps_is_a_feature(frame, load):
    rng = np.random.default_rng(1)
    frame["spikes"] = rng.poisson(np.where(frame["type"] == "FS", 30, 12))
    assert "spikes" in load(frame).var_names


def test_a_measurement_that_tells_all_is_kept_and_said(frame, load, said):
    frame["glow"] = (frame["type"] == "FS") + np.random.default_rng(1).uniform(0, 0.4, 120)
    assert "glow" in load(frame).var_names
    (line,) = [line for line in said if "WARNING" in line]
    assert "'glow' alone tells the label" in line


def test_whole_numbers_with_an_electrical_unit_are_measured(frame, load):
    frame["AHP depth (mV)"] = np.random.default_rng(0).permutation(120)
    cohort = load(frame)
    assert "AHP depth" in cohort.var_names or "fast_trough_deltav_rheo" in cohort.var_names


def test_columns_are_chosen(frame, load, said):
    frame["code"] = 10 + np.arange(120) % 2
    assert load(frame, only=["wildness", "code"]).var_names.tolist() == ["Wildness", "code"]
    assert any("WARNING: column 'code'" in line and "kept, as asked" in line for line in said)
    assert load(frame, without=["hump (mV)"]).var_names.tolist() == FEATURES[:3]
    with pytest.raises(CohortError, match="no column 'wildnes'; the nearest is 'Wildness'"):
        load(frame, only=["wildnes"])
    with pytest.raises(CohortError, match="cannot be label or donor and a feature"):
        load(frame, only=["type"])


def test_a_mapping_says_what_a_column_is(frame, load):
    frame = frame.rename(columns={"hump (mV)": "x1"})
    columns = {"x1": Override("fast_trough_deltav_rheo"), "Wildness": Override("ignore")}
    frame["x1"] *= -1
    cohort = load(frame, columns=Overrides("map.yaml", columns))
    assert set(cohort.var_names) == {*FEATURES[:2], "fast_trough_deltav_rheo"}
    values = cohort[:, "fast_trough_deltav_rheo"].X[:, 0]
    np.testing.assert_allclose(values, frame["x1"], rtol=1e-6)


def test_a_column_like_ours_with_values_that_are_not_stays_as_it_stands(frame, load, said):
    frame["Sag ratio"] = np.random.default_rng(0).uniform(1.05, 1.4, 120)
    frame["sag"] = np.random.default_rng(0).uniform(700, 900, 120)
    cohort = load(frame)
    assert {"Sag ratio", "sag (as it stands)"} <= set(cohort.var_names)
    assert "sag" not in cohort.var_names
    np.testing.assert_allclose(cohort[:, "Sag ratio"].X[:, 0], frame["Sag ratio"], rtol=1e-6)
    assert any("not taken for a feature of ours: 'Sag ratio'" in line for line in said)


def test_a_height_is_the_peak_less_the_threshold(frame, load):
    rng = np.random.default_rng(0)
    frame["AP threshold (mV)"] = rng.normal(-40, 4, 120)
    frame["peak_v (mV)"] = rng.normal(30, 6, 120)
    cohort = load(frame)
    assert set(cohort.var_names) == {*FEATURES, "threshold_v_rheo", "peak_deltav_rheo"}
    height = cohort[:, "peak_deltav_rheo"].X[:, 0]
    np.testing.assert_allclose(height, frame["peak_v (mV)"] - frame["AP threshold (mV)"], rtol=1e-5)


def test_the_layer_goes_along_for_models_that_take_it(frame, load, said):
    frame["Layer"] = ["L2/3", "5", "", "VI", "II"] * 23 + ["L4?"] * 5
    cohort = load(frame)
    assert cohort.var_names.tolist() == FEATURES
    np.testing.assert_array_equal(
        layers_of(cohort)[:5], np.array([2.5, 5, np.nan, 6, 2], np.float32)
    )
    (line,) = [each for each in said if "not a cortical layer" in each]
    assert line.endswith("column 'Layer', taken as missing: 5 not a cortical layer, such as 'L4?'")
    assert "layer" not in load(frame, without=["layer"]).obs
    frame["Layer"] = frame["type"].map({"FS": "L5", "RS": "2/3"})
    assert "layer" not in load(frame).obs
    assert any("WARNING: the cortical layer" in line for line in said)


def test_names_of_ours_for_something_else_are_told_apart(frame, load):
    frame["location"] = np.random.default_rng(0).normal(size=120)
    frame["spike_train"] = np.random.default_rng(1).normal(size=120)
    names = load(frame).var_names.tolist()
    assert names[-2:] == ["location (as it stands)", "spike_train (as it stands)"]


def test_a_ratio_is_not_taken_for_one_in_per_cent(frame, load):
    frame["ISI adaptation index"] = np.random.default_rng(0).uniform(0.6, 1.4, 120)
    assert "ISI adaptation index" in load(frame).var_names


def test_the_same_values_count_once(frame, load, said):
    frame["again"] = frame["Wildness"]
    assert load(frame).var_names.tolist() == FEATURES
    assert left_out(said)["again"] == "the same values as 'Wildness'"


def test_cells_without_label_or_donor_are_left_out(frame, load, said, tmp_path):
    frame.loc[:5, "type"] = ["", "n/a", "fs ", "unknown", "L5/6", None]
    frame.loc[6, "mouse"] = None
    cohort = load(frame)
    assert cohort.n_obs == 114
    assert set(cohort.obs["subclass"]) == {"FS", "RS"}
    assert cohort.obs.loc["n002", "subclass"] == "FS"
    assert dict(table.head_of(cohort).dropped) == {
        "without a label": 3,
        "with label 'unknown'": 1,
        "without a donor": 1,
        "of a class of fewer than 10 cells or 3 donors": 1,
    }
    assert any("labels that differ in capitals only" in line for line in said)
    assert any(line.endswith("3 donors: 'L5/6', of 1 donor") for line in said)
    table.write(cohort, tmp_path / "own.h5ad")
    assert table.head_of(table.read(tmp_path / "own.h5ad")) == table.head_of(cohort)


def test_classes_of_too_few_cells_or_donors(frame, load):
    frame.loc[:9, "type"] = "few donors"
    frame.loc[:9, "mouse"] = ["m0", "m1"] * 5
    frame.loc[10:18, "type"] = "few cells"
    assert set(load(frame).obs["subclass"]) == {"FS", "RS"}
    with pytest.raises(CohortError, match="two are needed"):
        load(frame.assign(type="FS"))
    with pytest.raises(CohortError, match=r"240 labels|120 labels"):
        load(frame, label="Wildness")


def test_without_donors_every_cell_is_one_and_it_is_said(frame, load, said):
    cohort = load(frame.drop(columns="mouse"), group=None)
    assert cohort.obs["donor"].nunique() == 120
    assert any("WARNING" in line and "too good" in line for line in said)
    frame.loc[1, "Neuron ID"] = "n000"
    twice = load(frame.drop(columns="mouse"), group=None)
    assert twice.obs["donor"].nunique() == 119
    assert twice.obs_names[:2].tolist() == ["n000", "n000#2"]


def test_species(frame, load):
    with pytest.raises(CohortError, match="does not say the species; give 'species'"):
        load(frame, species=None)
    frame["Organism"] = ["Mus musculus"] * 100 + ["rat"] * 20
    cohort = load(frame, species=None)
    assert set(cohort.obs["species"]) == {"mouse"}
    assert cohort.n_obs == 100
    with pytest.raises(CohortError, match="no species 'rat'"):
        load(frame, species="rat")


def test_of_a_table_of_two_species_one_can_be_taken(frame, load, said):
    both = frame.assign(Organism=["Mus musculus", "human", None] * 40)
    assert set(load(both, species=None).obs["species"]) == {"human", "mouse"}
    said.clear()
    found = load(both, species="mouse", group=None)
    assert set(found.obs["species"]) == {"mouse"}
    assert found.obs_names.tolist() == [f"n{k:03d}" for k in range(120) if k % 3 != 1]
    assert any("left out: 40 cells of another species: 'human'" in line for line in said)
    with pytest.raises(CohortError, match="no cell is of human"):
        load(both[both["Organism"] == "Mus musculus"].reset_index(), species="human")


def test_labels_that_stand_for_something_else_are_refused(frame, load):
    for name in ("all", "a|b"):
        with pytest.raises(CohortError, match="cannot be a label"):
            load(frame.replace({"type": {"FS": name}}))


def test_two_labels_of_one_subclass_are_said(frame, load, said):
    load(frame.replace({"type": {"FS": "PV", "RS": "Pvalb"}}))
    assert any("WARNING: several labels are Pvalb" in line for line in said)


def test_columns_of_one_name(frame, load, said):
    frame = frame.rename(columns={"hump (mV)": "hump (mV) ", "Wildness": "HUMP"})
    assert load(frame).var_names.tolist() == FEATURES[:2]
    assert "rename them" in left_out(said)["HUMP"]


def test_files_as_spreadsheets_write_them(frame, load, tmp_path):
    """Semicolons and decimal commas, units in cells, a title, rows of means; and Excel."""
    expected = load(frame)
    comma = tmp_path / "comma.csv"
    text = frame.to_csv(index=False, sep=";", decimal=",")
    mean = "Mean;;;150;0,6;0,5;6\n"
    comma.write_text(f"Our cells of 2024\n\n{text}{mean}", encoding="cp1252")
    frame.assign(**{"hump (mV)": [f"{x / 1000:.9f} V" for x in frame["hump (mV)"]]}).rename(
        columns={"hump (mV)": "hump"}
    ).to_excel(tmp_path / "book.xlsx", index=False)
    for name in ("comma.csv", "book.xlsx"):
        found = load(tmp_path / name)
        assert found.var_names.tolist() == FEATURES, name
        values = found.X.copy()
        values[:, 3] *= 1000 if name == "book.xlsx" else 1
        np.testing.assert_allclose(values, expected.X, rtol=1e-5)
        assert len(table.head_of(found).sources[name]) == 64


def test_a_table_without_a_feature(frame, load):
    with pytest.raises(CohortError, match="no column of numbers is left"):
        load(frame[["type", "mouse", "Neuron ID"]])


def test_a_cohort_table_is_no_labelled_table(load, tmp_path):
    table.write(made.cohort(), tmp_path / "human.h5ad")
    with pytest.raises(CohortError, match="is a cohort table already"):
        load(tmp_path / "human.h5ad")
