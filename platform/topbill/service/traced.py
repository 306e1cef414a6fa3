"""A span and a duration for each request, around the whole application; nothing where nobody asked
for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from prometheus_client import Counter, Gauge

from topbill import tracing
from topbill.service import telemetry
from topbill.service.asgi import App, Receive, Scope, Send


def traced(app: App, route_of: Callable[[str], str]) -> App:
    """The application with spans, and with what it counts exported, where `tracing.start` began.
    `route_of` says what a path is counted as that FastAPI knows nothing of, "" of others."""
    active = tracing.active()
    if active is None:
        return app
    active.observe(_counted())

    async def with_spans(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, _stopping(send))
        headers = {}
        for name, value in scope["headers"]:
            headers[name.decode("latin-1")] = value.decode("latin-1")
        with active.request(scope["method"], headers) as served:

            async def noting(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    served.status = message["status"]
                await send(message)

            await app(scope, receive, noting)
            # FastAPI notes in the scope which route it took.
            served.route = route_of(scope["path"]) or getattr(scope.get("route"), "path", "")
        return None

    return with_spans


def _stopping(send: Send) -> Send:
    """`send` that exports what waits before it says that the application has ended: the server ends
    the process right after."""

    async def stopping(message: MutableMapping[str, Any]) -> None:
        if message["type"].startswith("lifespan.shutdown."):
            await asyncio.to_thread(tracing.stop)
        await send(message)

    return stopping


def _counted() -> Iterator[tracing.ObservedMetric]:
    """The counters and gauges of /metrics. Their histogram is the duration of requests."""
    for metric in vars(telemetry).values():
        if isinstance(metric, Counter | Gauge):
            yield _observed(metric)


def _observed(metric: Counter | Gauge) -> tracing.ObservedMetric:
    family = next(iter(metric.describe()))

    def values() -> Iterator[tuple[float, dict[str, str]]]:
        for collected in metric.collect():
            for sample in collected.samples:
                if not sample.name.endswith("_created"):
                    yield sample.value, sample.labels

    kind: tracing.MetricKind = "counter" if isinstance(metric, Counter) else "gauge"
    return tracing.ObservedMetric(family.name, family.documentation, kind, values)
