"""Steps of linear models by compiled loops beside those of automatic differentiation and of torch's Adam.

Labels: own-tabulated-products, app-c2.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from efvae.estimators import ARM, DisARM, Estimator
from efvae.text import compiled, linear_steps
from efvae.text.batches import Batch, Documents
from efvae.text.model import TextVAE
from efvae.text.passes import descend
from efvae.text.training import Run
from efvae.word_counts import WordCounts

pytestmark = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")


def batch_of(n: int, n_words: int, smoothing: float = 0.0) -> Batch:
    """Random documents; the first word is in all of them, but with smoothing the last one has no word."""
    counts = torch.poisson(torch.full((n, n_words), 0.2))
    counts[:, 0] += 1
    if smoothing:
        counts[-1] = 0
    f = torch.full((n_words,), smoothing, dtype=torch.float64)
    return next(Documents(WordCounts.from_dense(counts, torch.zeros(n, dtype=torch.int64), f)).batches(n))


def new_run(n_words: int, bits: int, encoder: str = "e1", spread: float = 0.3) -> Run:
    model = TextVAE(n_words, bits, encoder)
    with torch.no_grad():
        model.reader.normal_(0, spread)
        model.writer.normal_(0, spread)
    return Run(model, seed=4, learning_rate=1e-2)


def state(run: Run) -> list[torch.Tensor]:
    """Everything that a step changes, random numbers included."""
    weights = list(run.model.parameters())
    kept = [value.clone() for each in weights for value in run.optimizer.state[each].values()]
    return [*(each.detach().clone() for each in weights), *kept, run.generator.get_state()]


def by_loops(run: Run, batch: Batch, estimator: Estimator) -> torch.Tensor | None:
    return linear_steps.step(run.model, run.optimizer, batch, estimator, run.generator)


def by_torch(run: Run, batch: Batch, estimator: Estimator) -> torch.Tensor:
    """As it is written in :func:`descend`, for any model."""
    run.optimizer.zero_grad()
    nelbo, _ = run.model.nelbo(batch, estimator, run.generator)
    nelbo.mean().backward()
    run.optimizer.step()
    return nelbo.detach().sum()


def gradient(run: Run) -> list[torch.Tensor]:
    """That of the first step, which Adam's first moment is a tenth of."""
    return [10 * run.optimizer.state[each]["exp_avg"].double() for each in run.model.parameters()]


# one group and several, tiles that words fill and others, more codes than a block, all codes of pairs the same
@pytest.mark.parametrize(
    ("bits", "n_words", "n", "spread"),
    [
        (9, 33, 5, 0.3),
        (11, 40, 1, 0.3),
        (80, 70, 20, 0.3),
        (16, 129, 30, 0.3),
        (32, 96, 40, 3.0),
        (37, 200, 9, 0.3),
        (64, 700, 300, 0.2),
        (40, 90, 50, 30.0),
    ],
)
@pytest.mark.parametrize("estimator", [ARM(), DisARM()])
@pytest.mark.parametrize(("encoder", "smoothing"), [("e1", 0.0), ("e1", 0.01), ("e3", 0.01)])
def test_the_first_step_has_the_gradient_of_automatic_differentiation(
    bits, n_words, n, spread, estimator, encoder, smoothing
):
    torch.manual_seed(bits)
    batch, mine = batch_of(n, n_words, smoothing), new_run(n_words, bits, encoder)
    with torch.no_grad():
        mine.model.reader.mul_(spread / 0.3)
    other = copy.deepcopy(mine)
    sums = by_loops(mine, batch, estimator), by_torch(other, batch, estimator)
    assert torch.equal(mine.generator.get_state(), other.generator.get_state())
    torch.testing.assert_close(*sums, rtol=1e-5, atol=0)
    for found, wanted in zip(gradient(mine), gradient(other), strict=True):
        assert (found - wanted).norm() < 2e-5 * wanted.norm() + 1e-7


@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_documents_of_other_dtypes_and_other_defaults_change_nothing(kind):
    torch.manual_seed(0)
    batch, run = batch_of(30, 130, 0.01), new_run(130, 20)
    first, second = copy.deepcopy(run), copy.deepcopy(run)
    wanted = by_loops(run, batch, DisARM())
    other = dataclasses.replace(
        batch, words=batch.words.to(kind), offsets=batch.offsets.to(kind), counts=batch.counts.double()
    )
    assert torch.equal(by_loops(first, other, DisARM()), wanted)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert torch.equal(by_loops(second, batch, DisARM()), wanted)
    finally:
        torch.set_default_dtype(torch.float32)
    for each in (first, second):
        assert all(map(torch.equal, state(each), state(run)))


@pytest.mark.parametrize("estimator", [ARM(), DisARM()])
def test_weights_and_moments_follow_the_rule_of_adam(estimator):
    torch.manual_seed(0)
    batch, run = batch_of(30, 130, 0.01), new_run(130, 20)
    weights, options = list(run.model.parameters()), {"lr": 1e-2, "eps": 1e-3, "betas": (0.9, 0.99)}
    mirror = [nn.Parameter(each.detach().clone()) for each in weights]
    run.optimizer, rule = (torch.optim.Adam(some, fused=True, **options) for some in (weights, mirror))
    means = [torch.zeros_like(each) for each in weights]
    for _ in range(6):
        assert by_loops(run, batch, estimator) is not None
        for i, (each, other) in enumerate(zip(weights, mirror, strict=True)):
            mean = run.optimizer.state[each]["exp_avg"]
            other.grad = (mean - 0.9 * means[i]) / 0.1  # what the loops had found
            means[i] = mean.clone()
        rule.step()
    for each, other in zip(weights, mirror, strict=True):
        assert run.optimizer.state[each].keys() == rule.state[other].keys()
        for name, value in rule.state[other].items():
            torch.testing.assert_close(run.optimizer.state[each][name], value, rtol=2e-4, atol=1e-6)
        torch.testing.assert_close(each.detach(), other.detach(), rtol=1e-4, atol=1e-4)  # a step is 0.01


def test_steps_of_torch_and_of_the_loops_can_follow_each_other():
    torch.manual_seed(0)
    batch, mixed = batch_of(30, 130, 0.01), new_run(130, 20)
    # where gradients are as small as their rounding, Adam's usual ε makes steps of chance
    mixed.optimizer = torch.optim.Adam(mixed.model.parameters(), lr=1e-2, eps=1e-3, fused=True)
    alone = copy.deepcopy(mixed)
    for i in range(8):
        by_torch(alone, batch, DisARM())
        if i % 3:
            assert by_loops(mixed, batch, DisARM()) is not None
        else:
            by_torch(mixed, batch, DisARM())
    for found, wanted in zip(state(mixed), state(alone), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_torch_sees_that_weights_were_changed():
    batch, run = batch_of(8, 50), new_run(50, 12)
    nelbo, _ = run.model.nelbo(batch, DisARM(), run.generator)
    assert by_loops(run, batch, DisARM()) is not None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        nelbo.sum().backward()


def test_the_loop_of_adam_is_that_of_torch():
    torch.manual_seed(0)
    weight, mean, square = nn.Parameter(torch.randn(50)), torch.zeros(50), torch.zeros(50)
    mine, rule = weight.detach().clone(), torch.optim.Adam([weight], lr=3e-3, betas=(0.8, 0.99), eps=1e-3, fused=True)
    for step in range(1, 8):
        weight.grad = torch.randn(50) * step
        rates = torch.tensor([0.2, 0.01, 3e-3 / (1 - 0.8**step), 1 / math.sqrt(1 - 0.99**step), 1e-3])
        compiled.kernels().adam(*(each.numpy() for each in (mine, mean, square, weight.grad, rates)))
        rule.step()
        torch.testing.assert_close(mine, weight.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close([mean, square], [rule.state[weight][name] for name in ("exp_avg", "exp_avg_sq")])


def test_pairs_of_equal_codes_are_one(monkeypatch):
    codes = torch.arange(40, dtype=torch.int32).view(10, 4)
    codes[5:] = codes[:5]
    assert linear_steps._distinct(torch.arange(8, dtype=torch.int32).view(2, 4))[1] is None
    codes[[6, 8]] += 100
    kept, place = linear_steps._distinct(codes)
    assert len(kept) == 7
    assert torch.equal(kept[place], codes)
    lengths, sums = [], linear_steps.code_sums
    monkeypatch.setattr(linear_steps, "code_sums", lambda rows, *rest: lengths.append(len(rows)) or sums(rows, *rest))
    run = new_run(90, 40, spread=0.0)
    for bias in (0.0, 100.0):
        with torch.no_grad():
            run.model.reader_bias.fill_(bias)
        by_loops(run, batch_of(20, 90), DisARM())
    assert lengths == [40, 20]


def test_other_models_estimators_optimisers_and_documents_are_left_alone():
    torch.manual_seed(0)
    batch = batch_of(8, 50)

    def refused(run: Run, documents: Batch = batch, estimator: Estimator = DisARM()) -> bool:  # noqa: B008
        before = state(run)
        done = by_loops(run, documents, estimator)
        return done is None and all(map(torch.equal, state(run), before))

    def with_rule(rule: type[torch.optim.Optimizer], **options: object) -> Run:
        run = new_run(50, 12)
        run.optimizer = rule(run.model.parameters(), lr=1e-2, **options)
        return run

    def with_model(kind: type[TextVAE] = TextVAE, **changes: object) -> Run:
        return Run(kind(50, 12, **changes))

    class Mine(DisARM):
        pass

    class Own(TextVAE):
        pass

    assert not refused(new_run(50, 12))
    assert refused(new_run(50, 12), estimator=DisARM(2))
    assert refused(new_run(50, 12), estimator=Mine())
    assert refused(with_model(encoder="e2", width=4))
    assert refused(with_model(depth=1, width=4))
    assert refused(new_run(50, 3))  # their codes are listed
    assert refused(with_rule(torch.optim.SGD))
    assert refused(with_rule(torch.optim.AdamW))
    assert refused(with_rule(torch.optim.Adam, weight_decay=0.1))
    assert refused(with_rule(torch.optim.Adam, amsgrad=True))
    assert refused(with_rule(torch.optim.Adam, maximize=True))
    assert refused(with_model(Own))
    assert refused(new_run(50, 12), documents=dataclasses.replace(batch, length=batch.length[:1]))
    assert refused(new_run(50, 12), documents=batch.repeated(torch.tensor([1, 1])))
    changes: dict[str, Callable[[Run], object]] = {
        "frozen": lambda run: run.model.writer_bias.requires_grad_(requires_grad=False),
        "evaluated": lambda run: run.model.eval(),
        "in parts": lambda run: run.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]}),
        "of another model": lambda run: setattr(run, "model", new_run(50, 12).model),
        "turned": lambda run: setattr(run.model.writer, "data", run.model.writer.data.t().contiguous().t()),
        "wide": lambda run: setattr(run.model.reader, "data", run.model.reader.data.double()),
        "one for all": lambda run: setattr(run.model.reader_bias, "data", torch.zeros(1)),
        "heard": lambda run: run.optimizer.register_step_post_hook(lambda *_: None),
        "seen": lambda run: run.model.writer.register_hook(lambda _: None),
    }
    for name, change in changes.items():
        run = new_run(50, 12)
        change(run)
        assert refused(run), name


def test_moments_that_the_loops_do_not_read_are_left_to_torch():
    torch.manual_seed(0)
    batch = batch_of(8, 50)
    for name, bad in (
        ("exp_avg", lambda each: each.t().contiguous().t()),
        ("exp_avg_sq", torch.Tensor.double),
        ("exp_avg", lambda each: each[:-1]),
        ("step", lambda each: each + 1),  # frozen for a while, others were ahead
    ):
        run = new_run(50, 12)
        assert by_loops(run, batch, DisARM()) is not None
        kept = run.optimizer.state[run.model.reader]
        kept[name] = bad(kept[name])
        before = state(run)
        assert by_loops(run, batch, DisARM()) is None
        assert all(map(torch.equal, state(run), before))


def test_clipped_gradients_are_left_to_torch(monkeypatch):
    torch.manual_seed(0)
    run, calls = new_run(50, 12), []
    step = linear_steps.step
    monkeypatch.setattr(linear_steps, "step", lambda *given: calls.append(given) or step(*given))
    descend(run, batch_of(8, 50), DisARM())
    assert len(calls) == 1
    run.clip = 1.0
    descend(run, batch_of(8, 50), DisARM())
    assert len(calls) == 1


def test_what_float32_does_not_hold_is_left_to_torch():
    torch.manual_seed(0)
    batch = batch_of(8, 50)
    for bad in (math.nan, math.inf, 90.0):
        run = new_run(50, 12)
        with torch.no_grad():
            run.model.writer[3, 4] = bad
        before = state(run)
        assert by_loops(run, batch, DisARM()) is None
        torch.testing.assert_close(state(run), before, rtol=0, atol=0, equal_nan=True)
    with torch.no_grad():
        run.model.writer[3, 4] = 0.0
        run.model.reader[0] = math.nan  # of a word of all documents
    assert by_loops(run, batch, DisARM()).isnan()  # as in any program, where the epoch ends with a message


def test_words_out_of_range_are_refused_before_anything_is_read():
    torch.manual_seed(0)
    batch, run = batch_of(8, 50), new_run(50, 12)
    before = state(run)
    with pytest.raises(IndexError, match="outside the vocabulary"):
        by_loops(run, dataclasses.replace(batch, words=batch.words + 5), DisARM())
    batch.by_tile  # noqa: B018 - looks at the words once
    for change in (batch.words, batch.offsets):
        kept = change.clone()
        for wrong in (10_000_000, -10_000_000):
            change.add_(wrong)
            with pytest.raises(IndexError, match="outside the vocabulary"):
                by_loops(run, batch, DisARM())
            change.copy_(kept)
    assert all(map(torch.equal, state(run), before))


def test_the_number_of_threads_changes_no_step():
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            torch.manual_seed(0)
            batch, run = batch_of(300, 900, 0.01), new_run(900, 12)
            found.append([by_loops(run, batch, DisARM()), *state(run)])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-6)  # with sums of torch's in between
