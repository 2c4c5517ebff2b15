"""A tight Bernoulli VAE is an RBM, and back: eq-12, thm-1, own-rbm-equivalence, own-rbm-prior, own-rbm-uniform.

Every check runs on fresh random models, and once more on a broken statement, which it must reject.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from efvae import exact
from efvae.consistency import is_consistent, posterior_gap
from efvae.families import Bernoulli, all_bits
from efvae.harmonium import Harmonium
from efvae.models import VAE, CategoricalOver, Conditional, Prior
from efvae.networks import mlp
from efvae.rbm import pair_interaction, recover, total_correlation, with_prior

SIZES = [(2, 1), (5, 3), (7, 4), (3, 5)]
each_model = pytest.mark.parametrize(("n", "m", "seed"), [(n, m, s) for n, m in SIZES for s in range(3)])


def rbm(n: int, m: int, seed: int, scale: float = 1.5) -> Harmonium:
    generator = torch.Generator().manual_seed(1000 * n + 10 * m + seed)
    w, u, v = (scale * torch.randn(s, generator=generator, dtype=torch.float64) for s in ((n, m), (n,), (m,)))
    return Harmonium(Bernoulli, Bernoulli, w, u, v)


def affine(weight: Tensor, bias: Tensor) -> torch.nn.Linear:
    layer = torch.nn.utils.skip_init(torch.nn.Linear, weight.shape[1], weight.shape[0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(weight), layer.bias.copy_(bias)
    return layer


def vae_of(w: Tensor, u: Tensor, v: Tensor) -> VAE:
    """Built from the printed formulas alone: prior by softmax of ⟨v, z⟩ + Σ_i softplus, two affine layers."""
    z = all_bits(len(v))
    prior = z @ v + torch.logaddexp(z @ w.T + u, torch.zeros(())).sum(-1)
    return VAE(
        Prior(prior, CategoricalOver(z)),
        Conditional(affine(w, u), Bernoulli),
        Conditional(affine(w.T, v), Bernoulli),
    )


def parts(model: Harmonium) -> tuple[Tensor, Tensor, Tensor]:
    return model.weight.data, model.visible_bias.data, model.latent_bias.data


def assert_same_joint(vae: VAE, w: Tensor, u: Tensor, v: Tensor) -> None:
    """log p(x, z) of the VAE against (12) normalised by brute force over both sides, and a posterior gap of zero."""
    x, z = all_bits(len(u)), all_bits(len(v))
    energy = torch.einsum("xi,ij,zj->zx", x, w, z) + x @ u + (z @ v)[:, None]
    rule = exact.enumerate_states(vae.prior())
    torch.testing.assert_close(exact.log_joint(vae, x, rule), energy - energy.logsumexp((0, 1)), rtol=1e-9, atol=1e-9)
    gap = exact.posterior_kl(vae, x, rule)
    torch.testing.assert_close(gap, torch.zeros_like(gap), rtol=0, atol=1e-9)


@each_model
def test_an_rbm_is_a_tight_vae_with_its_own_marginal_as_prior(n: int, m: int, seed: int) -> None:
    model = rbm(n, m, seed)
    assert_same_joint(vae_of(*parts(model)), *parts(model))
    assert_same_joint(model.as_vae(), *parts(model))
    assert is_consistent(model.as_vae(), all_bits(n), exact.enumerate_states(model.as_vae().prior()))


def _transposed(w: Tensor, u: Tensor, v: Tensor) -> VAE:
    vae = vae_of(w, u, v)
    vae.encoder = Conditional(affine(w, v), Bernoulli)
    return vae


def _bias_sign(w: Tensor, u: Tensor, v: Tensor) -> VAE:
    vae = vae_of(w, u, v)
    vae.encoder = Conditional(affine(w.T, -v), Bernoulli)
    return vae


def _decoder_bias_sign(w: Tensor, u: Tensor, v: Tensor) -> VAE:
    vae = vae_of(w, u, v)
    vae.decoder = Conditional(affine(w, -u), Bernoulli)
    return vae


def _independent_prior(w: Tensor, u: Tensor, v: Tensor) -> VAE:
    return with_prior(vae_of(w, u, v), Prior(v, Bernoulli))


def _half_weight(w: Tensor, u: Tensor, v: Tensor) -> VAE:
    vae = vae_of(w, u, v)
    vae.encoder = Conditional(affine(0.5 * w.T, v), Bernoulli)
    return vae


@pytest.mark.parametrize("broken", [_transposed, _bias_sign, _decoder_bias_sign, _independent_prior, _half_weight])
@pytest.mark.parametrize("seed", range(3))
def test_broken_equivalences_are_rejected(broken, seed: int) -> None:
    w, u, v = parts(rbm(4, 4, seed))  # square, so that a transposed W has the right shape
    with pytest.raises(AssertionError):
        assert_same_joint(broken(w, u, v), w, u, v)


@each_model
def test_a_tight_vae_is_an_rbm_found_from_decoder_and_prior(n: int, m: int, seed: int) -> None:
    """The other direction: W, u, v are read off, although the networks are not affine layers by name."""
    w, u, v = parts(rbm(n, m, seed))
    vae = vae_of(w, u, v)
    vae.decoder = Conditional(_DisguisedAffine(w, u), Bernoulli)
    found = recover(vae)
    assert max(found.decoder_residual, found.prior_residual) < 1e-9
    for have, want in zip(parts(found.harmonium), (w, u, v), strict=True):
        torch.testing.assert_close(have, want, rtol=1e-9, atol=1e-9)
    assert_same_joint(vae, *parts(found.harmonium))
    # the formulas of the proof, at x = 0 and x = e_i
    x = torch.cat([torch.zeros(1, n).double(), torch.eye(n).double()])
    posterior = exact.log_posterior(vae, x, exact.enumerate_states(vae.prior()))
    z = all_bits(m)
    g = torch.linalg.lstsq(torch.cat([torch.ones(len(z), 1), z], 1), posterior).solution[1:].T
    torch.testing.assert_close(g[0], v, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(g[1:] - g[0], w, rtol=1e-8, atol=1e-8)


class _DisguisedAffine(torch.nn.Module):
    """Affine on bits only: z² = z and |z| = z there."""

    def __init__(self, w: Tensor, u: Tensor) -> None:
        super().__init__()
        self.w, self.u = torch.nn.Parameter(w.clone()), torch.nn.Parameter(u.clone())

    def forward(self, z: Tensor) -> Tensor:
        return (0.3 * z + 0.9 * z.square() - 0.2 * z.abs()) @ self.w.T + self.u


@pytest.mark.parametrize("seed", range(4))
def test_recovery_rejects_what_is_no_rbm(seed: int) -> None:
    """A nonlinear decoder leaves a decoder residual, a wrong prior a prior residual; both VAEs have a gap."""
    w, u, v = parts(rbm(5, 3, seed))
    torch.manual_seed(seed)
    bent = vae_of(w, u, v)
    bent.decoder = Conditional(mlp((3, 8, 5), torch.nn.Tanh).double(), Bernoulli)
    assert recover(bent).decoder_residual > 1e-2
    uniform = with_prior(vae_of(w, u, v), Prior(torch.zeros(3).double(), Bernoulli))
    found = recover(uniform)
    assert found.decoder_residual < 1e-9
    assert found.prior_residual > 1e-3
    for vae in (bent, uniform):
        table = exact.log_joint(vae, all_bits(5), exact.enumerate_states(vae.prior()))
        assert posterior_gap(table, 3).max() > 1e-6


@each_model
def test_the_prior_of_an_rbm_is_pinned(n: int, m: int, seed: int) -> None:
    """log p(z) = ⟨v, z⟩ + Σ_i softplus(⟨w_i, z⟩ + u_i) − log Z: the marginal by brute force."""
    w, u, v = parts(rbm(n, m, seed))
    x, z = all_bits(n), all_bits(m)
    energy = torch.einsum("xi,ij,zj->zx", x, w, z) + x @ u + (z @ v)[:, None]
    marginal = energy.logsumexp(1).log_softmax(0)
    softplus = torch.logaddexp(z @ w.T + u, torch.zeros(())).sum(-1)
    torch.testing.assert_close((z @ v + softplus).log_softmax(0), marginal, rtol=1e-9, atol=1e-9)
    if m > 1:
        assert ((z @ v).log_softmax(0) - marginal).abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(5))
def test_independent_prior_bits_need_separate_pixels(seed: int) -> None:
    """One latent bit per pixel: independent bits. Weights of one sign: associated bits, unless pixels are separate."""
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(0, 3, (6,), generator=generator)
    separate = torch.nn.functional.one_hot(owner, 3).double() * torch.randn(6, 1, generator=generator).double()
    u, v = torch.randn(6, generator=generator).double(), torch.randn(3, generator=generator).double()
    z = all_bits(3)

    alone = Harmonium(Bernoulli, Bernoulli, separate, u, v)
    assert total_correlation(alone.latent_log_weight(z), z).detach().abs() < 1e-12
    positive = 2 * torch.rand(6, 3, generator=generator).double() + 0.4
    # biases that keep the bits off 0 and 1
    shared = Harmonium(Bernoulli, Bernoulli, positive, u - positive.sum(1) / 2, v - positive.sum(0) / 2)
    assert total_correlation(shared.latent_log_weight(z), z) > 1e-2
    p = shared.latent_log_weight(z).softmax(0).detach()
    covariance = (z * p[:, None]).T @ z - torch.outer(p @ z, p @ z)
    assert (covariance > 0).all()


def _mixed_difference(a: float, b: float, u: float) -> float:
    plus = torch.nn.functional.softplus
    return float(
        plus(torch.tensor(a + b + u)) - plus(torch.tensor(a + u)) - plus(torch.tensor(b + u)) + plus(torch.tensor(u))
    )


@pytest.mark.parametrize("seed", range(20))
def test_sign_of_the_mixed_difference(seed: int) -> None:
    a, b, u = (3 * torch.randn(3, generator=torch.Generator().manual_seed(seed))).tolist()
    assert (_mixed_difference(a, b, u) > 0) == (a * b > 0)


def test_two_pixels_can_cancel_and_then_the_prior_is_independent() -> None:
    """The converse fails: with weights of both signs an RBM with shared pixels can have independent bits a priori."""
    w = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    v, z = torch.zeros(2).double(), all_bits(2)
    # by symmetry: with u = (−1, 0) the two mixed differences are equal and opposite
    model = Harmonium(Bernoulli, Bernoulli, w, torch.tensor([-1.0, 0.0]).double(), v)
    assert pair_interaction(model.as_vae().decoder, 2).abs().max() < 1e-12
    assert total_correlation(model.latent_log_weight(z), z).abs() < 1e-12
    off = Harmonium(Bernoulli, Bernoulli, w, torch.tensor([-1.0, 3.0]).double(), v)
    assert total_correlation(off.latent_log_weight(z), z) > 1e-5


@pytest.mark.parametrize(("n", "m", "seed"), [(n, m, s) for n, m in SIZES[1:] for s in range(3)])
def test_under_uniform_bits_the_posterior_interacts_by_minus_j(n: int, m: int, seed: int) -> None:
    """log p(z | x) = ⟨z, Wᵀx⟩ − A(Wz + u) + c: its pair interaction is −J for every x: a gap."""
    w, u, v = parts(rbm(n, m, seed))
    vae = with_prior(vae_of(w, u, v), Prior(torch.zeros(m).double(), Bernoulli))
    x, z = all_bits(n), all_bits(m)
    posterior = exact.log_posterior(vae, x, exact.enumerate_states(vae.prior()))
    j = pair_interaction(vae.decoder, m).detach()
    index = {tuple(code.int().tolist()): k for k, code in enumerate(z)}
    unit = torch.eye(m).int()
    for a, b in itertools.combinations(range(m), 2):
        rows = [index[tuple(code.tolist())] for code in (unit[a] + unit[b], unit[a], unit[b], 0 * unit[a])]
        seen = posterior[rows[0]] - posterior[rows[1]] - posterior[rows[2]] + posterior[rows[3]]
        torch.testing.assert_close(seen, -j[a, b].expand_as(seen), rtol=1e-8, atol=1e-8)
        assert (seen - j[a, b]).abs().max() > 1e-6  # the other sign is wrong
    gap = posterior_gap(exact.log_joint(vae, x, exact.enumerate_states(vae.prior())), m)
    assert gap.min() > 0
    assert not is_consistent(vae, x, exact.enumerate_states(vae.prior()))


@pytest.mark.parametrize("seed", range(3))
def test_total_correlation_is_the_least_divergence_to_independent_bits(seed: int) -> None:
    model, z = rbm(4, 3, seed), all_bits(3)
    log_p = model.latent_log_weight(z).log_softmax(0).detach()
    eta = torch.logit(log_p.exp() @ z)
    divergence = (log_p.exp() * (log_p - Bernoulli(eta).log_prob(z))).sum()
    torch.testing.assert_close(total_correlation(log_p + 3.0, z), divergence, rtol=1e-9, atol=1e-12)
    for shift in (0.1, -0.1):
        worse = (log_p.exp() * (log_p - Bernoulli(eta + shift).log_prob(z))).sum()
        assert worse > divergence


def test_linearly_dependent_statistics_are_refused() -> None:
    table = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)  # the two bits are always equal
    vae = vae_of(*parts(rbm(3, 2, 0)))
    with pytest.raises(ValueError, match="linearly dependent"):
        recover(with_prior(vae, Prior(torch.zeros(2).double(), CategoricalOver(table))))
