"""Traces and metrics for OpenTelemetry, where the environment asks for them; the only module that
imports its packages, which come with `topbill[otel]`.

Asked for is what has an address: OTEL_EXPORTER_OTLP_ENDPOINT, or the one of traces or metrics
alone. All else that the SDK reads (OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES…) holds.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from topbill import __version__
from topbill.domain.errors import TopbillError
from topbill.process_log import REQUEST_ID

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

_ADDRESS = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_Value = tuple[float, Mapping[str, str]]
MetricKind = Literal["counter", "gauge"]


class ObservedMetric(NamedTuple):
    """Something that is counted already: how it is called, and what it is now by its labels."""

    name: str
    description: str
    kind: MetricKind
    values: Callable[[], Iterable[_Value]]


@dataclass
class ServedRequest:
    """What is known of a request when it is answered. `route` is the pattern of its path; empty
    where no route is known, so that paths that somebody makes up are no labels."""

    status: int = 500
    route: str = ""


class Tracing:
    """Spans and metrics of this process, through providers of the SDK."""

    def __init__(self, tracers: TracerProvider, meters: MeterProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._providers = (tracers, meters)
        self._tracer = tracers.get_tracer("topbill", __version__)
        self._meter = meters.get_meter("topbill", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._durations = self._meter.create_histogram(
            "http.server.request.duration",
            "s",
            "From the head of a request to the end of its answer",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[ServedRequest]:
        """The span of a request, below the caller's where its headers name one (traceparent)."""
        from opentelemetry.trace import SpanKind, StatusCode

        served = ServedRequest()
        started = time.perf_counter()
        parent = self._propagator.extract(headers)
        with self._tracer.start_as_current_span(method, parent, SpanKind.SERVER) as span:
            try:
                yield served
            finally:
                labels: dict[str, str | int] = {
                    "http.request.method": method,
                    "http.response.status_code": served.status,
                }
                if served.route:
                    labels["http.route"] = served.route
                    span.update_name(f"{method} {served.route}")
                span.set_attributes({**labels, "topbill.request_id": REQUEST_ID.get() or ""})
                if served.status >= 500:
                    span.set_status(StatusCode.ERROR)
                self._durations.record(time.perf_counter() - started, labels)

    def finished(self, name: str, started: int, **attributes: int) -> None:
        """A span that began at `started` (ns since the epoch) and ends now."""
        span = self._tracer.start_span(name, start_time=started, attributes=dict(attributes))
        span.end()

    def observe(self, metrics: Iterable[ObservedMetric]) -> None:
        """Export what is counted elsewhere, as it is whenever the SDK asks."""
        for metric in metrics:
            name, text, callbacks = metric.name, metric.description, [_reader(metric)]
            if metric.kind == "counter":
                self._meter.create_observable_counter(name, callbacks, description=text)
            else:
                self._meter.create_observable_gauge(name, callbacks, description=text)

    def stop(self) -> None:
        """Send what waits to be sent. Blocks until it is, or the exporter gives up."""
        for provider in self._providers:
            provider.shutdown()


def _reader(metric: ObservedMetric) -> Callable[[CallbackOptions], Iterator[Observation]]:
    from opentelemetry.metrics import Observation

    def read(_options: CallbackOptions) -> Iterator[Observation]:
        for value, labels in metric.values():
            yield Observation(value, labels)

    return read


_active: list[Tracing] = []
"""The one of this process, where it was asked for."""


def active() -> Tracing | None:
    """What `start` began in this process; None where nobody asked."""
    return _active[-1] if _active else None


def check() -> None:
    """Raises TopbillError where traces or metrics are asked for and the packages are not here."""
    if not (_asked_for("TRACES") or _asked_for("METRICS")):
        return
    try:
        import opentelemetry.exporter.otlp.proto.http
        import opentelemetry.sdk.trace  # noqa: F401
    except ImportError as error:
        raise TopbillError(
            f"{_ADDRESS} is set, but OpenTelemetry is not here ({error}); "
            "pip install 'topbill[otel]', or unset it"
        ) from error


def start(process: str) -> None:
    """Begin, where the environment asks for it; `process` is service or worker, and part of the
    name under which it is shown where OTEL_SERVICE_NAME gives none. Raises as `check` does.
    """
    check()
    traces, metrics = _asked_for("TRACES"), _asked_for("METRICS")
    if traces or metrics:
        _active.append(_export(process, traces, metrics))


def stop() -> None:
    """End what `start` began, if it began anything."""
    while _active:
        _active.pop().stop()


def finished(name: str, started: int, **attributes: int) -> None:
    """A span that began at `started` (ns since the epoch) and ends now, where anybody asked."""
    if _active:
        _active[-1].finished(name, started, **attributes)


def _asked_for(signal: str) -> bool:
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if disabled or os.environ.get(f"OTEL_{signal}_EXPORTER") == "none":
        return False
    own = f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    return bool(os.environ.get(_ADDRESS) or os.environ.get(own))


def _export(process: str, traces: bool, metrics: bool) -> Tracing:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME") or f"topbill-{process}",
            "service.version": __version__,
            # Each of several processes counts for itself.
            "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
        }
    )
    tracers = TracerProvider(resource=resource)
    if traces:
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if metrics else []
    return Tracing(tracers, MeterProvider(readers, resource))
