"""Section 3.1, Bernoulli VAE: is an RBM as good as a VAE of equal latent size? On binary digits.

Run one cell of it with ``python -m efvae.experiments.rbm model=vae latent=8 decoder=mlp seed=0``.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from efvae import records
from efvae.data.digits import BRIGHTEST, Digits, load_digits
from efvae.experiments.rbm_training import ENUMERABLE, evaluate, train
from efvae.harmonium import Harmonium
from efvae.models import VAE
from efvae.records import Record
from efvae.values import check_fields

__all__ = ["MODELS", "STEM", "Config", "Solution", "data_sha256", "run", "solve"]

STEM = "sec3_1_rbm"
MODELS = ("rbm", "rbm-pcd", "vae")


@dataclass(frozen=True)
class Config:
    """One cell: a model trained on binary 8 × 8 digits, kept where its validation objective was best.

    Args:
        model: ``rbm``, exact maximum likelihood; ``rbm-pcd``, by persistent contrastive divergence; ``vae``, by the
            ELBO with a factorized encoder: exact up to 12 bits, beyond with the gradient of DisARM, 4 pairs an image.
        latent: number of latent bits; up to 12 for ``rbm``.
        decoder, encoder: of a VAE, ``affine`` or ``mlp`` (one hidden layer); an RBM's are affine.
        prior: of a VAE, ``uniform`` bits or independent ``bits`` with learned probabilities; an RBM's is its own.
        seed: of the split, of the first parameters and of the batches; cells of one seed share the split.
        steps: optimiser steps.
        learning_rate: of Adam at the first step; it falls along a half cosine.
        batch_size: images for each step.
        width: hidden units of an ``mlp``.
        chains: persistent chains of ``rbm-pcd``.
        sweeps: Gibbs sweeps of the chains for each step.
        temperatures: of the final annealed importance sampling, of an RBM or of a VAE with more than 12 bits.
        threshold: brightness from which on a pixel is 1, in 1 … 16.

    Raises:
        ValueError: a value out of its range.

    Own: own-digits-baseline
    """

    model: str = "rbm"
    latent: int = 8
    decoder: str = "affine"
    encoder: str = "affine"
    prior: str = "bits"
    seed: int = 0
    steps: int = 3000
    learning_rate: float = 1e-2
    batch_size: int = 100
    width: int = 128
    chains: int = 200
    sweeps: int = 1
    temperatures: int = 2000
    threshold: int = 8

    def __post_init__(self) -> None:
        choices = {"model": MODELS, "decoder": ("affine", "mlp"), "encoder": ("affine", "mlp"),
                   "prior": ("uniform", "bits")}  # fmt: skip
        most = {"threshold": BRIGHTEST} | ({"latent": ENUMERABLE} if self.model == "rbm" else {})
        counts = ("latent", "steps", "batch_size", "width", "chains", "sweeps", "temperatures", "threshold")
        within = {"seed": (0, 2**31 - 1)} | {name: (1, most.get(name, 2**31 - 1)) for name in counts}
        check_fields(self, choices=choices, within=within, positive=("learning_rate",))


@dataclass(frozen=True)
class Solution:
    """A record together with the model it speaks of.

    Args:
        record: config, metrics, curve and provenance.
        model: the kept model, float64.
        digits: the data, float32.
    """

    record: Record
    model: Harmonium | VAE
    digits: Digits


def solve(config: Config) -> Solution:
    """Train one cell and evaluate it; nothing is stored.

    Metrics, in nats per image, ``PART`` one of train, validation, test::

        log_likelihood_PART      mean log p(x): exact, or with log Z from annealed importance sampling (AIS)
        elbo_PART, gap_PART      mean ELBO, and log-likelihood − ELBO; an RBM's as the tight VAE that it is
        log_likelihood_error_PART, elbo_error_PART    of a VAE with more than 12 bits: Monte Carlo errors. Its
                                 log-likelihood, by AIS for each image, is a lower bound in expectation
        elbo_uniform_PART        of the RBM's decoder and encoder under uniform bits
        log_partition            of an RBM, exact up to 12 bits
        log_partition_ais, ais_error, ais_samples     the estimate, its standard error, the effective sample size
        prior_total_correlation  KL(p(z) ‖ independent bits), up to 12 bits
        parameters               of the generative model, without the encoder
        best_step                where the validation objective (ELBO or log-likelihood) was best

    Args:
        config: the cell.

    Raises:
        ImportError: scikit-learn is missing.
        efvae.train.TrainingError: the loss became NaN or infinite.

    Own: own-digits-baseline
    """
    started = time.monotonic()
    digits = load_digits(config.seed, config.threshold)
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(config.seed)
        model, curve, best_step = train(config, digits)
    model = model.double().requires_grad_(requires_grad=False)
    metrics = evaluate(model, digits, config.temperatures, torch.Generator().manual_seed(config.seed)) | {
        "best_step": best_step
    }
    record = records.make(STEM, config, metrics, curve, seconds=time.monotonic() - started,
                          data_sha256=digits.sha256, show=_shown(config))  # fmt: skip
    return Solution(record, model, digits)


def run(config: Config, *, results: Path | None = None, refresh: bool = False) -> Record:
    """The record of one cell, computed unless it is there already.

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.

    Own: own-digits-baseline
    """
    return records.stored(
        STEM,
        config,
        lambda: solve(config).record,
        results=results,
        refresh=refresh,
        data_sha256=data_sha256(config) if results is not None else None,
    )


def data_sha256(config: Config) -> str:
    """Checksum of the data of a cell, which its record is named by.

    Args:
        config: the cell.

    Own: own-digits-baseline
    """
    return _sha256()  # of the grey images: the same for every split and threshold


@lru_cache(maxsize=1)
def _sha256() -> str:
    return load_digits().sha256


def _shown(config: Config) -> tuple[str, ...]:
    return ("model", "latent", *(("decoder", "encoder", "prior") if config.model == "vae" else ()), "seed")


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
