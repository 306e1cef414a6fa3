"""Each reason code is said once, in one spelling, with one sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from topbill import ab, ope, reporting
from topbill.domain.reasons import REASONS, reasons
from topbill.launch import gate
from topbill.reporting.queries import action_values

PACKAGE = Path(__file__).parents[3] / "platform" / "topbill"


def test_codes_are_snake_case_and_sentences_read_after_a_colon() -> None:
    for code, sentence in REASONS.items():
        assert re.fullmatch(r"([a-z]+(_[a-z]+)*)?", code)
        assert sentence
        assert not sentence.endswith(".")
        assert sentence[0] == sentence[0].lower()


@pytest.mark.parametrize(
    "table",
    [ab.REASONS, ope.REASONS, reporting.REASONS, action_values.REASONS, gate.REASONS],
    ids=["ab", "ope", "reporting", "action_values", "gate"],
)
def test_what_a_package_may_say_is_a_part_of_the_one_table(table: Mapping[str, str]) -> None:
    assert table
    assert table.items() <= REASONS.items()


def test_every_code_is_used_by_a_package() -> None:
    used = {*ab.REASONS, *reporting.REASONS, *action_values.REASONS, *gate.REASONS}
    assert set(REASONS) == used


def test_a_selection_keeps_its_order_and_refuses_an_unknown_code() -> None:
    assert list(reasons("too_few_units", "no_traffic")) == ["too_few_units", "no_traffic"]
    with pytest.raises(KeyError):
        reasons("too-few-units")


def test_no_other_table_of_the_package_gives_a_code_another_sentence() -> None:
    tables = []
    for file in sorted(PACKAGE.rglob("*.py")):
        if file == PACKAGE / "domain" / "reasons.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    code = key.value if isinstance(key, ast.Constant) else None
                    if code and code in REASONS and isinstance(value, ast.Constant | ast.JoinedStr):
                        tables.append(f"{file.relative_to(PACKAGE)}:{node.lineno} {code}")
    assert tables == []
