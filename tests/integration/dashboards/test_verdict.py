"""The Verdict page: its picture, its days, its link, and what it says where there is little to be
said.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import streamlit
from test_pages import said, tables

KEY = "phased"


def test_the_days_in_the_address_are_those_that_are_spoken_of(phased: Path, open_app) -> None:
    whole = open_app(phased, "verdict", experiment=KEY)
    part = open_app(phased, "verdict", experiment=KEY, first_day="2024-10-05")
    apps = (whole, part)
    for app in apps:
        assert [e.message for e in app.exception] == []
    assert "from 2024-10-05" in said(part)
    assert "This is a part of the record" not in said(whole)
    units = []
    for app in apps:
        number = re.findall(r"([\d,]+) units with", said(app))[0]
        units.append(int(number.replace(",", "")))
    assert 0 < units[1] < units[0]


def test_a_last_day_before_the_first_is_refused(phased: Path, open_app) -> None:
    days = {"first_day": "2024-10-05", "last_day": "2024-10-03"}
    app = open_app(phased, "verdict", experiment=KEY, **days)
    assert [e.message for e in app.exception] == []
    assert "expected the first day, 2024-10-05, or a later one" in app.warning[0].value


def test_the_link_is_of_the_experiment_and_the_days(phased: Path, open_app) -> None:
    app = open_app(phased, "verdict", experiment=KEY, first_day="2024-10-05")
    share = next(e.proto.body for e in app.get("html") if "Copy link" in e.proto.body)
    assert '"?experiment=phased&first_day=2024-10-05"' in share


def test_where_units_were_not_split_as_intended_no_lift_stands(uneven: Path, open_app) -> None:
    app = open_app(uneven, "verdict", experiment="home-artwork")
    assert [e.message for e in app.exception] == []
    found = tables(app)
    assert not any("lift" in table for table in found)
    assert any("intended" in table for table in found)
    # Where no interval stands, nothing is said of intervals.
    told = " ".join(e.value for e in app.caption)
    assert "Sample ratio mismatch (SRM)." in told
    assert "Intervals" not in told
    analyst = open_app(uneven, "experiment", experiment="home-artwork")
    every = next(t for t in tables(analyst) if "probability to beat control" in t)
    assert set(every["probability to beat control"]) == {"–"}
    # Regret is a comparison as well.
    bandit = open_app(uneven, "bandit", experiment="home-artwork")
    assert not any("regret" in table for table in tables(bandit))
    assert any("no variant is the best" in e.value for e in bandit.caption)
    # Whoever doubts the record finds it there too.
    health = open_app(uneven, "health", experiment="home-artwork")
    assert any("intended" in table for table in tables(health))


def test_before_any_decision_it_says_what_to_do(demo: Path, open_app) -> None:
    app = open_app(demo, "verdict", experiment="quiet")
    assert [e.message for e in app.exception] == []
    assert "Set status: running" in said(app).replace("`", "")
    assert "0 units with" not in said(app)


def test_the_picture_says_what_the_page_says(phased: Path, open_app, monkeypatch) -> None:
    pytest.importorskip("vl_convert", reason="vl-convert-python is not installed")
    from board import verdict_picture

    drawn = []
    real = verdict_picture.picture
    monkeypatch.setattr(verdict_picture, "picture", lambda *a: drawn.append(real(*a)) or drawn[-1])
    saved = {}
    button = streamlit.download_button
    monkeypatch.setattr(
        streamlit,
        "download_button",
        lambda label, data, *a, **k: saved.update({label: data}) or button(label, data, *a, **k),
    )
    app = open_app(phased, "verdict", experiment=KEY)
    assert [e.message for e in app.exception] == []
    # It is made once it is asked for.
    assert drawn == []
    image = saved["PNG"]()
    chart = drawn[-1].to_dict()
    texts = [row["text"] for rows in chart["datasets"].values() for row in rows if "text" in row]
    told = " ".join(texts)
    assert "Shares changed on the way" in texts
    assert "Leading, guardrails pending" in texts
    assert "thompson beats editorial" in told
    assert "abandon, thompson: inconclusive" in told
    assert "No sample ratio mismatch (SRM)" in told
    assert image.startswith(b"\x89PNG")
    # Two pixels for each of the chart's own, as sharp as a slide.
    assert int.from_bytes(image[16:20], "big") >= 1_720
