"""The analytical record: Delta tables that the worker appends to, and `topbill.duckdb`, the
analytics database that all read.

Nothing else in Topbill imports `duckdb` or `deltalake`.
"""

from topbill.domain.sql import identifier, quoted
from topbill.lake.analytics import LaunchLine, Problem, empty
from topbill.lake.database import DATABASE, Connection, Error, connect, read, sql
from topbill.lake.delta import relation as delta_relation
from topbill.lake.distinct import RepeatedRow
from topbill.lake.lookup import find_decisions, find_rewards, named_versions
from topbill.lake.tables import Lake
from topbill.lake.views import metric_of, objective_of

__all__ = [
    "DATABASE",
    "Connection",
    "Error",
    "Lake",
    "LaunchLine",
    "Problem",
    "RepeatedRow",
    "connect",
    "delta_relation",
    "empty",
    "find_decisions",
    "find_rewards",
    "identifier",
    "metric_of",
    "named_versions",
    "objective_of",
    "quoted",
    "read",
    "sql",
]
