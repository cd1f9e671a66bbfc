"""Folds run in parallel, stored as they finish, and taken up again after a stop."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar
from typing import Protocol as TypeProtocol

import anndata
from joblib import Parallel, delayed, parallel_config
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from crosspatch.cohorts.cells import Cells, provenance
from crosspatch.cohorts.taxonomy import DEFAULT_ALIGNMENT, load_taxonomy
from crosspatch.errors import EvaluationError
from crosspatch.evaluation.protocols import Protocol
from crosspatch.evaluation.results import ResultFolder, Settings
from crosspatch.evaluation.splits import Fold
from crosspatch.features.layouts import Layout
from crosspatch.models.registry import ModelEntry
from crosspatch.telling import Progress
from crosspatch.versions import code_digest, library_versions

if TYPE_CHECKING:
    from crosspatch.models.sequence import Network


class Unit(TypeProtocol):
    """What `run_units` can do."""

    @property
    def name(self) -> str:
        """What its file is called."""


AnyUnit = TypeVar("AnyUnit", bound=Unit)
AnyOutcome = TypeVar("AnyOutcome", bound=Mapping[str, object])

# Rooms that the numbers of a fold come from.
_ROOMS = ("features", "cohorts", "models", "evaluation")


class RunKeywords(TypedDict, total=False):
    """The fields of `RunSettings`, for functions that take them as keywords."""

    protocol: str
    alignment: str
    seed: int
    jobs: int
    device: str
    out: str | Path | None
    progress: Progress | None


@dataclass(frozen=True)
class RunSettings:
    """How an evaluation is run; refused if a number is too small or the alignment is unknown."""

    protocol: str = "donor"  # ``donor``, ``published`` or ``quick``
    alignment: str = DEFAULT_ALIGNMENT  # reading of which mouse subclass counts as which shared one
    seed: int = 0
    jobs: int = 1  # worker processes; numbers do not depend on it
    device: str = "cpu"  # where the sequence models train, ``cpu`` or ``cuda``
    out: str | Path | None = None  # folder for the results; without it nothing is stored
    progress: Progress | None = None  # told how many parts are done, of how many

    def __post_init__(self) -> None:
        for name, value, least in (("jobs", self.jobs, 1), ("seed", self.seed, 0)):
            if value < least:
                raise EvaluationError("", hint=f"{{{name}}} must be at least {least}, not {value}")
        load_taxonomy().align([], self.alignment)  # raises if there is no such reading

    def require_device_for(self, entries: Iterable[ModelEntry]) -> None:
        """Check the device, if one of the models uses it; see `require_device`."""
        if any(entry.uses_device for entry in entries):
            require_device(self.device)

    def begun(
        self, settings: Settings, kind: Callable[[Path], ResultFolder] = ResultFolder
    ) -> ResultFolder | None:
        """The folder for the results, begun; None where nothing is stored."""
        return None if self.out is None else kind(Path(self.out)).begin(settings)


def require_device(device: str) -> None:
    """Check that torch can use a device."""
    import torch

    known = device == "cpu" or (
        re.fullmatch(r"cuda(:\d+)?", device)
        and torch.cuda.is_available()
        and int(device.partition(":")[2] or 0) < torch.cuda.device_count()
    )
    if not known:
        raise EvaluationError(f"torch has no device '{device}' here", hint="use {device} cpu")


def trains_together(device: str) -> bool:
    """Whether the networks of all folds are trained at once: one alone leaves a GPU idle."""
    return device.startswith("cuda")


def fold_key(
    entry: ModelEntry, protocol: Protocol, fold: Fold, target: str, source: str, device: str
) -> str:
    """Checksum of everything a fold's result depends on."""
    rows = hashlib.sha256(fold.train.tobytes() + b"|" + fold.test.tobytes()).hexdigest()
    where = device if entry.uses_device else ""
    return outcome_key(entry.name, protocol.name, fold.seed, rows, target, source, where)


def outcome_key(*parts: object) -> str:
    """Checksum of some values, of the code that numbers come from, and of the libraries."""
    everything = (*parts, code_digest(*_ROOMS), library_versions())
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def run_settings(
    kind: str, cohorts: Mapping[str, anndata.AnnData], **settings: object
) -> dict[str, object]:
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
    evaluate: Callable[[AnyUnit], AnyOutcome],
    run: RunSettings,
    folder: ResultFolder | None,
    prepare: Callable[[list[AnyUnit]], Iterable[AnyUnit]] = list,
) -> dict[str, AnyOutcome]:
    """Outcomes of all parts by name, in `run.jobs` processes.

    They are stored in the folder as they are done, and what is stored there is taken over: the name
    of a part is to be unlike for everything that its outcome depends on. `prepare` is given the
    parts that are left, and gives them what they share.
    """
    tell = run.progress or (lambda done, total: None)
    todo = {part.name: part for part in parts}
    total = len(todo)
    outcomes: dict[str, AnyOutcome] = {}
    if folder is not None:
        # Workers that are used again may be in another directory.
        folder = replace(folder, path=folder.path.absolute())
        outcomes = {name: stored for name in todo if (stored := folder.load(name)) is not None}
    tell(len(outcomes), total)
    left = [part for name, part in todo.items() if name not in outcomes]
    work = [delayed(_stored)(part, evaluate, folder) for part in prepare(left)]
    with parallel_config(backend="loky", inner_max_num_threads=1):
        workers = Parallel(run.jobs, return_as="generator_unordered", batch_size=1)
        for name, outcome in workers(work):
            outcomes[name] = outcome
            tell(len(outcomes), total)
    return outcomes


def _stored(
    part: AnyUnit, evaluate: Callable[[AnyUnit], AnyOutcome], folder: ResultFolder | None
) -> tuple[str, AnyOutcome]:
    outcome = evaluate(part)
    if folder is not None:
        folder.store(part.name, outcome)
    return part.name, outcome


def build_model(
    entry: ModelEntry, layout: Layout, protocol: Protocol, seed: int, device: str
) -> BaseEstimator:
    """A fresh model with the validation share of a protocol."""
    model = entry.build(layout, seed, device)
    if "validation_fraction" in model.get_params(deep=False):
        model.set_params(validation_fraction=protocol.validation)
    return model


def source_arguments(entry: ModelEntry, source: Cells, by_donor: bool = True) -> dict[str, NDArray]:
    """Cells of a second species, as a model that learns from it takes them in ``fit``."""
    more = {"groups_source": source.donors} if by_donor else {}
    if entry.takes_types:
        more["types_source"] = source.types
    return {"X_source": source.X, "y_source": source.y, **more}


def pretrained(
    entry: ModelEntry, layout: Layout, seed: int | None, device: str, source: Mapping[str, NDArray]
) -> dict[str, Network]:
    """What a model learns of a second species alone, as all its fits take it; on one core."""
    if not entry.pretrains:
        return {}
    model = entry.build(layout, seed, device)
    with one_core():
        return {"pretrained": model.pretrain(**source).cpu()}


@contextmanager
def one_core() -> Iterator[None]:
    """Keep every library that is loaded, torch too, on one core."""
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else 1
    with threadpool_limits(1), ExitStack() as after:
        if torch is not None:
            torch.set_num_threads(1)
            after.callback(torch.set_num_threads, threads)
        yield
