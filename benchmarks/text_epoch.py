"""One training epoch of a text autoencoder of 64 bits, beside the usual way to write it and beside the machine's floor.

Usual: dense float32 counts in a TensorDataset with a DataLoader, log_softmax, autograd. Both: the same model, DisARM
with both evaluations differentiated, the NELBO of each step monitored, fused Adam, a test evaluation; one process, the
same threads, interleaved, medians over rounds. With a linear decoder also the library's way without compiled loops, by
products of matrices. ``depth-0-ten`` has ten pairs of codes a document, as the last third of the paper's epochs.

``together-D``: four models over one pass of the documents beside one after the other. ``quality-D``: what both ways
reach in 30 epochs, three seeds. D is the number of hidden layers of the decoder.

``python -m benchmarks.text_epoch [depth-0 depth-0-ten depth-1 depth-2 together-0 ... quality-0 ...] [--rounds 3]
[--threads 2] [--record]``
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.retrieval import random_documents
from efvae import devices, records
from efvae.data.cache import DataError
from efvae.data.newsgroups import FILES, load_newsgroups
from efvae.estimators import DisARM
from efvae.families import Bernoulli
from efvae.networks import mlp
from efvae.text import compiled
from efvae.text.batches import Documents
from efvae.text.model import WIDTH, TextVAE
from efvae.text.products import Table
from efvae.text.training import Corpora, Phase, Run, evaluate, train_together
from efvae.word_counts import WordCounts, log_saturated

STEM = "benchmark_text_epoch"
BITS, BATCH, QUALITY_EPOCHS, QUALITY_SEEDS = 64, 256, 30, 3


@dataclass(frozen=True)
class Cell:
    """What a record of this benchmark is of."""

    part: str
    bits: int
    threads: int
    precision: str


def corpus() -> tuple[WordCounts, WordCounts]:
    """20 Newsgroups, or documents of its size where it is not at hand: the times are the same."""
    try:
        news = load_newsgroups()
        return news.train, news.test
    except DataError:
        generator = torch.Generator().manual_seed(0)
        made = [random_documents(n, generator) for n in (11269, 7505)]
        return made[0], made[1]


class Usual:
    """The model as one would write it first."""

    def __init__(self, train: WordCounts, test: WordCounts, depth: int, seed: int, pairs: int = 1) -> None:
        torch.manual_seed(seed)
        n_words = train.n_words
        self.encoder = nn.Linear(n_words, BITS)
        self.decoder = mlp((BITS, *[WIDTH] * depth, n_words))
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        self.generator = torch.Generator().manual_seed(seed)
        self.train, self.test = (
            DataLoader(TensorDataset(x.dense(), log_saturated(x).float()), batch_size=BATCH, shuffle=shuffle)
            for x, shuffle in ((train, True), (test, False))
        )
        self.estimator = DisARM(pairs)

    def nelbo(self, x: Tensor, saturated: Tensor, *, sample_only: bool = False) -> Tensor:
        """Of each document, relative to the saturated multinomial; one code where only that is asked for."""
        q = Bernoulli(self.encoder(x))

        def cost(z: Tensor) -> Tensor:
            return saturated - (x * self.decoder(z).log_softmax(-1)).sum(-1)

        expected = (
            cost(q.sample((1,), self.generator))[0]
            if sample_only
            else self.estimator.expectation(q, cost, self.generator)
        )
        return expected + BITS * math.log(2) - q.entropy()

    def epoch(self) -> float:
        """One epoch; the test NELBO after it."""
        monitored = 0.0
        for x, saturated in self.train:
            self.optimizer.zero_grad()
            loss = self.nelbo(x, saturated).mean()
            loss.backward()
            self.optimizer.step()
            monitored += loss.item()
        return self.test_nelbo()

    @torch.no_grad()
    def test_nelbo(self) -> float:
        """From one code for each document."""
        return float(torch.cat([self.nelbo(x, s, sample_only=True) for x, s in self.test]).mean())


class Fast:
    """The library's trainer; ``loops`` says whether it may take compiled ones."""

    def __init__(
        self,
        corpora: Corpora,
        depth: int,
        seed: int,
        dtype: torch.dtype,
        *,
        copies: int = 1,
        pairs: int = 1,
        loops: bool = True,
    ) -> None:
        self.corpora, self.epochs, self.seed, self.pairs, self.loops = corpora, 0, seed, pairs, loops
        self.runs = []
        for copy in range(copies):
            torch.manual_seed(seed + copy)
            self.runs.append(Run(TextVAE(corpora.test.n_words, BITS, "e1", depth, dtype=dtype), seed + copy))

    def epoch(self) -> float:
        """One epoch of each model; the test NELBO of the first."""
        self.epochs += 1
        phases = (Phase(self.epochs, DisARM(self.pairs)),)
        with contextlib.ExitStack() as stack:
            if not self.loops:
                stack.enter_context(mock.patch.object(compiled, "available", return_value=False))
            train_together(self.runs, self.corpora, phases, batch_size=BATCH, order_seed=self.seed)
        return self.runs[0].curve["nelbo_test"][-1]


def interleaved(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round; a first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    return {name: values[1:] for name, values in times.items()}


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """Of the rounds."""
    return {name: statistics.median(values) for name, values in times.items()}


def floor(corpora: Corpora, depth: int, dtype: torch.dtype, pairs: int) -> float:
    """Seconds that an epoch cannot be faster than, at the best rates found now on the same shapes.

    ::

        a step   2B rows × K words × H: logits, gradient of V, with hidden layers also that of h
                 2B × K exponentials, made in the product or after it, summed;   Adam: 7 numbers a parameter
        test     rows × K × H in float32 and their exponentials

    A linear decoder by compiled loops has no such products: G groups of bits take, with the best rate of adding up
    products, 2B × K × 3G multiplications and additions a step (sums, then again and their gradient), rows × K × G in
    the test. The lesser of the two.
    """
    n_words, width = corpora.train.n_words, WIDTH if depth else BITS
    rows, steps = 2 * BATCH * pairs, math.ceil(corpora.train.n_documents / BATCH)

    def seconds(*ways: Callable[[], object]) -> float:
        return min(medians(interleaved({str(number): way for number, way in enumerate(ways)}, 15)).values())

    def product(m: int, k: int, n: int) -> float:
        a, b, out, turned = (torch.ones(shape, dtype=dtype) for shape in ((m, k), (k, n), (m, n), (n, m)))
        return seconds(lambda: torch.mm(a, b, out=out), lambda: torch.mm(b.t(), a.t(), out=turned))

    def exponentials(m: int, kind: torch.dtype) -> float:
        """A product, its exponentials and their sums."""
        h, x = torch.zeros(m, width), torch.empty(m, n_words, dtype=kind)
        weight, bias = torch.zeros(n_words, width), torch.zeros(n_words)
        table, a, b = Table(weight, bias, kind, pack=True), h.to(kind), weight.to(kind).t()
        return seconds(
            lambda: table.powers(h),
            lambda: torch.mm(a, b, out=x).exp_().sum(-1),
            lambda: torch.mm(a, b, out=x).exp2_().sum(-1),
        )

    parameters = n_words * (width + BITS) + (BITS + (depth - 1) * WIDTH) * WIDTH * bool(depth)
    state = torch.zeros(7 * parameters // 2)
    adam = seconds(lambda: state.add_(1.0))  # reads and writes each number: half as many as Adam touches
    step = exponentials(rows, dtype) + product(n_words, rows, width) + (product(rows, n_words, width) if depth else 0.0)
    by_products = steps * (step + adam) + corpora.test.n_documents / rows * exponentials(rows, torch.float32)
    if depth or not compiled.available(torch.device("cpu")):
        return by_products
    square = torch.ones(1024, 1024)
    rate = len(square) ** 3 / seconds(lambda: square @ square)
    operations = len(compiled.kernels().group_sizes(BITS)) * n_words * (steps * rows * 3 + corpora.test.n_documents)
    return min(by_products, steps * adam + operations / rate)


def bench(depth: int, rounds: int, dtype: torch.dtype, pairs: int = 1) -> dict[str, float]:
    """Seconds of an epoch in each way, and their ratios; that to the usual way also in the lowest and highest round."""
    train, test = corpus()
    corpora = Corpora(Documents(train), Documents(test))
    ways = {
        "usual": Usual(train, test, depth, 0, pairs).epoch,
        "fast": Fast(corpora, depth, 0, dtype, pairs=pairs).epoch,
    }
    loops = not depth and compiled.available(torch.device("cpu"))
    if loops:
        ways["products"] = Fast(corpora, depth, 0, dtype, pairs=pairs, loops=False).epoch
    times = interleaved(ways, rounds)
    median, ratios = medians(times), [usual / fast for usual, fast in zip(times["usual"], times["fast"], strict=True)]
    least = floor(corpora, depth, dtype, pairs)
    return {
        **{f"seconds_{way}": seconds for way, seconds in median.items()},
        "ratio": median["usual"] / median["fast"],
        "rounds": float(rounds),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
        **({"ratio_products": median["products"] / median["fast"]} if loops else {}),
        "seconds_floor": least,
        "fast_over_floor": median["fast"] / least,
    }


def stacking(depth: int, rounds: int, dtype: torch.dtype, copies: int = 4) -> dict[str, float]:
    """Several models over one pass of the documents beside one after the other."""
    train, test = corpus()
    corpora = Corpora(Documents(train), Documents(test))
    stacked = Fast(corpora, depth, 0, dtype, copies=copies)
    alone = [Fast(corpora, depth, seed, dtype) for seed in range(copies)]
    times = interleaved({"together": stacked.epoch, "alone": lambda: [one.epoch() for one in alone]}, rounds)
    median, shares = medians(times), [a / b for a, b in zip(times["together"], times["alone"], strict=True)]
    return {
        "seconds_together": median["together"],
        "seconds_alone": median["alone"],
        "together_over_alone": median["together"] / median["alone"],
        "rounds": float(rounds),
        "share_low": min(shares),
        "share_high": max(shares),
    }


def quality(depth: int, _: int, dtype: torch.dtype) -> dict[str, float]:
    """Test NELBO after some epochs and seeds in both ways, in nats, and their difference over its standard error."""
    train, test = corpus()
    corpora = Corpora(Documents(train), Documents(test))
    reached: dict[str, list[float]] = {"usual": [], "fast": []}
    for seed in range(QUALITY_SEEDS):
        usual, fast = Usual(train, test, depth, seed), Fast(corpora, depth, seed, dtype)
        for _ in range(QUALITY_EPOCHS):
            usual.epoch()
            fast.epoch()
        reached["usual"].append(usual.test_nelbo())
        reached["fast"].append(float(evaluate(fast.runs[0].model, corpora.test)[0].mean()))
    difference = statistics.fmean(reached["fast"]) - statistics.fmean(reached["usual"])
    error = math.sqrt(sum(statistics.variance(values) for values in reached.values()) / QUALITY_SEEDS)
    return {
        "nelbo_usual": statistics.fmean(reached["usual"]),
        "nelbo_fast": statistics.fmean(reached["fast"]),
        "difference": difference,
        "standard_error": error,
        "z": difference / error,
    }


PARTS: dict[str, Callable[[int, torch.dtype], dict[str, float]]] = {
    **{f"depth-{depth}": functools.partial(bench, depth) for depth in (0, 1, 2)},
    "depth-0-ten": functools.partial(bench, 0, pairs=10),
    **{f"together-{depth}": functools.partial(stacking, depth) for depth in (0, 1, 2)},
    **{f"quality-{depth}": functools.partial(quality, depth) for depth in (0, 1, 2)},
}


def main(arguments: list[str] | None = None) -> None:
    """Print the figures of some parts; with ``--record`` keep them under results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_epoch", description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; by default all but quality"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("bfloat16", "float32"), help="by default what this CPU is faster in")
    parser.add_argument("--record", action="store_true", help="keep the figures under results")
    options = parser.parse_args([] if arguments is None else arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {min(unknown)!r}: expected some of {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    dtype = devices.arithmetic("bfloat16", torch.device("cpu"))
    if options.precision is not None:
        dtype = getattr(torch, options.precision)
    precision = str(dtype).removeprefix("torch.")
    try:
        load_newsgroups()
        kind, data_sha256 = "20 Newsgroups", FILES.sha256
    except DataError as error:
        if options.record or any(part.startswith("quality") for part in options.parts):
            parser.error(f"--record and quality need 20 Newsgroups: {error}")
        kind, data_sha256 = "random documents of the size of 20 Newsgroups", None
    print(f"{kind}, {BITS} bits, {options.threads} threads, {precision}, {options.rounds} rounds")
    for part in options.parts or [part for part in PARTS if not part.startswith("quality")]:
        started = time.monotonic()
        figures = PARTS[part](options.rounds, dtype)
        print(f"{part}: " + ", ".join(f"{key} {value:.3f}" for key, value in figures.items()), flush=True)
        if options.record:
            cell = Cell(part, BITS, options.threads, precision)
            seconds = time.monotonic() - started
            record = records.make(
                STEM, cell, figures, {}, seconds=seconds, data_sha256=data_sha256, show=("part", "threads", "precision")
            )
            records.write(record, records.results_root())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
