"""A fitted model as it is stored: arrays, and a library's weights where there is no other way."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import MissingLibraryError, ModelError, in_words
from crosspatch.features.layouts import Feature, Layout, load_layout
from crosspatch.models.arrays import Arrays, part_of, require_array, under
from crosspatch.models.calibration import Calibration
from crosspatch.models.judging import Judging, Probabilistic
from crosspatch.models.laboratory import Laboratory
from crosspatch.models.plain import PlainModel, arrays_of, discriminant_of, plain_model, read_model
from crosspatch.models.reference import Reference
from crosspatch.models.screen import Screen
from crosspatch.models.t_types import NamedTypes, TTypes
from crosspatch.models.verdicts import Screened

#: Arrays of every model.
ARRAYS_FILE = "arrays.npz"
#: The model itself, where it has no form as arrays (`crosspatch.models.plain`).
WEIGHTS_FILE = "weights.skops"

# Files unpack to less than this. Whatever is larger is not a model of ours.
_MAX_UNPACKED = 4 * 2**30

# Everything in the weights besides plain values and what skops itself trusts. skops builds these
# and nothing else, so that loading somebody else's model runs no code of theirs.
_TYPES = (
    "collections.OrderedDict",
    "crosspatch.features.layouts.Feature",
    "crosspatch.features.layouts.Layout",
    "crosspatch.models.absence.FamilyDropout",
    "crosspatch.models.estimator.CellPipeline",
    "crosspatch.models.sequence_inputs.SequenceInputs",
    "crosspatch.models.kernel.CalibratedSVC",
    "crosspatch.models.kernel.StandardInputs",
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


@dataclass(frozen=True, eq=False)
class StoredClassifier(Judging):
    """A `crosspatch.models.calibrated.CalibratedClassifier` without what only training needs.

    It predicts alike, and by plain arrays where its model has such a form.
    """

    species: str
    layout: Layout
    classes_: NDArray[np.str_]  # shape (classes,)
    model_: Probabilistic
    calibration_: Calibration
    reference_: Reference
    laboratory_: Laboratory | None
    feature_center_: NDArray[np.float64]
    feature_scale_: NDArray[np.float64]
    #: What tells excitatory cells from interneurons; None where cells are taken to be of a class.
    screen: Screen | None = None
    types: TTypes | None = None  # of the model's discriminant; None where no t-type is known

    @property
    def layout_(self) -> Layout:
        """Its layout, by the name that a fitted estimator has it under."""
        return self.layout

    @classmethod
    def of(
        cls,
        classifier: Judging,
        species: str,
        screen: Screen | None = None,
        types: TTypes | None = None,
    ) -> StoredClassifier:
        """What is stored of a fitted classifier."""
        plain = plain_model(classifier.model_)
        return cls(
            species,
            classifier.layout_,
            np.array(classifier.classes_, dtype=str),
            classifier.model_ if plain is None else plain,
            classifier.calibration_,
            classifier.reference_,
            classifier.laboratory_,
            classifier.feature_center_,
            classifier.feature_scale_,
            screen,
            types,
        )

    def screened(self, X: NDArray[np.floating]) -> Screened | None:
        """Cells beside interneurons and excitatory ones; None where nothing is known of these."""
        if self.screen is None:
            return None
        return self.screen.compare(X[:, self.screen.layout.within(self.layout)])

    def rather_excitatory(self, X: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Whether cells look more like excitatory ones, if both are as frequent; shape (cells,)."""
        if self.screen is None:
            return np.zeros(len(X), dtype=bool)
        return self.screen.scorer.scores(X[:, self.screen.layout.within(self.layout)]) > 0

    def t_types(self, X: NDArray[np.floating], p: NDArray[np.float64]) -> NamedTypes | None:
        """T-types of cells within their most probable class; None where the model knows none.

        `p` are the probabilities of the classes, shape (cells, classes).
        """
        found = discriminant_of(self.model_)
        if self.types is None or found is None:
            return None
        scores = found.type_scores(found.inputs.transform(X))
        allowed = found.class_of == p.argmax(axis=1)[:, None]
        return self.types.of(scores, np.isfinite(X).mean(axis=1), allowed, p.max(axis=1))

    def write(self, folder: Path) -> list[str]:
        """Write the files of the model into a folder; their names."""
        features = [astuple(each) for each in self.layout.features]
        arrays = {
            "species": np.array(self.species),
            "layout": np.array(self.layout.name),
            "features": np.array(features, dtype=str),
            "classes": self.classes_,
            "center": self.feature_center_,
            "scale": self.feature_scale_,
            **under("calibration", vars(self.calibration_)),
            **under("reference", self.reference_.arrays()),
        }
        if self.screen is not None:
            arrays |= under("screen", self.screen.arrays())
            arrays["screen.layout"] = np.array(self.screen.layout.name)
        if self.types is not None:
            arrays |= under("types", self.types.arrays())
        if self.laboratory_ is not None:
            arrays |= under("laboratory", self.laboratory_.arrays())
        written = [ARRAYS_FILE]
        if isinstance(self.model_, PlainModel):
            arrays |= under("model", arrays_of(self.model_))
        else:
            import skops.io

            skops.io.dump(self.model_, folder / WEIGHTS_FILE, compression=zipfile.ZIP_DEFLATED)
            written.append(WEIGHTS_FILE)
        np.savez_compressed(folder / ARRAYS_FILE, allow_pickle=False, **arrays)
        return written

    @classmethod
    def read(cls, folder: Path) -> StoredClassifier:
        """What `write` wrote, checked; a ModelError if it is damaged or anything else."""
        file = folder / ARRAYS_FILE
        _require_archive(file)
        with _reading(file), np.load(file, allow_pickle=False) as found:
            arrays = dict(found)
        part = part_of("model", arrays)
        weights = None if part else _read_weights(folder / WEIGHTS_FILE)
        with _reading(file):
            return cls._of_arrays(arrays, part, weights)

    @classmethod
    def _of_arrays(
        cls, arrays: Arrays, model: Arrays, weights: Probabilistic | None
    ) -> StoredClassifier:
        features = (Feature(*map(str, each)) for each in arrays["features"])
        layout, classes = Layout(str(arrays["layout"]), tuple(features)), arrays["classes"]
        for name in ("center", "scale"):
            require_array("scaling", arrays[name], (len(layout.features),))
        if (
            classes.dtype.kind != "U"
            or classes.ndim != 1
            or len(set(classes)) < max(2, len(classes))
        ):
            raise ModelError("its classes are not names")
        laboratory = part_of("laboratory", arrays)
        if bool(laboratory) == bool(layout.traces):
            raise ModelError("its laboratory is missing, or not of its layout")
        found = read_model(layout, len(classes), model) if weights is None else weights
        return cls(
            str(arrays["species"]),
            layout,
            classes,
            found,
            Calibration.of_arrays(len(classes), part_of("calibration", arrays)),
            Reference.of_arrays(layout.measured, classes, part_of("reference", arrays)),
            Laboratory.of_arrays(layout.measured, len(classes), laboratory) if laboratory else None,
            arrays["center"],
            arrays["scale"],
            _screen_of(layout, part_of("screen", arrays)),
            _types_of(found, part_of("types", arrays)),
        )


def _screen_of(layout: Layout, arrays: Arrays) -> Screen | None:
    """The screen that is stored with a model of a layout, if any."""
    if not arrays:
        return None
    found = Screen.of_arrays(load_layout(str(arrays["layout"])), arrays)
    found.layout.within(layout)
    return found


def _types_of(model: Probabilistic, arrays: Arrays) -> TTypes | None:
    """The t-types that are stored with a model, if any."""
    if not arrays:
        return None
    discriminant = discriminant_of(model)
    if discriminant is None:
        raise ModelError("it has t-types, but no discriminant that knows them")
    return TTypes.of_arrays(len(discriminant.class_of), arrays)


def _read_weights(file: Path) -> Probabilistic:
    """A model of a library."""
    import skops.io

    _require_archive(file)
    with _reading(file):
        foreign = sorted(set(skops.io.get_untrusted_types(file=file)) - set(_TYPES))
        model: object = None if foreign else skops.io.load(file, trusted=list(_TYPES))
    if foreign:
        raise ModelError(
            f"{file} holds {foreign[0]}, which no model of crosspatch has; it is not loaded, "
            "because that could run code"
        )
    if not isinstance(model, Probabilistic):
        raise ModelError(f"{file} holds a {type(model).__name__}, not a trained model")
    return model


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """What is wrong with a file, as a ModelError that names it."""
    try:
        yield
    except MissingLibraryError:
        raise
    except ModelError as error:
        raise ModelError(f"{file} is damaged: {error}; train the model again") from error
    except Exception as error:  # damaged archives raise many kinds
        raise ModelError(f"{file} cannot be read: {in_words(error)}; train it again") from error


def _require_archive(file: Path) -> None:
    """Only a zip archive of sensible size; a pickle under this name is not opened."""
    if not zipfile.is_zipfile(file):
        raise ModelError(
            f"{file} is not a {file.suffix[1:]} file; a pickle would run code and is never read. "
            "Train the model again"
        )
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(item.file_size for item in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{file} is damaged: {in_words(error)}; train the model again") from error
    if size > _MAX_UNPACKED:
        raise ModelError(f"{file} would unpack to {size / 2**30:.0f} GiB; it is not loaded")
