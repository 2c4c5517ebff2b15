"""What came of the cells of a sweep.

Own: own-sweep
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from efvae.sweep.plan import Plan

__all__ = ["Outcome"]


@dataclass
class Outcome:
    """What came of each cell, by digest.

    Args:
        done: seconds since the start of the sweep.
        skipped: recorded already, or computed by another sweep meanwhile.
        failed: the reason, and the log if there is one.
        full: those of the failed ones that found no room on a disk.

    Own: own-sweep
    """

    done: dict[str, float] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    failed: dict[str, tuple[str, Path | None]] = field(default_factory=dict)
    full: set[str] = field(default_factory=set)

    def table(self, plan: Plan) -> list[str]:
        """One line for each cell, and one with the numbers.

        Args:
            plan: what was planned.

        Own: own-sweep
        """
        told = []
        for state in ("skipped", "done", "failed"):
            for cell in plan.cells:
                if cell.digest in getattr(self, state):
                    reason, log = self.failed.get(cell.digest, ("", None))
                    why = f": {reason}" + (f" (log: {log})" if log else "") if reason else ""
                    told.append(f"{state:7} {cell.label}{why}")
        return [*told, f"{len(self.done)} done, {len(self.skipped)} skipped, {len(self.failed)} failed"]
