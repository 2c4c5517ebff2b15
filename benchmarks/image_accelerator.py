"""What Table 1 must cost on an accelerator: the operations of its convolutions over assumed rates, beside what it took.

The floor is of arithmetic alone: steps in bfloat16, and the images of the distances at the end in float32. Passes over
the activations are not in it, which in networks of this size take longer than the products, nor looks along the
training. The rates are assumed, no record has them: below the peaks that the maker states of an H200, 989 and 67.
Measured are the seconds in the stored records, which have all of that; so images a second of training are at least
those printed.

``python -m benchmarks.image_accelerator [--bf16 790] [--float32 50]``
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.image_features import package_network
from efvae import dcgan, records
from efvae.experiments.image_config import STEM
from efvae.experiments.image_features import Classifier
from efvae.image_vae import outputs
from efvae.metrics.inception import WeightsError
from efvae.records import Record

#: The records that are looked at, and what they have to say that they were made on.
WIDE, DEVICE = {"data": "photographs", "size": 64, "width": 64, "encoder": "diagonal", "features": "classifier"}, "H200"
#: Samples that a distance is measured from: three of the model, one without noise, one of the truth with its noise.
SAMPLES = 5
#: Such samples in all of Table 1: of three rows, and two of the truth, with and without noise.
ALL_SAMPLES = 3 * SAMPLES + 2


def forward(network: nn.Module | Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Operations of one way through a network, for each of the rows of x."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x)
    return counter.get_total_flops() / len(x)


def networks(size: int, width: int, latent: int, encoder: str = "diagonal", classes: int = 34) -> dict[str, float]:
    """Operations of one way through generator, discriminator, encoder and the features, for one image."""
    z, x = torch.zeros(2, latent), torch.zeros(2, 3, size, size)
    return {
        "generator": forward(dcgan.generator(latent, width, size), z),
        "discriminator": forward(dcgan.discriminator(width, size), x),
        "encoder": forward(dcgan.encoder(outputs(latent, encoder), width, size), x),
        "features": forward(Classifier(classes, size).features, x),
    }


def step(stage: str, of: dict[str, float]) -> float:
    """Operations of a training step, for one image: each of the two gradients of a product takes what it takes."""
    generator, discriminator, encoder = (of[name] for name in ("generator", "discriminator", "encoder"))
    if stage == "gan":  # the discriminator on real and on made images; then through it to the generator
        return 3 * generator + (3 + 3 + 2) * discriminator
    if stage == "encoder":
        return generator + 3 * encoder
    return generator + 3 * (generator + encoder)


def steps(record: Record) -> int:
    """Of a record's stage."""
    stage = str(record.config["stage"])
    return int(record.config[f"{'joint' if stage.startswith('joint') else stage}_steps"])


def floor(record: Record, bf16: float, float32: float) -> tuple[float, float]:
    """Seconds of a stage's training and of its distances at rates in operations a second."""
    c = record.config
    of = networks(c["size"], c["width"], c["latent"], c["encoder"])
    training = steps(record) * c["batch_size"] * step(c["stage"], of) / bf16
    images = 0 if c["stage"] == "gan" else SAMPLES * c["eval_images"]
    return training, images * (of["generator"] + of["features"]) / float32


def fid(eval_images: int) -> tuple[float, float]:
    """Operations of FID's features for one image, and for all images of Table 1.

    Raises:
        ImportError, efvae.metrics.inception.WeightsError: pytorch-fid or torchvision is not installed.
    """
    of_one = forward(package_network(), torch.zeros(1, 3, 64, 64))
    return of_one, of_one * ALL_SAMPLES * eval_images


def main(arguments: list[str] | None = None, root: Path | None = None) -> None:
    """Print floor and measured time of each stage; root: the folder of results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_accelerator", description=__doc__.splitlines()[0])
    parser.add_argument("--bf16", type=float, default=790.0, help="products in bfloat16, 10^12 operations a second")
    parser.add_argument("--float32", type=float, default=50.0, help="in float32, likewise")
    options = parser.parse_args([] if arguments is None else arguments)
    print(
        f"floors are computed, not measured: at assumed {options.bf16:g} (bfloat16) and {options.float32:g} (float32) "
        "TFLOP/s; seconds are measured, images a second are those of the training steps over all seconds"
    )
    found = [r for r in records.load(STEM, root, **WIDE) if DEVICE in str(r.provenance.get("device"))]
    total = least = 0.0
    for record in found:
        training, distances = floor(record, 1e12 * options.bf16, 1e12 * options.float32)
        seconds, images = record.provenance["seconds"], steps(record) * record.config["batch_size"]
        total, least = total + seconds, least + training + distances
        print(
            f"{record.config['stage']}, seed {record.config['seed']}: {steps(record)} steps, {seconds:.0f} s, "
            f"{images / seconds:.0f} images a second; "
            f"at least {training:.1f} s in steps, {distances:.1f} s in distances: "
            f"{seconds / (training + distances):.0f} times that"
        )
    if found:
        print(f"all: {total:.0f} s, {total / least:.0f} times the floor")
        with contextlib.suppress(ImportError, WeightsError):
            images = max(record.config["eval_images"] for record in found)
            one, every = fid(images)
            print(
                f"with FID's features, not run: {one / 1e9:.1f} GFLOP an image, {ALL_SAMPLES} times {images} images: "
                f"at least {every / (1e12 * options.float32) / 60:.0f} min in float32"
            )
    else:
        print(f"not run on one {DEVICE}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
