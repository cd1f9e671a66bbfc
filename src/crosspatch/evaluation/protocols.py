"""Protocols and tasks: what is evaluated, on which folds, how often."""

from __future__ import annotations

from dataclasses import dataclass, replace

from crosspatch.errors import EvaluationError
from crosspatch.species import HUMAN, MOUSE, SPECIES


@dataclass(frozen=True)
class Protocol:
    """How cells are divided, and how often."""

    name: str
    #: Repetitions with other folds.
    runs: int
    #: Whether all cells of a donor stay on one side, in the inner validation split too.
    by_donor: bool
    #: Share of the training cells that the sequence models hold back for early stopping.
    validation: float
    #: What a reader of the results must know.
    about: str


@dataclass(frozen=True)
class Task:
    """What is predicted from what."""

    name: str
    #: Species whose cells are predicted.
    species: str
    #: Species that transfer models learn from as well.
    source: str | None
    #: Whether subclasses are mapped to the four shared ones.
    aligned: bool
    #: Whether the published protocol holds out a fifth of the cells once a run (60/20/20) in place
    #: of 5 folds.
    published_hold_out: bool

    @property
    def needs(self) -> tuple[str, ...]:
        """Species whose cohorts it needs, the one that is predicted first."""
        return (self.species,) if self.source is None else (self.species, self.source)


#: How folds are made that keep the cells of a donor together.
BY_DONOR = "5 folds stratified and grouped by donor"

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("donor", 10, True, 0.2, f"{BY_DONOR}, 10 runs: no donor is on both sides"),
        Protocol("quick", 2, True, 0.2, f"{BY_DONOR}, 2 runs: a first look"),
        Protocol(
            "published",
            10,
            False,
            0.25,  # a fifth of all cells: 60/20/20
            "as published (arXiv 2603.11000), folds ignore the donor: CELLS OF ONE DONOR ARE ON "
            "BOTH SIDES, so these scores are too good for a new donor",
        ),
    )
}

TASKS = {
    task.name: task
    for task in (
        *(
            Task(name, name, None, aligned=each.aligned, published_hold_out=not each.aligned)
            for name, each in SPECIES.items()
        ),
        Task("transfer", HUMAN.name, MOUSE.name, aligned=True, published_hold_out=False),
    )
}

#: What the second species is worth, with few labelled cells; it stands by itself.
CURVE_TASK = replace(TASKS["transfer"], name="learning-curve")

N_FOLDS = 5


def protocol_named(name: str, runs: int | None = None) -> Protocol:
    """Look a protocol up.

    Parameters
    ----------
    name : str
    runs : int, optional
        In place of the protocol's own number.

    Raises
    ------
    EvaluationError
        If there is none of this name.
    """
    if name not in PROTOCOLS:
        raise EvaluationError(f"no protocol '{name}'; choose from: {', '.join(PROTOCOLS)}")
    found = PROTOCOLS[name]
    if runs is None or runs == found.runs:
        return found
    about = found.about.replace(f"{found.runs} runs", f"{runs} run{'s' * (runs > 1)}")
    return replace(found, runs=runs, about=about)


def task_named(name: str) -> Task:
    """Look a task up.

    Raises
    ------
    EvaluationError
        If there is none of this name.
    """
    if name not in TASKS:
        raise EvaluationError(f"no task '{name}'; choose from: {', '.join(TASKS)}")
    return TASKS[name]
