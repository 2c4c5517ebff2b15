"""Sampling from a harmonium, its partition function and its likelihood gradient where neither side can be enumerated.

All chains of a batch run at once; the only Python loop is over sweeps or temperatures.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from efvae.harmonium import Harmonium
from efvae.log_weights import LogWeights

__all__ = ["PersistentChains", "annealed_log_partition", "gibbs"]


def gibbs(model: Harmonium, x: Tensor, sweeps: int, generator: torch.Generator | None = None) -> Tensor:
    """Block Gibbs sampling: all of z given x, then all of x given z, for every chain at once.

    ::

        z ~ p(z | x),   x ~ p(x | z)

    One sweep leaves the harmonium's marginal p(x) unchanged, and it is reversible with respect to it.

    Args:
        model: any harmonium.
        x: where the chains stand, shape ``(chains, *event)``.
        sweeps: number of sweeps, ≥ 0.
        generator: source of randomness.

    Returns:
        Where they stand afterwards, same shape; no gradient.

    Own: own-block-gibbs
    """
    with torch.no_grad():
        for _ in range(sweeps):
            z = model.latent(model.latent_eta(x)).sample((), generator)
            x = model.visible(model.visible_eta(z)).sample((), generator)
    return x


def annealed_log_partition(
    model: Harmonium,
    chains: int,
    temperatures: int,
    generator: torch.Generator | None = None,
    *,
    base: Tensor | None = None,
) -> LogWeights:
    """log Z of a harmonium by annealed importance sampling (Neal 2001; Salakhutdinov and Murray 2008 for the RBM).

    ::

        f_β(x) = Σ_z h(x) h'(z) exp(β ⟨ν(x), W ψ(z)⟩ + ⟨ν(x), (1−β) u_0 + β u⟩ + ⟨ψ(z), v⟩)
        w = Z_0 Π_k f_{β_k}(x_{k−1}) / f_{β_{k−1}}(x_{k−1}),   0 = β_0 < … < β_T = 1

    The base β = 0 is independent, with log Z_0 = A(u_0) + B(v); x_0 is drawn from it and x_k from x_{k−1} by one Gibbs
    sweep at β_k. E w = Z for any number of temperatures; more of them make the variance small.

    Args:
        model: any harmonium; float64 for more than a few thousand temperatures.
        chains: number of independent chains, at least 2.
        temperatures: T ≥ 1, evenly spaced.
        generator: source of randomness.
        base: u_0, shape ``(n,)``; the logits of the data's own means, kept off 0 and 1, make good ones. Without it
            u_0 = u.

    Raises:
        ValueError: fewer than two chains, no temperature, or a base of another shape or not finite.

    Own: own-ais
    """
    if chains < 2 or temperatures < 1:
        raise ValueError(
            f"annealed_log_partition: needs at least 2 chains and 1 temperature, got {chains} and {temperatures}"
        )
    start = model.visible_bias if base is None else base
    if start.shape != model.visible_bias.shape:
        raise ValueError(f"annealed_log_partition: base must have shape {tuple(model.visible_bias.shape)}, got "
                         f"{tuple(start.shape)}")  # fmt: skip
    if not bool(start.isfinite().all()):
        raise ValueError("annealed_log_partition: base must be finite: keep means off 0 and 1 before logit")
    visible, latent = model.visible, model.latent
    weight, change, v = model.weight, model.visible_bias - start, model.latent_bias
    with torch.no_grad():
        first = visible(start)
        x = first.sample((chains,), generator)
        log_w = (first.log_partition() + latent(v).log_partition()).expand(chains).clone()
        previous = 0.0
        for k in range(1, temperatures + 1):
            beta = k / temperatures
            nu = first.sufficient_statistic(x)
            field = nu @ weight
            warmer, colder = latent(previous * field + v), latent(beta * field + v)
            log_w += (beta - previous) * (nu @ change) + colder.log_partition() - warmer.log_partition()
            if k < temperatures:
                psi = colder.sufficient_statistic(colder.sample((), generator))
                x = visible(beta * (psi @ weight.T) + start + beta * change).sample((), generator)
            previous = beta
    return LogWeights(log_w)


class PersistentChains(nn.Module):
    """Maximum likelihood by persistent contrastive divergence (Tieleman 2008; stochastic approximation, Younes 1989).

    ::

        ∇ log p(x) = E[∇ log f(X) over the data] − E[∇ log f(X) over the model],   f the unnormalised marginal of x

    The second mean is taken over chains that are never restarted: they move a few sweeps for each step of the
    parameters. The gradient is right in the limit of slow parameters, biased otherwise; the value is no likelihood.
    The chains are part of the module's state, so a checkpoint of :func:`efvae.train.fit` resumes them too.

    Args:
        model: the harmonium to train.
        start: where the chains begin, shape ``(chains, *event)``.
        sweeps: Gibbs sweeps for each step, at least 1.

    Raises:
        ValueError: no sweep, or no chain.

    Own: own-pcd
    """

    def __init__(self, model: Harmonium, start: Tensor, sweeps: int = 1) -> None:
        super().__init__()
        if sweeps < 1 or len(start) < 1:
            raise ValueError(f"PersistentChains: needs a sweep and a chain, got {sweeps} and {len(start)}")
        self.model = model
        self.sweeps = sweeps
        self.x: Tensor
        self.register_buffer("x", start.clone())

    def loss(self, data: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Moves the chains; then, per example, a number whose gradient estimates that of −log p(x), shape ``(batch,)``.

        Args:
            data: observations, shape ``(batch, *event)``.
            generator: source of randomness for the chains.
        """
        self.x.copy_(gibbs(self.model, self.x, self.sweeps, generator))
        return self.model.visible_log_weight(self.x).mean() - self.model.visible_log_weight(data)
