"""Requests and the worker's steps are spans, what is counted is exported; without being asked there
is nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from topbill import tracing
from topbill.domain.errors import TopbillError
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.service.traced import traced
from topbill.worker.loop import Worker

DECIDE = {"experiment": "art", "unit": "u-1", "context": {}}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Exported:
    """What the SDK would have sent."""

    def __init__(self, sampler: Any = None) -> None:
        pytest.importorskip("opentelemetry.sdk")
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self._spans, self._metrics = InMemorySpanExporter(), InMemoryMetricReader()
        tracers = TracerProvider(sampler)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracing = tracing.Tracing(tracers, MeterProvider([self._metrics]))

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self._spans.get_finished_spans()}

    def metrics(self) -> dict[str, Any]:
        read = self._metrics.get_metrics_data()
        found = {}
        for scope in read.resource_metrics[0].scope_metrics:
            found |= {metric.name: metric for metric in scope.metrics}
        return found


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    exported = Exported()
    monkeypatch.setattr(tracing, "_active", [exported.tracing])
    # The providers are read after the application has ended.
    monkeypatch.setattr(exported.tracing, "stop", lambda: None)
    return exported


@pytest.fixture
def client(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    app = create_app(Settings(folder, tmp_path / "data"))
    with TestClient(traced(app, app.route_of), base_url="http://localhost") as client:
        yield client


def test_a_request_is_a_span_below_its_callers(exported: Exported, client: TestClient) -> None:
    headers = {"traceparent": PARENT, "x-request-id": "edge-1"}
    assert client.post("/v1/decide", json=DECIDE, headers=headers).status_code == 200
    span = exported.spans()["POST /v1/decide"]
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["topbill.request_id"] == "edge-1"
    # Nothing of whom it was decided for.
    assert "u-1" not in str(span.to_json())


def test_paths_that_somebody_makes_up_are_no_names(exported: Exported, client: TestClient) -> None:
    for path in ("/v1/decisions/d-1", "/v1/decisions/d-2", "/made-up", "/healthz"):
        client.get(path)
    routes = {"GET /v1/decisions/{decision_id:path}", "GET /healthz", "GET"}
    assert exported.spans().keys() == routes


def test_a_refusal_is_no_error_of_the_service(exported: Exported, client: TestClient) -> None:
    assert client.post("/v1/decide", json={"experiment": "no"}).status_code == 404
    span = exported.spans()["POST /v1/decide"]
    assert (span.attributes["http.response.status_code"], span.status.is_ok) == (404, True)


def test_what_is_counted_is_exported_under_the_same_names(
    exported: Exported, folder: Path, tmp_path: Path
) -> None:
    app = create_app(Settings(folder, tmp_path / "data"))
    with TestClient(traced(app, app.route_of), base_url="http://localhost") as client:
        before = decisions_of_art(exported.metrics())
        client.post("/v1/decide", json=DECIDE)
    # A decision is counted with the next flush, at the latest as the application ends.
    metrics = exported.metrics()
    assert metrics["topbill_decisions"].data.is_monotonic
    assert decisions_of_art(metrics) == before + 1
    assert not any(name.endswith("_created") for name in metrics)
    durations = metrics["http.server.request.duration"].data.data_points
    assert [point.attributes["http.route"] for point in durations] == ["/v1/decide"]


def decisions_of_art(metrics: dict[str, Any]) -> float:
    if "topbill_decisions" not in metrics:
        return 0.0
    points = metrics["topbill_decisions"].data.data_points
    return sum(point.value for point in points if point.attributes["experiment"] == "art")


def test_the_workers_steps_are_spans_with_their_rows(
    exported: Exported, client: TestClient, folder: Path, tmp_path: Path
) -> None:
    for unit in range(3):
        client.post("/v1/decide", json=DECIDE | {"unit": f"u-{unit}"})
    worker = Worker(folder, tmp_path / "data")
    worker.step()
    worker.finish()
    assert exported.spans()["publish"].attributes["rows"] == 3


def test_what_is_not_sampled_is_not_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

    exported = Exported(ALWAYS_OFF)
    monkeypatch.setattr(tracing, "_active", [exported.tracing])
    app = create_app(Settings(folder, tmp_path / "data"))
    with TestClient(traced(app, app.route_of), base_url="http://localhost") as client:
        assert client.post("/v1/decide", json=DECIDE).status_code == 200
    assert exported.spans() == {}


def test_without_being_asked_the_application_is_the_same(folder: Path, tmp_path: Path) -> None:
    app = create_app(Settings(folder, tmp_path / "data"))
    assert traced(app, app.route_of) is app


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1/v1/metrics"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_an_address_asks_for_it_and_packages_that_are_missing_are_named(
    variables: dict[str, str], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    if not asked:
        tracing.start("service")
        assert tracing.active() is None
        return
    with pytest.raises(TopbillError, match=r"pip install 'topbill\[otel\]'"):
        tracing.start("service")
