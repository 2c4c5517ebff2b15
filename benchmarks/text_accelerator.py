"""What Table 2 must cost on an accelerator: operations and bytes of its 36 cells over stated rates; nothing measured.

The result is a floor for the program as it is written: every product and every pass over an array at the full rate of
the device, nothing else; what is computed once after the training (likelihood, gap, retrieval) is not in it.

``python -m benchmarks.text_accelerator [--bf16 790] [--float32 60] [--memory 4.3]``
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import dataclass

from efvae.text.model import ENCODERS, LISTED_BITS, WIDTH

WORDS, TRAIN, TEST, BATCH = 10000, 11269, 7505, 256
#: Epochs and pairs of codes of the two parts of the protocol.
PROTOCOL = ((1000, 1), (500, 10))
#: The table in three commands.
COMMANDS = ({"d_hidden": (0,)}, {"d_hidden": (1,)}, {"d_hidden": (2,)})
BITS = (8, 16, 32, 64)


@dataclass(frozen=True)
class Cost:
    """Operations of products in bfloat16 and in float32, and bytes that pass through the memory."""

    bf16: float = 0.0
    float32: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.bf16 + other.bf16, self.float32 + other.float32, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.bf16 * times, self.float32 * times, self.bytes * times)

    def seconds(self, rates: Cost) -> float:
        """At rates a second: products of both kinds share the device, the memory works beside them."""
        return max(self.bf16 / rates.bf16 + self.float32 / rates.float32, self.bytes / rates.bytes)


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
        return min(drawn, 2**self.bits) if self.bits <= LISTED_BITS else drawn

    def step(self, documents: int, pairs: int) -> Cost:
        """Forward, backward, Adam."""
        codes, even = self.codes(2 * pairs * documents), -(-(self.last + 1) // 8) * 8
        listed = codes < 2 * pairs * documents
        read = 2.0 * documents * self.words
        # logits; gradient of the table; gradient of the codes
        back = self.last if listed else even
        products = 2.0 * codes * self.words * (self.last + back + (self.last if self.depth else 0))
        float32 = read * (2 * self.first + self.last + 1)  # e's table and its gradient; <x, f(z)>
        float32 += 2.0 * codes * self.last * (documents if listed else 1)
        if listed and self.depth:
            products += codes * read  # the weights of the codes times the documents
        elif listed:
            products += 2.0 * codes * self.words
            float32 += read * (self.last + 1) + 2.0 * documents * codes * self.last
        # logits: made, greatest found, shifted, exponentials, summed; x taken off; read by products
        passes = 7 + (2 if listed else 3) + (2 if self.depth else 1)
        arrays = 2.0 * passes * codes * self.words + 8.0 * documents * self.words
        tables = 4.0 * self.words * even * 3  # rounded, and the gradient in float32
        return Cost(products + 3 * self.hidden(documents, codes), float32, arrays + tables + 4.0 * 7 * self.parameters)

    def evaluation(self, documents: int) -> Cost:
        """In float32, one code for each document."""
        codes = self.codes(documents)
        listed = codes < documents
        products = 2.0 * self.words * (documents * self.first + codes * self.last)
        if listed:
            products += 2.0 * documents * (self.words * (self.last + 1) + codes * self.last)
        else:
            products += 2.0 * self.words * self.last  # the smoothing
        passes = 7 if listed else 10  # x is multiplied with the logits, and the product summed
        return Cost(0.0, products + self.hidden(documents, codes), 4.0 * self.words * (passes * codes + 3 * documents))

    def protocol(self) -> Cost:
        """All 1500 epochs."""
        whole, rest = divmod(TRAIN, BATCH)
        total = Cost()
        for epochs, pairs in PROTOCOL:
            total += (self.step(BATCH, pairs) * whole + self.step(rest, pairs) + self.evaluation(TEST)) * epochs
        return total

    @property
    def memory(self) -> float:
        """Bytes that stay: the model, the best one, Adam's two moments, a gradient."""
        return 4.0 * 5 * self.parameters

    @property
    def working_memory(self) -> float:
        """Bytes of the largest step: exponentials and residual in bfloat16."""
        return 2.0 * 2 * self.codes(2 * PROTOCOL[1][1] * BATCH) * self.words


def cells(depths: tuple[int, ...]) -> list[Cell]:
    """Those of a command."""
    return [Cell(*kind) for kind in itertools.product(BITS, ENCODERS, depths)]


def main(arguments: list[str] | None = None) -> None:
    """Print floor and memory of each command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_accelerator", description=__doc__.splitlines()[0])
    parser.add_argument("--bf16", type=float, default=790.0, help="products in bfloat16, 10^12 operations a second")
    parser.add_argument("--float32", type=float, default=60.0, help="products in float32, likewise")
    parser.add_argument("--memory", type=float, default=4.3, help="memory, 10^12 bytes a second")
    options = parser.parse_args([] if arguments is None else arguments)
    rates = Cost(*(1e12 * rate for rate in (options.bf16, options.float32, options.memory)))
    print(f"computed, not measured; {options.bf16:g} and {options.float32:g} TFLOP/s, {options.memory:g} TB/s")
    total = 0.0
    for command in COMMANDS:
        chosen = cells(command["d_hidden"])
        seconds = math.fsum(cell.protocol().seconds(rates) for cell in chosen)
        stays = sum(cell.memory for cell in chosen) + 4.0 * WORDS * (TRAIN + TEST)
        works = max(cell.working_memory for cell in chosen)
        total += seconds
        print(
            f"d_hidden={command['d_hidden'][0]}: {len(chosen)} cells, at least {seconds / 60:.1f} min; "
            f"{stays / 1e9:.1f} GB stay, {works / 1e9:.2f} GB in a step, for each of the streams"
        )
    print(f"all 36 cells: at least {total / 60:.1f} min")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
