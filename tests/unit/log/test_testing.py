"""What `topbill.testing` gives to users' tests."""

from __future__ import annotations

import pytest

from topbill.domain.errors import LogError
from topbill.log import open_log
from topbill.log.memory import MemoryLog
from topbill.testing import a_decision, memory_log


def test_handles_of_one_name_share_a_log_and_one_without_a_name_is_alone() -> None:
    with memory_log("shared") as one, open_log("memory:shared") as other, memory_log() as alone:
        one.append([a_decision("d1", variant="b")])
        stored = other.decision("d1")
        assert stored is not None
        assert stored.variant == "b"
        assert alone.decision("d1") is None
    MemoryLog.discard("shared")
    with memory_log("shared") as empty:
        assert empty.decision("d1") is None


def test_a_log_can_be_let_fail_and_work_again() -> None:
    with memory_log() as log:
        log.fail_with("has no space left")
        for write in (lambda: log.append([a_decision("d1")]), log.probe):
            with pytest.raises(LogError, match="has no space left"):
                write()
        log.fail_with(None)
        assert log.append([a_decision("d1")]).stored == {}


def test_a_handle_that_was_closed_says_so() -> None:
    log = memory_log()
    log.close()
    with pytest.raises(LogError, match="was closed"):
        log.read_decisions(0, 1)
