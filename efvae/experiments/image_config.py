"""What determines a run of section 4.2: data, networks, steps, and which of the four stages."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

import torch

from efvae import records
from efvae.data.cache import DataError
from efvae.data.images import Images, load_celeba, load_folder, load_photographs
from efvae.data.synthetic_images import ellipse_images
from efvae.dcgan import SIZES
from efvae.image_vae import ENCODERS
from efvae.values import check_fields

__all__ = ["CHOICE_IMAGES", "DATA", "STAGES", "STEM", "Config", "fingerprint", "load_images", "needed"]

STEM = "sec4_2_images"
STAGES = ("gan", "encoder", "encoder_elbo", "decoder_pairs", "joint_fixed", "joint_learned")
DATA = ("synthetic", "photographs", "celeba", "folder")
FEATURES = ("classifier", "inception")
PRECISIONS = ("float32", "bfloat16")
SYNTHETIC_IMAGES = 4096

#: Images of a generator, at most, by which the best one is chosen.
CHOICE_IMAGES = 2048
#: Fields that a stage is the first to use; an earlier stage does not depend on them.
_FIRST_USED: dict[str, tuple[str, ...]] = {
    "encoder": ("encoder", "encoder_steps", "encoder_rate", "eval_elbo"),
    "encoder_elbo": ("seed", "joint_steps", "joint_rate"),
}


@dataclass(frozen=True)
class Config:
    """One cell: a stage of the pipeline for one data set and one seed.

    Args:
        data: ``synthetic`` (ellipses made on the spot), ``photographs`` (of fruit, redistributable), ``celeba`` or
            ``folder`` (what ``EFVAE_IMAGES`` names).
        stage: ``gan`` trains the truth, ``encoder`` the encoder for it by conditional likelihood, ``joint_fixed`` and
            ``joint_learned`` both parts by the ELBO with σ_d fixed or learned; ``encoder_elbo``, not in the paper, the
            encoder alone by the ELBO, in as many steps as a joint stage; ``decoder_pairs``, a control, the decoder
            alone by log p(x | z) on pairs of the truth, its maximum: what the optimiser's noise does to the truth. A
            stage computes those it rests on.
        seed: of the stages after the encoder: their batches and draws.
        truth_seed: of the truth and the first encoder: their weights and batches.
        size: pixels a side, 16, 32 or 64.
        latent: n_z.
        width: channels of the networks, ngf and ndf of the tutorial.
        sigma: σ_d of the truth, where images are in [−1, 1].
        encoder: ``diagonal``, as in the paper, or ``full`` covariance.
        features: of the Fréchet distance: ``classifier``, trained here on the classes of the images, or ``inception``.
        batch_size: images a step.
        feature_steps, gan_steps, encoder_steps, joint_steps: optimiser steps of the classifier and of the stages.
        gan_rate: learning rate, constant.
        encoder_rate, joint_rate: learning rates at the first step; they fall along a half cosine.
        eval_images: images of each sample that a Fréchet distance compares.
        eval_elbo: fresh samples of p* for the ELBO, at least twice ``latent``.
        precision: of convolutions in training, ``float32`` or ``bfloat16``; evaluation is in float32. A CPU without
            units for bfloat16 takes float32 for it, see :func:`efvae.devices.arithmetic`; a record names what ended
            its stage, wherever that began.
        on_bad: unreadable images: ``stop``, or ``skip`` them.

    Raises:
        ValueError: a value out of its range.

    Paper: sec-4-2
    """

    data: str = "synthetic"
    stage: str = "joint_learned"
    seed: int = 0
    truth_seed: int = 0
    size: int = 32
    latent: int = 100
    width: int = 32
    sigma: float = 0.05
    encoder: str = "diagonal"
    features: str = "classifier"
    batch_size: int = 128
    feature_steps: int = 600
    gan_steps: int = 2500
    encoder_steps: int = 3000
    joint_steps: int = 3000
    gan_rate: float = 2e-4
    encoder_rate: float = 1e-3
    joint_rate: float = 5e-4
    eval_images: int = 8192
    eval_elbo: int = 4096
    precision: str = "bfloat16"
    on_bad: str = "stop"

    def __post_init__(self) -> None:
        choices = {"data": DATA, "stage": STAGES, "encoder": ENCODERS, "features": FEATURES, "precision": PRECISIONS,
                   "on_bad": ("stop", "skip"), "size": SIZES}  # fmt: skip
        least = {"seed": 0, "truth_seed": 0, "latent": 1, "width": 1, "batch_size": 2, "feature_steps": 1,
                 "gan_steps": 1, "encoder_steps": 1, "joint_steps": 1, "eval_images": 16, "eval_elbo": 16}  # fmt: skip
        positive = ("sigma", "gan_rate", "encoder_rate", "joint_rate")
        check_fields(self, choices=choices, least=least, positive=positive)
        if not 1e-4 <= self.sigma <= 10:
            raise ValueError(f"sigma must be in [0.0001, 10], for images in [-1, 1]; got {self.sigma}")
        # stage gan does not use eval_elbo: there it may be the default with any latent, see needed
        if self.stage != "gan" and self.eval_elbo < 2 * self.latent:
            raise ValueError(
                f"eval_elbo must be at least 2 latent = {2 * self.latent}, to fit an affine function of the latents; "
                f"got {self.eval_elbo}"
            )


def needed(config: Config, stage: str | None = None) -> Config:
    """The config of a stage, with the fields that it does not depend on set back to their defaults.

    Two runs that differ in later stages only share what they computed before.

    Args:
        config: of any stage.
        stage: which; by default the config's own.

    Paper: sec-4-2
    """
    stage = stage or config.stage
    unused = [name for later, names in _FIRST_USED.items() if STAGES.index(later) > STAGES.index(stage)
              for name in names]  # fmt: skip
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    back = {name: defaults[name] for name in [*unused, "on_bad"]}
    return dataclasses.replace(config, stage=stage, **back)  # type: ignore[arg-type]


def fingerprint(config: Config, data_sha256: str, stage: str, part: str = "") -> str:
    """Hash of what a stored model of a stage, and the curve of its training, must agree in.

    What only its measurement at the end depends on is not part of it: of another ``eval_elbo``, or for the stages up to
    ``encoder`` of more ``eval_images``, the model is the same and only measured anew.

    Args:
        config: of any stage.
        data_sha256: checksum of the images.
        stage: which.
        part: of the stage.

    Paper: sec-4-2
    """
    plain = records.config_dict(needed(config, stage)) | {"eval_elbo": None}
    if stage == "gan":
        plain["sigma"] = None  # of the samples that are counted by class
    if stage in ("gan", "encoder"):
        plain["eval_images"] = min(config.eval_images, CHOICE_IMAGES)
    return hashlib.sha256(json.dumps([plain, data_sha256, part], sort_keys=True).encode()).hexdigest()


def load_images(config: Config) -> Images:
    """The images of a config.

    Raises:
        DataError: they are not there, cannot be read, are no CelebA, too few or all the same.

    Paper: sec-4-2
    """
    if config.data == "synthetic":
        return ellipse_images(SYNTHETIC_IMAGES, config.size)
    if config.data == "photographs":
        return load_photographs(config.size)
    if config.data == "celeba":
        images = load_celeba(config.size, on_bad=config.on_bad)
    else:
        images = load_folder(None, config.size, on_bad=config.on_bad)
    found = len(images.train) + len(images.test)
    for what, part in (("to train on", images.train), ("held out", images.test)):
        if len(part) < 2:  # a covariance needs two
            raise DataError(
                f"of the {found} images that EFVAE_IMAGES names {len(part)} is {what}: expected at least 2; about a "
                "tenth is held out, chosen by name, so name a folder of more images"
            )
        if all(torch.equal(part[0], image) for image in part):
            raise DataError(
                f"the {len(part)} images {what} that EFVAE_IMAGES names are all the same: name a folder of others"
            )
    return images
