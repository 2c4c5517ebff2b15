"""How the tests run `efvae sweep` in processes of its own, with an experiment that fails on demand."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from efvae import records
from efvae.records import Record

SITE = Path(__file__).parent / "sweep_site"
ROOT = Path(__file__).resolve().parents[1]
FAULTY = "sec0_faulty"
#: Seconds of real training, with a checkpoint every 100 steps.
REAL = ("sec4_1_artificial", "--grid", "pretrain_steps=300", "joint_steps=300", "batch_size=16", "width=4", "seed=0:2")


@contextlib.contextmanager
def full_disk(size: int = 4096):
    """No file of this process grows beyond this many bytes: the system refuses the write in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def environment(**extra: str) -> dict[str, str]:
    """That of the tests with the faulty experiment in it."""
    path = os.pathsep.join([str(SITE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path} | extra


def start(folder: Path, *words: str, cwd: Path | None = None, **extra: str) -> subprocess.Popen[str]:
    """`efvae sweep`, with results and scratch below a folder, in a process group of its own."""
    where = ["--results", str(folder / "results"), "--work", str(folder / "scratch")]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "efvae", "sweep", *where, *words],
        cwd=cwd,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # whoever started the tests in the background has Ctrl-C ignored, and all that they start
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads yet
    )


def sweep(folder: Path, *words: str, cwd: Path | None = None, **extra: str) -> tuple[int, str, str]:
    """Run it to its end: exit code, output, errors."""
    process = start(folder, *words, cwd=cwd, **extra)
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def recorded(folder: Path, stem: str = FAULTY) -> dict[str, Record]:
    """The records below a folder, by cell; reading checks each."""
    return {record.cell: record for record in records.load(stem, folder / "results")}


def left_behind(folder: Path) -> list[str]:
    """What is in the folder of records and is none."""
    return [path.name for path in (folder / "results").rglob("*") if path.is_file() and path.suffix != ".json"]
