"""Picture files go through without loss: depth, channels, transparency, orientation, EXIF, colour profile."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms
from torchvision.io import ImageReadMode, decode_image

from derain import cli
from derain.restore import network as restore_network
from derain.restore.formats import WRITTEN, Decoded, decode, encode, with_bits
from derain.restore.network import Network
from derain.types import DataError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SHAPES = {"grey": (19, 23), "RGB": (19, 23, 3), "grey and alpha": (19, 23), "RGBA": (19, 23, 3)}


def levels(shape: tuple[int, ...], bits: int, seed: int = 0) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=dtype)


def drawn(kind: str, bits: int, **facts: Any) -> Decoded:
    alpha = levels((19, 23), bits, seed=1) if "lpha" in kind or kind == "RGBA" else None
    return Decoded(levels(SHAPES[kind], bits), alpha, **facts)


def saved(image: Image.Image, written: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, written, **options)
    return file.getvalue()


def photo(seed: int = 0) -> Image.Image:
    return Image.fromarray(levels((19, 23, 3), 8, seed))


def tagged(orientation: int | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera & Co"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] = 0.01
    if orientation:
        exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", list(SHAPES))
@pytest.mark.parametrize("written", ["PNG", "TIFF", "WEBP"])
def test_what_is_written_without_loss_is_read_again(written: str, kind: str, bits: int) -> None:
    picture = drawn(kind, bits, profile=SRGB)
    content, notes = encode(picture, written)
    decoded = decode(content)
    if written == "WEBP":  # holds 8 bits in colour
        assert bool(notes) == (bits == 16)
        picture = with_bits(picture, 8)
        expected = picture.rgb8
    else:
        assert notes == ()
        expected = picture.levels
    assert np.array_equal(decoded.levels, expected)
    if picture.alpha is None:
        assert decoded.alpha is None
    else:
        assert decoded.alpha is not None
        assert np.array_equal(decoded.alpha, picture.alpha)
    if not (written == "TIFF" and kind == "grey and alpha" and bits == 16):  # which Pillow cannot read
        assert decoded.profile == SRGB
    assert decoded.format == written


@pytest.mark.parametrize("kind", list(SHAPES))
def test_our_png_of_16_bits_is_what_others_read(kind: str) -> None:
    picture = drawn(kind, 16)
    content, _ = encode(picture, "PNG")
    others = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.UNCHANGED).numpy()
    channels = picture.levels if picture.levels.ndim == 3 else picture.levels[:, :, None]
    if picture.alpha is not None:
        channels = np.concatenate((channels, picture.alpha[:, :, None]), axis=2)
    assert np.array_equal(np.moveaxis(others, 0, -1), channels)
    with Image.open(io.BytesIO(content)) as image:
        image.verify()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_a_tiff_of_16_bits_that_others_wrote(planar: str) -> None:
    pixels = levels((19, 23, 3), 16)
    file = io.BytesIO()
    stored = pixels if planar == "contig" else np.moveaxis(pixels, -1, 0)
    tifffile.imwrite(file, stored, photometric="rgb", planarconfig=planar, compression="zlib")
    assert np.array_equal(decode(file.getvalue()).levels, pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("written", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_the_camera_s_orientation_is_applied_and_said_to_be(written: str, orientation: int) -> None:
    stored = photo()
    content = saved(
        stored, written, exif=tagged(orientation).tobytes(), **({"lossless": True} if written == "WEBP" else {})
    )
    decoded = decode(content)
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.array(image.convert("RGB"))
    if written in {"PNG", "TIFF", "WEBP"}:
        pixels = np.array(stored)  # Pillow turns a TIFF when it reads it
    # EXIF 2.3, tag 274: which sides of the scene the stored first row and first column are.
    upright = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    assert np.array_equal(decoded.levels, upright)
    again, _ = encode(decoded, written)
    with Image.open(io.BytesIO(again)) as image:
        exif = image.getexif()
    assert exif[ExifTags.Base.Orientation] == 1
    assert exif[ExifTags.Base.Make] == "Camera & Co"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"
    assert float(exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime]) == pytest.approx(0.01)


def test_a_png_of_16_bits_keeps_its_exif() -> None:
    exif = tagged(6)
    picture = Decoded(levels((19, 23, 3), 16), exif=exif.tobytes(), profile=SRGB)
    decoded = decode(encode(picture, "PNG")[0])
    assert decoded.levels.shape == (23, 19, 3)
    again = Image.Exif()
    again.load(decoded.exif or b"")
    assert (again[ExifTags.Base.Make], again[ExifTags.Base.Orientation]) == ("Camera & Co", 1)


def test_a_jpeg_keeps_its_quantization_and_so_its_size() -> None:
    ramp = np.add.outer(np.arange(200), np.arange(300))[:, :, None] // 3 + np.array([0, 20, 40])
    content = saved(Image.fromarray(ramp.astype(np.uint8)), "JPEG", quality=71, subsampling=2)
    again, _ = encode(decode(content), "JPEG")
    with Image.open(io.BytesIO(content)) as before, Image.open(io.BytesIO(again)) as after:
        assert before.quantization == after.quantization  # type: ignore[attr-defined]
        assert before.layer == after.layer  # type: ignore[attr-defined]
    grey = saved(Image.fromarray(levels((19, 23), 8)), "JPEG", quality=60)
    assert decode(encode(decode(grey), "JPEG")[0]).levels.ndim == 2


@pytest.mark.parametrize(
    ("image", "written", "note", "shape", "transparent"),
    [
        (photo().convert("P"), "PNG", "converted from a palette to RGB", (19, 23, 3), False),
        (photo().convert("1"), "PNG", "converted from 1 bit to L", (19, 23), False),
        (photo().convert("CMYK"), "JPEG", "converted from CMYK to RGB", (19, 23, 3), False),
        (photo().convert("P"), "GIF", "converted from a palette to RGB", (19, 23, 3), False),
        (photo().convert("L"), "PNG", None, (19, 23), False),
        (photo().convert("LA"), "PNG", None, (19, 23), True),
    ],
)
def test_other_kinds_are_converted_with_a_note(
    image: Image.Image, written: str, note: str | None, shape: tuple[int, ...], transparent: bool
) -> None:
    decoded = decode(saved(image, written))
    assert decoded.notes == ((note,) if note else ())
    assert decoded.levels.shape == shape
    assert (decoded.alpha is not None) == transparent
    if written != "JPEG":
        assert np.array_equal(decoded.rgb8, np.array(image.convert("RGB")))


def test_a_transparent_palette_keeps_its_transparency() -> None:
    image = photo().quantize(16)
    decoded = decode(saved(image, "PNG", transparency=3))
    assert decoded.alpha is not None
    assert np.array_equal(decoded.alpha == 0, np.array(image) == 3)


@pytest.mark.parametrize(("written", "bits", "words"), [("JPEG", 16, "16 bits"), ("BMP", 8, "transparency")])
def test_what_a_format_cannot_hold_is_said(written: str, bits: int, words: str) -> None:
    content, notes = encode(drawn("RGBA", bits, profile=SRGB, exif=tagged().tobytes()), written)
    assert any(words in note for note in notes)
    assert decode(content).bits == 8
    if written == "BMP":
        assert any("EXIF" in note for note in notes)
        assert any("colour profile" in note for note in notes)


def test_depths_convert_to_the_nearest_and_back() -> None:
    eight = Decoded(np.arange(256, dtype=np.uint8).reshape(16, 16))
    assert np.array_equal(with_bits(with_bits(eight, 16), 8).levels, eight.levels)
    every = Decoded(np.arange(65536, dtype=np.uint16).reshape(256, 256))
    assert np.array_equal(with_bits(every, 8).levels, np.rint(every.levels / 257).astype(np.uint8))


def animated(written: str) -> bytes:
    return saved(photo(), written, save_all=True, append_images=[photo(1), photo(2)])


@pytest.mark.parametrize("written", ["GIF", "WEBP", "PNG", "TIFF"])
def test_several_frames_or_pages_are_refused_plainly(written: str) -> None:
    with pytest.raises(DataError, match="3 frames or pages: split it"):
        decode(animated(written))


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def odd_files() -> dict[str, bytes]:
    """Fifty files that are no pictures, or not what they seem."""
    png = saved(photo(), "PNG")
    jpeg = saved(photo(), "JPEG")
    deep = encode(drawn("RGB", 16), "PNG")[0]
    signature, rest = png[:8], png[8:]
    files = {
        "empty.png": b"",
        "newline.jpg": b"\n",
        "html.png": b"<!DOCTYPE html><html><body>404</body></html>",
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zip.png": b"PK\x03\x04" + bytes(100),
        "pickle.tif": b"\x80\x04\x95" + bytes(60),
        "signature.png": signature,
        "soi.jpg": b"\xff\xd8",
        "soi-eoi.jpg": b"\xff\xd8\xff\xd9",
        "riff.webp": b"RIFF\x00\x00\x00\x00WEBP",
        "tiff-header.tif": b"II*\x00",
        "tiff-nowhere.tif": b"II*\x00\xff\xff\xff\x7f",
        "tiff-loop.tif": b"II*\x00\x08\x00\x00\x00" + b"\x00\x00" + b"\x08\x00\x00\x00",
        "bmp-header.bmp": b"BM" + bytes(12),
        "zeros.bmp": bytes(500),
        "huge.png": signature + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)),
        "bomb.png": signature
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes(7501 * 100)))
        + chunk(b"IEND", b""),
        "no-size.png": signature + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)) + chunk(b"IEND", b""),
        "no-data.png": signature + rest[:25] + chunk(b"IEND", b""),
        "bad-depth.png": signature + chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 7, 2, 0, 0, 0)) + rest[25:],
        "bad-crc.png": png[:29] + bytes(4) + png[33:],
        "bad-data-crc.png": png[:-16] + b"\0\0\0\0" + png[-12:],
        "deep-cut.png": deep[: len(deep) // 2],
        "deep-no-data.png": deep[:33] + chunk(b"IEND", b""),
        "text.webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8 " + bytes(22),
        "ppm-huge.ppm": b"P6 999999999 999999999 255\n",
        "ppm-short.ppm": b"P6 10 10 255\n" + bytes(20),
        "ppm-words.ppm": b"P6 ten ten 255\n" + bytes(300),
        "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "gif-header.gif": b"GIF89a",
        "frames.gif": animated("GIF"),
        "frames.webp": animated("WEBP"),
        "pages.tif": animated("TIFF"),
        "float.tif": saved(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"),
        "int32.tif": saved(Image.fromarray(np.full((9, 9), -5, np.int32)), "TIFF"),
        "five-channels.tif": _tiff(np.zeros((9, 9, 5), np.uint16)),
        "cmyk16.tif": _tiff(np.zeros((9, 9, 4), np.uint16), photometric="separated"),
        "jpeg-half-header.jpg": jpeg[:200],
        "jpeg-no-scan.jpg": jpeg[: jpeg.index(b"\xff\xda")],
        "jpeg-in-text.jpg": b"image: " + jpeg,
    }
    rng = np.random.default_rng(0)
    return files | {f"noise{number}.png": rng.bytes(50 * number + 1) for number in range(50 - len(files))}


def _tiff(pixels: np.ndarray, photometric: str = "minisblack") -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric=photometric, planarconfig="contig", metadata=None)
    return file.getvalue()


def cut_files() -> dict[str, bytes]:
    """Five formats cut at every two percent of their length."""
    ramp = np.add.outer(np.arange(60), np.arange(80))[:, :, None] + levels((60, 80, 3), 8) // 8
    image = Image.fromarray(ramp.astype(np.uint8))
    wholes = {
        "png": saved(image, "PNG"),
        "jpg": saved(image, "JPEG"),
        "tif": saved(image, "TIFF", compression="tiff_adobe_deflate"),
        "webp": saved(image, "WEBP"),
        "bmp": saved(image, "BMP"),
    }
    return {
        f"cut{percent:02}.{suffix}": whole[: len(whole) * percent // 100]
        for suffix, whole in wholes.items()
        for percent in range(0, 100, 2)
    }


class Same:
    receptive_radius = 0

    def describe(self) -> dict[str, str | int]:
        return {}

    def __call__(self, batch: np.ndarray, /) -> np.ndarray:
        return batch


def test_three_hundred_damaged_files_harm_nothing_and_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(restore_network, "load", lambda *_: Network(Same()))
    folder = tmp_path / "in"
    folder.mkdir()
    damaged = cut_files() | odd_files()
    assert len(damaged) == 300
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
    (folder / "folder.png").mkdir()
    (folder / "dangling.png").symlink_to(folder / "nowhere")
    good = {f"good{number}.png": photo(number) for number in range(3)}
    for name, image in good.items():
        image.save(folder / name)
    record = tmp_path / "record.json"
    names = [str(path) for path in sorted(folder.iterdir()) if path.name != "folder.png"]
    assert cli.main(["run", *names, "-o", str(tmp_path / "out"), "--weights", "w", "--json", str(record)]) == 3
    entries = {Path(entry["input"]).name: entry for entry in json.loads(record.read_text())}
    intact = {name for name, entry in entries.items() if entry["status"] == "done"}
    # A cut can spare all pixels: then the picture is whole, and must be what it was.
    assert set(good) <= intact <= set(good) | {f"cut98.{suffix}" for suffix in ("png", "tif", "webp")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == intact, "no partial output"
    for name, image in good.items():
        assert np.array_equal(np.array(Image.open(tmp_path / "out" / name)), np.array(image))
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for name, entry in entries.items():
        if name not in intact:
            assert name in entry["reason"], "each failure names its file"


def test_every_format_that_is_written_is_read_again() -> None:
    for written in WRITTEN:
        content, _ = encode(drawn("RGB", 8), written)
        decoded = decode(content).rgb8.astype(int)
        assert np.abs(decoded - drawn("RGB", 8).levels).mean() < (9 if written in {"JPEG"} else 0.1)
