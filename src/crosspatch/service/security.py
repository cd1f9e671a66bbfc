"""Who may ask: only pages of this server, off loopback only who has the token; and how much."""

from __future__ import annotations

import ipaddress
import logging
import secrets
from html import escape
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE = "crosspatch-token"

#: plotly.js sets styles on what it draws; scripts come from this server's files only.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)

_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # The address of a page is the key to a batch.
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

_SAFE = ("GET", "HEAD")
#: What the choices for a table of thousands of columns need, bytes.
_BODY_LIMIT = 4 * 2**20
_BUG = "something went wrong that should not; where the server was started it says what"

_LOG = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, as seen from itself."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: refuses requests from elsewhere or without the token, sets safe headers."""

    def __init__(self, app: ASGIApp, token: str | None):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        answer = self._refusal(scope) or self.app
        try:
            await answer(scope, receive, guarded)
        except Exception:  # a bug; its answer has safe headers too, and says nothing of the machine
            if begun:
                raise
            _LOG.exception("%s %s", scope["method"], scope["path"])
            await _refused(_BUG, 500, scope)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        # A foreign name that resolves to this machine: a page elsewhere could read answers.
        if self.token is None and not is_loopback(name):
            return _refused(
                f"this server answers to localhost only, not to '{name[:80]}'", 403, scope
            )
        if not _same_site(scope["method"], headers, host):
            return _refused("requests from other pages are refused", 403, scope)
        if self.token is None or scope["path"].startswith("/static/"):
            return None
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        """None for who has the token; else a refusal, or on to the page without it."""
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if "token" in query and scope["method"] in _SAFE:
            if self._matches(query.pop("token")[0]):
                return self._entered(scope, query)
            return _refused(
                "this is not the token; it stands where the server was started", 401, scope
            )
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._matches(given.strip()):
            return None
        if self._matches(_cookie(headers)):
            return None
        return _refused(
            "give the token: open the address that was printed where the server was started, or "
            "send the header 'Authorization: Bearer TOKEN'",
            401,
            scope,
        )

    def _entered(self, scope: Scope, query: dict[str, list[str]]) -> Response:
        """On to the same page: the token leaves the address line and the browser's history."""
        rest = f"?{urlencode(query, doseq=True)}" if query else ""
        # Two slashes would begin the name of another host.
        path = "/" + quote(scope["path"].lstrip("/\\"))
        answer = RedirectResponse(path + rest, status_code=303)
        secure = scope.get("scheme") == "https"
        answer.set_cookie(
            _COOKIE, self.token or "", httponly=True, samesite="strict", secure=secure
        )
        return answer

    def _matches(self, given: str | None) -> bool:
        if given is None or self.token is None:
            return False
        return secrets.compare_digest(given.encode(), self.token.encode())


def _cookie(headers: Headers) -> str | None:
    """The token that a browser keeps."""
    try:
        kept = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return None
    return None if kept is None else kept.value


def _same_site(method: str, headers: Headers, host: str) -> bool:
    """Whether a request comes from a page of ours, from no page, or from a followed link."""
    origin = headers.get("origin")
    if origin is not None:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc == host
    site = headers.get("sec-fetch-site", "none")
    if site in ("same-origin", "none"):
        return True
    return method in _SAFE and headers.get("sec-fetch-mode") == "navigate"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>crosspatch</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/static/style.css"><script src="/static/theme.js"></script></head>
<body><main><h1>crosspatch</h1><p class="problem" role="alert">{line}</p>{form}</main></body></html>
"""

_FORM = """<form method="get" action="/"><p class="row"><label>Token
<input type="password" name="token" required autocomplete="off" autofocus></label>
<button type="submit" class="primary">Go on</button></p></form>"""


def _refused(line: str, status: int, scope: Scope) -> Response:
    """An answer in JSON, or a page for who looks with a browser."""
    accepted = Headers(scope=scope).get("accept", "")
    answer: Response
    if "text/html" in accepted and not scope["path"].startswith("/api/"):
        form = _FORM if status == 401 else ""
        answer = HTMLResponse(_PAGE.format(line=escape(line), form=form), status_code=status)
    else:
        answer = JSONResponse({"error": line}, status_code=status)
    if status == 401:
        answer.headers["www-authenticate"] = "Bearer"
    return answer


class BodyLimit:
    """ASGI middleware that refuses large bodies, except where files are uploaded."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["path"].endswith("/files"):
            await self.app(scope, receive, send)
            return
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > _BODY_LIMIT:
                line = f"the body is larger than {_BODY_LIMIT // 2**20} MiB"
                await JSONResponse({"error": line}, status_code=413)(scope, receive, send)
                return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, again, send)
