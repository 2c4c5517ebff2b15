"""The loop learns, resumes to the bit, and refuses what it cannot use."""

from __future__ import annotations

import copy
import dataclasses
import math
import struct
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from efvae import exact
from efvae.checkpoint import CheckpointError, load_checkpoint, read_tensors, save_checkpoint, write_tensors
from efvae.estimators import Exact
from efvae.families import all_bits
from efvae.models import VAE
from efvae.objectives import elbo
from efvae.train import Curve, TrainConfig, TrainingError, fit
from tests.models import binary_vae, saturated_vae

CONFIG = TrainConfig(steps=60, learning_rate=0.02, final_learning_rate=0.001, seed=4, eval_every=7, checkpoint_every=10)
STATES = all_bits(4)


def batch(generator: torch.Generator) -> Tensor:
    return STATES[torch.randint(0, 7, (16,), generator=generator)]  # uniform over seven of the sixteen values


class KilledError(Exception):
    """Stands for kill -9: nothing of the loop runs after it."""


def train(vae: VAE, config: TrainConfig, checkpoint: Path | None = None, die_at: int | None = None) -> Curve:
    calls = 0

    def loss(x: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == die_at:
            raise KilledError
        return -elbo(vae, x, Exact()) + 0 * torch.rand((), generator=generator)

    def evaluate() -> dict[str, float]:
        return {"elbo": elbo(vae, STATES[:7], Exact()).mean().item()}

    return fit(vae, loss, batch, config, evaluate=evaluate, checkpoint=checkpoint)


@pytest.mark.parametrize("die_at", [1, 9, 10, 11, 36, 59])
def test_killed_and_resumed_equals_undisturbed(tmp_path: Path, die_at: int) -> None:
    straight, resumed = binary_vae(1), binary_vae(1)
    curve = train(straight, CONFIG)
    path = tmp_path / "deep" / "run.safetensors"
    with pytest.raises(KilledError):
        train(resumed, CONFIG, path, die_at)
    assert path.exists() == (die_at > 10)
    fresh = binary_vae(99)  # the process that resumes has other initial weights until the checkpoint is read
    start = resumed if die_at <= 10 else fresh
    if die_at <= 10:
        start = binary_vae(1)
    again = train(start, CONFIG, path)
    assert again == curve
    assert len(curve["step"]) == 9
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), start.parameters(), strict=True))
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no half-written files stay


def test_learns_what_can_be_learned() -> None:
    """A saturated encoder and a decoder that can fit: ELBO near the entropy bound, gap near zero."""
    vae = saturated_vae(3)
    bound = -torch.tensor(7.0).log().item()
    before = elbo(vae, STATES[:7], Exact()).mean().item()
    curve = train(vae, dataclasses.replace(CONFIG, steps=1500))
    assert curve["elbo"][-1] > before + 0.5
    assert curve["elbo"][-1] < bound
    assert exact.posterior_kl(vae, STATES[:7], exact.enumerate_states(vae.prior())).mean() < 0.02


def test_frozen_parameters_stay() -> None:
    vae = binary_vae(2)
    vae.decoder.requires_grad_(requires_grad=False)
    decoder, encoder = copy.deepcopy(vae.decoder), copy.deepcopy(vae.encoder)
    train(vae, CONFIG)
    assert all(torch.equal(a, b) for a, b in zip(decoder.parameters(), vae.decoder.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(encoder.parameters(), vae.encoder.parameters(), strict=True))


def test_learning_rate_follows_half_a_cosine() -> None:
    assert CONFIG.rate(0) == pytest.approx(0.02)
    assert CONFIG.rate(59) == pytest.approx(0.001)
    assert CONFIG.rate(29) > CONFIG.rate(30) > CONFIG.rate(31)
    assert CONFIG.rate(29) + CONFIG.rate(30) == pytest.approx(0.021)
    assert TrainConfig(steps=5).rate(4) == 1e-3


def test_the_seed_decides() -> None:
    curves = [train(binary_vae(1), dataclasses.replace(CONFIG, seed=s)) for s in (4, 4, 5)]
    assert curves[0] == curves[1] != curves[2]


def test_nan_stops_at_once_and_leaves_the_sound_checkpoint(tmp_path: Path) -> None:
    model, path, steps = nn.Linear(1, 1), tmp_path / "c.safetensors", 0

    def loss(x: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal steps
        steps += 1
        return model(x) * (torch.nan if steps == 25 else 1.0)

    with pytest.raises(TrainingError, match="loss is nan at step 25: lower the learning rate"):
        fit(model, loss, lambda g: torch.rand(3, 1, generator=g), CONFIG, checkpoint=path)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    fit(model, lambda x, g: model(x) ** 2, lambda g: torch.rand(3, 1, generator=g), CONFIG, checkpoint=path)


@pytest.mark.parametrize("culprit", ["weight", "elbo"])
def test_a_step_that_leaves_something_infinite_is_no_entry_of_the_curve(tmp_path: Path, culprit: str) -> None:
    """The loss is finite before the step; what was written before it is what a resumed run starts from."""
    model, path, steps = nn.Linear(1, 1), tmp_path / "c.safetensors", 0

    def loss(x: Tensor, generator: torch.Generator) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == 21 and culprit == "weight":
            model.weight.register_hook(lambda gradient: gradient * torch.inf)
        return model(x).square()

    def evaluate() -> dict[str, float]:
        return {"elbo": math.inf if steps == 21 and culprit == "elbo" else 1.0}

    with pytest.raises(TrainingError, match=rf"^{culprit} is not finite after step 21: lower the learning rate"):
        fit(model, loss, lambda g: torch.rand(3, 1, generator=g), CONFIG, evaluate=evaluate, checkpoint=path)
    fresh = nn.Linear(1, 1)
    curve = fit(fresh, lambda x, g: fresh(x) ** 2, lambda g: torch.rand(3, 1, generator=g), CONFIG,
                evaluate=lambda: {"elbo": 1.0}, checkpoint=path)  # fmt: skip
    assert all(map(math.isfinite, curve["loss"]))


def test_nan_before_the_first_step_is_not_blamed_on_the_rate() -> None:
    with pytest.raises(TrainingError, match="loss is nan at step 1: look at the data and first weights"):
        fit(nn.Linear(1, 1), lambda x, _: x[:, 0], lambda _: torch.full((3, 1), torch.nan), CONFIG)


@pytest.mark.parametrize("fused", [False, True])
def test_moments_come_back_in_the_memory_layout_of_their_parameter(tmp_path: Path, fused: bool) -> None:
    """Adam in one kernel goes through memory: on a CPU it does not even refuse moments of another layout."""
    torch.manual_seed(0)
    networks = [nn.Conv2d(3, 5, 4).to(memory_format=torch.channels_last) for _ in range(2)]
    optimizers = [torch.optim.Adam(network.parameters(), fused=fused) for network in networks]
    source, path = torch.Generator().manual_seed(0), tmp_path / "c.safetensors"
    x = torch.rand(2, 3, 9, 9, generator=source)

    def step(which: int) -> None:
        optimizers[which].zero_grad()
        networks[which](x).square().mean().backward()
        optimizers[which].step()

    step(0)
    save_checkpoint(path, networks[0], optimizers[0], source, "told", 1, {})
    load_checkpoint(path, networks[1], optimizers[1], source, "told")
    for parameter in networks[1].parameters():
        state = optimizers[1].state[parameter]
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == parameter.stride()
    for which in range(2):
        step(which)
    assert torch.equal(networks[0].weight, networks[1].weight)


def write(path: Path) -> bytes:
    train(binary_vae(1), CONFIG, path)
    return path.read_bytes()


def test_damaged_checkpoints_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    whole = write(path)
    for content in (b"", whole[: len(whole) // 2], whole[:4], b"\x80\x04}q\x00." + whole, b"\0" * len(whole)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"c\.safetensors is damaged") as caught:
            train(binary_vae(1), CONFIG, path)
        assert "\n" not in str(caught.value)


def test_a_checkpoint_that_was_changed_afterwards_is_named(tmp_path: Path) -> None:
    """In any one number, in its history, or by a tensor less; shapes and the rest still fit."""
    path = tmp_path / "c.safetensors"
    whole = write(path)
    (header,) = struct.unpack("<Q", whole[:8])
    changed = [
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in range(8 + header, len(whole), 97)
    ]
    changed.append(whole.replace(b'\\"step\\": 6', b'\\"step\\": 4'))
    with safetensors.safe_open(path, "pt") as file:
        about = file.metadata()
    for gone in ("generator", "optimizer.0.exp_avg"):
        tensors = safetensors.torch.load_file(path)
        del tensors[gone]
        changed.append(safetensors.torch.save(tensors, about))
    tensors = safetensors.torch.load_file(path)
    first, second = "optimizer.0.exp_avg", "optimizer.0.exp_avg_sq"
    tensors[first], tensors[second] = tensors[second], tensors[first]
    changed.append(safetensors.torch.save(tensors, about))
    for content in changed:
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"c\.safetensors is damaged \(its checksum is another\): delete it"):
            train(binary_vae(1), CONFIG, path)
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {k: about[k] for k in about if k != "sha256"})
    with pytest.raises(CheckpointError, match=r"c\.safetensors has no checksum, as those of an older version"):
        train(binary_vae(1), CONFIG, path)


def test_a_checkpoint_of_another_kind_of_device_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write(path)
    about, tensors = read_tensors(path)
    tensors["generator"] = tensors["generator"][:16].clone()  # what a CUDA generator keeps
    write_tensors(path, tensors, about)
    with pytest.raises(CheckpointError, match=r"c\.safetensors was written on another kind of device") as caught:
        train(binary_vae(1), CONFIG, path)
    assert "\n" not in str(caught.value)


def test_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write(path)
    for vae, config in (
        (binary_vae(1), dataclasses.replace(CONFIG, learning_rate=0.03)),
        (binary_vae(1, n=4, m=2), CONFIG),
    ):
        with pytest.raises(CheckpointError, match="another configuration"):
            train(vae, config, path)


@pytest.mark.parametrize(
    "field",
    [
        {"steps": 0},
        {"eval_every": 0},
        {"checkpoint_every": -1},
        {"learning_rate": 0.0},
        {"seed": -1},
        {"steps": 2.5},
        {"seed": "1"},
        {"learning_rate": "1"},
        {"learning_rate": float("inf")},
        {"final_learning_rate": -1.0},
        {"betas": (0.9, 1.0)},
    ],
)
def test_config_out_of_range_is_refused(field) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(field))} must"):
        TrainConfig(**({"steps": 5} | field))


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.99, 0.999), (0.9, 1.0)])
def test_betas_are_two_numbers(betas) -> None:
    with pytest.raises(ValueError, match="betas must be two numbers"):
        TrainConfig(steps=1, betas=betas)


def test_a_metric_does_not_take_the_place_of_the_loss() -> None:
    vae = binary_vae(0)
    with pytest.raises(ValueError, match="evaluate returns loss, which the curve has"):
        fit(
            vae,
            lambda x, generator: -elbo(vae, x, Exact()),
            batch,
            TrainConfig(steps=1),
            evaluate=lambda: {"loss": 0.0},
        )


def test_a_loss_of_another_model_is_refused() -> None:
    """As a lambda in a loop makes it, which sees the last model only."""
    mine, other = binary_vae(0), binary_vae(1)
    for trainable in (True, False):
        other.requires_grad_(trainable)
        with pytest.raises(ValueError, match="fit: the loss depends on no trainable parameter of the model"):
            fit(mine, lambda x, generator: -elbo(other, x, Exact()), batch, TrainConfig(steps=3))


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"is a folder: name a file in it"):
        train(binary_vae(1), CONFIG, tmp_path)
    with pytest.raises(
        OSError, match=r"^cannot write the checkpoint .*c\.st: Not a directory; name a folder"
    ) as caught:
        fit(binary_vae(1), lambda *_: 1 / 0, batch, CONFIG, checkpoint=tmp_path / "file" / "c.st")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_for_everyone(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    write(path)
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
