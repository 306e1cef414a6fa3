"""What somebody meant who wrote a name that there is not: told only where the guess is near."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_NEAR = 0.6
"""difflib's likeness of two words from which one may be meant by the other: a slip or two."""
_LONGEST = 64
_SYNONYMS = {
    "active": "running",
    "allocation": "share",
    "average": "mean",
    "baseline": "control",
    "boolean": "binary",
    "conversion": "binary",
    "done": "stopped",
    "end_date": "launch",
    "ended": "stopped",
    "finished": "stopped",
    "goal": "objective",
    "holdback": "holdout",
    "live": "running",
    "median": "quantile",
    "percentile": "quantile",
    "ramp": "launch",
    "rate": "binary",
    "rollout": "launch",
    "schedule": "launch",
    "segment": "audience",
    "split": "share",
    "start_date": "launch",
    "target": "audience",
    "targeting": "audience",
    "total": "sum",
    "weight": "share",
}
"""What other tools call it: no slip of spelling leads from one to the other."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Whether one of `names` was meant, as a question; nothing where none is near."""
    meant = nearest_name(name, names)
    return f"did you mean {meant}?" if meant else ""


def nearest_name(name: str, names: Iterable[str]) -> str:
    """The one of `names` that was surely meant by `name`; nothing where none is near."""
    names = list(names)
    for other in names:
        if other.casefold() == name.casefold():
            return other
    if _SYNONYMS.get(name.casefold()) in names:
        return _SYNONYMS[name.casefold()]
    # Cut, since comparing takes time that grows with the square of the length.
    matches = get_close_matches(name[:_LONGEST], names, n=1, cutoff=_NEAR)
    return matches[0] if matches else ""
