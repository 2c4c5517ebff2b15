"""Corpora from a known law: the likelihood is exact, the draws follow it, one law is a harmonium and the other is not.

Labels: own-synthetic-text, eq-13.
"""

from __future__ import annotations

import pytest
import torch

from efvae.data import synthetic
from efvae.hashing import not_affine
from efvae.word_counts import WordCounts, cross_entropy, log_base_measure

LAWS = pytest.mark.parametrize("law_of", [synthetic.harmonium_law, synthetic.curved_law])
SMALL = {"n_words": 3, "bits": 3, "shortest": 2, "longest": 4}


@LAWS
@pytest.mark.parametrize("seed", [0, 1])
def test_the_likelihood_is_the_enumerated_one(law_of, seed):
    law = law_of(**SMALL, seed=seed)
    x = law.documents()
    listed = WordCounts.from_dense(x, torch.zeros(len(x), dtype=torch.int64))
    log_p = synthetic.log_likelihood(law, listed)
    torch.testing.assert_close(log_p, law.data().log(), rtol=1e-12, atol=1e-12)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-12)


@LAWS
def test_draws_follow_the_law(law_of):
    law = law_of(**SMALL, seed=2)
    n = 20000
    drawn = synthetic.sample_documents(law, n, torch.Generator().manual_seed(1))
    listed, p = law.documents(), law.data()
    match = (drawn.dense(torch.float64)[:, None] == listed).all(-1)
    assert (match.sum(1) == 1).all()
    z = (match.double().mean(0) - p) / (p * (1 - p) / n).sqrt()
    assert z.abs().max() < 4.5
    code_law = law.log_length_code.exp().sum(0)
    z = (torch.bincount(drawn.labels, minlength=8) / n - code_law) / (code_law * (1 - code_law) / n).sqrt()
    assert z.abs().max() < 4.5
    joint = torch.bincount(drawn.labels * 10 + drawn.length().long(), minlength=90).view(-1, 10)[:8, 2:5].T / n
    expected = law.log_length_code.exp()
    assert ((joint - expected) / (expected / n).sqrt()).abs().max() < 4.5


def test_one_is_a_harmonium_at_each_length_and_the_other_is_not():
    for seed in range(3):
        tight, curved = synthetic.harmonium_law(**SMALL, seed=seed), synthetic.curved_law(**SMALL, seed=seed)
        assert not_affine(tight.log_joint()).abs().max() < 1e-11
        assert not_affine(curved.log_joint()).abs().max() > 0.05
        # the decoder itself: affine logits, up to a constant for each code, or curved ones
        assert not_affine(tight.log_words - tight.log_words[:, :1]).abs().max() < 1e-11
        assert not_affine(curved.log_words - curved.log_words[:, :1]).abs().max() > 0.05
        assert tight.length_information() > 1e-6  # what no prior of the code alone can be
        assert curved.length_information().abs() < 1e-12


@LAWS
def test_the_corpus_has_something_to_learn(law_of):
    """At the default size: the law beats a unigram model, no code takes all, and a seed is a corpus."""
    law = law_of()
    text = synthetic.synthetic_text(law, 400, 300)
    assert [text.train.n_documents, text.test.n_documents, text.train.n_words] == [400, 300, 200]
    unigram = text.train.word_totals() + 1 / 200
    x = text.test
    collapsed = cross_entropy(x, (unigram / unigram.sum()).log()) - log_base_measure(x)
    assert (collapsed + synthetic.log_likelihood(law, x)).mean() > 3  # although p(l) is not even in the former
    assert law.log_length_code.exp().sum(0).max() < 0.2
    again = synthetic.synthetic_text(law, 400, 300)
    assert torch.equal(again.test.dense(), x.dense())
    assert not torch.equal(synthetic.synthetic_text(law, 400, 300, seed=1).test.dense(), x.dense())
    assert not torch.equal(law_of(seed=1).log_words, law.log_words)
    assert len(x.empty()) == 0


@LAWS
@pytest.mark.parametrize("wrong", [{"bits": 0}, {"bits": 17}, {"n_words": 1}, {"shortest": 0}, {"longest": 10}])
def test_a_size_out_of_range(law_of, wrong):
    with pytest.raises(ValueError, match="synthetic corpus: expected"):
        law_of(**wrong)


def test_the_likelihood_refuses_what_the_law_does_not_describe():
    law = synthetic.harmonium_law(**SMALL)
    label = torch.zeros(1, dtype=torch.int64)
    smoothed = WordCounts.from_dense(torch.ones(1, 3), label, torch.ones(3).double())
    with pytest.raises(ValueError, match="raw counts"):
        synthetic.log_likelihood(law, smoothed)
    with pytest.raises(ValueError, match="lengths must be among"):
        synthetic.log_likelihood(law, WordCounts.from_dense(3 * torch.ones(1, 3), label))
