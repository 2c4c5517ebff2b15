"""Steps of models whose encoder and decoder are linear, by compiled loops: gradients and Adam in one pass over a table.

With one pair of codes a document, a step of automatic differentiation spends much of its time in a hundred small
operations, in gradients that are written to be read once, and in an optimiser that reads four tables and writes three.
Here the gradient of some words is used for Adam while it is in a cache.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from efvae.estimators import ARM, DisARM, Estimator
from efvae.families.base import uniform
from efvae.text import compiled
from efvae.text.batches import Batch
from efvae.text.bit_costs import Groups, code_sums, gradient_arguments
from efvae.text.compiled import spread
from efvae.text.dense import AnyBatch
from efvae.text.distinct import WORTH
from efvae.text.model import TextVAE

__all__ = ["step"]


def step(
    model: TextVAE,
    optimizer: torch.optim.Optimizer,
    batch: AnyBatch,
    estimator: Estimator,
    generator: torch.Generator,
) -> Tensor | None:
    """One step of Adam for the mean NELBO of some documents, as automatic differentiation would make it.

    ``optimizer.step`` is not called and weights get no ``.grad``.

    Args:
        model: changed in place.
        optimizer: changed in place; torch's own Adam can go on from it, and this from torch's.
        batch: the documents.
        estimator: of the gradient.
        generator: source of randomness; the numbers that are drawn are those of the estimator.

    Returns:
        The sum of the documents' NELBOs before the step. None if nothing was done, random numbers included, because
        something else is asked for or the loops cannot do it: a network that is not linear or is a subclass with
        methods of its own; evaluation mode; weights that are not all trained, or have taken different numbers of steps;
        weights or moments that are not contiguous or not float32; an estimator other than ARM or DisARM of one pair; an
        optimiser other than plain Adam; hooks; few bits, so that log-partitions of all codes are cheaper; documents
        that are not sparse on a CPU; no Numba; exponentials that float32 does not hold, see
        :func:`efvae.text.bit_costs.code_costs`.

    Raises:
        IndexError: a word is outside the vocabulary.
        ValueError: the parts of the batch do not fit together.

    Paper: app-c2
    Own: own-tabulated-products
    """
    if not (_serves(model, batch, estimator) and _is_plain(optimizer, model)):
        return None
    assert isinstance(batch, Batch)  # noqa: S101 - see _serves
    assert isinstance(optimizer, torch.optim.Adam)  # noqa: S101 - see _is_plain
    state, done = generator.get_state(), None
    try:
        with torch.no_grad():
            done = _step(model, optimizer, batch, generator, disarm=type(estimator) is DisARM)
    finally:
        if done is None:
            generator.set_state(state)
    return done


def _serves(model: TextVAE, batch: AnyBatch, estimator: Estimator) -> bool:
    # subclasses of any of these may do something else
    if not isinstance(estimator, ARM | DisARM) or type(estimator) not in (ARM, DisARM) or estimator.samples != 1:
        return False
    n, mine = len(batch), type(batch) is Batch and type(model) is TextVAE and model.encoder != "e2" and model.training
    sound = n > 0 and batch.length.shape == batch.saturated.shape == (n,)
    return mine and sound and model.by_tables(batch, 2 * n)


def _weights(model: TextVAE) -> tuple[nn.Parameter, ...]:
    return model.reader, model.reader_bias, model.writer, model.writer_bias


def _is_plain(optimizer: torch.optim.Optimizer, model: TextVAE) -> bool:
    """Whether that is Adam as it was first written, for all of these weights, and the loops can read what it keeps."""
    (group, *others), weights = optimizer.param_groups, _weights(model)
    changed = any(group.get(name) for name in ("weight_decay", "amsgrad", "maximize"))
    if type(optimizer) is not torch.optim.Adam or others or changed or len(group["params"]) != len(weights):
        return False
    hooks = [getattr(optimizer, f"_optimizer_step_{when}_hooks", None) for when in ("pre", "post")]
    hooks += [
        getattr(each, f"_{name}_hooks", None) for each in weights for name in ("backward", "post_accumulate_grad")
    ]
    shapes = [(model.n_words, model.bits), (model.bits,), (model.n_words, model.bits), (model.n_words,)]
    states = [optimizer.state.get(each, {}) for each in weights]
    return (
        not any(hooks)
        and all(given is each and each.requires_grad for given, each in zip(group["params"], weights, strict=True))
        and all(_readable(each, shape) for each, shape in zip(weights, shapes, strict=True))
        and all(
            _readable(state[name], shape)
            for state, shape in zip(states, shapes, strict=True)
            for name in state
            if name != "step"
        )
        and len({float(state["step"]) if state else 0.0 for state in states}) == 1
    )


def _readable(array: Tensor, shape: tuple[int, ...]) -> bool:
    return array.shape == shape and array.dtype == torch.float32 and array.is_contiguous() and array.is_cpu


class _Moments:
    """What Adam keeps of the weights, and the numbers of its next step, see the loop ``step_decoder``."""

    def __init__(self, optimizer: torch.optim.Adam, weights: tuple[nn.Parameter, ...]) -> None:
        states = [optimizer.state[each] for each in weights]
        for weight, state in zip(weights, states, strict=True):
            if not state:  # as torch begins
                state["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        self.steps = [state["step"] for state in states]
        self.means, self.squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        (group,) = optimizer.param_groups
        number, (first, second) = float(self.steps[0]) + 1, group["betas"]
        size, root = group["lr"] / (1 - first**number), math.sqrt(1 - second**number)
        self.rates = torch.tensor(
            [1 - first, 1 - second, size, 1 / root, group["eps"]], dtype=torch.float32, device="cpu"
        )


def _step(
    model: TextVAE, optimizer: torch.optim.Adam, batch: Batch, generator: torch.Generator, *, disarm: bool
) -> Tensor | None:
    weights = reader, reader_bias, writer, writer_bias = _weights(model)
    kernels, (n, bits), smoothing = compiled.kernels(), (len(batch), reader.shape[1]), batch.smoothing.contiguous()
    tiles, groups = len(batch.by_tile[0]) - 1, Groups.of(bits)  # by tile, the documents have been looked at
    scale = torch.ones_like(batch.length) if model.encoder == "e1" else 1 / batch.length
    codes = torch.empty(2 * n, len(groups.sizes), dtype=torch.int32, device="cpu")
    inner, kl = scale.new_empty(2, n), scale.new_empty(n)
    both, factor, slope = scale.new_empty(3, n, bits)
    spread(
        kernels.pairs,
        n,
        *(batch.words.int(), batch.counts.float(), batch.offsets.int()),
        *(reader, batch.shared(reader), reader_bias, scale, uniform(slope, (), generator)),
        *(writer, writer_bias, batch.shared(writer), (smoothing @ writer_bias)[None]),
        *(groups.sizes, torch.tensor([disarm], dtype=torch.int64, device="cpu")),
        *(codes, inner, both, factor, kl, slope),
        memory=2 * -(-bits // kernels.WORDS),
        step=16,
    )
    codes, place = _distinct(codes)
    sums = code_sums(codes, writer, writer_bias)
    if sums is None:
        return None
    total, partition = (part if place is None else part[place] for part in (sums.total, sums.partition))
    cost = batch.length * partition.view(2, n) - inner + batch.saturated
    slope.addcmul_((cost[0] - cost[1])[:, None], factor).mul_(1 / n)
    share = (batch.length / (2 * n)).repeat(2) / total
    if place is not None:
        share = share.new_zeros(len(codes)).index_add_(0, place, share)
    given, memory = gradient_arguments(sums, writer, batch, share, both / (2 * n), scale.new_full((n,), 1 / n))
    moments = _Moments(optimizer, weights)
    spread(
        kernels.step_decoder,
        tiles,
        *(*given, writer_bias, moments.means[2], moments.squares[2], moments.means[3], moments.squares[3]),
        moments.rates,
        memory=memory + bits + 1,
        step=4,
    )
    values = scale[:, None] * slope
    found = values.new_empty(torch.get_num_threads(), kernels.WORDS, bits)
    spread(
        kernels.step_encoder,
        tiles,
        *(*batch.by_tile, values, smoothing, values.sum(0), found, reader),
        *(moments.means[0], moments.squares[0], moments.rates),
        step=8,
    )
    last = reader_bias.detach(), moments.means[1], moments.squares[1], slope.sum(0), moments.rates
    kernels.adam(*(each.numpy() for each in last))
    torch._foreach_add_(moments.steps, 1)
    torch.autograd.graph.increment_version(weights)  # torch does not see the loops
    return cost.sum() / 2 + kl.sum()


def _distinct(codes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Pairs of equal codes made one, and where each of the codes then is; None if few are equal."""
    n = len(codes) // 2
    same = (codes[:n] == codes[n:]).all(1)
    if len(codes) - int(same.sum()) > WORTH * len(codes):
        return codes, None
    first, different = torch.arange(n, device="cpu"), ~same
    second = torch.where(same, first, n - 1 + different.cumsum(0))
    return torch.cat([codes[:n], codes[n:][different]]), torch.cat([first, second])
