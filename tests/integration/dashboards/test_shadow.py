"""Health tells what variants in shadow would have done."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from test_pages import said, tables

from topbill.domain.records import Decision
from topbill.engine import DecideRequest, Engine
from topbill.reporting.queries.shadows import shadows
from topbill.spec import Experiment, from_raw
from topbill.testing import publish


def decided(engine: Engine, number: int) -> Decision:
    body = {"experiment": "home-artwork", "unit": f"u{number}", "context": {"device": "tv"}}
    request = msgspec.json.decode(json.dumps(body), type=DecideRequest)
    decision = engine.decide(request)
    (thompson, *others) = decision.shadows
    if number % 10 == 0:
        failed = type(thompson)(thompson.variant, failure="late" if number else "ValueError")
        decision = msgspec.structs.replace(decision, shadows=(failed, *others))
    return msgspec.structs.replace(decision, decided_at=1_790_000_000_000_000 + number * 1_000_000)


@pytest.fixture(scope="module")
def shadowed(examples: dict[str, Experiment], tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = examples["home-artwork"].raw
    launch = {"shadow": "24h", "ramp": ["10%", "100%"]}
    experiment = from_raw({**raw, "launch": launch}, "home-artwork.yaml")
    engine = Engine([experiment], clock=lambda: 0.0)
    data = tmp_path_factory.mktemp("shadowed")
    publish(data, [experiment], [decided(engine, number) for number in range(200)])
    return data


def test_health_tells_how_fast_they_were_and_what_they_would_show(shadowed: Path, open_app) -> None:
    app = open_app(shadowed, "health", experiment="home-artwork")
    assert [e.message for e in app.exception] == []
    assert "Shadow: variants that nobody sees yet" in said(app)
    assert "In shadow" in said(app)
    assert "No traffic" not in said(app)
    table = next(table for table in tables(app) if "would show the same" in table)
    first = table.set_index("variant").loc["thompson"]
    assert (first["decisions"], first["too late"]) == ("200", "9.50%")
    assert first["failed"] == "0.50% (ValueError)"


def test_the_record_gives_the_same_numbers(shadowed: Path) -> None:
    thompson = next(
        each for each in shadows(shadowed, "home-artwork") if each.variant == "thompson"
    )
    assert (thompson.decisions, thompson.late, thompson.failed) == (200, 19, 1)
    assert thompson.error == "ValueError"
    assert 0.0 < (thompson.shows_the_same or 0.0) < 1.0
    assert shadows(shadowed, "nobody") == []


def test_where_nobody_was_in_shadow_nothing_is_said_of_it(demo: Path, open_app) -> None:
    assert "Shadow: variants" not in said(open_app(demo, "health", experiment="home-artwork"))
