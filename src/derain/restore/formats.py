"""Picture files in and out without loss: depth, channels, transparency, orientation, EXIF and colour profile.

What the network sees are levels of 8 or 16 bits, grey or RGB, upright; all else of the file is carried along and
written again. What cannot be carried is said in a note.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError

from derain.data.pictures import FORMATS
from derain.types import DataError

Levels = NDArray[Any]
"""uint8 or uint16, shape (height, width, 3), RGB, or (height, width), grey."""

WRITTEN = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "PPM": ".ppm"}
"""The formats that are written, and the suffix of each."""

_DEEP = {"PNG", "TIFF"}
_TRANSPARENT = {"PNG", "TIFF", "WEBP"}
_WITH_PROFILE = {"PNG", "JPEG", "TIFF", "WEBP"}
_QUALITY = 95
_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}
_TIFF = (b"II*\0", b"MM\0*")
_GREY_OR_RGB = (1, 2)  # TIFF 6.0: PhotometricInterpretation
_SEPARATE = 2  # TIFF 6.0: PlanarConfiguration
_DESCRIPTIVE = {
    *(ExifTags.Base[name] for name in ("ImageDescription", "Make", "Model", "Software", "DateTime", "Artist")),
    *(ExifTags.Base[name] for name in ("Copyright", "Orientation")),
    ExifTags.IFD.Exif,
    ExifTags.IFD.GPSInfo,
}
"""Tags of a TIFF that describe the scene; all others say how the file is laid out."""
_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


@dataclass(frozen=True)
class Decoded:
    """A picture as a file held it.

    `levels` is upright; `alpha`, uint8 or uint16 (height, width) as the levels, is never shown to the network; `exif`
    says upright too. `tables` are a JPEG's quantization tables and subsampling, `lossless` tells of a WebP.
    """

    levels: Levels
    alpha: Levels | None = None
    format: str = "PNG"
    exif: bytes | None = None
    profile: bytes | None = None
    tables: tuple[Any, int] | None = None
    lossless: bool = True
    notes: tuple[str, ...] = field(default=())

    @property
    def bits(self) -> int:
        """8 or 16."""
        return self.levels.dtype.itemsize * 8

    @property
    def rgb8(self) -> NDArray[np.uint8]:
        """The levels as people look at them: uint8 (height, width, 3)."""
        shallow = with_bits(self, 8).levels
        return shallow if shallow.ndim == 3 else np.repeat(shallow[:, :, None], 3, axis=2)


def decode(content: bytes) -> Decoded:
    """The picture that the bytes of a file hold.

    Raises:
        DataError: it is no picture, truncated, damaged, has more pixels than Pillow's guard against decompression bombs
            allows, several frames or pages, or levels that are no 8-bit or 16-bit numbers. The message names no file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with _opened(content) as image:
                image.verify()  # the checksums of a PNG, which decoding passes over
            with _opened(content) as image:
                frames = getattr(image, "n_frames", 1)
                if frames > 1:
                    raise DataError(
                        f"has {frames} frames or pages: split it into single pictures, or use `derain video`"
                    )
                return _decoded(image, content)
    except DataError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = f"{Image.MAX_IMAGE_PIXELS:,}"
        raise DataError(f"has more than {limit} pixels: cut it into smaller pictures") from None
    except UnidentifiedImageError:
        if content[:4] in _TIFF:
            return _unknown_tiff(content)
        raise DataError(f"is not a picture ({', '.join(FORMATS)} are read)") from None
    except MemoryError:
        raise DataError("does not fit into memory: cut it into smaller pictures") from None
    except Exception as error:  # decoders raise nearly every built-in exception on a damaged file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot be read ({reason})") from None


def _opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _decoded(image: Image.Image, content: bytes) -> Decoded:
    # Before the pixels are loaded: of a TIFF, Pillow then turns them, and forgets that it did.
    exif = image.getexif()
    orientation = exif.get(ExifTags.Base.Orientation)
    notes: list[str] = []
    profile = image.info.get("icc_profile")
    channels = _deep_channels(image, content)
    if channels is None:
        if image.mode == "CMYK" and profile:
            profile = None
            notes.append("the colour profile of CMYK is left out")
        channels = _shallow_channels(image, notes)
        turned = image.format == "TIFF"
    else:
        turned = False
    levels, alpha = _split(channels if turned else _upright(channels, orientation or 1))
    if image.format == "TIFF":
        for tag in set(exif) - _DESCRIPTIVE:
            del exif[tag]
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = 1
    tables = None
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in {"RGB", "L"}:
        tables = (image.quantization, JpegImagePlugin.get_sampling(image))
    return Decoded(
        levels,
        alpha,
        image.format or "PNG",
        exif.tobytes() if len(exif) else None,
        profile,
        tables,
        lossless=image.format != "WEBP" or b"VP8L" in content[:64],
        notes=tuple(notes),
    )


def _deep_channels(image: Image.Image, content: bytes) -> Levels | None:
    """The channels of a picture of 16 bits, which Pillow would cut to 8; None for all others."""
    if image.format == "PNG" and content[24] == 16:
        # Pillow has read and checked all of it by then: torchvision is lenient with what is cut short.
        image.load()
        return _sixteen_bit_png(content)
    if image.format == "TIFF" and set(image.tag_v2.get(258, (8,))) == {16}:  # type: ignore[attr-defined]
        return _sixteen_bit_tiff(content)
    if image.mode == "F" or image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 65535:
            raise DataError("holds values that are no 8-bit or 16-bit numbers: convert it first")
        return grey.astype(np.uint16)[:, :, None]
    return None


def _sixteen_bit_png(content: bytes) -> Levels:
    import torch
    from torchvision.io import ImageReadMode, decode_image

    encoded = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    return np.ascontiguousarray(decode_image(encoded, ImageReadMode.UNCHANGED).permute(1, 2, 0).numpy())


def _sixteen_bit_tiff(content: bytes) -> Levels:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        if page.imagewidth * page.imagelength > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError
        if page.dtype != np.uint16 or page.photometric not in _GREY_OR_RGB:
            raise DataError("is a TIFF of another kind than grey or RGB of 8 or 16 bits: convert it first")
        pixels = page.asarray()
        planes_first = page.planarconfig == _SEPARATE and pixels.ndim == 3
    if pixels.ndim == 2:
        return pixels[:, :, None]
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1)) if planes_first else pixels


def _unknown_tiff(content: bytes) -> Decoded:
    """A TIFF that Pillow does not know: of 16 bits, grey with transparency or in separate planes."""
    try:
        levels, alpha = _split(_sixteen_bit_tiff(content))
    except DataError:
        raise
    except Exception:  # as with Pillow's decoders
        raise DataError("is a TIFF that cannot be read: convert it first") from None
    return Decoded(levels, alpha, "TIFF", notes=("what else the file holds than pixels is left out",))


def _shallow_channels(image: Image.Image, notes: list[str]) -> Levels:
    transparent = image.mode in {"LA", "La", "PA", "RGBA", "RGBa"} or "transparency" in image.info
    grey = image.mode in {"1", "L", "LA", "La"}
    mode = ("LA" if transparent else "L") if grey else ("RGBA" if transparent else "RGB")
    named = {"1": "1 bit", "P": "a palette", "PA": "a palette"}.get(image.mode, image.mode)
    if image.mode not in {"L", "LA", "RGB", "RGBA"}:
        notes.append(f"converted from {named} to {mode}")
    pixels = np.array(image.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _upright(channels: Levels, orientation: int) -> Levels:
    """What `ImageOps.exif_transpose` does, for arrays of any depth."""
    operations = {
        2: lambda array: array[:, ::-1],
        3: lambda array: array[::-1, ::-1],
        4: lambda array: array[::-1],
        5: lambda array: array.swapaxes(0, 1),
        6: lambda array: array.swapaxes(0, 1)[:, ::-1],
        7: lambda array: array.swapaxes(0, 1)[::-1, ::-1],
        8: lambda array: array.swapaxes(0, 1)[::-1],
    }
    turned = operations[orientation](channels) if orientation in operations else channels
    return np.ascontiguousarray(turned)


def _split(channels: Levels) -> tuple[Levels, Levels | None]:
    count = channels.shape[2]
    if count not in (1, 2, 3, 4):
        raise DataError(f"has {count} channels: convert it to grey or RGB first")
    alpha = np.ascontiguousarray(channels[:, :, -1]) if count in (2, 4) else None
    levels = channels[:, :, 0] if count < 3 else channels[:, :, :3]
    return np.ascontiguousarray(levels), alpha


def with_bits(picture: Decoded, bits: int) -> Decoded:
    """The picture with levels of 8 or 16 bits: 8-bit v becomes 257 v, and 16-bit ones go to the nearest 8-bit one."""
    if picture.bits == bits:
        return picture
    alpha = None if picture.alpha is None else _converted(picture.alpha, bits)
    return replace(picture, levels=_converted(picture.levels, bits), alpha=alpha)


def _converted(levels: Levels, bits: int) -> Levels:
    if bits == 16:
        return levels.astype(np.uint16) * np.uint16(257)
    return ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def encode(picture: Decoded, written: str) -> tuple[bytes, tuple[str, ...]]:
    """The bytes of a file of that format, a key of `WRITTEN`, and notes on what the format could not hold."""
    notes: list[str] = []
    if picture.bits == 16 and written not in _DEEP:
        picture = with_bits(picture, 8)
        notes.append(f"{written} holds no 16 bits: cut to 8")
    if picture.alpha is not None and written not in _TRANSPARENT:
        picture = replace(picture, alpha=None)
        notes.append(f"{written} holds no transparency: left out")
    if written not in _WITH_PROFILE:
        lost = [name for name, held in (("EXIF", picture.exif), ("colour profile", picture.profile)) if held]
        notes += [f"{written} holds no {name}: left out" for name in lost]
        picture = replace(picture, exif=None, profile=None)
    if picture.bits == 16:
        content = _png16(picture) if written == "PNG" else _tiff16(picture, notes)
    else:
        content = _by_pillow(picture, written)
    return content, tuple(notes)


def _channels(picture: Decoded) -> Levels:
    levels = picture.levels if picture.levels.ndim == 3 else picture.levels[:, :, None]
    return levels if picture.alpha is None else np.concatenate((levels, picture.alpha[:, :, None]), axis=2)


def _by_pillow(picture: Decoded, written: str) -> bytes:
    options: dict[str, Any] = {}
    if picture.exif:
        options["exif"] = picture.exif
    if picture.profile:
        options["icc_profile"] = picture.profile
    if written == "JPEG":
        options |= {"quality": _QUALITY, "subsampling": 0}
        if picture.tables is not None:
            tables, sampling = picture.tables
            del options["quality"]
            options |= {"qtables": tables, "subsampling": sampling} if picture.levels.ndim == 3 else {"qtables": tables}
    elif written == "WEBP":
        options |= {"lossless": picture.lossless, "quality": 80 if picture.lossless else _QUALITY, "exact": True}
    elif written == "TIFF" and not picture.exif:
        # libtiff, which compresses, takes no EXIF below the first level.
        options["compression"] = "tiff_adobe_deflate"
    encoded = io.BytesIO()
    channels = _channels(picture)
    Image.fromarray(channels[:, :, 0] if channels.shape[2] == 1 else channels).save(encoded, written, **options)
    return encoded.getvalue()


def _png16(picture: Decoded) -> bytes:
    """PNG of 16 bits a channel, which nothing at hand writes in colour: W3C's PNG specification, sections 5 and 11."""
    channels = _channels(picture)
    height, width, count = channels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[count], 0, 0, 0)
    chunks = [(b"IHDR", header)]
    if picture.profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(picture.profile)))
    if picture.exif:
        chunks.append((b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", b"".join(_filtered_rows(channels))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _filtered_rows(channels: Levels) -> Iterator[bytes]:
    """The rows, each filtered by Up (section 9.2: what it differs from the one above), compressed."""
    compressor = zlib.compressobj(6)
    above = np.zeros(channels[0].size * 2, np.uint8)
    for row in channels:
        samples = np.frombuffer(row.astype(">u2").tobytes(), np.uint8)
        yield compressor.compress(b"\2" + (samples - above).tobytes())
        above = samples
    yield compressor.flush()


def _tiff16(picture: Decoded, notes: list[str]) -> bytes:
    import tifffile

    if picture.exif:
        notes.append("a TIFF of 16 bits is written without EXIF")
    channels = _channels(picture)
    encoded = io.BytesIO()
    tifffile.imwrite(
        encoded,
        channels[:, :, 0] if channels.shape[2] == 1 else channels,
        photometric="rgb" if channels.shape[2] >= 3 else "minisblack",
        extrasamples=["unassalpha"] if picture.alpha is not None else None,
        planarconfig="contig" if channels.shape[2] > 1 else None,
        compression="zlib",
        predictor=True,
        iccprofile=picture.profile,
        metadata=None,
    )
    return encoded.getvalue()
