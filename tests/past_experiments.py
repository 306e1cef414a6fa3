"""A record of past experiments: of each nothing is left but its audit and the report that was
kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import yaml

from topbill import spec
from topbill.ab import Analysis, Comparison, SampleRatio, Verdict
from topbill.lake import Lake
from topbill.log import ConclusionLine, Revision
from topbill.reporting import HoldoutReadout, Report
from topbill.reporting.experiment.conclusion import frozen

FILE: dict[str, Any] = yaml.safe_load("""
surface: artwork
actions: [{id: a}, {id: b}]
metrics: {play: {event: play, kind: binary, window: 1h}}
objective: {play: 1}
variants:
  editorial: {policy: fixed, order: [a], share: 50%, control: true}
  fresh: {policy: thompson, share: 50%}
""")
DAY = 86_400_000_000
BEGAN = 1_750_000_000_000_000


class Past(NamedTuple):
    """A past experiment: the lift of `fresh` over the control of 0.2, and its standard error."""

    key: str
    lift: float
    se: float
    winner: str | None = "fresh"
    because: str = "More plays"
    worth: float | None = None


PAST = (
    Past("midnight-run", 0.09, 0.03, worth=0.05),
    Past("crime-row", 0.04, 0.02),
    Past("old-titles", -0.03, 0.02, "editorial", "It harmed"),
    Past("kids-row", 0.01, 0.03, None, "Nothing to be seen"),
    Past("film-noir", 0.02, 0.01),
)


def comparison(lift: float, se: float, **more: Any) -> Comparison:
    half = 1.96 * se
    return Comparison(
        metric="objective",
        variant="fresh",
        value=0.2 * (1 + lift),
        control_value=0.2,
        difference=0.2 * lift,
        relative=lift,
        relative_low=lift - half,
        relative_high=lift + half,
        # So that the standard error of the lift is `se`: of both arms half is each one's.
        se=0.2 * se / (0.5 + 0.5 * (1 + lift) ** 2) ** 0.5,
        n=1_000,
        n_control=1_000,
        **more,
    )


def report(past: Past) -> Report:
    """The one that was kept."""
    ratio = SampleRatio(
        counts={}, shares={}, p_value=1.0, p_sequential=None, alpha=0.01, alarm=False
    )
    analysis = Analysis(
        experiment=past.key,
        control="editorial",
        primary="objective",
        method="sequential",
        alpha=0.05,
        units={"editorial": 1_000, "fresh": 1_000},
        comparisons=[comparison(past.lift, past.se)],
        guardrails=[],
        sample_ratio=ratio,
        heterogeneity=[],
        verdict=Verdict(sentence="Fresh was compared with editorial.", codes=[]),
    )
    readout = None
    if past.worth is not None:
        readout = HoldoutReadout(
            share=0.05,
            units=100,
            units_in_variants=2_000,
            decisions=100,
            excluded={},
            together=[comparison(past.worth, 0.03)],
            each=[],
            sample_ratio=ratio,
            primary="objective",
            method="sequential",
            alpha=0.05,
        )
    return Report(
        experiment=past.key,
        title=past.key.replace("-", " ").capitalize(),
        hypothesis=f"Fresh pictures win ({past.key}).",
        published_at="2026-11-29T10:00:00Z",
        units=2_000,
        decisions=4_000,
        ab=analysis,
        holdout=readout,
    )


def record(data: Path, every: Sequence[Past] = PAST) -> Path:
    """A data folder of them, each concluded a day after the one before."""
    audit, lines = [], []
    for day, past in enumerate(every):
        ended: dict[str, Any] = {"because": past.because, "by": "ann"}
        if past.winner is not None:
            ended["winner"] = past.winner
        raw = {"experiment": past.key, **FILE, "conclusion": ended}
        experiment = spec.from_raw(raw, f"{past.key}.yaml")
        made, at = experiment.fingerprint, BEGAN + day * DAY
        audit.append(Revision(past.key, made, at, "ann", msgspec.json.encode(raw).decode()))
        kept = frozen(report(past))
        lines.append(
            ConclusionLine(past.key, made, made, at, "ann", past.winner, past.because, kept)
        )
    Lake(data).write_database([], BEGAN + 100 * DAY, audit, conclusions=lines)
    return data
