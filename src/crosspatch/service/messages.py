"""What goes to a worker, and what comes back: every request, answer and word in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crosspatch.errors import CrosspatchError
from crosspatch.service.settings import ServiceSettings

if TYPE_CHECKING:
    from crosspatch.recordings.reading_options import Reading
    from crosspatch.service.mapping_screen import Choosable, Columns
    from crosspatch.tables.mapping import Override


RECORDING, TABLE = "recording", "table"


@dataclass(frozen=True)
class Fault:
    """Why something could not be done; the fields are those of `CrosspatchError`."""

    message: str
    hint: str = ""
    code: str = CrosspatchError.code

    @property
    def words(self) -> str:
        """The message and what to do."""
        return CrosspatchError(self.message, self.hint).in_words()


# Requests


@dataclass(eq=False)
class GivenFile:
    """A file of an upload, and how it is read."""

    folder: Path  #: the upload's folder
    number: int  #: in the upload, from 1
    path: Path  #: where it is; the name has nothing of the user's
    label: str  #: its name as the user gave it, made harmless
    kind: str  #: ``recording`` or ``table``
    species: str | None  #: of cells whose file does not say
    reading: Reading  #: how recordings are read
    #: What the user chose of the columns of a table.
    choices: Mapping[str, Override] = field(default_factory=dict)
    sheet: str | None = None  #: what the user chose of the sheets of a workbook
    layer: str | None = None  #: the cortical layer of cells whose file does not say

    @property
    def parts(self) -> Path:
        """Where it is kept which of several cells a row is, and their electrodes."""
        return self.folder / f"parts-{self.number}.json"

    def recorded(self, part: int | str = 0) -> Path:
        """Where it is kept what was recorded of one of its cells."""
        return self.folder / f"recording-{self.number}-{part}.json"

    def traces(self, part: int = 0) -> Path:
        """Where the sweeps of one of its cells are kept."""
        return self.path.parent / f"cell-{part}" if part else self.path.parent

    def details(self, row: int | str) -> Path:
        """Where it is kept what is said of a cell."""
        return self.folder / f"details-{self.number}-{row}.json"

    def forget(self) -> None:
        """Delete what was said of its cells."""
        self.parts.unlink(missing_ok=True)
        for each in (self.recorded("*"), self.details("*")):
            for file in self.folder.glob(each.name):
                file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Prepare:
    """Load the models and the map; make them where they are not there yet. To `Ready`."""

    settings: ServiceSettings


@dataclass(frozen=True)
class FileRequest:
    """Something to be done with a file."""

    file: GivenFile


class Measure(FileRequest):
    """Keep a recording's sweeps (`Drawn`), measure it, predict and explain. To `Predicted`."""


class FindColumns(FileRequest):
    """Find out what the columns of a table are. To `Found`."""


class PredictTable(FileRequest):
    """Predict the cells of a table. To `Predicted`."""


@dataclass(frozen=True)
class Refuse(FileRequest):
    """Keep a row for a recording that hung or brought its process down. To `Predicted`."""

    fault: Fault


@dataclass(frozen=True)
class ExplainRow(FileRequest):
    """Explain one row of a table. To `Done`."""

    row: int


@dataclass(frozen=True)
class Simulate(FileRequest):
    """Simulate a recording or a table at the place of a file. To `Done`."""

    example: str


@dataclass(frozen=True)
class Export:
    """Write cells as csv, h5ad or report (html), as the ending of the file says. To `Done`."""

    out: Path
    files: tuple[GivenFile, ...]
    said: tuple[str, ...]  #: what was said of them
    unread: tuple[tuple[str, str], ...]  #: names of the files without any row, and why


WorkerRequest = Prepare | FileRequest | Export


# Said meanwhile


@dataclass(frozen=True)
class Line:
    """Something the operator of the server should read."""

    text: str


@dataclass(frozen=True)
class Training:
    """How far the training of default models is."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class Doing:
    """What is being done with a file, and how many of its rows are done."""

    stage: str
    done: int | None = None


@dataclass(frozen=True)
class StimulusSweeps:
    """How many sweeps of a kind of stimulus there are, are kept, and were rejected."""

    kind: str
    sweeps: int
    shown: int
    rejected: int


@dataclass(frozen=True)
class Drawn:
    """The sweeps of a recording can be drawn; it is not measured yet."""

    stimuli: tuple[StimulusSweeps, ...]
    simulated: bool


Told = Line | Training | Doing | Drawn


# Answers


@dataclass(frozen=True)
class MapPoints:
    """Cells of the reference on the map, column by column."""

    cell_id: list[str]
    species: list[str]
    subclass: list[str]
    x: list[float]
    y: list[float]


@dataclass(frozen=True)
class Ready:
    """The models of a worker."""

    crosspatch: str
    models: list[Mapping[str, object]]
    parameters: Mapping[str, object]
    columns: tuple[str, ...]  #: of the table of cells
    classes: tuple[str, ...]
    measures_recordings: bool
    features: list[Choosable]  #: features a column can be
    map: MapPoints | Fault  #: or why there is none

    @property
    def takes_layer(self) -> bool:
        """Whether a model takes the cortical layer."""
        return any(model["layer"] for model in self.models)


@dataclass(frozen=True)
class Found:
    """The columns of a table; None where they are the model's own features."""

    columns: Columns | None
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Predicted:
    """How many rows were predicted."""

    rows: int
    messages: tuple[str, ...]
    fault: Fault | None = None  #: why nothing was measured on a recording


@dataclass(frozen=True)
class Done:
    """What was asked for is there."""


#: It was no longer wanted.
STOPPED = Fault("stopped", code="stopped")

WorkerOutcome = Ready | Found | Predicted | Done | Fault


@dataclass(frozen=True)
class Answer:
    """What came of a request."""

    outcome: WorkerOutcome
    worn: bool = False  #: whether the process should be replaced
