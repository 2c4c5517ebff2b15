"""Codes drawn several times for a document, of which a decoder has to see each once.

An encoder that is nearly sure draws the same code again and again: with half a nat of entropy, of the twenty codes of
ten pairs two or three are different. A decoder with hidden layers spends its time on codes, so this is about the factor
by which a step becomes shorter; costs and gradients are those of all codes, within rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Distinct", "distinct"]

#: Share of different codes from which on it is not worth while.
WORTH = 0.9
#: Bits that a whole number holds.
_MOST = 64


@dataclass(frozen=True)
class Distinct:
    """The different codes of each document.

    Args:
        codes: shape ``(rows, m)``.
        document: whose code that is, int64, shape ``(rows,)``.
        place: the row of each code that was drawn, int64, shape ``(s, documents)``.

    Own: own-text-training
    """

    codes: Tensor
    document: Tensor
    place: Tensor


def distinct(z: Tensor) -> Distinct | None:
    """Find the different codes of each document.

    Their number is rounded up by codes that are there anyway, to few different numbers: large tensors find the memory
    of others, and products are prepared for each shape.

    Args:
        z: codes, shape ``(s, documents, m)``, without a gradient.

    Returns:
        None if z is not of zeros and ones, has more bits than a whole number, or few codes occur twice.

    Own: own-text-training
    """
    bits = z.shape[-1]
    if len(z) < 2 or bits > _MOST:
        return None
    # of one pair it is told without a sort whether enough are equal
    if len(z) == 2 and 2 * z.shape[1] - int((z[0] == z[1]).all(-1).sum()) > WORTH * 2 * z.shape[1]:
        return None
    whole = z.to(torch.int64)
    if not torch.equal(whole.to(z.dtype), z) or bool((whole >> 1).any()):
        return None
    keys = (whole << torch.arange(bits, device=z.device)).sum(-1)  # the last of 64 bits is the sign's
    keys, order = keys.sort(0)
    new = torch.ones_like(keys, dtype=torch.bool)
    torch.ne(keys[1:], keys[:-1], out=new[1:])
    # the first of each document come first, then the second ones: row by row
    number = new.flatten().cumsum(0).view_as(keys) - 1
    # a code that is not new has the number of the last new one of its document
    number = torch.where(new, number, -1).cummax(0).values
    n_rows = int(new.sum())
    step = max(32, 2 ** (n_rows.bit_length() - 1) // 16)
    n_padded = -(-n_rows // step) * step
    if n_padded > WORTH * keys.numel():
        return None
    sample, document = new.nonzero(as_tuple=True)
    sample, document = (torch.cat([part, part[:1].expand(n_padded - n_rows)]) for part in (sample, document))
    place = torch.empty_like(order).scatter_(0, order, number)
    return Distinct(z[order[sample, document], document], document, place)
