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

__all__ = ["GROUPS", "PARTS", "ROWS", "WORDS", "add_words", "by_tile", "gradient", "inner", "places", "read", "totals"]

F = TypeVar("F", bound=Callable[..., Any])

#: Words in a tile: its tables and those of ROWS codes take less than half a megabyte, what many second caches hold.
WORDS = 64
#: Codes at a time in the gradient.
ROWS = 512
#: The number of groups is a multiple of this: so many are multiplied in one go.
GROUPS = 6
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


@_compiled()
def _table(root, scale, sizes, k0, tables, columns, base):
    """Tables of one tile of words; the largest exp(½ Σ_j |V_kj|), which no product of them is beyond.

    Args:
        root: exp(V / 2), shape (K, m).
        scale: exp a, shape (K,).
        sizes: bits of each group.
        k0: first word.
        tables: written, shape (Σ_g 2^size, WORDS): the groups one after the other, codes in counting order, where the
            first bit counts least.
        columns: written, exp V of the tile, shape (m, WORDS).
        base: written, b, shape (WORDS,); 0 beyond the last word.
    """
    n = min(WORDS, len(scale) - k0)
    columns[:, n:] = 1.0
    base[n:] = 0.0
    for k in range(n):
        base[k] = scale[k0 + k]
        for j in range(len(columns)):
            columns[j, k] = root[k0 + k, j]
    most = np.ones(WORDS, np.float32)
    row = j = 0
    for size in sizes:
        tables[row] = 1.0
        for i in range(j, j + size):
            for k in range(WORDS):
                up = columns[i, k]
                down = 1 / up
                base[k] *= up
                most[k] *= max(up, down)
                tables[row, k] *= down
                columns[i, k] = up * up
        n_codes = 1
        for i in range(j, j + size):
            for code in range(row, row + n_codes):
                for k in range(WORDS):
                    tables[code + n_codes, k] = tables[code, k] * columns[i, k]
            n_codes *= 2
        j += size
        row += n_codes
    return most.max()


@_compiled(fastmath={"reassoc", "contract", "nsz"})
def _add_totals(tables, base, codes, buffer, result):
    """Add the sum over a tile's words to the total of each code."""
    last = codes.shape[1] - GROUPS
    for r in range(len(codes)):
        a, b, c, d, e, f = codes[r, 0], codes[r, 1], codes[r, 2], codes[r, 3], codes[r, 4], codes[r, 5]
        total = np.float32(0)
        if last == 0:
            for k in range(WORDS):
                total += ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k])) * (
                    (tables[e, k] * tables[f, k]) * base[k]
                )
        else:
            for k in range(WORDS):
                buffer[k] = ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k])) * (
                    (tables[e, k] * tables[f, k]) * base[k]
                )
            for g in range(GROUPS, last, GROUPS):
                a, b, c = codes[r, g], codes[r, g + 1], codes[r, g + 2]
                d, e, f = codes[r, g + 3], codes[r, g + 4], codes[r, g + 5]
                for k in range(WORDS):
                    buffer[k] *= ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k])) * (
                        tables[e, k] * tables[f, k]
                    )
            a, b, c = codes[r, last], codes[r, last + 1], codes[r, last + 2]
            d, e, f = codes[r, last + 3], codes[r, last + 4], codes[r, last + 5]
            for k in range(WORDS):
                total += buffer[k] * (
                    ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k])) * (tables[e, k] * tables[f, k])
                )
        result[r] += total


@_compiled()
def _scaled(tables, base, codes, share, result):
    """exp(V z + a) of a tile's words times a factor of each code, shape (codes, WORDS)."""
    for r in range(len(codes)):
        factor = share[r]
        a, b, c, d, e, f = codes[r, 0], codes[r, 1], codes[r, 2], codes[r, 3], codes[r, 4], codes[r, 5]
        for k in range(WORDS):
            result[r, k] = ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k])) * (
                (tables[e, k] * tables[f, k]) * (factor * base[k])
            )
        for g in range(GROUPS, codes.shape[1], GROUPS):
            a, b, c = codes[r, g], codes[r, g + 1], codes[r, g + 2]
            d, e, f = codes[r, g + 3], codes[r, g + 4], codes[r, g + 5]
            for k in range(WORDS):
                result[r, k] *= ((tables[a, k] * tables[b, k]) * (tables[c, k] * tables[d, k])) * (
                    tables[e, k] * tables[f, k]
                )


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
def totals(first, last, work, root, scale, sizes, codes, result, most):
    """Σ_k exp(V z + a)_k of each code, for some of PARTS parts of the words.

    Args:
        first, last: the parts.
        work: memory, shape (Σ_g 2^size + m + 2, WORDS).
        root, scale, sizes: see :func:`_table`.
        codes: see :func:`places`.
        result: added to, shape (PARTS, codes).
        most: written, the largest exp(½ Σ_j |V_kj|) of each part, shape (PARTS,).
    """
    bits, n_tiles = root.shape[1], (len(scale) + WORDS - 1) // WORDS
    n_tables = len(work) - bits - 2
    tables, columns, base, buffer = work[:n_tables], work[n_tables:-2], work[-2], work[-1]
    for part in range(first, last):
        most[part] = 1.0
        for tile in range(part * n_tiles // PARTS, (part + 1) * n_tiles // PARTS):
            most[part] = max(most[part], _table(root, scale, sizes, tile * WORDS, tables, columns, base))
            _add_totals(tables, base, codes, buffer, result[part])


@_compiled()
def gradient(
    first,
    last,
    work,
    root,
    scale,
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
        root, scale, sizes: see :func:`_table`.
        codes, order, starts: of the rows r, see :func:`places`.
        share: shape (rows,).
        entries: see :func:`by_tile`.
        values, sums: of each document, shapes (documents, m) and (documents,).
        smoothing: f, shape (K,).
        shared, shared_sum: values and sums summed over the documents, shapes (m,) and (1,).
        result, result_bias: written, shapes (K, m) and (K,).
    """
    n_tables, bits = starts.shape[1] - 1, root.shape[1]
    tables, table_sums = work[:n_tables], work[n_tables : 2 * n_tables]
    columns, base = work[2 * n_tables : 2 * n_tables + bits], work[2 * n_tables + bits]
    products = work[2 * n_tables + bits + 1 :]
    tiles, documents, words, counts = entries
    for tile in range(first, last):
        k0 = tile * WORDS
        _table(root, scale, sizes, k0, tables, columns, base)
        table_sums[:] = 0.0
        for block in range(len(starts)):
            rows = slice(block * ROWS, (block + 1) * ROWS)
            _scaled(tables, base, codes[rows], share[rows], products)
            _gather(products, order[block], starts[block], table_sums)
        _fold(table_sums, sizes, columns)
        for k in range(min(WORDS, len(scale) - k0)):
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
def places(first, last, z, sizes, codes, order, starts, wrong):
    """Rows of the tables for each code, and, for some blocks of ROWS codes, the codes sorted by them.

    Args:
        first, last: the blocks.
        z: bits, shape (rows, m).
        sizes: see :func:`_table`.
        codes: written, rows of the tables, shape (rows, groups).
        order: written, numbers of codes within their block, sorted by group and row, shape (blocks, groups * ROWS).
        starts: added to, where those of each row begin, shape (blocks, Σ_g 2^size + 1).
        wrong: added to, how many numbers are no bits, shape (blocks,).
    """
    for block in range(first, last):
        begin, end = block * ROWS, min((block + 1) * ROWS, len(z))
        for r in range(begin, end):
            row = j = 0
            for g in range(len(sizes)):
                place = row
                for i in range(sizes[g]):
                    bit = z[r, j]
                    wrong[block] += bit != 0 and bit != 1
                    place += (bit == 1) << i
                    j += 1
                codes[r, g] = place
                starts[block, place + 1] += 1
                row += 1 << sizes[g]
        for row in range(starts.shape[1] - 1):
            starts[block, row + 1] += starts[block, row]
        free = starts[block].copy()
        for r in range(begin, end):
            for g in range(len(sizes)):
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
            constant += count * bias[word]
            for j in range(len(row)):
                row[j] += count * weight[word, j]
        for s in range(len(z)):
            total = constant
            for j in range(len(row)):
                total += z[s, d, j] * row[j]
            result[s, d] = total
