"""What a notebook shows of our objects: whole, escaped, and drawn."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import html5lib
import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import crosspatch
from crosspatch.drawing.shown_figure import ShownFigure
from crosspatch.evaluation.results import BenchmarkResult, read_results
from crosspatch.features.layouts import load_layout
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.prediction import Prediction, records_schema
from tests import made
from tests.recordings import made_files
from tests.reporting.made_results import benchmark_folder

#: As a file of someone else may have it.
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)> & 'Rest'"


def text_of(html: str) -> str:
    """What a reader sees of HTML, in which there is nothing but text in tables and lists."""
    found = html5lib.parseFragment(html, treebuilder="etree", namespaceHTMLElements=False)
    tags = {element.tag for element in found.iter() if isinstance(element.tag, str)}
    assert tags <= {
        "DOCUMENT_FRAGMENT",
        "p",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "ul",
        "li",
    }
    return "|".join(found.itertext())


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> BenchmarkResult:
    return read_results(
        benchmark_folder(tmp_path_factory.mktemp("result") / "few", calibration=True)
    )


@pytest.fixture
def recording(tmp_path: Path):
    sweeps = made_files.cell()
    sweeps[0] = replace(sweeps[0], description=HOSTILE)
    with crosspatch.open_recording(
        made_files.write_nwb(tmp_path / "a $cell$.nwb", sweeps)
    ) as found:
        yield found


def test_a_recording_is_shown_without_reading_samples(recording):
    recording.close()
    said = text_of(recording._repr_html_())
    assert repr(recording) in said
    assert "a $cell$ (NWB 2.8.0)" in repr(recording)
    assert f"{len(recording.sweeps)} of {len(recording.sweeps)} sweeps" in repr(recording)
    assert "mouse cell, donor donor-1" in repr(recording)
    assert HOSTILE in said
    counts = [int(row) for row in re.findall(r"<tr>\s*<td>(\d+)</td>", recording._repr_html_())]
    assert sum(counts) == len(recording.sweeps)
    with pytest.raises(crosspatch.RecordingError):
        recording.plot()


def test_a_recording_is_drawn(recording):
    figure = recording.plot()
    FigureCanvasAgg(figure).draw()  # a name with dollar signs is not taken for a formula
    assert figure.get_suptitle() == "a $cell$ (NWB 2.8.0)"
    above, below = np.reshape(figure.axes, (2, 3))
    titles = [axes.get_title() for axes in above]
    assert titles == ["long square: 6 sweeps", "short square: 2 sweeps", "ramp: 1 sweep"]
    assert [len(axes.lines) for axes in above] == [6, 2, 1]
    drawn = np.concatenate([line.get_ydata() for line in below[0].lines])
    assert (drawn.min(), drawn.max()) == (min(made_files.STEPS), max(made_files.STEPS))


def test_sweeps_that_are_rejected_are_drawn_grey(tmp_path):
    sweeps = made_files.cell()
    sweeps[1].voltage[:] = np.linspace(-120, -20, len(sweeps[1].voltage))
    with crosspatch.open_recording(made_files.write_nwb(tmp_path / "a.nwb", sweeps)) as recording:
        figure = recording.plot()
    assert "1 rejected (grey)" in figure.axes[0].get_title()
    assert [line.get_color() for line in figure.axes[0].lines].count("0.8") == 1


def test_a_figure_shows_itself_without_pyplot(recording):
    assert recording.plot()._repr_png_().startswith(b"\x89PNG")
    assert not matplotlib.is_interactive()


def prediction(cell_id: str, note: str) -> Prediction:
    schema = records_schema(["Pvalb", "Sst"])
    row = dict.fromkeys(schema.names) | {"cell_id": cell_id, "given_id": cell_id, "source": "x.csv"}
    row |= {"species": "mouse", "verdict": str(Verdict.INSUFFICIENT), "notes": [note]}
    row |= {"prediction_set": [], "families": [], "references": [], "simulated": True}
    row |= {"aligned": False, "completeness": 0.25}
    row |= dict.fromkeys(["probability", "probability_Pvalb", "probability_Sst"], float("nan"))
    return Prediction(
        pa.Table.from_pylist([row], schema), np.zeros((1, 32), np.float32), load_layout("shared")
    )


def test_a_prediction_is_shown_whole():
    note = f"{HOSTILE} {'and so on ' * 30}"
    said = text_of(prediction(HOSTILE, note)._repr_html_())
    assert f"|{HOSTILE}|" in said
    assert note.strip() in said
    assert "|25%|" in said
    assert "nan" not in said  # there is no probability, which is no number
    figure = prediction("a $cell$ of $$", note).plot()
    FigureCanvasAgg(figure).draw()
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [
        "a $cell$ of $$ (SIMULATED, mouse?)"
    ]
    assert isinstance(figure, ShownFigure)


def test_a_cohort_is_summed_up():
    table = made.cohort("human", {"Pvalb": 30, "Sst": 20}, donors=7)
    table.obs["subclass"] = table.obs["subclass"].cat.rename_categories({"Sst": HOSTILE})
    with pytest.raises(crosspatch.CohortError, match="unknown"):
        crosspatch.describe(table)
    table.uns["crosspatch"]["own"] = '{"file": "x.csv", "label": "type", "group": "mouse"}'
    found = crosspatch.describe(table)
    said = text_of(found._repr_html_())
    assert "50 cells of 7 human donors, 32 features, layout shared" in said
    assert f"|{HOSTILE}|" in said
    absent = found.missing.set_index("family")["absent"].max()
    assert f"is absent in {absent:.1%} of human cells" in said
    FigureCanvasAgg(found.plot()).draw()


def test_a_result_is_shown_with_its_spread(result):
    row = result.summary.iloc[0]
    said = text_of(result._repr_html_())
    assert f"{row['macro_f1_mean']:.3f} ± {row['macro_f1_sd']:.3f}" in said
    one_run = replace(result, summary=result.summary.drop(columns=["macro_f1_sd"]))
    assert f"|{row['macro_f1_mean']:.3f}|" in text_of(one_run._repr_html_())
    hostile = result.summary.assign(model=HOSTILE)
    assert HOSTILE in text_of(replace(result, summary=hostile)._repr_html_())
    assert len(repr(result)) < 200
    assert "SIMULATED" not in repr(result)
    told = {**result.settings, "cohorts": {"human": {"simulated": True}}}
    assert "SIMULATED" in repr(replace(result, settings=told))


@pytest.mark.parametrize(
    "what", ["scores", "differences", "confusion", "classes", "reliability", "coverage"]
)
def test_a_result_is_drawn(result, what):
    assert result.plot(what)._repr_png_().startswith(b"\x89PNG")


def test_a_figure_that_is_not_there_is_named(result):
    bare = replace(result, calibration=None, comparisons=result.comparisons[:0])
    for what in ("coverage", "differences", "roc"):
        with pytest.raises(crosspatch.EvaluationError, match=f"no figure '{what}'.*scores, conf"):
            bare.plot(what)
