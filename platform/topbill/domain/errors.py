"""Every error that Topbill raises on purpose, in one tree.

    TopbillError
    ├── SpecError            an experiment file that cannot be used; carries every problem found
    ├── BadRequest           an input that has the wrong form; carries the path of the culprit
    │   ├── Malformed        a body that is no JSON at all
    │   └── BadData          the same for columns and logs handed to evaluation and analysis
    ├── NotFound             an experiment, variant, decision or snapshot that is not there
    ├── Conflict             an id that was used before with another content
    │   └── AlreadyDecided   one that was used before, and whose answer can't be given again
    ├── PolicyError          a policy that could not score, learn, or be restored
    ├── LogError             the log or the lake could not be read or written
    │   └── DamagedSnapshot  one experiment's stored state could not be read
    └── Unavailable          a service that was called did not answer as it should

A message says where, what was got, what was expected, and what to do.
Weak data is not an error: it gives a result with a reason code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The client is also installed alone, so the errors that it shares with the server are its own.
from topbill_client.errors import BadRequest, Conflict, NotFound, TopbillError, Unavailable

__all__ = [
    "AlreadyDecided",
    "BadData",
    "BadRequest",
    "Conflict",
    "DamagedSnapshot",
    "FileProblem",
    "LogError",
    "Malformed",
    "NotFound",
    "PolicyError",
    "SpecError",
    "TopbillError",
    "Unavailable",
]


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One thing wrong in an experiment file: where, what was got, what was expected, what to do.

    Attributes:
        file: The file's name.
        path: The key in it, such as `variants.linucb.share`; empty where it is of the line alone.
        line: The key's line, or that of what it is missing from; 0 where that is not known.
        used_by: The file that was read when this one turned out to be wrong.
    """

    file: str
    path: str
    got: str
    expected: str
    hint: str = ""
    line: int = 0
    used_by: str = ""

    @property
    def place(self) -> str:
        """The file and the line, as editors take them."""
        line = f":{self.line}" if self.line else ""
        used_by = f" (used by {self.used_by})" if self.used_by else ""
        return f"{self.file}{line}{used_by}"

    @property
    def message(self) -> str:
        """What was got, what was expected, what to do."""
        hint = f"; {self.hint}" if self.hint else ""
        return f"got {self.got}; expected {self.expected}{hint}"

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return f"{self.place}: {path}{self.message}"


class SpecError(TopbillError):
    """An experiment file (or a set of them) with one or more problems, all listed."""

    def __init__(self, problems: Sequence[FileProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Malformed(BadRequest):
    """A body that is no JSON text: no bytes of it could be read."""


class BadData(BadRequest):
    """A column or log that evaluation or analysis cannot use; the message names the rows."""


class AlreadyDecided(Conflict):
    """An id that was used before, so long ago that its answer can't be given again."""

    @classmethod
    def under(cls, name: str, used_id: str) -> AlreadyDecided:
        """The error for an id whose row the log has let go; `name` is the field that it came in."""
        return cls(
            f"{name} {used_id!r} was decided before, and the log has let the answer go; "
            "it is in the lake and counts once: use a new id for a new decision"
        )


class PolicyError(TopbillError):
    """A policy could not score, learn, or be restored."""


class OverBudget(PolicyError):
    """A policy took longer than its decision may."""


class LogError(TopbillError):
    """The log or the lake could not be read or written."""


class DamagedSnapshot(LogError):
    """One stored state of one experiment's policies could not be read; the log itself can."""
