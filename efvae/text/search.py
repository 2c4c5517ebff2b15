"""Hamming search among binary codes that are packed into 64-bit words."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Neighbours", "hamming", "nearest", "pack"]

#: Queries that are searched together: their distances to ten thousand documents fit a cache.
BLOCK = 64


@dataclass(frozen=True)
class Neighbours:
    """The nearest documents of each query, nearest first.

    Args:
        document: their numbers, int64, shape ``(queries, k)``.
        distance: shape ``(queries, k)``.

    Own: own-retrieval
    """

    document: NDArray[np.int64]
    distance: NDArray[np.int64]


def pack(codes: Tensor) -> NDArray[np.uint64]:
    """Bits packed into words of 64, filled up with zeros, shape ``(n, ceil(bits / 64))``.

    Args:
        codes: bool, shape ``(n, bits)``.

    Raises:
        ValueError: not a matrix of bool.

    Own: own-retrieval
    """
    if codes.dtype != torch.bool or codes.ndim != 2 or not codes.shape[1]:
        raise ValueError(
            f"codes must be bool of shape (n, bits), bits >= 1; got {codes.dtype} of shape {tuple(codes.shape)}: "
            "threshold them first"
        )
    n, bits = codes.shape
    filled = np.zeros((n, -(-bits // 64) * 64), dtype=np.bool_)
    filled[:, :bits] = codes.cpu().numpy()
    return np.packbits(filled, axis=1).view(np.uint64)


def hamming(queries: NDArray[np.uint64], database: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Number of different bits of each query and each code of the database, shape ``(queries, n)``.

    ::

        d(z, z') = Σ_i [z_i ≠ z'_i] = popcount(z xor z')

    Args:
        queries, database: packed codes of equally many bits, shapes ``(queries, words)`` and ``(n, words)``.

    Raises:
        ValueError: different numbers of words.

    Own: own-retrieval
    """
    return _distances(queries, database).astype(np.int32)


def _distances(queries: NDArray[np.uint64], database: NDArray[np.uint64]) -> NDArray[Any]:
    """See :func:`hamming`; in as few bytes as hold them."""
    if queries.shape[1] != database.shape[1]:
        raise ValueError(f"codes of {queries.shape[1]} and of {database.shape[1]} words cannot be compared")
    distance: NDArray[Any] = np.bitwise_count(queries[:, None, 0] ^ database[:, 0])
    if queries.shape[1] > 3:
        distance = distance.astype(np.int32)
    for word in range(1, queries.shape[1]):
        distance += np.bitwise_count(queries[:, None, word] ^ database[:, word])
    return distance


def _reach(row: NDArray[Any], k: int, most: int) -> int:
    """The least distance within which there are k codes."""
    return bisect.bisect_left(range(most), k, key=lambda distance: int(np.count_nonzero(row <= distance)))


def nearest(queries: NDArray[np.uint64], database: NDArray[np.uint64], k: int) -> Neighbours:
    """The k nearest codes of each query by Hamming distance, of equally near ones those of lower number.

    The largest distance among them is found by bisection: counting what is within a distance is far cheaper than
    selecting or sorting.

    Args:
        queries, database: packed codes, see :func:`pack`.
        k: how many, 1 … n.

    Raises:
        ValueError: k out of range.

    Own: own-retrieval
    """
    n = len(database)
    if not 1 <= k <= n:
        raise ValueError(f"k must be in [1, {n}], the number of codes to search; got {k}")
    document, distance = (np.empty((len(queries), k), dtype=np.int64) for _ in range(2))
    for start in range(0, len(queries), BLOCK):
        for place, row in enumerate(_distances(queries[start : start + BLOCK], database), start):
            most = _reach(row, k, 64 * database.shape[1])
            nearer = np.flatnonzero(row < most)
            nearer = nearer[np.argsort(row[nearer], kind="stable")]
            document[place] = np.concatenate([nearer, np.flatnonzero(row == most)[: k - len(nearer)]])
            distance[place] = row[document[place]]
    return Neighbours(document, distance)
