# mypy: disable-error-code="import-not-found, import-untyped, no-untyped-def, untyped-decorator"
"""What a CUDA device does with rows of logits and with pairs of codes, in Triton: a few kernels in place of many.

torch takes a launch, and a pass over all logits, for each of greatest, difference, exponential and sum; a row of ten
thousand logits fits what one multiprocessor holds. Triton comes with torch's CUDA packages for Linux; where it is not
there, :func:`available` says so and torch's own functions do the same.

Row i of codes, of logits and of costs belongs to document ``i % documents``.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # a CPU build of torch, or a system that Triton does not serve
    triton = None

__all__ = [
    "antithetic",
    "available",
    "costs",
    "pair_bound",
    "probabilities_",
    "residual_",
    "scaled",
    "scored",
    "unpack",
]

#: Logits that a program takes at a time, and its warps.
_BLOCK, _WARPS = 2048, 8


def available(device: torch.device) -> bool:
    """Whether the functions below serve this device.

    Own: own-fused-multinomial
    """
    return triton is not None and device.type == "cuda"


if triton is not None:

    @triton.jit
    def _log_sum_exp(y, n: tl.constexpr, BLOCK: tl.constexpr):
        greatest = tl.full([BLOCK], -3.0e38, tl.float32)
        for start in range(0, n, BLOCK):
            k = start + tl.arange(0, BLOCK)
            greatest = tl.maximum(greatest, tl.load(y + k, mask=k < n, other=-3.0e38).to(tl.float32))
        shift = tl.max(greatest, 0)
        total = tl.zeros([BLOCK], tl.float32)
        for start in range(0, n, BLOCK):
            k = start + tl.arange(0, BLOCK)
            total += tl.exp(tl.load(y + k, mask=k < n, other=float("-inf")).to(tl.float32) - shift)
        return shift + tl.log(tl.sum(total, 0))

    @triton.jit
    def _probabilities_kernel(y, partition, n: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        y += row * n
        value = _log_sum_exp(y, n, BLOCK)
        tl.store(partition + row, value)
        for start in range(0, n, BLOCK):
            k = start + tl.arange(0, BLOCK)
            logit = tl.load(y + k, mask=k < n, other=0.0).to(tl.float32)
            tl.store(y + k, tl.exp(logit - value).to(y.dtype.element_ty), mask=k < n)

    @triton.jit
    def _scored_kernel(y, x, length, saturated, cost, documents, n: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        document = row % documents
        y += row * n
        x += document * n
        value = _log_sum_exp(y, n, BLOCK)
        inner = tl.zeros([BLOCK], tl.float32)
        for start in range(0, n, BLOCK):
            k = start + tl.arange(0, BLOCK)
            inner += tl.load(y + k, mask=k < n, other=0.0).to(tl.float32) * tl.load(x + k, mask=k < n, other=0.0)
        rest = tl.load(saturated + document) - tl.sum(inner, 0)
        tl.store(cost + row, tl.load(length + document) * value + rest)

    @triton.jit
    def _costs_kernel(
        y, h, entries, offset, length, saturated, partition, cost, documents,
        n: tl.constexpr, width: tl.constexpr, BLOCK: tl.constexpr, WIDTH: tl.constexpr,
    ):  # fmt: skip
        row = tl.program_id(0).to(tl.int64)
        document = row % documents
        value = _log_sum_exp(y + row * n, n, BLOCK)
        j = tl.arange(0, WIDTH)
        unit = tl.load(h + row * width + j, mask=j < width, other=0.0).to(tl.float32)
        inner = tl.sum(unit * tl.load(entries + document * width + j, mask=j < width, other=0.0), 0)
        rest = tl.load(saturated + document) - inner - tl.load(offset + document)
        tl.store(partition + row, value)
        tl.store(cost + row, tl.load(length + document) * value + rest)

    @triton.jit
    def _residual_kernel(y, partition, x, length, documents, n: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0).to(tl.int64)
        document = row % documents
        value, scale = tl.load(partition + row), 1.0 / tl.load(length + document)
        y += row * n
        x += document * n
        k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        logit = tl.load(y + k, mask=k < n, other=0.0).to(tl.float32)
        rest = tl.exp(logit - value) - scale * tl.load(x + k, mask=k < n, other=0.0)
        tl.store(y + k, rest.to(y.dtype.element_ty), mask=k < n)

    @triton.jit
    def _scaled_kernel(
        h, grad, length, share, out, documents, sample, document_step,
        width: tl.constexpr, padded: tl.constexpr, WIDTH: tl.constexpr,
    ):  # fmt: skip
        row = tl.program_id(0).to(tl.int64)
        document = row % documents
        factor = tl.load(grad + (row // documents) * sample + document * document_step) * tl.load(length + document)
        tl.store(share + row, factor)
        j = tl.arange(0, WIDTH)
        unit = tl.load(h + row * width + j, mask=j < width, other=0.0).to(tl.float32) * factor
        value = tl.where(j == width, factor, unit)
        tl.store(out + row * padded + j, value.to(out.dtype.element_ty), mask=j < padded)

    @triton.jit
    def _unpack_kernel(
        both, weight, bias, n, width: tl.constexpr, padded: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr
    ):
        k = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        j = tl.arange(0, WIDTH)[None, :]
        value = tl.load(both + k * padded + j, mask=(k < n) & (j < width), other=0.0).to(tl.float32)
        tl.store(weight + k * width + j, value, mask=(k < n) & (j < width))
        last = tl.load(both + k * padded + width, mask=k < n, other=0.0).to(tl.float32)
        tl.store(bias + k, last, mask=k < n)

    @triton.jit
    def _antithetic_kernel(eta, u, codes, size, total, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        logit = tl.load(eta + i % size, mask=i < total, other=0.0)
        uniform = tl.load(u + i, mask=i < total, other=0.0)
        code = tl.where(uniform > 1 / (1 + tl.exp(logit)), 1.0, 0.0)
        opposite = tl.where(uniform < 1 / (1 + tl.exp(-logit)), 1.0, 0.0)
        tl.store(codes + i, code.to(codes.dtype.element_ty), mask=i < total)
        tl.store(codes + total + i, opposite.to(codes.dtype.element_ty), mask=i < total)

    @triton.jit
    def _pair_bound_kernel(
        value, eta, u, codes, bound, kl, gradient, documents,
        samples: tl.constexpr, bits: tl.constexpr, DISARM: tl.constexpr, BITS: tl.constexpr,
    ):  # fmt: skip
        document = tl.program_id(0)
        j = tl.arange(0, BITS)
        inside = j < bits
        logit = tl.load(eta + document * bits + j, mask=inside, other=0.0)
        mean = 1 / (1 + tl.exp(-logit))
        size = tl.abs(logit)
        total = 0.0
        slope = tl.zeros([BITS], tl.float32)
        for s in range(samples):
            row = s * documents + document
            first, second = tl.load(value + row), tl.load(value + samples * documents + row)
            total += first + second
            if DISARM:
                code = tl.load(codes + row * bits + j, mask=inside, other=0.0).to(tl.float32)
                other = tl.load(codes + (samples * documents + row) * bits + j, mask=inside, other=0.0).to(tl.float32)
                weight = 0.5 * (code - other) / (1 + tl.exp(-size))
            else:
                weight = tl.load(u + row * bits + j, mask=inside, other=0.5) - 0.5
            slope += (first - second) * weight
        entropy = tl.maximum(logit, 0.0) + tl.log(1 + tl.exp(-size)) - logit * mean
        information = tl.sum(tl.where(inside, 0.6931471805599453 - entropy, 0.0), 0)
        tl.store(kl + document, information)
        tl.store(bound + document, total / (2 * samples) + information)
        slope = slope / samples + logit * mean * (1 - mean)
        tl.store(gradient + document * bits + j, slope, mask=inside)


def probabilities_(y: Tensor) -> Tensor:
    """Write exp(y − A) over the logits y; A = log Σ_k exp y_k in float32, shape ``(rows,)``.

    Args:
        y: contiguous, shape ``(rows, K)``.

    Own: own-fused-multinomial
    """
    partition = _floats(len(y), like=y)
    _probabilities_kernel[(len(y),)](y, partition, y.shape[1], BLOCK=_BLOCK, num_warps=_WARPS)
    return partition


def scored(y: Tensor, x: Tensor, length: Tensor, saturated: Tensor) -> Tensor:
    """l A − ⟨x, y⟩ + Σ_k x_k log(x_k / l) from all logits, float32, shape ``(rows,)``.

    Args:
        y: logits, contiguous, shape ``(rows, K)``.
        x: counts, float32, contiguous, shape ``(documents, K)``.
        length, saturated: l and the last term, shape ``(documents,)``.

    Own: own-fused-multinomial
    """
    cost, n = _floats(len(y), like=y), y.shape[1]
    _scored_kernel[(len(y),)](y, x, length, saturated, cost, len(x), n, BLOCK=_BLOCK, num_warps=_WARPS)
    return cost


def costs(
    y: Tensor, h: Tensor, entries: Tensor, offset: Tensor, length: Tensor, saturated: Tensor
) -> tuple[Tensor, Tensor]:
    """The same from ⟨x, y⟩ = ⟨h, Vᵀx⟩ + ⟨x, a⟩, as exact as those two are and not as rounded logits; and A.

    Args:
        y, length, saturated: see :func:`scored`.
        h: contiguous, shape ``(rows, width)``.
        entries: Vᵀx, float32, shape ``(documents, width)``.
        offset: ⟨x, a⟩, float32, shape ``(documents,)``.

    Own: own-fused-multinomial
    """
    cost, partition = _floats(len(y), like=y), _floats(len(y), like=y)
    n, width = y.shape[1], h.shape[1]
    _costs_kernel[(len(y),)](
        y, h, entries, offset, length, saturated, partition, cost, len(length), n, width,
        BLOCK=_BLOCK, WIDTH=triton.next_power_of_2(width), num_warps=_WARPS,
    )  # fmt: skip
    return cost, partition


def residual_(y: Tensor, partition: Tensor, x: Tensor, length: Tensor) -> None:
    """Write exp(y − A) − x / l over the logits y, in float32 until the last rounding.

    Args:
        y, x, length: see :func:`scored`.
        partition: A, shape ``(rows,)``.

    Own: own-fused-multinomial
    """
    grid = (len(y), triton.cdiv(y.shape[1], _BLOCK))
    _residual_kernel[grid](y, partition, x, length, len(x), y.shape[1], BLOCK=_BLOCK, num_warps=_WARPS)


def scaled(h: Tensor, grad: Tensor, length: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(h, 1) times s = l · grad of each row, with zeros to a width that tensor cores like; and s.

    Args:
        h: contiguous, shape ``(rows, width)``.
        grad: any strides, shape ``(samples, documents)``.
        length: l, shape ``(documents,)``.
        dtype: of the result.

    Own: own-fused-multinomial
    """
    width = h.shape[1]
    padded = -(-(width + 1) // 8) * 8
    share, out = _floats(len(h), like=h), torch.empty(len(h), padded, dtype=dtype, device=h.device)
    _scaled_kernel[(len(h),)](
        h, grad, length, share, out, len(length), *grad.stride(), width, padded,
        WIDTH=triton.next_power_of_2(padded), num_warps=4 if padded > 64 else 1,
    )  # fmt: skip
    return out, share


def unpack(both: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The first columns and the next one, in float32, shapes ``(K, width)`` and ``(K,)``.

    Args:
        both: contiguous, shape ``(K, padded)``.
        width: how many, less than ``padded``.

    Own: own-fused-multinomial
    """
    n, padded = both.shape
    weight, bias = _floats(n, width, like=both), _floats(n, like=both)
    block = triton.next_power_of_2(width)
    rows = max(1, _BLOCK // block)
    _unpack_kernel[(triton.cdiv(n, rows),)](both, weight, bias, n, width, padded, ROWS=rows, WIDTH=block, num_warps=4)
    return weight, bias


def antithetic(eta: Tensor, u: Tensor, dtype: torch.dtype) -> Tensor:
    """Codes [u > σ(−η)], then [u < σ(η)], shape ``(2 samples, documents, bits)``.

    Args:
        eta: logits, float32, contiguous, shape ``(documents, bits)``.
        u: uniform, float32, contiguous, shape ``(samples, documents, bits)``.
        dtype: of the codes.

    Own: own-fused-multinomial
    """
    codes = torch.empty(2 * len(u), *eta.shape, dtype=dtype, device=eta.device)
    grid = (triton.cdiv(u.numel(), 1024),)
    _antithetic_kernel[grid](eta, u, codes, eta.numel(), u.numel(), BLOCK=1024, num_warps=4)
    return codes


def pair_bound(value: Tensor, eta: Tensor, u: Tensor, codes: Tensor, *, disarm: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of the costs of pairs plus KL(q ‖ uniform); the KL; the gradient in η that ARM or DisARM estimates.

    Args:
        value: costs, contiguous, shape ``(2 samples, documents)``.
        eta, u, codes: see :func:`antithetic`.
        disarm: which of the two.

    Returns:
        Float32, shapes ``(documents,)``, ``(documents,)`` and ``(documents, bits)``.

    Own: own-fused-multinomial
    """
    documents, bits = eta.shape
    bound, kl, gradient = _floats(documents, like=eta), _floats(documents, like=eta), torch.empty_like(eta)
    _pair_bound_kernel[(documents,)](
        value, eta, u, codes, bound, kl, gradient, documents, len(u), bits, DISARM=disarm,
        BITS=triton.next_power_of_2(bits), num_warps=1,
    )  # fmt: skip
    return bound, kl, gradient


def _floats(*shape: int, like: Tensor) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)
