"""What encoders can reach: the least gap of their family, and the gap of networks of any depth.

For latent spaces that can be enumerated. The least gap of a family, found for each x on its own, is a floor under
the gap of every encoder network with that family, however deep.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efvae.descent import minimize
from efvae.exact import Rule, log_posterior, posterior_kl, require_finite, require_float64, require_weights
from efvae.families import all_bits
from efvae.minimal import extend
from efvae.models import VAE, Conditional, MakeFamily
from efvae.networks import mlp

__all__ = [
    "code_products",
    "family_gap",
    "train_encoder",
    "with_encoder",
]


def code_products(n_bits: int, order: int) -> Tensor:
    """Statistics of binary codes: the products of up to ``order`` different bits, shape ``(2**n_bits, m)``.

    ::

        order 1: z_i,    order 2: z_i and z_i z_j,    order n_bits: all, and any distribution of the code is reached

    Args:
        n_bits: number of bits.
        order: largest number of factors, from 1 to ``n_bits``.

    Raises:
        ValueError: an order out of its range.

    Own: own-statistics
    """
    if not 1 <= order <= n_bits:
        raise ValueError(f"code_products: order must be in [1, {n_bits}], got {order}")
    bits = all_bits(n_bits)
    sets = sorted((s for s in bits if 1 <= s.sum() <= order), key=lambda s: (s.sum().item(), (-s).tolist()))
    return torch.stack([torch.where(s == 1, bits, 1.0).prod(1) for s in sets], 1)


def family_gap(
    log_joint: Tensor,
    statistic: Tensor,
    log_base: Tensor | None = None,
    max_steps: int = 2000,
    tolerance: float = 1e-12,
) -> Tensor:
    """The least posterior gap of an exponential family on a finite latent space, in nats, shape ``(batch,)``.

    ::

        min_η KL(q_η(z) ‖ p(z | x)),   q_η(z) ∝ h'(z) exp⟨ψ(z), η⟩

    By natural-gradient steps, η ← (1 − t) η + t Cov_q(ψ)⁻¹ Cov_q(ψ, log p(z | x) − log h'(z)), with t halved until the
    divergence falls. They start from the projection of log p(z | x) and from the member with the mean statistic of a
    law near each state, since there may be local minima; so what comes out is attained, and an upper bound of the
    minimum.

    Args:
        log_joint: log p(x, z) up to a constant for each x, shape ``(k, batch)``, float64, finite.
        statistic: ψ at the k states, minimal, shape ``(k, m)``.
        log_base: log h' at the states, shape ``(k,)``; default 0; −inf where the family has none.
        max_steps: most steps.
        tolerance: stop when the expected decrease of every divergence is below this, in nats.

    Raises:
        ValueError: a state of probability zero, something that is not finite or not float64, or another number of
            states.

    Paper: eq-3, cor-1
    """
    for what, table in (("log_joint", log_joint), ("statistic", statistic), ("log_base", log_base)):
        if table is not None:
            require_float64(table, what)
    require_finite("family_gap", log_joint)
    k = len(log_joint)
    if (
        log_joint.ndim != 2
        or statistic.ndim != 2
        or len(statistic) != k
        or (log_base is not None and log_base.shape != (k,))
    ):
        raise ValueError(
            f"family_gap: needs log_joint of shape (k, batch) and statistic of shape (k, m) at the same k states, got "
            f"{tuple(log_joint.shape)} and {tuple(statistic.shape)}"
            + ("" if log_base is None else f", and log_base of shape {tuple(log_base.shape)}")
        )
    if not log_joint.shape[1]:
        return log_joint.sum(0)
    base = torch.zeros_like(log_joint[:, 0]) if log_base is None else log_base
    log_post = (log_joint - torch.logsumexp(log_joint, 0)).T.detach()  # (batch, k)
    if not bool((base < torch.inf).all()) or not bool(base.isfinite().any()):
        raise ValueError("family_gap: log_base must be below infinity, and finite for at least one state")
    there = base != -torch.inf  # elsewhere no member of the family is
    log_post, statistic, base = log_post[:, there], statistic[there], base[there]
    batch, k = log_post.shape
    project = torch.linalg.pinv(extend(statistic))[:-1]
    near = torch.full((k, k), 0.02 / k, dtype=log_post.dtype).fill_diagonal_(0.98)
    others = _with_means(near / near.sum(1, keepdim=True) @ statistic, statistic, base)
    first = (log_post - base) @ project.T
    starts = torch.cat([first[None], others[:, None].expand(-1, batch, -1)])
    eta, target = starts.flatten(0, 1), log_post.repeat(k + 1, 1)
    for _ in range(max_steps):
        eta, decrease = _natural_step(eta, target, statistic, base)
        if not bool((decrease > tolerance).any()):
            break
    return _divergence(eta, target, statistic, base).reshape(k + 1, batch).amin(0).clamp(min=0.0)


def _with_means(mean: Tensor, statistic: Tensor, base: Tensor) -> Tensor:
    """η with E_q ψ = mean for each row, of laws that reach every state: max_η ⟨mean, η⟩ − B(η) by Newton steps."""

    def value(eta: Tensor) -> Tensor:
        return (mean * eta).sum(-1) - torch.logsumexp(eta @ statistic.T + base, -1)

    eta = torch.zeros_like(mean)
    ridge = 1e-14 * torch.eye(mean.shape[1], dtype=mean.dtype)
    for _ in range(100):
        q = torch.softmax(eta @ statistic.T + base, -1)
        centred = statistic - (q @ statistic)[:, None]
        gradient = mean - q @ statistic
        move = torch.linalg.solve((q[..., None] * centred).mT @ centred + ridge, gradient)
        rise = (move * gradient).sum(-1)
        if not bool((rise > 1e-12).any()):
            break
        before, step = value(eta), torch.ones_like(rise)
        for _ in range(30):
            step = torch.where(value(eta + step[:, None] * move) < before + 1e-4 * step * rise, 0.5 * step, step)
        eta = eta + step[:, None] * move
    return eta


def _divergence(eta: Tensor, log_post: Tensor, statistic: Tensor, base: Tensor) -> Tensor:
    log_q = torch.log_softmax(eta @ statistic.T + base, -1)
    return (log_q.exp() * (log_q - log_post)).sum(-1)


def _natural_step(eta: Tensor, log_post: Tensor, statistic: Tensor, base: Tensor) -> tuple[Tensor, Tensor]:
    """One step for each row, and the squared length of its natural gradient in nats; zero where no step helped."""
    q = torch.softmax(eta @ statistic.T + base, -1)
    centred = statistic - (q @ statistic)[:, None]  # (rows, k, m)
    weighted = q[..., None] * centred
    ridge = 1e-14 * torch.eye(statistic.shape[1], dtype=eta.dtype)
    gradient = (weighted.mT @ (log_post - base - eta @ statistic.T)[..., None])[..., 0]
    move = torch.linalg.solve(weighted.mT @ centred + ridge, gradient)
    decrease = (move * gradient).sum(-1)
    before, step = _divergence(eta, log_post, statistic, base), torch.ones_like(decrease)
    for _ in range(30):
        worse = _divergence(eta + step[:, None] * move, log_post, statistic, base) > before - 1e-4 * step * decrease
        if not bool(worse.any()):
            break
        step = torch.where(worse, 0.5 * step, step)
    step = torch.where(worse, 0.0, step)
    return eta + step[:, None] * move, torch.where(worse, 0.0, decrease)


def with_encoder(vae: VAE, make: MakeFamily, n_in: int, n_out: int, depth: int, seed: int, width: int = 32) -> VAE:
    """The VAE with a new encoder: a tanh network of ``depth`` hidden layers, randomly initialised, float64.

    Args:
        vae: prior and decoder are taken from it, not copied.
        make: encoder family from its natural parameters.
        n_in: length of x.
        n_out: number of natural parameters.
        depth: number of hidden layers, ≥ 0.
        seed: of the initialisation.
        width: units of a hidden layer.

    Raises:
        ValueError: a negative depth, or a width below 1.

    Paper: cor-1, eq-4b
    """
    if depth < 0:
        raise ValueError(f"with_encoder: depth must be at least 0, got {depth}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = mlp((n_in, *[width] * depth, n_out), nn.Tanh).double()
    return VAE(vae.prior, vae.decoder, Conditional(network, make))


def train_encoder(vae: VAE, x: Tensor, weights: Tensor, rule: Rule, max_evaluations: int = 500) -> float:
    """Fit the encoder's network to the fixed decoder by L-BFGS; returns the gap that is left, in nats.

    ::

        min_φ Σ_x w(x) KL(q_φ(z | x) ‖ p(z | x))

    Args:
        vae: its encoder is trained in place, float64.
        x: all observations, shape ``(batch, *event)``.
        weights: w, the data distribution on them, shape ``(batch,)``; they sum to one.
        rule: all states of the latent space, or a quadrature over it.
        max_evaluations: most values and gradients computed.

    Raises:
        ValueError: weights of another shape, or that do not sum to one; or at the end the rule does not sum q(z | x)
            to one, see :func:`efvae.exact.posterior_kl`.

    Paper: eq-1b, cor-1
    """
    require_weights("train_encoder", weights, x)
    with torch.no_grad():
        log_post = log_posterior(vae, x, rule)

    def gap() -> Tensor:
        log_q = vae.encoder(x).log_prob(rule.points[:, None])
        weight = (log_q + rule.log_weights[:, None]).exp()
        divergence = (weight * torch.where(weight == 0, 0.0, log_q - log_post)).sum(0)
        return (divergence * weights).sum()

    minimize(gap, vae.encoder.parameters(), max_evaluations, max_eval=max_evaluations, history_size=50)
    with torch.no_grad():
        return float((posterior_kl(vae, x, rule) * weights).sum())
