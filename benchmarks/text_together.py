"""Cells of Table 2 trained together beside one after the other, and the rates of the device that they are trained on.

``depth-D``: the 12 cells with D hidden layers of the decoder go through both parts of the protocol, the same cells in
both ways, in turns. Of each part (one pair of codes, ten) the first epochs are told apart, since a graph is recorded in
them, and in the first round kernels are compiled: a whole training has as many of them. Figures::

    seconds_1_together, _alone      of an epoch with one pair, all cells, median over the rounds; _10 likewise
    share_1, _low, _high            of the former in the latter, median and range
    prepared_1_together, _alone     seconds of the first epochs beyond those of later ones, median; _first: first round
    protocol_together, _alone       computed from them: seconds of 1000 and 500 epochs, without what is measured after
    nelbo_apart                     greatest relative difference of the last training NELBO, one way and the other

``rates``: products of the shapes of a large step, and a copy, in 10^12 operations or bytes a second, and on a GPU what
:mod:`benchmarks.text_accelerator` makes of them.

On a CPU all of this is a rehearsal: small cells on a corpus made on the spot, CPU seconds. On a GPU: the cells of the
table, seconds of the wall; the parts together are meant to end within ten minutes of an H200.

``python -m benchmarks.text_together [rates depth-0 depth-1 depth-2] [--device cpu] [--rounds 3] [--epochs 5]
[--record]``
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks import text_accelerator
from benchmarks.image_features import clock
from benchmarks.text_accelerator import PROTOCOL
from efvae import devices, records, text_table
from efvae.data.cache import DataError
from efvae.experiments.text import ESTIMATORS, Config, begin, corpus, data_sha256
from efvae.text.model import ENCODERS
from efvae.text.training import Corpora, Phase, Run, train_together

STEM = "benchmark_text_together"
#: What the cells have in place of the table's settings: on a device, in a rehearsal.
TABLE: dict[str, object] = {}
REHEARSAL: dict[str, object] = {"corpus": "curved", "vocabulary": 40, "width": 8, "batch_size": 1024}
#: Epochs of a part until all is recorded, the last batch too: see :class:`efvae.devices.Repeated`.
FIRST = 2

#: Of each way the figures of its rounds.
Found = dict[str, list[dict[str, float]]]


@dataclass(frozen=True)
class Cell:
    """What a record of this benchmark is of."""

    part: str
    corpus: str
    vocabulary: int
    width: int
    epochs: int
    device: str


def cells(depth: int) -> list[Config]:
    """Of the table, or of a rehearsal, with so many hidden layers of the decoder."""
    settings = REHEARSAL if devices.current().type == "cpu" else TABLE
    kinds = [(bits, depth, encoder) for bits in text_table.BITS for encoder in ENCODERS]
    return [replace(text_table.config(kind), **settings) for kind in kinds]


def train(runs: Sequence[Run], corpora: Corpora, config: Config, epochs: int, number: int) -> dict[str, float]:
    """Seconds in the round of that number, from 1; epochs: of each part, after its first ones. See the module."""
    estimator = ESTIMATORS[config.estimator]
    phases = [Phase(FIRST + epochs, estimator(pairs)) for _, pairs in PROTOCOL] * number
    ends = [clock()]
    train_together(
        runs,
        corpora,
        phases,
        batch_size=config.batch_size,
        order_seed=config.seed,
        progress=lambda *_: ends.append(clock()),
    )
    found = {}
    for part, (_, pairs) in enumerate(PROTOCOL):
        start, warm, end = (ends[part * (FIRST + epochs) + after] for after in (0, FIRST, FIRST + epochs))
        found[f"seconds_{pairs}"] = (end - warm) / epochs
        found[f"prepared_{pairs}"] = warm - start - FIRST * found[f"seconds_{pairs}"]
    return found


def depth_figures(depth: int, rounds: int, epochs: int) -> dict[str, float]:
    """Of the cells with such a decoder; see the module."""
    configs, device = cells(depth), devices.current()
    text = corpus(configs[0])
    corpora, _, together = begin(configs, text, None, device)
    _, _, alone = begin(configs, text, None, device)
    found: Found = {"together": [], "alone": []}
    for number in range(1, rounds + 1):
        found["together"].append(train(together, corpora, configs[0], epochs, number))
        each = [train([run], corpora, configs[0], epochs, number) for run in alone]
        found["alone"].append({name: sum(one[name] for one in each) for name in each[0]})
    ends = [[run.curve["nelbo_train"][-1] for run in runs] for runs in (together, alone)]
    apart = max(abs(one / other - 1) for one, other in zip(*ends, strict=True))
    return {**summary(found), "nelbo_apart": apart, "rounds": float(rounds)}


def summary(found: Found) -> dict[str, float]:
    """Figures of times; see the module."""
    figures = {
        f"{name}_{way}": statistics.median(one[name] for one in values)
        for way, values in found.items()
        for name in values[0]
    }
    for _, pairs in PROTOCOL:
        name = f"seconds_{pairs}"
        shares = [one[name] / other[name] for one, other in zip(found["together"], found["alone"], strict=True)]
        figures[f"share_{pairs}"] = statistics.median(shares)
        figures |= {f"share_{pairs}_low": min(shares), f"share_{pairs}_high": max(shares)}
        figures[f"prepared_{pairs}_first"] = found["together"][0][f"prepared_{pairs}"]
    for way in found:
        figures[f"protocol_{way}"] = sum(
            figures[f"prepared_{pairs}_{way}"] + length * figures[f"seconds_{pairs}_{way}"]
            for length, pairs in PROTOCOL
        )
    return figures


def rates_figures(rounds: int, _: int) -> dict[str, float]:
    """In 10^12 a second; on a GPU prints the floor of the table at these rates."""
    config = cells(0)[0]
    found = text_accelerator.rates(2 * config.samples_many * config.batch_size, config.width, config.vocabulary, rounds)
    figures = {
        "bf16": found.bf16 / 1e12,
        "tf32": found.tf32 / 1e12,
        "float32": found.float32 / 1e12,
        "memory": found.bytes / 1e12,
    }
    if devices.current().type != "cpu":
        text_accelerator.main([word for name, rate in figures.items() for word in (f"--{name}", f"{rate:.4g}")])
    return figures


PARTS: dict[str, Callable[[int, int], dict[str, float]]] = {
    "rates": rates_figures,
    **{f"depth-{depth}": functools.partial(depth_figures, depth) for depth in text_table.DEPTHS},
}


def measure(parts: Sequence[str], rounds: int, epochs: int, *, record: bool) -> None:
    """Print the figures of some parts on the current device, each as soon as it is known."""
    device = devices.current()
    if device.type == "cuda":
        torch.cuda.set_device(device)  # kernels are started on it
    config = cells(0)[0]
    what = f"{config.corpus}, {config.vocabulary} words, width {config.width}"
    print(f"{what}, on {device}{', a rehearsal' if device.type == 'cpu' else ''}; {rounds} rounds of {epochs} epochs")
    begun = time.monotonic()
    for part in parts:
        started = time.monotonic()
        figures = PARTS[part](rounds, epochs)
        seconds = time.monotonic() - started
        print(f"{part}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()))
        print(f"  {seconds:.0f} s by the clock", flush=True)
        if record:
            cell = Cell(part, config.corpus, config.vocabulary, config.width, epochs, device.type)
            named = devices.described(config.precision, device)
            made = records.make(
                STEM, cell, figures, {}, seconds=seconds, device=named, data_sha256=data_sha256(config),
                show=("part", "corpus", "device"),
            )  # fmt: skip
            records.write(made, records.results_root())
    print(f"all: {time.monotonic() - begun:.0f} s by the clock")


def main(arguments: list[str] | None = None) -> None:
    """Print the figures of some parts; with ``--record`` keep them under results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_together", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; by default all")
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, cuda:1, ... or auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--epochs", type=int, default=5, help="in each round and part of the protocol, first ones apart"
    )
    parser.add_argument("--record", action="store_true", help="keep the figures under results")
    options = parser.parse_args([] if arguments is None else arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {min(unknown)!r}: expected some of {', '.join(PARTS)}")
    if min(options.rounds, options.epochs) < 1:
        parser.error("--rounds and --epochs must be at least 1")
    try:
        with devices.on(options.device):
            measure(options.parts or list(PARTS), options.rounds, options.epochs, record=options.record)
    except (devices.DeviceError, DataError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
