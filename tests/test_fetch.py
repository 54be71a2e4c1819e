"""Downloads against a local server with the faults that servers have."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from derain.data import fetch
from derain.data.fetch import download, gdrive_url
from derain.types import DataError, ParamsError
from torture._server import CONTENT, FATAL, RECOVERED, SHA256, Handler, Server, answer, cut, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", RECOVERED)
@pytest.mark.parametrize("ranges", [True, False])
def test_passing_faults_are_overcome(tmp_path: Path, server: Server, name: str, ranges: bool) -> None:
    server.faults, server.ranges = list(RECOVERED[name]), ranges
    download(f"{server.address}/set.zip", tmp_path / "sets" / "set.zip", SHA256)
    assert (tmp_path / "sets" / "set.zip").read_bytes() == CONTENT
    assert left(tmp_path / "sets") == {"set.zip"}


def test_only_the_rest_is_fetched(tmp_path: Path, server: Server) -> None:
    server.faults = [cut(1_000_000)]
    download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    first, second = server.requests
    assert "Range" not in first
    assert (second["Range"], second["If-Range"]) == ("bytes=1000000-", '"v1"')


def test_a_later_run_resumes(tmp_path: Path, server: Server) -> None:
    server.always = cut(200_000)
    with pytest.raises(DataError, match=r"cut after 1,200,000 of 3,000,000 bytes, 6 times: run it again to resume"):
        download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert left(tmp_path) == {"set.zip.part", "set.zip.part.json"}
    server.always = None
    download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert server.requests[-1]["Range"] == "bytes=1200000-"
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "what", ["another version", "no validator", "weak validator", "another address", "damaged note"]
)
def test_no_rest_of_another_file_is_appended(tmp_path: Path, server: Server, what: str) -> None:
    path = "/set.zip"
    server.etag = {"no validator": None, "weak validator": 'W/"v1"'}.get(what, '"v1"')
    server.always = cut(200_000)
    with pytest.raises(DataError):
        download(server.address + path, tmp_path / "set.zip")
    server.always = None
    server.content = CONTENT[::-1]
    if what == "another version":
        server.etag = '"v2"'
    elif what == "another address":
        path = "/other.zip"
    elif what == "damaged note":
        (tmp_path / "set.zip.part.json").write_text("{")
    download(server.address + path, tmp_path / "set.zip")
    assert (tmp_path / "set.zip").read_bytes() == CONTENT[::-1]


def test_a_complete_part_is_taken_as_it_is(tmp_path: Path, server: Server) -> None:
    """As a run leaves it that is killed just before the last step."""
    url = f"{server.address}/set.zip"
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    (tmp_path / "set.zip.part.json").write_text(json.dumps({"url": url, "validator": '"v1"'}))
    download(url, tmp_path / "set.zip", SHA256)
    assert len(server.requests) == 1
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_dropped(tmp_path: Path, server: Server) -> None:
    url = f"{server.address}/set.zip"
    (tmp_path / "set.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "set.zip.part.json").write_text(json.dumps({"url": url, "validator": '"v1"'}))
    download(url, tmp_path / "set.zip", SHA256)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("name", FATAL)
def test_lasting_faults_say_what_to_do(tmp_path: Path, server: Server, name: str) -> None:
    server.always, message = FATAL[name]
    with pytest.raises(DataError, match=message) as caught:
        download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert str(caught.value).startswith(server.address)
    assert "`archive:`" in str(caught.value)
    assert not (tmp_path / "set.zip").exists()
    assert len(str(caught.value).splitlines()) == 1


def test_at_most_five_more_attempts(tmp_path: Path, server: Server) -> None:
    server.always = answer(503)
    with pytest.raises(DataError):
        download(f"{server.address}/set.zip", tmp_path / "set.zip")
    assert len(server.requests) == 6


def test_waiting_doubles(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch, "BACKOFF_SECONDS", 1.0)
    monkeypatch.setattr(time, "sleep", waits.append)
    server.faults = [answer(503)] * 5
    download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert waits == [1, 2, 4, 8, 16]


def test_wrong_checksum(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError, match=f"sha256 is {SHA256}, expected {'0' * 64}"):
        download(f"{server.address}/set.zip", tmp_path / "set.zip", "0" * 64)
    assert left(tmp_path) == set()


def test_a_file_that_is_there_is_kept_if_it_is_the_right_one(tmp_path: Path, server: Server) -> None:
    (tmp_path / "set.zip").write_bytes(CONTENT)
    download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256.upper())
    download(f"{server.address}/set.zip", tmp_path / "set.zip")
    assert server.requests == []
    (tmp_path / "set.zip").write_bytes(b"old")
    download(f"{server.address}/set.zip", tmp_path / "set.zip", SHA256)
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_no_server(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError, match="refused"):
        download("http://127.0.0.1:9/set.zip", tmp_path / "set.zip")


@pytest.mark.parametrize("url", ["set.zip", "file:///etc/passwd", "ftp://host/x", "http://host/a b", "http://", ""])
def test_only_http(tmp_path: Path, url: str) -> None:
    with pytest.raises(ParamsError, match="no http or https address"):
        download(url, tmp_path / "set.zip")


def test_full_disk(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    def full(self: Path, *_: object, **__: object) -> Full:
        return Full()

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"set\.zip\.part cannot be written: No space left on device"):
        download(f"{server.address}/set.zip", tmp_path / "set.zip")
    assert len(server.requests) == 1


DRIVE_PAGE = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="search"><input name="q" value="no"></form>
<form id="download-form" action="{action}" method="get"><input type="submit" value="Download anyway">
<input type="hidden" name="id" value="abc"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="1-2&amp;3"></form></html>"""


def drive(handler: Handler) -> None:
    if "confirm=t" in handler.path and "uuid" in handler.path:
        handler.serve()
    else:
        handler.reply(200, DRIVE_PAGE.format(action="/download").encode(), {"Content-Type": "text/html"})


def test_google_drive_confirmation(tmp_path: Path, server: Server) -> None:
    server.always = drive
    download(f"{server.address}/uc?id=abc", tmp_path / "set.zip", SHA256)
    assert [request["path"] for request in server.requests] == [
        "/uc?id=abc",
        "/download?id=abc&export=download&confirm=t&uuid=1-2%263",
    ]
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("action", ["/again", "https://evil.example/download", "https://google.com.evil.example/x"])
def test_google_drive_page_that_leads_nowhere(tmp_path: Path, server: Server, action: str) -> None:
    page = DRIVE_PAGE.format(action=action).encode()
    server.always = lambda handler: handler.reply(200, page, {"Content-Type": "text/html"})
    with pytest.raises(DataError, match=r"Virus scan warning.*by hand"):
        download(f"{server.address}/uc?id=abc", tmp_path / "set.zip")
    assert len(server.requests) <= 2
    assert left(tmp_path) == set()


def test_google_drive_addresses() -> None:
    assert gdrive_url("14BidJeG4nSNuFNFDf99K-7eErCq4i47t") == (
        "https://drive.usercontent.google.com/download?id=14BidJeG4nSNuFNFDf99K-7eErCq4i47t&export=download&confirm=t"
    )
    for wrong in ("", "short", "https://drive.google.com/file/d/14BidJeG4nSNuFNFDf99K/view", "a" * 20 + "&x=1"):
        with pytest.raises(ParamsError, match="is no file id"):
            gdrive_url(wrong)
