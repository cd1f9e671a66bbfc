"""Without the extras: cells are predicted alike, and whatever else is asked names an extra."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scipy.special import bdtrc

import crosspatch
from crosspatch.extras import INSTALLED_AS, extra_of, require
from crosspatch.features.layouts import load_layout
from crosspatch.models.verdicts import OUTSIDE_P
from crosspatch.prediction.predictor import too_many
from tests.recordings import made_files

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE: set[str] = {canonicalize_name(Requirement(each).name) for each in PROJECT["dependencies"]}
#: Libraries of every extra, without other extras that it includes.
EXTRAS = {
    extra: {name for each in listed if (name := Requirement(each).name) != "crosspatch"}
    for extra, listed in PROJECT["optional-dependencies"].items()
    if extra not in ("dev", "docs")
}

# Python runs it when it starts: some libraries are not found, nor that they are installed.
WITHOUT = """
import os, sys
from importlib.machinery import PathFinder

class Core(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        hidden = name in os.environ["HIDDEN_MODULES"].split()
        return None if hidden else super().find_spec(name, path, target)

    @classmethod
    def find_distributions(cls, *context):
        hidden = os.environ["HIDDEN_LIBRARIES"].split()
        return (each for each in super().find_distributions(*context) if each.name not in hidden)

sys.meta_path[sys.meta_path.index(PathFinder)] = Core
"""


def with_what_they_need(libraries: set[str]) -> set[str]:
    """Libraries, and those that these need in turn."""
    found: set[str] = set()
    waiting = set(libraries)
    while waiting:
        found.add(name := waiting.pop())
        for each in map(Requirement, distribution(name).requires or ()):
            if each.marker is None or each.marker.evaluate({"extra": ""}):
                waiting.add(canonicalize_name(each.name))
        waiting -= found
    return found


@pytest.fixture(scope="module")
def core_only(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which only the core and what it needs can be imported."""
    there = with_what_they_need(CORE) | {"crosspatch"}
    owners = {
        module: {canonicalize_name(name) for name in names}
        for module, names in packages_distributions().items()
    }
    hidden = {module for module, names in owners.items() if names.isdisjoint(there)}
    names = {
        name
        for module, names in packages_distributions().items()
        if module in hidden
        for name in names
    }
    assert {"sklearn", "matplotlib", "torch", "anndata", "scipy", "pyabf"} <= hidden
    (folder := tmp_path_factory.mktemp("core") / "start").mkdir()
    (folder / "sitecustomize.py").write_text(WITHOUT)
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HIDDEN_MODULES": " ".join(hidden),
        "HIDDEN_LIBRARIES": " ".join(names),
        "XDG_CACHE_HOME": str(folder.parent),
    }


def run(
    args: list[object], folder: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, args)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def crosspatch_with(env: dict[str, str] | None, *args: object, folder: Path) -> str:
    """What the command line says; it must end well."""
    done = run(["-m", "crosspatch", *args], folder, env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(folder: Path) -> Path:
    """A table of cells in the features of the models."""
    layout = load_layout("shared")
    numbers = {each.name: [1.0, 2.5, 40.0] for each in layout.features[:12]}
    frame = pd.DataFrame({"cell_id": ["a", "b", "c"], **numbers})
    frame.to_csv(file := folder / "cells.csv", index=False)
    return file


def test_a_trained_model_answers_alike(model_folders, core_only, tmp_path: Path):
    inputs = [
        made_files.write_abf1(tmp_path / "one.abf"),
        made_files.write_nwb(tmp_path / "two.nwb", compressed=True),
        table(tmp_path),
    ]
    how = ("--species", "mouse", "--model", model_folders["mouse"], "--out")
    crosspatch_with(None, "predict", *inputs, *how, "all.csv", folder=tmp_path)
    crosspatch_with(core_only, "predict", *inputs, *how, "core.csv", folder=tmp_path)
    answers = (tmp_path / "core.csv").read_text()
    assert answers == (tmp_path / "all.csv").read_text()
    assert [
        line.partition(",")[0].strip('"') for line in answers.splitlines() if line[0] != "#"
    ] == [*("cell_id", "one", "two", "a", "b", "c")]


def test_a_recording_is_described_without_its_picture(core_only, tmp_path: Path):
    made_files.write_abf2(tmp_path / "one.abf")
    done = run(["-m", "crosspatch", "inspect", "one.abf"], tmp_path, core_only)
    assert done.returncode == 0, done.stderr
    assert "long square" in done.stdout
    assert "no picture is drawn: matplotlib is not installed" in done.stderr
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("predict one.abf --species mouse", "train"),
        ("predict one.abf --model MODEL --out a.h5ad", "train"),
        ("predict one.abf --model MODEL --report a.html", "reports"),
        ("inspect one.abf --png a.png", "plot"),
        ("explain one.abf --model MODEL", "reports"),
        ("train --target mouse --out m", "train"),
        ("report results", "reports"),
        ("serve", "serve"),
        ("fetch tables", "archive"),
        ("convert one.abf one.nwb", "formats"),
    ],
)
def test_what_is_missing_is_one_line(command, extra, model_folders, core_only, tmp_path: Path):
    made_files.write_abf2(tmp_path / "one.abf")
    args = [str(model_folders["mouse"]) if each == "MODEL" else each for each in command.split()]
    done = run(["-m", "crosspatch", *args], tmp_path, core_only)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert f"pip install 'crosspatch[{extra}]'" in line
    if "--species" in command:
        assert "give one with --model" in line
    assert [each.name for each in tmp_path.iterdir()] == ["one.abf"]


def test_programs_meet_an_error_of_ours(core_only, tmp_path: Path):
    (tmp_path / "x.ibw").write_bytes(b"\x05\x00" + bytes(400))
    script = """
import crosspatch
for ask in (lambda: crosspatch.train, lambda: crosspatch.open_recording("x.ibw")):
    try:
        ask()
    except crosspatch.MissingLibraryError as error:
        print(error.code, error.hint)
import importlib.util
print(importlib.util.find_spec("sklearn"))
try:
    import sklearn
except ImportError as error:
    print(type(error).__name__)
"""
    done = run(["-c", script], tmp_path, core_only)
    assert done.stdout.splitlines() == [
        "missing-library pip install 'crosspatch[train]'",
        "missing-library pip install 'crosspatch[formats]'",
        "None",
        "ModuleNotFoundError",  # what is not ours is as ever
    ], done.stderr


def test_a_library_is_in_one_extra():
    listed = [name for extra in EXTRAS.values() for name in extra]
    assert len(listed) == len(set(listed))
    assert CORE.isdisjoint(map(canonicalize_name, listed))
    assert set(re.findall(r"\w+", PROJECT["optional-dependencies"]["all"][0])) - {
        "crosspatch"
    } == EXTRAS.keys() - {"all"}


def imported_libraries() -> set[str]:
    """Whatever is imported anywhere in the package from outside it and the standard library."""
    found: set[str] = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {each.name.partition(".")[0] for each in node.names}
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    # IPython is imported only where it runs already.
    return found - set(sys.stdlib_module_names) - {"crosspatch", "_typeshed", "IPython"}


@pytest.mark.parametrize("module", sorted(imported_libraries()))
def test_every_import_is_of_the_core_or_names_its_extra(module):
    name = INSTALLED_AS.get(module, module).replace("_", "-")
    of = [extra for extra, listed in EXTRAS.items() if name in listed]
    assert (name in CORE) == (not of)
    assert extra_of(module) == (of[0] if of else None)


def test_require():
    require("numpy")
    with pytest.raises(crosspatch.MissingLibraryError, match="pip install no-such-library"):
        require("no_such_library")


def test_the_conda_recipe_has_the_core():
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == PROJECT["version"]
    listed = recipe["requirements"]["run"]
    named = {"isal": "python-isal"}
    core = [Requirement(each) for each in PROJECT["dependencies"]]
    wanted = {f"{named.get(each.name, each.name)}{each.specifier}" for each in core}
    assert {Requirement(each) for each in listed} == {
        Requirement(each) for each in wanted | {f"python{PROJECT['requires-python']}"}
    }


def test_too_many_outside_is_by_the_binomial():
    """The one use that the core had of SciPy, which counts alike."""
    for judged in (5, 40, 1_000, 300_000):
        expected = OUTSIDE_P * judged
        for outside in range(2, judged, max(int(expected / 40), 1)):
            chance = bdtrc(outside - 1, judged, OUTSIDE_P)
            assert too_many(outside, judged) == (chance < 0.01)
            if outside > 3 * expected + 10:
                break
