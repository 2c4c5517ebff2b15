"""Section 4.1: what a factorized encoder does to a mixture of four Gaussians.

Run one cell of it with ``python -m efvae.experiments.artificial encoder=factorized seed=0``.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from efvae import objectives, records
from efvae.estimators import Exact
from efvae.exact import Rule
from efvae.experiments.artificial_oracle import fit_centers, mean_field_vae
from efvae.experiments.artificial_truth import N_BITS, SIGMA, centers_of, evaluate, expectation_rule, truth, vae_with
from efvae.families import Bernoulli, all_bits
from efvae.models import VAE, CategoricalOver, Conditional
from efvae.networks import mlp
from efvae.records import Record
from efvae.train import Curve, TrainConfig, fit
from efvae.values import check_fields

__all__ = ["ENCODERS", "RECORDED", "STEM", "Config", "Solution", "run", "solve"]

STEM = "sec4_1_artificial"
ENCODERS = ("factorized", "states", "oracle")

#: Entries of the curve in each stage.
CURVE_POINTS = 40
#: Steps between two checkpoints: well under a second of work.
CHECKPOINT_EVERY = 100
#: Share of the learning rate that is left at the last step of a stage.
FINAL_RATE = 0.01


#: Scales of the centers, in σ, that the expectations are exact for.
NEAREST, FARTHEST = 0.01, 20.0


@dataclass(frozen=True)
class Config:
    """One cell of the artificial example.

    Args:
        encoder: ``factorized``: two independent bits from a network, as in the paper; ``states``: a network with one
            logit for each of the four codes, which contains the true posterior; ``oracle``: the best factorized
            posterior itself, without a network (seed, steps and width then change nothing).
        seed: of the network's first weights and of the samples.
        distance: scale of the centers; 1 is the layout that gives the paper's numbers.
        sigma: standard deviation of the components.
        pretrain_steps: steps of the encoder alone, the decoder held at the truth.
        joint_steps: steps of encoder and decoder together.
        batch_size: fresh samples for each step.
        learning_rate: of Adam at the first step of each stage; it falls along a half cosine.
        width: units in each of the two hidden layers.

    Raises:
        ValueError: a value out of its range; or a distance that is too small or large for sigma.

    Paper: sec-4-1, app-c1
    """

    encoder: str = "factorized"
    seed: int = 0
    distance: float = 1.0
    sigma: float = SIGMA
    pretrain_steps: int = 3000
    joint_steps: int = 4000
    batch_size: int = 512
    learning_rate: float = 5e-3
    width: int = 64

    def __post_init__(self) -> None:
        check_fields(
            self,
            choices={"encoder": ENCODERS},
            least={"seed": 0, "pretrain_steps": 1, "joint_steps": 1, "batch_size": 1, "width": 1},
            positive=("distance", "sigma", "learning_rate"),
        )
        if not NEAREST <= self.distance / self.sigma <= FARTHEST:
            raise ValueError(
                f"distance must be from {NEAREST:g} to {FARTHEST:g} times sigma, which the grid of the expectations "
                f"resolves; got {self.distance:g} and sigma {self.sigma:g}"
            )


#: Settings of the committed records, which the pages show; others in the same folder are not meant.
RECORDED = Config(pretrain_steps=4000, joint_steps=6000, batch_size=1024)


@dataclass(frozen=True)
class Solution:
    """A record together with the models it speaks of.

    Args:
        record: config, metrics, curve and provenance.
        truth: the ground truth p*, float64.
        vae: the VAE after joint training, float64.
        rule: expectation under the truth.
    """

    record: Record
    truth: VAE
    vae: VAE
    rule: Rule


def solve(config: Config, checkpoint: Path | None = None) -> Solution:
    """Compute one cell; nothing but checkpoints is stored.

    Metrics, all in nats and in expectation under p*::

        negative_entropy         E log p*(x), the best reachable log-likelihood
        elbo_pretrained          decoder at the truth, best encoder of its family
        elbo_joint               after joint training, and with it
        log_likelihood_joint     E log p(x)
        gap_pretrained           E KL(q(z | x) ‖ p*(z | x)) = negative_entropy − elbo_pretrained
        gap_joint                E KL(q(z | x) ‖ p(z | x)) = log_likelihood_joint − elbo_joint
        approximation_error      negative_entropy − log_likelihood_joint
        center_00_x1 ...         learned centers

    Args:
        config: the cell.
        checkpoint: folder for the checkpoints of the two stages; a killed run continues from them.

    Raises:
        efvae.train.TrainingError: the loss became NaN or infinite.
        efvae.checkpoint.CheckpointError: a checkpoint is damaged.

    Paper: sec-4-1, app-c1, eq-2
    """
    started = time.monotonic()
    model = truth(config.distance, config.sigma)
    rule = expectation_rule(model, config.sigma)
    if config.encoder == "oracle":
        pretrained = evaluate(mean_field_vae(centers_of(model), config.sigma), rule)
        vae, curve = fit_centers(centers_of(model), config.sigma, rule)
    else:
        vae, pretrained, curve = _train(config, rule, checkpoint)
    negative_entropy = evaluate(model, rule)["log_likelihood"]
    joint = evaluate(vae, rule)
    metrics = {
        "negative_entropy": negative_entropy,
        "elbo_pretrained": pretrained["elbo"],
        "elbo_joint": joint["elbo"],
        "log_likelihood_joint": joint["log_likelihood"],
        "gap_pretrained": pretrained["gap"],
        "gap_joint": joint["gap"],
        "approximation_error": negative_entropy - joint["log_likelihood"],
    }
    for code, center in zip(all_bits(N_BITS), centers_of(vae).double(), strict=True):
        for axis, value in enumerate(center.tolist(), start=1):
            metrics[f"center_{int(code[0])}{int(code[1])}_x{axis}"] = value
    seconds = time.monotonic() - started
    record = records.make(STEM, config, metrics, curve, seconds=seconds, show=("encoder", "distance", "seed"))
    return Solution(record, model, vae.double().requires_grad_(requires_grad=False), rule)


def run(
    config: Config, *, results: Path | None = None, refresh: bool = False, checkpoint: Path | None = None
) -> Record:
    """The record of one cell, computed unless it is there already.

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.
        checkpoint: folder for checkpoints, see :func:`solve`.

    Raises:
        RecordError: a folder cannot be written, or the record is corrupt.

    Paper: sec-4-1, app-c1
    """
    if checkpoint is not None:
        records.check_folder(checkpoint)
    return records.stored(STEM, config, lambda: solve(config, checkpoint).record, results=results, refresh=refresh)


def _train(config: Config, rule: Rule, checkpoint: Path | None) -> tuple[VAE, dict[str, float], Curve]:
    """Two stages: the encoder with the decoder held at the truth, then both from there."""
    model = truth(config.distance, config.sigma, torch.float32)
    vae = vae_with(_encoder(config), centers_of(model), config.sigma)

    def evaluation() -> dict[str, float]:
        return evaluate(vae, rule)

    def stage(name: str, steps: int, seed: int) -> Curve:
        return fit(
            vae,
            lambda x, generator: -objectives.elbo(vae, x, Exact(), generator),
            lambda generator: model.sample(config.batch_size, generator)[0],
            TrainConfig(
                steps=steps,
                learning_rate=config.learning_rate,
                final_learning_rate=FINAL_RATE * config.learning_rate,
                seed=seed,
                eval_every=max(1, steps // CURVE_POINTS),
                checkpoint_every=CHECKPOINT_EVERY if checkpoint else 0,
            ),
            evaluate=evaluation,
            checkpoint=checkpoint / f"{_cell(config)}.{name}.safetensors" if checkpoint else None,
        )

    start = Curve({"step": [0.0]} | {name: [value] for name, value in evaluation().items()})
    vae.decoder.requires_grad_(requires_grad=False)
    first = stage("pretrain", config.pretrain_steps, 2 * config.seed)
    pretrained = evaluation()
    vae.decoder.requires_grad_(requires_grad=True)
    second = stage("joint", config.joint_steps, 2 * config.seed + 1)
    second["step"] = [step + config.pretrain_steps for step in second["step"]]
    return vae, pretrained, {name: start[name] + first[name] + second[name] for name in start}


def _encoder(config: Config) -> Conditional:
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(config.seed)
        states: Tensor = all_bits(N_BITS).float()
        if config.encoder == "factorized":
            return Conditional(mlp((2, config.width, config.width, N_BITS)), Bernoulli)
        return Conditional(mlp((2, config.width, config.width, len(states))), CategoricalOver(states))


def _cell(config: Config) -> str:
    return records.cell_name(STEM, records.config_dict(config), None, ("encoder", "distance", "seed"))


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
