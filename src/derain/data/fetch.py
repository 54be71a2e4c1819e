"""Downloads that resume, are checked, and appear only when they are complete."""

from __future__ import annotations

import http.client
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlencode, urljoin, urlsplit
from urllib.request import (
    HTTPCookieProcessor,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from derain.console import track, warn
from derain.disk import atomic
from derain.disk.atomic import sha256_of
from derain.types import DataError, ParamsError

RETRIES = 5
BACKOFF_SECONDS = 1.0  # before the first retry; doubled before each further one
TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 2**20
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_BY_HAND = "fetch it by hand and name the file as `archive:`"
_GOOGLE = ("google.com", "googleusercontent.com")


class _CutShortError(Exception):
    """A fault that another attempt may not meet."""


def gdrive_url(file_id: str) -> str:
    """The address from which Google Drive serves the file with this id.

    Raises:
        ParamsError: not an id (the part between /d/ and the next slash in a file's link).
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{10,}", file_id):
        raise ParamsError(f"gdrive: {file_id!r} is no file id: it is the part after /d/ or id= in the file's link")
    return f"https://drive.usercontent.google.com/download?id={file_id}&export=download&confirm=t"


def download(url: str, target: Path, sha256: str | None = None) -> None:
    """Fetches `url` to the file `target`.

    The bytes gather in `<target>.part`. After a cut, here or in a later run, only the rest is asked for, provided the
    server says that the file is still the same one (If-Range). A file that is already there is kept if it has the
    checksum, or if none is given.

    Args:
        sha256: hexadecimal checksum of the file.

    Raises:
        DataError: refused by the server, not reachable after 5 more attempts, cut short, another checksum, a web page
            instead of a file, or no space left. Then `target` does not exist.
        ParamsError: `url` is not an http or https address.
    """
    if not re.fullmatch(r"https?://[!-~]+", url):
        raise ParamsError(f"url: {url!r} is no http or https address; name a file on the disk as `archive:`")
    if target.exists():
        if sha256 is None or sha256_of(target) == sha256.lower():
            return
        target.unlink()
    part = _Part(target)
    _gather(url, part)
    if sha256 is not None and (found := sha256_of(part.path)) != sha256.lower():
        part.discard()
        raise DataError(f"{url}: sha256 is {found}, expected {sha256}: correct the checksum, or fetch by another way")
    part.complete()


def _gather(url: str, part: _Part) -> None:
    session = _Session()
    for attempt in range(RETRIES + 1):
        try:
            session.fetch(url, part)
            return
        except (_CutShortError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            fault = str(error) or type(error).__name__
        except HTTPError as error:
            error.close()
            fault = f"the server answers {error.code} {http.client.responses.get(error.code, '')}".rstrip()
            if error.code not in _PASSING:
                raise DataError(f"{url}: {fault}: {_BY_HAND}") from None
        except OSError as error:
            fault = str(getattr(error, "reason", error))
        if attempt < RETRIES:
            wait = BACKOFF_SECONDS * 2**attempt
            warn(f"{url}: {fault}; attempt {attempt + 2} of {RETRIES + 1} in {wait:.0f} s")
            time.sleep(wait)
    raise DataError(f"{url}: {fault}, {RETRIES + 1} times: run it again to resume, or {_BY_HAND}")


class _Session:
    """One cookie jar, and the address that a confirmation page led to."""

    def __init__(self) -> None:
        # Only http and https: urllib's default opener would also read file: and ftp: addresses that a server names.
        self._opener = OpenerDirector()
        for handler in (
            ProxyHandler(),
            HTTPHandler(),
            HTTPSHandler(),
            HTTPRedirectHandler(),
            HTTPDefaultErrorHandler(),
            HTTPErrorProcessor(),
            HTTPCookieProcessor(),
            UnknownHandler(),
        ):
            self._opener.add_handler(handler)
        self._confirmed: str | None = None

    def fetch(self, url: str, part: _Part) -> None:
        """Appends to `part` what is missing of the file, or raises."""
        request = Request(self._confirmed or url, headers={"Accept-Encoding": "identity", "User-Agent": "derain"})  # noqa: S310
        state = part.state(url)
        if state is not None:
            request.add_header("Range", f"bytes={state.size}-")
            request.add_header("If-Range", state.validator)
        try:
            response = self._opener.open(request, timeout=TIMEOUT_SECONDS)
        except HTTPError as error:
            if error.code != 416 or state is None:
                raise
            error.close()
            if error.headers.get("Content-Range") == f"bytes */{state.size}":
                return
            part.discard()
            raise _CutShortError("the part that is here does not fit the file on the server") from None
        with response:
            first = response.read(_CHUNK_BYTES)
            if _is_page(response, first):
                self._confirm(url, response.geturl(), first)
                self.fetch(url, part)
                return
            part.write(url, response, first, _start(response, state))

    def _confirm(self, url: str, address: str, page: bytes) -> None:
        """Finds the address behind Google Drive's "too large to scan for viruses"; raises DataError on other pages."""
        form = _Form()
        form.feed(page.decode(errors="replace"))
        if form.action is not None and self._confirmed is None:
            target = urljoin(address, form.action)
            host, here = urlsplit(target).hostname or "", urlsplit(address).hostname
            if host == here or host.endswith(tuple(f".{name}" for name in _GOOGLE)):
                self._confirmed = f"{target}?{urlencode(form.fields)}"
                return
        title = f" ({form.title.strip()[:80]!r})" if form.title.strip() else ""
        raise DataError(f"{url} gives a web page{title} instead of a file: {_BY_HAND}")


@dataclass(frozen=True)
class _State:
    """How far an earlier attempt came, and by what the server knows the file."""

    size: int
    validator: str


class _Part:
    """The bytes so far, and beside them what they belong to."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def state(self, url: str) -> _State | None:
        """What can be resumed; None if nothing is there or the server never said by what to know the file."""
        try:
            note = json.loads(self._note.read_text())
            size = self.path.stat().st_size
            usable = note["url"] == url and note["validator"] and size > 0
            return _State(size, note["validator"]) if usable else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, url: str, response: http.client.HTTPResponse, first: bytes, start: int) -> None:
        """Writes `first` and the rest of the response from byte `start` on; raises if the length is not as declared."""
        length = response.headers.get("Content-Length")
        rest = int(length) if length and length.isdecimal() else None
        written = 0
        if rest is not None:
            atomic.check_space(self.path, rest)
        with self._file(url, response, start) as file:
            chunks = -(-rest // _CHUNK_BYTES) if rest is not None else None
            for chunk in track(_chunks(response, first), f"{self._target.name} (MiB)", chunks):
                left = memoryview(chunk)
                while left:  # an unbuffered file may take a part only
                    with self._writing():
                        left = left[file.write(left) :]
                written += len(chunk)
            with self._writing():
                os.fsync(file.fileno())
        if rest is not None and written != rest:
            raise _CutShortError(f"cut after {start + written:,} of {start + rest:,} bytes")

    def _file(self, url: str, response: http.client.HTTPResponse, start: int) -> BinaryIO:
        with self._writing():
            if start == 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.unlink(missing_ok=True)
                self._note.write_text(json.dumps({"url": url, "validator": _validator(response)}))
            return self.path.open("ab", buffering=0)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Tells faults of the disk from those of the network, which are OSErrors too and deserve another attempt."""
        try:
            yield
        except OSError as error:
            raise atomic.not_written(self.path, error) from None

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def complete(self) -> None:
        self.path.replace(self._target)
        self._note.unlink(missing_ok=True)


def _chunks(response: http.client.HTTPResponse, first: bytes) -> Iterator[bytes]:
    chunk = first
    while chunk:
        yield chunk
        chunk = response.read(_CHUNK_BYTES)


def _validator(response: http.client.HTTPResponse) -> str | None:
    """What If-Range may name: a strong ETag or a date (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _start(response: http.client.HTTPResponse, state: _State | None) -> int:
    """The byte of the file that the answer begins with: what was asked for, or 0 for the whole file."""
    if response.status != 206:
        return 0
    if state is None or not response.headers.get("Content-Range", "").startswith(f"bytes {state.size}-"):
        raise _CutShortError("the server sends another range than was asked for")
    return state.size


def _is_page(response: http.client.HTTPResponse, first: bytes) -> bool:
    head = first[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return response.headers.get_content_type() == "text/html" or head.startswith((b"<!doctype html", b"<html"))


class _Form(HTMLParser):
    """The title of a page, and its form with the id "download-form": where to and with which hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self.title = ""
        self._in_form = self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form" and values.get("id") == "download-form":
            self.action, self._in_form = values.get("action", ""), True
        elif tag == "input" and self._in_form and values.get("name"):
            self.fields[values["name"]] = values.get("value", "")
        self._in_title = tag == "title"

    def handle_endtag(self, tag: str) -> None:
        self._in_form = self._in_form and tag != "form"
        self._in_title = self._in_title and tag != "title"

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
