"""Reports that are asked of DuckDB and of a Spark Connect server, and compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest
from tests import sail_server
from tests.answers import differences

from topbill.domain.engine_url import ENGINE_VARIABLE, SCRATCH_VARIABLE
from topbill.reporting import to_json
from topbill.reporting.experiment import build

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def sail(scratch: Path) -> Iterator[None]:
    """While it lasts, questions of this process go to Sail, and each report of an experiment is
    that of DuckDB, to the last digits."""
    with pytest.MonkeyPatch.context() as patch, sail_server.running() as url:
        patch.setenv(ENGINE_VARIABLE, url)
        patch.setenv(SCRATCH_VARIABLE, str(scratch))
        patch.setattr(build, "_read", _compared(build._read))
        yield


def _compared(read: Callable[P, T]) -> Callable[P, T]:
    def compared(*given: P.args, **named: P.kwargs) -> T:
        there = read(*given, **named)
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv(ENGINE_VARIABLE)
            here = read(*given, **named)
        assert differences(_as_json(here), _as_json(there)) == []
        return there

    return compared


def _as_json(answer: Any) -> Any:
    return json.loads(to_json(answer))
