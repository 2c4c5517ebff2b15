"""Section 3.1, Bernoulli VAE: does the pull of the ELBO towards an RBM help where data are few? On binary digits.

Run one cell of it with ``python -m efvae.experiments.rbm_few objective=elbo images=100 seed=0``.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from efvae import records
from efvae.data.digits import BRIGHTEST, load_digits
from efvae.experiments import rbm
from efvae.experiments.rbm_training import ENUMERABLE, train
from efvae.families import all_bits
from efvae.models import VAE
from efvae.rbm import joint_table, table_elbo
from efvae.records import Record
from efvae.text.factorized import best_factorized, starting_points
from efvae.values import check_fields

__all__ = ["MOST_IMAGES", "OBJECTIVES", "STEM", "Config", "data_sha256", "run"]

STEM = "sec3_1_few"
OBJECTIVES = ("elbo", "likelihood", "rbm")
#: Images that there are to train on.
MOST_IMAGES = 1197
#: Looks at the validation images: with few training images the best model comes early.
LOOKS = 150


@dataclass(frozen=True)
class Config:
    """One cell: a model with few training images, kept where its objective on 300 validation images was best.

    Args:
        objective: ``elbo``, a VAE by the exact ELBO with a factorized encoder; ``likelihood``, the same decoder and
            prior by exact maximum likelihood; ``rbm``, an RBM by exact maximum likelihood.
        images: the first so many of the training images of the split; ``validation`` and ``test`` are not reduced.
        decoder: of a VAE, ``affine`` or ``mlp`` (one hidden layer). Its encoder has a hidden layer, its prior is of
            independent bits with learned probabilities.
        latent: number of latent bits, up to 12.
        seed: of the split, of the first parameters and of the batches; cells of one seed share the split.
        steps: optimiser steps.
        learning_rate: of Adam at the first step; it falls along a half cosine.
        batch_size: images for each step, drawn with replacement.
        width: hidden units.
        threshold: brightness from which on a pixel is 1, in 1 … 16.

    Raises:
        ValueError: a value out of its range.

    Own: own-digits-few
    """

    objective: str = "elbo"
    images: int = MOST_IMAGES
    decoder: str = "mlp"
    latent: int = 8
    seed: int = 0
    steps: int = 3000
    learning_rate: float = 1e-2
    batch_size: int = 100
    width: int = 128
    threshold: int = 8

    def __post_init__(self) -> None:
        choices = {"objective": OBJECTIVES, "decoder": ("affine", "mlp")}
        most = {"images": MOST_IMAGES, "latent": ENUMERABLE, "threshold": BRIGHTEST}
        counts = ("images", "latent", "steps", "batch_size", "width", "threshold")
        within = {"seed": (0, 2**31 - 1)} | {name: (1, most.get(name, 2**31 - 1)) for name in counts}
        check_fields(self, choices=choices, within=within, positive=("learning_rate",))


def _solve(config: Config) -> Record:
    started = time.monotonic()
    digits = load_digits(config.seed, config.threshold)
    digits = replace(digits, train=digits.train[: config.images])
    plan = rbm.Config(
        model="rbm" if config.objective == "rbm" else "vae",
        latent=config.latent,
        decoder=config.decoder,
        encoder="mlp",
        seed=config.seed,
        steps=config.steps,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        width=config.width,
    )
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(config.seed)
        model, curve, best_step = train(plan, digits, likelihood=config.objective == "likelihood", looks=LOOKS)
    model = model.double().requires_grad_(requires_grad=False)
    vae = model if isinstance(model, VAE) else model.as_vae()
    states, metrics = all_bits(config.latent), {"best_step": best_step}
    for part in ("train", "validation", "test"):
        x = getattr(digits, part).double()
        table = joint_table(vae, x, states)
        metrics[f"log_likelihood_{part}"] = float(torch.logsumexp(table, 0).mean())
        if config.objective != "likelihood":
            metrics[f"elbo_{part}"] = float(table_elbo(vae, x, states).mean())
    best = best_factorized(table.T, starting_points(table.T, vae.encode(x).eta, config.latent))
    metrics["least_gap_test"] = float((torch.logsumexp(table, 0) - best.elbo).mean())
    return records.make(STEM, config, metrics, curve, seconds=time.monotonic() - started,
                        data_sha256=digits.sha256, show=("objective", "decoder", "images", "seed"))  # fmt: skip


def run(config: Config, *, results: Path | None = None, refresh: bool = False) -> Record:
    """The record of one cell, computed unless it is there already.

    Metrics, in nats per image, ``PART`` one of train, validation, test::

        log_likelihood_PART      mean log p(x), exact
        elbo_PART                mean ELBO; none with ``likelihood``, whose encoder is not trained
        least_gap_test           mean of min_q KL(q(z) ‖ p(z | x)) over factorized q: 0 for an RBM
        best_step                where the objective on the validation images was best

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.

    Raises:
        ImportError: scikit-learn is missing.
        RecordError: the folder cannot be written, or the record is corrupt.
        efvae.train.TrainingError: the loss became NaN or infinite.

    Own: own-digits-few
    """
    return records.stored(
        STEM,
        config,
        lambda: _solve(config),
        results=results,
        refresh=refresh,
        data_sha256=data_sha256(config) if results is not None else None,
    )


def data_sha256(config: Config) -> str:
    """Checksum of the data of a cell, which its record is named by.

    Args:
        config: the cell.

    Own: own-digits-few
    """
    return rbm.data_sha256(rbm.Config())  # of the grey images: the same for every split, part and threshold


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
