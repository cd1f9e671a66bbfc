"""The commands of docs/seeing.md, run as they stand there, on small tables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from crosspatch.cohorts import table
from crosspatch.prediction.training import train
from crosspatch.simulation.cells import simulate_cells
from tests import made
from tests.command import crosspatch

GUIDE = Path(__file__).parents[1] / "docs" / "seeing.md"


def commands() -> list[list[str]]:
    """Words of every `crosspatch` command of the guide."""
    blocks = re.findall(r"^```\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.S | re.M)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("crosspatch ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def test_every_command_of_the_guide_runs(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    counts = {"Lamp5": 30, "Pvalb": 45, "Sst": 40, "Vip": 35}
    for seed, species in enumerate(("human", "mouse")):
        cohort = made.cohort(species, counts, donors=30, seed=seed)
        table.write(cohort, tmp_path / f"{species}.h5ad")
        if species == "human":
            train(cohort, model="logistic", out=tmp_path / "my-model")
    made_cell(tmp_path / "cell.nwb")
    done = 0
    for words in commands():
        if words[:2] == ["cohort", "build"]:
            continue  # tests/test_cli.py has these, on the real tables
        found = crosspatch(*words)
        assert found.returncode == 0, (words, found.stdout, found.stderr)
        out = tmp_path / words[words.index("--out") + 1]
        assert out.exists(), words
        done += 1
    assert done == 5
    for name in ("results/report.html", "explanation/report.html", "curve/report.html"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert len(list((tmp_path / "report_figures").glob("*.svg"))) >= 8
    assert (tmp_path / "cells" / "contributions.csv").is_file()


def made_cell(file: Path) -> None:
    """A simulated recording."""
    folder = file.parent / "simulated"
    simulate_cells(folder, 1, "human", seed=0, jobs=1)
    next(folder.glob("*.nwb")).rename(file)
