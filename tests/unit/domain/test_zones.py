"""Days of a time zone: those that its people have, on the days too on which clocks are turned."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import ab, spec
from topbill.domain.errors import BadRequest, SpecError
from topbill.domain.zones import checked_zone, day_sql, is_zone, local_sql, utc_sql
from topbill.reporting.queries.series import bucket_sql

OSLO = "Europe/Oslo"
UTC = UTC
ZONES = (OSLO, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "UTC")


@settings(max_examples=60)
@given(
    st.datetimes(datetime(2015, 1, 1), datetime(2034, 12, 31)).map(lambda t: t.replace(fold=0)),
    st.sampled_from(ZONES),
)
def test_a_day_is_what_the_calendar_on_the_wall_says(moment: datetime, zone: str) -> None:
    with duckdb.connect() as connection:
        (found,) = connection.execute(
            f"SELECT {day_sql('t', 'TIMESTAMP', zone)} FROM (SELECT $t::TIMESTAMP AS t)",  # noqa: S608
            {"t": moment},
        ).fetchone() or (None,)
    assert found == moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).date()


@settings(max_examples=60)
@given(st.dates(date(2015, 1, 1), date(2034, 12, 31)), st.sampled_from(ZONES))
def test_midnight_goes_there_and_back(day: date, zone: str) -> None:
    noon = datetime(day.year, day.month, day.day, 12)
    with duckdb.connect() as connection:
        (back,) = connection.execute(
            f"SELECT {utc_sql(local_sql('t', zone), zone)} FROM (SELECT $t::TIMESTAMP AS t)",  # noqa: S608
            {"t": noon},
        ).fetchone() or (None,)
    assert back == noon


def test_buckets_of_days_begin_at_midnight_on_days_of_23_and_25_hours_too() -> None:
    for first, hours in ((datetime(2026, 3, 29), 23), (datetime(2026, 10, 25), 25)):
        start = first.replace(tzinfo=ZoneInfo(OSLO)).astimezone(UTC).replace(tzinfo=None)
        # The first and the last second of the day, and the first of the next.
        moments = [start + timedelta(seconds=s) for s in (0, hours * 3600 - 1, hours * 3600)]
        with duckdb.connect() as connection:
            ends = connection.execute(
                f"SELECT {bucket_sql('t', 86_400, OSLO)} FROM (SELECT unnest($t) AS t)",  # noqa: S608
                {"t": moments},
            ).fetchall()
        end = start + timedelta(hours=hours)
        assert [row[0] for row in ends] == [end, end, end + timedelta(days=1)]


def rows(moments: list[datetime]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unit": range(len(moments)),
            "variant": ["a", "b"] * (len(moments) // 2),
            "moment": moments,
            "play": [0, 1, 1, 0] * (len(moments) // 4),
        }
    )


@pytest.mark.parametrize("is_aware", [False, True])
def test_the_split_by_day_is_of_the_zones_days(is_aware: bool) -> None:
    """Half an hour before and after midnight in Oslo are two days there, and one in UTC."""
    late, early = datetime(2026, 7, 1, 21, 30), datetime(2026, 7, 1, 22, 30)
    moments = [late] * 4 + [early] * 8
    if is_aware:
        moments = [m.replace(tzinfo=UTC).astimezone(ZoneInfo("Asia/Tokyo")) for m in moments]
    design = ab.Design(
        key="x",
        control="a",
        shares={"a": 0.5, "b": 0.5},
        metrics=(ab.MetricDesign(name="play", binary=True, weight=1.0),),
    )
    for zone, expected in (
        ("UTC", {"2026-07-01": 12}),
        (OSLO, {"2026-07-01": 4, "2026-07-02": 8}),
    ):
        found = ab.analyse(rows(moments), design, day="moment", time_zone=zone)
        days = {split.value: sum(split.counts.values()) for split in found.sample_ratio.days}
        assert days == expected


def test_an_unknown_zone_is_refused_with_the_nearest() -> None:
    for wrong, nearest in (
        ("Europe/Olso", OSLO),
        ("oslo", OSLO),
        ("europe/oslo", OSLO),
        ("New York", "America/New_York"),
    ):
        with pytest.raises(BadRequest, match=f"did you mean {nearest}"):
            checked_zone(wrong)
    with pytest.raises(BadRequest, match="expected a time zone such as Europe/Oslo"):
        checked_zone("nowhere at all")
    for odd in ("", "localtime", "../../etc/passwd", "/etc/localtime", "a\0b", "+01:00"):
        assert not is_zone(odd)


FILE = """
experiment: art
surface: artwork
time_zone: {}
actions: [{{id: a}}, {{id: b}}]
metrics: {{play: {{event: play, kind: binary, window: 30m}}}}
objective: {{play: 1}}
variants:
  old: {{policy: fixed, share: 50%, control: true}}
  new: {{policy: thompson, share: 50%}}
"""


def test_a_file_says_whose_days_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "art.yaml"
    path.write_text(FILE.format("Europe/Oslo"))
    found = spec.load(path)
    assert found.time_zone == OSLO
    path.write_text(FILE.format("UTC"))
    usual = spec.load(path)
    path.write_text(FILE.replace("time_zone: {}\n", "").format())
    silent = spec.load(path)
    # What is said as it is anyway is no new revision, and whose days are counted teaches nothing.
    assert usual.fingerprint == silent.fingerprint != found.fingerprint
    assert usual.learning_fingerprint == found.learning_fingerprint
    path.write_text(FILE.format("Europe/Olso"))
    with pytest.raises(SpecError, match=r"time_zone: got 'Europe/Olso'.*did you mean Europe/Oslo"):
        spec.load(path)
