"""Pages for people; what they show is also in the interface."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from crosspatch.cohorts.taxonomy import load_taxonomy
from crosspatch.errors import NoCommandError
from crosspatch.models.verdicts import Verdict
from crosspatch.recordings.opening import RECORDING_SUFFIXES
from crosspatch.reporting.labels import colour_of, ordered, readable
from crosspatch.reporting.recording_figures import SPIKE_COLOURS
from crosspatch.service.api import (
    Number,
    TheFilter,
    TheJobs,
    TheUpload,
    batch_state,
    cell_row,
    jobs_of,
)
from crosspatch.service.predicted import SORTS
from crosspatch.service.predicted import Query as Which
from crosspatch.service.uploads import RECORDING, TABLE, RefusedUploadError, State, Upload
from crosspatch.species import SPECIES
from crosspatch.tables.reading import TABLE_SUFFIXES

#: Cells on a page.
PAGE = 100

router = APIRouter(include_in_schema=False)


class _Static(StaticFiles):
    """Files of the package; a browser asks whether they have changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def static_files() -> StaticFiles:
    """Style and scripts."""
    return _Static(directory=Path(__file__).parent / "static")


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
        "sets": lambda value: str(value).replace("|", " or "),
        "clock": lambda when: f"{datetime.fromtimestamp(when):%d %B, %H:%M}",
        "signed": _signed,
    }
    environment.globals |= {
        "colour_of": colour_of,
        "species_known": list(SPECIES),
        "verdicts": {name: name.meaning for name in Verdict},
        "State": State,
        "NO_COMMAND": NoCommandError.code,
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
    jobs = jobs_of(request)
    simulated = any(model["simulated"] for model in jobs.about.models)
    text = (
        _environment()
        .get_template(name)
        .render(about=jobs.about, settings=jobs.settings, trained_on_simulated=simulated, **content)
    )
    return HTMLResponse(text, status_code=status)


def error_page(request: Request, line: str, status: int) -> HTMLResponse:
    """A page that says what is wrong."""
    return _page(request, "error.html", status, line=line, phrase=HTTPStatus(status).phrase)


@router.get("/plotly.js")
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


@router.get("/")
def index(request: Request) -> HTMLResponse:
    """Where files are dropped."""
    return _page(request, "index.html", endings=[*RECORDING_SUFFIXES, *TABLE_SUFFIXES])


@router.get("/api")
def interface(request: Request) -> HTMLResponse:
    """How the JSON interface is used."""
    schema = request.app.openapi()
    calls = [
        {"method": method.upper(), "path": path, "what": _summary(said)}
        for path, methods in schema["paths"].items()
        for method, said in methods.items()
    ]
    address = str(request.base_url).rstrip("/")
    return _page(request, "api.html", calls=calls, address=address)


def _summary(said: dict[str, str]) -> str:
    return (said.get("description") or said.get("summary", "")).split("\n")[0]


@dataclass(frozen=True)
class _Shown:
    """Which cells a page shows, and the address of others."""

    upload: Upload
    which: Which
    #: ``descending``, or anything else.
    order: str
    page: int

    @property
    def query(self) -> Which:
        """What is looked for."""
        return replace(
            self.which,
            descending=self.order == "descending",
            offset=(self.page - 1) * PAGE,
            limit=PAGE,
        )

    @property
    def asked(self) -> dict[str, str]:
        """What cells have to be like."""
        said = {"text": self.which.text, **self.which.chosen}
        return {name: value for name, value in said.items() if value}

    def address(self, **changed: str | int) -> str:
        """Of this page, but for what is changed."""
        sort = {"sort": self.which.sort, "order": self.order} if self.which.sort else {}
        kept = {name: value for name, value in (self.asked | sort | changed).items() if value}
        return f"{self.upload.url}?{urlencode(kept)}"


@router.get("/batches/{batch}", response_model=None)
def batch_page(
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
    state = batch_state(upload)
    on = _only(upload) if new and state.finished else None
    if on is not None:
        return RedirectResponse(on, status_code=303)
    shown = _Shown(upload, replace(which, sort=sort), order, page)
    results = jobs.results(upload)
    total, cells = results.select(shown.query)
    counts = results.counts()
    return _page(
        request,
        "batch.html",
        batch=upload,
        state=state,
        uploads=upload.files,
        # A recording's cell is called as its file.
        with_file=len(upload.files) > 1 and any(each.kind == TABLE for each in upload.files),
        with_remarks=any(each["quality"] or each["notes"] for each in cells),
        cells=[cell_row(each) for each in cells],
        total=total,
        all=sum(count for *_, count in counts),
        counted=_counted(counts),
        species_there=sorted({name for name, *_ in counts if name}),
        asked=shown.asked,
        chosen=which.chosen,
        text=which.text,
        sort=sort if sort in SORTS else "",
        order=order,
        page=page,
        pages=max(1, -(-total // PAGE)),
        address=shown.address,
    )


def _only(upload: Upload) -> str | None:
    """Someone who gave one file wants its cell, or its columns."""
    if len(upload.files) != 1:
        return None
    (file,) = upload.files
    if file.state is State.COLUMNS:
        return f"{upload.url}/files/{file.number}/columns"
    if file.state is State.DONE and file.kind == RECORDING and file.rows == 1:
        return f"{upload.url}/cells/{file.number}/0"
    return None


def _counted(counts: list[tuple[str, str, str, int]]) -> dict[str, object]:
    """Subclasses by verdict, in the taxonomy's order; last the rows of which none is given."""
    by_place: Counter[tuple[str, str]] = Counter()
    for _, subclass, said, count in counts:
        by_place[subclass, said] += count
    given = [verdict for verdict in Verdict if any(said == verdict for _, said in by_place)]
    names = [*ordered(name for name, _ in by_place if name), ""]
    rows = [(name, [by_place[name, verdict] for verdict in given]) for name in names]
    return {"verdicts": given, "rows": [row for row in rows if row[0] or any(row[1])]}


@router.get("/batches/{batch}/cells/{file}/{row}")
def cell_page(
    request: Request, jobs: TheJobs, upload: TheUpload, file: Number, row: Number
) -> HTMLResponse:
    """One cell."""
    details, recording = jobs.details(upload, file, row)
    results = jobs.results(upload)
    shown = {
        "api": f"/api/v1{upload.url}/files/{file}/sweeps",
        "map": details["map"] if "x" in details["map"] else None,
        "cell": details["cell"]["cell_id"],
        "colours": {name: colour_of(name) for name in load_taxonomy().subclasses},
        "spike_colours": SPIKE_COLOURS,
        "first_spikes": recording["first_spikes"] if recording else [],
        "rates": recording["rates"] if recording else None,
    }
    return _page(
        request,
        "cell.html",
        batch=upload,
        upload=upload.file(file),
        details=details,
        recording=recording,
        shown=shown,
        before=results.beside(file, row, -1),
        after=results.beside(file, row, 1),
        axis=_axis(details["values"]),
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


@router.get("/batches/{batch}/files/{file}/columns", response_model=None)
def columns_page(request: Request, jobs: TheJobs, upload: TheUpload, file: Number) -> Response:
    """What the columns of a table are taken for, before anything is predicted."""
    given = upload.file(file)
    if given.kind != TABLE:
        raise RefusedUploadError(f"{given.label} is a recording; it has no columns", 404)
    if given.columns is None:
        return RedirectResponse(upload.url, status_code=303)
    return _page(
        request,
        "columns.html",
        batch=upload,
        upload=given,
        columns=given.columns.columns,
        missing=given.columns.missing,
        features=jobs.about.features,
        given=sum(bool(each.feature) for each in given.columns.columns),
        choices=given.choices,
    )
