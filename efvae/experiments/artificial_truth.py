"""The mixture of four Gaussians behind the artificial example, and expectations under it by quadrature."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor, nn

from efvae import exact
from efvae.families import Bernoulli, GaussianFixedVariance, all_bits
from efvae.models import VAE, CategoricalOver, Conditional, Prior
from efvae.networks import CodeTable

__all__ = ["CENTERS", "N_BITS", "SIGMA", "centers_of", "codes", "evaluate", "expectation_rule", "truth", "vae_with"]

N_BITS = 2

#: Centers of the codes 00, 01, 10, 11. This kite reproduces the paper's four numbers (−3.65, −3.74, −3.70, −3.68) at
#: the optimum that is reached from the truth. A search found it, with 00 in the middle, its complement 11 to one side,
#: and the complementary pair 01, 10 mirrored on the other.
CENTERS = ((0.0, 0.0), (0.9, -1.85), (0.9, 1.85), (-1.9, 0.0))
#: Standard deviation of each component, which the paper does not print either.
SIGMA = 1.0

#: Grid points for each coordinate. Against 241 points the ELBO of the mean-field encoder at the truth, which has a
#: fold along an axis, moves by 1e-4; the other numbers by less than 1e-8.
GRID_POINTS = 101
#: How far the grid reaches beyond the centers, in standard deviations: the mass outside is below 1e-9.
REACH = 6.5
#: How far from one a grid may sum the truth.
COVERAGE = 1e-7
#: Points of smaller weight are dropped: more than half of the box, together below 1e-9 of the mass.
LOG_WEIGHT_FLOOR = -30.0


def codes() -> exact.Rule:
    """The sum over the four codes 00, 01, 10, 11.

    Paper: sec-4-1
    """
    states = all_bits(N_BITS)
    return exact.Rule(states, states.new_zeros(len(states)))


def vae_with(encoder: Conditional, centers: Tensor, sigma: float) -> VAE:
    """The experiment's VAE: uniform prior over the codes, one free center for each code, any encoder.

    ::

        p(z) = 1/4,   p(x | z) = N(x | θ z_oh, σ² I)

    Args:
        encoder: q(z | x).
        centers: columns of θ, for the codes in counting order, shape ``(4, 2)``.
        sigma: standard deviation σ.

    Paper: sec-4-1
    """
    decoder = Conditional(CodeTable(centers), partial(GaussianFixedVariance.from_mean, variance=sigma**2))
    return VAE(Prior(centers.new_zeros(N_BITS), Bernoulli), decoder, encoder)


def centers_of(vae: VAE) -> Tensor:
    """Centers of the codes 00, 01, 10, 11, shape ``(4, 2)``, without gradient."""
    table = vae.decoder.network.table
    assert isinstance(table, Tensor)  # noqa: S101 (the decoder is a CodeTable, which the types cannot say)
    return table.detach().clone()


def truth(distance: float = 1.0, sigma: float = SIGMA, dtype: torch.dtype = torch.float64) -> VAE:
    """The ground truth p*(x, z); its encoder is its own posterior, affine in x, so its ELBO is tight.

    ::

        p*(z) = 1/4,   p*(x | z) = N(x | distance · μ(z), σ² I)

    Args:
        distance: scale of the centers; 1 is the layout that gives the paper's numbers.
        sigma: standard deviation σ of each component.
        dtype: of all parameters.

    Paper: sec-4-1
    """
    centers = distance * torch.tensor(CENTERS, dtype=torch.float64)
    posterior = nn.Linear(2, len(centers), dtype=torch.float64)
    with torch.no_grad():
        posterior.weight.copy_(centers / sigma**2)
        posterior.bias.copy_(-0.5 * centers.square().sum(-1) / sigma**2)
    vae = vae_with(Conditional(posterior, CategoricalOver(all_bits(N_BITS))), centers, sigma)
    return vae.to(dtype).requires_grad_(requires_grad=False)


def expectation_rule(model: VAE, sigma: float, points: int = GRID_POINTS) -> exact.Rule:
    """Points x_k and log-weights with Σ_k w_k f(x_k) ≈ E f(x) for x from the model.

    Args:
        model: the ground truth, float64.
        sigma: its standard deviation.
        points: grid points for each coordinate.

    Raises:
        ValueError: the grid is too coarse for centers that far apart.

    Paper: app-c1
    """
    centers, reach = centers_of(model), REACH * sigma
    box = exact.grid((centers.amin(0) - reach).tolist(), (centers.amax(0) + reach).tolist(), points)
    log_weights = box.log_weights + exact.log_marginal(model, box.points, codes())
    mass = float(log_weights.exp().sum())
    if not abs(mass - 1) < COVERAGE:
        raise ValueError(
            f"a grid of {points} points a side sums the truth to one {mass - 1:+.1e}: take more, or a larger sigma"
        )
    keep = log_weights > LOG_WEIGHT_FLOOR
    return exact.Rule(box.points[keep], log_weights[keep])


def evaluate(vae: VAE, rule: exact.Rule) -> dict[str, float]:
    """ELBO, log-likelihood and posterior gap of a model, in expectation under the truth, in nats.

    ::

        elbo = log_likelihood − gap,   gap = E_{p*} KL(q(z | x) ‖ p(z | x))

    Args:
        vae: any float type; a float64 copy is evaluated.
        rule: from :func:`expectation_rule`.

    Paper: app-c1, eq-1b, def-1
    """
    vae = copy.deepcopy(vae).double().requires_grad_(requires_grad=False)
    weights = rule.log_weights.exp()
    log_likelihood = float(weights @ exact.log_marginal(vae, rule.points, codes()))
    gap = float(weights @ exact.posterior_kl(vae, rule.points, codes()))
    return {"elbo": log_likelihood - gap, "log_likelihood": log_likelihood, "gap": gap}
