"""The catalogue of titles, read from CSV, Parquet or DuckDB; what a file leaves out is unknown."""

from topbill.catalog.columns import read, slug
from topbill.catalog.pictures import FieldKind, Picture
from topbill.catalog.tables import read_joined
from topbill.catalog.titles import UNKNOWN_AGE, Bools, Catalog

__all__ = ["UNKNOWN_AGE", "Bools", "Catalog", "FieldKind", "Picture", "read", "read_joined", "slug"]
