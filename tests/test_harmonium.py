"""The harmonium against brute-force normalisation, and as a tight VAE: eq-5, eq-6, eq-7, thm-1."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from efvae import exact
from efvae.estimators import Exact
from efvae.families import Bernoulli, Categorical, ExponentialFamily, GaussianFixedVariance, Multinomial, all_bits
from efvae.harmonium import Harmonium
from efvae.objectives import elbo

VARIANCE = torch.tensor([0.5, 1.4], dtype=torch.float64)

#: visible family, its number of parameters, and a rule that sums or integrates over x
VISIBLE = {
    "bernoulli": (Bernoulli, 3, lambda: exact.enumerate_states(Bernoulli(torch.zeros(3)))),
    "gaussian": (lambda eta: GaussianFixedVariance(eta, VARIANCE), 2, lambda: exact.grid([-22, -22], [22, 22], 301)),
    "multinomial": (
        lambda eta: Multinomial(eta, 4),
        3,
        lambda: exact.enumerate_states(Multinomial(torch.zeros(3), 4)),
    ),
}
LATENT = {"bernoulli": (Bernoulli, 2), "categorical": (lambda eta: Categorical(eta, all_bits(2)), 4)}


def harmonium(visible: str, latent: str, seed: int) -> Harmonium:
    generator = torch.Generator().manual_seed(seed)
    n, m = VISIBLE[visible][1], LATENT[latent][1]
    w, u, v = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((n, m), (n,), (m,)))
    return Harmonium(VISIBLE[visible][0], LATENT[latent][0], w, u, v)


each_pair = pytest.mark.parametrize(("visible", "latent"), [(v, z) for v in VISIBLE for z in LATENT])


def unnormalised(model: Harmonium, x: Tensor, z: Tensor) -> Tensor:
    """h(x) h'(z) exp(⟨ν, Wψ⟩ + ⟨ν, u⟩ + ⟨ψ, v⟩), term by term."""
    one_x: ExponentialFamily = model.visible(model.visible_bias)
    one_z: ExponentialFamily = model.latent(model.latent_bias)
    nu, psi = one_x.sufficient_statistic(x), one_z.sufficient_statistic(z)
    bilinear = torch.einsum("...i,ij,...j->...", nu, model.weight, psi)
    linear = (nu * model.visible_bias).sum(-1) + (psi * model.latent_bias).sum(-1)
    return one_x.log_base_measure(x) + one_z.log_base_measure(z) + bilinear + linear


@each_pair
def test_joint_and_marginals_against_brute_force(visible: str, latent: str) -> None:
    model = harmonium(visible, latent, 1)
    rule = VISIBLE[visible][2]()
    states = model.latent(model.latent_bias).support()
    table = unnormalised(model, rule.points[:, None], states) + rule.log_weights[:, None]
    log_z = torch.logsumexp(table.flatten(), 0)
    torch.testing.assert_close(model.log_partition(), log_z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        model.log_marginal(rule.points) + rule.log_weights, torch.logsumexp(table, 1) - log_z, rtol=1e-9, atol=1e-9
    )
    joint = model.log_joint(rule.points[:, None], states) + rule.log_weights[:, None]
    torch.testing.assert_close(joint, table - log_z, rtol=1e-9, atol=1e-9)
    prior = model.latent_log_weight(states).softmax(0)
    torch.testing.assert_close(prior, (table - log_z).exp().sum(0), rtol=1e-8, atol=1e-9)


@each_pair
@pytest.mark.parametrize("seed", range(3))
def test_as_vae_is_the_same_joint_and_tight(visible: str, latent: str, seed: int) -> None:
    model = harmonium(visible, latent, seed)
    vae = model.as_vae()
    rule = exact.enumerate_states(vae.prior())
    x = VISIBLE[visible][2]().points
    x = x[model.log_marginal(x) > -60][::7]  # farther out the terms are in the thousands and round off
    torch.testing.assert_close(exact.log_marginal(vae, x, rule), model.log_marginal(x), rtol=1e-9, atol=1e-9)
    gap = exact.posterior_kl(vae, x, rule)
    torch.testing.assert_close(gap, torch.zeros_like(gap), rtol=0, atol=1e-8)
    torch.testing.assert_close(elbo(vae, x, Exact()), model.log_marginal(x), rtol=1e-9, atol=1e-9)


def test_another_prior_breaks_tightness() -> None:
    """The prior is no free choice: the same conditionals under uniform bits leave a gap."""
    model = harmonium("bernoulli", "bernoulli", 2)
    vae = model.as_vae()
    vae.prior.eta = torch.zeros_like(vae.prior.eta)
    gap = exact.posterior_kl(vae, all_bits(3), exact.enumerate_states(vae.prior()))
    assert gap.max() > 1e-3


def test_vae_shares_the_parameters_and_follows_a_change_of_precision() -> None:
    model = harmonium("bernoulli", "categorical", 3)
    vae = model.as_vae()
    assert len(list(vae.parameters())) == 3
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(vae.decoder.network.weight, model.weight)
    assert vae.float().prior().sample((2,)).dtype == torch.float32


def test_gradient_of_the_likelihood_is_live() -> None:
    model = harmonium("multinomial", "bernoulli", 4)
    x = VISIBLE["multinomial"][2]().points[3:5]

    def likelihood(w: Tensor, u: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            model.weight.copy_(w), model.visible_bias.copy_(u), model.latent_bias.copy_(v)
        return model.log_marginal(x).sum()

    start = [p.detach().clone() for p in (model.weight, model.visible_bias, model.latent_bias)]
    grads = torch.autograd.grad(likelihood(*start), (model.weight, model.visible_bias, model.latent_bias))
    for which, grad in enumerate(grads):
        step = torch.zeros_like(start[which])
        step.view(-1)[0] = 1e-6
        shifted = [[p + s * step if i == which else p for i, p in enumerate(start)] for s in (1, -1)]
        numeric = (likelihood(*shifted[0]) - likelihood(*shifted[1])) / 2e-6
        torch.testing.assert_close(grad.view(-1)[0], numeric.detach(), rtol=1e-6, atol=1e-7)


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(n, m\) = \(3, 2\), got \(2, 3\)"):
        Harmonium(Bernoulli, Bernoulli, torch.zeros(2, 3), torch.zeros(3), torch.zeros(2))
