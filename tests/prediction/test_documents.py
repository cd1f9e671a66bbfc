"""With --json a command prints one document and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crosspatch.commands.documents import as_plain, document
from crosspatch.models.registry import MODEL_NAMES
from crosspatch.models.verdicts import Verdict
from tests.command import crosspatch, crosspatch_process

GUIDE = Path(__file__).parents[2] / "docs" / "command_line.md"


def test_what_is_missing_is_null_and_a_table_is_its_rows():
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, np.nan], "c": ["x", None], "d": [("u",), ()]})
    found = as_plain({"t": frame, "n": np.float32(2), "inf": np.inf, "v": Verdict.CONFIDENT})
    assert found == {
        "t": [{"a": 1, "b": 0.5, "c": "x", "d": ["u"]}, {"a": 2, "b": None, "c": None, "d": []}],
        "n": 2.0,
        "inf": None,
        "v": "confident",
    }
    assert as_plain([np.int64(3), np.array([1.0, np.nan]), Path("a/b"), pd.NA, pd.NaT]) == [
        *(3, [1.0, None], "a/b", None, None)
    ]


def test_only_the_document_is_on_stdout(capsys):
    with document(True) as give:
        print("said")
        give({"x": float("nan")})
    found = capsys.readouterr()
    assert json.loads(found.out)["x"] is None
    assert found.err == "said\n"
    with pytest.raises(RuntimeError), document(True):
        raise RuntimeError
    assert capsys.readouterr().out == ""


def test_models_of_a_process_of_its_own():
    done = crosspatch_process("models", "--json")
    found = json.loads(done.stdout)
    assert [each["name"] for each in found["models"]] == list(MODEL_NAMES)
    assert done.stderr == ""


def test_a_recording_that_is_inspected(tmp_path: Path):
    from crosspatch.simulation.cells import simulate_cells

    simulate_cells(tmp_path, 1, "human", seed=0, jobs=1)
    (file,) = tmp_path.glob("*.nwb")
    shown = crosspatch("inspect", file, "--no-png").stdout
    done = crosspatch("inspect", file, "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert done.stderr.endswith(f"wrote {file.stem}.png\n")
    (cell,) = found["recordings"]
    assert (cell["species"], cell["simulated"], cell["passed"]) == ("human", True, True)
    for sweep in cell["sweeps"]:
        (line,) = [each for each in shown.splitlines() if each.split()[:1] == [str(sweep["sweep"])]]
        if sweep["amplitude_pA"] is not None:
            assert f"{sweep['amplitude_pA']:.1f}" in line
            assert f"{sweep['start_s']:.4f}" in line
    values = {each["feature"]: each["value"] for each in cell["features"]}
    assert f"{values['input_resistance']:.4g}" in shown


def keys(found: object, most: int = 3) -> set[str]:
    """The names of an object and of what it holds, but not those that are data."""
    if isinstance(found, list):
        return set().union(*(keys(each, most) for each in found[:1]))
    if not isinstance(found, dict) or not most:
        return set()
    return set(found).union(*(keys(each, most - 1) for each in found.values()))


def test_every_key_is_documented(model_folders, tmp_path: Path):
    text = GUIDE.read_text(encoding="utf-8")
    cells = pd.DataFrame({"cell": ["a", "b"], "sag": [0.1, 0.2], "tau": [12.0, 20.0]})
    cells.to_csv(tmp_path / "cells.csv", index=False)
    options = ("--model", model_folders["human"], "--species", "human", "--out", "out.csv")
    done = crosspatch("predict", tmp_path / "cells.csv", *options, "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    written = pd.read_csv(tmp_path / "out.csv", comment="#")
    assert list(written) == list(found["cells"][0])
    for (_, row), cell in zip(written.iterrows(), found["cells"], strict=True):
        for name, value in cell.items():
            if value is None:
                assert pd.isna(row[name])
            elif isinstance(value, list):
                assert "|".join(value) == ("" if pd.isna(row[name]) else row[name])
            else:
                assert value == row[name]
    unsaid = {name for name in set(found) | set(found["cells"][0]) if f"`{name}`" not in text}
    assert {name for name in unsaid if not name.startswith("probability_")} == set()
