"""A page about one cell: what is on it, what is left out, and that nothing is cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from crosspatch.cohorts import table as tables
from crosspatch.drawing.style import NARROW
from crosspatch.errors import CohortError
from crosspatch.features.layouts import load_layout
from crosspatch.prediction import explained
from crosspatch.prediction.explained import CellExplanation, explain, explain_cells
from crosspatch.prediction.pipeline import Listener, Pipeline, request
from crosspatch.prediction.training import train
from crosspatch.recordings.model import Recording
from crosspatch.recordings.reading_options import Reading
from crosspatch.reporting import cell_page as page_module
from crosspatch.reporting.cell_page import cell_page, write_pages
from tests import made
from tests.features.made_cell import MadeCell, made_recording

SHARED = load_layout("shared")
COUNTS = {"Lamp5": 25, "Pvalb": 40, "Sst": 35, "Vip": 30}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "model"
    train(made.cohort("human", COUNTS, donors=30, spread=1.5), model="logistic", out=folder)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Rows: whole, without two families, too little, far away, another species."""
    X = np.asarray(made.cohort("human", COUNTS, donors=30, spread=1.5, seed=1).X[:30])
    X = np.nan_to_num(X)
    X[1, np.r_[SHARED.columns["ap_ramp"], SHARED.columns["spike_train"]]] = np.nan
    X[2, 1:] = np.nan  # of the first feature the classes have nearly the same values
    X[3] += 40 * np.random.default_rng(0).normal(size=X.shape[1])
    frame = pd.DataFrame(X, columns=SHARED.feature_names)
    frame.insert(0, "cell_id", ["whole", "gaps / #1", "little", "far", "rat", *map(str, range(25))])
    frame.insert(1, "species", ["human"] * 4 + ["rat"] + ["human"] * 25)
    folder = tmp_path_factory.mktemp("table")
    obs = pd.DataFrame(
        {"species": "human", "subclass": "Sst", "t_type": "Sst", "donor": "d", "dataset": "made"},
        index=pd.Index(frame["cell_id"], name="cell_id"),
    )
    cells = tables.build(X, obs, SHARED, tables.Head({}, True, {}, {}))
    cells.obs["species"] = frame["species"].to_numpy()
    cells.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


@pytest.fixture(scope="module")
def found(model, table) -> dict[str, CellExplanation]:
    said: list[str] = []
    cells = explain(table, model=model, say=said.append)
    assert len(cells) == explained.MOST
    assert sum("only the first 20 cells" in line for line in said) == 1
    return {str(each.cell.cell_id): each for each in cells}


def words(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(Text) if isinstance(t, Text))


def assert_nothing_is_cut_off(figure: Figure) -> None:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    unseen = set()
    for axes in figure.findobj(Axes):
        assert isinstance(axes, Axes)
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high:
                    unseen.add(id(tick.label1))
                unseen.add(id(tick.label2))
    page = figure.bbox.padded(2)
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if id(text) not in unseen and text.get_visible() and text.get_text().strip():
            box = text.get_window_extent(canvas.get_renderer())
            inside = page.contains(box.x0, box.y0) and page.contains(box.x1, box.y1)
            assert inside, f"'{text.get_text()}' is cut off"


def test_a_row_of_a_table(found):
    each = found["whole"]
    assert each.recording is None
    best = each.contributions[each.contributions["class"] == each.cell.subclass]
    assert len(best) == len(SHARED.families)
    gained = best["contribution"].sum()
    assert gained == pytest.approx(each.cell.probability - best["base"].iloc[0], abs=1e-9)
    figure = cell_page(each)
    said = words(figure)
    assert "whole" in said
    assert f"{each.cell.subclass}, probability {each.cell.probability:.2f}" in said
    assert "discriminant 1" in said
    assert "first spike" not in said
    assert len(figure.findobj(Axes)) == 4  # no empty panel
    assert_nothing_is_cut_off(figure)


def test_families_that_are_missing_are_said(found):
    figure = cell_page(found["gaps / #1"])
    said = words(figure)
    assert said.count("not measured") == 3  # a row for each, and the sentence
    assert "not measured: ap ramp, spike train" in " ".join(said.split())
    assert_nothing_is_cut_off(figure)


def test_a_cell_with_too_little_is_given_no_reasons(found):
    each = found["little"]
    assert each.contributions.empty
    said = words(cell_page(each))
    assert "insufficient data" in said
    assert "probability" not in said
    assert "discriminant" not in said


def test_a_cell_outside_the_reference_is_called_so(found):
    figure = cell_page(found["far"])
    said = words(figure)
    assert "outside reference; the model's answer would be" in said
    assert "Unusual for" in said
    assert_nothing_is_cut_off(figure)


def test_a_cell_of_another_species_has_a_page_without_panels(found):
    figure = cell_page(found["rat"])
    assert "there is no model of its species" in words(figure)
    assert not figure.findobj(Axes)


def test_a_recording_is_shown(found, monkeypatch):
    recording = made_recording(MadeCell(), amplitudes=(-90, -50, 40, 60, 80, 120), rate=25_000)

    def opened(path: Path, reading: Reading) -> Recording:
        return recording

    monkeypatch.setattr(page_module, "open_source", opened)
    each = replace(found["whole"], recording=Path("made.nwb"))
    each = replace(
        each, cell=each.cell._replace(simulated=True, notes=("sweep 3 rejected: drift",))
    )
    figure = cell_page(each, width=NARROW)
    said = words(figure)
    for part in ("long square", "first spike", "rate and current", "SIMULATED", "made.nwb"):
        assert part in said
    assert "Notes: sweep 3 rejected: drift." in " ".join(said.split())
    assert figure.get_size_inches()[0] == NARROW
    assert_nothing_is_cut_off(figure)


def test_a_recording_that_cannot_be_read_again_leaves_no_gap(found, tmp_path):
    figure = cell_page(replace(found["whole"], recording=tmp_path / "gone.nwb"))
    assert "first spike" not in words(figure)


def test_pages_and_contributions_are_written(found, tmp_path):
    chosen = [found["gaps / #1"], found["little"]]
    written = write_pages(chosen, tmp_path / "pages")
    assert sorted(file.name for file in written) == [
        "contributions.csv",
        "gaps_1.png",
        "gaps_1.svg",
        "little.png",
        "little.svg",
    ]
    assert all(file.stat().st_size > 1000 for file in written)
    text = (tmp_path / "pages" / "contributions.csv").read_text()
    assert text.startswith("# crosspatch")
    read = pd.read_csv(tmp_path / "pages" / "contributions.csv", comment="#")
    assert set(read["cell_id"]) == {"gaps / #1"}
    assert len(read) == 4 * 4  # classes and families
    (tmp_path / "file").write_text("")
    with pytest.raises(CohortError, match="cannot be made"):
        write_pages(chosen, tmp_path / "file")


def test_named_cells_are_explained_and_failures_cost_a_line(model, table, tmp_path):
    said: list[str] = []
    wanted = request([tmp_path / "no.csv", table], model)
    pipeline = Pipeline(wanted, Listener(said.append))
    (each, other) = explain_cells(pipeline, ["7", "far", "none"])
    assert [each.cell.cell_id, other.cell.cell_id] == ["far", "7"]
    assert list(pipeline.inputs.failed) == [str(tmp_path / "no.csv"), "none"]
    assert any("no cell 'none'" in line for line in said)
    with pytest.raises(CohortError, match="no cell 'x'"):
        explain(table, model=model, cells=["x"], say=said.append)
    with pytest.raises(CohortError, match="does not exist"):
        explain(tmp_path / "no.csv", model=model, say=said.append)


def test_a_real_recording_finds_its_file(model, real_data):
    (each,) = explain(
        real_data / "recordings" / "171116sh_0018.abf",
        model=model,
        species="human",
        say=lambda line: None,
    )
    assert each.recording is not None
    assert each.recording.name == "171116sh_0018.abf"
    assert "rate and current" in words(cell_page(each))
