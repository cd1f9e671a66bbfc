"""Datasets beside the Patch-seq of both species, and several as one: no cell and no donor twice."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import crosspatch
from crosspatch.cohorts import dataset, table
from crosspatch.cohorts.cells import cells_of
from crosspatch.cohorts.citations import cited_by, entries
from crosspatch.cohorts.dataset import datasets
from crosspatch.cohorts.download import labels_of
from crosspatch.cohorts.export import export
from crosspatch.cohorts.extracted import match
from crosspatch.cohorts.joining import join, without_dataset
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CohortError, EvaluationError
from crosspatch.evaluation.task_cohorts import load_cohorts
from crosspatch.species import SPECIES, Species
from tests.cohorts import made_tables

BOTH = "allen-human+allen-human-l1"
HUMAN = "allen-human+allen-human-l1+allen-cell-types-human+allen-l23-human"
MOUSE = "allen-mouse+allen-cell-types-mouse+allen-l23-mouse+scala-mouse-m1"


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_tables.data_directory(tmp_path_factory.mktemp("all") / "data")


@pytest.fixture
def directory(whole: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(whole, tmp_path / "data"))


def load(name: str, directory: Path, layout: str = "shared", **how) -> anndata.AnnData:
    return crosspatch.load_cohort(name, layout, directory, verify=False, **how)


def edit(file: Path, separator: str = ",", **columns: str) -> None:
    rows = pd.read_csv(file, dtype=str, keep_default_na=False, sep=separator)
    rows.assign(**columns).to_csv(file, sep=separator, index=False)


def counts(cohort: anndata.AnnData, column: str = "subclass") -> dict[str, int]:
    return {str(k): int(v) for k, v in cohort.obs[column].value_counts().items() if v}


def feature(cohort: anndata.AnnData, name: str) -> np.ndarray:
    return cohort[:, name].X[:, 0]


# One dataset.


def test_every_dataset_gives_valid_tables_that_name_donors_layers_and_places(whole: Path):
    for name, known in datasets().items():
        for layout in known.layouts:
            cohort = load(name, whole, layout, every_cell=True)
            assert table.problems_of(cohort) == []
            assert cohort.obs["donor"].notna().all()
            assert {"layer", "class", "cell_ontology_id"} <= set(cohort.obs)
            assert "structure" in cohort.obs or "lobe" in cohort.obs or "l23" in name
            assert table.head_of(cohort).sources
            assert set(known.cite) <= set(entries())


def test_mouse_cells_of_the_database_are_labelled_by_line_reporter_and_dendrite(whole: Path):
    cohort = load("allen-cell-types-mouse", whole)
    # Of eight the first has no reporter, and the last two are spiny.
    assert counts(cohort) == {"Sst": 2, "Pvalb": 1, "Lamp5": 1, "Vip": 1}
    dropped = table.head_of(cohort).dropped
    assert (dropped["without a label"], dropped["excitatory"]) == (1, 2)
    assert set(cohort.obs["donor"]) <= {"700", "701", "702"}
    assert set(cohort.obs["layer"]) == {"6a"}
    every = load("allen-cell-types-mouse", whole, every_cell=True)
    assert counts(every, "class") == {"GABAergic": 5, "Glutamatergic": 2}
    assert every.n_obs == 8
    assert every.obs["subclass"].isna().sum() == 3


def test_features_of_the_database_are_in_our_units_from_the_start_of_its_step(whole: Path):
    cohort = load("allen-cell-types-mouse", whole)
    np.testing.assert_allclose(feature(cohort, "latency_rheo"), 0.25, atol=1e-6)
    np.testing.assert_allclose(feature(cohort, "mean_isi_hero"), 0.04, rtol=1e-6)
    assert np.isnan(feature(cohort, "latency_hero")).all()


def test_human_cells_of_the_database_have_a_class_but_no_subclass(whole: Path):
    cohort = load("allen-cell-types-human", whole)
    assert counts(cohort, "class") == {"GABAergic": 2, "Glutamatergic": 2}
    assert cohort.obs["subclass"].isna().all()
    with pytest.raises(EvaluationError, match=r"4 of 4 human cells have no subclass.*excitatory"):
        cells_of(cohort, None)


def test_layer_1_is_labelled_by_t_type_through_the_other_table(whole: Path):
    cohort = load("allen-human-l1", whole, every_cell=True)
    label = cohort.obs.groupby("t_type", observed=True)["subclass"].agg(lambda s: set(s.dropna()))
    assert label.to_dict() == {"LAMP5 LCP2": {"Lamp5"}, "VIP TYR": {"Vip"}, "LAMP5 NMBR": set()}
    assert set(cohort.obs["class"]) == {"GABAergic"}
    assert "H17.03.003" in set(cohort.obs["donor"])  # in lower case in the table
    assert set(cohort.obs["layer"]) == {"1"}
    assert set(cohort.obs["disease"]) == {"tumor"}
    assert set(cohort.obs["lobe"]) == {"TemL"}
    assert load("allen-human-l1", whole).n_obs == 8


def test_depths_of_troughs_in_layer_1_are_from_threshold(directory: Path):
    cohort = load("allen-human-l1", directory, "full", every_cell=True)
    source = pd.read_csv(directory / "allen_human_l1" / "aibs_features_E.csv")
    depth = source["trough_v_rheo"] - source["threshold_v_rheo"]
    np.testing.assert_allclose(feature(cohort, "trough_deltav_rheo"), depth, atol=1e-6)
    np.testing.assert_allclose(feature(cohort, "tau"), source["tau"] * 1000, rtol=1e-6)
    assert np.isnan(feature(cohort, "sag_area")).all()


def test_a_t_type_of_two_labels_labels_nothing(directory: Path):
    file = directory / "allen_human_gaba" / "LeeDalley_manuscript_metadata_v2.csv"
    rows = pd.read_csv(file)
    types = [f"Inh L1 {kind}" for kind in ("LAMP5 LCP2", "LAMP5 LCP2", "SST TH", "VIP TYR")]
    rows["Transcriptomic_type "] = (types * 3)[: len(rows)]
    rows.to_csv(file, index=False)
    assert counts(load("allen-human-l1", directory)) == {"Vip": 4}


def test_another_laboratory_gives_the_features_that_agree(whole: Path):
    cohort = load("scala-mouse-m1", whole)
    assert counts(cohort) == {"Pvalb": 2, "Sst": 1, "Vip": 1, "Lamp5": 1, "Sncg": 1}
    there = [name for name in cohort.var_names if np.isfinite(feature(cohort, name)).any()]
    assert set(there) == {
        *("v_baseline", "input_resistance", "tau", "rheobase_i", "latency_rheo", "width_rheo"),
        *("upstroke_downstroke_ratio_rheo", "peak_deltav_rheo", "fast_trough_deltav_rheo"),
    }
    assert feature(cohort, "latency_rheo").max() < 0.002 + 1e-6
    assert np.isnan(feature(cohort, "rheobase_i")[0])
    dropped = table.head_of(cohort).dropped
    assert dropped["of a type outside the task"] == 1
    assert dropped["without a label"] == 1  # the one that its authors exclude
    assert dropped["excitatory"] == 4
    assert set(cohort.obs["temperature"]) == {"room"}


def test_recordings_of_the_other_laboratory_are_labelled_by_the_cell_in_their_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    known = datasets()["scala-mouse-m1"]
    files = tuple(
        replace(each, sha256=hashlib.sha256((directory / each.path).read_bytes()).hexdigest())
        for each in known.files
    )
    monkeypatch.setitem(dataset.REGISTERED, known.name, replace(known, files=files))
    labels = labels_of("000008", data_dir=directory)
    assert labels is not None
    key = match("sub-mouse-B_ses-20180101-sample-1_cell-20180101-sample-1.nwb", labels.index)
    assert key is not None
    assert labels.loc[key, "subclass"] == "Sst"


def test_excitatory_mouse_cells_have_the_features_of_the_patchseq_table(whole: Path):
    cohort = load("allen-l23-mouse", whole)
    assert set(cohort.obs["class"]) == {"Glutamatergic"}
    assert cohort.obs["cell_ontology_id"].unique().tolist() == ["CL:0000679"]
    same = load("allen-mouse", whole, every_cell=True)[cohort.obs_names]
    np.testing.assert_array_equal(cohort[:, "sag"].X, same[:, "sag"].X)
    assert cohort.n_obs == 3


def test_an_excitatory_mouse_cell_of_another_donor_there_is_refused(directory: Path):
    file = directory / "allen_l23_excitatory"
    edit(file / "mouse_IVSCC_excitatory_L23_consolidated_0129.csv", donor_mouse="1")
    with pytest.raises(CohortError, match=r"metadata_mouse\.csv: cell 1009 .* of another donor"):
        load("allen-l23-mouse", directory)


def test_excitatory_human_cells_have_eighteen_features(whole: Path):
    cohort = load("allen-l23-human", whole, "full")
    assert np.isfinite(cohort.X).any(axis=0).sum() == 18
    assert set(cohort.obs["donor"]) == {"H17.03.002", "H18.06.009"}
    assert set(cohort.obs["lobe"]) == {"TemL"}


@pytest.mark.parametrize(
    ("path", "name", "message"),
    [
        ("allen_cell_types/ephys_features.csv", "allen-cell-types-mouse", "'tau' is missing"),
        ("allen_human_l1/aibs_features_E.csv", "allen-human-l1", "'tau' is missing"),
        ("allen_l23_excitatory/human_mouse_ephys_all_0127.csv", "allen-l23-human", "'tau' is miss"),
        ("scala_mouse_m1/m1_patchseq_ephys_features.csv", "scala-mouse-m1", "'Membrane time const"),
    ],
)
def test_a_missing_column_is_named(directory: Path, path: str, name: str, message: str):
    rows = pd.read_csv(directory / path)
    gone = [c for c in rows if c in ("tau", "Membrane time constant (ms)")]
    rows.drop(columns=gone).to_csv(directory / path, index=False)
    with pytest.raises(CohortError, match=message):
        load(name, directory)


def test_an_unknown_family_of_another_laboratory_is_refused(directory: Path):
    file = directory / "scala_mouse_m1" / "m1_patchseq_meta_data.csv"
    edit(file, "\t", **{"RNA family": "Meis2"})
    with pytest.raises(CohortError, match=r"'RNA family': label 'Meis2' \(11 cells"):
        load("scala-mouse-m1", directory)


# Labels of others.


def test_labels_are_those_of_the_taxonomy_that_is_asked_for(whole: Path):
    ours, theirs = (load("allen-human", whole, taxonomy=name) for name in (None, "sea-ad"))
    assert counts(theirs) == {"Lamp5": 3, "Pvalb": 3, "Sst": 3, "Vip": 3}
    assert table.head_of(ours).taxonomy == "lee2023"
    assert table.head_of(theirs).taxonomy == "sea-ad"
    for each in (ours, theirs):  # both stand in every table
        assert each.obs["subclass_lee2023"].tolist() == ours.obs["subclass"].tolist()
        assert each.obs["subclass_sea_ad"].tolist() == theirs.obs["subclass"].tolist()
    assert set(load(BOTH, whole, taxonomy="lee2023").obs_names) == set(load(BOTH, whole).obs_names)


def test_cells_that_are_excitatory_by_the_other_taxonomy_are_doubtful(whole: Path):
    cohort = load("allen-human-l1", whole, taxonomy="sea-ad", every_cell=True)
    doubtful = cohort.obs[cohort.obs["sea_ad_type"] == "L4 IT"]
    assert doubtful["subclass"].isna().all()
    assert doubtful["class"].tolist() == ["GABAergic"]


def test_an_unknown_taxonomy_names_the_known_ones(whole: Path):
    with pytest.raises(CohortError, match=r"no human labels of taxonomy 'mine'.*lee2023, sea-ad"):
        load(BOTH, whole, taxonomy="mine")
    with pytest.raises(CohortError, match="no mouse labels of taxonomy 'sea-ad'"):
        load("mouse", whole, taxonomy="sea-ad")
    with pytest.raises(CohortError, match="simulated cells are of no taxonomy"):
        load_cohorts(["simulated"], taxonomy="sea-ad")
    with pytest.raises(CohortError, match=r"no meaning for \.h5ad"):
        crosspatch.load_cohort("x.h5ad", taxonomy="sea-ad")


# Several as one.


def test_each_cell_of_two_human_cohorts_stands_once(whole: Path):
    human = load(BOTH, whole)
    assert set(human.obs["dataset"]) == {"allen-human", "allen-human-l1"}
    assert human.obs_names.is_unique
    old = load("allen-human", whole)
    np.testing.assert_array_equal(human[old.obs_names].X, old.X)
    assert counts(human[human.obs["dataset"] == "allen-human"]) == counts(old)
    head = table.head_of(human)
    assert sum(head.joined.values()) == human.n_obs
    assert head.dropped["in another dataset too"] == 2
    assert set(table.head_of(old).sources) < set(head.sources)
    joined = load_cohorts(BOTH.split("+"), None, ["human"], whole, verify=False)["human"]
    assert set(joined.obs_names) == set(human.obs_names)


def test_a_donor_of_two_datasets_is_one_donor(whole: Path):
    human = load(HUMAN, whole, every_cell=True)
    donors = human.obs.groupby("donor", observed=True)["dataset"].agg(set)
    assert donors["H17.03.001"] == {"allen-human", "allen-cell-types-human"}
    assert donors["H17.03.002"] == {"allen-human", "allen-l23-human"}
    assert donors["H17.03.003"] == {"allen-human", "allen-human-l1"}


def test_excitatory_cells_are_learnt_from_but_enter_no_task(whole: Path):
    everything = load(MOUSE, whole, every_cell=True)
    assert counts(everything, "class")["Glutamatergic"] == 3 + 2 + 4
    excitatory = everything.obs["class"] == "Glutamatergic"
    assert everything.obs.loc[excitatory, "subclass"].isna().all()
    with pytest.raises(EvaluationError, match="have no subclass"):
        cells_of(everything, None)
    assert set(load("allen-mouse+scala-mouse-m1", whole).obs["class"]) == {"GABAergic"}


@pytest.mark.parametrize("held_out", ["allen-human", "allen-human-l1", "allen-l23-human"])
def test_no_donor_of_a_dataset_that_is_held_out_is_left(whole: Path, held_out: str):
    human = load(HUMAN, whole, every_cell=True)
    rest = without_dataset(human, held_out)
    assert held_out not in set(rest.obs["dataset"])
    gone = set(human.obs.loc[human.obs["dataset"] == held_out, "donor"])
    assert not gone & set(rest.obs["donor"])
    left_out = human[~human.obs_names.isin(rest.obs_names)]
    assert set(left_out.obs["donor"]) == gone  # and nobody else's cells
    assert table.problems_of(rest) == []
    dropped = table.head_of(rest).dropped
    assert dropped[f"of a donor of {held_out}"] == (left_out.obs["dataset"] != held_out).sum() > 0


def test_what_cannot_be_held_out_is_said(whole: Path):
    with pytest.raises(CohortError, match="no cell of dataset 'allen-mouse'; it has: allen-human"):
        without_dataset(load(BOTH, whole), "allen-mouse")
    with pytest.raises(CohortError, match="no donor is left"):
        without_dataset(load("allen-human", whole), "allen-human")


def test_what_cannot_be_joined_is_refused(whole: Path):
    with pytest.raises(CohortError, match="human and mouse cells cannot be joined"):
        load("allen-human+allen-mouse", whole)
    with pytest.raises(CohortError, match=r"different features.*'layout'"):
        join([load("allen-human", whole), load("allen-human-l1", whole, "full")])
    with pytest.raises(CohortError, match="cannot give layout 'full'"):
        load("allen-human+allen-cell-types-human", whole, "full", every_cell=True)
    other = load("allen-human", whole)
    other.obs["donor"] = "somebody else"
    with pytest.raises(CohortError, match=r"cell 3000 is of donor H17\.03\.001 in one .* somebody"):
        join([load("allen-human", whole), other])


def test_the_first_dataset_that_labels_a_cell_gives_it(whole: Path):
    first, second = (load("allen-human", whole) for _ in range(2))
    first.obs.loc["3000", "subclass"] = None
    second.obs["dataset"] = "second"
    both = join([first, second])
    assert both.obs["dataset"].eq("second").sum() == 1
    assert both.obs.loc["3000", "dataset"] == "second"


def test_datasets_by_name_are_what_tasks_run_on(whole: Path):
    named = ["allen-mouse", "allen-human"]
    cohorts = load_cohorts(named, data_dir=whole, verify=False)
    assert {k: set(v.obs["dataset"]) for k, v in cohorts.items()} == {
        "mouse": {"allen-mouse"},
        "human": {"allen-human"},
    }
    cohorts = load_cohorts(named, None, ["human"], whole, verify=False, taxonomy="sea-ad")
    assert table.head_of(cohorts["human"]).taxonomy == "sea-ad"
    with pytest.raises(CohortError, match=r"no cohort 'allen-rat'.*scala-mouse-m1"):
        load_cohorts(["allen-mouse", "allen-rat"], data_dir=whole)


def test_cells_without_a_subclass_are_counted_apart(whole: Path):
    cells = crosspatch.describe(load(MOUSE, whole, every_cell=True)).cells.set_index("subclass")
    assert cells.loc["none, Glutamatergic", "cells"] == 9
    assert cells.loc["none, of unknown class", "cells"] == 3
    assert "none, GABAergic" not in cells.index


# Terms.


def test_every_subclass_and_class_has_its_term():
    known = load_taxonomy()
    assert set(known.subclasses) | set(known.classes) < set(known.ontology)
    assert known.ontology["Sst"] == "CL:4023017"
    assert len(set(known.ontology.values())) == len(known.ontology)


@pytest.mark.parametrize("ending", [".csv", ".h5ad", ".parquet"])
def test_terms_are_written_and_their_datasets_cited(whole: Path, tmp_path: Path, ending: str):
    file = tmp_path / f"cells{ending}"
    cohort = load(BOTH, whole)
    export(cohort, file)
    if ending == ".csv":
        terms = pd.read_csv(file, comment="#")["cell_ontology_id"]
    elif ending == ".parquet":
        terms = pd.read_parquet(file)["cell_ontology_id"]
    else:
        terms = table.read(file).obs["cell_ontology_id"]
    assert terms.tolist() == cohort.obs["subclass"].map(load_taxonomy().ontology).tolist()
    if ending != ".parquet":
        assert {"lee2023", "chartrand2023", "gabitto2024"} <= set(cited_by(file))


def test_a_dataset_is_not_cited_for_another_whose_name_it_begins(whole: Path, tmp_path: Path):
    file = tmp_path / "cells.h5ad"
    table.write(load("allen-l23-human", whole), file)
    assert set(cited_by(file)) == {"crosspatch", "schwider2026", "berg2021", "ipfx"}


# The real tables.


@pytest.mark.parametrize(
    ("name", "cells", "donors", "subclasses", "excitatory"),
    [
        (
            "allen-cell-types-mouse",
            1054,
            580,
            {"Pvalb": 142, "Sst": 110, "Vip": 20, "Lamp5": 13},
            571,
        ),
        ("allen-cell-types-human", 277, 33, {}, 216),
        ("allen-human-l1", 262, 67, {"Lamp5": 92, "Vip": 82}, 0),
        ("allen-l23-mouse", 132, 76, {}, 132),
        ("allen-l23-human", 283, 54, {}, 283),
        (
            "scala-mouse-m1",
            1328,
            266,
            {"Pvalb": 289, "Sst": 271, "Vip": 153, "Lamp5": 91, "Sncg": 13},
            409,
        ),
    ],
)
def test_real_cells(
    real_data: Path, name: str, cells: int, donors: int, subclasses: dict[str, int], excitatory: int
):
    cohort = crosspatch.load_cohort(name, "shared", real_data, every_cell=True)
    assert (cohort.n_obs, cohort.obs["donor"].nunique()) == (cells, donors)
    assert counts(cohort) == subclasses
    assert counts(cohort, "class").get("Glutamatergic", 0) == excitatory


def test_real_human_cohorts_together(real_data: Path):
    human = crosspatch.load_cohort(BOTH, "full", real_data)
    assert counts(human, "dataset") == {"allen-human": 702, "allen-human-l1": 138}
    assert counts(human) == {"Pvalb": 369, "Vip": 181, "Sst": 155, "Lamp5": 135}
    assert human.obs["donor"].nunique() == 118
    assert counts(human[human.obs["dataset"] == "allen-human-l1"]) == {"Vip": 70, "Lamp5": 68}
    every = crosspatch.load_cohort(BOTH, "full", real_data, every_cell=True)
    unlabelled = every[every.obs["subclass"].isna()]
    assert counts(unlabelled, "t_type") == {"LAMP5 NMBR": 75, "SST CHRNA4": 11}
    both = human.obs[["subclass_lee2023", "subclass_sea_ad"]].dropna()
    assert (both["subclass_lee2023"] == both["subclass_sea_ad"]).mean() > 0.9


def test_real_datasets_share_the_donors_that_they_should(real_data: Path):
    human = crosspatch.load_cohort(HUMAN, "shared", real_data, every_cell=True)
    of = human.obs.groupby("dataset", observed=True)["donor"].agg(set)
    for name in ("allen-human-l1", "allen-cell-types-human", "allen-l23-human"):
        assert of["allen-human"] & of[name]
    mouse = crosspatch.load_cohort(MOUSE, "shared", real_data, every_cell=True)
    of = mouse.obs.groupby("dataset", observed=True)["donor"].agg(set)
    assert not of["allen-mouse"] & (of["allen-cell-types-mouse"] | of["scala-mouse-m1"])
    # The same cells stand in both tables, but only one says what they are.
    assert counts(mouse, "dataset")["allen-l23-mouse"] == 132
    for each in (human, mouse):
        for name in set(each.obs["dataset"]) - {"allen-mouse"}:
            rest = without_dataset(each, name)
            held_out = each.obs.loc[each.obs["dataset"] == name, "donor"]
            assert not set(held_out) & set(rest.obs["donor"])


@pytest.mark.parametrize("species", SPECIES.values(), ids=SPECIES)
def test_default_models_can_learn_from_their_datasets(species: Species, whole: Path):
    cohort = load(species.default_cohort, whole, species.default_layout)
    assert set(cohort.obs["dataset"]) == set(species.default_cohort.split("+"))
    assert cohort.obs["subclass"].notna().all()
