"""One model on several devices: each process takes its share of every batch, torch's DDP averages the gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["shared_loss"]

Loss = Callable[[Tensor, torch.Generator], Tensor]


class _Loss(nn.Module):
    """A loss as the module whose backward pass DDP watches."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return self.loss(x, generator)


def shared_loss(model: nn.Module, loss: Loss) -> Loss:
    """The loss for :func:`efvae.train.fit` in each of the processes of a group.

    ::

        process r of n: examples r b/n … (r + 1) b/n − 1 of a batch of b
        gradient = mean over the processes = gradient of the mean over the batch

    Every process draws the whole batch with the same seed, so that the data are those of one process, and starts from
    the weights of process 0. A loss that draws nothing from its generator (exact expectations) then gives the same
    parameters and curve as one process does, within rounding. A loss that draws would draw the same in each process:
    give each its own seed, and expect the same law but not the same numbers. Only process 0 should write records and
    checkpoints.

    Args:
        model: as given to ``fit``; its trainable parameters must not change afterwards.
        loss: per-example loss in nats, shape ``(examples,)``.

    Returns:
        Per-example loss of this process's share, shape ``(b / n,)``; its mean is that over the whole batch.

    Raises:
        RuntimeError: no process group has been initialised.
        ValueError: a batch that cannot be shared evenly.

    Own: own-parallel
    """
    if not dist.is_initialized():
        raise RuntimeError("shared_loss: call torch.distributed.init_process_group first, or start with torchrun")
    rank, size = dist.get_rank(), dist.get_world_size()
    watched = DistributedDataParallel(_Loss(model, loss))

    def shared(x: Tensor, generator: torch.Generator) -> Tensor:
        if len(x) % size:
            raise ValueError(f"a batch of {len(x)} examples cannot be shared evenly by {size} processes")
        own: Tensor = watched(x.chunk(size)[rank], generator)
        mean = own.detach().mean()
        dist.all_reduce(mean)
        return own + (mean / size - own.detach().mean())  # the gradient is that of the share, the value that of all

    return shared
