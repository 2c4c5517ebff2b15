"""Jobs of compiled loops, which threads take pieces of without Python; needs Numba.

A job is a row of whole numbers that :func:`efvae.text.compiled.spread` writes: the range that is left, and addresses
and shapes of arrays. Python's lock is not needed for it, which threads would wait for longer than short loops take.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from efvae.text.compiled import EACH, END, FAULT, HEAD, MEMBERS, NEXT, STEP, WRONG_KIND, kind_of

__all__ = ["begin", "claim", "floats", "ints", "longs", "member", "places", "table", "tables"]


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
def begin(data):
    """The job at an address."""
    return numba.carray(data, (HEAD,), np.int64)


@numba.njit
def member(job):
    """Number of this thread among those of the job."""
    return _take(job, MEMBERS, 1)


@numba.njit
def claim(job):
    """The next piece, where it begins and ends; empty if none is left or something went wrong."""
    first = job[END] if job[FAULT] else min(_take(job, NEXT, job[STEP]), job[END])
    return first, min(first + job[STEP], job[END])


def _reader(dtype, n_axes):
    kind, dtype = kind_of(dtype, n_axes), np.dtype(dtype)

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


#: Readers of an argument by its number; one of another dtype or number of axes is a fault of the job.
floats, table, tables = (_reader(np.float32, n_axes) for n_axes in (1, 2, 3))
ints, places, longs = (_reader(dtype, n_axes) for dtype, n_axes in ((np.int32, 1), (np.int32, 2), (np.int64, 1)))
