"""`load`: an experiment's report from the face of the lake, as of its last publication."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from topbill.ab import Method
from topbill.domain.errors import LogError, NotFound
from topbill.lake import DATABASE, Connection, Error, connect, objective_of, quoted
from topbill.reporting.experiment.analysis_rows import OBJECTIVE, gather
from topbill.reporting.experiment.effects import analysis, category_features
from topbill.reporting.experiment.health import health
from topbill.reporting.experiment.metric_means import Seen, estimates
from topbill.reporting.experiment.model import (
    Health,
    MeanEstimate,
    MetricLine,
    Note,
    Report,
    ShareLine,
    VariantLine,
)
from topbill.reporting.formatting import duration
from topbill.spec.forms import nearest


def load(
    key: str,
    data: Path | str,
    *,
    segments: Sequence[str] | None = None,
    method: Method = "sequential",
    looks: Sequence[float] = (1.0,),
) -> Report:
    """The report of experiment `key` from the data folder `data`.

    `segments` are context features to look into; None takes all of type category. `method` is how
    intervals of differences are made, `looks` when was looked with "group-sequential" (see
    `ab.compare`).

    Raises NotFound when there is no lake yet or no such experiment in it, LogError when the lake
    cannot be read. Weak data never raises: numbers are missing then, and say why.
    """
    face = Path(data) / DATABASE
    connection = connect(face)
    try:
        return _report(connection, key, segments, method, looks)
    except Error as error:
        raise LogError(
            f"{face}: {error}; try again: the files may have been compacted meanwhile"
        ) from error
    finally:
        connection.close()


def _report(
    connection: Connection,
    key: str,
    segments: Sequence[str] | None,
    method: Method,
    looks: Sequence[float],
) -> Report:
    about = _rows(connection, f"SELECT * FROM experiments WHERE key = {quoted(key)}")
    if not about:
        known = ", ".join(
            row["key"] for row in _rows(connection, "SELECT key FROM experiments ORDER BY key")
        )
        raise NotFound(
            f"no experiment {key!r} in the lake; expected one of: {known or 'none was published yet'}"
        )
    (published,) = _rows(
        connection,
        "SELECT epoch_us(published_at) AS published_at, published_at::VARCHAR AS shown FROM published",
    )
    at: int = published["published_at"]
    metrics = _rows(connection, f"SELECT * FROM metrics WHERE experiment = {quoted(key)}")
    objective_window = objective_of(metrics).window
    declared = _rows(connection, f"SELECT * FROM variants WHERE experiment = {quoted(key)}")
    names = [m["metric"] for m in metrics]
    if segments is None:
        segments = category_features(about[0]["spec"], names)
    past = gather(connection, key, metrics, segments, at)
    seen, found = estimates(connection, [OBJECTIVE, *names])
    variants = _variants(declared, seen, found)
    compared = analysis(
        connection,
        key,
        variants=declared,
        metrics=metrics,
        segments=segments,
        method=method,
        looks=looks,
        covariates=past,
    )
    windows: dict[str, float] = {}
    for m in metrics:
        windows[m["event"]] = max(windows.get(m["event"], 0.0), m["window_seconds"])
    (span,) = _rows(
        connection,
        "SELECT count(*) AS decisions, min(decided_at)::VARCHAR AS first_at, max(decided_at)::VARCHAR AS last_at "
        f"FROM decisions WHERE experiment = {quoted(key)}",
    )
    checked = health(connection, key, windows, objective_window, at)
    return Report(
        experiment=key,
        title=about[0]["title"],
        hypothesis=about[0]["hypothesis"],
        revision=about[0]["revision"],
        status=about[0]["status"],
        published_at=_iso(published["shown"]) or "",
        first_at=_iso(span["first_at"]),
        last_at=_iso(span["last_at"]),
        units=sum(v.units for v in variants),
        decisions=span["decisions"],
        variants=variants,
        ab=compared,
        metrics=[_metric_line(m, v.variant, found) for m in metrics for v in variants],
        shares=_shares(connection, key),
        health=checked,
        notes=_notes(variants, checked, objective_window, windows),
    )


def _variants(
    declared: list[dict[str, Any]],
    seen: dict[str, Seen],
    found: dict[tuple[str, str], MeanEstimate],
) -> list[VariantLine]:
    """Those of the file, in its order, and those that only the record knows (an earlier revision
    had them).
    """
    earlier = sorted(seen.keys() - {row["variant"] for row in declared})
    lines = []
    for row in [
        *declared,
        *({"variant": v, "policy": "", "control": False, "share": None} for v in earlier),
    ]:
        variant = row["variant"]
        lines.append(
            VariantLine(
                variant=variant,
                policy=row["policy"],
                control=row["control"],
                share=row["share"],
                units=seen.get(variant, Seen()).units,
                decisions=seen.get(variant, Seen()).decisions,
                reward=found.get((OBJECTIVE, variant), MeanEstimate(reason="no_decisions")),
            )
        )
    return lines


def _metric_line(
    metric: dict[str, Any], variant: str, found: dict[tuple[str, str], MeanEstimate]
) -> MetricLine:
    return MetricLine(
        metric=metric["metric"],
        variant=variant,
        better=metric["better"],
        window_seconds=metric["window_seconds"],
        guardrail=metric["margin"] is not None,
        estimate=found.get((metric["metric"], variant), MeanEstimate(reason="no_decisions")),
    )


def _shares(connection: Connection, key: str) -> list[ShareLine]:
    rows = _rows(
        connection,
        "SELECT variant, action, count(*) AS shown, count(*) / sum(count(*)) OVER (PARTITION BY variant) AS share "
        "FROM (SELECT variant, unnest(slate) AS action FROM decisions "
        f"WHERE experiment = {quoted(key)} AND variant IS NOT NULL) GROUP BY variant, action "
        "ORDER BY variant, shown DESC, action",
    )
    return [ShareLine(**row) for row in rows]


def _notes(
    variants: list[VariantLine], checked: Health, objective_window: float, events: Collection[str]
) -> list[Note]:
    if not any(v.decisions for v in variants):
        return [
            Note(
                code="no_traffic",
                sentence="No decision has been published yet; is the service being asked?",
            )
        ]
    notes = []
    if all(v.reward.reason in ("immature", "no_decisions") for v in variants):
        wait = f"No decision is older than the objective's longest window ({duration(objective_window)}) yet."
        notes.append(
            Note(code="immature", sentence=f"{wait} The first rewards per variant appear then.")
        )
    if checked.propensity_ok is False:
        bad = sum(line.ok is False for line in checked.propensity)
        sentence = f"{bad} action(s) were not drawn as often as the logged probabilities say; don't evaluate from this log."
        notes.append(Note(code="propensity_mismatch", sentence=sentence))
    for c in checked.choices:
        if c.alarm:
            why = (
                f"{c.impossible:,} draws of probability 0"
                if c.impossible
                else f"p = {c.p_sequential:.2g}"
            )
            sentence = (
                f"The choices of {c.variant} do not match its summed logged probabilities ({why}); "
                "don't evaluate from this log."
            )
            notes.append(Note(code="choice_mismatch", sentence=sentence))
    if checked.fallback_share is not None and checked.fallback_share > 0.01:
        sentence = f"{checked.fallback_share:.1%} of decisions fell back to the control's order; look at the service's log."
        notes.append(Note(code="many_fallbacks", sentence=sentence))
    if checked.reward_events == 0:
        notes.append(
            Note(
                code="no_rewards", sentence="No reward event has come yet; are rewards being sent?"
            )
        )
    if checked.unread_events:
        notes.append(Note(code="unread_events", sentence=_unread(checked.unread_events, events)))
    return notes


def _unread(came: dict[str, int], read: Iterable[str]) -> str:
    """Which events came for nothing so far, and which names may have been meant."""
    hints = {event: nearest(event, read) for event in came}
    named = [
        f"{n:,} {event}" + (f" ({hints[event]})" if hints[event] else "")
        for event, n in came.items()
    ]
    said = ", ".join(named[:5]) + (f" and {len(named) - 5} more names" if len(named) > 5 else "")
    return f"No metric reads these reward events: {said}; they are kept, and count as soon as a metric reads them."


def _iso(shown: str | None) -> str | None:
    return None if shown is None else shown.replace(" ", "T") + "Z"


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    relation = connection.sql(query)
    return [dict(zip(relation.columns, row, strict=True)) for row in relation.fetchall()]
