"""An evaluation context as an experiment declares its own.

One context is sent for all flags, so that each takes what it knows of it. OpenFeature's contexts
are flat: `taste.action` stands for the key `action` of a declared `taste`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from topbill.domain.errors import BadRequest
from topbill.engine import CompiledExperiment

TARGETING_KEY = "targetingKey"
_LONGEST = 256
_T = TypeVar("_T")


def targeting_key(context: Mapping[str, Any]) -> str | None:
    """Who asks; None where the context does not say, or says nothing. Raises BadRequest for what is
    no text of at most 256 characters.
    """
    key = context.get(TARGETING_KEY)
    if key is None or key == "":
        return None
    path = f"$.context.{TARGETING_KEY}"
    if not isinstance(key, str):
        raise BadRequest(path, f"{key!r:.60}; expected text: who the viewer is")
    if len(key) > _LONGEST:
        raise BadRequest(path, f"{len(key)} characters; expected at most {_LONGEST}")
    return key


def declared(context: Mapping[str, _T], compiled: CompiledExperiment) -> dict[str, Any]:
    """The part of a context that an experiment declares."""
    taken: dict[str, _T] = {}
    parts: dict[str, dict[str, _T]] = {}
    for name, value in context.items():
        if name == TARGETING_KEY:
            continue
        if compiled.takes(name):
            taken[name] = value
            continue
        head, dot, key = name.partition(".")
        if dot and compiled.takes(head):
            parts.setdefault(head, {})[key] = value
    return {**parts, **taken}
