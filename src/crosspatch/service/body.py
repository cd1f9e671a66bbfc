"""Bodies that are not files are small."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: What the choices for a table of thousands of columns need, bytes.
LIMIT = 4 * 2**20

_FILES = "/files"


class BodyLimit:
    """ASGI middleware that refuses large bodies, except where files are uploaded.

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or scope["path"].endswith(_FILES):
            await self.app(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if len(body) > LIMIT:
                refusal = JSONResponse(
                    {"error": f"the body is larger than {LIMIT // 2**20} MiB"}, status_code=413
                )
                await refusal(scope, receive, send)
                return
            if not message.get("more_body", False):
                break
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, again, send)
