"""The joint law of a tight Bernoulli-MRF VAE: three groups of bits with cubic interactions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from efvae.families import Bernoulli, BipartiteIsing
from efvae.harmonium import Harmonium

__all__ = ["cubic_harmonium", "cubic_log_weight", "cubic_weight"]


def cubic_log_weight(weight: Tensor, x: Tensor, z: Tensor) -> Tensor:
    """log of the unnormalised joint law of three groups of bits, in nats, shape ``(...)``.

    ::

        Σ_{ijk} W_ijk x_i z1_j z2_k,   indices from 0, x_0 = z1_0 = z2_0 = 1

    Args:
        weight: W, shape ``(n + 1, m1 + 1, m2 + 1)``.
        x: bits, shape ``(..., n)``.
        z: z1 and z2 one after the other, shape ``(..., m1 + m2)``; leading axes broadcast with those of x.

    Paper: eq-11
    """
    z1, z2 = z.split([weight.shape[1] - 1, weight.shape[2] - 1], -1)
    padded = [torch.cat([torch.ones_like(group[..., :1]), group], -1) for group in (x, z1, z2)]
    return torch.einsum("ijk,...i,...j,...k->...", weight, *padded)


def cubic_harmonium(weight: Tensor) -> Harmonium:
    """The harmonium with that joint law: Bernoulli units x and a bipartite Ising code (z1, z2).

    ::

        row i of the interaction: W_i(j0), W_i(0k), W_i(jk);   u_i = W_i00;   v: W_0(j0), W_0(0k), W_0(jk)

    W_000 only shifts log Z, so it is not used.

    Args:
        weight: W, shape ``(n + 1, m1 + 1, m2 + 1)``.

    Paper: eq-11, case-mrf
    """
    m1, m2 = weight.shape[1] - 1, weight.shape[2] - 1
    rows = torch.cat([weight[:, 1:, 0], weight[:, 0, 1:], weight[:, 1:, 1:].flatten(1)], 1)
    latent = partial(BipartiteIsing, sizes=(m1, m2))
    return Harmonium(Bernoulli, latent, rows[1:], weight[1:, 0, 0], rows[0])


def cubic_weight(model: Harmonium, sizes: tuple[int, int]) -> Tensor:
    """W of such a harmonium, shape ``(n + 1, m1 + 1, m2 + 1)``, with W_000 = −log Z: exp of the sum is then p(x, z).

    Args:
        model: Bernoulli units and a bipartite Ising code.
        sizes: m1 and m2.

    Paper: eq-11
    """
    m1, m2 = sizes
    with torch.no_grad():
        rows = torch.cat([model.latent_bias[None], model.weight])
        weight = rows.new_zeros(len(rows), m1 + 1, m2 + 1)
        weight[1:, 0, 0] = model.visible_bias
        weight[:, 1:, 0], weight[:, 0, 1:] = rows[:, :m1], rows[:, m1 : m1 + m2]
        weight[:, 1:, 1:] = rows[:, m1 + m2 :].unflatten(1, (m1, m2))
        weight[0, 0, 0] = -model.log_partition()
    return weight
