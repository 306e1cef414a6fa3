"""By what rule an experiment is decided, in sentences: all of it stands in its file before the
first unit comes."""

from __future__ import annotations

from collections.abc import Sequence

from topbill.domain import formatting
from topbill.domain.margin import Margin
from topbill.domain.reading import Method
from topbill.spec import Experiment, Launch
from topbill.spec.fields import percent


def decision_rule(
    experiment: Experiment, method: Method, looks: Sequence[float], alpha: float
) -> list[str]:
    """The rule, a sentence each: who takes part, what is called better and when one looks, what
    must not be harmed, and how it is launched."""
    sentences = [_traffic(experiment), _call(experiment, method, looks, alpha)]
    if experiment.guardrails:
        margins = []
        for guardrail in experiment.guardrails:
            margins.append(f"{guardrail.metric} {Margin(guardrail.margin, guardrail.margin_unit)}")
        sentences.append(
            f"It is safe to ship when each guardrail is shown to be worse by less than its margin: "
            f"{formatting.listing(margins, len(margins))}."
        )
    if experiment.launch is not None:
        sentences.append(_launch(experiment.launch))
    return sentences


def _traffic(experiment: Experiment) -> str:
    shares = [f"{variant.name} {percent(variant.share)}" for variant in experiment.variants]
    held = f", {percent(experiment.holdout)} held out before" if experiment.holdout else ""
    return (
        f"Takes part: {percent(experiment.traffic)} of the {_units(experiment)}{held}: "
        f"{formatting.listing(shares, len(shares))} ({experiment.control.name} is the control)."
    )


def _units(experiment: Experiment) -> str:
    return "decisions" if experiment.unit is None else "units"


def _call(experiment: Experiment, method: Method, looks: Sequence[float], alpha: float) -> str:
    treatments = len(experiment.variants) - 1
    goal = ", ".join(f"{name} × {weight:g}" for name, weight in experiment.objective.items())
    holm = f", by Holm over {treatments} treatments" if treatments > 1 else ""
    interval = "credible interval" if method == "bayes" else "interval"
    return (
        f"A treatment is better when the {1 - alpha:.0%} {interval} of its effect on the objective "
        f"({goal}) is above 0{holm}; {_looking(method, looks)}."
    )


def _looking(method: Method, looks: Sequence[float]) -> str:
    if method == "group-sequential":
        planned = formatting.listing([percent(look) for look in looks], len(looks))
        return f"one looks at {planned} of the planned units, and stops at the first call"
    if method == "fixed":
        return "one looks once, at the planned end"
    if method == "bayes":
        return "one looks whenever one likes, which its intervals do not allow for"
    return "one looks whenever one likes, and may stop at the first call"


def _launch(launch: Launch) -> str:
    steps = formatting.listing([percent(step) for step in launch.ramp], len(launch.ramp))
    units = f" and {launch.hold.units:,} units" if launch.hold.units else ""
    harm = {
        "rollback": "everybody goes back to the control's order",
        "pause": "it pauses until somebody approves",
        "tell": "it stays where it is, and tells",
    }
    return (
        f"Launched by steps of {steps} of the traffic, each for "
        f"{formatting.duration(launch.hold.at_least)}{units} at least; when a guardrail is broken, "
        f"{harm[launch.on_harm]}."
    )
