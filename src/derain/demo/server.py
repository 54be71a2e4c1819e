"""The server behind the page: loopback only, one picture at a time through the network, and nothing kept.

A picture comes as the body of a POST and goes back in its response, so that no path of the client's touches the disk
and no picture outlives its request. The response is a stream: lines of JSON that say how far it is, the last of them
the state "done" with names, media types and lengths of the parts, then the bytes of the parts.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from anyio import to_thread
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from derain.demo import page
from derain.demo.answer import MOST_BYTES, TOO_LARGE, Answer, answer
from derain.demo.weights import Choice
from derain.restore.run import Restorer
from derain.types import DerainError, ParamsError

MOST_AT_ONCE = 4
"""Pictures that are worked on or wait."""

Load = Callable[[Path], Restorer]


class Demo:
    """The ASGI application, for the port it is served on.

    The first network is loaded at once, so that unusable weights or devices are known before the page is shown.
    """

    def __init__(self, choices: Sequence[Choice], load: Load, port: int) -> None:
        self.port = port
        self._choices = {str(index): choice for index, choice in enumerate(choices)}
        self._load = load
        self._networks = {"0": load(choices[0].path)}
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._page = page.build(choices)
        self._headers = {"Content-Security-Policy": page.policy(self._page), **HEADERS}
        self._turn = asyncio.Lock()
        self._at_once = 0

    @property
    def works(self) -> bool:
        """Whether the network is at work."""
        return self._turn.locked()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request; every response bears the same protecting headers."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        refusal = self._refusal(request)
        if refusal is None and (request.method, request.url.path) == ("POST", "/derain"):
            await self._derain(request, send_guarded)
            return
        await (refusal or self._plain(request))(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Against other sites: a rebound name shows in Host, and a page of another site in Origin."""
        host = request.headers.get("host", "")
        if len(request.headers.getlist("host")) != 1 or host not in self._hosts:
            return _error(403, "Open this page under the address that `derain demo` printed.")
        if request.method == "POST" and request.headers.getlist("origin") != [f"http://{host}"]:
            return _error(403, "Pictures are taken from this page alone.")
        return None

    def _plain(self, request: Request) -> Response:
        if request.url.path not in {"/", "/favicon.ico"}:
            return _error(404, "There is nothing here.")
        if request.method not in {"GET", "HEAD"}:
            return _error(405, "This address takes no such request.")
        return HTMLResponse(self._page) if request.url.path == "/" else Response(status_code=204)

    async def _derain(self, request: Request, send: Send) -> None:
        if self._at_once == MOST_AT_ONCE:
            message = f"{MOST_AT_ONCE} pictures are being worked on already. Try again in a moment."
            await _error(503, message)(request.scope, request.receive, send)
            return
        self._at_once += 1
        try:
            weights = request.query_params.get("weights", "")
            content = await _body(request)
            if weights not in self._choices:
                await _error(400, "There are no such weights. Reload the page.")(request.scope, request.receive, send)
            elif content is None:
                await _error(413, TOO_LARGE)(request.scope, request.receive, send)
            else:
                # Closed here, so that who leaves in the middle of a line holds up nobody.
                async with aclosing(self._steps(content, weights)) as steps:
                    await StreamingResponse(steps, headers=STREAMED)(request.scope, request.receive, send)
        except ClientDisconnect:
            pass
        finally:
            self._at_once -= 1

    async def _steps(self, content: bytes, weights: str) -> AsyncGenerator[bytes]:
        if self.works:
            yield _line(state="waiting")
        async with self._turn:
            yield _line(state="working")
            try:
                # Not abandoned when the client leaves: the next picture waits until the network is free.
                derained = await to_thread.run_sync(self._answer, content, weights)
            except DerainError as error:
                yield _line(state="failed", error=str(error))
                return
        parts = [(part.name, part.media_type, len(part.content)) for part in derained.parts]
        yield _line(state="done", width=derained.width, height=derained.height, suffix=derained.suffix, parts=parts)
        for part in derained.parts:
            yield part.content

    def _answer(self, content: bytes, weights: str) -> Answer:
        if weights not in self._networks:
            self._networks[weights] = self._load(self._choices[weights].path)
        return answer(content, self._networks[weights])


def listen(port: int) -> socket.socket:
    """A socket that only programs on this computer reach; port 0 is a free one. ParamsError where it is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ParamsError(f"--port {port}: {error.strerror}. Leave it out for a free one.") from None


class Server(uvicorn.Server):
    """Answers requests until Ctrl-C."""

    def __init__(self, demo: Demo) -> None:
        config = uvicorn.Config(
            demo,
            lifespan="off",
            ws="none",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        super().__init__(config)
        self._demo = demo

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends at once even where a picture is worked on: nothing interrupts a network, and no file is half written."""
        if self._demo.works:
            os._exit(0)
        super().handle_exit(sig, frame)


HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
STREAMED = {"Cache-Control": "no-cache"}
"""The answer to a POST is stored nowhere; told "no-store" besides, Chromium now and then aborts a stream's end."""


async def _body(request: Request) -> bytes | None:
    """The request's body; None where it is too large, which a lying Content-Length does not hide."""
    if int(request.headers.get("content-length", 0)) > MOST_BYTES:
        return None
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            return None
    return bytes(content)


def _line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status)
