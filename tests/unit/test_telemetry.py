"""What the service counts about itself."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from topbill.service import telemetry


def test_durations_that_are_shown_together_are_those_that_were_noted() -> None:
    durations = [0.0, 0.001, 0.0010001, 0.5, 2.0, 2.0]
    pages = []
    for together in (False, True):
        registry = CollectorRegistry()
        histogram = Histogram(
            "seconds", "durations", ["route"], registry=registry, buckets=(0.001, 0.5, 1.0)
        ).labels("/v1/decide")
        for duration in durations:
            if together:
                telemetry.observe(histogram, duration)
            else:
                histogram.observe(duration)
        telemetry.flush()
        lines = generate_latest(registry).decode().splitlines()
        pages.append([line for line in lines if "created" not in line])
    assert pages[0] == pages[1]
