"""`make torture`: do to sweeps what a machine can do to them, many times; what came of it is results/torture.csv.

The tests do the same a few times. Nothing may be lost, and nothing wrong: the exit code says so.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import sys
import tempfile
import time
from pathlib import Path

from efvae.records import write_atomically
from tests import faults

OUTPUT = Path(__file__).resolve().parents[1] / "results" / "torture.csv"
HEAD = ("fault", "times", "records lost", "records wrong", "what the user reads")


def main() -> int:
    """Run all faults; 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(prog="make torture")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="kill no longer than this")
    options = parser.parse_args()
    rows: list[tuple[str, faults.Trial]] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number, (fault, inflict) in enumerate(faults.SINGLE.items()):
            folder = root / str(number)
            folder.mkdir()
            rows.append((fault, inflict(folder)))
            report(*rows[-1])
        begun = time.monotonic()
        expected = faults.undisturbed(root / "whole")
        dice = random.SystemRandom()
        trial = faults.kill_at_random(root / "killed", expected, options.kills, dice, options.minutes)
        moments = ", ".join(f"{count} {moment}" for moment, count in sorted(trial.notes.items()))
        rows.insert(0, (f"kill -9 ({moments})", trial))
        report(*rows[0])
        print(f"{trial.litter} hidden files of killed writes left; {(time.monotonic() - begun) / 60:.0f} min of kills")
    text = io.StringIO()
    sink = csv.writer(text, lineterminator="\n")
    sink.writerow(HEAD)
    for fault, trial in rows:
        sink.writerow((fault, trial.hits, trial.lost, trial.wrong, trial.line))
    write_atomically(OUTPUT, text.getvalue())
    return int(any(trial.lost or trial.wrong for _, trial in rows))


def report(fault: str, trial: faults.Trial) -> None:
    """One line on the terminal."""
    print(f"{fault}: {trial.hits} times, {trial.lost} lost, {trial.wrong} wrong: {trial.line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
