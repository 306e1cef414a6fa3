"""The catalogue of titles, read from CSV, Parquet or DuckDB; what a file leaves out is made up,
always the same.
"""

from topbill.catalog.columns import read, slug
from topbill.catalog.made_up import Picture
from topbill.catalog.titles import Bools, Catalog

__all__ = ["Bools", "Catalog", "Picture", "read", "slug"]
