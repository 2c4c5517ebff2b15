"""The best factorized posterior of each document, by coordinate ascent on tables of log p(x, z)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.families import Bernoulli, all_bits

__all__ = ["BestFactorized", "best_factorized", "code_law", "starting_points"]


@dataclass(frozen=True)
class BestFactorized:
    """What coordinate ascent found.

    Args:
        eta: logits of the bits, shape ``(documents, m)``.
        elbo: E_q log p(x, z) + H(q) in nats, shape ``(documents,)``; attained, so a lower bound of the best.
        converged: whether every start came to rest, shape ``(documents,)``.

    Own: own-text-gap
    """

    eta: Tensor
    elbo: Tensor
    converged: Tensor


def code_law(eta: Tensor) -> Tensor:
    """Probabilities of all codes of independent bits, shape ``(*batch, 2**m)``; one 1 for no bits.

    Args:
        eta: logits, shape ``(*batch, m)``.

    Own: own-text-gap
    """
    law = eta.new_ones((*eta.shape[:-1], 1))
    for i in range(eta.shape[-1]):
        bit = torch.stack([torch.sigmoid(-eta[..., i]), torch.sigmoid(eta[..., i])], -1)
        law = (law[..., None] * bit[..., None, :]).flatten(-2)
    return law


def starting_points(table: Tensor, eta: Tensor, bits: int, peaks: int = 4) -> Tensor:
    """Where to begin: the encoder's answer, the posterior's own marginals, its most probable codes.

    Args:
        table: log p(x, z), shape ``(documents, 2**m)``.
        eta: the encoder's logits, shape ``(documents, m)``.
        bits: m.
        peaks: how many codes.

    Returns:
        Logits, shape ``(documents, starts, m)``.

    Own: own-text-gap
    """
    codes = all_bits(bits, table)
    marginal = torch.logit(torch.softmax(table, 1) @ codes, eps=1e-12)
    top = codes[table.topk(min(peaks, len(codes)), 1).indices] * 8 - 4
    return torch.cat([eta[:, None].clamp(-30, 30), marginal[:, None], top], 1)


def best_factorized(table: Tensor, starts: Tensor, tolerance: float = 1e-6, max_sweeps: int = 500) -> BestFactorized:
    """Coordinate ascent from several starts for each document, the best end kept.

    ::

        max over q = Π_i q_i of E_q log p(x, z) + H(q),   logit q_i = E_{q_−i}[log p(x, z_i = 1) − log p(x, z_i = 0)]

    The bits are updated one after the other, in two halves: the table is contracted with one half's law, which all
    starts do in one product, and the bits of the other half are then updated on what is left.

    Args:
        table: log p(x, z), codes in counting order, shape ``(documents, 2**m)``, float64.
        starts: logits, shape ``(documents, s, m)``.
        tolerance: a document rests when no probability moves more than this in a sweep, at any of its starts; the ELBO
            is wrong by about its square.
        max_sweeps: most sweeps over the bits.

    Own: own-text-gap
    """
    # as many documents as stay in a cache; an accelerator would only launch the same small kernels more often
    block = max(1, (2**22 if table.device.type == "cpu" else 2**27) // table.shape[1])
    parts = [_ascend(t, s, tolerance, max_sweeps) for t, s in zip(table.split(block), starts.split(block), strict=True)]
    return BestFactorized(*(torch.cat([getattr(p, name) for p in parts]) for name in ("eta", "elbo", "converged")))


def _ascend(table: Tensor, starts: Tensor, tolerance: float, max_sweeps: int) -> BestFactorized:
    n, _, m = starts.shape
    high = m // 2
    grid = table.reshape(n, 2**high, -1)
    eta = starts.to(table).clone()
    active = torch.arange(n, device=table.device)
    for _ in range(max_sweeps):
        here, old = grid[active], eta[active]
        top = _sweep((here @ code_law(old[..., high:]).mT).mT, old[..., :high])
        low = _sweep((here.mT @ code_law(top).mT).mT, old[..., high:])
        new = torch.cat([top, low], -1)
        eta[active] = new
        moving = (new.sigmoid() - old.sigmoid()).abs().amax((1, 2)) > tolerance
        active = active[moving]
        if not len(active):
            break
    field = (grid @ code_law(eta[..., high:]).mT).mT
    value = (field * code_law(eta[..., :high])).sum(-1) + Bernoulli(eta).entropy()
    best = value.argmax(1)
    rows = torch.arange(n, device=table.device)
    converged = torch.ones(n, dtype=torch.bool, device=table.device).index_fill(0, active, value=False)
    return BestFactorized(eta[rows, best], value[rows, best], converged)


def _sweep(field: Tensor, eta: Tensor) -> Tensor:
    """Each bit of a block in turn, given the others.

    Args:
        field: expected log p(x, z) as a function of the block's bits, shape ``(n, s, 2**k)``.
        eta: shape ``(n, s, k)``.
    """
    new = []
    for law in _laws_of_later(eta):
        pair = field.unflatten(-1, (2, -1))
        change = pair[..., 1, :] - pair[..., 0, :]
        new.append((change * law).sum(-1, keepdim=True))
        field = pair[..., 0, :] + torch.sigmoid(new[-1]) * change
    return torch.cat(new, -1) if new else eta


def _laws_of_later(eta: Tensor) -> list[Tensor]:
    """For each bit the law of all codes of the bits after it."""
    mean = torch.sigmoid(eta)
    bits = torch.stack([1 - mean, mean], -1)
    laws = [eta.new_ones((*eta.shape[:-1], 1))]
    for i in range(eta.shape[-1] - 1, 0, -1):
        laws.append((bits[..., i, :, None] * laws[-1][..., None, :]).flatten(-2))
    return laws[::-1] if eta.shape[-1] else []
