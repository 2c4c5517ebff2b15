"""The computed floor of Table 1's stages: its operations are those that a step makes."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import image_accelerator
from efvae import dcgan, records
from efvae.experiments import image_truth
from efvae.experiments.image_config import Config
from efvae.experiments.image_stages import empty_vae
from efvae.experiments.image_truth import Truth

CONFIG = Config(size=32, width=16, latent=10, batch_size=4, precision="float32")
OF = image_accelerator.networks(CONFIG.size, CONFIG.width, CONFIG.latent)


def counted(work) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / CONFIG.batch_size


def gan_step() -> float:
    model = torch.nn.ModuleDict(
        {
            "generator": dcgan.generator(CONFIG.latent, CONFIG.width, CONFIG.size),
            "discriminator": dcgan.discriminator(CONFIG.width, CONFIG.size),
        }
    )
    optimizer = torch.optim.Adam(model.parameters())
    pixels = torch.zeros(8, 3, CONFIG.size, CONFIG.size, dtype=torch.uint8)
    return counted(lambda: image_truth._step(CONFIG, model, optimizer, pixels, torch.Generator()))


def vae_step(stage) -> float:
    vae = empty_vae(dataclasses.replace(CONFIG, stage=stage)).train()
    truth, source = Truth(copy.deepcopy(vae.decoder), CONFIG.latent, CONFIG.sigma), torch.Generator()
    truth.decoder.requires_grad_(requires_grad=False)
    vae.decoder.requires_grad_(stage != "encoder")
    z = truth.latents(CONFIG.batch_size, source)
    if stage == "encoder":
        return counted(lambda: vae.posterior(truth.images(z, source)).log_prob(z).mean().backward())
    return counted(lambda: vae.elbo(truth.images(z, source), torch.randn_like(z), set_sigma=False).mean().backward())


@pytest.mark.parametrize("stage", ["gan", "encoder", "joint_fixed"])
def test_operations_of_a_step_are_those_that_it_makes(stage):
    made = gan_step() if stage == "gan" else vae_step(stage)
    # no gradient in what a first layer reads, which is a few percent
    assert made <= image_accelerator.step(stage, OF) < 1.15 * made


def test_operations_grow_with_the_square_of_the_width():
    wide = image_accelerator.networks(CONFIG.size, 4 * CONFIG.width, CONFIG.latent)
    for name in ("generator", "discriminator", "encoder"):
        assert 8 < wide[name] / OF[name] < 16
    assert wide["features"] == OF["features"]


def test_the_floor_stands_beside_what_was_measured(capsys, tmp_path):
    image_accelerator.main([])
    told = capsys.readouterr().out.splitlines()
    stored = records.load("sec4_2_images", **image_accelerator.WIDE)
    of_fid = [line for line in told if line.startswith("with FID's features")]
    assert len(told) == len(stored) + 2 + len(of_fid)
    assert {record.config["stage"] for record in stored} == {"gan", "encoder", "joint_fixed", "joint_learned"}
    assert told[len(stored) + 1].endswith(", 7 times the floor")  # as the page says
    assert "not measured: at assumed 790 (bfloat16) and 50 (float32) TFLOP/s" in told[0]
    (gan,) = (record for record in stored if record.config["stage"] == "gan")
    (line,) = (line for line in told if line.startswith("gan"))
    rate = gan.config["gan_steps"] * gan.config["batch_size"] / gan.provenance["seconds"]
    assert f" s, {rate:.0f} images a second; at least " in line
    image_accelerator.main(["--bf16", "7.9", "--float32", "0.5"])
    slower = capsys.readouterr().out.splitlines()
    assert float(slower[1].split("at least ")[1].split()[0]) == pytest.approx(
        100 * float(told[1].split("at least ")[1].split()[0]), rel=0.1
    )
    image_accelerator.main([], root=tmp_path)
    assert "not run" in capsys.readouterr().out


@pytest.mark.skipif(not importlib.util.find_spec("pytorch_fid"), reason="pytorch-fid is not installed")
def test_the_cost_of_fid_is_that_of_the_page(capsys):
    image_accelerator.main([])
    assert "11.4 GFLOP an image, 17 times 200000 images: at least 13 min in float32" in capsys.readouterr().out
