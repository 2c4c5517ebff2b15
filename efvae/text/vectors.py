"""Numbers of neighbouring words as one value in compiled loops, which a compiler need not find; needs Numba.

A row of an array with :data:`LANES` columns is loaded, multiplied and added with one instruction for as many numbers as
the processor's registers hold. Loops over the columns that Numba compiles to the same only for some lengths, and slowly
for others.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, overload, register_model

__all__ = ["LANES", "fill", "load", "load_part", "store", "store_part", "total"]

#: Numbers in a vector.
LANES = 32

_INT, _FLOAT = ir.IntType(32), ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(f"vector of {LANES} float32")


_vector = _Vector()


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _address(context: Any, builder: Any, kind: Any, array: Any, row: Any, column: Any = None) -> Any:
    """Where numbers of a row begin; without a column the rows are vectors."""
    table = context.make_array(kind)(context, builder, array)
    if column is None:
        place = builder.mul(row, ir.Constant(row.type, LANES))
    else:
        place = builder.add(builder.mul(row, builder.extract_value(table.shape, 1)), column)
    return builder.bitcast(builder.gep(table.data, [place]), _VECTOR.as_pointer())


def _check(array: Any) -> None:
    if not (
        isinstance(array, types.Array) and array.dtype == types.float32 and array.ndim == 2 and array.layout == "C"
    ):
        raise TypingError(f"vectors: expected a contiguous table of float32, got {array}")


@intrinsic
def load(typing: Any, array: Any, row: Any) -> Any:
    """A row of an array of shape ``(rows, LANES)``; no bounds are checked.

    Own: own-tabulated-products
    """
    _check(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = builder.load(_address(context, builder, signature.args[0], *arguments))
        found.align = 4
        return found

    return _vector(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, row: Any, vector: Any) -> Any:
    """Set a row of an array of shape ``(rows, LANES)``; no bounds are checked.

    Own: own-tabulated-products
    """
    _check(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _address(context, builder, signature.args[0], *arguments[:2])).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, _vector), generate


@intrinsic
def load_part(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """LANES numbers of a row from a column on; no bounds are checked.

    Own: own-tabulated-products
    """
    _check(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = builder.load(_address(context, builder, signature.args[0], *arguments))
        found.align = 4
        return found

    return _vector(array, types.intp, types.intp), generate


@intrinsic
def store_part(typing: Any, array: Any, row: Any, column: Any, vector: Any) -> Any:
    """Set LANES numbers of a row from a column on; no bounds are checked.

    Own: own-tabulated-products
    """
    _check(array)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[3], _address(context, builder, signature.args[0], *arguments[:3])).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, _vector), generate


@intrinsic
def fill(typing: Any, number: Any) -> Any:
    """The same number in all places.

    Own: own-tabulated-products
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        one = builder.insert_element(nothing, arguments[0], ir.Constant(_INT, 0))
        return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))

    return _vector(types.float32), generate


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """The sum of the numbers: halves added until one is left.

    Own: own-tabulated-products
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found, length = arguments[0], LANES
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
_operator(operator.mul, "fmul")
_operator(operator.truediv, "fdiv")
