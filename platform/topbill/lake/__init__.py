"""The analytical record: Delta tables that the keeper appends to, and `topbill.duckdb`, the face that all read.

Nothing else in Topbill imports `duckdb` or `deltalake`.
"""

from topbill.lake.database import FACE, connect, sql
from topbill.lake.tables import Lake

__all__ = ["FACE", "Lake", "connect", "sql"]
