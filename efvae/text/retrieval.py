"""What codes of documents are for: finding documents of the same group, beside the words themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from efvae.text.search import BLOCK, hamming, pack
from efvae.word_counts import WordCounts

__all__ = [
    "CodeModel",
    "bag_of_words_metrics",
    "chance",
    "code_logits",
    "cosine_distances",
    "expected_precision",
    "retrieval_metrics",
    "tf_idf",
]


class CodeModel(Protocol):
    """A model whose encoder gives independent bits; every model of text here has these."""

    @property
    def n_words(self) -> int:
        """Size K of its vocabulary."""

    def encode(self, x: WordCounts) -> Tensor:
        """Logits of the bits, shape ``(documents, bits)``."""


def code_logits(model: CodeModel, x: WordCounts) -> Tensor:
    """Logits of the bits of all documents, on the CPU, shape ``(documents, bits)``.

    Args:
        model: the encoder.
        x: the documents, on the model's device.

    Raises:
        ValueError: a vocabulary of another size, or a logit that is not finite.

    Own: own-retrieval
    """
    if model.n_words != x.n_words:
        raise ValueError(f"the model has {model.n_words} words, the documents have {x.n_words}")
    with torch.no_grad():
        logits = model.encode(x).float().cpu()
    if not bool(logits.isfinite().all()):
        raise ValueError("the encoder gives logits that are not finite: train the model again with a lower rate")
    return logits


def expected_precision(
    distance: NDArray[np.number], relevant: NDArray[np.bool_], k: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Share of relevant documents among the k nearest, the mean over all orders of equally near documents.

    With t the k-th least distance of a query and r_j whether document j is relevant::

        (Σ_{d_j < t} r_j + (k − #{d_j < t}) Σ_{d_j = t} r_j / #{d_j = t}) / k

    The k − #{d_j < t} places that are left go to a uniformly random subset of the documents at distance t, of which a
    share Σ r_j / #{d_j = t} is relevant in expectation. Short codes have hundreds of documents at distance t, so that
    any fixed order would report how the data are sorted.

    Args:
        distance: of each query and document, shape ``(queries, n)``.
        relevant: the same shape.
        k: how many documents are looked at, 1 … n.

    Returns:
        The expected precision of each query, and how many documents are at distance t, shapes ``(queries,)``.

    Raises:
        ValueError: k out of range.

    Own: own-retrieval
    """
    if not 1 <= k <= distance.shape[1]:
        raise ValueError(f"k must be in [1, {distance.shape[1]}], the number of documents to search; got {k}")
    last = np.partition(distance, k - 1, axis=1)[:, k - 1 : k]
    nearer, tied = distance < last, distance == last
    n_tied = np.count_nonzero(tied, axis=1)
    left = k - np.count_nonzero(nearer, axis=1)
    hits = np.count_nonzero(nearer & relevant, axis=1)
    return (hits + left * np.count_nonzero(tied & relevant, axis=1) / n_tied) / k, n_tied


def _mean_precision(
    distances: Iterable[Callable[[], NDArray[np.number]]], train: WordCounts, test: WordCounts, k: int
) -> tuple[float, float]:
    """Mean precision of all test documents, and mean number of ties, from distances in blocks of queries."""
    of_train, of_test = train.labels.cpu().numpy(), test.labels.cpu().numpy()

    def of_block(start: int, distance: Callable[[], NDArray[np.number]]) -> tuple[float, int]:
        relevant = of_test[start : start + BLOCK, None] == of_train
        found, tied = expected_precision(distance(), relevant, k)
        return float(found.sum()), int(tied.sum())

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy lets other threads run
        sums = list(pool.map(of_block, range(0, len(of_test), BLOCK), distances))
    precision, ties = map(sum, zip(*sums, strict=True))
    return precision / len(of_test), ties / len(of_test)


def retrieval_metrics(model: CodeModel, train: WordCounts, test: WordCounts, k: int = 100) -> dict[str, float]:
    """Test documents ask for training documents of their group, by Hamming distance of the codes.

    Metrics, none in nats::

        precision_at_K         bits by thresholding the encoder's means at 1/2; ties by expectation
        precision_at_K_median  bits by thresholding each logit at its median over the training documents
        tied_at_K              mean number of training documents at the K-th distance, means at 1/2
        codes_used             different codes of the training documents, means at 1/2

    Args:
        model: the encoder.
        train, test: the documents, on the model's device, with labels.
        k: how many documents are looked at.

    Raises:
        ValueError: k out of range, no test document, or see :func:`code_logits`.

    Paper: sec-4-3
    Own: own-retrieval
    """
    _refuse(train, test, k)
    database, queries = code_logits(model, train), code_logits(model, test)
    median = database.median(0).values

    def by_threshold(threshold: Tensor) -> tuple[float, float]:
        z, asked = pack(database > threshold), pack(queries > threshold)
        blocks = (partial(hamming, asked[i : i + BLOCK], z) for i in range(0, len(asked), BLOCK))
        return _mean_precision(blocks, train, test, k)

    at_half, tied = by_threshold(torch.zeros_like(median))
    return {
        f"precision_at_{k}": at_half,
        f"precision_at_{k}_median": by_threshold(median)[0],
        f"tied_at_{k}": tied,
        "codes_used": float(len(np.unique(pack(database > 0), axis=0))),
    }


def _refuse(train: WordCounts, test: WordCounts, k: int) -> None:
    if not 1 <= k <= train.n_documents or not test.n_documents:
        raise ValueError(
            f"retrieval: expected k in [1, {train.n_documents}], the training documents, and at least one test "
            f"document; got k = {k} and {test.n_documents} test documents"
        )


def chance(train: WordCounts, test: WordCounts) -> float:
    """Precision of a random order: Σ_c p_train(c) p_test(c), c the group.

    Own: own-retrieval
    """
    n = int(max(train.labels.max(), test.labels.max())) + 1
    shares = [torch.bincount(x.labels, minlength=n).double() / x.n_documents for x in (train, test)]
    return float(shares[0] @ shares[1])


def tf_idf(train: WordCounts, x: WordCounts) -> Tensor:
    """Weights of the entries: words that occur in few training documents count more, float32, shape ``(entries,)``.

    ::

        (1 + log c_dk) (1 + log((1 + n) / (1 + n_k))),    n_k: training documents with word k

    Args:
        train: the n training documents.
        x: the documents to weight.

    Own: own-retrieval
    """
    frequency = torch.bincount(train.indices, minlength=train.n_words)
    rarity = 1 + torch.log((1 + train.n_documents) / (1 + frequency.double()))
    return ((1 + x.counts.double().log()) * rarity[x.indices.long()]).float()


def cosine_distances(
    train: WordCounts, test: WordCounts, weights: tuple[Tensor, Tensor]
) -> Iterator[NDArray[np.float32]]:
    """1 − cosine of each test and each training document, without smoothing, in blocks of queries.

    A document without an entry has the distance 1 from all others.

    Args:
        train, test: the documents, on the CPU.
        weights: of the entries of both, in place of the counts.

    Own: own-retrieval
    """
    for distance in _cosine_blocks(train, test, weights):
        yield distance()


def _cosine_blocks(
    train: WordCounts, test: WordCounts, weights: tuple[Tensor, Tensor]
) -> Iterator[Callable[[], NDArray[np.float32]]]:
    unit = []
    for x, weight in zip((train, test), weights, strict=True):
        norm = x.sums(weight.square()).sqrt().clamp_min(1e-30)
        unit.append((weight / norm[x.documents()]).float())
    documents = test.documents()

    def distances(rows: Tensor) -> NDArray[np.float32]:
        lines = torch.zeros(train.n_words, len(rows))  # a word's weights in all queries of the block are adjacent
        first, last = int(test.indptr[rows[0]]), int(test.indptr[rows[-1] + 1])
        lines[test.indices[first:last].long(), documents[first:last] - rows[0]] = unit[1][first:last]
        similarity = torch.nn.functional.embedding_bag(
            train.indices.long(), lines, train.indptr, mode="sum", per_sample_weights=unit[0], include_last_offset=True
        )
        return 1 - similarity.T.contiguous().numpy()

    for rows in torch.arange(test.n_documents).split(BLOCK):
        yield partial(distances, rows)


def bag_of_words_metrics(train: WordCounts, test: WordCounts, k: int = 100) -> dict[str, float]:
    """The same search by the words themselves, and by chance.

    Metrics::

        precision_at_K_counts   cosine of the raw counts
        precision_at_K_tf_idf   cosine of the weights of tf_idf
        precision_chance        of a random order

    Args:
        train, test: the documents; their smoothing plays no part.
        k: how many documents are looked at.

    Raises:
        ValueError: k out of range, no test document, or two vocabularies.

    Own: own-retrieval
    """
    _refuse(train, test, k)
    if train.n_words != test.n_words:
        raise ValueError(
            f"retrieval: train and test must have one vocabulary; got {train.n_words} and {test.n_words} words"
        )
    train, test = train.to("cpu"), test.to("cpu")
    weights = {"counts": (train.counts, test.counts), "tf_idf": (tf_idf(train, train), tf_idf(train, test))}
    found = {
        f"precision_at_{k}_{name}": _mean_precision(_cosine_blocks(train, test, pair), train, test, k)[0]
        for name, pair in weights.items()
    }
    return found | {"precision_chance": chance(train, test)}
