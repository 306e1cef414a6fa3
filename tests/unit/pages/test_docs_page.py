"""The page on pages shows a page file that is valid, and names every rule, source, feature and
field that there is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from topbill.candidates import GIVEN, SOURCES
from topbill.catalog.pictures import FIELDS
from topbill.pages import PageRequest
from topbill.pages.features import TITLE_FEATURES
from topbill.pages.files import PAGE as PAGE_FILE
from topbill.pages.row_sources import ROW
from topbill.rules import RULE
from topbill.spec.fields import Location, Section

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "pages.md").read_text()


def test_the_page_file_shown_is_part_of_the_example() -> None:
    shown, *_ = (
        yaml.safe_load(code) for code in re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    )
    example = yaml.safe_load((ROOT / "experiments" / "pages" / "home.yaml").read_text())
    for key in ("page", "catalogue", "region", "session_ttl", "rows", "titles", "artwork"):
        assert shown[key] == example[key]
    assert shown["sources"].items() <= example["sources"].items()
    assert shown["rules"][0].keys() == example["rules"][0].keys()


def test_the_sources_shown_are_valid() -> None:
    at = Location("pages.md")
    rows = [
        row
        for code in re.findall(r"```\n(sources:\n.*?)```", PAGE, flags=re.DOTALL)
        for row in yaml.safe_load(code)["sources"].values()
    ]
    for row in rows:
        ROW.read(row, at)
    assert at.problems == []
    assert {row["source"] for row in rows} == set(GIVEN)


def test_every_name_is_there() -> None:
    names: list[Any] = [
        *SOURCES,
        *GIVEN,
        *TITLE_FEATURES,
        *FIELDS,
        *RULE.sections,
        *PageRequest.__struct_fields__,
    ]
    assert [name for name in names if name != "page" and f"`{name}`" not in PAGE] == []


def test_every_key_of_a_page_file_is_named() -> None:
    keys = [*PAGE_FILE.keys]
    for part in ("rows", "titles", "artwork"):
        section = PAGE_FILE.keys[part].field
        assert isinstance(section, Section)
        keys += section.keys
    assert [key for key in keys if f"`{key}" not in PAGE and f"{key}:" not in PAGE] == []
