"""What the shell completes: names that are known without importing what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crosspatch.species import SPECIES

#: What can be named as a cohort. Datasets know their names, but importing them takes seconds.
COHORT_NAMES = (
    *("auto", "allen", "simulated", "allen-mouse", "allen-human"),
    *("allen-cell-types-mouse", "allen-cell-types-human", "allen-human-l1"),
    *("allen-l23-mouse", "allen-l23-human", "scala-mouse-m1"),
)


def _completes(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Completes names that are looked up when they are asked for."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def one_of(*names: str) -> Callable[[str], list[str]]:
    """Completes these names."""
    return _completes(lambda: names)


def _models() -> Iterable[str]:
    from crosspatch.models.registry import MODEL_NAMES

    return MODEL_NAMES


def _protocols() -> Iterable[str]:
    from crosspatch.evaluation.protocols import PROTOCOLS

    return PROTOCOLS


def _tasks() -> Iterable[str]:
    from crosspatch.evaluation.protocols import TASKS

    return TASKS


complete_species = one_of(*sorted(SPECIES))
complete_cohort = one_of(*COHORT_NAMES)
complete_dataset = one_of(*sorted(SPECIES), *COHORT_NAMES[3:])
complete_model = _completes(_models)
complete_protocol = _completes(_protocols)
complete_task = _completes(_tasks)
