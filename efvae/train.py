"""The training loop: one function, resumable (on a CPU to the bit), its data stream a function of its generator."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from efvae import places
from efvae.checkpoint import load_checkpoint, save_checkpoint
from efvae.devices import Repeated
from efvae.values import check_fields

__all__ = ["Curve", "TrainConfig", "TrainingError", "adam", "fit", "not_finite"]

#: Metrics over training, by name; ``step``, ``loss`` and whatever ``evaluate`` returns, lists of one length.
Curve = dict[str, list[float]]


class TrainingError(RuntimeError):
    """Training cannot go on: the loss, a parameter or a metric is not a finite number, or far beyond any use."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of :func:`fit`.

    Args:
        steps: number of optimiser steps, ≥ 1.
        learning_rate: of Adam at the first step, > 0.
        final_learning_rate: at the last step, reached along a half cosine; None keeps the rate constant.
        betas: of Adam.
        seed: of the data stream and of the estimators.
        eval_every: steps between two entries of the curve, ≥ 1; the last step always has one.
        checkpoint_every: steps between two checkpoints; 0 writes none.

    Raises:
        ValueError: a value out of its range.
    """

    steps: int
    learning_rate: float = 1e-3
    final_learning_rate: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    seed: int = 0
    eval_every: int = 100
    checkpoint_every: int = 0

    def __post_init__(self) -> None:
        least = {"steps": 1, "eval_every": 1, "checkpoint_every": 0, "seed": 0}
        check_fields(self, least=least, positive=("learning_rate",))
        if self.final_learning_rate is not None and not self.final_learning_rate >= 0:
            raise ValueError(f"final_learning_rate must not be negative; got {self.final_learning_rate}")
        if [0 <= beta < 1 for beta in self.betas] != [True, True]:
            raise ValueError(f"betas must be two numbers in [0, 1); got {self.betas}")

    def rate(self, step: int) -> float:
        """Learning rate of step 0 … steps − 1."""
        if self.final_learning_rate is None:
            return self.learning_rate
        share = 0.5 * (1 + math.cos(math.pi * step / max(self.steps - 1, 1)))
        return self.final_learning_rate + (self.learning_rate - self.final_learning_rate) * share

    def fingerprint(self, model: nn.Module) -> str:
        """Hash of what a checkpoint must agree in: these settings, and the model's parameters.

        By name, shape, dtype where it is not float32, and whether they are trained: the optimiser knows them by number.
        """
        own = model.state_dict()
        told: list[object] = [asdict(self), {name: list(value.shape) for name, value in own.items()}]
        wide = {n: str(v.dtype) for n, v in own.items() if v.is_floating_point() and v.dtype != torch.float32}
        frozen = sorted(name for name, value in model.named_parameters() if not value.requires_grad)
        told += [extra for extra in (wide, frozen) if extra]  # so that other checkpoints of before still serve
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def adam(
    parameters: Iterable[Tensor], rate: float, betas: tuple[float, float], device: str | torch.device
) -> torch.optim.Adam:
    """Adam; on an accelerator one kernel, and all of its state there, as recorded steps need it, the rate too.

    Args:
        parameters: to train, on the device.
        rate: learning rate.
        betas: of Adam.
        device: where.

    Own: own-devices
    """
    if torch.device(device).type == "cpu":
        return torch.optim.Adam(parameters, lr=rate, betas=betas)
    there = torch.full((), rate, dtype=torch.float32, device=device)
    return torch.optim.Adam(parameters, lr=there, betas=betas, fused=True, capturable=True)


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, torch.Generator], Tensor],
    batch: Callable[[torch.Generator], Tensor],
    config: TrainConfig,
    *,
    evaluate: Callable[[], dict[str, float]] | None = None,
    checkpoint: Path | str | None = None,
    device: str | torch.device = "cpu",
    graph: bool = False,
    progress: Callable[[int, Curve], None] | None = None,
) -> Curve:
    """Minimise the mean loss of random batches over the trainable parameters of a model.

    A run that was killed and is started again with the same checkpoint file ends, on one machine, with the same
    parameters and curve bit for bit as one that was not: the checkpoint holds parameters, optimiser state,
    generator state and curve. That is so where all chance comes from the generator; layers such as dropout, and
    estimators that are not given it, draw from torch's global one, which is not kept.

    Args:
        model: its parameters with ``requires_grad`` are trained, in place.
        loss: per-example loss in nats from a batch and the generator, shape ``(batch,)``.
        batch: the next batch, drawn with the generator.
        config: settings.
        evaluate: metrics for the curve, called at every ``eval_every``-th step.
        checkpoint: file to resume from if it exists, and to write to every ``checkpoint_every`` steps and at the end,
            so that the same call reads a finished run. It belongs to its settings, the number of steps included: to
            train on, start a new run from the trained model.
        device: where the generator lives; the model must be there already.
        graph: whether a step, ``batch`` and ``loss``, is work for :class:`efvae.devices.Repeated`: of fixed shape, with
            no look at a number. An accelerator is then told it once; on a CPU it changes nothing.
        progress: called after each entry of the curve with the number of steps done and the curve.

    Returns:
        The curve.

    Raises:
        TrainingError: the loss, a parameter or a metric became NaN or infinite; the checkpoint on disk is still the
            last sound one.
        efvae.checkpoint.CheckpointError: the checkpoint is damaged or of another configuration.
        ValueError: ``evaluate`` returns a ``step`` or ``loss``; a checkpoint that is never written, or is a folder; or
            a loss that depends, in the first step, on no trainable parameter of the model.
        OSError: the checkpoint cannot be written, in one line.

    Paper: sec-4-1
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = adam(parameters, config.learning_rate, config.betas, device)
    generator = torch.Generator(device).manual_seed(config.seed)
    fingerprint = config.fingerprint(model)
    start, curve = 0, Curve()
    checkpoint = _to_write(checkpoint, config)
    if checkpoint is not None and checkpoint.exists():
        start, curve = load_checkpoint(checkpoint, model, optimizer, generator, fingerprint)
    # Looking at the loss stalls an accelerator, so there NaN is looked for only where the curve is.
    on_cpu = torch.device(device).type == "cpu"
    done, value = start, torch.zeros(())

    def step() -> None:
        nonlocal value
        optimizer.zero_grad(set_to_none=True)
        mean = loss(batch(generator), generator).mean()
        if on_cpu:
            _refuse_loss(mean, done, config.rate(done - 1))
        _refuse_another_model(mean.requires_grad)
        mean.backward()
        _refuse_another_model(done > start + 1 or any(p.grad is not None for p in parameters))
        optimizer.step()
        value = mean.detach()  # of a recorded step: where each replay writes it

    repeated = Repeated(step, [generator], graph=graph and not on_cpu)
    while done < config.steps:
        rate, done = config.rate(done), done + 1
        _set_rate(optimizer, rate)
        repeated()
        enter = done % config.eval_every == 0 or done == config.steps
        write = checkpoint is not None and (done % config.checkpoint_every == 0 or done == config.steps)
        if enter or write:
            _refuse_loss(value, done, rate)
            _refuse(not_finite(dict(model.named_parameters())), done, rate)
        if enter:
            metrics = _entry(done, value, evaluate() if evaluate else {})
            _refuse(not_finite(metrics), done, rate)
            for name, number in metrics.items():
                curve.setdefault(name, []).append(number)
            if progress:
                progress(done, curve)
        if write and checkpoint is not None:
            save_checkpoint(checkpoint, model, optimizer, generator, fingerprint, done, curve)
    return curve


def _refuse_another_model(depends: bool) -> None:  # noqa: FBT001 - whether the loss depends on this one
    if not depends:
        raise ValueError(
            "fit: the loss depends on no trainable parameter of the model: does it use another model, such as the last "
            "one of a loop?"
        )


def _to_write(checkpoint: Path | str | None, config: TrainConfig) -> Path | None:
    if checkpoint is not None and not config.checkpoint_every:
        raise ValueError(
            f"fit: checkpoint {checkpoint} would never be written: set checkpoint_every in the TrainConfig"
        )
    if checkpoint is None:
        return None
    path = Path(checkpoint)
    if path.is_dir():
        raise ValueError(f"fit: checkpoint {path} is a folder: name a file in it")
    if not path.exists():
        try:
            places.probe(path.parent)  # before hours of training, not after them
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"cannot write the checkpoint {path}: {reason}; {places.mend(error)}") from error
    return path


def _entry(done: int, value: Tensor, more: dict[str, float]) -> dict[str, float]:
    more = {name: float(number) for name, number in more.items()}
    metrics = {"step": float(done), "loss": value.item()}
    if taken := metrics.keys() & more.keys():
        raise ValueError(f"fit: evaluate returns {', '.join(sorted(taken))}, which the curve has: rename it")
    return metrics | more


def not_finite(values: Mapping[str, Tensor | float]) -> str | None:
    """The name of the first of some parameters or metrics that is not finite; None if all are."""
    for name, value in values.items():
        finite = bool(value.isfinite().all()) if isinstance(value, Tensor) else math.isfinite(value)
        if not finite:
            return name
    return None


def _refuse(name: str | None, done: int, rate: float) -> None:
    if name is not None:
        raise TrainingError(f"{name} is not finite after step {done}: lower the learning rate ({rate:g})")


def _refuse_loss(value: Tensor, done: int, rate: float) -> None:
    if not math.isfinite(value.item()):
        mend = f"lower the learning rate ({rate:g})" if done > 1 else "look at the data and first weights"
        raise TrainingError(f"the loss is {value.item()} at step {done}: {mend}")


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
