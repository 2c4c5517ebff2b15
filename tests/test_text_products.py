"""Products with a table of all words: against dense ones in float64, in memory that is used again, near an optimum.

Labels: own-fused-multinomial, eq-13.
"""

from __future__ import annotations

import mmap
import os

import pytest
import torch

from efvae.data.synthetic import curved_law, synthetic_text
from efvae.text import products
from efvae.text.batches import Documents
from efvae.text.fused import FrozenLayer, code_costs
from efvae.text.products import Table, fresh
from efvae.word_counts import WordCounts

CPU = torch.device("cpu")
LARGE = (1024, 512)


@pytest.fixture(params=["oneDNN", "MKL", "neither"])
def mkldnn(request, monkeypatch):
    """Whose products: each is tested on any CPU, whichever is the best one there."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(request.param == "oneDNN")
    monkeypatch.setattr(products, "_mkl_is_best", lambda: request.param == "MKL")
    yield request.param
    torch._C._set_mkldnn_enabled(before)


def test_float32_products_are_left_to_mkl_on_the_cpus_of_its_maker_only(monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    for name, best in (("Intel Xeon", True), ("AMD EPYC 9R14", False), (None, False)):
        known = {} if name is None else {"cpu_name": name}
        monkeypatch.setattr(products, "cpu_capabilities", lambda known=known: known)
        assert products._mkl_is_best.__wrapped__() == best
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    monkeypatch.setattr(products, "cpu_capabilities", lambda: {"cpu_name": "Intel Xeon"})
    assert not products._mkl_is_best.__wrapped__()


def test_memory_is_used_again_and_never_twice_at_a_time():
    first = fresh(LARGE, torch.float32, CPU)
    second = fresh(LARGE, torch.float32, CPU)
    assert first.data_ptr() != second.data_ptr()
    row, place = first[3], second.data_ptr()
    del second
    third = fresh((512, 2048), torch.bfloat16, CPU)  # as many bytes
    assert third.data_ptr() == place
    del first
    assert fresh(LARGE, torch.float32, CPU).data_ptr() != row.data_ptr() - 3 * 512 * 4  # a row of it is left
    many = [fresh(LARGE, torch.float32, CPU) for _ in range(10)]
    assert len({each.data_ptr() for each in [*many, third]}) == 11
    assert len(products._buffers[LARGE[0] * LARGE[1] * 4]) <= products._KEPT


def test_memory_of_a_size_not_asked_for_in_a_while_is_given_back():
    sizes = [2**20 + 4 * k for k in range(products._SIZES + 1)]
    for size in [*sizes[:-1], sizes[0], sizes[-1]]:
        fresh((size // 4,), torch.float32, CPU)
    assert list(products._buffers) == [*sizes[2:-1], sizes[0], sizes[-1]]  # the second has not been asked for longest


@pytest.mark.parametrize("count", [lambda _: 1, lambda _: 2], ids=["too few", "too many"])
def test_no_memory_is_used_again_where_torch_does_not_count_its_users(monkeypatch, count):
    products._counts.cache_clear()
    monkeypatch.setattr(products, "_count", count)
    try:
        assert not products._counts()
        held = [fresh(LARGE, torch.float32, CPU) for _ in range(4)]
        assert len({each.data_ptr() for each in held}) == 4
    finally:
        products._counts.cache_clear()


def test_memory_without_huge_pages_is_as_good_and_a_fork_has_its_own(monkeypatch):
    class Refusing(mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(products.mmap, "mmap", Refusing)
    buffer = products._huge(1 << 21)
    assert buffer.shape == (1 << 21,)
    buffer.zero_()
    child = os.fork()
    if not child:
        buffer[0] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert int(buffer[0]) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_table_changed_between_forward_and_backward_is_noticed(dtype):
    x = synthetic_text(curved_law(60, 4, 10, 30), 6, 2).train
    batch = next(Documents(x).batches(6))
    weight, bias, h = torch.randn(60, 5), torch.zeros(60), torch.randn(1, 6, 5)
    for each in (weight, bias, h):
        each.requires_grad_()
    cost = code_costs(h, weight, bias, batch, dtype).sum()
    with torch.no_grad():
        weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cost.backward()


def test_a_gradient_that_is_kept_is_not_overwritten():
    """Autograd takes a gradient's memory over: it is not free until the gradient is."""
    x = synthetic_text(curved_law(600, 4, 10, 30), 6, 2).train
    batch = next(Documents(x).batches(6))
    weight, bias = torch.randn(600, 512).requires_grad_(), torch.zeros(600, requires_grad=True)
    h = torch.rand(2, 6, 512)
    grads = []
    for _ in range(3):
        (grad,) = torch.autograd.grad(code_costs(h, weight, bias, batch).sum(), weight)
        grads.append((grad, grad.clone()))
        code_costs(2 * h, weight, bias, batch).sum().backward()  # adds up in weight.grad
    for grad, copy in grads:
        torch.testing.assert_close(grad, copy, rtol=0, atol=0)
    (once,) = torch.autograd.grad(code_costs(2 * h, weight, bias, batch).sum(), weight)
    torch.testing.assert_close(weight.grad, 3 * once)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1.5e-2)])
@pytest.mark.parametrize("width", [5, 64, 300], ids=["odd", "narrow", "wide"])
@pytest.mark.parametrize("pack", [False, True])
def test_scores_and_powers_are_those_of_the_dense_product(mkldnn, dtype, tolerance, width, pack):
    torch.manual_seed(0)
    h, weight, bias = torch.rand(7, width), torch.randn(90, width) / width, torch.randn(90)
    table = Table(weight, bias, dtype, pack=pack)
    wanted = (h.double() @ weight.double().T + bias.double()).exp()
    numbers, total, partition = table.powers(h)
    law = wanted / wanted.sum(1, keepdim=True)
    assert (numbers.double() / total[:, None].double() / law - 1).abs().max() <= 4 * tolerance
    torch.testing.assert_close(partition.double(), wanted.sum(1).log(), rtol=0, atol=tolerance)
    shares = torch.rand(7, 90)
    got = table.weighted(shares.to(dtype))
    torch.testing.assert_close(got.double(), shares.double() @ weight.double(), rtol=tolerance, atol=tolerance)
    got = table.against(shares.to(dtype), h.to(dtype))
    torch.testing.assert_close(got.double(), shares.double().T @ h.double(), rtol=tolerance, atol=tolerance)


def test_no_logit_is_rounded_where_the_layer_makes_the_powers():
    """Logits around 9 have an error of 0.03 in bfloat16, and the powers one of 3 %; their own rounding is 0.4 %."""
    if not products._layer(torch.bfloat16):
        pytest.skip("no oneDNN with bfloat16 on this processor")
    torch.manual_seed(0)
    h, weight, bias = (torch.rand(9, 6) > 0.5).float(), torch.randn(80, 6).bfloat16().float(), 8 + torch.rand(80)
    wanted = (h.double() @ weight.double().T + bias.double()).exp()
    numbers, total, _ = Table(weight, bias, torch.bfloat16).powers(h)
    assert float(total.max()) < 1e-3  # shifted
    assert (numbers.double() / wanted * torch.tensor(products._SHIFT).exp() - 1).abs().max() < 5e-3


def test_a_frozen_layer_costs_what_the_definition_says(mkldnn):
    x = synthetic_text(curved_law(60, 4, 10, 30), 300, 2).train
    x = WordCounts(x.indptr, x.indices, x.counts, torch.linspace(0, 0.02, 60, dtype=torch.float64), x.labels)
    dense = x.dense(torch.float64)
    saturated = torch.special.xlogy(dense, dense / dense.sum(1, keepdim=True)).sum(1)
    torch.manual_seed(0)
    h, weight = torch.rand(2, 300, 6), torch.randn(60, 6)
    for bias in (torch.randn(60), torch.linspace(-150, 150, 60)):  # exp of the latter overflows
        logits = h.double() @ weight.double().T + bias.double()
        wanted = saturated - (dense * logits.log_softmax(-1)).sum(-1)
        layer = FrozenLayer(weight, bias, x.smoothing.float())
        for order in (None, torch.randperm(300)):
            documents, rows = Documents(x), torch.arange(300)
            if order is not None:
                documents, rows = documents.shuffled(order), order
            (batch,) = documents.batches(300)
            got = layer.costs(h[:, rows], batch)
            torch.testing.assert_close(got.double(), wanted[:, rows], rtol=2e-6, atol=1e-4)


def test_entries_are_taken_off_in_place():
    x = synthetic_text(curved_law(60, 4, 10, 30), 20, 2).train
    for batch, rows in zip(Documents(x).batches(8), torch.arange(20).split(8), strict=True):
        numbers, scale = torch.rand(3 * len(rows), 60), torch.rand(3, len(rows))
        wanted = numbers.view(3, -1, 60) - scale[..., None] * x.select(rows).dense()
        batch.subtract(numbers, scale)
        torch.testing.assert_close(numbers.view(3, -1, 60), wanted)
        torch.testing.assert_close(batch.weighted(numbers[: len(rows)]), (x.select(rows).dense() * wanted[0]).sum(1))


@pytest.mark.parametrize("in_code", [True, False], ids=["hidden", "affine"])
def test_bfloat16_gradients_near_an_optimum_are_those_of_the_rounded_weights(in_code):
    """Documents of the model's law, so that Σ x and Σ l p nearly cancel; weights that bfloat16 has without an error.

    Were either sum rounded, or each logit, the error would be 3 to 40 %.
    """
    if not products._layer(torch.bfloat16):
        pytest.skip("no oneDNN with bfloat16 on this processor")
    torch.manual_seed(0)
    k, width, n = 500, 8, 512
    weight, bias = torch.randn(k, width).bfloat16().float(), torch.randn(k)
    h = (torch.rand(1, n, width) > 0.5).float()
    counts = torch.poisson(200 * (h[0] @ weight.T + bias).softmax(1))
    (batch,) = Documents(WordCounts.from_dense(counts, torch.zeros(n, dtype=torch.int64))).batches(n)

    def gradient(dtype, cost):
        leaves = [each.detach().clone().to(dtype) for each in (h, weight, bias)]
        for leaf in leaves if in_code else leaves[1:]:
            leaf.requires_grad_()
        cost(*leaves).sum().backward()
        return [leaf.grad.double() for leaf in leaves if leaf.requires_grad]

    found = gradient(torch.float32, lambda h, v, a: code_costs(h, v, a, batch, torch.bfloat16))
    dense = gradient(torch.float64, lambda h, v, a: -(counts.double() * (h @ v.T + a).log_softmax(-1)).sum(-1))
    for got, wanted in zip(found, dense, strict=True):
        assert (got - wanted).norm() <= 0.03 * wanted.norm()
