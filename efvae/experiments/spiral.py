"""Section 4.2 where everything can be computed: ELBO training from a curved truth, likelihood, bound and bend exact.

Run one cell of it with ``python -m efvae.experiments.spiral encoder=gaussian seed=0``.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from efvae import records
from efvae.exact import Rule
from efvae.experiments.spiral_measure import evaluate, least_gap, linear_optimum
from efvae.experiments.spiral_model import SpiralVAE, expectation_rule, latent_line, sample
from efvae.experiments.spiral_oracle import ascend
from efvae.records import Record
from efvae.train import Curve, TrainConfig, fit
from efvae.values import check_fields

__all__ = ["ENCODERS", "RECORDED", "STAGES", "STEM", "Config", "Solution", "run", "solve"]

STEM = "sec4_2_spiral"
#: Encoders, with the number of Gaussians in the mixture that the network gives; the oracle has no network.
ENCODERS = {"gaussian": 1, "mixture": 3, "oracle": 1}
#: Names of the stages, which the metrics end in.
STAGES = ("conditional", "encoder", "fixed", "learned")

#: Entries of the curve in each stage.
CURVE_POINTS = 12
#: Share of the learning rate that is left at the last step of a stage.
FINAL_RATE = 0.01


@dataclass(frozen=True)
class Config:
    """One cell: one encoder family and one seed, with both joint trainings.

    Args:
        encoder: ``gaussian``: a Gaussian from a network, as in the paper; ``mixture``: three Gaussians with weights,
            from a network; ``oracle``: the best Gaussian for each x and a free decoder, no network (``joint_steps``
            are its iterations; seed, batch size, learning rate, width and the steps before change nothing).
        seed: of the first weights and of the samples.
        noise: σ of the truth.
        conditional_steps: steps of the encoder alone on E log q(z | x), as in the paper.
        encoder_steps: steps of the encoder alone on the ELBO; 0 goes on to the joint training at once, as in the paper.
        joint_steps: steps of encoder and decoder on the ELBO, once with σ_d fixed and once with it learned.
        batch_size: fresh samples for each step.
        learning_rate: of Adam at the first step of each stage; it falls along a half cosine.
        width: units in each of the two hidden layers of both networks.

    Raises:
        ValueError: a value out of its range.

    Paper: sec-4-2
    """

    encoder: str = "gaussian"
    seed: int = 0
    noise: float = 0.6
    conditional_steps: int = 300
    encoder_steps: int = 600
    joint_steps: int = 900
    batch_size: int = 128
    learning_rate: float = 3e-3
    width: int = 32

    def __post_init__(self) -> None:
        least = {"seed": 0, "conditional_steps": 1, "encoder_steps": 0, "joint_steps": 1, "batch_size": 1, "width": 1}
        check_fields(self, choices={"encoder": ENCODERS}, least=least, positive=("learning_rate",))
        if not 0.3 <= self.noise <= 2:
            raise ValueError(f"noise must be in [0.3, 2], where the quadrature is accurate; got {self.noise}")


#: Settings of the committed records, which the pages show; others in the same folder are not meant.
RECORDED = {
    "gaussian": Config("gaussian", conditional_steps=500, encoder_steps=1500, joint_steps=2000),
    "mixture": Config("mixture", conditional_steps=500, encoder_steps=1500, joint_steps=2000),
    "oracle": Config("oracle", joint_steps=150),
}


@dataclass(frozen=True)
class Solution:
    """A record together with the decoders it speaks of, float64.

    Args:
        record: config, metrics, curve and provenance.
        decoders: μ_d after ``fixed`` and ``learned``, on the points of
            :func:`~efvae.experiments.spiral_model.latent_line`, shape ``(k, 2)``.
        models: by stage; decoder and σ_d of the first two are the truth's. Empty for the oracle.
        rule: expectation under the truth.
    """

    record: Record
    decoders: dict[str, Tensor]
    models: dict[str, SpiralVAE]
    rule: Rule


def solve(config: Config) -> Solution:
    """Compute one cell; nothing is stored.

    Metrics, in expectation under p*, nats unless said::

        negative_entropy          E log p*(x), the best reachable log-likelihood
        linear_elbo               the best tight linear VAE: its likelihood and its ELBO
        elbo_STAGE, gap_STAGE     after the stages conditional, encoder, fixed, learned
        log_likelihood_STAGE      E log p(x); negative_entropy up to the stage encoder
        approximation_error_STAGE negative_entropy − log_likelihood_STAGE
        bent_STAGE                share of the decoder's variance that no affine map explains, under the prior
        bent_encoder_STAGE        the same where the encoder puts its codes
        noise_STAGE               σ_d
        least_gap_STAGE           the gap of the best Gaussian for each x, for the decoder of the stage

    Besides these through each stage, the curve has μ_d after fixed and learned, as columns ``mean_x1_fixed`` ..., with
    the latent points in ``mean_z``.

    Args:
        config: the cell.

    Raises:
        efvae.train.TrainingError: the loss became NaN or infinite.

    Paper: sec-4-2, fn-3
    """
    started = time.monotonic()
    rule, log_p = expectation_rule(config.noise)
    negative_entropy = float(rule.log_weights.exp() @ log_p)
    metrics = {"negative_entropy": negative_entropy, "linear_elbo": linear_optimum(rule)[1]}
    stages, curve, decoders, models = _ascend(config, rule) if config.encoder == "oracle" else _train(config, rule)
    for stage, values in stages.items():
        metrics |= {f"{name}_{stage}": value for name, value in values.items()}
        metrics[f"approximation_error_{stage}"] = negative_entropy - values["log_likelihood"]
    curve["mean_z"] = latent_line().points[:, 0].tolist()
    for stage, mean in decoders.items():
        for axis, values in enumerate(mean.T.tolist(), start=1):
            curve[f"mean_x{axis}_{stage}"] = [round(value, 6) for value in values]
    seconds = time.monotonic() - started
    record = records.make(STEM, config, metrics, curve, seconds=seconds, show=("encoder", "noise", "seed"))
    return Solution(record, decoders, models, rule)


def run(config: Config, *, results: Path | None = None, refresh: bool = False) -> Record:
    """The record of one cell, computed unless it is there already.

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.

    Paper: sec-4-2
    """
    return records.stored(STEM, config, lambda: solve(config).record, results=results, refresh=refresh)


_Parts = tuple[dict[str, dict[str, float]], Curve, dict[str, Tensor], dict[str, SpiralVAE]]


def _ascend(config: Config, rule: Rule) -> _Parts:
    """The oracle: fixed and learned noise from the truth."""
    stages, curve, decoders = {}, Curve(), {}
    for name in ("fixed", "learned"):
        end = ascend(rule, config.noise, learn_noise=name == "learned", iterations=config.joint_steps)
        curve |= {f"{key}_{name}": values for key, values in end.curve.items()}
        columns = {key: values for key, values in end.curve.items() if key != "step"}
        stages["encoder"] = {key: values[0] for key, values in columns.items()}
        stages[name] = {key: values[-1] for key, values in columns.items()}
        decoders[name] = end.mean
    for values in stages.values():
        values["least_gap"] = values["gap"]
    return stages, curve, decoders, {}


def _train(config: Config, rule: Rule) -> _Parts:
    """The networks: the encoder alone by two objectives, then from there both networks, twice."""
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(config.seed)
        vae = SpiralVAE(ENCODERS[config.encoder], config.noise, config.width)
    vae.decoder.requires_grad_(requires_grad=False)
    vae.log_noise.requires_grad = False
    curve, models = Curve(), {}
    for name in STAGES:
        if name != "learned":  # the two joint trainings start at the same place
            start = copy.deepcopy(vae)
        vae = copy.deepcopy(start)
        if name in ("fixed", "learned"):
            vae.decoder.requires_grad_(requires_grad=True)
            vae.log_noise.requires_grad = name == "learned"
        curve |= {f"{key}_{name}": values for key, values in _stage(config, name, vae, rule).items()}
        models[name] = copy.deepcopy(vae).double().requires_grad_(requires_grad=False)
    stages = {name: evaluate(model, rule) for name, model in models.items()}
    for name in STAGES[1:]:
        stages[name]["least_gap"] = least_gap(models[name], rule)
    line = latent_line()
    return stages, curve, {name: models[name].decoder(line.points) for name in STAGES[2:]}, models


def _stage(config: Config, name: str, vae: SpiralVAE, rule: Rule) -> Curve:
    """Train one stage in place; its curve, from before its first step on."""
    steps = {"conditional": config.conditional_steps, "encoder": config.encoder_steps}.get(name, config.joint_steps)
    before = {"step": [0.0]} | {key: [value] for key, value in evaluate(vae, rule).items()}
    if steps == 0:
        return before
    loss: Callable[[Tensor, torch.Generator], Tensor]
    if name == "conditional":
        loss = lambda batch, generator: -vae.posterior(batch[:, :2]).log_prob(batch[:, 2])  # noqa: E731
    else:
        loss = lambda batch, generator: -vae.elbo(batch[:, :2], generator)  # noqa: E731
    after = fit(
        vae,
        loss,
        lambda generator: sample(config.noise, config.batch_size, generator),
        TrainConfig(
            steps=steps,
            learning_rate=config.learning_rate,
            final_learning_rate=FINAL_RATE * config.learning_rate,
            seed=len(STAGES) * config.seed + STAGES.index(name),
            eval_every=max(1, steps // CURVE_POINTS),
        ),
        evaluate=lambda: evaluate(vae, rule),
    )
    return {key: values + after[key] for key, values in before.items()}


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
