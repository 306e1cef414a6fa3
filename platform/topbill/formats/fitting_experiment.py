"""The experiment file that fits a foreign log: what its contexts, actions, events and variants
were, noted while the log is read.

With it an imported log can be evaluated at once. It says what was there, and decides nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import Any

import msgspec

from topbill.domain.features import LARGEST, REST
from topbill.domain.records import NULL, Decision, RewardEvent
from topbill.formats.assignment_fields import MOST_VARIANTS
from topbill.formats.rows import Row
from topbill.spec.fields import LONGEST_DURATION, MAX_TEXT, NAME

# Models have a weight for each pair of a context's and an action's column, and take time with the
# cube of that: these make some 600 of them. What they leave out is hashed into the rest's columns.
_CONTEXT_COLUMNS, _CONTEXT_REST = 40, 24
_ACTION_COLUMNS, _ACTION_REST = 8, 8
# A text with more values than these is hashed.
_MOST_VALUES = max(_CONTEXT_COLUMNS, _ACTION_COLUMNS)
# Names beyond these are ids rather than features; they would fill the memory.
_MOST_NAMES = 1_000
_MOST_METRICS = 50
_REWARD = "reward"
# What people call the variant that others are compared with; else the most frequent is taken.
_CONTROLS = ("control", "baseline", "off")
_EVENT = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
# What YAML does not take as it stands, though JSON does.
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_contexts = msgspec.json.Decoder(dict[str, Any])


class FittingExperiments:
    """What the rows of a log show, by the experiment that they are of."""

    def __init__(self, declared: Collection[str]) -> None:
        """`declared`: the experiments that have a file already."""
        self._declared = declared
        self.logs: dict[str, LogShape] = {}

    def watch(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows themselves, looked at on their way."""
        for row in rows:
            decision, events = row
            if decision.experiment not in self._declared:
                log = self.logs.get(decision.experiment)
                if log is None:
                    log = self.logs[decision.experiment] = LogShape()
                log.add(decision, events)
            yield row


class LogShape:
    """What was there in the decisions of one experiment."""

    def __init__(self) -> None:
        self._context = _Features(_CONTEXT_COLUMNS, _CONTEXT_REST)
        self._action_features = _Features(_ACTION_COLUMNS, _ACTION_REST)
        self._own_actions: dict[str, None] = {}
        self._last_eligible: tuple[str, ...] = ()
        self._last_offered = b""
        self._events: dict[str, _Event] = {}
        self._variants: Counter[str] = Counter()
        self._slots = 1
        self._has_units = False

    def add(self, decision: Decision, events: list[RewardEvent]) -> None:
        """One more decision with its events."""
        self._context.add(_contexts.decode(decision.context))
        self._add_actions(decision)
        self._variants[decision.variant or ""] += 1
        self._slots = max(self._slots, len(decision.slate))
        self._has_units |= decision.unit != decision.decision_id
        by_name: dict[str, list[RewardEvent]] = {}
        for event in events:
            by_name.setdefault(event.event, []).append(event)
        for name, own in by_name.items():
            seen_event = self._events.get(name)
            if seen_event is None:
                seen_event = self._events[name] = _Event()
            seen_event.add(own, decision)

    def _add_actions(self, decision: Decision) -> None:
        # Neighbours offer the same, as a rule: each list is looked at where it changes.
        if decision.actions == NULL:
            if decision.eligible != self._last_eligible:
                self._own_actions.update(dict.fromkeys(decision.eligible))
                self._last_eligible = decision.eligible
        elif decision.actions != self._last_offered:
            for action in msgspec.json.decode(decision.actions):
                self._action_features.add(action.get("features") or {})
            self._last_offered = bytes(decision.actions)

    def content(
        self, key: str, source: str, units: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """The experiment file's content.

        Args:
            key: The experiment's.
            source: What the log is called, for the title.
            units: How many units each variant has, which is what shares are of; by default those
                are of decisions, as where each is a unit.
        """
        metrics = self._metrics()
        content: dict[str, Any] = {
            "experiment": key,
            "title": f"Imported from {source}"[:MAX_TEXT],
            "surface": "titles",
            # A service that finds the file must not begin to decide by it.
            "status": "stopped",
            "slots": min(self._slots, 100),
            "context": self._context.declared(),
            "action_features": self._action_features.declared(),
            "actions": [{"id": name} for name in self._own_actions],
            "metrics": metrics,
            "objective": {self._goal(metrics): 1.0},
            "variants": self._declared_variants(units or self._variants),
        }
        if self._has_units:
            content["unit"] = "unit"
        return content

    def _metrics(self) -> dict[str, Any]:
        frequent = sorted(self._events, key=lambda name: -self._events[name].count)
        metrics: dict[str, Any] = {}
        for name in frequent[:_MOST_METRICS]:
            metric = re.sub("[.:]", "-", name).rstrip("_-")
            if _EVENT.fullmatch(name) and re.fullmatch(NAME, metric) and metric not in metrics:
                metrics[metric] = {"event": name, **self._events[name].declared()}
        # A log without a reward gets the metric that later ones will be counted by.
        return metrics or {_REWARD: {"event": _REWARD, **_Event().declared()}}

    def _goal(self, metrics: Mapping[str, Any]) -> str:
        """What the log's maker wanted raised: most formats have one event, called reward; else the
        most frequent is as good a guess as any.
        """
        return _REWARD if _REWARD in metrics else next(iter(metrics))

    def _declared_variants(self, units: Mapping[str, int]) -> dict[str, Any]:
        counts: dict[str, int] = {}
        for name, _ in self._variants.most_common():
            if re.fullmatch(NAME, name) and len(counts) < MOST_VARIANTS:
                counts[name] = units.get(name, 1)
        counts = counts or {"imported": 1}
        variants: dict[str, Any] = {}
        for name, share in zip(counts, _shares(list(counts.values())), strict=True):
            # Whatever decided there, it drew by chance: that is what evaluation has to know.
            variants[name] = {"policy": "uniform", "share": share}
        control = next(
            (name for name in variants if name.lower() in _CONTROLS), next(iter(variants))
        )
        variants[control]["control"] = True
        return variants


class _Features:
    """The features of contexts, or of actions."""

    def __init__(self, columns: int, rest: int) -> None:
        """`columns`: at most so many are declared; `rest`: into how many the others are hashed."""
        self._columns, self._rest = columns, rest
        self._by_name: dict[str, _Values] = {}
        self._overflows = False

    def add(self, mapping: Mapping[str, Any]) -> None:
        """What one mapping has."""
        for name, value in mapping.items():
            values = self._by_name.get(name)
            if values is None:
                if len(self._by_name) >= _MOST_NAMES:
                    self._overflows = True
                    continue
                values = self._by_name[name] = _Values()
            values.add(value)

    def declared(self) -> dict[str, Any]:
        """Feature → its type and what belongs to it. What is nested, fits no type, or is too wide
        is hashed together.
        """
        fitting: dict[str, Any] = {}
        for name, values in self._by_name.items():
            feature = values.declared()
            if feature is not None and re.fullmatch(NAME, name):
                fitting[name] = feature
        # The narrow ones first, so that one with many values leaves out no others.
        declared: dict[str, Any] = {}
        columns = 0
        for name in sorted(fitting, key=lambda name: _width(fitting[name])):
            columns += _width(fitting[name])
            if columns <= self._columns:
                declared[name] = fitting[name]
        declared = {name: declared[name] for name in self._by_name if name in declared}
        if self._overflows or len(declared) < len(self._by_name):
            declared[REST] = {"type": "hashed", "size": self._rest}
        return declared


def _width(feature: Mapping[str, Any]) -> int:
    """How many columns a feature becomes."""
    return len(feature.get("values", (1,)))


class _Values:
    """The values of one feature."""

    __slots__ = ("_high", "_low", "_texts", "_types")

    def __init__(self) -> None:
        self._types: set[str] = set()
        self._texts: dict[str, None] = {}
        self._low, self._high = math.inf, -math.inf

    def add(self, value: Any) -> None:
        """One value of JSON."""
        if value is None:
            return
        if isinstance(value, bool):
            self._types.add("flag")
        elif isinstance(value, str):
            self._types.add("category")
            if len(self._texts) <= _MOST_VALUES:
                self._texts[value] = None
        elif isinstance(value, int | float):
            self._types.add("number")
            self._low, self._high = min(self._low, value), max(self._high, value)
        else:
            self._types.add("hashed")

    def declared(self) -> dict[str, Any] | None:
        """The type that takes all of them; None where only hashing does."""
        if len(self._types) > 1 or "hashed" in self._types:
            return None
        kind = next(iter(self._types), "flag")  # what is null everywhere fits any
        if kind == "category":
            return self._category()
        if kind == "number":
            return {"type": "number", **self._bounds()}
        return {"type": "flag"}

    def _category(self) -> dict[str, Any] | None:
        # An empty text is no value to declare: like any unknown one it adds nothing.
        values = [text for text in self._texts if text]
        fits = all(len(text) <= MAX_TEXT and text.isprintable() for text in values)
        if not values or not fits or len(self._texts) > _MOST_VALUES:
            return None
        return {"type": "category", "values": sorted(values)}

    def _bounds(self) -> dict[str, float]:
        low, high = max(self._low, -LARGEST), min(self._high, LARGEST)
        if low < high:
            return {"min": low, "max": high}
        if low == high:
            return {}
        # All beyond what a number without bounds may be: with them it is clipped.
        return {"min": -LARGEST, "max": LARGEST}


class _Event:
    """The events of one name: what they came to for each shown item."""

    def __init__(self) -> None:
        self.count = 0
        self._low, self._high = 0.0, 0.0
        self._is_binary = True
        self._seconds = 0.0

    def add(self, events: list[RewardEvent], decision: Decision) -> None:
        """A decision's events of this name, at least one."""
        self.count += len(events)
        positions = {event.position for event in events} - {None}
        for position in positions or {None}:
            own = [event.value for event in events if event.position in (None, position)]
            total = math.fsum(own)
            self._low, self._high = min(self._low, total), max(self._high, total)
            self._is_binary &= own == [1.0]
        for event in events:
            happened = event.received_at if event.occurred_at is None else event.occurred_at
            self._seconds = max(self._seconds, (happened - decision.decided_at) / 1e6)

    def declared(self) -> dict[str, Any]:
        """The metric that counts all of them, whatever they came to."""
        seconds = min(max(1, math.ceil(self._seconds)), LONGEST_DURATION)
        metric: dict[str, Any] = {"kind": "binary", "window": f"{seconds}s"}
        if not self._is_binary:
            metric |= {"kind": "sum", "cap": self._high or 1.0}
            if self._low < 0.0:
                metric["floor"] = self._low
        return metric


def _shares(counts: list[int]) -> list[str]:
    """Percentages with four decimals, none of 0, that sum to 100%."""
    total, millionths = sum(counts), 1_000_000
    shares = [max(1, int(Fraction(count * millionths, total))) for count in counts]
    # What rounding left over, or took, is the largest one's.
    shares[shares.index(max(shares))] += millionths - sum(shares)
    return [f"{share / 10_000:.4f}".rstrip("0").rstrip(".") + "%" for share in shares]


def yaml_of(content: Mapping[str, Any], comment: str) -> str:
    """An experiment file's text: a line for each entry, in JSON, which is YAML too."""
    lines = [f"# {line}" for line in comment.splitlines()]
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            lines.append(f"{key}:")
            lines += [f"  {_json(name)}: {_json(part)}" for name, part in value.items()]
        elif isinstance(value, list) and value:
            lines.append(f"{key}:")
            lines += [f"  - {_json(part)}" for part in value]
        else:
            lines.append(f"{key}: {_json(value)}")
    return "\n".join(lines) + "\n"


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
