"""The command ``efvae sweep``.

Own: own-sweep
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from efvae.parameters import UsageError
from efvae.places import is_full
from efvae.records import results_root
from efvae.records.command import hush
from efvae.sweep.grid import Cell, Experiment, cells_of, experiment, read_file
from efvae.sweep.outcome import Outcome
from efvae.sweep.plan import Plan, plan
from efvae.sweep.pool import Options, run
from efvae.values import shown

__all__ = ["add_arguments", "main"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the words of the command.

    Args:
        parser: its parser.

    Own: own-sweep
    """
    parser.add_argument(
        "what", metavar="STEM|FILE.yaml", help="an experiment, such as sec4_1_artificial, or a sweep file"
    )
    parser.add_argument(
        "--grid", nargs="+", action="extend", default=[], metavar="KEY=V1,V2", help="values of a key; 0:3 is 0,1,2"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes at a time (default: 1)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each process (default: 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 or auto (default: cpu)")
    parser.add_argument("--together", type=int, metavar="N", help="cells that one process trains, at most")
    parser.add_argument("--refresh", action="store_true", help="compute again although recorded")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its cost, run nothing")
    parser.add_argument("--json", action="store_true", help="with --dry-run: the groups as JSON, for a workflow engine")
    parser.add_argument("--only", metavar="HASH,...", help="of these cells only, named as --json names them")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder of records (default: results)")
    parser.add_argument("--work", type=Path, metavar="DIR", help="logs and checkpoints (default: _build/sweeps)")


def main(options: argparse.Namespace) -> int:
    """Plan a sweep and run it.

    Args:
        options: the parsed words.

    Returns:
        The exit code: 0 if every cell is recorded, 1 if some failed.

    Raises:
        UsageError: bad input, and nothing has run; or some cells found no room on a disk, whatever came of the others.

    Own: own-sweep
    """
    if options.json and not options.dry_run:
        raise UsageError("--json prints a plan and runs nothing: give --dry-run with it, or leave it away")
    if options.what.endswith((".yaml", ".yml")):
        stem, grids = read_file(Path(options.what))
    else:
        stem, grids = options.what, []
    found = experiment(stem)
    cells = _chosen(cells_of(found, grids, options.grid), options.only)
    given = {"results": options.results or results_root()} | ({"work": options.work} if options.work else {})
    how = Options(
        **given, jobs=options.jobs, threads=options.threads, refresh=options.refresh, device=_device(found, options)
    )
    if options.together is not None and options.together < 1:
        raise UsageError(f"--together must be at least 1; got {options.together}")
    planned = plan(
        found, cells, how.results, refresh=how.refresh, most=options.together, accelerator=how.device != "cpu"
    )
    if options.dry_run:
        for line in [json.dumps(_described(planned))] if options.json else planned.lines(how.jobs):
            _tell(line)
        return 0
    _report(planned.summary(how.jobs))
    try:
        outcome = run(planned, how, _report, _status if sys.stdout.isatty() else _now_and_then())
    except KeyboardInterrupt:
        _report(
            "interrupted: the records made so far stay, and the same command makes all of them again"
            if how.refresh
            else "interrupted: the same command continues it"
        )
        raise
    for line in [*outcome.table(planned), *_kept(how.work / stem / "checkpoints")]:
        _report(line)
    if outcome.full:
        raise UsageError(_no_room(outcome, [how.results / stem, how.work / stem], refresh=how.refresh))
    return 1 if outcome.failed else 0


def _no_room(outcome: Outcome, folders: Sequence[Path], *, refresh: bool) -> str:
    """Which of the folders is full, by what the cells say, and what to do."""
    said = [reason for digest, (reason, _) in outcome.failed.items() if digest in outcome.full]
    full = [str(folder) for folder in folders if any(str(folder) in reason for reason in said)]
    where = f"in {' and '.join(full)}" if full else f"({said[0]})"
    cells = "1 cell has failed" if len(said) == 1 else f"{len(said)} cells have failed"
    again = "makes all cells again" if refresh else "leaves out what is recorded"
    return f"no room {where}: {cells}; free some space and run the same command again, which {again}"


def _device(found: Experiment, options: argparse.Namespace) -> str:
    """Refuse a device before an hour of planning, not in every process; ``auto`` is the kind that is there."""
    from efvae.devices import DeviceError, find  # brings torch, which the help of the command can do without

    name: str = options.device
    if name != "cpu" and "device" not in inspect.signature(found.module.run).parameters:
        raise UsageError(f"--device {shown(name)}: {found.stem} computes on the CPU only; leave --device away")
    try:
        kind = find(name).type
    except DeviceError as error:
        raise UsageError(f"--{error}") from None
    return kind if name == "auto" else name


def _chosen(cells: list[Cell], only: str | None) -> list[Cell]:
    if only is None:
        return cells
    known = {cell.digest: cell for cell in cells}
    wanted = only.split(",")
    for digest in wanted:
        if digest not in known:
            raise UsageError(
                f"--only: this sweep has no cell {shown(digest)}; 'efvae sweep ... --dry-run --json' lists them"
            )
    return [known[digest] for digest in dict.fromkeys(wanted)]


def _kept(folder: Path) -> list[str]:
    """A line on the checkpoints: they let a longer run of the same cells go on from there, and take space."""
    size = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another sweep has just renamed it
            size += path.stat().st_size if path.is_file() else 0
    return (
        [f"{size / 1e6:.1f} MB of checkpoints in {folder}: delete it if nothing shall go on from there"]
        if size > 1e5
        else []
    )


def _described(planned: Plan) -> list[dict[str, object]]:
    """The groups, recorded cells included: a group keeps its name while it is being computed."""
    return [
        {
            "group": group.key,
            "label": group.label,
            "cells": [cell.digest for cell in group.cells],
            "recorded": planned.recorded.issuperset(cell.digest for cell in group.cells),
        }
        for group in planned.groups
    ]


def _tell(line: str) -> None:
    clear = "\r\x1b[K" if sys.stdout.isatty() else ""
    printable = line.encode("utf-8", "backslashreplace").decode()  # a path may be none
    print(f"{clear}{printable}", flush=True)


def _report(line: str) -> None:
    """Tell, or go on without output: who computes for hours under ``| head`` wants the records all the same.

    So does one whose log is on a full disk.
    """
    try:
        _tell(line)
    except OSError as error:
        if not isinstance(error, BrokenPipeError) and not is_full(error):
            raise
        hush()


def _status(line: str) -> None:
    print(f"\r\x1b[K{line[:100]}", end="", flush=True)  # to a terminal only, which is no pipe


def _now_and_then() -> Callable[[str], None]:
    """For a log: a line a minute, so that one sees how far a sweep got that is killed."""
    told = time.monotonic()

    def tell(line: str) -> None:
        nonlocal told
        if time.monotonic() - told > 60:
            told = time.monotonic()
            _report(line)

    return tell
