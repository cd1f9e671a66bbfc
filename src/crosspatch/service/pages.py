"""Pages for people; what they show is also in the interface."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import pandas as pd
from fastapi import APIRouter, Query, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from crosspatch.cohorts.taxonomy import colour_of, load_taxonomy, ordered
from crosspatch.drawing.labels import readable
from crosspatch.models.verdicts import Verdict
from crosspatch.recordings.formats import UPLOAD_SUFFIXES
from crosspatch.recordings.model import DESCRIBE_STEP
from crosspatch.recordings.reading_options import Reading
from crosspatch.reporting.recording_figures import SPIKE_COLOURS
from crosspatch.service import api
from crosspatch.service.api import TheFile, TheFilter, TheJobs, TheUpload
from crosspatch.service.jobs import Json
from crosspatch.service.messages import RECORDING, TABLE
from crosspatch.service.predicted import SORTS
from crosspatch.service.schemas import Number
from crosspatch.service.uploads import WORKED_ON, RefusedUploadError, State, Upload, UploadedFile
from crosspatch.species import SPECIES
from crosspatch.tables.endings import TABLE_SUFFIXES

PAGE = 100  #: cells on a page

page_router = APIRouter(include_in_schema=False)


class _Static(StaticFiles):
    """Files of the package; a browser asks whether they have changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


#: Style and scripts.
STATIC_FILES = _Static(directory=Path(__file__).parent / "static")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("crosspatch.service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": _bytes,
        "percent": lambda value: "" if value is None else f"{value:.0%}",
        "number": _number,
        "readable": readable,
        "clock": lambda when: f"{datetime.fromtimestamp(when):%d %B, %H:%M}",
        "signed": _signed,
    }
    environment.globals |= {
        "colour_of": colour_of,
        "species_known": list(SPECIES),
        "verdicts": {name: name.meaning for name in Verdict},
        "State": State,
        "DESCRIBE_STEP": DESCRIBE_STEP,
    }
    return environment


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−") if abs(value) >= 0.005 else "0.00"


def _page(request: Request, name: str, status: int = 200, **content: object) -> HTMLResponse:
    jobs = api.jobs_of(request)
    about, settings = jobs.workers.about, jobs.settings
    simulated = any(model["simulated"] for model in about.models)
    template = _environment().get_template(name)
    text = template.render(
        about=about, settings=settings, trained_on_simulated=simulated, **content
    )
    return HTMLResponse(text, status_code=status)


def error_page(request: Request, line: str, status: int) -> HTMLResponse:
    """A page that says what is wrong."""
    return _page(request, "error.html", status, line=line, phrase=HTTPStatus(status).phrase)


@page_router.get("/plotly.js")
def plotly(request: Request) -> Response:
    """The plotting library, from the machine itself."""
    file = files("plotly") / "package_data" / "plotly.min.js"
    headers = {"cache-control": "max-age=86400", "vary": "Accept-Encoding"}
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return FileResponse(str(file), media_type="text/javascript", headers=headers)
    headers["content-encoding"] = "gzip"
    return Response(_packed(str(file)), media_type="text/javascript", headers=headers)


@cache
def _packed(file: str) -> bytes:
    """A large file, compressed once."""
    return gzip.compress(Path(file).read_bytes())


@page_router.get("/")
def index(request: Request) -> HTMLResponse:
    """Where files are dropped."""
    return _page(
        request, "index.html", endings=[*UPLOAD_SUFFIXES, *TABLE_SUFFIXES], reading=Reading()
    )


@page_router.get("/api")
def interface(request: Request) -> HTMLResponse:
    """How the JSON interface is used."""
    schema = request.app.openapi()
    calls = [
        {
            "method": method.upper(),
            "path": path,
            "what": (said.get("description") or said.get("summary", "")).split("\n")[0],
        }
        for path, methods in schema["paths"].items()
        for method, said in methods.items()
    ]
    address = str(request.base_url).rstrip("/")
    return _page(request, "api.html", calls=calls, address=address)


@page_router.get("/batches/{batch}", response_model=None)
def page_of_batch(
    request: Request,
    jobs: TheJobs,
    upload: TheUpload,
    which: TheFilter,
    sort: Annotated[str, Query(max_length=40)] = "",
    order: Annotated[str, Query(max_length=10)] = "",
    page: Annotated[int, Query(ge=1, lt=2**24)] = 1,
    new: bool = False,
) -> Response:
    """The files of an upload and their cells."""
    # Before anything else: what is not finished in it is followed by the page.
    state, given = api.batch_state(upload), upload.files
    on = _only(given) if new else None
    if on is not None:
        return RedirectResponse(on, status_code=303)
    which = replace(
        which, sort=sort, descending=order == "descending", offset=(page - 1) * PAGE, limit=PAGE
    )
    results = jobs.results(upload)
    total, cells = results.select(which)
    kept = which.asked | ({"sort": sort, "order": order} if sort else {})
    return _page(
        request,
        "batch.html",
        batch=upload,
        state=state,
        uploads=given,
        # A recording's cell is called as its file.
        with_file=len(given) > 1 and any(each.kind == TABLE for each in given),
        with_remarks=any(each["quality"] or each["notes"] for each in cells),
        cells=cells,
        total=total,
        counted=_counted(results.counts()),
        which=which,
        sort=sort if sort in SORTS else "",
        order=order,
        page=page,
        pages=max(1, -(-total // PAGE)),
        address=partial(_address, upload, kept),
    )


def _address(upload: Upload, kept: dict[str, str], **changed: str | int) -> str:
    """Of a page of cells like the one that is shown, but for what is changed."""
    return f"{upload.url}?{urlencode({k: v for k, v in (kept | changed).items() if v})}"


def _only(given: list[UploadedFile]) -> str | None:
    """Someone who gave one file wants its cell, which comes bit by bit, or its columns."""
    if len(given) != 1:
        return None
    (file,) = given
    if file.state is State.COLUMNS:
        return f"{file.upload.url}/files/{file.number}/columns"
    if file.kind == RECORDING and (file.state in WORKED_ON or file.state is State.DONE):
        return f"{file.upload.url}/cells/{file.number}/0"
    return None


def _counted(counts: list[tuple[str, str, str, int]]) -> dict[str, object]:
    """Rows by subclass, in the taxonomy's order and last those that have none, and by verdict."""
    frame = pd.DataFrame(counts, columns=["species", "subclass", "verdict", "rows"])
    table = frame.pivot_table("rows", "subclass", "verdict", aggfunc="sum", fill_value=0)
    given = [verdict for verdict in Verdict if verdict in table]
    names = [*ordered(name for name in table.index if name), ""]
    return {
        "verdicts": given,
        "rows": [(name, list(table.loc[name, given])) for name in names if name in table.index],
        "species": sorted(filter(None, set(frame["species"]))),
        "all": int(frame["rows"].sum()),
    }


@page_router.get("/batches/{batch}/cells/{file}/{row}")
def page_of_cell(request: Request, jobs: TheJobs, file: TheFile, row: Number) -> HTMLResponse:
    """One cell; of a recording that is worked on, what is known so far."""
    details: Json | None = None
    waiting, recording = file.state in WORKED_ON, jobs.recorded(file)
    if not (waiting and file.kind == RECORDING):
        details, recording = jobs.details(file, row)
    results = jobs.results(file.upload)
    place = details["map"] if details else {}
    shown = {
        "file": f"/api/v1{file.upload.url}/files/{file.number}",
        "part": jobs.part(file, row),
        "batch": file.upload.url,
        "map": place if "x" in place else None,
        "cell": details["cell"]["cell_id"] if details else Path(file.label).stem,
        "colours": {name: colour_of(name) for name in load_taxonomy().subclasses},
        "spike_colours": SPIKE_COLOURS,
        "first_spikes": recording["first_spikes"] if recording else [],
        "rates": recording["rates"] if recording else None,
    }
    return _page(
        request,
        "cell.html",
        batch=file.upload,
        upload=file,
        details=details,
        recording=recording,
        drawn=file.drawn,
        shown=shown,
        before=results.beside(file.number, row, -1),
        after=results.beside(file.number, row, 1),
        axis=_axis(details["values"] if details else []),
    )


# Robust standard deviations beyond which a value stands at the edge.
_FAR = 6.0


def _axis(values: list[dict[str, Any]]) -> Callable[[float], float]:
    """Where a number of robust standard deviations stands, in per cent of the axis."""
    ends = [end for each in values for one in each["classes"] for end in one["z"]]
    ends += [each["z"] for each in values if each["z"] is not None]
    low, high = max(min([-1.0, *ends]), -_FAR), min(max([1.0, *ends]), _FAR)

    def at(z: float) -> float:
        return round(min(max((z - low) / (high - low), 0.0), 1.0) * 100, 2)

    return at


@page_router.get("/batches/{batch}/files/{file}/columns", response_model=None)
def page_of_columns(request: Request, file: TheFile) -> Response:
    """What the columns of a table are taken for, before anything is predicted."""
    if file.kind != TABLE:
        raise RefusedUploadError(f"{file.label} is a recording; it has no columns", 404)
    if file.columns is None:
        return RedirectResponse(file.upload.url, status_code=303)
    return _page(request, "columns.html", batch=file.upload, upload=file)
