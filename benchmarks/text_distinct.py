"""A step of a text autoencoder whose encoder is nearly sure: all codes drawn, or each code of a document once.

The same model, documents and codes; loss and gradients; one process, the ways interleaved, medians over rounds. The
encoder is an ``e2`` as it is first drawn, its last layer scaled up until q(z | x) has the entropy asked for in the mean
over the documents. The lab of section 4.3 has the entropies of trained cells.

``python -m benchmarks.text_distinct [--bits 32] [--entropy 0.5] [--rounds 9] [--threads 1] [--record]``
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
from torch import nn

from benchmarks.text_epoch import BATCH, corpus, interleaved, medians
from efvae import devices, records
from efvae.estimators import ARM
from efvae.families import Bernoulli
from efvae.text import model as text_model
from efvae.text.batches import Batch, Documents
from efvae.text.distinct import distinct
from efvae.text.model import TextVAE

STEM = "benchmark_text_distinct"


@dataclass(frozen=True)
class Cell:
    """What a record of this benchmark is of."""

    bits: int
    entropy: float
    d_hidden: int
    pairs: int
    threads: int
    precision: str


def make_sure(model: TextVAE, batch: Batch, entropy: float) -> None:
    """Scale the last layer of the encoder until the mean entropy over the documents is the one asked for, in nats."""
    last = [part for part in model.code_net.modules() if isinstance(part, nn.Linear)][-1]
    with torch.no_grad():
        first, low, high = [part.clone() for part in (last.weight, last.bias)], 1.0, 1e6
        for _ in range(60):
            middle = (low * high) ** 0.5
            last.weight.copy_(first[0] * middle)
            last.bias.copy_(first[1] * middle)
            found = float(Bernoulli(model.posterior(batch).eta).entropy().mean())
            low, high = (middle, high) if found > entropy else (low, middle)


def bench(cell: Cell, rounds: int) -> dict[str, float]:
    """Milliseconds of a step in each way, their ratio, and how many different codes a document has."""
    train, _, _ = corpus()
    batch = next(Documents(train).batches(BATCH))
    torch.manual_seed(0)
    model = TextVAE(train.n_words, cell.bits, "e2", cell.d_hidden, dtype=getattr(torch, cell.precision))
    make_sure(model, batch, cell.entropy)
    rows: list[int] = []

    def step(find: Callable[[torch.Tensor], object]) -> Callable[[], None]:
        def once() -> None:
            model.zero_grad(set_to_none=True)
            with mock.patch.object(text_model, "distinct", find):
                nelbo, _ = model.nelbo(batch, ARM(cell.pairs), torch.Generator().manual_seed(0))
            nelbo.mean().backward()

        return once

    def listen(z: torch.Tensor) -> object:
        found = distinct(z)
        rows.append(z[..., 0].numel() if found is None else int(found.place.max()) + 1)
        return found

    step(listen)()
    median = medians(interleaved({"all": step(lambda _: None), "once": step(distinct)}, rounds))
    return {
        **{f"milliseconds_{way}": 1e3 * seconds for way, seconds in median.items()},
        "ratio": median["all"] / median["once"],
        "codes": rows[0] / len(batch),
    }


def main(arguments: list[str] | None = None) -> None:
    """Print the figures of decoders of each depth; with ``--record`` keep them under results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_distinct", description=__doc__.splitlines()[0])
    parser.add_argument("--bits", type=int, default=32)
    parser.add_argument("--entropy", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="keep the figures under results")
    options = parser.parse_args([] if arguments is None else arguments)
    torch.set_num_threads(options.threads)
    precision = str(devices.arithmetic("bfloat16", torch.device("cpu"))).removeprefix("torch.")
    for d_hidden in (0, 1, 2):
        for pairs in (1, 10):
            started = time.monotonic()
            cell = Cell(options.bits, options.entropy, d_hidden, pairs, options.threads, precision)
            figures = bench(cell, options.rounds)
            said = ", ".join(f"{key} {value:.3g}" for key, value in figures.items())
            print(f"{d_hidden} hidden layers, {pairs} pairs: {said}", flush=True)
            if options.record:
                seconds, shown = time.monotonic() - started, ("bits", "d_hidden", "pairs", "threads")
                record = records.make(STEM, cell, figures, {}, seconds=seconds, show=shown)
                records.write(record, records.results_root())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
