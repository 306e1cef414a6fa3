"""The version of what a data folder holds: the names of its columns, and the form of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

SCHEMA_VERSION = 2
"""What this code reads and writes. The log has it as SQLite's `user_version`, each table of the
lake as a property, the analytics database in its table `published`."""

# Version 1 is that of 0.1.0, which set no version anywhere. Its log is the same: what a body calls
# its fields was kept (see `Decision`), so that only the lake's columns have other names.
RENAMED_SINCE_1: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "decisions": {"at": "decided_at", "micros": "latency_us"},
        "rewards": {"at": "occurred_at"},
    }
)
"""Table → its columns' names of version 1 → those of version 2."""
