"""What answers are worth on labelled cells: scores, what is left out, and what is said loudly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

import crosspatch
from crosspatch.cohorts.cells import cells_of
from crosspatch.cohorts.loading import load_cohort
from crosspatch.cohorts.table import read
from crosspatch.errors import CohortError
from crosspatch.evaluation.validation_tables import VALIDATION_TABLES, cautions, promise_kept
from crosspatch.prediction import validating
from crosspatch.prediction.training import cells_learned
from crosspatch.reporting.report import write_report
from tests import made
from tests.command import crosspatch as command
from tests.prediction.conftest import COUNTS

CALLED = {"Lamp5": "NDNF", "Pvalb": "PV", "Sst": "SOM", "Vip": "VIP+"}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """New cells with a laboratory's labels; some are excitatory, doubtful or without a label."""
    counts = {"Lamp5": 20, "Pvalb": 40, "Sst": 30, "Vip": 24}
    cells = made.cohort("human", counts, donors=12, seed=7, spread=2.5)
    frame = cells.to_df()
    frame.insert(0, "cell", [f"new-{k}" for k in range(len(frame))])
    frame["marker"] = cells.obs["subclass"].astype(object).map(CALLED).to_numpy()
    frame.loc[frame.index[:6], "marker"] = "pyramidal"
    frame.loc[frame.index[6:9], "marker"] = "PV-"
    frame.loc[frame.index[9:13], "marker"] = None
    frame.loc[frame.index[20], cells.var_names] = np.nan
    frame["patient"] = [f"patient {k[6:]}" for k in cells.obs["donor"].astype(str)]
    return frame.reset_index(drop=True)


def validate(cells, model_folders, **changes):
    given = {"model": model_folders["human"], "species": "human", "say": lambda line: None}
    return crosspatch.validate(cells, **(given | {"label": "marker"} | changes))


def test_scores_are_those_of_the_predictions(frame, model_folders):
    found = validate(frame, model_folders, group="patient").tables
    said = crosspatch.predict(
        frame.drop(columns=["marker", "patient"]),
        model=model_folders["human"],
        species="human",
        say=lambda line: None,
    ).cells.set_index("cell_id")
    back = {called: name for name, called in CALLED.items()}
    true = frame.set_index("cell")["marker"].map(back).dropna()
    said = said.loc[true.index]
    sets = said["prediction_set"]
    whole = found.scores.set_index("class").loc["all"]
    assert whole["cells"] == len(true) == len(frame) - 13
    assert whole["f1"] == pytest.approx(
        f1_score(true, said["subclass"], labels=list(back.values()), average="macro")
    )
    assert whole["right"] == pytest.approx((said["subclass"] == true).mean())
    inside = np.array([name in chosen for name, chosen in zip(true, sets, strict=True)])
    enough = (said["subclass"] != "").to_numpy()
    assert 0 < whole["insufficient"] == pytest.approx((~enough).mean())
    assert whole["covered"] == pytest.approx(inside[enough].mean())
    sure = said["verdict"] == crosspatch.Verdict.CONFIDENT
    assert whole["confident"] == pytest.approx(sure.mean())
    assert whole["confident_right"] == pytest.approx((said["subclass"] == true)[sure].mean())
    verdicts = ["confident", "ambiguous", "outside", "insufficient"]
    assert whole[verdicts].sum() == pytest.approx(1)
    for name in ("f1", "right", "covered"):
        assert whole[f"{name}_low"] <= whole[name] <= whole[f"{name}_high"]
        assert whole[f"{name}_high"] - whole[f"{name}_low"] > 0.02
    sst = found.scores.set_index("class").loc["Sst"]
    assert sst["covered"] == pytest.approx(inside[(true == "Sst").to_numpy() & enough].mean())
    assert found.confusion["cells"].sum() == len(true)
    assert found.reliability["cells"].sum() == enough.sum()


def test_labels_that_the_model_does_not_know_are_counted_by_themselves(frame, model_folders):
    found = validate(frame, model_folders)
    unknown = found.tables.unknown.set_index("label")
    assert unknown["cells"].to_dict() == {"pyramidal": 6, "PV-": 3}
    answers = found.tables.answers
    sure = answers[(answers["label"] == "pyramidal") & (answers["verdict"] == "confident")]
    assert unknown.loc["pyramidal", "confident"] == pytest.approx(len(sure) / 6)
    assert unknown.loc["PV-", "confident_high"] > 0.5  # three cells prove little
    assert found.settings["without_label"] == 4
    assert found.settings["labels"]["human"]["SOM"] == "Sst"
    assert found.settings["labels"]["human"]["PV-"] is None


def test_intervals_know_of_donors_and_it_is_said_where_there_are_none(frame, model_folders):
    alone = validate(frame, model_folders)
    grouped = validate(frame, model_folders, group="patient")
    assert any("donors are not given" in each for each in alone.cautions)
    assert not any("donors are not given" in each for each in grouped.cautions)
    whole = grouped.tables.scores.iloc[0]
    assert (whole["donors"], alone.tables.scores.iloc[0]["donors"]) == (12, whole["cells"])


def test_a_mouse_label_counts_as_the_model_has_it(model_folders):
    """Sncg is no class of a human model, which counts it as Vip."""
    cells = made.cohort("human", {"Pvalb": 10, "Vip": 10}, seed=5)
    table = cells.to_df().assign(marker=np.where(cells.obs["subclass"] == "Vip", "Sncg", "PV"))
    found = validate(table, model_folders)
    assert found.tables.scores["class"].tolist() == ["all", "Pvalb", "Vip"]


def test_label_and_donor_are_never_features(frame, model_folders):
    """Not even where their names are those of features."""
    odd = frame.rename(columns={"marker": "Sag ratio (label)", "patient": "tau of donor"})
    found = validate(odd, model_folders, label="Sag ratio (label)", group="tau of donor")
    usual = validate(frame, model_folders, group="patient")
    pd.testing.assert_frame_equal(found.tables.scores, usual.tables.scores)


def test_cells_that_the_model_learned_from_are_said_loudly(model_folders, monkeypatch):
    learned = cells_of(made.cohort("human", COUNTS, donors=50, spread=1.5), None)
    monkeypatch.setattr(validating, "cells_learned", lambda *given: learned)
    cells = made.cohort("human", donors=12, seed=7)
    names, donors = [f"new-{k}" for k in range(cells.n_obs)], cells.obs["donor"].astype(str)
    cells.obs = cells.obs.assign(donor="patient " + donors).set_axis(names)
    new = validate(cells, model_folders, label=None)
    assert new.settings["seen"]["human"] == {"itself": 0, "donor": 0, "unchecked": 0}
    assert not any("NOT HONEST" in each for each in new.cautions)
    # Ten by what was measured, some of it left out; two by their names; three by their donors.
    cells.X[20:30] = learned.X[:10]
    cells.X[20:30, 3] = np.nan
    names[30:32] = learned.cell_ids[20:22]
    donors = cells.obs["donor"].to_numpy().copy()
    donors[32:35] = learned.donors[0]
    cells.obs = cells.obs.assign(donor=donors).set_axis(names)
    found = validate(cells, model_folders, label=None)
    assert found.settings["seen"]["human"] == {"itself": 12, "donor": 3, "unchecked": 0}
    (said,) = [each for each in found.cautions if "NOT HONEST" in each]
    assert said.endswith(
        "learned from 12 of these cells and from other cells of the donors of 3 more"
    )
    rest = validate(cells, model_folders, label=None, new_cells=True)
    assert len(rest.tables.answers) == cells.n_obs - 15
    assert not any("NOT HONEST" in each for each in rest.cautions)
    every = made.cohort("human", COUNTS, donors=50, spread=1.5)
    with pytest.raises(CohortError, match="learned from every labelled cell"):
        validate(every, model_folders, label=None, new_cells=True)


@pytest.mark.parametrize("new_cells", [False, True])
def test_cells_with_too_few_features_to_be_compared_are_said(model_folders, monkeypatch, new_cells):
    learned = cells_of(made.cohort("human", COUNTS, donors=50, spread=1.5), None)
    monkeypatch.setattr(validating, "cells_learned", lambda *given: learned)
    cells = made.cohort("human", donors=12, seed=7)
    names = np.array([f"new-{k}" for k in range(cells.n_obs)], dtype=object)
    donors = ("patient " + cells.obs["donor"].astype(str)).to_numpy()
    # Six cells of the training, by another name, of which four features are left; one of these has
    # its name and one its donor. The next has five features.
    cells.X[:7] = learned.X[np.isfinite(learned.X).all(axis=1)][:7]
    cells.X[:6, 4:] = cells.X[6, 5:] = np.nan
    names[0], donors[1] = learned.cell_ids[0], learned.donors[0]
    cells.obs = cells.obs.assign(donor=donors).set_axis(names)
    found = validate(cells, model_folders, label=None, new_cells=new_cells)
    assert found.settings["seen"]["human"] == {"itself": 2, "donor": 1, "unchecked": 4}
    assert [each for each in found.cautions if "cannot be checked" in each] == [
        "whether the human model learned from 4 of these cells cannot be checked: they have too "
        "few features, and other names than its cells"
    ]
    assert len(found.tables.answers) == cells.n_obs - 3 * new_cells


def test_what_a_model_learned_is_said_without_noughts():
    usual = {"simulated": False, "new_cells": False, "species_known": True, "group": "patient"}
    usual |= {"judged_by": {}, "cohorts": {}}
    for itself, donor, said in [
        (2, 0, "2 of these cells"),
        (0, 3, "other cells of the donors of 3 of these"),
    ]:
        seen = {"human": {"itself": itself, "donor": donor, "unchecked": 0}}
        (line,) = cautions(usual | {"seen": seen})
        assert line == f"THESE SCORES ARE NOT HONEST: the human model learned from {said}"


def test_where_it_cannot_be_checked_that_is_said(frame, model_folders):
    found = validate(frame, model_folders)
    assert found.settings["seen"] == {"human": None}
    assert any("cannot be checked" in each for each in found.cautions)


def test_what_a_model_of_published_cells_learned_from_is_found_again(real_data, tmp_path):
    human = load_cohort("allen-human", data_dir=real_data)
    crosspatch.train(human, model="logistic", out=tmp_path / "model")
    learned = cells_learned(crosspatch.load_model(tmp_path / "model"), real_data)
    assert learned is not None
    assert set(learned.cell_ids) == set(human.obs_names)
    both = load_cohort("allen-human-l1", data_dir=real_data, every_cell=True)
    found = crosspatch.validate(
        both, model=tmp_path / "model", data_dir=real_data, say=lambda line: None
    )
    seen = found.settings["seen"]["human"]
    own = human.obs_names
    labelled = both[(both.obs["subclass"].notna() | both.obs["class"].notna()).to_numpy()]
    assert seen["itself"] >= labelled.obs_names.isin(own).sum() > 0
    assert seen["donor"] > 0
    assert any("NOT HONEST" in each for each in found.cautions)


def test_a_cohort_table_needs_no_names_of_columns(tmp_path: Path, model_folders):
    cells = made.cohort("human", seed=4)
    cells.obs["class"] = ["Glutamatergic"] * 10 + [None] * (cells.n_obs - 10)
    cells.obs["subclass"] = cells.obs["subclass"].astype(object)
    cells.obs.loc[cells.obs_names[:10], "subclass"] = np.nan
    for given in (cells, _written(cells, tmp_path / "cells.h5ad")):
        found = validate(given, model_folders, label=None)
        assert found.tables.unknown["label"].tolist() == ["Glutamatergic"]
        assert found.tables.scores.iloc[0]["cells"] == cells.n_obs - 10
        assert found.tables.scores.iloc[0]["donors"] > 5
        assert found.settings["group"] == "donor"


def _written(cells, file: Path) -> Path:
    cells.obs = cells.obs.astype({"subclass": "category", "class": "category"})
    cells.write_h5ad(file)
    assert read(file).n_obs
    return file


def test_cells_of_unknown_and_of_other_species(frame, model_folders):
    both = [model_folders["human"], model_folders["mouse"]]
    found = validate(frame, model_folders, species=None, model=both)
    assert list(dict.fromkeys(found.tables.scores["species"])) == ["human", "mouse"]
    assert any("species of some cells is not known" in each for each in found.cautions)
    with pytest.raises(CohortError, match="no cell is of a species that there is a model of"):
        validate(frame.assign(species="mouse"), model_folders)


def test_errors_say_what_is_wrong_in_a_line(frame, model_folders, tmp_path: Path):
    with pytest.raises(CohortError, match="has no column 'nope'; it has: cell, marker, patient"):
        validate(frame, model_folders, label="nope")
    with pytest.raises(CohortError, match="has no column 'lab'"):
        validate(frame, model_folders, group="lab")
    with pytest.raises(CohortError, match="which column has the labels"):
        validate(frame, model_folders, label=None)
    with pytest.raises(CohortError, match="no cell has a label in column 'marker'"):
        validate(frame.assign(marker=None), model_folders)
    with pytest.raises(CohortError, match=r"'FS', 'RS'\) is a class of the model \(Lamp5, Pvalb"):
        validate(frame.assign(marker=["FS", "RS"] * (len(frame) // 2)), model_folders)
    with pytest.raises(CohortError, match="no cell has a label in column 'marker'"):
        validate(frame.assign(marker="unknown"), model_folders)
    with pytest.raises(CohortError, match="it cannot be told which cells"):
        validate(frame, model_folders, new_cells=True)
    (tmp_path / "cell.abf").write_bytes(b"ABF2")
    with pytest.raises(CohortError, match="labels are in a table"):
        validate(tmp_path / "cell.abf", model_folders)


def test_a_folder_of_it_has_csv_json_and_a_section_of_the_report(
    frame, model_folders, tmp_path: Path
):
    odd = frame.assign(cell=["=1+1", *frame["cell"][1:]])
    out = tmp_path / "worth"
    found = validate(odd, model_folders, group="patient", out=out)
    assert {file.stem for file in out.glob("*.csv")} == set(VALIDATION_TABLES)
    stored = pd.read_csv(out / "scores.csv")
    np.testing.assert_allclose(stored["covered"], found.tables.scores["covered"])
    assert pd.read_csv(out / "answers.csv")["cell_id"][0] == "'=1+1"
    told = json.loads((out / "validation.json").read_text())
    assert told["scores"][0]["f1"] == pytest.approx(found.tables.scores["f1"][0])
    assert told["unknown"][0]["label"] == "pyramidal"
    assert told["settings"]["labels"]["human"]["PV"] == "Pvalb"
    page = write_report([out], tmp_path / "report.html")[0].read_text(encoding="utf-8")
    assert "What the answers are worth on labelled cells" in page
    assert "cannot be checked" in page
    assert "No results were given" not in page  # a laboratory's own page is not about models
    whole = found.tables.scores.iloc[0]
    assert promise_kept(whole["covered_low"], whole["covered_high"]) in page
    assert (tmp_path / "report_figures" / "right_and_covered_worth.png").is_file()


def test_the_command_fits_a_narrow_terminal(frame, model_folders, tmp_path: Path):
    table, out = tmp_path / "cells.csv", tmp_path / "out"
    frame.to_csv(table, index=False)
    given = ["validate", table, "--label", "marker", "--group", "patient", "--species", "human"]
    done = command(*given, "--model", model_folders["human"], "--out", out, COLUMNS="80")
    said = done.stdout
    assert done.returncode == 0, done.stderr
    assert len(said.splitlines()) > 20
    # A path is not broken, so that it can be copied.
    broken = [line for line in said.splitlines() if str(tmp_path) not in line]
    assert max(map(len, broken)) <= 80
    assert "in its 90% set" in said
    assert "pyramidal" in said
    assert "4 cells have no label and are not scored" in said
    assert (out / "report.html").is_file()
    refused = command("validate", table, "--cohort", "human")
    assert refused.returncode == 2
    assert refused.stderr == (
        "crosspatch: give a table of labelled cells or --cohort, one of the two\n"
    )
