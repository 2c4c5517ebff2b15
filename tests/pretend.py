"""A device that is not there: tensors that say they are on a "gpu", hold their numbers on the CPU, and are strict.

On a real device an operation on tensors of two devices fails, and a look at a number makes the host wait. Here the
former fails as well and the latter is counted, with every result computed. So whole experiments run "on the gpu" in a
test, and must give what they give on the CPU. Work that is recorded as a graph is repeated operation by operation, with
the numbers of the host as they were then; a look or an upload while it is recorded fails, as there. What this cannot
see: CUDA's own kernels and their rounding, autocast, streams, memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing

NAME = "gpu"
_REGISTERED: list[object] = []
_aten = torch.ops.aten


class Looks(list[str]):
    """The operations so far that made the host wait for a number of the device; ``uploads``: those that sent it some.

    A CUDA graph can record neither. ``graphs``: what was recorded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[str] = []
        self.graphs: list[Graph] = []


class Pretended(torch.Tensor):
    """A tensor on the device; ``inner`` holds its numbers."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner):
        strided = inner.layout == torch.strided  # else it is a matrix for products only, and its layout shows to nobody
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride() if strided else (inner.shape[-1], 1),
            storage_offset=inner.storage_offset() if strided else 0,
            dtype=inner.dtype,
            device=NAME,
        )
        made.inner = inner
        return made

    def __repr__(self):
        return f"on the gpu: {self.inner!r}"

    @property
    def data(self):
        return torch.Tensor.data.__get__(self)

    @data.setter
    def data(self, other):
        torch.Tensor.data.__set__(self, other)
        self.inner = other.inner  # in the layout that it says it has

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, **_):
        raise TypeError("can't convert a tensor of the gpu to numpy: copy it to the host first")

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Sees the operations that make tensors from none."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class Graph:
    """Operations on the device, to be done again on the same tensors; stands for ``torch.cuda.CUDAGraph``."""

    def __init__(self) -> None:
        self._operations: list[tuple] = []
        self._done = False

    def register_generator_state(self, generator) -> None:
        assert generator.device.type == NAME

    def add(self, func, args, kwargs, out) -> None:
        known = [t for t in _pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        places = {t.untyped_storage().data_ptr() for t in known}
        fresh = [isinstance(t, torch.Tensor) and t.untyped_storage().data_ptr() not in places
                 for t in _pytree.tree_leaves(out)]  # fmt: skip
        self._operations.append((func, args, kwargs, out, fresh))

    def replay(self) -> None:
        first, self._done = not self._done, True
        if first:  # CUDA records without doing; here it was done
            return
        for func, args, kwargs, out, fresh in self._operations:
            again = _pytree.tree_leaves(func(*args, **kwargs))
            for old, new, is_fresh in zip(_pytree.tree_leaves(out), again, fresh, strict=True):
                if is_fresh:
                    old.copy_(new)


@contextmanager
def _recorded(graph: Graph) -> Iterator[None]:
    """Stands for ``torch.cuda.graph``."""
    global _graph  # noqa: PLW0603 - one at a time, as torch has it
    assert _looks is not None
    before = len(_looks) + len(_looks.uploads)
    _graph = graph
    try:
        yield
    finally:
        _graph = None
    assert len(_looks) + len(_looks.uploads) == before, "operation not permitted when stream is capturing"
    _looks.graphs.append(graph)


_looks: Looks | None = None
_graph: Graph | None = None


def _look(func) -> None:
    if _looks is not None:
        _looks.append(str(func))


def _mixes(func, tensors) -> bool:
    """Whether a real device would refuse these: numbers of the CPU may be used, tables may not."""
    there = [t for t in tensors if isinstance(t, Pretended)]
    here = [t for t in tensors if not isinstance(t, Pretended) and t.ndim]
    return bool(there and here) and func not in (_aten._to_copy.default, _aten.copy_.default)


def _is_look(func, there) -> bool:
    if not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags):
        return False
    indexing = func in (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default)
    return not indexing or any(t.dtype in (torch.bool, torch.uint8) for t in there[1:])


def _run(func, args, kwargs):
    tensors = [t for t in _pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
    there = [t for t in tensors if isinstance(t, Pretended)]
    if _mixes(func, tensors):
        shapes = [f"{t.device}{tuple(t.shape)}" for t in tensors]
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, got {', '.join(shapes)}")
    device = kwargs.get("device")
    to_host = there and (
        (func is _aten._to_copy.default and device is not None and device.type == "cpu")
        or (func is _aten.copy_.default and not isinstance(args[0], Pretended))
    )
    if to_host or (there and _is_look(func, there)):
        _look(func)
    sends = (func is _aten._to_copy.default and device is not None and device.type == NAME and not there) or (
        func is _aten.copy_.default and isinstance(args[0], Pretended) and not isinstance(args[1], Pretended)
    )
    if sends and _looks is not None:
        _looks.uploads.append(str(func))
    inner_args, inner = _pytree.tree_map_only(Pretended, lambda t: t.inner, (args, kwargs))
    if device is not None:
        inner["device"] = torch.device("cpu")
    out = func(*inner_args, **inner)
    if _graph is not None:
        _graph.add(func, inner_args, inner, out)
    stays = (there and not to_host) or (device is not None and device.type == NAME)
    if not stays:
        return args[0] if func is _aten.copy_.default else out
    wrapped = _pytree.tree_map_only(torch.Tensor, Pretended, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there else wrapped


class _Module:
    """What torch asks of a device's module.

    Torch cannot forget a device: outside of ``pretended_gpu`` there are none of it, or later tests of the process
    would be asked for its random state.
    """

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def current_device(self):
        return 0

    def device_count(self):
        return int(_looks is not None)

    def is_available(self):
        return _looks is not None

    is_initialized = is_available

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        pass

    def get_rng_state(self, device=0):
        return torch.empty(0, dtype=torch.uint8)  # generators of this device draw the CPU's numbers

    def set_rng_state(self, state, device=0):
        pass


@contextmanager
def pretended_gpu(monkeypatch) -> Iterator[Looks]:
    """Within it, ``torch.device("gpu")`` is a device; gives the looks at it."""
    import torch._dynamo  # it is imported in the middle of things otherwise, and wants the true Generator
    from torch.utils import backend_registration

    if torch.cuda.is_available():  # torch knows one accelerator in a process
        pytest.skip("a true device is here: the tests on CUDA run instead")
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip(f"torch {torch.__version__} lets nobody make a device in Python")
    if not _REGISTERED:
        module = _Module()
        backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
        _REGISTERED.append(module)
    true_generator = torch.Generator

    class Generator(true_generator):
        """The same numbers as on the CPU, though it says it is on the device."""

        device = torch.device(NAME)

    def generator(device="cpu"):
        return Generator() if torch.device(device).type == NAME else true_generator(device)

    global _looks  # noqa: PLW0603 - there is one device
    _looks = Looks()
    with monkeypatch.context() as patch, torch.autograd.set_multithreading_enabled(False), _Mode():
        patch.setattr(torch, "Generator", generator)
        patch.setattr(torch.cuda, "CUDAGraph", Graph)
        patch.setattr(torch.cuda, "graph", _recorded)
        try:
            yield _looks
        finally:
            _looks = None
