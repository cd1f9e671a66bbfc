"""The JSON interface, so that a rig can ask right after a recording."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect

from crosspatch.recordings.quality import THRESHOLDS
from crosspatch.service.jobs import Jobs
from crosspatch.service.predicted import CHOICES, INNER, SORTS
from crosspatch.service.predicted import Query as Which
from crosspatch.service.uploads import RefusedUploadError, State, Upload, UploadedFile
from crosspatch.species import SpeciesName

PREFIX = "/api/v1"

_MEDIA = {"csv": "text/csv; charset=utf-8", "h5ad": "application/x-hdf5", "html": "text/html"}

# A JSON number beyond is of no use anywhere here, and SQLite refuses it.
_MOST = 2**31

Number = Annotated[int, Field(ge=0, lt=_MOST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Problem(BaseModel):
    """What is wrong, and what to do."""

    error: str


class NewBatch(BaseModel):
    """Files that belong together, and how they are read."""

    model_config = ConfigDict(extra="forbid")

    species: SpeciesName | None = Field(
        None, description="Of cells whose file does not say; null: judged by both models."
    )
    quality: str = Field(
        "default", max_length=40, description=f"Thresholds: {', '.join(THRESHOLDS)}."
    )


class File(BaseModel):
    """A file of a batch and how far it is."""

    file: int
    name: str
    kind: Literal["recording", "table"]
    state: State = Field(
        description="receiving, waiting, working; columns: they must be confirmed; done, failed, "
        "cancelled"
    )
    stage: str = Field(description="What is being done.")
    bytes: int
    rows: int = Field(description="Predicted rows.")
    reason: str | None = Field(description="Why it failed.")
    messages: list[str] = Field(description="What was taken for what, and what is odd.")


class BatchState(BaseModel):
    """A batch and its files."""

    batch: str
    url: str = Field(description="The batch's page, for a browser.")
    species: str | None
    quality: str
    expires: datetime
    finished: bool = Field(description="Whether nothing more happens by itself.")
    files: list[File]


class ColumnChoice(BaseModel):
    """What a column is."""

    model_config = ConfigDict(extra="forbid")

    feature: str = Field(max_length=200, description="A feature, ignore, cell_id, or species.")
    unit: str | None = Field(None, max_length=40)


class Choices(BaseModel):
    """What columns of a table are; those that are not named stay as they were recognised."""

    model_config = ConfigDict(extra="forbid")

    columns: dict[str, ColumnChoice] = Field(default_factory=dict, max_length=20_000)
    predict: bool = Field(False, description="Whether to predict with them at once.")


class TableColumn(BaseModel):
    """A column and what became of it."""

    name: str
    values: list[str]
    status: str
    feature: str | None
    unit: str | None
    why: str
    candidates: list[str]


class Columns(BaseModel):
    """The columns of a table."""

    columns: list[TableColumn]
    missing: list[str] = Field(description="Features that no column gives.")
    rows: int = Field(description="How many rows were looked at.")


class Step(BaseModel):
    """A step of current, where a recording has no command."""

    model_config = ConfigDict(extra="forbid")

    start: Finite = Field(description="s from the start of a sweep")
    end: Finite = Field(description="s")
    amplitudes: list[Finite] = Field(
        min_length=1, max_length=10_000, description="pA, one a sweep, or one for all"
    )


class CellList(BaseModel):
    """Predicted cells."""

    total: int = Field(description="Of all that were asked for, on all pages.")
    cells: list[dict[str, Any]]


class CellDetails(BaseModel):
    """What is said of a cell, and why; and what was recorded, null for a row of a table."""

    details: dict[str, Any]
    recording: dict[str, Any] | None


class Signal(BaseModel):
    """Samples at even times; where many fall together, their lowest and highest value in turn."""

    t0: float = Field(description="s")
    dt: float = Field(description="s")
    values: list[float | None]


class SweepTrace(BaseModel):
    """A sweep; voltage in mV, current in pA."""

    number: int
    amplitude: float | None = Field(description="pA")
    passed: bool
    reasons: list[str]
    voltage: Signal
    current: Signal


class About(BaseModel):
    """The models and the limits of this server."""

    crosspatch: str
    models: list[dict[str, Any]]
    parameters: dict[str, Any]
    limits: dict[str, float]


class MapPoints(BaseModel):
    """Cells of the reference on the map, column by column."""

    cell_id: list[str]
    species: list[str]
    subclass: list[str]
    x: list[float]
    y: list[float]


def jobs_of(request: Request) -> Jobs:
    """The service's jobs."""
    jobs: Jobs = request.app.state.jobs
    return jobs


def batch_of(batch: str, request: Request) -> Upload:
    """The batch that is named in the path."""
    return jobs_of(request).batches.get(batch)


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


def filter_of(
    text: Annotated[str, Query(max_length=200)] = "",
    verdict: Annotated[str, Query(max_length=200)] = "",
    subclass: Annotated[str, Query(max_length=200)] = "",
    species: Annotated[str, Query(max_length=200)] = "",
) -> Which:
    """Which cells are asked for."""
    return Which(text, dict(zip(CHOICES, (verdict, subclass, species), strict=True)))


TheFilter = Annotated[Which, Depends(filter_of)]
TheJobs = Annotated[Jobs, Depends(jobs_of)]
TheBatch = Annotated[Upload, Depends(batch_of)]


def file_state(upload: UploadedFile) -> File:
    """A file as the interface shows it."""
    return File(
        file=upload.number,
        name=upload.label,
        kind="recording" if upload.kind == "recording" else "table",
        state=upload.state,
        stage=upload.stage,
        bytes=upload.size,
        rows=upload.rows,
        reason=upload.reason,
        messages=list(upload.messages),
    )


def batch_state(batch: Upload) -> BatchState:
    """A batch as the interface shows it."""
    with batch.lock:
        return BatchState(
            batch=batch.id,
            url=f"/batches/{batch.id}",
            species=batch.species,
            quality=batch.quality,
            expires=datetime.fromtimestamp(batch.expires, UTC),
            finished=not batch.busy,
            files=[file_state(each) for each in batch.uploads.values()],
        )


_NOT_THERE = _problems(404)

router = APIRouter(
    prefix=PREFIX,
    responses=_problems(400, 401, 403, 413, 422),
)


@router.get("/about")
def about(jobs: TheJobs) -> About:
    """The models and the limits of this server."""
    header, settings = jobs.about["header"], jobs.settings
    return About(
        crosspatch=header["crosspatch"],
        models=header["models"],
        parameters=header["parameters"],
        limits={
            "bytes_of_a_file": settings.upload,
            "files_of_a_batch": settings.files,
            "rows_of_a_table": settings.rows,
            "seconds_of_a_file": settings.seconds,
            "hours_kept": settings.keep,
        },
    )


@router.get("/map", responses=_NOT_THERE)
def reference_map(jobs: TheJobs) -> MapPoints:
    """The reference map: UMAP of the cells of both species."""
    points = jobs.about["map"]
    if "why" in points:
        raise HTTPException(404, points["why"])
    return MapPoints(**points)


@router.post("/batches", status_code=201, responses=_problems(422, 503))
def new_batch(jobs: TheJobs, wanted: NewBatch) -> BatchState:
    """Begin a batch of files."""
    return batch_state(jobs.new(wanted.species, wanted.quality))


@router.get("/batches/{batch}", responses=_NOT_THERE)
def get_batch(batch: TheBatch) -> BatchState:
    """How far a batch is."""
    return batch_state(batch)


@router.delete("/batches/{batch}", status_code=204, responses=_NOT_THERE)
def delete_batch(jobs: TheJobs, batch: TheBatch) -> None:
    """Stop what is done for a batch, and delete its files and results."""
    jobs.remove(batch)


@router.post(
    "/batches/{batch}/files",
    status_code=201,
    responses=_problems(404, 408, 409, 413, 415, 422, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def upload_file(
    request: Request,
    jobs: TheJobs,
    batch: TheBatch,
    name: Annotated[
        str,
        Query(
            min_length=1,
            max_length=1000,
            description="What the file is called; its ending says what it is: .nwb, .abf, .csv, "
            ".tsv, .txt, .csv.gz, .tsv.gz, .xlsx, .xlsm, .parquet, .h5ad.",
        ),
    ],
    columns: Annotated[
        Literal["automatic", "ask"],
        Query(description="Whether a table's columns are shown before anything is predicted."),
    ] = "automatic",
) -> File:
    """Upload a file: its bytes are the body. Reading and predicting begin at once."""
    length = request.headers.get("content-length", "")
    upload = await jobs.receive(
        batch,
        name,
        _body(request),
        length=int(length) if length.isdecimal() else None,
        confirm=columns == "ask",
    )
    return file_state(upload)


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise RefusedUploadError("the connection ended before the file did", 400) from None


@router.post(
    "/batches/{batch}/examples/{example}", status_code=201, responses=_problems(404, 413, 507)
)
def add_example(jobs: TheJobs, batch: TheBatch, example: str) -> File:
    """Try a simulated recording (mouse-pvalb, mouse-sst, human-lamp5) or table (table)."""
    return file_state(jobs.example(batch, example))


@router.get("/batches/{batch}/files/{file}", responses=_NOT_THERE)
def get_file(batch: TheBatch, file: Number) -> File:
    """How far a file is."""
    return file_state(batch.upload(file))


@router.delete("/batches/{batch}/files/{file}", status_code=204, responses=_NOT_THERE)
def delete_file(jobs: TheJobs, batch: TheBatch, file: Number) -> None:
    """Stop what is done with a file; delete a finished one and its results."""
    jobs.cancel(batch, batch.upload(file))


@router.get("/batches/{batch}/files/{file}/columns", responses=_problems(404, 409))
def get_columns(batch: TheBatch, file: Number) -> Columns:
    """What became of the columns of a table."""
    found = batch.upload(file).columns
    if found is None:
        raise HTTPException(409, "it is no table whose columns are known yet")
    return Columns.model_validate(found)


@router.put("/batches/{batch}/files/{file}/columns", responses=_problems(404, 409, 422, 503))
def put_columns(jobs: TheJobs, batch: TheBatch, file: Number, choices: Choices) -> Columns:
    """Say what columns are; the answer is what becomes of all of them then."""
    upload = batch.upload(file)
    given = {name: each.model_dump() for name, each in choices.columns.items()}
    found = jobs.choose_columns(batch, upload, given, go=choices.predict)
    return Columns.model_validate(found)


@router.put(
    "/batches/{batch}/files/{file}/step", status_code=204, responses=_problems(404, 409, 422)
)
def put_step(jobs: TheJobs, batch: TheBatch, file: Number, step: Step) -> None:
    """Say what was injected, where a recording has no command; it is measured again."""
    jobs.describe_step(batch, batch.upload(file), step.start, step.end, step.amplitudes)


@router.get("/batches/{batch}/cells", responses=_NOT_THERE)
def get_cells(
    jobs: TheJobs,
    batch: TheBatch,
    which: TheFilter,
    sort: Annotated[str, Query(description=f"One of {', '.join(SORTS)}.", max_length=40)] = "",
    descending: bool = False,
    offset: Annotated[int, Query(ge=0, lt=_MOST)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> CellList:
    """The predicted cells of a batch."""
    which = replace(which, sort=sort, descending=descending, offset=offset, limit=limit)
    total, cells = jobs.results(batch).select(which)
    return CellList(total=total, cells=[cell_row(each) for each in cells])


def cell_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row of results as the interface shows it."""
    shown = {key: value for key, value in row.items() if key not in INNER}
    return shown | {"species_known": bool(row["species_known"])}


@router.get("/batches/{batch}/cells/{file}/{row}", responses=_problems(404, 409, 503))
def get_cell(jobs: TheJobs, batch: TheBatch, file: Number, row: Number) -> CellDetails:
    """One cell: probabilities, what each family spoke for, its values among the reference."""
    return CellDetails(**jobs.details(batch, file, row))


@router.get("/batches/{batch}/files/{file}/sweeps", responses=_NOT_THERE)
def get_sweeps(
    jobs: TheJobs,
    batch: TheBatch,
    file: Number,
    stimulus: Annotated[str, Query(max_length=100, description="long square, ramp …")],
    start: Annotated[float | None, Query(description="s", ge=0, allow_inf_nan=False)] = None,
    end: Annotated[float | None, Query(description="s", ge=0, allow_inf_nan=False)] = None,
    stretches: Annotated[int, Query(ge=10, le=5000)] = 600,
) -> list[SweepTrace]:
    """Sweeps, thinned to the lowest and highest value of so many stretches each."""
    found = jobs.sweeps(batch, file, stimulus, start, end, stretches)
    return [SweepTrace(**each) for each in found]


def _download(jobs: Jobs, batch: Upload, format_: str) -> FileResponse:
    file: Path = jobs.export(batch, format_)
    name = {"html": "report.html"}.get(format_, f"predictions.{format_}")
    return FileResponse(
        file,
        media_type=_MEDIA[format_],
        filename=f"crosspatch-{name}",
        background=BackgroundTask(file.unlink, missing_ok=True),
    )


@router.get(
    "/batches/{batch}/predictions.csv",
    response_class=FileResponse,
    responses=_problems(404, 409, 503),
)
def get_csv(jobs: TheJobs, batch: TheBatch) -> FileResponse:
    """All cells as the csv that `crosspatch predict` writes."""
    return _download(jobs, batch, "csv")


@router.get(
    "/batches/{batch}/predictions.h5ad",
    response_class=FileResponse,
    responses=_problems(404, 409, 503),
)
def get_h5ad(jobs: TheJobs, batch: TheBatch) -> FileResponse:
    """All cells with their features, as AnnData."""
    return _download(jobs, batch, "h5ad")


@router.get(
    "/batches/{batch}/report.html",
    response_class=FileResponse,
    responses=_problems(404, 409, 503),
)
def get_report(jobs: TheJobs, batch: TheBatch) -> FileResponse:
    """A report on all cells, one file that needs nothing else."""
    return _download(jobs, batch, "html")
