"""Where the loops of :mod:`efvae.text.kernels` run: on a CPU, if Numba is installed, on torch's threads."""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

__all__ = ["arrays", "available", "kernels", "spread"]


@functools.cache
def _module() -> Any:
    if os.environ.get("EFVAE_COMPILED") == "0":
        return None
    try:
        return importlib.import_module("efvae.text.kernels")
    except (ImportError, OSError, SystemError):  # not installed, or not for this machine
        return None


def available(device: torch.device) -> bool:
    """Whether compiled loops can be had for tensors there: ``EFVAE_COMPILED=0`` in the environment forbids them.

    Own: own-tabulated-products
    """
    return device.type == "cpu" and _module() is not None


def kernels() -> Any:
    """The module of compiled loops.

    Own: own-tabulated-products
    """
    return _module()


def arrays(*tensors: Tensor) -> list[Any]:
    """Tensors of a CPU as NumPy arrays of the same memory, contiguous ones; without gradients.

    Own: own-tabulated-products
    """
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def spread(loop: Callable[..., None], n: int, *arguments: Any, memory: int = 0, least: int = 1) -> None:
    """Let the threads share a loop over a range: ``loop(first, last, *arguments)``.

    Args:
        loop: a compiled one; it writes into its arguments.
        n: length of the range.
        arguments: of the loop.
        memory: rows of numbers for a tile of words that each thread gets before the other arguments; 0 for none.
        least: of the range that is worth a thread.

    Own: own-tabulated-products
    """
    n_pieces = max(1, min(torch.get_num_threads(), n // least))
    # torch aligns memory with the lines of caches, which loops over tiles are faster by
    own = [(memory_for(memory),) if memory else () for _ in range(n_pieces)]
    pieces = [(n * i // n_pieces, n * (i + 1) // n_pieces, *own[i], *arguments) for i in range(n_pieces)]
    if n_pieces == 1:
        loop(*pieces[0])
    else:
        _team()(loop, pieces)


def memory_for(rows: int) -> Any:
    """Numbers for a tile of words, not set, shape ``(rows, WORDS)``.

    Own: own-tabulated-products
    """
    return torch.empty(rows, kernels().WORDS, dtype=torch.float32, device="cpu").numpy()


Team = Callable[[Callable[..., None], list[Any]], None]


@functools.cache
def _team() -> Team:
    """Threads: torch's own where they are OpenMP's of GNU, else others."""
    try:
        openmp = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)  # the one that is loaded, or none
        return _torch_threads(openmp.GOMP_parallel)
    except (AttributeError, OSError):
        return _other_threads


def _torch_threads(parallel: Any) -> Team:
    # a thread of torch's that has nothing to do keeps its core busy for a while, so that others would wait for it
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def run(loop: Callable[..., None], pieces: list[Any]) -> None:
        left: list[Any] = list(pieces)
        errors: list[BaseException] = []

        def member(_: object) -> None:
            try:
                while True:  # a team may have fewer members than there are pieces, and more
                    try:
                        piece = left.pop()
                    except IndexError:
                        return
                    loop(*piece)
            except BaseException as error:  # an interrupt too: no Python frame is above this one
                left.clear()
                errors.append(error)

        parallel(kind(member), None, torch.get_num_threads(), 0)  # all: a smaller team would end the other threads
        if errors:
            raise errors[0]

    return run


def _other_threads(loop: Callable[..., None], pieces: list[Any]) -> None:
    with ThreadPoolExecutor(len(pieces), "efvae-loops") as pool:
        for done in [pool.submit(loop, *piece) for piece in pieces]:
            done.result()
