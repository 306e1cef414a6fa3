"""The catalogue of titles, read from CSV, Parquet or DuckDB; what a file leaves out is unknown."""

from topbill.catalog.column_features import names_in
from topbill.catalog.columns import read, slug
from topbill.catalog.pictures import FieldKind, Picture
from topbill.catalog.tables import read_joined
from topbill.catalog.titles import UNKNOWN_AGE, Bools, Catalog

__all__ = [
    "UNKNOWN_AGE",
    "Bools",
    "Catalog",
    "FieldKind",
    "Picture",
    "names_in",
    "read",
    "read_joined",
    "slug",
]
