"""Films: no frame lost, times and sound as they were, an interruption costs a segment at most."""

from __future__ import annotations

import sys
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from derain import cli
from derain.restore import network as restore_network
from derain.restore import video
from derain.restore.network import Network
from derain.restore.video import SEGMENT, derain_film
from derain.types import DataError, ParamsError


class Same:
    """Stands for a network that changes nothing, and counts."""

    receptive_radius = 0

    def __init__(self, precision: str = "fp32") -> None:
        self.calls = 0
        self.precision = precision

    def describe(self) -> dict[str, str]:
        return {"precision": self.precision}

    def __call__(self, batch: np.ndarray, /) -> np.ndarray:
        self.calls += 1
        return batch


class Stops(Same):
    """Is interrupted at a frame."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def __call__(self, batch: np.ndarray, /) -> np.ndarray:
        if self.calls == self.at:
            raise KeyboardInterrupt
        return super().__call__(batch)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"weights")
    return path


def scene(number: int, height: int, width: int) -> np.ndarray:
    """A smooth picture that says its number: films blur noise."""
    ramp = np.add.outer(np.arange(height), np.arange(width)) * 2.0
    return np.clip(np.stack([ramp, ramp[::-1], np.full_like(ramp, 40 + (number * 7) % 150)], axis=-1), 0, 255)


def film(
    path: Path,
    frames: int = 20,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 48),
    pixels: str = "yuv420p",
    sound: bool = False,
    times: list[int] | None = None,
    **options: str,
) -> Path:
    width, height = size
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.options = {"crf": "10", **options}
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        audio: Any = container.add_stream("aac", rate=16000) if sound else None
        if times:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(number, height, width).astype(np.uint8), format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
            if sound:
                wave = np.sin(np.arange(640) * (0.05 + number / 500)).astype(np.float32)[None]
                tone = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                tone.rate, tone.pts = 16000, number * 640
                container.mux(audio.encode(tone))
        container.mux(stream.encode())
        if sound:
            container.mux(audio.encode())
    return path


def decoded(path: Path) -> tuple[list[np.ndarray], list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24") for frame in frames], [float(frame.time or 0) for frame in frames]


def packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return [(float(p.pts * p.time_base), bytes(p)) for p in container.demux(stream) if p.pts is not None]


@pytest.mark.parametrize("frames", [1, 2, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 7])
def test_as_many_frames_come_out_as_went_in(tmp_path: Path, weights: Path, frames: int) -> None:
    given = film(tmp_path / "in.mp4", frames, bf="3")
    assert derain_film(given, tmp_path / "out.mp4", weights, Network(Same()), 10) == frames
    before, after = decoded(given), decoded(tmp_path / "out.mp4")
    assert len(after[0]) == frames
    assert after[1] == pytest.approx(before[1], abs=1e-3)
    for one, other in zip(before[0], after[0], strict=True):
        assert np.abs(one.astype(int) - other).mean() < 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "w.safetensors"]


@pytest.mark.parametrize(
    ("codec", "suffix", "size", "pixels"),
    [
        ("libx264", ".mkv", (64, 48), "yuv444p"),
        ("libx264", ".mp4", (63, 47), "yuv444p"),
        ("libx265", ".mp4", (64, 48), "yuv420p10le"),
        ("libvpx-vp9", ".webm", (63, 47), "yuv420p"),
        ("mpeg4", ".avi", (64, 48), "yuv420p"),
        ("ffv1", ".mkv", (63, 47), "yuv420p"),
        ("mjpeg", ".mkv", (64, 48), "yuvj420p"),
    ],
)
def test_codecs_sizes_and_pixel_formats(
    tmp_path: Path, weights: Path, codec: str, suffix: str, size: tuple[int, int], pixels: str
) -> None:
    given = film(tmp_path / f"in{suffix}", 9, codec, size, pixels)
    out = tmp_path / f"out{suffix}"
    assert derain_film(given, out, weights, Network(Same()), 8) == 9
    with av.open(str(given)) as before, av.open(str(out)) as after:
        one, other = before.streams.video[0], after.streams.video[0]
        assert (other.width, other.height) == size
        assert other.codec_context.name.removeprefix("lib") == ("h264" if codec == "mjpeg" else one.codec_context.name)
        if codec != "mjpeg" and size != (63, 47):
            assert other.codec_context.pix_fmt == pixels
        assert other.average_rate == one.average_rate
    for first, second in zip(decoded(given)[0], decoded(out)[0], strict=True):
        assert np.abs(first.astype(int) - second).mean() < 4


def test_a_decoders_threads_never_wait_for_pythons_lock(tmp_path: Path, weights: Path) -> None:
    """PyAV's log runs in Python, called by FFmpeg's threads: HEVC films hung one time in some thousands."""
    derain_film(film(tmp_path / "in.mp4", 3, "libx265"), tmp_path / "out.mp4", weights, Network(Same()), 18)
    assert av.logging.get_level() is None


def test_the_aspect_ratio_of_pixels_stays(tmp_path: Path, weights: Path) -> None:
    given = film(tmp_path / "in.mp4", 3)
    derain_film(given, tmp_path / "out.mp4", weights, Network(Same()), 18)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio == Fraction(4, 3)


def test_times_may_vary(tmp_path: Path, weights: Path) -> None:
    times = [0, 40, 55, 300, 301, 900, 1000]
    given = film(tmp_path / "in.mkv", len(times), times=times)
    derain_film(given, tmp_path / "out.mkv", weights, Network(Same()), 18)
    assert decoded(tmp_path / "out.mkv")[1] == pytest.approx([time / 1000 for time in times], abs=1.1e-3)


def test_sound_is_copied_and_stays_in_time(tmp_path: Path, weights: Path) -> None:
    given = film(tmp_path / "in.mp4", 60, sound=True)
    derain_film(given, tmp_path / "out.mp4", weights, Network(Same()), 18)
    before, after = packets(given), packets(tmp_path / "out.mp4")
    assert [content for _, content in after] == [content for _, content in before]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=1e-3)


def test_an_interrupted_film_goes_on_and_ends_the_same(tmp_path: Path, weights: Path) -> None:
    given = film(tmp_path / "in.mp4", 2 * SEGMENT + 20, sound=True)
    whole, broken = tmp_path / "whole.mp4", tmp_path / "broken.mp4"
    derain_film(given, whole, weights, Network(Same()), 18)
    for at in (SEGMENT + 5, 10):
        with pytest.raises(KeyboardInterrupt):
            derain_film(given, broken, weights, Network(Stops(at)), 18)
        assert not broken.exists()
    goes_on = Same()
    derain_film(given, broken, weights, Network(goes_on), 18)
    assert goes_on.calls <= SEGMENT + 20, "the finished segment is not done again"
    for one, other in zip(decoded(whole)[0], decoded(broken)[0], strict=True):
        assert np.array_equal(one, other)
    assert packets(whole) == packets(broken)
    assert not list(tmp_path.glob(".broken*"))


def test_segments_of_something_else_are_never_taken_up(tmp_path: Path, weights: Path) -> None:
    given = film(tmp_path / "in.mp4", SEGMENT + 20)
    for change in ("weights", "quality", "film", "precision", "tile", "overlap", "max_memory"):
        with pytest.raises(KeyboardInterrupt):
            derain_film(given, tmp_path / "out.mp4", weights, Network(Stops(SEGMENT + 2)), 18)
        if change == "weights":
            weights.write_bytes(b"others")
        elif change == "film":
            film(given, SEGMENT + 21)
        fresh = Same("bf16" if change == "precision" else "fp32")
        network = Network(fresh, **({change: 10**9} if change in {"tile", "overlap", "max_memory"} else {}))
        count = derain_film(given, tmp_path / "out.mp4", weights, network, 20 if change == "quality" else 18)
        assert fresh.calls == count, change
        assert not list(tmp_path.glob(".out*")), "what is of no use is removed"


def test_bad_films_are_refused_and_leave_nothing(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "out.mp4"
    (tmp_path / "no.mp4").write_bytes(b"<html>not a film</html>")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        audio: Any = container.add_stream("aac", rate=16000)
        for number in range(9):
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            tone.rate, tone.pts = 16000, number * 1024
            container.mux(audio.encode(tone))
        container.mux(audio.encode())
    whole = film(tmp_path / "whole.mkv", 80)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for name, words in (
        ("missing.mp4", "no such film"),
        ("no.mp4", "cannot be derained"),
        ("sound.mp4", "holds no video"),
        ("cut.mkv", r"cannot be derained|damaged: it ends after \d+ frames"),
    ):
        with pytest.raises(DataError, match=words):
            derain_film(tmp_path / name, out, weights, Network(Same()), 18)
        assert not out.exists()
    with pytest.raises(ParamsError, match="would be overwritten"):
        derain_film(whole, whole, weights, Network(Same()), 18)
    with pytest.raises(DataError, match="cannot be derained into"):
        derain_film(whole, tmp_path / "out.unknown", weights, Network(Same()), 18)


def test_memory_does_not_grow_with_the_film(tmp_path: Path, weights: Path) -> None:
    peaks = []
    for frames in (60, 300):
        given = film(tmp_path / f"{frames}.mp4", frames)
        tracemalloc.start()
        derain_film(given, tmp_path / "out.mp4", weights, Network(Same()), 18)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0] + 200_000


def test_the_command(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restore_network, "load", lambda *_: Network(Same()))
    given = film(tmp_path / "in.mp4", 5)
    assert cli.main(["video", str(given), "-o", str(tmp_path / "out.mp4"), "--weights", str(weights)]) == 0
    assert "5 frames derained" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "av", None)
    assert cli.main(["video", str(given), "-o", str(tmp_path / "out.mp4"), "--weights", str(weights)]) == 2
    assert "pip install '.[video]'" in capsys.readouterr().err
    assert video.SEGMENT > 1
