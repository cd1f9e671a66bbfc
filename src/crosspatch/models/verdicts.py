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


#: Where fewer interneurons of other laboratories look as excitatory, a cell is called none.
INTERNEURON_P = 0.03

#: Where fewer excitatory cells look as little excitatory, that is left out of the prediction set.
EXCITATORY_P = 1 - COVERAGE

#: Where fewer excitatory cells lie as far from both kinds, a cell is of neither.
KNOWN_P = 0.01


class Screened(NamedTuple):
    """Cells beside interneurons and excitatory cells of laboratories held out; shape (cells,) each.

    Shares are of the cells of all laboratories, which weigh the same, and nowhere lower than that
    of one by more than 0.03.
    """

    p_interneuron: NDArray[np.float64]  # of interneurons, that look at least as excitatory
    p_excitatory: NDArray[np.float64]  # of excitatory cells, that look at most as excitatory
    p_known: NDArray[np.float64]  # of excitatory cells, that lie at least as far from both kinds

    @property
    def interneuron(self) -> NDArray[np.bool_]:
        """Whether a cell may be an interneuron; where it can be neither, the likelier counts."""
        neither = (self.p_interneuron < INTERNEURON_P) & (self.p_excitatory < EXCITATORY_P)
        likelier = self.p_interneuron / INTERNEURON_P >= self.p_excitatory / EXCITATORY_P
        return np.where(neither, likelier, self.p_interneuron >= INTERNEURON_P)

    @property
    def excitatory(self) -> NDArray[np.bool_]:
        """Whether a cell may be excitatory."""
        return ~self.interneuron | (self.p_excitatory >= EXCITATORY_P)


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
    NOT_INTERNEURON = "not an interneuron"
    OUTSIDE = "outside reference"
    INSUFFICIENT = "insufficient data"

    @property
    def meaning(self) -> str:
        """What the verdict means, in words."""
        return _MEANINGS[self]


_MEANINGS = {
    Verdict.CONFIDENT: "one subclass in the 90 % prediction set",
    Verdict.AMBIGUOUS: "several subclasses in the set, or none, or it may be excitatory",
    Verdict.NOT_INTERNEURON: "excitatory; no subclass is given (3 % of interneurons are called so)",
    Verdict.OUTSIDE: "unlike the reference (p < 0.05; 5 % of true reference cells are called so)",
    Verdict.INSUFFICIENT: "what was measured says next to nothing of the subclass; none is given",
}


def verdicts(
    probabilities: NDArray[np.float64],
    sets: NDArray[np.bool_],
    p_reference: NDArray[np.float64],
    screened: Screened | None = None,
) -> NDArray[np.object_]:
    """The verdict on each cell, shape (cells,).

    Insufficient where there are no probabilities; else not an interneuron where it can be none and
    excitatory cells look so; else outside where the cell is unlike the reference; else confident
    where the most probable class is the only one in the prediction set (with limits of their own a
    less probable one can be) and the cell cannot be excitatory; else ambiguous.

    Parameters
    ----------
    probabilities : array, shape (cells, classes)
        NaN for cells of which too little is known.
    sets : array of bool, shape (cells, classes)
        The prediction sets that are reported.
    p_reference : array, shape (cells,)
    screened : Screened, optional
        Without it cells are taken to be interneurons.
    """
    enough = ~np.isnan(probabilities).any(axis=1)
    best = np.nan_to_num(probabilities).argmax(axis=1)
    alone = sets[np.arange(len(sets)), best] & (sets.sum(axis=1) == 1)
    outside, other = p_reference < OUTSIDE_P, np.zeros(len(sets), dtype=bool)
    if screened is not None:
        alone &= ~screened.excitatory
        other = ~screened.interneuron & (screened.p_known >= KNOWN_P)
        outside = outside | ~screened.interneuron
    found = np.empty(len(sets), dtype=object)  # np.full would make strings of them
    found[:] = Verdict.AMBIGUOUS
    found[alone] = Verdict.CONFIDENT
    found[outside] = Verdict.OUTSIDE
    found[other] = Verdict.NOT_INTERNEURON
    found[~enough] = Verdict.INSUFFICIENT
    return found
