"""A trained model on disk: a folder with weights, what they are, and a card in words."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import MissingLibraryError, ModelError, in_words
from crosspatch.features.layouts import Layout
from crosspatch.models.judging import Judging
from crosspatch.models.screen import Screen
from crosspatch.models.stored import ARRAYS_FILE, StoredClassifier
from crosspatch.models.t_types import TTypes
from crosspatch.versions import version_of

#: Version of the folder's format; another one is refused. It rises when what is stored changes, or
#: classes in a library's weights move.
FORMAT = 6

MODEL_FILE = "model.json"
CARD_FILE = "card.md"

_AGAIN = "get the model again, or train it again"

#: Libraries that fit the models.
_LIBRARIES = ("numpy", "scikit-learn", "lightgbm", "torch", "skops")

# model.json is small. Whatever is larger is not a model of ours.
_MAX_JSON = 32 * 2**20


class TrainedOn(TypedDict):
    """The cohort of one species, as `crosspatch.cohorts.cells.provenance` tells it."""

    dataset: list[str]
    cells: int
    donors: int
    subclasses: dict[str, int]
    taxonomy: str
    cells_sha256: str


class Cohorts(TypedDict):
    """What a model was trained on."""

    target: TrainedOn
    source: TrainedOn | None


class LayoutAbout(TypedDict):
    """The layout of a model; features are name, family, unit and own column."""

    name: str
    features: list[list[str]]


class ModelAbout(TypedDict):
    """What ``model.json`` says of a model; `load` checks what it needs of it."""

    format: int
    crosspatch: str  # version that trained it, and when
    created: str
    model: str  # name in the registry, and what it is in words
    model_about: str
    species: str
    simulated: bool
    classes: list[str]
    #: How mouse subclasses were mapped to the shared ones; None if they were not.
    alignment: str | None
    layout: LayoutAbout
    scaling: dict[str, list[float]]  # center and scale of every feature
    settings: dict[str, object]
    calibration: dict[str, list]
    cohorts: Cohorts
    scores: dict[str, Any]  # name to number, but for ``sets``, which is a table
    #: Datasets that excitatory cells are known from, or why they are not, in words; empty where
    #: cells are simulated, or classes are a laboratory's own.
    screen: list[str] | str
    #: Whose t-types the model knows, their names and from which probability one is named, None
    #: where none can be; None where it knows no t-types.
    t_types: dict[str, Any] | None
    libraries: dict[str, str]  # versions of the libraries that fit the models
    probe: list[list[float]]  # predictions for made-up cells
    files: dict[str, str]  # name to sha256
    digest: str


# What model.json must say, and as what.
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "model": str,
    "species": str,
    "simulated": bool,
    "alignment": (str, type(None)),
    "classes": list,
    "layout": dict,
    "screen": (list, str),
    "files": dict,
    "libraries": dict,
    "probe": list,
}


@dataclass(frozen=True)
class Artifact:
    """A trained model."""

    classifier: StoredClassifier  # judges cells
    #: What ``model.json`` says: species, classes, layout, training cohort, scores, versions.
    about: ModelAbout
    digest: str  # sha256 of all of it; two models with the same digest give the same predictions

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
    folder: str | Path,
    classifier: Judging,
    about: Mapping[str, object],
    card: str,
    screen: Screen | None = None,
    types: TTypes | None = None,
) -> Artifact:
    """Write a model folder, under a temporary name first.

    Parameters
    ----------
    folder : path
        New, empty, or an earlier model, which is replaced.
    classifier : CalibratedClassifier
        Fitted. Kept is what predicting needs: nothing of single cells, and arrays in place of a
        library's objects where `crosspatch.models.plain` has them.
    about : mapping
        For ``model.json``; what `ModelAbout` says of files and versions is added.
    card : str
        For ``card.md``.
    screen : Screen, optional
        What tells excitatory cells from interneurons.
    types : TTypes, optional
        The t-types of the classifier's discriminant.

    Raises
    ------
    ModelError
        If the folder holds something else or cannot be written, or what is kept would predict
        otherwise than the classifier.
    """
    folder = Path(folder)
    if folder.exists() and not _replaceable(folder):
        raise ModelError(f"{folder} is there and is not a model", hint="choose another {out}")
    kept = StoredClassifier.of(classifier, str(about["species"]), screen, types)
    probe = _probe(kept)
    if not np.allclose(probe, _probe(classifier), rtol=0, atol=1e-12, equal_nan=True):
        raise ModelError("what would be stored predicts otherwise than the model; it is not stored")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as part:
            temporary = Path(part) / "model"
            temporary.mkdir()
            files = [*kept.write(temporary), CARD_FILE]
            (temporary / CARD_FILE).write_text(card, encoding="utf-8")
            content: dict[str, object] = {
                "format": FORMAT,
                **about,
                "libraries": {name: version_of(name) for name in _LIBRARIES},
                "probe": probe.tolist(),
                "files": {name: _sha256(temporary / name) for name in files},
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
    classifier = StoredClassifier.read(folder)
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
    if wrong or ARRAYS_FILE not in found["files"]:
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
        if (now := version_of(name)) != then
    ]


def _require_alike(folder: Path, classifier: StoredClassifier, about: ModelAbout) -> None:
    try:
        now, then = _probe(classifier), np.asarray(about["probe"], dtype=float)
        alike = now.shape == then.shape and np.allclose(now, then, atol=1e-6, equal_nan=True)
        same_classes = [str(name) for name in classifier.classes_] == list(about["classes"])
    except MissingLibraryError:
        raise
    except Exception as error:  # an object put together of damaged parts
        raise ModelError(f"{folder} cannot predict: {in_words(error)}; train it again") from error
    if not same_classes or classifier.species != about["species"]:
        raise ModelError(
            f"{folder}: {ARRAYS_FILE} and {MODEL_FILE} are of other classes or species; "
            "train it again"
        )
    if not alike:
        raise ModelError(
            f"{folder} gives other predictions here than when it was trained: "
            f"{', '.join(other_versions(about)) or 'another processor or build'}; install those "
            "versions, or train it again"
        )


def _probe(classifier: Judging) -> NDArray[np.float64]:
    """Predictions for made-up cells, whole and with gaps: they must stay what they were."""
    layout = classifier.layout_
    rng = np.random.default_rng(0)
    center, scale = classifier.feature_center_, classifier.feature_scale_
    cells = center + scale * rng.normal(size=(8, len(layout.features)))
    cells[4:][rng.random((4, cells.shape[1])) < 0.3] = np.nan
    return classifier.predict_proba(cells.astype(np.float32))


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror or error}") from error


def _digest(content: Mapping[str, object]) -> str:
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
