"""Import and export: what goes out comes back the same, an interruption costs nothing, and mixing
is refused.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from topbill import cli, formats, lake, spec
from topbill.cli import transfer
from topbill.domain.errors import BadData, BadRequest, LogError, NotFound, TopbillError
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats import (
    arrow_rows,
    ccb,
    dsjson,
    export_log,
    import_log,
    lake_export,
    lake_import,
    obp_archive,
    registry,
)
from topbill.formats.parts import write_parquet_file
from topbill.ope import evaluate

from ... import processes
from ...processes import python

Row = tuple[Decision, list[RewardEvent]]
WHOLE = [entry.name for entry in registry.FORMATS.values() if entry.is_whole]
SPEC = """
experiment: home
surface: artwork
context:
  device: {type: category, values: [tv, web]}
actions:
  - {id: a}
  - {id: b}
  - {id: c}
metrics:
  play: {event: play, kind: binary, window: 1h}
objective: {play: 1.0}
variants:
  even: {policy: uniform, share: 100%, control: true}
"""


def logged(number: int, slots: int = 1) -> Row:
    """A decision by chance, played more when it showed `a`."""
    ids = ("a", "b", "c")
    order = [ids[(number + k) % 3] for k in range(slots)]
    key = f"d{number}"
    at = 1_790_000_000_000_000 + number * 1_000_000
    p = 1.0
    for k in range(slots):
        p /= 3 - k
    decision = Decision(
        decision_id=key,
        experiment="home",
        revision="r1",
        variant="even",
        unit=f"u{number % 50}",
        context=msgspec.Raw(b'{"device":"tv"}' if number % 2 else b'{"device":"web"}'),
        eligible=ids,
        slate=tuple(Placement(k, action, 1 / (3 - k)) for k, action in enumerate(order)),
        propensity=p,
        probabilities=tuple(
            tuple(0.0 if action in order[:k] else 1 / (3 - k) for action in ids)
            for k in range(slots)
        ),
        policy="uniform",
        reason="policy",
        decided_at=at,
    )
    played = number % 2 if order[0] == "a" else number % 5 == 0
    event = RewardEvent(
        decision_id=key,
        event_id="e",
        event="play",
        action=order[0],
        position=0,
        occurred_at=at + 5,
        received_at=at + 9,
    )
    return decision, [event] if played else []


def write(path: Path, rows: list[Row]) -> Path:
    """A dsjson file."""
    path.write_bytes(
        b"".join(dsjson.dump_line(*row, {name: {} for name in "abc"}) + b"\n" for row in rows)
    )
    return path


@pytest.fixture
def experiments(tmp_path: Path) -> list[spec.Experiment]:
    (tmp_path / "home.yaml").write_text(SPEC)
    return [spec.load(tmp_path / "home.yaml")]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_import, "BATCH", 50)
    monkeypatch.setattr(lake_import, "BATCHES", 2)
    monkeypatch.setattr(lake_export, "BATCH", 70)
    monkeypatch.setattr(lake_export, "WINDOW", 150)


def stored(data: Path) -> tuple[int, int]:
    connection = lake.connect(data / lake.DATABASE)
    counts = [
        connection.execute(f"SELECT count(*) FROM {t}").fetchall()[0][0]  # noqa: S608
        for t in ("decisions", "rewards")
    ]
    connection.close()
    return counts[0], counts[1]


# ---------------------------------------------------------------------- round trips


def round_trips() -> list[tuple[str, int]]:
    """Every registered format, with decisions of one placement, and of two where it takes them."""
    trips = []
    for entry in registry.FORMATS.values():
        if not entry.reader:
            continue
        trips.append((entry.name, 1))
        if entry.slates:
            trips.append((entry.name, 2))
    return trips


@pytest.mark.parametrize(("chosen", "slots"), round_trips(), ids=str)
def test_an_export_imported_again_is_the_same_log(
    tmp_path: Path, experiments: list[spec.Experiment], chosen: Any, slots: int
) -> None:
    rows = [logged(i, slots) for i in range(250)]
    source = tmp_path / "in.dsjson"
    if slots == 1:
        write(source, rows)
    else:
        source.write_bytes(
            b"".join(ccb.dump_line(*row, {name: {} for name in "abc"}) + b"\n" for row in rows)
        )
    assert import_log(source, tmp_path / "first", experiments=experiments) == 250
    target = tmp_path / "target"
    assert export_log("home", tmp_path / "first", target, format=chosen) == 250
    exported = list(formats.read(target, chosen, "home"))
    if registry.FORMATS[chosen].is_whole:
        assert exported == rows
    # What kept numbers only has lost names and times: from then on it loses nothing more.
    second = tmp_path / "second"
    assert import_log(target, second, format=chosen, key="home", experiments=experiments) == 250
    assert stored(second) == (250, sum(len(events) for _, events in rows))
    again = tmp_path / "again"
    assert export_log("home", second, again, format=chosen) == 250
    assert list(formats.read(again, chosen, "home")) == exported


@pytest.mark.parametrize("chosen", registry.FORMATS)
def test_a_format_says_truly_whether_it_takes_slates(
    tmp_path: Path, experiments: list[spec.Experiment], chosen: Any
) -> None:
    source = tmp_path / "in.dsjson"
    lines = [ccb.dump_line(*logged(i, 2), {name: {} for name in "abc"}) for i in range(5)]
    source.write_bytes(b"\n".join(lines))
    import_log(source, tmp_path / "data", experiments=experiments)
    if registry.FORMATS[chosen].slates:
        assert export_log("home", tmp_path / "data", tmp_path / "out", format=chosen) == 5
    else:
        with pytest.raises(BadData, match="slate of 2"):
            export_log("home", tmp_path / "data", tmp_path / "out", format=chosen)


def test_what_was_imported_can_be_evaluated(
    tmp_path: Path, experiments: list[spec.Experiment]
) -> None:
    rows = [logged(i) for i in range(600)]
    import_log(write(tmp_path / "log.dsjson", rows), tmp_path / "data", experiments=experiments)
    found = evaluate("home", "always a", tmp_path / "data").as_dict()
    text = json.dumps(found)
    assert '"ips"' in text
    truth = sum(bool(e) for d, e in rows if d.slate[0].action == "a") / 200
    (estimate,) = [e for e in _estimates(found["targets"]) if e["estimator"] == "ips"]
    assert estimate["value"] == pytest.approx(truth, abs=0.02)


def _estimates(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        if "estimator" in found and "value" in found:
            yield found
        for part in found.values():
            yield from _estimates(part)
    elif isinstance(found, list):
        for part in found:
            yield from _estimates(part)


def test_open_bandit_csv_is_read_in_batches_with_its_propensities(tmp_path: Path) -> None:
    lines = ["timestamp,item_id,position,click,propensity_score,user_feature_0"]
    lines += [
        f"2019-11-24 00:00:{i:02d}.000001+00:00,{i % 4},{1 + i % 3},{int(i == 7)},0.25,x{i % 2}"
        for i in range(50)
    ]
    (tmp_path / "obd.csv").write_text("\n".join(lines) + "\n")
    rows = list(formats.read(tmp_path / "obd.csv", "open-bandit", "obd"))
    assert len(rows) == 50
    decision, events = rows[7]
    assert (decision.slate, decision.eligible) == ((Placement(0, "3", 0.25),), ("0", "1", "2", "3"))
    assert json.loads(bytes(decision.context)) == {"position": "1", "user_feature_0": "x1"}
    assert [e.value for e in events] == [1.0]
    assert import_log(tmp_path / "obd.csv", tmp_path / "data", key="obd") == 50
    assert stored(tmp_path / "data") == (50, 1)


def feedback(n: int, slots: int = 1) -> dict[str, Any]:
    """obp's feedback of n rounds, whose rows are in order and whose numbers are exact in decimal
    text.
    """
    rng = np.random.default_rng(3)
    action = np.array([rng.permutation(5)[:slots] for _ in range(n)]).ravel()
    context = np.repeat(rng.integers(-99, 99, (n, 2)) / 8, slots, axis=0)
    reward = rng.integers(0, 3, n * slots) / 2.0
    action[: 5 // slots * slots] = np.arange(5 // slots * slots)
    if slots == 1:
        place = rng.integers(0, 3, n)
        return {
            "n_rounds": n, "n_actions": 5, "action": action, "position": place, "reward": reward,
            "pscore": rng.integers(1, 9, n) / 8, "context": context,
        }  # fmt: skip
    cascade = np.cumprod(rng.integers(1, 5, (n, slots)) / 4, axis=1)
    return {
        "n_rounds": n, "n_unique_action": 5, "slate_id": np.repeat(np.arange(n), slots),
        "action": action, "position": np.tile(np.arange(slots), n), "reward": reward,
        "pscore_cascade": cascade.ravel(), "pscore": np.repeat(cascade[:, -1], slots),
        "context": context,
    }  # fmt: skip


@pytest.mark.parametrize(("chosen", "slots"), [("obp", 1), ("obp-slate", 3)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_obps_arrays_come_back_as_they_went_in(
    tmp_path: Path, chosen: Any, slots: int, save: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obp_archive, "_AT_ONCE", 500)  # which no slate of three ends at
    sent = feedback(1_600, slots)
    save(tmp_path / "in.npz", **sent, pi_b=None, action_context=None)
    assert import_log(tmp_path / "in.npz", tmp_path / "data", key="obp") == 1_600
    calls = 0

    def dying(done: int, total: int | None) -> None:
        nonlocal calls
        calls += 1
        if calls % 6 == 0:
            raise KeyboardInterrupt

    for _ in range(20):
        with suppress(KeyboardInterrupt):
            export_log(
                "obp", tmp_path / "data", tmp_path / "out.npz", format=chosen, progress=dying
            )
            break
    assert calls > 18
    back = dict(np.load(tmp_path / "out.npz"))
    assert back.keys() == sent.keys()
    for name, value in sent.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-12, err_msg=name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "in.npz", "out.npz"]


def test_a_context_for_each_slate_is_as_good_as_one_for_each_row(tmp_path: Path) -> None:
    sent = feedback(3_000, 3)
    np.savez(tmp_path / "rows.npz", **sent)
    np.savez(
        tmp_path / "slates.npz", **{**sent, "context": np.asfortranarray(sent["context"][::3])}
    )
    rows, slates = (
        list(formats.read(tmp_path / f"{n}.npz", "obp", "k")) for n in ("rows", "slates")
    )
    assert rows == slates
    for skip in (1, 700, 2_999, 3_000):
        assert list(formats.read(tmp_path / "rows.npz", "obp", "k", skip=skip)) == rows[skip:]


def test_an_open_bandit_csv_comes_back_as_it_went_in(tmp_path: Path) -> None:
    lines = ["timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1"]
    lines += [
        f"2019-11-24 00:{i // 60:02d}:{i % 60:02d}.000001+00:00,"
        f'{i % 4},{1 + i % 3},{i % 7 == 0:d},0.25,"x,{i % 2}",{i}'
        for i in range(300)
    ]
    (tmp_path / "in.csv").write_text("\n".join(lines) + "\n")
    assert import_log(tmp_path / "in.csv", tmp_path / "data", key="obd") == 300
    assert export_log("obd", tmp_path / "data", tmp_path / "out.csv", format="open-bandit") == 300
    assert (tmp_path / "out.csv").read_text() == (tmp_path / "in.csv").read_text()


def test_named_actions_and_features_become_numbers_and_columns(
    tmp_path: Path, experiments: list[spec.Experiment]
) -> None:
    rows = [logged(i) for i in range(200)]
    import_log(write(tmp_path / "log.dsjson", rows), tmp_path / "data", experiments=experiments)
    assert export_log("home", tmp_path / "data", tmp_path / "out.npz", format="obp") == 200
    back = np.load(tmp_path / "out.npz")
    assert back["action"].tolist() == ["abc".index(d.slate[0].action) for d, _ in rows]
    assert back["context"].tolist() == [
        [1.0, 0.0] if i % 2 == 0 else [0.0, 1.0] for i in range(200)
    ]
    assert back["reward"].tolist() == [float(len(events)) for _, events in rows]
    assert export_log("home", tmp_path / "data", tmp_path / "out.csv", format="open-bandit") == 200
    first = (tmp_path / "out.csv").read_text().splitlines()[:2]
    assert first[0].endswith("propensity_score,user_feature_device")
    assert first[1].endswith(",0,1,0,0.33333333333333331,web")


# ---------------------------------------------------------------------- untidy logs


@pytest.mark.parametrize("chosen", ["dsjson", "parquet"])
def test_a_decision_that_is_there_twice_is_counted_once(tmp_path: Path, chosen: str) -> None:
    """As at-least-once joins write it; the second may be far away from the first."""
    rows = [logged(i) for i in range(300)]
    source = write_as(tmp_path, chosen, [*rows, rows[0], *rows[100:150], rows[0]])
    left_out: Counter[str] = Counter()
    assert import_log(source, tmp_path / "data", format=chosen, left_out=left_out) == 300
    assert left_out == {"repeated decisions": 52}
    assert stored(tmp_path / "data") == (300, sum(len(events) for _, events in rows))
    again: Counter[str] = Counter()
    assert import_log(source, tmp_path / "data", format=chosen, left_out=again) == 300
    assert again == left_out, "it is kept with what was imported"


@pytest.mark.parametrize(
    ("chosen", "first", "second"),
    [("dsjson", "line 10", "line 13"), ("parquet", "row 7", "row 10")],
)
@pytest.mark.parametrize("changed", ["slate", "reward"])
def test_two_decisions_of_one_id_are_refused_and_both_named(
    tmp_path: Path, chosen: str, first: str, second: str, changed: str
) -> None:
    rows = [logged(i) for i in range(10)]
    decision, events = rows[7]
    if changed == "slate":
        decision = msgspec.structs.replace(decision, slate=(Placement(0, "c", 1 / 3),))
    else:
        events = [RewardEvent(decision_id="d7", event_id="e", event="play", value=9.0)]
    source = write_as(tmp_path, chosen, [*rows, (decision, events)])
    if chosen == "dsjson":
        # Blank lines and marks count as lines, as an editor shows them.
        content = source.read_bytes()
        source.write_bytes(content.replace(b"\n", b"\n\n[CHECKPOINT INFO LINE]\n", 1))
    with pytest.raises(BadData, match=f"{second}: got decision 'd7' again, unlike that of {first}"):
        import_log(source, tmp_path / "data", format=chosen)


def test_an_event_that_is_there_twice_is_counted_once_and_another_one_refused(
    tmp_path: Path,
) -> None:
    rows = [logged(i) for i in range(20)]
    decision, (event, *_) = next(row for row in rows if row[1])
    source = write_as(tmp_path, "parquet", [(decision, [event, event])])
    left_out: Counter[str] = Counter()
    assert import_log(source, tmp_path / "data", format="parquet", left_out=left_out) == 1
    assert left_out == {"repeated events": 1}
    assert stored(tmp_path / "data") == (1, 1)
    other = msgspec.structs.replace(event, value=event.value + 1)
    (tmp_path / "b").mkdir()
    source = write_as(tmp_path / "b", "parquet", [(decision, [event, other])])
    with pytest.raises(BadData, match=r"row 0: got event 'e' of decision 'd\d+' twice, and not"):
        import_log(source, tmp_path / "b" / "data", format="parquet")


def write_as(folder: Path, chosen: str, rows: list[Row]) -> Path:
    """The rows as a file, in their order."""
    path = folder / f"log.{chosen}"
    if chosen == "parquet":
        write_parquet_file(arrow_rows.to_table(rows), path)
        return path
    return write(path, rows)


@pytest.mark.parametrize("name", ["log.dsjson", "log.dsjson.gz"])
def test_a_log_as_a_joiner_writes_it_is_read(tmp_path: Path, name: str) -> None:
    """A mark of byte order, deferred and repeated decisions, marks and rewards without one;
    whatever dies between, each is counted once."""
    rows = [logged(i) for i in range(300)]
    lines = write(tmp_path / "plain.dsjson", rows).read_bytes().splitlines(keepends=True)
    deferred = json.loads(lines[0]) | {"_skipLearn": True, "EventId": "later"}
    untidy = [
        *lines[:100],
        b"[CHECKPOINT INFO LINE]\n",
        json.dumps(deferred).encode() + b"\n",
        b'{"RewardValue":1.0,"EnqueuedTimeUtc":"2024-03-01T00:00:00Z","EventId":"zz"}\n',
        lines[5],
        *lines[100:],
    ]
    content = b"\xef\xbb\xbf" + b"".join(untidy)
    source = tmp_path / name
    source.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    left_out: Counter[str] = Counter()
    assert import_log(source, tmp_path / "data", left_out=left_out) == 300
    assert stored(tmp_path / "data") == (300, sum(len(events) for _, events in rows))
    assert left_out == {
        "checkpoint lines": 1,
        "deferred decisions": 1,
        "rewards without a decision": 1,
        "repeated decisions": 1,
    }
    assert list(formats.read(source, "dsjson", "home"))[:100] == rows[:100]


def test_a_torn_gz_is_named(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.dsjson", [logged(i) for i in range(300)]).read_bytes()
    (tmp_path / "log.dsjson.gz").write_bytes(gzip.compress(plain)[:-100])
    with pytest.raises(
        BadData, match=r"log\.dsjson\.gz: cannot be read .*; expected .* a whole archive"
    ):
        import_log(tmp_path / "log.dsjson.gz", tmp_path / "data")


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_a_csv_may_be_compressed_and_begin_with_a_mark(tmp_path: Path, name: str) -> None:
    text = "timestamp,item_id,position,click,propensity_score\n"
    text += "2019-11-24 00:00:01+00:00,7,1,1,0.25\n" * 3
    content = b"\xef\xbb\xbf" + text.encode()
    source = tmp_path / name
    source.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    rows = list(formats.read(source, formats.format_of(source), "obd"))
    assert [decision.slate[0].action for decision, _ in rows] == ["7"] * 3


def test_the_command_says_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [logged(i) for i in range(5)]
    source = write(tmp_path / "log.dsjson", [*rows, rows[0]])
    with suppress(SystemExit):
        cli.app(["import", str(source), "--data", str(tmp_path / "data")])
    assert "left out: 1 repeated decisions" in capsys.readouterr().out


# ---------------------------------------------------------------------- interruptions


def test_an_import_that_died_goes_on_and_stores_every_row_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [logged(i) for i in range(450)]
    source = write(tmp_path / "log.dsjson", [*rows[:300], *rows[:150], *rows[300:], rows[7]])
    append, calls = lake.Lake.append, 0

    def dying(self: lake.Lake, name: Any, rows: Any, through: int) -> bool:
        nonlocal calls
        calls += 1
        if calls % 3 == 0:
            raise KeyboardInterrupt
        return append(self, name, rows, through)

    monkeypatch.setattr(lake.Lake, "append", dying)
    for _ in range(20):
        try:
            assert import_log(source, tmp_path / "data") == 450
            break
        except KeyboardInterrupt:
            continue
    assert calls > 10
    assert stored(tmp_path / "data") == (450, sum(len(logged(i)[1]) for i in range(450)))
    before = calls
    assert import_log(source, tmp_path / "data") == 450, "done again it does nothing"
    assert calls == before


KILLED = """
import os, random, signal, sys, threading, time
from pathlib import Path
from topbill.formats import import_log, lake_import
lake_import.BATCH, lake_import.BATCHES = int(sys.argv[3]), 2

def strike() -> None:
    while not (Path(sys.argv[2]) / "lake").exists():
        time.sleep(0.001)
    time.sleep(random.Random(int(sys.argv[3])).uniform(0.1, 0.6))
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=strike, daemon=True).start()
import_log(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_an_import_that_was_killed_at_any_moment_goes_on_whatever_its_commits_were(
    tmp_path: Path,
) -> None:
    rows = [logged(i) for i in range(3_000)]
    source = write(tmp_path / "log.dsjson", rows)
    ends = []
    for batch in (70, 110, 30):
        ends.append(python(KILLED, source, tmp_path / "data", batch).returncode)
    assert -9 in ends, "none was killed: the test says nothing"
    assert import_log(source, tmp_path / "data") == 3_000
    connection = lake.connect(tmp_path / "data" / lake.DATABASE)
    for table, expected in (
        ("decisions", 3_000),
        ("rewards", sum(len(events) for _, events in rows)),
    ):
        counts = f"SELECT count(*), count(DISTINCT decision_id) FROM {table}"  # noqa: S608
        assert connection.execute(counts).fetchall() == [(expected, expected)]
    connection.close()
    assert not list((tmp_path / "data").glob("importing.*"))


@pytest.mark.parametrize("chosen", WHOLE)
def test_an_export_that_died_goes_on_and_writes_every_row_once(
    tmp_path: Path, experiments: list[spec.Experiment], chosen: Any
) -> None:
    rows = [logged(i) for i in range(300)]
    import_log(write(tmp_path / "log.dsjson", rows), tmp_path / "data", experiments=experiments)
    calls = 0

    def dying(done: int, total: int | None) -> None:
        nonlocal calls
        calls += 1
        if calls in (2, 3):
            raise KeyboardInterrupt

    target, total = tmp_path / "target", 0
    for _ in range(5):
        try:
            total = export_log("home", tmp_path / "data", target, format=chosen, progress=dying)
            break
        except KeyboardInterrupt:
            continue
    assert 0 < total < 300
    assert list(formats.read(target, chosen, "home")) == rows


def test_half_a_line_left_by_a_crash_is_written_anew(
    tmp_path: Path, experiments: list[spec.Experiment]
) -> None:
    rows = [logged(i) for i in range(100)]
    import_log(write(tmp_path / "log.dsjson", rows), tmp_path / "data", experiments=experiments)
    target = tmp_path / "out.dsjson"
    lines = b"".join(
        dsjson.dump_line(*row, {name: {} for name in "abc"}) + b"\n" for row in rows[:10]
    )
    target.write_bytes(lines + b'{"half a li')
    (tmp_path / "out.dsjson.progress").write_text(
        json.dumps({"after": 10, "rows": 10, "sizes": {"": len(lines)}})
    )
    assert export_log("home", tmp_path / "data", target) == 90
    assert list(formats.read(target, "dsjson", "home")) == rows
    assert not (tmp_path / "out.dsjson.progress").exists()


def test_parts_and_tables_take_what_is_new(
    tmp_path: Path, experiments: list[spec.Experiment]
) -> None:
    source = write(tmp_path / "log.dsjson", [logged(i) for i in range(100)])
    import_log(source, tmp_path / "data", experiments=experiments)
    for chosen in ("parquet", "delta"):
        target = tmp_path / chosen
        assert export_log("home", tmp_path / "data", target, format=chosen) == 100
        assert export_log("home", tmp_path / "data", target, format=chosen) == 0


# ---------------------------------------------------------------------- refusals


def test_what_cannot_be_read_is_named_by_its_line(tmp_path: Path) -> None:
    source = write(tmp_path / "log.dsjson", [logged(i) for i in range(5)])
    source.write_bytes(source.read_bytes() + b"\n\nnonsense\n")
    with pytest.raises(BadData, match="line 8"):
        import_log(source, tmp_path / "data")


def test_a_service_s_folder_and_another_import_are_not_mixed(tmp_path: Path) -> None:
    source = write(tmp_path / "log.dsjson", [logged(i) for i in range(5)])
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "log.sqlite").touch()
    with pytest.raises(TopbillError, match="is a service's data folder"):
        import_log(source, tmp_path / "served")
    import_log(source, tmp_path / "data")
    other = write(tmp_path / "other.dsjson", [logged(i) for i in range(7)])
    with pytest.raises(TopbillError, match="holds what was imported from"):
        import_log(other, tmp_path / "data")
    # Nor is what the same file says today, and the way out is said.
    write(source, [logged(i) for i in range(6)])
    with pytest.raises(TopbillError, match=r"before that changed; .* delete this one"):
        import_log(source, tmp_path / "data")


def test_formats_are_told_by_name_or_must_be_said(tmp_path: Path) -> None:
    assert formats.format_of(Path("a.dsjson")) == "dsjson"
    assert formats.format_of(Path("a.parquet")) == "parquet"
    assert formats.format_of(Path("a.csv")) == "open-bandit"
    for entry in registry.FORMATS.values():
        for suffix in entry.written:
            assert registry.target_format(Path(f"a{suffix}")) == entry.name
    with pytest.raises(BadRequest, match="--format"):
        formats.format_of(tmp_path / "a.txt")
    # What two would write is asked for, by their names.
    for name, able in (("a.npz", "obp, obp-slate"), ("a.jsonl", "dsjson, eppo")):
        with pytest.raises(BadRequest, match=f"{name} does not tell .*one of {able}$"):
            registry.target_format(Path(name))
    for suffix in (".json", ".jsonl", ".json.gz"):
        lines = b'{"flagKey": "f", "actionProbability": 0.5}'
        lines = gzip.compress(lines) if suffix.endswith("gz") else lines
        (tmp_path / f"eppo{suffix}").write_bytes(lines)
        assert formats.format_of(tmp_path / f"eppo{suffix}") == "eppo"
        assert formats.format_of(tmp_path / f"none{suffix}") == "dsjson"
    assert formats.format_of(Path("a.npz")) == "obp"
    with pytest.raises(BadRequest, match="got csv, which is only written; expected dsjson, eppo"):
        formats.read(tmp_path / "a.csv", "csv", "home")
    with pytest.raises(BadRequest, match=r"got 'jsonl'; expected one of dsjson, eppo"):
        formats.read(tmp_path / "a.txt", "jsonl", "home")
    with pytest.raises(NotFound):
        import_log(tmp_path / "none.dsjson", tmp_path / "data")


def test_an_export_does_not_overwrite(tmp_path: Path, experiments: list[spec.Experiment]) -> None:
    import_log(
        write(tmp_path / "l.dsjson", [logged(0)]), tmp_path / "data", experiments=experiments
    )
    (tmp_path / "out.dsjson").touch()
    with pytest.raises(BadRequest, match="there already"):
        export_log("home", tmp_path / "data", tmp_path / "out.dsjson")
    with pytest.raises(NotFound, match="no decision"):
        export_log("none", tmp_path / "data", tmp_path / "x.dsjson")


# ---------------------------------------------------------------------- the command line


def test_the_command_line_imports_and_exports(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "home.yaml").write_text(SPEC)
    write(tmp_path / "log.dsjson", [logged(i) for i in range(120)])

    def topbill(*arguments: str) -> str:
        done = processes.topbill(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "120 decisions" in topbill("import", "log.dsjson", "--data", "imported")
    assert "120 decisions" in topbill(
        "export", "home", "parts", "--format", "parquet", "--data", "imported"
    )
    for file, chosen in (("log.npz", "obp"), ("log.csv", "open-bandit")):
        written = topbill("export", "home", file, "--format", chosen, "--data", "imported")
        assert f"120 decisions written as {chosen}" in written
        assert "120 decisions" in topbill("import", file, "--data", f"from-{file}")

    assert len(list(formats.read(tmp_path / "parts", "parquet", "home"))) == 120


def test_the_command_line_names_every_format() -> None:
    for verb in (transfer.import_, transfer.export):
        option = next(
            o
            for o in cli.app[verb.__name__.strip("_")].assemble_argument_collection()
            if "--format" in o.names
        )
        assert set(registry.FORMATS) <= set(option.get_choices() or ())


def test_half_an_export_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    rows = [logged(i) for i in range(100)]
    import_log(write(tmp_path / "log.dsjson", rows), tmp_path / "data")

    def dying(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_log("home", tmp_path / "data", tmp_path / "out.npz", format="obp", progress=dying)
    assert not (tmp_path / "out.npz").exists()
    (tmp_path / "out.npz.progress").write_text("torn")
    with pytest.raises(LogError, match="delete it"):
        export_log("home", tmp_path / "data", tmp_path / "out.npz", format="obp")


# ---------------------------------------------------------------------- a plain CSV


def test_a_csv_for_spreadsheets_has_a_row_a_shown_item(
    tmp_path: Path, experiments: list[spec.Experiment]
) -> None:
    """Also of slates, and where contexts differ: names are those of the whole log."""
    slates = [logged(i, 2) for i in range(150)]
    decision, events = slates[7]
    context = {"device": "tv", "viewer": {"age": 7, "kids": True}, "position": "top", "no": None}
    decision = msgspec.structs.replace(decision, context=msgspec.json.encode(context), row_weight=4)
    click = RewardEvent(decision_id="d7", event_id="c", event="click", value=2.5, position=1)
    slates[7] = (decision, [*events, click])
    source = tmp_path / "in.parquet"
    write_parquet_file(arrow_rows.to_table(slates), source)
    import_log(source, tmp_path / "data", experiments=experiments)
    assert export_log("home", tmp_path / "data", tmp_path / "out.csv") == 150
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 300
    of_seventh = [row for row in rows if row["decision_id"] == "d7"]
    assert [row["position"] for row in of_seventh] == ["0", "1"]
    assert [row["action"] for row in of_seventh] == [p.action for p in decision.slate]
    assert [float(row["propensity"]) for row in of_seventh] == [1 / 3, 1 / 2]
    assert [row["event.click"] for row in of_seventh] == ["", "2.5"]
    first = of_seventh[0]
    assert (first["context.viewer:age"], first["context.viewer:kids"]) == ("7", "true")
    assert (first["context.position"], first["context.no"], first["row_weight"]) == (
        "top",
        "",
        "4.0",
    )
    assert sum(float(row["event.play"] or 0) for row in rows) == sum(
        event.value for _, own in slates for event in own if event.event == "play"
    )


def test_an_export_of_a_csv_that_died_goes_on(
    tmp_path: Path, experiments: list[spec.Experiment]
) -> None:
    import_log(
        write(tmp_path / "l.dsjson", [logged(i) for i in range(300)]),
        tmp_path / "data",
        experiments=experiments,
    )

    def dying(done: int, total: int | None) -> None:
        if done >= 140:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        export_log("home", tmp_path / "data", tmp_path / "out.csv", progress=dying)
    export_log("home", tmp_path / "data", tmp_path / "out.csv")
    export_log("home", tmp_path / "data", tmp_path / "whole.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
