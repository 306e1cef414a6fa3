"""The analytical record: Delta tables that the keeper appends to, and `topbill.duckdb`, the face
that all read.

Nothing else in Topbill imports `duckdb` or `deltalake`.
"""

from topbill.domain.sql import identifier, quoted
from topbill.lake.database import FACE, Connection, Error, connect, sql
from topbill.lake.tables import Lake
from topbill.lake.views import Trouble, metric_of, objective_of

__all__ = [
    "FACE",
    "Connection",
    "Error",
    "Lake",
    "Trouble",
    "connect",
    "identifier",
    "metric_of",
    "objective_of",
    "quoted",
    "sql",
]
