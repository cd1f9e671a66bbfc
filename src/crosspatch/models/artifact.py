"""A trained model on disk: a folder with weights, what they are, and a card in words."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import ModelError, in_words
from crosspatch.features.layouts import Layout
from crosspatch.models.calibrated import CalibratedClassifier

#: Version of the folder's format; another one is refused. It rises when classes in the weights
#: move or change what they hold.
FORMAT = 2

MODEL_FILE = "model.json"
WEIGHTS_FILE = "weights.skops"
CARD_FILE = "card.md"

_AGAIN = "get the model again, or train it again"

#: Libraries whose objects are in the weights.
_LIBRARIES = ("numpy", "scikit-learn", "lightgbm", "torch", "skops")

# model.json is small; weights unpack to less than this. Whatever is larger is not a model of ours.
_MAX_JSON = 32 * 2**20
_MAX_WEIGHTS = 4 * 2**30


class TrainedOn(TypedDict):
    """The cohort of one species, as `crosspatch.cohorts.cells.provenance` tells it."""

    dataset: list[str]
    cells: int
    donors: int
    subclasses: dict[str, int]
    cells_sha256: str


class Cohorts(TypedDict):
    """What a model was trained on."""

    target: TrainedOn
    source: TrainedOn | None


class LayoutAbout(TypedDict):
    """The layout of a model; features are name, family and unit."""

    name: str
    features: list[list[str]]


class ModelAbout(TypedDict):
    """What ``model.json`` says of a model; `load` checks what it needs of it."""

    format: int
    #: Version that trained it, and when.
    crosspatch: str
    created: str
    #: Name in the registry, and what it is in words.
    model: str
    model_about: str
    species: str
    simulated: bool
    classes: list[str]
    #: How mouse subclasses were mapped to the shared ones; None if they were not.
    alignment: str | None
    layout: LayoutAbout
    #: Center and scale of every feature.
    scaling: dict[str, list[float]]
    settings: dict[str, object]
    calibration: dict[str, list]
    cohorts: Cohorts
    #: Name to number, but for ``sets``, which is a table.
    scores: dict[str, Any]
    #: Versions of the libraries whose objects are in the weights.
    libraries: dict[str, str]
    #: Predictions for made-up cells.
    probe: list[list[float]]
    #: Name to sha256.
    files: dict[str, str]
    digest: str


# What model.json must say, and as what.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "species": str,
    "simulated": bool,
    "alignment": (str, type(None)),
    "classes": list,
    "layout": dict,
    "files": dict,
    "libraries": dict,
    "probe": list,
}

#: Everything in the weights besides plain values and what skops itself trusts. skops builds these
#: and nothing else, so that loading somebody else's model runs no code of theirs.
_TYPES = (
    "collections.OrderedDict",
    "crosspatch.features.layouts.Feature",
    "crosspatch.features.layouts.Layout",
    "crosspatch.models.absence.FamilyDropout",
    "crosspatch.models.calibrated.CalibratedClassifier",
    "crosspatch.models.calibration.Calibration",
    "crosspatch.models.ensemble.SoftVote",
    "crosspatch.models.sequence_inputs.SequenceInputs",
    "crosspatch.models.kernel.CalibratedSVC",
    "crosspatch.models.kernel.StandardInputs",
    "crosspatch.models.pooled.PooledClassifier",
    "crosspatch.models.reference.Reference",
    "crosspatch.models.sequence.SequenceSettings",
    "crosspatch.models.sequence_classifier.SequenceClassifier",
    "crosspatch.models.sparse_pca.FamilyComponents",
    "crosspatch.models.sparse_pca.FamilySparsePCA",
    "crosspatch.models.sparse_pca.SparsePCA",
    "crosspatch.models.sparse_pca.SparsePCASettings",
    "crosspatch.models.sparse_pca.FamilyFit",
    "crosspatch.models.loop.TrainingSettings",
    "crosspatch.models.transfer.FinetuneClassifier",
    "crosspatch.models.transfer.JointClassifier",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
)


@dataclass(frozen=True)
class Artifact:
    """A trained model."""

    #: Fitted.
    classifier: CalibratedClassifier
    #: What ``model.json`` says: species, classes, layout, training cohort, scores, versions.
    about: ModelAbout
    #: sha256 of all of it; two models with the same digest give the same predictions.
    digest: str

    @property
    def layout(self) -> Layout:
        """What the model measures a cell by."""
        return self.classifier.layout

    @property
    def classes(self) -> tuple[str, ...]:
        """The subclasses it tells apart."""
        return tuple(str(name) for name in self.classifier.classes_)

    @property
    def species(self) -> str:
        """The species of its reference."""
        return self.about["species"]


def save(
    folder: str | Path, classifier: CalibratedClassifier, about: Mapping[str, object], card: str
) -> Artifact:
    """Write a model folder, under a temporary name first.

    Parameters
    ----------
    folder : path
        New, empty, or an earlier model, which is replaced.
    classifier : CalibratedClassifier
        Fitted. What it said of single cells is not kept.
    about : mapping
        For ``model.json``; what `ModelAbout` says of files and versions is added.
    card : str
        For ``card.md``.

    Raises
    ------
    ModelError
        If the folder holds something else, or cannot be written.
    """
    import skops.io

    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        raise ModelError(f"{folder} is there and is not a model", hint="choose another {out}")
    kept = copy.copy(classifier)
    kept.species_ = str(about["species"])  # in the weights too, so that the two must agree
    kept.__dict__.pop("held_", None)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as part:
            temporary = Path(part) / "model"
            temporary.mkdir()
            skops.io.dump(kept, temporary / WEIGHTS_FILE, compression=zipfile.ZIP_DEFLATED)
            (temporary / CARD_FILE).write_text(card, encoding="utf-8")
            content: dict[str, object] = {
                "format": FORMAT,
                **about,
                "libraries": {name: _version(name) for name in _LIBRARIES},
                "probe": _probe(classifier).tolist(),
                "files": {name: _sha256(temporary / name) for name in (WEIGHTS_FILE, CARD_FILE)},
            }
            content["digest"] = _digest(content)
            text = json.dumps(content, indent=1) + "\n"
            (temporary / MODEL_FILE).write_text(text, encoding="utf-8")
            if folder.exists():
                shutil.move(folder, Path(part) / "old")
            temporary.rename(folder)
    except OSError as error:
        raise ModelError(
            f"{folder} cannot be written: {error.strerror or error}", hint="choose another {out}"
        ) from error
    said: ModelAbout = json.loads(text)
    return Artifact(kept, said, said["digest"])


def _replaceable(folder: Path) -> bool:
    """Whether nothing is lost if a model takes the place of a folder."""
    return folder.is_dir() and (not any(folder.iterdir()) or (folder / MODEL_FILE).is_file())


def load(folder: str | Path) -> Artifact:
    """Read a model folder and check it: format, checksums, types, and that it still predicts alike.

    Raises
    ------
    ModelError
        If the folder is not a model, is from another version, was changed or cut short, holds
        anything but a model, or predicts other numbers with the libraries that are installed.

    Examples
    --------
    >>> import crosspatch
    >>> model = crosspatch.load_model("human-model")
    >>> model.species, model.classes
    ('human', ('Lamp5', 'Pvalb', 'Sst', 'Vip'))
    """
    import skops.io

    folder = Path(folder)
    about = _read_about(folder)
    for name, wanted in about["files"].items():
        file = folder / str(name)
        if file.parent != folder or not file.is_file():
            raise ModelError(f"{folder}: {name} is missing", hint=_AGAIN)
        if _sha256(file) != wanted:
            raise ModelError(
                f"{file} was changed or cut short after training (its checksum differs from "
                f"{MODEL_FILE})",
                hint=_AGAIN,
            )
    weights = folder / WEIGHTS_FILE
    _require_archive(weights)
    try:
        foreign = sorted(set(skops.io.get_untrusted_types(file=weights)) - set(_TYPES))
        classifier = None if foreign else skops.io.load(weights, trusted=list(_TYPES))
    except Exception as error:  # damaged archives raise many kinds
        raise ModelError(f"{weights} cannot be read: {in_words(error)}; train it again") from error
    if foreign:
        raise ModelError(
            f"{weights} holds {foreign[0]}, which no model of crosspatch has; it is not loaded, "
            "because that could run code"
        )
    if not isinstance(classifier, CalibratedClassifier):
        raise ModelError(f"{weights} holds a {type(classifier).__name__}, not a trained model")
    _require_alike(folder, classifier, about)
    return Artifact(classifier, about, about["digest"])


def _read_about(folder: Path) -> ModelAbout:
    """What ``model.json`` of a model folder says, its own checksum checked."""
    file = folder / MODEL_FILE
    if not file.is_file():
        raise ModelError(
            f"{folder} is not a model: it has no {MODEL_FILE}; make one with `crosspatch train`"
        )
    about = _read_object(file)
    _require_format(folder, about.get("format"))
    if about.get("digest") != _digest(about):
        raise ModelError(f"{file} was changed after training (its checksum differs)", hint=_AGAIN)
    wrong = [name for name, kinds in _FIELDS.items() if not isinstance(about.get(name), kinds)]
    found = cast(ModelAbout, about)
    if wrong or WEIGHTS_FILE not in found["files"]:
        raise ModelError(f"{file} is not whole: '{(wrong or ['files'])[0]}' is missing or wrong")
    return found


def _read_object(file: Path) -> dict[str, object]:
    try:
        if file.stat().st_size > _MAX_JSON:
            raise ValueError("it is far too large")
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} is damaged: {in_words(error)}; train the model again") from error
    return content


def _require_format(folder: Path, found: object) -> None:
    if not isinstance(found, int):
        raise ModelError(
            f"{folder / MODEL_FILE} does not say its format; it is not a model of crosspatch"
        )
    if found > FORMAT:
        raise ModelError(
            f"{folder} was made by a newer crosspatch (format {found}, this one reads up to "
            f"{FORMAT}); update crosspatch, or train the model again"
        )
    if found < FORMAT:
        raise ModelError(
            f"{folder} was made by an older crosspatch (format {found}, this one reads {FORMAT}); "
            "train the model again"
        )


def other_versions(about: ModelAbout) -> list[str]:
    """Libraries that are installed in another version than a model was trained with, in words."""
    return [
        f"{name} {now or 'missing'} (trained with {then})"
        for name, then in about["libraries"].items()
        if (now := _version(name)) != then
    ]


def _require_archive(file: Path) -> None:
    """Only a zip archive of sensible size; a pickle under this name is not opened."""
    if not zipfile.is_zipfile(file):
        raise ModelError(
            f"{file} is not a skops file; a pickle would run code and is never read. Train the "
            "model again"
        )
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{file} is damaged: {in_words(error)}; train the model again") from error
    if size > _MAX_WEIGHTS:
        raise ModelError(f"{file} would unpack to {size / 2**30:.0f} GiB; it is not loaded")


def _require_alike(folder: Path, classifier: CalibratedClassifier, about: ModelAbout) -> None:
    try:
        now, then = _probe(classifier), np.asarray(about["probe"], dtype=float)
        alike = now.shape == then.shape and np.allclose(now, then, atol=1e-6, equal_nan=True)
        same_classes = [str(name) for name in classifier.classes_] == list(about["classes"])
    except Exception as error:  # an object put together of damaged parts
        raise ModelError(f"{folder} cannot predict: {in_words(error)}; train it again") from error
    if not same_classes or getattr(classifier, "species_", "") != about["species"]:
        raise ModelError(
            f"{folder}: weights and {MODEL_FILE} are of other classes or species; train it again"
        )
    if not alike:
        raise ModelError(
            f"{folder} gives other predictions here than when it was trained: "
            f"{', '.join(other_versions(about)) or 'another processor or build'}; install those "
            "versions, or train it again"
        )


def _probe(classifier: CalibratedClassifier) -> NDArray[np.float64]:
    """Predictions for made-up cells, whole and with gaps: they must stay what they were."""
    layout = classifier.layout
    rng = np.random.default_rng(0)
    center, scale = classifier.feature_center_, classifier.feature_scale_
    cells = center + scale * rng.normal(size=(8, len(layout.features)))
    cells[4:][rng.random((4, cells.shape[1])) < 0.3] = np.nan
    return classifier.predict_proba(cells.astype(np.float32))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error


def _digest(content: Mapping[str, object]) -> str:
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
