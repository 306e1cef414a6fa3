"""The small page of tests/small_page.py, for the tests of this folder; and the engines that answer
its reports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests import engines

from ...small_page import home

__all__ = ["home"]


@pytest.fixture(scope="module", params=["duckdb", pytest.param("sail", marks=pytest.mark.slow)])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """What answers the reports of a module that asks for it: DuckDB, or Sail, each of whose reports
    is also compared with DuckDB's."""
    if request.param == "duckdb":
        yield request.param
        return
    pytest.importorskip("pysail", reason="no pysail: pip install -r requirements-dev.lock")
    pytest.importorskip("pyspark", reason="no pyspark: pip install 'topbill[spark]'")
    with engines.sail(tmp_path_factory.mktemp("scratch")):
        yield request.param
