"""Why a viewer saw what they saw: `topbill explain`."""

from __future__ import annotations

import math
import textwrap
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
from topbill.domain.formatting import with_minus

_MOST_PARTS = 5
"""Parts of a score that are told; --json has all of them."""
_WIDTH = 60
"""Characters of a line of them."""


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
    scores = found["scores"] or {}
    if scores:
        say("score of each candidate, and what weighs most in it:")
    width = max(map(len, scores), default=0)
    for action, score in sorted(scores.items(), key=_falling):
        for n, line in enumerate(_score_lines(score)):
            say(f"  {'' if n else action:<{width}}  {line}")
    for reward in found["rewards"]:
        say(f"reward      {reward['event']} {reward['value']:g}")


def _falling(of_action: tuple[str, Mapping[str, Any]]) -> float:
    """The higher a score, the sooner it is told; what has none comes last."""
    score = of_action[1]["score"]
    return math.inf if score is None else -score


def _score_lines(told: Mapping[str, Any]) -> list[str]:
    """A candidate's score, and the few parts of it that weigh most, in lines of a terminal."""
    head = "no score" if told["score"] is None else f"{told['score']:.4g}"
    if told["width"] is not None:
        head += f" ± {told['width']:.2g}"
    parts = told["contributions"]
    weighing = sorted((name for name in parts if parts[name]), key=lambda name: -abs(parts[name]))
    named = [f"{name} {with_minus(f'{parts[name]:+.2g}')}" for name in weighing[:_MOST_PARTS]]
    if len(weighing) > _MOST_PARTS:
        named.append(f"{len(weighing) - _MOST_PARTS} more")
    return [head, *textwrap.wrap(", ".join(named), _WIDTH)]


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
