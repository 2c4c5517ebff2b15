"""What is open in Table 2, for the scoreboard: seeds, misses and options of the training, each with its command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from efvae import text_table
from efvae.experiments.text import STEM
from efvae.records import Record, load
from efvae.scoreboard import SEEDS_FOR_SPREAD
from efvae.text_table import Cell, Entry

RUN = "efvae sweep sec4_3_text --device cuda --together 12 \\\n  --grid"
HEAD = """\
### What is open in Table 2

{recorded} of {cells} cells have a record; most of what is left wants a GPU. The commands, where `EFVAE_DATA`
is set, leave out what is recorded.
"""
MISSED = """\
**{n} values, in training, are missed by more than 3 %**, as {{ref}}`the page <own-text-misses>` counts them; the
table above is stricter: its tolerance is less than that of each number. Of the {tried} that were trained to the end
with {{ref}}`leaky hidden units <own-text-units>`, which are not the paper's, {met} are met. {{ref}}`Small trainings
<own-text-slope>` of two cells suggest one reason why such units help: ReLUs fall silent in the first epochs. With e1,
to undo that is worth about as much as a slope; with e2 and larger first weights than usual most of it, with the usual
ones a gain is not told. Why the paper's values are lower, with ReLUs, is not known.
"""
UNMEASURED = """\
**On a GPU** three things have not been measured: what cells cost together and one after the other (cells
of the table once more, with `--together 1` and other `--results`; on a CPU they are {ref}`a little cheaper together
<own-text-training>`); the rates of the machine, which {ref}`the floor <own-accelerator>` assumes; and the minutes of a
command by the clock, of which each record has its cell's share.
"""


def section(root: Path) -> list[str]:
    """Lines of the page.

    Args:
        root: the folder of results.
    """
    cells = text_table.cells_of(root)
    rows = text_table.entries(cells, text_table.printed(root))
    head = HEAD.format(recorded=sum(map(bool, cells.values())), cells=len(cells))
    return [head, *_seeds(cells), *_misses(rows, root), *_options(cells, root), UNMEASURED]


def _seeds(cells: Mapping[Cell, Sequence[Record]]) -> list[str]:
    few = [cell for cell, found in cells.items() if len(found) < SEEDS_FOR_SPREAD]
    if not few:
        return []
    grid = " ".join(f"{name}={','.join(dict.fromkeys(str(cell[i]) for cell in few))}" for name, i in _AXES)
    return [
        f"**Seeds.** {len(few)} of {len(cells)} cells have fewer than {SEEDS_FOR_SPREAD}: {_named(few)}.\n",
        _code(f"{RUN} {grid} seed={','.join(map(str, range(SEEDS_FOR_SPREAD)))}"),
    ]


_AXES = (("bits", 0), ("encoder", 2), ("d_hidden", 1))


def _misses(rows: Sequence[Entry], root: Path) -> list[str]:
    missed = [row for row in rows if row.verdict == "miss"]
    if not missed:
        return []
    leaky = {row: _leaky(row, root) for row in missed}
    met = sum(mean is not None and text_table.verdict(mean, row.paper) != "miss" for row, (mean, _) in leaky.items())
    tried = sum(mean is not None for mean, _ in leaky.values())
    told = MISSED.format(n=len(missed), met=met, tried=tried)
    lines = [
        told,
        "| Bits | Decoder | Encoder | Printed, nats | ReLUs, mean of the seeds | Leaky units, mean (runs) |",
        "| --: | --- | --- | --: | --: | --: |",
    ]
    for row in missed:
        bits, depth, encoder = row.cell
        mean, runs = leaky[row]
        value = "open" if mean is None else f"{mean:.1f} ({runs})"
        lines.append(f"| {bits} | {_DEPTH[depth]} | {encoder} | {row.paper:.0f} | {row.ours:.1f} | {value} |")
    command = [
        f"{RUN} bits=8,16,32,64 encoder=e2 d_hidden=0 activation=leaky_relu",
        f"{RUN} bits=8,16,32,64 encoder=e1,e2,e3 d_hidden=1,2 activation=leaky_relu",
    ]
    return [*lines, "", _code(*command)]


_DEPTH = ("linear", "one hidden layer", "two hidden layers")


def _leaky(row: Entry, root: Path) -> tuple[float | None, int]:
    """Mean over the runs with leaky units, None for none, and their number."""
    settings = text_table.settings(row.cell) | {"activation": "leaky_relu"}
    found = text_table.values(load(STEM, root, **settings), f"nelbo_{row.split}")
    return text_table.mean_and_spread(found)[0], len(found)


def _options(cells: Mapping[Cell, Sequence[Record]], root: Path) -> list[str]:
    lines = []
    for title, name, value in (
        ("Held-out documents that select the epoch", "held_out", 1000),
        ("DisARM in place of ARM", "estimator", "disarm"),
    ):
        done, begun = [], []
        for cell in cells:
            wanted = text_table.settings(cell) | {name: value}
            found = load(STEM, root, **{key: of for key, of in wanted.items() if key not in _LENGTH})
            whole = any(all(record.config[key] == wanted[key] for key in _LENGTH) for record in found)
            (done if whole else begun if found else []).append(cell)
        short = f" and, for fewer epochs, {len(begun)} more ({_named(begun)})" if begun else ""
        which = f", one seed each ({_named(done)})" if done else ""
        lines += [
            f"**{title}:** {len(done)} of {len(cells)} cells{which}{short}. The others:\n",
            _code(f"{RUN} bits=8,16,32,64 encoder=e1,e2,e3 d_hidden=0,1,2 {name}={value}"),
        ]
    return lines


_LENGTH = ("epochs", "epochs_many")


def _named(cells: Sequence[Cell]) -> str:
    """Cells by depth and encoder, such as ``two hidden layers, e1: 8, 16``."""
    order = sorted(cells, key=lambda cell: (cell[1], cell[2], cell[0]))
    return (
        "; ".join(
            f"{_DEPTH[depth]}, {encoder}: {', '.join(str(cell[0]) for cell in group)}"
            for (depth, encoder), group in groupby(order, key=lambda cell: (cell[1], cell[2]))
        )
        + " bits"
    )


def _code(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```", ""])
