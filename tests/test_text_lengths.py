"""Laws of document lengths: probabilities against scipy, fits on drawn data, the real corpus, bad configurations.

Labels: own-hashing-length, case-hashing.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from efvae import records
from efvae.data import newsgroups
from efvae.data.cache import DataError
from efvae.experiments import text_lengths as lengths

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
EVERY = np.arange(1, 20001)
#: Parameters of each law, typical and extreme.
CASES = [
    ("lognormal", (4.9, 0.96)),
    ("lognormal", (0.2, 1.5)),
    ("lognormal", (3.0, 0.05)),
    ("negative_binomial", (225.0, 1.04)),
    ("negative_binomial", (0.7, 0.2)),
    ("negative_binomial", (40.0, 300.0)),
    ("poisson", (226.0,)),
    ("poisson", (0.3,)),
]


def theta(name, parameters):
    """As the law takes them: all but μ by their logarithms."""
    t = torch.tensor(parameters, dtype=torch.float64)
    return torch.stack([t[0], t[1].log()]) if name == "lognormal" else t.log()


def oracle(name, parameters, at=EVERY):
    """Log-probabilities by scipy."""
    if name == "lognormal":
        law = stats.lognorm(s=parameters[1], scale=math.exp(parameters[0]))
        low = np.where(at == 1, 0, at - 0.5)
        with np.errstate(divide="ignore"):
            left, right = law.cdf(at + 0.5) - law.cdf(low), law.sf(low) - law.sf(at + 0.5)
            return np.log(np.where(law.cdf(at) < 0.5, left, right))
    if name == "poisson":
        law = stats.poisson(parameters[0])
    else:
        law = stats.nbinom(parameters[1], parameters[1] / sum(parameters))
    return law.logpmf(at) - np.log1p(-law.pmf(0))


def drawn(name, parameters, n, seed):
    g = np.random.default_rng(seed)
    if name == "lognormal":
        x = np.maximum(1, np.rint(g.lognormal(*parameters, size=n)))
    elif name == "poisson":
        x = g.poisson(parameters[0], n)
    else:
        x = g.poisson(g.gamma(parameters[1], parameters[0] / parameters[1], n))
    return torch.from_numpy(x[x > 0].astype(np.float64))


def natural(name, t):
    return [float(t[0]), float(t[1].exp())] if name == "lognormal" else t.exp().tolist()


# --- the laws


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_log_probabilities_are_those_of_scipy(name, parameters):
    found = lengths.LAWS[name](torch.from_numpy(EVERY.astype(np.float64)), theta(name, parameters)).numpy()
    expected = oracle(name, parameters)
    seen = expected > -600  # below, differences of scipy's tails are zero
    assert seen.sum() > 10
    np.testing.assert_allclose(found[seen], expected[seen], rtol=1e-9, atol=1e-9)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_probabilities_sum_to_one_and_have_finite_gradients(name, parameters):
    at = torch.arange(1.0, 300001, dtype=torch.float64)
    t = theta(name, parameters).requires_grad_()
    log_p = lengths.LAWS[name](at, t)
    assert float(log_p.detach().exp().sum()) == pytest.approx(1, abs=1e-9)
    (grad,) = torch.autograd.grad((log_p.exp() * at.rsqrt()).sum(), t)
    assert grad.isfinite().all()
    (score,) = torch.autograd.grad(lengths.LAWS[name](at, t).exp().sum(), t)
    assert score.abs().max() < 1e-8  # the sum is one whatever the parameters


@pytest.mark.parametrize(("mu", "at"), [(0.0, [60.0, 1e3, 1e4]), (6.0, [2.0, 3.0, 4.0])])
def test_far_in_both_tails_the_lognormal_law_is_that_of_scipys_logarithms(mu, at):
    """Where Φ(b) and Φ(a) round to the same number, 0 or 1."""
    law, at = stats.norm(mu, 0.1), np.array(at)
    tail = law.logsf if mu == 0 else law.logcdf
    ends = sorted([tail(np.log(at - 0.5)), tail(np.log(at + 0.5))], key=lambda end: end[0])
    expected = ends[1] + np.log1p(-np.exp(ends[0] - ends[1]))
    assert (np.exp(expected) < 1e-200).all()
    found = lengths.lognormal(torch.from_numpy(at), theta("lognormal", (mu, 0.1)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-11)


def test_survival_is_the_reversed_sum():
    p = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    torch.testing.assert_close(lengths.survival(p.log()), p.flip(0).cumsum(0).flip(0), rtol=1e-14, atol=0)


# --- the fits


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("lognormal", (4.9, 0.96)), ("lognormal", (1.0, 0.8)), ("negative_binomial", (225.0, 1.04)),
     ("negative_binomial", (6.0, 3.0)), ("poisson", (40.0,)), ("poisson", (2.0,))],
)  # fmt: skip
def test_on_drawn_data_the_parameters_are_found_and_the_law_wins(name, parameters):
    n = 20000
    data, fresh = drawn(name, parameters, n, 0), drawn(name, parameters, n, 1)
    fitted = {law: lengths.fit(law, data) for law in lengths.LAWS}
    np.testing.assert_allclose(natural(name, fitted[name]), parameters, rtol=0.05)
    per_document = {law: lengths.LAWS[law](fresh, t) for law, t in fitted.items()}
    for law in per_document.keys() - {name}:
        lead = per_document[name] - per_document[law]
        if (name, law) == ("poisson", "negative_binomial"):  # the Poisson law is its limit of large shape
            assert abs(float(lead.mean())) < 3 / n
        else:
            assert lead.mean() > 5 * lead.std() / math.sqrt(len(lead))


@pytest.mark.parametrize("name", list(lengths.LAWS))
@pytest.mark.parametrize("source", [("lognormal", (2.5, 0.9)), ("negative_binomial", (20.0, 1.5))])
def test_the_fit_is_the_one_of_another_optimiser(name, source):
    data = drawn(*source, 3000, 2)
    values, count = np.unique(data.numpy(), return_counts=True)

    def loss(t):
        return -(count @ oracle(name, natural(name, torch.from_numpy(t)), values)) / len(data)

    ours = lengths.fit(name, data).numpy()
    options = {"xatol": 1e-9, "fatol": 1e-13, "maxiter": 4000}
    other = optimize.minimize(loss, ours + 0.3, method="Nelder-Mead", options=options)
    np.testing.assert_allclose(ours, other.x, atol=1e-5)
    assert loss(ours) == pytest.approx(other.fun, abs=1e-10)


def test_a_poisson_fit_keeps_the_mean():
    """The likelihood equation of the law without zero: m / (1 − exp(−m)) is the mean of the data."""
    data = drawn("poisson", (1.2,), 5000, 3)
    (m,) = lengths.fit("poisson", data).exp().tolist()
    assert m / -math.expm1(-m) == pytest.approx(float(data.mean()), rel=1e-9)


def test_one_length_has_no_law_to_fit():
    with pytest.raises(ValueError, match=r"^a law of the length needs documents of two lengths or more; got 1$"):
        lengths.fit("lognormal", torch.full((5,), 3.0, dtype=torch.float64))


# --- what is reported


def test_metrics_are_those_of_scipy():
    train, test = drawn("lognormal", (4.0, 1.0), 3000, 4), drawn("lognormal", (4.0, 1.0), 2000, 5)
    metrics, curve = lengths.length_metrics(train, test)
    x, every = train.numpy(), np.arange(1, int(train.max()) + 1)
    assert metrics["log_length_skewness"] == pytest.approx(stats.skew(np.log(x)), abs=1e-10)
    assert metrics["log_length_excess_kurtosis"] == pytest.approx(stats.kurtosis(np.log(x)), abs=1e-10)
    assert metrics["ks_limit"] == pytest.approx(1.36 / math.sqrt(3000))
    ecdf = np.searchsorted(np.sort(x), every, side="right") / len(x)
    keys = {"lognormal": ("mu", "sigma"), "negative_binomial": ("mean", "shape"), "poisson": ("mean",)}
    for name, parts in keys.items():
        parameters = [metrics[f"{name}_{part}"] for part in parts]
        log_p = oracle(name, parameters, every)
        for split, data in (("train", train), ("test", test)):
            expected = oracle(name, parameters, data.numpy()).mean()
            assert metrics[f"log_likelihood_{split}_{name}"] == pytest.approx(expected, rel=1e-9)
        assert metrics[f"ks_{name}"] == pytest.approx(np.abs(np.exp(log_p).cumsum() - ecdf).max(), abs=1e-9)
        expected = [1 - np.exp(log_p[: int(l) - 1]).sum() for l in curve["length"]]  # noqa: E741 - as on the page
        np.testing.assert_allclose(curve[name], np.clip(expected, 0, 1), atol=1e-9)
    assert metrics["ks_lognormal"] < metrics["ks_limit"] < metrics["ks_negative_binomial"]
    difference = metrics["log_likelihood_test_lognormal"] - metrics["log_likelihood_test_negative_binomial"]
    assert metrics["lead_test"] == pytest.approx(difference, abs=1e-12)
    assert curve["length"] == sorted(set(curve["length"]))
    assert curve["length"][-1] == x.max()
    np.testing.assert_allclose(curve["data"], [(x >= at).mean() for at in curve["length"]], atol=1e-12)


@pytest.mark.parametrize(
    ("words", "message"),
    [(0, "words must be a whole number of at least 1; got 0"), (2**31, "words must be below 2**31; got 2147483648"),
     (1.5, "words must be a whole number; got 1.5"), (True, "words must be a whole number; got True")],
)  # fmt: skip
def test_a_bad_configuration_is_refused_in_one_line(words, message):
    with pytest.raises(ValueError) as caught:
        lengths.Config(words=words)
    assert str(caught.value) == message


def test_documents_without_a_kept_word_are_left_out_and_counted(monkeypatch):
    train = newsgroups.parse(b"1 1 2\n2 1 1\n2 2 5\n3 3 4\n4 1 7\n", b"1\n1\n1\n1\n")
    test = newsgroups.parse(b"1 1 3\n2 1 1\n3 2 1\n", b"1\n1\n1\n")

    def small(size, *, smooth=True):
        one, other, words = newsgroups.preprocess(train, test, 3, size, smooth=smooth)
        return newsgroups.Newsgroups(one, other, ("a", "b", "c")[:size], words, ("g",), newsgroups.FILES.sha256)

    monkeypatch.setattr(lengths, "load_newsgroups", small)
    metrics = lengths.run(lengths.Config(words=1)).metrics
    assert (metrics["empty_train"], metrics["empty_test"]) == (1, 1)
    assert (metrics["documents_train"], metrics["documents_test"]) == (3, 2)
    assert metrics["mean_length_train"] == pytest.approx((2 + 1 + 7) / 3)
    assert metrics["largest_length_train"] == 7


# --- the real corpus


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Where the corpus is, and a folder of this module's own for records and its cache."""
    root = os.environ.get("EFVAE_DATA") or (str(BESIDE) if BESIDE.is_dir() else "")
    if not root:
        pytest.skip("20 Newsgroups is not here: set EFVAE_DATA to the folder that holds 20news/")
    folder = tmp_path_factory.mktemp("lengths")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFVAE_DATA", root)
        patch.setenv("EFVAE_CACHE", str(folder / "cache"))
        yield folder


def test_on_the_corpus_the_lognormal_law_is_the_best_and_not_the_truth(real):
    config = lengths.Config()
    record = lengths.run(config, results=real)
    assert records.find(lengths.STEM, config, real, lengths.data_sha256(config)) == record
    m = record.metrics
    assert (m["documents_train"], m["documents_test"]) == (11269, 7505)
    assert m["empty_train"] == m["empty_test"] == 0
    corpus = newsgroups.load_newsgroups()
    x = (corpus.train.length() - corpus.train.smoothing.sum()).round().numpy()
    expected = oracle("lognormal", (m["lognormal_mu"], m["lognormal_sigma"]), x).mean()
    assert m["log_likelihood_train_lognormal"] == pytest.approx(expected, rel=1e-9)
    for split in ("train", "test"):
        of = [m[f"log_likelihood_{split}_{name}"] for name in lengths.LAWS]
        assert of == sorted(of, reverse=True)
    assert m["lead_test"] > 4 * m["lead_test_se"]
    assert m["ks_limit"] < m["ks_lognormal"] < m["ks_negative_binomial"] < m["ks_poisson"]
    assert m["log_length_excess_kurtosis"] > 5 * math.sqrt(24 / len(x))


def test_more_words_than_the_training_set_has_are_refused(real):
    with pytest.raises(DataError, match=r"^vocabulary size must be in \[1, 53975\]"):
        lengths.run(lengths.Config(words=61188))


# --- the figure


def test_the_figure_draws_what_it_was_given():
    mpl = pytest.importorskip("matplotlib")
    mpl.use("agg")
    import matplotlib.pyplot as plt

    from efvae.plots import hashing

    at, data = [1.0, 10.0, 100.0], [1.0, 0.5, 0.01]
    laws = {"log-normal": [1.0, 0.4, 0.02], "negative binomial": [1.0, 0.6, 0.001], "Poisson": [1.0, 0.5, 0.0]}
    (ax,) = hashing.length_survival(at, data, laws).axes
    seen = {line.get_label(): line for line in ax.get_lines()}
    assert {name: list(line.get_ydata()) for name, line in seen.items()} == {"documents": data, **laws}
    assert all(list(line.get_xdata()) == at for line in seen.values())
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert (seen["documents"].get_linestyle(), seen["documents"].get_marker()) == ("None", "o")
    assert len({seen[name].get_linestyle() for name in laws}) == 3  # not by colour alone
    assert len({seen[name].get_color() for name in laws}) == 3
    plt.close("all")
