"""How far pages follow what their viewers watch."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from topbill.catalog import Catalog
from topbill.domain.errors import NotFound
from topbill.domain.records import RewardEvent
from topbill.reporting.calibration import (
    calibration_table,
    exposure_table,
    page_calibration,
    page_exposure,
)

from ...small_page import home, lay

__all__ = ["home"]
NOW = 1_790_000_000_000_000


def test_a_page_is_measured_against_what_its_viewer_had_played(home: Any, tmp_path: Any) -> None:
    compiled_page = home.compiled_page()
    decisions, events = [], []
    for number in range(4):
        for seconds in (0, 100):
            page = home.compose(compiled_page, number)
            own = page.decisions[0]
            decisions.append(
                msgspec.structs.replace(
                    own,
                    decision_id=f"{own.decision_id}-{seconds}",
                    decided_at=NOW + seconds * 1_000_000,
                )
            )
        # A comedy (t04, t08), between the two pages; of viewer 3 nothing.
        if number < 3:
            events.append(
                RewardEvent(
                    decision_id=decisions[-2].decision_id,
                    event_id=f"e{number}",
                    event="play",
                    action="t04",
                    occurred_at=NOW + 50_000_000,
                    received_at=NOW + 50_000_000,
                )
            )
    lay(tmp_path / "data", home.experiments(), decisions, events, NOW + 1_000_000_000)
    (found,) = page_calibration("home", tmp_path / "data", compiled_page.catalog)
    # First pages come before the play.
    assert (found.variant, found.viewers, found.pages) == ("only", 3, 3)
    catalog = compiled_page.catalog
    shares = []
    for decision in decisions[1:6:2]:
        titles = [placed.action for placed in decision.slate]
        own = [catalog.genres[catalog.index[title]] for title in titles]
        comedy = catalog.genre_names.index("comedy")
        shares.append(sum(genres[comedy] / genres.sum() for genres in own) / len(own))
    assert found.own.mean == pytest.approx(sum(shares) / 3)
    expected = [-math.log(0.99 * share + 0.01) for share in shares]
    assert found.divergence.mean == pytest.approx(sum(expected) / 3)
    assert found.divergence.low <= found.divergence.mean <= found.divergence.high
    assert 0.0 <= found.new.mean <= 1.0 - found.own.mean + 1e-9
    (line,) = list(calibration_table([found]).columns[0].cells)
    assert line == "only"
    _check_exposure(home, decisions, tmp_path / "data")
    assert page_exposure("home", tmp_path / "data", catalog) == ()
    with pytest.raises(NotFound):
        page_calibration("elsewhere", tmp_path / "data", catalog)


def _check_exposure(home: Any, decisions: list[Any], data: Any) -> None:
    """Of a catalogue of whose titles the first half is north's, every third shared with south, and
    of whose last one nobody says whose it is."""
    rows = home.file().read_table()
    north = ["north|south" if row % 3 == 0 else "north" for row in range(30)]
    cells = north + ["[south]"] * 29 + [None]
    catalog = Catalog(rows.append_column("provider", pa.array(cells)), "titles.csv")
    of_title = dict(zip(rows["id"].to_pylist(), cells, strict=True))
    expected = []
    for decision in decisions:
        names = [(of_title[placed.action] or "").split("|") for placed in decision.slate]
        expected.append(sum(("north" in own) / len(own) for own in names) / len(names))
    found = {one.provider: one for one in page_exposure("home", data, catalog)}
    assert found["north"].placed.mean == pytest.approx(sum(expected) / len(expected))
    assert (found["north"].catalogue, found[""].catalogue) == (25 / 60, 1 / 60)
    assert sum(one.placed.mean for one in found.values()) == pytest.approx(1.0)
    names = list(exposure_table([*found.values()]).columns[1].cells)
    assert sorted(names) == ["(unknown)", "\\[south]", "north", "south"]
