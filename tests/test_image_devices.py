"""Section 4.2 on a device: the figures of the CPU from tensors that never mix, and steps that do not wait for it.

Labels: sec-4-2, own-images.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from efvae import dcgan, devices, records
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
    judges = [next((tmp_path / name).glob("features-*.safetensors")) for name in ("on the CPU", "checkpoints")]
    assert judges[0].read_bytes() == judges[1].read_bytes()  # one judge, wherever the models are trained
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
