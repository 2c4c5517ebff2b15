"""Section 4.2 on a device: the figures of the CPU from tensors that never mix, and steps that do not wait for it.

Labels: sec-4-2, own-images.
"""

from __future__ import annotations

import dataclasses

import pytest
import safetensors.torch
import torch

from efvae import dcgan, devices, records
from efvae.data.synthetic_images import ellipse_images
from efvae.experiments import image_truth, images
from efvae.experiments.image_config import Config
from efvae.experiments.image_stages import empty_vae, train_encoder, train_joint
from efvae.experiments.image_store import placed
from efvae.experiments.image_truth import Truth, empty_generator
from tests.pretend import pretended_gpu
from tests.test_devices import needs_gpu

TINY = Config(size=16, latent=4, width=8, batch_size=8, feature_steps=2, gan_steps=3, encoder_steps=3, joint_steps=3,
              eval_images=64, eval_elbo=64, precision="float32")  # fmt: skip


@pytest.fixture(autouse=True)
def _few_images(monkeypatch):
    monkeypatch.setattr("efvae.experiments.image_config.SYNTHETIC_IMAGES", 256)
    monkeypatch.setattr(image_truth, "LEAST_VARIETY", 0.0)


def test_the_whole_pipeline_runs_on_a_device(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, encoder="full")
    wanted = images.solve(config, tmp_path / "on the CPU")
    with pretended_gpu(monkeypatch):
        monkeypatch.setattr(devices, "find", torch.device)
        found = images.solve(config, tmp_path / "checkpoints", tmp_path / "results", device="gpu")
        assert {p.device.type for vae in found.vaes.values() for p in vae.parameters()} == {"cpu"}
    assert devices.current().type == "cpu"
    judges = [safetensors.torch.load_file(next((tmp_path / name).glob("features-*.safetensors")))
              for name in ("on the CPU", "checkpoints")]  # fmt: skip
    assert judges[0].keys() == judges[1].keys()
    assert all(torch.equal(judges[0][name], judges[1][name]) for name in judges[0])  # wherever the models are trained
    for stage, record in wanted.records.items():
        mine = found.records[stage]
        assert mine.provenance["device"] == "gpu"
        assert mine.cell == record.cell
        for name, value in record.metrics.items():
            assert mine.metrics[name] == (None if value is None else pytest.approx(value, rel=1e-3, abs=1e-3)), name


class NoComparison:
    def quick(self, vae, n):
        return 0.0


def looks_of(config, monkeypatch) -> list[int]:
    """Looks at the device in the steps of the GAN, of the encoder's and of the joint training."""
    with pretended_gpu(monkeypatch) as looks, devices.on("gpu"):
        truth = Truth(empty_generator(config).requires_grad_(requires_grad=False), config.latent, config.sigma)
        start = empty_vae(config)
        networks = {"generator": dcgan.generator(4, 8, 16), "discriminator": dcgan.discriminator(8, 16)}
        model = placed(torch.nn.ModuleDict(networks))
        optimizer, source = torch.optim.Adam(model.parameters(), lr=1e-4), torch.Generator("gpu").manual_seed(0)
        pixels = torch.zeros(20, 3, 16, 16, dtype=torch.uint8).to("gpu")

        def gan_steps():
            for _ in range(config.gan_steps):
                image_truth._step(config, model, optimizer, pixels, source)

        count = []
        for stage in (
            gan_steps,
            lambda: train_encoder(config, truth, None),
            lambda: train_joint(config, truth, start, NoComparison(), None),
        ):
            del looks[:]
            stage()
            count.append(len(looks))
        return count


def test_the_steps_do_not_wait_for_the_device(monkeypatch):
    """Twelve steps more of a stage, and not one look at the device more."""
    monkeypatch.setattr("efvae.experiments.image_stages.LOOKS", 1)
    monkeypatch.setattr(devices, "find", lambda name: torch.device("gpu"))
    few = looks_of(TINY, monkeypatch)
    assert few[0] == 0
    many = dataclasses.replace(TINY, gan_steps=15, encoder_steps=15, joint_steps=15)
    assert looks_of(many, monkeypatch) == few


class KilledError(Exception):
    """Stands for kill -9."""


class DyingComparison:
    """Kills the process at a look."""

    def __init__(self, dies_at: int) -> None:
        self.left = dies_at

    def quick(self, vae, n):
        self.left -= 1
        if not self.left:
            raise KilledError
        return 0.0


STAGES = ("gan", "encoder", "encoder_elbo", "decoder_pairs", "joint_fixed", "joint_learned")
#: Steps enough that most are replays, and four looks.
SHORT = dataclasses.replace(TINY, gan_steps=12, encoder_steps=12, joint_steps=12)


def trained(stage, kind, device, state=None, dies_at=0, precision="float32"):
    """What a stage trains, before and after, and the numbers of its curve; it is killed at a look, or not."""
    config = dataclasses.replace(SHORT, stage=stage, encoder=kind, precision=precision)
    judge = DyingComparison(dies_at)

    def features(x):
        judge.quick(None, 0)
        return x.mean((2, 3))

    with devices.on(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        truth = Truth(placed(dcgan.folded(dcgan.generator(4, 8, 16))).requires_grad_(requires_grad=False), 4, 0.05)
        start = empty_vae(config)
        for parameter in start.parameters():
            parameter.data += 0.01 * torch.randn(parameter.shape).to(devices.current())
        if stage == "gan":
            before = empty_generator(config).state_dict()
            after, curve = image_truth.train_gan(config, ellipse_images(256, 16), features, state)
        elif stage == "encoder":
            before = empty_vae(config).state_dict()
            after, curve = train_encoder(config, truth, state)
        else:
            before = {name: value.clone() for name, value in start.state_dict().items()}
            after, curve = train_joint(config, truth, start, judge, state)
        flat = [torch.cat([v.detach().cpu().double().flatten() for v in part.values()])
                for part in (before, after.state_dict())]  # fmt: skip
    return *flat, torch.tensor([curve[name] for name in sorted(curve)]).double()


@pytest.fixture
def _four_looks(monkeypatch):
    for module in ("image_stages", "image_truth"):
        monkeypatch.setattr(f"efvae.experiments.{module}.LOOKS", 4)


@pytest.mark.usefixtures("_four_looks")
@pytest.mark.parametrize(
    ("stage", "kind"), [*((stage, "diagonal") for stage in STAGES), ("encoder", "full"), ("joint_learned", "full")]
)
def test_recorded_steps_train_as_steps_do(stage, kind, monkeypatch):
    """Bit for bit: nothing of the host's, such as the learning rate, is frozen in a recorded step."""
    monkeypatch.setattr(devices, "find", lambda name: torch.device("gpu"))
    found = []
    for graphs in ("0", "1"):
        monkeypatch.setenv("EFVAE_GRAPHS", graphs)
        with pretended_gpu(monkeypatch) as looks:
            found.append(trained(stage, kind, "gpu"))
            assert len(looks.graphs) == int(graphs)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert not torch.equal(found[0][0], found[0][1])


@pytest.mark.usefixtures("_four_looks")
@pytest.mark.parametrize("stage", ["gan", "joint_learned"])
def test_a_stage_that_was_killed_records_its_step_anew(stage, monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "find", lambda name: torch.device("gpu"))
    with pretended_gpu(monkeypatch) as looks:
        straight = trained(stage, "diagonal", "gpu")
        with pytest.raises(KilledError):
            trained(stage, "diagonal", "gpu", tmp_path / "state", 4)
        resumed = trained(stage, "diagonal", "gpu", tmp_path / "state")
        assert len(looks.graphs) == 3
    assert torch.equal(straight[1], resumed[1])
    assert torch.equal(straight[2][:, 1:], resumed[2][:, 1:])


def test_a_device_that_is_not_there_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = ["data=synthetic", "--results", str(tmp_path), "--device", "cuda"]
    assert records.main(images.Config, images.run, words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: device cuda is not there")


@needs_gpu
def test_on_cuda_the_pipeline_runs_in_bfloat16(tmp_path):
    config = dataclasses.replace(TINY, precision="bfloat16")
    found = images.solve(config, tmp_path / "checkpoints", tmp_path / "results", device="cuda")
    assert {record.provenance["device"] for record in found.records.values()} == {torch.cuda.get_device_name()}
    again = images.solve(config, tmp_path / "checkpoints", device="cuda")
    for stage, record in found.records.items():
        assert again.records[stage].metrics["elbo" if stage != "gan" else "variety"] == pytest.approx(
            record.metrics["elbo" if stage != "gan" else "variety"], rel=1e-3
        )


def apart(one, other):
    """How far two trainings ended from each other, as a share of the way that they went."""
    return float((one[1] - other[1]).abs().sum() / (one[1] - one[0]).abs().sum())


@needs_gpu
@pytest.mark.usefixtures("_four_looks")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("stage", "kind"),
    [("gan", "diagonal"), ("encoder", "full"), ("joint_fixed", "diagonal"), ("joint_learned", "full")],
)
def test_on_cuda_recorded_steps_train_as_steps_do(stage, kind, precision, monkeypatch, tmp_path):
    """And a training that was killed goes on; convolutions that add in the same order each time."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setenv("EFVAE_GRAPHS", "0")
    eager = trained(stage, kind, "cuda", precision=precision)
    monkeypatch.setenv("EFVAE_GRAPHS", "1")
    recorded = trained(stage, kind, "cuda", precision=precision)
    assert apart(eager, recorded) < 0.02
    if stage != "encoder":  # it asks nobody who could kill it
        with pytest.raises(KilledError):
            trained(stage, kind, "cuda", tmp_path / "state", 4, precision)
        assert apart(recorded, trained(stage, kind, "cuda", tmp_path / "state", 0, precision)) < 0.02
