"""What is concluded about a cell: one rule, for prediction and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass

from typing import NamedTuple

#: Share of new cells whose true class is to be in their prediction set.
COVERAGE = 0.9


class Judgement(NamedTuple):
    """What a calibrated model says of cells; NaN and False where a cell has too little.

    Attributes
    ----------
    probabilities : array, shape (cells, classes)
    sets : array of bool, shape (cells, classes)
        Prediction sets whose coverage holds over all cells.
    class_sets : array of bool, shape (cells, classes)
        Prediction sets whose coverage holds for the cells of every class.
    p_reference : array, shape (cells,)
        p-value of the test that the cell is one of the reference's.
    enough : array of bool, shape (cells,)
        Whether it has at least `MINIMUM_COMPLETENESS` of the layout.
    """

    probabilities: NDArray[np.float64]
    sets: NDArray[np.bool_]
    class_sets: NDArray[np.bool_]
    p_reference: NDArray[np.float64]
    enough: NDArray[np.bool_]


CONFIDENT = "confident"


AMBIGUOUS = "ambiguous"


OUTSIDE = "outside reference"


INSUFFICIENT = "insufficient data"


#: Verdicts, and what each means.
VERDICTS = {
    CONFIDENT: "one subclass in the 90 % prediction set",
    AMBIGUOUS: "several subclasses in the set, or none",
    OUTSIDE: "unlike the reference (p < 0.05; 5 % of true reference cells are called so)",
    INSUFFICIENT: "less than a quarter of the features; no subclass is given",
}
