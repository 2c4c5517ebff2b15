"""What is open in Table 2, for the scoreboard: the sweep that completes it, what it holds, and what is beyond it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

from efvae import sweep, text_table
from efvae.experiments import text_slope
from efvae.experiments.text import STEM, Config
from efvae.records import Record, config_dict, load
from efvae.scoreboard import SEEDS_FOR_SPREAD
from efvae.text_table import Cell, Entry
from tools.sources import ROOT

SWEEP = "sweeps/table_2.yaml"
MEASURED = "benchmark_text_together"
HEAD = """\
### What is open in Table 2

{recorded} of {cells} cells have a record. What is left to train on a GPU is one sweep, from a clone of the project,
where `EFVAE_DATA` is set or the data are fetched: more seeds, and each cell with leaky hidden units, with held-out
selection and with DisARM, {left} of {all} trainings. It leaves out what is recorded, and when it was killed the same
command goes on. By the seconds that the same cells took with the first seed, an H200 trains them in about
{minutes:.0f} minutes, and measures them besides. With `--grid seed=0:3` the changed cells have three seeds as well, at
three times the price.

```sh
efvae sweep {sweep} --device cuda --together 12 --threads 16
```
"""
MISSED = """\
**{n} values, in training, are missed by more than 3 %**, as {{ref}}`the page <own-text-misses>` counts them; the
table above is stricter: its tolerance is less than that of each number. Of the {tried} that were trained to the end
with {{ref}}`leaky hidden units <own-text-units>`, which are not the paper's, {met} are met. {{ref}}`Small trainings
<own-text-slope>` of two cells suggest one reason why such units help: ReLUs fall silent in the first epochs. With e1,
to undo that is worth about as much as a slope; with e2 and larger first weights than usual most of it, with the usual
ones a gain is not told. {{ref}}`Whole trainings <own-text-anew>` of both, one run each, end where leaky units do. Why
the paper's values are lower, with ReLUs, is not known.
"""
TOGETHER = """\
**On a GPU** it has not been measured what cells cost together and one after the other (on a CPU they are {ref}`a little
cheaper together <own-text-training>`), nor what the rates of the machine are, which {ref}`the floor <own-accelerator>`
assumes.

```sh
python -m benchmarks.text_together --device cuda --record
```
"""
CLOCK = """\
**By the clock** no record has the minutes of the table; records hold the seconds of training. They are had with `time`
before {ref}`its three commands <own-text-command>`.
"""
BEYOND = """\
**Beyond the sweep**, on a CPU; where there is a command it takes an hour or more:

- *Whole trainings with ReLUs that are drawn anew*, which tell how much of a miss {{ref}}`silence may be
  <own-text-anew>`: {anew}. They have no checkpoint. Nor has the control of the second been run to the end,
  ReLUs from He's law that stay silent (`units=relu bits=32`). For 8 bits under e2, and for leaky units, larger first
  weights have not been tried in cells of the table.

  ```sh
  python -m efvae.experiments.text_slope every=1 vocabulary=10000 \\
    batch_size=256 epochs=1000 epochs_many=500 units=recycled \\
    bits=64 encoder=e2 first_weights=he
  ```

- *What the paper does not print* and was varied in parts of a training only: the law of the first weights, the
  documents in a step, products in float32. Also long steps cut short, `clip=100`, which trains faster in the first
  epochs. Add one to `--grid bits=16 encoder=e1 d_hidden=2` of `efvae sweep sec4_3_text`: `first_weights=he`,
  `batch_size=64`, `precision=float32`, `clip=100`.
- *The optimum of linear cells* with 16 bits under e2 and e3 from more rates and seeds, and with 32 and 64 at all:
  {{doc}}`sec4_3_optima` says what is known. The longer codes have no command.
- *The gap with 32 and 64 bits* from more than {{ref}}`200 documents <own-text-annealed>`. It has no option.
- *Four times the usual way behind hidden layers* was the aim for a CPU with matrix units in bfloat16, which none was at
  hand with: `python -m benchmarks.text_epoch depth-1 depth-2 --record`. *What both ways reach in thirty epochs* behind
  hidden layers was measured with an older trainer, and not since: `quality-1 quality-2 --threads 1` in place of these.
"""


def section(root: Path) -> list[str]:
    """Lines of the page.

    Args:
        root: the folder of results.
    """
    cells = text_table.cells_of(root)
    rows = text_table.entries(cells, text_table.printed(root))
    return [
        _head(cells, root),
        *_seeds(cells),
        *_misses(rows, root),
        *_options(cells, root),
        *([] if any(record.config["device"] == "cuda" for record in load(MEASURED, root)) else [TOGETHER]),
        CLOCK,
        BEYOND.format(anew=_anew(rows, root)),
    ]


def planned() -> list[Config]:
    """Trainings of the sweep that completes the table."""
    stem, grids = sweep.read_file(ROOT / SWEEP)
    return [cell.config for cell in sweep.cells_of(sweep.experiment(stem), grids)]


def _head(cells: Mapping[Cell, Sequence[Record]], root: Path) -> str:
    everything, recorded = planned(), [record.config for record in load(STEM, root)]
    left = [config for config in everything if config_dict(config) not in recorded]
    first = [cells[config.bits, config.d_hidden, config.encoder][0] for config in left]
    return HEAD.format(
        recorded=sum(map(bool, cells.values())),
        cells=len(cells),
        left=len(left),
        all=len(everything),
        minutes=math.fsum(record.provenance["seconds"] for record in first) / 60,
        sweep=SWEEP,
    )


def _seeds(cells: Mapping[Cell, Sequence[Record]]) -> list[str]:
    few = [cell for cell, found in cells.items() if len(found) < SEEDS_FOR_SPREAD]
    if not few:
        return []
    return [f"**Seeds.** {len(few)} of {len(cells)} cells have fewer than {SEEDS_FOR_SPREAD}: {_named(few)}.\n"]


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
    return [*lines, ""]


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
        done, begun, runs = [], [], 0
        for cell in cells:
            wanted = text_table.settings(cell) | {name: value}
            found = load(STEM, root, **{key: of for key, of in wanted.items() if key not in _LENGTH})
            whole = sum(all(record.config[key] == wanted[key] for key in _LENGTH) for record in found)
            (done if whole else begun if found else []).append(cell)
            runs += whole
        short = f" and, for fewer epochs, {len(begun)} more ({_named(begun)})" if begun else ""
        which = f", {runs} runs ({_named(done)})" if done else ""
        lines.append(f"**{title}:** {len(done)} of {len(cells)} cells{which}{short}.\n")
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


def _anew(rows: Sequence[Entry], root: Path) -> str:
    """How many of the misses have a whole training with ReLUs that are drawn anew."""
    missed = {row.cell for row in rows if row.verdict == "miss"}
    same = ("epochs", "epochs_many", "vocabulary", "batch_size")
    whole = {"every": 1, "units": "recycled"} | {name: getattr(Config(), name) for name in same}
    done = sorted(missed & {text_table.cell_of(record) for record in load(text_slope.STEM, root, **whole)})
    return f"{len(done)} of {len(missed)} cells with a miss" + (f" ({_named(done)})" if done else "")
