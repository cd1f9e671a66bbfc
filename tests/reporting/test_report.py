from __future__ import annotations

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pandas as pd
import pytest

from crosspatch.errors import CrosspatchError
from crosspatch.evaluation.results import summarize_runs
from crosspatch.reporting import page
from crosspatch.reporting.numbers import Cell, open_results, say, written
from crosspatch.reporting.page import Paragraph, Picture, Section, TableBlock, write_page
from crosspatch.reporting.report import command_of, write_report
from tests.reporting.made_results import (
    benchmark_folder,
    explanation_folder,
    explanation_tables,
    learning_curve_folder,
    settings,
)

#: Names and terms that have a digit in them, and are no measurement.
NAMES = r"macro-F1|\bF1\b|Lamp5|95 %|90 %|[Ss]ha256|UMAP|arXiv 2603\.11000"


@pytest.fixture(scope="module", autouse=True)
def plain_figures():
    """Figures have tests of their own; here they are empty, and quick."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "_placed", lambda picture, width: Figure(figsize=(width / 4, 0.5)))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("results")
    return {
        "run": benchmark_folder(home / "run", tasks=("mouse", "human", "transfer")),
        "calibration": benchmark_folder(home / "calibration", ("vote",), calibration=True),
        "curve": learning_curve_folder(home / "curve"),
        "explanation": explanation_folder(home / "explanation"),
    }


def parsed(file: Path) -> Element:
    """The page, if it is valid HTML."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(file.read_text(encoding="utf-8"))


def ids_of(document: Element) -> list[str]:
    return [element.attrib["id"] for element in document.iter() if "id" in element.attrib]


@pytest.fixture(scope="module")
def whole(folders, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "report.html"
    return write_report(list(folders.values()), out)[0]


def test_page_is_valid_and_accessible(whole):
    document = parsed(whole)
    assert document.attrib["lang"] == "en"
    assert document.findtext("head/title")
    assert any(meta.get("name") == "viewport" for meta in document.iter("meta"))
    ids = ids_of(document)
    assert len(ids) == len(set(ids))
    levels = [int(e.tag[1]) for e in document.iter() if re.fullmatch(r"h[1-6]", str(e.tag))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    images = list(document.iter("img"))
    assert images
    assert all(len(image.attrib["alt"]) > 40 for image in images)
    assert all(figure.findtext("figcaption/b") for figure in document.iter("figure"))
    targets = {a.attrib["href"].removeprefix("#") for a in document.iter("a")}
    assert targets <= set(ids)


def test_page_needs_nothing_else(whole):
    document = parsed(whole)
    for element in document.iter():
        for name in ("src", "srcset", "href"):
            assert element.attrib.get(name, "#").startswith(("data:", "#"))
    text = whole.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "<script" not in text
    assert len(text.encode()) < 5_000_000


def test_every_number_is_in_the_results(whole, folders):
    """A number in the page says which cell it is from, and is that cell's, rounded."""
    document = parsed(whole)
    numbers = list(document.iter("data"))
    assert len(numbers) > 300
    for number in numbers:
        value = looked_up(number.attrib["data-from"], folders)
        assert number.attrib["value"] == value
        shown = "".join(number.itertext())
        assert rounds_to(value, shown), (number.attrib, shown)


def test_no_number_is_without_a_source(whole):
    document = parsed(whole)
    body = document.find("body")
    assert body is not None
    for section in list(body.iter("section")):
        if section.attrib["id"] == "settings":
            section.clear()
    texts = [*loose_text(body), *(image.attrib["alt"] for image in body.iter("img"))]
    types = set(explanation_tables()["conserved"]["group"])
    allowed = "|".join([*map(re.escape, sorted(types, key=len, reverse=True)), NAMES])
    found = [text for text in texts if re.search(r"\d", re.sub(allowed, "", text))]
    assert not found


def loose_text(element: Element):
    """Text that is not in an element whose numbers are accounted for."""
    if element.tag in ("data", "code", "time"):
        return
    if element.tag == "b" and element.attrib.get("class") == "label":
        return
    yield element.text or ""
    for child in element:
        yield from loose_text(child)
        yield child.tail or ""


@cache
def read_raw(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def looked_up(where: str, folders: dict[str, Path]) -> str:
    """The text of a cell, the number of rows, or the setting that a number points at."""
    match = re.fullmatch(r"(.*)/(\w+)\.csv:(rows|\d+):(.*)", where)
    if match is None:
        label, pointer = where.split("/settings.json#/")
        value: Any = json.loads((folders[label] / "settings.json").read_text())
        for key in pointer.split("/"):
            value = value[key.replace("~1", "/").replace("~0", "~")]
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    label, table, row, column = match.groups()
    frame = read_raw(folders[label] / f"{table}.csv")
    if row != "rows":
        return str(frame[column].iloc[int(row)])
    for part in column.split("&"):
        key, _, value = part.partition("=")
        frame = frame[frame[key] == value]
    return str(len(frame))


def rounds_to(value: str, shown: str) -> bool:
    plain = shown.replace("−", "-").replace(",", "").lstrip("+")
    try:
        number = float(value)
    except ValueError:
        return shown == value or {"True": "yes", "False": "no"}.get(value) == shown
    if shown.startswith("<"):
        return number < float(shown[1:])
    digits = len(plain.partition(".")[2])
    return abs(float(plain) - number) <= 0.5 * 10**-digits * (1 + 1e-9)


def test_summary_is_that_of_the_results(folders):
    for name in ("run", "calibration"):
        again = summarize_runs(pd.read_csv(folders[name] / "results.csv"))
        pd.testing.assert_frame_equal(again, pd.read_csv(folders[name] / "summary.csv"))


def test_bare_numbers_are_refused(folders, tmp_path):
    with pytest.raises(TypeError, match="bare number"):
        say("macro-F1 {score}", score=0.71)  # type: ignore[arg-type]
    bare = TableBlock("Scores", ("Model", "Macro-F1"), [("forest", 0.71)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="bare number"):
        write_page(tmp_path / "page.html", "Title", [Section("a", "A", [bare])])


def test_numbers_as_they_are_shown(folders):
    assert written(-0.0123, 3, "signed") == "−0.012"
    assert written(0.00004, 3, "p") == "< 0.001"
    assert written(1824, form="count") == "1,824"
    source = open_results(folders["run"], "run")
    cell = Cell(source, "summary", 0, "macro_f1_mean").__html__()
    exact = read_raw(folders["run"] / "summary.csv")["macro_f1_mean"].iloc[0]
    assert f'value="{exact}" data-from="run/summary.csv:0:macro_f1_mean"' in cell
    assert cell.endswith(f">{float(exact):.3f}</data>")


def test_names_from_a_table_are_no_markup():
    assert str(say("{name}", name="<b>Sst</b>")) == "&lt;b&gt;Sst&lt;/b&gt;"


def test_figures_are_saved_beside_the_page(folders, tmp_path):
    files = write_report([folders["run"]], tmp_path / "new" / "my.html")
    assert files[0] == tmp_path / "new" / "my.html"
    names = {file.relative_to(tmp_path / "new").as_posix() for file in files[1:]}
    for name in ("scores_run", "differences_run", "confusion_human_run", "gain_from_mouse_run"):
        assert {f"my_figures/{name}.png", f"my_figures/{name}.svg"} <= names
    assert all(file.stat().st_size for file in files)
    assert not list(tmp_path.rglob("*.part"))


def test_the_same_results_give_the_same_report(folders, tmp_path):
    first = write_report([folders["run"]], tmp_path / "a.html")
    second = write_report([folders["run"]], tmp_path / "b.html")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_only_sections_with_results(tmp_path):
    """One model, one fold: no comparison, no SD, and the rest is said to be missing."""
    alone = benchmark_folder(tmp_path / "alone", ("forest",), runs=1, folds=1)
    document = parsed(write_report([alone], tmp_path / "report.html")[0])
    ids = ids_of(document)
    assert {"about", "findings", "cohorts", "results", "confusion", "settings"} <= set(ids)
    assert not {"gain-from-mouse", "learning-curve", "calibration", "conserved"} & set(ids)
    assert all(len(section) > 1 for section in document.iter("section"))
    missing = next(e for e in document.iter("section") if e.attrib["id"] == "missing")
    text = "".join(missing.itertext())
    assert "crosspatch explain-models --out explanation" in text
    assert "crosspatch learning-curve --out learning-curve" in text
    assert "--calibration" in text
    assert "±" not in "".join(next(document.iter("tbody")).itertext())


def test_where_the_score_comes_from(folders, tmp_path):
    """By the best model of each task; where labels differ, whose are followed."""
    file = write_report([folders["run"]], tmp_path / "report.html")[0]
    section = next(e for e in parsed(file).iter("section") if e.attrib["id"] == "cuts")
    text = " ".join("".join(section.itertext()).split())
    summary = pd.read_csv(folders["run"] / "summary.csv").set_index("model")
    for task in ("human", "transfer"):
        best = summary[summary["task"] == task]["macro_f1_mean"].idxmax()
        assert (
            f"Task {task}: on the 622 cells whose subclass is the same by Lee, Dalley et al. and "
            f"by SEA-AD, macro-F1 of {best} is 0.860 ± 0.004; on all 702 cells it is 0.820 ± 0.004."
        ) in text
        assert (
            "Of the 40 cells to which the two give different subclasses, "
            f"{best} calls a share of 0.500 ± 0.004 as Lee, Dalley et al. do, and 0.570 ± 0.006 as"
        ) in text
    assert "40 cells, fewer than 100" in text
    assert "Task mouse" not in text  # of which all cells alone are scored


def test_folders_without_cuts_have_no_such_section(folders, tmp_path):
    alone = benchmark_folder(tmp_path / "alone", ("forest",), ("mouse",))
    other = benchmark_folder(tmp_path / "other", ("forest",))
    (other / "cuts.csv").unlink()  # as before there was one
    ids = ids_of(parsed(write_report([alone, other], tmp_path / "report.html")[0]))
    assert "results" in ids
    assert "cuts" not in ids


def test_nothing_is_missing_from_a_whole_report(whole):
    assert "missing" not in ids_of(parsed(whole))


def test_explanation_without_some_tables(tmp_path):
    folder = explanation_folder(tmp_path / "explanation")
    for name in ("conserved", "map", "agreement"):
        (folder / f"{name}.csv").unlink()
    (folder / "separation.csv").write_text("\n")
    ids = ids_of(parsed(write_report([folder], tmp_path / "report.html")[0]))
    assert "explanation" in ids
    assert not {"conserved", "separation"} & set(ids)


def test_learning_curve_without_its_gains(tmp_path):
    folder = learning_curve_folder(tmp_path / "curve")
    (folder / "gains.csv").unlink()
    ids = ids_of(parsed(write_report([folder], tmp_path / "report.html")[0]))
    assert "missing" in ids
    assert "gain-from-mouse" not in ids


def test_attention_that_does_not_explain_is_said(folders, tmp_path):
    file = write_report([folders["explanation"]], tmp_path / "report.html")[0]
    document = parsed(file)
    sections = {e.attrib["id"]: "".join(e.itertext()) for e in document.iter("section")}
    verdict = explanation_tables()["agreement"]["verdict"].iloc[0]
    assert verdict in sections["findings"]
    assert verdict in sections["explanation"]


def test_opposite_features_are_told_from_those_of_the_cells_collected(folders, tmp_path):
    file = write_report([folders["explanation"]], tmp_path / "report.html")[0]
    findings = next(e for e in parsed(file).iter("section") if e.attrib["id"] == "findings")
    text = " ".join("".join(findings.itertext()).split())
    assert "Pvalb: 2 the same, 2 opposite, 1 of these also when subclasses count alike" in text


def test_simulated_cells_are_said_to_be(tmp_path):
    folder = benchmark_folder(tmp_path / "made", simulated=True)
    document = parsed(write_report([folder], tmp_path / "report.html")[0])
    banner = next(e for e in document.iter("p") if e.attrib.get("class") == "banner")
    assert "SIMULATED" in "".join(banner.itertext())


def test_real_and_simulated_are_not_mixed(folders, tmp_path):
    made = benchmark_folder(tmp_path / "made", ("forest",), simulated=True)
    with pytest.raises(CrosspatchError, match="simulated recordings"):
        write_report([folders["run"], made], tmp_path / "report.html")


def test_two_folders_of_one_name(folders, tmp_path):
    other = benchmark_folder(tmp_path / "other" / "run", ("forest", "boosting"))
    document = parsed(write_report([folders["run"], other], tmp_path / "report.html")[0])
    labels = {
        number.attrib["data-from"].split("/summary.csv")[0] for number in document.iter("data")
    }
    assert {f"{folders['run'].parent.name}/run", "other/run"} <= labels
    assert len(ids_of(document)) == len(set(ids_of(document)))


def test_no_report_of_what_is_not_finished(folders, tmp_path):
    out = tmp_path / "report.html"
    with pytest.raises(CrosspatchError, match="not a result folder"):
        write_report([tmp_path], out)
    with pytest.raises(CrosspatchError, match="no result folder"):
        write_report([], out)
    running = benchmark_folder(tmp_path / "running", ("forest",))
    file = running / "settings.json"
    file.write_text(file.read_text().replace('"complete"', '"running"'))
    with pytest.raises(CrosspatchError, match="stopped before its end"):
        write_report([running], out)
    odd = tmp_path / "odd"
    odd.mkdir()
    told = settings("poem") | {"status": "complete"}
    (odd / "settings.json").write_text(json.dumps(told))
    with pytest.raises(CrosspatchError, match="kind that is not known: poem"):
        write_report([odd], out)
    damaged = benchmark_folder(tmp_path / "damaged", ("forest",))
    (damaged / "summary.csv").write_text("model\nforest\n")
    with pytest.raises(CrosspatchError, match=r"summary.csv has no column 'task'"):
        write_report([damaged], out)
    assert not out.exists()


def test_a_place_that_cannot_be_written(folders, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CrosspatchError, match="cannot be made"):
        write_report([folders["run"]], tmp_path / "file" / "report.html")
    with pytest.raises(CrosspatchError, match="is a folder"):
        write_report([folders["run"]], tmp_path)


def test_settings_say_how_to_do_it_again(folders):
    source = open_results(folders["calibration"], "calibration")
    assert command_of(source) == (
        "crosspatch run --task human --models vote --features shared --protocol quick "
        "--alignment hodge2019 --seed 0 --calibration --out calibration"
    )
    explained = open_results(folders["explanation"], "explanation")
    assert command_of(explained).startswith("crosspatch explain-models --models bilstm-attention")


def test_a_page_that_would_be_too_large(tmp_path, monkeypatch):
    """Figures are made smaller rather than the page too large."""
    monkeypatch.setattr(page, "MOST_BYTES", 30_000)
    monkeypatch.setattr(page, "_placed", busy)
    pictures = [Picture(f"p{k}", lambda width: None, "Alt", "Caption") for k in range(2)]  # type: ignore[arg-type,return-value]
    out = write_page(tmp_path / "a.html", "T", [Section("s", "S", [Paragraph("P"), *pictures])])[0]
    smaller = out.stat().st_size
    monkeypatch.setattr(page, "MOST_BYTES", 5_000_000)
    write_page(out, "T", [Section("s", "S", pictures)])
    assert smaller < 0.7 * out.stat().st_size


def busy(picture: Picture, width: float):
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 2))
    figure.subplots().plot(*np.random.default_rng(0).normal(size=(2, 3000)))
    return figure
