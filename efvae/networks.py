"""The few networks that the paper uses, as plain modules."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["CodeTable", "mlp"]


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Fully connected network with ``len(sizes) - 2`` hidden layers; the last layer is linear.

    Args:
        sizes: widths from input to output, at least two, e.g. ``(2, 64, 64, 2)``.
        activation: class of the hidden activations.

    Raises:
        ValueError: fewer than two sizes, or one below 1.

    Paper: sec-4-1
    """
    if len(sizes) < 2:
        raise ValueError(f"mlp: sizes needs an input and an output width, got {list(sizes)}")
    if min(sizes) < 1:
        raise ValueError(f"mlp: every width must be at least 1, got {list(sizes)}")
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), activation()]
    return nn.Sequential(*layers[:-1])


class CodeTable(nn.Module):
    """A free output vector for each binary code: z ↦ θ z_oh, with z_oh the one-hot vector of the code z.

    Args:
        table: one row for each code in counting order (first bit most significant), shape ``(2**m, n)``.

    Raises:
        ValueError: the number of rows is not a power of two.

    Paper: sec-4-1
    """

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.n_bits = (len(table) - 1).bit_length()
        if len(table) != 2**self.n_bits:
            raise ValueError(f"CodeTable: needs a row for each of the 2**m codes, got {len(table)} rows")
        self.table = nn.Parameter(table.clone())

    def forward(self, z: Tensor) -> Tensor:
        """Rows of the codes z of shape ``(..., m)``: shape ``(..., n)``."""
        place = 2 ** torch.arange(self.n_bits - 1, -1, -1, device=z.device)
        return self.table[(z.long() * place).sum(-1)]
