"""What speaks for titles: events on pages and elsewhere, by what the page file says each means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from topbill import lake
from topbill.candidates import Play, count
from topbill.candidates.cowatching import TASTE_HALF_LIFE
from topbill.domain.decision import unit_event_rows
from topbill.domain.records import UnitEvent
from topbill.pages import PageRequest, compose
from topbill.worker.candidate_signals import plays

from ...small_page import Home, home, home_class, lay

__all__ = ["home", "home_class"]


def event(number: int, unit: str, title: str | None, name: str, value: float = 1.0) -> UnitEvent:
    return UnitEvent(
        unit=unit,
        unit_type="account_id" if unit == "account" else "profile_id",
        event_id=str(number),
        event=name,
        value=value,
        action=title,
        occurred_at=number * 1_000_000,
    )


def test_events_weigh_what_the_page_file_says_and_never_below_nothing(
    home: Home, tmp_path: Path
) -> None:
    page = "signals: {play: 1, watch_fraction: 1, thumbs_up: 2, thumbs_down: -3}\n"
    home.write(page=(home.folder / "pages" / "home.yaml").read_text() + page, rules="")
    told = [
        ("u", "t05", "play", 1.0),
        ("u", "t05", "thumbs_up", 1.0),
        ("u", "t06", "play", 1.0),
        ("u", "t06", "thumbs_down", 0.25),
        ("u", "t07", "play", 1.0),
        ("u", "t07", "thumbs_down", 1.0),
        ("v", "t07", "watch_fraction", 0.5),
        ("u", None, "play", 1.0),
        ("u", "t08", "unknown word", 1.0),
        ("account", "t08", "play", 1.0),
    ]
    events = [(seq, event(seq, *each)) for seq, each in enumerate(told, 1)]
    data = tmp_path / "data"
    record = lake.Lake(data)
    record.append("events", unit_event_rows(events), len(events))
    record.write_database(home.experiments(), 1)
    file = home.file()
    found = plays(data, file, file.unit_types(home.experiments()))
    assert found == [
        Play("v", "t07", 7.0, "", 0.5),
        Play("u", "t06", 3.0, "", 0.25),
        Play("u", "t05", 2.0, "", 2.0),
        Play("u", "t05", 1.0, "", 1.0),
    ]
    signals = count(found, home.catalog(), 10.0)
    popular = dict(zip(signals.ids, signals.popular.tolist(), strict=True))
    assert [popular[title] for title in ("t05", "t06", "t07", "t08")] == [3.0, 0.25, 0.5, 0.0]


def test_a_play_elsewhere_is_of_the_region_of_the_viewer_s_last_page(
    home: Home, tmp_path: Path
) -> None:
    page = home.compiled_page()
    data = tmp_path / "data"
    decisions = []
    for number, region in enumerate(("us", "de")):
        request = msgspec.convert({"page": "home", "profile": "u", "region": region}, PageRequest)
        viewer = page.viewer(request, f"page-{number}")
        own = compose(page, request, viewer, f"page-{number}", home.now).decisions[0]
        decisions.append(msgspec.structs.replace(own, decided_at=(number + 1) * 1_000_000))
    lay(data, home.experiments(), decisions, [], 1)
    events = [(seq, event(seq, unit, "t05", "play")) for seq, unit in enumerate("uv", 1)]
    record = lake.Lake(data)
    record.append("events", unit_event_rows(events), len(events))
    record.write_database(home.experiments(), 2)
    found = plays(data, home.file(), ["profile_id"])
    assert {play.unit: play.region for play in found} == {"u": "de", "v": ""}


@pytest.mark.parametrize("value", [0.0, 5e-324, 1e-300, 1e-160, -1e-20, 1e-7, 1e300])
def test_no_value_of_an_event_spoils_what_all_plays_say(
    home: Home, tmp_path: Path, value: float
) -> None:
    told = [(f"v{number}", f"t{number % 7:02}", "play", 1.0) for number in range(40)]
    told += [(f"w{number}", f"t{number % 5:02}", "play", value) for number in range(20)]
    events = [(seq, event(seq, *each)) for seq, each in enumerate(told, 1)]
    record = lake.Lake(tmp_path / "data")
    record.append("events", unit_event_rows(events), len(events))
    record.write_database(home.experiments(), 1)
    left = plays(tmp_path / "data", home.file(), ["profile_id"])
    assert len(left) == (60 if abs(value) > 1e-6 else 40)
    together = count(left, home.catalog(), 100.0).together
    assert np.isfinite(together.factors).all()
    assert np.isfinite(together.ridge).all()


def test_a_viewer_s_old_plays_say_less_and_count_still(home: Home) -> None:
    """What u watched of late lies closer to what others watch together with it."""

    def together(age: float) -> Any:
        now = 10 * TASTE_HALF_LIFE
        both = [Play(f"v{i}", title, now) for i in range(3) for title in ("t10", "t11")]
        both += [Play(f"w{i}", title, now) for i in range(3) for title in ("t12", "t13")]
        own = [Play("u", "t10", now - age), Play("u", "t12", now)]
        signals = count([*both, *own], home.catalog(), now)
        rows = [home.catalog().index[title] for title in ("t10", "t12")]
        first, second = signals.together.factors[rows]
        return first @ second

    assert 0.0 < together(20 * TASTE_HALF_LIFE) < together(TASTE_HALF_LIFE) < together(0.0)
    # Whoever has been away has the same taste.
    assert together(0.0) == pytest.approx(together(0.0))
