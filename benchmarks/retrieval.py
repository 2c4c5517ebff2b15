"""Time for each query of the packed Hamming search, beside products of floats and beside the words themselves.

One process, one thread, the ways interleaved, medians over rounds. Codes and documents are random, of the size of
20 Newsgroups: no way looks at what they say.

``python -m benchmarks.retrieval [--record]``
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from efvae import records
from efvae.text.retrieval import cosine_distances
from efvae.text.search import BLOCK, nearest, pack
from efvae.word_counts import WordCounts

STEM = "benchmark_retrieval"
DOCUMENTS, WORDS, DISTINCT, K, QUERIES, ROUNDS = 11269, 10000, 116, 100, 512, 9


@dataclass(frozen=True)
class Cell:
    """What a record of this benchmark is of."""

    bits: int
    documents: int = DOCUMENTS
    k: int = K


def random_documents(n: int, generator: torch.Generator) -> WordCounts:
    """As many distinct words as a document has on average, drawn by Zipf's law."""
    rank = torch.arange(1, WORDS + 1, dtype=torch.float64)
    words = torch.multinomial((1 / rank).expand(n, WORDS), DISTINCT, generator=generator).sort(1).values
    zeros = torch.zeros(WORDS, dtype=torch.float64)
    return WordCounts(
        torch.arange(n + 1) * DISTINCT, words.flatten().int(), torch.ones(n * DISTINCT), zeros, torch.zeros(n).long()
    )


def _float_search(queries: torch.Tensor, database: torch.Tensor) -> None:
    """Signs as floats: the product is m − 2 d."""
    for some in queries.split(BLOCK):
        torch.topk(some @ database.T, K, dim=1)


def _float_alone(queries: torch.Tensor, database: torch.Tensor) -> None:
    for row in range(len(queries)):
        torch.topk(queries[row : row + 1] @ database.T, K, dim=1)


def _words(train: WordCounts, test: WordCounts) -> None:
    for distance in cosine_distances(train, test, (train.counts, test.counts)):
        np.argpartition(distance, K - 1, axis=1)


def _ways(bits: int, generator: torch.Generator) -> dict[str, Callable[[], object]]:
    codes = torch.rand(DOCUMENTS + QUERIES, bits, generator=generator) < 0.5
    sign = 2 * codes.float() - 1
    packed, asked = pack(codes[QUERIES:]), pack(codes[:QUERIES])

    def packed_alone() -> None:
        for row in range(QUERIES):
            nearest(asked[row : row + 1], packed, K)

    return {
        "packed": lambda: nearest(asked, packed, K),
        "float": lambda: _float_search(sign[:QUERIES], sign[QUERIES:]),
        "packed_alone": packed_alone,
        "float_alone": lambda: _float_alone(sign[:QUERIES], sign[QUERIES:]),
    }


NAMES = {
    "packed": "packed codes, 64 queries together",
    "float": "float32 product, 64 queries together",
    "packed_alone": "packed codes, one by one",
    "float_alone": "float32 product, one by one",
    "words": "cosine of word counts, 64 queries together",
}


def bench(bits: int) -> dict[str, float]:
    """Median microseconds a query of each way."""
    generator = torch.Generator().manual_seed(0)
    corpus = random_documents(DOCUMENTS, generator), random_documents(QUERIES, generator)
    ways = _ways(bits, generator) | {"words": lambda: _words(*corpus)}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    return {f"us_{name}": statistics.median(values[1:]) / QUERIES * 1e6 for name, values in times.items()}


def main(arguments: list[str] | None = None) -> None:
    """Print microseconds a query, and how many times the packed search is faster; ``--record`` keeps them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="keep the figures under results")
    options = parser.parse_args([] if arguments is None else arguments)
    torch.set_num_threads(1)
    print(f"the {K} nearest of {DOCUMENTS} documents, 1 thread, median of {ROUNDS} rounds of {QUERIES} queries")
    for bits in (8, 64):
        started = time.monotonic()
        found = bench(bits)
        for name, told in NAMES.items():
            ratio = found[f"us_{name}"] / found["us_packed_alone" if name.endswith("alone") else "us_packed"]
            print(f"  {bits:2} bits  {told:<44} {found[f'us_{name}']:8.1f} µs/query, {ratio:5.1f} of packed")
        if options.record:
            seconds = time.monotonic() - started
            record = records.make(STEM, Cell(bits), found, {}, seconds=seconds, show=("bits",))
            records.write(record, records.results_root())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
