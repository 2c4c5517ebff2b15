r"""Section 4.2: a Gaussian VAE on images that starts from the truth, a GAN's generator with pixel noise.

One cell, with the stages it rests on; what is in the checkpoint folder is not computed again::

    python -m efvae.experiments.images data=photographs stage=joint_learned seed=0 --checkpoint runs/images

The paper's size and networks (it does not say how long it trained), killed and started again as often as need be::

    EFVAE_IMAGES=img_align_celeba.zip EFVAE_INCEPTION=pt_inception-2015-12-05-6726825d.pth \
    efvae sweep sec4_2_images --device cuda --work runs --grid data=celeba features=inception size=64 width=64 \
        gan_steps=8000 encoder_steps=100000 encoder_rate=2e-4 joint_steps=100000 joint_rate=1e-4 \
        eval_images=200000 stage=joint_fixed,joint_learned

With ``data=photographs`` and without ``features`` it is the same on the photographs of fruit, and with 20000 steps of
encoder and of joint training, ``eval_elbo=16384``, the committed records of the paper's width, one seed on a GPU. The
other records are at the paper's size with networks of a quarter of its width: each stage takes one core of a CPU
minutes::

    python -m efvae.experiments.images data=photographs size=64 width=16 batch_size=64 gan_steps=6000 gan_rate=4e-4 \
        encoder_steps=4000 joint_steps=2000 joint_rate=1e-3 eval_images=4096 stage=joint_fixed seed=0 \
        --checkpoint runs/images

and at 16 × 16 with ``width=32 gan_steps=1600 encoder_steps=1200 joint_steps=1200``; the rest as above.

See :mod:`efvae.data.images` for where images come from.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from efvae import devices, records
from efvae.data.images import Images
from efvae.devices import current as device
from efvae.experiments import image_measures as measures
from efvae.experiments.image_config import STAGES, STEM, Config, fingerprint, load_images, needed
from efvae.experiments.image_features import classified, feature_network
from efvae.experiments.image_measures import Comparison
from efvae.experiments.image_pictures import drawn, picture_path, reconstructions, write_picture
from efvae.experiments.image_stages import empty_vae, train_encoder, train_joint
from efvae.experiments.image_store import Store, images_in_batches, measuring
from efvae.experiments.image_truth import Truth, chosen_look, empty_generator, train_gan
from efvae.image_vae import ImageVAE, entropy_bound
from efvae.metrics import inception
from efvae.metrics.frechet import distance, moments
from efvae.records import Record
from efvae.train import Curve

__all__ = ["STAGES", "STEM", "Config", "Solution", "check", "data_sha256", "run", "solve"]

#: Stages that start from the encoder by conditional likelihood.
ENDS = ("encoder_elbo", "decoder_pairs", "joint_fixed", "joint_learned")


@dataclass(frozen=True)
class Solution:
    """Records of a cell and of the stages it rests on, with the models.

    Args:
        records: by stage.
        truth: p*.
        vaes: by stage, ``encoder`` and the joint one.
        images: the data.

    Paper: sec-4-2
    """

    records: dict[str, Record]
    truth: Truth
    vaes: dict[str, ImageVAE]
    images: Images


def solve(
    config: Config,
    checkpoint: Path | None = None,
    results: Path | None = None,
    *,
    refresh: bool = False,
    device: str = "cpu",
    images: Images | None = None,
) -> Solution:
    """Compute a stage and those it rests on.

    Metrics, in nats per image unless the name says another unit; ``D`` is ``fid`` or ``frechet_classifier``::

        elbo, elbo_error          under p*, on fresh samples, with its standard error; kl, reconstruction: its parts
        entropy_bound             what the pixel noise of p* lets no model exceed in likelihood
        D, D_spread               Fréchet distance to samples of p*, mean and standard deviation over resamples;
                                  of stage encoder, whose decoder is the truth's, it is the zero of the scale
        D_without_noise           of the decoder's means to the truth's
        D_of_noise                of the truth's own decoder with the σ_d of the VAE: what the noise alone makes
        sigma                     σ_d
        active_latents            latent dimensions whose posterior mean varies
        affine_share_prior        share of the decoder's variance that an affine function of z explains, z ~ prior
        affine_share_support      the same for z from the encoder, x ~ p*
        converged                 1 if the last fifth of the steps changed the ELBO by less than 1 % of its gain
        last_fifth_change         that change
        gain                      of the ELBO: mean of the last tenth of its curve less the first entry
        gain_after_tenth          the same from a tenth of the steps on
        converged_after_tenth     the rule with this gain in place of the whole
        D_last_fifth_change       change of D in the last fifth, from the curve

    Args:
        config: the cell.
        checkpoint: folder of models of finished stages and of states to resume from.
        results: folder of records; those that are missing are written as soon as they are known.
        refresh: the record of the config's own stage is measured again and replaced.
        device: where to compute, see :func:`efvae.devices.find`; noted in the records and no part of their names. The
            record of a model that was trained on another one names that, with the seconds of the training alone. The
            models that are returned are on the CPU.
        images: those of the config, if they are loaded already.

    Raises:
        efvae.devices.DeviceError: there is no such device.
        efvae.data.cache.DataError: the images are not there, or wrong.
        efvae.metrics.inception.WeightsError: the network of FID is not there, or wrong.
        efvae.train.TrainingError: a loss is not finite, or the GAN collapsed.
        efvae.checkpoint.CheckpointError: a checkpoint is damaged, or of another configuration or architecture.

    Paper: sec-4-2, tab-1
    """
    check(config)  # before images are decoded, which takes minutes
    with devices.on(device):
        solution = _solved(config, images or load_images(config), checkpoint, results, refresh=refresh)
    for network in (solution.truth.decoder, *solution.vaes.values()):
        network.cpu()
    return solution


def _solved(
    config: Config, images: Images, checkpoint: Path | None, results: Path | None, *, refresh: bool
) -> Solution:
    run = _Run(config, images, checkpoint, results, again=config.stage if refresh else None)
    truth = run.truth()
    vaes = {}
    if config.stage != "gan":
        vaes["encoder"] = run.encoder(truth)
    if config.stage in ENDS:
        vaes[config.stage] = run.joint(truth, vaes["encoder"])
    return Solution(run.records, truth, vaes, images)


def run(
    config: Config,
    *,
    results: Path | None = None,
    refresh: bool = False,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> Record:
    """The record of one cell, computed unless it is there already.

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: measure again although the record exists.
        checkpoint: folder for checkpoints, see :func:`solve`.
        device: see :func:`solve`.

    Paper: sec-4-2, tab-1
    """
    devices.find(device)
    images = load_images(config)
    if results is not None and not refresh:
        known = records.find(STEM, needed(config), results, images.sha256)
        if known is not None:
            return known
    for folder in (results and results / STEM, checkpoint):
        if folder is not None:
            records.check_folder(folder)
    found = solve(config, checkpoint, results, refresh=refresh, device=device, images=images)
    return found.records[config.stage]


def data_sha256(config: Config) -> str:
    """Checksum of the images of a cell, which its record is named by; ``efvae sweep`` finds records by it.

    Args:
        config: the cell.

    Raises:
        efvae.data.cache.DataError: the images are not there, or wrong.

    Paper: sec-4-2
    """
    place = os.environ.get("EFVAE_IMAGES") if config.data in ("celeba", "folder") else None
    return _sha256_of(config.data, config.size, config.on_bad, place)


def check(config: Config) -> None:
    """Refuse a cell whose feature network is not there; ``efvae sweep`` asks before it starts.

    Args:
        config: the cell.

    Raises:
        efvae.metrics.inception.WeightsError: the network of FID is not there, or wrong.

    Paper: tab-1
    """
    if config.features == "inception":
        inception.find_weights()
        inception.find_network()


@lru_cache(maxsize=16)
def _sha256_of(data: str, size: int, on_bad: str, place: str | None) -> str:
    """By what determines the images: a sweep of many cells decodes them once. They themselves are not kept."""
    return load_images(Config(data=data, size=size, on_bad=on_bad)).sha256


class _Run:
    """Images, their features, the store; each stage is computed when it is asked for, and then measured."""

    def __init__(
        self, config: Config, images: Images, checkpoint: Path | None, results: Path | None, again: str | None
    ) -> None:
        self.again = again
        self.config, self.images, self.store, self.results = config, images, Store(checkpoint), results
        self.records: dict[str, Record] = {}
        self.effort: dict[str, tuple[float, str]] = {}  # seconds of training by stage, and on what device
        self.features, self.classifier = feature_network(config, images, self.store)
        self.distance = "fid" if config.features == "inception" else "frechet_classifier"
        self._comparison: Comparison | None = None

    def truth(self) -> Truth:
        """Stage ``gan``."""
        generator = empty_generator(self.config)
        curve = self._model("gan", generator, lambda state: train_gan(self.config, self.images, self.features, state))
        truth = Truth(generator.eval().requires_grad_(requires_grad=False), self.config.latent, self.config.sigma)
        self._record("gan", curve, lambda: self._of_truth(truth, curve))
        return truth

    def encoder(self, truth: Truth) -> ImageVAE:
        """Stage ``encoder``."""
        vae = empty_vae(self.config)
        curve = self._model("encoder", vae, lambda state: train_encoder(self.config, truth, state))
        vae.eval().requires_grad_(requires_grad=False)

        def metrics() -> dict[str, float]:
            likelihood = measures.conditional_log_likelihood(vae, truth, self.config.eval_elbo, 3)
            flat, change = measures.flat(curve["conditional_log_likelihood"])
            return self._of_vae(vae, truth) | {
                "conditional_log_likelihood": likelihood, "converged": float(flat), "last_fifth_change": change
            }  # fmt: skip

        self._record("encoder", curve, metrics, lambda: self._rows(vae, truth))
        return vae

    def joint(self, truth: Truth, start: ImageVAE) -> ImageVAE:
        """A stage after the encoder, one of ``ENDS``."""
        stage = self.config.stage
        vae = empty_vae(self.config)
        curve = self._model(
            stage, vae, lambda state: train_joint(self.config, truth, start, self._compare(truth), state)
        )
        vae.eval().requires_grad_(requires_grad=False)

        def metrics() -> dict[str, float]:
            moved = {f"{self.distance}_last_fifth_change": measures.flat(curve["frechet"])[1]}
            return self._of_vae(vae, truth) | measures.settled(curve["elbo"]) | moved

        self._record(stage, curve, metrics, lambda: self._pictures(vae, truth))
        return vae

    def _compare(self, truth: Truth) -> Comparison:
        if self._comparison is None:
            self._comparison = Comparison.with_truth(truth, self.features, self.config.eval_images)
        return self._comparison

    def _model(
        self, stage: str, empty: torch.nn.Module, train: Callable[[Path | None], tuple[torch.nn.Module, Curve]]
    ) -> Curve:
        """Fill a model from the store or by training; its curve. What that took is known afterwards."""
        mark = fingerprint(self.config, self.images.sha256, stage)
        stored = self.store.restore(stage, mark, empty)
        if stored is None:
            with self.store.alone(stage, mark):
                started = time.monotonic()
                stored = self.store.restore(stage, mark, empty)  # by another process while we waited
                if stored is None:
                    model, curve = train(self.store.path(stage, mark, "state"))
                    empty.load_state_dict(model.state_dict())
                    seconds = time.monotonic() - started
                    self.store.keep(stage, mark, empty, curve, seconds=seconds, device=self._device())
                    self.effort[stage] = seconds, self._device()
                    return curve
        self.effort[stage] = self.store.effort(stage, mark)
        return stored

    def _device(self) -> str:
        return records.device_name(devices.described(self.config.precision, device()))

    def _record(
        self,
        stage: str,
        curve: Curve,
        measure: Callable[[], dict[str, float]],
        picture: Callable[[], Tensor] | None = None,
    ) -> None:
        config, data = needed(self.config, stage), self.images.sha256
        known = None
        if self.results is not None and stage != self.again:
            known = records.find(STEM, config, self.results, data)
        if known is not None:
            self.records[stage] = known
            return
        started = time.monotonic()
        metrics: dict[str, float | None] = {"fid": None, **measure()}
        named = {self.distance if name == "frechet" else name: values for name, values in curve.items()}
        seconds, trained_on = self.effort[stage]
        if trained_on in ("", self._device()):
            seconds += time.monotonic() - started
        record = records.make(STEM, config, metrics, named, seconds=seconds, device=trained_on or self._device(),
                              data_sha256=data, show=_SHOWN[stage])  # fmt: skip
        self.records[stage] = record
        if self.results is not None:
            if picture is not None:  # before the record: what has one is not computed again
                write_picture(picture_path(self.results / STEM, record.cell), picture())
            records.write(record, self.results)

    def _of_truth(self, truth: Truth, curve: Curve) -> dict[str, float]:
        """How good the truth is as a model of photographs; the comparison by which it was chosen."""
        step = chosen_look(curve)
        found = {
            "chosen_step": curve["step"][step],
            "variety": curve["variety"][step],
            f"{self.distance}_to_held_out": curve["frechet"][step],
            f"{self.distance}_train_to_held_out": distance(
                moments(images_in_batches(self.images.train), self.features),
                moments(images_in_batches(self.images.test), self.features),
            ),
        }
        if self.classifier is not None:
            found |= classified(self.classifier, self.images, truth)
        return found

    def _of_vae(self, vae: ImageVAE, truth: Truth) -> dict[str, float]:
        n, pixels = self.config.eval_elbo, 3 * self.config.size**2
        compared = self._compare(truth).measure(vae)
        prior = truth.latents(n, measuring(4))
        return (
            measures.elbo_on_fresh_samples(vae, truth, n, 5)
            | {name.replace("frechet", self.distance): value for name, value in compared.items()}
            | measures.latents_in_use(vae, truth, n, 6)
            | {
                "entropy_bound": entropy_bound(pixels, truth.sigma),
                "sigma": vae.sigma,
                "affine_share_prior": measures.affine_share(vae.decoder, prior),
                "affine_share_support": measures.affine_share(
                    vae.decoder, measures.support_of_encoder(vae, truth, n, 7)
                ),
            }
        )

    def _rows(self, vae: ImageVAE, truth: Truth) -> Tensor:
        """Fig. 3, and below it the truth's row of Fig. 4."""
        return torch.cat([reconstructions(vae, truth), drawn(truth.decoder, truth.latent, truth.sigma)])

    def _pictures(self, vae: ImageVAE, truth: Truth) -> Tensor:
        """A row of Fig. 4, or of the truth's decoder, whose row of Fig. 4 is the truth's, those of Fig. 3."""
        if self.config.stage == "encoder_elbo":
            return self._rows(vae, truth)
        return drawn(vae.decoder, vae.latent, vae.sigma)


_SHOWN = {
    "gan": ("data", "stage", "truth_seed"),
    "encoder": ("data", "stage", "encoder", "truth_seed"),
    "encoder_elbo": ("data", "stage", "encoder", "seed"),
    "decoder_pairs": ("data", "stage", "encoder", "seed"),
    "joint_fixed": ("data", "stage", "encoder", "seed"),
    "joint_learned": ("data", "stage", "encoder", "seed"),
}


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
