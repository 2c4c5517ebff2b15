"""Products with a table of all words at a processor's best rate, and large tensors whose memory is used again.

Two things are slow on a processor unless one asks: float32 products in the library that torch takes by default, which
on some processors run at less than half the rate of oneDNN; and large tensors in memory that was given back to the
system, which costs more to get again than to fill.
"""

from __future__ import annotations

import contextlib
import functools
import math
import mmap
import threading

import torch
from torch import Tensor

from efvae.devices import cpu_capabilities
from efvae.text import row_kernels

__all__ = ["LOG2_E", "Table", "fresh"]

LOG2_E = math.log2(math.e)

#: Buffers that :func:`fresh` gives out again, by number of bytes; at most so many of each.
_buffers: dict[int, list[Tensor]] = {}
_lock = threading.Lock()
_KEPT, _SIZES = 4, 16
_LARGE = 2**20  # bytes; smaller ones are kept by the system's allocator anyway
_PAGE = 2**21  # bytes of a huge page

_NARROW = 128  # columns

_SHIFT = 40.0  # nats that log-partitions, of 10 to 30, stay below


def fresh(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Like ``torch.empty``; on the CPU in the memory of an earlier one, if no tensor is left that uses it.

    Own: own-fused-multinomial
    """
    size = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or size < _LARGE:
        return torch.empty(shape, dtype=dtype, device=device)
    with _lock:
        kept = _buffers[size] = _buffers.pop(size, [])  # the one used last is last
        if len(_buffers) > _SIZES:
            del _buffers[next(iter(_buffers))]
        buffer = next((one for one in kept if _users(one) == 1), None)
        if buffer is None:
            buffer = _huge(size)
            if len(kept) < _KEPT and _users(buffer) == 1:
                kept.append(buffer)
        return buffer.view(dtype).view(shape)


def _huge(size: int) -> Tensor:
    """Bytes in huge pages where the system has them: products walk through tables in strides larger than small ones."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    memory = mmap.mmap(-1, size + _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # a fork has its own
    with contextlib.suppress(OSError):  # a kernel without huge pages: the memory is as good, only slower
        memory.madvise(mmap.MADV_HUGEPAGE)
    start = -torch.frombuffer(memory, dtype=torch.uint8).data_ptr() % _PAGE
    return torch.frombuffer(memory, dtype=torch.uint8, count=size, offset=start)


def _users(buffer: Tensor) -> int:
    """Number of tensors that share the memory; 0 where torch does not tell."""
    return _count(buffer) if _counts() else 0


def _count(buffer: Tensor) -> int:
    storage = buffer.untyped_storage()
    return int(torch._C._storage_Use_Count(storage._cdata)) - 1


@functools.cache
def _counts() -> bool:
    """Whether torch counts the tensors of a memory, and does it right: memory in use must not be given out."""
    try:
        one = torch.empty(4)
        alone, other = _count(one), one.view(2, 2)
        return alone == 1 and _count(one) == _count(other) == 2
    except (AttributeError, RuntimeError, TypeError):
        return False


@functools.cache
def _mkl_is_best() -> bool:
    """Whether torch's own float32 products run at this CPU's full rate: MKL's do on the CPUs of its maker.

    A rule and no measurement, so that a run that goes on after a kill makes its products in the same way.
    """
    return torch.backends.mkl.is_available() and str(cpu_capabilities().get("cpu_name", "")).startswith("Intel")


@functools.cache
def _layer(dtype: torch.dtype) -> bool:
    """Whether oneDNN's linear layer is here, takes this type, and is right."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        rows, table, bias = torch.eye(3, 5), torch.arange(35.0).view(7, 5), torch.arange(7.0)
        packed = torch.ops.mkldnn._reorder_linear_weight(table.to(dtype), 3)
        got = torch.ops.mkldnn._linear_pointwise(rows.to(dtype), packed, bias, "none", [], "")
        small = torch.ops.mkldnn._linear_pointwise(rows.to(dtype), packed, bias - _SHIFT, "sigmoid", [], "")
    except (AttributeError, RuntimeError):
        return False
    wanted = rows @ table.t() + bias
    powers = (wanted.double() - _SHIFT).sigmoid()
    right = bool(((small.double() / powers - 1).abs() < 2 * torch.finfo(dtype).eps + 1e-5).all())
    return torch.equal(got.float(), wanted) and got.dtype == small.dtype == dtype and right


class Table:
    """V and a, prepared for products V h + a with many h; no gradient.

    Args:
        weight: V, shape ``(K, width)``.
        bias: a, shape ``(K,)``.
        dtype: of the products.
        pack: whether to lay V out for oneDNN, at the price of about two products with a few rows.

    Own: own-fused-multinomial
    """

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, *, pack: bool = False) -> None:
        self.dtype, self.device, self.bias = dtype, weight.device, bias
        on_cpu = self.device.type == "cpu"
        self.plain = on_cpu and dtype == torch.float32 and _mkl_is_best()
        self.layer = on_cpu and not self.plain and bool(torch._C._get_mkldnn_enabled()) and _layer(dtype)
        if weight.dtype == dtype:
            self.columns = weight
        else:
            self.columns = fresh(tuple(weight.shape), dtype, self.device).copy_(weight)
        self.joined = torch.cat([self.columns, bias[:, None]], 1) if pack and self.plain else None
        reorder = pack and self.layer
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.columns, 128) if reorder else self.columns

    def scores(self, h: Tensor) -> Tensor:
        """(V h + a) log2 e, of which :meth:`powers` takes powers of two, shape ``(rows, K)``, in the table's type.

        Args:
            h: shape ``(rows, width)``, float32.

        Own: own-fused-multinomial
        """
        # powers of two take a quarter of the time of exp in float32; bfloat16 has bits exactly, but not log2 e
        if self.plain:
            return self._plain_scores(h * LOG2_E)
        if self.dtype == torch.float32:
            return self._product(h * LOG2_E, self.bias * LOG2_E)
        return self._product(h.to(self.dtype), self.bias).mul_(LOG2_E)

    def powers(self, h: Tensor, scores: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """exp(V h + a − s) with some shift s of each row, its sum over the words in float32, and A.

        In bfloat16 where oneDNN is, the shift is one constant, and exp(y) for y ≪ 0 is σ(y), which the product makes
        of its float32 numbers before they are rounded: σ(y) = exp(y) (1 − σ(y)) has a relative error below the sum.
        Elsewhere, on a CUDA device too, bfloat16 logits are rounded before exp, as in any program that uses them, and
        gradients near an optimum are about ten times less precise.

        Args:
            h: see :meth:`scores`.
            scores: what that gave, if it is at hand; overwritten.

        Own: own-fused-multinomial
        """
        if self.layer and scores is None and self.dtype == torch.bfloat16:
            y = self._product(h.to(self.dtype), self.bias - _SHIFT, "sigmoid")
            total = _row_sums(y)
            if _between(total, 1e-25, torch.finfo(self.dtype).eps / 8):
                return y, total, total.log() + _SHIFT
        if scores is None and row_kernels.available(self.device):
            y = self.logits(h)
            partition = row_kernels.probabilities_(y)
            return y, torch.ones_like(partition), partition
        if self.device.type != "cpu" and scores is None and self.dtype != torch.float32:
            return self._natural_powers(h)  # exp is as fast as exp2 there, and a pass over all scores is spared
        y = self.scores(h) if scores is None else scores
        if self.device.type == "cpu":  # an accelerator is not asked whether the shift is needed: that would stall it
            total = _row_sums(y.exp2_())
            if _between(total, 1e-30, 1e30):
                return y, total, total.log()
            y = self.scores(h)
        shift = y.amax(-1)
        total = _row_sums(y.sub_(shift[:, None]).exp2_())
        return y, total, total.log() + shift.float() / LOG2_E

    def _natural_powers(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.logits(h)
        shift = y.amax(-1)
        total = _row_sums(y.sub_(shift[:, None]).exp_())
        return y, total, total.log() + shift.float()

    def logits(self, h: Tensor) -> Tensor:
        """V h + a, shape ``(rows, K)``, in the table's type.

        Args:
            h: see :meth:`scores`.

        Own: own-fused-multinomial
        """
        return self._product(h.to(self.dtype), self.bias)

    def weighted(self, shares: Tensor) -> Tensor:
        """S V in float32, shape ``(rows, width)``.

        Args:
            shares: S, shape ``(rows, K)``, in the type of the products.

        Own: own-fused-multinomial
        """
        return (shares @ self.columns).float()

    def against(self, shares: Tensor, rows: Tensor) -> Tensor:
        """Sᵀ R in the type of the products, shape ``(K, width)``: the gradient of V.

        Args:
            shares: S, see :meth:`weighted`.
            rows: R, in the type of the products, shape ``(rows, width)``.

        Own: own-fused-multinomial
        """
        if self.plain and rows.shape[1] <= _NARROW:
            return (rows.t() @ shares).t()  # in MKL up to twice as fast as a tall result
        return shares.t() @ rows

    def _product(self, rows: Tensor, bias: Tensor, then: str = "none") -> Tensor:
        if self.layer:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.packed, bias, then, [], "")
            return result
        return torch.addmm(bias.to(self.dtype), rows, self.columns.t())

    def _plain_scores(self, rows: Tensor) -> Tensor:
        """In memory that is used again, which pays more than the product where that is narrow."""
        out = fresh((len(rows), len(self.columns)), self.dtype, self.device)
        joined = self.joined
        if joined is None:
            if len(rows) < rows.shape[1]:  # another column is a copy of V, but spares a pass over the scores
                return torch.mm(rows, self.columns.t(), out=out).add_(self.bias, alpha=LOG2_E)
            joined = torch.cat([self.columns, self.bias[:, None]], 1)
        return torch.mm(torch.cat([rows, rows.new_full((len(rows), 1), LOG2_E)], 1), joined.t(), out=out)


def _between(total: Tensor, least: float, most: float) -> bool:
    low, high = torch.aminmax(total)
    return float(low) > least and float(high) < most


def _row_sums(values: Tensor) -> Tensor:
    """Σ over the last axis in float32, of bfloat16 without a wider copy: by blocks, whose sums round independently."""
    if values.dtype == torch.float32:
        return values.sum(-1)
    if values.device.type != "cpu":  # there the kernel itself adds up in float32
        return values.sum(-1, dtype=torch.float32)
    n = values.shape[-1]
    width = next(d for d in range(min(256, n), 0, -1) if n % d == 0)
    sums: Tensor = values.unflatten(-1, (n // width, width)).sum(-1).sum(-1, dtype=torch.float32)
    return sums
