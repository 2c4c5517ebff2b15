"""The computed floor of an accelerator: its products and passes are those that the program makes."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import text_accelerator
from benchmarks.text_accelerator import Cell, Cost, cells, floor, main
from efvae import text_table
from efvae.data.synthetic import curved_law, synthetic_text
from efvae.estimators import DisARM
from efvae.text import products, row_kernels
from efvae.text.dense import DenseDocuments
from efvae.text.model import TextVAE
from efvae.text.passes import evaluate

K, DOCUMENTS, BATCH, WIDTH = 60, 300, 50, 8
_aten = torch.ops.aten


class Counted(TorchDispatchMode):
    """Operations of products by precision, and bytes by shape of what is read and written."""

    def __init__(self):
        super().__init__()
        self.products, self.bytes = Counter(), Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (_aten.mm.default, _aten.addmm.default):
            self.products[out.dtype] += 2 * out.numel() * args[-1].shape[0]
        if not (func.is_view or "new_" in str(func) or "empty" in str(func)):
            read = args[1:] if func is _aten.copy_.default else args
            for tensor in _pytree.tree_leaves((read, out)):
                if isinstance(tensor, torch.Tensor):
                    self.bytes[tuple(sorted(tensor.shape))] += tensor.nbytes
        return out


def _sums(y, *others):
    return y.sum(1, dtype=torch.float32)


def _probabilities(y):
    y.exp_()
    return torch.ones(len(y))


def _scaled(h, grad, length, dtype):
    padded = -(-(h.shape[1] + 1) // 8) * 8
    return torch.ones(len(h), padded, dtype=dtype), torch.ones(len(h))


#: Each reads and writes what the kernel does, and computes something else.
KERNELS = {
    "available": lambda device: True,
    "probabilities_": _probabilities,
    "scored": lambda y, x, *others: _sums(y) + _sums(x),
    "costs": lambda y, *others: (_sums(y), torch.ones(len(y))),
    "residual_": lambda y, *others: y.neg_(),
    "scaled": _scaled,
    "unpack": lambda both, width: (both[:, :width].float(), both[:, width].float()),
    "antithetic": lambda eta, u, dtype: torch.ones(2 * len(u), *eta.shape, dtype=dtype),
    "pair_bound": lambda value, eta, u, codes, disarm: (eta.sum(1), eta.sum(1), eta.clone()),
}


@pytest.fixture
def _kernels(monkeypatch):
    for name, stand_in in KERNELS.items():
        monkeypatch.setattr(row_kernels, name, stand_in)
    monkeypatch.setattr(products, "_layer", lambda dtype: False)  # a CPU's own way to bfloat16


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("pairs", [1, 10])
@pytest.mark.parametrize("bits", [5, 30])
@pytest.mark.parametrize("encoder", ["e1", "e2", "e3"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_what_is_counted_is_what_is_done(bits, encoder, depth, pairs):
    documents = DenseDocuments(synthetic_text(curved_law(K, 4, 10, 30), DOCUMENTS, 1).train, torch.bfloat16)
    cell = Cell(bits, encoder, depth, K, WIDTH)
    model = TextVAE(K, bits, encoder, depth, WIDTH, torch.bfloat16)
    batch = documents.batch(torch.arange(BATCH))
    with Counted() as step:
        model.nelbo(batch, DisARM(pairs))[0].mean().backward()
    with Counted() as evaluation:
        evaluate(model, documents)
    assert cell.parameters == sum(p.numel() for p in model.parameters() if p.ndim > 1)

    cost, codes = cell.step(BATCH, pairs), cell.codes(2 * pairs * BATCH)
    # as many as 32 codes, eight times, are listed in steps with ten pairs
    assert codes == (32 if (bits, pairs) == (5, 10) else 100 * pairs)
    # the first layer of a network of codes has no gradient in the codes
    skipped = 2 * codes * bits * WIDTH if depth else 0
    assert step.products == {torch.bfloat16: cost.bf16 - skipped, torch.float32: cost.tf32}
    tables = sum(n for shape, n in step.bytes.items() if len(shape) == 2 and K in shape and 1 not in shape)
    tables -= step.bytes[BATCH, K]  # x stays in the cache
    adam, x = 7 * 4 * cell.parameters, sum(t.nbytes for t in (batch.x, batch.dense))
    x = x if depth and codes == 32 else batch.x.nbytes
    assert cost.bytes == tables + adam + x

    wanted = cell.evaluation(DOCUMENTS)
    assert evaluation.products == {torch.float32: wanted.float32}
    listed = evaluation.bytes[32, K] if bits == 5 else 0
    assert wanted.bytes == evaluation.bytes[K, DOCUMENTS] + listed


def test_a_large_step_is_what_one_computes_by_hand():
    shallow, deep = (Cell(64, "e1", depth).step(256, 10) for depth in (0, 2))
    # 5120 rows of 20 kB: written, read, read and written, read; 256 documents; Adam on 10 000 x 128 parameters
    assert shallow.bytes == pytest.approx(5 * 5120 * 20e3 + 256 * 40e3 + 28 * 1.28e6, rel=0.05)
    # three products of 5120 rows with 10 000 x 512, 512 x 512 and 512 x 64
    assert deep.bf16 == pytest.approx(3 * 2 * 5120 * 512 * 10576, rel=0.01)


def test_all_epochs_are_in_it():
    codes = (1000 * 2 + 500 * 20) * 11269
    of_a_code = 2 * 10000 * (512 + 520 + 512) + 6 * 512 * 576
    assert floor([Cell(64, "e1", 2)] * 3, Cost(1e12, *[math.inf] * 3)) == pytest.approx(3 * codes * of_a_code / 1e12)
    evaluations = 1500 * 2 * 7505 * (10000 * 576 + 512 * 576)
    rates = Cost(math.inf, math.inf, 1e12, math.inf)
    assert floor([Cell(64, "e1", 2)], rates) == pytest.approx(evaluations / 1e12, rel=1e-3)
    assert Cost(2, 3, 4, 5).seconds(Cost(1, 1, 1, 1)) == 9
    assert Cost(2, 3, 4, 50).seconds(Cost(1, 1, 1, 1)) == 50


def test_it_prints_what_was_computed(tmp_path, capsys):
    main(["--bf16", "1000"], tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("floors are computed, not measured: at 1000 (bfloat16), 395 (tf32) and 50 (float32)")
    assert [line.strip() for line in lines[2:8:2]] == ["not run on one H200"] * 3
    assert len(lines) == 8
    assert len(cells((0, 1, 2))) == 36


def test_the_page_says_what_it_prints(capsys):
    main()
    lines = capsys.readouterr().out.splitlines()
    ratios = [re.search(r"([\d.]+) times that", line).group(1) for line in lines[2:8:2]]
    page = (Path(__file__).parents[1] / "book/running_at_scale.md").read_text()
    told = f"all 36 cells take at least {lines[-1].split()[-2]} minutes; the three commands trained for "
    assert told + "{}, {} and {} times their shares".format(*ratios) in page


def _record(device, seconds, seed=0):
    return SimpleNamespace(config={"seed": seed}, provenance={"device": device, "seconds": seconds})


def test_it_prints_what_was_measured(monkeypatch, capsys):
    names = itertools.product(text_table.BITS, text_table.DEPTHS, text_table.ENCODERS)
    stored = {cell: [_record("NVIDIA H200", 60.0 * cell[1]), _record("cpu", 1e6, seed=1)] for cell in names}
    stored[8, 0, "e1"][0] = _record("NVIDIA H100", 1.0)
    monkeypatch.setattr(text_accelerator.text_table, "cells_of", lambda root: stored)
    main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "  not run on one H200"
    assert lines[4].startswith("  measured on an H200: 12.0 min, ")
    least, ratio = float(lines[5].split("at least ")[1].split()[0]), float(lines[6].split("min, ")[1].split()[0])
    assert 24 / ratio == pytest.approx(least, rel=0.05)
    stored[64, 1, "e3"].pop(0)
    main()
    assert capsys.readouterr().out.splitlines()[4] == lines[2]
