"""The report of a batch: what is on it, that it is right, and that names in it do no harm."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

import html5lib
import numpy as np
import pandas as pd
import pytest

from crosspatch.errors import CrosspatchError
from crosspatch.features.layouts import load_layout
from crosspatch.models.artifact import load
from crosspatch.models.verdicts import Verdict
from crosspatch.prediction.batches import Batch
from crosspatch.prediction.explained import CellExplanation, explain
from crosspatch.prediction.prediction import Prediction, as_records, joined
from crosspatch.prediction.predictor import Predictor
from crosspatch.prediction.training import train
from crosspatch.reporting import batch_report
from crosspatch.reporting.batch_report import MOST_ROWS, write_batch_report
from crosspatch.reporting.cell_page import cell_page
from tests import made

SHARED = load_layout("shared")
COUNTS = {"Lamp5": 25, "Pvalb": 40, "Sst": 35, "Vip": 30}
HOSTILE = "<script>alert(1)</script> & \"q\" 'a' $\\frac$ {{ 1 }}\nnext\x00\udc80"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for species in ("human", "mouse"):
        cohort = made.cohort(species, COUNTS, donors=30, spread=1.5)
        train(cohort, model="logistic", out=folder / species)
    return {species: folder / species for species in ("human", "mouse")}


@pytest.fixture(scope="module")
def predictor(models) -> Predictor:
    return Predictor([load(folder) for folder in models.values()])


def batch(ids: list[str], species: Sequence[str | None], notes: tuple[str, ...] = ()) -> Batch:
    """The first is whole, the second far away, the third has too little, others are whole."""
    X = np.nan_to_num(np.asarray(made.cohort("human", COUNTS, donors=30, seed=1).X[: len(ids)]))
    X = X.astype(np.float32)
    X[1:2] += 40
    X[2:3, 2:] = np.nan
    return Batch("cells.csv", ids, list(species), X, notes=[notes] * len(ids))


@pytest.fixture(scope="module")
def prediction(predictor) -> Prediction:
    """Six cells: one judged by both species, one of a species that no model is of."""
    ids = ["whole", "far", "little", "both", "rat", "last"]
    return predictor.predict(batch(ids, ["human"] * 3 + [None, "rat", "mouse"]))


def parsed(file: Path) -> Element:
    """The page, if it is valid HTML."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(file.read_text(encoding="utf-8"))


def words(element: Element | None) -> str:
    assert element is not None
    return " ".join("".join(element.itertext()).split())


def section(document: Element, name: str) -> Element:
    return next(each for each in document.iter("section") if each.attrib["id"] == name)


def sections(document: Element) -> list[str]:
    return [each.attrib["id"] for each in document.iter("section")]


def rows(element: Element, table: int = 0) -> list[list[str]]:
    """Rows of a table, without its header and the notes under rows."""
    body = list(element.iter("tbody"))[table]
    found = [row for row in body.iter("tr") if row.get("class") != "note"]
    return [[words(cell) for cell in row] for row in found]


@pytest.fixture(scope="module")
def written(prediction, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("report") / "new" / "batch.html"
    write_batch_report(prediction, file, when=datetime.datetime(2026, 3, 1, 9, 5))
    return file


def test_it_is_one_file_that_needs_nothing_else(written):
    assert [each.name for each in written.parent.iterdir()] == ["batch.html"]
    for element in parsed(written).iter():
        for name in ("src", "srcset", "href"):
            assert element.attrib.get(name, "#").startswith(("data:", "#"))


def test_it_says_what_was_predicted_with_what(written, prediction):
    said = words(section(parsed(written), "about"))
    assert "6 cells (6 rows of cells.csv)" in said
    assert "1 March 2026, 09:05" in said
    for model in prediction.header["models"]:
        for part in (
            model["species"],
            "logistic",
            "shared",
            model["digest"],
            "Lamp5 CL:4023011, Pvalb",
        ):
            assert part in said
        assert f"made-{model['species']}" in said
    assert parsed(written).find("body/header/p") is None  # nothing is simulated


def test_every_cell_is_there_with_its_verdict(written, prediction):
    found = rows(section(parsed(written), "cells"))
    assert [row[0] for row in found] == prediction.cells["cell_id"].tolist()
    assert [row[5] for row in found] == prediction.cells["verdict"].tolist()
    by_id = {row[0]: row for row in found}
    first = prediction.cells.iloc[0]
    assert by_id["whole"][2] == first["subclass"]
    assert by_id["whole"][3].split()[0] == next(iter(prediction)).runner_up[0]
    assert by_id["whole"][4] == ", ".join(first["prediction_set"])
    assert float(by_id["whole"][6]) == pytest.approx(first["probability"], abs=0.005)
    assert by_id["far"][2].startswith("(")
    assert by_id["far"][7] == "< 0.001" or float(by_id["far"][7]) < 0.05
    assert by_id["little"][2:7] == ["–", "–", "–", "insufficient data", "–"]
    assert "unlike human" in words(section(parsed(written), "cells"))


def test_a_cell_of_unknown_species_is_there_for_each_and_it_is_said(written):
    document = parsed(written)
    found = [row[1] for row in rows(section(document, "cells")) if row[0] == "both"]
    assert found == ["human (assumed)", "mouse (assumed)"]
    assert "The species of 1 cell is not known" in words(section(document, "about"))


def test_counts_are_right(written, prediction):
    cells = prediction.cells
    of_verdicts = rows(section(parsed(written), "verdicts"), 0)
    assert {name: int(n) for name, n, _ in of_verdicts} == {
        name: int((cells["verdict"] == name).sum()) for name in Verdict
    }
    expected = Counter(
        (row["species"] if row["species"] != "rat" else "another species", row["subclass"])
        for row in cells.to_dict("records")
    )
    of_classes = rows(section(parsed(written), "verdicts"), 1)
    found = {
        (row[0], "" if row[1] == "no subclass" else row[1]): int(row[-1]) for row in of_classes
    }
    assert found == expected
    for row in of_classes:
        assert sum(map(int, row[2:-1])) == int(row[-1])


def test_what_90_percent_is_of_is_said(written, prediction, tmp_path):
    assert "over all cells" in words(section(parsed(written), "verdicts"))
    header = {**prediction.header, "parameters": {"sets": "by-class"}}
    write_batch_report(replace(prediction, header=header), tmp_path / "a.html")
    assert "every subclass, 90 %" in words(section(parsed(tmp_path / "a.html"), "verdicts"))


def test_hostile_names_are_only_text(predictor, tmp_path):
    ids = [HOSTILE, "x" * 5000, "", "‮backwards", "<img src=x onerror=alert(1)>"]
    hostile = batch(ids, ["human"] * 4 + [None], notes=(HOSTILE,))
    hostile = replace(hostile, source=HOSTILE, quality=["<b>bad</b>"] * 5)
    file = tmp_path / "a.html"
    write_batch_report(
        predictor.predict(hostile),
        file,
        messages=[f"{HOSTILE}: taken", "<i>said</i>"],
        failed={"<script>.csv": "<i>no</i>"},
        title="<script>title</script>",
    )
    document = parsed(file)
    assert not [e for e in document.iter() if e.tag in ("script", "i")]
    assert not [e for e in document.iter("img") if e.attrib["src"] == "x"]
    assert "<script>title</script>" in words(document.find("head/title"))
    names = [row[0] for row in rows(section(document, "cells"))]
    assert names[0].startswith("<script>alert(1)</script> & \"q\" 'a' $\\frac$ {{ 1 }} next")
    assert len(names[1]) < 200
    assert names[2] == "(no name)"
    assert "<script>.csv" in words(section(document, "failed"))
    assert "<i>said</i>" in words(section(document, "messages"))


def test_what_could_not_be_read_is_named_with_the_reason(prediction, predictor, tmp_path):
    unread = batch(["gone"], [None])
    unread.unread[0] = "was cut short"
    unread.X[:] = np.nan
    both = joined([prediction, predictor.predict(unread)])
    write_batch_report(
        both,
        tmp_path / "a.html",
        messages=[
            "no.csv: 3 columns taken",
            "no.csv: the table has no rows",
            "gone.nwb: was cut short",
            "cells.csv: unused: x",
        ],
        failed={"no.csv": "the table has no rows", "other.csv": ""},
    )
    document = parsed(tmp_path / "a.html")
    assert rows(section(document, "failed")) == [
        ["no.csv", "the table has no rows"],
        ["other.csv", "see the messages"],
        ["gone", "was cut short"],
    ]
    said = [words(item) for item in section(document, "messages").iter("li")]
    assert said == ["no.csv: 3 columns taken", "cells.csv: unused: x"]


def test_sections_without_content_are_left_out(written):
    assert sections(parsed(written)) == ["about", "verdicts", "cells", "cite"]


def test_only_the_first_rows_are_shown_and_it_is_said(prediction, tmp_path):
    one = prediction.cells.iloc[:1]
    n = MOST_ROWS + 200
    cells = pd.concat([one] * n, ignore_index=True)
    cells["cell_id"] = [f"cell {k}" for k in range(n)]
    many = replace(prediction, records=as_records(cells), X=np.repeat(prediction.X[:1], n, axis=0))
    write_batch_report(many, tmp_path / "a.html")
    document = parsed(tmp_path / "a.html")
    assert len(rows(section(document, "cells"))) == MOST_ROWS
    (warning,) = [p for p in section(document, "cells").iter("p") if p.get("class") == "warning"]
    assert "ONLY THE FIRST 1,000 OF 1,200 ROWS" in words(warning)
    # Counts are of all.
    assert rows(section(document, "verdicts"), 1)[0][-1] == "1,200"


def test_no_cell_with_a_class(predictor, tmp_path):
    found = predictor.predict(batch(["a", "b", "c"], ["human"] * 3))
    nothing = replace(found, records=as_records(found.cells.iloc[2:]), X=found.X[2:])
    write_batch_report(nothing, tmp_path / "a.html")
    document = parsed(tmp_path / "a.html")
    assert "No cell was given a subclass." in words(section(document, "verdicts"))
    assert not list(document.iter("figure"))
    write_batch_report(
        replace(found, records=as_records(found.cells.iloc[:0])), tmp_path / "b.html"
    )
    assert "No cell was predicted." in words(section(parsed(tmp_path / "b.html"), "cells"))


def test_simulated_cells_and_models_are_said_first(prediction, tmp_path):
    cells = prediction.cells.copy()
    cells.loc[0, "simulated"] = True
    header = dict(prediction.header)
    header["models"] = [model | {"simulated": True} for model in header["models"][:1]]
    write_batch_report(
        replace(prediction, records=as_records(cells), header=header), tmp_path / "a.html"
    )
    banner = words(parsed(tmp_path / "a.html").find("body/header/p"))
    assert "The model of human cells learnt from SIMULATED recordings" in banner
    assert "1 of 6 cells are SIMULATED" in banner
    cells["simulated"] = True
    write_batch_report(replace(prediction, records=as_records(cells)), tmp_path / "a.html")
    banner = words(parsed(tmp_path / "a.html").find("body/header/p"))
    assert banner == "All cells are SIMULATED recordings: no real neuron was recorded."


def explained_cells(
    prediction: Prediction, models: dict[str, Path], file: Path
) -> list[CellExplanation]:
    frame = pd.DataFrame(prediction.X, columns=SHARED.feature_names)
    frame.insert(0, "cell_id", prediction.cells["cell_id"])
    frame.iloc[:2].to_csv(file, index=False)
    return explain(file, model=models["human"], species="human", say=lambda line: None)


def test_explained_cells_have_a_picture_each_that_their_row_leads_to(prediction, models, tmp_path):
    explained = explained_cells(prediction, models, tmp_path / "cells.csv")
    told: list[tuple[int, int]] = []
    write_batch_report(
        prediction,
        tmp_path / "a.html",
        explanations=explained,
        progress=lambda done, total: told.append((done, total)),
    )
    document = parsed(tmp_path / "a.html")
    figures = {e.attrib["id"]: e for e in section(document, "explained").iter("figure")}
    links = {words(a): a.attrib["href"] for a in section(document, "cells").iter("a")}
    assert links == {"whole": "#figure-cell-1", "far": "#figure-cell-2"}
    assert set(figures) == {"figure-cell-1", "figure-cell-2"}
    assert "far: human" in words(figures["figure-cell-2"])
    assert "2 of 6 cells" in words(section(document, "explained"))
    assert told[0] == (0, 3)
    assert told[-1] == (3, 3)


def test_a_cell_with_a_hostile_name_is_drawn(prediction, models, tmp_path, monkeypatch):
    (each, _) = explained_cells(prediction, models, tmp_path / "cells.csv")
    drawn: list[CellExplanation] = []

    def page(explanation: CellExplanation, width: float):
        drawn.append(explanation)
        return cell_page(explanation, width=width)

    monkeypatch.setattr(batch_report, "cell_page", page)
    cell = each.cell._replace(cell_id=HOSTILE * 50, notes=(HOSTILE,), quality=HOSTILE)
    unread = each.cell._replace(cell_id="gone", unread="cut short")
    explained = [replace(each, cell=unread), replace(each, cell=cell)]
    write_batch_report(prediction, tmp_path / "a.html", explanations=explained)
    assert len(drawn) == 1  # nothing is drawn of what could not be read
    assert not [e for e in parsed(tmp_path / "a.html").iter() if e.tag == "script"]


def test_a_file_that_cannot_be_written_is_one_line(prediction, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "a.html", tmp_path / "folder", Path("/proc/a.html")):
        with pytest.raises(CrosspatchError) as error:
            write_batch_report(prediction, place)
        assert "\n" not in str(error.value)
        assert place.name in str(error.value) or place.parent.name in str(error.value)
