"""Documents in words: what a document is about, and which documents its code finds."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from efvae.text.search import nearest, pack
from efvae.word_counts import WordCounts

__all__ = ["neighbours_text", "telling_words"]


def telling_words(x: WordCounts, row: int, background: Tensor, n: int = 8) -> list[int]:
    """The words that set a document apart most, most telling first; of equal ones the lower number first.

    ::

        score_k = c_k log((c_k / l) / p_k),    the word's part of l KL(document ‖ p)

    Args:
        x: the documents; smoothing plays no part.
        row: number of the document.
        background: p, the law of words of a corpus, positive where the document has a word, shape ``(K,)``.
        n: how many; a document of fewer words gives fewer.

    Raises:
        ValueError: no such document.

    Own: own-retrieval
    """
    if not 0 <= row < x.n_documents:
        raise ValueError(f"document must be in [0, {x.n_documents - 1}]; got {row}")
    here = slice(int(x.indptr[row]), int(x.indptr[row + 1]))
    count, word = x.counts[here].double(), x.indices[here].long()
    score = count * (count / count.sum() / background[word]).log()
    return word[score.argsort(descending=True, stable=True)[:n]].tolist()


def neighbours_text(
    codes: tuple[Tensor, Tensor],
    train: WordCounts,
    test: WordCounts,
    row: int,
    names: tuple[Sequence[str], Sequence[str]],
    k: int = 5,
    n: int = 7,
) -> str:
    """A test document and its nearest training documents as plain text: distance, number, group and telling words.

    Args:
        codes: bool codes of the training and of the test documents, shapes ``(documents, bits)``.
        train, test: the documents.
        row: number of the test document.
        names: of the words, and of the groups.
        k: neighbours.
        n: words of each document.

    Raises:
        ValueError: no such document, k out of range, or codes that are not those of the documents.

    Own: own-retrieval
    """
    for name, code, x in (("training", codes[0], train), ("test", codes[1], test)):
        if len(code) != x.n_documents:
            raise ValueError(f"neighbours_text: {len(code)} codes for {x.n_documents} {name} documents")
    words, groups = names
    totals = train.word_totals()
    background = (totals + 1 / len(totals)) / (totals + 1 / len(totals)).sum()

    def line(distance: str, x: WordCounts, number: int) -> str:
        told = " ".join(words[w] for w in telling_words(x, number, background, n))
        return f"{distance:>5} {number:>6}  {groups[int(x.labels[number])]:<{width}}  {told}"

    width = max(map(len, groups))
    head = line("query", test, row)
    found = nearest(pack(codes[1][row : row + 1]), pack(codes[0]), k)
    pairs = zip(found.distance[0].tolist(), found.document[0].tolist(), strict=True)
    return "\n".join([head, *(line(str(distance), train, document) for distance, document in pairs)])
