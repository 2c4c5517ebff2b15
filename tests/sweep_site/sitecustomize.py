"""Put on PYTHONPATH by the tests of `efvae sweep`: an experiment that fails on demand, and faults of the machine."""

import datetime as dt
import os
import sys
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

if "full-disk" in faults and "efvae.sweep.worker" in sys.orig_argv:  # a file cannot grow beyond 4 kB
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

if "clock-back" in faults:  # each look at the wall clock is an hour before the last one

    class Back(dt.datetime):
        looks = 0

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
            cls.looks += 1
            return super().now(tz) - dt.timedelta(hours=cls.looks)

    dt.datetime = Back
    time.time = lambda: Back.now().timestamp()
