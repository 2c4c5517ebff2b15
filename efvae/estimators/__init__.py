"""Estimators of E_q f(z) whose backward pass estimates the gradient: one protocol, one file for each kind."""

from efvae.estimators.antithetic import ARM, DisARM
from efvae.estimators.base import Estimator
from efvae.estimators.exact import Exact, gauss_hermite_nodes
from efvae.estimators.reinforce import Reinforce
from efvae.estimators.reparameterized import Reparameterized
from efvae.estimators.straight_through import StraightThrough

__all__ = [
    "ARM",
    "DisARM",
    "Estimator",
    "Exact",
    "Reinforce",
    "Reparameterized",
    "StraightThrough",
    "gauss_hermite_nodes",
]
