"""Where the record lies in a data folder."""

DATABASE = "topbill.duckdb"
"""The analytics database."""
LAKE = "lake"
"""The folder of the tables."""
