"""The tight Bernoulli VAE and the restricted Boltzmann machine are one model: both directions, and the prior between.

From an RBM to a VAE: :meth:`efvae.harmonium.Harmonium.as_vae`. Back: :func:`recover`. Latent spaces are enumerated.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.families.bernoulli import require_bits
from efvae.harmonium import Harmonium
from efvae.models import VAE, Conditional, Prior

__all__ = ["Recovered", "joint_table", "pair_interaction", "recover", "table_elbo", "total_correlation", "with_prior"]


@dataclass(frozen=True)
class Recovered:
    """The harmonium nearest to a VAE in natural parameters, and how far from it the VAE is.

    The VAE is that harmonium exactly if both residuals are zero.

    Args:
        harmonium: W, u, v by least squares over the latent states.
        decoder_residual: largest magnitude of f(z) − W ψ(z) − u over states and coordinates.
        prior_residual: largest magnitude over states of log p(z) − log h'(z) − A(f(z)) − ⟨ψ(z), v⟩ − c for the best c.

    Own: own-rbm-equivalence
    """

    harmonium: Harmonium
    decoder_residual: float
    prior_residual: float


def recover(vae: VAE) -> Recovered:
    """W, u and v of a VAE from its decoder and its prior alone; the encoder only names the family.

    ::

        f(z) = W ψ(z) + u                                    gives W and u
        log p(z) − log h'(z) − A(f(z)) = ⟨ψ(z), v⟩ + c       gives v;  c = −log Z

    Both are linear in the unknowns; where they cannot be satisfied the least-squares solution is returned with its
    residual. For bits W e_j = f(e_j) − f(0) if the residual is zero.

    Args:
        vae: its prior must have a finite support.

    Raises:
        ValueError: the latent statistics and 1 are linearly dependent, so W and v are not unique.

    Paper: eq-12, thm-1
    """
    states = vae.prior().support()
    with torch.no_grad():
        family = vae.encoder(vae.decoder(states[:1]).sample(generator=torch.Generator().manual_seed(0)))  # any x does
        psi = family.sufficient_statistic(states)
        design = torch.cat([torch.ones_like(psi[:, :1]), psi], 1)
        if int(torch.linalg.matrix_rank(design)) < design.shape[1]:
            raise ValueError("recover: 1 and the latent statistics are linearly dependent, so W and v are not unique")
        decoder = vae.decoder(states)
        bias, weight = _affine(design, decoder.eta)
        target = vae.prior().log_prob(states) - family.log_base_measure(states) - decoder.log_partition()
        constant, v = _affine(design, target[:, None])
        off_decoder = decoder.eta - bias - psi @ weight
        off_prior = target - constant - psi @ v[:, 0]
    model = Harmonium(vae.decoder.family, vae.encoder.family, weight.T, bias, v[:, 0])
    return Recovered(model, float(off_decoder.abs().max()), float(off_prior.abs().max()))


def _affine(design: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Constant and slopes of the least-squares fit of each column."""
    coefficients = torch.linalg.lstsq(design, values).solution
    return coefficients[0], coefficients[1:]


def with_prior(vae: VAE, prior: Prior) -> VAE:
    """The same decoder and encoder under another prior."""
    return VAE(prior, vae.decoder, vae.encoder)


def pair_interaction(decoder: Conditional, n_bits: int) -> Tensor:
    """How much two latent bits interact through the decoder's log-partition, in nats, shape ``(m, m)``.

    ::

        J_jk = A(f(e_j + e_k)) − A(f(e_j)) − A(f(e_k)) + A(f(0)),   0 on the diagonal

    With an affine Bernoulli decoder it is a sum over pixels of terms with the sign of W_ij W_ik. A harmonium's prior
    has independent bits only if J = 0; with an affine decoder and independent bits a priori, the true posterior has
    the same interaction −J for every x, and a factorized encoder is tight only if J = 0.

    Args:
        decoder: p(x | z) over bits z.
        n_bits: m.

    Own: own-rbm-prior, own-rbm-uniform
    """
    own = itertools.chain(decoder.parameters(), decoder.buffers(), [torch.zeros((), dtype=torch.float64)])
    unit = torch.eye(n_bits, dtype=next(value.dtype for value in own if value.is_floating_point()))
    pairs = (unit[:, None] + unit).clamp(max=1.0)
    one = decoder(unit).log_partition()
    both = decoder(pairs).log_partition() - one[:, None] - one + decoder(torch.zeros_like(unit[0])).log_partition()
    return both - torch.diag(both.diagonal())


def total_correlation(log_prob: Tensor, bits: Tensor) -> Tensor:
    """How far a law over bits is from independent bits, in nats, a scalar.

    ::

        KL(p(z) ‖ Π_j p(z_j)) = Σ_j H(z_j) − H(z)

    It is the least KL from p to any law with independent bits.

    Args:
        log_prob: log p(z) in nats, shape ``(k,)``; normalised here if it is not.
        bits: the states, shape ``(k, m)``.

    Own: own-rbm-prior
    """
    log_p = log_prob.log_softmax(0)
    one = (log_p.exp() @ bits).clamp(max=1.0)  # rounding
    total: Tensor = torch.special.entr(one).sum() + torch.special.entr(1 - one).sum() + (log_p.exp() * log_p).sum()
    return total


def joint_table(vae: VAE, x: Tensor, states: Tensor) -> Tensor:
    """log p(x, z) for all pairs by one matrix product, shape ``(k, batch)``, with live gradients.

    ::

        log h(x) + ⟨ν(x), f(z_k)⟩ − A(f(z_k)) + log p(z_k)

    Its decoder runs once for each state, not once for each pair; :func:`efvae.exact.log_joint` is the slow check.

    Args:
        vae: the model.
        x: observations, shape ``(batch, *event)``.
        states: latent states, shape ``(k, *event)``.

    Raises:
        ValueError: the decoder is over bits, and x has other values.

    Paper: eq-4a, sec-2
    """
    decoder = vae.decoder(states)
    require_bits(decoder, x, "x")
    nu = decoder.sufficient_statistic(x)
    weight = vae.prior().log_prob(states) - decoder.log_partition()
    return decoder.eta @ nu.T + weight[:, None] + decoder.log_base_measure(x)


def table_elbo(vae: VAE, x: Tensor, states: Tensor) -> Tensor:
    """The ELBO of each example by :func:`joint_table`, in nats, shape ``(batch,)``, with live gradients.

    ::

        Σ_k q(z_k | x) (log p(x, z_k) − log q(z_k | x))

    Paper: eq-1a, sec-2
    """
    q = vae.encoder(x)
    log_q = q.sufficient_statistic(states) @ q.eta.T + q.log_base_measure(states)[:, None] - q.log_partition()
    return (log_q.exp() * (joint_table(vae, x, states) - log_q)).sum(0)
