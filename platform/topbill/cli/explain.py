"""Why a viewer saw what they saw: `topbill explain`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from topbill.cli.erasure import loaded_experiments
from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    Experiments,
    LakeUrl,
    LogUrl,
    app,
    say,
    use_lake,
    use_log,
)
from topbill.domain.errors import NotFound


@app.command
def explain(
    decision_id: str,
    *,
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """Say of a stored decision what was chosen, with which probability, by which scores, and what
    came of it.

    Scores are told where the experiment's file is as it was and the policy's version is kept.

    Args:
        decision_id: Its id.
    """
    use_log(url)
    use_lake(lake_url)
    found = _explained(decision_id, experiments, data)
    output.show(found, lambda: _say(found), lambda: found["slate"])


def _say(found: Mapping[str, Any]) -> None:
    said = {name: found[name] for name in ("experiment", "variant", "unit", "policy", "reason")}
    for name, value in said.items():
        say(f"{name:<12}{'none' if value is None else value}")
    say(f"{'version':<12}{found['policy_version']}")
    for item in found["slate"]:
        say(f"position {item['position']}  {item['action']}  propensity {item['propensity']:.4g}")
    for action, score in (found["scores"] or {}).items():
        say(f"score of {action}: {score}")
    for reward in found["rewards"]:
        say(f"reward      {reward['event']} {reward['value']:g}")


def _explained(decision_id: str, experiments: Path, data: Path) -> dict[str, Any]:
    from topbill import lake
    from topbill.engine import Engine
    from topbill.entities import EntityStore
    from topbill.log import open_log_of
    from topbill.service.explained import explained

    with closing(open_log_of(data, create=False)) as log:
        decision = log.decision(decision_id)
        if decision is None:
            places = log.places([decision_id])
            decision = lake.find_decisions(data, places).get(decision_id) if places else None
        if decision is None:
            raise NotFound(f"decision {decision_id!r} is not in the log; expected the id of one")
        # As a service has them: else their revision is another one, and no table gives features.
        files = loaded_experiments(experiments, data) if experiments.exists() else []
        engine = Engine(files, tables=EntityStore(data))
        return explained(log, engine, decision, data)
