"""Checkpoints as safetensors: no pickle, written whole or not at all, and checked by a sum when they are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from efvae import places

__all__ = [
    "CheckpointError",
    "check_shapes",
    "damaged",
    "load_checkpoint",
    "read_tensors",
    "save_checkpoint",
    "write_tensors",
]


class CheckpointError(RuntimeError):
    """The checkpoint cannot be used.

    Args:
        message: one line.
        path: its file.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def damaged(path: Path, reason: object) -> CheckpointError:
    """The error that a file is damaged, to be raised.

    Args:
        path: the file.
        reason: what is wrong with it.
    """
    return CheckpointError(f"checkpoint {path} is damaged ({reason}): delete it to start anew", path)


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Write a file of tensors; a reader sees the old file or the new one, never a part. It is on the disk afterwards.

    Args:
        path: file to write; its folder is made.
        tensors: by name, on any device.
        meta: what is written beside them, and a checksum of all.

    Raises:
        OSError: it cannot be written, in one line; the file before it is untouched.
    """
    from safetensors import SafetensorError  # only training needs it, importing efvae does not
    from safetensors.torch import save_file

    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, meta | {"sha256": _checksum(tensors, meta)})
        with part.open("rb") as file:
            os.fsync(file.fileno())
        places.share(part)
        part.replace(path)
    except (SafetensorError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        before = ": the run continues from the one before" if path.exists() else ""
        raise OSError(f"cannot write the checkpoint {path}: {reason}; {places.mend(error)}{before}") from error
    finally:
        with contextlib.suppress(OSError):  # there is none, or its folder could not be made
            part.unlink()


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What :func:`write_tensors` wrote: what stands beside the tensors, and they, on the CPU.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is no such file, or its content is not what was written.
        FileNotFoundError: it is not there.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            meta, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise damaged(path, error) from error
    written = meta.pop("sha256", None)
    if written is None:
        raise CheckpointError(
            f"checkpoint {path} has no checksum, as those of an older version of efvae: delete it to start anew", path
        )
    if written != _checksum(tensors, meta):
        raise damaged(path, "its checksum is another")
    return meta, tensors


def _checksum(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
    """Of all that a file says; a disk, or a hand, that changes one bit of it changes this."""
    told = [[name, str(tensor.dtype), list(tensor.shape)] for name, tensor in sorted(tensors.items())]
    digest = hashlib.sha256(json.dumps([told, sorted(meta.items())]).encode())
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def check_shapes(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Refuse the tensors of another architecture.

    Args:
        model: which is to be filled.
        tensors: by the names of its state.
        path: the file that the message names.

    Raises:
        CheckpointError: other names or shapes than the model's.
    """
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    found = {key: value.shape for key, value in tensors.items()}
    wrong = sorted(key for key in shapes.keys() | found.keys() if shapes.get(key) != found.get(key))
    if wrong:
        raise CheckpointError(f"checkpoint {path} is of another architecture ({wrong[0]} differs): delete it", path)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    fingerprint: str,
    step: int,
    curve: dict[str, list[float]],
) -> None:
    """Write the state of a training run as :func:`write_tensors` does.

    Args:
        path: file to write; its folder is made.
        model, optimizer, generator: their states are stored.
        fingerprint: what a resuming run must agree in.
        step: number of steps done.
        curve: metrics so far.

    Raises:
        OSError: it cannot be written, in one line; the file before it is untouched.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in entries.items()}
    tensors["generator"] = generator.get_state()
    meta = {"fingerprint": fingerprint, "step": step, "curve": curve}
    write_tensors(path, tensors, {"efvae": json.dumps(meta)})


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    fingerprint: str,
) -> tuple[int, dict[str, list[float]]]:
    """Restore a training run in place.

    Returns:
        Number of steps done and the curve so far.

    Raises:
        CheckpointError: the file is damaged, or was written by another configuration or model, or on another kind of
            device.
    """
    said, tensors = read_tensors(path)
    try:
        meta = json.loads(said["efvae"])
        step, curve, written = int(meta["step"]), dict(meta["curve"]), meta["fingerprint"]
    except (KeyError, ValueError, TypeError) as error:
        raise damaged(path, error) from error
    if written != fingerprint:
        raise CheckpointError(
            f"checkpoint {path} belongs to another configuration: delete it or name another file", path
        )
    try:
        generator.set_state(tensors["generator"])
    except RuntimeError as error:  # a CPU's state has thousands of bytes, a CUDA device's 16
        raise CheckpointError(
            f"checkpoint {path} was written on another kind of device: go on there, or delete it", path
        ) from error
    own = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    check_shapes(model, own, path)
    model.load_state_dict(own)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, entry = name.split(".", 2)
            # a file has no memory layouts, and Adam in one kernel takes moments in that of the parameter only
            laid = value if entry == "step" else torch.empty_like(parameters[int(index)]).copy_(value)
            state.setdefault(int(index), {})[entry] = laid
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return step, curve
