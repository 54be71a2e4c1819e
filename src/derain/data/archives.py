"""Unpacking archives from strangers: nothing lands outside the folder, nothing is left behind by a failure.

Members are read as streams and written under checked names; the libraries' own `extract` is never called (the filter
for tar archives was bypassed before: CVE-2025-4517, CVE-2025-4330).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, NoReturn, Protocol, cast

from derain.data.pictures import SUFFIXES
from derain.disk import atomic
from derain.types import DataError

LIMIT_BYTES = 100 * 10**9  # the largest set, SPA-Data for training, is a zip of 44 GB (stevewongv/SPANet, readme)
LIMIT_MEMBERS = 2_000_000
LIMIT_RATIO = 100  # pictures hardly shrink in an archive
_FREE_BYTES = 64 * 2**20  # below this, no ratio is an attack
_HEADER_BYTES = 2**20
_CHUNK_BYTES = 2**20
_NO_NAME = re.compile(r"^[/\\]|[\x00-\x1f\x7f:]")  # absolute, or with a drive, a NUL or an escape sequence
# What the libraries raise on hostile bytes.
_DAMAGE = (
    OSError, EOFError, ValueError, LookupError, ArithmeticError, AssertionError, RuntimeError, struct.error, zlib.error,
    lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
)  # fmt: skip
_TEXT_SUFFIXES = frozenset({".txt", ".md", ".json", ".csv"})
_MAGIC_BYTES = {
    b"Rar!": ".rar",
    b"7z\xbc\xaf\x27\x1c": ".7z",
}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


_DECOMPRESSORS: dict[bytes, Callable[[IO[bytes]], _Readable]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


class _Member(NamedTuple):
    name: str
    size: int
    content: IO[bytes]


def unpack(archive: Path, into: Path, *, limit_bytes: int = LIMIT_BYTES, limit_members: int = LIMIT_MEMBERS) -> None:
    """Unpacks the pictures and texts of a zip or tar archive (plain, .gz, .bz2, .xz) as the new folder `into`.

    Everything else in it is passed over: hidden files, other kinds of file. The folder appears when all is written;
    the files are not forced to the disk one by one, as the archive can be unpacked again.

    Args:
        archive: what kind it is, is told by its content, not by its name.
        into: must not exist, or be an empty folder.
        limit_bytes: the most that all members together may say they hold, and may hold.
        limit_members: the most members.

    Raises:
        DataError: not an archive of these kinds (.rar and .7z included), damaged or truncated, encrypted, above a
            limit (an archive bomb), without a picture, or with a member that is no plain file or whose name points
            outside, holds a NUL or equals another's but for its case. Then nothing of it is left on the disk.
    """
    work = into.with_name(f".{into.name}.unpacking")
    try:
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
        work.mkdir(parents=True)
        guard = _Guard(archive, work, limit_bytes, limit_members)
        for member in _members(archive, guard):
            guard.write(member)
        if not guard.pictures:
            raise DataError(f"{archive} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        work.replace(into)
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError(f"{archive} cannot be unpacked ({error}): unpack it by hand and name `folder:`") from None
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise atomic.not_written(into, error, what=f"{archive} cannot be unpacked to {into}") from None
        raise DataError(f"{archive} is damaged or incomplete ({error}): remove it and fetch it again") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _members(archive: Path, guard: _Guard) -> Iterator[_Member]:
    with archive.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        for magic, suffix in _MAGIC_BYTES.items():
            if head.startswith(magic):
                raise DataError(f"{archive} is a {suffix} archive: unpack it by hand and name `folder:` instead")
        if head.startswith(b"PK"):
            yield from _zip_members(file, guard)
            return
        opener = next((opener for magic, opener in _DECOMPRESSORS.items() if head.startswith(magic)), None)
        stream = _TarStream(opener(file) if opener else file)
        try:
            yield from _tar_members(stream, guard)
        except tarfile.ReadError as error:
            if stream.position == 0 or guard.members == 0:
                raise DataError(
                    f"{archive} is not a zip or tar archive ({error}): fetch it again, or unpack it by hand and name "
                    "`folder:`"
                ) from None
            raise


def _zip_members(file: IO[bytes], guard: _Guard) -> Iterator[_Member]:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if not _counts(file, len(infos)):
            raise zipfile.BadZipFile("its table of contents is not complete")
        for info in infos:
            # `filename` ends at the first NUL and has the system's separators.
            guard.check(info.orig_filename, info.file_size, info.is_dir(), _zip_oddity(info))
        guard.check_space()
        for info in infos:
            if not info.is_dir():
                with archive.open(info) as content:
                    yield _Member(info.orig_filename, info.file_size, content)


def _counts(file: IO[bytes], members: int) -> bool:
    """Whether the record at a zip archive's end counts as many members as zipfile found; zipfile does not ask."""
    file.seek(max(0, file.seek(0, 2) - 2**16 - 22))
    end = file.read()
    count = int.from_bytes(end[(at := end.rindex(b"PK\x05\x06") + 10) : at + 2], "little")
    return count in (members, 0xFFFF)  # the latter refers to a record with more bits


def _zip_oddity(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & 1:
        return "is encrypted"
    return None if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "is a link or a device"


def _tar_members(stream: _TarStream, guard: _Guard) -> Iterator[_Member]:
    with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
        pending = 0
        while True:
            # Headers may be as long as they say, and are read into memory: CPython sets no limit.
            stream.allow(pending + _HEADER_BYTES)
            info = archive.next()
            if info is None:
                break
            guard.check(info.name, info.size, info.isdir(), _tar_oddity(info))
            pending = info.size
            stream.allow(pending + _HEADER_BYTES)
            if content := archive.extractfile(info):
                yield _Member(info.name, info.size, content)
            archive.members.clear()  # type: ignore[attr-defined]
        stream.finish(archive.offset)


def _tar_oddity(info: tarfile.TarInfo) -> str | None:
    plain = info.isdir() or (info.isreg() and not info.issparse())
    return None if plain and info.size >= 0 else "is a link, a device or a file with holes"


class _TarStream:
    """The bytes of a tar archive, read once from front to back and no further than allowed."""

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self._end = 0
        self._last_content = 0
        self.position = 0

    def allow(self, count: int) -> None:
        """Lets `count` bytes more be read."""
        self._end = self.position + count

    def read(self, count: int) -> bytes:
        if self.position > self._end:
            raise tarfile.ReadError("a header is longer than it may be")
        content = self._file.read(count)
        bare = len(content.rstrip(b"\0"))
        if bare:
            self._last_content = self.position + bare
        self.position += len(content)
        return content

    def finish(self, end: int) -> None:
        """Reads to the end, so that the compression's checksum is compared; `end` is where tarfile stopped.

        tarfile takes a damaged or missing header for the end of the archive; the true end is zeros, a block or more.
        """
        while self.position < end + _HEADER_BYTES and self.read(_CHUNK_BYTES):
            self.allow(_HEADER_BYTES)
        if self._last_content > end or self.position < end + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends in the middle")


class _Guard:
    """Refuses members that an honest archive of pictures has not; writes the others."""

    def __init__(self, archive: Path, root: Path, limit_bytes: int, limit_members: int) -> None:
        self._archive = archive
        self._packed_bytes = archive.stat().st_size
        self._root = root
        self._limit_bytes = limit_bytes
        self._limit_members = limit_members
        self._declared_bytes = 0
        self._seen: set[str] = set()
        self.members = 0
        self.pictures = 0

    def check(self, name: str, size: int, is_folder: bool, oddity: str | None) -> None:
        """Raises DataError unless a member of this name and size may be unpacked."""
        self.members += 1
        self._declared_bytes += size
        if oddity:
            self._refuse(name, oddity)
        if self.members > self._limit_members:
            raise DataError(f"{self._archive} has more than {self._limit_members:,} members: unpack it by hand")
        if self._declared_bytes > self._limit_bytes:
            raise DataError(f"{self._archive} would unpack to more than {self._limit_bytes:,} bytes: unpack it by hand")
        if self._declared_bytes > max(_FREE_BYTES, LIMIT_RATIO * self._packed_bytes):
            raise DataError(
                f"{self._archive} would grow more than {LIMIT_RATIO} times: it is not an archive of pictures"
            )
        parts = _parts(name)
        if parts is None or (not parts and not is_folder):
            self._refuse(name, "points outside the archive's folder or is no file name")
        if not is_folder:
            path = unicodedata.normalize("NFC", "/".join(parts)).casefold()
            if path in self._seen:
                self._refuse(name, "occurs twice (capital and small letters count as equal)")
            self._seen.add(path)

    def check_space(self) -> None:
        """Raises SpaceError where the members that were checked would not fit on the disk."""
        atomic.check_space(self._root, self._declared_bytes)

    def _refuse(self, name: str, why: str) -> NoReturn:
        shown = repr(name if len(name) <= 80 else name[:80] + "...")
        raise DataError(f"{self._archive}: its member {shown} {why}: nothing was unpacked; do not trust this archive")

    def write(self, member: _Member) -> None:
        """Writes a member that was checked, if it is a picture or a text."""
        parts = _parts(member.name) or []
        suffix = Path(parts[-1]).suffix.lower()
        if suffix not in _TEXT_SUFFIXES.union(SUFFIXES) or any(part.startswith((".", "__MACOSX")) for part in parts):
            return
        target = self._root.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with target.open("xb") as file:
            while chunk := member.content.read(_CHUNK_BYTES):
                written += len(chunk)
                if written > member.size:
                    self._refuse(member.name, "holds more than it says")
                file.write(chunk)
        if written != member.size:
            self._refuse(member.name, "holds less than it says")
        self.pictures += suffix in SUFFIXES


def _parts(name: str) -> list[str] | None:
    """The folders and the file of a member's name; None if it is not a plain relative path."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    plain = not _NO_NAME.search(name) and ".." not in parts and len(parts) <= 32
    return parts if plain else None
