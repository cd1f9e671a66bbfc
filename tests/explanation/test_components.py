from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosspatch.errors import EvaluationError
from crosspatch.explanation import components as space_module
from crosspatch.explanation.components import (
    cells_by_species,
    examples_table,
    loadings_table,
    spaces_of,
)
from crosspatch.explanation.map import lay_out
from crosspatch.explanation.result_tables import TABLE_COLUMNS
from crosspatch.features.layouts import Feature, Layout
from tests import made


@pytest.fixture(scope="module")
def cohorts():
    return {name: made.cohort(name, layout=made.SMALL) for name in ("mouse", "human")}


@pytest.fixture(scope="module")
def spaces(cohorts):
    return spaces_of(cells_by_species(cohorts))


def map_table(cohorts, seed: int = 0) -> pd.DataFrame:
    return lay_out(cells_by_species(cohorts), seed)[0].table


def test_scores_are_clipped_and_absent_families_stay_absent(cohorts) -> None:
    odd = cohorts["mouse"].copy()
    odd.X[0, :8] = 1e6
    space = spaces_of(cells_by_species({"mouse": odd}))["mouse"]
    assert np.nanmax(np.abs(space.scores)) <= space_module.CLIP
    columns = made.SMALL.columns["train"]
    absent = np.isnan(odd.X[:, columns]).all(axis=1)
    of_family = [name.startswith("train") for name in space.fit.names_]
    assert absent.any()
    assert np.isnan(space.scores[:, of_family][absent]).all()
    assert not space.complete[absent].any()


def test_loadings_of_single_numbers(cohorts, spaces) -> None:
    found = loadings_table(spaces)
    assert list(found.columns) == TABLE_COLUMNS["loadings"]
    assert set(found["species"]) == {"mouse", "human"}
    mouse = found[found["species"] == "mouse"]
    kept = mouse.groupby(["family", "component"])
    assert len(kept) == spaces["mouse"].scores.shape[1]
    assert np.allclose(kept["loading"].apply(lambda part: np.sum(part**2)), 1.0)
    assert (mouse["variance"] >= 0.01).all()
    first = mouse[mouse["feature"] == "spike_2"].iloc[0]
    assert first["position"] == 2
    assert first["unit"] == "pA"
    values = np.asarray(cohorts["mouse"][:, "spike_2"].X)
    assert first["mean"] == pytest.approx(np.nanmean(values), rel=1e-4)


def test_loadings_of_traces_keep_their_positions() -> None:
    """In the published layouts some positions are left out, and one family is derived."""
    width = 300
    layout = Layout(
        "gouwens",
        (
            *(Feature(f"isi_shape[{k}]", "isi_shape", "mV") for k in range(100)),
            *(Feature(f"psth[{k}]", "psth", "spikes/s") for k in range(21)),
            *(Feature(f"inst_freq[{k}]", "inst_freq", "spikes/s") for k in range(width)),
        ),
    )
    cohort = made.cohort("mouse", {"Pvalb": 25, "Sst": 25}, layout=layout)
    cohort.X[:] = np.abs(cohort.X) + 1
    cohort.X[np.isnan(cohort.X)] = 1.0
    cohort.X[0, 121:] = np.nan
    found = loadings_table(spaces_of(cells_by_species({"mouse": cohort})))
    assert set(found["family"]) == {"isi_shape", "inst_freq", "inst_freq_norm"}
    of_rates = found[found["family"] != "isi_shape"]
    assert (of_rates.groupby(["family", "component"]).size() == width).all()
    rate = found[(found["family"] == "inst_freq") & (found["component"] == 0)]
    used = rate["loading"].notna().to_numpy()
    assert np.array_equal(np.flatnonzero(~used), np.r_[50:100, 150:200, 250:300])
    assert rate["mean"].notna().all()
    derived = found[found["family"] == "inst_freq_norm"]
    assert set(derived["unit"]) == {"ratio"}
    assert derived["feature"].iloc[1] == "inst_freq_norm[1]"
    assert derived["mean"].max() <= 1
    assert derived["loading"].notna().all()


def test_examples_are_cells_in_the_middle(cohorts, spaces) -> None:
    found = examples_table(spaces)
    assert list(found.columns) == TABLE_COLUMNS["examples"]
    assert len(found) == 2 * 4 * len(made.SMALL.features)
    for (species, subclass), part in found.groupby(["species", "subclass"]):
        (cell,) = set(part["cell_id"])
        cohort, space = cohorts[species], spaces[species]
        assert cohort.obs.loc[cell, "subclass"] == subclass
        assert np.allclose(part["example"], cohort[cell].X[0], equal_nan=True)
        row = cohort.obs_names.get_loc(cell)
        assert space.complete[row]
        members = (cohort.obs["subclass"] == subclass).to_numpy() & space.complete
        centre = space.scores[members].mean(axis=0)
        away = np.linalg.norm(space.scores[members] - centre, axis=1)
        assert np.linalg.norm(space.scores[row] - centre) <= np.median(away)
        assert (part["low"] <= part["high"]).all()
    values = np.asarray(cohorts["mouse"].X)[(cohorts["mouse"].obs["subclass"] == "Sst").to_numpy()]
    sst = found[(found["species"] == "mouse") & (found["subclass"] == "Sst")]
    assert np.allclose(sst["median"], np.nanmedian(values, axis=0))


def test_an_example_where_no_cell_has_every_family(cohorts) -> None:
    odd = cohorts["human"].copy()
    columns = made.SMALL.columns
    is_vip = (odd.obs["subclass"] == "Vip").to_numpy()
    for number, row in enumerate(np.flatnonzero(is_vip)):
        odd.X[row, columns["train" if number % 2 else "spike"]] = np.nan
    found = examples_table(spaces_of(cells_by_species({"human": odd})))
    assert set(found["subclass"]) == {"Lamp5", "Pvalb", "Sst", "Vip"}


class _Flat:
    """Takes the first two components, and remembers what it is fitted on."""

    fitted: list[np.ndarray] = []  # noqa: RUF012

    def __init__(self, **settings: object) -> None:
        self.settings = settings

    def fit_transform(self, Z):
        assert np.isfinite(Z).all()
        _Flat.fitted.append(Z)
        return Z[:, :2]

    def transform(self, Z):
        assert np.isfinite(Z).all()
        return Z[:, :2]


@pytest.fixture
def flat(monkeypatch: pytest.MonkeyPatch):
    """UMAP takes longer to compile than all these tests."""
    import umap

    monkeypatch.setattr(umap, "UMAP", _Flat)
    _Flat.fitted.clear()
    return _Flat


def test_map_is_fitted_on_mouse_and_human_laid_over(cohorts, spaces, flat) -> None:
    found = map_table(cohorts)
    assert list(found.columns) == TABLE_COLUMNS["map"]
    (fitted,) = flat.fitted
    assert np.array_equal(fitted, spaces["mouse"].scores[spaces["mouse"].complete])
    assert found["species"].value_counts().to_dict() == {"mouse": 145, "human": 145}
    assert found[["x", "y"]].notna().all(axis=None)
    mouse = found[found["species"] == "mouse"]
    assert list(mouse["cell_id"]) == list(cohorts["mouse"].obs_names)
    assert list(mouse["subclass"]) == list(cohorts["mouse"].obs["subclass"])


def test_each_species_is_standardised_by_itself(cohorts, flat) -> None:
    same = cohorts["mouse"].copy()
    same.obs["species"] = "human"
    same.X[:] = 3.0 * same.X + 100.0
    found = map_table({"mouse": cohorts["mouse"], "human": same})
    mouse, human = (found[found["species"] == name] for name in ("mouse", "human"))
    assert np.allclose(mouse[["x", "y"]], human[["x", "y"]], atol=1e-3)


def test_cells_with_little_are_not_on_the_map(cohorts, flat) -> None:
    odd = cohorts["human"].copy()
    odd.X[:5, 6:] = np.nan
    odd.X[:5, :6] = 0.0
    narrow = made.SMALL.columns["spike"].tolist() + made.SMALL.columns["train"].tolist()
    odd.X[:5, narrow] = np.nan
    found = map_table({"human": odd})
    assert len(found) == odd.n_obs - 5
    assert not set(odd.obs_names[:5]) & set(found["cell_id"])


def test_map_refuses_what_it_cannot_lay_out(cohorts, flat) -> None:
    with pytest.raises(EvaluationError, match="at least 10"):
        map_table({"human": cohorts["human"][:8].copy()})
    with pytest.raises(EvaluationError, match="different features"):
        map_table({"mouse": made.cohort("mouse"), "human": cohorts["human"]})


def test_the_same_seed_gives_the_same_map(cohorts) -> None:
    first, second = (map_table(cohorts, seed=1) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert first[["x", "y"]].notna().all(axis=None)
