"""What `crosspatch doctor` finds."""

from __future__ import annotations

import json
import shutil
from email.message import Message
from importlib.metadata import version
from pathlib import Path

import pytest

from crosspatch.cohorts.dataset import source_files
from crosspatch.cohorts.sources import pinned_files
from crosspatch.prediction import installed
from tests.command import crosspatch


@pytest.fixture
def cache(tmp_path: Path, model_folders, monkeypatch) -> Path:
    """A user's cache with a whole model, a damaged one, and a file."""
    kept = tmp_path / "cache" / "crosspatch"
    shutil.copytree(model_folders["human"], kept / "models" / "whole")
    shutil.copytree(model_folders["mouse"], kept / "models" / "damaged")
    (kept / "models" / "damaged" / "model.json").write_text("{")
    (kept / "maps").mkdir()
    (kept / "maps" / "a.npz").write_bytes(b"12345")
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept.parent))
    return kept


def test_extras_are_those_of_the_metadata(monkeypatch):
    said = Message()
    for line in (
        "numpy>=2.0",
        'igor2>=0.5; extra == "formats"',
        "no-such.library[fast]>=1 ; extra == 'archive'",
        'crosspatch[archive]; extra == "train"',
        'pandas<3,>=2.2; python_version > "3" and extra == "train"',
        'crosspatch[formats,train]; extra == "all"',
        'pytest; extra == "dev"',
    ):
        said["Requires-Dist"] = line
    for extra in ("formats", "archive", "train", "all", "dev"):
        said["Provides-Extra"] = extra
    monkeypatch.setattr(installed, "metadata", lambda name: said)
    found = {each.name: each for each in installed.extras()}
    assert {name: set(each.libraries) for name, each in found.items()} == {
        "": {"numpy"},
        "formats": {"igor2"},
        "archive": {"no-such.library"},
        "train": {"no-such.library", "pandas"},
        "all": {"no-such.library", "pandas", "igor2"},
    }
    assert found[""].libraries["numpy"]
    assert found["train"].missing == ["no-such.library"]
    assert found["train"].install == "pip install 'crosspatch[train]'"
    assert not found["formats"].missing


def test_the_real_extras_and_libraries_are_found():
    core, *_ = installed.extras()
    assert core.name == ""
    assert {"numpy", "typer"} <= set(core.libraries)
    assert core.libraries["numpy"] == version("numpy")


def test_all_tables_are_listed():
    assert {each.path for each in pinned_files()} == set(source_files())


def test_models_caches_and_tables_are_told_apart(cache: Path, tmp_path: Path):
    data = tmp_path / "data"
    first, second, *rest = [each.path for each in pinned_files()]
    (data / first).parent.mkdir(parents=True)
    (data / first).write_text("another version")
    found = json.loads(crosspatch("doctor", "--json", "--data-dir", data).stdout)
    models = {Path(each["folder"]).name: each for each in found["models"]}
    assert (models["whole"]["species"], models["whole"]["fault"]) == ("human", "")
    assert models["damaged"]["species"] is None
    assert "damaged" in models["damaged"]["fault"]
    assert found["data"]["there"] == 0
    assert found["data"]["changed"] == [first]
    assert found["data"]["missing"] == [second, *rest]
    sizes = {Path(each["path"]).name: (each["files"], each["size"]) for each in found["caches"]}
    assert sizes["maps"] == (1, 5)
    missing = "\n".join(found["missing"])
    assert "crosspatch fetch tables" in missing
    assert first in missing
    assert "crosspatch train" not in missing


def test_in_words_it_says_how_to_get_what_is_missing(tmp_path: Path):
    done = crosspatch("doctor", COLUMNS="80", XDG_CACHE_HOME=str(tmp_path / "empty"))
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 80
    told = " ".join(done.stdout.split())
    assert f"0 of {len(pinned_files())} tables" in told
    assert "missing: a trained model" in told
