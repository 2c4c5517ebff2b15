"""20 Newsgroups: preprocessing on small cases, the facts of the real corpus, and every bad input in one line.

Labels: sec-4-3, own-nelbo, own-newsgroups, own-word-counts, own-data.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from efvae import cli, word_counts
from efvae.data import cache, newsgroups
from efvae.data.cache import DataError
from efvae.families import Multinomial
from efvae.word_counts import WordCounts

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A cache of this test's own, and no EFVAE_DATA."""
    monkeypatch.setenv("EFVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EFVAE_DATA", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The corpus itself: from EFVAE_DATA, or from a folder beside the checkout."""
    root = os.environ.get("EFVAE_DATA") or (str(BESIDE) if BESIDE.is_dir() else "")
    if not root:
        pytest.skip("20 Newsgroups is not here: set EFVAE_DATA to the folder that holds 20news/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFVAE_DATA", root)
        patch.setenv("EFVAE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield newsgroups.load_newsgroups()


# --- preprocessing, on a corpus that fits on a page

LINES = b"1 1 2\n1 4 1\n2 1 1\n2 3 5\n3 2 1\n3 3 1\n4 5 3\n"  # document frequencies 2 1 2 1 1
TINY = newsgroups.parse(LINES, b"1\n1\n2\n2\n")


def test_the_most_frequent_words_are_kept_ties_by_lowest_number():
    with pytest.raises(DataError, match="training document 4 has none of the 3 words"):
        newsgroups.preprocess(TINY, TINY, n_words=6, size=3, smooth=False)
    train, test, words = newsgroups.preprocess(TINY, TINY, n_words=6, size=3)
    assert words.tolist() == [0, 1, 2]  # words 2, 4, 5 tie: the lowest number is kept
    c = torch.tensor([3.0, 1.0, 6.0], dtype=torch.float64) + 1 / 3
    f = c / c.sum()
    counts = torch.tensor([[2, 0, 0], [1, 0, 5], [0, 1, 1], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(train.dense(torch.float64), counts + f, rtol=1e-15, atol=0)
    torch.testing.assert_close(test.smoothing, train.smoothing)
    assert train.labels.tolist() == [0, 0, 1, 1]


def test_a_document_left_without_words_is_the_smoothing_alone():
    train, _, _ = newsgroups.preprocess(TINY, TINY, n_words=6, size=3)
    assert train.empty().tolist() == [3]
    assert train.length()[3].item() == pytest.approx(1, abs=1e-15)
    alone = train.select(torch.tensor([3]))
    torch.testing.assert_close(alone.dense(torch.float64)[0], train.smoothing)
    unigram = word_counts.log_saturated(alone) + word_counts.cross_entropy(alone, train.smoothing.log())
    assert abs(unigram.item()) < 1e-14  # and the unigram law fits it exactly


def test_smoothing_is_of_the_training_split():
    other = newsgroups.parse(b"1 2 9\n", b"1\n")
    train, test, _ = newsgroups.preprocess(TINY, other, n_words=6, size=5)
    expected = newsgroups.smoothing_vector(train.word_totals())
    torch.testing.assert_close(test.smoothing, expected)
    assert expected.sum().item() == pytest.approx(1, abs=1e-15)
    assert test.dense(torch.float64)[0, 1].item() == pytest.approx(9 + 1.2 / 15, abs=1e-14)  # c = 1 of 14, K = 5


@pytest.mark.parametrize("size", [0, -1, 6, 10**6])
def test_a_vocabulary_that_the_data_do_not_have(size):
    with pytest.raises(DataError, match=rf"vocabulary size must be in \[1, 5\], .*; got {size}$"):
        newsgroups.preprocess(TINY, TINY, n_words=6, size=size)


@pytest.mark.parametrize(
    ("data", "label", "message"),
    [
        (b"1 1 2\n1 x 1\n", b"1\n", "whole numbers only"),
        (b"1 1 2\n1 2\n", b"1\n", "lines of three numbers"),
        (b"", b"1\n", "lines of three numbers"),
        (b"1 1 2\n1 2 0\n", b"1\n", "from 1, below 2.31; got 0"),
        (b"1 1 3000000000\n", b"1\n", "indices and counts from 1, below 2.31; got 3000000000"),
        (b"1 1 1\n", b"4294967297\n", "labels from 1, below 2.31; got 4294967297"),
        (b"1 1 1\n", b"-5\n", "labels from 1, below 2.31; got -5"),
        (b"1 2 1\n1 1 1\n", b"1\n", "line 2 is not"),
        (b"1 1 1\n1 1 1\n", b"1\n", "line 2 is not"),
        (b"1 1 1\n2 1 1\n", b"1\n", "2 documents but 1 labels"),
        (b"1 1 1\n3 1 1\n", b"1\n1\n1\n", "document 2 is empty"),
        (b"1 1 1\n", b"1\n1\n", "document 2 is empty"),
        (b"1 1 \xff\n", b"1\n", "whole numbers only"),
    ],
)
def test_lines_that_are_no_corpus(data, label, message):
    with pytest.raises(DataError, match=message) as info:
        newsgroups.parse(data, label, "train.data")
    assert "\n" not in str(info.value)


# --- the sparse form and the two conventions


def corpus(smooth: float, seed: int = 0) -> WordCounts:
    g = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((7, 5), 0.8, dtype=torch.float64), generator=g)
    counts[:, 0] += 1
    counts[:, 1] = 0
    counts[2] = 0
    f = smooth * torch.rand(5, generator=g, dtype=torch.float64)
    counts[2, 3] = 0 if smooth else 2  # without smoothing no document may be empty
    return WordCounts.from_dense(counts, torch.arange(7), f)


def test_sparse_and_dense_say_the_same():
    x = corpus(0.3)
    dense = x.dense(torch.float64)
    torch.testing.assert_close(x.length(), dense.sum(1))
    torch.testing.assert_close(x.word_totals(), (dense - x.smoothing).sum(0))
    rows = torch.tensor([5, 2, 2, 0])
    torch.testing.assert_close(x.select(rows).dense(torch.float64), dense[rows])
    assert x.select(rows).labels.tolist() == rows.tolist()
    assert x.select(torch.tensor([], dtype=torch.int64)).dense().shape == (0, 5)
    assert x.dense().dtype == torch.float32
    again = WordCounts.from_dense((dense - x.smoothing).round(), x.labels, x.smoothing)
    assert all(torch.equal(getattr(again, n), getattr(x, n)) for n in ("indptr", "indices", "labels"))
    assert [x.n_documents, x.n_words, x.empty().tolist()] == [7, 5, [2]]
    assert all(torch.equal(getattr(x.to("cpu"), n), getattr(x, n)) for n in x.__dataclass_fields__)


def test_word_counts_that_do_not_fit_together():
    x = corpus(0.3)
    with pytest.raises(ValueError, match="row bounds"):
        WordCounts(x.indptr[1:], x.indices, x.counts, x.smoothing, x.labels)
    with pytest.raises(ValueError, match=r"words must be in \[0, 2\)"):
        WordCounts(x.indptr, x.indices, x.counts, x.smoothing[:2], x.labels)


@pytest.mark.parametrize("smooth", [0.0, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_both_conventions_against_dense_formulas(smooth, seed):
    x = corpus(smooth, seed)
    dense = x.dense(torch.float64)
    length = dense.sum(1)
    log_p = torch.log_softmax(torch.randn(5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), 0)
    saturated = torch.special.xlogy(dense, dense / length[:, None]).sum(1)
    torch.testing.assert_close(word_counts.log_saturated(x), saturated, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(word_counts.cross_entropy(x, log_p), -dense @ log_p, rtol=1e-12, atol=1e-12)
    log_h = torch.lgamma(length + 1) - torch.lgamma(dense + 1).sum(1)
    torch.testing.assert_close(word_counts.log_base_measure(x), log_h, rtol=1e-12, atol=1e-12)
    # a model without a code: KL = 0, both NELBO are known
    relative = saturated - dense @ log_p
    with_base = -log_h - dense @ log_p
    torch.testing.assert_close(word_counts.to_base_measure(relative, x), with_base, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(word_counts.to_saturated(with_base, x), relative, rtol=1e-12, atol=1e-12)
    assert (relative >= -1e-12).all()
    if not smooth:
        law = Multinomial(log_p.expand(7, 5), length)
        torch.testing.assert_close(-law.log_prob(dense), with_base, rtol=1e-12, atol=1e-12)


def test_the_floor_is_reached_by_the_documents_own_frequencies_and_by_nothing_else():
    x = corpus(0.0)
    dense = x.dense(torch.float64)
    own = Multinomial((dense / dense.sum(1, keepdim=True)).clamp(min=1e-300).log(), dense.sum(1))
    floor = word_counts.base_measure_floor(x)
    torch.testing.assert_close(-own.log_prob(dense), floor, rtol=1e-12, atol=1e-12)
    assert (floor >= -1e-12).all()
    tilted = Multinomial(own.eta + 0.1 * torch.arange(5), dense.sum(1))
    several = (dense > 0).sum(1) > 1
    assert (-tilted.log_prob(dense)[several] > floor[several]).all()


# --- facts of the real corpus


def test_sizes_of_the_corpus(real):
    assert [real.train.n_documents, real.test.n_documents, real.train.n_words] == [11269, 7505, 10000]
    assert len(real.vocabulary) == 10000 == len(set(real.vocabulary))
    assert [len(real.groups), real.groups[0], real.groups[-1]] == [20, "alt.atheism", "talk.religion.misc"]
    assert real.train.labels.unique().tolist() == list(range(20))
    assert round(len(real.train.indices) / real.train.n_documents) == 116
    assert real.train.indptr.diff().median() == 90
    assert [len(real.train.empty()), len(real.test.empty())] == [0, 0]
    assert real.train.counts.max() <= 716


def test_the_cut_of_the_vocabulary(real):
    folder = cache.data_folder(newsgroups.FILES)
    content = {name: cache.read(folder, newsgroups.FILES.file(name)) for name in ("train.data", "test.data")}
    frequency = {}
    for name, text in content.items():
        words = np.array(text.split()[1::3], dtype=np.int64) - 1  # another way to parse
        frequency[name] = np.bincount(words, minlength=61188)
    train, kept = frequency["train.data"], np.zeros(61188, dtype=bool)
    kept[real.words.numpy()] = True
    assert [train[kept].min(), train[~kept].max()] == [14, 14]
    tie = train == 14
    assert [int(tie.sum()), int((tie & kept).sum())] == [498, 63]
    assert np.flatnonzero(tie & kept).max() < np.flatnonzero(tie & ~kept).min()
    # the paper's "at most 10 documents" would hold for frequencies in the test file
    by_test = np.argsort(-frequency["test.data"], kind="stable")[10000:]
    assert frequency["test.data"][by_test].max() == 10


def test_first_documents_against_the_file(real):
    folder = cache.data_folder(newsgroups.FILES)
    lines = cache.read(folder, newsgroups.FILES.file("test.data"))[:100000].decode().splitlines()[:-1]
    column = {word: k for k, word in enumerate(real.words.tolist())}
    last = int(lines[-1].split()[0])  # this one may be cut
    x = real.test.select(torch.arange(last - 1)).dense(torch.float64)
    expected = real.train.smoothing.repeat(last - 1, 1)
    for line in lines:
        document, word, count = map(int, line.split())
        if document < last and word - 1 in column:
            expected[document - 1, column[word - 1]] += count
    assert last > 50
    torch.testing.assert_close(x, expected, rtol=1e-13, atol=0)


def test_levels_that_every_nelbo_is_read_against(real):
    """Relative to the saturated model a collapsed model has 475.6 and 463.2; with log h the floor is 136 and 133."""
    unigram = real.train.smoothing.log()
    bare = torch.zeros_like(real.train.smoothing)
    for x, collapsed, floor, raw_floor in ((real.train, 475.6, 136, 130), (real.test, 463.2, 133, 127)):
        relative = word_counts.log_saturated(x) + word_counts.cross_entropy(x, unigram)
        assert round(relative.mean().item(), 1) == collapsed
        assert round(word_counts.base_measure_floor(x).mean().item()) == floor
        raw = WordCounts(x.indptr, x.indices, x.counts, bare, x.labels)
        assert round(word_counts.base_measure_floor(raw).mean().item()) == raw_floor


def test_parsed_once_and_a_damaged_copy_is_parsed_again(real):
    stored = next((cache.cache_root() / "parsed").iterdir())
    assert stored.suffix == ".npz"
    whole = stored.read_bytes()
    stored.write_bytes(whole[:1000] + bytes(1000) + whole[2000:])
    again = newsgroups.load_newsgroups(size=100)
    assert torch.equal(again.train.labels, real.train.labels)
    assert stored.read_bytes() == whole
    assert [again.train.n_words, len(again.train.empty())] == [100, again.train.indptr.diff().eq(0).sum()]


def test_loading_is_quick(real):
    began = time.process_time()
    stored = cache.cache_root() / "parsed"
    for path in stored.iterdir():
        path.unlink()
    newsgroups.load_newsgroups()
    assert time.process_time() - began < 5  # about 1.5 s


# --- where the files are, and that they are the right ones


def refused(capsys, *words: str) -> str:
    assert cli.main(list(words)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    last = told.err.splitlines()[-1]
    assert last.startswith("efvae: error: ")
    return last


SMALL = cache.DataSet(
    "20news",
    "http://127.0.0.1:9/",
    (cache.Source("a.tgz", ("a.txt", "b.txt"), most=10**6), cache.Source("c.txt", ("c.txt",))),
    tuple(
        cache.SourceFile(name, len(text), hashlib.sha256(text).hexdigest())
        for name, text in (("a.txt", b"alpha\n" * 300), ("b.txt", b"beta\n"), ("c.txt", b"gamma\n"))
    ),
)


@pytest.fixture
def mine(home, monkeypatch):
    """A folder as EFVAE_DATA has it: some files plain, some compressed."""
    from efvae.data import catalog

    monkeypatch.setitem(catalog.DATA_SETS, "20news", SMALL)
    folder = home / "data" / "20news"
    folder.mkdir(parents=True)
    (folder / "a.txt.gz").write_bytes(gzip.compress(b"alpha\n" * 300))
    (folder / "b.txt").write_bytes(b"beta\n")
    (folder / "c.txt.gz").write_bytes(gzip.compress(b"gamma\n"))
    monkeypatch.setenv("EFVAE_DATA", str(folder.parent))
    return folder


@pytest.mark.parametrize("action", ["verify", "fetch"])
def test_a_folder_of_ones_own_is_used_and_left_alone(mine, action, capsys):
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    assert cli.main(["data", action, "20news"]) == 0
    assert capsys.readouterr().out == f"{mine}\n"
    assert {path.name: path.read_bytes() for path in mine.iterdir()} == before
    assert not cache.cache_root().exists()


@pytest.mark.parametrize("action", ["verify", "fetch"])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: (d / "b.txt").unlink(), "b.txt is missing"),
        (lambda d: (d / "b.txt").write_bytes(b"bet"), "b.txt is truncated: 3 bytes, expected 5"),
        (lambda d: (d / "b.txt").write_bytes(b"BETA\n"), "b.txt is altered: sha256"),
        (lambda d: (d / "b.txt").write_bytes(b"beta\n\n"), "b.txt is altered: sha256"),
        (lambda d: (d / "c.txt.gz").write_bytes(gzip.compress(b"gamma\n")[:-4]), "c.txt.gz is truncated: its gzip"),
        (lambda d: (d / "c.txt.gz").write_bytes(b"gamma\n"), "c.txt.gz is altered: not a sound gzip"),
        (lambda d: (d / "a.txt.gz").write_bytes(gzip.compress(b"alpha\n" * 10**6)), "a.txt.gz is altered: sha256"),
        (lambda d: [path.unlink() for path in d.iterdir()], "a.txt is missing"),
    ],
)
def test_a_wrong_file_is_named(mine, action, harm, message, capsys):
    harm(mine)
    line = refused(capsys, "data", action, "20news")
    assert message in line
    assert str(mine) in line
    if not list(mine.iterdir()):
        assert "(and 2 more of 3 files are missing or wrong)" in line


def test_a_wrong_folder_is_told_from_a_missing_one(mine, monkeypatch, capsys):
    monkeypatch.setenv("EFVAE_DATA", str(mine.parent / "nowhere"))
    assert "nowhere, which does not exist" in refused(capsys, "data", "verify", "20news")
    monkeypatch.setenv("EFVAE_DATA", str(mine / "b.txt"))
    assert "b.txt, which is not a folder" in refused(capsys, "data", "verify", "20news")
    monkeypatch.setenv("EFVAE_DATA", str(mine))
    assert "holds no folder 20news: name its parent" in refused(capsys, "data", "verify", "20news")
    monkeypatch.setenv("EFVAE_DATA", str(mine.parent.parent))
    assert "holds no folder 20news: name another" in refused(capsys, "data", "fetch", "20news")
    monkeypatch.delenv("EFVAE_DATA")
    assert "run 'efvae data fetch 20news'" in refused(capsys, "data", "verify", "20news")
    monkeypatch.setenv("EFVAE_DATA", "~no-such-user/data")
    assert "EFVAE_DATA: ~no-such-user/data: there is no such home" in refused(capsys, "data", "verify", "20news")
    monkeypatch.setenv("EFVAE_DATA", str(mine / ("x" * 300)))
    assert re.search("cannot look into .*x: File name too long", refused(capsys, "data", "verify", "20news"))
    monkeypatch.delenv("EFVAE_DATA")
    monkeypatch.setenv("EFVAE_CACHE", "~no-such-user/cache")
    assert "EFVAE_CACHE: ~no-such-user/cache: there is no such" in refused(capsys, "data", "verify", "20news")
    monkeypatch.delenv("EFVAE_CACHE")
    assert "did you mean '20news'?" in refused(capsys, "data", "verify", "20new")


def test_the_cache_folder(monkeypatch):
    for name in ("EFVAE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/somewhere")
    assert cache.cache_root() == Path("/somewhere/.cache/efvae")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the XDG specification
    assert cache.cache_root() == Path("/somewhere/.cache/efvae")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache.cache_root() == Path("/x/efvae")
    monkeypatch.setenv("EFVAE_CACHE", "/y")
    assert cache.cache_root() == Path("/y")
