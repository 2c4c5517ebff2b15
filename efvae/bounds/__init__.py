"""Theorem 2 as functions: how near a nearly tight VAE is to a harmonium.

``scalars`` holds the bounds as functions of (ε, α), ``tables`` a VAE on finite spaces as tables, ``projection`` the
harmonium of Proposition A.1, ``steps_a1`` and ``steps_a2`` each step of the proof, ``one_floor`` what remains with a
floor under one law only, ``escape`` Example A.1, ``draws`` random VAEs at a chosen distance from consistency.
"""

from efvae.bounds.draws import FAMILY_PAIRS, random_vae
from efvae.bounds.escape import (
    escape_alpha,
    escape_error,
    escape_kl,
    escape_map,
    escape_projection_error,
    escape_vae,
)
from efvae.bounds.one_floor import base_floor, bound_posterior_floor, contrast_vae, guarded, tabled_vae
from efvae.bounds.projection import Projection, projected_harmonium
from efvae.bounds.scalars import (
    PAPER_CONSTANT,
    binary_kl,
    bound_half_alpha_squared,
    bound_paper,
    bound_sharp,
    bound_two_over_alpha,
    log_square_ratio,
    saturation,
    worst_case,
)
from efvae.bounds.steps_a1 import Step, steps_a1
from efvae.bounds.steps_a2 import printed_52b, steps_a2
from efvae.bounds.tables import Tables, tabulate

__all__ = [
    "FAMILY_PAIRS",
    "PAPER_CONSTANT",
    "Projection",
    "Step",
    "Tables",
    "base_floor",
    "binary_kl",
    "bound_half_alpha_squared",
    "bound_paper",
    "bound_posterior_floor",
    "bound_sharp",
    "bound_two_over_alpha",
    "contrast_vae",
    "escape_alpha",
    "escape_error",
    "escape_kl",
    "escape_map",
    "escape_projection_error",
    "escape_vae",
    "guarded",
    "log_square_ratio",
    "printed_52b",
    "projected_harmonium",
    "random_vae",
    "saturation",
    "steps_a1",
    "steps_a2",
    "tabled_vae",
    "tabulate",
    "worst_case",
]
