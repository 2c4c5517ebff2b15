"""Compiled loops over documents and codes for a processor; needs Numba.

A linear decoder of bits takes few logits: those of one code are sums of columns of V, and their exponentials products
of exponentials. For groups of bits all products are tabulated, for a few words at a time that stay in a cache::

    exp(a_k + Σ_j V_kj z_j) = b_k Π_g T_g[z_g, k],   b_k = exp(a_k + ½ Σ_j V_kj)
    T_g[z_g, k] = exp Σ_{j in g} V_kj (z_j − ½) = exp(−½ Σ_{j in g} V_kj) Π_{j in g: z_j = 1} exp V_kj

That is one multiplication for each group where a product of matrices has one for each bit, and no exponential for each
word and code. In the gradient, sums over the codes that agree in a group are likewise made once for all its bits.

The public loops are jobs that several threads share, see :func:`efvae.text.compiled.spread`. Each number is made by
one thread in a fixed order, and sums over all words are made in a fixed number of parts: nothing depends on the number
of threads.

All of it is in one file, since Numba keeps compiled code until the file of a function changes, whatever it calls.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    "PARTS",
    "ROWS",
    "WORDS",
    "adam",
    "add_words",
    "by_tile",
    "check",
    "gradient",
    "group_sizes",
    "job",
    "pairs",
    "sort_places",
    "step_decoder",
    "step_encoder",
    "totals",
]

F = TypeVar("F", bound=Callable[..., Any])

#: Words in a tile, whose numbers are one value in the loops.
WORDS = 32
#: Codes at a time in the gradient. With 64 bits tables, products and sums of a tile take about 200 kilobytes, which
#: fit second caches.
ROWS = 512
#: Parts of the sum over all words.
PARTS = 32


def _compiled(function: F) -> F:
    decorate: Any = functools.partial(numba.njit, nogil=True, error_model="numpy")
    try:
        compiled = decorate(cache=True)(function)
    except RuntimeError:  # no folder to keep compiled code in: each process compiles it
        return cast("F", decorate()(function))
    keep = compiled._cache.save_overload

    def keep_if_possible(*overload: Any) -> None:
        with contextlib.suppress(OSError):  # a full disk: each process compiles it
            keep(*overload)

    compiled._cache.save_overload = keep_if_possible
    return cast("F", compiled)


def _job(function: Callable[..., None]) -> Callable[[], Any]:
    """What gives the compiled function; it is compiled when it is first asked for."""

    def job() -> Any:
        decorate: Any = functools.partial(numba.cfunc, "void(voidptr)", error_model="numpy")
        try:
            return decorate(cache=True)(function)
        except (RuntimeError, OSError):  # as above
            return decorate()(function)

    return functools.cache(functools.update_wrapper(job, function))


# Vectors: numbers of neighbouring words as one value. Loops over them that a compiler turns into vectors by itself are
# as fast for some lengths and several times slower for others.

_INT, _FLOAT = ir.IntType(32), ir.FloatType()
_VECTOR, _INTEGERS = ir.VectorType(_FLOAT, WORDS), ir.VectorType(_INT, WORDS)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(f"vector of {WORDS} float32")


_vector = _Vector()


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _address(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [builder.mul(row, ir.Constant(row.type, WORDS))]), _VECTOR.as_pointer())


def _check_table(array: Any) -> None:
    if not (
        isinstance(array, types.Array) and array.dtype == types.float32 and array.ndim == 2 and array.layout == "C"
    ):
        raise TypingError(f"vectors: expected a contiguous table of float32, got {array}")


@intrinsic
def _load(typing: Any, array: Any, row: Any) -> Any:
    """A row of an array of shape (rows, WORDS); no bounds are checked."""
    _check_table(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = builder.load(_address(context, builder, signature.args[0], *arguments))
        found.align = 4
        return found

    return _vector(array, types.intp), generate


@intrinsic
def _store(typing: Any, array: Any, row: Any, vector: Any) -> Any:
    """Set a row of an array of shape (rows, WORDS); no bounds are checked."""
    _check_table(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2])).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), generate


@intrinsic
def _fill(typing: Any, number: Any) -> Any:
    """The same number in all places."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        one = builder.insert_element(nothing, arguments[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_INT, WORDS), [0] * WORDS))

    return _vector(types.float32), generate


@intrinsic
def _total(typing: Any, vector: Any) -> Any:
    """The sum of the numbers: halves added until one is left."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, length = arguments[0], WORDS
        while length > 1:
            length //= 2
            halves = (
                builder.shuffle_vector(
                    found, found, ir.Constant(ir.VectorType(_INT, length), list(range(first, first + length)))
                )
                for first in (0, length)
            )
            found = builder.fadd(*halves)
        return builder.extract_element(found, ir.Constant(_INT, 0))

    return types.float32(_vector), generate


@intrinsic
def _scaled(typing: Any, power: Any, whole: Any) -> Any:
    """``2^n power``; whole is n + 1.5 * 2^23, whose last bits are n and are added to the exponent."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        power, whole = (builder.bitcast(argument, _INTEGERS) for argument in arguments)
        shift = ir.Constant(_INTEGERS, [23] * WORDS)
        return builder.bitcast(builder.add(power, builder.shl(whole, shift)), _VECTOR)

    return _vector(_vector, _vector), generate


@intrinsic
def _where_less(typing: Any, first: Any, second: Any, yes: Any, no: Any) -> Any:
    """``yes`` where ``first < second``, else ``no``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second, yes, no = arguments
        return builder.select(builder.fcmp_ordered("<", first, second), yes, no)

    return _vector(*[_vector] * 4), generate


#: Side of the squares that :func:`_turn` takes.
_SIDE = 16


@intrinsic
def _turn_square(typing: Any, source: Any, row: Any, column: Any, target: Any, to_row: Any, to_column: Any) -> Any:
    """Copy a square with rows and columns exchanged; no bounds are checked."""
    for array in (source, target):
        _check_table(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(_FLOAT, _SIDE)

        def lines(kind: Any, value: Any, row: Any, column: Any) -> list[Any]:
            array = context.make_array(kind)(context, builder, value)
            stride = builder.sdiv(builder.extract_value(array.strides, 0), ir.Constant(row.type, 4))
            first = builder.gep(array.data, [builder.add(builder.mul(row, stride), column)])
            steps = (builder.mul(stride, ir.Constant(row.type, i)) for i in range(_SIDE))
            return [builder.bitcast(builder.gep(first, [step]), line.as_pointer()) for step in steps]

        found = []
        for place in lines(signature.args[0], *arguments[:3]):
            found.append(builder.load(place))
            found[-1].align = 4
        half = _SIDE // 2
        # each round puts numbers of two lines in turn: after four of them all lines have become columns
        orders = [[n for i in range(first, first + half) for n in (i, i + _SIDE)] for first in (0, half)]
        masks = [ir.Constant(ir.VectorType(_INT, _SIDE), order) for order in orders]
        for _ in range(_SIDE.bit_length() - 1):
            found = [builder.shuffle_vector(found[i], found[i + half], mask) for i in range(half) for mask in masks]
        for place, value in zip(lines(signature.args[3], *arguments[3:]), found, strict=True):
            builder.store(value, place).align = 4
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), generate


@numba.njit
def _turn(source, row, n_rows, n_columns, target, to_row, to_column):
    """Set target[to_row + i, to_column + j] = source[row + j, i] for ``j < n_rows`` and ``i < n_columns``."""
    whole_rows, whole_columns = n_rows // _SIDE * _SIDE, n_columns // _SIDE * _SIDE
    for j in range(0, whole_rows, _SIDE):
        for i in range(0, whole_columns, _SIDE):
            _turn_square(source, row + j, i, target, to_row + i, to_column + j)
    for j in range(n_rows):
        for i in range(whole_columns if j < whole_rows else 0, n_columns):
            target[to_row + i, to_column + j] = source[row + j, i]


def _operator(of: Any, name: str) -> None:
    @intrinsic
    def apply(typing, first, second):
        def generate(context, builder, signature, arguments):
            return getattr(builder, name)(*arguments)

        return _vector(_vector, _vector), generate

    @overload(of)
    def chosen(first, second):
        def applied(first, second):
            return apply(first, second)

        return applied if first == second == _vector else None


_operator(operator.add, "fadd")
_operator(operator.sub, "fsub")
_operator(operator.mul, "fmul")


# Jobs: what threads share without Python, whose lock they would wait for longer than short loops take. They are whole
# numbers, see :func:`job`.

#: Places of a job. The next of its range, the end, how many are taken at a time, threads that began and that ended,
#: whether it went wrong.
NEXT, END, STEP, BEGUN, ENDED, FAULT = range(6)
#: Where the arrays begin, how many numbers each has (its address, its kind and three lengths), and the most arrays.
HEAD, EACH, MOST_ARRAYS = 6, 5, 24
#: Faults: an array is not of the kind that a loop reads; a document has words outside the vocabulary or the batch.
WRONG_KIND, OUTSIDE = 1, 2


#: Numbers of the dtypes that loops read.
_KINDS = {torch.float32: 1, torch.int32: 2, torch.int64: 3}


def job(n: int, step: int, arguments: Sequence[torch.Tensor]) -> Any:
    """What a loop reads, int64.

    Args:
        n: length of its range.
        step: length of a piece.
        arguments: its arrays, contiguous ones on a CPU; they have to be kept as long as the loop runs.

    Raises:
        TypeError: an array is elsewhere, not contiguous or of more axes, or there are too many.

    Own: own-tabulated-products
    """
    if len(arguments) > MOST_ARRAYS:
        raise TypeError(f"job: expected at most {MOST_ARRAYS} arrays, got {len(arguments)}")
    numbers = [0, n, max(1, step), 0, 0, 0]
    for array in arguments:
        shape = array.shape
        if not (array.is_contiguous() and array.is_cpu and len(shape) <= 3):
            raise TypeError("job: expected contiguous arrays on a CPU, of at most three axes")
        numbers += array.data_ptr(), 4 * _KINDS.get(array.dtype, 0) + len(shape), *shape, *(0, 0, 0)[len(shape) :]
    # loops read as many as there may be; what is missing is of no kind
    return np.array(numbers + [0] * (HEAD + EACH * MOST_ARRAYS - len(numbers)), np.int64)


def check(work: Any) -> None:
    """Raise what went wrong in a job.

    Args:
        work: see :func:`job`.

    Raises:
        TypeError: an array is not of the kind that the loop reads.
        IndexError: a word is outside the vocabulary.
        RuntimeError: a thread did not come to its end.

    Own: own-tabulated-products
    """
    if work[BEGUN] != work[ENDED]:
        raise RuntimeError("a compiled loop was left early: its message is above")
    if work[FAULT] == OUTSIDE:
        raise IndexError("a word is outside the vocabulary")
    if work[FAULT]:
        raise TypeError("an array is not of the kind that the loop reads")


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@intrinsic
def _take(typing: Any, job: Any, place: Any, number: Any) -> Any:
    """Add to a number of the job; what it was before, no two threads the same."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", builder.gep(data, [arguments[1]]), arguments[2], "monotonic")

    return types.int64(job, types.int64, types.int64), generate


@numba.njit
def _begin(data):
    """The job at an address, and the number of this thread among those that do it."""
    job = numba.carray(data, (HEAD + EACH * MOST_ARRAYS,), np.int64)
    return job, _take(job, BEGUN, 1)


@numba.njit
def _end(job):
    """Say that a thread came to its end: what is raised in a loop that C calls is not heard."""
    _take(job, ENDED, 1)


@numba.njit
def _claim(job):
    """The next piece, where it begins and ends; empty if none is left or something went wrong."""
    first = job[END] if job[FAULT] else min(_take(job, NEXT, job[STEP]), job[END])
    return first, min(first + job[STEP], job[END])


def _reader(dtype, n_axes):
    kind, dtype = 4 * _KINDS[dtype] + n_axes, np.dtype(str(dtype).removeprefix("torch."))

    @numba.njit
    def address(job, i):
        if job[HEAD + EACH * i + 1] != kind:
            job[FAULT] = WRONG_KIND
        return _pointer(job[HEAD + EACH * i])

    @numba.njit
    def one(job, i):
        return numba.carray(address(job, i), (job[HEAD + EACH * i + 2],), dtype)

    @numba.njit
    def two(job, i):
        at = HEAD + EACH * i
        return numba.carray(address(job, i), (job[at + 2], job[at + 3]), dtype)

    @numba.njit
    def three(job, i):
        at = HEAD + EACH * i
        return numba.carray(address(job, i), (job[at + 2], job[at + 3], job[at + 4]), dtype)

    return (one, two, three)[n_axes - 1]


#: Readers of an argument by its number. One of another dtype or number of axes is a fault of the job.
_float_1, _float_2, _float_3 = (_reader(torch.float32, n_axes) for n_axes in (1, 2, 3))
_int_1, _int_2, _long_1 = _reader(torch.int32, 1), _reader(torch.int32, 2), _reader(torch.int64, 1)


def group_sizes(bits: int) -> list[int]:
    """Numbers of bits of the groups whose exponentials are tabulated: at most 6 each, as even as can be.

    A multiple of 6 groups, since as many are multiplied in one go.

    Own: own-tabulated-products
    """
    groups = 6 * -(-bits // 36)
    return [(bits + i) // groups for i in reversed(range(groups))]


_LOG2_E, _ROUND = np.float32(1.4426950408889634), np.float32(1.5 * 2**23)
#: log 2 in two parts, the first with so few digits that n times it is exact.
_LOG_2 = np.float32(0.693359375), np.float32(-2.12194440e-4)
#: Coefficients of r⁷ to r² in e^r − 1 − r for |r| ≤ ½ log 2; minimax, by Cephes.
_POWERS = tuple(
    map(np.float32, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 0.16666665459, 0.5))
)
_ZERO, _HALF, _ONE, _TINY, _LARGEST, _INFINITE = map(np.float32, (0, 0.5, 1, -87, 86, np.inf))


@_compiled
def _exp(x):
    """exp x for x < 88 within a few rounding errors, 0 for x < −87; anything beyond and for NaN, which are refused."""
    whole = x * _fill(_LOG2_E) + _fill(_ROUND)
    n = whole - _fill(_ROUND)
    r = (x - n * _fill(_LOG_2[0])) - n * _fill(_LOG_2[1])
    power = _fill(_POWERS[0])
    for c in _POWERS[1:]:
        power = power * r + _fill(c)
    power = (power * r) * r + (r + _fill(_ONE))
    return _where_less(x, _fill(_TINY), _fill(_ZERO), _scaled(power, whole))


@_compiled
def _table(weight, k0, sizes, tables, columns):
    """Tables of one tile of words; Σ_j V_kj, Σ_j |V_kj| and the largest |V_kj| of its words, which does not see NaN.

    Args:
        weight: V, shape (K, m).
        k0: first word; words beyond the last one are like others whose V is 0.
        sizes: bits of each group.
        tables: written, shape (Σ_g 2^size, WORDS): the groups one after the other, codes in counting order, where the
            first bit counts least.
        columns: overwritten, shape (m, WORDS).
    """
    n = min(WORDS, len(weight) - k0)
    columns[:, n:] = 0.0
    _turn(weight, k0, n, len(columns), columns, 0, 0)
    nothing, row, j = _fill(_ZERO), 0, 0
    plain = absolute = largest = nothing
    for size in sizes:
        total = nothing
        for i in range(j, j + size):
            column = _load(columns, i)
            positive = _where_less(column, nothing, nothing - column, column)
            total, absolute = total + column, absolute + positive
            largest = _where_less(largest, positive, positive, largest)
            _store(columns, i, _exp(column))
        _store(tables, row, _exp(total * _fill(-_HALF)))
        n_codes = 1
        for i in range(j, j + size):
            factor = _load(columns, i)
            for code in range(row, row + n_codes):
                _store(tables, code + n_codes, _load(tables, code) * factor)
            n_codes *= 2
        plain, j, row = plain + total, j + size, row + n_codes
    return plain, absolute, largest


@_compiled
def _product(tables, code):
    """Π_g T_g[z_g] of a tile's words, for as many groups as :func:`group_sizes` gives."""
    found = _six(tables, code)
    for g in range(6, len(code), 6):
        found = found * _six(tables, code[g:])
    return found


@_compiled
def _six(tables, code):
    return ((_load(tables, code[0]) * _load(tables, code[1])) * (_load(tables, code[2]) * _load(tables, code[3]))) * (
        _load(tables, code[4]) * _load(tables, code[5])
    )


@_compiled
def _share_products(tables, codes, base, share, products):
    """Products times b, then times the share of each code, which undoes b."""
    if codes.shape[1] == 12:  # 37 to 72 bits: without a loop over the groups a tenth less time for the gradient
        for r in range(len(codes)):
            code = codes[r]
            _store(products, r, ((_six(tables, code) * _six(tables, code[6:])) * base) * _fill(share[r]))
    else:
        for r in range(len(codes)):
            _store(products, r, (_product(tables, codes[r]) * base) * _fill(share[r]))


@_compiled
def _gather(values, order, starts, sums, first):
    """Add up the rows that have a code of a group, for all groups; to nothing if these rows are the first."""
    for code in range(len(sums)):
        i, end = starts[code], starts[code + 1]
        found = _fill(_ZERO) if first else _load(sums, code)
        while i + 4 <= end:
            found = found + (
                (_load(values, order[i]) + _load(values, order[i + 1]))
                + (_load(values, order[i + 2]) + _load(values, order[i + 3]))
            )
            i += 4
        while i < end:
            found = found + _load(values, order[i])
            i += 1
        _store(sums, code, found)


@_compiled
def _fold(sums, sizes, result):
    """From sums for each code of a group to sums for each of its bits; sums[0] becomes the sum over all."""
    row = j = 0
    for size in sizes:
        half = 1 << size
        for i in range(j + size - 1, j - 1, -1):
            half //= 2
            found = _fill(_ZERO)
            for code in range(row, row + half):
                with_bit = _load(sums, code + half)
                found = found + with_bit
                _store(sums, code, _load(sums, code) + with_bit)
            _store(result, i, found)
        j += size
        row += 1 << size


@_compiled
def _outside(words, start, stop, n_words):
    if start < 0 or stop < start or stop > len(words):
        return True
    low, high = 0, 0
    for e in range(start, stop):
        low, high = min(low, words[e]), max(high, words[e])
    return low < 0 or high >= n_words


@_compiled
def _add_rows(sums, table, words, counts):
    """Add rows of a table, some at a time, so that sums are read and written less often."""
    whole = len(words) // 4 * 4
    for e in range(0, whole, 4):
        a, b, c, d = table[words[e]], table[words[e + 1]], table[words[e + 2]], table[words[e + 3]]
        of_a, of_b, of_c, of_d = counts[e], counts[e + 1], counts[e + 2], counts[e + 3]
        for n in range(len(sums)):
            sums[n] += (of_a * a[n] + of_b * b[n]) + (of_c * c[n] + of_d * d[n])
    for e in range(whole, len(words)):
        row, count = table[words[e]], counts[e]
        for n in range(len(sums)):
            sums[n] += count * row[n]


@_job
def pairs(data):
    """Antithetic pairs of codes, and what is known of them before their log-partitions; a range of documents.

    ::

        η = scale Wᵀx + b,   z = [u > σ(−η)],   z' = [u < σ(η)]

    Args:
        work: memory of each thread, shape (threads, 2 ⌈m / WORDS⌉, WORDS).
        words, counts, offsets: see :func:`by_tile`.
        reader, reader_shared, reader_bias: W, shape (K, m), fᵀW and b, shape (m,).
        scale: shape (documents,).
        u: shape (documents, m).
        weight, bias: V, shape (K, m), and a, shape (K,).
        shared, shared_bias: fᵀV, shape (m,), and fᵀa, shape (1,).
        sizes: bits of each group.
        disarm: whether the factor is DisARM's, shape (1,).
        codes: written, the rows of the tables that each z takes, then those of each z', shape (2 documents, groups).
        inner: written, ⟨x, V z + a⟩ and the same of z', shape (2, documents).
        both: written, z + z', shape (documents, m).
        factor: written, that of the difference of the costs in the gradient in η, same shape.
        kl, slope: written, KL(q ‖ uniform), shape (documents,), and its gradient, shape (documents, m).
    """
    job, member = _begin(data)
    work, words, counts, offsets = _float_3(job, 0), _int_1(job, 1), _float_1(job, 2), _int_1(job, 3)
    reader, reader_shared, reader_bias = _float_2(job, 4), _float_1(job, 5), _float_1(job, 6)
    scale, u, weight, bias = _float_1(job, 7), _float_2(job, 8), _float_2(job, 9), _float_1(job, 10)
    shared, shared_bias, sizes, disarm = _float_1(job, 11), _float_1(job, 12), _long_1(job, 13), _long_1(job, 14)
    codes, inner, both, factor = _int_2(job, 15), _float_2(job, 16), _float_2(job, 17), _float_2(job, 18)
    kl, slope = _float_1(job, 19), _float_2(job, 20)
    first, last = _claim(job)
    mine, (n_documents, bits) = work[member], u.shape
    n_vectors = len(mine) // 2
    powers, sums = mine[:n_vectors].reshape(n_vectors * WORDS), mine[n_vectors:].reshape(n_vectors * WORDS)
    while first < last:
        for d in range(first, last):
            here = slice(offsets[d], offsets[d + 1] if d + 1 < len(offsets) else len(words))
            if _outside(words, here.start, here.stop, len(weight)):  # changed since they were looked at
                job[FAULT] = OUTSIDE
                break
            eta, offset = slope[d], shared_bias[0]
            eta[:], sums[:bits] = reader_shared, shared
            _add_rows(eta, reader, words[here], counts[here])
            _add_rows(sums[:bits], weight, words[here], counts[here])
            for e in range(here.start, here.stop):
                offset += counts[e] * bias[words[e]]
            powers[bits:] = 0.0
            for j in range(bits):
                eta[j] = scale[d] * eta[j] + reader_bias[j]
                powers[j] = -abs(eta[j])
            for i in range(n_vectors):
                _store(mine, i, _exp(_load(mine, i)))
            one = other = offset
            information, j, row = bits * np.log(2), 0, 0
            for g in range(len(sizes)):
                code = opposite = row
                product, weighted = 1.0, _ZERO
                for i in range(sizes[g]):
                    common = _ONE / (_ONE + powers[j])
                    rare = powers[j] * common
                    product *= _ONE + powers[j]
                    weighted += abs(eta[j]) * rare
                    yes, no = (common, rare) if eta[j] > 0 else (rare, common)
                    z, w = u[d, j] > no, u[d, j] < yes
                    code += z << i
                    opposite += w << i
                    plus, minus = np.float32(z), np.float32(w)
                    one += sums[j] * plus
                    other += sums[j] * minus
                    both[d, j] = plus + minus
                    factor[d, j] = _HALF * (plus - minus) * common if disarm[0] else u[d, j] - _HALF
                    slope[d, j] = eta[j] * rare * common
                    j += 1
                codes[d, g], codes[n_documents + d, g] = code, opposite
                information -= np.log(product) + weighted
                row += 1 << sizes[g]
            inner[0, d], inner[1, d], kl[d] = one, other, information
        first, last = _claim(job)
    _end(job)


@_job
def totals(data):
    """Σ_k exp(V z + a − shift)_k of each code; a range of PARTS parts of the words.

    Args:
        work: memory of each thread, shape (threads, Σ_g 2^size + m, WORDS).
        weight, bias: V, shape (K, m), and a, shape (K,).
        shift: shape (1,).
        sizes: bits of each group.
        codes: the rows of its tables that each code takes, shape (codes, groups).
        log_base, base: written, log b without the shift and b, shape (tiles, WORDS); beyond the last word 0.
        size: written, sums of absolute values of a row of V, infinite if an entry is beyond ±86, whose exponential
            float32 does not hold; same shape.
        result: added to, shape (PARTS, codes).
    """
    job, member = _begin(data)
    work, weight, bias, shift = _float_3(job, 0), _float_2(job, 1), _float_1(job, 2), _float_1(job, 3)
    sizes, codes, log_base, base = _long_1(job, 4), _int_2(job, 5), _float_2(job, 6), _float_2(job, 7)
    size, result = _float_2(job, 8), _float_2(job, 9)
    first, last = _claim(job)
    mine, n_tiles, n_tables = work[member], len(base), work.shape[1] - weight.shape[1]
    while first < last:
        for part in range(first, last):
            for tile in range(part * n_tiles // PARTS, (part + 1) * n_tiles // PARTS):
                k0 = tile * WORDS
                n = min(WORDS, len(bias) - k0)
                plain, absolute, largest = _table(weight, k0, sizes, mine[:n_tables], mine[n_tables:])
                _store(size, tile, _where_less(largest, _fill(_LARGEST), absolute, _fill(_INFINITE)))
                log_base[tile, n:] = 0.0
                for k in range(n):
                    log_base[tile, k] = bias[k0 + k] - shift[0]
                _store(log_base, tile, _load(log_base, tile) + plain * _fill(_HALF))
                _store(base, tile, _exp(_load(log_base, tile)))
                base[tile, n:] = 0.0
                here = _load(base, tile)
                for r in range(len(codes)):
                    result[part, r] += _total(_product(mine, codes[r]) * here)
        first, last = _claim(job)
    _end(job)


@_compiled
def _costs_gradient(job, member, tile, result, result_bias, row):
    """The gradient of a tile's words, see :func:`gradient`, into rows of result from the given one on."""
    work, weight, base, sizes = _float_3(job, 0), _float_2(job, 1), _float_2(job, 2), _long_1(job, 3)
    codes, order, starts, share = _int_2(job, 4), _int_2(job, 5), _int_2(job, 6), _float_1(job, 7)
    tiles, documents, words = _long_1(job, 8), _int_1(job, 9), _int_1(job, 10)
    counts, values, sums = _float_1(job, 11), _float_2(job, 12), _float_1(job, 13)
    smoothing, shared, shared_sum = _float_1(job, 14), _float_1(job, 15), _float_1(job, 16)
    mine, n_tables, bits = work[member], starts.shape[1] - 2, values.shape[1]
    tables, table_sums, others = mine[:n_tables], mine[n_tables : 2 * n_tables], mine[2 * n_tables :]
    columns, rest, products = others[:bits], others[bits : bits + 1], others[bits + 1 :]
    k0 = tile * WORDS
    _table(weight, k0, sizes, tables, columns)
    here = _load(base, tile)
    for block in range(len(starts)):
        end = min((block + 1) * ROWS, len(codes))
        _share_products(tables, codes[block * ROWS : end], here, share[block * ROWS : end], products)
        _gather(products, order[block], starts[block], table_sums, block == 0)
    _fold(table_sums, sizes, columns)
    n = min(WORDS, len(smoothing) - k0)
    for k in range(n):
        rest[0, k] = smoothing[k0 + k]
    f = _load(rest, 0)
    for j in range(bits):
        _store(columns, j, _load(columns, j) - f * _fill(shared[j]))
    _turn(columns, 0, bits, n, result, row, 0)
    for k in range(n):
        result_bias[row + k] = table_sums[0, k] - rest[0, k] * shared_sum[0]
    for e in range(tiles[tile], tiles[tile + 1]):
        to, d, count = words[e] - k0 + row, documents[e], counts[e]
        result_bias[to] -= count * sums[d]
        for j in range(bits):
            result[to, j] -= count * values[d, j]


@_job
def gradient(data):
    """The gradient of V and a in a sum of costs; a range of tiles of words.

    ::

        Σ_r share_r exp(V z_r + a)_k (z_r, 1) − Σ_d (c_dk + f_k) (values_d, sums_d)

    Args:
        work: memory of each thread, shape (threads, 2 Σ_g 2^size + m + 1 + ROWS, WORDS).
        weight, base, sizes, codes: see :func:`totals`; codes are those of the rows r.
        order, starts: see :func:`sort_places`.
        share: shape (rows,).
        tiles, documents, words, counts: see :func:`by_tile`.
        values, sums: of each document, shapes (documents, m) and (documents,).
        smoothing: f, shape (K,).
        shared, shared_sum: values and sums summed over the documents, shapes (m,) and (1,).
        result, result_bias: written, shapes (K, m) and (K,).
    """
    job, member = _begin(data)
    result, result_bias = _float_2(job, 17), _float_1(job, 18)
    first, last = _claim(job)
    while first < last:
        for tile in range(first, last):
            _costs_gradient(job, member, tile, result, result_bias, tile * WORDS)
        first, last = _claim(job)
    _end(job)


@_compiled
def adam(weight, mean, square, gradient, rates):
    """A step of Adam for some numbers.

    Args:
        weight, mean, square: the numbers and their moments, changed.
        gradient: of the same shape, one axis.
        rates: see :func:`step_decoder`.
    """
    for j in range(len(gradient)):
        m = mean[j] + rates[0] * (gradient[j] - mean[j])
        v = square[j] + rates[1] * (gradient[j] * gradient[j] - square[j])
        mean[j], square[j] = m, v
        weight[j] -= rates[2] * m / (np.sqrt(v) * rates[3] + rates[4])


@_job
def step_decoder(data):
    """A step of Adam for V and a; a range of tiles of words.

    It reads first what :func:`gradient` reads, with m + 1 more rows of memory for each thread, and changes V.

    Args:
        bias: a, changed, shape (K,).
        mean, square, bias_mean, bias_square: Adam's moments, changed, of the shapes of V and a.
        rates: 1 − β₁, 1 − β₂, η / (1 − β₁ᵗ), 1 / √(1 − β₂ᵗ), ε, shape (5,).
    """
    job, member = _begin(data)
    work, weight, smoothing, bias = _float_3(job, 0), _float_2(job, 1), _float_1(job, 14), _float_1(job, 17)
    mean, square, bias_mean, bias_square = _float_2(job, 18), _float_2(job, 19), _float_1(job, 20), _float_1(job, 21)
    rates = _float_1(job, 22)
    first, last = _claim(job)
    bits = weight.shape[1]
    place = work.shape[1] - bits - 1
    found = work[member, place : place + bits].reshape((WORDS, bits))
    found_bias = work[member, place + bits]
    while first < last:
        for tile in range(first, last):
            _costs_gradient(job, member, tile, found, found_bias, 0)
            k0 = tile * WORDS
            n = min(WORDS, len(smoothing) - k0)
            for k in range(n):
                adam(weight[k0 + k], mean[k0 + k], square[k0 + k], found[k], rates)
            here = slice(k0, k0 + n)
            adam(bias[here], bias_mean[here], bias_square[here], found_bias[:n], rates)
        first, last = _claim(job)
    _end(job)


@_job
def sort_places(data):
    """Codes sorted by the rows of the tables, within blocks of ROWS; a range of blocks.

    Args:
        codes: see :func:`totals`.
        order: written, numbers of codes within their block by group and row, shape (blocks, groups * ROWS).
        starts: zeros; written, where those of each row begin, where the last ones end, and a number more, shape
            (blocks, Σ_g 2^size + 2).
    """
    job, _ = _begin(data)
    codes, order, starts = _int_2(job, 0), _int_2(job, 1), _int_2(job, 2)
    first, last = _claim(job)
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
        first, last = _claim(job)
    _end(job)


@_compiled
def by_tile(words, counts, offsets, n_words):
    """The entries of documents sorted by tiles of words: where each tile begins, documents, words, counts.

    Args:
        words, counts, offsets: see :class:`~efvae.text.batches.Batch`.
        n_words: K.

    Raises:
        IndexError: a word is outside the vocabulary.
        ValueError: numbers or beginnings do not fit together.
    """
    if len(counts) != len(words):
        raise ValueError("documents have other numbers of words and of counts")
    for d in range(len(offsets)):
        if offsets[d] < (offsets[d - 1] if d else 0) or offsets[d] > (len(words) if d else 0):
            raise ValueError("documents do not begin one after the other")
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
    job, _ = _begin(data)
    result = _float_2(job, 7)
    first, last = _claim(job)
    while first < last:
        _add_words(job, first, last, result, 0)
        first, last = _claim(job)
    _end(job)


@_compiled
def _add_words(job, first, last, result, k0):
    """:func:`add_words` of some tiles, into rows of result that begin with word k0."""
    tiles, documents, words, counts = _long_1(job, 0), _int_1(job, 1), _int_1(job, 2), _float_1(job, 3)
    values, smoothing, shared = _float_2(job, 4), _float_1(job, 5), _float_1(job, 6)
    for k in range(first * WORDS, min(last * WORDS, len(smoothing))):
        for j in range(len(shared)):
            result[k - k0, j] = smoothing[k] * shared[j]
    for e in range(tiles[first], tiles[last]):
        word, d, count = words[e], documents[e], counts[e]
        for j in range(len(shared)):
            result[word - k0, j] += count * values[d, j]


@_job
def step_encoder(data):
    """A step of Adam for W, whose gradient is that of :func:`add_words`; a range of tiles of words.

    It reads first what that loop reads.

    Args:
        found: memory of each thread, shape (threads, WORDS, width).
        weight, mean, square: W and Adam's moments, changed, shape (K, width).
        rates: see :func:`step_decoder`.
    """
    job, member = _begin(data)
    found, weight, mean, square = _float_3(job, 7)[member], _float_2(job, 8), _float_2(job, 9), _float_2(job, 10)
    rates = _float_1(job, 11)
    first, last = _claim(job)
    while first < last:
        for tile in range(first, last):
            k0 = tile * WORDS
            _add_words(job, tile, tile + 1, found, k0)
            for k in range(min(WORDS, len(weight) - k0)):
                adam(weight[k0 + k], mean[k0 + k], square[k0 + k], found[k], rates)
        first, last = _claim(job)
    _end(job)
