"""Folders that a user names: the home folder in them, whether they can be written, what to do where not.

Own: own-records
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

__all__ = ["expanded", "is_full", "mend", "probe", "share", "write_atomically"]

_MASK = os.umask(0)  # can only be read by setting it, which is for all threads: so once
os.umask(_MASK)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def expanded(text: str | Path) -> Path:
    """The absolute path that a text means, ``~`` in front being a home folder.

    Args:
        text: as typed, or from a variable of the environment.

    Raises:
        ValueError: nobody knows that home folder; one line.

    Own: own-records
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # no such user, or no HOME and none in the list of users
        raise ValueError(f"{text}: there is no such home folder; write the path without ~") from None


def probe(folder: Path) -> None:
    """Refuse a folder that could not be made or written; nothing is made.

    Args:
        folder: it, or its nearest ancestor that is there, must be a folder that can be written.

    Raises:
        OSError: it cannot, as the operating system reports it.

    Own: own-records
    """
    for place in (folder.absolute(), *folder.absolute().parents):
        try:
            os.lstat(place)  # not exists(): a link to nothing is in the way of a folder of its name
        except (FileNotFoundError, NotADirectoryError):  # the file in the way is met further up
            continue
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        with tempfile.TemporaryFile(dir=place):
            return


def is_full(error: BaseException | str) -> bool:
    """Whether a write failed since the disk, a quota or a limit of the size of files is full.

    Args:
        error: what was raised, or what is left of it in words.

    Own: own-records
    """
    return getattr(error, "errno", None) in NO_ROOM or any(os.strerror(code) in str(error) for code in NO_ROOM)


def mend(error: BaseException, otherwise: str = "name a folder that can be written") -> str:
    """What to do after a failed write, a clause for the end of a message.

    Args:
        error: what was raised.
        otherwise: what to do unless there is no room, see :func:`is_full`.

    Own: own-records
    """
    return "free some space" if is_full(error) else otherwise


def share(path: Path) -> None:
    """Give a private file, as temporary ones are made, the permissions of any other: a record is for everyone.

    Args:
        path: the file.

    Own: own-records
    """
    with contextlib.suppress(OSError):  # some file systems have no permissions
        path.chmod(0o666 & ~_MASK)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Put a file in place in one step; a reader sees the old file or the new one, never a part.

    Args:
        path: where; missing folders are made.
        content: all of it; text is written in UTF-8.

    Raises:
        OSError: as the operating system reports it; nothing is left behind then.

    Own: own-records
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())  # the rename must not reach the disk before the content does
        share(scratch)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every system can; the file is in place in any case
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name too survives a power cut: checkpoints may be deleted now
        finally:
            os.close(folder)
