"""Downloads that resume, are checked, and appear only when they are complete."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable
from functools import partial
from html.parser import HTMLParser
from http.client import responses
from itertools import chain
from pathlib import Path
from urllib.parse import urlencode, urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

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
    if sha256 is not None and (digest := sha256_of(part.path)) != sha256.lower():
        part.discard()
        raise DataError(f"{url}: sha256 is {digest}, expected {sha256}: correct the checksum, or fetch by another way")
    part.complete()


def _gather(url: str, part: _Part) -> None:
    # Once at once, as a server may have closed the connection that a redirect left open; what else passes has to be
    # waited for, and counts together with bodies that are cut, of which urllib3 knows nothing.
    adapter = HTTPAdapter(max_retries=Retry(1, respect_retry_after_header=False))
    with requests.Session() as session:
        for scheme in ("https://", "http://"):
            session.mount(scheme, adapter)
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "derain"})
        session.hooks["response"].append(_only_http)
        for attempt in range(RETRIES + 1):
            try:
                _fetch(session, url, part)
                return
            except (_CutShortError, requests.RequestException, urllib3.exceptions.HTTPError) as error:
                fault = _fault(error)
                if _lasts(error):
                    raise DataError(f"{url}: {fault}: {_BY_HAND}") from None
            if attempt < RETRIES:
                wait = BACKOFF_SECONDS * 2**attempt
                warn(f"{url}: {fault}; attempt {attempt + 2} of {RETRIES + 1} in {wait:.0f} s")
                time.sleep(wait)
    raise DataError(f"{url}: {fault}, {RETRIES + 1} times: run it again to resume, or {_BY_HAND}")


def _only_http(response: requests.Response, **_: object) -> None:
    """Refuses a redirect to any other kind of address; requests has no adapter for them, and names no status."""
    scheme = urlsplit(response.headers.get("Location", "")).scheme
    if response.is_redirect and scheme not in ("", "http", "https"):
        raise requests.exceptions.InvalidSchema(f"unknown url type {scheme}", response=response)


def _lasts(error: Exception) -> bool:
    """Whether another attempt would meet it again: an answer that does not pass, or an address that is none."""
    response = getattr(error, "response", None)
    return isinstance(error, ValueError) if response is None else response.status_code not in _PASSING


def _fault(error: BaseException) -> str:
    """What the server answered, or what lies at the bottom of the libraries' errors."""
    response = getattr(error, "response", None)
    if response is not None:
        code = response.status_code
        return ": ".join(filter(None, (f"the server answers {code} {responses.get(code, '')}".rstrip(), str(error))))
    while error.__context__ is not None:
        error = error.__context__
    return str(error) or type(error).__name__


def _fetch(session: requests.Session, url: str, part: _Part, confirmed: str | None = None) -> None:
    """Appends to `part` what is missing of the file, or raises; `confirmed` is where a page in between led to."""
    size, validator = part.state(url)
    rest = {"Range": f"bytes={size}-", "If-Range": validator} if size else {}
    with session.get(confirmed or url, headers=rest, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == 416 and size:
            if response.headers.get("Content-Range") == f"bytes */{size}":
                return
            part.discard()
            raise _CutShortError("the part that is here does not fit the file on the server")
        if response.status_code // 100 != 2:
            raise requests.HTTPError(response=response)
        response.raw.enforce_content_length = False  # the part says itself where it was cut
        chunks = iter(partial(response.raw.read, _CHUNK_BYTES, decode_content=False), b"")
        first = next(chunks, b"")
        if not _is_page(response, first):
            part.write(url, response, chain([first], chunks), _start(response, size))
            return
    _fetch(session, url, part, _behind(url, response.url, first, confirmed is None))


def _behind(url: str, address: str, page: bytes, follow: bool) -> str:
    """The address behind Google Drive's "too large to scan for viruses"; raises DataError on other pages."""
    form = _Form()
    form.feed(page.decode(errors="replace"))
    if form.action is not None and follow:
        target = urljoin(address, form.action)
        host, here = urlsplit(target).hostname or "", urlsplit(address).hostname
        if host == here or host.endswith(tuple(f".{name}" for name in _GOOGLE)):
            return f"{target}?{urlencode(form.fields)}"
    title = f" ({form.title.strip()[:80]!r})" if form.title.strip() else ""
    raise DataError(f"{url} gives a web page{title} instead of a file: {_BY_HAND}")


class _Part:
    """The bytes so far, and beside them what they belong to."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")

    def state(self, url: str) -> tuple[int, str]:
        """How many bytes can be kept, and by what the server knows the file; none where it never said that."""
        try:
            note = json.loads(self._note.read_text())
            usable = note["url"] == url and note["validator"]
            return (self.path.stat().st_size, note["validator"]) if usable else (0, "")
        except (OSError, ValueError, KeyError, TypeError):
            return 0, ""

    def write(self, url: str, response: requests.Response, chunks: Iterable[bytes], start: int) -> None:
        """Writes the chunks from byte `start` on; raises if they are not as long together as was declared."""
        length = response.headers.get("Content-Length", "")
        rest = int(length) if length.isdecimal() else None
        count = None
        if rest is not None:
            atomic.check_space(self.path, rest)
            count = -(-rest // _CHUNK_BYTES)
        try:
            written = self._append(url, response, track(chunks, f"{self._target.name} (MiB)", count), start)
        except OSError as error:  # of the disk: those of the network are urllib3's own by now
            raise atomic.not_written(self.path, error) from None
        if rest is not None and written != rest:
            raise _CutShortError(f"cut after {start + written:,} of {start + rest:,} bytes")

    def _append(self, url: str, response: requests.Response, chunks: Iterable[bytes], start: int) -> int:
        if start == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
            self._note.write_text(json.dumps({"url": url, "validator": _validator(response)}))
        with self.path.open("ab") as file:
            written = sum(map(file.write, chunks))
            file.flush()
            os.fsync(file.fileno())
        return written

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def complete(self) -> None:
        self.path.replace(self._target)
        self._note.unlink(missing_ok=True)


def _validator(response: requests.Response) -> str | None:
    """What If-Range may name: a strong ETag or a date (RFC 9110, 13.1.5)."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _start(response: requests.Response, size: int) -> int:
    """The byte of the file that the answer begins with: what was asked for, or 0 for the whole file."""
    if response.status_code != 206:
        return 0
    if not size or not response.headers.get("Content-Range", "").startswith(f"bytes {size}-"):
        raise _CutShortError("the server sends another range than was asked for")
    return size


def _is_page(response: requests.Response, first: bytes) -> bool:
    head = first[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    html = response.headers.get("Content-Type", "").lower().startswith("text/html")
    return html or head.startswith((b"<!doctype html", b"<html"))


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
