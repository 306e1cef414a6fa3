"""Behind a proxy that shows the dashboards below a path, each page's first answer has the style."""

from __future__ import annotations

import runpy
from pathlib import Path
from unittest import mock

import pytest
import streamlit as st

SERVER = Path(__file__).parents[3] / "dashboards" / "server.py"


@pytest.mark.parametrize(("base", "first"), [("", "/"), ("/ops/top/", "/ops/top/")])
def test_pages_have_their_addresses_below_the_path_of_a_proxy(base: str, first: str) -> None:
    with (
        mock.patch.object(st, "get_option", return_value=base),
        mock.patch.object(st, "App") as app,
    ):
        runpy.run_path(str(SERVER))
    paths = [route.path for route in app.call_args.kwargs["routes"]]
    assert paths[0] == first
    assert f"{first}health" in paths
