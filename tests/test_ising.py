"""Section 3.1, Bernoulli-MRF VAE: the bipartite Ising family and the joint law it leads to.

Labels: case-mrf, eq-11, eq-12, own-cubic-joint, own-code-gibbs, own-score-covariance.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from efvae import exact, objectives
from efvae.consistency import family_residual, is_consistent
from efvae.estimators import Exact
from efvae.experiments.encoder_families import FAMILIES, Config, random_vae, run
from efvae.families import Bernoulli, BipartiteIsing, ExponentialFamily, Gaussian, all_bits
from efvae.models import VAE, Conditional, Prior
from efvae.mrf import cubic_harmonium, cubic_log_weight, cubic_weight
from efvae.networks import mlp
from efvae.score_gradient import covariance_surrogate
from tests.cases import Z_MAX

SIZES = [(1, 1), (3, 2), (2, 4), (3, 3)]
each_size = pytest.mark.parametrize("sizes", SIZES, ids=str)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ising(sizes: tuple[int, int], *batch: int, seed: int = 0, scale: float = 1.0) -> BipartiteIsing:
    m1, m2 = sizes
    return BipartiteIsing(scale * normal(*batch, m1 + m2 + m1 * m2, seed=seed), sizes)


def swapped(q: BipartiteIsing) -> BipartiteIsing:
    """The same distribution with the groups exchanged."""
    b1, b2, v = q.parts()
    return BipartiteIsing(torch.cat([b2, b1, v.mT.flatten(-2)], -1), (q.sizes[1], q.sizes[0]))


# --- the family ----------------------------------------------------------------------------------------------------


@each_size
def test_partition_is_the_sum_over_all_codes(sizes: tuple[int, int]) -> None:
    q = ising(sizes, 4, seed=1, scale=2.0)
    b1, b2, v = q.parts()
    total = torch.zeros(4, dtype=torch.float64)
    for code in q.support():
        z1, z2 = code[: sizes[0]], code[sizes[0] :]
        total += (b1 @ z1 + b2 @ z2 + torch.einsum("j,bjk,k->b", z1, v, z2)).exp()
    torch.testing.assert_close(q.log_partition(), total.log(), rtol=1e-12, atol=1e-12)
    # broken: V the wrong way round
    if sizes == (3, 3):
        wrong = BipartiteIsing(torch.cat([b1, b2, v.mT.flatten(-2)], -1), sizes)
        assert (wrong.log_partition() - total.log()).abs().min() > 1e-3


def test_the_smaller_group_is_summed_also_beyond_enumeration() -> None:
    """26 bits: the law sums 2^12 terms; here the other group is summed instead, 2^14 terms."""
    q = ising((12, 14), seed=2, scale=0.5)
    b1, b2, v = q.parts()
    states = all_bits(14)
    logits = b1 + states @ v.T
    other = torch.logsumexp(states @ b2 + torch.logaddexp(logits, torch.zeros_like(logits)).sum(-1), 0)
    torch.testing.assert_close(q.log_partition(), other, rtol=1e-12, atol=0)
    torch.testing.assert_close(swapped(q).log_partition(), other, rtol=1e-12, atol=0)
    torch.testing.assert_close(q.mean(), ExponentialFamily.mean(q), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="enumeration stops"):
        q.support()


def test_without_interaction_it_is_independent_bits() -> None:
    b = normal(5, 5, seed=3)
    q = BipartiteIsing(torch.cat([b, torch.zeros(5, 6, dtype=torch.float64)], -1), (2, 3))
    z = all_bits(5)[:, None]
    torch.testing.assert_close(q.log_prob(z), Bernoulli(b).log_prob(z), rtol=0, atol=1e-12)
    assert not q.same_base_measure(Bernoulli(b))
    assert not q.same_base_measure(ising((3, 2)))


@pytest.mark.parametrize(("sizes", "d"), [((2, 3), 10), ((0, 3), 3), ((3, 2), 12)])
def test_wrong_number_of_parameters_is_refused(sizes: tuple[int, int], d: int) -> None:
    with pytest.raises(ValueError, match=r"need m1 \+ m2 \+ m1 m2"):
        BipartiteIsing(torch.zeros(d), sizes)


# --- sampling ------------------------------------------------------------------------------------------------------


def z_score(q: BipartiteIsing, z: Tensor) -> float:
    psi = q.sufficient_statistic(z)
    error = psi.std(0).clamp(min=1e-9) / len(z) ** 0.5
    return float(((psi.mean(0) - q.mean()) / error).abs().max())


@pytest.mark.parametrize("sizes", [(3, 2), (12, 14)], ids=str)
def test_exact_and_gibbs_draws_have_the_exact_means(sizes: tuple[int, int]) -> None:
    q = ising(sizes, seed=4, scale=0.7)
    n, generator = 4000, torch.Generator().manual_seed(0)
    assert z_score(q, q.sample((n,), generator)) < Z_MAX
    chains = q.sample((n,), generator, sweeps=40)
    assert z_score(q, chains) < Z_MAX
    assert z_score(q, q.sample((n,), generator, sweeps=0)) > 2 * Z_MAX  # uniform bits are rejected
    assert z_score(swapped(q), chains) > 2 * Z_MAX if sizes == (12, 14) else True


@each_size
def test_a_sweep_leaves_the_distribution_unchanged(sizes: tuple[int, int]) -> None:
    """own-code-gibbs: the transition matrix, by enumeration, from the conditionals of the joint."""
    q = ising(sizes, seed=5)
    codes = q.support()
    p = q.log_prob(codes).exp()
    # empirical transition of many chains from the exact distribution: still the exact distribution
    start = q.sample((20_000,), torch.Generator().manual_seed(1))
    after = q.gibbs(start, 1, torch.Generator().manual_seed(2))
    place = 2.0 ** torch.arange(sum(sizes) - 1, -1, -1, dtype=torch.float64)
    counts = torch.bincount((after @ place).long(), minlength=len(codes)).double()
    z = (counts / 20_000 - p) / (p * (1 - p) / 20_000).sqrt()
    assert float(z.abs().max()) < Z_MAX
    broken = BipartiteIsing(-q.eta, sizes).gibbs(start, 1, torch.Generator().manual_seed(2))
    assert z_score(q, broken) > 2 * Z_MAX


def test_gibbs_with_strong_couplings_stays_where_it_began() -> None:
    """Two modes of equal weight, nearly: chains from one of them do not find the other. Sampling is not for free."""
    v = torch.full((6, 6), 4.0, dtype=torch.float64)
    b = torch.full((6,), -12.0, dtype=torch.float64)  # −½ Σ_k V: all off and all on are equally likely
    q = BipartiteIsing(torch.cat([b, b, v.flatten()]), (6, 6))
    assert abs(float(q.mean()[0]) - 0.5) < 1e-9
    cold = q.gibbs(torch.zeros(2000, 12, dtype=torch.float64), 50, torch.Generator().manual_seed(0))
    assert float(cold.mean()) < 0.01
    assert z_score(q, q.sample((4000,), torch.Generator().manual_seed(0))) < Z_MAX


def test_too_large_groups_are_sampled_by_gibbs_only() -> None:
    q = ising((25, 25), 2, scale=0.1)
    with pytest.raises(ValueError, match="enumeration stops"):
        q.sample((3,))
    assert q.sample((3,), torch.Generator().manual_seed(0), sweeps=2).shape == (3, 2, 50)


# --- own-score-covariance ------------------------------------------------------------------------------------------


def energy(z: Tensor) -> Tensor:
    return 2 * z[..., 0] * z[..., -1] - z.sum(-1) + torch.sin(z @ torch.arange(1.0, z.shape[-1] + 1, dtype=z.dtype))


@pytest.mark.parametrize("sizes", [(2, 3), (10, 12)], ids=str)
def test_covariance_gradient_is_that_of_the_bound(sizes: tuple[int, int]) -> None:
    q0 = ising(sizes, seed=6, scale=0.6)
    eta = q0.eta.clone().requires_grad_()
    q = BipartiteIsing(eta, sizes)
    weights = normal(sum(sizes), seed=7)  # beyond enumeration a linear f has an expectation in closed form
    f = energy if sizes == (2, 3) else lambda z: z @ weights
    bound = (Exact().expectation(q, f) if sizes == (2, 3) else q.mean()[: sum(sizes)] @ weights) + q.entropy()
    (truth,) = torch.autograd.grad(bound, eta)

    def estimates(reward, sweeps: int | None) -> Tensor:
        rows = eta.detach().expand(400, -1).clone().requires_grad_()
        many = BipartiteIsing(rows, sizes)
        z = many.sample((20,), torch.Generator().manual_seed(8), sweeps=sweeps)
        (gradient,) = torch.autograd.grad(covariance_surrogate(many, reward, z).sum(), rows)
        return gradient

    def score(reward, sweeps: int | None) -> float:
        gradient = estimates(reward, sweeps)
        return float(((gradient.mean(0) - truth) / (gradient.std(0) / 20)).abs().max())

    assert score(f, None) < Z_MAX
    assert score(f, 40) < Z_MAX
    assert score(lambda z: f(z) + (q0.sufficient_statistic(z) * q0.eta).sum(-1), None) > 2 * Z_MAX  # entropy left out
    assert score(lambda z: -f(z), None) > 2 * Z_MAX


def test_covariance_gradient_of_a_vae_in_decoder_and_encoder() -> None:
    """Unbiased also with a base measure and for what f depends on: here against the exact ELBO's gradients."""
    torch.manual_seed(0)
    make = partial(BipartiteIsing, sizes=(2, 2))
    vae = VAE(
        Prior(torch.zeros(4), Bernoulli), Conditional(mlp((4, 5, 3)), Bernoulli), Conditional(mlp((3, 8)), make)
    ).double()
    x = all_bits(3)
    parameters = [*vae.decoder.parameters(), *vae.encoder.parameters()]
    truth = torch.autograd.grad(objectives.elbo(vae, x, Exact()).sum(), parameters)
    draws = []
    for seed in range(100):
        q = vae.encoder(x)
        z = q.sample((50,), torch.Generator().manual_seed(seed))
        surrogate = covariance_surrogate(q, lambda z: vae.log_joint(x, z), z)
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(surrogate.sum(), parameters)]))
    sample, exact_gradient = torch.stack(draws), torch.cat([g.flatten() for g in truth])
    error = sample.std(0) / 10
    inside = error > 1e-9
    assert float(((sample.mean(0) - exact_gradient)[inside] / error[inside]).abs().max()) < Z_MAX
    torch.testing.assert_close(sample.mean(0)[~inside], exact_gradient[~inside], rtol=0, atol=1e-9)


def test_covariance_gradient_of_a_gaussian_and_its_refusal() -> None:
    eta = Gaussian.from_mean_log_variance(torch.tensor([0.3, -0.4], dtype=torch.float64)).eta
    rows = eta.expand(2000, 2).clone().requires_grad_()
    q = Gaussian(rows)
    z = q.sample((10,), torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(covariance_surrogate(q, lambda z: -z[..., 0].square(), z).sum(), rows)
    one = eta.clone().requires_grad_()
    (truth,) = torch.autograd.grad(-Gaussian(one).mean()[1] + Gaussian(one).entropy(), one)
    assert float(((gradient.mean(0) - truth) / (gradient.std(0) / 2000**0.5)).abs().max()) < Z_MAX
    with pytest.raises(ValueError, match="at least 2 draws"):
        covariance_surrogate(q, energy, z[:1])


# --- eq-11: own-cubic-joint ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n", "m1", "m2"), [(3, 2, 2), (4, 1, 3), (2, 3, 2)])
def test_the_tight_joint_is_the_cubic_one(n: int, m1: int, m2: int, seed: int) -> None:
    weight = normal(n + 1, m1 + 1, m2 + 1, seed=seed)
    model = cubic_harmonium(weight)
    x, codes = all_bits(n), all_bits(m1 + m2)
    with torch.no_grad():
        table = cubic_log_weight(weight, x, codes[:, None])
        log_joint = table - torch.logsumexp(table.flatten(), 0)
        torch.testing.assert_close(model.log_joint(x, codes[:, None]), log_joint, rtol=1e-9, atol=1e-12)
        # the VAE made of it: prior and decoder, tight with its encoder
        vae, rule = model.as_vae(), exact.enumerate_states(Bernoulli(torch.zeros(m1 + m2, dtype=torch.float64)))
        torch.testing.assert_close(exact.log_joint(vae, x, rule), log_joint, rtol=1e-9, atol=1e-12)
        assert exact.posterior_kl(vae, x, rule).abs().max() < 1e-12
        assert is_consistent(vae, x, rule)
        # back: W with W_000 = −log Z gives the probabilities themselves
        back = cubic_weight(model, (m1, m2))
        torch.testing.assert_close(cubic_log_weight(back, x, codes[:, None]), log_joint, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(back.flatten()[1:], weight.flatten()[1:], rtol=0, atol=0)
        broken = [-weight, 2 * weight, weight.flip(0)]
        broken += [weight.mT] if m1 == m2 else []
        for wrong in broken:
            other = cubic_log_weight(wrong, x, codes[:, None])
            assert (other - torch.logsumexp(other.flatten(), 0) - log_joint).abs().max() > 1e-2


@pytest.mark.parametrize("seed", range(4))
def test_the_prior_is_pinned_and_no_ising_law(seed: int) -> None:
    model = cubic_harmonium(normal(5, 3, 3, seed=seed))
    vae, rule, x = model.as_vae(), exact.enumerate_states(Bernoulli(torch.zeros(4, dtype=torch.float64))), all_bits(4)
    with torch.no_grad():
        # broken: the same decoder and encoder with uniform bits, and with the Ising law of v alone
        for other in (Prior(torch.zeros(4, dtype=torch.float64), Bernoulli),
                      Prior(model.latent_bias.detach(), partial(BipartiteIsing, sizes=(2, 2)))):  # fmt: skip
            mended = VAE(other, vae.decoder, vae.encoder)
            assert not is_consistent(mended, x, rule)
            assert exact.posterior_kl(mended, x, rule).max() > 1e-4
            assert family_residual(mended, x, rule).max() > 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_without_cubic_and_code_interactions_it_is_an_rbm(seed: int) -> None:
    weight = normal(5, 3, 3, seed=seed)
    weight[:, 1:, 1:] = 0.0
    x, codes = all_bits(4), all_bits(4)
    rbm = torch.cat([weight[:, 1:, 0], weight[:, 0, 1:]], 1)  # eq-12
    table = x @ (rbm[1:] @ codes.T + weight[1:, 0, 0, None]) + codes @ rbm[0] + weight[0, 0, 0]
    torch.testing.assert_close(cubic_log_weight(weight, x, codes[:, None]), table.T, rtol=0, atol=1e-12)
    weight[0, 1, 1] = 1.0  # an interaction within the code alone is already no RBM
    assert (cubic_log_weight(weight, x, codes[:, None]) - table.T).abs().max() > 0.5


# --- case-mrf: the experiment ----------------------------------------------------------------------------------------


def test_parts_of_the_gap_of_one_cell(tmp_path) -> None:
    config = Config(pixels=4, group_1=1, group_2=2, evaluations=200)
    record = run(config, results=tmp_path)
    assert run(config, results=tmp_path) == record  # the second one is read
    vae, rule, x, weights = random_vae(config)
    assert float(weights.sum()) == pytest.approx(1.0, rel=1e-12)
    family = [record.metrics[f"family_{name}"] for name in FAMILIES]
    assert all(large < small for small, large in pairwise(family))
    best = exact.mean_field(exact.log_joint(vae, x, rule), 3)
    factorized = VAE(vae.prior, vae.decoder, Conditional(Table(best.eta, x), Bernoulli))
    assert float(weights @ exact.posterior_kl(factorized, x, rule)) == pytest.approx(family[0], rel=1e-6)
    for name in FAMILIES:
        for network in ("affine", "hidden"):
            assert -1e-7 < record.metrics[f"amortization_{name}_{network}"] < 0.1
    assert record.metrics["amortization_states_affine"] < 1e-6
    assert record.metrics["amortization_factorized_affine"] > 1e-5


class Table(torch.nn.Module):
    """The row of each x of a list."""

    def __init__(self, rows: Tensor, x: Tensor) -> None:
        super().__init__()
        self.rows, self.x = rows, x

    def forward(self, x: Tensor) -> Tensor:
        return self.rows[(x[:, None] == self.x).all(-1).double().argmax(1)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pixels": 11}, r"pixels must be a whole number in \[2, 10\]; got 11"),
        ({"group_1": 0}, r"group_1 must be a whole number in \[1, 3\]; got 0"),
        ({"scale": float("nan")}, "scale must be a positive number; got nan"),
    ],
)
def test_bad_configs_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**values)


@pytest.mark.parametrize("gibbs", [False, True], ids=["exact", "sweep"])
def test_bits_of_half_precision_have_their_probability(gibbs: bool) -> None:
    """own-mrf: uniform numbers of bfloat16 itself are below 0.001 three times too often."""
    rare = math.log(0.001 / 0.999)
    q = BipartiteIsing(torch.tensor([rare, rare, 0.0], dtype=torch.bfloat16).expand(400_000, 3), (1, 1))
    generator = torch.Generator().manual_seed(0)
    z = q.gibbs(torch.zeros(400_000, 2, dtype=torch.bfloat16), 1, generator) if gibbs else q.sample((), generator)
    share, wanted = z.double().mean(0), torch.sigmoid(q.eta[0, 0].double())
    assert (share - wanted).abs().max() < 5 * (wanted / 400_000) ** 0.5 + 0.005 * wanted
