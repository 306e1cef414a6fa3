"""The small picture of a lift on a card of Home."""

from __future__ import annotations

import re
from base64 import b64decode
from datetime import datetime, timedelta

import pandas as pd
import pytest

from board import sparkline, style

START = datetime(2026, 9, 21, 14, 0)
FRAME = pd.DataFrame(
    {
        "till": [START + timedelta(minutes=minute) for minute in (0, 10, 20)],
        "relative": [0.5, 0.1, 0.2],
        "relative_low": [-0.5, -0.1, 0.1],
        "relative_high": [1.5, 0.4, 0.3],
    }
)
NONE = pd.DataFrame(columns=["at", "label", "sentence"])


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "dark", lambda: False)


def svg_of(html: str) -> str:
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    assert found is not None
    return b64decode(found.group(1)).decode()


def test_a_lift_is_drawn_from_left_to_right_and_more_is_higher() -> None:
    svg = svg_of(sparkline.sparkline(FRAME, NONE, "Chart: lift."))
    line = re.search(r'<polyline points="([^"]+)"', svg)
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.group(1).split()]
    assert [x for x, _ in points] == [0.0, 200.0, 400.0]
    # From 0.54, which is 1.8 times the last interval's end, to -0.02.
    assert points[1][1] == pytest.approx((0.54 - 0.1) / 0.56 * 90, abs=0.06)
    assert points[0][1] < points[2][1] < points[1][1]
    zero = re.search(r'd="M0 ([\d.]+)H400"', svg)
    assert zero is not None
    assert points[1][1] < float(zero.group(1))


def test_milestones_of_its_time_have_a_line_and_words() -> None:
    marks = pd.DataFrame(
        {
            "at": [START - timedelta(minutes=2), START - timedelta(days=1)],
            "label": ["", ""],
            "sentence": ['launched by "<b>"', "long before"],
        }
    )
    html = sparkline.sparkline(FRAME, marks, 'of "a" & b')
    # The picture begins with the milestone, a little before the first point.
    assert '<i style="left: 0.0%" title="launched by &quot;&lt;b&gt;&quot;"></i>' in html
    assert "long before" not in html
    assert 'alt="of &quot;a&quot; &amp; b"' in html
    assert '<polyline points="36.4,' in svg_of(html)


@pytest.mark.parametrize(
    ("bottom", "top", "expected"),
    [
        (-0.02, 0.54, [0.5, 0.0]),
        (-1.0, 12.24, [10.0, 0.0]),
        (-0.53, 4.74, [2.0, 0.0]),
        (-0.38, 0.4, [0.2, -0.2, 0.0]),
        (-0.02, 0.02, [0.01, -0.01, 0.0]),
    ],
)
def test_levels_are_round_and_have_room(bottom: float, top: float, expected: list[float]) -> None:
    assert sparkline.levels(bottom, top) == pytest.approx(expected)


def test_levels_stand_where_the_lift_does() -> None:
    html = sparkline.sparkline(FRAME, NONE, "Chart: lift.")
    assert re.findall(r'top: ([\d.]+)%">([^<]+)<', html) == [("7.1", "+50%"), ("96.4", "0%")]
