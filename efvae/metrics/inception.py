"""Features of FID: the Inception network of pytorch-fid, with weights that are checked.

Neither is a requirement of this package: ``pip install 'efvae[fid]'`` brings the network, and the weights are a file of
95.6 MB that pytorch-fid's page of releases offers.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from efvae.places import expanded

__all__ = [
    "PRECISIONS",
    "WEIGHTS",
    "WeightsError",
    "ensure_torchvision",
    "features",
    "find_network",
    "find_weights",
    "from_tensors",
]

#: File name; it carries the first digits of the checksum.
WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
#: Of its 95628359 bytes. All digits are from docs/cifar-recipe.md of github.com/HyperGAN/HyperGAN at 7d937f9, where
#: torch-fidelity's copy of the file has them; other public repositories that pin pytorch-fid's say the same.
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FEATURES = 2048
#: Images at a time on a CPU: more do not stay in its caches, and for fewer than 16 torch takes a slower path.
CHUNK = 32
#: Arithmetics of convolutions. The second is for a GPU; on a CPU it is the first.
PRECISIONS = ("float32", "tf32", "bfloat16")


class WeightsError(ValueError):
    """The network of FID cannot be used, in one line: what is wrong and how to get it.

    Paper: tab-1
    """


def find_weights(path: Path | str | None = None) -> Path:
    """The weights' file, checked.

    Args:
        path: the file; by default what ``EFVAE_INCEPTION`` names, else where pytorch-fid downloads it to.

    Raises:
        WeightsError: it is not there, cannot be read, or its sha256 is not ``SHA256``.

    Paper: tab-1
    """
    named = path or os.environ.get("EFVAE_INCEPTION")
    try:
        place = expanded(named) if named else Path(torch.hub.get_dir()).absolute() / "checkpoints" / WEIGHTS
    except ValueError as error:
        raise WeightsError(f"EFVAE_INCEPTION: {error}") from None
    try:
        with place.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise WeightsError(
            f"FID needs the weights {WEIGHTS}, which are not at {place}: download them from the releases of "
            "github.com/mseitzer/pytorch-fid and let EFVAE_INCEPTION name the file"
        ) from None
    except OSError as error:
        raise WeightsError(f"cannot read {place}: {error.strerror or error}") from error
    if found != SHA256:
        raise WeightsError(
            f"{place} is altered: sha256 {found[:12]}…, expected {SHA256[:12]}…; download {WEIGHTS} again"
        )
    return place


def ensure_torchvision() -> None:
    """Import torchvision, also a CUDA build of it beside a CPU build of torch, which lacks two of its operators.

    Raises:
        WeightsError: it is not installed.

    Paper: tab-1
    """
    try:
        importlib.import_module("torchvision")
    except ImportError as error:
        raise WeightsError("FID needs torchvision and pytorch-fid: pip install 'efvae[fid]'") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _LIBRARIES.append(library)
        importlib.import_module("torchvision")


def find_network() -> Any:
    """The module of pytorch-fid that has the network.

    Raises:
        WeightsError: it, or torchvision, is not installed.

    Paper: tab-1
    """
    ensure_torchvision()
    try:
        return importlib.import_module("pytorch_fid.inception")
    except ImportError as error:
        raise WeightsError("FID needs pytorch-fid: pip install 'efvae[fid]'") from error


#: Operator definitions vanish with their library object.
_LIBRARIES: list[torch.library.Library] = []


def features(
    device: torch.device | str = "cpu", path: Path | str | None = None, precision: str = "float32"
) -> Callable[[Tensor], Tensor]:
    """The 2048 features of FID, straight from tensors.

    Args:
        device: where to compute.
        path: the weights, see :func:`find_weights`.
        precision: see :func:`from_tensors`.

    Returns:
        Map from images in [−1, 1], shape ``(b, 3, h, w)``, to shape ``(b, 2048)``.

    Raises:
        WeightsError: weights or packages are missing or wrong.
        ValueError: an unknown precision.

    Paper: tab-1
    """
    weights, package = find_weights(path), find_network()

    def load(*_: object, **__: object) -> dict[str, Tensor]:
        state: dict[str, Tensor] = torch.load(weights, map_location="cpu", weights_only=True)
        return state

    with mock.patch.object(package, "load_state_dict_from_url", load):
        network = package.InceptionV3([package.InceptionV3.BLOCK_INDEX_BY_DIM[FEATURES]])
    return from_tensors(network.to(device), precision)


def from_tensors(network: nn.Module, precision: str = "float32") -> Callable[[Tensor], Tensor]:
    """The features of images that never were files, colour last in memory, which both kinds of device prefer.

    The network scales images to 299 × 299 itself. pytorch-fid's command sees 8-bit files: values are rounded likewise.
    Its batch normalisations are part of the convolutions before them here, which saves a pass over what those give.

    Args:
        network: pytorch-fid's, on its device; not changed.
        precision: of the convolutions, one of ``PRECISIONS``; pytorch-fid's own command has tf32 on a GPU.

    Returns:
        Map from images in [−1, 1], shape ``(b, 3, h, w)``, to float32 of shape ``(b, 2048)``.

    Raises:
        ValueError: an unknown precision.

    Paper: tab-1
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    network = _folded(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def compute(images: Tensor) -> Tensor:
        eight_bit = ((images.clamp(-1, 1) + 1) * 127.5).round() / 255
        eight_bit = eight_bit.contiguous(memory_format=torch.channels_last)
        parts = eight_bit.split(CHUNK if eight_bit.device.type == "cpu" else max(len(eight_bit), 1))
        with _arithmetic(precision, eight_bit.device):
            return torch.cat([network(part)[0].flatten(1).float() for part in parts])

    return compute


@contextlib.contextmanager
def _arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Of convolutions, whatever torch is set to."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    half = precision == "bfloat16"
    try:
        with torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext():
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _folded(network: nn.Module) -> nn.Module:
    """A copy whose blocks of a convolution and a batch normalisation have convolutions only, as they are evaluated."""
    network = copy.deepcopy(network).eval()
    for block in network.modules():
        convolution, norm = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block.conv, block.bn = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return network
