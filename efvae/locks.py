"""One holder for each cell or stage: a lock that the kernel releases when its process ends, however it ends.

Own: own-sweep
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Lock", "try_lock"]


@dataclass(frozen=True)
class Lock:
    """A lock that is held.

    Args:
        path: its file.
        handle: open file that holds it; a process that inherits it holds it too.

    Own: own-sweep
    """

    path: Path
    handle: int

    def release(self) -> None:
        """Let go; the file is removed while it is still locked, so that nobody can be between its making and locking.

        Own: own-sweep
        """
        try:
            self.path.unlink(missing_ok=True)
        finally:
            os.close(self.handle)


def try_lock(path: Path) -> Lock | None:
    """Take a lock if nobody has it.

    Args:
        path: its file, made if it is not there; its folder exists.

    Returns:
        The lock, or None if another process has it.

    Raises:
        OSError: the file cannot be made.

    Own: own-sweep
    """
    import fcntl  # Unix only, and only runs that store something need it

    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return Lock(path, handle)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder had removed it before we got it: there is a new file, or none


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
