"""Compiled loops over documents and codes for a processor; needs Numba.

A linear decoder of bits takes few logits: those of one code are sums of columns of V, and their exponentials products
of exponentials. For groups of bits all products are tabulated, for a few words at a time that stay in a cache::

    exp(a_k + Σ_j V_kj z_j) = b_k Π_g T_g[z_g, k]
    T_g[z_g, k] = exp Σ_{j in g} V_kj (z_j − ½),   b_k = exp(a_k + ½ Σ_j V_kj)

That is one multiplication for each group where a product of matrices has one for each bit, and no exponential for each
word and code. In the gradient, sums over the codes that agree in a group are likewise made once for all its bits.

The public loops are jobs that several threads share, see :func:`efvae.text.compiled.spread`. Each number is made by
one thread in a fixed order, and sums over all words are made in a fixed number of parts: nothing depends on the number
of threads.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

from efvae.text import jobs
from efvae.text.compiled import FAULT, WRONG_WORD
from efvae.text.vectors import LANES as WORDS
from efvae.text.vectors import fill, load, load_part, store, store_part, total

__all__ = [
    "PARTS",
    "ROWS",
    "WORDS",
    "add_words",
    "by_tile",
    "gradient",
    "group_sizes",
    "read",
    "row_sums",
    "sort_places",
    "totals",
]

F = TypeVar("F", bound=Callable[..., Any])

#: Codes at a time in the gradient: with 64 bits tables, products and sums of a tile take less than 200 kilobytes, which
#: fit second caches.
ROWS = 512
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


def _job(function: Callable[..., None]) -> Callable[[], Any]:
    """What gives the compiled function; it is compiled when it is first asked for."""

    def job() -> Any:
        decorate: Any = functools.partial(numba.cfunc, "void(voidptr)", error_model="numpy")
        try:
            return decorate(cache=True)(function)
        except RuntimeError:  # as above
            return decorate()(function)

    return functools.cache(functools.update_wrapper(job, function))


def group_sizes(bits: int) -> list[int]:
    """Numbers of bits of the groups whose exponentials are tabulated: at most 6 each, as even as can be.

    A multiple of 6 groups, since as many are multiplied in one go.

    Own: own-tabulated-products
    """
    groups = 6 * -(-bits // 36)
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
        least = fill(np.float32(1))
        for i in range(j, j + size):
            column = load(columns, i)
            least = least / column
            store(columns, i, column * column)
        store(tables, row, least)
        n_codes = 1
        for i in range(j, j + size):
            column = load(columns, i)
            for code in range(row, row + n_codes):
                store(tables, code + n_codes, load(tables, code) * column)
            n_codes *= 2
        j += size
        row += n_codes


@_compiled(fastmath={"reassoc", "contract", "nsz"})
def _row_sums(row):
    plain, absolute, largest = np.float32(0), np.float32(0), np.float32(0)
    for number in row:
        plain += number
        absolute += abs(number)
        largest = max(largest, abs(number))
    return plain, absolute, largest


@_job
def row_sums(data):
    """Half the sum of a row of V and the sum of its absolute values; a range of words.

    The second is infinite if an entry is beyond ±86, whose exponential float32 does not hold.

    Args:
        weight: V, shape (K, m).
        half, size: written, shape (K,).
    """
    job = jobs.begin(data)
    weight, half, size = jobs.table(job, 0), jobs.floats(job, 1), jobs.floats(job, 2)
    first, last = jobs.claim(job)
    while first < last:
        for k in range(first, last):
            plain, absolute, largest = _row_sums(weight[k])
            half[k], size[k] = plain / np.float32(2), absolute if largest < 86 else np.float32(np.inf)
        first, last = jobs.claim(job)


@_compiled()
def _base_of(base, k0, memory):
    """b of a tile's words, 0 beyond the last word."""
    n = min(WORDS, len(base) - k0)
    for k in range(n):
        memory[0, k] = base[k0 + k]
    memory[0, n:] = 0.0
    return load(memory, 0)


@_compiled()
def _product(tables, code):
    """Π_g T_g[z_g] of a tile's words, for as many groups as :func:`group_sizes` gives."""
    found = _six(tables, code)
    for g in range(6, len(code), 6):
        found = found * _six(tables, code[g:])
    return found


@_compiled()
def _six(tables, code):
    return ((load(tables, code[0]) * load(tables, code[1])) * (load(tables, code[2]) * load(tables, code[3]))) * (
        load(tables, code[4]) * load(tables, code[5])
    )


@_compiled()
def _gather(values, order, starts, sums):
    """Add up the rows that have a code of a group, for all groups."""
    for code in range(len(sums)):
        i, end = starts[code], starts[code + 1]
        found = load(sums, code)
        while i + 4 <= end:
            found = found + (
                (load(values, order[i]) + load(values, order[i + 1]))
                + (load(values, order[i + 2]) + load(values, order[i + 3]))
            )
            i += 4
        while i < end:
            found = found + load(values, order[i])
            i += 1
        store(sums, code, found)


@_compiled()
def _fold(sums, sizes, result):
    """From sums for each code of a group to sums for each of its bits; sums[0] becomes the sum over all."""
    row = j = 0
    for size in sizes:
        half = 1 << size
        for i in range(j + size - 1, j - 1, -1):
            half //= 2
            found = load(sums, row + half)
            for code in range(row + half + 1, row + 2 * half):
                found = found + load(sums, code)
            store(result, i, found)
            for code in range(row, row + half):
                store(sums, code, load(sums, code) + load(sums, code + half))
        j += size
        row += 1 << size


@_job
def totals(data):
    """Σ_k exp(V z + a)_k of each code; a range of PARTS parts of the words.

    Args:
        work: memory of each thread, shape (threads, Σ_g 2^size + m + 1, WORDS).
        root: exp(V / 2), shape (K, m).
        base: b, shape (K,).
        sizes: bits of each group.
        codes: the rows of its tables that each code takes, shape (codes, groups).
        result: added to, shape (PARTS, codes).
    """
    job = jobs.begin(data)
    work, root, base, sizes = jobs.tables(job, 0), jobs.table(job, 1), jobs.floats(job, 2), jobs.longs(job, 3)
    codes, result = jobs.places(job, 4), jobs.table(job, 5)
    first, last = jobs.claim(job)
    mine, n_tiles, n_tables = work[jobs.member(job)], -(-len(base) // WORDS), work.shape[1] - root.shape[1] - 1
    tables, columns, rest = mine[:n_tables], mine[n_tables:-1], mine[-1:]
    while first < last:
        for part in range(first, last):
            for tile in range(part * n_tiles // PARTS, (part + 1) * n_tiles // PARTS):
                _table(root, sizes, tile * WORDS, tables, columns)
                here = _base_of(base, tile * WORDS, rest)
                for r in range(len(codes)):
                    result[part, r] += total(_product(tables, codes[r]) * here)
        first, last = jobs.claim(job)


@_job
def gradient(data):
    """The gradient of V and a in a sum of costs; a range of tiles of words.

    ::

        Σ_r share_r exp(V z_r + a)_k (z_r, 1) − Σ_d (c_dk + f_k) (values_d, sums_d)

    Args:
        work: memory of each thread, shape (threads, 2 Σ_g 2^size + m + 1 + ROWS, WORDS).
        root, base, sizes: see :func:`totals`.
        codes: of the rows r, see :func:`totals`.
        order, starts: see :func:`sort_places`.
        share: shape (rows,).
        tiles, documents, words, counts: see :func:`by_tile`.
        values, sums: of each document, shapes (documents, m) and (documents,).
        smoothing: f, shape (K,).
        shared, shared_sum: values and sums summed over the documents, shapes (m,) and (1,).
        result, result_bias: written, shapes (K, m) and (K,).
    """
    job = jobs.begin(data)
    work, root, base, sizes = jobs.tables(job, 0), jobs.table(job, 1), jobs.floats(job, 2), jobs.longs(job, 3)
    codes, order, starts, share = jobs.places(job, 4), jobs.places(job, 5), jobs.places(job, 6), jobs.floats(job, 7)
    tiles, documents, words = jobs.longs(job, 8), jobs.ints(job, 9), jobs.ints(job, 10)
    counts, values, sums = jobs.floats(job, 11), jobs.table(job, 12), jobs.floats(job, 13)
    smoothing, shared, shared_sum = jobs.floats(job, 14), jobs.floats(job, 15), jobs.floats(job, 16)
    result, result_bias = jobs.table(job, 17), jobs.floats(job, 18)
    first, last = jobs.claim(job)
    mine, n_tables, bits = work[jobs.member(job)], starts.shape[1] - 2, root.shape[1]
    tables, table_sums, others = mine[:n_tables], mine[n_tables : 2 * n_tables], mine[2 * n_tables :]
    columns, rest, products = others[:bits], others[bits : bits + 1], others[bits + 1 :]
    while first < last:
        for tile in range(first, last):
            k0 = tile * WORDS
            _table(root, sizes, k0, tables, columns)
            here = _base_of(base, k0, rest)
            table_sums[:] = 0.0
            for block in range(len(starts)):
                for r in range(block * ROWS, min((block + 1) * ROWS, len(codes))):
                    # b first, since the factor undoes it
                    store(products, r - block * ROWS, (_product(tables, codes[r]) * here) * fill(share[r]))
                _gather(products, order[block], starts[block], table_sums)
            _fold(table_sums, sizes, columns)
            for k in range(min(WORDS, len(base) - k0)):
                f = smoothing[k0 + k]
                result_bias[k0 + k] = table_sums[0, k] - f * shared_sum[0]
                for j in range(bits):
                    result[k0 + k, j] = columns[j, k] - f * shared[j]
            for e in range(tiles[tile], tiles[tile + 1]):
                result_bias[words[e]] -= counts[e] * sums[documents[e]]
                _add_row(result, words[e], -counts[e], values, documents[e])
        first, last = jobs.claim(job)


@_job
def sort_places(data):
    """Codes sorted by the rows of the tables, within blocks of ROWS; a range of blocks.

    Args:
        codes: see :func:`totals`.
        order: written, numbers of codes within their block by group and row, shape (blocks, groups * ROWS).
        starts: zeros; written, where those of each row begin, where the last ones end, and a number more, shape
            (blocks, Σ_g 2^size + 2).
    """
    job = jobs.begin(data)
    codes, order, starts = jobs.places(job, 0), jobs.places(job, 1), jobs.places(job, 2)
    first, last = jobs.claim(job)
    while first < last:
        for block in range(first, last):
            start, end = block * ROWS, min((block + 1) * ROWS, len(codes))
            for r in range(start, end):
                for code in codes[r]:
                    starts[block, code + 2] += 1
            for row in range(1, starts.shape[1]):
                starts[block, row] += starts[block, row - 1]
            for r in range(start, end):
                for code in codes[r]:
                    order[block, starts[block, code + 1]] = r - start
                    starts[block, code + 1] += 1  # where the next row begins, in the end
        first, last = jobs.claim(job)


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
def _sum_rows(words, counts, table, result, d):
    """Add the rows of some words to a row, in a fixed order."""
    width = table.shape[1]
    whole = width // WORDS * WORDS
    for column in range(0, whole, WORDS):
        found = load_part(result, d, column)
        for e in range(len(words)):
            found = found + fill(counts[e]) * load_part(table, words[e], column)
        store_part(result, d, column, found)
    for e in range(len(words)):
        for j in range(whole, width):
            result[d, j] += counts[e] * table[words[e], j]


@_job
def read(data):
    """Rows of a table summed with the words' counts, and one more row; a range of documents.

    Args:
        words, counts, offsets: see :class:`~efvae.text.batches.Batch`.
        table: shape (K, width).
        shared: the row that all get, shape (width,).
        result: written, shape (documents, width).
    """
    job = jobs.begin(data)
    words, counts, offsets = jobs.ints(job, 0), jobs.floats(job, 1), jobs.ints(job, 2)
    table, shared, result = jobs.table(job, 3), jobs.floats(job, 4), jobs.table(job, 5)
    first, last = jobs.claim(job)
    while first < last:
        for d in range(first, last):
            begin, end = offsets[d], offsets[d + 1] if d + 1 < len(offsets) else len(words)
            result[d] = shared
            theirs = words[begin:end]
            for word in theirs:
                if word < 0 or word >= len(table):
                    job[FAULT] = WRONG_WORD
            if job[FAULT]:
                return
            _sum_rows(theirs, counts[begin:end], table, result, d)
        first, last = jobs.claim(job)


@_compiled()
def _add_row(result, k, count, values, d):
    """Add a multiple of a row to a row."""
    width = values.shape[1]
    whole = width // WORDS * WORDS
    for column in range(0, whole, WORDS):
        found = load_part(result, k, column) + fill(count) * load_part(values, d, column)
        store_part(result, k, column, found)
    for j in range(whole, width):
        result[k, j] += count * values[d, j]


@_job
def add_words(data):
    """xᵀ V; a range of tiles of words.

    Args:
        tiles, documents, words, counts: see :func:`by_tile`.
        values: V, one row for each document, shape (documents, width).
        smoothing: f, shape (K,).
        shared: the sum of V over the documents, shape (width,).
        result: written, shape (K, width).
    """
    job = jobs.begin(data)
    tiles, documents, words, counts = jobs.longs(job, 0), jobs.ints(job, 1), jobs.ints(job, 2), jobs.floats(job, 3)
    values, smoothing, shared, result = jobs.table(job, 4), jobs.floats(job, 5), jobs.floats(job, 6), jobs.table(job, 7)
    first, last = jobs.claim(job)
    while first < last:
        for k in range(first * WORDS, min(last * WORDS, len(smoothing))):
            for j in range(len(shared)):
                result[k, j] = smoothing[k] * shared[j]
        for e in range(tiles[first], tiles[last]):
            _add_row(result, words[e], counts[e], values, documents[e])
        first, last = jobs.claim(job)
