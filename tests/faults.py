"""Faults done to real sweeps, and what is left of them: for the tests (a few) and for `make torture` (many).

Every trial trains the cells of `REAL`, disturbed, and compares their records with those of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from efvae import records
from efvae.records import Record
from efvae.sweep import cells_of, experiment
from tests import sweeps
from tests.sweeps import REAL

STEM = REAL[0]


@dataclass
class Trial:
    """What one fault did.

    Args:
        hits: times that something was killed.
        lost: records that were there after a kill and are not any more.
        wrong: final records that differ from those of an undisturbed run, and other files among them.
        litter: hidden files of writes that were killed; nothing reads them.
        line: what the user read.
        notes: how often each moment was hit.
    """

    hits: int = 0
    lost: int = 0
    wrong: int = 0
    litter: int = 0
    line: str = ""
    notes: dict[str, int] = field(default_factory=dict)


def undisturbed(folder: Path) -> dict[str, Record]:
    """The records to compare with, computed in this process, without a sweep."""
    found = experiment(STEM)
    made = [found.module.run(cell.config, results=folder / "results") for cell in cells_of(found, [], REAL[2:])]
    return {record.cell: record for record in made}


def judge(trial: Trial, folder: Path, expected: dict[str, Record]) -> None:
    """Count what differs from the undisturbed sweep, all but time, host and commit."""
    found = sweeps.recorded(folder, STEM)
    trial.wrong += len(set(found) ^ set(expected))
    trial.wrong += sum(not records.same(found[cell], expected[cell]) for cell in set(found) & set(expected))
    left = sweeps.left_behind(folder)
    trial.litter += sum(name.startswith(".") and name.endswith(".tmp") for name in left)
    trial.wrong += sum(not (name.startswith(".") and name.endswith(".tmp")) for name in left)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Ids of the processes that a sweep has started."""
    try:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _files(folder: Path, *patterns: str) -> set[tuple[str, int]]:
    found = set()
    for path in (path for pattern in patterns for path in folder.rglob(pattern)):
        with contextlib.suppress(FileNotFoundError):  # moved meanwhile
            found.add((path.name, path.stat().st_mtime_ns))
    return found


#: What to wait for, and how long after it to kill at most, in seconds; a moment is drawn evenly.
MOMENTS: dict[str, tuple[tuple[str, ...], float]] = {
    "starting": ((), 3.0),
    "training": (("*.safetensors",), 0.3),
    "writing a checkpoint": (("*.part",), 0.06),
    "writing a record": ((".*.tmp",), 0.06),
    "between two cells": (("*.json",), 0.5),
}


def kill_at_random(folder: Path, expected: dict[str, Record], kills: int, dice: random.Random) -> Trial:
    """Kill -9 the driver, the process that trains, or both, at a random moment; start again, until all is there.

    A disk whose fsync takes 50 ms makes every write a target that is met. Whenever a sweep comes to its end, its
    records are judged and removed, and the next one begins.
    """
    trial, seen, words = Trial(), set[str](), REAL
    while trial.hits < kills:
        moment, target = dice.choice(list(MOMENTS)), dice.choice(("driver", "worker", "both"))
        patterns, delay = MOMENTS[moment]
        before = _files(folder, *patterns)
        process = sweeps.start(folder, *words, EFVAE_FAULTS="slow-disk")
        while process.poll() is None and patterns and not _files(folder, *patterns) - before:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, delay))
        workers = children(process)
        struck = process.poll() is None and (target == "driver" or bool(workers))
        for pid in [*([process.pid] if target != "worker" else []), *(workers if target != "driver" else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()  # a driver that lost a worker goes on to its end
        if struck:
            trial.hits += 1
            trial.notes[moment] = trial.notes.get(moment, 0) + 1
        now = set(sweeps.recorded(folder, STEM))  # each one whole, or reading would fail
        trial.lost += len(seen - now)
        seen = now
        if len(now) == len(expected) and trial.hits < kills:
            judge(trial, folder, expected)
            shutil.rmtree(folder / "results")
            shutil.rmtree(folder / "work")
            seen = set()
    code, told, errors = sweeps.sweep(folder, *words)
    trial.lost += code != 0
    trial.line = next((line for line in told.splitlines() if " done, " in line), errors)
    judge(trial, folder, expected)
    return trial
