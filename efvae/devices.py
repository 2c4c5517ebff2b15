"""Where to compute: a device by its name, and work that a CUDA device repeats without the host."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

__all__ = [
    "DeviceError",
    "Repeated",
    "Streams",
    "arithmetic",
    "cpu_capabilities",
    "current",
    "described",
    "find",
    "matmul_precision",
    "on",
]

_CURRENT: ContextVar[torch.device | None] = ContextVar("device", default=None)


class DeviceError(ValueError):
    """No such device."""


def find(name: str) -> torch.device:
    """The device of that name.

    Args:
        name: ``cpu``; ``cuda``, or ``cuda:1`` for the second; ``auto``: CUDA if this machine has it, else the CPU.

    Raises:
        DeviceError: another name, or a device that is not there.

    Own: own-devices
    """
    if not re.fullmatch(r"cpu|auto|cuda(:\d{1,3})?", name):
        raise DeviceError(f"device must be cpu, cuda, cuda:0, cuda:1, ... or auto; got {name!r}")
    count = torch.cuda.device_count() if name != "cpu" and torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if not count:
        why = "no CUDA device is visible" if torch.version.cuda else "this PyTorch is built without CUDA"
        raise DeviceError(f"device {name} is not there: {why}; take device cpu or auto")
    device = torch.device(name if ":" in name else "cuda:0")
    if device.index >= count:
        raise DeviceError(f"device {name} is not there: expected cuda:0 to cuda:{count - 1}; or take device auto")
    return device


def current() -> torch.device:
    """The device that :func:`on` has chosen; without it the CPU.

    Own: own-devices
    """
    return _CURRENT.get() or torch.device("cpu")


@contextmanager
def on(name: str) -> Iterator[torch.device]:
    """Compute on a device: within the context it is :func:`current`, and float32 means float32 there.

    Args:
        name: see :func:`find`.

    Raises:
        DeviceError: see :func:`find`.

    Own: own-devices
    """
    chosen, rounds = _CURRENT.set(find(name)), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # or convolutions on CUDA would keep 10 bits, in evaluations as well
    try:
        yield current()
    finally:
        torch.backends.cudnn.allow_tf32 = rounds
        _CURRENT.reset(chosen)


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Products of float32 matrices: ``highest``; or ``high``, on a CUDA device in tf32, whose factors keep 10 bits.

    Args:
        name: see :func:`torch.set_float32_matmul_precision`.

    Own: own-devices
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def arithmetic(precision: str, device: torch.device) -> torch.dtype:
    """The type to multiply in where a precision is asked for.

    bfloat16 is the faster one only where there are units for it: accelerators, and CPUs that say so (AMX, AVX512_BF16,
    Arm's BF16). Other CPUs imitate it, at a fifth of the rate of float32, which is then taken; it is the more precise.

    Args:
        precision: ``float32`` or ``bfloat16``.
        device: where the products are made.

    Own: own-devices
    """
    if precision == "bfloat16" and device.type == "cpu" and not _multiplies_bfloat16():
        return torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def described(precision: str, device: torch.device) -> str:
    """How the provenance of a record names the device: with a note where it takes another type than was asked for.

    Args:
        precision, device: see :func:`arithmetic`.

    Own: own-devices
    """
    as_asked = precision != "bfloat16" or arithmetic(precision, device) == torch.bfloat16
    return str(device) if as_asked else f"{device}, float32 for want of bfloat16 units"


def _multiplies_bfloat16() -> bool:
    """Whether this CPU has units for it, as torch knows; an older torch knows fewer kinds."""
    if known := cpu_capabilities():
        return any(has is True and name.endswith("bf16") for name, has in known.items())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def cpu_capabilities() -> Mapping[str, object]:
    """What torch knows of this CPU, by the names of ``torch.cpu.get_capabilities``; nothing where that is not there.

    Own: own-devices
    """
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


class Repeated:
    """Work of fixed shape that is done again and again; on a CUDA device from a recorded graph.

    The first call does the work as usual, which lets libraries and optimisers set up what they need. The second records
    it as a graph, and it and all later ones replay that: one launch for the host, however many kernels.

    The work reads and writes the same tensors each time, and neither its course nor its shapes depend on their values.

    Args:
        work: what to do.
        generators: those it draws from.
        graph: whether to record it; without, or where the environment says ``EFVAE_GRAPHS=0``, every call does the work
            as usual.

    Own: own-devices
    """

    def __init__(self, work: Callable[[], None], generators: Sequence[torch.Generator], *, graph: bool) -> None:
        self._work, self._generators = work, generators
        self._wanted = graph and os.environ.get("EFVAE_GRAPHS") != "0"
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Do it once."""
        self._calls += 1
        if not self._wanted or self._calls == 1:
            self._work()
            return
        if self._graph is None:
            self._graph = self._recorded()
        self._graph.replay()

    def _recorded(self) -> torch.cuda.CUDAGraph:
        gc.collect()  # a graph that dies while another is recorded spoils the recording, and torch collects none
        collects = gc.isenabled()
        gc.disable()
        try:
            graph = torch.cuda.CUDAGraph()
            for generator in self._generators:
                graph.register_generator_state(generator)
            with self._place(), torch.cuda.graph(graph):
                self._work()  # recorded, not done
        finally:
            if collects:
                gc.enable()
        return graph

    def _place(self) -> AbstractContextManager[object]:
        """Graphs are recorded on the present device, which need not be that of the work."""
        there = [generator.device for generator in self._generators if generator.device.type == "cuda"]
        return torch.cuda.device(there[0]) if there else nullcontext()


class Streams:
    """Branches of work that may overlap on a CUDA device; one after the other elsewhere.

    Args:
        device: where.
        number: of streams that the branches share.

    Own: own-devices
    """

    def __init__(self, device: torch.device, number: int) -> None:
        self._streams = [torch.cuda.Stream(device) for _ in range(number)] if device.type == "cuda" else []

    def begin(self) -> None:
        """From here on branches see what was done before."""
        for stream in self._streams:
            stream.wait_stream(torch.cuda.current_stream(stream.device))

    def branch(self, index: int) -> AbstractContextManager[object]:
        """The context of a branch; those of one number modulo that of streams follow each other."""
        if not self._streams:
            return nullcontext()
        return torch.cuda.stream(self._streams[index % len(self._streams)])

    def end(self) -> None:
        """From here on all sees what the branches did."""
        for stream in self._streams:
            torch.cuda.current_stream(stream.device).wait_stream(stream)
