"""From a log a better policy: `topbill train`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    Data,
    EngineUrl,
    LakeUrl,
    LogUrl,
    app,
    fraction,
    out,
    progress,
    say,
    use_engine,
    use_lake,
    use_log,
)

if TYPE_CHECKING:
    from topbill.ope import Certificate, Training

_FIRST_YEAR = 1970


@app.command
def train(
    key: str,
    *,
    policy: str,
    out_: Path | None = None,
    variant: str | None = None,
    since: str | None = None,
    until: str | None = None,
    held_out: str = "30%",
    by: tuple[str, ...] = (),
    objective: str | None = None,
    alpha: float = 0.05,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    engine: EngineUrl = "",
    output: Output = TEXT,
) -> None:
    """Train a policy on the earlier part of an experiment's log, and say what it would have earned
    on the later part, how sure it is to beat what decided there, or why that cannot be told.

    Args:
        key: The experiment whose log is used.
        policy: A kind of policy (auto, linucb, …) with its defaults, or an experiment file
            (FILE@VARIANT for one of several variants that learn).
        out_: Write the policy that was trained to this file, from which a variant can start
            (start_from). It is written whether it is certified or not, and says which.
        variant: The variant of the file.
        since: Only decisions from this date or time on (UTC unless it says another zone).
        until: Only decisions before this date or time.
        held_out: The share of the decisions, the last ones, that is not learned from but judged by.
        by: A category or flag of the context whose values are judged one by one too; several times
            for several (default: each that has few values).
        objective: Judge by another objective, such as "play=1,watched=0.5", or by one metric.
        alpha: 1 − the level of the lower bound.
    """
    from topbill.ope import train as train_policy

    use_log(url)
    use_lake(lake_url)
    use_engine(engine)
    share = fraction("held-out", held_out)
    with progress() as bar:
        task = bar.add_task(key, total=None)
        training = train_policy(
            key,
            policy,
            data,
            variant=variant,
            since=since,
            until=until,
            held_out=share,
            by=by or None,
            objective=objective,
            alpha=alpha,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if out_ is not None:
        training.write(out_)
    told = training.as_dict() | {"out": str(out_) if out_ else None}
    output.show(told, lambda: _print(training, out_))


def _print(training: Training, file: Path | None) -> None:
    policy, certificate = training.policy, training.certificate
    params = ", ".join(f"{name}: {value}" for name, value in policy.params.items())
    at = datetime.fromtimestamp(policy.until // 1_000_000, UTC)
    # Logs of other tools may say no times.
    before = f" before {at:%Y-%m-%dT%H:%M:%SZ}" if at.year > _FIRST_YEAR else ""
    say(
        f"{training.experiment}: {policy.kind}{f' ({params})' if params else ''} learned from "
        f"{policy.decisions:,} decisions{before}"
        + ", each as often as its propensity says"
        * training.weighted
    )
    causes = ", ".join(f"{count:,} {cause}" for cause, count in training.left_out.items())
    if causes:
        say(f"left out: {causes}")
    say(
        f"judged on {certificate.decisions:,} later decisions of {certificate.units:,} units, by "
        f"{training.measured_in}:"
    )
    _print_certificate("all of them", certificate)
    for segment in training.segments:
        _print_certificate(f"{segment.feature}={segment.value}", segment.certificate)
    for warning in certificate.warnings:
        say(f"note: {warning}", "yellow")
    if certificate.reason is not None:
        say(f"{certificate.reason}: {certificate.sentence}", "yellow")
    if training.segments:
        out.print("Each bound holds by itself: of many, some are wrong by chance.", style="dim")
    if file is not None:
        say(f"written to {file}: a variant starts there with start_from: {{snapshot: {file.name}}}")


def _print_certificate(what: str, certificate: Certificate) -> None:
    logger = "–" if certificate.logger is None else f"{certificate.logger:.5g}"
    if certificate.value is None or certificate.low is None:
        say(f"  {what}: no answer ({certificate.reason}); the logger earned {logger}")
        return
    verdict = "certified" if certificate.certified else "not certified"
    level = f"{1.0 - certificate.alpha:.4g}"
    say(
        f"  {what}: {verdict}: {certificate.value:.5g}, at least {certificate.low:.5g} with "
        f"{float(level):.0%} beside the logger's {logger}",
        "green" if certificate.certified else None,
    )
