"""Excitatory cells told from interneurons, whichever laboratory measured them.

Limits are those of cells of rigs that were held out whole (`crosspatch.models.screening`), so that
they hold in laboratories that no cell of the training set is from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosspatch.errors import ModelError
from crosspatch.features.layouts import Layout
from crosspatch.models.arrays import Arrays, part_of, require_array, under
from crosspatch.models.calibration import GROUPS, group_of
from crosspatch.models.gaussian import Gaussians
from crosspatch.models.physics import PhysicsInputs
from crosspatch.models.reference import Reference
from crosspatch.models.trees import Trees
from crosspatch.models.verdicts import Screened

#: What it tells apart, as the taxonomy calls them.
INTERNEURON, EXCITATORY = KINDS = "GABAergic", "Glutamatergic"

#: Values that are kept of each group.
GRID = 500


@dataclass(frozen=True, eq=False)
class Limits:
    """What held-back cells scored, by how much their features tell."""

    #: Shape (groups,). What the features of the cells of each group tell, at least.
    information: NDArray[np.float64]
    #: Shape (groups, grid), in rising order. Scores that at most a share of interneurons exceeds.
    interneurons: NDArray[np.float64]
    #: Shape (groups, grid). Scores that at most a share of excitatory cells stays below.
    excitatory: NDArray[np.float64]
    #: Shape (groups, grid). Distances that at most a share of excitatory cells exceeds.
    distances: NDArray[np.float64]

    def compare(
        self,
        score: NDArray[np.float64],
        distance: NDArray[np.float64],
        information: NDArray[np.float64],
    ) -> Screened:
        """Where cells lie among the held-back ones; all arrays are of shape (cells,)."""
        found = Screened(*(np.ones(len(score)) for _ in Screened._fields))
        group = group_of(information, self.information)
        for number in np.unique(group):
            here = group == number
            above = np.searchsorted(self.interneurons[number], score[here], side="left")
            below = np.searchsorted(self.excitatory[number], score[here], side="right")
            nearer = np.searchsorted(self.distances[number], distance[here], side="left")
            found.p_interneuron[here] = (1 + GRID - above) / (1 + GRID)
            found.p_excitatory[here] = (1 + below) / (1 + GRID)
            found.p_known[here] = (1 + GRID - nearer) / (1 + GRID)
        return found

    @classmethod
    def of_arrays(cls, arrays: Arrays) -> Limits:
        """What was stored, checked; a ModelError if it does not fit."""
        require_array("limits", arrays["information"], (GROUPS,))
        for name in ("interneurons", "excitatory", "distances"):
            require_array("limits", arrays[name], (GROUPS, GRID))
            if (np.diff(arrays[name], axis=1) < 0).any():
                raise ModelError("its limits are not in order")
        names = ("information", "interneurons", "excitatory", "distances")
        return cls(*(arrays[name] for name in names))


@dataclass(frozen=True, eq=False)
class Scorer:
    """How excitatory cells look: log odds, where both kinds are as frequent.

    The mean of two sums of trees. One has learnt from cells as they are, and tells those of known
    rigs apart. The other has learnt from cells blurred by two standard deviations in every
    coordinate, and relies on what a shift of the rig does not undo. Neither sees what is missing.
    """

    inputs: PhysicsInputs
    cells: Gaussians  # all as one class: what is expected of a missing value
    sharp: Trees
    blurred: Trees
    reference: Reference  # of both kinds

    @property
    def layout(self) -> Layout:
        """What it takes of a cell."""
        return self.inputs.layout

    def scores(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """Shape (cells,)."""
        Z = self.cells.filled(self.inputs.transform(X))
        return ((self.sharp.scores(Z) + self.blurred.scores(Z)) / 2)[:, 0]


class HeldRig(NamedTuple):
    """What was said of the cells of a rig that was held out; shares are from 0 to 1."""

    rig: str
    excitatory: int  # cells
    covered: float  # of the excitatory may be so
    called: float  # of them are called no interneurons
    interneurons: int
    lost: float  # of the interneurons are called none


@dataclass(frozen=True, eq=False)
class Screen:
    """A scorer, with the limits of what it says of cells of other laboratories."""

    scorer: Scorer
    limits: Limits
    datasets: tuple[str, ...]  # names of those that it has learnt from
    held_out: tuple[HeldRig, ...] = ()  # known where it was learnt, and not stored with it

    @property
    def layout(self) -> Layout:
        """What it takes of a cell."""
        return self.scorer.layout

    def compare(self, X: ArrayLike) -> Screened:
        """Cells of shape (cells, features), NaN where missing."""
        X = np.asarray(X)
        return self.limits.compare(self.scorer.scores(X), *self.scorer.reference.compare(X))

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        scorer = self.scorer
        parts = ("inputs", "cells", "sharp", "blurred", "reference")
        found = {
            "datasets": np.array(self.datasets, dtype=str),
            **under("limits", vars(self.limits)),
        }
        for part in parts:
            found |= under(part, getattr(scorer, part).arrays())
        return found

    @classmethod
    def of_arrays(cls, layout: Layout, arrays: Arrays) -> Screen:
        """What `arrays` gave, checked; a ModelError if it does not fit."""
        inputs = PhysicsInputs.of_arrays(layout, part_of("inputs", arrays))
        count = len(inputs.quantiles)
        scorer = Scorer(
            inputs,
            Gaussians.of_arrays(1, count, part_of("cells", arrays)),
            Trees.checked(count, 2, part_of("sharp", arrays)),
            Trees.checked(count, 2, part_of("blurred", arrays)),
            Reference.of_arrays(layout, np.array(KINDS), part_of("reference", arrays)),
        )
        names = tuple(map(str, arrays["datasets"]))
        return cls(scorer, Limits.of_arrays(part_of("limits", arrays)), names)
