"""Folders that a user names: the home folder in them, whether they can be written, what to do where not.

Own: own-records
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

__all__ = ["expanded", "mend", "probe"]

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def mend(error: BaseException, otherwise: str = "name a folder that can be written") -> str:
    """What to do after a failed write, a clause for the end of a message.

    Args:
        error: what was raised.
        otherwise: what to do unless the disk, a quota or a limit of the size of files is full.

    Own: own-records
    """
    full = getattr(error, "errno", None) in _NO_ROOM or any(os.strerror(code) in str(error) for code in _NO_ROOM)
    return "free some space" if full else otherwise
