"""The web application: pages and interface over one set of jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from crosspatch.errors import one_line
from crosspatch.service import api, pages
from crosspatch.service.jobs import Jobs
from crosspatch.service.queue import Workers
from crosspatch.service.security import BodyLimit, Guard
from crosspatch.service.settings import ServiceSettings
from crosspatch.service.uploads import RefusedUploadError


def create_app(settings: ServiceSettings, workers: Workers) -> FastAPI:
    """The application over started workers; its end ends them and deletes what was uploaded."""
    jobs = Jobs(settings, workers)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            jobs.close()

    app = FastAPI(
        title="crosspatch",
        version=version("crosspatch"),
        description="Transcriptomic subclass of a cortical interneuron from its recording.",
        license_info={"name": "MIT"},
        openapi_url=f"{api.PREFIX}/openapi.json",
        # The usual pages of documentation fetch scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.jobs = jobs
    app.include_router(api.router)
    app.include_router(pages.page_router)
    app.mount("/static", pages.static_files())
    # From the inside out: the last one that is added is asked first.
    app.add_middleware(BodyLimit)
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=5)
    app.add_middleware(Guard, token=settings.token)

    @app.exception_handler(RefusedUploadError)
    async def refused(request: Request, error: RefusedUploadError) -> Response:
        return _answer(request, one_line(error), error.status)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        said = error.detail or HTTPStatus(error.status_code).phrase
        return _answer(request, str(said), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        lines = [
            f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"[:300]
            for each in error.errors()[:5]
        ]
        return _answer(request, "; ".join(lines), 422)

    return app


def _answer(request: Request, line: str, status: int, headers: object = None) -> Response:
    # JSON may name half a character, which no answer can be written with.
    line = line.encode("utf-8", "replace").decode("utf-8")
    if request.url.path.startswith("/api/"):
        given = dict(headers) if isinstance(headers, dict) else None
        return JSONResponse({"error": line}, status_code=status, headers=given)
    return pages.error_page(request, line, status)
