"""Which transcriptomic subclass is this neuron? Patch-clamp in, subclass and uncertainty out."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crosspatch.cohorts.allen import load_allen as load_cohort
    from crosspatch.evaluation.benchmark import benchmark
    from crosspatch.prediction.predictor import predict
    from crosspatch.recordings.opening import open_recording

__version__ = version("crosspatch")
__all__ = ["__version__", "benchmark", "load_cohort", "open_recording", "predict"]

# Imported on first use, so that `import crosspatch` and the command line start fast.
_LAZY = {
    "load_cohort": ("crosspatch.cohorts.allen", "load_allen"),
    "benchmark": ("crosspatch.evaluation.benchmark", "benchmark"),
    "open_recording": ("crosspatch.recordings.opening", "open_recording"),
    "predict": ("crosspatch.prediction.predictor", "predict"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'crosspatch' has no attribute '{name}'")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
