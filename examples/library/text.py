"""Counts words in text. Plain functions, not jobs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMON = frozenset(
    [
        "the",
        "and",
        "for",
        "that",
        "this",
        "with",
        "are",
        "not",
        "you",
        "can",
        "from",
        "have",
        "will",
        "but",
        "all",
        "any",
        "use",
    ]
)


def words_of(text: str) -> Counter[str]:
    """How often each word of three letters or more occurs in ``text``, without the most common English words."""
    words = Counter(word.lower() for word in _WORD.findall(text))
    for word in _COMMON:
        del words[word]
    return words


def most_telling(documents: Iterable[Counter[str]], count: int) -> list[str]:
    """The words that describe these documents best: frequent, and in several of them, but not in every one."""
    documents = list(documents)
    total: Counter[str] = Counter()
    spread: Counter[str] = Counter()
    for words in documents:
        total.update(words)
        spread.update(words.keys())
    weight = {word: uses * (1 + len(documents) - spread[word]) / (1 + len(documents)) for word, uses in total.items()}
    return sorted(weight, key=lambda word: (-weight[word], word))[:count]
