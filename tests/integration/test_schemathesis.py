"""The OpenAPI document under Schemathesis: whatever is sent, no 500, and every answer is as the
document says.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from topbill.cli.supervise import Processes, commands, free_port

schemathesis = pytest.importorskip(
    "schemathesis", reason="schemathesis is a development dependency"
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A live service with the shipped experiments."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "experiments").mkdir()
    for file in (ROOT / "experiments").glob("*.yaml"):
        shutil.copy(file, folder / "experiments")
    port = free_port("127.0.0.1", 0)
    with Processes() as processes:
        command = commands(str(folder / "experiments"), str(folder / "data"), "127.0.0.1", port)[
            "service"
        ]
        processes.start("service", *command)
        processes.wait_until(f"http://127.0.0.1:{port}/healthz", 300.0)
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("each", "least"),
    [(10, 100), pytest.param(330, 5_000, marks=pytest.mark.slow)],
    ids=["short", "long"],
)
def test_whatever_is_sent_is_answered_as_documented(address: str, each: int, least: int) -> None:
    document = httpx.get(f"{address}/openapi.json").json()
    # Decisions for experiments that are there: otherwise most cases would end in 404.
    keys = [e["key"] for e in httpx.get(f"{address}/v1/experiments").json()["experiments"]]
    document["components"]["schemas"]["DecideRequest"]["properties"]["experiment"] = {"enum": keys}
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    checks = schemathesis.checks
    wanted = [
        checks.not_a_server_error,
        *checks.CHECKS.get_by_names(["status_code_conformance", "content_type_conformance"]),
        *checks.CHECKS.get_by_names(["response_schema_conformance"]),
    ]
    modes = list(schemathesis.GenerationMode)
    sent = 0
    for operation in operations:
        cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes])

        @seed(7)
        @settings(max_examples=each, database=None, suppress_health_check=list(HealthCheck))
        @given(case=cases)
        def check(case: schemathesis.Case) -> None:
            nonlocal sent
            sent += 1
            case.call_and_validate(base_url=address, checks=wanted)

        check()
    print(f"{sent:,} cases over {len(operations)} operations")
    assert sent >= least
