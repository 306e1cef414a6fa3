"""Metrics of other metrics, and the library that experiments refer to: what is read of them, and
what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from topbill import spec
from topbill.domain.errors import SpecError

FILE = """
experiment: home
surface: artwork
actions: [{id: a}, {id: b}]
metrics:
  play: {event: play, kind: binary, window: 30m}
%s
objective: {play: 1.0}
variants:
  old: {policy: fixed, share: 50%%, control: true}
  new: {policy: uniform, share: 50%%}
"""


def read(*lines: str) -> spec.Experiment:
    body = FILE % "\n".join(f"  {line}" for line in lines)
    return spec.from_raw(yaml.safe_load(body), "home.yaml")


def problems(*lines: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        read(*lines)
    return [str(problem) for problem in error.value.problems]


def test_a_ratio_and_a_quantile_have_event_and_window_of_their_metrics() -> None:
    experiment = read(
        "minutes: {event: watch, kind: sum, window: 6h, per: unit}",
        "visits: {event: session, kind: count, window: 7d, per: unit}",
        "rate: {kind: ratio, numerator: minutes, denominator: visits}",
        "p90: {kind: quantile, of: minutes, q: 90%}",
        "median: {kind: quantile, of: minutes, q: 0.5, better: lower}",
        "titles: {event: play, kind: distinct, window: 7d, per: unit, winsorise: 99%}",
    )
    by_name = {m.name: m for m in experiment.metrics}
    rate, p90 = by_name["rate"], by_name["p90"]
    assert (rate.event, rate.window, rate.per, rate.read_per) == (
        "watch",
        7 * 86_400,
        "unit",
        "visits",
    )
    assert (p90.event, p90.window, p90.q, p90.of_kind, p90.per) == (
        "watch",
        21_600,
        0.9,
        "sum",
        "unit",
    )
    assert by_name["median"].better == "lower"
    assert by_name["titles"].winsorise == 0.99


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r: {kind: ratio, numerator: play}", "metrics.r.denominator: got nothing; expected this"),
        (
            "r: {kind: ratio, numerator: play, denominator: plai}",
            "metrics.r.denominator: got 'plai'; expected a metric of decisions' events in this "
            "file (play); did you mean play?",
        ),
        ("r: {kind: ratio, numerator: play, denominator: r}", "metrics.r.denominator: got 'r'"),
        ("q: {kind: quantile, of: play, q: 90}", "metrics.q.q: got 90; expected a quantile"),
        ("q: {kind: quantile, of: play, q: 0.9, window: 3h}", "metrics.q.window: got an unknown"),
        ("c: {event: e, kind: count, window: 3h, winsorise: 100%}", "metrics.c.winsorise: got"),
        ("c: {event: e, kind: count, window: 3h, winsorise: 99%, cap: 3}", "no winsorise: the cap"),
        ("c: {event: e, kind: binary, window: 3h, winsorise: 99%}", "is 0 or 1 already"),
        ("c: {event: e, window: 3h, kind: counts}", "metrics.c.kind: got 'counts'; expected one"),
        ("c: {kind: count, window: 3h}", "metrics.c.event: got nothing; expected this key"),
        ("c: {event: e, kind: count, window: 3h, per: viewer}", "expected one of decision, unit"),
        ("c: something", "metrics.c: got 'something'; expected a mapping with event"),
    ],
)
def test_each_mistake_is_told_where_it_is(line: str, message: str) -> None:
    (problem,) = problems(line)
    assert message in problem


def test_parts_of_a_ratio_are_per_the_same() -> None:
    (problem,) = problems(
        "c: {event: e, kind: count, window: 3h, per: unit}",
        "r: {kind: ratio, numerator: c, denominator: play}",
    )
    assert "metrics.r.denominator: got one per decision; expected two metrics per unit" in problem


@pytest.mark.parametrize(
    "line",
    [
        "x: {kind: ratio, numerator: play, denominator: play}",
        "x: {kind: quantile, of: play, q: 0.9}",
        "x: {event: play, kind: distinct, window: 3h}",
    ],
)
def test_policies_learn_from_numbers_of_decisions_only(line: str) -> None:
    body = (FILE % f"  {line}").replace("{play: 1.0}", "{play: 1.0, x: 0.5}")
    with pytest.raises(SpecError, match=r"objective\.x: got a .*expected a metric that each deci"):
        spec.from_raw(yaml.safe_load(body), "home.yaml")


LIBRARY = """
metrics:
  minutes:
    event: watch
    kind: sum
    window: 6h
  visits: {event: session, kind: count, window: 7d}
"""


def folder(tmp_path: Path, library: str | None, *lines: str) -> Path:
    (tmp_path / "home.yaml").write_text(FILE % "\n".join(f"  {line}" for line in lines))
    if library is not None:
        (tmp_path / "metrics.yaml").write_text(library)
    return tmp_path


def test_a_metric_of_the_library_is_as_if_it_stood_in_the_file(tmp_path: Path) -> None:
    path = folder(tmp_path, LIBRARY, "minutes: library")
    (experiment,) = spec.load_all([path])
    alone = read("minutes: {event: watch, kind: sum, window: 6h}")
    assert experiment.metrics == alone.metrics
    assert experiment.fingerprint == alone.fingerprint
    # The audit's JSON needs no library.
    assert spec.from_raw(experiment.raw, "audit").metrics == alone.metrics
    before = spec.marks(path)
    (path / "metrics.yaml").write_text(LIBRARY.replace("6h", "12h"))
    assert spec.marks(path) != before
    (changed,) = spec.load_all([path])
    assert changed.fingerprint != experiment.fingerprint
    assert [verdict for _, verdict in spec.validate([path])] == [changed]


def told(path: Path) -> list[str]:
    lines = []
    for _, verdict in spec.validate([path]):
        if isinstance(verdict, SpecError):
            lines += [str(problem) for problem in verdict.problems]
    return lines


def test_mistakes_name_the_librarys_file_and_line(tmp_path: Path) -> None:
    path = folder(tmp_path, LIBRARY.replace("window: 6h", "window: 6"), "minutes: library")
    lines = told(path)
    assert "metrics.yaml:6: metrics.minutes.window: got 6; expected a duration" in "\n".join(lines)
    assert all("metrics.yaml:6" in line for line in lines)


def test_a_mistake_that_the_experiment_makes_of_it_names_both(tmp_path: Path) -> None:
    path = folder(tmp_path, LIBRARY, "minutes: library")
    text = (path / "home.yaml").read_text().replace("{play: 1.0}", "{minutes: 1.0}")
    (path / "home.yaml").write_text(text)
    (line,) = told(path)
    assert line.startswith("metrics.yaml:3 (used by home.yaml): metrics.minutes.cap: got nothing")


def test_a_name_that_the_library_has_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (line,) = told(folder(tmp_path, LIBRARY, "minute: library"))
    assert line == (
        "home.yaml:7: metrics.minute: got 'library'; expected one of the metrics of metrics.yaml "
        "(minutes, visits); did you mean minutes?"
    )


def test_without_a_library_nothing_can_be_taken_from_it(tmp_path: Path) -> None:
    (line,) = told(folder(tmp_path, None, "minutes: library"))
    assert line.startswith("home.yaml:7: metrics.minutes: got 'library'; expected a library")


@pytest.mark.parametrize("library", ["- 1", "metrics: 3", "a: b: c", "{}", "metrics: {m: library}"])
def test_a_library_that_is_none_is_told_and_changes_nothing_unasked(
    tmp_path: Path, library: str
) -> None:
    path = folder(tmp_path, library)
    assert all(line.startswith("metrics.yaml") for line in told(path))
    assert told(path)
    assert spec.load(path / "home.yaml").key == "home"


def test_the_schema_has_the_kinds_and_the_library() -> None:
    metric = spec.json_schema()["properties"]["metrics"]["additionalProperties"]
    kinds = [
        kind
        for section in metric["anyOf"]
        if "properties" in section
        for kind in section["properties"]["kind"]["enum"]
    ]
    assert {"binary", "distinct", "ratio", "quantile"} <= set(kinds)
    assert {"library"} == {section["const"] for section in metric["anyOf"] if "const" in section}
