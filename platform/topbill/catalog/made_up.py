"""What a catalogue's file leaves out, made up deterministically from a title's id and genres, so
that a plain list of films can be tried at once: for demonstrations alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from topbill.catalog.pictures import Picture
from topbill.domain.chance import uniform

REGIONS = ("us", "gb", "de", "br", "in")
"""Regions of a catalogue that names none."""
TONES = ("warm", "cold", "dark")
"""Of the pictures of a title that names none."""
_RATINGS = (0, 7, 12, 16, 18)
_GROWN_UP = {"horror", "slasher", "crime", "thriller", "war", "noir"}
_FOR_ALL = {"family", "animated", "musical"}
_DAY = 86_400.0
# Titles are added in the six years from here on.
_START = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_SPAN = 6 * 365 * _DAY


def series(titles: Sequence[str]) -> list[str]:
    """The name that sequels share: the title up to a colon, without a number at its end."""
    return [
        re.sub(r"\s+(\d{1,2}|[IVX]+|Part \w+)$", "", title.split(":")[0]).strip()
        for title in titles
    ]


def age(title: str, genres: Sequence[str]) -> float:
    """A made-up least age: low for family films, high for crime and horror."""
    # A uniform number picks one of two or three neighbouring ratings.
    u = uniform("maturity", title)
    if _FOR_ALL.intersection(genres):
        return _RATINGS[int(2 * u)]
    if _GROWN_UP.intersection(genres):
        return _RATINGS[2 + int(3 * u)]
    return _RATINGS[1 + int(3 * u)]


def popularity(title: str) -> float:
    """Few titles are popular."""
    # The cube of a uniform number: one title in five lies above a half.
    return round(uniform("popularity", title) ** 3, 4)


def regions(title: str) -> tuple[str, ...]:
    """Everywhere, but for one title in seven."""
    if uniform("everywhere", title) < 0.85:
        return REGIONS
    return tuple(region for region in REGIONS if uniform("region", title, region) < 0.6)


def added(title: str) -> float:
    """Two in five titles are added some day of 2024 to 2029, the others were there before."""
    u = uniform("added", title)
    if u < 0.4:
        return float(_START + np.floor(u / 0.4 * _SPAN / _DAY) * _DAY)
    return _START - 365 * _DAY


def until(title: str) -> float:
    """One title in twenty goes in 2027 or 2028."""
    u = uniform("until", title)
    if u < 0.05:
        return float(_START + 3 * 365 * _DAY + np.floor(u / 0.05 * 730) * _DAY)
    return np.inf


def pictures(title: str, genres: Sequence[str]) -> tuple[Picture, ...]:
    """Three that differ in tone and faces. They come in no order of their own, so that the first
    one, which a page without an artwork experiment shows, is as good as any.
    """
    own: list[Picture] = []
    for tone in sorted(TONES, key=lambda tone: uniform("picture", title, tone)):
        features = {
            "tone": tone,
            "faces": int(3 * uniform("faces", title, tone)),
            # Warm pictures alone have a mood: that of the title's first genre.
            "mood": dict.fromkeys(genres[:1], 1) if tone == "warm" else {},
        }
        own.append(Picture(f"{title}/{tone}", features, {"image": f"{title}/{tone}.svg"}))
    return tuple(own)
