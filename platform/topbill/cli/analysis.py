"""What the record says: reports, plans, evaluations, and SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    Data,
    EngineUrl,
    LakeUrl,
    app,
    fraction,
    fractions,
    out,
    say,
    use_engine,
    use_lake,
)

if TYPE_CHECKING:
    from topbill.ab import Plan
    from topbill.reporting import PageReport, Report

WHOLE: tuple[str, ...] = ("100%",)


Method = Literal["sequential", "fixed", "group-sequential", "bayes"]


@app.command
def report(
    key: str,
    *,
    data: Data = DATA,
    lake_url: LakeUrl = "",
    method: Method | None = None,
    looks: tuple[str, ...] = (),
    against: str | None = None,
    with_: Annotated[str | None, Parameter(name="--with")] = None,
    html: Path | None = None,
    weights: tuple[str, ...] = (),
    instead: tuple[str, ...] = (),
    calibration: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    revision: str | None = None,
    first_exposure: bool = False,
    anew: bool = False,
    engine: EngineUrl = "",
    output: Output = TEXT,
) -> None:
    """What came of an experiment, or of a whole page, from the lake.

    Of an experiment: the verdict, each metric, what was shown, and whether to trust it. Of a page:
    what each layer's variants do to all of it, on every objective.

    Args:
        key: The experiment, or the page; never are two called alike.
        method: Of an experiment, how intervals are made: valid at any look (sequential), at
            planned looks (group-sequential), at one (fixed), or credible (bayes). Default: the
            file's; another one is marked as not planned.
        looks: With group-sequential: at which shares of the planned units was looked, this one
            last; several times. Default: all of the file's.
        against: Of an experiment, the variant to compare with instead of the control.
        with_: Of an experiment, another one: the effect by the other's variant, for units in both.
        html: Write it to this file instead, self-contained, with charts.
        weights: Of a page: METRIC=WEIGHT, several times, weighs the objective anew over all of
            history.
        instead: Of a page: LAYER=POLICY, once a layer: what pages would have earned with it, as in
            artwork=uniform or titles=other.yaml@greedy; policies as in evaluate. Where lengths are
            drawn, also other ones: row_cost=0.03, title_cost=0.004, rows.count=4-12.
        calibration: Of a page: its catalogue's file; how far pages follow what their viewers watch,
            by its genres, and each provider's share of the places.
        since: Of an experiment: only decisions from then on: a date or a time, in UTC where it has
            no zone, as 2026-03-02 or 2026-03-02T10:00+01:00.
        until: Of an experiment: only decisions before then.
        revision: Of an experiment: only decisions of that revision of its file.
        first_exposure: Of an experiment: let units that were seen in several variants count for
            their first, also where no change of shares explains it.
        anew: Of an experiment that was concluded: work its report out from the record as it is now,
            up to the conclusion, instead of showing the one that was kept.
    """
    use_lake(lake_url)
    from topbill import reporting

    use_engine(engine)
    if not reporting.is_page(key, data):
        _refuse(key, "an experiment", _of_a_page(weights, instead, calibration))
        shares = fractions("looks", looks)
        if with_ is not None:
            unused = {
                "html": html is not None,
                "against": bool(against),
                "revision": bool(revision),
            }
            unused |= {"since": since is not None, "until": until is not None}
            _refuse(key, "read with another experiment", unused)
            _interaction(key, with_, data, method or "sequential", shares or (1.0,), output)
            return
        result = reporting.load_experiment_report(
            key,
            data,
            method=method,
            looks=shares or None,
            control=against,
            since=since,
            until=until,
            revision=revision,
            first_exposure=first_exposure,
            anew=anew,
        )
        _show(result, html, output)
        return
    given = {
        "method": bool(method),
        "looks": bool(looks),
        "against": bool(against),
        "with": with_ is not None,
        "since": since is not None,
        "until": until is not None,
        "revision": revision is not None,
        "first-exposure": first_exposure,
        "anew": anew,
    }
    _refuse(key, "a page", given)
    if calibration is not None:
        _page_calibration(key, data, calibration, output)
    elif instead:
        _page_with_other_policies(key, data, instead, output)
    else:
        page = reporting.load_page_report(key, data, weights=_weights(weights) or None)
        _show(page, html, output)


def _of_a_page(
    weights: tuple[str, ...], instead: tuple[str, ...], calibration: Path | None
) -> dict[str, bool]:
    """Which of a page's own options were given."""
    return {
        "weights": bool(weights),
        "instead": bool(instead),
        "calibration": calibration is not None,
    }


def _page_calibration(key: str, data: Path, catalogue: Path, output: Output) -> None:
    """Print how far pages follow what their viewers watch."""
    from topbill.catalog import Catalog
    from topbill.reporting import calibration

    catalog = Catalog.read(catalogue)
    found = calibration.page_calibration(key, data, catalog)
    providers = calibration.page_exposure(key, data, catalog)

    def text() -> None:
        out.print(calibration.calibration_table(found))
        if providers:
            out.print(calibration.exposure_table(providers))

    rows = [asdict(one) for one in found]
    exposures = [asdict(one) for one in providers]
    output.show({"calibration": rows, "providers": exposures}, text, lambda: rows)


def _interaction(
    key: str, other: str, data: Path, method: Method, looks: tuple[float, ...], output: Output
) -> None:
    """Print what two experiments do to each other."""
    from topbill.reporting.experiment import interactions

    found = interactions.interaction(key, other, data, method=method, looks=looks)
    output.show(
        found,
        lambda: interactions.render_interaction(found, key, other, out),
        lambda: msgspec.to_builtins([*found.effects, *found.terms]),
    )


def _show(result: Report | PageReport, html: Path | None, output: Output) -> None:
    from topbill import reporting

    if html is not None:
        html.write_text(reporting.to_html(result))
        output.show({"file": str(html)}, lambda: say(f"{html}: written"))
    elif output.json:
        print(reporting.to_json(result))
    else:
        output.show(None, lambda: reporting.render_text(result, out), result.to_frame)


def _refuse(key: str, kind: str, options: Mapping[str, bool]) -> None:
    """Raises BadRequest where an option was given that `kind` has no use for."""
    from topbill.domain.errors import BadRequest

    for name, is_given in options.items():
        if is_given:
            raise BadRequest(
                name, f"{key} is {kind}, of which there is no --{name}; leave the option out"
            )


def _weights(options: Iterable[str]) -> dict[str, float]:
    """play=0.2 → {"play": 0.2}."""
    from topbill.domain.errors import BadRequest

    weights = {}
    for option in options:
        name, _, weight = option.partition("=")
        try:
            weights[name] = float(weight)
        except ValueError:
            raise BadRequest(
                "weights", f"got {option!r}; expected METRIC=WEIGHT, for example play=0.2"
            ) from None
    return weights


def _page_with_other_policies(
    key: str, data: Path, instead: tuple[str, ...], output: Output
) -> None:
    from topbill.domain.errors import BadRequest
    from topbill.ope import evaluate_page, text

    # A layer that is named twice, or without a policy, would be lost in silence.
    layers = dict(option.partition("=")[::2] for option in instead)
    if len(layers) < len(instead) or not all(layers.values()):
        raise BadRequest(
            "instead",
            f"got {', '.join(instead)}; expected LAYER=POLICY once a layer, as artwork=uniform",
        )
    result = evaluate_page(key, layers, data)
    output.show(result.as_dict(), lambda: text.render(result, out), result.to_frame)


LIFTS: tuple[str, ...] = ("1%", "2%", "5%", "10%")


@Parameter(name="*", group="Before launch")
@dataclass(frozen=True, kw_only=True)
class Ahead:
    """Of an experiment that has no traffic yet, instead of its key."""

    baseline: str | None = None
    """The control's rate, such as 12%."""
    mean: float | None = None
    """The control's mean, where the metric is a number; with --sd."""
    sd: float | None = None
    """The standard deviation of that number, by unit."""
    units_per_day: float | None = None
    """New units a day, all variants together."""
    variants: int | None = None
    """How many variants, the control counted (default 2)."""
    shares: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """Their shares instead, the control's first: 50%, 25%, 25%; several times, or with commas."""
    margin: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """A guardrail's margin, for which the units are told until non-inferiority is shown:
    10% of the baseline, 2pp (percentage points), or a number; several times for several."""
    decisions_per_unit: float | None = None
    """How many decisions of a unit the metric is the mean of (default 1)."""
    design_effect: float | None = None
    """How many times larger the variance is since a unit's decisions are alike (default 1)."""
    variance_saved: str | None = None
    """What a covariate takes away of the variance, such as 30%."""
    guardrail: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """Of a file: what a guardrail's rate is today, such as abandon=8%, so that it is planned for by
    its margin; several times for several."""


@app.command
def power(
    key: str | None = None,
    *,
    data: Data = DATA,
    lake_url: LakeUrl = "",
    metric: str | None = None,
    lift: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)] = LIFTS,
    days: tuple[int, ...] = (0, 7, 14, 28),
    method: Method | None = None,
    looks: tuple[str, ...] = (),
    alpha: float = 0.05,
    power: float = 0.8,
    ahead: Ahead = Ahead(),
    engine: EngineUrl = "",
    output: Output = TEXT,
) -> None:
    """How long an experiment must run: units and days that a lift needs, and what shows when.

    From an experiment's own traffic (KEY), or before launch from a baseline: topbill power
    --baseline 12% --units-per-day 40000 --variants 3. A file says the rest of it: topbill power
    new.yaml --baseline 12% --units-per-day 40000. It plans by the rule that the report calls
    by: Holm over the treatments, the method's boundary, and the margins of guardrails.

    Args:
        key: The experiment; before launch its file, or nothing.
        metric: Which metric (default: what its verdict is about).
        lift: Relative changes to be found, such as 5% or -2.5%; several times for several.
        days: Days from now for which to say the minimum detectable effect (0: now); several times
            for several.
        method: How the report will be read: sequential, as often as one likes; fixed, once, at the
            planned end; group-sequential, at planned looks; bayes. Default: the file's, and
            before launch sequential.
        looks: With group-sequential: the shares of the planned units at which will be looked;
            several times. Default: the file's, and before launch 100%.
        alpha: The chance to call a difference where there is none.
        power: The chance to find a lift that is there.
    """
    use_lake(lake_url)
    use_engine(engine)
    from topbill.reporting.experiment import plan

    settings: dict[str, Any] = {
        "days": days,
        "alpha": alpha,
        "power": power,
    }
    shares = fractions("looks", looks)
    lifts = fractions("lift", lift)
    if key is not None and Path(key).suffix in (".yaml", ".yml"):
        reading = {"metric": metric, "method": method, "looks": shares or None}
        result = _plan_of_file(Path(key), ahead, {**settings, **reading, "relative": lifts})
    elif key is None:
        settings |= {"method": method or "sequential", "looks": shares or (1.0,)}
        result = _plan_ahead(ahead, metric, lifts, settings)
    else:
        _refuse(key, "an experiment", _options(ahead))
        result = plan.plan(
            key, data, metric=metric, lifts=lifts, method=method, looks=shares or None, **settings
        )
    output.show(
        result,
        lambda: plan.render_plan(result, out),
        lambda: msgspec.to_builtins([*result.runtimes, *result.detectable, *result.guardrails]),
    )


def _options(ahead: Ahead) -> dict[str, bool]:
    """Which options of an experiment before launch were given."""
    options = {}
    for name, value in asdict(ahead).items():
        options[name.replace("_", "-")] = value is not None and value != ()
    return options


def _plan_of_file(file: Path, ahead: Ahead, settings: Mapping[str, Any]) -> Plan:
    """Raises BadRequest for options that the file answers, and SpecError where it is wrong."""
    from topbill import spec
    from topbill.domain.errors import BadRequest
    from topbill.reporting.experiment import plan

    given = _options(ahead)
    for name in ("variants", "shares", "margin"):
        if given[name]:
            raise BadRequest(name, f"{file} says it; leave the option out, or the file")
    rates = {}
    for option in ahead.guardrail:
        name, _, rate = option.partition("=")
        rates[name] = fraction("guardrail", rate)
    return plan.plan_of_file(
        spec.load(file), _baseline(ahead), guardrails=rates, **_expected(ahead), **settings
    )


def _baseline(ahead: Ahead) -> float:
    """The control's value. Raises BadRequest where it is not said once."""
    from topbill.domain.errors import BadRequest

    if (ahead.baseline is None) == (ahead.mean is None) or (ahead.mean is None) != (
        ahead.sd is None
    ):
        raise BadRequest(
            "baseline",
            "expected the KEY of an experiment that has traffic, or before launch either "
            "--baseline 12% (a rate) or --mean 5.2 --sd 8 (a number)",
        )
    return ahead.mean if ahead.mean is not None else fraction("baseline", ahead.baseline or "")


def _expected(ahead: Ahead) -> dict[str, Any]:
    """What is expected of the traffic and the metric."""
    decisions, effect = ahead.decisions_per_unit, ahead.design_effect
    return {
        "sd": ahead.sd,
        "units_a_day": ahead.units_per_day,
        "decisions_per_unit": 1.0 if decisions is None else decisions,
        "design_effect": 1.0 if effect is None else effect,
        "variance_saved": fraction("variance-saved", ahead.variance_saved or "0%"),
    }


def _plan_ahead(
    ahead: Ahead, metric: str | None, lifts: tuple[float, ...], settings: Mapping[str, Any]
) -> Plan:
    """Raises BadRequest for options that do not go together."""
    from topbill.ab import Margin, plan_ahead
    from topbill.domain.errors import BadRequest

    if metric is not None:
        raise BadRequest("metric", "got a metric but no experiment; expected a KEY before it")
    baseline = _baseline(ahead)
    if ahead.guardrail:
        raise BadRequest("guardrail", "got one but no file; expected --margin, or a FILE before it")
    if ahead.variants is not None and ahead.shares:
        raise BadRequest("shares", "got --variants as well; expected one of the two")
    return plan_ahead(
        baseline,
        variants=2 if ahead.variants is None else ahead.variants,
        shares=fractions("shares", ahead.shares) or None,
        relative=lifts,
        margins=[Margin.parse(_as_number(margin)) for margin in ahead.margin],
        **_expected(ahead),
        **settings,
    )


def _as_number(text: str) -> float | str:
    """A plain number as such; other text as it is."""
    try:
        return float(text)
    except ValueError:
        return text
