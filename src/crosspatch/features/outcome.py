"""What a file gives: a cell's features, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

import numpy as np
from numpy.typing import NDArray

from crosspatch.errors import CrosspatchError

if TYPE_CHECKING:
    from crosspatch.recordings.model import Recording


class CellHead(TypedDict, total=False):
    """What is known of a recording, for the cohort table; `Recorded` and `CellQuality` say more."""

    species: str | None
    donor: str | None
    session: str | None
    location: str | None
    simulated: bool
    format: str
    electrode: str | None  # of several in the file
    sweeps: int
    sweeps_rejected: int
    families_missing: str  # Names, separated by commas
    qc_passed: bool
    qc_reasons: str
    seal: float
    access_resistance: float
    bridge_error: float
    notes: Sequence[str]
    sha256: str
    recording_source: str
    file_bytes: int  # of a file of the archive: its size, and what it took to measure it
    bytes_read: int
    requests: int


@dataclass(frozen=True)
class CellFeatures:
    """One recording's features."""

    cell_id: str
    #: Shape (features,). In the order of the layout, NaN where missing.
    values: NDArray[np.float32]
    head: CellHead = field(default_factory=CellHead)

    @property
    def electrode(self) -> str | None:
        """Of several in the file, the one of this cell."""
        return self.head.get("electrode")


@dataclass(frozen=True)
class Failure:
    """A file, or a cell of several in it, that gave no features."""

    message: str
    #: Whether it may succeed when tried again: it took too long, or its process died.
    again: bool = False
    hint: str = ""  # what to do, as `crosspatch.errors.CrosspatchError` has it
    cell_id: str = ""  # of a file that was opened
    electrode: str | None = None
    species: str | None = None  # as the file says

    @classmethod
    def of(
        cls, error: CrosspatchError, cell: Recording | None = None, *, again: bool = False
    ) -> Failure:
        """What an error says, in one line, of a file or a cell of it."""
        message = " ".join(error.message.split())
        if cell is None:
            return cls(message, again, error.hint)
        species = cell.recorded.species
        return cls(message, again, error.hint, cell.cell_id, cell.electrode, species)

    @property
    def error(self) -> CrosspatchError:
        """The same as an error, which can spell the hint."""
        return CrosspatchError(self.message, self.hint)

    @property
    def reason(self) -> str:
        """What is wrong and what to do, in words."""
        return str(self.error)


#: What a file gives: its cells, of which some may have no features; or why it gives none.
Outcomes = Sequence[CellFeatures | Failure]
