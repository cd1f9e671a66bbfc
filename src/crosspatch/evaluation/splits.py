"""Outer folds: which cells a model is tested on. Models never see how these are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import anndata
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from crosspatch.cohorts.cells import labelled
from crosspatch.cohorts.joining import without_dataset
from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import CohortError, EvaluationError
from crosspatch.evaluation.protocols import N_FOLDS, Protocol, Task

#: A dataset with fewer labelled cells is not scored.
_LEAST_TESTED = 10
#: Shuffles tried until every class is on both sides of every fold.
_ATTEMPTS = 100


@dataclass(frozen=True)
class Fold:
    """One division of the cells."""

    run: int  # counted from zero
    number: int
    train: NDArray[np.intp]  # row numbers
    test: NDArray[np.intp]
    seed: int  # seed of every model fitted on this fold
    run_seed: int  # seed of what the folds of the run share
    dataset: str = ""  # the dataset that is held out, where one is


def make_folds(
    y: ArrayLike, donors: ArrayLike, protocol: Protocol, task: Task, run: int, seed: int
) -> list[Fold]:
    """The folds of one run; runs derive their seeds from `seed`, that of the whole evaluation.

    EvaluationError if a class has too few cells or donors to be on both sides of every fold.
    """
    if protocol.by_dataset:
        raise EvaluationError(
            f"protocol '{protocol.name}' holds out whole datasets and makes no folds of cells",
            hint="use {protocol} donor",
        )
    y, donors = np.asarray(y), np.asarray(donors)
    _require_enough(y, donors, protocol)
    shared = derived_seed(seed, run, N_FOLDS)
    for attempt in range(_ATTEMPTS):
        # The first seed is the run's own; donors with many cells can spoil a shuffle.
        shuffle = derived_seed(seed, run) if not attempt else derived_seed(seed, run, 0, attempt)
        folds = [
            Fold(run, number, train, test, derived_seed(seed, run, number), shared)
            for number, (train, test) in enumerate(_splits(y, donors, protocol, task, shuffle))
        ]
        lacking = [
            (name, side, fold)
            for fold in folds
            for side, rows in (("training", fold.train), ("test", fold.test))
            for name in sorted(set(y) - set(y[rows]))
        ]
        if not lacking:
            return folds
    name, side, fold = lacking[0]
    raise EvaluationError(
        f"class '{name}' is missing from the {side} side of fold {fold.number} in run {run}, "
        f"however donors are shuffled: its {np.sum(y == name)} cells come from too few of them",
        hint="merge or leave out the class, or use another {seed}",
    )


def _splits(y: NDArray, donors: NDArray, protocol: Protocol, task: Task, seed: int) -> Iterator:
    if protocol.by_donor:
        splitter = StratifiedGroupKFold(N_FOLDS, shuffle=True, random_state=seed)
        return splitter.split(y, y, donors)
    if task.published_hold_out:
        return StratifiedShuffleSplit(1, test_size=1 / N_FOLDS, random_state=seed).split(y, y)
    return StratifiedKFold(N_FOLDS, shuffle=True, random_state=seed).split(y, y)


def _require_enough(y: NDArray, donors: NDArray, protocol: Protocol) -> None:
    """Check that every class has enough cells and donors to be on both sides of every fold."""
    classes, counts = np.unique(y, return_counts=True)
    if len(classes) < 2:
        there = f"{len(classes)} class ({', '.join(classes) or 'no cells'})"
        raise EvaluationError(f"the cohort has {there}; two are needed")
    for name, count in zip(classes, counts, strict=True):
        if count < N_FOLDS:
            raise EvaluationError(
                f"class '{name}' has {count} cells, fewer than the {N_FOLDS} folds",
                hint="merge or leave out the class",
            )
        n_donors = len(np.unique(donors[y == name]))
        if protocol.by_donor and n_donors < N_FOLDS:
            raise EvaluationError(
                f"class '{name}' has cells of {n_donors} donors, fewer than the {N_FOLDS} folds",
                hint="merge or leave out the class, or use {protocol} published, which ignores "
                "donors",
            )


@dataclass(frozen=True)
class HeldOutDataset:
    """A dataset that is held out; row numbers of a cohort."""

    dataset: str
    train: NDArray[np.intp]  # cells of the others, but of no donor that it shares
    test: NDArray[np.intp]


def hold_out(
    cohort: anndata.AnnData, y: ArrayLike, datasets: Sequence[str]
) -> tuple[list[HeldOutDataset], dict[str, str]]:
    """Each of some datasets held out of a labelled cohort, and why others cannot be.

    `y` are the classes of its cells. A dataset cannot be held out whose cells have no label, or
    where what is left lacks one of its classes, or has a class of a single donor.
    """
    y, named = np.asarray(y), cohort.obs["dataset"].astype(str).to_numpy()
    found: list[HeldOutDataset] = []
    skipped: dict[str, str] = {}
    for dataset in datasets:
        test = np.flatnonzero(named == dataset)
        if len(test) < _LEAST_TESTED:
            only = f"only {len(test)} of its cells have" if len(test) else "none of its cells has"
            skipped[dataset] = f"{only} a label"
            continue
        try:
            rest = without_dataset(cohort, dataset)
        except CohortError as error:
            skipped[dataset] = error.message
            continue
        train = cohort.obs_names.get_indexer(rest.obs_names)
        if why_not := _unlearnable(y[train], rest.obs["donor"].to_numpy(), set(y[test])):
            skipped[dataset] = why_not
        else:
            found.append(HeldOutDataset(dataset, train, test))
    return found, skipped


def held_out_datasets(
    cohorts: Mapping[str, anndata.AnnData],
    protocol: Protocol,
    alignment: str,
    wanted: Sequence[str] | None,
) -> tuple[dict[str, list[HeldOutDataset]], dict[str, str]]:
    """By species the datasets that are held out, and why others cannot be; see `hold_out`.

    Those that are wanted, or all; none with another protocol. An EvaluationError if one that is
    wanted is not there, or none can be held out.
    """
    if not protocol.by_dataset:
        if wanted:
            raise EvaluationError(
                f"protocol '{protocol.name}' holds out no datasets", hint="use {protocol} dataset"
            )
        return {}, {}
    parts: dict[str, list[HeldOutDataset]] = {}
    skipped: dict[str, str] = {}
    there: list[str] = []
    for species, cohort in cohorts.items():
        names = list(dict.fromkeys(cohort.obs["dataset"].astype(str)))
        there += names
        cells = labelled(cohort)
        y = load_taxonomy().align(cells.obs["subclass"].to_numpy(), alignment)
        parts[species], why_not = hold_out(
            cells, y, [n for n in names if not wanted or n in wanted]
        )
        skipped |= why_not
    if unknown := sorted(set(wanted or ()) - set(there)):
        raise EvaluationError(
            f"the cohorts have no dataset '{unknown[0]}' to hold out; they have: {', '.join(there)}"
        )
    if not any(parts.values()):
        why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise EvaluationError(
            f"no dataset can be held out: {why}", hint="join several with + in {cohort}"
        )
    return parts, skipped


def _unlearnable(y: NDArray, donors: NDArray, wanted: set[str]) -> str:
    """Why training cells do not do for classes that are wanted; empty if they do."""
    left = f"the {len(y)} cells left without it and its donors"
    if lacking := sorted(wanted - set(y)):
        return f"{left} have no {' or '.join(lacking)}"
    if len(set(y)) < 2:
        return f"{left} are all {y[0]}"
    alone = [name for name in sorted(set(y)) if len(set(donors[y == name])) < 2]
    return f"{left} have {alone[0]} of one donor only" if alone else ""


def dataset_folds(parts: Sequence[HeldOutDataset], run: int, seed: int) -> list[Fold]:
    """The folds of one run, one per dataset held out; runs differ in their seeds only."""
    shared = derived_seed(seed, run, len(parts))
    return [
        Fold(run, k, each.train, each.test, derived_seed(seed, run, k), shared, each.dataset)
        for k, each in enumerate(parts)
    ]


def derived_seed(*numbers: int) -> int:
    """A seed from several numbers; trailing zeros do not count."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] % 2**31)
