"""DCGAN networks with their normalisation folded, and the image VAE against the library's families.

Labels: sec-4-2, eq-1a.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as nnf
from torch import nn

from efvae import dcgan, objectives
from efvae.estimators import Reparameterized
from efvae.image_vae import ImageVAE, Posterior, best_sigma, entropy_bound, outputs


def source(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", dcgan.SIZES)
def test_shapes(size):
    z, x = torch.randn(3, 5, generator=source()), torch.randn(3, 3, size, size, generator=source())
    assert dcgan.generator(5, 2, size)(z).shape == (3, 3, size, size)
    assert dcgan.discriminator(2, size)(x).shape == (3, 1)
    assert dcgan.encoder(10, 2, size)(x).shape == (3, 10)


def test_the_tutorials_networks():
    # number of parameters of the tutorial's generator (nz 100, ngf 64) and discriminator (ndf 64)
    assert sum(p.numel() for p in dcgan.generator().parameters()) == 3_576_704
    ours = sum(p.numel() for p in dcgan.discriminator().parameters())
    assert ours == 2_765_568 + 1  # with the bias of the last layer


@pytest.mark.parametrize(("size", "layers"), [(16, 2), (32, 3), (64, 4)])
def test_the_slopes_below_zero_are_the_tutorials(size, layers):
    bends = [layer for layer in dcgan.encoder(4, 2, size) if isinstance(layer, nn.LeakyReLU)]
    assert [layer(torch.tensor([-1.0, 0.0, 2.0])).tolist() for layer in bends] == [pytest.approx([-0.2, 0, 2])] * layers


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="image size must be one of 16, 32, 64 pixels; got 48"):
        dcgan.generator(size=48)
    with pytest.raises(ValueError, match="width must be"):
        dcgan.encoder(4, width=0)


def trained_a_little(network: nn.Module, make) -> nn.Module:
    """So that scales, shifts and running statistics are not the first ones."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.normal_(1, 0.3, generator=source(1))
                module.bias.normal_(0, 0.3, generator=source(2))
        for k in range(3):
            network(make(k))
    return network


@pytest.mark.parametrize("kind", ["generator", "encoder"])
def test_folding_keeps_the_function_and_settling_its_statistics(kind):
    if kind == "generator":
        network, make = dcgan.generator(4, 3, 16), lambda k: torch.randn(50, 4, generator=source(k))
    else:
        network, make = dcgan.encoder(6, 3, 16), lambda k: torch.randn(50, 3, 16, 16, generator=source(k))
    network = trained_a_little(network, make)
    x = make(9)
    plain = dcgan.folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain)
    with torch.no_grad():
        assert torch.allclose(plain(x), network.eval()(x), atol=1e-5)
        batch = make(5)
        settled = dcgan.settle(network, [batch])
        # statistics of one batch: what training mode does on it, up to the factor of the unbiased variance
        assert torch.allclose(settled(batch), network.train()(batch), atol=0.02)
        assert not torch.allclose(settled(batch), plain(batch), atol=0.02)
        assert torch.allclose(settled(batch)[:5], settled(batch[:5]), atol=1e-5)  # no look at other images


def vae(kind="diagonal") -> ImageVAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        decoder = nn.Sequential(nn.Linear(3, 3 * 4 * 4), nn.Tanh(), nn.Unflatten(1, (3, 4, 4)))
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(48, outputs(3, kind)))
    return ImageVAE(decoder, encoder, 3, 0.3, kind).double()


def test_elbo_and_gradient_are_those_of_the_librarys_families():
    model = vae()
    x = torch.rand(7, 3, 4, 4, generator=source(1), dtype=torch.float64) * 2 - 1
    noise = torch.randn(1, 7, 3, generator=source(2), dtype=torch.float64)
    mine = model.elbo(x, noise[0])
    theirs = objectives.elbo(model.as_vae(), x.flatten(1), Reparameterized(1), source(2))
    torch.testing.assert_close(mine, theirs)
    a = torch.autograd.grad(mine.sum(), list(model.parameters()))
    b = torch.autograd.grad(theirs.sum(), list(model.parameters()))
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other)


def test_a_full_covariance_is_a_normal_distribution():
    model = vae("full")
    q = model.posterior(torch.rand(2, 3, 4, 4, generator=source(1), dtype=torch.float64))
    law = torch.distributions.MultivariateNormal(q.mean, scale_tril=q.factor())
    z = torch.randn(2, 3, generator=source(2), dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z), law.log_prob(z))
    prior = torch.distributions.MultivariateNormal(torch.zeros(3).double(), torch.eye(3).double())
    torch.testing.assert_close(q.kl_terms().sum(-1), torch.distributions.kl_divergence(law, prior))
    torch.testing.assert_close(q.draw(z), q.mean + (q.factor() @ z[..., None])[..., 0])
    diagonal = Posterior(q.mean, q.log_scale)
    torch.testing.assert_close(diagonal.log_prob(z), Posterior(q.mean, q.log_scale, 0 * q.factor()).log_prob(z))
    with pytest.raises(ValueError, match="independent coordinates"):
        model.as_vae()


def test_a_full_covariance_of_many_latents_starts_well_conditioned():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = dcgan.encoder(outputs(100, "full"), 32, 16)
    x, z = torch.rand(8, 3, 16, 16, generator=source(1)) * 2 - 1, torch.randn(8, 100, generator=source(2))
    with torch.no_grad():
        q = ImageVAE(nn.Identity(), network, 100, 0.05, "full").posterior(x)
    prior = Posterior(torch.zeros(8, 100), torch.zeros(8, 100))
    assert (q.log_prob(z) > prior.log_prob(z) - 100).all()


def test_the_noise_set_for_a_batch_is_the_best_one_and_the_gradient_that_of_the_maximum():
    model = vae()
    x = torch.rand(7, 3, 4, 4, generator=source(1), dtype=torch.float64) * 2 - 1
    noise = torch.randn(7, 3, generator=source(2), dtype=torch.float64)
    before, kl = model.elbo(x, noise).mean(), model.posterior(x).kl_terms().sum(-1).mean()
    sigma, gain = best_sigma(float((before + kl).detach()), model.sigma, x[0].numel())
    after = model.elbo(x, noise, set_sigma=True).mean()
    assert model.sigma == pytest.approx(sigma, rel=1e-12)
    assert float((after - before).detach()) == pytest.approx(gain, rel=1e-9)
    assert gain > 1
    for other in (0.99, 1.01):
        model.log_sigma.fill_(math.log(other * sigma))
        assert model.elbo(x, noise).mean() < after
    # by differences: σ_d moves with the weights, and its part of the slope is zero
    weight = model.decoder[0].weight
    (slope,) = torch.autograd.grad(after, weight)
    step = 1e-6 * torch.randn(weight.shape, generator=source(3), dtype=torch.float64)
    with torch.no_grad():
        weight.add_(step)
        up = model.elbo(x, noise, set_sigma=True).mean()
        weight.sub_(2 * step)
        down = model.elbo(x, noise, set_sigma=True).mean()
    assert float(up - down) == pytest.approx(float(2 * (slope * step).sum()), rel=1e-5)


def test_the_yardstick_of_the_paper():
    assert entropy_bound(12288, 0.05) == pytest.approx(19375.6, abs=0.05)


@pytest.mark.parametrize("sigma", [0, -0.1, math.nan, math.inf])
def test_noise_must_be_positive(sigma):
    with pytest.raises(ValueError, match="σ_d, must be a positive number"):
        ImageVAE(nn.Identity(), nn.Identity(), 2, sigma)
    with pytest.raises(ValueError, match="encoder must be one of diagonal, full; got 'flow'"):
        ImageVAE(nn.Identity(), nn.Identity(), 2, 0.1, "flow")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_last_layer_as_a_product_is_the_convolution(layout):
    last = dcgan.encoder(7, 4, 16)[-2].to(memory_format=layout)
    x = torch.randn(5, 8, 4, 4, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    nn.init.normal_(last.bias, generator=torch.Generator().manual_seed(1))
    expected = nnf.conv2d(x, last.weight, last.bias)
    assert last(x).shape == (5, 7, 1, 1)
    torch.testing.assert_close(last(x), expected)
    found = torch.autograd.grad(last(x).square().sum(), [last.weight, last.bias])
    wanted = torch.autograd.grad(expected.square().sum(), [last.weight, last.bias])
    torch.testing.assert_close(found, wanted)
