"""Oracles: likelihood, posterior and ELBO by enumeration or quadrature over the latent space.

One rule of points and weights stands for both: a sum over states has weights one, a quadrature has the weights of
its nodes. All oracles compute in float64 and refuse anything less: call ``vae.double()`` on a copy first.

A quadrature has to be wide and fine enough for the posterior of every x, which may be far narrower than the prior.
Where it misses the encoder's law the oracles refuse, and where a :func:`grid` is coarser than a posterior is wide
along one of its axes. Where another rule misses a posterior, or a grid is not wide enough, or a posterior is narrow
across the axes, they cannot know: compare with a rule of more points. A grid is the safe choice for one or two
coordinates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from efvae.estimators import gauss_hermite_nodes
from efvae.families import Bernoulli, ExponentialFamily, Multinomial, all_bits
from efvae.families.base import check_state_count
from efvae.families.bernoulli import require_bits
from efvae.models import VAE, require_settled
from efvae.values import check_whole

__all__ = [
    "COVERAGE",
    "Rule",
    "common_log_base_measure",
    "elbo",
    "enumerate_states",
    "gauss_hermite",
    "grid",
    "log_joint",
    "log_marginal",
    "log_posterior",
    "mean_field",
    "posterior_kl",
    "require_finite",
    "require_float64",
    "require_weights",
]

#: How far from one a rule may sum the encoder's law. A part that is missed counts with log q/p, tens of nats or more.
COVERAGE = 1e-6
#: Largest shares of a posterior density that one point, and two together, may hold along an axis of a grid: in one
#: coordinate sums beyond are off by a thousandth of a nat and more, sums within by no more than that.
COARSE = (0.65, 0.93)
#: How far from one the weights of observations may sum.
WEIGHTS_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Rule:
    """Points z_k and log-weights log w_k with Σ_k w_k f(z_k) = Σ_z f(z), or ≈ ∫ f(z) dz.

    Args:
        points: shape ``(k, *event)``, float64.
        log_weights: shape ``(k,)``, float64.
        even: numbers of points along the axes of a grid of equal steps, whose product is k; empty for any other rule.

    Raises:
        ValueError: not float64, the two lengths differ, a point is not finite, or a weight is no number below infinity.
    """

    points: Tensor
    log_weights: Tensor
    even: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        require_float64(self.points, "the points of a Rule")
        require_float64(self.log_weights, "the weights of a Rule")
        if self.log_weights.shape != self.points.shape[:1]:
            raise ValueError(
                f"Rule: needs one weight for each point, got {tuple(self.log_weights.shape)} weights "
                f"for points of shape {tuple(self.points.shape)}"
            )
        if not bool(self.points.isfinite().all()) or not bool((self.log_weights < torch.inf).all()):
            raise ValueError("Rule: points must be finite, and logarithms of weights below infinity (−∞ for none)")


def enumerate_states(family: ExponentialFamily) -> Rule:
    """The sum over all states of a finite family, such as ``vae.prior()``.

    Raises:
        TypeError: something else, such as ``vae.prior`` without the call.
        ValueError: the family's support is infinite or too large.
    """
    if not isinstance(family, ExponentialFamily):
        raise TypeError(f"enumerate_states takes a family, such as vae.prior(), got {type(family).__name__}")
    states = family.support().double()
    return Rule(states, states.new_zeros(len(states)))


def gauss_hermite(nodes: int, mean: Tensor, std: Tensor) -> Rule:
    """Product Gauss–Hermite rule for ∫ f(z) dz, accurate where f is close to N(z | mean, std²) times a polynomial.

    Args:
        nodes: number of nodes for each coordinate.
        mean, std: shape ``(n,)``, float64, std > 0; of the posterior, not of the prior, where that is narrower.

    Raises:
        ValueError: other shapes, std is not positive, or there are more points than can be enumerated.
    """
    if mean.ndim != 1 or std.shape != mean.shape:
        raise ValueError(
            f"gauss_hermite: mean and std need one number for each coordinate, got the shapes {tuple(mean.shape)} "
            f"and {tuple(std.shape)}"
        )
    if not bool((std > 0).all()):
        raise ValueError(f"gauss_hermite: std must be positive, got {std.tolist()}")
    check_state_count(nodes ** len(mean), f"a rule of {nodes} nodes in {len(mean)} coordinates")
    noise, log_w = gauss_hermite_nodes(nodes, len(mean), like=mean)
    # ∫ f dz = E f(z)/N(z): with z = mean + std ε the weight is w_k std √(2π) exp(ε²/2) for each coordinate.
    log_density = (
        -0.5 * noise.square().sum(-1) - std.log().sum() - 0.5 * len(mean) * torch.log(2 * mean.new_tensor(torch.pi))
    )
    return Rule(mean + std * noise, log_w - log_density)


def grid(lower: Sequence[float], upper: Sequence[float], points: int) -> Rule:
    """Product trapezoid rule for ∫ f(x) dx on a box; spectrally accurate for smooth f that vanishes at its sides.

    Args:
        lower, upper: corners of the box, one number for each coordinate.
        points: number of points for each coordinate, at least 2.

    Raises:
        ValueError: fewer than 2 points, more than can be enumerated, or corners that enclose no box.
    """
    if len(lower) != len(upper):
        raise ValueError(f"grid: lower has {len(lower)} coordinates and upper {len(upper)}: give one number for each")
    if not all(a < b for a, b in zip(lower, upper, strict=True)):
        raise ValueError(f"grid: each lower corner must be below the upper one, got {list(lower)} and {list(upper)}")
    check_whole("grid", "points", points, 2)
    check_state_count(points ** len(lower), f"a grid of {points} points in {len(lower)} coordinates")
    axes = [torch.linspace(a, b, points, dtype=torch.float64) for a, b in zip(lower, upper, strict=True)]
    weights = []
    for axis in axes:
        weight = torch.full_like(axis, float(axis[1] - axis[0]))
        weight[[0, -1]] *= 0.5
        weights.append(weight.log())
    return Rule(
        torch.cartesian_prod(*axes).reshape(-1, len(axes)),
        torch.cartesian_prod(*weights).reshape(-1, len(axes)).sum(-1),
        (points,) * len(axes),
    )


def log_joint(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    """log p(x, z_k) in nats for all points of the rule, shape ``(k, batch)``.

    Args:
        vae: the model, float64.
        x: observations, shape ``(batch, *event)`` with one batch axis, float64.
        rule: points of the latent space.

    Raises:
        ValueError: x or the model is not float64; x has another number of axes, something that is not finite, or is no
            value of the decoder's family; the prior is over bits, and points of the rule are none.
    """
    require_float64(x, "x")
    for name, value in itertools.chain(vae.named_parameters(), vae.named_buffers()):
        if value.is_floating_point():
            require_float64(value, f"the model's {name}")
    require_settled(vae)
    require_bits(vae.prior(), rule.points, "the rule", "take enumerate_states(vae.prior())")
    _require_values(vae.decoder(rule.points[:1, None]), x)
    return vae.log_joint(x, rule.points[:, None])


def _require_values(decoder: ExponentialFamily, x: Tensor) -> None:
    """Refuse observations that the decoder gives no probability whatever the code, or that would broadcast."""
    if x.ndim != 1 + len(decoder.event_shape):
        raise ValueError(
            f"oracles take x of shape (batch, *event), here event {tuple(decoder.event_shape)}, got {tuple(x.shape)}: "
            "flatten the axes in front, and give the result its shape back"
        )
    require_bits(decoder, x.cpu(), "x")
    if not bool(x.isfinite().all()):
        raise ValueError(f"x has {int((~x.isfinite()).sum())} values that are not finite: mend or drop them")
    outside = (decoder.log_base_measure(x) == -torch.inf).reshape(-1, len(x)).any(0) if len(x) else x.new_zeros(0)
    if bool(outside.any()):
        such = ", such as documents of another length or fractions" if isinstance(decoder, Multinomial) else ""
        name = type(decoder).__name__
        raise ValueError(f"{int(outside.sum())} of {len(x)} observations are no values of the decoder's {name}{such}")


def require_weights(where: str, weights: Tensor, x: Tensor, *, part: bool = False) -> None:
    """Refuse what is no law on some observations.

    Args:
        where: the caller, for the message.
        weights: w, shape ``(batch,)``.
        x: observations, shape ``(batch, *event)``.
        part: whether the observations may be a part of the data, so that the sum may be less than one.

    Raises:
        ValueError: weights of another shape, negative or not finite, or of another sum.

    Own: own-gap-parts
    """
    if weights.shape != x.shape[:1]:
        raise ValueError(f"{where}: needs weights of shape ({len(x)},), got {tuple(weights.shape)}")
    total = float(weights.double().sum())
    too_much, too_little = total - 1 > WEIGHTS_TOLERANCE, 1 - total > WEIGHTS_TOLERANCE
    if not bool((weights >= 0).all()) or too_much or (too_little and not part) or not math.isfinite(total):
        raise ValueError(f"{where}: weights must be ≥ 0 and sum to one; got {float(weights.min()):g} to "
                         f"{float(weights.max()):g} with the sum {total:g}: divide them by it")  # fmt: skip


def common_log_base_measure(decoder: ExponentialFamily, x: Tensor) -> Tensor:
    """log h(x) of a decoder at several codes in nats, shape ``(batch,)``.

    Args:
        decoder: p(x | z) at k codes.
        x: observations, shape ``(batch, *event)``.

    Raises:
        ValueError: h depends on the code, so that this is no conditional exponential family.

    Paper: asm-1
    """
    log_h = decoder.log_base_measure(x[:, None])  # one column, or one for each code
    if bool((log_h != log_h[:, :1]).any()):
        raise ValueError(
            f"the base measure h of the decoder's {type(decoder).__name__} depends on the code, so it is no "
            "conditional exponential family: let ν and η carry it; a variance that depends on z needs Gaussian"
        )
    return log_h[:, 0]


def log_marginal(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    """log p(x) in nats, shape ``(batch,)``.

    ::

        log Σ_k w_k p(x, z_k)

    Raises:
        ValueError: the rule does not sum a prior of probabilities to one, or the prior does not say whether it has
            them; a grid is too coarse for the posterior, which along one of its axes has more than 0.65 in one point or
            0.93 in two; or see :func:`log_joint`. Of a density the rule need cover the posterior only, and whether it
            does is not known.

    Paper: sec-2
    """
    return _normalised(vae, x, rule)[1]


def _require_all_codes(prior: ExponentialFamily, rule: Rule) -> None:
    """A posterior that is normalised over some of the codes, or over others, is none."""
    if prior.discrete is None:
        name = type(prior).__name__
        raise ValueError(f"{name} must say whether it has probabilities or a density: discrete = True or False")
    if prior.discrete:
        mass = float((prior.log_prob(rule.points) + rule.log_weights).logsumexp(0).exp())
        if not abs(mass - 1) <= COVERAGE:
            raise ValueError(
                f"the rule sums the prior to {mass:.8g}, not 1: take enumerate_states(vae.prior()) for its codes"
            )


def _normalised(vae: VAE, x: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """log p(x, z_k) at all points, and log p(x)."""
    _require_all_codes(vae.prior(), rule)
    joint = log_joint(vae, x, rule)
    total = torch.logsumexp(joint + rule.log_weights[:, None], 0)
    if rule.even and len(x):
        with torch.no_grad():
            _refuse_coarse((joint - total + rule.log_weights[:, None]).exp().reshape(*rule.even, len(x)))
    return joint, total


def _refuse_coarse(share: Tensor) -> None:
    """Look along each axis of a grid, where shares of a posterior have the shape ``(*axes, batch)``."""
    for axis in range(share.ndim - 1):
        others = [other for other in range(share.ndim - 1) if other != axis]
        along = share.sum(others) if others else share
        two = along.topk(min(2, len(along)), 0).values
        if bool((two[0] > COARSE[0]).any() or (two.sum(0) > COARSE[1]).any()):
            raise ValueError(
                f"a posterior is narrower than the {len(along)} points along axis {axis} of the grid are apart: one "
                f"holds {float(two[0].max()):.2g} of it, two {float(two.sum(0).max()):.2g}: take more points"
            )


def log_posterior(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    """log p(z_k | x) in nats, shape ``(k, batch)``: a density where the latent space is continuous.

    Raises:
        ValueError: see :func:`log_marginal`.

    Paper: sec-2
    """
    joint, total = _normalised(vae, x, rule)
    return joint - total


def _encoder_log_prob(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    log_q = vae.encode(x).log_prob(rule.points[:, None])
    mass = (log_q.detach() + rule.log_weights[:, None]).logsumexp(0).exp()
    if bool(mass.isnan().any()):
        raise ValueError("the encoder's law q(z | x) is not a number: look for NaN in its network and in x")
    if bool(((mass - 1).abs() > COVERAGE).any()):
        at = int((mass - 1).abs().argmax())
        raise ValueError(
            f"the rule sums the encoder's law q(z | x) to {float(mass[at]):.8g}, not 1, at observation {at}: "
            "take more points, or a wider grid"
        )
    return log_q


def _expectation(log_q: Tensor, value: Tensor, rule: Rule) -> Tensor:
    """Σ_k w_k q(z_k) value_k; a point of probability zero contributes nothing."""
    weight = (log_q + rule.log_weights[:, None]).exp()
    return (weight * torch.where(weight == 0, 0.0, value)).sum(0)  # NaN stays NaN, and a gradient of zero is none


def posterior_kl(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    """The posterior gap KL(q(z | x) ‖ p(z | x)) in nats, shape ``(batch,)``.

    Raises:
        ValueError: the rule does not sum q(z | x) to one within :data:`COVERAGE`, or x or the model is not float64.

    Paper: eq-1b, def-1
    """
    log_q = _encoder_log_prob(vae, x, rule)
    return _expectation(log_q, log_q - log_posterior(vae, x, rule), rule)


def elbo(vae: VAE, x: Tensor, rule: Rule) -> Tensor:
    """Evidence lower bound through the posterior gap, in nats, shape ``(batch,)``.

    ::

        log p(x) − KL(q(z | x) ‖ p(z | x))

    The other form, :func:`efvae.objectives.elbo`, shares no code with it; the tests compare the two.

    Paper: eq-1b, sec-2
    """
    gap = posterior_kl(vae, x, rule)
    return log_marginal(vae, x, rule) - gap


def mean_field(log_joint: Tensor, n_bits: int, tolerance: float = 1e-12, max_sweeps: int = 20_000) -> Bernoulli:
    """The best factorized posterior over bits for each x: arg max_q E_q log p(x, z) + H(q), q = Π_i q_i(z_i).

    Coordinate ascent, exact in each coordinate: logit q_i = E_{q_−i}[log p(x, z_i=1, ·) − log p(x, z_i=0, ·)].
    It is run from the posterior's own marginals and from each of the 2^m codes, and the best end point is kept,
    since the problem can have several local optima.

    Args:
        log_joint: log p(x, z) up to a constant for each x, codes in counting order, shape ``(2**m, batch)``, float64.
        n_bits: m.
        tolerance: stop when no probability moves more than this in a sweep.
        max_sweeps: most sweeps over the bits.

    Returns:
        Bernoulli with ``eta`` of shape ``(batch, m)``, without gradient.

    Raises:
        ValueError: wrong number of rows, not float64, or something that is not finite.
        RuntimeError: not converged after ``max_sweeps``.

    Paper: sec-2, sec-4-1
    """
    require_float64(log_joint, "log_joint")
    if len(log_joint) != 2**n_bits:
        raise ValueError(f"mean_field: {n_bits} bits need {2**n_bits} rows of log_joint, got {len(log_joint)}")
    require_finite("mean_field", log_joint)
    bits = all_bits(n_bits)
    with torch.no_grad():
        table = log_joint - torch.logsumexp(log_joint, 0)
        marginals = bits.T @ table.exp()  # (m, batch)
        starts = [marginals, *(code[:, None].expand_as(marginals) * 0.98 + 0.01 for code in bits)]
        q = torch.stack(starts, 1).flatten(1)  # (m, starts * batch)
        table = table.repeat(1, len(starts))
        eta = _coordinate_ascent(table, q, bits, tolerance, max_sweeps)
        bound = _factorized_elbo(table, eta, bits).reshape(len(starts), -1)
        best = bound.argmax(0)
        eta = eta.reshape(n_bits, len(starts), -1)
        return Bernoulli(eta[:, best, torch.arange(eta.shape[-1])].T.contiguous())


def _coordinate_ascent(table: Tensor, q: Tensor, bits: Tensor, tolerance: float, max_sweeps: int) -> Tensor:
    """Fixed points from the start probabilities q; converged columns are set aside as they finish."""
    eta = torch.logit(q, eps=1e-300)
    active = torch.arange(q.shape[1])
    for _ in range(max_sweeps):
        rows, old = table[:, active], q[:, active]
        new, new_eta = old.clone(), eta[:, active]
        for i in range(len(q)):
            others = torch.ones_like(rows)
            for j in range(len(q)):
                if j != i:
                    others = others * torch.where(bits[:, j, None] == 1, new[j], 1 - new[j])
            new_eta[i] = ((2 * bits[:, i, None] - 1) * others * rows).sum(0)
            new[i] = torch.sigmoid(new_eta[i])
        q[:, active], eta[:, active] = new, new_eta
        active = active[(new - old).abs().amax(0) > tolerance]
        if not len(active):
            return eta
    raise RuntimeError(f"mean_field: {len(active)} columns not converged after {max_sweeps} sweeps")


def _factorized_elbo(table: Tensor, eta: Tensor, bits: Tensor) -> Tensor:
    """E_q table + H(q) for each column."""
    q = Bernoulli(eta.T)
    log_q = q.log_prob(bits[:, None])
    return (log_q.exp() * table).sum(0) + q.entropy()


def require_finite(what: str, log_joint: Tensor) -> None:
    """Refuse a table of log p(x, z) with something that is not finite, such as −∞ for a state of probability zero.

    Raises:
        ValueError: there is such an entry.
    """
    if not bool(log_joint.isfinite().all()):
        raise ValueError(f"{what}: log p(x, z) must be finite: a state of probability zero has no place in the table")


def require_float64(tensor: Tensor, what: str) -> None:
    """Refuse a tensor of another precision: rounding would be larger than what an oracle is asked about.

    Args:
        tensor: any.
        what: how the message calls it.

    Raises:
        ValueError: it is not float64, or no tensor.
    """
    if not isinstance(tensor, Tensor):
        raise ValueError(f"oracles take torch tensors, {what} is a {type(tensor).__name__}: use torch.as_tensor")
    if tensor.dtype != torch.float64:
        raise ValueError(f"oracles compute in float64, {what} is {tensor.dtype}: use .double() on a copy")
