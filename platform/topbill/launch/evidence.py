"""What the record says of a launch at one look: whether any variant harms a guardrail, whether
units were split as intended, whether the record is sound, and how many units took part.

All of it may be looked at as often as one likes: guardrails by sequences (`ab.harm`), the split and
the draws by sequential tests. What is not mature is not counted, as in the report.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import msgspec

from topbill.ab import GuardrailHarm
from topbill.domain.formatting import label
from topbill.domain.margin import Margin, amount
from topbill.reporting.experiment.analysis_rows import AnalysisRows, ExperimentTables
from topbill.reporting.experiment.exclusion import counted_decisions
from topbill.reporting.experiment.health import health
from topbill.reporting.experiment.model import Note
from topbill.reporting.experiment.phases import Excerpt
from topbill.reporting.experiment.wording import health_alarms, health_notes
from topbill.reporting.queries.database import AnalyticsDatabase, open_database, published_us


class LaunchEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the record says of a launch, as of its last publication.

    Attributes:
        published_us: The moment that it speaks of, µs since the epoch.
        guardrails: Each variant but the control on each guardrail.
        sample_ratio_ok: False where units were not split by the shares in force when they came.
        sample_ratio_p: The p-value of that, over all looks; None before any unit came.
        units: How many took part since the launch began.
        units_in_step: How many of them took part since the step began, new or not.
        troubles: What must be repaired of the record before any number is believed.
    """

    published_us: int = 0
    guardrails: tuple[GuardrailHarm, ...] = ()
    sample_ratio_ok: bool = True
    sample_ratio_p: float | None = None
    units: int = 0
    units_in_step: int = 0
    troubles: tuple[Note, ...] = ()

    @property
    def harmed(self) -> tuple[GuardrailHarm, ...]:
        """The guardrails that some variant harms."""
        return tuple([g for g in self.guardrails if g.verdict == "harmed"])

    @property
    def unknown(self) -> tuple[GuardrailHarm, ...]:
        """The guardrails of which nothing can be said yet."""
        return tuple([g for g in self.guardrails if g.verdict == "unknown"])

    @property
    def guardrails_not_failed(self) -> bool:
        """Whether each guardrail can be read and none is harmed."""
        return all(g.verdict == "not_failed" for g in self.guardrails)

    @property
    def health_ok(self) -> bool:
        """Whether the record is sound."""
        return not self.troubles


def launch_evidence(
    key: str,
    data: Path | str,
    *,
    since: datetime | None = None,
    step_since: datetime | None = None,
    beside: str | None = None,
) -> LaunchEvidence:
    """The evidence of one experiment's launch.

    Args:
        key: The experiment's key.
        data: The data folder.
        since: When the launch began: what was decided before is none of it. Without a zone: UTC.
        step_since: When its present step began; None for all of the launch.
        beside: The revision that ran before and goes on beside it: what that decides is no part of
            the launch, and was not split as the launch is.

    Raises:
        NotFound: There is no lake yet, or no such experiment in it.
        LogError: The lake cannot be read.

    Weak data never raises: a guardrail is "unknown" then, and says why.
    """
    excerpt = replace(Excerpt.of(since), but=beside)
    step = Excerpt.of(step_since).since
    with open_database(data, on_engine=False) as database:
        tables = ExperimentTables.read(database, key)
        counted = counted_decisions(database, key, tables.experiment["spec"])
        rows = AnalysisRows(database, tables, excerpt=excerpt, counted=counted)
        result = LaunchEvidence(
            published_us=published_us(database),
            units=rows.units(),
            units_in_step=rows.units(step),
            troubles=tuple(_troubles(database, tables, rows)),
        )
        if rows.weighted:
            # Its tests take each row for one decision.
            sentence = "Decisions that stand for several are no launch's: nothing can be judged."
            troubles = (*result.troubles, Note(code="sub_sampled", sentence=sentence))
            return msgspec.structs.replace(result, troubles=troubles)
        reading = rows.harm()
    ratio = reading.sample_ratio
    return msgspec.structs.replace(
        result,
        guardrails=reading.guardrails,
        sample_ratio_ok=not ratio.alarm,
        sample_ratio_p=ratio.p_sequential,
    )


def _troubles(
    database: AnalyticsDatabase, tables: ExperimentTables, rows: AnalysisRows
) -> list[Note]:
    windows = tables.longest_windows()
    window = tables.objective().window
    checked = health(database, tables.key, rows.parts, rows.counts, windows, window)
    return health_alarms(health_notes(checked, windows), checked)


def harm_sentence(harm: GuardrailHarm) -> str:
    """What a harmed guardrail's order gives as its reason: abandon is worse by 6.1% (at least 0.4%,
    at most 11.8%) in thompson; 2% allowed."""
    margin = Margin(harm.margin, harm.margin_unit)
    allowed = f"{margin} allowed" if harm.margin else "none allowed"
    by = ""
    if harm.worse_by is not None and harm.worse_by_low is not None:
        by = f" by {amount(harm.worse_by, harm.margin_unit)}"
        by += f" (at least {amount(harm.worse_by_low, harm.margin_unit)}"
        if harm.worse_by_high is not None:
            by += f", at most {amount(harm.worse_by_high, harm.margin_unit)}"
        by += ")"
    return f"{label(harm.metric)} is worse{by} in {harm.variant}; {allowed}"
