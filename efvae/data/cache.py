"""Files of a data set: where they lie, and that they are the ones the numbers were computed on.

The folder named by the environment variable ``EFVAE_DATA`` is used if set, and never written to. Otherwise the cache:
``EFVAE_CACHE`` if set, else ``efvae`` in ``XDG_CACHE_HOME``, else ``~/.cache/efvae``.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from efvae.places import expanded

__all__ = [
    "DataError",
    "DataSet",
    "Source",
    "SourceFile",
    "cache_root",
    "check_content",
    "data_folder",
    "named_place",
    "read",
]


class DataError(ValueError):
    """Missing or wrong data, in one line: what is wrong, what was expected, how to mend it.

    Own: own-data
    """


@dataclass(frozen=True)
class SourceFile:
    """One file by its content.

    Args:
        name: file name.
        size: bytes, uncompressed.
        sha256: checksum of the uncompressed content.
        served: whether ``efvae data fetch`` can bring it; a message says what to do.

    Own: own-data
    """

    name: str
    size: int
    sha256: str
    served: bool = True


@dataclass(frozen=True)
class Source:
    """One download.

    Args:
        path: below the address of the data set.
        files: names it gives: the members of an archive (``.tgz``), or the one file.
        most: bytes of an archive that are downloaded at most; a single file has its known size.

    Own: own-data
    """

    path: str
    files: tuple[str, ...]
    most: int = 0


@dataclass(frozen=True)
class DataSet:
    """What a data set consists of and where it comes from.

    Args:
        name: also the name of its folder.
        address: of its home, ending in ``/``.
        sources: what to download from there.
        files: what it consists of.

    Own: own-data
    """

    name: str
    address: str
    sources: tuple[Source, ...]
    files: tuple[SourceFile, ...]

    @property
    def sha256(self) -> str:
        """One checksum for all files, that of the lines ``sha256  name`` as the program sha256sum prints them."""
        lines = "".join(f"{file.sha256}  {file.name}\n" for file in self.files)
        return hashlib.sha256(lines.encode()).hexdigest()

    def file(self, name: str) -> SourceFile:
        """The file of that name.

        Own: own-data
        """
        return next(file for file in self.files if file.name == name)


def cache_root() -> Path:
    """Find the folder for downloads and parsed data.

    Raises:
        DataError: it lies in a home folder that nobody knows.

    Own: own-data
    """
    xdg = os.environ.get("XDG_CACHE_HOME")
    standard = Path(xdg if xdg and Path(xdg).is_absolute() else "~/.cache") / "efvae"
    return named_place("EFVAE_CACHE", os.environ.get("EFVAE_CACHE") or standard)


def named_place(variable: str, text: Path | str) -> Path:
    """The absolute path that a text means.

    Args:
        variable: where the text is from, for a message.
        text: ``~`` in front of it is a home folder.

    Raises:
        DataError: it lies in a home folder that nobody knows.

    Own: own-data
    """
    try:
        return expanded(text)
    except ValueError as error:
        raise DataError(f"{variable}: {error}") from None


def data_folder(data: DataSet) -> Path:
    """Find the folder with the files of a data set.

    Args:
        data: which.

    Raises:
        DataError: there is none; a wrong folder in ``EFVAE_DATA`` is told from a missing one, and one that cannot be
            read from both.

    Own: own-data
    """
    try:
        return _data_folder(data)
    except OSError as error:
        raise DataError(
            f"cannot look into {error.filename}: {error.strerror}; name a folder that can be read"
        ) from None


def _data_folder(data: DataSet) -> Path:
    named = os.environ.get("EFVAE_DATA")
    if not named:
        folder = cache_root() / data.name
        if not folder.is_dir():
            names = ", ".join(file.name for file in data.files)
            mend = (
                f"run 'efvae data fetch {data.name}', or let EFVAE_DATA name the folder that holds {data.name}/"
                if data.sources
                else f"no address serves it; let EFVAE_DATA name the folder that holds {data.name}/ with {names}"
            )
            raise DataError(f"{data.name} is not here (looked for {folder}): {mend}")
        return folder
    root = named_place("EFVAE_DATA", named)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"EFVAE_DATA names {root}, which {what}: name the folder that holds {data.name}/, or unset it")
    if not (root / data.name).is_dir():
        inside = any(_locate(root, file.name) for file in data.files)
        hint = f"name its parent (and call it {data.name})" if inside else "name another, or unset it"
        raise DataError(f"EFVAE_DATA names {root}, which holds no folder {data.name}: {hint}")
    return root / data.name


def _locate(folder: Path, name: str) -> Path | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    return None


def check_content(content: bytes, file: SourceFile, where: Path | str) -> None:
    """Compare bytes with the known size and checksum.

    Args:
        content: uncompressed.
        file: what it should be.
        where: what to call it in a message.

    Raises:
        DataError: truncated or altered.

    Own: own-data
    """
    if len(content) < file.size:
        raise DataError(f"{where} is truncated: {len(content)} bytes, expected {file.size}; {_mend(where, file)}")
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise DataError(f"{where} is altered: sha256 {found[:12]}…, expected {file.sha256[:12]}…; {_mend(where, file)}")


def _mend(where: Path | str, file: SourceFile) -> str:
    if isinstance(where, Path) and os.environ.get("EFVAE_DATA"):
        return "put the original file there" + (", or unset EFVAE_DATA" if file.served else "")
    if not file.served:
        return "put the original file there, or let EFVAE_DATA name another folder"
    return "fetch it again with 'efvae data fetch'"


def read(folder: Path, file: SourceFile) -> bytes:
    """The content of a file, plain or ``.gz``, checked.

    Args:
        folder: see :func:`data_folder`.
        file: which.

    Raises:
        DataError: missing, unreadable, truncated or altered; the message names the file.

    Own: own-data
    """
    try:
        path = _locate(folder, file.name)
    except OSError as error:
        raise DataError(f"cannot look into {folder}: {error.strerror or error}") from error
    if path is None:
        raise DataError(f"{folder / file.name} is missing (nor is there a {file.name}.gz); {_mend(folder, file)}")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(file.size + 1)  # a wrong file may be of any size: no more than tells
    except EOFError as error:
        raise DataError(f"{path} is truncated: its gzip stream breaks off; {_mend(path, file)}") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is altered: not a sound gzip file ({error}); {_mend(path, file)}") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    check_content(content, file, path)
    return content
