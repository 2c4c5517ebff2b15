"""Images a second from a generator to the moments of FID's features: straight from tensors, and through PNG files.

The second way is that of pytorch-fid's command: files are written, its data set and loader read them, its network gets
them in batches of 50. Both ways use one network, with random weights, which cost the same; then none are needed. Beside
them the floor, the arithmetic of the network at the rate of the machine's best convolution, and convolutions in
bfloat16 with what they change in the distance of two samples. One process, CPU seconds, the ways interleaved.

``python -m benchmarks.image_features [--images 50] [--rounds 3] [--threads 1] [--record]``
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from efvae import dcgan, records
from efvae.experiments.image_truth import Truth
from efvae.metrics import inception
from efvae.metrics.frechet import Moments, distance, moments

STEM = "benchmark_image_features"
SIZE, LATENT, WIDTH, THEIR_BATCH = 64, 100, 64, 50

Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Cell:
    """What a record of this benchmark is of."""

    images: int
    rounds: int
    threads: int


def through_files(truth: Truth, n: int, network: nn.Module) -> Moments:
    """Samples as PNG files in a folder, and pytorch-fid's own reading of them."""
    from PIL import Image
    from pytorch_fid.fid_score import get_activations

    with tempfile.TemporaryDirectory() as name:
        files: list[Path] = []
        for x in samples(truth, n):
            pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            for picture in pixels:
                files.append(Path(name) / f"{len(files):06d}.png")
                Image.fromarray(picture).save(files[-1])
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            found = get_activations(files, network, THEIR_BATCH, inception.FEATURES, "cpu", num_workers=0)
    known = Moments.empty(inception.FEATURES)
    known.add(torch.from_numpy(found))
    return known


def samples(truth: Truth, n: int, seed: int = 0) -> Iterator[Tensor]:
    """Of a generator of the paper's size."""
    return truth.batches(n, torch.Generator().manual_seed(seed), THEIR_BATCH)


def package_network() -> nn.Module:
    """pytorch-fid's, with random weights."""
    inception.ensure_torchvision()
    import pytorch_fid.inception as package
    from torchvision.models import inception_v3

    def load(*_: object, **__: object) -> dict[str, Tensor]:
        return inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False).state_dict()

    torch.manual_seed(0)
    with mock.patch.object(package, "load_state_dict_from_url", load):
        network: nn.Module = package.InceptionV3([3])
    return network.eval().requires_grad_(requires_grad=False)


def bfloat16(features: Features) -> Features:
    """The same features from convolutions in bfloat16."""

    def compute(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return features(x).float()

    return compute


def operations(network: nn.Module) -> float:
    """Floating-point operations for an image: two for each product that is added up."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, SIZE, SIZE))
    return float(counter.get_total_flops())


def best_rate(rounds: int) -> float:
    """Operations a CPU second of a convolution of a convenient shape, float32, colour last."""
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    x = torch.randn(16, 256, 32, 32).to(memory_format=torch.channels_last)
    with torch.no_grad():
        layer(x)
        seconds = min(timed(lambda: layer(x)) for _ in range(3 * rounds))
    return 2 * 256 * 256 * 9 * 32 * 32 * len(x) / seconds


def timed(work: Callable[[], object]) -> float:
    """CPU seconds: other programs on the machine do not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def bench(n: int, rounds: int) -> dict[str, float]:
    """Images a CPU second of each way, and ratios."""
    decoder = dcgan.folded(dcgan.generator(LATENT, WIDTH, SIZE)).to(memory_format=torch.channels_last)
    truth = Truth(decoder.requires_grad_(requires_grad=False), LATENT, 0.05)
    theirs, ours = package_network(), inception.from_tensors(package_network())
    ways: dict[str, Callable[[], Moments]] = {
        "files": lambda: through_files(truth, n, theirs),
        "tensors": lambda: moments(samples(truth, n), ours),
        "bfloat16": lambda: moments(samples(truth, n), bfloat16(ours)),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, Moments] = {}
    for _ in range(rounds):
        for way, compute in ways.items():
            started = time.process_time()
            found[way] = compute()
            seconds[way].append(time.process_time() - started)
    rate = {way: n / statistics.median(values) for way, values in seconds.items()}
    floor = best_rate(rounds) / operations(theirs)
    other = moments(((x + 1) / 2 for x in samples(truth, n, 1)), ours)  # other pictures: brighter
    exact, short = distance(found["tensors"], other), distance(found["bfloat16"], other)
    files = distance(found["files"], other)
    return {
        **{f"images_a_second_{way}": value for way, value in rate.items()},
        "images_a_second_floor": floor,
        "ratio": rate["tensors"] / rate["files"],
        "ratio_bfloat16": rate["bfloat16"] / rate["files"],
        "ratio_floor": floor / rate["files"],
        "tensors_over_floor": floor / rate["tensors"],
        "distance_files_relative": abs(files - exact) / exact,
        "distance_bfloat16_relative": abs(short - exact) / exact,
    }


def main(arguments: list[str] | None = None) -> None:
    """Print images a second of each way and their ratios; with ``--record`` keep them under results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_features", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=THEIR_BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", action="store_true", help="keep the figures under results")
    options = parser.parse_args([] if arguments is None else arguments)
    try:
        package_network()
    except (ImportError, inception.WeightsError):
        print("image features: pytorch-fid is not installed (pip install 'efvae[fid]')")
        return
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    figures = bench(options.images, options.rounds)
    print(f"FID features, {SIZE} x {SIZE} pixels, {options.images} images, {options.threads} threads, CPU time:")
    print("  " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    if options.record:
        cell = Cell(options.images, options.rounds, options.threads)
        seconds = time.monotonic() - started
        record = records.make(STEM, cell, figures, {}, seconds=seconds, show=("images", "threads"))
        records.write(record, records.results_root())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
