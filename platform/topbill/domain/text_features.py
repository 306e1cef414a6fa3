"""Text as numbers: hashed n-grams of its words, of unit length.

A title that nobody has shown yet has words that others had, and starts where those suggest. Signed
feature hashing (Weinberger et al. 2009) needs no vocabulary: what is declared is a number of
columns, and a new word adds to one of them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from functools import lru_cache

from topbill.domain.chance import hash64

LONGEST_TEXT = 10_000
"""Characters of a text that are read."""
MOST_WORDS = 2
"""Words of the longest n-gram."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_Numbers = tuple[tuple[int, float], ...]


def words(text: str) -> list[str]:
    """The words of a text in small letters, composed alike whatever typed them.

    >>> words("You WON'T believe #7")
    ['you', "won't", 'believe', '7']
    """
    plain = unicodedata.normalize("NFKC", text[:LONGEST_TEXT]).casefold().replace("’", "'")
    return _WORD.findall(plain)


@lru_cache(maxsize=8_192)
def text_numbers(text: str, size: int) -> _Numbers:
    """(column, number) of each column of `size` that is not 0: what the distinct n-grams of the
    text add up to, one for each with a sign of its own, scaled to unit length.
    """
    own = words(text)
    grams = set()
    for length in range(1, MOST_WORDS + 1):
        for start in range(len(own) - length + 1):
            grams.add(" ".join(own[start : start + length]))
    columns: dict[int, float] = {}
    # In one order: the sums must have the same last bits in every process.
    for gram in sorted(grams):
        bits = hash64("text", gram)
        column = (bits >> 1) % size
        columns[column] = columns.get(column, 0.0) + (1.0 if bits & 1 else -1.0)
    norm = math.sqrt(math.fsum(number * number for number in columns.values()))
    if norm == 0.0:
        return ()
    return tuple((column, number / norm) for column, number in columns.items() if number)
