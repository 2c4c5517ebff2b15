"""Word counts of a document of given length."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from efvae.families.base import ExponentialFamily, check_state_count

__all__ = ["Multinomial"]


class Multinomial(ExponentialFamily):
    """Counts of l independent draws from K words, x ∈ N^K with Σ_k x_k = l.

    ::

        ν(x) = x,   h(x) = l! / Π_k x_k!,   A(η) = l · log Σ_k exp η_k

    The statistic is not minimal: adding a constant to η changes nothing. As the decoder of a
    :class:`~efvae.models.VAE`, which sees codes only, it has documents of one length; for those of any length see
    :class:`efvae.text.model.TextVAE`.

    Args:
        eta: logits of the words, shape ``(*batch, K)``.
        total: document length l, a whole number ≥ 0 or a tensor of them; ``batch`` is broadcast with its shape.

    Raises:
        ValueError: lengths of another shape; a negative or fractional length (a tensor's is looked at on the CPU only).

    Paper: eq-13, sec-3-1
    """

    discrete = True

    def __init__(self, eta: Tensor, total: int | Tensor) -> None:
        super().__init__(eta)
        self.total = torch.as_tensor(total, dtype=eta.dtype, device=eta.device)
        try:
            batch = torch.broadcast_shapes(self.total.shape, eta.shape[:-1])
        except RuntimeError:
            raise ValueError(
                f"Multinomial: total must be one length or one for each law of the batch {tuple(eta.shape[:-1])}, "
                f"got the shape {tuple(self.total.shape)}"
            ) from None
        self.eta = eta.expand(*batch, eta.shape[-1])  # one law for each length
        if self.total.device.type == "cpu" and bool(((self.total < 0) | (self.total != self.total.floor())).any()):
            raise ValueError(f"Multinomial: total must be whole and not negative, got {total}")

    @property
    def event_shape(self) -> torch.Size:
        return self.eta.shape[-1:]

    def with_eta(self, eta: Tensor) -> Multinomial:
        return Multinomial(eta, self.total)

    def sufficient_statistic(self, x: Tensor) -> Tensor:
        return x

    def log_base_measure(self, x: Tensor) -> Tensor:
        log_h = torch.lgamma(self.total + 1) - torch.lgamma(x + 1).sum(-1)
        counts = ((x >= 0) & (x == x.floor())).all(-1)
        return torch.where((x.sum(-1) == self.total) & counts, log_h, -torch.inf)

    def log_partition(self) -> Tensor:
        return self.total * torch.logsumexp(self.eta, -1)

    def mean(self) -> Tensor:
        return self.total[..., None] * torch.softmax(self.eta, -1)

    def expected_log_base_measure(self) -> Tensor:
        # x_k is Binomial(l, p_k), so E log x_k! is a sum of l + 1 terms: exact, at a cost of K (l + 1).
        log_p = torch.log_softmax(self.eta, -1)[..., None]
        largest = int(self.total.max()) if self.total.numel() else 0
        j = torch.arange(largest + 1, dtype=self.eta.dtype, device=self.eta.device)
        rest = self.total[..., None, None] - j
        log_choose = torch.lgamma(self.total + 1)[..., None, None] - torch.lgamma(j + 1)
        log_choose = log_choose - torch.lgamma(rest.clamp(min=0) + 1)
        log_binomial = log_choose + j * log_p + torch.special.xlog1py(rest.clamp(min=0), -log_p.exp())
        binomial = torch.where(rest >= 0, log_binomial.exp(), 0.0)
        return torch.lgamma(self.total + 1) - (binomial * torch.lgamma(j + 1)).sum((-1, -2))

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            k = self.eta.shape[-1]
            probs = torch.softmax(self.eta, -1).reshape(-1, k)
            totals = self.total.expand(self.batch_shape).reshape(-1)
            n = int(torch.Size(sample_shape).numel())
            counts = torch.zeros(n, probs.shape[0], k, dtype=self.eta.dtype, device=self.eta.device)
            for row, total in enumerate(totals.tolist()):
                if total and n:
                    words = torch.multinomial(probs[row], n * int(total), replacement=True, generator=generator)
                    ones = torch.ones(n, int(total), dtype=counts.dtype, device=counts.device)
                    counts[:, row].scatter_add_(-1, words.view(n, -1), ones)
            return counts.reshape(*sample_shape, *self.eta.shape)

    def support(self) -> Tensor:
        if self.total.numel() != 1:
            raise ValueError("Multinomial: the support is enumerated for one length only, got a batch of lengths")
        total, k = int(self.total), self.eta.shape[-1]
        check_state_count(math.comb(total + k - 1, k - 1), f"Multinomial with K = {k}, l = {total}")
        bars = itertools.combinations(range(total + k - 1), k - 1)  # stars and bars
        rows = [[b - a - 1 for a, b in itertools.pairwise((-1, *bar, total + k - 1))] for bar in bars]
        return torch.tensor(rows, dtype=self.eta.dtype, device=self.eta.device)

    def same_base_measure(self, other: ExponentialFamily) -> bool:
        return (
            isinstance(other, Multinomial)
            and self.event_shape == other.event_shape
            and torch.equal(*torch.broadcast_tensors(self.total, other.total))
        )
