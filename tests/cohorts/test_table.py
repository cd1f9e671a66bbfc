from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pytest

from crosspatch.cohorts import table
from crosspatch.cohorts.summary import describe
from crosspatch.errors import CohortError
from crosspatch.features.layouts import load_layout
from tests import made


def replace_obs(**columns):
    def damage(cohort: anndata.AnnData) -> None:
        cohort.obs = cohort.obs.assign(**columns)

    return damage


def test_a_table_survives_the_file(tmp_path: Path):
    cohort = made.cohort()
    table.write(cohort, tmp_path / "cohort.h5ad")
    back = table.read(tmp_path / "cohort.h5ad")
    np.testing.assert_array_equal(back.X, cohort.X)
    assert back.X.dtype == np.float32
    assert table.layout_of(back) == load_layout("shared")
    assert back.obs["donor"].tolist() == cohort.obs["donor"].tolist()
    assert [file.name for file in tmp_path.iterdir()] == ["cohort.h5ad"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.uns.pop("crosspatch"), 'no "crosspatch" entry'),
        (lambda t: t.uns["crosspatch"].update(schema_version=99), "schema version is 99"),
        (lambda t: t.uns["crosspatch"].update(schema_version="v1"), "schema version is v1"),
        (lambda t: t.uns["crosspatch"].pop("layout"), "does not name its layout"),
        (lambda t: t.obs.drop(columns="donor", inplace=True), "no column 'donor'"),
        (lambda t: t.var.drop(columns="unit", inplace=True), "no column 'unit'"),
        (lambda t: t.X.__setitem__((3, 2), np.inf), "'human-3' has an infinite 'tau'"),
        (lambda t: t.X.__setitem__(7, np.nan), "1 cells have no feature at all.*'human-7'"),
        (replace_obs(species="rat"), "species 'rat' is unknown"),
        (replace_obs(subclass="Basket"), "subclass 'Basket' is unknown"),
        (lambda t: setattr(t, "obs_names", ["same"] * t.n_obs), "'same' stands for more than one"),
        (
            lambda t: setattr(t, "X", np.nan_to_num(t.X).astype(int)),
            "must be a dense array of floats",
        ),
    ],
)
def test_validate_says_what_is_wrong(damage, message: str):
    cohort = made.cohort()
    assert table.problems_of(cohort) == []
    damage(cohort)
    with pytest.raises(CohortError, match=message):
        table.require_valid(cohort, "it")


def test_a_table_that_says_nothing_of_its_origin_can_be_described():
    cohort = made.cohort()
    cohort.uns["crosspatch"] = {"schema_version": 1, "layout": "shared"}
    table.require_valid(cohort, "it")
    assert table.head_of(cohort) == table.Head({}, False, {}, {})


def test_features_in_other_units_are_refused_and_cells_left_out_are_counted():
    full = made.cohort(layout=load_layout("full"))
    shared = load_layout("shared").feature_names
    full.X[:3, [name in shared for name in full.var_names]] = np.nan
    full.X[:3, -1] = 1.0
    chosen = table.in_layout(full, "shared")
    assert table.head_of(chosen).dropped == {"without a feature of shared": 3}
    assert chosen.n_obs == full.n_obs - 3
    full.var.loc["tau", "unit"] = "s"
    with pytest.raises(CohortError, match="'tau' is in s, layout 'shared' has it in ms"):
        table.in_layout(full, "shared")


def test_an_empty_table_is_not_valid():
    assert "there are no cells" in table.problems_of(made.cohort()[:0].copy())


def test_files_that_are_no_table(tmp_path: Path):
    with pytest.raises(CohortError, match="is missing"):
        table.read(tmp_path / "no.h5ad")
    (tmp_path / "text.h5ad").write_text("a,b\n1,2\n")
    with pytest.raises(CohortError, match="not an h5ad file"):
        table.read(tmp_path / "text.h5ad")
    anndata.AnnData(np.zeros((2, 2), np.float32)).write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(CohortError, match="not a valid cohort table"):
        table.read(tmp_path / "other.h5ad")
    with pytest.raises(CohortError, match="cannot be written"):
        table.write(made.cohort(), tmp_path / "text.h5ad" / "x.h5ad")
    with pytest.raises(CohortError, match=r"written as \.h5ad"):
        table.write(made.cohort(), tmp_path / "x.csv")


def test_describe_counts_cells_donors_and_missing():
    cohort = made.cohort()
    cohort.X[:29, load_layout("shared").columns["ap_ramp"]] = np.nan
    parts = describe(cohort)
    cells = parts.cells.set_index("subclass")["cells"].to_dict()
    assert cells == {"Lamp5": 25, "Pvalb": 50, "Sst": 40, "Vip": 30, "all": 145}
    ramp = parts.missing.set_index("family").loc["ap_ramp"]
    expected = np.isnan(cohort[:, "threshold_v_ramp"].X).mean()
    assert 29 / 145 <= ramp["absent"] <= expected
    ranges = parts.ranges.set_index("feature").loc["tau"]
    assert ranges["min"] == pytest.approx(np.nanmin(cohort[:, "tau"].X))
    assert ranges["unit"] == "ms"


def test_a_full_table_has_the_shared_features_too():
    full = made.cohort(layout=load_layout("full"))
    shared = table.in_layout(full, "shared")
    assert table.layout_of(shared) == load_layout("shared")
    np.testing.assert_array_equal(shared[:, "tau"].X, full[shared.obs_names, "tau"].X)
    with pytest.raises(CohortError, match="lacks 61 features of 'full'"):
        table.in_layout(made.cohort(), "full")
