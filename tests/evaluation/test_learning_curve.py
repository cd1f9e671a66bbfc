from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crosspatch.cohorts.cells import cells_of
from crosspatch.errors import EvaluationError, ModelError
from crosspatch.evaluation import learning_curve as module
from crosspatch.evaluation.learning_curve import gains, learning_curve, read_learning_curve
from crosspatch.models.registry import model_entry
from tests import made

COUNTS = {"Lamp5": 40, "Pvalb": 70, "Sst": 55, "Vip": 50}
MODELS = ["lda-mouse"]


def cohorts(spread: float = 2.0):
    """Two species whose classes lie alike, the human one in two conditions."""
    both = {
        "human": made.cohort("human", COUNTS, donors=30, seed=1, spread=spread),
        "mouse": made.cohort("mouse", {k: 2 * n for k, n in COUNTS.items()}, donors=60, seed=2),
    }
    half = np.arange(both["human"].n_obs) % 2 == 0
    both["human"].obs["condition"] = np.where(half, "acute", "culture")
    return both


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve")
    return learning_curve(cohorts(), models=MODELS, protocol="quick", out=folder), folder


def test_points_are_nested_balanced_and_apart_from_the_tested_donors() -> None:
    cells = cells_of(cohorts()["human"], None)
    for draw in module._draws(cells, "quick", 0):
        tested = set(cells.donors[draw.fold.test])
        before: set[int] = set()
        for name, rows in draw.points.items():
            assert not tested & set(cells.donors[rows])
            assert before <= set(rows)
            before = set(rows)
            if name not in ("0", "all"):
                counts = np.unique(cells.y[rows], return_counts=True)[1]
                assert counts.tolist() == [int(name)] * 4
        assert set(draw.points["all"]) == set(draw.fold.train)
        # Points larger than the smallest class of the training donors are left out.
        assert list(draw.points) == ["0", "5", "10", "20", "all"]


def test_every_draw_and_point_has_a_score_with_and_without_mouse(curve) -> None:
    result = curve[0].results
    every = result[result["cut"] == "all"]
    counts = every.groupby(["model", "cells_per_class"]).size()
    for point in ("5", "10", "20", "all"):
        for model in ("lda-mouse", "lda-unlabelled", "lda", "vote"):
            assert counts[model, point] == 5
    assert counts["lda-mouse", "0"] == 5
    assert ("lda-unlabelled", "0") not in counts.index


def test_mouse_that_is_alike_helps_where_few_cells_are_labelled(curve) -> None:
    found = curve[0].gains.query("cut == 'all' and without == 'lda-unlabelled'")
    found = found.set_index("cells_per_class")
    assert found.loc["5", "delta_macro_f1"] > 0.05
    assert found.loc["5", "delta_macro_f1"] > found.loc["all", "delta_macro_f1"]
    row = found.loc["5"]
    assert row["ci_low"] < row["delta_macro_f1"] < row["ci_high"]


def test_models_that_take_types_are_given_those_of_the_labelled_cells(monkeypatch) -> None:
    """Each class has two opposite types, so that the means of all classes are the same."""
    monkeypatch.setitem(module.DRAWS, "quick", 1)
    monkeypatch.setattr(module, "SIZES", (0, 20))
    both = cohorts(spread=0.5)
    human = both["human"]
    opposite = np.arange(human.n_obs) % 4 < 2
    human.X[opposite] *= -1
    human.obs["t_type"] = human.obs["subclass"].astype(str) + np.where(opposite, " 1", " 2")
    found = learning_curve(both, models=["lda-unlabelled"], protocol="quick").results
    accuracy = found[found["cut"] == "all"].set_index(["model", "cells_per_class"])["accuracy"]
    for point in ("20", "all"):
        assert accuracy["lda", point] == 1
        assert accuracy["lda-unlabelled", point] < 0.9  # takes none


def test_scores_are_cut_by_condition(curve) -> None:
    result = curve[0].results
    assert set(result["cut"]) == {"all", "condition: acute", "condition: culture"}
    parts = result[result["cut"] != "all"].groupby(["model", "cells_per_class", "draw"])["n_test"]
    whole = result[result["cut"] == "all"].groupby(["model", "cells_per_class", "draw"])["n_test"]
    pd.testing.assert_series_equal(parts.sum(), whole.sum())


def test_a_stopped_curve_goes_on_and_gives_the_same(curve) -> None:
    first, folder = curve
    stored = sorted((folder / "folds").iterdir())
    assert len(stored) == 20
    stored[0].unlink()
    stored[1].write_text("{")
    told: list[tuple[int, int]] = []
    again = learning_curve(
        cohorts(),
        models=MODELS,
        protocol="quick",
        out=folder,
        jobs=2,
        progress=lambda *n: told.append(n),
    )
    assert told[0] == (18, 20)
    assert told[-1] == (20, 20)
    pd.testing.assert_frame_equal(again.gains, first.gains)
    read = read_learning_curve(folder)
    pd.testing.assert_frame_equal(
        read.summary, first.summary, check_dtype=False, check_exact=False, rtol=1e-12
    )


def test_the_best_without_mouse_is_chosen_at_every_number_of_cells() -> None:
    rows = [
        {"features": "f", "cut": "all", "draw": draw, "n_train": 80, "n_test": 20}
        | {"model": model, "mouse": model == "joint", "cells_per_class": point}
        | {"macro_f1": score + 0.01 * draw}
        for draw in range(4)
        for point, scores in (
            ("5", {"joint": 0.5, "lda": 0.3, "vote": 0.2}),
            ("all", {"joint": 0.6, "lda": 0.7, "vote": 0.8}),
        )
        for model, score in scores.items()
    ]
    more = module.with_best(pd.DataFrame(rows))
    best = more[more["model"] == module.BEST_WITHOUT].groupby("cells_per_class")["macro_f1"]
    assert best.min().to_dict() == pytest.approx({"5": 0.3, "all": 0.8})
    found = gains(more).set_index("cells_per_class")["delta_macro_f1"]
    assert found.to_dict() == pytest.approx({"5": 0.2, "all": -0.2})


def test_gains_are_paired_differences() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {
            "features": "f",
            "model": model,
            "cells_per_class": "5",
            "cut": "all",
            "draw": draw,
            "n_train": 80,
            "n_test": 20,
            "macro_f1": base + more,
        }
        for draw, base in enumerate(rng.random(20))
        for model, more in (("joint", 0.1), ("bilstm-attention", 0.0))
    ]
    (row,) = gains(pd.DataFrame(rows)).to_dict("records")
    assert row["model"] == "joint"
    assert row["without"] == "bilstm-attention"
    assert row["delta_macro_f1"] == pytest.approx(0.1)
    assert row["ci_high"] - row["ci_low"] < 1e-6


@pytest.mark.parametrize("name", ["finetune", "joint"])
def test_sequence_models_can_be_drawn(name: str, monkeypatch) -> None:
    from crosspatch.models.loop import TrainingSettings

    monkeypatch.setattr(module, "SIZES", (0, 10))
    monkeypatch.setattr(module, "ALONE", ())
    monkeypatch.setitem(module.DRAWS, "quick", 1)
    entries = model_entry

    def quick(wanted: str):
        from dataclasses import replace

        entry = entries(wanted)
        return replace(
            entry,
            build=lambda layout, seed, device: entry.build(layout, seed, device).set_params(
                training=TrainingSettings(epochs=2)
            ),
        )

    monkeypatch.setattr(module, "model_entry", quick)
    found = learning_curve(cohorts(), models=[name], protocol="quick").results
    points = set(found.query("model == @name")["cells_per_class"])
    assert points == ({"0", "10", "all"} if name == "finetune" else {"10", "all"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ["forest"]}, "no partner"),
        ({"models": ["nonesuch"]}, "no model"),
        ({"protocol": "published"}, "protocols donor, quick"),
    ],
)
def test_what_cannot_be_done_is_said(change, message) -> None:
    with pytest.raises((EvaluationError, ModelError), match=message):
        learning_curve(cohorts(), **change)


def test_one_species_is_not_enough() -> None:
    with pytest.raises(EvaluationError, match="needs a mouse cohort"):
        learning_curve({"human": cohorts()["human"]})
