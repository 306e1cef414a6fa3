"""Features by id: tables of titles, viewers or anything else, whose versions are kept, so that a
decision names ids only and training sees what serving saw."""

from topbill.entities.kept import HistoryLine, KeptTables, TableState, erase_ids
from topbill.entities.reading import read_table
from topbill.entities.store import NO_TABLES, EntityStore
from topbill.entities.table import EMPTY, EntityTable, MissingVersion

__all__ = [
    "EMPTY",
    "NO_TABLES",
    "EntityStore",
    "EntityTable",
    "HistoryLine",
    "KeptTables",
    "MissingVersion",
    "TableState",
    "erase_ids",
    "read_table",
]
