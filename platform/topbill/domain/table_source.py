"""Where a metric's numbers come from that are not events of units: a table of a warehouse, or SQL
over the record.
"""

from __future__ import annotations

import msgspec

TABLES = "tables"
"""The folder in a data folder that such files lie in. Nothing outside it is read: whoever may edit
an experiment file must not be able to have any file of the machine shown.
"""
DATABASES = (".duckdb",)
"""The endings of files that hold several tables."""


class TableSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A table joined by unit: a row for each thing that a unit did, or for each unit.

    `file` lies in folder `tables` of the data folder: Parquet, CSV, or a DuckDB database, in which
    `table` names the table. In its place `sql` is one SELECT over the analytics database's views.
    `unit`, `value` and `at` are its columns: whose row it is (as services send the unit's id), its
    number (None: rows are counted as they are), and when it happened (None: every row of a unit
    counts).
    """

    unit: str
    file: str = ""
    table: str | None = None
    sql: str = ""
    value: str | None = None
    at: str | None = None

    @property
    def described(self) -> str:
        """The file, and the table in it; or that it is SQL."""
        if self.sql:
            return "its SQL"
        inside = f", table {self.table}" if self.table else ""
        return f"{TABLES}/{self.file}{inside}"


def table_event(metric: str) -> str:
    """What a row of a metric's table is called among the events; no event has such a name."""
    return f"@table {metric}"
