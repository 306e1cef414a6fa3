"""The formats that logs come and go in, and how a name tells which."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from topbill.domain.errors import BadRequest

BATCH = 10_000
"""Decisions held in memory at once."""
Format = Literal["dsjson", "eppo", "parquet", "arrow", "delta", "open-bandit", "obp", "obp-slate"]
Progress = Callable[[int, int | None], None]
"""Called with how much is done, and of how much (None: unknown): bytes or rows."""
_SUFFIXES: dict[str, Format] = {
    ".dsjson": "dsjson",
    ".json": "dsjson",
    ".jsonl": "dsjson",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".ipc": "arrow",
    ".csv": "open-bandit",
    ".npz": "obp",
}


def format_of(path: Path) -> Format:
    """The format that a name speaks of. Raises BadRequest where it speaks of none."""
    if (path / "_delta_log").is_dir():
        return "delta"
    if path.is_dir() and any(path.glob("*.parquet")):
        return "parquet"
    if path.is_dir() and any(path.glob("*.arrow")):
        return "arrow"
    found = _SUFFIXES.get(path.suffix)
    if found is None:
        known = ", ".join(get_args(Format))
        raise BadRequest(
            "format", f"{path.name} does not tell its format; expected --format, one of {known}"
        )
    return found


def quiet(done: int, total: int | None) -> None:
    """Progress that nobody watches."""
