"""Guardrail harmed: what a launch calls harm (`ab.harm`), at an error that lets people sleep.

The sequence holds over all looks at once: a variant that does no harm at all is ever called harmed
with probability `ALPHA` at most, over all guardrails and variants of its experiment. It reads all
of the experiment's record, so the watch for alarms asks it seldomer where that takes long.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from topbill.ab import GuardrailHarm
from topbill.alerts.rules.look import FileChange, RuleReading
from topbill.alerts.sums import HourSums
from topbill.launch.evidence import harm_sentence
from topbill.reporting.experiment.analysis_rows import AnalysisRows, ExperimentTables
from topbill.reporting.experiment.exclusion import counted_decisions
from topbill.reporting.queries.database import open_database

ALPHA = 0.001
"""The chance that an experiment without harm ever raises this alarm."""
_FAILING = 0.1
"""More of a variant's decisions of the last day fell back: then that is what harms."""


def read_harms(data: Path, key: str) -> tuple[GuardrailHarm, ...]:
    """Each variant on each guardrail. Raises as `launch_evidence` does."""
    with open_database(data, on_engine=False) as database:
        tables = ExperimentTables.read(database, key)
        counted = counted_decisions(database, key, tables.experiment["spec"])
        rows = AnalysisRows(database, tables, counted=counted)
        # Its tests take each row for one decision.
        return () if rows.weighted else rows.harm(ALPHA).guardrails


def guardrail_harmed(
    harms: Iterable[GuardrailHarm], hours: Sequence[HourSums], changes: Sequence[FileChange]
) -> list[RuleReading]:
    """A reading of each variant and guardrail. What was harmed is sound again where the guardrail
    is shown to be kept."""
    readings = []
    for harm in harms:
        subject = f"{harm.variant} {harm.metric}"
        reading = RuleReading("guardrail_harmed", subject, "record", "unknown")
        if harm.verdict == "harmed":
            sentence = harm_sentence(harm)
            cause = _cause(harm.variant, hours, changes)
            message = f"{sentence[:1].upper()}{sentence[1:]}."
            reading = reading._replace(state="fault", cause=cause, message=message)
        elif harm.is_kept:
            reading = reading._replace(state="sound")
        readings.append(reading)
    return readings


def _cause(variant: str, hours: Sequence[HourSums], changes: Sequence[FileChange]) -> str:
    own = [hour.variants[variant] for hour in hours if variant in hour.variants]
    decisions = sum(sums.decisions for sums in own)
    if decisions and sum(sums.fallbacks for sums in own) > _FAILING * decisions:
        return "policy_fails"
    is_recent = bool(changes and hours and changes[-1].at >= hours[0].at)
    return "file_changed" if is_recent else "variant_shows"
