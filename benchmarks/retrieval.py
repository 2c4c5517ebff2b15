"""Time for each query of the packed Hamming search, beside products of floats and beside the words themselves.

One process, one thread, the ways interleaved, medians over rounds. Codes and documents are random, of the size of
20 Newsgroups: no way looks at what they say.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from efvae.text.retrieval import cosine_distances
from efvae.text.search import BLOCK, nearest, pack
from efvae.word_counts import WordCounts

DOCUMENTS, WORDS, DISTINCT, K, QUERIES, ROUNDS = 11269, 10000, 116, 100, 512, 9


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
        f"packed, {bits} bits, 64 queries together": lambda: nearest(asked, packed, K),
        f"float32 product, {bits} bits, 64 queries together": lambda: _float_search(sign[:QUERIES], sign[QUERIES:]),
        f"packed, {bits} bits, one by one": packed_alone,
        f"float32 product, {bits} bits, one by one": lambda: _float_alone(sign[:QUERIES], sign[QUERIES:]),
    }


def main() -> None:
    """Print microseconds a query, and how many times the packed search is faster."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    ways = {name: way for bits in (8, 64) for name, way in _ways(bits, generator).items()}
    corpus = random_documents(DOCUMENTS, generator), random_documents(QUERIES, generator)
    ways["cosine of word counts, 64 queries together"] = lambda: _words(*corpus)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - started)
    median = {name: statistics.median(values[1:]) / QUERIES * 1e6 for name, values in times.items()}  # first: warm-up
    print(f"the {K} nearest of {DOCUMENTS} documents, 1 thread, median of {ROUNDS} rounds of {QUERIES} queries")
    for name, value in median.items():
        print(f"  {name:<50} {value:8.1f} µs/query")
    for mode in ("64 queries together", "one by one"):
        for bits in (8, 64):
            ratio = median[f"float32 product, {bits} bits, {mode}"] / median[f"packed, {bits} bits, {mode}"]
            print(f"  packed is {ratio:.1f} times as fast as the float32 product, {bits} bits, {mode}")
    ratio = median["cosine of word counts, 64 queries together"] / median["packed, 64 bits, 64 queries together"]
    print(f"  packed is {ratio:.1f} times as fast as the cosine of word counts, 64 bits, 64 queries together")


if __name__ == "__main__":
    main()
