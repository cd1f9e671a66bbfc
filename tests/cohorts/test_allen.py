from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import crosspatch
from crosspatch.cohorts.dataset import source_files
from crosspatch.errors import CohortError
from tests import made

MOUSE = "allen_mouse_visp"
HUMAN = "allen_human_gaba"
FEATURES = f"{HUMAN}/LeeDalley_ephys_fx.csv"
METADATA = f"{HUMAN}/LeeDalley_manuscript_metadata_v2.csv"


@pytest.fixture(scope="session")
def made_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.data_directory(tmp_path_factory.mktemp("data"))


@pytest.fixture
def directory(made_directory: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made_directory, tmp_path / "data"))


def edit(directory: Path, path: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    file = directory / path
    change(pd.read_csv(file, dtype=str, keep_default_na=False)).to_csv(file, index=False)


def load(dataset: str, directory: Path, layout: str = "shared"):
    return crosspatch.load_cohort(dataset, layout, directory, verify=False)


def test_mouse_features_are_the_mapped_columns(directory: Path):
    cohort = load("allen-mouse", directory)
    source = pd.read_csv(directory / MOUSE / "efeature.csv")
    qc = pd.read_csv(directory / MOUSE / "ephys_features_gouwens_w_QC.csv")
    by_cell = pd.read_csv(directory / MOUSE / "gouwens_tasic_byCell.csv.gz")

    def feature(name: str) -> np.ndarray:
        return cohort[:, name].X[:, 0]

    np.testing.assert_allclose(feature("tau"), source["tau"], rtol=1e-6)
    np.testing.assert_allclose(
        feature("latency_rheo"), source["threshold_t_long_square"] - 0.52, rtol=1e-5
    )
    np.testing.assert_allclose(
        feature("peak_deltav_ramp"), source["peak_v_ramp"] - source["threshold_v_ramp"], atol=1e-6
    )
    np.testing.assert_allclose(feature("width_rheo"), qc["rheo_width"] * 1000, rtol=1e-6)
    np.testing.assert_allclose(feature("first_isi_inv_hero"), 1 / qc["hero_first_isi"], rtol=1e-6)
    upstroke = by_cell["AP maximum rate of rise (Upstroke) (mV/ms)"]
    np.testing.assert_allclose(feature("upstroke_rheo"), upstroke, rtol=1e-6)


def test_human_times_are_in_the_layouts_units(directory: Path):
    cohort = load("allen-human", directory, "full")
    source = pd.read_csv(directory / FEATURES)
    for name in ("tau", "width_rheo", "width_hero", "sag_tau"):
        assert cohort.var.loc[name, "unit"] == "ms"
        np.testing.assert_allclose(cohort[:, name].X[:, 0], source[name] * 1000, rtol=1e-6)
    assert cohort.var.loc["latency_hero", "unit"] == "s"
    np.testing.assert_allclose(cohort[:, "latency_hero"].X[:, 0], source["latency_hero"], rtol=1e-6)


def test_rows_are_joined_by_id_and_not_by_place(directory: Path):
    before = load("allen-human", directory)
    edit(directory, FEATURES, lambda t: t.iloc[::-1])
    np.testing.assert_array_equal(load("allen-human", directory).X, before.X)


def test_one_donor_in_two_spellings_is_one_donor(directory: Path):
    assert set(load("allen-human", directory).obs["donor"]) == {
        "H17.03.001",
        "H17.03.002",
        "H17.03.003",
    }


def test_labels_donors_and_metadata_are_not_features(directory: Path):
    for dataset in ("allen-mouse", "allen-human"):
        cohort = load(dataset, directory)
        assert not set(cohort.var_names) & set(cohort.obs.columns)


def test_a_cell_without_a_feature_is_dropped_and_counted_one_with_some_is_kept(directory: Path):
    def blank(t: pd.DataFrame) -> pd.DataFrame:
        features = [name for name in t.columns if name != "specimen_id"]
        t.loc[0, features] = ""
        t.loc[1, features[1:]] = ""
        return t.drop(index=2)

    edit(directory, FEATURES, blank)
    cohort = load("allen-human", directory, "full")
    assert "3000" not in cohort.obs_names
    assert "3001" in cohort.obs_names
    dropped = cohort.uns["crosspatch"]["dropped"]
    assert dropped["without a single feature"] == 1
    assert dropped["not in a feature file"] == 1
    assert sum(cohort.uns["crosspatch"]["joined"].values()) == cohort.n_obs + 1


def test_an_identical_second_row_counts_once_a_contradicting_one_is_refused(directory: Path):
    edit(directory, METADATA, lambda t: pd.concat([t, t.iloc[[0]]]))
    assert load("allen-human", directory).n_obs == 12
    edit(directory, METADATA, lambda t: pd.concat([t, t.iloc[[1]].assign(structure="STG")]))
    with pytest.raises(CohortError, match="cell 3001 has rows that contradict"):
        load("allen-human", directory)


def test_an_interval_of_zero_gives_no_infinite_rate(directory: Path):
    path = f"{MOUSE}/ephys_features_gouwens_w_QC.csv"
    edit(directory, path, lambda t: t.assign(hero_first_isi="0"))
    assert np.isnan(load("allen-mouse", directory)[:, "first_isi_inv_hero"].X).all()


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (
            FEATURES,
            lambda t: t.rename(columns={"tau": "Tau"}),
            r"ephys_fx.*'tau' is missing.*'Tau'",
        ),
        (FEATURES, lambda t: t.drop(columns="sag"), r"ephys_fx.*'sag' is missing"),
        (FEATURES, lambda t: t.iloc[:0], r"ephys_fx\.csv: the table has no rows"),
        (
            FEATURES,
            lambda t: t.assign(tau=["fast", *t["tau"][1:]]),
            r"line 2, column 'tau': 'fast' is not a number",
        ),
        (
            FEATURES,
            lambda t: t.assign(specimen_id=["", *t["specimen_id"][1:]]),
            r"line 2, column 'specimen_id'",
        ),
        (FEATURES, lambda t: pd.concat([t, t]), r"cell 3000 has more than one row"),
        (
            METADATA,
            lambda t: t.assign(Revised_subclass_label="CHANDELIER"),
            r"label 'CHANDELIER' .* known: LAMP5",
        ),
        (METADATA, lambda t: t.assign(Donor=""), r"cell 3000 has no donor"),
        (METADATA, lambda t: t.assign(Revised_subclass_label=""), r"no cell has both"),
    ],
)
def test_bad_input_is_one_line_that_says_where(
    directory: Path, path: str, change: Callable, message: str
):
    edit(directory, path, change)
    with pytest.raises(CohortError, match=message) as raised:
        load("allen-human", directory)
    assert "\n" not in str(raised.value)


def test_lines_are_counted_in_the_file(directory: Path):
    def change(t: pd.DataFrame) -> pd.DataFrame:
        t = pd.concat([t.iloc[[0]], t], ignore_index=True)  # one more line, which counts once
        t.loc[3, "Days_In_culture"] = "three"
        return t

    edit(directory, METADATA, change)
    with pytest.raises(CohortError, match="line 5, column 'Days_In_culture': 'three'"):
        load("allen-human", directory)


def test_missing_file_says_where_to_get_it(directory: Path):
    (directory / FEATURES).unlink()
    with pytest.raises(CohortError, match=r"ephys_fx\.csv is missing; .*`crosspatch fetch tables`"):
        load("allen-human", directory)


def test_wrong_hash_is_refused_and_says_how_to_go_on(directory: Path):
    with pytest.raises(CohortError, match=r"not the pinned version.*unverified"):
        crosspatch.load_cohort("allen-human", "shared", directory)
    cohort = load("allen-human", directory)
    assert not cohort.uns["crosspatch"]["verified"]


def test_a_broken_archive_is_one_line(directory: Path):
    file = directory / MOUSE / "gouwens_tasic_byCell.csv.gz"
    file.write_bytes(gzip.compress(b"cell_id\n" * 5000)[:40])
    with pytest.raises(CohortError, match=r"gouwens_tasic_byCell\.csv\.gz: cannot be read as csv"):
        load("allen-mouse", directory)


def test_unknown_dataset_and_layout_name_the_known_ones(directory: Path):
    with pytest.raises(
        CohortError, match=r"give allen-mouse, .* allen-human, .*, mouse, human, or"
    ):
        load("allen-rat", directory)
    with pytest.raises(CohortError, match="allen-mouse cannot give layout 'full'; it has: shared"):
        load("allen-mouse", directory, "full")


def test_without_data_it_says_how_to_get_them(tmp_path: Path):
    with pytest.raises(CohortError, match=r"does not exist.*crosspatch fetch tables"):
        crosspatch.load_cohort("allen-human", data_dir=tmp_path / "nowhere")


def test_data_directory_from_the_environment(directory: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CROSSPATCH_DATA", str(directory))
    assert crosspatch.load_cohort("allen-human", verify=False).n_obs == 12


def test_every_source_has_an_address_and_a_checksum():
    for source in source_files().values():
        assert source.address.startswith("https://github.com/")
        assert len(source.sha256) == 64


def test_real_mouse_cells(real_data: Path):
    cohort = crosspatch.load_cohort("allen-mouse", "shared", real_data)
    expected = {"Sst": 1824, "Pvalb": 888, "Vip": 797, "Lamp5": 477, "Sncg": 235}
    assert cohort.uns["crosspatch"]["joined"] == expected
    assert cohort.obs["subclass"].value_counts().to_dict() == expected
    assert cohort.shape == (4221, 32)


def test_real_human_cells(real_data: Path):
    for layout, width in (("shared", 32), ("full", 93)):
        cohort = crosspatch.load_cohort("allen-human", layout, real_data)
        joined = {"Pvalb": 370, "Sst": 156, "Vip": 111, "Lamp5": 67}
        assert cohort.uns["crosspatch"]["joined"] == joined
        # Two of the 704 rows of the feature table hold no value at all.
        assert cohort.shape == (702, width)
        assert cohort.uns["crosspatch"]["dropped"]["without a single feature"] == 2
        assert cohort.obs["donor"].nunique() == 109


def test_real_species_differ_as_published(real_data: Path):
    """Units agree: medians of sag and rheobase are those of the data's own description."""
    medians = {
        name: crosspatch.load_cohort(name, "shared", real_data).to_df().median()
        for name in ("allen-mouse", "allen-human")
    }
    assert medians["allen-mouse"]["sag"] == pytest.approx(0.056, abs=0.002)
    assert medians["allen-human"]["sag"] == pytest.approx(0.225, abs=0.002)
    assert medians["allen-human"]["rheobase_i"] == pytest.approx(60)
    for name in ("tau", "width_rheo", "latency_rheo", "mean_isi_hero"):
        ratio = medians["allen-mouse"][name] / medians["allen-human"][name]
        assert 1 / 3 < ratio < 3  # a wrong unit would be a factor of 1000
