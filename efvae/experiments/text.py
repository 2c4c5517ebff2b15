"""Section 4.3: semantic hashing of documents, the cells of Table 2.

Run one cell with ``python -m efvae.experiments.text bits=8 encoder=e1 d_hidden=0``.
"""

from __future__ import annotations

import functools
import math
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from efvae import devices, records
from efvae.data import newsgroups
from efvae.data.cache import DataError
from efvae.data.synthetic import curved_law, harmonium_law, synthetic_text
from efvae.estimators import ARM, DisARM, Estimator, Exact
from efvae.records import Record
from efvae.text import compiled
from efvae.text.batches import Documents
from efvae.text.dense import DenseDocuments
from efvae.text.evaluate import evaluate
from efvae.text.model import ACTIVATIONS, ENCODERS, LISTED_BITS, WIDTH, TextVAE, exact_bits, table_cost
from efvae.text.retrieval import retrieval_metrics
from efvae.text.selection import hold_out, lowest
from efvae.text.training import Corpora, Phase, Run, train_together
from efvae.train import Curve, TrainingError
from efvae.values import check_fields
from efvae.word_counts import WordCounts, base_measure_floor

__all__ = [
    "CORPORA",
    "ESTIMATORS",
    "STEM",
    "Config",
    "Trained",
    "begin",
    "check",
    "check_hidden_units",
    "corpus",
    "data_sha256",
    "needed",
    "run",
    "run_together",
    "solve",
    "together",
]

STEM = "sec4_3_text"
CORPORA = ("20news", "harmonium", "curved")
ESTIMATORS: dict[str, Callable[[int], Estimator]] = {"arm": ARM, "disarm": DisARM, "exact": lambda _: Exact()}
FIRST_BIASES = ("random", "frequencies")
FIRST_WEIGHTS = ("torch", "he")
PRECISIONS = ("float32", "bfloat16")

#: More bits than any hashing asks for; a word table has as many columns, and distances are fits to 4096 codes.
MOST_BITS = 2048
#: As many words as 20 Newsgroups has: a made corpus has a probability for each with every one of its codes.
MOST_WORDS = 61188
#: The nearest training documents that retrieval looks at.
RETRIEVED = 100
#: Fields that name a record's file.
SHOW = ("bits", "d_hidden", "encoder", "estimator", "seed")
#: Epochs between two checkpoints: an accelerator does them in seconds, and those of 36 cells are gigabytes.
CHECKPOINTS = {"cpu": 25, "cuda": 250}
#: Entries of a stored curve at most; a training run has one for each epoch.
CURVE_POINTS = 250


@dataclass(frozen=True)
class Config:
    """One cell of Table 2.

    Args:
        corpus: ``20news``; ``harmonium`` or ``curved``: made on the spot, see :mod:`efvae.data.synthetic`.
        bits: length m of the codes.
        encoder: ``e1``, linear on counts; ``e2``, two hidden layers on frequencies; ``e3``, linear on frequencies.
        d_hidden: hidden layers of the decoder.
        estimator: ``arm``, as in the paper; ``disarm``; ``exact``, all codes enumerated, up to 8 bits,
            with a linear decoder up to 20.
        seed: of first weights, order of the documents and codes drawn.
        epochs: with one pair of codes for each document.
        epochs_many: after them, with ``samples_many`` pairs. A checkpoint of the first part serves for both, given the
            same ``samples_many``.
        samples_many: pairs of codes in the second part.
        batch_size: documents in a step.
        learning_rate: of Adam.
        clip: greatest norm of a step's gradient, a longer one is shortened to it; 0, as in the paper: none.
        activation: of hidden layers: ``relu``, as in the paper, or ``leaky_relu``, with a slope of 0.01 below zero.
        first_weights: of all layers before training: ``torch``, as its linear layers are drawn; or ``he``, see
            :meth:`efvae.text.model.TextVAE.begin_by_he`. The paper does not say.
        first_bias: of the decoder's last layer before training: ``random``, as its first weights are; or
            ``frequencies``, the log-frequencies of the words.
        width: units of a hidden layer.
        vocabulary: number of words K.
        held_out: training documents that are not trained on, but select the epoch; 0: the test set selects it, as in
            the paper.
        precision: of products with all words in training, ``bfloat16`` or ``float32``; evaluation and tables of all
            codes are in float32. A CPU without units for bfloat16 takes float32 for it, see
            :func:`efvae.devices.arithmetic`.

    Raises:
        ValueError: a value out of its range.

    Paper: sec-4-3, tab-2, app-c2
    """

    corpus: str = "20news"
    bits: int = 8
    encoder: str = "e1"
    d_hidden: int = 0
    estimator: str = "arm"
    seed: int = 0
    epochs: int = 1000
    epochs_many: int = 500
    samples_many: int = 10
    batch_size: int = 256
    learning_rate: float = 1e-3
    clip: float = 0.0
    activation: str = "relu"
    first_weights: str = "torch"
    first_bias: str = "random"
    width: int = WIDTH
    vocabulary: int = 10000
    held_out: int = 0
    precision: str = "bfloat16"

    def __post_init__(self) -> None:
        least = {"bits": 1, "seed": 0, "epochs": 1, "epochs_many": 0, "samples_many": 1, "batch_size": 1, "width": 1}
        check_fields(
            self,
            choices={
                "corpus": CORPORA,
                "encoder": ENCODERS,
                "estimator": ESTIMATORS,
                "precision": PRECISIONS,
                "activation": tuple(ACTIVATIONS),
                "first_weights": FIRST_WEIGHTS,
                "first_bias": FIRST_BIASES,
            },
            least=least | {"vocabulary": 2, "held_out": 0},
            positive=("learning_rate",),
        )
        if not 0 <= self.clip < 1e36:
            raise ValueError(f"clip must be a number in [0, 1e36), 0 for no clipping; got {self.clip}")
        if self.corpus != "20news" and self.vocabulary > MOST_WORDS:
            raise ValueError(
                f"vocabulary must be at most {MOST_WORDS} with corpus={self.corpus}; got {self.vocabulary}"
            )
        if self.bits > MOST_BITS:
            raise ValueError(f"bits must be at most {MOST_BITS}; got {self.bits}")
        if self.d_hidden not in (0, 1, 2):
            raise ValueError(f"d_hidden must be 0, 1 or 2 hidden layers; got {self.d_hidden}")
        most = exact_bits(self.d_hidden)
        if self.estimator == "exact" and self.bits > most:
            raise ValueError(
                f"estimator=exact enumerates all codes: bits must be at most {most} with d_hidden={self.d_hidden}; "
                f"got {self.bits}"
            )

    @property
    def hidden_units(self) -> bool:
        """Whether encoder or decoder has any."""
        return self.encoder == "e2" or self.d_hidden > 0


def needed(config: Config) -> Config:
    """The config that a record is kept under: without hidden units their number and kind are set back to the default.

    Args:
        config: of any cell.

    Own: own-text-training
    """
    default = Config()
    if config.hidden_units:
        return config
    return replace(config, width=default.width, activation=default.activation)


def check_hidden_units(cell: Config) -> None:
    """Refuse a cell without hidden units, for experiments on them.

    Raises:
        ValueError: it has none, in encoder or decoder.

    Own: own-text-training
    """
    if not cell.hidden_units:
        raise ValueError(
            f"encoder={cell.encoder} with d_hidden=0 has no hidden units: take encoder=e2, or d_hidden=1 or 2"
        )


@dataclass(frozen=True)
class Trained:
    """A record together with the models it speaks of.

    Args:
        record: config, metrics, curve and provenance.
        best: the model at the epoch that was selected.
        last: the model at the end.
        train, test: the documents; like the models they are on the CPU.
        vocabulary: the words, or their numbers where they have no names.
        names: of the labels.

    Own: own-text-training
    """

    record: Record
    best: TextVAE
    last: TextVAE
    train: WordCounts
    test: WordCounts
    vocabulary: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Corpus:
    train: WordCounts
    test: WordCounts
    vocabulary: tuple[str, ...]
    names: tuple[str, ...]


def corpus(config: Config) -> _Corpus:
    """Both splits of a corpus, with the names of its words and labels.

    Raises:
        efvae.data.cache.DataError: files that are missing or wrong, a vocabulary larger than the data's, or one so
            small that a document keeps no word.

    Paper: sec-4-3
    """
    if config.corpus == "20news":
        news = newsgroups.load_newsgroups(config.vocabulary)
        for name, documents in (("training", news.train), ("test", news.test)):
            empty = documents.empty()
            if len(empty):
                raise DataError(
                    f"vocabulary={config.vocabulary}: {name} document {int(empty[0]) + 1} has none of these words "
                    f"({len(empty)} such), and nothing could be learned from it: keep more words"
                )
        return _Corpus(news.train, news.test, news.vocabulary, news.groups)
    law = {"harmonium": harmonium_law, "curved": curved_law}[config.corpus](config.vocabulary)
    text = synthetic_text(law)
    codes = tuple(str(code) for code in range(law.log_words.shape[0]))
    return _Corpus(text.train, text.test, tuple(f"w{k}" for k in range(config.vocabulary)), codes)


def check(config: Config) -> None:
    """Refuse a cell that its corpus does not suffice for.

    Raises:
        efvae.data.cache.DataError: see :func:`corpus`.
        ValueError: held-out documents that leave too few to train on.

    Own: own-text-training
    """
    _check(config.corpus, config.vocabulary, config.held_out)


@functools.cache
def _check(name: str, vocabulary: int, held_out: int) -> None:
    _split(corpus(Config(corpus=name, vocabulary=vocabulary)), held_out)


def _split(text: _Corpus, held_out: int) -> tuple[WordCounts, WordCounts | None]:
    kept, aside = hold_out(text.train, held_out)
    if kept.n_documents < RETRIEVED:  # told before they are trained on
        raise ValueError(
            f"held_out={held_out} leaves {kept.n_documents} of {text.train.n_documents} training documents: retrieval "
            f"looks for the {RETRIEVED} nearest, so hold out at most {text.train.n_documents - RETRIEVED}"
        )
    return kept, aside


def together(config: Config) -> Hashable:
    """What cells must agree in to be trained in one process over one pass of the documents.

    Own: own-text-training
    """
    fields = ("corpus", "vocabulary", "held_out", "seed", "batch_size", "precision")
    plan = ("estimator", "epochs", "epochs_many", "samples_many")
    return tuple(getattr(config, name) for name in (*fields, *plan))


def run(
    config: Config,
    *,
    results: Path | None = None,
    refresh: bool = False,
    checkpoint: Path | None = None,
    device: str = "cpu",
) -> Record:
    """The record of one cell, computed unless it is there already.

    Args:
        config: the cell.
        results: folder of records to look in and to write to; None computes and stores nothing.
        refresh: compute although the record exists.
        checkpoint: folder for checkpoints; a killed run continues from there, on the same kind of device.
        device: where to compute, see :func:`efvae.devices.find`. It is noted in the record and no part of its name: the
            same cell on another device is the same experiment with other random numbers.

    Raises:
        efvae.devices.DeviceError: there is no such device.
        efvae.train.TrainingError: the loss became NaN or infinite.
        efvae.checkpoint.CheckpointError: a checkpoint is damaged or of another configuration.
        efvae.data.cache.DataError: the corpus is missing or altered.

    Paper: sec-4-3, tab-2
    """
    return run_together([config], results=results, refresh=refresh, checkpoint=checkpoint, device=device)[0]


def run_together(
    configs: Sequence[Config],
    *,
    results: Path | None = None,
    refresh: bool = False,
    checkpoint: Path | None = None,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> list[Record]:
    """The records of several cells that :func:`together` allows, those that are not there yet trained in one go.

    Args:
        configs: the cells.
        results, refresh, checkpoint, device: see :func:`run`.
        progress: receives one line after each epoch, and one before a model is measured; to the terminal by default.

    Raises:
        ValueError: cells that cannot be trained together.
        efvae.train.TrainingError: some of them failed; the others have their records.

    Paper: sec-4-3, tab-2
    """
    place = devices.find(device)
    cells, found = [needed(config) for config in configs], dict[Config, Record]()
    if results is not None and not refresh:
        for cell in cells:
            known = records.find(STEM, cell, results, data_sha256(cell))
            if known is not None:
                found[cell] = known

    missing = [cell for cell in dict.fromkeys(cells) if cell not in found]
    for folder in (results and results / STEM, checkpoint):
        if missing and folder is not None:
            records.check_folder(folder)

    solved, error = _solve(missing, checkpoint, place, progress, results)
    for trained in solved:
        found[next(cell for cell in missing if records.config_dict(cell) == trained.record.config)] = trained.record
    if error is not None:
        raise error
    return [found[cell] for cell in cells]


def solve(
    configs: Sequence[Config],
    checkpoint: Path | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    device: str = "cpu",
    results: Path | None = None,
) -> list[Trained]:
    """Train cells; of records, none is looked for.

    Metrics in nats for each document, on average; all but those called ``_base`` are relative to the saturated
    multinomial, whose own value is 0 (:func:`efvae.word_counts.to_base_measure`)::

        nelbo_train, nelbo_test      lowest over the epochs, as Table 2 has them: the test set selects the epoch
        nelbo_test_cross             each half of the test set at the epoch that the other half selects
        nelbo_held_out               lowest over the epochs, of held-out training documents; None without any
        nelbo_test_held_out          on test at that epoch
        epoch_held_out, kl_test_held_out    that epoch, and the KL term on test there
        epoch_test, kl_test          the epoch of nelbo_test, and the KL term there
        nelbo_train_last, nelbo_test_last
        nelbo_train_base, nelbo_test_base   with the base measure: −ELBO of log p(x | l)

    Of the model after the last epoch, where it has hidden units, see
    :meth:`efvae.text.model.TextVAE.silent_units`::

        silent_encoder_last, silent_decoder_last    share of hidden units above zero for no training document

    Of the model at the selected epoch also those of :data:`efvae.text.evaluate.METRICS` (likelihood, gap and its parts,
    distance to the consistent set) and of :func:`efvae.text.retrieval.retrieval_metrics`; training documents are those
    trained on, without the held-out ones. The seconds of a record are those of the training, that before an
    interruption included; of cells trained together each has an equal share.

    Args:
        configs: the cells.
        checkpoint: folder for checkpoints.
        progress: receives one line after each epoch, and one before a model is measured; to the terminal by default.
        device: see :func:`run`.
        results: folder that each record is written to as soon as it is known; None: nowhere.

    Raises:
        ValueError: cells that cannot be trained together, the same cell twice, or held-out documents that leave too
            few to train on.

    Paper: sec-4-3, tab-2, app-c2
    """
    if results is not None:
        records.check_folder(results / STEM)
    trained, error = _solve(configs, checkpoint, devices.find(device), progress, results)
    if error is not None:
        raise error
    return trained


def _solve(
    configs: Sequence[Config],
    checkpoint: Path | None,
    device: torch.device,
    progress: Callable[[str], None] | None,
    results: Path | None,
) -> tuple[list[Trained], TrainingError | None]:
    """What could be trained, and the error of what could not."""
    if not configs:
        return [], None
    if len({together(config) for config in configs}) > 1:
        raise ValueError("cells trained together must agree in everything but bits, encoder, d_hidden, width and rate")
    configs = [needed(config) for config in configs]
    if len(set(configs)) < len(configs):
        raise ValueError("cells trained together must differ: the same one is given twice")
    if device.type == "cuda":
        torch.cuda.set_device(device)  # graphs are recorded on the current one
    first, text = configs[0], corpus(configs[0])
    corpora, kept, runs = begin(configs, text, checkpoint, device)
    phases = (
        Phase(first.epochs, ESTIMATORS[first.estimator](1)),
        Phase(first.epochs_many, ESTIMATORS[first.estimator](first.samples_many)),
    )
    error = None
    try:
        train_together(
            runs,
            corpora,
            phases,
            batch_size=first.batch_size,
            order_seed=first.seed,
            checkpoint_every=CHECKPOINTS["cpu" if device.type == "cpu" else "cuda"],
            progress=_reporter(first, progress, device),
        )
    except TrainingError as caught:
        error = caught
    sound = [pair for pair in zip(configs, runs, strict=True) if pair[1].epoch == first.epochs + first.epochs_many]
    trained = []
    tell = progress or functools.partial(print, file=sys.stderr, flush=True)
    for number, (config, done) in enumerate(sound, 1):
        tell(f"trained; measuring model {number} of {len(sound)}")
        trained.append(_trained(config, done, text, kept))
        if results is not None:  # at once: measuring many cells takes minutes, and a sweep may be killed
            records.write(trained[-1].record, results)
    return trained, error


def begin(
    configs: Sequence[Config], text: _Corpus, checkpoint: Path | None, device: torch.device
) -> tuple[Corpora, WordCounts, list[Run]]:
    """What :func:`efvae.text.training.train_together` asks for: documents in batches, and models to be trained.

    Args:
        configs: cells that :func:`together` allows.
        text: their :func:`corpus`.
        checkpoint: folder to resume from and to write to, None for none.
        device: where to.

    Returns:
        Batches, the documents that are trained on, and the models, each with its optimiser.

    Raises:
        efvae.checkpoint.CheckpointError: a checkpoint is damaged or of another configuration.
        ValueError: held-out documents that leave too few to train on.

    Own: own-text-training
    """
    # only listed codes behind hidden layers need x as a whole
    whole = any(config.d_hidden and config.bits <= LISTED_BITS for config in configs)
    precision = devices.arithmetic(configs[0].precision, device) if whole else None
    corpora, kept = _documents(text, configs[0], precision, device)
    return corpora, kept, [_run(config, kept, checkpoint, device) for config in configs]


def _trained(config: Config, done: Run, text: _Corpus, kept: WordCounts) -> Trained:
    floors = {"train": float(base_measure_floor(kept).mean()), "test": float(base_measure_floor(text.test).mean())}
    metrics = lowest(done.curve, "nelbo", floors)
    for split in ("test", "held_out"):  # the KL term on test at the epoch that they select
        epoch = metrics[f"epoch_{split}"]
        name = "kl_test" if split == "test" else "kl_test_held_out"
        metrics[name] = None if epoch is None else done.curve["kl_test"][done.curve["epoch"].index(epoch)]
    device = done.best.writer.device
    here = kept.to(device), text.test.to(device)
    metrics |= evaluate(done.best.eval(), *here, seed=config.seed)
    metrics |= retrieval_metrics(done.best, *here, RETRIEVED)
    silent = done.model.silent_units(here[0], torch.Generator(device).manual_seed(config.seed))
    for network in ("encoder", "decoder"):
        shares = [share for layer, share in silent.items() if layer.startswith(network)]
        if shares:
            metrics[f"silent_{network}_last"] = statistics.fmean(shares)
    record = records.make(
        STEM,
        config,
        metrics,
        _thinned(done.curve),
        seconds=done.clock.seconds,
        device=devices.described(config.precision, device),
        data_sha256=data_sha256(config),
        show=SHOW,
    )
    return Trained(record, done.best.cpu(), done.model.cpu(), kept, text.test, text.vocabulary, text.names)


def data_sha256(config: Config) -> str | None:
    """Checksum of the corpus of a cell, None if it is made on the spot; ``efvae sweep`` finds records by it.

    Own: own-text-training
    """
    return newsgroups.FILES.sha256 if config.corpus == "20news" else None


def _documents(
    text: _Corpus, config: Config, precision: torch.dtype | None, device: torch.device
) -> tuple[Corpora, WordCounts]:
    """The documents in batches, as the device likes them, and those that are trained on."""
    kind = Documents if device.type == "cpu" else DenseDocuments
    kept, aside = _split(text, config.held_out)
    held_out = None if aside is None else kind(aside, None, device)
    return Corpora(kind(kept, precision, device), kind(text.test, None, device), held_out), kept


def _run(config: Config, train: WordCounts, checkpoint: Path | None, device: torch.device) -> Run:
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        torch.manual_seed(config.seed)
        precision = devices.arithmetic(config.precision, device)
        shape = config.bits, config.encoder, config.d_hidden, config.width
        model = TextVAE(train.n_words, *shape, precision, config.activation)
        if config.first_weights == "he":
            model.begin_by_he()
    if config.first_bias == "frequencies":
        model.begin_at(train)
    # the second part goes on from where the first ended: one checkpoint for both
    shared = records.config_dict(replace(config, epochs_many=0))
    digest = records.config_hash(STEM, shared, data_sha256(config))
    name = records.cell_name(STEM, shared, data_sha256(config), SHOW)
    # another source of random numbers, or another arithmetic than the one of the name
    kind = device.type if device.type != "cpu" else str(precision).removeprefix("torch.")
    if kind not in ("cpu", config.precision):
        digest, name = f"{digest} {kind}", f"{name}.{kind}"
    path = None if checkpoint is None else checkpoint / f"{name}.safetensors"
    done = Run(model.to(device), config.seed, config.learning_rate, digest, path, name, config.clip)
    if done.epoch > config.epochs + config.epochs_many:
        raise ValueError(
            f"checkpoint {path} has {done.epoch} epochs, more than the {config.epochs + config.epochs_many} asked for: "
            "name another folder"
        )
    return done


def _thinned(curve: Curve) -> Curve:
    """Some epochs, evenly spaced, the last among them; rounded to what a Monte Carlo average is worth."""
    n = len(curve["epoch"])
    every = math.ceil(n / CURVE_POINTS)
    kept = [index for index in range(n) if (n - 1 - index) % every == 0]
    return {name: [round(curve[name][index], 3) for index in kept] for name in curve}


def _step_beside_codes(d_hidden: int, device: torch.device) -> float:
    """What a step takes beside its codes, counted in pairs for each document; measured with 64 bits on two cores."""
    if device.type != "cpu":
        return 0.0
    return 2.0 if not d_hidden and compiled.available(device) else 0.5


def _reporter(
    config: Config, progress: Callable[[str], None] | None, device: torch.device
) -> Callable[[int, int, Sequence[Run]], None]:
    """Lines with NELBO and time left; on a terminal each replaces the one before, else one in a while."""
    begun, printed, first = time.monotonic(), -math.inf, 0
    # a step takes as long as its codes, or as a table of all codes if that is cheaper, and something more
    table = table_cost(config.bits, config.d_hidden, device)
    more = 2 * config.batch_size * _step_beside_codes(config.d_hidden, device)
    one, several = (min(2 * config.batch_size * pairs, table) + more for pairs in (1, config.samples_many))
    many = 1.0 if config.estimator == "exact" else several / one

    def work(epoch: int) -> float:
        return min(epoch, config.epochs) + many * max(epoch - config.epochs, 0)

    def report(epoch: int, epochs: int, runs: Sequence[Run]) -> None:
        nonlocal begun, printed, first
        first = first or epoch  # a resumed run begins later
        now = time.monotonic()
        left = (now - begun) / (work(epoch) - work(first - 1)) * (work(epochs) - work(epoch))
        # several pairs may cost less: on a CPU codes drawn again are not computed again
        most = "at most " if epoch <= config.epochs < epochs and many > 1 and device.type == "cpu" else ""
        state = runs[0].curve
        line = (
            f"epoch {epoch}/{epochs}  NELBO train {state['nelbo_train'][-1]:.1f} test {state['nelbo_test'][-1]:.1f}"
            f"{f' (first of {len(runs)})' if len(runs) > 1 else ''}  {most}{left / 60:.1f} min left"
        )
        if epoch == config.epochs:  # the other part is measured by itself
            begun, first = now, 0
        if progress is not None:
            progress(line)
        elif sys.stderr.isatty():
            print(f"\r{line}\x1b[K", end="\n" if epoch == epochs else "", file=sys.stderr, flush=True)
        elif now - printed > 60 or epoch == epochs:
            printed = now
            print(line, file=sys.stderr, flush=True)

    return report


if __name__ == "__main__":
    sys.exit(records.main(Config, run))
