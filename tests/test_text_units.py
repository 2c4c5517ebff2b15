"""Silent hidden units while a cell of Table 2 begins: counted by hand, in the training of that cell.

Labels: own-text-silent, own-text-training.
"""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from efvae import records
from efvae.experiments import text, text_units

SMALL = text_units.Config(
    corpus="harmonium", bits=4, encoder="e2", d_hidden=2, epochs=2, width=32, vocabulary=300, seed=3
)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_the_units_are_those_of_the_cell_in_its_training(activation):
    config = dataclasses.replace(SMALL, activation=activation)
    record = text_units.run(config)
    cell = text.Config(**records.config_dict(config), epochs_many=0)
    (trained,) = text.solve([cell], None, lambda line: None)
    assert record.metrics["nelbo_train"] == pytest.approx(trained.record.curve["nelbo_train"][-1], abs=1e-3)
    for network in ("encoder", "decoder"):
        by_layer = (record.metrics[f"silent_{network}_{layer}"] for layer in (1, 2))
        assert sum(by_layer) / 2 == pytest.approx(trained.record.metrics[f"silent_{network}_last"])

    # the encoder by hand, from dense frequencies
    x = trained.train.dense().float()
    h, model = x / x.sum(1, keepdim=True), trained.last
    h = h @ model.reader + model.reader_bias
    linear = [part for part in model.code_net.modules() if isinstance(part, torch.nn.Linear)]
    for layer, after in enumerate(linear, 1):
        assert record.metrics[f"silent_encoder_{layer}"] == float((h <= 0).all(0).float().mean())
        h = torch.where(h > 0, h, (0.01 if activation == "leaky_relu" else 0.0) * h)
        h = h @ after.weight.T + after.bias
    assert layer == 2


def test_the_curve_begins_before_the_training():
    record = text_units.run(SMALL)
    assert record.curve["epoch"] == [0.0, 1.0, 2.0]
    (untrained,) = text.begin(
        [text.Config(**records.config_dict(SMALL), epochs_many=0)],
        corpus := text.corpus(text.Config(corpus="harmonium", vocabulary=300)),
        None,
        torch.device("cpu"),
    )[2]
    shares = untrained.model.silent_units(corpus.train, torch.Generator().manual_seed(SMALL.seed))
    assert {f"silent_{layer}": share for layer, share in shares.items()} == {
        name: values[0] for name, values in record.curve.items() if name != "epoch"
    }
    assert all(len(values) == 3 for values in record.curve.values())


def test_a_record_is_found_again_and_bad_cells_are_refused(tmp_path, capsys):
    words = [f"{key}={value}" for key, value in records.config_dict(SMALL).items()]
    for _ in range(2):
        assert records.main(text_units.Config, text_units.run, [*words, "--results", str(tmp_path)]) == 0
    told = capsys.readouterr().err.count("epoch 1/2  NELBO train")
    assert told == 1  # the second time it is read
    (path,) = tmp_path.glob("sec4_3_units/*.json")
    assert math.isfinite(json.loads(path.read_text())["metrics"]["nelbo_train"])
    for bad, line in (
        ("d_hidden=0", "encoder=e1 with d_hidden=0 has no hidden units: take encoder=e2, or d_hidden=1 or 2"),
        ("bits=0", "bits must be a whole number of at least 1; got 0"),
        ("bits=4096", "bits must be at most 2048; got 4096"),
        ("activation=tanh", "activation must be one of relu, leaky_relu; got 'tanh'"),
        ("epochs=0", "epochs must be a whole number of at least 1; got 0"),
    ):
        assert records.main(text_units.Config, text_units.run, [bad, "--results", str(tmp_path)]) == 2
        assert line in capsys.readouterr().err
