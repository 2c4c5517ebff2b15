"""The two stages of section 4.2 after the truth: the encoder by conditional likelihood, and both parts by the ELBO."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from efvae import dcgan
from efvae.devices import current as device
from efvae.experiments.image_config import Config
from efvae.experiments.image_measures import Comparison, conditional_log_likelihood, elbo_on_fresh_samples
from efvae.experiments.image_store import placed
from efvae.experiments.image_truth import BETAS, Truth, half_precision
from efvae.image_vae import ImageVAE, best_sigma, outputs
from efvae.train import Curve, TrainConfig, fit

__all__ = ["empty_vae", "train_encoder", "train_joint"]

#: Entries of a curve (a tenth of the steps is a whole number of them), and images of each entry.
LOOKS, LOOK_IMAGES = 20, 1024
#: Images that a learned σ_d is set by at the end.
SIGMA_IMAGES = 4096
#: Share of the learning rate that is left at the last step.
FINAL_RATE = 0.02


def _encoder_network(config: Config) -> nn.Sequential:
    return dcgan.encoder(outputs(config.latent, config.encoder), config.width, config.size)


def empty_vae(config: Config) -> ImageVAE:
    """A VAE of the config's architecture without batch normalisation, to fill with stored weights."""
    with torch.random.fork_rng(devices=[]):
        decoder = dcgan.folded(dcgan.generator(config.latent, config.width, config.size))
        encoder = dcgan.folded(_encoder_network(config))
    vae = ImageVAE(decoder, encoder, config.latent, config.sigma, config.encoder)
    return placed(vae)


def _settings(config: Config, steps: int, rate: float, seed: int, *, resumable: bool) -> TrainConfig:
    every = max(1, steps // LOOKS)
    return TrainConfig(steps, rate, FINAL_RATE * rate, BETAS, seed, every, every if resumable else 0)


def train_encoder(config: Config, truth: Truth, checkpoint: Path | None) -> tuple[ImageVAE, Curve]:
    """Maximise E_p* log q(z | x) over the encoder; then fix its batch normalisation: q(z | x) depends on x alone.

    Args:
        config: says how.
        truth: p*; its decoder is the VAE's.
        checkpoint: file to resume from.

    Returns:
        The VAE with the truth's decoder; the curve: ``conditional_log_likelihood`` and ``elbo``, nats.

    Raises:
        efvae.train.TrainingError: the loss is not finite.
        efvae.checkpoint.CheckpointError: the checkpoint is damaged or of another configuration.

    Paper: sec-4-2, fn-3
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2**20 + config.truth_seed)
        network = _encoder_network(config)
    vae = ImageVAE(copy.deepcopy(truth.decoder), network, config.latent, config.sigma, config.encoder)
    vae = placed(vae)
    vae.decoder.requires_grad_(requires_grad=False)

    def loss(z: Tensor, generator: torch.Generator) -> Tensor:
        with half_precision(config):
            return -vae.posterior(truth.images(z, generator)).log_prob(z)

    def evaluation() -> dict[str, float]:
        vae.eval()
        found = {
            "conditional_log_likelihood": conditional_log_likelihood(vae, truth, LOOK_IMAGES, 1),
            "elbo": elbo_on_fresh_samples(vae, truth, LOOK_IMAGES, 2)["elbo"],
        }
        vae.train()
        return found

    settings = _settings(config, config.encoder_steps, config.encoder_rate, 2 * config.truth_seed,
                         resumable=checkpoint is not None)  # fmt: skip
    curve = fit(vae, loss, lambda generator: truth.latents(config.batch_size, generator), settings,
                evaluate=evaluation, checkpoint=checkpoint, device=device(), graph=True)  # fmt: skip
    source = torch.Generator(device()).manual_seed(2**30 + config.truth_seed)
    finished = empty_vae(config)
    finished.decoder.load_state_dict(truth.decoder.state_dict())
    finished.encoder.load_state_dict(dcgan.settle(network, truth.batches(8192, source)).state_dict())
    return finished, curve


def train_joint(
    config: Config, truth: Truth, start: ImageVAE, comparison: Comparison, checkpoint: Path | None
) -> tuple[ImageVAE, Curve]:
    """Maximise the ELBO over encoder and decoder, from the truth and its encoder, on fresh samples of p*.

    Args:
        config: its stage says whether σ_d is learned, by setting it to its optimum in each step and, on fresh samples,
            at the end; in stage ``encoder_elbo`` the decoder stays the truth's; in stage ``decoder_pairs`` the encoder
            stays, and the objective is log p(x | z) on pairs (x, z) of the truth, whose decoder is its maximum.
        truth: p*.
        start: the truth's decoder with the encoder of :func:`train_encoder`; not changed.
        comparison: for the curve.
        checkpoint: file to resume from.

    Returns:
        The VAE; the curve from step 0 on: ``elbo`` (nats), ``frechet``, ``sigma``.

    Raises:
        efvae.train.TrainingError: the loss is not finite.
        efvae.checkpoint.CheckpointError: the checkpoint is damaged or of another configuration.

    Paper: sec-4-2, tab-1
    """
    vae, learned = empty_vae(config), config.stage == "joint_learned"
    vae.load_state_dict(start.state_dict())
    vae.decoder.requires_grad_(config.stage != "encoder_elbo")
    vae.encoder.requires_grad_(config.stage != "decoder_pairs")

    def loss(z: Tensor, generator: torch.Generator) -> Tensor:
        with half_precision(config):
            if config.stage == "decoder_pairs":
                return -vae.log_likelihood(truth.images(z, generator), z)
            noise = torch.randn(z.shape, generator=generator, device=z.device)
            return -vae.elbo(truth.images(z, generator), noise, set_sigma=learned)

    def evaluation() -> dict[str, float]:
        elbo = elbo_on_fresh_samples(vae, truth, LOOK_IMAGES, 2)["elbo"]
        frechet = comparison.quick(vae, min(LOOK_IMAGES, config.eval_images))
        return {"elbo": elbo, "frechet": frechet, "sigma": vae.sigma}

    first = {"step": 0.0} | evaluation()
    settings = _settings(config, config.joint_steps, config.joint_rate, 2 * config.seed + 1,
                         resumable=checkpoint is not None)  # fmt: skip
    curve = fit(vae, loss, lambda generator: truth.latents(config.batch_size, generator), settings,
                evaluate=evaluation, checkpoint=checkpoint, device=device(), graph=True)  # fmt: skip
    if learned:
        reached = elbo_on_fresh_samples(vae, truth, SIGMA_IMAGES, 9)["reconstruction"]
        vae.log_sigma.fill_(math.log(best_sigma(reached, vae.sigma, 3 * config.size**2)[0]))
    return vae, {name: [value, *curve[name]] for name, value in first.items()}
