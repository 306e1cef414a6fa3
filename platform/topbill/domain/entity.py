"""A table of features by id, as an experiment file names it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import msgspec

from topbill.domain.features import Feature

UNIT, ACTION = "unit", "action"
"""Whose ids a table has; besides, those of a feature of the context that is of type id."""
MOST_ROWS = 2_000_000
MOST_BYTES = 1_000_000_000
"""Of a table's files."""
MOST_NUMBERS = 512
"""Numbers that the features of one table's row become."""
LONGEST_ID = 256


@dataclass(frozen=True)
class EntitySource:
    """Where features of an id are looked up.

    Attributes:
        name: What the experiment calls the table.
        file: Below folder `tables` of the data folder: Parquet, CSV, a DuckDB file, in which
            `table` names the table, or the folder of a Delta table.
        key: The column of the ids, each once.
        of: Whose ids they are: UNIT, ACTION, or the name of a feature of the context of type id.
        features: The columns that are read, each the feature of its name.
    """

    name: str
    file: str
    key: str
    of: str
    features: tuple[Feature, ...]
    table: str | None = None

    @cached_property
    def declaration(self) -> str:
        """12 hex digits that change with anything that is read of a table, and not with how the
        experiment calls it.
        """
        parts = [self.file, self.table, self.key, self.of == ACTION]
        features = [repr(feature) + feature.sha256 for feature in self.features]
        return blake2b(msgspec.json.encode([*parts, features]), digest_size=6).hexdigest()

    @property
    def described(self) -> str:
        """The file, and the table in it."""
        return f"{self.file}, table {self.table}" if self.table else self.file
