"""The scoreboard: every printed number of the paper beside ours, with the spread over seeds and a verdict.

``results/paper_values.csv`` says what the paper prints, which records answer it and the tolerance, an absolute
difference in the row's unit that was fixed before the runs. ``results/scoreboard.csv`` is generated from it and the
records, and committed.

Own: own-scoreboard
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from efvae.records import Record, RecordError, load, results_root, write_atomically
from efvae.values import nearest

__all__ = ["Row", "Target", "main", "render", "score", "targets"]

#: The spread is shown from this many seeds on: the deviation of two numbers says little.
SEEDS_FOR_SPREAD = 3


@dataclass(frozen=True)
class Target:
    """One printed number and where our value of it comes from.

    Args:
        item: label of the paper's item, or of a statement of our own.
        quantity: what is measured, in words.
        paper: the number as printed.
        unit: its unit.
        tolerance: largest absolute difference that counts as agreement, in that unit.
        stem: folder of the records.
        where: filter on their config, ``key=value;...``.
        metric: name among their metrics.
        source: ``paper``, or ``own`` for a second computation of ours of a number of the paper.

    Own: own-scoreboard
    """

    item: str
    quantity: str
    paper: str
    unit: str
    tolerance: str
    stem: str
    where: str
    metric: str
    source: str


@dataclass(frozen=True)
class Row:
    """One line of the scoreboard, every field as it is printed.

    Own: own-scoreboard
    """

    item: str
    quantity: str
    unit: str
    paper: str
    ours: str
    spread: str
    n: str
    tolerance: str
    verdict: str
    record: str
    source: str


def targets(root: Path | None = None) -> list[Target]:
    """Read ``paper_values.csv``.

    Args:
        root: the folder of results, by default ``results_root()``.

    Raises:
        RecordError: it is missing, or a line is wrong; the message names the line.

    Own: own-scoreboard
    """
    path = (root or results_root()) / "paper_values.csv"
    names = [field.name for field in fields(Target)]
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
    except FileNotFoundError:
        raise RecordError(f"{path} is not there: run this in a checkout of the project, or set EFVAE_RESULTS") from None
    except (OSError, ValueError, csv.Error) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    if not lines or lines[0] != names:
        raise RecordError(f"{path}: expected the columns {','.join(names)}")
    found = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            target = Target(*line)
            if not (math.isfinite(float(target.paper)) and float(target.tolerance) > 0):
                raise ValueError
            found.append(target)
        except (TypeError, ValueError):
            message = f"{path}, line {number}: expected {len(names)} fields, a number and a positive tolerance"
            raise RecordError(message) from None
    return found


def score(target: Target, root: Path | None = None) -> Row:
    """Compare one printed number with the records.

    ::

        ours = mean over seeds,  spread = standard deviation over seeds (from 3 seeds on)
        verdict = within tolerance  if |ours − paper| ≤ tolerance,  else miss;  open without a record

    Args:
        target: the number.
        root: the folder of results, by default ``results_root()``.

    Raises:
        RecordError: a corrupt record, records that differ in more than the seed, or no such metric.

    Own: own-scoreboard
    """
    chosen = _records(target, root)
    values = [float(value) for record in chosen if (value := record.metrics[target.metric]) is not None]
    decimals = len(target.paper.partition(".")[2]) + 2  # two more than the paper prints
    ours = spread = record = ""
    verdict = "open"
    if values:
        mean = math.fsum(values) / len(values)
        ours = f"{mean:.{decimals}f}"
        spread = _digits(statistics.stdev(values), decimals) if len(values) >= SEEDS_FOR_SPREAD else ""
        slack = 1e-9 * abs(float(target.paper))  # -3.64 is within 0.01 of -3.65, whatever binary fractions say
        hit = abs(mean - float(target.paper)) <= float(target.tolerance) + slack
        verdict = "within tolerance" if hit else "miss"
        record = " ".join(f"{r.stem}/{r.cell}.json" for r in chosen if r.metrics[target.metric] is not None)
    count = str(len(values))
    head = (target.item, target.quantity, target.unit, target.paper)
    return Row(*head, ours, spread, count, target.tolerance, verdict, record, target.source)


def _digits(spread: float, decimals: int) -> str:
    """With one significant digit at least: a spread of 0.00004 is not one of 0.0000."""
    least = -math.floor(math.log10(spread)) if spread > 0 else 0
    return f"{spread:.{max(decimals, least)}f}"


def _records(target: Target, root: Path | None) -> list[Record]:
    pairs = [pair.partition("=") for pair in target.where.split(";") if pair]
    try:
        chosen = load(target.stem, root, **{key: value for key, _, value in pairs})
    except RecordError as error:
        raise RecordError(f"{target.item}, {target.quantity}: {error}") from error
    told = f"{target.item}, {target.quantity}"
    for record in chosen:
        if target.metric not in record.metrics:
            hint = nearest(target.metric, record.metrics)
            raise RecordError(f"{told}: {record.stem}/{record.cell}.json has no metric {target.metric!r}: {hint}")
    keys = {key for record in chosen for key in record.config} - {"seed"}
    mixed = sorted(key for key in keys if len({repr(record.config.get(key)) for record in chosen}) > 1)
    if mixed:
        raise RecordError(f"{told}: the records differ in {', '.join(mixed)}; add it to 'where' in paper_values.csv")
    return chosen


def render(rows: Sequence[Row]) -> str:
    """Write rows as the text of ``scoreboard.csv``.

    Args:
        rows: in the order of the file.

    Own: own-scoreboard
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Row)])
    writer.writerows([astuple(row) for row in rows])
    return text.getvalue()


def main(*, check: bool = False, root: Path | None = None) -> int:
    """Write ``scoreboard.csv``, or only check that it is up to date; print a summary.

    Args:
        check: write nothing.
        root: the folder of results, by default ``results_root()``.

    Returns:
        The exit code: 1 if it is to be checked and is stale.

    Raises:
        RecordError: as ``targets`` and ``score``, or the file cannot be written.

    Own: own-scoreboard
    """
    root = root or results_root()
    rows = [score(target, root) for target in targets(root)]
    path, text = root / "scoreboard.csv", render(rows)
    if check:
        if not path.is_file() or path.read_bytes() != text.encode():
            print(f"{path} is out of date: run 'efvae scoreboard' and commit it")
            return 1
    else:
        try:
            write_atomically(path, text)
        except OSError as error:
            raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
    for verdict in ("within tolerance", "miss", "open"):
        count = sum(row.verdict == verdict and row.source == "paper" for row in rows)
        print(f"{count:3d} {verdict}")
    print(f"{sum(row.source == 'paper' for row in rows):3d} printed numbers; {path}")
    return 0
