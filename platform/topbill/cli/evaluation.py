"""What other policies would have earned: `topbill evaluate`."""

from __future__ import annotations

from typing import Literal

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    Data,
    EngineUrl,
    LakeUrl,
    LogUrl,
    app,
    out,
    progress,
    use_engine,
    use_lake,
    use_log,
)


@app.command
def evaluate(
    key: str,
    *,
    policy: tuple[str, ...],
    variant: str | None = None,
    where: tuple[str, ...] = (),
    since: str | None = None,
    until: str | None = None,
    objective: str | None = None,
    estimators: tuple[str, ...] = (),
    interval: Literal["normal", "bootstrap", "betting", "sequence"] = "normal",
    alpha: float = 0.05,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    engine: EngineUrl = "",
    output: Output = TEXT,
) -> None:
    """What other policies would have earned in an experiment, from its log alone, and how much more
    than the log did and than each other.

    Args:
        key: The experiment whose log is used.
        policy: An experiment file (FILE@VARIANT for one of its variants), snapshot, shadow,
            uniform, or "always ACTION"; several times for several candidates.
        variant: Only this variant of files and snapshots.
        where: Only decisions whose context meets this, such as device=tv, device=tv,web,
            "hour>=18" or, of nested context, user.country=de; also variant, unit and revision;
            several times for all of several.
        since: Only decisions from this date or time on (UTC unless it says another zone).
        until: Only decisions before this date or time.
        objective: Judge by another objective, such as "play=1,watched=0.5", or by one metric.
        estimators: Names of estimators, separated by commas or given several times.
        interval: How intervals are made.
        alpha: 1 − the intervals' level.
    """
    from topbill.ope import evaluate as evaluate_policies
    from topbill.ope import text

    use_log(url)
    use_lake(lake_url)
    use_engine(engine)
    # Both spellings may be mixed: --estimators ips,dr --estimators snips.
    names = [name.strip() for option in estimators for name in option.split(",")]
    with progress() as bar:
        task = bar.add_task(key, total=None)
        result = evaluate_policies(
            key,
            policies=policy,
            data_dir=data,
            variant=variant,
            where=where,
            since=since,
            until=until,
            objective=objective,
            estimators=tuple(names) or None,
            interval=interval,
            alpha=alpha,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    output.show(result.as_dict(), lambda: text.render(result, out), result.to_frame)
