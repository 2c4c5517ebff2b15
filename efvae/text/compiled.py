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

__all__ = ["available", "kernels", "spread"]


@functools.cache
def _module() -> Any:
    if os.environ.get("EFVAE_COMPILED") == "0":
        return None
    try:
        module = importlib.import_module("efvae.text.kernels")
    except (ImportError, OSError, SystemError):  # not installed, or not for this machine
        return None
    return None if module.numba.config.DISABLE_JIT else module


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


def spread(loop: Any, n: int, *arguments: Tensor, memory: int = 0, least: int = 1, step: int | None = None) -> None:
    """Let the threads share a loop over a range, of which each takes a piece as soon as it has done one.

    Args:
        loop: one of :mod:`efvae.text.kernels`; it writes into its arguments.
        n: length of the range.
        arguments: tensors of the loop, contiguous ones on a CPU; no gradients.
        memory: rows of numbers for a tile of words that each thread gets, before the other arguments; 0 for none.
        least: of the range that is worth a thread.
        step: length of a piece; by default as many pieces as threads.

    Raises:
        TypeError: a tensor is not of the kind that the loop reads.

    Own: own-tabulated-products
    """
    n_threads = torch.get_num_threads()
    n_pieces = max(1, min(n_threads, n // least))
    if memory:
        # torch aligns memory with the lines of caches, which loops over tiles are faster by
        own = torch.empty(n_threads, memory, kernels().WORDS, dtype=torch.float32, device="cpu")
        arguments = own, *arguments
    work, function = kernels().job(n, step or -(-n // n_pieces), arguments), loop()
    if n_pieces == 1:
        function.ctypes(work.ctypes.data)
    else:
        _team()(function, work, n_pieces)
    kernels().check(work)


Team = Callable[[Any, Any, int], None]


@functools.cache
def _team() -> Team:
    """Threads: torch's own where they are OpenMP's of GNU, else others."""
    try:
        openmp = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD)  # the one that is loaded, or none
        parallel = openmp.GOMP_parallel
    except (AttributeError, OSError):
        return _other_threads
    parallel.argtypes, parallel.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint], None

    # A thread of torch's that has nothing to do keeps its core busy for a while, so that others would wait for it. All
    # of them, since a smaller team would end the rest.
    def torch_threads(function: Any, work: Any, _: int) -> None:
        parallel(function.address, work.ctypes.data, torch.get_num_threads(), 0)

    return torch_threads


def _other_threads(function: Any, work: Any, n_threads: int) -> None:
    with ThreadPoolExecutor(n_threads, "efvae-loops") as pool:
        for done in [pool.submit(function.ctypes, work.ctypes.data) for _ in range(n_threads)]:
            done.result()
