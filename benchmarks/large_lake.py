"""A lake of many decisions, written by columns: 90 days of an experiment of three variants, in the
lake's own schema, for benchmarks of what reads the record.

    python -m benchmarks.large_lake FOLDER [--decisions 10_000_000]
    python -m benchmarks.large_lake FOLDER --report

With `--report` the lake in FOLDER is reported on, in a process that does nothing else: the first
time what days add up to is kept, from then on it is read.

A viewer comes on ten or so of the days and is shown ten pages then; a seventh of the decisions get
an event. Two variants are the same, and one wins more plays.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import yaml

from topbill import reporting
from topbill.domain.decision import DECISION_COLUMNS, REWARD_COLUMNS, sql_types
from topbill.lake import Lake, connect
from topbill.lake.tables import schemas
from topbill.spec import Experiment, from_raw

KEY = "home"
DAYS = 90
BEGAN = 1_790_000_000_000_000
"""µs since the epoch at which the first decision is made."""
PAGES = 10
"""Decisions of one visit."""
ACTIONS = 4
VISITS = 10
"""Days on which a viewer comes, about."""
_CHUNK = 1_000_000
_SPEC = f"""
experiment: {KEY}
title: A large record
owner: benchmarks
hypothesis: Nothing is read twice.
surface: artwork
unit: profile_id
status: running
context:
  device: {{type: category, values: [tv, mobile, web]}}
actions: [{", ".join(f"{{id: a{i}}}" for i in range(ACTIONS))}]
metrics:
  play: {{event: play, kind: binary, window: 30m}}
  watched: {{event: watch_fraction, kind: max, window: 6h}}
  returned: {{event: session_start, kind: binary, window: 48h}}
  abandon: {{event: abandon, kind: binary, window: 30m}}
objective: {{play: 0.2, watched: 1.0, returned: 0.5}}
guardrails:
  - {{metric: abandon, better: lower, margin: 10%}}
variants:
  editorial: {{policy: uniform, share: 20%, control: true}}
  thompson: {{policy: thompson, share: 40%}}
  linucb: {{policy: linucb, share: 40%, alpha: 0.3, min_probability: 2%}}
"""
_DECISIONS = """
SELECT i AS seq, 'd' || i AS decision_id,
    make_timestamp({began} + visit_at + page * 60_000_000 + i % 1000)::TIMESTAMPTZ AS decided_at,
    '{key}' AS experiment, '{revision}' AS revision,
    ['editorial', 'thompson', 'thompson', 'linucb', 'linucb'][1 + (u % 5)::INT] AS variant,
    'profile-' || u AS unit,
    '{{"device":"' || ['tv', 'mobile', 'web'][1 + (hash(u) % 3)::INT] || '"}}' AS context,
    range({actions}).list_transform(lambda x: 'a' || x) AS eligible,
    ['a' || (hash(i + 7) % {actions})] AS slate,
    [1 / {actions}::DOUBLE] AS propensities, 1 / {actions}::DOUBLE AS propensity,
    [range({actions}).list_transform(lambda x: 1 / {actions}::DOUBLE)] AS probabilities,
    ['uniform', 'thompson', 'thompson', 'linucb', 'linucb'][1 + (u % 5)::INT] AS policy,
    i // 1000 AS policy_version, 'policy' AS reason, 40 + hash(i + 3) % 150 AS latency_us
FROM (
    SELECT i, i % {pages} AS page, hash(i // {pages}) % {units} AS u,
        ((i // {pages} * {pages}) * {apart}::DOUBLE)::BIGINT AS visit_at
    FROM range({start}, {stop}) r(i))"""
_REWARDS = """
SELECT seq, decision_id, e.event || seq AS event_id, e.event,
    CASE WHEN e.event = 'watch_fraction' THEN (hash(seq) % 1000) / 1000 ELSE 1.0 END AS value,
    decided_at + to_seconds(60) AS occurred_at, decided_at + to_seconds(61) AS received_at,
    experiment, variant, unit, decided_at, slate[1] AS item
FROM made CROSS JOIN (VALUES ('play', 50), ('watch_fraction', 40), ('session_start', 30),
    ('abandon', 20)) e(event, per_mille)
WHERE hash(decision_id || e.event) % 1000
    < e.per_mille + CASE WHEN variant = 'linucb' AND e.event = 'play' THEN 2 ELSE 0 END"""


def experiment() -> Experiment:
    """The experiment whose record it is."""
    return from_raw(yaml.safe_load(_SPEC), "large.yaml")


class Line(NamedTuple):
    """The audit's only line: the file as it was launched."""

    experiment: str
    revision: str
    at: int
    who: str
    spec: str


def fill(folder: Path, decisions: int) -> int:
    """Write the lake and publish it as at the end of the last day; returns that moment (µs)."""
    lake, launched = Lake(folder), experiment()
    for rows, rewards, through in chunks(decisions, launched):
        lake.append("decisions", rows, through)
        lake.append("rewards", rewards, through)
    at = publish(lake)
    lake.note()
    return at


def publish(lake: Lake) -> int:
    """A new analytics database, as of the end of the last day (µs)."""
    launched, at = experiment(), BEGAN + DAYS * 86_400_000_000
    line = Line(KEY, launched.fingerprint, BEGAN - 1, "benchmark", spec_text(launched))
    lake.write_database([launched], at, [line])
    return at


def spec_text(launched: Experiment) -> str:
    """The file's content as the audit has it."""
    return msgspec.json.encode(launched.raw).decode()


def chunks(decisions: int, launched: Experiment) -> Iterator[tuple[pa.Table, pa.Table, int]]:
    """Decisions, their rewards, and the position of the last."""
    maker = connect()
    for start in range(0, decisions, _CHUNK):
        stop = min(start + _CHUNK, decisions)
        query = _DECISIONS.format(
            began=BEGAN, key=KEY, revision=launched.fingerprint, pages=PAGES,
            units=max(1, decisions // (PAGES * VISITS)), apart=DAYS * 86_400_000_000 / decisions,
            start=start, stop=stop, actions=ACTIONS,
        )  # fmt: skip
        types = sql_types(DECISION_COLUMNS)
        maker.execute(f"CREATE OR REPLACE TEMP TABLE made AS {query}")
        rows = maker.sql(_all_columns("made", types)).to_arrow_table()
        maker.execute(f"CREATE OR REPLACE TEMP VIEW earned AS {_REWARDS}")
        rewards = maker.sql(_all_columns("earned", sql_types(REWARD_COLUMNS))).to_arrow_table()
        yield rows.cast(schemas()["decisions"]), rewards.cast(schemas()["rewards"]), stop


def _all_columns(table: str, types: dict[str, str]) -> str:
    """The table with every column of the lake, nothing in those that it lacks, `seq` first."""
    nothing = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in types.items()
                        if kind != "TIMESTAMP")  # fmt: skip
    times = ", ".join(f'NULL::TIMESTAMPTZ AS "{name}"' for name, kind in types.items()
                      if kind == "TIMESTAMP")  # fmt: skip
    columns = ", ".join(f'"{name}"' for name in ["seq", *(n for n in types if n != "seq")])
    return (
        f"SELECT {columns} FROM (FROM {table} UNION ALL BY NAME "  # noqa: S608
        f"SELECT {nothing}, {times} WHERE false)"
    )


def main() -> None:
    """Write one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--decisions", type=int, default=10_000_000)
    parser.add_argument("--report", action="store_true")
    wanted = parser.parse_args()
    began, cpu = time.perf_counter(), time.process_time()
    if wanted.report:
        found = reporting.load(KEY, wanted.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(
            f"{found.decisions:,} decisions reported in {time.perf_counter() - began:.1f} s "
            f"({time.process_time() - cpu:.1f} s of CPU), peak {peak:.2f} GB"
        )
        return
    fill(wanted.folder, wanted.decisions)
    size = sum(f.stat().st_size for f in (wanted.folder / "lake").rglob("*.parquet"))
    print(
        f"{wanted.decisions:,} decisions, {size / 1e6:,.0f} MB, in "
        f"{time.perf_counter() - began:.0f} s ({time.process_time() - cpu:.0f} s of CPU)"
    )


if __name__ == "__main__":
    main()
