"""Features for the Fréchet distance: a small classifier trained on the classes of the images, or Inception (FID).

A distance in the classifier's features is called "Fréchet distance in fruit-classifier features" and is no FID: it
compares models of this project with one another and with nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from efvae import devices
from efvae.data.cache import DataError
from efvae.data.images import Images, scaled
from efvae.devices import current as device
from efvae.experiments.image_config import Config, fingerprint
from efvae.experiments.image_store import Store, images_in_batches, measuring, placed
from efvae.experiments.image_truth import Truth
from efvae.metrics import inception
from efvae.train import TrainConfig, fit

__all__ = ["Classifier", "classified", "feature_network"]

#: The most pixel noise that the classifier meets in training: that of p* must not be news to it.
NOISE = 0.1
#: Number of features.
FEATURES = 64


class Classifier(nn.Module):
    """A small convolutional classifier; its features are the averaged activations before the output layer.

    Args:
        classes: number of classes.
        size: pixels a side.

    Own: own-frechet
    """

    def __init__(self, classes: int, size: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, after = 3, 16
        for _ in range(size.bit_length() - 3):  # down to 4 × 4
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before, after = after, min(2 * after, FEATURES)
        layers += [nn.Conv2d(before, FEATURES, 3, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(FEATURES, classes)

    def features(self, x: Tensor) -> Tensor:
        """Of images in [−1, 1], shape ``(b, 3, size, size)``: shape ``(b, 64)``."""
        found: Tensor = self.body(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the classes."""
        logits: Tensor = self.head(self.features(x))
        return logits


def feature_network(
    config: Config, images: Images, store: Store
) -> tuple[Callable[[Tensor], Tensor], Classifier | None]:
    """The map from images to features, and the classifier if it is one.

    Args:
        config: says which.
        images: to train the classifier on.
        store: where it is kept.

    Raises:
        DataError: the images have no classes, or the Inception weights are not there or wrong.

    Own: own-frechet
    """
    if config.features == "inception":
        return inception.features(device(), precision="tf32"), None  # on a GPU as pytorch-fid's command
    if len(images.classes) < 2:
        raise DataError(
            "these images have no classes (subfolders) to train a feature network on: give features=inception"
        )
    # it depends on the images alone: models of any width are measured by the same one
    alone = Config(data=config.data, size=config.size, feature_steps=config.feature_steps)
    mark = fingerprint(alone, images.sha256, "gan", "features")
    # a distance depends neither on the model that it judges nor on the device that this was trained on
    with devices.on("cpu"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = placed(Classifier(len(images.classes), config.size))
        if store.restore("features", mark, network) is None:
            with store.alone("features", mark):
                if store.restore("features", mark, network) is None:
                    _train(network, images, config.feature_steps)
                    store.keep("features", mark, network)
    network = placed(network.eval().requires_grad_(requires_grad=False))
    return network.features, network


def _train(network: Classifier, images: Images, steps: int) -> None:
    pixels, labels = images.train, images.train_label

    def batch(generator: torch.Generator) -> Tensor:
        return torch.randint(len(pixels), (128,), generator=generator)

    def loss(chosen: Tensor, generator: torch.Generator) -> Tensor:
        x = scaled(pixels[chosen])
        level = NOISE * torch.rand(len(x), 1, 1, 1, generator=generator)
        noisy = (x + level * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
        return nnf.cross_entropy(network(noisy), labels[chosen], reduction="none")

    fit(network, loss, batch, TrainConfig(steps, 2e-3, 2e-5, eval_every=steps))


def classified(network: Classifier, images: Images, truth: Truth, n: int = 4096) -> dict[str, float]:
    """How well the classifier does on held-out images, and how many classes the truth's samples are classified as.

    ::

        classes_covered   classes that at least a tenth of their even share of samples falls into

    Args:
        network: trained.
        images: their part ``test``.
        truth: p*.
        n: number of samples.

    Own: own-frechet
    """
    with torch.no_grad():
        found = torch.cat([network(x).argmax(1) for x in images_in_batches(images.test)])
        drawn = torch.cat([network(x.clamp(-1, 1)).argmax(1) for x in truth.batches(n, measuring(8))])
    counts = drawn.bincount(minlength=len(images.classes))
    return {
        "classifier_accuracy": float((found.cpu() == images.test_label).double().mean()),
        "classes_covered": float((counts >= 0.1 * n / len(images.classes)).sum()),
    }
