"""Protocols and tasks: what is evaluated, on which folds, how often."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

from crosspatch.errors import EvaluationError


@dataclass(frozen=True)
class Protocol:
    """How cells are divided, and how often."""

    name: str
    runs: int  # repetitions with other folds
    #: Whether all cells of a donor stay on one side, in the inner validation split too.
    by_donor: bool
    #: Share of the training cells that the sequence models hold back for early stopping.
    validation: float
    about: str  # what a reader of the results must know
    #: Whether each dataset is held out as a whole, in place of 5 folds.
    by_dataset: bool = False


@dataclass(frozen=True)
class Task:
    """What is predicted from what."""

    name: str
    species: str  # species whose cells are predicted
    aligned: bool  # whether subclasses are mapped to the four shared ones
    #: Whether the published protocol holds out a fifth of the cells once a run (60/20/20) in place
    #: of 5 folds.
    published_hold_out: bool
    models: Sequence[str]  # models of a first look: one of each kind that tells most
    source: str | None = None  # species that transfer models learn from as well

    @property
    def needs(self) -> tuple[str, ...]:
        """Species whose cohorts it needs, the one that is predicted first."""
        return (self.species,) if self.source is None else (self.species, self.source)


_TEXT = (files("crosspatch.evaluation") / "data" / "protocols.toml").read_text(encoding="utf-8")
_DATA = tomllib.loads(_TEXT)

PROTOCOLS = {name: Protocol(name, **fields) for name, fields in _DATA["protocol"].items()}
TASKS = {name: Task(name, **fields) for name, fields in _DATA["task"].items()}

#: What the second species is worth, with few labelled cells; it stands by itself.
CURVE_TASK = replace(TASKS["transfer"], name="learning-curve")

N_FOLDS = 5


def protocol_named(name: str, runs: int | None = None) -> Protocol:
    """The protocol of this name, with another number of runs if given; else EvaluationError."""
    if name not in PROTOCOLS:
        raise EvaluationError(f"no protocol '{name}'; choose from: {', '.join(PROTOCOLS)}")
    found = PROTOCOLS[name]
    if runs is None or runs == found.runs:
        return found
    about = found.about.replace(f"{found.runs} runs", f"{runs} run{'s' * (runs > 1)}")
    return replace(found, runs=runs, about=about)


def task_named(name: str) -> Task:
    """The task of this name; EvaluationError if there is none."""
    if name not in TASKS:
        raise EvaluationError(f"no task '{name}'; choose from: {', '.join(TASKS)}")
    return TASKS[name]
