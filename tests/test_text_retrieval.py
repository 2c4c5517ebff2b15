"""Retrieval by codes: the packed search against bit-by-bit comparison, the precision against all orders of the ties.

Labels: sec-4-3, own-retrieval.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.metrics.pairwise import cosine_distances

from efvae.text import neighbours, retrieval, search
from efvae.word_counts import WordCounts


def bits(n, m, seed):
    return torch.rand(n, m, generator=torch.Generator().manual_seed(seed)) < 0.5


def corpus(n, n_words=12, groups=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((n, n_words), 0.7), generator=generator)
    f = torch.full((n_words,), 1 / n_words, dtype=torch.float64)
    return WordCounts.from_dense(counts, torch.randint(groups, (n,), generator=generator), f)


class Linear:
    """Bits of a random linear map of the counts."""

    def __init__(self, n_words=12, m=3, scale=1.0):
        self.n_words = n_words
        self.weight = scale * torch.randn(n_words, m, generator=torch.Generator().manual_seed(4))

    def encode(self, x):
        return x.dense() @ self.weight + 0.3


@pytest.mark.parametrize("m", [1, 8, 63, 64, 65, 200, 300])
def test_packed_distances_count_different_bits(m):
    queries, database = bits(70, m, 0), bits(90, m, 1)
    packed = search.hamming(search.pack(queries), search.pack(database))
    assert packed.tolist() == (queries[:, None] != database).sum(-1).tolist()
    assert search.pack(queries).shape == (70, math.ceil(m / 64))


@pytest.mark.parametrize("m", [3, 64, 130])
def test_the_nearest_are_sorted_ties_by_number(m):
    queries, database = bits(70, m, 2), bits(900, m, 3)
    distance = (queries[:, None] != database).sum(-1).numpy()
    expected = np.argsort(distance, axis=1, kind="stable")
    for k in (1, 70, 900):
        found = search.nearest(search.pack(queries), search.pack(database), k)
        assert found.document.tolist() == expected[:, :k].tolist()
        assert found.distance.tolist() == np.take_along_axis(distance, expected[:, :k], 1).tolist()


def test_more_documents_than_small_keys_can_number():
    """From 2^31 / (bits + 1) documents on, distance and number no longer fit 32 bits together."""
    far = np.full((1, 2000), 0, dtype=np.uint64)  # 128000 bits
    near = far.copy()
    near[0, 5] = 7
    database = np.repeat(~far, 20000, axis=0)[:20000, :]
    database[17] = near
    found = search.nearest(far, database, 2)
    assert (found.document.tolist(), found.distance.tolist()) == ([[17, 0]], [[3, 128000]])


def test_precision_is_the_mean_over_all_orders_of_the_ties():
    distance = np.array([[2, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0], [5, 4, 3, 2, 1, 0]])
    relevant = np.array([[1, 0, 1, 1, 0, 1], [1, 0, 0, 1, 1, 0], [0, 1, 0, 0, 1, 1]], dtype=bool)
    for k in range(1, 7):
        found, tied = retrieval.expected_precision(distance, relevant, k)
        for query in range(3):
            shares = []
            for order in itertools.permutations(range(6)):
                first = sorted(order, key=lambda j: distance[query, j])[:k]  # a stable sort: ties in this order
                shares.append(relevant[query, first].mean())
            assert found[query] == pytest.approx(np.mean(shares), abs=1e-12)
            kth = np.sort(distance[query])[k - 1]
            assert tied[query] == (distance[query] == kth).sum()


def test_metrics_are_those_of_a_search_by_hand():
    train, test, model = corpus(150, seed=0), corpus(80, seed=1), Linear()
    found = retrieval.retrieval_metrics(model, train, test, k=20)
    assert set(found) == {"precision_at_20", "precision_at_20_median", "tied_at_20", "codes_used"}
    logits, asked = model.encode(train), model.encode(test)
    for name, threshold in (("", torch.zeros(3)), ("_median", torch.quantile(logits, 0.5, 0, interpolation="lower"))):
        z, query = logits > threshold, asked > threshold
        total = 0.0
        for row in range(80):
            distance = (z != query[row]).sum(1)
            same = (train.labels == test.labels[row]).double()
            order = distance.sort().values
            last = order[19]
            nearer, tied = distance < last, distance == last
            total += float(same[nearer].sum() + (20 - nearer.sum()) * same[tied].mean()) / 20
        assert found[f"precision_at_20{name}"] == pytest.approx(total / 80, abs=1e-12)
    assert found["codes_used"] == len(torch.unique(logits > 0, dim=0))
    assert found["tied_at_20"] >= 1


def test_a_code_of_the_group_finds_it_and_one_code_for_all_finds_by_chance():
    train, test = corpus(150, seed=0), corpus(80, seed=1)

    class Oracle(Linear):
        def encode(self, x):
            return torch.nn.functional.one_hot(x.labels, 3) - 0.5

    least = int(torch.bincount(train.labels).min())
    assert retrieval.retrieval_metrics(Oracle(), train, test, k=least)[f"precision_at_{least}"] == 1
    blind = retrieval.retrieval_metrics(Linear(scale=0), train, test, k=9)
    assert blind["codes_used"] == 1
    assert blind["tied_at_9"] == 150
    pairs = (train.labels[:, None] == test.labels).double().mean().item()
    assert blind["precision_at_9"] == pytest.approx(pairs, abs=1e-12)
    assert retrieval.chance(train, test) == pytest.approx(pairs, abs=1e-12)


def test_bag_of_words_as_scikit_learn_has_it():
    train, test = corpus(150, seed=0), corpus(80, seed=1)
    counts = [(x.dense(torch.float64) - x.smoothing).round().numpy() for x in (train, test)]
    weight = TfidfTransformer(sublinear_tf=True).fit(counts[0])
    oracle = {
        "counts": cosine_distances(counts[1], counts[0]),
        "tf_idf": cosine_distances(*(weight.transform(c).toarray() for c in reversed(counts))),
    }
    ours = {
        "counts": (train.counts, test.counts),
        "tf_idf": (retrieval.tf_idf(train, train), retrieval.tf_idf(train, test)),
    }
    same = test.labels[:, None].numpy() == train.labels.numpy()
    found = retrieval.bag_of_words_metrics(train, test, k=10)
    for name, pair in ours.items():
        distance = np.concatenate(list(retrieval.cosine_distances(train, test, pair)))
        np.testing.assert_allclose(distance, oracle[name], atol=1e-6)
        # rounding decides ties of equal documents differently, for few queries
        by_oracle = retrieval.expected_precision(oracle[name].round(6), same, 10)[0].mean()
        assert found[f"precision_at_10_{name}"] == pytest.approx(by_oracle, abs=0.01)
    assert found["precision_chance"] == pytest.approx(same.mean(), abs=1e-12)


def test_an_empty_document_is_as_far_from_all():
    counts = torch.tensor([[1.0, 2, 0], [0, 0, 3]])
    train = WordCounts.from_dense(counts, torch.tensor([0, 1]))
    test = WordCounts.from_dense(torch.tensor([[0.0, 0, 0], [0, 0, 1]]), torch.tensor([0, 1]))
    distance = np.concatenate(list(retrieval.cosine_distances(train, test, (train.counts, test.counts))))
    np.testing.assert_allclose(distance, [[1, 1], [1, 0]], atol=1e-6)


def test_telling_words_and_the_table_of_neighbours():
    counts = torch.tensor([[4.0, 1, 0, 0], [4, 0, 3, 0], [0, 0, 0, 2], [1, 1, 0, 0]])
    x = WordCounts.from_dense(counts, torch.tensor([0, 1, 1, 0]))
    background = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
    for row in range(4):
        share = counts[row] / counts[row].sum()
        score = counts[row].double() * (share / background).log().nan_to_num(neginf=0)
        expected = [int(k) for k in score.argsort(descending=True) if counts[row, k] > 0]
        assert neighbours.telling_words(x, row, background) == expected
    assert neighbours.telling_words(x, 1, background, 1) == [2]
    codes = torch.tensor([[0, 0], [0, 1], [1, 1], [0, 0]], dtype=torch.bool)
    text = neighbours.neighbours_text(
        (codes, codes[2:3]), x, x.select(torch.tensor([2])), 0, (["the", "cat", "sat", "mat"], ["pets", "rugs"]), k=3
    )
    lines = [line.split() for line in text.splitlines()]
    assert [line[:3] for line in lines] == [
        ["query", "0", "rugs"], ["0", "2", "rugs"], ["1", "1", "rugs"], ["2", "0", "pets"]]  # fmt: skip
    assert lines[2][3:] == ["sat", "the"]
    for pair, line in (((codes, codes[:2]), "2 codes for 1 test"), ((codes[:3], codes[2:3]), "3 codes for 4 training")):
        with pytest.raises(ValueError, match=f"neighbours_text: {line} documents"):
            neighbours.neighbours_text(pair, x, x.select(torch.tensor([2])), 0, ("abcd", "pr"))


def raising(call):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_bad_input():
    train, test = corpus(20), corpus(5, seed=1)
    packed = search.pack(bits(20, 8, 0))
    for k in (0, 21):
        assert "k must be in [1, 20]" in raising(lambda k=k: search.nearest(packed[:2], packed, k))
        assert "[1, 20]" in raising(lambda k=k: retrieval.retrieval_metrics(Linear(), train, test, k=k))
        assert "[1, 20]" in raising(lambda k=k: retrieval.bag_of_words_metrics(train, test, k=k))
        assert "[1, 20]" in raising(lambda k=k: retrieval.expected_precision(np.zeros((2, 20)), np.zeros((2, 20)), k))
    assert "threshold them" in raising(lambda: search.pack(torch.zeros(3, 4)))
    assert "compared" in raising(lambda: search.hamming(packed, search.pack(bits(3, 65, 0))))
    assert "11 words" in raising(lambda: retrieval.retrieval_metrics(Linear(n_words=11), train, test, k=3))
    assert "finite" in raising(lambda: retrieval.retrieval_metrics(Linear(scale=math.nan), train, test, k=3))
    assert "test document" in raising(
        lambda: retrieval.retrieval_metrics(Linear(), train, test.select(torch.arange(0)), k=3)
    )
    assert "[0, 4]" in raising(lambda: neighbours.telling_words(test, 5, torch.ones(12) / 12))


def test_searches_by_words_are_of_one_vocabulary():
    with pytest.raises(ValueError, match="train and test must have one vocabulary; got 12 and 10 words"):
        retrieval.bag_of_words_metrics(corpus(8), corpus(4, n_words=10), 2)
