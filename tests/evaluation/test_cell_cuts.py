from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import crosspatch
from crosspatch.evaluation.cell_cuts import cuts_of, cuts_table, scored_classes
from crosspatch.evaluation.results import of_best_models, read_results
from tests import made

WHO = {"task": "human", "features": "shared", "model": "vote", "protocol": "quick"}
COUNTS = {"Lamp5": 20, "Pvalb": 100, "Sst": 60, "Vip": 40}


@pytest.fixture(scope="module")
def cohort():
    """Human cells of which a source says much, though not of every cell."""
    human = made.cohort(counts=COUNTS, donors=40)
    obs, number = human.obs, np.arange(human.n_obs)
    own = obs["subclass"].to_numpy().astype(object)
    obs["subclass_lee2023"] = own
    other = np.where(number % 10 == 0, "Sst", own)
    obs["subclass_sea_ad"] = pd.Series(other, obs.index).mask(number % 10 == 1)
    nuclei = np.where(number < 40, "nucleus_absent", "nucleus_present")
    obs["post_patch"] = pd.Series(nuclei, obs.index).mask(number < 20)
    layers = ["1", "2", "3", "L2/3", "4", "V", "5/6", "6a", "6b", "6", "", None]
    obs["layer"] = [layers[k % 12] for k in number]
    obs["dataset"] = np.where(number < 110, "allen-human", "allen-human-l1")
    obs["condition"] = "acute"
    return human


def predictions_of(cohort, seed: int = 0, runs: int = 2) -> pd.DataFrame:
    """Two of three cells are predicted right, in folds that hold every cell once a run."""
    rng = np.random.default_rng(seed)
    own = cohort.obs["subclass"].to_numpy().astype(str)
    parts = []
    for run in range(runs):
        order = rng.permutation(len(own))
        predicted = np.where(rng.random(len(own)) < 0.67, own, rng.permutation(own))
        frame = pd.DataFrame({"cell_id": cohort.obs_names, "true": own, "predicted": predicted})
        parts.append(frame.assign(**WHO, run=run, fold=np.arange(len(own)) % 5).iloc[order])
    return pd.concat(parts, ignore_index=True)


def f1_of(y: np.ndarray, predicted: np.ndarray, name: str) -> float:
    hits = np.sum((y == name) & (predicted == name))
    return 2 * hits / (np.sum(y == name) + np.sum(predicted == name))


def test_cells_are_cut_by_what_is_known_of_them(cohort) -> None:
    cuts, number = cuts_of(cohort, "hodge2019"), np.arange(cohort.n_obs)
    own = cohort.obs["subclass"].to_numpy()
    known = number % 10 != 1
    differ = (number % 10 == 0) & (own != "Sst")
    expected = {
        "all": number >= 0,
        "labels: agree with SEA-AD": known & ~differ,
        "labels: disagree": differ,
        "nucleus: absent": (number >= 20) & (number < 40),
        "nucleus: not absent": number >= 40,
        "layer: 1": number % 12 == 0,
        "layer: 2/3": np.isin(number % 12, (1, 2, 3)),
        "layer: 4": number % 12 == 4,
        "layer: 5": number % 12 == 5,
        "layer: 6": np.isin(number % 12, (7, 8, 9)),
        "dataset: allen-human": number < 110,
        "dataset: allen-human-l1": number >= 110,
    }
    assert list(cuts) == list(expected)  # one condition, which all cells have, is no cut
    for name, inside in expected.items():
        assert (cuts[name].to_numpy() == inside).all(), name


def test_cohorts_that_say_nothing_have_no_cut(tmp_path: Path) -> None:
    assert list(cuts_of(made.cohort(), "hodge2019")) == ["all"]
    result = crosspatch.benchmark(
        {"human": made.cohort()}, models=["logistic"], protocol="quick", out=tmp_path
    )
    assert result.cuts["cut"].tolist() == ["all"]
    assert not result.cuts.filter(like="as_").columns.tolist()


def test_labels_are_compared_after_the_alignment(cohort) -> None:
    human = cohort.copy()
    human.obs["subclass_sea_ad"] = human.obs["subclass_sea_ad"].replace("Vip", "Sncg")
    vip = (human.obs["subclass"] == "Vip").to_numpy()
    one, other = (cuts_of(human, name) for name in ("hodge2019", "published-code"))
    pd.testing.assert_frame_equal(one, cuts_of(cohort, "hodge2019"))
    agree = "labels: agree with SEA-AD"
    assert one.loc[vip, agree].any()
    assert not other.loc[vip, agree].any()


@pytest.mark.parametrize(
    ("counts", "scored"),
    [
        ({"Vip": 90, "Lamp5": 10}, ["Lamp5", "Vip"]),
        ({"Vip": 89, "Lamp5": 10}, []),
        ({"Vip": 100, "Lamp5": 9}, []),
        ({"Vip": 200}, []),
        ({"Vip": 60, "Lamp5": 9, "Sst": 40}, ["Sst", "Vip"]),
    ],
)
def test_a_cut_is_scored_on_classes_of_which_it_has_enough(counts, scored) -> None:
    assert scored_classes(made.labels(counts)) == scored


def test_scores_of_cuts_are_those_of_their_cells(cohort) -> None:
    predictions = predictions_of(cohort)
    table = cuts_table(predictions, {"human": cohort}, "hodge2019").set_index("cut")
    cuts = cuts_of(cohort, "hodge2019")
    of_run = [part.set_index("cell_id") for _, part in predictions.groupby("run")]
    scored = {
        "all": ["Lamp5", "Pvalb", "Sst", "Vip"],
        "nucleus: not absent": ["Lamp5", "Pvalb", "Sst", "Vip"],
        "labels: agree with SEA-AD": ["Lamp5", "Pvalb", "Sst", "Vip"],
    }
    for cut, names in scored.items():
        ids = cuts.index[cuts[cut]]
        f1, right = [], []
        for run in of_run:
            y, found = run.loc[ids, "true"].to_numpy(), run.loc[ids, "predicted"].to_numpy()
            f1.append(np.mean([f1_of(y, found, name) for name in names]))
            right.append(np.mean(y == found))
        row = table.loc[cut]
        assert row["classes"] == ", ".join(names)
        assert pd.isna(row["reason"])
        assert (row["cells"], row["runs"]) == (len(ids), 2)
        assert row["donors"] == cohort.obs.loc[ids, "donor"].nunique()
        assert row["macro_f1_mean"] == pytest.approx(np.mean(f1))
        assert row["macro_f1_sd"] == pytest.approx(np.std(f1, ddof=1))
        assert row["accuracy_mean"] == pytest.approx(np.mean(right))
        assert row["accuracy_sd"] == pytest.approx(np.std(right, ddof=1))
    few = table.loc["layer: 2/3"]
    assert few["reason"] == "57 cells, fewer than 100"
    assert np.isnan(few["macro_f1_mean"])
    assert pd.isna(few["classes"])


def test_a_class_of_few_cells_is_not_scored_though_its_cells_count(cohort) -> None:
    """In the second dataset it has three cells; those that are taken for others are still wrong."""
    own = cohort.obs["subclass"].to_numpy()
    first = np.zeros(cohort.n_obs, dtype=bool)
    first[np.flatnonzero(own == "Lamp5")[3:]] = True
    first[np.flatnonzero(own == "Pvalb")[40:]] = True
    human = cohort.copy()
    human.obs["dataset"] = np.where(first, "a", "b")
    predictions = predictions_of(human, runs=1)
    row = cuts_table(predictions, {"human": human}, "hodge2019").set_index("cut").loc["dataset: b"]
    of_b = predictions[~first[human.obs_names.get_indexer(predictions["cell_id"])]]
    y, found = of_b["true"].to_numpy(), of_b["predicted"].to_numpy()
    assert (row["cells"], row["classes"]) == (143, "Pvalb, Sst, Vip")
    expected = np.mean([f1_of(y, found, name) for name in ("Pvalb", "Sst", "Vip")])
    assert row["macro_f1_mean"] == pytest.approx(expected)
    assert np.isnan(row["macro_f1_sd"])  # of one run


def test_runs_that_test_a_part_of_the_cells_are_scored_on_what_each_has(cohort) -> None:
    """As where a fifth is held out: the smallest run decides on which classes."""
    predictions = predictions_of(cohort)
    own = cohort.obs["subclass"].astype(str)
    few = [*own.index[own == "Lamp5"][:9], *own.index[own == "Pvalb"], *own.index[own == "Sst"]]
    predictions = predictions[(predictions["run"] == 0) | predictions["cell_id"].isin(few)]
    row = cuts_table(predictions, {"human": cohort}, "hodge2019").set_index("cut").loc["all"]
    assert (row["cells"], row["classes"], row["runs"]) == (169, "Pvalb, Sst", 2)
    assert row["donors"] == cohort.obs.loc[few, "donor"].nunique()
    f1 = [
        f1_of(run["true"].to_numpy(), run["predicted"].to_numpy(), name)
        for _, run in predictions.groupby("run")
        for name in ("Pvalb", "Sst")
    ]
    assert row["macro_f1_mean"] == pytest.approx(np.mean(f1))


def test_what_is_called_as_others_label_it(cohort) -> None:
    """Of cells without a label by a taxonomy it cannot be said."""
    predictions = predictions_of(cohort).assign(predicted="Sst")
    table = cuts_table(predictions, {"human": cohort}, "hodge2019").set_index("cut")
    row = table.loc["labels: disagree"]
    assert row["as_sea_ad_mean"] == 1
    assert row["as_lee2023_mean"] == row["accuracy_mean"] == 0
    labels = cohort.obs["subclass_sea_ad"].dropna()
    assert len(labels) < cohort.n_obs
    assert table.loc["all", "as_sea_ad_mean"] == pytest.approx((labels == "Sst").mean())


def test_coverage_and_confidence_are_of_cells_with_enough(cohort) -> None:
    sure = predictions_of(cohort, runs=1).assign(p_reference=0.5)
    sure[["p_Lamp5", "p_Pvalb", "p_Sst", "p_Vip"]] = [0.02, 0.02, 0.94, 0.02]
    sure["predicted"] = "Sst"
    sure["set"] = [("Sst",) if name != "Vip" else ("Sst", "Vip") for name in sure["true"]]
    refused = sure["cell_id"].isin(cohort.obs_names[:50])
    sure.loc[refused, "predicted"] = "insufficient data"
    sure.loc[refused, "p_Sst"] = np.nan
    row = cuts_table(sure, {"human": cohort}, "hodge2019").set_index("cut").loc["all"]
    left = sure["true"][~refused]
    assert row["coverage_mean"] == pytest.approx(left.isin(["Sst", "Vip"]).mean())
    assert row["confident_mean"] == pytest.approx((left != "Vip").mean())
    assert row["accuracy_mean"] == pytest.approx(((sure["true"] == "Sst") & ~refused).mean())


def test_a_run_that_goes_on_gives_the_same_table(cohort, tmp_path: Path) -> None:
    def cuts() -> pd.DataFrame:
        return crosspatch.benchmark(
            {"human": cohort}, models=["logistic", "svm"], protocol="quick", out=tmp_path
        ).cuts

    whole = cuts()
    for stored in sorted((tmp_path / "folds").iterdir())[::3]:
        stored.unlink()
    pd.testing.assert_frame_equal(cuts(), whole)
    assert {"all", "labels: agree with SEA-AD", "layer: 2/3"} <= set(whole["cut"])
    # Twice as many rows as cuts; the best model's are half of them.
    result = read_results(tmp_path)
    best = of_best_models(result.cuts, result.summary)
    name = result.summary.set_index("model")["macro_f1_mean"].idxmax()
    assert set(best["model"]) == {name}
    assert 2 * len(best) == len(whole)


def test_pooled_folds_of_all_cells_agree_with_the_confusion(cohort) -> None:
    result = crosspatch.benchmark({"human": cohort}, models=["logistic"], protocol="quick")
    f1 = []
    for _, part in result.confusion.groupby("run"):
        counts = part.pivot_table(index="true", columns="predicted", values="cells", aggfunc="sum")
        both = counts.sum(axis=0) + counts.sum(axis=1)
        f1.append((2 * np.diag(counts) / both).mean())
    row = result.cuts.set_index("cut").loc["all"]
    assert row["macro_f1_mean"] == pytest.approx(np.mean(f1))


def test_real_human_cells_are_cut_by_their_labels(real_data: Path) -> None:
    human = crosspatch.load_cohort("human", data_dir=real_data)
    cells = cuts_of(human, "hodge2019").sum().to_dict()
    assert cells["labels: agree with SEA-AD"] == 622
    assert cells["labels: disagree"] == 40
    assert (cells["nucleus: absent"], cells["nucleus: not absent"]) == (54, 637)
    assert (cells["layer: 2/3"], cells["layer: 6"]) == (494, 23)
