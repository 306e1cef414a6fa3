"""Alerts and dashboard ask for metrics that the service has, with labels that these have."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from topbill.service import telemetry

from .programs import DEPLOY, run

PROMETHEUS = DEPLOY / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "topbill-alerts.yaml").read_text())["groups"][0]["rules"]
BOARD = json.loads((DEPLOY / "grafana" / "topbill.json").read_text())
OF_THE_SCRAPE = {"job", "instance"}


def exported() -> dict[str, set[str]]:
    """The labels of each series that the service exports."""
    series = {"up": set()}
    for metric in vars(telemetry).values():
        if not isinstance(metric, Counter | Gauge | Histogram):
            continue
        name, labels = metric._name, set(metric._labelnames)
        if isinstance(metric, Counter):
            series[f"{name}_total"] = labels
        elif isinstance(metric, Gauge):
            series[name] = labels
        else:
            series |= {f"{name}_bucket": labels | {"le"}}
            series |= {f"{name}_sum": labels, f"{name}_count": labels}
    return series


def selectors(query: str) -> list[tuple[str, set[str]]]:
    """The name and the labels of everything that a query selects. Raises ValueError for no
    PromQL."""
    promql_parser = pytest.importorskip("promql_parser")
    found = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))

    promql_parser.walk(promql_parser.parse(query), pre_visit=visit)
    return found


def queries_of_the_board() -> list[str]:
    queries = []
    for panel in BOARD["panels"]:
        queries += [target["expr"] for target in panel["targets"]]
    for variable in BOARD["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.*), \w+\)", variable.get("definition", ""))
        queries += [asked[1]] if asked else []
    return queries


QUERIES = [rule["expr"] for rule in RULES] + queries_of_the_board()


@pytest.mark.parametrize("query", QUERIES)
def test_what_is_asked_for_is_there(query: str) -> None:
    series = exported()
    named = selectors(query)
    assert named
    for name, labels in named:
        assert name in series, f"{name} is no metric of the service"
        assert labels <= series[name] | OF_THE_SCRAPE, f"{name} has no such label"
    grouped = re.findall(r"(?:by|on) \(([^)]*)\)", query)
    by = {label.strip() for labels in grouped for label in labels.split(",")}
    known = set().union(*(series[name] for name, _ in named)) | OF_THE_SCRAPE
    assert by <= known


def test_every_metric_is_on_the_board() -> None:
    """None is counted that nobody would see."""
    shown = {name for query in queries_of_the_board() for name, _ in selectors(query)}
    parts = r"_(bucket|sum|count)$"
    assert {re.sub(parts, "", name) for name in exported() if name != "up"} == {
        re.sub(parts, "", name) for name in shown
    }


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert {"summary", "description"} == set(rule["annotations"]), rule["alert"]
        assert "for" in rule, f"{rule['alert']} fires at a single bad scrape"


def test_every_alert_is_tested_both_ways() -> None:
    tests = yaml.safe_load((PROMETHEUS / "topbill-alerts-test.yaml").read_text())["tests"]
    fires, quiet = set(), set()
    for case in (case for test in tests for case in test["alert_rule_test"]):
        (fires if case["exp_alerts"] else quiet).add(case["alertname"])
    assert fires == quiet == {rule["alert"] for rule in RULES}


def test_prometheus_takes_the_rules() -> None:
    checked = run("promtool", "check", "rules", PROMETHEUS / "topbill-alerts.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_alerts_fire_when_they_should_and_only_then() -> None:
    tested = run("promtool", "test", "rules", PROMETHEUS / "topbill-alerts-test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_panels_have_ids_of_their_own_and_do_not_lie_on_each_other() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))


def test_every_panel_asks_the_source_that_was_chosen() -> None:
    for panel in BOARD["panels"]:
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
