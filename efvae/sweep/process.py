"""One process of a sweep: started with a group and its locks, read, ended.

Own: own-sweep
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from efvae.locks import Lock
from efvae.sweep.plan import Group

__all__ = ["Process", "start"]


@dataclass
class Process:
    """A process that trains a group.

    Args:
        group: its cells.
        locks: theirs.
        child: the process.
        report: what it says, a line of JSON each.
        log: what it prints, and its traceback.
        started: by the monotonic clock.

    Own: own-sweep
    """

    group: Group
    locks: Sequence[Lock]
    child: subprocess.Popen[bytes]
    report: IO[bytes]
    log: Path
    started: float

    def messages(self) -> list[dict[str, Any]]:
        """What it has said so far; a last line without an end is no message: it was killed while writing.

        Own: own-sweep
        """
        handle = self.report.fileno()
        said = os.pread(handle, os.fstat(handle).st_size, 0)  # seeking would move the place where the process writes
        return [json.loads(line) for line in said.split(b"\n")[:-1]]

    def close(self, *, kill: bool = False) -> None:
        """Wait for its end and release its locks.

        Args:
            kill: end it first.

        Own: own-sweep
        """
        if kill:
            self.child.kill()
        self.child.wait()
        if self.child.stdin:
            with contextlib.suppress(BrokenPipeError):
                self.child.stdin.close()
        self.report.close()
        for lock in self.locks:
            lock.release()

    def epitaph(self) -> str:
        """Why it ended, if it did not say.

        Own: own-sweep
        """
        code = self.child.returncode
        if code == -signal.SIGKILL:
            return "killed by SIGKILL, as the system does when memory is out"
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        lines = self.log.read_text("utf-8", errors="replace").strip().splitlines()
        return f"ended with code {code}: {lines[-1][:300] if lines else 'without a word'}"


def _memory_file() -> IO[bytes]:
    """A file that a full disk cannot spoil, where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("efvae-sweep"), "w+b")
    return tempfile.TemporaryFile()


def start(group: Group, locks: Sequence[Lock], request: Mapping[str, object], log: Path, threads: int) -> Process:
    """Start the process of a group.

    Args:
        group: its cells.
        locks: theirs; the process holds them too, so that they are held until both are gone.
        request: what it is told to do.
        log: file for what it prints.
        threads: how many it may use.

    Raises:
        OSError: the log cannot be written.

    Own: own-sweep
    """
    number = str(threads)
    report = _memory_file()
    # the code of this very checkout, wherever we were started: -P keeps the current folder out
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "efvae.sweep.worker"],
            stdin=subprocess.PIPE,
            stdout=report,
            stderr=errors,
            pass_fds=[lock.handle for lock in locks],
            env=os.environ | {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, "PYTHONPATH": path},
        )
    with contextlib.suppress(BrokenPipeError):  # dead already: its end is noticed in a moment
        assert child.stdin is not None  # noqa: S101 - for the type checker
        child.stdin.write(json.dumps(dict(request)).encode() + b"\n")
        child.stdin.flush()  # and left open: its end would tell the process that we are gone
    return Process(group, locks, child, report, log, time.monotonic())
