"""How the digit experiment trains and evaluates its models; its cells are in :mod:`efvae.experiments.rbm`."""

from __future__ import annotations

import copy
import math
from typing import Protocol

import torch
from torch import Tensor, nn

from efvae.data.digits import Digits
from efvae.estimators import DisARM
from efvae.families import Bernoulli, all_bits
from efvae.gibbs import PersistentChains, annealed_log_partition
from efvae.harmonium import Harmonium
from efvae.log_weights import LogWeights
from efvae.models import VAE, Conditional, Prior
from efvae.networks import mlp
from efvae.objectives import elbo
from efvae.rbm import joint_table, table_elbo, total_correlation, with_prior
from efvae.text.annealed import anneal, importance
from efvae.train import Curve, TrainConfig, fit

__all__ = ["ENUMERABLE", "Plan", "evaluate", "pixel_logits", "train"]

#: Most latent bits that are enumerated here.
ENUMERABLE = 12
#: Entries of the curve; each is a candidate for the model that is kept.
CURVE_POINTS = 25
#: Share of the learning rate that is left at the last step.
FINAL_RATE = 0.01
#: First weights of an RBM have this standard deviation over the root of the number of latent bits.
FIRST_WEIGHT = 0.6
#: Chains of annealed importance sampling for the curve and for the record, and temperatures for the curve.
QUICK_CHAINS, FINAL_CHAINS, QUICK_TEMPERATURES = 200, 1000, 300
#: Of a VAE with more bits: pairs of codes for each gradient; draws for each image and its ELBO, for the curve and for
#: the record; chains of annealed importance sampling for each image.
PAIRS, QUICK_DRAWS, FINAL_DRAWS, IMAGE_CHAINS = 4, 40, 800, 10


class Plan(Protocol):
    """What :func:`train` reads of a configuration."""

    # read-only, so that a frozen dataclass satisfies it

    @property
    def model(self) -> str: ...  # noqa: D102

    @property
    def latent(self) -> int: ...  # noqa: D102

    @property
    def decoder(self) -> str: ...  # noqa: D102

    @property
    def encoder(self) -> str: ...  # noqa: D102

    @property
    def prior(self) -> str: ...  # noqa: D102

    @property
    def seed(self) -> int: ...  # noqa: D102

    @property
    def steps(self) -> int: ...  # noqa: D102

    @property
    def learning_rate(self) -> float: ...  # noqa: D102

    @property
    def batch_size(self) -> int: ...  # noqa: D102

    @property
    def width(self) -> int: ...  # noqa: D102

    @property
    def chains(self) -> int: ...  # noqa: D102

    @property
    def sweeps(self) -> int: ...  # noqa: D102


def pixel_logits(digits: Digits) -> Tensor:
    """Logits of the pixels' training means, kept off 0 and 1 since some pixels are never set, shape ``(64,)``."""
    return torch.logit(digits.train.mean(0).clamp(0.005, 0.995))


def train(
    plan: Plan, digits: Digits, *, likelihood: bool = False, looks: int = CURVE_POINTS
) -> tuple[Harmonium | VAE, Curve, float]:
    """Train one model; layers draw their first weights from the global generator.

    Args:
        plan: how.
        digits: on what.
        likelihood: train a VAE by its exact log-likelihood, which leaves its encoder alone, in place of the ELBO.
        looks: entries of the curve, evenly spaced; each is a candidate for the model that is kept.

    Returns:
        The model where its validation objective was best, the curve, and the step of the best.

    Own: own-digits-baseline
    """
    generator = torch.Generator().manual_seed(plan.seed)  # for first weights, chains and annealing
    model = _vae(plan, digits) if plan.model == "vae" else _rbm(plan, digits, generator)
    start = Bernoulli(pixel_logits(digits)).sample((plan.chains,), generator)
    chains = PersistentChains(model, start, plan.sweeps) if isinstance(model, Harmonium) else None
    by_chains = plan.model == "rbm-pcd"
    judged = "elbo" if isinstance(model, VAE) and not likelihood else "log_likelihood"
    keeper = _Keeper(model, digits, generator, judged, exact=not by_chains and plan.latent <= ENUMERABLE)

    def loss(x: Tensor, noise: torch.Generator) -> Tensor:
        if isinstance(model, VAE):
            if likelihood:
                return -torch.logsumexp(joint_table(model, x, keeper.states), 0)
            return -table_elbo(model, x, keeper.states) if keeper.exact else -elbo(model, x, DisARM(PAIRS), noise)
        return chains.loss(x, noise) if chains is not None and by_chains else -model.log_marginal(x)

    settings = TrainConfig(
        plan.steps,
        plan.learning_rate,
        FINAL_RATE * plan.learning_rate,
        seed=plan.seed,
        eval_every=max(1, plan.steps // looks),
    )
    curve = fit(
        chains if chains is not None and by_chains else model,
        loss,
        lambda g: digits.train[torch.randint(len(digits.train), (plan.batch_size,), generator=g)],
        settings,
        evaluate=keeper.look,
    )
    model.load_state_dict(keeper.state)
    return model, curve, curve["step"][keeper.best]


def _vae(plan: Plan, digits: Digits) -> VAE:
    n, m = digits.train.shape[1], plan.latent

    def network(kind: str, inputs: int, outputs: int) -> nn.Sequential:
        return mlp((inputs, plan.width, outputs) if kind == "mlp" else (inputs, outputs))

    decoder, encoder = network(plan.decoder, m, n), network(plan.encoder, n, m)
    with torch.no_grad():
        dict(decoder[-1].named_parameters())["bias"].copy_(pixel_logits(digits))
    prior = Prior(torch.zeros(m), Bernoulli, learn=plan.prior == "bits")
    return VAE(prior, Conditional(decoder, Bernoulli), Conditional(encoder, Bernoulli))


def _rbm(plan: Plan, digits: Digits, generator: torch.Generator) -> Harmonium:
    """Small random weights, and biases at which both sides are as undecided as the data allow."""
    bias, mean = pixel_logits(digits), digits.train.mean(0)
    weight = FIRST_WEIGHT / math.sqrt(plan.latent) * torch.randn(len(bias), plan.latent, generator=generator)
    return Harmonium(Bernoulli, Bernoulli, weight, bias - weight.sum(1) / 2, -(mean @ weight))


class _Keeper:
    """Evaluates a model on the way and keeps the parameters with the best validation objective, judged by a metric."""

    def __init__(
        self, model: Harmonium | VAE, digits: Digits, generator: torch.Generator, judged: str, *, exact: bool
    ) -> None:
        self.model, self.digits, self.generator, self.exact = model, digits, generator, exact
        self.judged = f"{judged}_validation"
        bits = model.prior.eta.numel() if isinstance(model, VAE) else len(model.latent_bias)
        self.states = all_bits(bits if exact else 0).float()
        self.state = copy.deepcopy(model.state_dict())
        self.best, self.objective, self.entry = 0, -math.inf, 0

    def look(self) -> dict[str, float]:
        """Metrics for the curve."""
        with torch.no_grad():
            metrics = self._metrics()
        objective = metrics[self.judged]
        if objective > self.objective:
            self.best, self.objective = self.entry, objective
            self.state = copy.deepcopy(self.model.state_dict())
        self.entry += 1
        return metrics

    def _metrics(self) -> dict[str, float]:
        parts = {"train": self.digits.train, "validation": self.digits.validation}
        model = self.model
        if isinstance(model, VAE) and not self.exact:
            return {f"elbo_{part}": float(_elbo(model, x, QUICK_DRAWS, _again())[0]) for part, x in parts.items()}
        if isinstance(model, VAE):
            found = {f"elbo_{part}": table_elbo(model, x, self.states).mean() for part, x in parts.items()}
            for part, x in parts.items():
                found[f"log_likelihood_{part}"] = torch.logsumexp(joint_table(model, x, self.states), 0).mean()
            return {name: value.item() for name, value in found.items()}
        log_z = (
            model.log_partition()
            if self.exact
            else _ais(model, (QUICK_CHAINS, QUICK_TEMPERATURES), self.digits, self.generator).log_mean
        )
        return {
            f"log_likelihood_{part}": (model.visible_log_weight(x).mean() - log_z).item() for part, x in parts.items()
        }


def _again() -> torch.Generator:
    """The same draws at each look: what changes is the model."""
    return torch.Generator().manual_seed(0)


def _elbo(vae: VAE, x: Tensor, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean ELBO over images by codes of the encoder, and its Monte Carlo error."""
    eta = vae.encode(x).eta
    log_w = torch.cat(
        [
            importance(lambda z: vae.log_joint(x, z), eta, QUICK_DRAWS, generator).values
            for _ in range(draws // QUICK_DRAWS)  # a few at a time, for memory
        ]
    )
    return log_w.mean(), (log_w.var(0).sum() / draws).sqrt() / len(x)


def _ais(model: Harmonium, effort: tuple[int, int], digits: Digits, generator: torch.Generator) -> LogWeights:
    base = pixel_logits(digits).to(model.weight.dtype)
    return annealed_log_partition(model, *effort, generator, base=base)


def evaluate(model: Harmonium | VAE, digits: Digits, temperatures: int, generator: torch.Generator) -> dict[str, float]:
    """Metrics of a trained model, see :func:`efvae.experiments.rbm.solve`.

    Args:
        model: float64.
        digits: the data.
        temperatures: of annealed importance sampling.
        generator: for annealed importance sampling.

    Own: own-digits-baseline
    """
    parts = {name: getattr(digits, name).double() for name in ("train", "validation", "test")}
    bits = model.prior.eta.numel() if isinstance(model, VAE) else len(model.latent_bias)
    with torch.no_grad():
        if isinstance(model, VAE):
            if bits > ENUMERABLE:
                metrics = _estimates(model, parts, temperatures, generator)
            else:
                metrics = _bounds(model, parts, all_bits(bits))
            metrics["prior_total_correlation"] = 0.0
            counted = [*model.decoder.parameters(), *model.prior.parameters()]
            return metrics | {"parameters": float(sum(p.numel() for p in counted))}
        annealed = _ais(model, (FINAL_CHAINS, temperatures), digits, generator)
        metrics = {"parameters": float(sum(p.numel() for p in model.parameters())),
                   "log_partition_ais": float(annealed.log_mean), "ais_error": float(annealed.standard_error),
                   "ais_samples": float(annealed.effective_samples)}  # fmt: skip
        if bits > ENUMERABLE:
            for part, x in parts.items():
                mean = float(model.visible_log_weight(x).mean()) - float(annealed.log_mean)
                # the posterior of an RBM has independent bits: its own encoder is exact, whatever Z
                metrics |= {f"log_likelihood_{part}": mean, f"elbo_{part}": mean, f"gap_{part}": 0.0}
            return metrics
        states = all_bits(bits)
        metrics |= _bounds(model.as_vae(), parts, states)
        metrics["log_partition"] = float(model.log_partition())
        metrics["prior_total_correlation"] = float(total_correlation(model.latent_log_weight(states), states))
        uniform = with_prior(model.as_vae(), Prior(torch.zeros(bits).double(), Bernoulli))
        return metrics | {
            f"elbo_uniform_{part}": float(table_elbo(uniform, x, states).mean()) for part, x in parts.items()
        }


def _estimates(vae: VAE, parts: dict[str, Tensor], temperatures: int, generator: torch.Generator) -> dict[str, float]:
    """What :func:`_bounds` sums over all codes, from codes of the encoder and chains that begin there."""
    metrics: dict[str, float] = {}
    for part, x in parts.items():
        mean, error = _elbo(vae, x, FINAL_DRAWS, generator)
        eta = vae.encode(x).eta
        annealed = anneal(lambda z, x=x: vae.log_joint(x, z), eta, IMAGE_CHAINS, temperatures, generator)  # type: ignore[misc]
        likelihood = annealed.log_mean
        metrics |= {f"log_likelihood_{part}": float(likelihood.mean()), f"elbo_{part}": float(mean),
                    f"gap_{part}": float(likelihood.mean() - mean), f"elbo_error_{part}": float(error),
                    f"log_likelihood_error_{part}":
                    float(annealed.standard_error.square().sum().sqrt()) / len(x)}  # fmt: skip
    return metrics


def _bounds(vae: VAE, parts: dict[str, Tensor], states: Tensor) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for part, x in parts.items():
        likelihood = torch.logsumexp(joint_table(vae, x, states), 0)
        elbo = table_elbo(vae, x, states)
        metrics |= {f"log_likelihood_{part}": float(likelihood.mean()), f"elbo_{part}": float(elbo.mean()),
                    f"gap_{part}": float((likelihood - elbo).mean())}  # fmt: skip
    return metrics
