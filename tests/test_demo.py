"""The local page's server: what it answers, what it refuses, and that it goes on."""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image

from derain.backbones import prenet
from derain.cli import main
from derain.demo import answer, page, server
from derain.demo.weights import Choice, at_hand
from derain.disk import artifacts, networks
from derain.restore import network
from derain.types import DataError, ParamsError
from tests.served import CHOICES, Address, Served, served
from tests.test_report import Page

HOSTILE = "<script>alert('&\")</script>"


class Reply(NamedTuple):
    """A response, and the lines and parts of a stream."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        return str(json.loads(self.body)["error"])

    @property
    def steps(self) -> list[dict[str, Any]]:
        steps: list[dict[str, Any]] = []
        for line in self.body.split(b"\n"):
            steps.append(json.loads(line))
            if steps[-1]["state"] in {"done", "failed"}:
                break
        return steps

    @property
    def parts(self) -> dict[str, bytes]:
        described = self.steps[-1]["parts"]
        start = len(self.body) - sum(length for *_, length in described)
        parts = {}
        for name, _, length in described:
            parts[name] = self.body[start : start + length]
            start += length
        return parts


@pytest.fixture(scope="module")
def demo() -> Iterator[Served]:
    with served() as running:
        yield running


def ask(demo: Address, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=20)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, sent)
    response = connection.getresponse()
    reply = Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())
    connection.close()
    return reply


def derain(demo: Address, content: bytes, weights: str = "0") -> Reply:
    return ask(demo, "POST", f"/derain?weights={weights}", content, Origin=demo.url)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def noise(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def decoded(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


class TestAnswer:
    @pytest.mark.parametrize(("weights", "divisor"), [("0", 2), ("1", 4)])
    def test_the_file_is_the_networks_estimate_at_full_size(self, demo: Served, weights: str, divisor: int) -> None:
        rainy = noise()
        reply = derain(demo, encoded(rainy), weights)
        assert [step["state"] for step in reply.steps] == ["working", "done"]
        assert np.array_equal(decoded(reply.parts["file"]), rainy // divisor)
        assert {key: reply.steps[-1][key] for key in ("width", "height", "suffix")} == {
            "width": 30,
            "height": 20,
            "suffix": ".png",
        }

    def test_both_pictures_to_look_at_are_bounded_jpegs_of_one_size(self, demo: Served) -> None:
        reply = derain(demo, encoded(np.full((20, 3 * answer.SHOWN_SIDE, 3), 200, np.uint8), "TIFF"))
        shown = [Image.open(io.BytesIO(reply.parts[name])) for name in ("rainy", "derained")]
        assert [picture.format for picture in shown] == ["JPEG", "JPEG"]
        assert {picture.size for picture in shown} == {(answer.SHOWN_SIDE, 7)}
        assert [np.asarray(picture).mean().round() for picture in shown] == [200, 100]
        assert decoded(reply.parts["file"]).shape == (20, 3 * answer.SHOWN_SIDE, 3)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not a picture"),
            (b"<html>hello</html>", "not a picture"),
            (encoded(noise())[:-200], "cannot be read"),
            (encoded(noise(1, 1)), "not finite"),
            (encoded(np.zeros((8000, 7000), np.uint8)), "7000 × 8000 pixels are more than the 50 million"),
            (encoded(np.zeros((14000, 14000), np.uint8)), "has more than"),
        ],
        ids=["empty", "html", "cut", "not finite", "large", "bomb"],
    )
    def test_a_bad_picture_gives_a_message_and_the_server_goes_on(
        self, demo: Served, content: bytes, message: str
    ) -> None:
        reply = derain(demo, content)
        assert reply.status == 200
        assert reply.steps[-1]["state"] == "failed"
        assert message in reply.steps[-1]["error"]
        assert derain(demo, encoded(noise())).steps[-1]["state"] == "done"

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
    def test_a_file_cut_anywhere_gives_a_message_or_a_whole_picture(self, demo: Served, kind: str) -> None:
        content = encoded(noise(40, 60), kind)
        for percent in range(0, 100, 7):
            last = derain(demo, content[: len(content) * percent // 100]).steps[-1]
            assert last["state"] == "failed" or (last["width"], last["height"]) == (60, 40)
            assert last["state"] == "done" or "Traceback" not in last["error"]
        assert derain(demo, content).steps[-1]["state"] == "done"

    def test_weights_that_became_unusable_give_a_message(self, tmp_path: Path) -> None:
        def load(path: Path) -> Any:
            if path.stem == "gone":
                raise DataError(f"{path} is missing.")
            return None

        listening = server.listen(0)
        broken = server.Demo([CHOICES[0], Choice(tmp_path / "gone.safetensors", "")], load, 1)
        listening.close()
        with pytest.raises(DataError, match="is missing"):
            broken._answer(encoded(noise()), "1")


class TestRefusal:
    @pytest.mark.parametrize(
        "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil:{port}", "", "[::1]:{port}"]
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_another_host_is_a_rebound_name(self, demo: Served, method: str, host: str) -> None:
        host = host.format(port=demo.port)
        reply = ask(demo, method, "/", b"", Host=host, Origin=f"http://{host}")
        assert reply.status == 403
        assert "address" in reply.error

    def test_two_hosts_or_none_are_refused(self, demo: Served) -> None:
        for hosts in (f"Host: 127.0.0.1:{demo.port}\r\nHost: evil\r\n", ""):
            assert raw(demo, f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode()).split()[1] in {
                b"400",
                b"403",
            }
        assert raw(demo, b"GET / HTTP/1.0\r\n\r\n").split()[1] == b"403"

    @pytest.mark.parametrize(
        "origin", [None, "null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1"]
    )
    def test_a_picture_from_another_sites_page_is_refused(self, demo: Served, origin: str | None) -> None:
        headers = {} if origin is None else {"Origin": origin.format(port=demo.port)}
        reply = ask(demo, "POST", "/derain?weights=0", encoded(noise()), **headers)
        assert reply.status == 403
        assert "this page alone" in reply.error

    def test_localhost_is_this_computer_too(self, demo: Served) -> None:
        host = f"localhost:{demo.port}"
        reply = ask(demo, "POST", "/derain?weights=0", encoded(noise()), Host=host, Origin=f"http://{host}")
        assert reply.steps[-1]["state"] == "done"

    @pytest.mark.parametrize("weights", ["2", "-1", "", "x", "0x0", "²", "../../etc/passwd", "9" * 5000, "0&weights=9"])
    def test_only_the_weights_of_the_list_are_there(self, demo: Served, weights: str) -> None:
        reply = derain(demo, encoded(noise()), quote(weights, safe="&="))
        assert reply.status == 400
        assert "no such weights" in reply.error

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/../../etc/passwd", 404),
            ("GET", "/..%2f..%2fetc/passwd", 404),
            ("GET", "//etc/passwd", 404),
            ("GET", "/models/by2.safetensors", 404),
            ("GET", "/derain", 404),
            ("PUT", "/", 405),
            ("DELETE", "/", 405),
            ("POST", "/", 405),
            ("OPTIONS", "/derain", 404),
        ],
    )
    def test_nothing_else_is_there(self, demo: Served, method: str, path: str, status: int) -> None:
        reply = ask(demo, method, path, Origin=demo.url)
        assert reply.status == status
        assert reply.error

    def test_a_file_over_the_limit_is_refused_even_where_its_length_is_not_told(
        self, demo: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "MOST_BYTES", 1000)
        assert derain(demo, b"x" * 1001).status == 413
        chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
        head = f"POST /derain?weights=0 HTTP/1.1\r\nHost: 127.0.0.1:{demo.port}\r\nOrigin: {demo.url}\r\n"
        sent = raw(demo, head.encode() + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + 3 * chunk)
        assert sent.split()[1] == b"413"
        assert derain(demo, b"x" * 1000).status == 200

    @pytest.mark.parametrize(
        "request_",
        [
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/1.1\r\nHost: \x00\r\n\r\n",
            b"GET /" + b"a" * 100_000,
            b"POST /derain HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        ],
    )
    def test_what_is_no_request_does_no_harm(self, demo: Served, request_: bytes) -> None:
        raw(demo, request_)
        assert ask(demo, "GET", "/").status == 200

    def test_every_response_protects_itself(self, demo: Served) -> None:
        replies = [
            ask(demo, "GET", "/"),
            ask(demo, "GET", "/no"),
            ask(demo, "GET", "/", Host="evil"),
            derain(demo, b""),
        ]
        for reply in replies:
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cross-origin-resource-policy"] == "same-origin"
            assert reply.headers["referrer-policy"] == "no-referrer"
            assert "access-control-allow-origin" not in reply.headers
            assert "server" not in reply.headers
        assert [reply.headers["cache-control"] for reply in replies] == ["no-store"] * 3 + ["no-cache"]


def raw(demo: Served, request: bytes) -> bytes:
    """What comes back for these bytes, up to two seconds later."""
    with socket.create_connection(("127.0.0.1", demo.port), timeout=2) as connection:
        connection.sendall(request)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
                if b"\r\n\r\n" in received:
                    break
        except (TimeoutError, ConnectionResetError):
            pass
        return received


class TestQueue:
    def test_one_picture_at_a_time_and_no_more_than_a_few_wait(self) -> None:
        with served() as demo:
            network = demo.networks["by2"]
            network.allowed.clear()
            replies: list[Reply] = []

            def send() -> None:
                replies.append(derain(demo, encoded(noise())))

            threads = [threading.Thread(target=send) for _ in range(server.MOST_AT_ONCE)]
            for thread in threads:
                thread.start()
            until(lambda: demo.demo._at_once == server.MOST_AT_ONCE and network.at_work == 1)
            refused = derain(demo, encoded(noise()))
            assert refused.status == 503
            assert "Try again" in refused.error
            network.allowed.set()
            for thread in threads:
                thread.join()
            assert [reply.steps[-1]["state"] for reply in replies] == ["done"] * server.MOST_AT_ONCE
            assert sorted(reply.steps[0]["state"] for reply in replies) == ["waiting"] * 3 + ["working"]
            assert network.most_at_work == 1
            assert derain(demo, encoded(noise())).status == 200

    def test_who_leaves_gives_the_place_back(self) -> None:
        with served() as demo:
            network = demo.networks["by2"]
            network.allowed.clear()
            content = encoded(noise())
            head = f"POST /derain?weights=0 HTTP/1.1\r\nHost: 127.0.0.1:{demo.port}\r\nOrigin: {demo.url}\r\n"
            whole = head.encode() + f"Content-Length: {len(content)}\r\n\r\n".encode() + content
            for sent in (whole, whole, whole, whole[:-10]):
                with socket.create_connection(("127.0.0.1", demo.port), timeout=5) as connection:
                    connection.sendall(sent)
                    until(lambda: demo.demo._at_once > 0)
            until(lambda: demo.demo._at_once <= 1)  # what the network works on is not given up
            network.allowed.set()
            until(lambda: demo.demo._at_once == 0)
            assert network.most_at_work == 1
            assert derain(demo, content).steps[-1]["state"] == "done"


def until(true: Any) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestPage:
    def test_it_needs_nothing_else_and_runs_nothing_but_its_own(self, demo: Served) -> None:
        reply = ask(demo, "GET", "/")
        html = reply.body.decode()
        read = Page(html)
        assert read.balanced
        assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in read.tags}
        assert not re.search(r"url\(|@import|https?:|import\(|eval|innerHTML", "".join(read.code))
        for _, attributes in read.tags:
            assert not {"src", "href", "srcset", "action", "style"} & set(attributes)
            assert not any(name.startswith("on") for name in attributes)
        policy = reply.headers["content-security-policy"]
        for tag in ("style", "script"):
            (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "unsafe" not in policy

    def test_weights_are_listed_in_order_and_escaped(self) -> None:
        choices = [
            Choice(Path(f"models/{HOSTILE}.safetensors"), HOSTILE),
            Choice(Path("models/by4.safetensors"), "two"),
        ]
        html = page.build(choices)
        read = Page(html)
        assert html.count("<script>") == 1
        assert [(option["value"], option["data-about"]) for option in read.of("option")] == [
            ("0", HOSTILE),
            ("1", "two"),
        ]

    def test_weights_of_one_name_are_told_apart_by_their_folders(self) -> None:
        html = page.build([Choice(Path(f"{folder}/task3.safetensors"), folder) for folder in ("nr", "si")])
        assert ">nr/task3.safetensors<" in html
        assert ">si/task3.safetensors<" in html


def write_model(path: Path, dataset: str, position: int, after: Path | None = None, **more: Any) -> Path:
    section = prenet.Params(channels=4, stages=2, blocks=1)
    torch.manual_seed(position)
    network = networks.build_network("prenet", section)
    earlier = {"model": artifacts.load(after)[1]["sha256"]} if after else {}
    made_by = {"kind": "model", "dataset": dataset, "position": position, "made_from": {"data": "1", **earlier}, **more}
    networks.save_network(path, network.state_dict(), "prenet", section, made_by)
    return path


class TestWeightsAtHand:
    def test_a_folders_are_listed_newest_task_first_with_all_they_learned(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        first = write_model(tmp_path / "task0.safetensors", "heavy", 0)
        second = write_model(tmp_path / "task1.safetensors", "light", 1, first, strategy="nr")
        artifacts.save(tmp_path / "mask.safetensors", {"m": torch.zeros(2, dtype=torch.bool)}, {"kind": "mask"})
        (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
        (tmp_path / "notes.txt").write_text("no weights")
        choices = at_hand([tmp_path])
        assert [choice.path for choice in choices] == [second, first]
        assert choices[0].about == "heavy → light · nr · prenet (1 blocks, 4 channels, 2 stages)"
        assert choices[1].about.startswith("heavy · prenet (")
        warned = capsys.readouterr().err
        assert "mask.safetensors holds no network but mask" in warned
        assert "damaged.safetensors is damaged" in warned

    def test_what_a_model_learned_before_is_unknown_without_its_predecessor(self, tmp_path: Path) -> None:
        first = write_model(tmp_path / "task0.safetensors", "heavy", 0)
        second = write_model(tmp_path / "task1.safetensors", "light", 1, first)
        (choice,) = at_hand([second])
        assert choice.about.startswith("… → light · prenet")

    def test_files_keep_the_order_they_were_named_in(self, tmp_path: Path) -> None:
        first = write_model(tmp_path / "task0.safetensors", "heavy", 0)
        second = write_model(tmp_path / "task1.safetensors", "light", 1, first)
        assert [choice.path for choice in at_hand([first, second])] == [first, second]

    def test_a_named_file_must_be_usable_and_there_must_be_one(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gone\.safetensors is missing"):
            at_hand([tmp_path / "gone.safetensors"])
        with pytest.raises(ParamsError, match="no weights in"):
            at_hand([tmp_path])


@pytest.mark.parametrize("port", ["-1", "80", "65536", "x", "²"])
def test_a_wrong_port_exits_2(port: str) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["demo", "--port", port])
    assert raised.value.code == 2


def test_a_port_in_use_is_named() -> None:
    with server.listen(0) as taken, pytest.raises(ParamsError, match="Leave it out for a free one"):
        server.listen(taken.getsockname()[1])


def test_the_command_serves_its_weights_and_ends_at_once(tmp_path: Path) -> None:
    """With the real network, and a picture in the works when Ctrl-C comes."""
    weights = write_model(tmp_path / "task0.safetensors", "heavy", 0)
    command = [
        sys.executable,
        "-m",
        "derain",
        "demo",
        "--weights",
        str(weights),
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        printed = process.stdout.readline()
        try:
            port = int(re.findall(r"^http://127\.0\.0\.1:(\d+)/ ", printed)[0])
            demo = Address(port)
            rainy = noise(37, 53)
            expected = network.load(weights, "cpu", "fp32").restore(rainy)
            assert np.abs(decoded(derain(demo, encoded(rainy)).parts["file"]).astype(int) - expected).max() <= 1  # type: ignore[arg-type]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/derain?weights=0", encoded(noise(1000, 1500)), {"Origin": demo.url})
            assert json.loads(connection.getresponse().readline()) == {"state": "working"}
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert (process.stdout.read(), process.stderr.read()) == ("", "")


def test_without_the_extra_a_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "derain.demo.server")
    monkeypatch.delattr("derain.demo.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == "error: `derain demo` needs uvicorn: pip install '.[demo]'\n"


def test_without_weights_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 5
    assert "models" in capsys.readouterr().err
