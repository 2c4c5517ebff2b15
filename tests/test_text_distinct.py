"""Codes drawn several times are computed once: the same costs and gradients, from fewer rows.

Labels: own-text-training, own-fused-multinomial.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from efvae.estimators import ARM, DisARM, StraightThrough
from efvae.families import Bernoulli
from efvae.text import compiled, model
from efvae.text.batches import Batch, Documents
from efvae.text.distinct import distinct
from efvae.text.model import TextVAE
from efvae.text.training import Corpora, Phase, Run, train_together
from efvae.word_counts import WordCounts


def documents(n: int = 40, n_words: int = 150) -> WordCounts:
    counts = torch.poisson(torch.full((n, n_words), 0.1))
    counts[3] = 0  # one without a word
    smoothing = torch.full((n_words,), 1 / n_words, dtype=torch.float64)
    return WordCounts.from_dense(counts, torch.zeros(n, dtype=torch.int64), smoothing)


@pytest.mark.parametrize("bits", [9, 33, 63, 64])
def test_each_code_of_a_document_is_there_once(bits):
    bases = torch.rand(1, 50, bits) < 0.5
    flips = torch.rand(12, 50, 1) < 0.2
    flips = torch.cat([flips, torch.zeros(12, 50, bits - 2), torch.rand(12, 50, 1) < 0.1], -1)  # first and last bit
    z = (bases ^ flips.bool()).float()
    found = distinct(z)
    assert torch.equal(found.codes[found.place], z)
    assert torch.equal(found.document[found.place], torch.arange(50).expand(12, 50))
    wanted = {(d, *code) for sample in z.int().tolist() for d, code in enumerate(sample)}
    rows = list(zip(found.document.tolist(), found.codes.int().tolist(), strict=True))
    n = int(found.place.max()) + 1
    assert n == len(wanted)
    assert {(d, *code) for d, code in rows[:n]} == wanted
    assert len(rows) % 32 == 0
    assert all(row == rows[0] for row in rows[n:])
    assert found.document[:50].tolist() == list(range(50))


def test_where_it_is_not_worth_while_or_not_possible():
    z = (torch.rand(4, 64, 20) < 0.5).float()
    assert distinct(z) is None  # all are different
    same = z[:1].expand(4, 64, 20)
    assert len(distinct(same).codes) == 64
    assert distinct(same[:1]) is None
    assert distinct(same + 0.25) is None
    assert distinct(same * 2) is None
    assert distinct(-same) is None
    assert distinct(torch.zeros(4, 64, 65)) is None


def test_repeated_documents_are_those_picked():
    x, which = documents(), torch.tensor([5, 3, 5, 0, 39, 3, 5])
    (batch,) = Documents(x).batches(40)
    (wanted,) = Documents(x.select(which)).batches(7)
    got = batch.repeated(which)
    table, values = torch.randn(150, 6), torch.randn(7, 6)
    torch.testing.assert_close(got.sums(table), wanted.sums(table))
    torch.testing.assert_close(got.transposed(values), wanted.transposed(values), atol=1e-5, rtol=1e-5)
    numbers = torch.randn(7, 150)
    torch.testing.assert_close(got.weighted(numbers), wanted.weighted(numbers))
    left, right, scale = numbers.clone(), numbers.clone(), torch.rand(1, 7)
    got.subtract(left, scale)
    wanted.subtract(right, scale)
    assert torch.equal(left, right)
    for (here, part), (there, same) in zip(got.pieces(3), wanted.pieces(3), strict=True):
        assert here == there
        torch.testing.assert_close(part.sums(table), same.sums(table))
    for name in ("length", "saturated"):
        assert torch.equal(getattr(got, name), getattr(wanted, name))
    assert torch.equal(got.by_document(values)[5], values[[0, 2, 6]].sum(0))
    assert torch.equal(batch.by_document(values), values)


def sure(encoder: str, bits: int, depth: int, dtype: torch.dtype = torch.float32) -> TextVAE:
    """A model whose encoder is nearly sure of most bits of :func:`documents`: half a nat of entropy in all."""
    torch.manual_seed(3)
    vae = TextVAE(150, bits, encoder, depth, 24, dtype, "leaky_relu")
    layers = [part.weight for part in vae.code_net.modules() if isinstance(part, nn.Linear)]
    last, x = (layers or [vae.reader])[-1], documents()
    while Bernoulli(vae.encode(x)).entropy().mean() > 0.5:
        with torch.no_grad():
            last.mul_(2)
    return vae


def bound(vae: TextVAE, batch: Batch, estimator, monkeypatch, *, once: bool) -> tuple[torch.Tensor, list, list[int]]:
    """NELBO, gradients, and how many codes each call of the decoder's costs has seen."""
    seen: list[int] = []
    costs = TextVAE._costs

    def listen(self, z, documents):
        seen.append(z[..., 0].numel())
        return costs(self, z, documents)

    with monkeypatch.context() as patch:
        patch.setattr(TextVAE, "_costs", listen)
        if not once:
            patch.setattr(model, "distinct", lambda _: None)
        vae.zero_grad()
        nelbo, _ = vae.nelbo(batch, estimator, torch.Generator().manual_seed(1))
        nelbo.mean().backward()
    return nelbo.detach(), [p.grad.clone() for p in vae.parameters()], seen


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize(("bits", "depth"), [(12, 0), (24, 0), (64, 0), (12, 1), (24, 2)])
@pytest.mark.parametrize("estimator", [ARM(1), DisARM(10)])
@pytest.mark.parametrize("encoder", ["e1", "e2"])
def test_costs_and_gradients_are_those_of_all_codes(encoder, bits, depth, estimator, loops, monkeypatch):
    if not loops:
        monkeypatch.setattr(compiled, "available", lambda _: False)
    vae, x = sure(encoder, bits, depth), documents(64)
    (batch,) = Documents(x).batches(64)
    wanted, slopes, (all_rows,) = bound(vae, batch, estimator, monkeypatch, once=False)
    got, gradients, (rows,) = bound(vae, batch, estimator, monkeypatch, once=True)
    assert all_rows == 2 * estimator.samples * 64
    assert rows < 0.9 * all_rows
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-5)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert (gradient - slope).norm() < 1e-5 * slope.norm() + 1e-9


def test_in_bfloat16_within_its_rounding(monkeypatch):
    vae, x = sure("e2", 24, 1, torch.bfloat16), documents(64)
    (batch,) = Documents(x).batches(64)
    wanted, slopes, _ = bound(vae, batch, ARM(10), monkeypatch, once=False)
    got, gradients, _ = bound(vae, batch, ARM(10), monkeypatch, once=True)
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=0.05)
    for gradient, slope in zip(gradients, slopes, strict=True):
        assert (gradient - slope).norm() < 0.02 * slope.norm() + 1e-6


def test_codes_with_a_gradient_are_left_alone(monkeypatch):
    vae, x = sure("e1", 24, 1), documents(64)
    (batch,) = Documents(x).batches(64)
    _, _, rows = bound(vae, batch, StraightThrough(2), monkeypatch, once=True)
    assert rows == [128]


@pytest.mark.parametrize("depth", [0, 1])
def test_codes_for_other_documents_are_refused(depth):
    vae = sure("e1", 24, depth)
    (batch,) = Documents(documents(64)).batches(64)
    costs = vae.costs(batch)
    for wrong in (torch.zeros(4, 63, 24), torch.zeros(4, 65, 24)):
        with pytest.raises((ValueError, RuntimeError)):
            costs(wrong)


def test_training_is_the_same_to_the_bit_alone_together_and_resumed(tmp_path):
    calls: list[bool] = []

    def run(seed: int, name: str | None = None) -> Run:
        torch.manual_seed(seed)
        return Run(sure("e2", 24, 1), seed, checkpoint=None if name is None else tmp_path / name)

    def listen(z):
        found = distinct(z)
        calls.append(found is not None)
        return found

    corpora = Corpora(Documents(documents(90)), Documents(documents(30)))
    phases = (Phase(3, ARM(1)), Phase(3, ARM(5)))
    alone, together, begun = run(0), [run(0), run(1)], run(0, "c.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "distinct", listen)
        train_together([alone], corpora, phases, batch_size=32)
        train_together(together, corpora, phases, batch_size=32)
        train_together([begun], corpora, phases[:1], batch_size=32, checkpoint_every=1)
        resumed = run(0, "c.safetensors")
        train_together([resumed], corpora, phases, batch_size=32)
    assert any(calls)
    for other in (together[0], resumed):
        assert other.curve == alone.curve
        for one, same in zip(alone.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(one, same)
