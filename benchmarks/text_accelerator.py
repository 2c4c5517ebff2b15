"""What Table 2 must cost on an accelerator, operations and bytes of its 36 cells over stated rates, beside what it did.

The result is a floor for the program as it is written: every product, and every pass over an array with a row or a
column for each word, at the full rate of the device, nothing else. The documents of a step, which its cells share, pass
once; no other array is taken to stay in the cache, where some of a step with one pair of codes would fit. What is
computed once after the training (likelihood, gap, retrieval) is not in it, and not in what was measured: the seconds in
the stored records of seed 0.

The rates are options, with stated values; ``python -m benchmarks.text_together rates --device cuda`` measures those of
a device and prints this with them.

``python -m benchmarks.text_accelerator [--bf16 790] [--tf32 395] [--float32 50] [--memory 4.25]``
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path

import torch

from benchmarks.image_features import timed
from efvae import devices, text_table
from efvae.text.model import ENCODERS, LISTED_BITS, WIDTH

WORDS, TRAIN, TEST, BATCH = 10000, 11269, 7505, 256
#: Epochs and pairs of codes of the two parts of the protocol.
PROTOCOL = ((1000, 1), (500, 10))
#: The table in three commands.
COMMANDS = ({"d_hidden": (0,)}, {"d_hidden": (1,)}, {"d_hidden": (2,)})
BITS = (8, 16, 32, 64)
#: Drawn codes that cost what a listed one does, where the kernels of rows are: see ``efvae.text.model``.
LISTING = 8
#: Times that work is done while its rate is taken, and tables of float32 logits in the copy: more than caches hold.
OFTEN, COPIED = 100, 5
#: What the records have to say that they were made on.
DEVICE = "H200"


@dataclass(frozen=True)
class Cost:
    """Operations of products in bfloat16, tf32 and float32, and bytes that pass through the memory."""

    bf16: float = 0.0
    tf32: float = 0.0
    float32: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> Cost:
        return Cost(*(a * times for a in astuple(self)))

    def seconds(self, rates: Cost) -> float:
        """At rates a second: products of all kinds share the device, the memory works beside them."""
        products = self.bf16 / rates.bf16 + self.tf32 / rates.tf32 + self.float32 / rates.float32
        return max(products, self.bytes / rates.bytes)


@dataclass(frozen=True)
class Cell:
    """A cell of the table."""

    bits: int
    encoder: str
    depth: int
    words: int = WORDS
    width: int = WIDTH

    @property
    def first(self) -> int:
        """Columns of the encoder's table of words."""
        return self.width if self.encoder == "e2" else self.bits

    @property
    def last(self) -> int:
        """Columns of the decoder's table of words."""
        return self.width if self.depth else self.bits

    @property
    def parameters(self) -> int:
        """Their number, biases apart."""
        deep = self.encoder == "e2"
        inner = deep * self.width * (self.width + self.bits)
        inner += (self.depth > 0) * self.width * (self.bits + (self.depth - 1) * self.width)
        return self.words * (self.first + self.last) + inner

    def hidden(self, documents: int, codes: int) -> float:
        """Operations of the layers between the tables, one way."""
        encoder = (self.encoder == "e2") * self.width * (self.width + self.bits)
        decoder = (self.depth > 0) * self.width * (self.bits + (self.depth - 1) * self.width)
        return 2.0 * (documents * encoder + codes * decoder)

    def codes(self, drawn: int) -> int:
        """Codes whose log-partition is computed where so many are drawn."""
        return 2**self.bits if self.bits <= LISTED_BITS and LISTING * 2**self.bits <= drawn else drawn

    def step(self, documents: int, pairs: int) -> Cost:
        """Forward, backward, Adam."""
        codes, deep = self.codes(2 * pairs * documents), self.depth > 0
        listed = codes < 2 * pairs * documents
        padded = self.last if listed else -(-(self.last + 1) // 8) * 8
        one, read = 2.0 * codes * self.words, 2.0 * documents * self.words
        bf16 = one * (self.last + padded + deep * self.last)  # logits; gradients of the table and of the codes
        tf32 = read * (2 * self.first + self.last + 1)  # e's table and its gradient; <x, f(z)>
        # logits are made, summed, made residual in place, read by one product or two; in bytes of a column:
        passes, first, last = 5 + deep, 8, 18 + 2 * deep  # the table rounded, read by products; gradient unpacked
        if listed:
            tf32 += 2.0 * codes * self.last * documents
        if listed and deep:
            bf16 += codes * read  # the weights of the codes times the documents
            passes = 10  # the residual has its own place, and its sum is a pass
        elif listed:
            bf16 += one  # the gradient of the bias
            tf32 += read * (self.last + 1) + 2.0 * documents * codes * self.last
            last += 16  # two terms of the gradient
        arrays = 2.0 * passes * codes + (6.0 if listed and deep else 4.0) * documents  # x, rounded too
        tables = first * self.first + last * self.last + 2.0 * padded
        moved = self.words * (arrays + tables) + 4.0 * 7 * self.parameters
        return Cost(bf16 + 3 * self.hidden(documents, codes), tf32, 0.0, moved)

    def evaluation(self, documents: int) -> Cost:
        """In float32, one code for each document."""
        codes = self.codes(documents)
        listed = codes < documents
        products = 2.0 * self.words * (documents * self.first + codes * self.last)
        if listed:
            products += 2.0 * documents * (self.words * (self.last + 1) + codes * self.last)
        else:
            products += 2.0 * self.words * self.last  # a smoothing of zeros
        # logits are made, and read or made probabilities; x is read for the codes and for the costs
        passes = 3 * codes + 3 * documents if listed else 4 * documents
        return Cost(0.0, 0.0, products + self.hidden(documents, codes), 4.0 * self.words * passes)

    @property
    def memory(self) -> float:
        """Bytes that stay: the model, the best one, Adam's two moments, a gradient."""
        return 4.0 * 5 * self.parameters

    @property
    def working_memory(self) -> float:
        """Bytes of the largest step: logits in bfloat16, overwritten by what comes of them."""
        return 2.0 * self.codes(2 * PROTOCOL[1][1] * BATCH) * self.words


def cells(depths: tuple[int, ...]) -> list[Cell]:
    """Those of a command."""
    return [Cell(*kind) for kind in itertools.product(BITS, ENCODERS, depths)]


def floor(chosen: list[Cell], rates: Cost) -> float:
    """Seconds of all 1500 epochs: cells run beside each other, one step or evaluation after the other."""
    whole, rest = divmod(TRAIN, BATCH)
    total = 0.0
    for epochs, pairs in PROTOCOL:
        for times, parts in (
            (whole, [cell.step(BATCH, pairs) for cell in chosen]),
            (1, [cell.step(rest, pairs) for cell in chosen]),
            (1, [cell.evaluation(TEST) for cell in chosen]),
        ):
            total += epochs * times * sum(parts, Cost()).seconds(rates)
    return total


def rates(codes: int, width: int, words: int, rounds: int) -> Cost:
    """Best ones of the current device: of the three products of so many codes with the last table, and of a copy.

    tf32 is float32 where a device has none. All of the wall, the work done many times; on a CPU of its seconds.
    """
    device = devices.current()

    def seconds(*works: Callable[[], object]) -> float:
        def often(work: Callable[[], object]) -> None:
            for _ in range(OFTEN):
                work()

        # the first time warms up, and is not the best
        return min(timed(lambda work=work: often(work)) for _ in range(rounds + 1) for work in works) / OFTEN

    def product(dtype: torch.dtype, precision: str) -> float:
        shapes = (codes, width), (words, width), (codes, words)
        # of random numbers: with constant ones a device draws less power, and is faster
        h, table, y = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
        with devices.matmul_precision(precision):
            return 2.0 * codes * width * words / seconds(lambda: h @ table.t(), lambda: y.t() @ h, lambda: y @ table)

    x = torch.randn(COPIED * codes, words, device=device)
    y = torch.empty_like(x)
    return Cost(
        product(torch.bfloat16, "high"),
        product(torch.float32, "high"),
        product(torch.float32, "highest"),
        2.0 * x.nbytes / seconds(lambda: y.copy_(x)),
    )


def measured(stored: text_table.Cells, depth: int) -> float | None:
    """Seconds that a command trained, by its records of seed 0; None unless one device made them all."""
    found = [[r for r in records if r.config["seed"] == 0] for (_, d, _), records in stored.items() if d == depth]
    made = [record.provenance for records in found for record in records]
    devices = {one.get("device") for one in made}
    if not all(found) or len(devices) > 1 or DEVICE not in str(*devices):
        return None
    return math.fsum(one["seconds"] for one in made)


def main(arguments: list[str] | None = None, root: Path | None = None) -> None:
    """Print floor, memory and measured time of each command; root: the folder of results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_accelerator", description=__doc__.splitlines()[0])
    parser.add_argument("--bf16", type=float, default=790.0, help="products in bfloat16, 10^12 operations a second")
    parser.add_argument("--tf32", type=float, default=395.0, help="in tf32, likewise; assumed: half of bfloat16")
    parser.add_argument("--float32", type=float, default=50.0, help="in float32, likewise")
    parser.add_argument("--memory", type=float, default=4.25, help="memory, 10^12 bytes a second")
    options = parser.parse_args([] if arguments is None else arguments)
    rates = Cost(*(1e12 * rate for rate in (options.bf16, options.tf32, options.float32, options.memory)))
    print(
        f"floors are computed, not measured: at {options.bf16:g} (bfloat16), {options.tf32:g} (tf32) and "
        f"{options.float32:g} (float32) TFLOP/s, {options.memory:g} TB/s"
    )
    stored, total = text_table.cells_of(root), 0.0
    for command in COMMANDS:
        (depth,) = command["d_hidden"]
        chosen = cells((depth,))
        seconds = floor(chosen, rates)
        stays = sum(cell.memory for cell in chosen) + 4.0 * WORDS * (TRAIN + TEST)
        works = max(cell.working_memory for cell in chosen)
        total += seconds
        print(
            f"d_hidden={depth}: {len(chosen)} cells, at least {seconds / 60:.1f} min; "
            f"{stays / 1e9:.1f} GB stay, {works / 1e9:.2f} GB in a step, for each of the streams"
        )
        took = measured(stored, depth)
        if took is None:
            print(f"  not run on one {DEVICE}")
        else:
            print(f"  measured on an {DEVICE}: {took / 60:.1f} min, {took / seconds:.1f} times that")
    print(f"all 36 cells: at least {total / 60:.1f} min")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
