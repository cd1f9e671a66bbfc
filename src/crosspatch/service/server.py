"""Run the service until it is stopped."""

from __future__ import annotations

import secrets
import socket
import webbrowser
from dataclasses import replace

import uvicorn

from crosspatch.errors import CrosspatchError
from crosspatch.service import messages
from crosspatch.service.app import create_app
from crosspatch.service.queue import Workers
from crosspatch.service.security import is_loopback
from crosspatch.service.settings import ServiceSettings
from crosspatch.telling import Say, Stage


def serve(
    settings: ServiceSettings,
    say: Say,
    *,
    training: Stage = lambda what, done, total: None,
    open_browser: bool = False,
) -> None:
    """Load the models and answer until the process is stopped.

    Parameters
    ----------
    settings : ServiceSettings
        On any address but loopback a token is made where none is given.
    say : callable
        Told where the pages are.
    training : callable
        Told of the training of default models.
    open_browser : bool

    Raises
    ------
    CrosspatchError
        If the address cannot be used or the models cannot be loaded.
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
        raise CrosspatchError(
            f"{host}:{port} cannot be used: {getattr(error, 'strerror', None) or error}",
            hint="choose another {host} or {port}",
        ) from error
    return listening


def _address(host: str, port: int) -> str:
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
