"""Images a second from a generator to the moments of FID's features: straight from tensors, and through PNG files.

The second way is that of pytorch-fid's command: files are written, its data set and loader read them, its network gets
them in batches of 50. Both ways use one network, with random weights, which cost the same; then none are needed. Beside
them the floor, the arithmetic of the network at the rate of the machine's best convolution, and convolutions in
bfloat16 with what they change in the distance of two samples. The ways are interleaved.

On a CPU: one process, CPU seconds. On a GPU: seconds of the wall until its work is done, thousands of images, the
files read by as many processes as pytorch-fid's command has, its convolutions in TF32 as torch does them unless it is
told otherwise; the tensors' in float32, and in TF32 as well.

``python -m benchmarks.image_features [--images 50] [--rounds 3] [--threads 1] [--device cpu] [--record]``
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
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

from efvae import dcgan, devices, records
from efvae.experiments.image_truth import Truth
from efvae.metrics import inception
from efvae.metrics.frechet import Moments, distance, moments

STEM = "benchmark_image_features"
SIZE, LATENT, WIDTH, THEIR_BATCH = 64, 100, 64, 50
#: Samples at a time on a GPU, as the experiments take them.
BATCH = 256
#: Processes that read files for a GPU: the default of pytorch-fid's command.
WORKERS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class Cell:
    """What a record of this benchmark is of."""

    images: int
    rounds: int
    threads: int
    device: str


def through_files(truth: Truth, n: int, network: nn.Module) -> Moments:
    """Samples as PNG files in a folder, and pytorch-fid's own reading of them."""
    from PIL import Image
    from pytorch_fid.fid_score import get_activations

    device = devices.current()
    workers = 0 if device.type == "cpu" else WORKERS
    with tempfile.TemporaryDirectory() as name:
        files: list[Path] = []
        for x in samples(truth, n):
            pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            for picture in pixels:
                files.append(Path(name) / f"{len(files):06d}.png")
                Image.fromarray(picture).save(files[-1])
        with contextlib.redirect_stderr(io.StringIO()), tf32():  # its progress bar
            found = get_activations(files, network, THEIR_BATCH, inception.FEATURES, device, num_workers=workers)
    known = Moments.empty(inception.FEATURES, device)
    known.add(torch.from_numpy(found).to(device))
    return known


def samples(truth: Truth, n: int, seed: int = 0) -> Iterator[Tensor]:
    """Of a generator of the paper's size."""
    device = devices.current()
    return truth.batches(n, torch.Generator(device).manual_seed(seed), THEIR_BATCH if device.type == "cpu" else BATCH)


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


@contextlib.contextmanager
def tf32() -> Iterator[None]:
    """Convolutions in TF32 where there is a GPU, which :func:`efvae.devices.on` does not let torch do."""
    before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def operations(network: nn.Module) -> float:
    """Floating-point operations for an image: two for each product that is added up."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, SIZE, SIZE))
    return float(counter.get_total_flops())


def best_rate(rounds: int) -> float:
    """Operations a second, see :func:`clock`, of a convolution of a convenient shape, float32, colour last."""
    device = devices.current()
    layer = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(device).to(memory_format=torch.channels_last)
    x = torch.randn(16 if device.type == "cpu" else BATCH, 256, 32, 32, device=device)
    x = x.to(memory_format=torch.channels_last)
    with torch.no_grad():
        layer(x)
        seconds = min(timed(lambda: layer(x)) for _ in range(3 * rounds))
    return 2 * 256 * 256 * 9 * 32 * 32 * len(x) / seconds


def clock() -> float:
    """Seconds so far: of the CPU, where other programs do not count; beside a GPU of the wall, all its work done."""
    device = devices.current()
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def timed(work: Callable[[], object]) -> float:
    """Seconds, see :func:`clock`."""
    started = clock()
    work()
    return clock() - started


def bench(n: int, rounds: int) -> dict[str, float]:
    """Images a second of each way, see :func:`clock`, and ratios."""
    device = devices.current()
    decoder = dcgan.folded(dcgan.generator(LATENT, WIDTH, SIZE)).to(device).to(memory_format=torch.channels_last)
    truth = Truth(decoder.requires_grad_(requires_grad=False), LATENT, 0.05)
    theirs = package_network()
    work = operations(theirs)
    theirs = theirs.to(device)
    ours = inception.from_tensors(theirs)
    precisions = [precision for precision in inception.PRECISIONS[1:] if precision != "tf32" or device.type != "cpu"]
    ways: dict[str, Callable[[], Moments]] = {
        "files": lambda: through_files(truth, n, theirs),
        "tensors": lambda: moments(samples(truth, n), ours),
    }
    for precision in precisions:
        compute = inception.from_tensors(theirs, precision)
        ways[precision] = lambda compute=compute: moments(samples(truth, n), compute)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    found: dict[str, Moments] = {}
    for _ in range(rounds):
        for way, compute in ways.items():
            started = clock()
            found[way] = compute()
            seconds[way].append(clock() - started)
    rate = {way: n / statistics.median(values) for way, values in seconds.items()}
    rate["floor"] = best_rate(rounds) / work
    other = moments(((x + 1) / 2 for x in samples(truth, n, 1)), ours)  # other pictures: brighter
    apart = {way: distance(known, other) for way, known in found.items()}
    exact = apart.pop("tensors")
    return {
        **{f"images_a_second_{way}": value for way, value in rate.items()},
        "ratio": rate["tensors"] / rate["files"],
        **{f"ratio_{way}": value / rate["files"] for way, value in rate.items() if way not in ("files", "tensors")},
        "tensors_over_floor": rate["floor"] / rate["tensors"],
        **{f"distance_{way}_relative": abs(value - exact) / exact for way, value in apart.items()},
    }


def main(arguments: list[str] | None = None) -> None:
    """Print images a second of each way and their ratios; with ``--record`` keep them under results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_features", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=THEIR_BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, cuda:1, ... or auto")
    parser.add_argument("--record", action="store_true", help="keep the figures under results")
    options = parser.parse_args([] if arguments is None else arguments)
    try:
        device = devices.find(options.device)
    except devices.DeviceError as error:
        parser.error(str(error))
    try:
        package_network()
    except (ImportError, inception.WeightsError):
        print("image features: pytorch-fid is not installed (pip install 'efvae[fid]')")
        return
    torch.set_num_threads(options.threads)
    started = time.monotonic()
    with devices.on(options.device):
        figures = bench(options.images, options.rounds)
    where = "CPU time" if device.type == "cpu" else f"time of the wall with {device}"
    print(f"FID features, {SIZE} x {SIZE} pixels, {options.images} images, {options.threads} threads, {where}:")
    print("  " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))
    if options.record:
        cell = Cell(options.images, options.rounds, options.threads, device.type)
        seconds = time.monotonic() - started
        record = records.make(STEM, cell, figures, {}, seconds=seconds, device=str(device), show=("images", "threads"))
        records.write(record, records.results_root())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
