"""The artificial example without networks: mean-field fixed points, closed-form centers, and the harmonium."""

from __future__ import annotations

import copy
import itertools
from functools import partial

import torch
from torch import Tensor, nn

from efvae import exact
from efvae.descent import minimize
from efvae.experiments.artificial_truth import N_BITS, centers_of, codes, evaluate, vae_with
from efvae.families import Bernoulli, GaussianFixedVariance, all_bits
from efvae.harmonium import Harmonium
from efvae.models import VAE, Conditional
from efvae.train import Curve

__all__ = ["MeanField", "fit_centers", "fit_harmonium", "mean_field_vae"]

#: The alternation stops when no center moves more than this, in units of x; it may do so at a saddle.
CENTER_TOLERANCE = 1e-5
MAX_ITERATIONS = 20_000
#: How far the centers are pushed, each its own way, to leave a saddle: the layout is symmetric, a maximum need not be.
PUSH = 0.01
#: Mean-field sweeps stop when no probability moves more than this. Where two optima of q merge, convergence is slower
#: than geometric, and the ELBO there is flat to fourth order.
SWEEP_TOLERANCE = 1e-7
MAX_SWEEPS = 200_000
#: Optimiser runs for the harmonium: from the truth's best parallelogram, and from this many random parameters.
RANDOM_STARTS = 8


class MeanField(nn.Module):
    """The best factorized encoder for given centers: x ↦ logits of the two bits. No network approximates it.

    ::

        arg max_q E_q log p(x, z) + H(q),   q(z) = q_1(z_1) q_2(z_2)

    Args:
        centers: centers of the codes, shape ``(4, 2)``, float64.
        sigma: standard deviation σ of each component.

    Paper: sec-4-1
    """

    def __init__(self, centers: Tensor, sigma: float) -> None:
        super().__init__()
        self.centers: Tensor
        self.register_buffer("centers", centers)
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape ``(batch, 2)`` for x of shape ``(batch, 2)``, without gradient."""
        log_joint = -0.5 * (x - self.centers[:, None]).square().sum(-1) / self.sigma**2
        return exact.mean_field(log_joint, N_BITS, SWEEP_TOLERANCE, MAX_SWEEPS).eta


def mean_field_vae(centers: Tensor, sigma: float) -> VAE:
    """Decoder with these centers and the best factorized encoder for it, float64.

    Paper: sec-4-1
    """
    return vae_with(Conditional(MeanField(centers, sigma), Bernoulli), centers, sigma).requires_grad_(
        requires_grad=False
    )


def fit_centers(start: Tensor, sigma: float, rule: exact.Rule, eval_every: int = 10) -> tuple[VAE, Curve]:
    """Maximise the ELBO over all factorized encoders and all centers, by alternating exact maximisations.

    ::

        q_x ← mean-field optimum for the present centers         μ(z) ← E[q_x(z) x] / E[q_x(z)]

    No step can lower the ELBO. The limit may be a saddle, so that it is then left by L-BFGS in all centers, with the
    gradient E q_x(z) (x − μ(z)) / σ² at the encoder that is best for them. The end depends on the start, as the end
    of training does.

    Args:
        start: first centers, shape ``(4, 2)``, float64.
        sigma: standard deviation σ of each component.
        rule: expectation under the truth.
        eval_every: iterations between two entries of the curve.

    Returns:
        The VAE at the end, and ELBO, log-likelihood and gap on the way.

    Raises:
        RuntimeError: no limit after ``MAX_ITERATIONS``.

    Paper: sec-4-1, app-c1
    """
    centers, curve = start, Curve()
    for iteration in range(MAX_ITERATIONS):
        if iteration % eval_every == 0:
            _enter(curve, iteration, evaluate(mean_field_vae(centers, sigma), rule))
        weights = _responsibilities(centers, sigma, rule)
        new = weights @ rule.points / weights.sum(1, keepdim=True)
        moved, centers = float((new - centers).abs().max()), new
        if moved < CENTER_TOLERANCE:
            vae = mean_field_vae(_climb(centers, sigma, rule), sigma)
            _enter(curve, iteration + 1, evaluate(vae, rule))
            return vae, curve
    raise RuntimeError(f"fit_centers: centers still move by {moved:g} after {MAX_ITERATIONS} iterations")


def _responsibilities(centers: Tensor, sigma: float, rule: exact.Rule) -> Tensor:
    """Weight w_k q(z | x_k) of each code at each point, shape ``(4, k)``, for the best factorized q."""
    log_q = mean_field_vae(centers, sigma).encoder(rule.points).log_prob(all_bits(N_BITS)[:, None])
    return (log_q + rule.log_weights).exp()


def _climb(centers: Tensor, sigma: float, rule: exact.Rule) -> Tensor:
    """The maximum of the ELBO next to the given centers."""
    angle = torch.arange(len(centers), dtype=torch.float64)  # in radians: no symmetry of the layout maps these pushes
    moved = (centers + PUSH * torch.stack([angle.cos(), angle.sin()], 1)).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [moved], max_iter=300, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        now = moved.detach()
        weights = _responsibilities(now, sigma, rule)
        # by the envelope theorem the encoder, being optimal, contributes nothing to the gradient
        moved.grad = (weights.sum(1, keepdim=True) * now - weights @ rule.points) / sigma**2
        return now.new_tensor(-evaluate(mean_field_vae(now, sigma), rule)["elbo"])

    optimizer.step(closure)
    return moved.detach()


def _enter(curve: Curve, step: int, metrics: dict[str, float]) -> None:
    for name, value in {"step": float(step), **metrics}.items():
        curve.setdefault(name, []).append(value)


def fit_harmonium(model: VAE, sigma: float, rule: exact.Rule, seed: int = 0) -> tuple[Harmonium, float]:
    """Maximum-likelihood harmonium: Gaussian x of the same σ, two Bernoulli bits.

    ::

        log p(x, z) = log N(x | 0, σ² I) + ⟨x, W z + u⟩ + ⟨z, v⟩ − log Z

    Its four centers σ²(W z + u) form a parallelogram, and its prior is its own marginal. The exact expected
    log-likelihood is maximised by L-BFGS from several starts; the best end is kept. Swapping or flipping bits
    changes no likelihood, so the bits are named to agree best with the truth.

    Args:
        model: the ground truth, float64.
        sigma: standard deviation σ.
        rule: expectation under the truth.
        seed: of the random starts.

    Returns:
        The harmonium, float64, and its expected log-likelihood in nats.

    Paper: fig-2, thm-1, eq-7
    """
    generator = torch.Generator().manual_seed(seed)
    centers = centers_of(model)
    design = torch.cat([all_bits(N_BITS), torch.ones(len(centers), 1, dtype=torch.float64)], 1)
    affine = torch.linalg.lstsq(design, centers / sigma**2).solution  # rows: columns of W, then u
    starts = [(affine[:N_BITS].T.contiguous(), affine[N_BITS])]
    for _ in range(RANDOM_STARTS):
        draw = torch.randn(N_BITS + 1, 2, generator=generator, dtype=torch.float64)
        starts.append((affine.norm() * draw[:N_BITS], draw[N_BITS]))
    fits = [_maximise(weight, bias, sigma, rule) for weight, bias in starts]
    best, value = max(fits, key=lambda fit: round(fit[1], 9))  # the first of equals
    return _name_bits(best, model, rule), value


def _maximise(weight: Tensor, bias: Tensor, sigma: float, rule: exact.Rule) -> tuple[Harmonium, float]:
    visible = partial(GaussianFixedVariance, variance=sigma**2)
    # v makes the codes equally likely at the start
    probe = Harmonium(visible, Bernoulli, weight, bias, torch.zeros(N_BITS, dtype=torch.float64))
    with torch.no_grad():
        share = probe.latent_log_weight(all_bits(N_BITS))
    harmonium = Harmonium(visible, Bernoulli, weight, bias, torch.stack([share[0] - share[2], share[0] - share[1]]))
    expectation = rule.log_weights.exp()

    def loss() -> Tensor:
        return -(expectation * harmonium.log_marginal(rule.points)).sum()

    value = -minimize(loss, harmonium.parameters(), 500, tolerance_change=1e-14)
    return harmonium.requires_grad_(requires_grad=False), value


def _name_bits(harmonium: Harmonium, model: VAE, rule: exact.Rule) -> Harmonium:
    """The same distribution of x with the bits swapped and flipped so that the codes agree best with the truth."""
    true_posterior = exact.log_posterior(model, rule.points, codes()).exp() * rule.log_weights.exp()
    states, best, best_value = all_bits(N_BITS), harmonium, -torch.inf
    for order, flips in itertools.product(itertools.permutations(range(N_BITS)), states):
        candidate = _renamed(harmonium, list(order), flips)
        posterior = candidate.latent(candidate.latent_eta(rule.points)).log_prob(states[:, None])
        value = float((true_posterior * posterior).sum())
        if value > best_value:
            best, best_value = candidate, value
    return best


def _renamed(harmonium: Harmonium, order: list[int], flips: Tensor) -> Harmonium:
    """Code z' of the result is z with its bits reordered and then flipped where ``flips`` is 1."""
    # z_i = flip_i + (1 − 2 flip_i) z'_i turns ⟨x, W z + u⟩ + ⟨z, v⟩ into the same form
    weight, bias, latent = harmonium.weight[:, order], harmonium.visible_bias, harmonium.latent_bias[order]
    renamed = copy.deepcopy(harmonium)
    renamed.weight.copy_(weight * (1 - 2 * flips))
    renamed.visible_bias.copy_(bias + weight @ flips)
    renamed.latent_bias.copy_(latent * (1 - 2 * flips))
    return renamed
