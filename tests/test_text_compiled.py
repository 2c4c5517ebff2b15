"""Compiled loops of the text trainer beside the dense definition and beside PyTorch's operations.

Labels: own-tabulated-products, eq-13.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import subprocess
import sys

import pytest
import torch

from efvae.estimators import ARM, DisARM, StraightThrough
from efvae.text import bit_costs, compiled
from efvae.text.batches import Batch, Documents
from efvae.text.fused import word_sums
from efvae.text.model import TextVAE
from efvae.text.training import Corpora, Phase, Run, evaluate, train_together
from efvae.word_counts import WordCounts

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")


def documents(n: int, n_words: int, smoothing: float = 0.0) -> WordCounts:
    """Random counts; the first document has a word of its own, and with smoothing the last one has none."""
    counts = torch.poisson(torch.full((n, n_words), 0.2))
    counts[:, 0] += 1
    if smoothing:
        counts[-1] = 0
    return WordCounts.from_dense(
        counts, torch.zeros(n, dtype=torch.int64), torch.full((n_words,), smoothing, dtype=torch.float64)
    )


def off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "available", lambda _: False)


def by_definition(z: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, x: WordCounts) -> torch.Tensor:
    """−log p(x | z) relative to the saturated multinomial, in float64."""
    dense = x.dense().double()
    saturated = torch.special.xlogy(dense, dense / dense.sum(1, keepdim=True)).sum(1)
    return saturated - (dense * (z @ weight.T + bias).log_softmax(-1)).sum(-1)


# one group and several, one pass and two, words that fill their tiles and others, more codes than a block
@pytest.mark.parametrize(
    ("bits", "n_words", "n", "samples"),
    [
        (1, 30, 3, 1),
        (5, 64, 20, 2),
        (7, 130, 40, 2),
        (16, 129, 30, 4),
        (36, 65, 300, 4),
        (37, 200, 9, 2),
        (64, 700, 150, 8),
    ],
)
@pytest.mark.parametrize("smoothing", [0.0, 0.01])
def test_costs_and_gradients_are_those_of_the_definition(bits, n_words, n, samples, smoothing):
    torch.manual_seed(bits)
    x = documents(n, n_words, smoothing)
    batch = next(Documents(x).batches(n))
    z = (torch.rand(samples, n, bits) > 0.4).float()
    weight, bias = torch.randn(n_words, bits) * 0.5, torch.randn(n_words) + 3
    factors = torch.randn(samples, n)
    for parameter in (weight, bias):
        parameter.requires_grad_()
    cost = bit_costs.code_costs(z, weight, bias, batch)
    assert cost is not None
    wide = [parameter.detach().double().requires_grad_() for parameter in (weight, bias)]
    wanted = by_definition(z.double(), *wide, x)
    torch.testing.assert_close(cost.double(), wanted, rtol=1e-5, atol=1e-3)
    found = torch.autograd.grad((cost * factors).sum(), (weight, bias))
    for mine, exact in zip(found, torch.autograd.grad((wanted * factors).sum(), wide), strict=True):
        assert (mine - exact).norm() < 3e-6 * exact.norm()


def test_what_float32_does_not_hold_is_done_without():
    torch.manual_seed(0)
    x = documents(12, 90)
    batch = next(Documents(x).batches(12))
    model = TextVAE(90, 40)
    z = (torch.rand(2, 12, 40) > 0.5).float()
    bits = torch.ones(40)
    bits[::2] = -1
    one = torch.eye(40)[0]
    # Σ_j |V_kj| is 120 and 200; one entry alone is −85 and −87
    for row, held in ((3.0 * bits, True), (5.0 * bits, False), (-85 * one, True), (-87 * one, False)):
        with torch.no_grad():
            model.writer[5] = row
        assert (bit_costs.code_costs(z, model.writer, model.writer_bias, batch) is not None) == held
        cost = model.costs(batch)(z)
        wanted = by_definition(z.double(), model.writer.double(), model.writer_bias.double(), x)
        torch.testing.assert_close(cost.double(), wanted, rtol=1e-5, atol=1e-3)
    with torch.no_grad():
        model.writer[5] = 0
        model.writer_bias[:] = -200.0  # only relative to each other they count
        model.writer_bias[7] = 0
    for parameter in (model.writer, model.writer_bias):  # NaN is left to the usual way, which names the epoch
        assert bit_costs.code_costs(z, model.writer, model.writer_bias, batch) is not None
        for bad in (math.nan, math.inf):
            with torch.no_grad():
                parameter.view(-1)[3] = bad
            assert bit_costs.code_costs(z, model.writer, model.writer_bias, batch) is None
        with torch.no_grad():
            parameter.view(-1)[3] = 0


# b and the products of tables, each by itself held or not, in sums that they make up
@pytest.mark.parametrize(
    ("weight", "bias", "code"),
    [
        ([[0, 0], [60, 60]], [0, -110], [1, 1]),
        ([[0, 0, -40], [-75, -75, 0]], [0, -30], [0, 0, 1]),
        ([[-85, 59], [-60, 0]], [0, 0], [1, 1]),
        ([[0, 0], [80, -75]], [0, -95], [1, 0]),
    ],
)
def test_small_factors_of_large_sums_are_not_lost(weight, bias, code):
    weight, bias, z = torch.tensor(weight).float(), torch.tensor(bias).float(), torch.tensor([[code]]).float()
    x = WordCounts.from_dense(torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))
    cost = bit_costs.code_costs(z, weight, bias, next(Documents(x).batches(1)))
    wanted = by_definition(z.double(), weight.double(), bias.double(), x)
    if cost is not None:
        torch.testing.assert_close(cost.double(), wanted, rtol=1e-5, atol=1e-3)


def test_other_codes_are_left_to_the_usual_way():
    model, x = TextVAE(30, 10), documents(4, 30)
    batch = next(Documents(x).batches(4))
    z = (torch.rand(2, 4, 10) > 0.5).float()
    for other in (z / 2, z.clone().index_fill(1, torch.tensor([3]), math.nan), z[:0]):
        wanted = by_definition(other.double(), model.writer.double(), model.writer_bias.double(), x)
        with torch.no_grad():
            found = model.costs(batch)(other)
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-3, equal_nan=True)
    assert bit_costs.code_costs(z / 2, model.writer, model.writer_bias, batch) is None
    for kind in (torch.bool, torch.int64, torch.float64):
        found = bit_costs.code_costs(z.to(kind), model.writer, model.writer_bias, batch)
        torch.testing.assert_close(found, model.costs(batch)(z), rtol=0, atol=0)
        found.sum().backward()


def test_shapes_that_do_not_fit_are_named():
    batch = next(Documents(documents(4, 30)).batches(4))
    good = torch.zeros(1, 4, 10), torch.zeros(30, 10), torch.zeros(30)
    for place, bad in ((0, (1, 3, 10)), (0, (1, 4, 9)), (1, (29, 10)), (2, (31,))):
        given = [torch.zeros(bad) if i == place else each for i, each in enumerate(good)]
        with pytest.raises(ValueError, match=r"expected codes of shape \(samples, 4, \d+\), and V and a of 30 words"):
            bit_costs.code_costs(*given, batch)
    with pytest.raises(ValueError, match="expected a row for each of 4 documents, got 5"):
        batch.transposed(torch.zeros(5, 2))
    for words in (batch.words + 5, batch.words.long() + 2**32):
        other = dataclasses.replace(batch, words=words)
        for work in (other.entries, lambda table, other=other: bit_costs.code_costs(good[0], table, good[2], other)):
            with pytest.raises((IndexError, RuntimeError)):
                work(torch.zeros(30, 10))
        with pytest.raises(IndexError, match="outside the vocabulary"):
            other.transposed(torch.zeros(4, 2))
    n = len(batch.words)
    for offsets in ([0, 5, 3, n], [1, 2, 3, 4], [0, 1, 2, n + 1], [0, -1, 2, 3]):
        with pytest.raises(ValueError, match="do not begin one after the other"):
            dataclasses.replace(batch, offsets=torch.tensor(offsets)).transposed(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="other numbers of words and of counts"):
        dataclasses.replace(batch, counts=batch.counts[1:]).transposed(torch.zeros(4, 2))


def test_a_loop_that_was_left_early_is_noticed():
    loops = compiled.kernels()
    work = loops.job(3, 1, [])
    loops.check(work)
    work[loops.BEGUN] += 1
    with pytest.raises(RuntimeError, match="left early"):
        loops.check(work)
    with pytest.raises(TypeError, match="at most"):
        loops.job(3, 1, [torch.zeros(1)] * (loops.MOST_ARRAYS + 1))


def test_the_default_dtype_does_not_matter():
    torch.manual_seed(0)
    batch = next(Documents(documents(4, 30)).batches(4))
    z, table, bias = (torch.rand(1, 4, 10) > 0.5).float(), torch.randn(30, 10), torch.randn(30)
    wanted = bit_costs.code_costs(z, table, bias, batch)
    bit_costs.Groups.of.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(bit_costs.code_costs(z, table, bias, batch), wanted)
    finally:
        torch.set_default_dtype(torch.float32)


def test_frozen_parameters_and_other_memory_get_their_gradients():
    torch.manual_seed(0)
    x = documents(20, 70)
    batch = next(Documents(x).batches(20))
    z, table, bias = (torch.rand(2, 20, 9) > 0.5).float(), torch.randn(70, 9), torch.randn(70)
    turned = table.t().contiguous().t().requires_grad_()
    found = []
    for weight in (turned, table.clone().requires_grad_()):
        assert weight.is_contiguous() == (weight is not turned)
        found.append(torch.autograd.grad(bit_costs.code_costs(z, weight, bias, batch).sum(), weight)[0])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    across = z.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    found.append(torch.autograd.grad(bit_costs.code_costs(across, weight, bias, batch).sum(), weight)[0])
    torch.testing.assert_close(*found[1:], rtol=0, atol=0)
    bias.requires_grad_()
    bit_costs.code_costs(z, table, bias, batch).sum().backward()
    assert bias.grad.norm() > 0


def test_a_changed_table_is_noticed():
    batch = next(Documents(documents(4, 30)).batches(4))
    weight = torch.zeros(30, 10, requires_grad=True)
    cost = bit_costs.code_costs(torch.zeros(1, 4, 10), weight, torch.zeros(30), batch)
    with torch.no_grad():
        weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        cost.sum().backward()


@pytest.mark.parametrize("width", [1, 5, 64])
def test_sums_over_words_are_those_of_torch(width, monkeypatch):
    torch.manual_seed(0)
    x = documents(200, 300, 0.01)
    table, values = torch.randn(300, width, requires_grad=True), torch.randn(200, width)
    found = []
    for _ in range(2):
        batch = next(Documents(x).shuffled(torch.arange(200).flip(0)).batches(200))
        (grad,) = torch.autograd.grad((word_sums(table, batch) * values).sum(), table)
        found.append((batch.sums(table), batch.entries(table), batch.transposed(values.t().contiguous().t()), grad))
        off(monkeypatch)
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted.detach(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_words_of_a_document_may_come_in_any_order(kind):
    torch.manual_seed(0)
    z, weight, bias = (torch.rand(2, 2, 9) > 0.5).float(), torch.randn(100, 9, requires_grad=True), torch.randn(100)
    found = []
    for order in ([0, 1, 2, 3, 4], [2, 0, 1, 4, 3]):
        words, counts = torch.tensor([3, 70, 99, 2, 71], dtype=kind), torch.tensor([1.0, 2, 3, 4, 5])
        ends = torch.tensor([0, 3], dtype=kind)
        batch = Batch(words[order], counts[order], ends, torch.zeros(100), torch.tensor([6.0, 9]), torch.zeros(2))
        cost = bit_costs.code_costs(z, weight, bias, batch)
        found.append((cost, *torch.autograd.grad(cost.sum(), weight)))
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-6, atol=1e-5)


@pytest.fixture
def threads():
    """Sets a number of threads; as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("team", ["of torch", "of others"])
def test_the_number_of_threads_changes_nothing(threads, team, monkeypatch):
    if team == "of others":
        monkeypatch.setattr(compiled, "_team", lambda: compiled._other_threads)
    torch.manual_seed(0)
    x = documents(700, 900)
    batch = next(Documents(x).batches(700))
    z, table = (torch.rand(2, 700, 12) > 0.5).float(), torch.randn(900, 12, requires_grad=True)
    found = []
    for n in (1, 2, 3):
        threads(n)
        cost = bit_costs.code_costs(z, table, torch.zeros(900), batch)
        sums = word_sums(table, batch)
        found.append([cost, sums, *torch.autograd.grad(cost.sum() + (sums**2).sum(), table)])
    for other in found[1:]:
        assert torch.equal(other[0], found[0][0])  # whose loops are ours
        for mine, wanted in zip(other[1:], found[0][1:], strict=True):  # with sums of torch's in between
            torch.testing.assert_close(mine, wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("step", [None, 1, 7])
@pytest.mark.parametrize("team", ["of torch", "of others", "too small", "one"])
def test_a_loop_covers_its_range_once_and_its_errors_are_raised(threads, team, step, monkeypatch):
    threads(1 if team == "one" else 4)
    if team == "of others":
        monkeypatch.setattr(compiled, "_team", lambda: compiled._other_threads)
    if team == "too small":  # all of the work falls to one member
        monkeypatch.setattr(compiled, "_team", lambda: lambda loop, work, _: loop.ctypes(work.ctypes.data))
    loops = compiled.kernels()
    for n in (1, 3, 4, 101):
        n_words = n * loops.WORDS
        words, counts = torch.arange(n_words, dtype=torch.int32), torch.ones(n_words)
        documents = (part.numpy() for part in (words, counts, torch.zeros(1).int()))
        entries = [torch.from_numpy(part) for part in loops.by_tile(*documents, n_words)]
        values, shared, result = torch.ones(1, 2), torch.zeros(2), torch.zeros(n_words, 2)
        # what a loop adds up is there once
        compiled.spread(loops.add_words, n, *entries, values, counts, shared, result, step=step)
        assert (result == 1).all()
    arguments = [*entries, values, counts, shared, result]
    for place, bad in ((1, arguments[1].long()), (4, arguments[5]), (7, arguments[4][0])):
        given = [bad if i == place else each for i, each in enumerate(arguments)]
        with pytest.raises(TypeError, match="not of the kind"):
            compiled.spread(loops.add_words, n, *given, step=step)
    with pytest.raises(TypeError, match="not of the kind"):  # arguments are missing
        compiled.spread(loops.sort_places, 1, torch.zeros(1, 6, dtype=torch.int32))
    with pytest.raises(TypeError, match="at most three axes"):
        compiled.spread(loops.add_words, 2, torch.ones(1, 1, 1, 1))
    with pytest.raises(TypeError, match="contiguous"):
        compiled.spread(loops.add_words, 2, torch.ones(4, 2).t(), shared, shared, step=step)


def test_training_is_that_of_torch(monkeypatch):
    torch.manual_seed(0)
    x, y = documents(300, 150), documents(60, 150)
    curves, ends = [], []
    for _ in range(2):
        runs = []
        for encoder, bits in (("e1", 12), ("e2", 40), ("e3", 7)):
            torch.manual_seed(1)
            runs.append(Run(TextVAE(150, bits, encoder, width=16), seed=2))
        phases = (Phase(3, DisARM()), Phase(2, ARM(3)))
        train_together(runs, Corpora(Documents(x), Documents(y)), phases, batch_size=64)
        curves.append([value for run in runs for values in run.curve.values() for value in values])
        generator = torch.Generator().manual_seed(3)
        ends.append(torch.stack([evaluate(run.model, Documents(y), generator)[0].mean() for run in runs]))
        off(monkeypatch)
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
    torch.testing.assert_close(*ends, rtol=1e-4, atol=0)


def test_codes_with_a_gradient_are_left_to_torch(monkeypatch):
    def never(*_):
        raise AssertionError

    monkeypatch.setattr(bit_costs, "code_costs", never)
    model, x = TextVAE(30, 12), documents(8, 30)
    nelbo, _ = model.nelbo(next(Documents(x).batches(8)), StraightThrough(), torch.Generator().manual_seed(0))
    nelbo.sum().backward()
    assert model.reader.grad.norm() > 0


def test_an_environment_variable_turns_them_off():
    code = "import torch; from efvae.text import compiled; print(compiled.available(torch.device('cpu')))"
    for value, wanted in (("0", "False"), ("", "True")):
        done = subprocess.run(
            [sys.executable, "-c", code], env={"EFVAE_COMPILED": value, "PATH": ""}, capture_output=True, text=True
        )
        assert done.stdout.strip() == wanted, done.stderr
    assert not compiled.available(torch.device("meta"))


def test_compiled_code_that_finds_no_room_is_made_anew_by_each_process(tmp_path):
    code = """if True:
        import resource, signal, torch
        from efvae.text import compiled
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        kernels = compiled.kernels()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        words = torch.tensor([1, 0], dtype=torch.int32).numpy()
        print(kernels.by_tile(words, words.astype("float32"), words[1:].astype("int64"), 4)[0].tolist())
        print(kernels.sort_places() is not None)"""
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["[0, 2]", "True"], done.stderr
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    assert kept == []  # so there was no room
