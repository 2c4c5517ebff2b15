"""The computed floor of an accelerator: its products are those that the program makes."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.text_accelerator import Cell, cells, main
from efvae.data.synthetic import curved_law, synthetic_text
from efvae.estimators import DisARM
from efvae.text.dense import DenseDocuments
from efvae.text.model import TextVAE
from efvae.text.passes import descend, evaluate
from efvae.text.training import Run
from tests.pretend import pretended_gpu

K, DOCUMENTS = 60, 300


@pytest.mark.parametrize("bits", [4, 10])
@pytest.mark.parametrize("encoder", ["e1", "e2", "e3"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_counted_products_are_those_of_a_step(bits, encoder, depth, monkeypatch):
    made = synthetic_text(curved_law(K, 4, 10, 30), DOCUMENTS, 1).train
    cell = Cell(bits, encoder, depth, K, 8)
    with pretended_gpu(monkeypatch):  # a CPU takes other ways
        documents = DenseDocuments(made, torch.float32, "gpu")
        model = TextVAE(K, bits, encoder, depth, width=8).to("gpu")
        run = Run(model)
        with FlopCounterMode(display=False) as step:
            descend(run, documents.batch(torch.arange(DOCUMENTS, device="gpu")), DisARM(2))
        with FlopCounterMode(display=False) as evaluation:
            evaluate(model, documents)
    assert cell.parameters == sum(p.numel() for p in model.parameters() if p.ndim > 1)
    cost = cell.step(DOCUMENTS, 2)
    # the first layer of a network of codes has no gradient in the codes
    skipped = 2 * cell.codes(4 * DOCUMENTS) * bits * 8 if depth else 0
    assert step.get_total_flops() == cost.bf16 + cost.float32 - skipped
    assert evaluation.get_total_flops() == cell.evaluation(DOCUMENTS).float32


def test_it_prints_what_was_computed(capsys):
    main(["--bf16", "1000"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("computed, not measured; 1000 and 60 TFLOP/s")
    assert len(lines) == 5
    assert len(cells((0, 1, 2))) == 36
