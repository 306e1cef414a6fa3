"""With `hash_units: true` no file of the data folder holds an id as it was sent, and whoever asks
by the id finds what is stored.
"""

from __future__ import annotations

import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from starlette.testclient import TestClient

from topbill import backup
from topbill.cli.erasure import hash_
from topbill.domain.errors import LogError, SpecError
from topbill.formats import import_log
from topbill.lake import DATABASE, sql
from topbill.log.unit_ids import SALT, SETTINGS, UnitIds, known_unit_ids, unit_ids
from topbill.reporting import load_experiment_report
from topbill.reporting.queries import decisions
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.spec import from_raw, load_all
from topbill.worker.erasure import erase_unit, find_unit, unit_data
from topbill.worker.loop import Worker

from ...small_page import Home, home
from ...traces import traces

__all__ = ["home"]
MARK = "zq4711qz"
"""Written the same however text is escaped."""
VIEWER = f"o'brien \\ {MARK}"
FILE = """
experiment: art2
surface: artwork
unit: profile_id
exclude: {units: ["bot zq4711qz"]}
actions: [{id: face}, {id: chase}]
metrics:
  play: {event: play, kind: binary, window: 60s}
  spent: {from: {file: spent.csv, unit: who, value: eur}, kind: sum, cap: 9, window: 1d}
guardrails: [{metric: spent, better: lower, margin: 10%}]
objective: {play: 1.0}
variants:
  control: {policy: uniform, share: 50%, control: true}
  ours: {policy: uniform, share: 50%}
"""


@pytest.fixture
def settings(home: Home, tmp_path: Path) -> Settings:
    (home.folder / "art2.yaml").write_text(FILE)
    data = tmp_path / "data"
    data.mkdir()
    (data / SETTINGS).write_text("hash_units: true\n")
    return Settings(home.folder, data)


def caller(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), base_url="http://localhost:8600")


def ask(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def live(settings: Settings) -> None:
    """Everything that takes a unit's id, twice where the same id is to get the same answer."""
    order = {"experiment": "art2", "unit": VIEWER}
    page = {"page": "home", "profile": VIEWER, "account": f"a {MARK}", "page_id": "p1"}
    event = {"unit": VIEWER, "unit_type": "profile_id", "event": "session_start", "event_id": "e"}
    with caller(settings) as client:
        first = ask(client, "/v1/decide", **order, decision_id="d1")
        assert ask(client, "/v1/decide", **order, decision_id="d1") == first
        batch = ask(client, "/v1/decide/batch", decisions=[{**order, "decision_id": "d2"}])
        assert batch["decisions"][0]["variant"] == first["variant"]
        bot = ask(client, "/v1/decide", experiment="art2", unit=f"bot {MARK}")
        assert bot["reason"] == "excluded_unit"
        for number in range(20):
            ask(client, "/v1/decide", experiment="art2", unit=f"u{number} {MARK}")
        assert ask(client, "/v1/page", **page) == ask(client, "/v1/page", **page)
        ask(client, "/v1/page", page="home", session=f"guest {MARK}", page_id="p2")
        ask(client, "/v1/reward", decision_id="d1", event="play", event_id="r1")
        stored = ask(client, "/v1/event", **event)
        assert (stored["status"], stored["unit"]) == ("stored", VIEWER)
        assert ask(client, "/v1/event", **event)["status"] == "duplicate"
        ask(client, "/v1/event/batch", events=[{**event, "unit": f"other {MARK}"}])


def publish(settings: Settings) -> None:
    worker = Worker(settings.experiments, settings.data)
    worker.step()
    worker.finish()


def test_no_file_holds_an_id_and_operators_type_the_real_one(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    live(settings)
    assert list(traces(settings.data, MARK)) == []
    publish(settings)
    assert list(traces(settings.data, MARK)) == []
    assert stat.S_IMODE((settings.data / SALT).stat().st_mode) == 0o600

    rows = find_unit(settings.data, VIEWER)
    assert (set(rows.decisions), len(rows.rewards), len(rows.events)) == ({"d1", "d2"}, 1, 1)
    # A page's unit is the account's profile, as without hashes.
    assert "page-p1" in find_unit(settings.data, f"a {MARK}/{VIEWER}").decisions
    assert "page-p2" in find_unit(settings.data, f"guest/guest {MARK}").decisions
    assert len(unit_data(settings.data, VIEWER)["decisions"]) == 2
    hash_(VIEWER, data=settings.data)
    stored = capsys.readouterr().out.strip()
    assert len(decisions.of_unit(settings.data, VIEWER)) == 2
    assert len(decisions.of_unit(settings.data, stored)) == 2

    # The same salt goes with a backup, as secret as it was.
    backup.back_up(settings.data, tmp_path / "backups")
    assert list(traces(backup.backups(tmp_path / "backups")[0], MARK)) == []
    backup.restore(tmp_path / "backups", tmp_path / "restored")
    assert stat.S_IMODE((tmp_path / "restored" / SALT).stat().st_mode) == 0o600
    assert find_unit(tmp_path / "restored", VIEWER) == rows

    experiments = unit_ids(settings.data).in_experiments(load_all([settings.experiments]))
    erase_unit(settings.data, VIEWER, experiments=lambda: experiments)
    assert find_unit(settings.data, VIEWER).decisions == {}
    assert list(traces(settings.data, stored)) == []


def test_a_warehouse_is_joined_by_the_ids_that_it_knows(settings: Settings) -> None:
    live(settings)
    (settings.data / "tables").mkdir()
    lines = [f"u{number} {MARK},{number}" for number in range(20)]
    (settings.data / "tables" / "spent.csv").write_text("\n".join(["who,eur", *lines, ",1"]))
    publish(settings)
    report = load_experiment_report("art2", settings.data)
    (note,) = [note for note in report.notes if note.code == "table"]
    assert "20 of 21 rows count, of 20 units; left out: 1 without a unit" in note.sentence
    views = sql(settings.data / DATABASE, "SELECT spec FROM experiments").to_pylist()
    assert MARK not in str(views)


def test_an_import_is_hashed_likewise(tmp_path: Path) -> None:
    lines = [
        f"""{{"_label_cost": -1, "_label_probability": 0.5, "_label_Action": 1, "_labelIndex": 0,
        "Timestamp": "2026-01-01T00:00:00Z", "EventId": "e{number}", "a": [1, 2], "p": [0.5, 0.5],
        "c": {{"_multi": [{{"id": "x"}}, {{"id": "y"}}]}}, "who": "u{number % 2} {MARK}"}}"""
        for number in range(4)
    ]
    log = tmp_path / "log.dsjson"
    log.write_text("\n".join(line.replace("\n", "") for line in lines))
    data = tmp_path / "data"
    data.mkdir()
    (data / SETTINGS).write_text("hash_units: true")
    import_log(log, data, unit="who")
    units = sql(data / DATABASE, "SELECT DISTINCT unit FROM decisions ORDER BY unit").to_pylist()
    ids = known_unit_ids(data)
    assert {row["unit"] for row in units} == {ids.stored(f"u{n} {MARK}") for n in range(2)}


def test_a_folder_hashes_from_its_first_row_on_or_never(settings: Settings) -> None:
    (settings.data / SETTINGS).unlink()
    live(settings)
    (settings.data / SETTINGS).write_text("hash_units: true\n")
    with pytest.raises(LogError, match=r"rows whose units are not hashed.*new data folder"):
        create_app(settings)
    with pytest.raises(LogError, match="new data folder"):
        Worker(settings.experiments, settings.data)


def test_what_was_hashed_stays_hashed(settings: Settings) -> None:
    create_app(settings)
    (settings.data / SETTINGS).write_text("hash_units: false\n")
    with pytest.raises(LogError, match="cannot be undone"):
        create_app(settings)
    # Without a word on it, it goes on as it began.
    (settings.data / SETTINGS).unlink()
    assert unit_ids(settings.data).hashed
    (settings.data / SALT).chmod(0o644)
    with pytest.raises(LogError, match="chmod 600"):
        create_app(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hash_units: maybe", "got 'maybe'; expected true or false"),
        ("hash_unit: true", "expected hash_units: true, and nothing else"),
        ("- hash_units", "expected hash_units: true, and nothing else"),
        ("hash_units: [", "valid YAML"),
    ],
)
def test_settings_that_are_wrong_say_so(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / SETTINGS).write_text(text)
    with pytest.raises(LogError, match=message):
        unit_ids(tmp_path)


def test_in_an_experiment_it_is_told_where_it_belongs() -> None:
    with pytest.raises(SpecError, match=r"say it in settings[.]yaml of the data folder"):
        from_raw({"experiment": "a", "hash_units": True}, "a.yaml")


@settings_of_hypothesis(max_examples=20, deadline=None)
@given(units=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300)))
def test_sql_and_python_hash_alike(units: list[str]) -> None:
    ids = UnitIds(b"0123456789abcdef")
    # DuckDB's text ends at no character but its own end.
    known = [unit for unit in units if unit and "\0" not in unit]
    known += [ids.stored(unit) for unit in known]
    expression, parameters = ids.stored_sql("unit")
    query = f"SELECT {expression} AS stored FROM (SELECT unnest($units) AS unit)"  # noqa: S608
    with closing(duckdb.connect()) as connection:
        rows = connection.execute(query, {**parameters, "units": known}).fetchall()
    assert [row[0] for row in rows] == [ids.stored(unit) for unit in known]
    assert all(ids.stored(ids.stored(unit)) == ids.stored(unit) for unit in known)


KNOWN_BY_ID = """
experiment: art3
surface: artwork
unit: profile_id
entities:
  viewers:
    {file: viewers.csv, key: who, of: unit, features: {plan: {type: category, values: [a, b]}}}
actions: [{id: face}, {id: chase}]
metrics:
  play: {event: play, kind: binary, window: 60s}
objective: {play: 1.0}
variants:
  ours: {policy: uniform, control: true, share: 100%}
"""


def test_tables_of_units_are_keyed_by_ids_as_callers_send_them(settings: Settings) -> None:
    """In calls of decisions and of pages, and no file but the table that is the caller's own has
    the id."""
    (settings.experiments / "art3.yaml").write_text(KNOWN_BY_ID)
    titles = settings.experiments / "pages" / "home" / "titles.yaml"
    section = [line for line in KNOWN_BY_ID.splitlines() if "viewers" in line or "entities" in line]
    titles.write_text(titles.read_text() + "\n".join(section) + "\n")
    tables = settings.data / "tables"
    tables.mkdir()
    text = f'who,plan\n"{VIEWER}",b\n"a {MARK}/{VIEWER}",a\n'
    (tables / "viewers.csv").write_text(text)
    with caller(settings) as client:
        for unit, plan in ((VIEWER, "b"), ("somebody else", None)):
            decided = ask(client, "/v1/decide", experiment="art3", unit=unit)
            stored = client.get(f"/v1/decisions/{decided['decision_id']}").json()
            assert stored["context"].get("plan") == plan
            assert stored["entities"][0]["unknown"] == int(plan is None)
        page = ask(client, "/v1/page", page="home", profile=VIEWER, account=f"a {MARK}")
        row = client.get(f"/v1/decisions/{page['page_id']}:{page['rows'][0]['row']}").json()
        assert row["context"]["plan"] == "a"
    for path in settings.data.rglob("*"):
        if path.is_file() and path.name != "viewers.csv":
            assert MARK.encode() not in path.read_bytes(), path
