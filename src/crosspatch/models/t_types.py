"""T-types: the level below subclasses, named only where the calibrated probability holds.

A linear discriminant knows its classes as made up of types (`crosspatch.models.plain`). What it
says of cells held back says how far its probabilities are to be trusted, and which types are
labelled as which others: neighbours are told apart badly, by features and by those who labelled
them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import ModelError
from crosspatch.models.arrays import Arrays, require_array, softmax
from crosspatch.models.calibration import group_of

#: Share of the named cells that are to be named rightly.
RIGHT = 0.9
#: Cells are calibrated apart by the share of features that they have: so many groups.
SHARES = 3


class NamedTypes(NamedTuple):
    """The t-types of cells; shape (cells,) each, NaN and empty where there is none."""

    best: NDArray[np.object_]  # the most probable t-type of the cell's subclass
    probability: NDArray[np.float64]
    runner_up: NDArray[np.object_]  # the next of that subclass
    runner_up_probability: NDArray[np.float64]
    named: NDArray[np.bool_]  # whether the first is probable enough to be named


@dataclass(frozen=True, eq=False)
class TTypes:
    """From what a discriminant says of types to calibrated probabilities of t-types."""

    taxonomy: NDArray[np.str_]  # shape (); whose t-types
    #: Shape (types,). T-types in the order of the discriminant; empty for rare ones taken together.
    names: NDArray[np.str_]
    #: Shape (groups,). Share of the features that cells of a group have, at least.
    shares: NDArray[np.float64]
    #: Shape (groups,). Factor of the logarithms of the discriminant's probabilities.
    sharpness: NDArray[np.float64]
    #: Shape (types, types). How probable each label is of a cell that is of a type by its features.
    labels: NDArray[np.float64]
    limit: NDArray[np.float64]  # shape (); how probable a named t-type is at least

    def probabilities(
        self, log_p: NDArray[np.float64], share: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Calibrated probabilities, shape (cells, types), from logarithms of the discriminant's."""
        sharp = self.sharpness[group_of(share, self.shares)]
        return softmax(sharp[:, None] * log_p) @ self.labels

    def of(
        self,
        log_p: NDArray[np.float64],
        share: NDArray[np.float64],
        allowed: NDArray[np.bool_],
        most: NDArray[np.float64],
    ) -> NamedTypes:
        """T-types of cells.

        Parameters
        ----------
        log_p : array, shape (cells, types)
            Logarithms of the discriminant's probabilities.
        share : array, shape (cells,)
            Share of the features that a cell has.
        allowed : array of bool, shape (cells, types)
            The types of the subclass that a cell is given.
        most : array, shape (cells,)
            Probability of that subclass: a t-type is no more probable.
        """
        p = np.where(allowed & (self.names != ""), self.probabilities(log_p, share), -1.0)
        best, chance = self._first(p)
        p[np.arange(len(p)), p.argmax(axis=1)] = -1.0
        second, its_chance = self._first(p)
        chance, its_chance = np.minimum(chance, most), np.minimum(its_chance, most)
        return NamedTypes(best, chance, second, its_chance, chance >= self.limit)

    def _first(self, p: NDArray[np.float64]) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
        """The most probable t-types and their probabilities; none where all are below zero."""
        place, highest = p.argmax(axis=1), p.max(axis=1)
        names = np.where(highest >= 0, self.names[place], "").astype(object)
        return names, np.where(highest >= 0, highest, np.nan)

    def arrays(self) -> dict[str, NDArray]:
        """All of it, to be stored."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def of_arrays(cls, types: int, arrays: Arrays) -> TTypes:
        """What `arrays` gave, checked; a ModelError if it does not fit so many types."""
        found = cls(**{each.name: arrays[each.name] for each in fields(cls)})
        for text, shape in ((found.taxonomy, ()), (found.names, (types,))):
            if text.dtype.kind != "U" or text.shape != shape:
                raise ModelError("its t-types are not names")
        for part in (found.shares, found.sharpness):
            require_array("t-types", part, (SHARES,))
        require_array("t-types", found.labels, (types, types))
        require_array("t-types", found.limit, ())
        if (np.diff(found.shares) < 0).any() or found.labels.min() < 0:
            raise ModelError("its t-types are not calibrated")
        return found
