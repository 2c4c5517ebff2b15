"""Example A.1 in closed form: a VAE on two pairs of signs that becomes tight and stays away from every harmonium.

The signs s ∈ {−1, 1}² are bits in code, s = 2z − 1: the natural parameter of a bit is twice that of its sign, and
all laws, and the distance to the harmonia, are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efvae.exact import Rule
from efvae.families import Bernoulli, all_bits
from efvae.models import VAE, Conditional, Prior

__all__ = ["escape_alpha", "escape_error", "escape_kl", "escape_map", "escape_projection_error", "escape_vae"]


def escape_map(signs: Tensor) -> Tensor:
    """π(s) = (s1, s1 s2), its own inverse, shape ``(..., 2)``.

    Paper: eq-19, eq-20
    """
    return torch.stack([signs[..., 0], signs[..., 0] * signs[..., 1]], -1)


class _Escape(nn.Module):
    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, bits: Tensor) -> Tensor:
        return 2 * self.beta * escape_map(2 * bits - 1)


def escape_vae(beta: float) -> tuple[VAE, Tensor, Tensor, Rule]:
    """The VAE of Example A.1 at one β; under its own law p(x), which is uniform.

    ::

        p(z) = 1/4,   p(x | z) ∝ exp β⟨x, π(z)⟩,   q(z | x) ∝ exp β⟨z, π(x)⟩      (x, z as signs)

    Args:
        beta: β ≥ 0, the inverse temperature of both networks.

    Returns:
        The VAE on bits, float64, its four observations, their distribution, its four codes.

    Paper: ex-a1, eq-18, eq-19, eq-20
    """
    states = all_bits(2)
    prior = Prior(torch.zeros(2, dtype=torch.float64), Bernoulli)
    vae = VAE(prior, Conditional(_Escape(beta), Bernoulli), Conditional(_Escape(beta), Bernoulli))
    return vae, states, torch.full((4,), 0.25, dtype=torch.float64), Rule(states, torch.zeros(4, dtype=torch.float64))


def escape_kl(beta: Tensor) -> Tensor:
    """KL(q(z | x) ‖ p(z | x)) in nats, the same for each x: β tanh β (1 − tanh β), of order 2β exp(−2β).

    Paper: ex-a1
    """
    # 1 − tanh β = 2/(1 + e^{2β}) without cancellation.
    return beta * torch.tanh(beta) * 2 * torch.sigmoid(-2 * beta)


def escape_alpha(beta: Tensor) -> Tensor:
    """The smallest probability of encoder and posterior: (1 + exp 2β)^−2, of order exp(−4β).

    Paper: ex-a1, thm-2
    """
    return torch.sigmoid(-2 * beta).square()


def escape_error(beta: Tensor) -> Tensor:
    """Σ_x p_d log²(q/p) = 2β² in nats², the same for each z: it grows while the divergence vanishes.

    Paper: ex-a1, eq-32
    """
    return 2 * beta.square()


def escape_projection_error(beta: Tensor) -> Tensor:
    """Σ_x p_d log²(p/p^) = β² in nats² of the nearest harmonium p^, the same for each z.

    No unnormalised harmonium has a smaller mean over z, however its matrix is chosen.

    Paper: ex-a1, prop-a1
    """
    return beta.square()
