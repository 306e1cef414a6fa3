"""Rejection replay of the Open Bandit Dataset: what another policy would have earned on real
clicks.

On a log whose items were drawn uniformly, the rows where a policy chooses what the log shows are a
fair sample of what would have happened had the policy been in charge (Li, Chu, Langford and Wang
2011, "Unbiased offline evaluation of contextual-bandit-based news article recommendation
algorithms", algorithm 2). The engine decides every row, and what matched goes through the log and
the learner before the next row is decided. One row in as many as there are items matches, so the
same pass also weights all rows by n · p(logged item), the probability known exactly.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy import stats

from topbill.domain.errors import BadRequest, PolicyError
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.log import Log, open_log
from topbill.policies import KINDS
from topbill.simulation.obd import ObdLog, read_obd
from topbill.spec import Experiment, Metric, Variant
from topbill.worker.policy_fold import PolicyFold

# The log brings no scores.
_KINDS = [kind for kind in KINDS if kind != "scored"]
DEFAULT_KINDS = ("uniform", "epsilon_greedy", "thompson", "linucb")


class ClickRate(msgspec.Struct, frozen=True):
    """A click rate over `rows` rows (an effective number where they are weighted) and its 95%
    Jeffreys interval (Brown, Cai and DasGupta 2001), which is sound for a handful of clicks too."""

    rows: float
    clicks: float
    rate: float | None
    interval: tuple[float, float]


class PolicyReplay(msgspec.Struct, frozen=True):
    """One policy's replay: the click rate over the rows that matched, and over all rows,
    weighted.
    """

    policy: str
    matched: ClickRate
    weighted: ClickRate
    versions: int


class ReplayReport(msgspec.Struct, frozen=True):
    """The log's own click rate, and each policy's replay on it."""

    file: str
    items: int
    log: ClickRate
    policies: list[PolicyReplay]


def replay_obd(
    path: Path,
    kinds: Sequence[str] = DEFAULT_KINDS,
    *,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> ReplayReport:
    """Replay each kind of policy, with its default parameters, on the log in `path` (Parquet or
    CSV).

    `progress` is called with the policy, the rows done and all rows.
    Raises BadData for a file that cannot be replayed and BadRequest for an unknown kind.
    """
    for kind in kinds:
        if kind not in _KINDS:
            raise BadRequest("--policy", f"got {kind!r}; expected one of {', '.join(_KINDS)}")
    log = read_obd(path)
    policies = []
    for kind in kinds:
        report = partial(_report, progress, kind, len(log))
        policies.append(replay(log, variant(kind), report))
    own = click_rate(len(log), sum(log.clicked))
    return ReplayReport(path.name, len(log.actions), own, policies)


def _report(progress: Callable[[str, int, int], None], kind: str, rows: int, done: int) -> None:
    progress(kind, done, rows)


def variant(kind: str) -> Variant:
    """The only variant of a replay: this kind of policy with its default parameters."""
    return Variant(name=kind, policy=kind, params=KINDS[kind].Params(), share=1.0, control=True)


def replay(
    log: ObdLog, variant: Variant, progress: Callable[[int], None] = lambda _: None
) -> PolicyReplay:
    """Replay one policy: decide each row, let it learn from the rows that match, weight all of
    them.
    """
    experiment = _experiment(log, variant)
    engine, fold = Engine([experiment], clock=lambda: 0.0), PolicyFold(experiment)
    matched = clicks = 0
    weights = np.empty(len(log))
    # Through a log on disk, not a list: what is measured is the engine and the learner as they
    # serve, rows, versions and all.
    with (
        tempfile.TemporaryDirectory(prefix="topbill-replay-") as folder,
        closing(open_log(Path(folder, "log"))) as store,
    ):
        for row, (item, clicked) in enumerate(zip(log.item, log.clicked, strict=True)):
            if row % 100 == 0:
                progress(row)
            decision = _decide(engine, experiment.key, row, log)
            if decision.probabilities is None:
                raise PolicyError(f"{variant.policy} could not decide row {row} of {log.name}")
            # 1 / (1/n) is what the logged item's own probability is divided by.
            weights[row] = len(log.actions) * decision.probabilities[0][item]
            # Rejection: a row counts, and teaches, only where the policy chose what was shown.
            if decision.slate[0].action == log.actions[item].id:
                matched += 1
                clicks += clicked
                click = RewardEvent(
                    decision_id=decision.decision_id, event_id="click", event="click"
                )
                store.append([decision], [click] if clicked else [])
                _learn(engine, fold, store)
    progress(len(log))

    # Σw² / (Σw)² rows of weight 1 would have the same variance (Kish 1965).
    effective = float(weights.sum() ** 2 / (weights**2).sum()) if weights.any() else 0.0
    mean = float(weights @ np.array(log.clicked) / weights.sum()) if effective else 0.0
    return PolicyReplay(
        policy=variant.policy,
        matched=click_rate(matched, clicks),
        weighted=click_rate(effective, mean * effective),
        versions=fold.version,
    )


def _decide(engine: Engine, key: str, row: int, log: ObdLog) -> Decision:
    """What the policy would have shown in that row; without probabilities where it failed."""
    request = DecideRequest(
        experiment=key, context=msgspec.Raw(log.context[row]), decision_id=f"{key}-{row}"
    )
    decision = engine.decide(request)
    if decision.reason != "policy":
        return msgspec.structs.replace(decision, probabilities=None)
    return decision


def _experiment(log: ObdLog, variant: Variant) -> Experiment:
    """One slot for one item; a matched row is learned at once, for its click is stored along with
    it.
    """
    return Experiment(
        key=f"obd-{variant.policy}",
        surface="titles",
        actions=log.actions,
        metrics=(Metric("click", "click", "binary", window=3600.0),),
        objective={"click": 1.0},
        variants=(variant,),
        context=log.features,
        reward_delay=0.0,
    )


def _learn(engine: Engine, fold: PolicyFold, store: Log) -> None:
    """Fold what was just logged, and let the engine decide with the version that comes of it."""
    while not fold.step(store, store.barrier()):
        pass
    fold.publish(store)
    live = engine.find(fold.live.experiment.key)
    snapshot = store.snapshot(live.experiment.key)
    if snapshot is None or not live.adopt(snapshot):
        raise PolicyError(f"{live.experiment.key}: the version just published could not be adopted")


def click_rate(rows: float, clicks: float) -> ClickRate:
    """The click rate with its interval. Weighted rows count with their effective number (Kish
    1965).
    """
    low, high = stats.beta.interval(0.95, clicks + 0.5, rows - clicks + 0.5)
    # At the ends the interval is closed, or it would exclude the very rate that was seen.
    if clicks == 0:
        low = 0.0
    if clicks == rows:
        high = 1.0
    return ClickRate(rows, clicks, clicks / rows if rows else None, (float(low), float(high)))


def table(report: ReplayReport) -> Table:
    """The report as a table, the log's own click rate first: clicks among the matched rows and
    their rate, and the rate of all rows weighted by the policy's own probabilities, with the number
    of rows that they are worth."""
    title = f"{report.file}: {report.log.rows:,.0f} rows of {report.items} items"
    rows = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    rows.padding = (0, 1, 0, 0)
    rows.add_column("policy", no_wrap=True)
    for heading in ("clicks", "click rate (95%)", "effective", "weighted (95%)"):
        rows.add_column(heading, justify="right", no_wrap=True)
    rows.add_row("the log itself", _clicks(report.log), _rate(report.log), "", "")
    for line in report.policies:
        rows.add_row(
            line.policy,
            _clicks(line.matched),
            _rate(line.matched),
            f"{line.weighted.rows:,.0f}",
            _rate(line.weighted),
        )
    return rows


def _clicks(rate: ClickRate) -> str:
    return f"{rate.clicks:.0f} of {rate.rows:,.0f}"


def _rate(rate: ClickRate) -> str:
    low, high = rate.interval
    return "-" if rate.rate is None else f"{rate.rate:.2%} ({100 * low:.2f}–{100 * high:.2f})"


def reading(report: ReplayReport) -> str:
    """What the table can and cannot say, in a sentence or two."""
    low, high = report.log.interval
    apart = []
    for line in report.policies:
        lows, highs = zip(line.matched.interval, line.weighted.interval, strict=True)
        if max(lows) > high or min(highs) < low:
            apart.append(line.policy)
    share = f"One row in {report.items} matches a policy's choice"
    if apart:
        return (
            f"{share}. Set apart from the log's own rate, interval from interval: "
            f"{', '.join(apart)}."
        )
    return (
        f"{share}: too few here to tell a policy from the log's own rate, "
        "for every interval overlaps that one."
    )
