"""Faults done to real sweeps, and what is left of them: for the tests (a few) and for `make torture` (many).

Every trial trains the cells of `REAL`, disturbed, and compares their records with those of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from efvae import records
from efvae.records import Record
from efvae.sweep import cells_of, experiment
from tests import sweeps
from tests.sweeps import FAULTY, REAL

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


def judge(trial: Trial, folder: Path, expected: dict[str, Record], *, killed: bool = False) -> None:
    """Count what differs from the undisturbed run, all but time, host and commit."""
    found = sweeps.recorded(folder, STEM)
    trial.wrong += len(set(found) ^ set(expected))
    trial.wrong += sum(not records.same(found[cell], expected[cell]) for cell in set(found) & set(expected))
    # a sweep that was killed just now could not remove its lock files; the next one does
    hidden = (".tmp", ".lock") if killed else (".tmp",)
    left = sweeps.left_behind(folder)
    trial.litter += sum(name.endswith(".tmp") for name in left)
    trial.wrong += sum(not (name.startswith(".") and name.endswith(hidden)) for name in left)


def children(process: subprocess.Popen[str]) -> list[int]:
    """Ids of the processes that a sweep has started."""
    try:
        text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii")
    except OSError:
        return []
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    """Whether the process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


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


def kill_at_random(
    folder: Path, expected: dict[str, Record], kills: int, dice: random.Random, minutes: float = math.inf
) -> Trial:
    """Kill -9 the driver, the process that trains, or both, at a random moment; start again, until all is there.

    A disk whose fsync takes 50 ms makes every write a target that is met. Whenever a sweep comes to its end, its
    records are judged and removed, and the next one begins.
    """
    trial, seen, words, begun = Trial(), set[str](), REAL, time.monotonic()
    while trial.hits < kills and time.monotonic() < begun + 60 * minutes:
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
            judge(trial, folder, expected, killed=True)
            shutil.rmtree(folder / "results")
            shutil.rmtree(folder / "scratch")
            seen = set()
    code, told, errors = sweeps.sweep(folder, *words)
    trial.lost += code != 0
    trial.line = next((line for line in told.splitlines() if " done, " in line), errors)
    judge(trial, folder, expected)
    return trial


# --- one fault each, with cells that take no time; what `make torture` puts into its table ---------------------------

GRID = (FAULTY, "--grid", "seed=0:3")


def _run(trial: Trial, folder: Path, words: Sequence[str], *, code: int, show: str, **extra: str) -> None:
    """Run a sweep and keep the line that says what happened; another exit code than expected is wrong."""
    found, told, errors = sweeps.sweep(folder, *words, **extra)
    lines = (told + errors).replace(str(folder), "…").splitlines()
    line = next((line for line in reversed(lines) if show in line), "")
    line = re.sub(r"\s*\(log: .*\)", "", line).strip()
    trial.line = re.sub(r"\S{20,}", lambda word: f"…{word[0][-18:]}", line) or trial.line  # long paths make wide tables
    trial.wrong += (found != code) + (not line)
    trial.hits += 1


def _heal(trial: Trial, folder: Path, cells: int = 3) -> None:
    """The same sweep on a sound machine: all cells must be there, and no other file."""
    found, _, _ = sweeps.sweep(folder, *GRID)
    present = sweeps.recorded(folder)
    trial.lost += max(0, cells - len(present)) + (found != 0)
    trial.wrong += sum(r.metrics["value"] != r.config["seed"] for r in present.values()) + len(
        sweeps.left_behind(folder)
    )


def full_disk(folder: Path) -> Trial:
    """The disk has no room for the records of some cells."""
    trial = Trial()
    _run(trial, folder, [*GRID[:-1], "seed=3", "entries=2000"], code=2, show="cannot write", EFVAE_FAULTS="full-disk")
    _heal(trial, folder)
    return trial


def read_only(folder: Path) -> Trial:
    """The folder of records cannot be written."""
    trial, where = Trial(), "/sys/kernel" if os.geteuid() == 0 else "/usr"
    _run(trial, folder, [*GRID, "--results", where], code=2, show="cannot write")
    _heal(trial, folder)
    return trial


def two_at_once(folder: Path) -> Trial:
    """Two sweeps of the same cells start together."""
    trial, log = Trial(hits=1), folder / "computed"
    both = [sweeps.start(folder, *GRID, "seconds=0.5", FAULTY_LOG=str(log)) for _ in range(2)]
    told = [process.communicate()[0] for process in both]
    trial.wrong += sum(process.returncode != 0 for process in both) + abs(len(log.read_text().splitlines()) - 3)
    waiting = [line for text in told for line in text.splitlines() if "another sweep" in line]
    trial.line = waiting[0] if waiting else told[1].splitlines()[-1]
    trial.lost += 3 - len(sweeps.recorded(folder))
    return trial


def holder_killed(folder: Path) -> Trial:
    """Of two sweeps, the one that computes is killed; the other takes over."""
    trial, log, free = Trial(hits=1), folder / "computed", folder / "free"
    words = [FAULTY, "--grid", "seed=0"]
    first = sweeps.start(folder, *words, FAULTY_LOG=str(log), FAULTY_UNTIL=str(free))
    while not log.exists():
        time.sleep(0.01)
    workers = children(first)
    second = sweeps.start(folder, *words, FAULTY_LOG=str(log), FAULTY_UNTIL=str(free))
    told = ""
    while second.stdout and "another sweep" not in told and (line := second.stdout.readline()):
        told += line
    first.kill()
    first.communicate()
    while any(map(alive, workers)):
        time.sleep(0.01)
    free.touch()
    told += second.communicate()[0]
    trial.wrong += ("another sweep" not in told) + abs(len(log.read_text().splitlines()) - 2)
    trial.line = told.splitlines()[-1]
    trial.lost += 1 - len(sweeps.recorded(folder))
    return trial


def corrupted_record(folder: Path) -> Trial:
    """A record is cut in half."""
    trial = Trial()
    sweeps.sweep(folder, *GRID)
    path = min((folder / "results").rglob("*.json"))
    half = path.read_bytes()[:80]
    path.write_bytes(half)
    _run(trial, folder, GRID, code=1, show="is not a record")
    trial.wrong += path.read_bytes() != half  # not ours to replace
    _run(trial, folder, [*GRID, "--refresh"], code=0, show="3 done")
    trial.line, trial.hits = f"{path.name} is not a record …; restore it or compute it again", 1
    _heal(trial, folder)
    return trial


def changed_data(folder: Path) -> Trial:
    """The data file changes between two sweeps: the cells are others."""
    trial, data = Trial(), folder / "data"
    for content in ("a" * 64, "b" * 64):
        data.write_text(content)
        _run(trial, folder, GRID, code=0, show="3 done, 0 skipped", FAULTY_DATA=str(data))
    trial.lost += 6 - len(sweeps.recorded(folder))
    trial.hits = 1
    return trial


def clock_back(folder: Path) -> Trial:
    """Each look at the wall clock is an hour before the last one."""
    trial = Trial()
    _run(trial, folder, GRID, code=0, show="3 done", EFVAE_FAULTS="clock-back")
    _run(trial, folder, GRID, code=0, show="0 done, 3 skipped", EFVAE_FAULTS="clock-back")
    trial.hits = 1
    _heal(trial, folder)
    return trial


def nan_in_one(folder: Path) -> Trial:
    """The loss of one cell becomes NaN."""
    trial = Trial()
    _run(trial, folder, [*GRID, "kind=fine,nan"], code=1, show="failed  ")
    trial.lost += 3 - len(sweeps.recorded(folder))
    return trial


def out_of_memory(folder: Path) -> Trial:
    """Five cells that train together do not fit; two do."""
    trial = Trial()
    _run(trial, folder, [FAULTY, "--grid", "seed=0:5", "team=1"], code=0, show="(5 cells): out of", FAULTY_ROOM="2")
    trial.lost += 5 - len(sweeps.recorded(folder))
    return trial


def damaged_checkpoint(folder: Path) -> Trial:
    """A killed training has left a checkpoint, and it is cut in half."""
    trial, words = Trial(hits=1), [*REAL[:-1], "seed=0"]
    process = sweeps.start(folder, *words)
    while process.poll() is None and not list((folder / "scratch").rglob("*.safetensors")):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    for path in (folder / "scratch").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:200])
    _run(trial, folder, words, code=0, show="is damaged")
    trial.hits = 1
    trial.lost += 1 - len(sweeps.recorded(folder, STEM))
    return trial


SINGLE: dict[str, Callable[[Path], Trial]] = {
    "NaN in the loss of one cell": nan_in_one,
    "memory for two of five cells": out_of_memory,
    "two sweeps at once": two_at_once,
    "the sweep that computes is killed, another waits": holder_killed,
    "full disk": full_disk,
    "results folder that cannot be written": read_only,
    "truncated checkpoint": damaged_checkpoint,
    "truncated record": corrupted_record,
    "changed data file": changed_data,
    "clock that goes backwards": clock_back,
}
