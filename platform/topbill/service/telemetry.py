"""What the service counts about itself, in Prometheus' terms."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from topbill.domain.records import Decision

DECISIONS = Counter(
    "topbill_decisions", "Decisions answered and durable", ["experiment", "variant", "reason"]
)
REWARDS = Counter("topbill_rewards", "Reward events answered", ["status"])
UNREAD = Counter(
    "topbill_unread_rewards",
    "Reward events that no metric of their experiment reads",
    ["experiment"],
)
IMPRESSIONS = Counter(
    "topbill_impressions",
    "Events seen: what viewers looked at, by its page or experiment",
    ["experiment"],
)
INTAKE = Counter("topbill_intake", "Events that other tools sent on", ["source", "status"])
EVENTS = Counter("topbill_events", "Events of units answered", ["status"])
UNREAD_EVENTS = Counter("topbill_unread_events", "Events of units that no experiment reads")
REQUESTS = Counter(
    "topbill_requests", "Requests by the key that they carried; empty where none is needed", ["key"]
)
REFUSED = Counter("topbill_refused", "Requests refused or failed", ["status"])
PAGE_FALLBACKS = Counter(
    "topbill_page_fallbacks", "Stages of pages that were not as planned", ["page", "stage"]
)
SECONDS = Histogram(
    "topbill_request_seconds",
    "From the whole body read to the answer sent, commit included",
    ["route"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)
SHADOWS = Counter(
    "topbill_shadow_decisions",
    "What variants in shadow made of decisions: ok, late, resting, or the name of an error",
    ["experiment", "variant", "outcome"],
)
SHADOW_SECONDS = Histogram(
    "topbill_shadow_seconds",
    "How long a variant in shadow took for a decision",
    ["experiment", "variant"],
    buckets=(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
)
# Of several processes the oldest version is shown: that one is what an alarm is about.
POLICY_VERSION = Gauge(
    "topbill_policy_version",
    "Version that decisions are made from",
    ["experiment"],
    multiprocess_mode="min",
)

# What the log says of the worker: of several processes any says the same, so the last one counts.
QUARANTINED = Gauge(
    "topbill_quarantined_total",
    "Rows of the log that were set aside, since there is the log",
    multiprocess_mode="mostrecent",
)
WORKER_ALIVE = Gauge(
    "topbill_worker_alive",
    "1 while the worker gives signs of life",
    multiprocess_mode="mostrecent",
)
WORKER_LAG = Gauge(
    "topbill_worker_lag_seconds",
    "How old the record in the lake is",
    multiprocess_mode="mostrecent",
)
LEARNING_LAG = Gauge(
    "topbill_learning_lag_seconds",
    "How long the next decision has waited to be learned, as its worker last said",
    ["experiment"],
    multiprocess_mode="mostrecent",
)

# A spool is of one process.
SPOOL_BYTES = Gauge(
    "topbill_spool_bytes",
    "Acknowledged, and waiting for the shared log",
    multiprocess_mode="mostrecent",
)

ALARMS = Gauge(
    "topbill_alarms",
    "Alarms that stand, by kind and experiment; experiment is empty where it is the worker",
    ["kind", "experiment"],
    multiprocess_mode="mostrecent",
)

LAUNCH_STEP = Gauge(
    "topbill_launch_step",
    "Number of a launch's last step; 0 before the first",
    ["experiment"],
    multiprocess_mode="mostrecent",
)
LAUNCH_TRAFFIC = Gauge(
    "topbill_launch_traffic",
    "Share of traffic in a launch's ramp, from 0 to 1; 0 before it and once it is over",
    ["experiment"],
    multiprocess_mode="mostrecent",
)
LAUNCH_WAITS = Gauge(
    "topbill_launch_waits",
    "1 for a launch's stage and what it waits for; 0 for what it waited for before",
    ["experiment", "stage", "reason"],
    multiprocess_mode="mostrecent",
)


_LARGEST_SUM = 1_000
"""Durations that wait at most."""
_counts: dict[Counter, int] = {}
_durations: dict[Histogram, list[float]] = {}
"""What every request adds to, since the last `flush`: a meter costs ten times what these do, and
where processes share a folder twice that again. For the loop's own thread."""


def count(counter: Counter, number: int = 1) -> None:
    """Count so many, with the next `flush`."""
    _counts[counter] = _counts.get(counter, 0) + number


def observe(histogram: Histogram, seconds: float) -> None:
    """Note a duration, with the next `flush`."""
    waiting = _durations.setdefault(histogram, [])
    waiting.append(seconds)
    if len(waiting) >= _LARGEST_SUM:
        flush()


def flush() -> None:
    """Let the meters show what was counted up to now."""
    for counter, number in _counts.items():
        counter.inc(number)
    _counts.clear()
    for histogram, durations in _durations.items():
        _observe_all(histogram, durations)
    _durations.clear()


def _observe_all(histogram: Histogram, durations: list[float]) -> None:
    """What `observe` does for each, with one addition a bucket in place of one a duration: a
    thousand took a millisecond, in which nobody was answered."""
    # Its buckets are not public. A test compares what comes out with what `observe` makes of it.
    buckets, bounds = histogram._buckets, histogram._upper_bounds
    histogram._sum.inc(sum(durations))
    numbers = Counts(bisect_left(bounds, duration) for duration in durations)
    for at, number in numbers.items():
        buckets[at].inc(number)


# `labels` checks and hashes its arguments at each call; for a label set that comes thousands of
# times a second it is asked once.
@cache
def decided(experiment: str, variant: str | None, reason: str) -> Counter:
    """The counter of these labels, looked up once."""
    return DECISIONS.labels(experiment, variant or "", reason)


def count_decision(decision: Decision) -> None:
    """Count a decision, and what variants in shadow made of it."""
    count(decided(decision.experiment, decision.variant, decision.reason))
    for shadow in decision.shadows:
        labels = decision.experiment, shadow.variant
        SHADOWS.labels(*labels, shadow.failure or "ok").inc()
        if shadow.latency_us:
            SHADOW_SECONDS.labels(*labels).observe(shadow.latency_us / 1e6)


@cache
def requests(key: str) -> Counter:
    """The counter of a key's requests, looked up once."""
    return REQUESTS.labels(key)


@cache
def seconds(route: str) -> Histogram:
    """The histogram of a route, looked up once."""
    return SECONDS.labels(route)


def exposition(multiprocess: bool) -> bytes:
    """The metrics page: of this process, or of all processes when they share a folder
    (PROMETHEUS_MULTIPROC_DIR). What others counted since their last flush is not there yet.
    """
    flush()
    if not multiprocess:
        return generate_latest()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
