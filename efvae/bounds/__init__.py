"""Theorem 2 as functions: how near a nearly tight VAE is to a harmonium.

``scalars`` holds the bounds as functions of (ε, α), ``tables`` a VAE on finite spaces as tables, ``projection`` the
harmonium of Proposition A.1, ``steps_a1`` and ``steps_a2`` each inequality of the proof, ``escape`` Example A.1,
``draws`` random VAEs at a chosen distance from consistency.
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
from efvae.bounds.projection import Projection, nearest_harmonium
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
    "binary_kl",
    "bound_half_alpha_squared",
    "bound_paper",
    "bound_sharp",
    "bound_two_over_alpha",
    "escape_alpha",
    "escape_error",
    "escape_kl",
    "escape_map",
    "escape_projection_error",
    "escape_vae",
    "log_square_ratio",
    "nearest_harmonium",
    "printed_52b",
    "random_vae",
    "saturation",
    "steps_a1",
    "steps_a2",
    "tabulate",
    "worst_case",
]
