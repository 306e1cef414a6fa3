"""The analytical record: Delta tables that the worker appends to, and `topbill.duckdb`, the
analytics database that all read.

Nothing else in Topbill imports `duckdb` or `deltalake`.
"""

from typing import TYPE_CHECKING

from topbill import late
from topbill.domain.sql import identifier, quoted
from topbill.lake.places import DATABASE, lake_place

if TYPE_CHECKING:
    from topbill.lake.analytics import LaunchLine, Problem, empty
    from topbill.lake.database import Connection, Error, connect, read, sql, view_files
    from topbill.lake.delta import delta_relation
    from topbill.lake.distinct import RepeatedRow
    from topbill.lake.engine import DuckDBEngine, RecordEngine, answer, open_engine
    from topbill.lake.lookup import find_decisions, find_rewards, named_versions
    from topbill.lake.published import database_of, is_published
    from topbill.lake.tables import Lake
    from topbill.lake.views import metric_of, metrics_sql, objective_of
else:
    # A service that reads nothing of the record does without DuckDB and Delta, and their 80 MB.
    __getattr__ = late.names(
        __name__,
        {
            "topbill.lake.analytics": ("LaunchLine", "Problem", "empty"),
            "topbill.lake.database": (
                "Connection",
                "Error",
                "connect",
                "read",
                "sql",
                "view_files",
            ),
            "topbill.lake.delta": ("delta_relation",),
            "topbill.lake.engine": ("DuckDBEngine", "RecordEngine", "answer", "open_engine"),
            "topbill.lake.distinct": ("RepeatedRow",),
            "topbill.lake.lookup": ("find_decisions", "find_rewards", "named_versions"),
            "topbill.lake.published": ("database_of", "is_published"),
            "topbill.lake.tables": ("Lake",),
            "topbill.lake.views": ("metric_of", "metrics_sql", "objective_of"),
        },
    )

__all__ = [
    "DATABASE",
    "Connection",
    "DuckDBEngine",
    "Error",
    "Lake",
    "LaunchLine",
    "Problem",
    "RecordEngine",
    "RepeatedRow",
    "answer",
    "connect",
    "database_of",
    "delta_relation",
    "empty",
    "find_decisions",
    "find_rewards",
    "identifier",
    "is_published",
    "lake_place",
    "metric_of",
    "metrics_sql",
    "named_versions",
    "objective_of",
    "open_engine",
    "quoted",
    "read",
    "sql",
    "view_files",
]
