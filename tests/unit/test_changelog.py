"""Every name that changed stands in the changelog, old beside new."""

from __future__ import annotations

from pathlib import Path

import pytest

import topbill
from topbill.cli.renamed import OPTIONS, VERBS
from topbill.domain.schema_version import RENAMED_SINCE_1
from topbill.spec import renames

TEXT = (Path(__file__).parents[2] / "CHANGELOG.md").read_text()
LINES = TEXT.splitlines()
PAIRS = [
    *renames.EXPERIMENT.items(),
    *renames.METRIC.items(),
    *renames.GUARDRAIL.items(),
    *renames.VARIANT.items(),
    *renames.PAGE.items(),
    *((f"topbill {old}", f"topbill {new}") for old, new in VERBS.items()),
    *((f"topbill {verb} {option}", new) for (verb, option), new in OPTIONS.items()),
    *((old, new) for names in RENAMED_SINCE_1.values() for old, new in names.items()),
]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_a_renamed_thing_stands_in_the_changelog(old: str, new: str) -> None:
    assert any(old in line and new in line.partition(old)[2] for line in LINES if line[:1] == "|")


def test_the_newest_version_is_this_one() -> None:
    versions = [line.removeprefix("## ") for line in LINES if line.startswith("## ")]
    # What is merged since then stands above it.
    if versions[0] == "Unreleased":
        versions = versions[1:]
    assert versions[0] == topbill.__version__
