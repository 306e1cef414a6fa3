"""Bars that are a table."""

from __future__ import annotations

import re

import pytest

from board import bars


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    bodies = list[str]()
    monkeypatch.setattr(bars.st, "html", bodies.append)
    return bodies


def lines(body: str) -> list[tuple[str, str, float, float, str]]:
    """Name, class, left and width in percent, and number of each."""
    found = re.findall(
        r'<th scope="row">(.*?)</th><td><i class="(.*?)" '
        r'style="margin-left: (.*?)%; width: (.*?)%"></i></td><td>(.*?)</td>',
        body,
    )
    return [(name, kind.strip(), float(x), float(w), text) for name, kind, x, w, text in found]


def test_the_largest_share_is_the_longest_and_what_was_drawn_is_solid(drawn: list[str]) -> None:
    bars.shares(["a <b>", "c"], [0.8, 0.2], "c")
    assert lines(drawn[0]) == [
        ("a &lt;b&gt;", "tb-faint", 0.0, 100.0, "80.0%"),
        ("c", "", 0.0, 25.0, "20.0%"),
    ]


def test_what_adds_goes_right_and_what_takes_away_left_of_the_same_line(drawn: list[str]) -> None:
    bars.contributions(["crime", "hour", "tv"], [0.3, -0.1, 0.1])
    assert lines(drawn[0]) == [
        ("crime", "", 25.0, 75.0, "+0.300"),
        ("tv", "", 25.0, 25.0, "+0.100"),
        ("hour", "tb-less", 0.0, 25.0, "−0.100"),
    ]


def test_nothing_has_no_length(drawn: list[str]) -> None:
    bars.shares(["a"], [0.0], "a")
    assert [line[3] for line in lines(drawn[0])] == [0.0]
