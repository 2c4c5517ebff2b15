"""What a sweep will do: which cells are recorded, which train together, and what the rest will cost.

Own: own-sweep
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from efvae.records import Record, RecordError, config_dict, find, read, results_root
from efvae.sweep.grid import Cell, Experiment

__all__ = ["Group", "Plan", "duration", "look_up", "plan"]


@dataclass(frozen=True)
class Group:
    """Cells that one process trains.

    Args:
        cells: at least one.

    Own: own-sweep
    """

    cells: tuple[Cell, ...]

    @property
    def key(self) -> str:
        """8 hex digits that name the group, those of its cell or a hash of all of them.

        Own: own-sweep
        """
        digests = sorted(cell.digest for cell in self.cells)
        return digests[0] if len(digests) == 1 else sha256(",".join(digests).encode()).hexdigest()[:8]

    @property
    def label(self) -> str:
        """The values that all its cells share, and how many cells there are.

        Own: own-sweep
        """
        if len(self.cells) == 1:
            return self.cells[0].label
        common = set.intersection(*(set(cell.label.split(" ")) for cell in self.cells))
        shared = " ".join(word for word in self.cells[0].label.split(" ") if word in common)
        return f"{shared} ({len(self.cells)} cells)".strip()


@dataclass(frozen=True)
class Plan:
    """What a sweep will do.

    Args:
        experiment: whose cells they are.
        cells: all of them.
        groups: how they are trained, recorded cells included, so that a group keeps its name.
        recorded: digests of the cells that need nothing.
        broken: digest and reason of the cells whose record is corrupt.
        seconds: expected seconds of each cell that is missing, by digest; empty if there is nothing to go by.
        basis: number of records that ``seconds`` comes from.
        elsewhere: whether these were made on another kind of device, for want of any from this kind.

    Own: own-sweep
    """

    experiment: Experiment
    cells: tuple[Cell, ...]
    groups: tuple[Group, ...]
    recorded: frozenset[str]
    broken: Mapping[str, str]
    seconds: Mapping[str, float]
    basis: int
    elsewhere: bool = False

    @property
    def missing(self) -> list[Group]:
        """The groups to train, without what is recorded or broken.

        Own: own-sweep
        """
        settled = self.recorded | set(self.broken)
        rest = [tuple(cell for cell in group.cells if cell.digest not in settled) for group in self.groups]
        return [Group(cells) for cells in rest if cells]

    def lines(self, jobs: int) -> list[str]:
        """Describe the plan, one line for each group and a total.

        Args:
            jobs: processes at a time.

        Own: own-sweep
        """
        told = [f"skip   {cell.label}: recorded" for cell in self.cells if cell.digest in self.recorded]
        told += [
            f"broken {cell.label}: {self.broken[cell.digest]}" for cell in self.cells if cell.digest in self.broken
        ]
        for group in self.missing:
            cost = f": about {duration(self._cost([group]))}" if self.seconds else ""
            told.append(f"run    {group.label}{cost}")
        return [*told, self.summary(jobs)]

    def summary(self, jobs: int) -> str:
        """The total, in one line.

        Args:
            jobs: processes at a time.

        Own: own-sweep
        """
        groups = self.missing
        to_run = sum(len(group.cells) for group in groups)
        told = (
            f"{self.experiment.stem}: {_count(len(self.cells), 'cell')}, {len(self.recorded)} recorded, {to_run} to run"
        )
        if self.broken:
            told += f", {len(self.broken)} with a corrupt record"
        if not groups:
            return told
        told += f" in {_count(len(groups), 'group')}, {jobs} at a time"
        if not self.seconds:
            return f"{told}; no record of this experiment to estimate the time from"
        longest = max(self._cost([group]) for group in groups)
        total = max(longest, self._cost(groups) / jobs)
        of_another = " of another kind of device" if self.elsewhere else ""
        return f"{told}; about {duration(total)}, by the seconds of {_count(self.basis, 'record')}{of_another}"

    def _cost(self, groups: Sequence[Group]) -> float:
        return sum(self.seconds.get(cell.digest, 0.0) for group in groups for cell in group.cells)


def plan(
    found: Experiment,
    cells: Sequence[Cell],
    results: Path,
    *,
    refresh: bool = False,
    most: int | None = None,
    accelerator: bool = False,
) -> Plan:
    """Plan a sweep; nothing is written.

    Args:
        found: the experiment.
        cells: what should be there in the end.
        results: folder of records.
        refresh: compute although recorded.
        most: most cells in a group, if any number.
        accelerator: whether another device than a CPU is to compute; records of the same kind tell the time.

    Raises:
        UsageError: the data do not suffice for a cell that is missing.
        efvae.data.cache.DataError: they are missing or wrong.

    Own: own-sweep
    """
    if refresh:  # nothing is looked up then, but missing data are told before anything starts
        for cell in cells:
            found.data_sha256(cell.asked)
    recorded, broken = set(), {}
    for cell in [] if refresh else cells:
        try:
            if look_up(found, cell, results):
                recorded.add(cell.digest)
        except RecordError as error:
            broken[cell.digest] = str(error)
    sets: dict[object, list[Cell]] = {}
    for cell in cells:
        key = found.module.together(cell.config) if hasattr(found.module, "together") else cell.digest
        sets.setdefault(key, []).append(cell)
    known, elsewhere = _known(found.stem, results, accelerator=accelerator)
    missing = [cell for cell in cells if cell.digest not in recorded]
    for cell in missing:
        found.check(cell)
    return Plan(
        experiment=found,
        cells=tuple(cells),
        groups=tuple(
            Group(tuple(members[first : first + (most or len(members))]))
            for members in sets.values()
            for first in range(0, len(members), most or len(members))
        ),
        recorded=frozenset(recorded),
        broken=broken,
        seconds={cell.digest: _estimate(config_dict(cell.config), known) for cell in missing} if known else {},
        basis=len(known),
        elsewhere=elsewhere,
    )


def look_up(found: Experiment, cell: Cell, results: Path) -> Record | None:
    """The record of a cell, for the data as they are now.

    Args:
        found: the experiment.
        cell: which.
        results: folder of records.

    Raises:
        RecordError: there is a file, but it is corrupt.

    Own: own-sweep
    """
    return find(found.stem, cell.config, results, found.data_sha256(cell.asked))


def _known(stem: str, results: Path, *, accelerator: bool) -> tuple[list[Record], bool]:
    """The sound records of an experiment, in the results folder and in the project's, of one kind of device.

    Those of the other kind if there are no others; whether it is so.
    """
    known: list[Record] = []
    root = results_root()
    for folder in dict.fromkeys((results / stem, root / stem, root / "cpu" / stem)):
        for path in sorted(folder.glob("[!.]*.json")):
            try:
                known.append(read(path))
            except RecordError:
                continue  # its cell, if it is asked for, says so
    alike = [record for record in known if accelerator != str(record.provenance["device"]).startswith("cpu")]
    return alike or known, not alike


def _estimate(config: dict[str, Any], known: Sequence[Record]) -> float:
    """Median seconds of the most similar records, for as many steps as a configuration has.

    First of all they agree in its choices, such as the encoder; then in how long they are; then in other fields.
    """

    def unlike(record: Record) -> tuple[int, float, int]:
        differ = [key for key, value in config.items() if key != "seed" and record.config.get(key) != value]
        choices = sum(isinstance(config[key], str) for key in differ)
        return choices, abs(math.log(_length(config) / _length(record.config))), len(differ)

    least = min(map(unlike, known))
    alike = [record for record in known if unlike(record) == least]
    return statistics.median(float(r.provenance["seconds"]) * _length(config) / _length(r.config) for r in alike)


def _length(config: Mapping[str, Any]) -> float:
    """Steps or epochs of all parts of a training; 1 if the configuration has none."""
    return sum(n for key, n in config.items() if {"steps", "epochs"} & set(key.split("_")) and isinstance(n, int)) or 1


def _count(n: int, thing: str) -> str:
    return f"{n} {thing}" + ("" if n == 1 else "s")


def duration(seconds: float) -> str:
    """Seconds for people, such as ``2 h 5 min``.

    Args:
        seconds: ≥ 0.

    Own: own-sweep
    """
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    if whole < 100 * 60:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{round(whole / 60)} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
