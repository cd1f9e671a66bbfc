"""The web application: pages and interface over one set of jobs, answering until it is stopped."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response

from crosspatch.errors import CrosspatchError, one_line
from crosspatch.service import api, messages, pages
from crosspatch.service.jobs import Jobs
from crosspatch.service.queue import Workers
from crosspatch.service.security import BodyLimit, Guard, is_loopback
from crosspatch.service.settings import ServiceSettings
from crosspatch.service.uploads import RefusedUploadError
from crosspatch.telling import Say, Stage


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
    app.mount("/static", pages.STATIC_FILES)
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


def serve(
    settings: ServiceSettings,
    say: Say,
    *,
    training: Stage = lambda what, done, total: None,
    open_browser: bool = False,
) -> None:
    """Load the models and answer until the process is stopped; says where the pages are.

    On any address but loopback a token is made where none is given. A `CrosspatchError` if the
    address cannot be used or the models cannot be loaded.
    """
    if settings.token is None and not is_loopback(settings.host):
        settings = replace(settings, token=secrets.token_urlsafe(24))

    def told(said: messages.Told) -> None:
        match said:
            case messages.Line(text):
                say(text)
            case messages.Training(what, done, total):
                training(what, done, total)

    # First the address: whoever has to wait for the models should not wait in vain.
    listening = _listen(settings.host, settings.port)
    with listening:
        say("loading the models …")
        workers = Workers(settings)
        workers.start(told)
        app = create_app(settings, workers)
        address = _address(settings.host, listening.getsockname()[1])
        key = "" if settings.token is None else f"?token={settings.token}"
        say(f"crosspatch is at {address}/{key} (Ctrl-C stops it and deletes what was uploaded)")
        if not is_loopback(settings.host):
            say(
                "whoever has this address with its token can use it; the connection is not "
                "encrypted, so elsewhere than in a network you trust use an SSH tunnel"
            )
        if open_browser:
            webbrowser.open(f"{address}/{key}")
        config = uvicorn.Config(
            app,
            log_level="warning",
            # A browser holds connections open; nobody waits for them when the server stops.
            timeout_graceful_shutdown=3,
            server_header=False,
            # The token stands in an address once.
            access_log=False,
            h11_max_incomplete_event_size=64 * 2**10,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        (family, kind, proto, _, place), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listening = socket.socket(family, kind, proto)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(place)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        why = f"{host}:{port} cannot be used: {getattr(error, 'strerror', None) or error}"
        raise CrosspatchError(why, "choose another {host} or {port}") from error
    return listening


def _address(host: str, port: int) -> str:
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
