"""Run a plan: a few processes at a time, locks, what came of each cell.

Own: own-sweep
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from efvae import places
from efvae.locks import Lock, try_lock
from efvae.parameters import UsageError
from efvae.records import RecordError, check_folder, config_dict, project_root
from efvae.sweep.grid import Cell
from efvae.sweep.outcome import Outcome
from efvae.sweep.plan import Group, Plan, duration, look_up
from efvae.sweep.process import Process, start

__all__ = ["Options", "run"]

#: Seconds between two looks at the processes, and at cells that another sweep computes.
TICK, PATIENCE = 0.05, 0.5
#: Free bytes that a group needs to be started: a few records.
ROOM = 1 << 18


@dataclass(frozen=True)
class Options:
    """How a sweep runs.

    Args:
        results: folder of records.
        work: folder of logs and checkpoints.
        jobs: processes at a time.
        threads: of each process; the same number gives the same digits.
        refresh: compute although recorded.
        device: where experiments compute that let one choose.

    Raises:
        UsageError: a number out of range.

    Own: own-sweep
    """

    results: Path
    work: Path = field(default_factory=lambda: project_root() / "_build" / "sweeps")
    jobs: int = 1
    threads: int = 1
    refresh: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("jobs", "threads"):
            if not 1 <= getattr(self, name) <= 1024:
                raise UsageError(f"--{name} must be a whole number in [1, 1024]; got {getattr(self, name)}")


def run(
    plan: Plan,
    options: Options,
    tell: Callable[[str], None] = print,
    status: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Compute what a plan says is missing; if that is nothing, nothing is written, so that a full disk does no harm.

    A group that fails, whatever of, is split in two and tried again, until the guilty cell is alone. Cells that another
    sweep computes are waited for.

    Args:
        plan: from :func:`efvae.sweep.plan.plan`.
        options: how.
        tell: gets a line for each group.
        status: gets a line now and then that the next one may replace.

    Raises:
        RecordError, UsageError: a folder cannot be written, or there is no room in it; nothing has run then.

    Own: own-sweep
    """
    sweep = _Sweep(plan, options, tell, status)
    if sweep.queue:
        sweep.prepare()
    try:
        sweep.run()
    finally:
        sweep.stop()
    return sweep.outcome


class _Sweep:
    """The state of one sweep."""

    def __init__(
        self, plan: Plan, options: Options, tell: Callable[[str], None], status: Callable[[str], None]
    ) -> None:
        self.plan, self.options, self.tell, self.status = plan, options, tell, status
        self.folder = options.results / plan.experiment.stem
        self.work = options.work / plan.experiment.stem
        self.checkpoints = self.work / "checkpoints"
        self.queue = deque(plan.missing)
        self.busy: list[Group] = []  # in another sweep
        self.running: list[Process] = []
        self.outcome = Outcome(
            skipped=set(plan.recorded), failed={digest: (reason, None) for digest, reason in plan.broken.items()}
        )
        self.launched: set[str] = set()
        self.met_elsewhere: set[str] = set()
        self.started = self.looked = time.monotonic()

    def prepare(self) -> None:
        """Make the folders, or say in one line why not."""
        for folder in (self.folder, self.work):
            check_folder(folder)
        try:
            self.probe()
            self.work.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            where = error.filename or self.folder
            raise UsageError(f"cannot write {where}: {error.strerror or error}; {places.mend(error)}") from None

    def probe(self) -> None:
        """Refuse a full or read-only folder before an hour of computation, not after it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            file.write(b"\0" * ROOM)
            file.flush()

    def run(self) -> None:
        while self.queue or self.running or self.busy:
            while self.queue and len(self.running) < self.options.jobs:
                self._launch(self.queue.popleft())
            for each in [each for each in self.running if each.child.poll() is not None]:
                self.running.remove(each)
                self._harvest(each)
            if time.monotonic() - self.looked > PATIENCE:
                self.looked = time.monotonic()
                self.queue.extend(self.busy)
                self.busy.clear()
                self._show()
            time.sleep(TICK)

    def stop(self) -> None:
        """End what still runs, which the same sweep continues, and remove the locks that killed sweeps have left."""
        for each in self.running:
            each.close(kill=True)
        with contextlib.suppress(OSError):
            for cell in self.plan.cells:
                path = self.folder / f".{cell.digest}.lock"
                if path.exists() and (lock := try_lock(path)):
                    lock.release()

    def _launch(self, group: Group) -> None:
        """Start a group without the cells that are recorded by now or that another sweep computes."""
        locks: dict[str, Lock] = {}
        try:
            self.probe()
            for cell in group.cells:
                if lock := try_lock(self.folder / f".{cell.digest}.lock"):
                    locks[cell.digest] = lock
            mine = [cell for cell in group.cells if cell.digest in locks and not self._is_settled(cell)]
            for digest in set(locks) - {cell.digest for cell in mine}:
                locks.pop(digest).release()
            if mine:
                self._start(Group(tuple(mine)), [locks[cell.digest] for cell in mine])
        except OSError as error:
            for lock in locks.values():
                lock.release()
            where = error.filename or self.folder
            reason = f"not started: cannot write {where}: {error.strerror}; {places.mend(error)}"
            self._fail(group, reason, None, full=places.is_full(error))
            return
        elsewhere = tuple(cell for cell in group.cells if cell.digest not in locks and not self._is_known(cell))
        if elsewhere:
            digests = {cell.digest for cell in elsewhere}
            if digests - self.met_elsewhere:
                self.tell(f"{Group(elsewhere).label}: another sweep computes this; waiting for it")
            self.met_elsewhere |= digests
            self.busy.append(Group(elsewhere))

    def _is_known(self, cell: Cell) -> bool:
        return any(cell.digest in known for known in (self.outcome.done, self.outcome.skipped, self.outcome.failed))

    def _is_settled(self, cell: Cell) -> bool:
        """Whether a cell that we have just locked has been recorded since we planned."""
        if self.options.refresh and cell.digest not in self.met_elsewhere:
            return False
        try:
            if not look_up(self.plan.experiment, cell, self.options.results):
                return False
        except RecordError as error:
            self.outcome.failed[cell.digest] = (str(error), None)
            return True
        if cell.digest in self.launched:
            self.outcome.done[cell.digest] = time.monotonic() - self.started
        else:
            self.outcome.skipped.add(cell.digest)
        return True

    def _start(self, group: Group, locks: list[Lock]) -> None:
        digests = {cell.digest for cell in group.cells}
        refresh = self.options.refresh and not digests <= self.met_elsewhere
        checkpoints = self.checkpoints
        if refresh:  # from the start, whatever there is
            checkpoints = self.work / f"{group.key}.refresh"
            shutil.rmtree(checkpoints, ignore_errors=True)
        request = {
            "module": self.plan.experiment.module.__name__,
            "configs": [config_dict(cell.asked) for cell in group.cells],
            "data": [self.plan.experiment.data_sha256(cell.asked) for cell in group.cells],
            "results": str(self.options.results.absolute()),
            "checkpoint": str(checkpoints.absolute()),
            "refresh": refresh,
            "device": self.options.device,
        }
        self.launched |= digests
        self.running.append(start(group, locks, request, self.work / f"{group.key}.log", self.options.threads))

    def _harvest(self, each: Process) -> None:
        try:
            self._take_in(each)
        finally:  # its locks are released even if what it said cannot be told
            each.close()

    def _take_in(self, each: Process) -> None:
        """What an ended process said of its cells, and that it said nothing of some."""
        unsaid = {cell.digest: cell for cell in each.group.cells}
        now, ok = time.monotonic(), True
        for message in each.messages():
            if "note" in message:
                self.tell(f"{each.group.label}: {message['note']}")
            for digest in message.get("done", ()):
                self.outcome.done[digest] = now - self.started
                unsaid.pop(digest)
            if "failed" in message:
                ok = False
                cells = tuple(unsaid.pop(digest) for digest in message["failed"])
                self._fail(Group(cells), message["reason"], each.log, full=message["full"])
        if unsaid:
            ok = False
            reason = each.epitaph()
            self._fail(Group(tuple(unsaid.values())), reason, each.log, full=places.is_full(reason))
        if ok:
            each.log.unlink(missing_ok=True)
            self._tell_total(f"{each.group.label}: done in {duration(now - each.started)}")
        shutil.rmtree(self.work / f"{each.group.key}.refresh", ignore_errors=True)

    def _fail(self, group: Group, reason: str, log: Path | None, *, full: bool) -> None:
        """Give up a cell; a group that ran is split, since one cell may be guilty for all."""
        if len(group.cells) > 1 and log is not None:
            half = len(group.cells) // 2
            self.queue.extendleft([Group(group.cells[half:]), Group(group.cells[:half])])
            self.tell(f"{group.label}: {reason}; split in two and tried again")
            return
        for cell in group.cells:
            self.outcome.failed[cell.digest] = (reason, log)
        self.outcome.full |= {cell.digest for cell in group.cells if full}
        self._tell_total(f"{group.label}: failed: {reason}" + (f" (log: {log})" if log else ""))

    def _tell_total(self, line: str) -> None:
        count = sum(map(self._is_known, self.plan.cells))
        self.tell(f"[{count}/{len(self.plan.cells)}] {line}{self._left()}")

    def _left(self) -> str:
        """How long the rest will take, at the pace so far."""
        weight = {cell.digest: self.plan.seconds.get(cell.digest, 1.0) for cell in self.plan.cells}
        rest = [cell.digest for cell in self.plan.cells if not self._is_known(cell)]
        paid = sum(weight[digest] for digest in self.outcome.done)
        if not rest or not paid:
            return ""
        left = (time.monotonic() - self.started) * sum(weight[digest] for digest in rest) / paid
        return f"; {len(rest)} left, about {duration(left)}"

    def _show(self) -> None:
        for each in self.running[:1]:
            told = [message["progress"] for message in each.messages() if "progress" in message]
            said = told[-1] if told else f"for {duration(time.monotonic() - each.started)}"
            others = f", and {len(self.running) - 1} more" if len(self.running) > 1 else ""
            self.status(f"running {each.group.label}: {said}{others}")
