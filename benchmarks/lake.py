"""What the lake costs and how fast it answers: publishing, the views, and a whole report, beside
plain Delta and DuckDB.

    python -m benchmarks.lake [--decisions 10_000_000]

Each line names what it is compared with in the same run: an append beside the same rows written by
`deltalake` without the log's mark; a question to `feedback` beside the same question put by hand to
the Parquet files.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
from deltalake import write_deltalake

from topbill import reporting
from topbill.domain.decision import DECISION_COLUMNS, sql_types
from topbill.domain.records import Action, Decision, Placement, RewardEvent
from topbill.lake import DATABASE, Connection, Lake, connect
from topbill.lake.tables import schemas
from topbill.log import open_log
from topbill.spec import Experiment, Metric, Variant
from topbill.worker.publisher import Publisher

ARMS = tuple(f"a{i}" for i in range(12))
STEP = 20_000
"""Rows published in one step: two seconds at 10,000 decisions/s."""
CHUNK = 500_000


class NoParams(msgspec.Struct, frozen=True):
    """The benchmark never decides."""


def experiment(key: str) -> Experiment:
    return Experiment(
        key=key,
        surface="artwork",
        actions=tuple(Action(arm) for arm in ARMS),
        metrics=(
            Metric("play", "play", "binary", 1_800.0),
            Metric("watched", "watch_fraction", "max", 21_600.0),
            Metric("returned", "session_start", "binary", 172_800.0),
            Metric("abandon", "abandon", "binary", 1_800.0, better="lower"),
        ),
        objective={"play": 0.2, "watched": 1.0, "returned": 0.5},
        variants=(
            Variant("editorial", "fixed", NoParams(), 0.2, control=True),
            Variant("thompson", "thompson", NoParams(), 0.4),
            Variant("linucb", "linucb", NoParams(), 0.4),
        ),
        raw={"context": {"device": {"type": "category"}}},
    )


class Time(NamedTuple):
    """Seconds on the wall, and of all cores together: the second one stands even where others use
    the machine.
    """

    wall: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.wall:8.3f} s ({self.cpu:.3f} s of CPU)"


def timed(work: Callable[[], Any], repeats: int = 3) -> Time:
    """The best of `repeats`."""
    found = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        found.append(Time(time.perf_counter() - wall, time.process_time() - cpu))
    return Time(min(t.wall for t in found), min(t.cpu for t in found))


def publishing(folder: Path) -> None:
    """One step of 20,000 decisions and 2,000 events, and the same rows by `deltalake` alone."""
    log, lake = open_log(folder / "log.sqlite"), Lake(folder)
    worker = Publisher(log, lake, lambda: [experiment("home")])
    worker.step()
    p = (1 / len(ARMS),) * len(ARMS)
    context = msgspec.Raw(b'{"device":"tv","hour":20,"taste":[0.1,0.2,0.3,0.1,0.2,0.1]}')
    steps, plain = [], []
    for round_ in range(5):
        decisions = [
            Decision(
                decision_id=f"d{round_}-{i}",
                experiment="home",
                revision="r1",
                variant="thompson",
                unit=f"profile-{i % 7000}",
                context=context,
                eligible=ARMS,
                slate=(Placement(0, ARMS[i % 12], p[0]),),
                propensity=p[0],
                probabilities=(p,),
                policy="thompson",
                reason="policy",
            )
            for i in range(STEP)
        ]
        events = [
            RewardEvent(decision_id=f"d{round_}-{i}", event_id="e", event="play")
            for i in range(0, STEP, 10)
        ]
        log.append(decisions, events)
        steps.append(timed(worker.step, repeats=1))
        rows = pa.table(
            lake._tables["decisions"].to_pyarrow_table(filters=[("seq", ">", round_ * STEP)])
        )
        plain.append(
            timed(
                lambda rows=rows: write_deltalake(str(folder / "plain"), rows, mode="append"),
                repeats=1,
            )
        )
    shown = timed(lambda: lake.write_database([experiment("home")], 0))
    step = Time(min(t.wall for t in steps), min(t.cpu for t in steps))
    alone = Time(min(t.wall for t in plain), min(t.cpu for t in plain))
    print(f"publish {STEP:,} decisions, {STEP // 10:,} events {step}")
    print(f"  of which the database                 {shown}")
    print(f"  the rows by deltalake alone         {alone}; {step.cpu / alone.cpu:.1f} × its CPU")


def fill(folder: Path, decisions: int) -> Lake:
    """A lake of that many decisions of 500,000 units, nine in ten of them of `home`, and what they
    earned.
    """
    lake, maker = Lake(folder), connect()
    for start in range(0, decisions, CHUNK):
        query = _DECISIONS.format(
            start=start, stop=start + CHUNK, masks=sql_types(DECISION_COLUMNS)["masks"]
        )
        rows = maker.sql(query).to_arrow_table().cast(schemas()["decisions"])
        lake.append("decisions", rows, start + CHUNK)
        maker.register("made", rows)
        lake.append(
            "rewards",
            maker.sql(_REWARDS).to_arrow_table().cast(schemas()["rewards"]),
            start + CHUNK,
        )
        maker.unregister("made")
    return lake


_DECISIONS = """
SELECT range AS seq, 'd' || range AS decision_id,
  make_timestamp_ms(1790000000000 + range * 100)::TIMESTAMPTZ AS decided_at,
  CASE WHEN hash(range + 1) % 10 = 0 THEN 'other' ELSE 'home' END AS experiment, 'r1' AS revision,
  ['editorial', 'thompson', 'thompson', 'linucb', 'linucb'][1 + (u % 5)::INT] AS variant,
    'profile-' || u AS unit,
  '{{"device":"' || ['tv', 'mobile', 'web'][1 + (u % 3)::INT] || '","hour":' || (range % 24) ||
    '}}' AS context,
  NULL::VARCHAR AS actions, list_transform(range(12), lambda x: 'a' || x) AS eligible, ['a' ||
    a] AS slate,
  [1 / 12] AS propensities, 1 / 12 AS propensity, [list_transform(range(12),
    lambda x: 1 / 12)] AS probabilities,
  'thompson' AS policy, range // 1000 AS policy_version, 'policy' AS reason, 40 + (range % 50)
    AS latency_us,
  NULL::VARCHAR AS page, NULL::VARCHAR AS layer, NULL::VARCHAR AS place, []::{masks} AS masks
FROM (SELECT range, hash(range) % 500000 AS u, hash(range + 7) % 12 AS a FROM range({start},
  {stop}))"""
_REWARDS = """
SELECT seq, decision_id, e.event || seq AS event_id, e.event, e.value, NULL::VARCHAR AS "action",
  NULL::BIGINT AS "position", decided_at + to_seconds(60) AS occurred_at,
    decided_at + to_seconds(61) AS received_at, experiment, variant,
  unit, decided_at, slate[1] AS item
FROM made CROSS JOIN (VALUES ('play', 1.0, 50), ('watch_fraction', 0.5, 40), ('session_start',
  1.0, 30),
  ('abandon', 1.0, 20)) e(event, value, per_mille)
WHERE hash(decision_id || e.event) % 1000 < e.per_mille"""
_BY_HAND = """
SELECT d.variant, avg(coalesce(r.play, 0)) FROM read_parquet([{decisions}],
  hive_partitioning = true) d
LEFT JOIN (SELECT decision_id, 1 AS play FROM read_parquet([{rewards}], hive_partitioning = true)
  WHERE event = 'play' AND experiment = 'home' GROUP BY decision_id) r USING (decision_id)
WHERE d.experiment = 'home' GROUP BY d.variant"""
_FEEDBACK = (
    "SELECT variant, avg(objective) FROM feedback WHERE experiment = 'home' AND mature "
    "GROUP BY variant"
)
_LATEST = """SELECT count(*), max(context) FROM decisions
WHERE experiment = 'home' AND decided_at > (SELECT max(decided_at)
  - INTERVAL 1 HOUR FROM decisions)"""


def answering(folder: Path, decisions: int) -> None:
    """Questions on a lake of `decisions`."""
    made: list[Lake] = []
    filled = timed(lambda: made.append(fill(folder, decisions)), repeats=1)
    (lake,) = made
    compacted = timed(lambda: lake.compact(thorough=True), repeats=1)
    lake.write_database([experiment("home"), experiment("other")], time.time_ns() // 1000)
    size = sum(f.stat().st_size for f in (folder / "lake").rglob("*.parquet"))
    print(f"\n{decisions:,} decisions, {size / 1e6:.0f} MB")
    print(f"  filled                              {filled}")
    print(f"  compacted                           {compacted}")
    reader = connect(folder / DATABASE)
    names = {
        name: ", ".join(f"'{f}'" for f in lake.files(name)) for name in ("decisions", "rewards")
    }
    hand = timed(lambda: ask(reader, _BY_HAND.format(**names)))
    print(f"one metric per variant by hand        {hand}")
    questions: dict[str, Callable[[], Any]] = {
        "reward per variant from feedback": lambda: ask(reader, _FEEDBACK),
        "the latest hour of decisions": lambda: ask(reader, _LATEST),
        "a whole report, no segment": lambda: reporting.load("home", folder, segments=[]),
        "a whole report, one segment": lambda: reporting.load("home", folder),
    }
    for name, question in questions.items():
        took = timed(question, repeats=2)
        print(f"{name:37s} {took}; {took.cpu / hand.cpu:.1f} × its CPU")


def ask(reader: Connection, query: str) -> list[Any]:
    return reader.sql(query).fetchall()


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decisions", type=int, default=2_000_000)
    wanted = parser.parse_args()
    versions = ", ".join(f"{name} {version(name)}" for name in ("duckdb", "deltalake", "pyarrow"))
    print(
        f"Python {platform.python_version()}, {versions}; {os.cpu_count()} cores, "
        f"{platform.machine()}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        publishing(Path(folder) / "publish")
        answering(Path(folder) / "ask", wanted.decisions)


if __name__ == "__main__":
    main()
