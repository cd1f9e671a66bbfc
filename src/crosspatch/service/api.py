"""The JSON interface, so that a rig can ask right after a recording."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect

from crosspatch.service.jobs import Jobs
from crosspatch.service.mapping_screen import Columns
from crosspatch.service.messages import Fault, MapPoints
from crosspatch.service.predicted import CHOICES, INNER, SORTS, Row
from crosspatch.service.predicted import Query as Which
from crosspatch.service.schemas import (
    AboutServer,
    BatchState,
    CellDetails,
    CellList,
    Choices,
    File,
    HowRead,
    NewBatch,
    Number,
    Problem,
)
from crosspatch.service.traces import INDEX, STRETCHES, read_traces
from crosspatch.service.uploads import RefusedUploadError, Upload, UploadedFile
from crosspatch.tables.mapping import Override

PREFIX = "/api/v1"
_FILE = "/batches/{batch}/files/{file}"

_MEDIA = {"csv": "text/csv; charset=utf-8", "h5ad": "application/x-hdf5", "html": "text/html"}


def jobs_of(request: Request) -> Jobs:
    """The service's jobs."""
    return request.app.state.jobs


def upload_of(batch: str, request: Request) -> Upload:
    """What is named in the path: the interface calls an upload a batch."""
    return jobs_of(request).batches.get(batch)


def file_of(file: Number, upload: Annotated[Upload, Depends(upload_of)]) -> UploadedFile:
    """The file that is named in the path."""
    return upload.file(file)


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
TheUpload = Annotated[Upload, Depends(upload_of)]
TheFile = Annotated[UploadedFile, Depends(file_of)]


def batch_state(upload: Upload) -> BatchState:
    """An upload as the interface shows it."""
    with upload.lock:
        return BatchState.model_validate(upload)


_NOT_THERE = _problems(404)
router = APIRouter(prefix=PREFIX, responses=_problems(400, 401, 403, 413, 422))


@router.get("/about")
def about(jobs: TheJobs) -> AboutServer:
    """The models and the limits of this server."""
    known, settings = jobs.workers.about, jobs.settings
    return AboutServer(
        crosspatch=known.crosspatch,
        models=[dict(each) for each in known.models],
        parameters=dict(known.parameters),
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
    points = jobs.workers.about.map
    if isinstance(points, Fault):
        raise HTTPException(404, points.words)
    return points


@router.post("/batches", status_code=201, responses=_problems(422, 503))
def new_batch(jobs: TheJobs, wanted: NewBatch) -> BatchState:
    """Begin a batch of files."""
    return batch_state(jobs.new(wanted.species, wanted.as_reading(), wanted.layer))


@router.get("/batches/{batch}", responses=_NOT_THERE)
def get_batch(upload: TheUpload) -> BatchState:
    """How far a batch is."""
    return batch_state(upload)


@router.delete("/batches/{batch}", status_code=204, responses=_NOT_THERE)
def delete_batch(jobs: TheJobs, upload: TheUpload) -> None:
    """Stop what is done for a batch, and delete its files and results."""
    jobs.remove(upload)


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
    upload: TheUpload,
    name: Annotated[
        str,
        Query(
            min_length=1,
            max_length=1000,
            description="What the file is called; its ending says what it is: .nwb, .abf, .atf, "
            ".csv, .tsv, .txt, .csv.gz, .tsv.gz, .xlsx, .xlsm, .xls, .ods, .parquet, .h5ad.",
        ),
    ],
    columns: Annotated[
        Literal["automatic", "ask"],
        Query(description="Whether a table's columns are shown before anything is predicted."),
    ] = "automatic",
) -> File:
    """Upload a file: its bytes are the body. Reading and predicting begin at once."""
    length = request.headers.get("content-length", "")
    announced, ask = int(length) if length.isdecimal() else None, columns == "ask"
    file = await jobs.receive(upload, name, _body(request), length=announced, confirm=ask)
    return File.model_validate(file)


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise RefusedUploadError("the connection ended before the file did", 400) from None


@router.post(
    "/batches/{batch}/examples/{example}", status_code=201, responses=_problems(404, 413, 507)
)
def add_example(jobs: TheJobs, upload: TheUpload, example: str) -> File:
    """Try a simulated recording (mouse-pvalb, mouse-sst, human-lamp5) or table (table)."""
    return File.model_validate(jobs.example(upload, example))


@router.get(_FILE, responses=_NOT_THERE)
def get_file(file: TheFile) -> File:
    """How far a file is."""
    return File.model_validate(file)


@router.delete(_FILE, status_code=204, responses=_NOT_THERE)
def delete_file(jobs: TheJobs, file: TheFile) -> None:
    """Stop what is done with a file; delete a finished one and its results."""
    jobs.cancel(file)


@router.get(_FILE + "/columns", responses=_problems(404, 409))
def get_columns(file: TheFile) -> Columns:
    """What became of the columns of a table."""
    if file.columns is None:
        raise HTTPException(409, "it is no table whose columns are known yet")
    return file.columns


@router.put(_FILE + "/columns", responses=_problems(404, 409, 422, 503))
def put_columns(jobs: TheJobs, file: TheFile, choices: Choices) -> Columns:
    """Say what columns are; the answer is what becomes of all of them then."""
    chosen = {name: Override(each.feature, each.unit) for name, each in choices.columns.items()}
    return jobs.choose_columns(file, chosen, choices.sheet, go=choices.predict)


@router.put(_FILE + "/reading", status_code=204, responses=_problems(404, 409, 422))
def put_reading(jobs: TheJobs, file: TheFile, how: HowRead) -> None:
    """Say how a recording is read; it is measured again."""
    jobs.read_again(file, how.as_reading())


@router.get("/batches/{batch}/cells", responses=_NOT_THERE)
def get_cells(
    jobs: TheJobs,
    upload: TheUpload,
    which: TheFilter,
    sort: Annotated[str, Query(description=f"One of {', '.join(SORTS)}.", max_length=40)] = "",
    descending: bool = False,
    offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> CellList:
    """The predicted cells of a batch."""
    which = replace(which, sort=sort, descending=descending, offset=offset, limit=limit)
    total, cells = jobs.results(upload).select(which)
    return CellList(total=total, cells=[cell_row(each) for each in cells])


def cell_row(row: Row) -> Row:
    """A row of results as the interface shows it."""
    shown = {name: value for name, value in row.items() if name not in INNER}
    shown |= {name: "|".join(each) for name, each in shown.items() if isinstance(each, list)}
    return shown | {"species_known": bool(row["species_known"])}


@router.get("/batches/{batch}/cells/{file}/{row}", responses=_problems(404, 409, 503))
def get_cell(jobs: TheJobs, file: TheFile, row: Number) -> CellDetails:
    """One cell: probabilities, what each family spoke for, its values among the reference."""
    details, recording = jobs.details(file, row)
    return CellDetails(details=details, recording=recording)


_NUMBERS: Any = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}


@router.get(_FILE + "/sweeps", response_class=Response, responses=_NOT_THERE | {200: _NUMBERS})
def get_sweeps(
    file: TheFile,
    stimulus: Annotated[str, Query(max_length=100, description="long square, ramp …")],
    start: Annotated[float | None, Query(description="s", ge=0, allow_inf_nan=False)] = None,
    end: Annotated[float | None, Query(description="s", ge=0, allow_inf_nan=False)] = None,
    stretches: Annotated[int, Query(ge=10, le=5000)] = STRETCHES,
    part: Annotated[int, Query(description="of several cells in the file", ge=0, le=10_000)] = 0,
) -> Response:
    """Sweeps, thinned to the lowest and highest value of so many stretches each; not as JSON.

    4 bytes with the length of the JSON that follows, a list of sweeps; then, in 16 bits, the codes
    of the voltage and current of each (all little-endian). The JSON gives t0 and dt (s), count,
    base and step of each signal: a value (mV, pA) is base + step * code; -32768 stands for none.
    """
    folder = file.traces(part)
    if not (folder / INDEX).exists():
        raise file.refused("there are no sweeps", 404)
    found = read_traces(folder, stimulus, start=start, end=end, stretches=stretches)
    if not found:
        raise file.refused(f"there is no sweep with stimulus '{stimulus}'", 404)
    return Response(found, media_type="application/octet-stream")


_downloads = partial(router.get, response_class=FileResponse, responses=_problems(404, 409, 503))


def _download(jobs: Jobs, upload: Upload, ending: str, name: str) -> FileResponse:
    file = jobs.export(upload, ending)
    return FileResponse(
        file,
        media_type=_MEDIA[ending],
        filename=f"crosspatch-{name}.{ending}",
        background=BackgroundTask(file.unlink, missing_ok=True),
    )


@_downloads("/batches/{batch}/predictions.csv")
def get_csv(jobs: TheJobs, upload: TheUpload) -> FileResponse:
    """All cells as the csv that `crosspatch predict` writes."""
    return _download(jobs, upload, "csv", "predictions")


@_downloads("/batches/{batch}/predictions.h5ad")
def get_h5ad(jobs: TheJobs, upload: TheUpload) -> FileResponse:
    """All cells with their features, as AnnData."""
    return _download(jobs, upload, "h5ad", "predictions")


@_downloads("/batches/{batch}/report.html")
def get_report(jobs: TheJobs, upload: TheUpload) -> FileResponse:
    """A report on all cells, one file that needs nothing else."""
    return _download(jobs, upload, "html", "report")
