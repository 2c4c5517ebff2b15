"""Many cells of one experiment by one command that may be killed at any moment: what is recorded is not computed again.

The driver plans and starts processes, a process trains one group of cells, and the files say what is done::

    results/<stem>/<cell>.json       a record, whole or not there: the only thing that counts as done
    results/<stem>/.<hash>.lock      held by whoever computes the cell; the kernel releases it on any death
    _build/sweeps/<stem>/            logs of failed groups, checkpoints of unfinished ones

Own: own-sweep
"""

from efvae.sweep.grid import Cell, Experiment, cells_of, experiment, read_file
from efvae.sweep.outcome import Outcome
from efvae.sweep.plan import Group, Plan, plan
from efvae.sweep.pool import Options, run

__all__ = [
    "Cell",
    "Experiment",
    "Group",
    "Options",
    "Outcome",
    "Plan",
    "cells_of",
    "experiment",
    "plan",
    "read_file",
    "run",
]
