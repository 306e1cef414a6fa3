"""Small dsjson logs of which this or another tool said something wrong in public reports: imported
and evaluated, each beside the value that is right.

Nothing is random: of each ten rows of an action rome earns 2, oslo 5 and lima 8, unless said.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from topbill import spec
from topbill.domain.errors import BadData
from topbill.formats import import_log
from topbill.ope import evaluate

IDS = ("rome", "oslo", "lima")
EARNS = (2, 5, 8)
FILE = """
experiment: old
title: Imported log
surface: titles
unit: event_id
context:
  device: {type: category, values: [tv, web]}
actions: []
metrics:
  reward: {event: reward, kind: sum, window: 1s, cap: 1}
objective: {reward: 1.0}
variants:
  base: {policy: fixed, share: 1%, control: true}
  imported: {policy: uniform, share: 99%}
"""
ENDS = FILE.replace("cap: 1", "cap: 1.5, floor: -1")
ACTIONS = FILE.replace("actions: []", "actions: [{id: rome}, {id: oslo}, {id: lima}]")


def line(number: int, chosen: int, reward: float, **more: Any) -> dict[str, Any]:
    p = more.pop("p", (1 / 3, 1 / 3, 1 / 3))
    order = [chosen, *(i for i in range(3) if i != chosen)]
    return {
        "_label_cost": -float(reward),
        "_label_probability": p[chosen],
        "_label_Action": chosen + 1,
        "_labelIndex": chosen,
        "Timestamp": f"2024-03-01T00:{number // 60:02d}:{number % 60:02d}.1234567Z",
        "Version": "1",
        "EventId": f"e{number}",
        "a": [i + 1 for i in order],
        "c": {"device": ["tv", "web"][number % 2], "_multi": [{"_tag": name} for name in IDS]},
        "p": [p[i] for i in order],
        "VWState": {"m": "N/A"},
        **more,
    }


def cell(number: int) -> tuple[int, int]:
    """Which action a row shows, and its place among ten."""
    return number // 10 % 3, number % 10


def lines(count: int = 600, start: int = 0, earns: Any = EARNS, **more: Any) -> list[Any]:
    out = []
    for n in range(count):
        chosen, place = cell(n)
        out.append(line(start + n, chosen, place < earns[chosen], **more))
    return out


def deferred() -> list[Any]:
    """VW's own count of such a log: half of the lines are skipped."""
    out = []
    for one in lines():
        twin = one | {"EventId": f"{one['EventId']}d", "_label_cost": 0.0, "_skipLearn": True}
        out += [one, twin]
    return out


def synthetic() -> list[Any]:
    return [one | {"c": {"_synthetic": False, **one["c"]}} for one in lines()]


def joined() -> list[Any]:
    dangling = {"RewardValue": 1.0, "EnqueuedTimeUtc": "2024-03-01T00:00:00Z", "EventId": "zz"}
    observations = {"Observations": [{"v": 1.0, "EventId": "zz", "ActionId": None}]}
    rows = lines()
    return [*rows[:300], dangling | observations, "[CHECKPOINT INFO LINE]", *rows[300:]]


def beyond() -> list[Any]:
    """rome earns .5, oslo 1 in three of five and −1 else, lima 1.5 in half: .5, .2 and .75."""
    out = []
    for n in range(600):
        chosen, place = cell(n)
        rewards = (0.5, (1, 1, 1, -1, -1)[place % 5], 1.5 if place < 5 else 0.0)
        out.append(line(n, chosen, rewards[chosen]))
    return out


def certain() -> list[Any]:
    p = (1.0000001192092896, 0.0, 0.0)
    return [line(n, 0, n % 10 < 2, p=p) for n in range(200)]


def write(path: Path, rows: list[Any]) -> Path:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(texts) + "\n")
    return path


def imported(folder: Path, rows: list[Any], file: str) -> Path:
    (folder / "old.yaml").write_text(file)
    log = write(folder / "log.dsjson", rows)
    import_log(log, folder / "D", key="old", experiments=spec.load_all([folder / "old.yaml"]))
    return folder / "D"


@pytest.mark.parametrize(
    ("rows", "file", "right"),
    [
        (lines, FILE, {"lima": 0.8}),
        (deferred, FILE, {"lima": 0.8}),
        (
            lambda: lines() + lines(600, 600, earns=(0, 1, 2), pdrop=0.9),
            FILE,
            {"lima": (600 * 0.8 + 6_000 * 0.2) / 6_600},
        ),
        (synthetic, FILE, {"lima": 0.8}),
        (joined, FILE, {"lima": 0.8}),
        (beyond, ENDS, {"rome": 0.5, "oslo": 0.2, "lima": 0.75}),
        (certain, FILE, {"rome": 0.2}),
    ],
)
def test_a_log_is_worth_what_its_rewards_say(
    tmp_path: Path, rows: Callable[[], list[Any]], file: str, right: dict[str, float]
) -> None:
    data = imported(tmp_path, rows(), file)
    for action, value in right.items():
        policy = f"always {action}"
        estimate = evaluate("old", policy, data, estimators=("snips",)).targets[policy]["snips"]
        assert estimate.value == pytest.approx(value, abs=1e-9), action


def test_a_log_with_a_mark_of_byte_order_is_read(tmp_path: Path) -> None:
    log = write(tmp_path / "log.dsjson", lines())
    log.write_bytes(b"\xef\xbb\xbf" + log.read_bytes())
    assert import_log(log, tmp_path / "D", key="old") == 600
    estimate = evaluate("old", "always lima", tmp_path / "D", estimators=("snips",))
    assert estimate.targets["always lima"]["snips"].value == pytest.approx(0.8)


def test_rewards_beyond_a_metrics_ends_are_counted_where_they_are_clipped(tmp_path: Path) -> None:
    """Without a floor and with a cap of 1 oslo would be the best, at .6: the evaluation says how
    many rewards it is not told of."""
    data = imported(tmp_path, beyond(), FILE)
    result = evaluate("old", "always oslo", data, estimators=("snips",))
    # 80 of oslo's 200 are −1; 100 of lima's are 1.5.
    assert sorted(result.clipped.values()) == [80, 100]
    estimate = result.targets["always oslo"]["snips"]
    assert estimate.value == pytest.approx(0.6)
    assert any("reward" in warning for warning in estimate.diagnostics.warnings)


@pytest.mark.parametrize("file", [FILE, ACTIONS])
def test_a_typo_in_an_action_is_refused(tmp_path: Path, file: str) -> None:
    data = imported(tmp_path, lines(60), file)
    with pytest.raises(BadData, match="unknown action 'limaa'; expected one of lima, oslo, rome"):
        evaluate("old", "always limaa", data)
