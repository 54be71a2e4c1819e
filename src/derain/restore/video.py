"""Films: each frame through the network, in segments that survive an interruption, sound and subtitles copied.

Frames are encoded in segments of `SEGMENT` frames, each a file of its own in a hidden folder beside the output, and at
the end joined without encoding again. The folder bears a fingerprint of the film, the weights, how the network computes
and the settings, so that segments of something else are never taken up. Memory holds one frame at a time.
"""

from __future__ import annotations

import hashlib
import heapq
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from derain.console import track
from derain.disk.atomic import sha256_of
from derain.types import DataError, ParamsError

if TYPE_CHECKING:
    import av

    from derain.restore.network import Network

SEGMENT = 48
"""Frames: what an interruption costs at most."""

_ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9", "mpeg4": "mpeg4", "ffv1": "ffv1"}
"""Of films in these codecs the output has the same one, of all others H.264."""
_QUALITY: Mapping[str, Callable[[int], dict[str, str]]] = {
    "libx264": lambda crf: {"crf": str(crf), "bf": "0", "x264-params": "force-cfr=1"},
    "libx265": lambda crf: {"crf": str(crf), "x265-params": "bframes=0:log-level=none"},
    "libvpx-vp9": lambda crf: {"crf": str(crf), "b": "0", "lag-in-frames": "0"},
    "mpeg4": lambda crf: {"flags": "+qscale", "global_quality": str(118 * max(1, crf // 6))},
    "ffv1": lambda _: {},
}
"""No frame waits for a later one: then segments join without a gap. H.264 would take a container's unit of time for the
film's rate, were it not told that the rate is constant; the times of the frames stay what they are."""


def derain_film(film: Path, output: Path, weights: Path, network: Network, quality: int) -> int:
    """Derains a film and returns the number of its frames.

    Frames keep their number, size, times, pixel format, aspect ratio and colour tags; they are written upright. The
    container is that of the output's suffix. Interrupted, the same call goes on after the last finished segment.

    Args:
        quality: the encoder's constant rate factor, 0 to 51, lower is better.

    Raises:
        DataError: the film is missing, damaged or ends early, holds no video, or the output cannot hold its streams.
        NumericError: the network's estimate is not finite.
        ParamsError: the extra `video` is not installed, or the output is the film itself.
    """
    av = _needed()
    if output.exists() and output.samefile(film):
        raise ParamsError(f"{film} would be overwritten by its derained version; name another file with -o")
    if not film.is_file():
        raise DataError(f"{film}: no such film")
    begun = _begun(output, _fingerprint(film, weights, network, quality))
    try:
        frames = _derain_segments(film, begun, network, quality)
        joined = begun / f"joined{output.suffix}"
        _join(film, sorted(begun.glob("*.nut")), joined)
    except av.error.FFmpegError as error:
        raise DataError(f"{film} cannot be derained into {output.name} ({error.strerror or error})") from None
    except ValueError as error:  # of a suffix that no container has
        raise DataError(f"{film} cannot be derained into {output.name} ({error})") from None
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror or error}") from None
    joined.replace(output)
    shutil.rmtree(begun)
    return frames


def _needed() -> Any:
    """PyAV, its log off as it comes: with any level set, decoding threads call Python while it waits for them."""
    try:
        import av
    except ModuleNotFoundError:
        raise ParamsError("films need av: pip install '.[video]'") from None
    return av


def _fingerprint(film: Path, weights: Path, network: Network, quality: int) -> str:
    facts = film.stat()
    computed = (sha256_of(weights), network.describe(), quality, SEGMENT)
    known = (str(film.resolve()), facts.st_size, facts.st_mtime_ns, *computed)
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _begun(output: Path, fingerprint: str) -> Path:
    """The folder of finished segments; those of other films, weights or settings for the same output are removed."""
    folder = output.parent / f".{output.name}.{fingerprint}"
    for other in output.parent.glob(f".{output.name}.{'[0-9a-f]' * 16}"):
        if other != folder:
            shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _derain_segments(film: Path, folder: Path, network: Network, quality: int) -> int:
    import av

    with av.open(str(film)) as container:
        if not container.streams.video:
            raise DataError(f"{film} holds no video")
        stream = container.streams.video[0]
        stream.codec_context.options = {"err_detect": "explode"}
        stream.thread_type = "AUTO"
        duration = container.duration / av.time_base if container.duration else None
        rate = stream.average_rate or stream.guessed_rate
        total = stream.frames or (round(duration * rate) if duration and rate else None)
        frames = iter(track(_timed(container.decode(stream), rate), "derain, frame", total))
        count, number, end = 0, 0, 0.0
        while segment := list(islice(frames, 1)):
            path = folder / f"{number:06}.nut"
            rest = islice(frames, SEGMENT - 1)
            for frame in _segment(path, segment, rest, stream, network, quality):
                count += 1
                end = float(frame.time)
            number += 1
        expected = stream.frames
    if not count:
        raise DataError(f"{film} holds no frame that can be decoded")
    if count < expected or (duration and duration - end > 1 + 2 / float(rate or 1)):
        raise DataError(f"{film} is damaged: it ends after {count} frames")
    return count


def _timed(frames: Iterable[av.VideoFrame], rate: Fraction | None) -> Iterator[av.VideoFrame]:
    """The frames, with times that grow, where the film has none too."""
    last = None
    for frame in frames:
        assert frame.time_base is not None
        step = max(1, round(1 / (rate or 25) / frame.time_base))
        if frame.pts is None or (last is not None and frame.pts <= last):
            frame.pts = 0 if last is None else last + step
        last = frame.pts
        yield frame


def _segment(
    path: Path,
    first: list[av.VideoFrame],
    rest: Iterable[av.VideoFrame],
    stream: Any,
    network: Network,
    quality: int,
) -> Iterator[av.VideoFrame]:
    """Encodes a segment's frames, unless it is there from an interrupted run, and lets them pass."""
    import av

    if path.exists():
        yield from chain(first, rest)
        return
    part = path.with_suffix(".part")
    with av.open(str(part), "w", format="nut") as segment:
        encoder = _encoder(segment, first[0], stream, quality)
        for frame in chain(first, rest):
            segment.mux(encoder.encode(_restored(frame, encoder.pix_fmt, network)))
            yield frame
        segment.mux(encoder.encode())
    part.replace(path)


def _encoder(segment: Any, frame: av.VideoFrame, stream: Any, quality: int) -> Any:
    name = _ENCODERS.get(stream.codec_context.name, "libx264")
    given = stream.codec_context
    encoder = segment.add_stream(name, rate=stream.average_rate or stream.guessed_rate or 25)
    sideways = frame.rotation % 180 != 0
    width, height = (frame.height, frame.width) if sideways else (frame.width, frame.height)
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = _pixel_format(frame.format.name, encoder.codec_context.codec, width % 2 or height % 2)
    encoder.options = _QUALITY[name](quality)
    encoder.time_base = encoder.codec_context.time_base = frame.time_base
    if given.sample_aspect_ratio:
        ratio = given.sample_aspect_ratio
        encoder.codec_context.sample_aspect_ratio = 1 / ratio if sideways else ratio
    for tag in ("color_range", "colorspace", "color_primaries", "color_trc"):
        setattr(encoder.codec_context, tag, getattr(given, tag))
    return encoder


def _pixel_format(given: str, codec: Any, odd: bool | int) -> str:
    known = {form.name for form in codec.video_formats or ()}
    # Encoders of halved chroma take even sizes only; with whole chroma a film of odd size keeps it.
    wanted = "yuv444p" if odd and given.startswith(("yuv420", "yuvj420")) else given
    return wanted if wanted in known else "yuv420p"


def _restored(frame: av.VideoFrame, pixel_format: str, network: Network) -> av.VideoFrame:
    import av

    deep = any(component.bits > 8 for component in frame.format.components)
    layout = "rgb48le" if deep else "rgb24"
    rgb = np.rot90(frame.to_ndarray(format=layout), frame.rotation // 90)
    derained = av.VideoFrame.from_ndarray(network.restore(np.ascontiguousarray(rgb)), format=layout)
    encoded = derained.reformat(format=pixel_format, dst_colorspace=frame.colorspace, dst_color_range=frame.color_range)
    encoded.pts, encoded.time_base = frame.pts, frame.time_base
    return encoded


def _join(film: Path, segments: list[Path], joined: Path) -> None:
    """Puts the segments one after another beside the film's own sound and subtitles; nothing is encoded again."""
    import av

    with av.open(str(film)) as source, av.open(str(segments[0])) as first, av.open(str(joined), "w") as target:
        copied = {
            stream.index: target.add_stream_from_template(stream)  # type: ignore[no-untyped-call]
            for stream in source.streams
            if stream.type in {"audio", "subtitle"}
        }
        video = target.add_stream_from_template(first.streams.video[0])
        video.time_base = source.streams.video[0].time_base
        target.metadata.update(source.metadata)
        others = (packet for packet in source.demux() if packet.stream.index in copied) if copied else iter(())
        streams = (
            (packet for packet in _packets(segments)),
            (packet for packet in others if packet.dts is not None),
        )
        for packet in heapq.merge(*streams, key=lambda packet: packet.dts * packet.time_base):
            packet.stream = copied[packet.stream.index] if packet.stream.container is source else video
            target.mux(packet)


def _packets(segments: list[Path]) -> Iterator[Any]:
    import av

    for path in segments:
        with av.open(str(path)) as segment:
            for packet in segment.demux(video=0):
                if packet.pts is not None:
                    packet.dts = packet.pts  # no frame waits for a later one
                    yield packet
