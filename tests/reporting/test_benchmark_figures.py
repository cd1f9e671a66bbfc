from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from crosspatch.cohorts.cohort_figure import cohorts_figure
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.drawing.style import NARROW, WIDE
from crosspatch.evaluation import benchmark_figures as figures
from crosspatch.reporting import curves
from crosspatch.reporting.score_cuts import cuts_figure
from tests.reporting.made_results import benchmark_folder, cohorts_table, learning_curve_folder

MANY = (
    *("spca-forest", "forest", "boosting", "logistic", "svm", "bilstm", "bilstm-attention"),
    *("bilstm-attention-smote", "arcface", "finetune", "joint", "lda", "vote"),
)
TASKS = ("mouse", "human", "transfer")


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> Callable[[str, str], pd.DataFrame]:
    home = tmp_path_factory.mktemp("figures")
    folders: dict[str, Path] = {
        "many": benchmark_folder(home / "many", MANY, TASKS),
        "one": benchmark_folder(home / "one", ("forest",), runs=1, folds=1),
        "few": benchmark_folder(home / "few", calibration=True),
        "curve": learning_curve_folder(home / "curve"),
    }
    return lambda folder, name: pd.read_csv(folders[folder] / f"{name}.csv")


def texts(figure: Figure) -> list[Text]:
    found = figure.findobj(lambda artist: isinstance(artist, Text))
    return [t for t in found if isinstance(t, Text) and t.get_visible() and t.get_text().strip()]


def assert_readable(figure: Figure, width: float) -> None:
    """No label over another or off the figure; text of 7 points at least."""
    assert figure.get_figwidth() <= width + 1e-6
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    edge = figure.bbox
    boxes = []
    for text in shown(figure):
        assert float(text.get_fontsize()) >= 7, text.get_text()
        box = text.get_window_extent(renderer)
        inside = box.x0 > edge.x0 - 2 and box.x1 < edge.x1 + 2
        assert inside, (text.get_text(), box, edge)
        assert box.y0 > edge.y0 - 2, text.get_text()
        assert box.y1 < edge.y1 + 2, text.get_text()
        boxes.append((text.get_text(), box.padded(-1)))
    for (a, one), (b, other) in combinations(boxes, 2):
        assert not one.overlaps(other), (a, b)


def shown(figure: Figure) -> Iterator[Text]:
    """Text that is drawn: a tick beyond the ends of its axis has a label that is not."""
    hidden: set[object] = set()
    for axes in figure.findobj(Axes):
        assert isinstance(axes, Axes)
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-6 * (high - low)
            for tick in axis.get_major_ticks():
                if not low - slack <= tick.get_loc() <= high + slack:
                    hidden |= {tick.label1, tick.label2}
            if not axes.axison:
                hidden |= {axis.label, *axis.get_ticklabels()}
    yield from (text for text in texts(figure) if text not in hidden)


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("folder", ["many", "one"])
def test_scores(tables, folder, width):
    summary = tables(folder, "summary")
    assert_readable(figures.scores_figure(summary, width), width)
    assert_readable(figures.class_f1_figure(summary, width), width)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_cuts(tables, width):
    """Each cut that is scored is a dot, hollow where it is scored on fewer classes."""
    cuts = tables("many", "cuts").query("task != 'mouse' and model == 'vote'")
    figure = cuts_figure(cuts, width)
    assert_readable(figure, width)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names[1:] == [
            "labels: agree with SEA-AD  (622)",
            "layer: 1  (135)",
            "layer: 2/3  (494)",
        ]
        filled, hollow = [line for line in axes.lines if line.get_marker() == "o"]
        assert np.asarray(filled.get_xydata()).tolist() == [[0.82, 0], [0.86, 1], [0.83, 3]]
        assert np.asarray(hollow.get_xydata()).tolist() == [[0.85, 2]]
        assert to_hex(hollow.get_markerfacecolor()) == "#ffffff"


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("folder", ["many", "few"])
def test_differences(tables, folder, width):
    assert_readable(figures.differences_figure(tables(folder, "comparisons"), width), width)


def test_many_pairs_are_drawn_against_the_best_model(tables):
    comparisons = tables("many", "comparisons")
    summary = tables("many", "summary")
    figure = figures.differences_figure(comparisons)
    assert len(figure.axes) == len(TASKS)
    for axes, task in zip(figure.axes, TASKS, strict=True):
        scores = summary[summary["task"] == task].set_index("model")["macro_f1_mean"]
        assert axes.get_title("left").endswith(f"each model minus {scores.idxmax()}")
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert sorted(labels) == sorted(scores.index.drop(scores.idxmax()))


def test_differences_are_turned_round_with_their_interval():
    row = {"model_a": "a", "model_b": "b", "delta_macro_f1": 0.1, "ci_low": 0.02, "ci_high": 0.18}
    comparisons = pd.DataFrame([row])
    assert figures.best_model(comparisons) == "a"
    turned = figures.against(comparisons, "a").iloc[0]
    assert turned["model"] == "b"
    numbers = turned[["delta_macro_f1", "ci_low", "ci_high"]].tolist()
    assert numbers == pytest.approx([-0.1, -0.18, -0.02])
    same = figures.against(comparisons, "b").iloc[0]
    assert same["model"] == "a"
    assert same["ci_low"] == pytest.approx(0.02)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_gain(tables, width):
    comparisons = tables("many", "comparisons")
    part = comparisons[comparisons["task"] == "transfer"]
    figure = figures.gain_figure(part, ["finetune", "joint"], width)
    assert_readable(figure, width)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "joint" not in labels
    assert len(labels) == len(MANY) - 2


def test_gain_is_with_mouse_minus_without():
    row = {"task": "transfer", "model_a": "forest", "model_b": "joint"}
    comparisons = pd.DataFrame([row | {"delta_macro_f1": -0.1, "ci_low": -0.2, "ci_high": -0.05}])
    axes = figures.gain_figure(comparisons, ["joint"]).axes[0]
    (drawn,) = [line for line in axes.lines if line.get_marker() == "o"]
    assert drawn.get_xdata() == pytest.approx([0.1])


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_confusion(tables, width):
    confusion = tables("many", "confusion")
    some = confusion[(confusion["task"] == "mouse") & confusion["model"].isin(MANY[5:9])]
    assert_readable(figures.confusion_figure(some, width), width)


def test_confusion_counts_cells_of_a_run(tables):
    confusion = tables("few", "confusion")
    forest = confusion[confusion["model"] == "forest"]
    figure = figures.confusion_figure(forest)
    diagonal = forest[(forest["true"] == "Sst") & (forest["predicted"] == "Sst")]
    row = forest[forest["true"] == "Sst"]
    expected = f"{diagonal['cells'].sum() / row['cells'].sum():.2f}\n"
    expected += f"{diagonal['cells'].sum() / forest['run'].nunique():,.0f}"
    assert expected in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_calibration(tables, width):
    assert_readable(figures.reliability_figure(tables("few", "reliability"), width), width)
    assert_readable(figures.coverage_figure(tables("few", "coverage"), width), width)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_learning_curve(tables, width):
    summary, gains = tables("curve", "summary"), tables("curve", "gains")
    assert_readable(curves.learning_curve_figure(summary, gains, width), width)
    assert_readable(curves.gains_figure(gains, width), width)


def test_learning_curve_has_mouse_alone_at_zero(tables):
    summary, gains = tables("curve", "summary"), tables("curve", "gains")
    axes = curves.learning_curve_figure(summary, gains).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "0",
        "5",
        "10",
        "20",
        "40",
        "all",
    ]
    points = [np.size(line.get_xdata()) for line in axes.lines if line.get_linestyle() == "-"]
    assert points == [5, 6]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_cohorts(width):
    cohorts = cohorts_table()
    long = cohorts["name"] == "epilepsy"
    cohorts.loc[long, "name"] = "epilepsy with a tumour, and of another kind not known before"
    assert_readable(cohorts_figure(cohorts, width), width)


def test_a_subclass_has_its_colour(tables):
    axes = cohorts_figure(cohorts_table()).axes[0]
    colours = load_taxonomy().colours
    names = [label.get_text() for label in axes.get_yticklabels()]
    drawn = [to_hex(bar.get_facecolor()) for bar in axes.patches]
    assert drawn == [colours[name].lower() for name in names]
