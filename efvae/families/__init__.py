"""Exponential families: one definition per file, the laws in :mod:`efvae.families.base`."""

from efvae.families.base import ExponentialFamily
from efvae.families.bernoulli import Bernoulli, all_bits
from efvae.families.categorical import Categorical
from efvae.families.gaussian import Gaussian, GaussianFixedVariance
from efvae.families.ising import BipartiteIsing
from efvae.families.multinomial import Multinomial
from efvae.families.tabular import Tabular

__all__ = [
    "Bernoulli",
    "BipartiteIsing",
    "Categorical",
    "ExponentialFamily",
    "Gaussian",
    "GaussianFixedVariance",
    "Multinomial",
    "Tabular",
    "all_bits",
]
