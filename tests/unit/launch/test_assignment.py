"""Where a unit stands is what the service decides, and what was published of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from topbill.domain.errors import NotFound, SpecError
from topbill.engine import Engine
from topbill.launch import experiments_beside, unit_assignment
from topbill.spec import Conclusion, Experiment, Override

from ...conftest import ARTWORK, write
from ...processes import topbill


def test_it_is_the_variant_that_the_engine_gives(art: Experiment, tmp_path: Path) -> None:
    live = Engine([art]).find("art")
    for number in range(50):
        found = unit_assignment([art], tmp_path, "art", f"u{number}")
        variant, reason = live.assign(f"u{number}")
        assert (found.variant, found.reason) == (variant and variant.name, reason)
        assert (found.since, found.seen) == (None, ())


def test_a_testers_variant_is_told_with_its_reason(art: Experiment, tmp_path: Path) -> None:
    overridden = replace(art, overrides=(Override("qa", ("u1",), "thompson"),))
    found = unit_assignment([overridden], tmp_path, "art", "u1")
    assert (found.variant, found.reason) == ("thompson", "override")
    assert "counts nowhere" in found.why


def test_another_file_that_is_wrong_keeps_nobody_from_asking(tmp_path: Path) -> None:
    folder = write(tmp_path / "experiments", ARTWORK)
    (folder / "other.yaml").write_text("experiment: other\nsurface: nowhere\n")
    beside = experiments_beside(folder, "art")
    assert unit_assignment(beside, tmp_path, "art", "u1").experiment == "art"
    with pytest.raises(SpecError, match=r"other\.yaml"):
        experiments_beside(folder, "other")


def test_who_takes_no_part_is_told_why(art: Experiment, tmp_path: Path) -> None:
    reasons = [
        (replace(art, status="paused"), "the experiment is paused"),
        (replace(art, traffic=0.0), "its id falls outside of the 0% of traffic that take part"),
        (replace(art, conclusion=Conclusion()), "concluded, and nobody won"),
    ]
    for experiment, why in reasons:
        found = unit_assignment([experiment], tmp_path, "art", "u1")
        assert found.variant is None
        assert why in found.sentence


def test_an_experiment_that_is_not_there_is_named(art: Experiment, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="expected one of art"):
        unit_assignment([art], tmp_path, "other", "u1")


@pytest.mark.parametrize("context", ["{", "[]", "3"])
def test_a_context_that_is_none_is_named(context: str, tmp_path: Path) -> None:
    answer = topbill("assign", "home-artwork", "--unit", "u", "--context", context, cwd=tmp_path)
    assert answer.returncode == 1
    assert "context" in answer.stderr
    assert "Traceback" not in answer.stderr
