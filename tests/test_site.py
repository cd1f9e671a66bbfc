"""The documentation: its notebooks run, its pages build, and nothing of it comes from a network."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

import crosspatch

build: Any = pytest.importorskip(
    "docs.build",
    reason="the packages of the documentation are not here: extra 'docs'",
    exc_type=ModuleNotFoundError,
)

ROOT = Path(__file__).parents[1]
NOTEBOOKS = [path.stem for path in build.notebooks()]
#: Tables that are enough for the notebooks; with all of them training takes longer.
FEW = ("allen_mouse_visp", "allen_human_gaba", "human_patchseq_labels")


def test_there_are_five_notebooks():
    assert len(NOTEBOOKS) == 5


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch, request):
    path = ROOT / f"docs/notebooks/{name}.py"
    waiting = [build.TABLES in cell.metadata.get("tags", ()) for cell in code_of(path)]
    tables = build.has_tables()
    if all(waiting):
        request.getfixturevalue("real_data")  # or it is skipped, with the reason
    if tables:
        real = Path(os.environ["CROSSPATCH_DATA"])
        for each in FEW:
            (tmp_path / each).symlink_to(real / each)
        monkeypatch.setenv("CROSSPATCH_DATA", str(tmp_path))
    cells = [cell for cell in build.executed(path, tables=tables).cells if cell.cell_type == "code"]
    for cell, waits in zip(cells, waiting, strict=True):
        assert bool(cell.execution_count) == (tables or not waits), cell.source
    text, html, pictures = outputs_of(cells)
    if name == "my_first_cell":
        assert "24 of 24 sweeps in current clamp, mouse cell" in html
        assert len(pictures) == 1 + tables
    if name == "my_table":
        assert "fits: 6 of 6 <progress" in html
        assert "labels of column 'type': FS 60 (15 donors), RS 60 (15 donors)" in text
        assert "outside reference" in html
    if name == "streaming_dandi":
        assert "[True, True]" in text
        assert len(re.findall(r"sim-mouse-000\d: [\d.]+ of [\d.]+ MB in \d+ requests", text)) == 2
    if name in ("train_and_compare", "transfer_from_mouse"):
        assert "BenchmarkResult of" in html
        assert "<progress" in html
        assert len(pictures) >= 2


def code_of(path: Path) -> list[Any]:
    import jupytext

    return [cell for cell in jupytext.read(path).cells if cell.cell_type == "code"]


def outputs_of(cells: list[Any]) -> tuple[str, str, list[str]]:
    """Text, HTML and pictures that cells gave."""
    outputs = [output for cell in cells for output in cell.outputs]
    data = [output.get("data", {}) for output in outputs]
    said = [output.get("text", "") for output in outputs]
    text = "\n".join([*said, *(each.get("text/plain", "") for each in data)])
    html = "\n".join(each.get("text/html", "") for each in data)
    return text, html, [each["image/png"] for each in data if "image/png" in each]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, without running the notebooks; a link that leads nowhere is an error."""
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    config.extra["run"] = False
    build_site(config)
    return folder


def test_every_public_name_is_described(site: Path):
    page = (site / "api/index.html").read_text(encoding="utf-8")
    for name in set(crosspatch.__all__) - {"__version__"}:
        place = getattr(crosspatch, name)
        ids = (f"crosspatch.{name}", f"{place.__module__}.{place.__qualname__}")
        assert any(f'id="{each}"' in page for each in ids), name


def test_every_document_is_a_page(site: Path):
    pages = {path.parent.relative_to(site).as_posix() for path in site.rglob("index.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= pages
    measured = (ROOT / "benchmarks/results").glob("*.md")
    assert {f"measured/{path.stem}" for path in measured} <= pages
    assert {f"notebooks/{name}" for name in NOTEBOOKS} <= pages


def test_pages_need_no_network(site: Path):
    loaded = r"""<(?:script|img|iframe)[^>]*?src="(https?:)?//|<link[^>]*?href="(https?:)?//"""
    for path in site.rglob("*.html"):
        assert not re.search(loaded, path.read_text(encoding="utf-8")), path
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text("utf-8")), path


def test_links_lead_somewhere(site: Path):
    """Those of the pages as they are, beside what mkdocs looks at."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        for link in re.findall(r'<(?:a|img|link|script)[^>]*?(?:href|src)="([^"#?]+)', text):
            if not re.match(r"[a-z]+:", link) and path.name != "404.html":
                target = (path.parent / link).resolve()
                assert (target / "index.html" if target.is_dir() else target).is_file(), (
                    path,
                    link,
                )


def test_the_bars_are_for_notebooks_only():
    from crosspatch.telling import notebook_bar, notebook_bars

    assert notebook_bar("folds") is None
    assert notebook_bars() is None
