"""What a file gives: a cell's features, or the reason why not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CellFeatures:
    """One recording's features.

    Attributes
    ----------
    cell_id : str
    values : array of float32, shape (features,)
        In the order of the layout, NaN where missing.
    head : dict
        What is known of the recording, for the cohort table: species, donor, session, format,
        simulated, sha256, counts of sweeps, quality and notes.
    """

    cell_id: str
    values: NDArray[np.float32]
    head: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A file that gave no cell.

    Attributes
    ----------
    reason : str
    again : bool
        Whether it may succeed when tried again: it took too long, or its process died.
    """

    reason: str
    again: bool = False
