from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import crosspatch
from crosspatch.cohorts import table
from crosspatch.errors import EvaluationError
from crosspatch.explanation.conserved import conserved_table, homologous_types, pairs_won
from crosspatch.explanation.result_tables import TABLE_COLUMNS
from crosspatch.features.layouts import Feature, Layout
from tests import made

THREE = Layout(
    "three",
    tuple(Feature(name, "family", "mV") for name in ("alike", "against", "nothing", "at_random")),
)


def planted(species: str, cells_of: dict[str, int] | None = None, seed: int = 0, donors: int = 30):
    """Vip is higher in ``alike``; in ``against`` it is higher in mouse and lower in human."""
    y = made.labels(cells_of or {"Lamp5": 60, "Pvalb": 60, "Sst": 60, "Vip": 60}, seed)
    rng = np.random.default_rng([seed, species == "human"])
    X = rng.normal(size=(len(y), 4))
    is_vip = y == "Vip"
    X[:, 0] += 2.0 * is_vip
    X[:, 1] += (2.0 if species == "mouse" else -2.0) * is_vip
    X[rng.random(X.shape) < 0.05] = np.nan
    X[:, 2] = 1.0
    return as_cohort(species, X, y, rng.integers(donors, size=len(y)))


def as_cohort(species, X, y, donor, **more):
    cells = pd.DataFrame(
        {
            "species": species,
            "subclass": y,
            "t_type": y,
            "donor": [f"d{k}" for k in donor],
            "dataset": "made",
            **more,
        },
        index=pd.Index([f"{species}{k}" for k in range(len(y))], name="cell_id"),
    )
    return table.build(np.asarray(X), cells, THREE, table.Head({}, True, {}, {}))


def row(found: pd.DataFrame, group: str, feature: str) -> pd.Series:
    (chosen,) = np.flatnonzero((found["group"] == group) & (found["feature"] == feature))
    return found.iloc[int(chosen)]


def test_verdicts_follow_what_was_planted() -> None:
    found = conserved_table(planted("mouse"), planted("human"), resamples=100)
    assert list(found.columns) == TABLE_COLUMNS["conserved"]
    assert len(found) == 4 * 4
    assert set(found["level"]) == {"subclass"}
    for column in ("verdict", "balanced_verdict"):
        assert row(found, "Vip", "alike")[column] == "same"
        assert row(found, "Vip", "against")[column] == "opposite"
        assert row(found, "Vip", "nothing")[column] == "neither"
    vip = row(found, "Vip", "against")
    assert vip["mouse_low"] < vip["mouse_auc"] < vip["mouse_high"]
    assert vip["mouse_low"] > 0.5 > vip["human_high"]
    assert row(found, "Vip", "nothing")["mouse_auc"] == 0.5
    again = conserved_table(planted("mouse"), planted("human"), resamples=100)
    pd.testing.assert_frame_equal(found, again)


def test_one_species_only() -> None:
    human = planted("human")
    human.X[:, 0] = np.random.default_rng(3).normal(size=human.n_obs)
    found = conserved_table(planted("mouse"), human, resamples=100)
    assert row(found, "Vip", "alike")["verdict"] == "mouse only"


def test_areas_are_those_of_scikit_learn() -> None:
    mouse, human = planted("mouse"), planted("human")
    mouse.X[:, 0] = np.round(mouse.X[:, 0])  # ties
    found = conserved_table(mouse, human, resamples=2)
    y = mouse.obs["subclass"].to_numpy().astype(str)
    for feature in ("alike", "at_random"):
        values = np.asarray(mouse[:, feature].X)[:, 0]
        known = np.isfinite(values)
        for group in ("Lamp5", "Vip"):
            got = row(found, group, feature)
            assert got["mouse_auc"] == pytest.approx(
                roc_auc_score(y[known] == group, values[known])
            )
            assert got["mouse_cells"] == np.sum(known & (y == group))
            against = [
                roc_auc_score(y[here] == group, values[here])
                for other in set(y) - {group}
                for here in [known & np.isin(y, [group, other])]
            ]
            assert got["mouse_balanced_auc"] == pytest.approx(np.mean(against))


def test_weights_count_as_copies() -> None:
    rng = np.random.default_rng(0)
    values, part = rng.integers(5, size=40), rng.integers(2, size=40)
    weights = rng.integers(3, size=(2, 40))
    won, totals = pairs_won(values, part, 2, weights)
    for k in range(2):
        copies = np.repeat(np.arange(40), weights[k])
        expected = roc_auc_score(part[copies] == 1, values[copies])
        assert won[k, 1, 0] / (totals[k, 0] * totals[k, 1]) == pytest.approx(expected)


def test_donors_are_resampled_not_cells() -> None:
    one_each = planted("mouse", donors=30)
    one_each.obs["donor"] = [f"d{k}" for k in range(one_each.n_obs)]
    few = one_each.copy()
    # The same values from a sixth of the donors, alike within a donor.
    order = np.lexsort((np.nan_to_num(np.asarray(few.X)[:, 3]), few.obs["subclass"]))
    donor = np.empty(few.n_obs, dtype=object)
    donor[order] = [f"d{k // 6}" for k in range(few.n_obs)]
    few.obs["donor"] = donor
    human = planted("human")

    def width(mouse: anndata.AnnData) -> float:
        got = row(conserved_table(mouse, human, resamples=200), "Vip", "at_random")
        return float(got["mouse_high"] - got["mouse_low"])

    assert width(few) > 1.4 * width(one_each)


def test_copied_cells_of_a_donor_do_not_narrow_the_interval() -> None:
    mouse, human = planted("mouse"), planted("human")
    thrice = anndata.concat([mouse] * 3, index_unique="-", uns_merge="first", merge="first")
    got, more = (
        row(conserved_table(part, human, resamples=100), "Vip", "alike") for part in (mouse, thrice)
    )
    assert more["mouse_auc"] == pytest.approx(got["mouse_auc"])
    assert more["mouse_low"] == pytest.approx(got["mouse_low"])
    assert more["mouse_cells"] == 3 * got["mouse_cells"]


def test_balanced_areas_do_not_depend_on_which_classes_were_collected() -> None:
    """Sst lies between Pvalb and Lamp5 alike in both species; what is around it differs."""

    def cohort(species: str, counts: dict[str, int]) -> anndata.AnnData:
        y = made.labels(counts)
        rng = np.random.default_rng(1)
        X = rng.normal(size=(len(y), 4))
        X[:, 0] += np.select([y == "Pvalb", y == "Sst"], [-1.5, 0.0], 1.5)
        return as_cohort(species, X, y, rng.integers(40, size=len(y)))

    found = conserved_table(
        cohort("mouse", {"Lamp5": 200, "Pvalb": 40, "Sst": 80}),
        cohort("human", {"Lamp5": 40, "Pvalb": 200, "Sst": 80}),
        resamples=100,
    )
    sst = row(found, "Sst", "alike")
    assert sst["verdict"] == "opposite"
    assert sst["balanced_verdict"] == "neither"
    assert sst["mouse_balanced_auc"] == pytest.approx(0.5, abs=0.08)


def test_homologous_types_where_the_metadata_name_them() -> None:
    mouse, human = planted("mouse"), planted("human")
    is_vip = mouse.obs["subclass"] == "Vip"
    mouse.obs["t_type"] = np.where(is_vip, homologous_types()["Sst 5"][0], "another")
    human.obs["cross_species_type"] = pd.Categorical(
        human.obs["subclass"].astype(str).map({"Vip": "Sst 5"})
    )
    found = conserved_table(mouse, human, resamples=50)
    types = found[found["level"] == "homologous type"]
    assert set(types["group"]) == {"Sst 5"}  # Pvalb 2 has no cells
    got, of_class = row(types, "Sst 5", "against"), row(found, "Vip", "against")
    assert got["verdict"] == "opposite"
    assert got["mouse_auc"] == of_class["mouse_auc"]


def test_groups_of_few_donors_are_left_out() -> None:
    mouse, human = planted("mouse"), planted("human")
    is_vip = human.obs["subclass"].to_numpy() == "Vip"
    human.obs["donor"] = np.where(is_vip, "d0", human.obs["donor"].astype(str))
    found = conserved_table(mouse, human, resamples=10)
    assert set(found["group"]) == {"Lamp5", "Pvalb", "Sst"}


def test_traces_are_compared_by_components() -> None:
    layout = Layout(
        "traces",
        (
            Feature("single", "scalar", "mV"),
            *(Feature(f"shape[{k}]", "shape", "mV") for k in range(30)),
        ),
    )
    curve = np.sin(np.linspace(0, np.pi, 30))

    def cohort(species: str, sign: float) -> anndata.AnnData:
        base = made.cohort(species, {"Lamp5": 40, "Pvalb": 40}, layout=layout)
        rng = np.random.default_rng(0)
        height = sign * (base.obs["subclass"] == "Pvalb").to_numpy() + rng.normal(
            scale=0.3, size=base.n_obs
        )
        base.X[:, 1:] = np.outer(height, curve) + 0.1 * rng.normal(size=(base.n_obs, 30))
        base.X[:3, 1:] = np.nan
        return base

    found = conserved_table(cohort("mouse", 1.0), cohort("human", -1.0), resamples=50)
    assert "single" in set(found["feature"])
    assert not any("[" in name for name in found["feature"])
    first = row(found, "Pvalb", "shape component 0")
    assert first["unit"] == "SD"
    assert first["verdict"] == "opposite"
    assert first["mouse_cells"] <= 40


def test_unlike_features_are_refused() -> None:
    with pytest.raises(EvaluationError, match="different features"):
        conserved_table(made.cohort("mouse"), planted("human"), resamples=2)


def test_the_real_metadata_have_the_homologous_types(real_data) -> None:
    mouse = crosspatch.load_cohort("allen-mouse", data_dir=real_data)
    human = crosspatch.load_cohort("allen-human", data_dir=real_data)
    named = set(human.obs["cross_species_type"].dropna())
    assert named == set(homologous_types())
    known = set(mouse.obs["t_type"])
    assert all(known.issuperset(types) for types in homologous_types().values())
