"""A step of a text autoencoder with a linear decoder: codes one by one, from a table of all codes, or exact.

The same model and documents, all but the last with the same codes; loss and gradients; one process, the ways
interleaved, medians over rounds. One by one by products of matrices, in the precision in which this CPU is faster, or
by compiled loops; these and the table are in float32.

``python -m benchmarks.text_listed [--rounds 5] [--threads 1] [--record]``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch

from benchmarks.text_epoch import BATCH, corpus, interleaved, medians
from efvae import devices, records
from efvae.estimators import DisARM, Estimator, Exact
from efvae.text import compiled
from efvae.text.batches import Documents
from efvae.text.model import TextVAE

STEM = "benchmark_text_listed"
BITS, PAIRS = 16, 10


@dataclass(frozen=True)
class Cell:
    """What a record of this benchmark is of."""

    bits: int
    pairs: int
    threads: int


class OneByOne(TextVAE):
    """Each code by itself, however many there are."""

    def _table_pays(self, n_codes: int) -> bool:
        return False


class Looked(TextVAE):
    """All codes from a table."""

    def _table_pays(self, n_codes: int) -> bool:
        return True


def bench(rounds: int) -> dict[str, float]:
    """Milliseconds of a step in each way, and how many times faster than products of matrices it is."""
    train, _, _ = corpus()
    batch = next(Documents(train).batches(BATCH))
    dtype = devices.arithmetic("bfloat16", torch.device("cpu"))

    def step(kind: type[TextVAE], estimator: Estimator) -> Callable[[], None]:
        torch.manual_seed(0)
        model, generator = kind(train.n_words, BITS, dtype=dtype), torch.Generator().manual_seed(0)

        def once() -> None:
            model.zero_grad(set_to_none=True)
            nelbo, _ = model.nelbo(batch, estimator, generator)
            nelbo.mean().backward()

        return once

    one_by_one = step(OneByOne, DisARM(PAIRS))

    def products() -> None:
        with mock.patch.object(compiled, "available", return_value=False):
            one_by_one()

    ways = {"products": products, "table": step(Looked, DisARM(PAIRS)), "exact": step(Looked, Exact())}
    if compiled.available(torch.device("cpu")):
        ways["loops"] = one_by_one
    median = medians(interleaved(ways, rounds))
    return {
        **{f"milliseconds_{way}": 1e3 * seconds for way, seconds in median.items()},
        **{f"ratio_{way}": median["products"] / seconds for way, seconds in median.items() if way != "products"},
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the figures; with ``--record`` keep them under results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_listed", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="keep the figures under results")
    options = parser.parse_args([] if arguments is None else arguments)
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    figures = bench(options.rounds)
    print(f"{BITS} bits, {PAIRS} pairs: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    if options.record:
        cell = Cell(BITS, PAIRS, options.threads)
        record = records.make(STEM, cell, figures, {}, seconds=time.monotonic() - started, show=("bits", "threads"))
        records.write(record, records.results_root())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
