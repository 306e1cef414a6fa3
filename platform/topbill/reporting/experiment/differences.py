"""What differs between two contents of an experiment file, a clause each: what a plan, the list of
revisions and the report's notes say of a change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Spec = Mapping[str, Any]
"""An experiment file's content, as the tables `experiments` and `revisions` have it."""
_BY = {"actions": "id", "guardrails": "metric"}
"""Lists whose entries have names."""
_LONGEST = 60
"""Characters of a value that are shown."""


def spec_differences(before: Spec, after: Spec) -> list[str]:
    """What differs, in the order of the file: `objective.play: 0.2 → 0.4`, `actions.chase: added`.
    Where only the order of entries differs that says who gets what, this is said too."""
    clauses = []
    for key in dict.fromkeys([*before, *after]):
        one, other = _named(key, before.get(key)), _named(key, after.get(key))
        if isinstance(one, dict) and isinstance(other, dict):
            clauses += section_differences(key, one, other)
            if one == other and list(one) != list(other):
                clauses.append(f"{key}: in another order")
        elif one != other:
            clauses.append(_entry(key, before.get(key), after.get(key)))
    return clauses


def section_differences(section: str, before: Spec, after: Spec) -> list[str]:
    """A clause for each entry of a section that came, went, or says something else."""
    clauses = []
    for name in dict.fromkeys([*before, *after]):
        if name not in after:
            clauses.append(f"{section}.{name}: removed")
        elif name not in before:
            clauses.append(f"{section}.{name}: added")
        elif before[name] != after[name]:
            clauses.append(f"{section}.{name}: {_parts(before[name], after[name])}")
    return clauses


def guardrails_by_metric(spec: Spec) -> dict[str, Any]:
    """A file's guardrails by their metric."""
    by_metric: dict[str, Any] = _named("guardrails", spec.get("guardrails", []))
    return by_metric


def _named(key: str, value: Any) -> Any:
    """A list whose entries have names, as a mapping; anything else as it is."""
    name_of = _BY.get(key)
    if name_of is None or not isinstance(value, list):
        return value
    named = {}
    for entry in value:
        rest = {part: content for part, content in entry.items() if part != name_of}
        named[str(entry.get(name_of))] = rest
    return named


def _entry(key: str, before: Any, after: Any) -> str:
    if before is None and isinstance(after, dict | list):
        return f"{key}: added"
    if after is None and isinstance(before, dict | list):
        return f"{key}: removed"
    return f"{key}: {_said(before)} → {_said(after)}"


def _parts(before: Any, after: Any) -> str:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return f"{_said(before)} → {_said(after)}"
    parts = []
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            parts.append(f"{key} {_said(before.get(key))} → {_said(after.get(key))}")
    return ", ".join(parts)


def _said(value: Any) -> str:
    """A value as a file would say it, cut where it is long."""
    if value is None:
        return "left out"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        text = f"[{', '.join(_said(item) for item in value)}]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key}: {_said(part)}" for key, part in value.items()) + "}"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
