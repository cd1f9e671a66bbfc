"""What is concluded about a cell: one rule and one enum, for prediction and evaluation."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Share of new cells whose true class is to be in their prediction set.
COVERAGE = 0.9

#: A cell whose features tell less of the class is given none; see
#: `crosspatch.models.reference.Compared`. Resting potential alone tells 0.00 to 0.01, with input
#: resistance and time constant 0.14 to 0.16 (docs/choices.md).
MINIMUM_INFORMATION = 0.1

#: A cell with a smaller p-value is called outside; so are this many true cells of the reference.
OUTSIDE_P = 0.05


class Judgement(NamedTuple):
    """What a calibrated model says of cells; NaN and False where a cell has too little."""

    probabilities: NDArray[np.float64]  # shape (cells, classes)
    #: Shape (cells, classes). Prediction sets whose coverage holds over all cells.
    sets: NDArray[np.bool_]
    #: Shape (cells, classes). Prediction sets whose coverage holds for the cells of every class.
    class_sets: NDArray[np.bool_]
    #: Shape (cells,). p-value of the test that the cell is one of the reference's.
    p_reference: NDArray[np.float64]
    #: Shape (cells,). Whether its features tell enough of the class for one to be given.
    enough: NDArray[np.bool_]


class Verdict(StrEnum):
    """What is concluded about a cell.

    Examples
    --------
    >>> import crosspatch
    >>> crosspatch.Verdict("confident").meaning
    'one subclass in the 90 % prediction set'
    """

    CONFIDENT = "confident"
    AMBIGUOUS = "ambiguous"
    OUTSIDE = "outside reference"
    INSUFFICIENT = "insufficient data"

    @property
    def meaning(self) -> str:
        """What the verdict means, in words."""
        return _MEANINGS[self]


_MEANINGS = {
    Verdict.CONFIDENT: "one subclass in the 90 % prediction set",
    Verdict.AMBIGUOUS: "several subclasses in the set, or none",
    Verdict.OUTSIDE: "unlike the reference (p < 0.05; 5 % of true reference cells are called so)",
    Verdict.INSUFFICIENT: "what was measured says next to nothing of the subclass; none is given",
}


def verdicts(
    probabilities: NDArray[np.float64], sets: NDArray[np.bool_], p_reference: NDArray[np.float64]
) -> NDArray[np.object_]:
    """The verdict on each cell, shape (cells,).

    Insufficient where there are no probabilities; else outside where the cell is unlike the
    reference; else confident where the most probable class is the only one in the prediction set
    (with limits of their own a less probable one can be); else ambiguous.

    Parameters
    ----------
    probabilities : array, shape (cells, classes)
        NaN for cells of which too little is known.
    sets : array of bool, shape (cells, classes)
        The prediction sets that are reported.
    p_reference : array, shape (cells,)
    """
    enough = ~np.isnan(probabilities).any(axis=1)
    best = np.nan_to_num(probabilities).argmax(axis=1)
    alone = sets[np.arange(len(sets)), best] & (sets.sum(axis=1) == 1)
    found = np.empty(len(sets), dtype=object)  # np.full would make strings of them
    found[:] = Verdict.AMBIGUOUS
    found[alone] = Verdict.CONFIDENT
    found[p_reference < OUTSIDE_P] = Verdict.OUTSIDE
    found[~enough] = Verdict.INSUFFICIENT
    return found
