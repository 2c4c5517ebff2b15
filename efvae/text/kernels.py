"""Compiled loops over documents and codes for a processor; needs Numba.

A linear decoder of bits takes few logits: those of one code are sums of columns of V, and their exponentials products
of exponentials. For groups of bits all products are tabulated, for a few words at a time that stay in a cache::

    exp(a_k + Σ_j V_kj z_j) = b_k Π_g T_g[z_g, k]
    T_g[z_g, k] = exp Σ_{j in g} V_kj (z_j − ½),   b_k = exp(a_k + ½ Σ_j V_kj)

That is one multiplication for each group where a product of matrices has one for each bit, and no exponential for each
word and code. In the gradient, sums over the codes that agree in a group are likewise made once for all its bits.

Every loop is over a range that its caller gives, so that several threads can share it, see
:func:`efvae.text.compiled.spread`. Each number is made by one thread in a fixed order, and sums over all words are made
in a fixed number of parts: nothing depends on the number of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

__all__ = [
    "FEW",
    "PARTS",
    "ROWS",
    "WORDS",
    "add_words",
    "by_tile",
    "gradient",
    "group_sizes",
    "inner",
    "places",
    "read",
    "row_sums",
    "sort_places",
    "totals",
]

F = TypeVar("F", bound=Callable[..., Any])

#: Words in a tile; with 64 bits its tables and the products of ROWS codes take less than half a megabyte, which fits
#: many second caches.
WORDS = 64
#: Codes at a time in the gradient.
ROWS = 512
#: Codes at a time in a product, what a first cache holds beside some rows of tables; divides ROWS.
FEW = 32
#: Parts of the sum over all words.
PARTS = 32


def _compiled(*, fastmath: set[str] | None = None) -> Callable[[F], F]:
    def compiled(function: F) -> F:
        decorate: Any = functools.partial(numba.njit, nogil=True, error_model="numpy", fastmath=fastmath or False)
        try:
            return cast("F", decorate(function, cache=True))
        except RuntimeError:  # no folder to keep compiled code in: each process compiles it
            return cast("F", decorate(function))

    return compiled


def group_sizes(bits: int) -> list[int]:
    """Numbers of bits of the groups whose exponentials are tabulated: at most 6 each, as even as can be.

    As many groups as are multiplied in one go, 6 or 12, or a multiple of 12.

    Own: own-tabulated-products
    """
    groups = 6 if bits <= 36 else 12 * -(-bits // 72)
    return [(bits + i) // groups for i in reversed(range(groups))]


@_compiled()
def _table(root, sizes, k0, tables, columns):
    """Tables of one tile of words.

    Args:
        root: exp(V / 2), shape (K, m).
        sizes: bits of each group.
        k0: first word.
        tables: written, shape (Σ_g 2^size, WORDS): the groups one after the other, codes in counting order, where the
            first bit counts least; beyond the last word 1.
        columns: overwritten, shape (m, WORDS).
    """
    n = min(WORDS, len(root) - k0)
    columns[:, n:] = 1.0
    for k in range(n):
        for j in range(len(columns)):
            columns[j, k] = root[k0 + k, j]
    row = j = 0
    for size in sizes:
        tables[row] = 1.0
        for i in range(j, j + size):
            for k in range(WORDS):
                tables[row, k] /= columns[i, k]
                columns[i, k] *= columns[i, k]
        n_codes = 1
        for i in range(j, j + size):
            for code in range(row, row + n_codes):
                for k in range(WORDS):
                    tables[code + n_codes, k] = tables[code, k] * columns[i, k]
            n_codes *= 2
        j += size
        row += n_codes


@_compiled(fastmath={"reassoc", "contract", "nsz"})
def row_sums(first, last, weight, half, size):
    """Half the sum of a row of V and the sum of its absolute values, of some words.

    The second is infinite if an entry is beyond ±86, whose exponential float32 does not hold.

    Args:
        first, last: the words.
        weight: V, shape (K, m).
        half, size: written, shape (K,).
    """
    for k in range(first, last):
        plain, absolute, largest = np.float32(0), np.float32(0), np.float32(0)
        for j in range(weight.shape[1]):
            plain += weight[k, j]
            absolute += abs(weight[k, j])
            largest = max(largest, abs(weight[k, j]))
        half[k], size[k] = plain / np.float32(2), absolute if largest < 86 else np.float32(np.inf)


@_compiled()
def _tile_of(base, k0, result):
    """b of a tile's words, 0 beyond the last word."""
    n = min(WORDS, len(base) - k0)
    result[:n] = base[k0 : k0 + n]
    result[n:] = 0.0


@_compiled()
def _products(tables, codes, result):
    """Π_g T_g[z_g] of a tile's words, shape (codes, WORDS), for as many groups as :func:`group_sizes` gives."""
    if codes.shape[1] == 6:
        for r in range(len(codes)):
            a, b, c, d, e, f = codes[r, 0], codes[r, 1], codes[r, 2], codes[r, 3], codes[r, 4], codes[r, 5]
            for k in range(WORDS):
                result[r, k] = ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k])) * (
                    tables[e, k] * tables[f, k]
                )
        return
    for r in range(len(codes)):
        for first in range(0, codes.shape[1], 12):
            some = codes[r, first:]
            a, b, c, d, e, f = some[0], some[1], some[2], some[3], some[4], some[5]
            g, h, i, j, m, n = some[6], some[7], some[8], some[9], some[10], some[11]
            if first == 0:
                for k in range(WORDS):
                    result[r, k] = (
                        ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k]))
                        * ((tables[e, k] * tables[f, k]) * (tables[g, k] * tables[h, k]))
                    ) * ((tables[i, k] * tables[j, k]) * (tables[m, k] * tables[n, k]))
            else:
                for k in range(WORDS):
                    result[r, k] *= (
                        ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k]))
                        * ((tables[e, k] * tables[f, k]) * (tables[g, k] * tables[h, k]))
                    ) * ((tables[i, k] * tables[j, k]) * (tables[m, k] * tables[n, k]))


@_compiled(fastmath={"reassoc", "contract", "nsz"})
def _add_sums(values, base, result):
    """Add the sums of rows times b to a total of each."""
    for r in range(len(values)):
        total = np.float32(0)
        for k in range(WORDS):
            total += values[r, k] * base[k]
        result[r] += total


@_compiled()
def _scale(values, base, share):
    """Multiply rows by b and by a factor of each; b first, since the factor undoes it."""
    for r in range(len(values)):
        for k in range(WORDS):
            values[r, k] = (values[r, k] * base[k]) * share[r]


@_compiled()
def _gather(values, order, starts, sums):
    """Add up the rows that have a code of a group, for all groups."""
    for code in range(len(starts) - 1):
        i, end = starts[code], starts[code + 1]
        while i + 4 <= end:
            a, b, c, d = order[i], order[i + 1], order[i + 2], order[i + 3]
            for k in range(WORDS):
                sums[code, k] += (values[a, k] + values[b, k]) + (values[c, k] + values[d, k])
            i += 4
        while i < end:
            a = order[i]
            for k in range(WORDS):
                sums[code, k] += values[a, k]
            i += 1


@_compiled()
def _fold(sums, sizes, result):
    """From sums for each code of a group to sums for each of its bits; sums[0] becomes the sum over all."""
    row = j = 0
    for size in sizes:
        half = 1 << size
        for i in range(j + size - 1, j - 1, -1):
            half //= 2
            for k in range(WORDS):
                result[i, k] = sums[row + half, k]
            for code in range(row + half + 1, row + 2 * half):
                for k in range(WORDS):
                    result[i, k] += sums[code, k]
            for code in range(row, row + half):
                for k in range(WORDS):
                    sums[code, k] += sums[code + half, k]
        j += size
        row += 1 << size


@_compiled()
def totals(first, last, work, root, base, sizes, codes, result):
    """Σ_k exp(V z + a)_k of each code, for some of PARTS parts of the words.

    Args:
        first, last: the parts.
        work: memory, shape (Σ_g 2^size + m + 1 + FEW, WORDS).
        root: exp(V / 2), shape (K, m).
        sizes: bits of each group.
        base: b, shape (K,).
        codes: see :func:`places`.
        result: added to, shape (PARTS, codes).
    """
    n_tiles, n_tables = (len(base) + WORDS - 1) // WORDS, len(work) - root.shape[1] - 1 - FEW
    tables, columns, here, products = work[:n_tables], work[n_tables : -FEW - 1], work[-FEW - 1], work[-FEW:]
    for part in range(first, last):
        for tile in range(part * n_tiles // PARTS, (part + 1) * n_tiles // PARTS):
            _table(root, sizes, tile * WORDS, tables, columns)
            _tile_of(base, tile * WORDS, here)
            for r in range(0, len(codes), FEW):
                some = codes[r : r + FEW]
                _products(tables, some, products[: len(some)])
                _add_sums(products[: len(some)], here, result[part, r : r + FEW])


@_compiled()
def gradient(
    first,
    last,
    work,
    root,
    base,
    sizes,
    codes,
    order,
    starts,
    share,
    entries,
    values,
    sums,
    smoothing,
    shared,
    shared_sum,
    result,
    result_bias,
):
    """The gradient of V and a in a sum of costs, for some tiles of words.

    ::

        Σ_r share_r exp(V z_r + a)_k (z_r, 1) − Σ_d (c_dk + f_k) (values_d, sums_d)

    Args:
        first, last: the tiles.
        work: memory, shape (2 Σ_g 2^size + m + 1 + ROWS, WORDS).
        root, base, sizes: see :func:`totals`.
        codes: of the rows r, see :func:`places`.
        order, starts: see :func:`sort_places`.
        share: shape (rows,).
        entries: see :func:`by_tile`.
        values, sums: of each document, shapes (documents, m) and (documents,).
        smoothing: f, shape (K,).
        shared, shared_sum: values and sums summed over the documents, shapes (m,) and (1,).
        result, result_bias: written, shapes (K, m) and (K,).
    """
    n_tables, bits = starts.shape[1] - 1, root.shape[1]
    tables, table_sums = work[:n_tables], work[n_tables : 2 * n_tables]
    columns, here = work[2 * n_tables : 2 * n_tables + bits], work[2 * n_tables + bits]
    products = work[2 * n_tables + bits + 1 :]
    tiles, documents, words, counts = entries
    for tile in range(first, last):
        k0 = tile * WORDS
        _table(root, sizes, k0, tables, columns)
        _tile_of(base, k0, here)
        table_sums[:] = 0.0
        for block in range(len(starts)):
            for r in range(block * ROWS, min((block + 1) * ROWS, len(codes)), FEW):
                some = codes[r : min(r + FEW, (block + 1) * ROWS)]
                theirs = products[r - block * ROWS : r - block * ROWS + len(some)]
                _products(tables, some, theirs)
                _scale(theirs, here, share[r : r + len(some)])
            _gather(products, order[block], starts[block], table_sums)
        _fold(table_sums, sizes, columns)
        for k in range(min(WORDS, len(base) - k0)):
            f = smoothing[k0 + k]
            result_bias[k0 + k] = table_sums[0, k] - f * shared_sum[0]
            for j in range(bits):
                result[k0 + k, j] = columns[j, k] - f * shared[j]
        for e in range(tiles[tile], tiles[tile + 1]):
            word, d, count = words[e], documents[e], counts[e]
            result_bias[word] -= count * sums[d]
            for j in range(bits):
                result[word, j] -= count * values[d, j]


@_compiled()
def places(first, last, z, sizes, codes, wrong):
    """Rows of the tables for some codes.

    Args:
        first, last: the codes.
        z: zeros and ones, shape (rows, m).
        sizes: bits of each group.
        codes: written, shape (rows, groups).
        wrong: set where z is something else, shape (rows,).
    """
    for r in range(first, last):
        row = j = 0
        for g in range(len(sizes)):
            place = row
            for i in range(sizes[g]):
                place += (z[r, j] != 0) << i
                if not (z[r, j] == 0 or z[r, j] == 1):
                    wrong[r] = True
                j += 1
            codes[r, g] = place
            row += 1 << sizes[g]


@_compiled()
def sort_places(first, last, codes, order, starts):
    """The codes of some blocks of ROWS sorted by the rows of the tables.

    Args:
        first, last: the blocks.
        codes: see :func:`places`.
        order: written, numbers of codes within their block by group and row, shape (blocks, groups * ROWS).
        starts: added to, where those of each row begin, shape (blocks, Σ_g 2^size + 1).
    """
    groups = codes.shape[1]
    for block in range(first, last):
        begin, end = block * ROWS, min((block + 1) * ROWS, len(codes))
        for r in range(begin, end):
            for g in range(groups):
                starts[block, codes[r, g] + 1] += 1
        for row in range(starts.shape[1] - 1):
            starts[block, row + 1] += starts[block, row]
        free = starts[block].copy()
        for r in range(begin, end):
            for g in range(groups):
                order[block, free[codes[r, g]]] = r - begin
                free[codes[r, g]] += 1


@_compiled()
def by_tile(words, counts, offsets, n_words):
    """The entries of documents sorted by tiles of words: where each tile begins, documents, words, counts.

    Args:
        words, counts, offsets: see :class:`~efvae.text.batches.Batch`.
        n_words: K.
    """
    tiles = np.zeros((n_words + WORDS - 1) // WORDS + 1, np.int64)
    for word in words:
        if word < 0 or word >= n_words:
            raise IndexError("a word is outside the vocabulary")
        tiles[word // WORDS + 1] += 1
    for tile in range(len(tiles) - 1):
        tiles[tile + 1] += tiles[tile]
    free = tiles.copy()
    documents, sorted_words = np.empty(len(words), np.int32), np.empty(len(words), np.int32)
    sorted_counts = np.empty(len(words), np.float32)
    for d in range(len(offsets)):
        for e in range(offsets[d], offsets[d + 1] if d + 1 < len(offsets) else len(words)):
            place = free[words[e] // WORDS]
            free[words[e] // WORDS] += 1
            documents[place], sorted_words[place], sorted_counts[place] = d, words[e], counts[e]
    return tiles, documents, sorted_words, sorted_counts


@_compiled()
def read(first, last, words, counts, offsets, table, shared, result):
    """Rows of a table summed with the words' counts, and one more row, for some documents.

    Args:
        first, last: the documents.
        words, counts, offsets: see :class:`~efvae.text.batches.Batch`.
        table: shape (K, width).
        shared: the row that all get, shape (width,).
        result: written, shape (documents, width).
    """
    for d in range(first, last):
        for j in range(len(shared)):
            result[d, j] = shared[j]
        for e in range(offsets[d], offsets[d + 1] if d + 1 < len(offsets) else len(words)):
            count, word = counts[e], words[e]
            if word < 0 or word >= len(table):
                raise IndexError("a word is outside the vocabulary")
            for j in range(len(shared)):
                result[d, j] += count * table[word, j]


@_compiled()
def add_words(first, last, entries, values, smoothing, shared, result):
    """xᵀ V for some tiles of words.

    Args:
        first, last: the tiles.
        entries: see :func:`by_tile`.
        values: V, one row for each document, shape (documents, width).
        smoothing: f, shape (K,).
        shared: the sum of V over the documents, shape (width,).
        result: written, shape (K, width).
    """
    tiles, documents, words, counts = entries
    for k in range(first * WORDS, min(last * WORDS, len(smoothing))):
        for j in range(len(shared)):
            result[k, j] = smoothing[k] * shared[j]
    for e in range(tiles[first], tiles[last]):
        word, d, count = words[e], documents[e], counts[e]
        for j in range(len(shared)):
            result[word, j] += count * values[d, j]


@_compiled()
def inner(first, last, z, words, counts, offsets, weight, bias, shared, shared_bias, result):
    """⟨x_d, V z_sd + a⟩ for some documents.

    Args:
        first, last: the documents.
        z: shape (samples, documents, m).
        words, counts, offsets: see :class:`~efvae.text.batches.Batch`.
        weight, bias: V and a.
        shared, shared_bias: fᵀV and ⟨f, a⟩, shapes (m,) and (1,).
        result: written, shape (samples, documents).
    """
    row = np.empty_like(shared)
    for d in range(first, last):
        row[:] = shared
        constant = shared_bias[0]
        for e in range(offsets[d], offsets[d + 1] if d + 1 < len(offsets) else len(words)):
            count, word = counts[e], words[e]
            if word < 0 or word >= len(bias):
                raise IndexError("a word is outside the vocabulary")
            constant += count * bias[word]
            for j in range(len(row)):
                row[j] += count * weight[word, j]
        for s in range(len(z)):
            total = constant
            for j in range(len(row)):
                total += z[s, d, j] * row[j]
            result[s, d] = total
