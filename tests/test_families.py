"""Laws of exponential families, one test each over all families: asm-1, eq-4a, eq-4b."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from efvae.exact import Rule
from efvae.families import (
    Bernoulli,
    Categorical,
    ExponentialFamily,
    Gaussian,
    GaussianFixedVariance,
    Multinomial,
    all_bits,
)
from tests.cases import BATCHES, CASES, LABELLED, VARIANCE, Z_MAX, Case

each_family = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_batch = pytest.mark.parametrize("batch", BATCHES, ids=str)


def spread(points: Tensor, batch: torch.Size) -> Tensor:
    """Points (k, *event) beside a batch: (k, 1, …, 1, *event)."""
    return points.reshape(len(points), *[1] * len(batch), *points.shape[1:])


def integral(family: ExponentialFamily, value: Tensor, rule: Rule) -> Tensor:
    """Σ_k w_k p(x_k) value_k, the mean by brute force; value of shape (k, *batch or broadcast, ...)."""
    log_p = family.log_prob(spread(rule.points, family.batch_shape))
    weight = (log_p + rule.log_weights.reshape(-1, *[1] * len(family.batch_shape))).exp()
    return (weight.reshape(*weight.shape, *[1] * (value.ndim - weight.ndim)) * value).sum(0)


@each_family
@each_batch
def test_probabilities_sum_to_one(case: Case, batch: tuple[int, ...]) -> None:
    family = case.draw(batch, 1)
    rule = case.rule()
    total = integral(family, torch.ones(len(rule.points), *[1] * len(batch), dtype=torch.float64), rule)
    torch.testing.assert_close(total, torch.ones(batch, dtype=torch.float64), rtol=0, atol=case.tolerance)


@each_family
@each_batch
def test_mean_is_the_average_of_the_statistic(case: Case, batch: tuple[int, ...]) -> None:
    family = case.draw(batch, 2)
    rule = case.rule()
    expected = integral(family, family.sufficient_statistic(spread(rule.points, family.batch_shape)), rule)
    torch.testing.assert_close(family.mean(), expected, rtol=case.tolerance, atol=case.tolerance)


@each_family
def test_mean_is_the_gradient_of_the_log_partition(case: Case) -> None:
    """The closed forms of the subclasses against the law of the base class."""
    family = case.draw((2, 3), 3)
    law = ExponentialFamily.mean(family)
    assert not law.requires_grad
    torch.testing.assert_close(family.mean(), law, rtol=1e-12, atol=1e-12)


@each_family
@each_batch
def test_kl_is_the_average_log_ratio(case: Case, batch: tuple[int, ...]) -> None:
    p, q = case.draw(batch, 4), case.draw(batch, 5)
    rule = case.rule()
    x = spread(rule.points, p.batch_shape)
    ratio = p.log_prob(x) - q.log_prob(x)
    torch.testing.assert_close(p.kl(q), integral(p, ratio, rule), rtol=case.tolerance, atol=case.tolerance)
    assert bool((p.kl(q) > 1e-3).all())
    torch.testing.assert_close(p.kl(p), torch.zeros(batch, dtype=torch.float64), rtol=0, atol=1e-12)


@each_family
@each_batch
def test_entropy_is_minus_the_average_log_probability(case: Case, batch: tuple[int, ...]) -> None:
    family = case.draw(batch, 6)
    rule = case.rule()
    expected = -integral(family, family.log_prob(spread(rule.points, family.batch_shape)), rule)
    torch.testing.assert_close(family.entropy(), expected, rtol=case.tolerance, atol=case.tolerance)


@each_family
def test_gradients_live_in_both_arguments(case: Case) -> None:
    """torch's generic exponential-family KL and entropy detach the first argument; ours must not."""
    p, q = case.draw((2,), 7), case.draw((2,), 8)

    def kl(a: Tensor, b: Tensor) -> Tensor:
        return p.with_eta(a).kl(q.with_eta(b))

    def entropy(a: Tensor) -> Tensor:
        return p.with_eta(a).entropy()

    a, b = p.eta.clone().requires_grad_(), q.eta.clone().requires_grad_()
    assert torch.autograd.gradcheck(kl, (a, b), atol=1e-6)
    assert torch.autograd.gradcheck(entropy, (a,), atol=1e-6)
    assert torch.autograd.gradcheck(lambda e: ExponentialFamily.mean(p.with_eta(e)), (a,), atol=1e-6)
    for argument in (a, b):
        (gradient,) = torch.autograd.grad(kl(a, b).sum(), argument)
        assert gradient.norm() > 1e-3


@each_family
@each_batch
def test_samples_have_the_shape_and_the_moments(case: Case, batch: tuple[int, ...]) -> None:
    family = case.draw(batch, 9)
    n = 4000
    x = family.sample((5, n // 5), torch.Generator().manual_seed(0))
    assert x.shape == (5, n // 5, *batch, *family.event_shape)
    nu = family.sufficient_statistic(x).flatten(0, 1)
    z = (nu.mean(0) - family.mean()) / (nu.std(0) / n**0.5)
    assert float(z.abs().max()) < Z_MAX
    # The second moments too: bits drawn together instead of independently would keep the means.
    rule = case.rule()
    points = family.sufficient_statistic(spread(rule.points, family.batch_shape))
    pair = integral(family, points[..., :-1] * points[..., 1:], rule)
    drawn = nu[..., :-1] * nu[..., 1:]
    spread_of_pairs = drawn.std(0) / n**0.5
    z = torch.where(spread_of_pairs > 0, (drawn.mean(0) - pair) / spread_of_pairs.clamp(min=1e-12), 0.0)
    assert float(z.abs().max()) < Z_MAX


@each_family
def test_samples_repeat_with_the_generator(case: Case) -> None:
    family = case.draw((2,), 10)
    first, second = (family.sample((7,), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


@each_family
def test_support_lists_every_value_once(case: Case) -> None:
    family = case.draw((), 11)
    if "gaussian" in case.name:
        with pytest.raises(ValueError, match="no finite support"):
            family.support()
        return
    support = family.support()
    assert len(torch.unique(support, dim=0)) == len(support)
    torch.testing.assert_close(family.log_prob(support).exp().sum(), torch.tensor(1.0).double(), rtol=0, atol=1e-12)


X = torch.tensor([[0.3, -1.2], [2.0, 0.4]], dtype=torch.float64)


def test_log_prob_agrees_with_scipy() -> None:
    logits = torch.tensor([0.4, -1.3, 2.2], dtype=torch.float64)
    bits = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    counts = torch.tensor([2.0, 0.0, 3.0], dtype=torch.float64)
    mean, variance = torch.tensor([0.5, -0.7]).double(), torch.tensor([0.3, 2.5]).double()
    ours = [
        Bernoulli(logits).log_prob(bits),
        Categorical(logits).log_prob(torch.eye(3).double())[1],
        Gaussian.from_mean_variance(mean, variance).log_prob(X)[1],
        GaussianFixedVariance.from_mean(mean, VARIANCE).log_prob(X)[0],
        Multinomial(logits, 5).log_prob(counts),
    ]
    p = torch.softmax(logits, 0).numpy()
    theirs = [
        stats.bernoulli.logpmf(bits.numpy(), torch.sigmoid(logits).numpy()).sum(),
        stats.multinomial.logpmf([0, 1, 0], 1, p),
        stats.norm.logpdf(X[1].numpy(), mean.numpy(), variance.sqrt().numpy()).sum(),
        stats.norm.logpdf(X[0].numpy(), mean.numpy(), VARIANCE.sqrt().numpy()).sum(),
        stats.multinomial.logpmf(counts.numpy(), 5, p),
    ]
    torch.testing.assert_close(
        torch.stack(ours), torch.tensor([float(v) for v in theirs], dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_gaussian_from_a_network_output() -> None:
    raw = torch.tensor([[0.2, -1.0, 0.5, -0.8]], dtype=torch.float64)
    q = Gaussian.from_mean_log_variance(raw)
    torch.testing.assert_close(q.location, raw[:, :2])
    torch.testing.assert_close(q.variance, raw[:, 2:].exp())


def test_gradient_reaches_a_learned_variance() -> None:
    variance = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = torch.tensor([0.1, 0.9, -0.4], dtype=torch.float64)

    def log_prob(v: Tensor) -> Tensor:
        return GaussianFixedVariance.from_mean(0.5 * torch.ones(3, dtype=torch.float64), v).log_prob(x)

    assert torch.autograd.gradcheck(log_prob, (variance,))


def test_large_logits_stay_finite_in_float32() -> None:
    q = Bernoulli(torch.tensor([[200.0, -200.0, 3.0]]))
    for value in (
        q.log_partition(),
        q.entropy(),
        q.kl(Bernoulli(torch.zeros(3))),
        q.log_prob(torch.tensor([1.0, 0, 1])),
    ):
        assert bool(torch.isfinite(value).all())
    p = Multinomial(torch.tensor([200.0, 0.0, -200.0]), 4)
    assert bool(torch.isfinite(p.entropy()))


def test_log_partition_keeps_its_digits_at_large_logits() -> None:
    """torch's softplus turns linear at 20: 2e-9 off, which an oracle must not be."""
    eta = torch.tensor([20.5, 30.0, -25.0], dtype=torch.float64)
    for value in eta:
        exact = math.log1p(math.exp(-abs(value.item()))) + max(value.item(), 0.0)
        assert Bernoulli(value[None]).log_partition().item() == pytest.approx(exact, rel=1e-15, abs=0)


def test_values_outside_the_support_have_probability_zero() -> None:
    assert Categorical(torch.zeros(5).double(), LABELLED).log_prob(torch.tensor([9.0, 9.0]).double()) == -torch.inf
    assert Multinomial(torch.zeros(3).double(), 5).log_prob(torch.tensor([1.0, 1.0, 1.0]).double()) == -torch.inf


def test_batch_of_document_lengths() -> None:
    eta = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = torch.tensor([0.0, 2.0, 6.0], dtype=torch.float64)
    together = Multinomial(eta, lengths)
    x = together.sample((50,), torch.Generator().manual_seed(1))
    assert torch.equal(x.sum(-1), lengths.expand(50, 3))
    for row, length in enumerate(lengths.tolist()):
        alone = Multinomial(eta[row], int(length))
        torch.testing.assert_close(together.log_prob(x)[:, row], alone.log_prob(x[:, row]))
        torch.testing.assert_close(together.entropy()[row], alone.entropy())


def test_bits_count_from_the_first() -> None:
    assert all_bits(2).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert all_bits(3, torch.zeros(1)).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bernoulli(torch.tensor([1, 0])), "floating-point"),
        (lambda: Bernoulli(torch.tensor(1.0)), "floating-point tensor of shape"),
        (lambda: Gaussian(torch.zeros(3)), "even last axis"),
        (lambda: Gaussian(torch.tensor([0.1, 0.5])), "must be negative"),
        (lambda: GaussianFixedVariance(torch.zeros(2), 0.0), "variance must be positive"),
        (lambda: GaussianFixedVariance(torch.zeros(2), torch.tensor([1.0, -2.0])), "variance must be positive"),
        (lambda: Multinomial(torch.zeros(3), -1), "whole and not negative"),
        (lambda: Multinomial(torch.zeros(3), torch.tensor(1.5)), "whole and not negative"),
        (lambda: Categorical(torch.zeros(3), LABELLED), "one row|must have shape"),
        (lambda: Bernoulli(torch.zeros(40)).support(), "enumeration stops"),
        (lambda: Multinomial(torch.zeros(60), 30).support(), "enumeration stops"),
        (lambda: Multinomial(torch.zeros(2, 3), torch.tensor([1.0, 2.0])).support(), "one length only"),
        (lambda: Bernoulli(torch.zeros(3)).kl(Bernoulli(torch.zeros(2))), "one family"),
        (lambda: Bernoulli(torch.zeros(3)).kl(Categorical(torch.zeros(3))), "one family"),
        (lambda: Multinomial(torch.zeros(3), 2).kl(Multinomial(torch.zeros(3), 3)), "one base measure"),
        (lambda: GaussianFixedVariance(torch.zeros(2), 1.0).kl(GaussianFixedVariance(torch.zeros(2), 2.0)), "base"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, message) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
