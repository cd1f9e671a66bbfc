"""Models on disk: what was stored comes back, and what was tampered with does not."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io

from crosspatch.errors import ModelError
from crosspatch.features.layouts import load_layout
from crosspatch.models import artifact, stored
from crosspatch.models.calibrated import CalibratedClassifier
from crosspatch.models.kernel import build_logistic
from crosspatch.models.plain import plain_model
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
    setting, inner = model.candidates[0]
    if name == "spca-forest":
        inner.set_params(model__forest__n_estimators=50)
    if not name.startswith("lda"):
        inner.set_params(copies=1)
    model.set_params(candidates=[(setting, inner)], n_folds=2)
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
        "screen": "",
    }


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[str, Path]:
    """Models that are all arrays, and one that has a library's weights."""
    found = {}
    for name in ("logistic", "svm", "vote"):
        found[name] = tmp_path_factory.mktemp("models") / "model"
        model = fitted(name)
        artifact.save(found[name], model, about(model), "a card")
    return found


@pytest.fixture(scope="module")
def saved(both: dict[str, Path]) -> Path:
    return both["logistic"]


@pytest.fixture(params=["logistic", "svm"])
def folder(both: dict[str, Path], tmp_path: Path, request) -> Path:
    """A copy of each to be spoiled."""
    return shutil.copytree(both[request.param], tmp_path / "model")


@pytest.fixture
def weights(both: dict[str, Path], tmp_path: Path) -> Path:
    """A copy with a library's weights."""
    return shutil.copytree(both["svm"], tmp_path / "model")


@pytest.fixture
def plain(both: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that is all arrays."""
    return shutil.copytree(both["logistic"], tmp_path / "model")


@pytest.fixture
def vote(both: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of a discriminant and trees, all arrays."""
    return shutil.copytree(both["vote"], tmp_path / "model")


def rewrite(folder: Path, **changes) -> None:
    """Change model.json as somebody would who also mends its checksums."""
    content = json.loads((folder / "model.json").read_text())
    content.update(changes)
    content["files"] = {name: artifact._sha256(folder / name) for name in content["files"]}
    content["digest"] = artifact._digest(content)
    (folder / "model.json").write_text(json.dumps(content))


PLAIN = ("boosting", "logistic", "lda", "vote", "lda-mouse", "lda-unlabelled")


@pytest.mark.parametrize("name", [*PLAIN, "svm", "spca-forest", "arcface", "finetune"])
def test_a_model_comes_back_with_the_same_predictions(name: str, few_epochs, tmp_path: Path):
    model = fitted(name)
    stored = artifact.save(tmp_path / "m", model, about(model), "card")
    found = artifact.load(tmp_path / "m")
    assert found.digest == stored.digest
    assert found.classes == ("Lamp5", "Pvalb", "Sst", "Vip")
    X = cells()[0]
    X = np.concatenate([X, np.where(np.random.default_rng(0).random(X.shape) < 0.4, np.nan, X)])
    for before, after in zip(model.judge(X), found.classifier.judge(X), strict=True):
        if name in PLAIN:
            np.testing.assert_allclose(
                before.astype(float), after.astype(float), rtol=0, atol=1e-12
            )
        else:
            np.testing.assert_array_equal(before, after)
    weights = set() if name in PLAIN else {"weights.skops"}
    assert {file.name for file in (tmp_path / "m").iterdir()} == {
        "model.json",
        "arrays.npz",
        "card.md",
        *weights,
    }


def test_traces_come_back_as_components(tmp_path: Path):
    layout = load_layout("paper")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, len(layout.features))).astype(np.float32)
    X[::3, layout.columns["psth"]] = np.nan
    y = np.array(["Pvalb", "Sst"])[np.arange(60) % 2]
    model = CalibratedClassifier(
        [("one", build_logistic(layout, 0))], layout, n_folds=2, random_state=0
    ).fit(X, y)
    artifact.save(tmp_path / "m", model, about(model), "card")
    found = artifact.load(tmp_path / "m").classifier
    assert len(found.reference_.coordinates_.traces) == len(layout.traces)
    for before, after in zip(model.judge(X), found.judge(X), strict=True):
        np.testing.assert_allclose(before.astype(float), after.astype(float), rtol=0, atol=1e-12)


def test_what_would_predict_otherwise_is_not_stored(tmp_path: Path, monkeypatch):
    model = fitted("logistic")
    other = plain_model(fitted("boosting").model_)
    monkeypatch.setattr(stored, "plain_model", lambda _: other)
    with pytest.raises(ModelError, match="predicts otherwise"):
        artifact.save(tmp_path / "m", model, about(model), "card")
    assert not (tmp_path / "m").exists()


def test_what_was_said_of_single_cells_is_not_stored(both: dict[str, Path]):
    for folder in both.values():
        assert not hasattr(artifact.load(folder).classifier, "held_")
    with zipfile.ZipFile(both["svm"] / "weights.skops") as archive:
        assert "held_" not in archive.read("schema.json").decode()
    with zipfile.ZipFile(both["logistic"] / "arrays.npz") as archive:
        assert not [name for name in archive.namelist() if "held" in name]


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


@pytest.mark.parametrize("name", ["weights.skops", "arrays.npz", "card.md"])
def test_a_changed_or_truncated_file_is_refused(weights: Path, name: str):
    folder = weights
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


@pytest.mark.parametrize("name", ["weights.skops", "arrays.npz"])
def test_a_pickle_in_disguise_is_not_opened(weights: Path, name: str, tmp_path: Path):
    trace = tmp_path / "ran"
    (weights / name).write_bytes(pickle.dumps(Evil(trace)))
    rewrite(weights)
    with pytest.raises(ModelError, match="pickle"):
        artifact.load(weights)
    assert not trace.exists()


def test_a_pickle_among_the_arrays_is_not_opened(plain: Path, tmp_path: Path):
    trace = tmp_path / "ran"
    change(plain, **{"model.bias": np.array([Evil(trace)], dtype=object)})
    with pytest.raises(ModelError, match=r"arrays.npz cannot be read.*pickle"):
        artifact.load(plain)
    assert not trace.exists()


def change(folder: Path, **arrays: np.ndarray | None) -> None:
    """Change arrays, or leave them out, and mend the checksums."""
    with np.load(folder / "arrays.npz") as found:
        kept = {name: array for name, array in (dict(found) | arrays).items() if array is not None}
    np.savez(folder / "arrays.npz", **kept)
    rewrite(folder)


@pytest.mark.parametrize(
    "name",
    ["model.kind", "model.bias", "model.inputs.mean", "reference.covariance", "calibration.size"],
)
def test_arrays_that_are_missing_are_refused(plain: Path, name: str):
    change(plain, **{name: None})
    with pytest.raises(ModelError, match=r"arrays.npz cannot be read"):
        artifact.load(plain)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("model.kind", np.array("forest")),
        ("model.weights", np.zeros((2, 2))),
        ("model.bias", np.full(4, np.nan)),
        ("model.inputs.scale", np.zeros(0)),
        ("reference.means", np.zeros((4, 3))),
        ("reference.center", np.full(32, np.inf)),
        ("calibration.distances", np.zeros((3, 1))),
        ("calibration.temperature", np.zeros(3)),
        ("calibration.limit", np.zeros((3, 4), dtype=np.float32)),
        ("center", np.zeros(1)),
        ("classes", np.array(["Sst", "Sst", "Vip", "Pvalb"])),
        ("classes", np.arange(4)),
        ("features", np.array([["one", "family", "mV"]])),
    ],
)
def test_arrays_that_are_no_model_are_refused(plain: Path, name: str, wrong: np.ndarray):
    change(plain, **{name: wrong})
    with pytest.raises(ModelError, match=r"arrays.npz is damaged"):
        artifact.load(plain)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("discriminant.means", np.zeros((4, 3))),
        ("discriminant.covariance", np.full((62, 62), np.nan)),
        ("discriminant.log_priors", np.zeros(3)),
        ("discriminant.class_of", np.array([0, 1, 2, 4])),
        ("discriminant.class_of", np.array([0, 1, 2, 2])),
        ("discriminant.class_of", np.zeros((2, 2), dtype=int)),
        ("discriminant.inputs.quantiles", np.zeros((3, 200))),
        ("cells.means", np.zeros((4, 62))),
        ("trees.n_features", np.array(32)),
        ("trees.n_scores", np.array(5)),
    ],
)
def test_arrays_that_are_no_vote_are_refused(vote: Path, name: str, wrong: np.ndarray):
    change(vote, **{f"model.{name}": wrong})
    with pytest.raises(ModelError, match=r"arrays.npz is damaged"):
        artifact.load(vote)


def test_a_covariance_that_is_none_is_refused(vote: Path):
    change(vote, **{"model.discriminant.covariance": -np.eye(62)})
    with pytest.raises(ModelError, match="cannot predict"):
        artifact.load(vote)


def test_weights_with_anything_but_a_model_are_not_loaded(weights: Path, tmp_path: Path):
    folder = weights
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
    monkeypatch.setattr(stored, "_MAX_UNPACKED", 1000)
    with pytest.raises(ModelError, match="unpack"):
        artifact.load(folder)


@pytest.mark.parametrize("name", ["weights.skops", "arrays.npz"])
def test_a_zip_that_is_no_model(weights: Path, name: str):
    with zipfile.ZipFile(weights / name, "w") as archive:
        archive.writestr("hello.txt", "hello")
    rewrite(weights)
    with pytest.raises(ModelError, match="cannot be read"):
        artifact.load(weights)


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
    told = rf"older crosspatch \(format {artifact.FORMAT - 1}.*train the model again"
    with pytest.raises(ModelError, match=told):
        artifact.load(folder)
