"""Folds run in parallel, stored as they finish, and taken up again after a stop."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any, TypeVar
from typing import Protocol as TypeProtocol

import anndata
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from crosspatch.cohorts.cells import provenance
from crosspatch.errors import EvaluationError
from crosspatch.evaluation.protocols import Protocol
from crosspatch.evaluation.results import (
    ResultFolder,
)
from crosspatch.evaluation.splits import Fold
from crosspatch.features.layouts import Layout
from crosspatch.models.registry import ModelEntry
from crosspatch.telling import Progress
from crosspatch.versions import code_digest, library_versions


class Unit(TypeProtocol):
    """What `run_units` can do."""

    @property
    def name(self) -> str:
        """What its file is called."""


AnyUnit = TypeVar("AnyUnit", bound=Unit)


# Rooms that the numbers of a fold come from.
_ROOMS = ("features", "cohorts", "models", "evaluation")


def require_device(device: str) -> None:
    """Check that torch can use a device.

    Raises
    ------
    EvaluationError
        If it cannot.
    """
    import torch

    if device == "cpu" or (
        re.fullmatch(r"cuda(:\d+)?", device)
        and torch.cuda.is_available()
        and int(device.partition(":")[2] or 0) < torch.cuda.device_count()
    ):
        return
    raise EvaluationError(f"torch has no device '{device}' here; use --device cpu")


def fold_key(
    entry: ModelEntry, protocol: Protocol, fold: Fold, target: str, source: str, device: str
) -> str:
    """Checksum of everything a fold's result depends on."""
    rows = hashlib.sha256(fold.train.tobytes() + b"|" + fold.test.tobytes()).hexdigest()
    where = device if entry.uses_device else ""
    who = (entry.name, protocol.name, fold.seed, rows, target, source, where)
    return checksum(*who)


def checksum(*parts: Any) -> str:
    """Checksum of some values, of the code that numbers come from, and of the libraries."""
    everything = (*parts, code_digest(*_ROOMS), library_versions())
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def run_settings(
    kind: str, cohorts: Mapping[str, anndata.AnnData], **settings: Any
) -> dict[str, Any]:
    """Settings of a result folder: what was asked for, on which cells, with which versions."""
    return {
        "kind": kind,
        "crosspatch": version("crosspatch"),
        **settings,
        "cohorts": {name: provenance(cohort) for name, cohort in cohorts.items()},
        "libraries": library_versions(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def run_units(
    parts: Sequence[AnyUnit],
    evaluate: Callable[[AnyUnit, ResultFolder | None], tuple[str, dict[str, Any]]],
    jobs: int,
    folder: ResultFolder | None,
    progress: Progress | None,
) -> dict[str, dict[str, Any]]:
    """Outcomes of all parts by name, on one core each; what is stored is taken over.

    Parameters
    ----------
    parts : sequence
        Each has a ``name`` that is unlike for everything its outcome depends on.
    evaluate : callable
        Takes a part and the folder, stores the outcome, and gives name and outcome.
    jobs : int
        Worker processes.
    folder : ResultFolder, optional
    progress : callable, optional
    """
    todo = {part.name: part for part in parts}
    total = len(todo)
    outcomes: dict[str, dict[str, Any]] = {}
    if folder is not None:
        outcomes = {name: stored for name in todo if (stored := folder.load(name)) is not None}
        todo = {name: part for name, part in todo.items() if name not in outcomes}
    if progress is not None:
        progress(len(outcomes), total)
    if folder is not None:  # workers that are used again may be in another directory
        folder = replace(folder, path=folder.path.absolute())
    with parallel_config(backend="loky", inner_max_num_threads=1):
        parallel = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
        for name, outcome in parallel(delayed(evaluate)(part, folder) for part in todo.values()):
            outcomes[name] = outcome
            if progress is not None:
                progress(len(outcomes), total)
    return outcomes


def build_model(
    entry: ModelEntry, layout: Layout, protocol: Protocol, seed: int, device: str
) -> Any:
    """A fresh model with the validation share of a protocol."""
    model = entry.build(layout, seed, device)
    if "validation_fraction" in model.get_params(deep=False):
        model.set_params(validation_fraction=protocol.validation)
    return model


@contextmanager
def one_core() -> Iterator[None]:
    """Keep every library that is loaded, torch too, on one core."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else 1
    with threadpool_limits(1):
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(threads)
