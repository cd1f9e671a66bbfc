"""Builds the documentation: `mkdocs build` calls the hook, and tests run notebooks by `executed`.

Pages keep the path that they have in the repository, so that links between README, docs and
benchmarks are the same on the site.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: What of the repository is in the site beside `docs/`.
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE")
#: Cells with this tag need the tables that `crosspatch fetch tables` fetches.
TABLES = "tables"

_WITHOUT = (
    '!!! note "Shown without results"\n    The Allen tables were not there when this page was made '
    "(`CROSSPATCH_DATA`), so that code which needs them was not run."
)


def executed(notebook: Path, *, tables: bool) -> nbformat.NotebookNode:
    """A notebook of `docs/notebooks` with its outputs, run in a folder of its own.

    Without the tables, cells that need them are not run.
    """
    cells = jupytext.read(notebook)
    cells.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    waiting = [c for c in cells.cells if not tables and TABLES in c.metadata.get("tags", ())]
    for cell in waiting:
        cell.cell_type = "raw"  # is passed over
    paths = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            cells, timeout=1200, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute(env=environment)
    for cell in waiting:
        cell.update(cell_type="code", outputs=[], execution_count=None)
    return cells


def notebooks() -> list[Path]:
    """All notebooks."""
    return sorted((ROOT / "docs/notebooks").glob("*.py"))


def has_tables() -> bool:
    """Whether the real tables are there, by `CROSSPATCH_DATA`."""
    folder = os.environ.get("CROSSPATCH_DATA")
    return bool(folder) and (Path(str(folder)) / "allen_human_gaba").is_dir()


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put pages and pictures where they stand in the repository, and run the notebooks."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    found = [ROOT / name for name in BESIDE]
    found += [*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").glob("*.png")]
    found += [*(ROOT / "docs").glob("*.css"), *(ROOT / "benchmarks/results").glob("*.md")]
    for path in found:
        files.append(_file(config, path.relative_to(ROOT).as_posix(), path))
    for notebook in notebooks():
        for file in _pages_of(config, notebook):
            files.append(file)
    return files


def _file(config: MkDocsConfig, source: str, content: Path | str | bytes) -> File:
    """A file of the site; `docs/guide.md` is at `guide/`."""
    from mkdocs.structure.files import File

    if isinstance(content, Path):
        file = File.generated(config, source, abs_src_path=str(content))
    else:
        file = File.generated(config, source, content=content)
    file.dest_uri = file.dest_uri.removeprefix("docs/").replace("benchmarks/results", "measured")
    return file


def _pages_of(config: MkDocsConfig, notebook: Path) -> Iterator[File]:
    """A notebook's page, its pictures, and itself to be downloaded."""
    tables = has_tables()
    run = config.extra.get("run", True)
    cells = executed(notebook, tables=tables) if run else jupytext.read(notebook)
    name, folder = notebook.stem, "docs/notebooks"
    places = {"unique_key": name, "output_files_dir": f"{name}_files"}
    text, resources = MarkdownExporter().from_notebook_node(cells, resources=dict(places))
    text = re.sub(r"\]\((\w+)\.py\)", r"](\1.md)", text).replace("![png]", "![What the code draws]")
    title, rest = text.strip().split("\n", 1)
    waits = not tables and any(TABLES in c.metadata.get("tags", ()) for c in cells.cells)
    said = [title, f"[Download as a notebook]({name}.ipynb)", *[_WITHOUT] * waits]
    yield _file(config, f"{folder}/{name}.md", "\n\n".join([*said, rest]))
    for path, content in resources["outputs"].items():
        yield _file(config, f"{folder}/{path}", content)
    yield _file(config, f"{folder}/{name}.ipynb", nbformat.writes(cells))
