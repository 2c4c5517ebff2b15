"""Fetch a data set: continued where it broke off, checked before it is installed, installed in one step."""

from __future__ import annotations

import gzip
import http.client
import os
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from efvae.data.cache import DataError, DataSet, Source, cache_root, check_content, data_folder, read
from efvae.places import mend

__all__ = ["fetch", "retrieve", "verify"]

CHUNK = 1 << 16
#: Longer headers of an archive are refused: they are read into memory, and a few bytes of gzip may hold gigabytes.
MOST_HEADER = 1 << 20
#: Seconds without a byte after which a transfer counts as broken off.
PATIENCE = 30.0
#: A transfer that breaks off is continued at once this often, as long as each attempt brings something.
ATTEMPTS = 5


def verify(data: DataSet) -> Path:
    """Check every file of a data set where it lies.

    Args:
        data: which.

    Returns:
        Its folder.

    Raises:
        DataError: the first file that is missing, truncated or altered, and how many more are.

    Own: own-data
    """
    folder = data_folder(data)
    wrong = []
    for file in data.files:
        try:
            read(folder, file)
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        more = f" (and {len(wrong) - 1} more of {len(data.files)} files are missing or wrong)" if wrong[1:] else ""
        raise DataError(wrong[0] + more)
    return folder


def fetch(data: DataSet, address: str | None = None, tell: Callable[[str], None] = lambda line: None) -> Path:
    """Make a data set available: nothing to do where it is and is right, else downloaded into the cache.

    Args:
        data: which.
        address: of a mirror, by default the data set's own.
        tell: gets a line on each download.

    Returns:
        Its folder. With ``EFVAE_DATA`` set that is the user's, which is checked and never written to.

    Raises:
        DataError: no such address, or one beside ``EFVAE_DATA``; a transfer that breaks off, a wrong file, a folder
            that cannot be written.

    Own: own-data
    """
    if os.environ.get("EFVAE_DATA"):
        if address is not None:
            raise DataError(
                f"EFVAE_DATA is set, so that nothing is downloaded from {address}: unset it, or leave --from out"
            )
        tell("EFVAE_DATA is set: its files are checked, nothing is downloaded")
        return verify(data)
    target = cache_root() / data.name
    base = (data.address if address is None else address).rstrip("/") + "/"
    try:
        if target.is_dir():
            try:
                return verify(data)
            except DataError as error:
                tell(f"{error}: replacing it")
        if not data.sources:
            names = ", ".join(file.name for file in data.files)
            raise DataError(
                f"{data.name} has no address to fetch it from: put {names} into {target}, or set EFVAE_DATA"
            )
        downloads = cache_root() / "downloads" / data.name
        downloads.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{data.name}-", dir=cache_root()) as scratch:
            stage = Path(scratch) / data.name
            stage.mkdir()
            for source in data.sources:
                _obtain(data, source, base, downloads / source.path, stage, tell)
            if target.exists():
                target.rename(Path(scratch) / "old")
            stage.rename(target)
        shutil.rmtree(downloads, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write {error.filename or cache_root()}: {error.strerror or error}; "
            + mend(error, "let EFVAE_CACHE name another folder")
        ) from error
    return target


def _obtain(data: DataSet, source: Source, base: str, path: Path, stage: Path, tell: Callable[[str], None]) -> None:
    """Download and unpack one source; what is left of an older download may be stale, so that a second try is fresh."""
    url = base + source.path
    most = data.file(path.name).size if source.files == (path.name,) else source.most
    while True:
        fresh = retrieve(url, path, most, tell)
        try:
            _unpack(data, source, path, stage, url)
            return
        except DataError as error:
            path.unlink()  # else the next fetch would meet it again
            if fresh:
                raise
            tell(f"{error}: starting over")


def retrieve(url: str, path: Path, most: int, tell: Callable[[str], None] = lambda line: None) -> bool:
    """Download a file; a part of it is kept as ``<path>.part`` and continued, by HTTP Range where the server can.

    Args:
        url: http or https.
        path: where to; nothing is done if it is there.
        most: bytes it has at most; a longer one is refused, and no more than one byte beyond is read.
        tell: gets a line on each attempt.

    Returns:
        Whether all of it was transferred just now; older parts may be of an older version.

    Raises:
        DataError: the server's answer, a file that is too long, or a transfer that breaks off again and again.
        OSError: the folder cannot be written.

    Own: own-data
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"cannot download {url}: expected an address that begins with http:// or https://")
    if path.exists() and path.stat().st_size <= most:
        return False
    part = path.with_name(f"{path.name}.part")
    fresh = not part.exists()
    with part.open("ab") as file:
        _lock(file, part)
        for attempt in range(ATTEMPTS):
            before = file.seek(0, os.SEEK_END)
            if before > most:  # not a part of it
                before = file.truncate(0)
            tell(f"continuing {url} at byte {before}" if before else f"downloading {url}")
            total, ended = _transfer(url, file, before, most)
            have = file.seek(0, os.SEEK_END)
            if have > most or (total or 0) > most:
                file.truncate(0)  # else the next fetch would continue it
                size = f"{total} bytes" if total else "the server sends more"
                raise DataError(f"{url} is too long: {size}, expected at most {most}; is the address right?")
            if have == total or (total is None and ended):
                break
            if attempt == ATTEMPTS - 1 or have <= before:
                of = "" if total is None else f" of {total}"
                raise DataError(f"{url} broke off at {have}{of} bytes: fetch again to continue")
        os.fsync(file.fileno())
        part.rename(path)
    return fresh


def _lock(file: BinaryIO, part: Path) -> None:
    """Two processes must not append to one file."""
    try:
        import fcntl
    except ImportError:
        return  # not a Unix: the checksums still guard the result
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DataError(f"another process is downloading {part}: wait for it") from error


def _transfer(url: str, file: BinaryIO, have: int, most: int) -> tuple[int | None, bool]:
    """Append what the server sends; too long, it is not read.

    Returns:
        The size of the whole, None if the server does not say; whether it came to an end or broke off.
    """
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - retrieve has looked at the scheme
        answer = urllib.request.urlopen(request, timeout=PATIENCE)  # noqa: S310
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                if error.headers.get("Content-Range") == f"bytes */{have}":
                    return have, True
                file.truncate(0)  # longer than the whole: not a part of it
                return _transfer(url, file, 0, most)
            raise DataError(f"{url}: the server answers {error.code} {error.reason}; is the address right?") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(f"cannot reach {url}: {reason}") from error
    with answer:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range") or "")
        if answer.status == http.client.PARTIAL_CONTENT and span and int(span[1]) == have:
            total: int | None = int(span[2])
        elif answer.status == http.client.OK:
            file.truncate(0)  # all of it, from the beginning
            length = answer.headers.get("Content-Length")
            total = int(length) if length and length.isdecimal() else None
        elif have:  # another part than was asked for
            file.truncate(0)
            return _transfer(url, file, 0, most)
        else:
            raise DataError(f"{url}: the server answers {answer.status} where the whole file was asked for")
        return total, (total or 0) > most or _copy(answer, file, most + 1)


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, end: int) -> bool:
    """Append what comes, up to the byte ``end`` of the file; whether that was the end of it."""
    while left := end - file.seek(0, os.SEEK_END):
        try:
            chunk = answer.read(min(CHUNK, left))
        except http.client.IncompleteRead as error:
            file.write(error.partial)
            return False
        except (OSError, http.client.HTTPException):
            return False
        if not chunk:
            break
        file.write(chunk)
    return True


def _unpack(data: DataSet, source: Source, path: Path, stage: Path, url: str) -> None:
    """Put the files of a download into the stage, each of them checked."""
    if source.files == (path.name,):
        shutil.copyfile(path, stage / path.name)
    else:
        _extract(data, source, path, stage, url)
    for name in source.files:
        if not (stage / name).is_file():
            raise DataError(f"{url} holds no {name}: nothing was installed")
        check_content((stage / name).read_bytes(), data.file(name), f"{name} from {url}")


class _ShortReads(gzip.GzipFile):
    """What tarfile reads from; of a member it reads pieces, but a header at once."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MOST_HEADER:
            raise tarfile.ReadError("a header is too long")
        return super().read(size)


def _extract(data: DataSet, source: Source, path: Path, stage: Path, url: str) -> None:
    try:
        with _ShortReads(path) as packed, tarfile.open(fileobj=packed, mode="r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name not in source.files or not member.isfile():
                    continue
                if member.size > data.file(name).size:  # do not fill a disk with it
                    raise DataError(
                        f"{name} from {url} is altered: {member.size} bytes, expected {data.file(name).size}"
                    )
                # not archive.extract: only the bytes count, and its safe form is not in Python before 3.11.4
                content = archive.extractfile(member)
                if content is not None:
                    with content, (stage / name).open("wb") as file:
                        shutil.copyfileobj(content, file)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{url} is not a sound archive: nothing was installed") from error
    except OSError as error:
        if error.errno is None:  # BadGzipFile, LZMAError: of the content, not of the disk
            raise DataError(f"{url} is not a sound archive: nothing was installed") from error
        raise
