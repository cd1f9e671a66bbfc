"""What the JSON interface takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crosspatch.errors import RecordingError
from crosspatch.recordings.reading_options import Reading
from crosspatch.recordings.thresholds import THRESHOLDS
from crosspatch.service.predicted import Row
from crosspatch.service.uploads import RefusedUploadError, State
from crosspatch.species import SpeciesName

# A JSON number beyond is of no use anywhere here, and SQLite refuses it.
_MOST = 2**31
Number = Annotated[int, Field(ge=0, lt=_MOST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Wanted(BaseModel):
    """Something that is asked for, and nothing else."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """What is wrong, and what to do."""

    error: str


_Amplitudes = Annotated[list[Finite], Field(min_length=1, max_length=10_000)]
_Name = Annotated[str, Field(min_length=1, max_length=200)]
#: A name that a form may leave empty: then it is not given.
_MaybeName = Annotated[str, Field(max_length=200), AfterValidator(lambda s: s.strip() or None)]


class HowRead(_Wanted):
    """How recordings are read, where a file does not say something or says it wrong."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    quality: str = Field(
        "default",
        max_length=1000,
        description=f"Thresholds: {', '.join(THRESHOLDS)}, or limits: drift=5,access_high=30.",
    )
    step_start: Finite | None = Field(None, description="Of the step, s from the start of a sweep.")
    step_end: Finite | None = Field(None, description="s")
    amplitudes: _Amplitudes | None = Field(None, description="pA, one per sweep, or one for all.")
    clamp: Literal["current"] | None = Field(
        None, description="Take the sweeps for current clamp, whatever the file says."
    )
    channel: _Name | None = Field(None, description="Name or number of the potential's input.")
    electrode: _Name | None = Field(None, description="Name or number of the electrode.")
    junction_potential: Finite = Field(
        0.0, description="mV for which the potentials are corrected already; it is added back."
    )
    offset_mv: Finite = Field(0.0, description="mV by which the potentials are too high.")

    def as_reading(self) -> Reading:
        """The same, checked; refused where it cannot be."""
        try:
            return Reading(**self.model_dump(include=set(HowRead.model_fields)))
        except RecordingError as error:
            raise RefusedUploadError(error.message, 422, error.hint) from error


class NewBatch(HowRead):
    """Files that belong together, and how they are read."""

    species: SpeciesName | None = Field(
        None, description="Of cells whose file does not say; null: judged by both models."
    )
    layer: _MaybeName | None = Field(
        None, description="Cortical layer, such as 2/3, of cells whose file does not say."
    )


class File(BaseModel):
    """A file of a batch and how far it is."""

    model_config = ConfigDict(from_attributes=True)

    file: int = Field(validation_alias="number")
    name: str = Field(validation_alias="label")
    kind: Literal["recording", "table"]
    state: State = Field(
        description="receiving, waiting, working; columns: they must be confirmed; done, failed, "
        "cancelled"
    )
    stage: str = Field(description="What is being done.")
    bytes: int = Field(validation_alias="size")
    rows: int = Field(description="Predicted rows.")
    reason: str | None = Field(description="Why it failed.")
    messages: list[str] = Field(description="What was taken for what, and what is odd.")


class BatchState(BaseModel):
    """A batch and its files."""

    model_config = ConfigDict(from_attributes=True)

    batch: str = Field(validation_alias="id")
    url: str = Field(description="The batch's page, for a browser.")
    species: str | None
    layer: str | None
    reading: HowRead
    expires: datetime
    finished: bool = Field(description="Whether nothing more happens by itself.")
    files: list[File]


class ColumnChoice(_Wanted):
    """What a column is."""

    feature: str = Field(
        max_length=200, description="A feature, ignore, cell_id, species, or layer."
    )
    unit: str | None = Field(None, max_length=40)


class Choices(_Wanted):
    """What columns of a table are; those that are not named stay as they were recognised."""

    columns: dict[str, ColumnChoice] = Field(default_factory=dict, max_length=20_000)
    sheet: _Name | None = Field(
        None, description="Of a workbook, name or number; null: that with the most features."
    )
    predict: bool = Field(False, description="Whether to predict with them at once.")


class CellList(BaseModel):
    """Predicted cells."""

    total: int = Field(description="Of all that were asked for, on all pages.")
    cells: list[Row]


class CellDetails(BaseModel):
    """What is said of a cell, and why; and what was recorded, null for a row of a table."""

    details: dict[str, object]
    recording: dict[str, object] | None


class AboutServer(BaseModel):
    """The models and the limits of this server."""

    crosspatch: str
    models: list[dict[str, object]]
    parameters: dict[str, object]
    limits: dict[str, float]
