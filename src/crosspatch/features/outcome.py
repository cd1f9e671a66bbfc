"""What a file gives: a cell's features, or the reason why not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CellFeatures:
    """One recording's features."""

    cell_id: str
    #: Shape (features,). In the order of the layout, NaN where missing.
    values: NDArray[np.float32]
    #: What is known of the recording, for the cohort table: species, donor, session, format,
    #: simulated, sha256, counts of sweeps, quality and notes.
    head: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A file that gave no cell."""

    reason: str
    #: Whether it may succeed when tried again: it took too long, or its process died.
    again: bool = False
