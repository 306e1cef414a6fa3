"""An A/B table of somebody else's, from a file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from topbill.cli.analysis import WHOLE, Method
from topbill.cli.output import TEXT, Output
from topbill.cli.shell import EngineUrl, app, fraction, fractions, out, say, use_engine

if TYPE_CHECKING:
    from topbill.ab import ArchiveSplits, FileComparison, Metric

_KIND = re.compile(
    r"(?P<kind>mean|proportion|sum|ratio|median|quantile(?:@|\()?(?P<q>\d*\.?\d*)\)?"
    r"|p(?P<percent>\d{1,2}(?:\.\d+)?))(?P<per>-per-unit)?"
)
KINDS = (
    *("mean", "proportion", "sum", "ratio", "median", "quantile@0.9", "p90"),
    *("mean-per-unit", "proportion-per-unit", "quantile@0.9-per-unit"),
)
"""How kinds are written."""


@app.command
def compare(
    file: Path,
    *,
    unit: str,
    variant: str,
    control: str,
    metric: tuple[str, ...],
    covariate: tuple[str, ...] = (),
    segment: tuple[str, ...] = (),
    time: str | None = None,
    shares: tuple[str, ...] = (),
    guardrail: tuple[str, ...] = (),
    better: tuple[str, ...] = (),
    method: Method = "sequential",
    looks: tuple[str, ...] = WHOLE,
    adjust: Literal["cuped", "lin"] = "cuped",
    alpha: float = 0.05,
    engine: EngineUrl = "",
    output: Output = TEXT,
) -> None:
    """An A/B table in a file, a row a unit or a row an event: verdict, metrics, split.

    Args:
        file: CSV or TSV (comma, semicolon, tab or bar; decimal point or comma), Parquet or Arrow,
            compressed (.gz) or not.
        unit: The column of what was randomised.
        variant: The column that names the variant.
        control: The variant to compare with.
        metric: NAME=KIND:COLUMN, several times; the verdict is about the first. KIND is mean or
            proportion (of rows, by unit), sum (each unit's total), ratio (NAME=ratio:NUM/DEN),
            median, quantile@0.9 or p90; mean-per-unit and the like of each unit's mean,
            proportion-per-unit of units with any.
        covariate: NAME=COLUMN, several times, also for one metric: what units did before.
        segment: A column to look into for effects that differ; several times.
        time: The column of each row's moment or day.
        shares: VARIANT=50%, several times or with commas: how units were to be split (default: all
            alike).
        guardrail: NAME=2%, several times: a metric that may be worse by no more than that, of the
            control's value or in percentage points (NAME=2pp).
        better: NAME=lower, several times: a metric of which less is better.
        method: How intervals are made: valid at any look (sequential), at planned looks
            (group-sequential), at one (fixed), or credible (bayes).
        looks: With group-sequential: at which shares of the planned units was looked, this one
            last; several times.
        adjust: What covariates are used for: cuped, or Lin's regression (lin).
        alpha: 1 − the intervals' level.
    """
    from topbill.ab import compare_file
    from topbill.domain.margin import Margin

    use_engine(engine)
    result = compare_file(
        file,
        unit=unit,
        variant=variant,
        control=control,
        metrics=_metrics(metric),
        covariates=_covariates(covariate),
        segments=segment,
        time=time,
        shares=_percentages("shares", shares) or None,
        guardrails={n: Margin.parse(m) for n, m in _pairs("guardrail", guardrail, "NAME=2%")},
        better=_directions(better),
        method=method,
        alpha=alpha,
        adjust=adjust,
        looks=fractions("looks", looks),
    )
    output.show(result, lambda: _render(result), result.ab.to_frame)


def _render(result: FileComparison) -> None:
    from topbill.reporting.experiment.text import render_analysis

    out.print(f"{result.file}: {result.sentence}", highlight=False, soft_wrap=True, markup=False)
    for note in result.notes:
        out.print(f"[yellow]![/] {escape(note)}", highlight=False, soft_wrap=True)
    colour = "green" if result.ab.verdict.safe_to_ship else "yellow"
    sentence = escape(result.ab.verdict.sentence)
    out.print(f"[bold {colour}]{sentence}[/]", highlight=False, soft_wrap=True)
    render_analysis(result.ab, out)


@app.command
def srm(
    file: Path,
    *,
    test: str,
    units: str,
    period: str,
    share: str | None = None,
    alpha: float = 0.01,
    output: Output = TEXT,
) -> None:
    """Which weeks of an archive of A/B tests have a broken split: a file with a row a variant
    of a test.

    Args:
        file: CSV, TSV, Parquet or Arrow, as in compare.
        test: The column that names the test.
        units: The column of how many units the variant got.
        period: The column of the week or day.
        share: The column of the variant's intended share (default: all of a test alike).
        alpha: The level at which a test fails, and at which a span of weeks is told.
    """
    from topbill.ab import srm_archive
    from topbill.lake.plain_files import Kind, read_table

    columns: dict[str, Kind] = {test: "label", period: "order", units: "number"}
    if share is not None:
        columns[share] = "number"
    table = read_table(file, columns, required=(test, period))
    result = srm_archive(
        table.relation, test=test, units=units, period=period, share=share, alpha=alpha
    )
    output.show(result, lambda: _render_archive(file, result, table.excluded), result.to_frame)


def _render_archive(file: Path, result: ArchiveSplits, excluded: Mapping[str, int]) -> None:
    tests = f"{result.failing:,} of {result.tests:,} tests fail"
    say(f"{file}: {tests} at {result.alpha:.1%}")
    colour = "red" if any(span.broken for span in result.spans) else "green"
    out.print(f"[bold {colour}]{escape(result.sentence)}[/]", highlight=False, soft_wrap=True)
    for reason, count in {**excluded, **result.excluded}.items():
        out.print(f"left out: {count:,} with {escape(reason)}", highlight=False, soft_wrap=True)


# --- What options say


def _metrics(options: Sequence[str]) -> dict[str, Metric]:
    """NAME=KIND:COLUMN, by name in their order."""
    from topbill.domain.errors import BadRequest

    metrics: dict[str, Metric] = {}
    for name, text in _pairs("metric", options, "NAME=KIND:COLUMN, as in plays=mean:plays"):
        kind, colon, column = text.partition(":")
        if name in metrics:
            raise BadRequest("metric", f"got {name} twice; expected each name once")
        if not colon or not column:
            raise BadRequest(
                "metric", f"got {name}={text}; expected NAME=KIND:COLUMN, as in plays=mean:plays"
            )
        metrics[name] = _metric(kind, column)
    return metrics


def _covariates(options: Sequence[str]) -> dict[str, list[str]]:
    """The columns by metric."""
    columns: dict[str, list[str]] = {}
    for name, column in _pairs("covariate", options, "NAME=COLUMN"):
        columns.setdefault(name, []).append(column)
    return columns


def _metric(kind: str, column: str) -> Metric:
    from topbill.ab import Mean, Proportion, Quantile, Ratio, Sum
    from topbill.domain.errors import BadRequest

    written = _KIND.fullmatch(kind)
    if written is None or (written["per"] and written["kind"] == "ratio"):
        from topbill.domain.suggestion import nearest

        hint = nearest(kind, KINDS)
        raise BadRequest(
            "metric",
            f"got the kind {kind!r}; expected one of {', '.join(KINDS)}" + f"; {hint}" * bool(hint),
        )
    per: Any = "unit" if written["per"] else "row"
    if written["kind"] == "mean":
        return Mean(column, per)
    if written["kind"] == "proportion":
        return Proportion(column, per)
    if written["kind"] == "sum":
        return Sum(column)
    if written["kind"] == "ratio":
        numerator, slash, denominator = column.partition("/")
        if not slash or not denominator:
            raise BadRequest(
                "metric", f"got ratio:{column}; expected ratio:NUMERATOR/DENOMINATOR, two columns"
            )
        return Ratio(numerator, denominator)
    q = float(written["q"] or 0.5)
    if written["percent"]:
        q = float(written["percent"]) / 100.0
    return Quantile(column, q, per)


def _pairs(option: str, texts: Iterable[str], expected: str) -> list[tuple[str, str]]:
    """NAME=VALUE each, of shares also several with commas between them."""
    from topbill.domain.errors import BadRequest

    pairs = []
    for text in texts:
        for part in text.split(",") if option == "shares" else [text]:
            name, sign, value = part.partition("=")
            if not (sign and name.strip() and value.strip()):
                raise BadRequest(option, f"got {part!r}; expected {expected}")
            pairs.append((name.strip(), value.strip()))
    return pairs


def _percentages(option: str, texts: Iterable[str]) -> dict[str, float]:
    """NAME=5%, by name."""
    from topbill.domain.errors import BadRequest

    percentages = {}
    for name, text in _pairs(option, texts, "NAME=5%"):
        percentages[name] = fraction(option, text, least=0.0)
    whole = sum(percentages.values())
    if whole > 1.0 + 1e-9:
        raise BadRequest(option, f"got {100.0 * whole:.6g}% in all; expected at most 100%")
    return percentages


def _directions(texts: Iterable[str]) -> dict[str, Any]:
    """NAME=lower, by name."""
    from topbill.domain.errors import BadRequest

    directions = {}
    for name, text in _pairs("better", texts, "NAME=lower"):
        if text not in ("higher", "lower"):
            raise BadRequest("better", f"got {text!r}; expected higher or lower")
        directions[name] = text
    return directions
