"""docs/policies.md names every kind that is registered, and each of its parameters."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from topbill.policies import KINDS
from topbill.policies.vw import EXPLORATIONS

PAGE = (Path(__file__).parents[3] / "docs" / "policies.md").read_text()
TABLE = PAGE[PAGE.index("| policy | take it when") :].split("\n\n")[0]
CODE = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`\n]+)`", PAGE))))
PARAMETERS = [
    (kind, field.name) for kind in KINDS for field in msgspec.structs.fields(KINDS[kind].Params)
]


def test_the_table_has_a_row_for_every_kind_and_no_other():
    assert sorted(re.findall(r"^\| `(\w+)` \|", TABLE, re.M)) == sorted(KINDS)


@pytest.mark.parametrize(("kind", "name"), PARAMETERS)
def test_every_parameter_is_on_the_page(kind, name):
    assert name in CODE, f"docs/policies.md: {kind} takes {name}; say there what it means"


def test_every_exploration_of_vw_is_on_the_page():
    assert set(EXPLORATIONS) <= CODE
