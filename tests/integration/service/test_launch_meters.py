"""Where launches stand is among the metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from topbill.lake import Lake, LaunchLine
from topbill.service import launch_meters
from topbill.service.launch_meters import LaunchMeters
from topbill.testing import an_experiment

KEY = "metered"
LINE = LaunchLine(
    experiment=KEY,
    revision="r",
    step=3,
    stage="ramp",
    traffic=0.25,
    since=1_790_000_000_000_000,
    reason="approval",
    sentence="50% of traffic begins when somebody approves",
    until=None,
    next_traffic=0.5,
    needs_approval=True,
    ramp=(0.25, 0.5, 1.0),
)


def publish(data: Path, line: LaunchLine) -> None:
    Lake(data).write_database([an_experiment()], 1_790_000_000_000_000, launches=[line])


def metric(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"experiment": KEY, **labels})


def test_metrics_have_step_traffic_and_what_each_waits_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_meters, "READ_EVERY", 0.0)
    meters = LaunchMeters(tmp_path)
    meters.step(is_launched=True)
    assert metric("topbill_launch_step") is None, "nothing was published yet"

    publish(tmp_path, LINE)
    meters.step(is_launched=True)
    assert metric("topbill_launch_step") == 3
    assert metric("topbill_launch_traffic") == 0.25
    assert metric("topbill_launch_waits", stage="ramp", reason="approval") == 1

    publish(tmp_path, LINE._replace(step=4, stage="over", reason="over"))
    meters.step(is_launched=False)
    assert metric("topbill_launch_traffic") == 0
    assert metric("topbill_launch_waits", stage="ramp", reason="approval") == 0
    assert metric("topbill_launch_waits", stage="over", reason="over") == 1


def test_without_a_launch_the_record_is_not_read(tmp_path: Path) -> None:
    reads = []
    meters = LaunchMeters(tmp_path)
    meters._count = reads.append  # type: ignore[assignment]
    publish(tmp_path, LINE)
    meters.step(is_launched=False)
    assert reads == []
