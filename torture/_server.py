"""A server on this machine with the faults that servers have."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock

import numpy as np

from derain.data import fetch

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """Serves CONTENT; `faults` holds what the next requests meet instead, one each."""

    address: str = ""
    content: bytes = CONTENT
    etag: str | None = '"v1"'
    ranges: bool = True
    faults: list[Callable[[Handler], None]] = field(default_factory=list)
    always: Callable[[Handler], None] | None = None
    requests: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.state.requests.append({"path": self.path} | dict(self.headers.items()))
        if self.state.always is not None:
            self.state.always(self)
        elif self.state.faults:
            self.state.faults.pop(0)(self)
        else:
            self.serve()

    def serve(self, cut: int | None = None, declared: int = 0, status: int = 0) -> None:
        """The file, or its rest where the client may have it; `cut` bytes of it only, with another length."""
        start = 0
        wanted = self.headers.get("Range")
        if wanted and self.state.ranges and self.headers.get("If-Range") == self.state.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.state.content):
            self.reply(416, b"", {"Content-Range": f"bytes */{len(self.state.content)}"})
            return
        body = self.state.content[start:]
        headers = {"ETag": self.state.etag} if self.state.etag else {}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(self.state.content) - 1}/{len(self.state.content)}"
        self.reply(status or (206 if start else 200), body[:cut], headers, len(body) + declared)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


def cut(after: int) -> Callable[[Handler], None]:
    return lambda handler: handler.serve(cut=after)


def answer(status: int) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(status, b"<html>sorry</html>", {"Content-Type": "text/html"})


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def chunked(whole: bool) -> Callable[[Handler], None]:
    def serve(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        body = CONTENT if whole else CONTENT[:1000]
        handler.wfile.write(b"%x\r\n" % len(body) + body + (b"\r\n0\r\n\r\n" if whole else b""))
        handler.close_connection = True

    return serve


def without_length(handler: Handler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(CONTENT)
    handler.close_connection = True


def wrong_range(handler: Handler) -> None:
    handler.reply(206, CONTENT[5:], {"Content-Range": f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"})


@contextmanager
def serving() -> Iterator[Server]:
    """A server until the block ends; downloads do not wait between their attempts, and know of no proxy."""
    state = Server()
    listener = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"state": state}))
    state.address = f"http://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    try:
        with mock.patch.object(fetch, "BACKOFF_SECONDS", 0.0), mock.patch.dict(os.environ, direct, clear=True):
            yield state
    finally:
        listener.shutdown()
        listener.server_close()


RECOVERED: dict[str, list[Callable[[Handler], None]]] = {
    "nothing": [],
    "cut": [cut(1_500_000)],
    "cut at a chunk": [cut(2**20)],
    "cut at once": [cut(0)],
    "cut five times": [cut(500_000)] * 5,
    "hung up": [hang_up, hang_up],
    "overloaded": [answer(503), answer(500), answer(429)],
    "cut, then overloaded": [cut(10), answer(502), cut(70_000)],
    "cut, then another range": [cut(100), wrong_range],
    "a range at once": [wrong_range],
    "too much declared": [lambda handler: handler.serve(declared=7)],
    "chunks": [chunked(whole=True)],
    "chunks cut": [chunked(whole=False)],
    "no length": [without_length],
}
"""What the first requests meet; the download must come to its end."""


def redirect(where: str) -> Callable[[Handler], None]:
    return lambda handler: handler.reply(302, b"", {"Location": where})


FATAL: dict[str, tuple[Callable[[Handler], None], str]] = {
    "missing": (answer(404), "the server answers 404 Not Found: fetch it by hand and name the file as `archive:`"),
    "forbidden": (answer(403), "403 Forbidden"),
    "page": (lambda h: h.reply(200, b"<title>Sign in</title>", {"Content-Type": "text/html; charset=utf-8"}),
             "gives a web page \\('Sign in'\\) instead of a file"),
    "page in disguise": (lambda h: h.reply(200, b"\n<!DOCTYPE html><p>quota"), "gives a web page instead of a file"),
    "file address": (redirect("file:///etc/passwd"), "302"),
    "ftp address": (redirect("ftp://127.0.0.1/x"), "unknown url type"),
    "circle": (lambda h: h.reply(302, b"", {"Location": h.path}), "302 Found"),
    "always down": (answer(503), "503 Service Unavailable, 6 times"),
    "always cut": (cut(0), "cut after 0 of 3,000,000 bytes, 6 times"),
    "always hung up": (hang_up, "6 times"),
}  # fmt: skip
"""What every request meets, and what the message must say."""
