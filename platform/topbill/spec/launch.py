"""How an experiment is launched, `launch`: what the log has to say first, how long it is only
shadowed, by which steps its traffic grows, and what happens when it harms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from topbill.domain.margin import Margin
from topbill.domain.suggestion import nearest
from topbill.spec.fields import (
    Choice,
    Duration,
    JsonSchema,
    Key,
    ListOf,
    Location,
    MarginField,
    Moment,
    Name,
    Number,
    Percent,
    Section,
    Verbatim,
    listed,
    percent,
)

Content = Mapping[str, Any]
OnRefusal = Literal["approve", "stop", "tell"]
OnHarm = Literal["rollback", "pause", "tell"]
Estimator = Literal[
    "ips",
    "snips",
    "clipped-ips",
    "sg-ips",
    "dm",
    "dr",
    "sndr",
    "switch-dr",
    "dros",
    "sg-dr",
    "mips",
    "adaptive-dr",
]
DAY = 86_400.0
_AS_READ = ("ramp", "start", "shadow", "on_harm", "approve_at")
"""Keys that become fields without more ado."""


@dataclass(frozen=True)
class Gate:
    """What the log has to say before any viewer is shown anything: by off-policy evaluation of the
    log of experiment `log`, `variant` is worse than `versus` by less than `margin`.

    Attributes:
        log: The key of the experiment whose log is read.
        variant: The candidate, a variant of this file.
        versus: What it is compared with, a variant of this file.
        margin: Relative to the value of `versus`, or absolute in units of the objective.
        estimator: The estimator's name.
        on_refusal: What follows a refusal: somebody has to approve, the launch stops, or it is only
            told. Where the log cannot judge, somebody has to approve unless it is only told.
    """

    log: str
    variant: str
    versus: str
    margin: Margin
    estimator: Estimator = "dr"
    on_refusal: OnRefusal = "approve"


@dataclass(frozen=True)
class Hold:
    """How long a step lasts at least: seconds, and units that took part during it. Both count."""

    at_least: float = DAY
    units: int = 0


@dataclass(frozen=True)
class AdvanceIf:
    """What has to hold before traffic grows; `any` asks nothing."""

    guardrails: Literal["not_failed", "any"] = "not_failed"
    sample_ratio: Literal["ok", "any"] = "ok"
    health: Literal["ok", "any"] = "ok"


@dataclass(frozen=True)
class Launch:
    """How an experiment is launched.

    Attributes:
        ramp: The traffic of each step, growing; the last is the file's `traffic`.
        start: Not before this moment, seconds since the epoch; None for at once.
        gate: What the log has to say first; None where nothing is asked.
        shadow: How many seconds the variants that it brings (`Experiment.launched`) decide beside
            what runs, unseen; 0 for none.
        approve_at: Steps that begin only when somebody approved.
    """

    ramp: tuple[float, ...]
    start: float | None = None
    gate: Gate | None = None
    shadow: float = 0.0
    hold: Hold = Hold()
    advance_if: AdvanceIf = AdvanceIf()
    on_harm: OnHarm = "rollback"
    approve_at: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Percents:
    """A percentage, or a list of them → tuple."""

    most: int

    def read(self, value: Any, at: Location) -> Any:
        items = value if isinstance(value, list) else [value]
        return self._list.read(items, at if isinstance(value, list) else _single(at))

    @property
    def _list(self) -> ListOf:
        return ListOf(Percent(), self.most, 1, unique=True)

    def schema(self) -> JsonSchema:
        return {"anyOf": [Percent().schema(), self._list.schema()]}


class _Single(Location):
    """The place of a value that stands without a list: it is the place of its only item as well."""

    def item(self, index: int) -> Location:
        del index
        return self


def _single(at: Location) -> Location:
    return _Single(at.file, at.path, at.problems, at.lines)


_GATE = Section(
    {
        "log": Key(
            Name, "The experiment whose log is read; its own, where it ran before (default)."
        ),
        "variant": Key(Name, "The variant that is to be launched.", True),
        "versus": Key(Name, "The variant that it is compared with (default: the control)."),
        "margin": Key(
            MarginField(),
            "By how much its objective may be worse: 2% of the other's value, or a number in the "
            "objective's own unit.",
            True,
        ),
        "estimator": Key(
            Choice(get_args(Estimator)), "The off-policy estimator that judges (default dr)."
        ),
        "on_refusal": Key(
            Choice(get_args(OnRefusal)),
            "What follows a refusal: wait for `topbill approve KEY` (default), stop, or only tell.",
        ),
    }
)
_HOLD = Section(
    {
        "at_least": Key(Duration(), "How long each step lasts at least (default 24h)."),
        "units": Key(
            Number(0, 1_000_000_000, whole=True),
            "How many units have to take part during a step before the next one (default 0).",
        ),
    }
)
_ADVANCE_IF = Section(
    {
        "guardrails": Key(
            Choice(("not_failed", "any")),
            "not_failed (default): no guardrail is known to be broken, at any look.",
        ),
        "sample_ratio": Key(
            Choice(("ok", "any")), "ok (default): units are split as the shares say."
        ),
        "health": Key(
            Choice(("ok", "any")),
            "ok (default): what is decided is learned from and published as it should be, and "
            "variants in shadow have their answers within budget_ms.",
        ),
    }
)
LAUNCH = Section(
    {
        "start": Key(Moment(), "Not before this date or time (default: at once)."),
        "gate": Key(_GATE, "What an earlier log has to say of it before any viewer sees it."),
        "shadow": Key(
            Duration(),
            "How long the variants that it brings decide beside what runs, logged and not shown "
            "(default: not).",
        ),
        "ramp": Key(
            ListOf(Percent(), 50, 1),
            "The traffic of each step, growing, up to the file's traffic. Shares stay.",
            True,
        ),
        "hold": Key(_HOLD, "How long each step lasts at least: time and units."),
        "advance_if": Key(_ADVANCE_IF, "What has to hold before traffic grows."),
        "on_harm": Key(
            Choice(get_args(OnHarm)),
            "What is done when a guardrail is broken: rollback (default), everybody goes back to "
            "what ran before, or gets the control's order where nothing did, and the launch is "
            "over; pause, the same until somebody approves; tell, the step is held.",
        ),
        "approve_at": Key(
            _Percents(50),
            "The step, or steps, that begin only after `topbill approve KEY`.",
        ),
    }
)


def read_launch(content: Content, at: Location) -> Launch | None:
    """The launch, after noting what no single key can show; None where the file has none, or one
    that could not be read.

    Args:
        content: What could be read of the file.
        at: The file's place.
    """
    if "launch" not in content:
        return None
    parts, where = content["launch"], at.key("launch")
    _check_ramp(parts, content.get("traffic", 1.0), at)
    _check_approvals(parts, where)
    _check_advance(parts, content, where)
    gate = _gate(parts, content, at)
    if "ramp" not in parts:
        return None
    plain = {key: parts[key] for key in _AS_READ if key in parts}
    return Launch(
        gate=gate,
        hold=Hold(**parts.get("hold", {})),
        advance_if=AdvanceIf(**parts.get("advance_if", {})),
        **plain,
    )


def _check_ramp(parts: Content, traffic: float, at: Location) -> None:
    """Traffic grows with each step, from above nothing to what the file says."""
    ramp = parts.get("ramp", ())
    where = at.key("launch").key("ramp")
    before = 0.0
    for index, step in enumerate(ramp):
        if step <= before:
            than = f"more than {percent(before)}"
            than += ", the step before it" if index else ": the first step shows it to somebody"
            where.item(index).wrong(Verbatim(percent(step)), than, "traffic only grows")
        before = max(before, step)
    if ramp and ramp[-1] != traffic and not at.has_problem("traffic"):
        last = percent(ramp[-1])
        expected = f"{percent(traffic)} as the last step, which is the file's traffic"
        hint = f"end the ramp there, or write traffic: {last}"
        where.item(len(ramp) - 1).wrong(Verbatim(last), expected, hint)


def _check_approvals(parts: Content, where: Location) -> None:
    """What waits for an approval is a step."""
    ramp, steps = parts.get("ramp"), parts.get("approve_at", ())
    if ramp is None:
        return
    for index, step in enumerate(steps):
        if step not in ramp:
            place = where.key("approve_at")
            place = place.item(index) if len(steps) > 1 else place
            expected = f"one of the ramp's steps: {listed(percent(other) for other in ramp)}"
            place.wrong(Verbatim(percent(step)), expected)


def _check_advance(parts: Content, content: Content, where: Location) -> None:
    """What is said of guardrails is said of some."""
    if "guardrails" in parts.get("advance_if", {}) and not content.get("guardrails"):
        where.key("advance_if").key("guardrails").wrong(
            Verbatim("no guardrail in the file"),
            "guardrails: a metric and its margin each, or nothing said of them here",
        )


def _gate(parts: Content, content: Content, at: Location) -> Gate | None:
    """The gate; None where there is none, or one that could not be read."""
    gate = parts.get("gate")
    if gate is None:
        return None
    where = at.key("launch").key("gate")
    variants = content.get("variants", {})
    control = next((name for name, one in variants.items() if one.get("control")), None)
    gate = {"log": content.get("experiment"), "versus": control, **gate}
    for key in ("variant", "versus"):
        name = gate.get(key)
        if name is not None and variants and name not in variants:
            expected = f"one of the variants {listed(variants)}"
            where.key(key).wrong(name, expected, nearest(name, variants))
    if gate.get("variant") is not None and gate.get("variant") == gate["versus"]:
        expected = f"another variant than {gate['versus']}, which it is compared with"
        where.key("variant").wrong(gate["variant"], expected)
    margin = gate.get("margin")
    if margin is not None and margin.unit == "points":
        where.key("margin").wrong(
            Verbatim(str(margin)),
            "a percentage of the other's value or a number in the objective's unit",
            "points are of rates",
        )
    needed = ("log", "variant", "versus", "margin")
    return None if any(gate.get(key) is None for key in needed) else Gate(**gate)
