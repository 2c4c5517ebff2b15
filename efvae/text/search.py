"""Hamming search among binary codes that are packed into 64-bit words."""

from __future__ import annotations

from dataclasses import dataclass

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
    if queries.shape[1] != database.shape[1]:
        raise ValueError(f"codes of {queries.shape[1]} and of {database.shape[1]} words cannot be compared")
    distance = np.zeros((len(queries), len(database)), dtype=np.int32)
    for word in range(queries.shape[1]):
        distance += np.bitwise_count(queries[:, None, word] ^ database[:, word])
    return distance


def nearest(queries: NDArray[np.uint64], database: NDArray[np.uint64], k: int) -> Neighbours:
    """The k nearest codes of each query by Hamming distance, of equally near ones those of lower number.

    Distance and number share one integer, so that selecting the k least numbers needs no second look at ties.

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
    shift = (n - 1).bit_length()
    # 32-bit keys are selected several times faster than 64-bit ones
    small = (64 * database.shape[1] + 1) << shift <= 2**31
    number = np.arange(n, dtype=np.int32 if small else np.int64)
    best = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), BLOCK):
        distance = hamming(queries[start : start + BLOCK], database).astype(number.dtype, copy=False)
        key = np.left_shift(distance, shift) | number
        best[start : start + BLOCK] = np.sort(np.partition(key, k - 1, axis=1)[:, :k], axis=1)
    return Neighbours(best & ((1 << shift) - 1), best >> shift)
