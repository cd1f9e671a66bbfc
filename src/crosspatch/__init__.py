"""Which transcriptomic subclass is this neuron? Patch-clamp in, subclass and uncertainty out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from crosspatch.extras import name_missing_libraries

if TYPE_CHECKING:
    from crosspatch.cohorts.labelled import load_labelled
    from crosspatch.cohorts.loading import load_cohort
    from crosspatch.cohorts.summary import describe
    from crosspatch.errors import (
        CohortError,
        CrosspatchError,
        EvaluationError,
        LayoutError,
        MissingLibraryError,
        ModelError,
        NetworkError,
        RecordingError,
        TaxonomyError,
    )
    from crosspatch.evaluation.benchmark import benchmark
    from crosspatch.features.extraction import extract_file as extract
    from crosspatch.models.artifact import load as load_model
    from crosspatch.models.registry import estimator
    from crosspatch.models.verdicts import Verdict
    from crosspatch.prediction.explained import explain
    from crosspatch.prediction.pipeline import predict
    from crosspatch.prediction.prediction import Prediction
    from crosspatch.prediction.training import train
    from crosspatch.prediction.validating import validate
    from crosspatch.recordings.opening import open_recording
    from crosspatch.recordings.reading_options import Reading

    __version__: str

name_missing_libraries()

# Imported on first use, so that `import crosspatch` and the command line start fast.
_PLACES = {
    "open_recording": "recordings.opening.open_recording",
    "Reading": "recordings.reading_options.Reading",
    "extract": "features.extraction.extract_file",
    "load_cohort": "cohorts.loading.load_cohort",
    "describe": "cohorts.summary.describe",
    "load_labelled": "cohorts.labelled.load_labelled",
    "benchmark": "evaluation.benchmark.benchmark",
    "estimator": "models.registry.estimator",
    "train": "prediction.training.train",
    "load_model": "models.artifact.load",
    "predict": "prediction.pipeline.predict",
    "validate": "prediction.validating.validate",
    "explain": "prediction.explained.explain",
    "Prediction": "prediction.prediction.Prediction",
    "Verdict": "models.verdicts.Verdict",
}

__all__ = [
    "CohortError",
    "CrosspatchError",
    "EvaluationError",
    "LayoutError",
    "MissingLibraryError",
    "ModelError",
    "NetworkError",
    "Prediction",
    "Reading",
    "RecordingError",
    "TaxonomyError",
    "Verdict",
    "__version__",
    "benchmark",
    "describe",
    "estimator",
    "explain",
    "extract",
    "load_cohort",
    "load_labelled",
    "load_model",
    "open_recording",
    "predict",
    "train",
    "validate",
]


_PLACES |= {name: f"errors.{name}" for name in __all__ if name.endswith("Error")}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version  # a tenth of the command line's start

        return version("crosspatch")
    if name not in _PLACES:
        raise AttributeError(f"module 'crosspatch' has no attribute '{name}'")
    module, _, attribute = _PLACES[name].rpartition(".")
    return getattr(import_module(f"crosspatch.{module}"), attribute)


def __dir__() -> list[str]:
    return __all__
