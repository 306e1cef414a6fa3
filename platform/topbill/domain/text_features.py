"""Text as numbers: hashed n-grams of its words, or what a model makes of it, of unit length.

A title that nobody has shown yet has words that others had, and starts where those suggest. Signed
feature hashing (Weinberger et al. 2009) needs no vocabulary: what is declared is a number of
columns, and a new word adds to one of them.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from topbill.domain.chance import hash64
from topbill.domain.embedding import project
from topbill.domain.errors import PolicyError
from topbill.domain.records import Floats

LONGEST_TEXT = 10_000
"""Characters of a text that are read."""
MOST_WORDS = 2
"""Words of the longest n-gram."""
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_Numbers = tuple[tuple[int, float], ...]
TextEncoder: TypeAlias = Callable[[str], Floats]
"""A model of texts: a text → its vector (length,)."""
_encoders: dict[str, TextEncoder] = {}


def remember(digest: str, encoder: TextEncoder) -> None:
    """Know a model by the SHA-256 that features name it by."""
    _encoders[digest] = encoder


def words(text: str) -> list[str]:
    """The words of a text in small letters, composed alike whatever typed them.

    >>> words("You WON'T believe #7")
    ['you', "won't", 'believe', '7']
    """
    plain = unicodedata.normalize("NFKC", text[:LONGEST_TEXT]).casefold().replace("’", "'")
    return _WORD.findall(plain)


def text_numbers(text: str, size: int, encoder: str = "") -> _Numbers:
    """(column, number) of each column of `size` that is not 0: what the distinct n-grams of the
    text add up to, one for each with a sign of its own, scaled to unit length. With an `encoder`,
    by its SHA-256: its vector at unit length, projected to `size` where it is longer.

    Raises PolicyError where this process has not read that encoder, or it fails.
    """
    return _encoded(text, size, encoder) if encoder else _hashed(text, size)


@lru_cache(maxsize=65_536)
def _encoded(text: str, size: int, digest: str) -> _Numbers:
    encoder = _encoders.get(digest)
    if encoder is None:
        raise PolicyError(
            f"no encoder of SHA-256 {digest[:12]}… was read here; load the experiment from its "
            "file, with that model beside it"
        )
    vector = encoder(text[:LONGEST_TEXT])
    norm = float(np.sqrt(vector @ vector))
    if norm == 0.0:
        return ()
    # Rounded, so that the last bits of a processor's own arithmetic are none of what is learned.
    numbers = project((vector / norm)[None], size)[0].tolist()
    return tuple([(column, number) for column, number in enumerate(numbers) if number])


@lru_cache(maxsize=8_192)
def _hashed(text: str, size: int) -> _Numbers:
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
