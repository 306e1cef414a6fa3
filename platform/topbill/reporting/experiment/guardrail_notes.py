"""What is said of a file's guardrails before anybody was asked: those whose margin takes so many
units that no winner would be safe to ship for a long time.
"""

from __future__ import annotations

from collections.abc import Iterator

from topbill.domain.formatting import label
from topbill.domain.margin import Margin
from topbill.reporting.experiment.plan import plan_of_file
from topbill.spec import Experiment

ASSUMED = 0.10
"""A rate that stands for the guardrail's, which nobody knows before there is a record."""
MANY = 500_000
"""Units from which on the margin is worth a word."""


def guardrail_notes(experiment: Experiment) -> Iterator[str]:
    """A sentence for each rate whose margin takes more than `MANY` units (80% power, all variants
    together), by the file's shares and method.
    """
    rates = {m.name for m in experiment.metrics if m.definition.is_proportion}
    guarded = [g for g in experiment.guardrails if g.metric in rates and g.margin]
    if not guarded or len(experiment.variants) < 2 or not experiment.control.share:
        return
    plan = plan_of_file(experiment, ASSUMED, guardrails={g.metric: ASSUMED for g in guarded})
    for guardrail in guarded:
        lines = [line for line in plan.guardrails if line.metric == guardrail.metric]
        units = [line.all_units for line in lines]
        known = [n for n in units if n is not None]
        if len(known) == len(units) and max(known, default=0) <= MANY:
            continue
        takes = f"{max(known):,} units" if len(known) == len(units) else "more units than there are"
        name = guardrail.metric
        yield (
            f"non-inferiority of {label(name)} within "
            f"{Margin(guardrail.margin, guardrail.margin_unit)} takes {takes} where its rate is "
            f"{ASSUMED:.0%}, and without it no winner is safe to ship; topbill power "
            f"{experiment.source} --baseline 10% --guardrail {name}=RATE says it of yours"
        )
