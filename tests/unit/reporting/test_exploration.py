"""What a least probability leaves to a policy stands in the report, with a note where it is
little.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from topbill import reporting, spec
from topbill.engine import DecideRequest, Engine
from topbill.lake import Lake
from topbill.log import open_log
from topbill.worker.publisher import Publisher

pytestmark = pytest.mark.usefixtures("engine")

FILE = """
experiment: {key}
surface: titles
unit: profile_id
slots: 2
actions: {actions}
metrics: {{play: {{event: play, kind: binary, window: 1h}}}}
objective: {{play: 1.0}}
variants:
  first: {{policy: fixed, share: 50%, control: true}}
  second: {{policy: thompson, share: 50%, min_probability: {least}}}
"""


@pytest.mark.parametrize(
    ("actions", "candidates", "least", "shares", "told"),
    [
        ("[{id: a}, {id: b}, {id: c}, {id: d}]", 4, "10%", (0.6, 0.7), False),
        ("[{id: a}, {id: b}, {id: c}, {id: d}]", 4, "15%", (0.4, 0.55), True),
        ("[]", 60, "1%", (0.4, 0.41), True),
        ("[]", 60, "2%", (0.0, 0.0), True),
    ],
)
def test_the_report_says_how_much_is_left(
    tmp_path: Path, actions: str, candidates: int, least: str, shares: object, told: bool
) -> None:
    (tmp_path / "x.yaml").write_text(FILE.format(key="x", actions=actions, least=least))
    experiment = spec.load(tmp_path / "x.yaml")
    offered = {}
    if not experiment.actions:
        offered = {"actions": [{"id": f"t{i}"} for i in range(candidates)]}
    engine = Engine([experiment])
    log = open_log(tmp_path / "data" / "log.sqlite")
    decisions = []
    for number in range(40):
        body = msgspec.json.encode({"experiment": "x", "unit": f"u{number}", **offered})
        decisions.append(engine.decide(msgspec.json.decode(body, type=DecideRequest)))
    log.append(decisions, [])
    Publisher(log, Lake(tmp_path / "data"), lambda: [experiment]).step()
    log.close()
    report = reporting.load("x", tmp_path / "data")
    assert isinstance(report, reporting.Report)
    first, second = report.variants
    assert first.policy_shares == ()
    assert second.policy_shares == pytest.approx(shares)
    notes = [note.sentence for note in report.notes if note.code == "little_left_to_policy"]
    assert len(notes) == told
    if told:
        assert f"second: min_probability {least} for each of {candidates} candidates" in notes[0]
