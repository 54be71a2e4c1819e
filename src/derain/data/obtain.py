"""A folder to read a data set from, whether it is to be fetched, is to be unpacked, or lies there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from derain.data.archives import unpack
from derain.data.fetch import download, gdrive_url
from derain.disk.atomic import sha256_of
from derain.types import DataError


def obtain(
    name: str,
    *,
    published: str,
    url: str | None = None,
    gdrive: str | None = None,
    archive: Path | None = None,
    folder: Path | None = None,
    sha256: str | None = None,
    cache: Path,
) -> Path:
    """A folder to read a data set from, out of one place: `folder`, else `archive`, else `url`, else `gdrive`.

    A download is unpacked below `cache/<name>` and then deleted; an archive on the disk is unpacked there too. Asked
    again for the same place, the folder that is there is returned at once.

    Args:
        name: the data set's name.
        published: where it can be fetched by hand, for messages.
        url: http or https address of an archive.
        gdrive: id of an archive on Google Drive.
        archive: a zip or tar file.
        folder: an unpacked folder, read where it is.
        sha256: checksum of the archive, in small letters.
        cache: folder for what is fetched and unpacked.

    Raises:
        ParamsError: an address or id of a wrong form.
        DataError: a place that is missing, cannot be fetched, has another checksum or cannot be unpacked.
    """
    if folder:
        return _existing_folder(name, folder, published)
    if archive:
        return _from_archive(name, archive, published, sha256, cache)
    return _from_web(name, url or gdrive_url(gdrive or ""), sha256, cache)


def _existing_folder(name: str, folder: Path, published: str) -> Path:
    if not folder.is_dir():
        raise DataError(
            f"{name}: folder {folder} does not exist; unpack the data set there or correct `folder`; "
            f"it is published at {published}"
        )
    return folder


def _from_archive(name: str, archive: Path, published: str, sha256: str | None, cache: Path) -> Path:
    if not archive.is_file():
        raise DataError(
            f"{name}: archive {archive} is not a file; put it there or correct `archive`; "
            f"it is published at {published}"
        )
    state = archive.stat()
    unpacked = _place(cache, name, [str(archive.resolve()), state.st_size, state.st_mtime_ns, sha256])
    if not unpacked.is_dir():
        if sha256 is not None and (digest := sha256_of(archive)) != sha256:
            raise DataError(f"{archive}: sha256 is {digest}, expected {sha256}: correct the checksum or fetch it again")
        unpack(archive, unpacked)
    return unpacked


def _from_web(name: str, url: str, sha256: str | None, cache: Path) -> Path:
    unpacked = _place(cache, name, [url, sha256])
    if not unpacked.is_dir():
        fetched = unpacked.with_suffix(".download")
        download(url, fetched, sha256)
        unpack(fetched, unpacked)
        fetched.unlink()
    return unpacked


def _place(cache: Path, name: str, source: Sequence[object]) -> Path:
    """Where the content of a source lies; another source has another place, so none is taken for the other."""
    return cache / name / hashlib.sha256(json.dumps(source).encode()).hexdigest()[:12]
