"""Every kind of problem that the record can tell has its words on the dashboards."""

from __future__ import annotations

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from topbill.lake import Problem


def test_every_kind_of_problem_has_a_sentence_and_a_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "dashboards"))
    from board.frame import PROBLEMS

    assert set(get_args(get_type_hints(Problem)["kind"])) == PROBLEMS.keys()
