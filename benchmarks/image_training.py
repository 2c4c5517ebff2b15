"""Training of the image VAE of section 4.2: which arithmetic and memory layout are fast, and whether averaging pays.

``steps``: CPU seconds of a joint step in float32 and with convolutions in bfloat16, colour first and colour last, the
ways interleaved. ``averages``: a joint training on the photographs with exponential moving averages of its weights kept
beside; ELBO and Fréchet distance of the weights and of the averages at its end. The second starts from the truth and
the encoder of the committed records, in the folder ``--checkpoint`` of their training.

``python -m benchmarks.image_training [steps averages] [--rounds 5] [--threads 1] [--checkpoint DIR] [--record]``
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from efvae import records
from efvae.data.cache import DataError
from efvae.experiments.image_config import Config, fingerprint, load_images
from efvae.experiments.image_features import feature_network
from efvae.experiments.image_measures import Comparison, elbo_on_fresh_samples
from efvae.experiments.image_stages import empty_vae
from efvae.experiments.image_store import Store
from efvae.experiments.image_truth import BETAS, Truth, empty_generator, half_precision
from efvae.image_vae import ImageVAE
from efvae.train import TrainConfig

STEM = "benchmark_image_training"
#: The cells of the committed records.
RECORDED = Config(data="photographs", stage="encoder", size=64, width=16, batch_size=64, gan_steps=6000,
                  gan_rate=4e-4, encoder_steps=4000, eval_images=4096, joint_rate=1e-3)  # fmt: skip
STEPS, DECAYS, FINAL_RATE = 600, (0.99, 0.999), 0.02


@dataclass(frozen=True)
class Cell:
    """What a record of this benchmark is of."""

    part: str
    size: int
    width: int
    batch_size: int
    threads: int


class Joint:
    """A joint training, step by step."""

    def __init__(self, config: Config, vae: ImageVAE, truth: Truth, seed: int = 0) -> None:
        self.config, self.vae, self.truth = config, vae, truth
        self.optimizer = torch.optim.Adam(vae.parameters(), config.joint_rate, BETAS)
        self.source = torch.Generator().manual_seed(seed)

    def step(self) -> None:
        """As :func:`efvae.experiments.image_stages.train_joint` does it."""
        self.optimizer.zero_grad(set_to_none=True)
        with half_precision(self.config):
            z = self.truth.latents(self.config.batch_size, self.source)
            noise = torch.randn(z.shape, generator=self.source)
            loss = -self.vae.elbo(self.truth.images(z, self.source), noise).mean()
        loss.backward()
        self.optimizer.step()


def steps(options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of a step of each way, and how many times faster than float32 with colour first."""
    layouts = {"colour_first": torch.contiguous_format, "colour_last": torch.channels_last}
    ways: dict[str, Callable[[], None]] = {}
    for precision, (name, layout) in itertools.product(("float32", "bfloat16"), layouts.items()):
        config = Config(size=64, width=RECORDED.width, batch_size=RECORDED.batch_size, precision=precision)
        vae = empty_vae(config).to(memory_format=layout)
        decoder = empty_generator(config).to(memory_format=layout).requires_grad_(requires_grad=False)
        ways[f"{precision}_{name}"] = Joint(config, vae, Truth(decoder, config.latent, config.sigma)).step
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds + 1):
        for way, step in ways.items():
            started = time.process_time()  # other programs on the machine do not count
            for _ in range(3):
                step()
            seconds[way].append((time.process_time() - started) / 3)
    median = {way: statistics.median(values[1:]) for way, values in seconds.items()}  # the first round warms up
    first = median["float32_colour_first"]
    return {
        **{f"milliseconds_{way}": 1e3 * value for way, value in median.items()},
        **{f"ratio_{way}": first / value for way, value in median.items()},
    }


def averages(options: argparse.Namespace) -> dict[str, float]:
    """ELBO and Fréchet distance at the end of a joint training: of its weights, and of their moving averages."""
    truth, start, comparison = _started(options.checkpoint)
    found = {}
    for kind, final in (("cosine", FINAL_RATE), ("constant", None)):
        vae = copy.deepcopy(start).requires_grad_()
        joint, schedule = Joint(RECORDED, vae, truth), TrainConfig(STEPS, RECORDED.joint_rate)
        if final is not None:
            schedule = TrainConfig(STEPS, RECORDED.joint_rate, final * RECORDED.joint_rate)
        kept = {decay: AveragedModel(vae, multi_avg_fn=get_ema_multi_avg_fn(decay)) for decay in DECAYS}
        for step in range(STEPS):
            joint.optimizer.param_groups[0]["lr"] = schedule.rate(step)
            joint.step()
            for average in kept.values():
                average.update_parameters(vae)
        for name, model in [("weights", vae), *((f"average_{decay}", kept[decay].module) for decay in DECAYS)]:
            elbo = elbo_on_fresh_samples(model, truth, RECORDED.eval_elbo, 5)
            found[f"elbo_{kind}_{name}"] = elbo["elbo"]
            found[f"elbo_error_{kind}_{name}"] = elbo["elbo_error"]
            found[f"distance_{kind}_{name}"] = comparison.quick(model, RECORDED.eval_images)
    return found


def _started(folder: Path | None) -> tuple[Truth, ImageVAE, Comparison]:
    """Truth and encoder of the recorded cells."""
    photographs, store = load_images(RECORDED), Store(folder)
    generator, vae = empty_generator(RECORDED), empty_vae(RECORDED)
    for stage, model in (("gan", generator), ("encoder", vae)):
        if store.restore(stage, fingerprint(RECORDED, photographs.sha256, stage), model) is None:
            raise DataError(f"needs the stage {stage} of the recorded cells in --checkpoint: train it first")
    truth = Truth(generator.requires_grad_(requires_grad=False), RECORDED.latent, RECORDED.sigma)
    features, _ = feature_network(RECORDED, photographs, store)
    return truth, vae, Comparison.with_truth(truth, features, RECORDED.eval_images)


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {"steps": steps, "averages": averages}


def main(arguments: list[str] | None = None) -> None:
    """Print the figures of some parts; with ``--record`` keep them under results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_training", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; by default the first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, help="folder of the trained truth and encoder")
    parser.add_argument("--record", action="store_true", help="keep the figures under results")
    options = parser.parse_args([] if arguments is None else arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {min(unknown)!r}: expected some of {', '.join(PARTS)}")
    torch.set_num_threads(options.threads)
    for part in options.parts or list(PARTS)[:1]:
        started = time.monotonic()
        try:
            figures = PARTS[part](options)
        except DataError as error:
            print(f"{part}: {error}")
            continue
        print(f"{part}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()), flush=True)
        if options.record:
            cell = Cell(part, RECORDED.size, RECORDED.width, RECORDED.batch_size, options.threads)
            seconds = time.monotonic() - started
            record = records.make(STEM, cell, figures, {}, seconds=seconds, show=("part", "threads"))
            records.write(record, records.results_root())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
