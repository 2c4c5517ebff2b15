"""What the paper concludes from Table 2, each conclusion as differences of two cells, for its numbers and for ours.

Own: own-text-claims
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

from scipy import stats

from efvae.records import Record
from efvae.text.model import ENCODERS
from efvae.text_table import BITS, DEPTHS, SPLITS, Cell, Cells, mean_and_spread

__all__ = ["CLAIMS", "Claim", "Comparison", "Quantity", "compare", "summary", "told"]

LONG = (32, 64)


class Quantity(Interface):
    """A quantity of a cell from numbers by name, such as ``nelbo_test``; None where one is missing.

    Own: own-text-claims
    """

    def __call__(self, of: Callable[[str], float | None]) -> float | None:
        """The quantity, where ``of`` gives the number of a name."""


@dataclass(frozen=True)
class Claim:
    """A quantity that is smaller in the first cell of each pair than in the second.

    Args:
        name: in words.
        quantity: what is compared, from the named numbers of a cell.
        pairs: split or name of the quantity, first and second cell.

    Own: own-text-claims
    """

    name: str
    quantity: Mapping[str, Quantity]
    pairs: tuple[tuple[str, Cell, Cell], ...]


@dataclass(frozen=True)
class Comparison:
    """One pair of cells: first minus second, in nats a document.

    Args:
        of: the quantity.
        first, second: the cells.
        paper: from the printed numbers; None where the paper prints none.
        differences: ours, one for each seed that both cells have.

    Own: own-text-claims
    """

    of: str
    first: Cell
    second: Cell
    paper: float | None
    differences: tuple[float, ...]

    @property
    def ours(self) -> float | None:
        """Mean over the seeds."""
        return mean_and_spread(self.differences)[0]

    @property
    def spread(self) -> float | None:
        """Standard deviation of the paired differences, from three seeds on."""
        return mean_and_spread(self.differences)[1]

    @property
    def alike(self) -> bool:
        """Whether all seeds have the same sign."""
        return len({difference < 0 for difference in self.differences}) == 1

    @property
    def decided(self) -> bool:
        """Whether a t test of the paired differences, two-sided at 5 %, tells their mean from zero."""
        if len(self.differences) < 2:
            return False
        return bool(stats.ttest_1samp(self.differences, 0).pvalue < 0.05)  # NaN if all are zero

    @property
    def verdict(self) -> str:
        """``holds``, ``tie`` or ``fails`` by the mean; ``undecided`` if seeds have different signs; ``open``."""
        return _sign(self.ours) if self.alike or not self.differences else "undecided"


def _sign(difference: float | None) -> str:
    if difference is None:
        return "open"
    return "holds" if difference < 0 else "tie" if difference == 0 else "fails"


def _nelbo(split: str) -> Quantity:
    return lambda of: of(f"nelbo_{split}")


def _numbers(record: Record) -> dict[str, float | None]:
    """Its metrics, and the KL term after the last epoch, which no split selects."""
    kl = record.curve.get("kl_test")
    return {"kl_test_last": kl[-1] if kl else None} | record.metrics


def _overfit(of: Callable[[str], float | None]) -> float | None:
    train, test = of("nelbo_train"), of("nelbo_test")
    return None if train is None or test is None else test - train


_NELBO: dict[str, Quantity] = {split: _nelbo(split) for split in SPLITS}


def _encoders(better: str, worse: str) -> tuple[tuple[str, Cell, Cell], ...]:
    return tuple((s, (b, d, better), (b, d, worse)) for s in SPLITS for b in BITS for d in DEPTHS)


def _depths(of: str, bits: Sequence[int]) -> tuple[tuple[str, Cell, Cell], ...]:
    return tuple((of, (b, 0, e), (b, d, e)) for b in bits for e in ENCODERS for d in DEPTHS[1:])


#: What the paper says of its table, in the order of the text.
CLAIMS = {
    "e1-e2": Claim("e1 has a lower NELBO than e2", _NELBO, _encoders("e1", "e2")),
    "e2-e3": Claim("e2 has a lower NELBO than e3", _NELBO, _encoders("e2", "e3")),
    "linear": Claim("at 32 and 64 bits a linear decoder has the lowest test NELBO", _NELBO, _depths("test", LONG)),
    "overfit": Claim(
        "at 32 and 64 bits deeper decoders overfit: test − train is larger",
        {"test − train": _overfit},
        _depths("test − train", LONG),
    ),
    "collapse": Claim(
        "deeper decoders do not collapse more: KL on test after the last epoch is not smaller",
        {"KL": lambda of: of("kl_test_last")},
        _depths("KL", BITS),
    ),
}


def compare(claim: Claim, cells: Cells, paper: Mapping[tuple[str, Cell], float]) -> list[Comparison]:
    """All pairs of a claim.

    Args:
        claim: one of :data:`CLAIMS`.
        cells: their records, see :func:`efvae.text_table.cells_of`.
        paper: see :func:`efvae.text_table.printed`.

    Paper: tab-2
    Own: own-text-claims
    """
    return list(_comparisons(claim, cells, paper))


def _comparisons(claim: Claim, cells: Cells, paper: Mapping[tuple[str, Cell], float]) -> Iterator[Comparison]:
    def by_seed(records: Sequence[Record], quantity: Quantity) -> dict[int, float]:
        found = {record.config["seed"]: quantity(_numbers(record).get) for record in records}
        return {seed: value for seed, value in found.items() if value is not None}

    for of, first, second in claim.pairs:
        quantity = claim.quantity[of]
        one, two = (
            quantity(lambda name, cell=cell: paper.get((name.removeprefix("nelbo_"), cell)))  # type: ignore[misc]
            for cell in (first, second)
        )
        a, b = by_seed(cells.get(first, ()), quantity), by_seed(cells.get(second, ()), quantity)
        ours = tuple(a[seed] - b[seed] for seed in sorted(set(a) & set(b)))
        yield Comparison(of, first, second, None if one is None or two is None else one - two, ours)


def summary(comparisons: Sequence[Comparison]) -> tuple[str, str]:
    """In how many pairs a claim holds, in words: by the printed numbers, and by ours.

    A verdict counts signs, which two or three seeds share by chance in a half or a quarter of the pairs. So each of
    ours is followed by the number of pairs that the t test decides.

    Own: own-text-claims
    """
    n = len(comparisons)

    def counted(signs: list[str], by_t: list[str] | None = None) -> str:
        def tested(name: str) -> str:
            if by_t is None or name not in signs or name not in ("holds", "fails"):
                return ""
            return f" ({by_t.count(name)} by t)"

        others = ("fails", "tie", "undecided")
        said = [f"{name} in {signs.count(name)}{tested(name)}" for name in others if name in signs]
        return ", ".join([f"holds in {signs.count('holds')} of {n - signs.count('open')}{tested('holds')}", *said])

    printed = [_sign(c.paper) for c in comparisons]
    ours = [c.verdict for c in comparisons]
    by_t = [c.verdict for c in comparisons if c.decided]
    paper = "prints no numbers" if set(printed) == {"open"} else counted(printed)
    run = "open, no pair run" if set(ours) == {"open"} else f"{counted(ours, by_t)}, open in {ours.count('open')}"
    return paper, run


def told(comparisons: Sequence[Comparison]) -> str:
    """The pairs that were run as a plain table.

    Own: own-text-claims
    """
    lines = []
    for c in comparisons:
        if c.ours is not None:
            pair = f"{c.of:12} {c.first[0]:2} bits, layers {c.first[1]} {c.first[2]} − {c.second[1]} {c.second[2]}"
            paper = "–" if c.paper is None else f"{c.paper:+.0f}"
            ours = f"{c.ours:+.1f}" + (f" ± {c.spread:.1f}" if c.spread is not None else "")
            lines.append(f"{pair}  {paper:>5}  {ours:>13}  {c.verdict}{' by t' if c.decided else ''}")
    return "\n".join(["pair" + " " * 37 + "paper           ours", *lines]) if lines else ""
