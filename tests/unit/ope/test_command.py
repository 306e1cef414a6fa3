"""`topbill evaluate`: JSON on standard output, tables and refusals for people, errors on one
line.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from topbill import cli
from topbill.domain.errors import NotFound

from .conftest import CANDIDATE, World


def run(*arguments: str) -> None:
    cli.app(arguments, result_action="return_value")


def test_json_is_all_that_standard_output_holds(
    published: Callable[..., World], capsys: pytest.CaptureFixture[str]
) -> None:
    world = published(n=1500)
    file = str(world.file(CANDIDATE))
    run(
        "evaluate",
        "home",
        "--policy",
        file,
        "--data",
        str(world.data),
        "--estimators",
        "ips,snips",
        "--json",
    )
    found = json.loads(capsys.readouterr().out)
    assert found["experiment"] == "home"
    assert list(found["targets"]["candidate/fixed-d"]) == ["ips", "snips"]
    assert found["targets"]["candidate/fixed-d"]["ips"]["low"] < 0.35


def test_people_read_a_table_or_a_reason(
    published: Callable[..., World], capsys: pytest.CaptureFixture[str]
) -> None:
    world = published(n=1500)
    run("evaluate", "home", "--policy", "always d", "--data", str(world.data))
    text = capsys.readouterr().out
    assert "the log itself" in text
    assert "effective sample" in text
    run(
        "evaluate",
        "home",
        "--policy",
        "always d",
        "--data",
        str(world.data),
        "--interval",
        "betting",
    )
    assert "no_finite_sample_interval" in capsys.readouterr().out


def test_a_wrong_key_is_told(published: Callable[..., World]) -> None:
    world = published(n=300)
    with pytest.raises(NotFound, match="experiment 'away' is not in the lake"):
        run("evaluate", "away", "--policy", "uniform", "--data", str(world.data))
