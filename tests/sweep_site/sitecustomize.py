"""Put on PYTHONPATH by the tests of `efvae sweep`: an experiment that fails on demand, and faults of the machine."""

import os
import time
from pathlib import Path

import efvae.experiments

efvae.experiments.__path__.append(str(Path(__file__).parent / "experiments"))
faults = os.environ.get("EFVAE_FAULTS", "").split(",")

if "slow-disk" in faults:  # a kill falls into a write more often
    fsync = os.fsync

    def slow(handle: int) -> None:
        time.sleep(0.05)
        fsync(handle)

    os.fsync = slow

if "full-disk" in faults:  # a write beyond 4 kB fails, in this process and in its children
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

if "clock-back" in faults:  # each look at the wall clock is an hour before the last one
    wall = time.time

    def back(calls: list = [0]) -> float:  # noqa: B006 - the state
        calls[0] += 1
        return wall() - 3600.0 * calls[0]

    time.time = back
