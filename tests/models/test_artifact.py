"""Models on disk: what was stored comes back, and what was tampered with does not."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io

from crosspatch.errors import ModelError
from crosspatch.features.layouts import load_layout
from crosspatch.models import artifact
from crosspatch.models.registry import build_calibrated, model_entry
from tests import made

SHARED = load_layout("shared")


def cells():
    cohort = made.cohort(donors=25)
    return (
        np.asarray(cohort.X),
        cohort.obs["subclass"].to_numpy(str),
        cohort.obs["donor"].to_numpy(str),
    )


def fitted(name: str):
    """A calibrated model of one setting, with few folds and copies."""
    X, y, donors = cells()
    entry = model_entry(name)
    more = {"X_source": X, "y_source": y, "groups_source": donors} if entry.needs_source else {}
    model = build_calibrated(entry, SHARED, 0)
    setting, dropout = model.candidates[0]
    if name == "spca-forest":
        dropout.set_params(model__forest__n_estimators=50)
    model.set_params(candidates=[(setting, dropout.set_params(copies=1))], n_folds=2)
    return model.fit(X, y, groups=donors, **more)


def about(model) -> dict:
    classes = [str(name) for name in model.classes_]
    return {
        "model": "logistic",
        "species": "human",
        "simulated": False,
        "alignment": None,
        "classes": classes,
        "layout": {"name": "shared"},
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    model = fitted("logistic")
    artifact.save(folder, model, about(model), "a card")
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to be spoiled."""
    copy = tmp_path / "model"
    copy.mkdir()
    for file in saved.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def rewrite(folder: Path, **changes) -> None:
    """Change model.json as somebody would who also mends its checksums."""
    content = json.loads((folder / "model.json").read_text())
    content.update(changes)
    content["files"] = {name: artifact._sha256(folder / name) for name in content["files"]}
    content["digest"] = artifact._digest(content)
    (folder / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["vote", "svm", "spca-forest", "arcface", "finetune"])
def test_a_model_comes_back_with_the_same_predictions(name: str, few_epochs, tmp_path: Path):
    model = fitted(name)
    stored = artifact.save(tmp_path / "m", model, about(model), "card")
    found = artifact.load(tmp_path / "m")
    assert found.digest == stored.digest
    assert found.classes == ("Lamp5", "Pvalb", "Sst", "Vip")
    X = cells()[0]
    for before, after in zip(model.judge(X), found.classifier.judge(X), strict=True):
        np.testing.assert_array_equal(before, after)
    assert {file.name for file in (tmp_path / "m").iterdir()} == {
        "model.json",
        "weights.skops",
        "card.md",
    }


def test_what_was_said_of_single_cells_is_not_stored(saved: Path):
    assert not hasattr(artifact.load(saved).classifier, "held_")
    with zipfile.ZipFile(saved / "weights.skops") as archive:
        assert "held_" not in archive.read("schema.json").decode()


def test_an_earlier_model_is_replaced_and_nothing_else(saved: Path, tmp_path: Path):
    model = artifact.load(saved).classifier
    artifact.save(tmp_path / "m", model, about(model), "one")
    artifact.save(tmp_path / "m", model, about(model), "two")
    assert (tmp_path / "m" / "card.md").read_text() == "two"
    assert [file.name for file in tmp_path.iterdir()] == ["m"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(ModelError, match="not a model"):
        artifact.save(other, model, about(model), "card")
    assert (other / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["weights.skops", "card.md"])
def test_a_changed_or_truncated_file_is_refused(folder: Path, name: str):
    content = (folder / name).read_bytes()
    for spoiled in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), b""):
        (folder / name).write_bytes(spoiled)
        with pytest.raises(ModelError, match="changed or cut short"):
            artifact.load(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match="missing"):
        artifact.load(folder)


def test_a_changed_json_is_refused(folder: Path):
    content = json.loads((folder / "model.json").read_text())
    content["classes"] = content["classes"][::-1]
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="changed after training"):
        artifact.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "x"}', "[" * 100_000])
def test_a_damaged_json_is_refused(folder: Path, text: str):
    (folder / "model.json").write_text(text)
    with pytest.raises(ModelError):
        artifact.load(folder)


def test_every_cut_of_the_json_is_refused(folder: Path):
    text = (folder / "model.json").read_text()
    for end in range(0, len(text) - 2, len(text) // 40):
        (folder / "model.json").write_text(text[:end])
        with pytest.raises(ModelError):
            artifact.load(folder)


def test_a_newer_format_says_to_update(folder: Path):
    rewrite(folder, format=artifact.FORMAT + 1)
    with pytest.raises(ModelError, match=r"newer crosspatch.*update"):
        artifact.load(folder)


def test_no_model_at_all(tmp_path: Path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ModelError, match="crosspatch train"):
            artifact.load(path)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_pickle_in_disguise_is_not_opened(folder: Path, tmp_path: Path):
    trace = tmp_path / "ran"
    (folder / "weights.skops").write_bytes(pickle.dumps(Evil(trace)))
    rewrite(folder)
    with pytest.raises(ModelError, match="pickle"):
        artifact.load(folder)
    assert not trace.exists()


def test_weights_with_anything_but_a_model_are_not_loaded(folder: Path, tmp_path: Path):
    trace = tmp_path / "ran"
    skops.io.dump({"x": Evil(trace)}, folder / "weights.skops")
    rewrite(folder)
    with pytest.raises(ModelError, match="not loaded"):
        artifact.load(folder)
    assert not trace.exists()
    skops.io.dump({"a": 1}, folder / "weights.skops")
    rewrite(folder)
    with pytest.raises(ModelError, match="not a trained model"):
        artifact.load(folder)


def test_a_bomb_is_not_unpacked(folder: Path, monkeypatch):
    monkeypatch.setattr(artifact, "_MAX_WEIGHTS", 1000)
    with pytest.raises(ModelError, match="unpack"):
        artifact.load(folder)


def test_a_zip_that_is_no_model(folder: Path):
    with zipfile.ZipFile(folder / "weights.skops", "w") as archive:
        archive.writestr("hello.txt", "hello")
    rewrite(folder)
    with pytest.raises(ModelError, match="cannot be read"):
        artifact.load(folder)


def test_files_outside_the_folder_are_not_touched(folder: Path):
    content = json.loads((folder / "model.json").read_text())
    content["files"]["../../etc/passwd"] = "0"
    content["digest"] = artifact._digest(content)
    (folder / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="missing"):
        artifact.load(folder)


def test_a_model_that_predicts_otherwise_here_is_refused(folder: Path):
    probe = np.asarray(json.loads((folder / "model.json").read_text())["probe"])
    rewrite(folder, probe=(probe + 0.01).tolist())
    with pytest.raises(ModelError, match="other predictions"):
        artifact.load(folder)


def test_other_versions_are_named(folder: Path):
    rewrite(folder, libraries={"numpy": "0.1"})
    assert "0.1" in artifact.other_versions(artifact.load(folder).about)[0]


@pytest.mark.parametrize("change", [{"species": "mouse"}, {"alignment": 3}, {"simulated": None}])
def test_a_model_that_contradicts_itself_is_refused(folder: Path, change: dict):
    rewrite(folder, **change)
    with pytest.raises(ModelError):
        artifact.load(folder)


def test_an_older_format_says_to_train_again(folder: Path):
    rewrite(folder, format=artifact.FORMAT - 1)
    with pytest.raises(ModelError, match=r"older crosspatch \(format 1.*train the model again"):
        artifact.load(folder)
