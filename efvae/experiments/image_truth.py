"""The truth of section 4.2: a DCGAN's generator with pixel noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from efvae import dcgan
from efvae.checkpoint import load_checkpoint, save_checkpoint
from efvae.data.images import Images, scaled
from efvae.devices import Repeated, arithmetic
from efvae.devices import current as device
from efvae.experiments.image_config import CHOICE_IMAGES, Config, fingerprint
from efvae.experiments.image_store import images_in_batches, placed
from efvae.metrics.frechet import Moments, distance, moments
from efvae.train import Curve, TrainingError, adam

__all__ = ["Truth", "chosen_look", "empty_generator", "half_precision", "train_gan"]

#: Candidates for the truth: the generator is looked at this often.
LOOKS = 20
#: A generator is collapsed if its images vary by less than this share of the variance of the photographs.
LEAST_VARIETY = 0.5
BETAS = (0.5, 0.999)


@dataclass(frozen=True)
class Truth:
    """p*(x, z): z ~ N(0, I), x = d(z) + σ_d ε.

    Args:
        decoder: d, without batch normalisation.
        latent: n_z.
        sigma: σ_d.

    Paper: sec-4-2
    """

    decoder: nn.Module
    latent: int
    sigma: float

    def latents(self, n: int, generator: torch.Generator) -> Tensor:
        """z ~ N(0, I), shape ``(n, n_z)``."""
        return torch.randn(n, self.latent, generator=generator, device=generator.device)

    def images(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """x ~ p*(x | z), float32, no gradient."""
        with torch.no_grad():
            mean: Tensor = self.decoder(z).float()
            return mean + self.sigma * torch.randn(mean.shape, generator=generator, device=mean.device)

    def batches(self, n: int, generator: torch.Generator, size: int = 256) -> Iterator[Tensor]:
        """n fresh samples x ~ p*, batch by batch."""
        for start in range(0, n, size):
            yield self.images(self.latents(min(size, n - start), generator), generator)


def half_precision(config: Config) -> torch.autocast:
    """The arithmetic of convolutions in training."""
    dtype = arithmetic(config.precision, device())
    return torch.autocast(device().type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def empty_generator(config: Config) -> nn.Sequential:
    """A generator without batch normalisation, to fill with stored weights."""
    with torch.random.fork_rng(devices=[]):
        network = dcgan.folded(dcgan.generator(config.latent, config.width, config.size))
    return placed(network)


def train_gan(
    config: Config, images: Images, features: Callable[[Tensor], Tensor], checkpoint: Path | None
) -> tuple[nn.Sequential, Curve]:
    """Train a DCGAN as the tutorial does, and choose the generator.

    Rule: of 20 looks at equal distances, the one with the least Fréchet distance to the held-out photographs among
    those that are not collapsed. A generator is collapsed if the variance of its images (sum over pixels) is below
    half of that of the photographs.

    Args:
        config: says how.
        images: to learn from, and held-out ones.
        features: of the Fréchet distance.
        checkpoint: file to resume from.

    Returns:
        The generator, its batch normalisation folded; the curve: ``frechet`` and ``variety`` (share of variance).

    Raises:
        TrainingError: every look is at a collapsed generator, or a loss is not finite.
        efvae.checkpoint.CheckpointError: the checkpoint is damaged or of another configuration.

    Paper: sec-4-2
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.truth_seed)
        networks = {
            "generator": dcgan.generator(config.latent, config.width, config.size),
            "discriminator": dcgan.discriminator(config.width, config.size),
            "chosen": empty_generator(config),
        }
    model = placed(nn.ModuleDict(networks))
    model["chosen"].requires_grad_(requires_grad=False)
    # one optimiser for both networks: Adam leaves alone what has no gradient
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = adam(trained, config.gan_rate, BETAS, device())
    source = torch.Generator(device()).manual_seed(config.truth_seed)
    told = fingerprint(config, images.sha256, "gan", "state")
    held_out = moments(images_in_batches(images.test), features)
    variance = _variance(scaled(images.test[:: max(1, len(images.test) // CHOICE_IMAGES)]))
    pixels, start, curve = images.train.to(device()), 0, Curve()
    if checkpoint is not None and checkpoint.exists():
        start, curve = load_checkpoint(checkpoint, model, optimizer, source, told)
    every, losses = max(1, config.gan_steps // LOOKS), (torch.zeros(()), torch.zeros(()))

    def step() -> None:
        nonlocal losses
        losses = _step(config, model, optimizer, pixels, source)  # of a recorded step: where each replay writes them

    repeated = Repeated(step, [source], graph=device().type != "cpu")
    for done in range(start + 1, config.gan_steps + 1):
        repeated()
        if done % every and done != config.gan_steps:
            continue
        _look(config, model, features, held_out, variance, done, losses, curve)
        if checkpoint is not None:
            save_checkpoint(checkpoint, model, optimizer, source, told, done, curve)
    if not math.isfinite(min(_scores(curve))):
        raise TrainingError(
            f"the GAN has collapsed, or only begun, at each of {len(curve['step'])} looks: raise gan_steps "
            f"({config.gan_steps}); if they are thousands, try another truth_seed ({config.truth_seed})"
        )
    chosen = model["chosen"]
    assert isinstance(chosen, nn.Sequential)  # noqa: S101 - put in above
    return chosen, curve


def _step(
    config: Config, model: nn.ModuleDict, optimizer: torch.optim.Optimizer, pixels: Tensor, source: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One step of the discriminator on real and on generated images, then one of the generator."""
    generator, discriminator = model["generator"], model["discriminator"]
    chosen = torch.randint(len(pixels), (config.batch_size,), generator=source, device=pixels.device)
    z = torch.randn(config.batch_size, config.latent, generator=source, device=pixels.device)
    discriminator.requires_grad_(requires_grad=True)
    optimizer.zero_grad(set_to_none=True)
    with half_precision(config):
        fake = generator(z)
        real_logit, fake_logit = discriminator(scaled(pixels[chosen])).float(), discriminator(fake.detach()).float()
    loss_d = nnf.softplus(-real_logit).mean() + nnf.softplus(fake_logit).mean()
    loss_d.backward()
    optimizer.step()
    discriminator.requires_grad_(requires_grad=False)
    optimizer.zero_grad(set_to_none=True)
    with half_precision(config):
        logit = discriminator(fake).float()
    loss_g = nnf.softplus(-logit).mean()
    loss_g.backward()
    optimizer.step()
    discriminator.requires_grad_(requires_grad=True)
    return loss_d.detach(), loss_g.detach()


def _look(config: Config, model: nn.ModuleDict, features: Callable[[Tensor], Tensor], held_out: Moments,
          variance: float, done: int, losses: tuple[Tensor, Tensor], curve: Curve) -> None:  # fmt: skip
    """Judge the present generator with its own source of noise, and keep it if it is the best so far."""
    source = torch.Generator(device()).manual_seed(2**31 + config.truth_seed)
    generator = model["generator"]
    assert isinstance(generator, nn.Sequential)  # noqa: S101 - put in by train_gan
    settled = dcgan.settle(generator, (torch.randn(256, config.latent, generator=source, device=device())
                                       for _ in range(8)))  # fmt: skip
    with torch.no_grad():
        made = torch.cat([settled(torch.randn(256, config.latent, generator=source, device=device()))
                          for _ in range(-(-min(config.eval_images, CHOICE_IMAGES) // 256))])  # fmt: skip
    if not bool(made.isfinite().all()):  # no distance is defined then
        raise TrainingError(f"the GAN's images are not finite at step {done}: lower gan_rate ({config.gan_rate:g})")
    metrics = {
        "step": float(done),
        "loss_discriminator": float(losses[0]),
        "loss_generator": float(losses[1]),
        "frechet": distance(moments(made.split(256), features), held_out),
        "variety": _variance(made) / variance,
    }
    if not all(map(math.isfinite, metrics.values())):
        raise TrainingError(f"the GAN's losses are not finite at step {done}: lower gan_rate ({config.gan_rate:g})")
    for name, value in metrics.items():
        curve.setdefault(name, []).append(value)
    if chosen_look(curve) == len(curve["step"]) - 1:
        model["chosen"].load_state_dict(settled.state_dict())


def chosen_look(curve: Curve) -> int:
    """Place in the curve of the generator that was chosen.

    Paper: sec-4-2
    """
    scores = _scores(curve)
    return scores.index(min(scores))


def _scores(curve: Curve) -> list[float]:
    """What is least at the chosen generator."""
    return [score if variety >= LEAST_VARIETY else math.inf
            for score, variety in zip(curve["frechet"], curve["variety"], strict=True)]  # fmt: skip


def _variance(x: Tensor) -> float:
    return float(x.double().var(0).sum())
