"""Independent Bernoulli bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from efvae.families.base import ExponentialFamily, check_state_count, refuted, uniform

__all__ = ["Bernoulli", "all_bits", "require_bits"]


def all_bits(n: int, like: Tensor | None = None) -> Tensor:
    """All binary vectors of length n in counting order (first bit most significant), shape ``(2**n, n)``.

    Args:
        n: number of bits.
        like: tensor whose dtype and device are taken; float64 on the CPU without it.

    Raises:
        ValueError: more states than :data:`efvae.families.base.MAX_STATES`.
    """
    check_state_count(2**n, f"{{0,1}}^{n}")
    dtype, device = (torch.float64, None) if like is None else (like.dtype, like.device)
    codes = torch.arange(2**n, device=device)
    shifts = torch.arange(n - 1, -1, -1, device=device)
    return ((codes[:, None] >> shifts) & 1).to(dtype)


def require_bits(
    law: object, x: Tensor, what: str, mend: str = "threshold or draw them, or take another family"
) -> None:
    """Refuse values that no law of bits gives: what comes out would look like a log-probability.

    Args:
        law: whose values they are; nothing is asked of another family's than :class:`Bernoulli`.
        x: the values. Where they cannot be looked at, see :func:`~efvae.families.base.refuted`, they are taken as they
            are.
        what: how the message calls them.
        mend: what it advises.

    Raises:
        ValueError: there are other values than 0 and 1.
    """
    if not isinstance(law, Bernoulli) or not refuted(x, lambda x: ((x == 0) | (x == 1)).all()):
        return
    if bool(x.isnan().any()):
        raise ValueError(f"{what} has {int(x.isnan().sum())} values that are NaN: mend or drop them")
    raise ValueError(
        f"Bernoulli is a law on 0 and 1, and {what} has values from {float(x.min()):.3g} to {float(x.max()):.3g}: "
        f"{mend}"
    )


class Bernoulli(ExponentialFamily):
    """n independent bits, x ∈ {0, 1}^n.

    ::

        ν(x) = x,   h(x) = 1,   A(η) = Σ_i log(1 + exp η_i),   E x = sigmoid(η)

    ``log_prob`` takes any x: for grey values it is a number, but no log-probability, since h would have to change.

    Args:
        eta: logits, shape ``(*batch, n)``.

    Paper: eq-4a, eq-12, eq-14
    """

    discrete = True

    @property
    def event_shape(self) -> torch.Size:
        return self.eta.shape[-1:]

    def with_eta(self, eta: Tensor) -> Bernoulli:
        return Bernoulli(eta)

    def sufficient_statistic(self, x: Tensor) -> Tensor:
        return x

    def log_base_measure(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[..., 0])

    def expected_log_base_measure(self) -> Tensor:
        return torch.zeros_like(self.eta[..., 0])

    def log_partition(self) -> Tensor:
        # log1p(exp η) overflows in float32 beyond η = 88, and torch's softplus drops e^−η beyond η = 20: 2e-9 off.
        return torch.logaddexp(self.eta, torch.zeros_like(self.eta)).sum(-1)

    def mean(self) -> Tensor:
        return torch.sigmoid(self.eta)

    # A − ⟨η, ∇A⟩ loses its digits in float32 where a bit is nearly certain: more than half of the entropy at η = 15. So
    # these two are sums over the values of each bit.

    def kl(self, other: ExponentialFamily) -> Tensor:
        self._refuse_another_family(other)
        of_one = logsigmoid(self.eta) - logsigmoid(other.eta)
        of_zero = logsigmoid(-self.eta) - logsigmoid(-other.eta)
        return (torch.sigmoid(self.eta) * of_one + torch.sigmoid(-self.eta) * of_zero).sum(-1)

    def entropy(self) -> Tensor:
        of_one, of_zero = (
            torch.sigmoid(self.eta) * logsigmoid(self.eta),
            torch.sigmoid(-self.eta) * logsigmoid(-self.eta),
        )
        return -(of_one + of_zero).sum(-1)

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            u = uniform(self.eta, sample_shape, generator)
            return (u < torch.sigmoid(self.eta.to(u.dtype))).to(self.eta.dtype)

    def support(self) -> Tensor:
        return all_bits(self.eta.shape[-1], self.eta)
