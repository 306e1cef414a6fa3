"""The record read: reports, plans, evaluations, and SQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE
from rich.table import Table

from topbill.cli.shell import DATA, Data, Json, app, out, print_json, progress

_MOST_ROWS = 200


@app.command
def report(
    key: str,
    *,
    data: Data = DATA,
    method: Literal["sequential", "fixed", "group-sequential", "bayes"] = "sequential",
    looks: tuple[str, ...] = ("100%",),
    json_: Json = False,
    html: Path | None = None,
) -> None:
    """One experiment's report, from the lake: the verdict, each metric, what was shown, and whether
    to trust it.

    Args:
        key: The experiment.
        method: How intervals are made: valid at any look (sequential), at planned looks
            (group-sequential), at one
            (fixed), or credible (bayes).
        looks: With group-sequential: at which shares of the planned units was looked, this one
            last; several times.
        html: Write it to this file instead, self-contained, with charts.
    """
    from topbill import reporting as reports

    found = reports.load(key, data, method=method, looks=tuple(_relative(one) for one in looks))
    if html is not None:
        html.write_text(reports.to_html(found))
        out.print(f"{html}: written", highlight=False)
    elif json_:
        print(reports.to_json(found))
    else:
        reports.render_text(found, out)


@app.command(name="page")
def page_report(
    key: str,
    *,
    data: Data = DATA,
    weights: tuple[str, ...] = (),
    instead: tuple[str, ...] = (),
    json_: Json = False,
) -> None:
    """A page's report: what each layer's variants do to the whole page, on every objective.

    Args:
        key: The page.
        weights: METRIC=WEIGHT, several times: weighs the objective anew over all of history.
        instead: LAYER=POLICY, once a layer: what pages would have earned with it, as in
            artwork=uniform or
            titles=other.yaml@greedy; policies as in evaluate.
    """
    from topbill.domain.errors import BadRequest
    from topbill.reporting import page as reports

    if instead:
        return _evaluate_page(key, data, instead, json_)

    chosen: dict[str, float] = {}
    for given in weights:
        name, _, weight = given.partition("=")
        try:
            chosen[name] = float(weight)
        except ValueError:
            raise BadRequest(
                "weights", f"got {given!r}; expected METRIC=WEIGHT, for example play=0.2"
            ) from None
    found = reports.load(key, data, weights=chosen or None)
    return print_json(found) if json_ else reports.render(found, out)


def _evaluate_page(key: str, data: Path, instead: tuple[str, ...], json_: bool) -> None:
    from topbill.domain.errors import BadRequest
    from topbill.ope import evaluate_page, text

    layers = dict(given.partition("=")[::2] for given in instead)
    if len(layers) < len(instead) or not all(layers.values()):
        raise BadRequest(
            "instead",
            f"got {', '.join(instead)}; expected LAYER=POLICY once a layer, as artwork=uniform",
        )
    found = evaluate_page(key, layers, data)
    print(json.dumps(found.as_dict(), indent=2)) if json_ else text.render(found, out)


@app.command
def power(
    key: str,
    *,
    data: Data = DATA,
    metric: str | None = None,
    lift: tuple[str, ...] = ("1%", "2%", "5%", "10%"),
    days: tuple[int, ...] = (0, 7, 14, 28),
    method: Literal["sequential", "fixed"] = "sequential",
    alpha: float = 0.05,
    power: float = 0.8,
    json_: Json = False,
) -> None:
    """How long an experiment must run, from its own traffic: units and days that a lift needs, and
    what shows when.

    Args:
        key: The experiment.
        metric: Which metric (default: what its verdict is about).
        lift: Relative changes to be found, such as 5% or -2.5%; several times for several.
        days: Days from now for which to say the least lift that shows then (0: now); several times
            for several.
        method: sequential: one looks as often as one likes, as in the report. fixed: once, at the
            planned end.
        alpha: The chance to call a difference where there is none.
        power: The chance to find a lift that is there.
    """
    from topbill.reporting.experiment import plan

    lifts = tuple(_relative(one) for one in lift)
    found = plan.plan(
        key, data, metric=metric, lifts=lifts, days=days, method=method, alpha=alpha, power=power
    )
    print_json(found) if json_ else plan.render_plan(found, out)


def _relative(given: str) -> float:
    """5% → 0.05. A bare number is refused: is 1 a hundredth, or double?"""
    from topbill.domain.errors import BadRequest

    number, sign, rest = given.strip().partition("%")
    try:
        if not sign or rest:
            raise ValueError
        return float(number) / 100.0
    except ValueError:
        raise BadRequest("option", f"got {given!r}; expected a percentage, such as 5%") from None


@app.command
def evaluate(
    key: str,
    *,
    policy: str,
    variant: str | None = None,
    estimators: tuple[str, ...] = (),
    interval: Literal["normal", "bootstrap", "betting", "sequence"] = "normal",
    alpha: float = 0.05,
    data: Data = DATA,
    json_: Json = False,
) -> None:
    """What another policy would have earned in an experiment, from its log alone.

    Args:
        key: The experiment whose log is used.
        policy: An experiment file, snapshot, uniform, or "always ACTION".
        variant: Only this variant of the file.
        estimators: Names of estimators, separated by commas or given several times.
        interval: How intervals are made.
        alpha: 1 − the intervals' level.
    """
    from topbill.ope import evaluate as evaluate_policy
    from topbill.ope import text

    names = tuple(name.strip() for given in estimators for name in given.split(",")) or None
    with progress() as bar:
        task = bar.add_task(key, total=None)
        found = evaluate_policy(
            key,
            policy,
            data,
            variant=variant,
            estimators=names,
            interval=interval,
            alpha=alpha,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(json.dumps(found.as_dict(), indent=2)) if json_ else text.render(found, out)


@app.command
def sql(query: str, *, data: Data = DATA, json_: Json = False) -> None:
    """One reading statement on the record: views decisions, rewards, placements, feedback, units.

    Args:
        query: SQL in DuckDB's dialect.
    """
    from topbill import lake

    found = lake.sql(data / lake.DATABASE, query)
    if json_:
        print(json.dumps(found.to_pylist(), default=str, indent=2))
        return
    table = Table(box=SIMPLE)
    for name in found.column_names:
        table.add_column(name)
    for row in found.slice(0, _MOST_ROWS).to_pylist():
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    out.print(table)
    if found.num_rows > _MOST_ROWS:
        out.print(f"{_MOST_ROWS} of {found.num_rows:,} rows; add a LIMIT, or --json for all")
