"""What tests need to run Topbill without a service: a log in memory, a lake of what you give it.

For your own tests as for Topbill's. Every handle keeps the contract of `topbill.log.Log`, which one
suite of tests holds over the embedded log and this one alike; so what passes here passes there.

>>> from topbill.testing import a_decision, memory_log
>>> with memory_log() as log:
...     receipt = log.append([a_decision("d1")])
...     log.decision("d1").variant
'a'

A log that cannot be written, as on a full disk:

>>> from topbill.domain.errors import LogError
>>> with memory_log() as log:
...     log.fail_with("has no space left on its device")
...     try:
...         log.append([a_decision("d1")])
...     except LogError as error:
...         print(error)
memory: has no space left on its device

A lake of decisions and rewards, for whatever reads one: `topbill.sql`, reports, evaluation:

>>> from topbill.domain.records import RewardEvent
>>> from topbill.lake import DATABASE, sql
>>> from topbill.testing import an_experiment, temporary_lake
>>> decisions = [a_decision("d1", decided_at=1_000_000), a_decision("d2", decided_at=2_000_000)]
>>> play = RewardEvent(decision_id="d1", event_id="e", event="play", received_at=1_500_000)
>>> with temporary_lake([an_experiment()], decisions, [play]) as data:
...     table = sql(data / DATABASE, "SELECT decision_id, objective, mature FROM feedback")
>>> sorted(table.to_pylist(), key=lambda row: row["decision_id"])[0]
{'decision_id': 'd1', 'objective': 1.0, 'mature': True}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from topbill.domain.decision import decision_rows, reward_rows, unit_event_rows
from topbill.domain.metric import longest_window, microseconds
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent, UnitEvent
from topbill.lake import Lake
from topbill.log import Clock, now_micros
from topbill.log.memory import MemoryLog
from topbill.spec import Experiment, from_raw

__all__ = [
    "MemoryLog",
    "a_decision",
    "an_experiment",
    "example_data",
    "memory_log",
    "publish",
    "temporary_lake",
]


def memory_log(name: str = "", clock: Clock = now_micros) -> MemoryLog:
    """A log in this process's memory.

    Args:
        name: Handles of one name share a log, in all threads; `open_log(f"memory:{name}")` is
            another one. Without a name it is a log of its own.
        clock: Gives the time in microseconds since the epoch; a test may set its own.
    """
    return MemoryLog(name, clock)


def a_decision(decision_id: str, **fields: Any) -> Decision:
    """A small decision of experiment `home`, variant `a`; any field may be given."""
    defaults: dict[str, Any] = {
        "experiment": "home",
        "revision": "r1",
        "variant": "a",
        "unit": "u1",
        "eligible": ("x",),
        "slate": (Placement(0, "x", 1.0),),
        "policy": "uniform",
        "reason": "policy",
    }
    return Decision(decision_id=decision_id, **{**defaults, **fields})


def an_experiment(key: str = "home", **fields: Any) -> Experiment:
    """A small experiment whose variants `a` (the control) and `b` draw by chance between `x` and
    `y`, and whose objective is a `play` within a minute; any key of its file may be given. Raises
    SpecError for what no file may say."""
    defaults: dict[str, Any] = {
        "experiment": key,
        "surface": "artwork",
        "actions": [{"id": "x"}, {"id": "y"}],
        "metrics": {"play": {"event": "play", "kind": "binary", "window": "60s"}},
        "objective": {"play": 1.0},
        "variants": {
            "a": {"policy": "uniform", "share": "50%", "control": True},
            "b": {"policy": "uniform", "share": "50%"},
        },
    }
    return from_raw({**defaults, **fields}, key)


def publish(
    data: Path,
    experiments: Sequence[Experiment],
    decisions: Sequence[Decision],
    rewards: Iterable[RewardEvent] = (),
    *,
    unit_events: Sequence[UnitEvent] = (),
    at: int | None = None,
) -> None:
    """Append decisions and their rewards to the lake in a data folder and publish it, as the worker
    does with what the log holds.

    Args:
        data: The folder; it is made where it is not there. What its lake holds already stays.
        experiments: What the record says of them, all of them: as their files of now do.
        decisions: In their order; each id once.
        rewards: Of these decisions. One of another decision belongs to no experiment.
        unit_events: Of whichever units.
        at: The publication's time in µs since the epoch, by which windows are over or not. By
            default all of them are.

    Raises:
        LogError: The lake cannot be written.
    """
    lake = Lake(data)
    if decisions:
        first = lake.position("decisions") + 1
        numbered = list(enumerate(decisions, first))
        lake.append("decisions", decision_rows(numbered), numbered[-1][0])
    origins = {decision.decision_id: Origin.of(decision) for decision in decisions}
    rows = []
    for seq, event in enumerate(rewards, lake.position("rewards") + 1):
        origin = origins.get(event.decision_id) or Origin(event.received_at)
        rows.append((seq, event, origin))
    if rows:
        lake.append("rewards", reward_rows(rows), rows[-1][0])
    if unit_events:
        stamped = list(enumerate(unit_events, lake.position("events") + 1))
        lake.append("events", unit_event_rows(stamped), stamped[-1][0])
    lake.write_database(experiments, _all_over(experiments, decisions) if at is None else at)


def _all_over(experiments: Sequence[Experiment], decisions: Sequence[Decision]) -> int:
    """A time at which the window of every metric of every decision is over."""
    newest = max((decision.decided_at for decision in decisions), default=0)
    windows = [longest_window((*e.metrics, *e.unit_metrics)) for e in experiments]
    longest = max(windows, default=0.0)
    return newest + microseconds(longest) + 1


@contextmanager
def temporary_lake(
    experiments: Sequence[Experiment],
    decisions: Sequence[Decision],
    rewards: Iterable[RewardEvent] = (),
    *,
    unit_events: Sequence[UnitEvent] = (),
    at: int | None = None,
) -> Iterator[Path]:
    """A data folder with a published lake, gone when the block ends; the arguments are those of
    `publish`."""
    with TemporaryDirectory(prefix="topbill-") as folder:
        data = Path(folder)
        publish(data, experiments, decisions, rewards, unit_events=unit_events, at=at)
        yield data


def example_data(
    folder: Path | str,
    visits: int = 2_000,
    *,
    seed: int = 5,
    experiments: Sequence[Experiment] | None = None,
) -> Path:
    """A data folder with the record of experiments: simulated viewers, decisions as the engine
    makes them, rewards and what the policies learned.

    Args:
        folder: The data folder to make. What stands there already is added to.
        visits: Homepages for each experiment; 1,000 take about a second.
        seed: Chooses the viewers.
        experiments: Those that the viewers come to; None: Topbill's own examples.

    Returns:
        The folder, for `topbill.report`, `topbill.sql` and `topbill.evaluate`.

    Examples:
        >>> import tempfile
        >>> from topbill.testing import example_data
        >>> data = example_data(tempfile.mkdtemp(), visits=10)
        >>> (data / "topbill.duckdb").exists()
        True
    """
    # Here, as a test that wants a log in memory must not load the engine and its compiler.
    from topbill import spec
    from topbill.shipped import shipped
    from topbill.simulation.recording import record_visits

    # Those without actions of their own wait for a caller's; no simulated viewer offers any.
    every = spec.load_all([shipped("experiments")]) if experiments is None else experiments
    experiments = [experiment for experiment in every if experiment.actions]
    return record_visits(Path(folder), experiments, visits, seed=seed)
