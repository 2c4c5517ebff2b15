"""Handwritten digits, 8 × 8 pixels, bundled with scikit-learn and made binary."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Digits", "load_digits"]

#: Brightness of a pixel runs from 0 to this.
BRIGHTEST = 16


@dataclass(frozen=True)
class Digits:
    """Binary images in three disjoint parts.

    Args:
        train, validation, test: shape ``(images, 64)``, values 0 and 1, float32.
        sha256: checksum of the grey images they were made from.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    sha256: str


def load_digits(seed: int = 0, threshold: int = 8) -> Digits:
    """The 1797 images of scikit-learn's ``load_digits``, split at random into 1197, 300 and 300.

    ::

        x_i = 1 if the brightness of pixel i, 0 … 16, is at least the threshold

    They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998).

    Args:
        seed: of the split.
        threshold: 1 … 16.

    Raises:
        ValueError: a threshold out of range.
        ImportError: scikit-learn is not installed; one line says how to get it.

    Own: own-digits
    """
    if not 1 <= threshold <= BRIGHTEST:
        raise ValueError(f"load_digits: threshold must be in [1, {BRIGHTEST}], got {threshold}")
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn, which is missing: pip install 'efvae[digits]'") from error
    grey = datasets.load_digits().data.astype("uint8")
    order = torch.randperm(len(grey), generator=torch.Generator().manual_seed(seed))
    x = (torch.from_numpy(grey) >= threshold).float()[order]
    held_out = 300
    train, validation, test = x.split([len(x) - 2 * held_out, held_out, held_out])
    return Digits(train, validation, test, hashlib.sha256(grey.tobytes()).hexdigest())
