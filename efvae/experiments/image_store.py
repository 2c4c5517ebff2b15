"""Models of finished stages on disk, for the stages that rest on them."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from efvae.checkpoint import CheckpointError, check_shapes, damaged, read_tensors, write_tensors
from efvae.data.images import scaled
from efvae.devices import current as device
from efvae.locks import try_lock
from efvae.train import Curve, TrainingError, not_finite

__all__ = ["Store", "images_in_batches", "measuring", "placed"]

Module = TypeVar("Module", bound=nn.Module)

#: Seeds of measurements begin here.
MEASURING = 3 * 2**30
#: Most bytes of tensors in a file of a finished model, which may have several: larger ones are hard to hand over.
PART = 15 * 2**20
#: Seconds between two tries to get a lock.
PAUSE = 0.5


def placed(module: Module) -> Module:
    """The module on the device, its convolutions in the memory layout that is fastest there and on a CPU.

    Own: own-images
    """
    moved: Module = module.to(device()).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def measuring(stream: int) -> torch.Generator:
    """Random numbers on the device that measure a model; no training draws them if its seeds are below 2**30.

    ::

        s, 2 s, 2 s + 1, 2**20 + s, 2**30 + s, 2**31 + s   seeds of training, below 3 · 2**30
        3 · 2**30 + stream                                 seeds of measurements, below 2**32

    Generators of a CPU use 32 bits of a seed, so that larger ones would be small ones again.

    Args:
        stream: which, in [0, 2**30).

    Own: own-images
    """
    return torch.Generator(device()).manual_seed(MEASURING + stream)


@dataclass(frozen=True)
class Store:
    """A folder of checkpoints, or nowhere.

    Args:
        folder: where models and resumable states lie; None stores nothing.

    Own: own-images
    """

    folder: Path | None = None

    def path(self, name: str, fingerprint: str, kind: str) -> Path | None:
        """File of a stage: ``<name>-<8 hex digits>.<kind>.safetensors``.

        What is left of a model of more than ``PART`` bytes is beside it, in ``….model.2.safetensors`` and so on.
        """
        return None if self.folder is None else self.folder / f"{name}-{fingerprint[:8]}.{kind}.safetensors"

    @contextlib.contextmanager
    def alone(self, name: str, fingerprint: str) -> Iterator[None]:
        """Of several processes with this folder one at a time trains a stage; look again for it once inside.

        Who has to wait says so on standard error. A process that dies leaves no lock behind.
        """
        if self.folder is None:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f".{name}-{fingerprint[:8]}.lock"
        lock = try_lock(path)
        if lock is None:
            print(f"waiting for another process that trains {name} in {self.folder}", file=sys.stderr)
        while lock is None:
            time.sleep(PAUSE)
            lock = try_lock(path)
        try:
            yield
        finally:
            lock.release()

    def keep(
        self,
        name: str,
        fingerprint: str,
        model: nn.Module,
        curve: Curve | None = None,
        *,
        seconds: float = 0.0,
        device: str = "",
    ) -> None:
        """Write a finished model; the state to resume from is not needed any more.

        Args:
            name, fingerprint: see :meth:`path`. That file is written last: where it is, the model was whole.
            model: to keep.
            curve: of its training.
            seconds: that the training took, in the process that ended it.
            device: that trained it.

        Raises:
            TrainingError: its weights are not finite; nothing is written then.
            OSError: it cannot be written, in one line; the state to resume from is still there.
        """
        path = self.path(name, fingerprint, "model")
        if path is None:
            return
        tensors = model.state_dict()
        infinite = not_finite(tensors)
        if infinite:
            raise TrainingError(f"{name}: {infinite} is not finite at the end of training: lower its learning rate")
        first, *others = _in_parts(tensors)
        for number, part in enumerate(others, 2):
            write_tensors(_beside(path, number), part, {"fingerprint": fingerprint})
        said = {"fingerprint": fingerprint, "curve": json.dumps(curve or {}), "parts": str(1 + len(others))}
        write_tensors(path, first, said | {"seconds": str(seconds), "device": device})
        state = self.path(name, fingerprint, "state")
        if state is not None:
            state.unlink(missing_ok=True)

    def effort(self, name: str, fingerprint: str) -> tuple[float, str]:
        """Seconds that the training of a kept model took, and on which device; 0 and "" if its file does not say."""
        from safetensors import safe_open

        path = self.path(name, fingerprint, "model")
        if path is None:
            return 0.0, ""
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
        return float(said.get("seconds", 0.0)), said.get("device", "")

    def restore(self, name: str, fingerprint: str, model: nn.Module) -> Curve | None:
        """Fill a model from its file.

        Returns:
            The curve of its training, None if there is no such file.

        Raises:
            CheckpointError: damaged, or of another configuration or architecture; one line names the file.
            FileNotFoundError: one of several files of a model is not there, as after a copy of some of them.
        """
        path, state = self.path(name, fingerprint, "model"), self.path(name, fingerprint, "state")
        if path is None or state is None:
            return None
        if not path.exists():
            if _beside(path, 2).exists() and not state.exists():  # with a state the parts are of a keep that was killed
                raise FileNotFoundError(
                    f"{_beside(path, 2)} is a part of a model, but the first, {path.name}, is not beside it: copy it "
                    "there, or delete the others to train the model anew"
                )
            return None
        try:
            meta, tensors = read_tensors(path)
            written, curve = meta["fingerprint"], Curve(json.loads(meta["curve"]))
            parts = int(meta.get("parts", 1))
            for number in range(2, parts + 1):
                _refuse_incomplete(path, number, parts)
                tensors |= _part(path, number, parts, written)
        except (KeyError, ValueError, TypeError) as error:
            raise damaged(path, error) from error
        infinite = not_finite(tensors)
        if infinite:
            raise damaged(path, f"{infinite} is not finite")
        check_shapes(model, tensors, path)
        if written != fingerprint:
            raise CheckpointError(
                f"checkpoint {path} belongs to another configuration: delete it or name another", path
            )
        model.load_state_dict(tensors)
        return curve


def _in_parts(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """In their order, each part of at most ``PART`` bytes or of one tensor."""
    parts: list[dict[str, Tensor]] = [{}]
    room = PART
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if parts[-1] and size > room:
            parts.append({})
            room = PART
        parts[-1][name] = tensor
        room -= size
    return parts


def _beside(path: Path, number: int) -> Path:
    return path.with_suffix(f".{number}{path.suffix}")


def _refuse_incomplete(path: Path, number: int, parts: int) -> None:
    part = _beside(path, number)
    if not part.exists():
        raise FileNotFoundError(
            f"checkpoint {path} is part 1 of {parts}, but part {number}, {part.name}, is not beside it: copy it there, "
            "or delete the first to train the model anew"
        )


def _part(path: Path, number: int, parts: int, fingerprint: str) -> dict[str, Tensor]:
    reason = "is of another model"
    try:
        meta, tensors = read_tensors(_beside(path, number))
        if meta["fingerprint"] == fingerprint:
            return tensors
    except CheckpointError as error:
        reason = str(error).split(": delete", 1)[0]
    raise CheckpointError(
        f"checkpoint {path} is damaged (part {number} {reason}): delete its {parts} files to start anew", path
    )


def images_in_batches(pixels: Tensor, size: int = 256) -> Iterator[Tensor]:
    """Images on the device in [−1, 1], batch by batch.

    Args:
        pixels: uint8, shape ``(n, 3, h, w)``.
        size: images a batch.

    Own: own-frechet
    """
    for part in pixels.split(size):
        yield scaled(part.to(device()))
