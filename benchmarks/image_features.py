"""Images a second from a generator to the moments of a Fréchet distance: straight from tensors, and through PNG files.

The second way is how the command of pytorch-fid is fed: files are written, then read and decoded one by one. Both ways
end in the same network, in one process with one thread: the small classifier, and the Inception network of pytorch-fid
if that is installed (with random weights, which cost the same; then no weights are needed).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from efvae import dcgan
from efvae.experiments.image_features import Classifier
from efvae.experiments.image_truth import Truth
from efvae.metrics import inception
from efvae.metrics.frechet import moments

SIZE, LATENT, WIDTH, BATCH, ROUNDS = 64, 100, 64, 64, 3

Features = Callable[[Tensor], Tensor]


def _through_files(truth: Truth, n: int, features: Features) -> None:
    from PIL import Image

    with tempfile.TemporaryDirectory() as name:
        folder, done = Path(name), 0
        for x in truth.batches(n, torch.Generator().manual_seed(0), BATCH):
            pixels = ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            for picture in pixels:
                Image.fromarray(picture).save(folder / f"{done:06d}.png")
                done += 1
        files = sorted(folder.glob("*.png"))

        def read(path: Path) -> Tensor:
            with Image.open(path) as image:
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)

        batches = (torch.stack([read(path) for path in files[k : k + BATCH]]) for k in range(0, n, BATCH))
        moments((batch.float() / 127.5 - 1 for batch in batches), features)


def _inception() -> Features | None:
    """With random weights: for its speed alone."""
    try:
        inception.ensure_torchvision()
        import pytorch_fid.inception as package
        from torchvision.models import inception_v3
    except (ImportError, inception.WeightsError):
        return None

    def load(*_: object, **__: object) -> dict[str, Tensor]:
        return inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False).state_dict()

    with mock.patch.object(package, "load_state_dict_from_url", load):
        network = package.InceptionV3([3]).eval()
    return lambda x: network((x + 1) / 2)[0].flatten(1)


def main() -> None:
    """Print images a second for both ways and how many times the first is faster."""
    torch.set_num_threads(1)
    decoder = dcgan.folded(dcgan.generator(LATENT, WIDTH, SIZE)).to(memory_format=torch.channels_last)
    truth = Truth(decoder.requires_grad_(requires_grad=False), LATENT, 0.05)
    networks: dict[str, tuple[Features | None, int]] = {
        "classifier": (Classifier(34, SIZE).eval().features, 256), "Inception": (_inception(), 16)}  # fmt: skip
    for name, (features, n) in networks.items():
        if features is None:
            print(f"{name}: pytorch-fid is not installed (pip install 'efvae[fid]')")
            continue
        ways: dict[str, Callable[[Features, int], object]] = {
            "tensors": lambda f, n: moments(truth.batches(n, torch.Generator().manual_seed(0), BATCH), f),
            "PNG files": lambda f, n: _through_files(truth, n, f),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(ROUNDS):
            for way, compute in ways.items():
                started = time.process_time()  # other programs on the machine do not count
                compute(features, n)
                rates[way].append(n / (time.process_time() - started))
        median = {way: statistics.median(values) for way, values in rates.items()}
        told = ", ".join(f"{way} {rate:.0f}" for way, rate in median.items())
        ratio = median["tensors"] / median["PNG files"]
        print(f"{name}, {SIZE} x {SIZE} pixels, images a CPU second, 1 thread: {told}; {ratio:.1f} times")


if __name__ == "__main__":
    main()
