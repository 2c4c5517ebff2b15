"""Sections 3.1 and B: one decoder, encoders with growing statistics; what is left of the gap, in two parts.

Run one cell of it with ``python -m efvae.experiments.encoder_families seed=0``.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from efvae import records
from efvae.consistency import posterior_gap
from efvae.encoder_fit import gap_parts
from efvae.encoder_gap import code_products, family_gap, train_encoder, with_encoder
from efvae.exact import Rule, enumerate_states, log_joint, log_marginal
from efvae.families import Bernoulli, BipartiteIsing, Tabular
from efvae.models import VAE, CategoricalOver, Conditional, MakeFamily, Prior
from efvae.networks import mlp
from efvae.records import Record
from efvae.values import check_fields

__all__ = ["FAMILIES", "STEM", "TITLES", "Config", "random_vae", "run"]

STEM = "sec3_1_mrf"
#: Each contains the one before it.
FAMILIES = ("factorized", "mrf", "pairs", "states")
#: Their names for readers.
TITLES = {"factorized": "factorized", "mrf": "bipartite", "pairs": "all pairs", "states": "all states"}
NETWORKS = ("affine", "hidden")


@dataclass(frozen=True)
class Config:
    """One random decoder, and all encoders for it.

    Args:
        seed: of the decoder and of the encoders' first weights.
        pixels: length of x.
        group_1, group_2: bits of the two groups of the code.
        hidden: tanh units of the decoder.
        scale: standard deviation of the decoder's weights times the square root of their number at a unit.
        width: tanh units of an encoder with a hidden layer.
        evaluations: most steps of L-BFGS for each encoder.

    Raises:
        ValueError: a value out of its range.

    Paper: case-mrf, app-b
    """

    seed: int = 0
    pixels: int = 6
    group_1: int = 2
    group_2: int = 2
    hidden: int = 16
    scale: float = 2.0
    width: int = 16
    evaluations: int = 300

    def __post_init__(self) -> None:
        within = {"seed": (0, 2**31 - 1), "pixels": (2, 10), "group_1": (1, 3), "group_2": (1, 3), "hidden": (1, 1000),
                  "width": (1, 1000), "evaluations": (1, 10**6)}  # fmt: skip
        check_fields(self, within=within, positive=("scale",))


def random_vae(config: Config) -> tuple[VAE, Rule, Tensor, Tensor]:
    """A fixed VAE with uniform bits and a random decoder network; its latent states, all x, and their p(x).

    The data come from the model itself, so its decoder is one of maximum likelihood.

    Paper: case-mrf
    """
    bits, generator = config.group_1 + config.group_2, torch.Generator().manual_seed(config.seed)
    decoder = mlp((bits, config.hidden, config.pixels), nn.Tanh).double()
    with torch.no_grad():
        for parameter in decoder.parameters():
            spread = config.scale / math.sqrt(parameter.shape[-1]) if parameter.ndim == 2 else 0.5
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    uniform = torch.zeros(bits, dtype=torch.float64)
    encoder = nn.Linear(config.pixels, bits).double()
    vae = VAE(Prior(uniform, Bernoulli), Conditional(decoder, Bernoulli), Conditional(encoder, Bernoulli))
    vae.requires_grad_(requires_grad=False)
    rule = enumerate_states(Bernoulli(uniform))
    x = enumerate_states(Bernoulli(uniform.new_zeros(config.pixels))).points
    return vae, rule, x, log_marginal(vae, x, rule).exp()


def _families(config: Config, states: Tensor) -> dict[str, tuple[MakeFamily, Tensor]]:
    """Each family, and its statistic at the states."""
    bits, sizes = states.shape[1], (config.group_1, config.group_2)
    ising = partial(BipartiteIsing, sizes=sizes)
    members = sum(sizes) + sizes[0] * sizes[1]
    pairs = code_products(bits, min(2, bits))
    return {
        "factorized": (Bernoulli, states),
        "mrf": (ising, ising(states.new_zeros(members)).sufficient_statistic(states)),
        "pairs": (partial(Tabular, states=states, statistic=pairs), pairs),
        "states": (CategoricalOver(states), torch.eye(len(states), dtype=states.dtype)),
    }


def run(config: Config, *, results: Path | None = None, refresh: bool = False) -> Record:
    """The record of one cell, computed unless it is there already.

    Metrics, in nats, averaged over the data::

        family_NAME              gap of the best member of the family for each x
        amortization_NAME_NET    what one network for all x adds to it: an affine one, or one with a hidden layer

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.

    Paper: case-mrf, app-b
    """
    return records.stored(STEM, config, lambda: _compute(config), results=results, refresh=refresh)


def _compute(config: Config) -> Record:
    started = time.monotonic()
    vae, rule, x, weights = random_vae(config)
    table = log_joint(vae, x, rule)
    metrics: dict[str, float | None] = {}
    for name, (make, statistic) in _families(config, rule.points).items():
        free = torch.zeros_like(weights)
        if name == "factorized":
            free = posterior_gap(table, statistic.shape[1])
        elif name != "states":  # all states: any posterior is reached
            free = family_gap(table, statistic)
        metrics[f"family_{name}"] = float((free * weights).sum())
        for depth, network in enumerate(NETWORKS):
            trained = with_encoder(vae, make, config.pixels, statistic.shape[1], depth, config.seed, config.width)
            train_encoder(trained, x, weights, rule, config.evaluations)
            metrics[f"amortization_{name}_{network}"] = gap_parts(trained, x, weights, rule, free).amortization
    return records.make(STEM, config, metrics, {}, seconds=time.monotonic() - started,
                        show=("pixels", "group_1", "group_2", "seed"))  # fmt: skip


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
