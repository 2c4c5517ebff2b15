"""Table 2 beside the paper: records in, rows out.

Own: own-text-table
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from efvae.experiments.text import STEM, Config
from efvae.records import Record, config_dict, load
from efvae.scoreboard import SEEDS_FOR_SPREAD, targets
from efvae.text.model import ENCODERS

__all__ = [
    "BITS",
    "DEPTHS",
    "SPLITS",
    "Cell",
    "Cells",
    "Entry",
    "cell_of",
    "cells_of",
    "config",
    "direct_fits",
    "entries",
    "laid_out",
    "mean_and_spread",
    "printed",
    "settings",
    "told",
    "values",
    "verdict",
    "where",
]

BITS, DEPTHS, SPLITS = (8, 16, 32, 64), (0, 1, 2), ("train", "test")

#: Bits, hidden layers of the decoder, encoder.
Cell = tuple[int, int, str]
#: The records of each cell, one for each seed, in the order of the seeds.
Cells = Mapping[Cell, Sequence[Record]]


def config(cell: Cell, seed: int = 0) -> Config:
    """The configuration of a cell: the paper's training is the default.

    Own: own-text-table
    """
    bits, d_hidden, encoder = cell
    return Config(bits=bits, d_hidden=d_hidden, encoder=encoder, seed=seed)


def settings(cell: Cell) -> dict[str, Any]:
    """All of a cell's configuration that its records must agree in: everything but the seed.

    Own: own-text-table
    """
    return {name: value for name, value in config_dict(config(cell)).items() if name != "seed"}


def where(cell: Cell) -> str:
    """The same as a filter of ``paper_values.csv``.

    Own: own-text-table
    """
    first = ("bits", "d_hidden", "encoder")
    values = settings(cell)
    return ";".join(f"{name}={values[name]}" for name in (*first, *(n for n in values if n not in first)))


def cell_of(record: Record) -> Cell:
    """The cell of a record, of this table or of another experiment with such cells.

    Own: own-text-table
    """
    return record.config["bits"], record.config["d_hidden"], record.config["encoder"]


def cells_of(root: Path | None = None) -> dict[Cell, list[Record]]:
    """The records of the table by cell, all 36 of them; a cell without a record has an empty list.

    Args:
        root: the folder of results, by default ``results_root()``.

    Raises:
        RecordError: a corrupt record.

    Own: own-text-table
    """
    stored = load(STEM, root)
    found: dict[Cell, list[Record]] = {}
    for cell in ((b, d, e) for b in BITS for d in DEPTHS for e in ENCODERS):
        wanted = settings(cell)
        chosen = (r for r in stored if all(r.config.get(name) == value for name, value in wanted.items()))
        found[cell] = sorted(chosen, key=lambda record: record.config["seed"])
    return found


def direct_fits(fits: Iterable[Record]) -> dict[tuple[str, int], list[Record]]:
    """Linear decoders of the table's size that were fitted by their exact likelihood, without an encoder.

    Args:
        fits: records of :mod:`efvae.experiments.text_rbm`.

    Returns:
        Those of them, by prior and bits, in the order of epochs, rate and seed.

    Own: own-not-the-optimum
    """
    found: dict[tuple[str, int], list[Record]] = {}
    size = {"corpus": "20news", "vocabulary": Config().vocabulary, "batch_size": Config().batch_size, "held_out": 0}
    settings = ("prior", "bits", "epochs", "learning_rate", "seed")
    for record in sorted(fits, key=lambda r: [r.config[name] for name in settings]):
        if all(record.config[name] == value for name, value in size.items()):
            found.setdefault((record.config["prior"], record.config["bits"]), []).append(record)
    return found


@dataclass(frozen=True)
class Entry:
    """One number of Table 2 and ours, in nats a document relative to the saturated multinomial.

    Args:
        split: ``train`` or ``test``.
        cell: bits, hidden layers, encoder.
        paper: as printed.
        values: ours, one for each seed.

    Paper: tab-2
    Own: own-text-table
    """

    split: str
    cell: Cell
    paper: float
    values: tuple[float, ...]

    @property
    def ours(self) -> float | None:
        """Mean over the seeds; None without a record."""
        return mean_and_spread(self.values)[0]

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for fewer than three."""
        return mean_and_spread(self.values)[1]

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None else self.ours - self.paper

    @property
    def verdict(self) -> str:
        """See :func:`verdict`."""
        return verdict(self.ours, self.paper)


def mean_and_spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation from three values on: the deviation of two says little.

    Own: own-text-table
    """
    mean = statistics.fmean(values) if values else None
    return mean, statistics.stdev(values) if len(values) >= SEEDS_FOR_SPREAD else None


def verdict(ours: float | None, paper: float) -> str:
    """``within 1 %`` or ``within 3 %`` of the printed number, else ``miss``; ``open`` where nothing was run.

    Own: own-text-table
    """
    if ours is None:
        return "open"
    off = abs(ours - paper) / paper * (1 - 1e-12)  # 420.19 is within 1 % of 416.03, whatever binary fractions say
    return "within 1 %" if off <= 0.01 else "within 3 %" if off <= 0.03 else "miss"


def printed(root: Path | None = None) -> dict[tuple[str, Cell], float]:
    """The 72 numbers of Table 2 from ``paper_values.csv``, by split and cell.

    Args:
        root: the folder of results, by default ``results_root()``.

    Raises:
        RecordError: the file is missing or damaged.

    Paper: tab-2
    """
    found = {}
    for target in targets(root):
        if target.item == "tab-2" and target.source == "paper":
            pairs = dict(pair.split("=") for pair in target.where.split(";"))
            cell = (int(pairs["bits"]), int(pairs["d_hidden"]), pairs["encoder"])
            found[target.metric.removeprefix("nelbo_"), cell] = float(target.paper)
    return found


def entries(cells: Cells, paper: Mapping[tuple[str, Cell], float]) -> list[Entry]:
    """All numbers of Table 2 in the paper's order: by split, bits, hidden layers, encoder.

    Args:
        cells: the records of one protocol, see :func:`cells_of`.
        paper: see :func:`printed`.

    Paper: tab-2
    Own: own-text-table
    """
    return [
        Entry(split, cell, paper[split, cell], tuple(values(records, f"nelbo_{split}")))
        for split in SPLITS
        for cell, records in cells.items()
    ]


def values(records: Iterable[Record], metric: str) -> list[float]:
    """A metric of the records that have it.

    Own: own-text-table
    """
    found = (record.metrics.get(metric) for record in records)
    return [value for value in found if value is not None]


def laid_out(rows: Sequence[Entry]) -> str:
    """Entries in the layout of the paper: printed number / ours in whole nats, ``!`` for a miss.

    Args:
        rows: of one protocol, all 72; a dash stands for what was not run.

    Paper: tab-2
    Own: own-text-table
    """
    found = {(row.split, row.cell): row for row in rows}

    def number(row: Entry) -> str:
        ours = "–" if row.ours is None else f"{row.ours:.0f}"
        return f"{row.paper:3.0f}/{ours:>3}{'!' if row.verdict == 'miss' else ' '}"

    def across(of: Callable[[int, str], str]) -> str:
        return "  ".join(" ".join(of(depth, encoder) for encoder in ENCODERS) for depth in DEPTHS)

    lines = []
    for split in SPLITS:
        lines += [
            f"{split}, layers of the decoder",
            "    " + across(lambda depth, encoder: f"{depth if encoder == ENCODERS[0] else '':<8}"),
            "    " + across(lambda _, encoder: f"{encoder:^7} "),
        ]
        lines += [f"{m:3} " + across(lambda d, e, m=m, split=split: number(found[split, (m, d, e)])) for m in BITS]  # type: ignore[misc]
    return "\n".join(line.rstrip() for line in lines)


def told(rows: Sequence[Entry]) -> str:
    """Entries as a plain table, those without a record counted below it.

    Args:
        rows: of one protocol.

    Own: own-text-table
    """
    lines = ["split  bits  layers  encoder  paper           ours  difference  verdict"]
    for row in rows:
        if row.ours is not None and row.difference is not None:
            bits, depth, encoder = row.cell
            ours = f"{row.ours:.1f}" + (f" ± {row.spread:.1f}" if row.spread is not None else "")
            lines.append(
                f"{row.split:5}  {bits:4}  {depth:6}  {encoder:>7}  {row.paper:5.0f}  {ours:>13}"
                f"  {row.difference:+10.1f}  {row.verdict}"
            )
    counts = Counter(row.verdict for row in rows)
    said = [f"{name}: {counts[name]}" for name in ("within 1 %", "within 3 %", "miss") if counts[name]]
    return "\n".join([*lines, ", ".join([*said, f"open, not run: {counts['open']} of {len(rows)}"])])
