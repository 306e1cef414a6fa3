"""Import and evaluate in two commands: a log without an experiment file gets one that fits."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import cli, lake, spec
from topbill.domain.errors import BadData, BadRequest
from topbill.domain.features import Encoder, Feature
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.engine import CompiledExperiment, logged_actions
from topbill.formats import import_log
from topbill.formats.fitting_experiment import LogShape, yaml_of
from topbill.formats.open_bandit import read_rows
from topbill.formats.rows import ReadNotes, quiet
from topbill.ope import evaluate
from topbill.spec.yaml import parse

from .decisions import logged

ROOT = Path(__file__).parents[3]
OPEN_BANDIT = ROOT / "tests" / "data" / "reference" / "obd" / "men_bts_log.parquet"
ROWS = 400


def chosen(number: int) -> tuple[int, float]:
    """Which of three actions a row shows, and its reward: .2, .5 and .8 in ten rows of each."""
    action = number // 10 % 3
    return action, float(number % 10 < (2, 5, 8)[action])


def cb_line(number: int, **changes: Any) -> dict[str, Any]:
    """A line of VW's contextual bandits, with namespaces as joiners write them."""
    action, reward = chosen(number)
    line: dict[str, Any] = {
        "_label_cost": -reward,
        "_label_probability": 1 / 3,
        "_label_Action": action + 1,
        "_labelIndex": action,
        "o": [{"v": reward, "EventId": f"e{number}", "ActionTaken": False}],
        "Timestamp": f"2024-03-01T00:{number // 60:02d}:{number % 60:02d}.1234567Z",
        "Version": "1",
        "EventId": f"e{number}",
        "a": [action + 1, *(i + 1 for i in range(3) if i != action)],
        "c": {
            "_synthetic": False,
            "FromUrl": [{"timeofday": ["Morning", "Evening"][number % 2], "_note": number}],
            "User-Agent Family": "Edge",
            "age": number % 50,
            "_multi": [
                {"_tag": city, "i": {"constant": 1, "id": city}, "_note": 1, "j": [{"warm": True}]}
                for city in ("rome", "oslo", "lima")
            ],
        },
        "p": [1 / 3] * 3,
        "VWState": {"m": "N/A"},
    }
    return line | changes


def ccb_line(number: int) -> dict[str, Any]:
    """A line of VW's CCB: two of three actions, the first as in `cb_line`."""
    action, reward = chosen(number)
    others = [i for i in range(3) if i != action]
    second = others[number % 2]
    last = next(i for i in others if i != second)
    cities = ("rome", "oslo", "lima")
    return {
        "Timestamp": f"2024-03-01T00:{number // 60:02d}:{number % 60:02d}Z",
        "EventId": f"e{number}",
        "c": {
            "GUser": {"id": "a", "hobby": "hiking"},
            "_multi": [{"_tag": city, "TAction": {"topic": city}} for city in cities],
            "_slots": [{"_id": "s0"}, {"_id": "s1"}],
        },
        "_outcomes": [
            {"_id": "s0", "_label_cost": -reward, "_a": [action, *others], "_p": [1 / 3] * 3},
            {"_id": "s1", "_label_cost": 0.0, "_a": [second, last], "_p": [0.5, 0.5]},
        ],
    }


def write_lines(path: Path, lines: list[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_npz(path: Path) -> Path:
    pairs = [chosen(number) for number in range(ROWS)]
    np.savez(
        path, n_rounds=ROWS, n_actions=3, action=[a for a, _ in pairs],
        reward=[r for _, r in pairs], pscore=np.full(ROWS, 1 / 3),
        context=np.arange(ROWS * 2).reshape(ROWS, 2) * 1e5,
    )  # fmt: skip
    return path


def personalizer_line(number: int) -> dict[str, Any]:
    """As Azure's Personalizer logged: nested contexts, rewards as costs."""
    line = cb_line(number)
    context = {"GUser": [{"profile": {"age": number % 7}}], "weather": [{"rain": number % 3 == 0}]}
    return line | {"c": {"_synthetic": False, **context, "_multi": line["c"]["_multi"]}}


LOGS = {
    "cb.dsjson": lambda path: write_lines(path, [cb_line(i) for i in range(ROWS)]),
    "personalizer.dsjson": lambda path: write_lines(
        path, [personalizer_line(i) for i in range(ROWS)]
    ),
    "rewards.npz": write_npz,
}


@pytest.mark.parametrize("name", LOGS)
def test_two_commands_evaluate_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    LOGS[name](tmp_path / name)
    cli.app(["import", name, "--key", "old", "--data", "D"], result_action="return_value")
    printed = capsys.readouterr().out
    assert f"D: holds {ROWS:,} decisions" in printed
    assert "D/experiments/old.yaml: written, to fit the log of old" in printed
    lima = "2" if name.endswith("npz") else "lima"
    for policy, right in (("uniform", 0.5), (f"always {lima}", 0.8)):
        command = ["evaluate", "old", "--policy", policy, "--data", "D", "--json"]
        cli.app([*command, "--estimators", "snips,dr"], result_action="return_value")
        (target,) = json.loads(capsys.readouterr().out)["targets"].values()
        assert target["snips"]["value"] == pytest.approx(right, abs=0.02), policy
        assert target["dr"]["value"] == pytest.approx(right, abs=0.05), policy


def test_a_part_of_a_log_is_asked_for_by_names_in_its_nested_context(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "old.dsjson", [cb_line(number) for number in range(ROWS)])
    import_log(log, tmp_path / "data", key="old")

    def decisions(*where: str) -> int:
        result = evaluate("old", "uniform", tmp_path / "data", where=where, estimators=("ips",))
        return result.decisions

    assert decisions("FromUrl.timeofday=Morning") == ROWS / 2
    assert decisions("FromUrl:timeofday!=Morning", "age<10") == ROWS / 10
    assert decisions("User-Agent Family=Edge") == ROWS
    there = "FromUrl.timeofday, User-Agent Family, age, variant, unit, revision"
    with pytest.raises(BadRequest, match=rf"'FromUrl.timeofdy' .*expected one of {there}.* mean"):
        decisions("age<10", "FromUrl.timeofdy=Morning")


def test_slates_of_vw_are_evaluated_likewise(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "ccb.dsjson", [ccb_line(i) for i in range(ROWS)])
    import_log(log, tmp_path / "D", key="old")
    experiment = spec.load(tmp_path / "D" / "experiments" / "old.yaml")
    assert (experiment.slots, experiment.status) == (2, "stopped")
    target = evaluate("old", "always lima", tmp_path / "D", estimators=("sips",)).targets
    assert target["always lima"]["sips"].value == pytest.approx(0.8, abs=0.03)


def open_bandit_csv(path: Path) -> Path:
    """The shop's men's log as its authors publish it (Saito et al. 2021, CC BY 4.0), an extract."""
    log = pd.read_parquet(OPEN_BANDIT)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(
            ["timestamp", "item_id", "position", "click", "propensity_score", "user_feature_0"]
        )
        for number, row in enumerate(log.itertuples()):
            time = f"2019-11-24 {number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}"
            out.writerow(
                [f"{time}.5+00:00", row.action, row.position + 1, row.reward, row.pscore, "cef"]
            )
    return path


def test_open_bandit_is_evaluated_in_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From Thompson sampling's log what the uniform policy earns: the shop's own uniform log says
    0.0046 ± 0.0013.
    """
    monkeypatch.chdir(tmp_path)
    open_bandit_csv(tmp_path / "men.csv")
    cli.app(["import", "men.csv", "--key", "obd", "--data", "D"], result_action="return_value")
    command = ["evaluate", "obd", "--policy", "uniform", "--data", "D", "--json"]
    capsys.readouterr()
    cli.app([*command, "--estimators", "ips"], result_action="return_value")
    estimate = json.loads(capsys.readouterr().out)["targets"]["uniform"]["ips"]
    assert estimate["value"] == pytest.approx(0.0030, abs=0.00005)
    assert estimate["low"] == pytest.approx(0.0015, abs=0.00005)
    assert estimate["high"] == pytest.approx(0.0045, abs=0.00005)


def test_a_file_that_is_there_is_taken_and_never_overwritten(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "cb.dsjson", [cb_line(i) for i in range(60)])
    remarks: list[str] = []
    import_log(log, tmp_path / "D", key="old", remarks=remarks)
    file = tmp_path / "D" / "experiments" / "old.yaml"
    assert remarks == [f"{file}: written, to fit the log of old"]
    changed = file.read_text().replace("Imported from cb.dsjson", "Cities")
    file.write_text(changed)
    import_log(log, tmp_path / "D", key="old", remarks=remarks)
    assert (file.read_text(), len(remarks)) == (changed, 1)
    assert titles(tmp_path / "D") == ["Cities"]
    # A file of the caller's own comes before that of the import.
    other = tmp_path / "own.yaml"
    other.write_text(changed.replace("Cities", "Towns"))
    import_log(log, tmp_path / "D", key="old", experiments=[spec.load(other)], remarks=remarks)
    assert (titles(tmp_path / "D"), len(remarks)) == (["Towns"], 1)
    # Without any it is found again from the log.
    file.unlink()
    import_log(log, tmp_path / "D", key="old")
    assert titles(tmp_path / "D") == ["Imported from cb.dsjson"]


def titles(data: Path) -> list[str]:
    rows = lake.sql(data / lake.DATABASE, "SELECT title FROM experiments").to_pylist()
    return [row["title"] for row in rows]


def test_a_named_folder_takes_the_file_and_keeps_others(tmp_path: Path) -> None:
    log = write_lines(tmp_path / "cb.dsjson", [cb_line(i) for i in range(60)])
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "old.yaml").write_text("experiment: another\n")
    remarks: list[str] = []
    import_log(log, tmp_path / "D", key="old", fitting_files=tmp_path / "files", remarks=remarks)
    assert "is of another experiment and is not overwritten" in remarks[0]
    assert (tmp_path / "files" / "old.yaml").read_text() == "experiment: another\n"
    import_log(log, tmp_path / "E", key="new", fitting_files=tmp_path / "files")
    assert spec.load(tmp_path / "files" / "new.yaml").key == "new"


def test_rewards_beyond_the_objective_s_ends_are_counted(tmp_path: Path) -> None:
    lines = [cb_line(i) for i in range(60)]
    for i, line in enumerate(lines):
        line["_label_cost"] = -1.5 if i < 5 else -1.0
    log = write_lines(tmp_path / "cb.dsjson", lines)
    import_log(log, tmp_path / "D", key="old")
    file = tmp_path / "D" / "experiments" / "old.yaml"
    assert spec.load(file).metrics[0].cap == 1.5
    narrow = tmp_path / "old.yaml"
    narrow.write_text(file.read_text().replace('"cap": 1.5', '"cap": 1'))
    remarks: list[str] = []
    import_log(log, tmp_path / "E", key="old", experiments=[spec.load(narrow)], remarks=remarks)
    assert remarks == [
        "old: 5 of 60 rewarded decisions have reward above its cap of 1 and are clipped to that "
        "end: declare a floor or a higher cap in its file"
    ]


def test_variants_events_and_delays_are_those_of_the_log() -> None:
    shape = LogShape()
    for number in range(8):
        decision = Decision(
            decision_id=f"d{number}", experiment="home", revision="r",
            variant="b" if number < 2 else "a-1", unit=f"u{number % 3}",
            context=msgspec.json.encode({"n": number, "mixed": number if number % 2 else "x"}),
            eligible=("x", "y"), slate=(Placement(0, "x", 0.5),), policy="p", reason="policy",
            decided_at=1_000_000,
        )  # fmt: skip
        event = RewardEvent(
            decision_id=f"d{number}", event_id="e", event="play.full", value=1.0,
            occurred_at=91_500_000, received_at=5,
        )  # fmt: skip
        shape.add(decision, [event])
    experiment = spec.from_raw(shape.content("home", "x"), "home.yaml")
    assert {v.name: v.share for v in experiment.variants} == {"a-1": 0.75, "b": 0.25}
    (metric,) = experiment.metrics
    assert (metric.name, metric.event, metric.kind, metric.window) == (
        "play-full", "play.full", "binary", 91.0,
    )  # fmt: skip
    assert experiment.context == (
        Feature("n", "number", low=0.0, high=7.0), Feature("*", "hashed", size=24),
    )  # fmt: skip
    assert [action.id for action in experiment.actions] == ["x", "y"]


def test_what_is_not_declared_is_an_error_unless_a_feature_takes_the_rest() -> None:
    flag = Feature("kids", "flag")
    with pytest.raises(BadRequest, match="an undeclared feature"):
        Encoder((flag,)).encode({"kids": True, "ü 1": "x"})
    both = Encoder((flag, Feature("*", "hashed", size=8)))
    row = both.encode({"kids": True, "ü 1": "x", "_own": 3, "none": None})
    assert row[0] == 1.0
    assert np.abs(row[1:]).sum() == 1.0
    with pytest.raises(BadRequest, match="a finite number"):
        both.encode({"other": float("inf")})


@settings(max_examples=60)
@given(st.lists(logged(2), min_size=1, max_size=6))
def test_the_file_of_any_log_can_be_read_and_takes_its_rows(rows: list[Any]) -> None:
    shape = LogShape()
    for decision, events in rows:
        shape.add(decision, events)
    content = shape.content("home", "log \u0085\ufeff é.csv")
    experiment = spec.from_raw(content, "home.yaml")
    raw, problems, _ = parse(yaml_of(content, "a\nb").encode(), "home.yaml")
    assert not problems
    assert spec.from_raw(raw, "home.yaml").fingerprint == experiment.fingerprint
    compiled = CompiledExperiment(experiment)
    for decision, _ in rows:
        compiled.encoder.encode(msgspec.json.decode(decision.context))
        assert set(decision.eligible) <= set(logged_actions(compiled, decision).ids)


def test_the_page_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "bring-a-log.md").read_text()
    ((code, shown),) = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "bring-a-log.md", "exec"), {})  # noqa: S102  (our own page)
    assert capsys.readouterr().out == shown


def test_slates_that_showed_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    lines = [ccb_line(i) for i in range(ROWS)]
    for line in lines[::4]:
        line["_outcomes"] = []
    import_log(write_lines(tmp_path / "ccb.dsjson", lines), tmp_path / "D", key="old")
    result = evaluate("old", "always lima", tmp_path / "D", estimators=("snsips",))
    assert result.left_out == {"showed nothing": ROWS // 4}
    assert result.targets["always lima"]["snsips"].value == pytest.approx(0.8, abs=0.1)


def test_an_action_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    line = cb_line(0)
    line["c"]["_multi"][1]["_tag"] = "rome"
    with pytest.raises(BadData, match="line 1: got action 'rome' twice"):
        import_log(write_lines(tmp_path / "x.dsjson", [line]), tmp_path / "D")


COMPRESSIONS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda content: pa.Codec("zstd").compress(content, asbytes=True),
    "utf-16": lambda content: content.decode().encode("utf-16"),
}


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_text_may_be_compressed_in_members_or_of_another_encoding(
    tmp_path: Path, name: str
) -> None:
    compress = COMPRESSIONS[name]
    text = "".join(json.dumps(cb_line(i)) + "\n" for i in range(60)).encode()
    # Joined files are members one after the other; a second mark of order would be a character.
    parts = [text] if name == "utf-16" else [text[:5000], text[5000:]]
    (tmp_path / f"log.dsjson.{name}").write_bytes(b"".join(map(compress, parts)))
    source = tmp_path / f"log.dsjson.{name}"
    assert import_log(source, tmp_path / "D", format="dsjson") == 60
    table = "timestamp,item_id,position,click,propensity_score\n" + (
        "2019-11-24 00:00:00+00:00,1,1,0,0.5\n2019-11-24 00:00:01+00:00,2,1,1,0.5\n"
    )
    (tmp_path / "log.csv").write_bytes(compress(table.encode()))
    assert import_log(tmp_path / "log.csv", tmp_path / "C", key="obd") == 2


def test_some_unreadable_lines_may_be_left_out(tmp_path: Path) -> None:
    lines = [json.dumps(cb_line(i)) for i in range(60)]
    lines[7], lines[9], lines[30] = lines[7][:-5], "nonsense", json.dumps(cb_line(30, p=[2, 0, 0]))
    (tmp_path / "log.dsjson").write_text("\n".join(lines))
    with pytest.raises(BadData, match="line 31: got"):
        import_log(tmp_path / "log.dsjson", tmp_path / "A", skip_bad=2)
    left_out: Counter[str] = Counter()
    import_log(tmp_path / "log.dsjson", tmp_path / "B", skip_bad=3, left_out=left_out)
    assert left_out == {"unreadable lines": 3}


@pytest.mark.parametrize("slots", [1, 2])
def test_rewards_below_zero_rank_as_they_are_and_are_told_in_their_own_units(
    tmp_path: Path, slots: int
) -> None:
    """Rome earns .5 always, oslo 1 or −1, .2 on average, lima 1.5 in half of its rows."""
    values = ([0.5] * 10, [1, 1, 1, -1, -1] * 2, [1.5] * 5 + [0.0] * 5)
    lines = []
    for number in range(600):
        action, _ = chosen(number)
        cost = -values[action][number % 10]
        line = cb_line(number, _label_cost=cost)
        if slots == 2:
            line = ccb_line(number)
            line["_outcomes"][0]["_label_cost"] = cost
        lines.append(line)
    import_log(write_lines(tmp_path / "x.dsjson", lines), tmp_path / "D", key="old")
    experiment = spec.load(tmp_path / "D" / "experiments" / "old.yaml")
    (metric,) = experiment.metrics
    assert (metric.floor, metric.cap) == (-1.0, 1.5)
    name = "snips" if slots == 1 else "snsips"
    for city, right in (("rome", 0.5), ("oslo", 0.2), ("lima", 0.75)):
        result = evaluate("old", f"always {city}", tmp_path / "D", estimators=(name,))
        estimate = result.targets[f"always {city}"][name]
        assert result.measured_in == "reward"
        assert estimate.value == pytest.approx(right, abs=1e-6 if slots == 1 else 0.05)
        assert estimate.low < estimate.value < estimate.high or city == "rome"
    assert result.logged.value == pytest.approx((0.5 + 0.2 + 0.75) / 3)


@pytest.mark.parametrize("values", [[1e9], [5e6, 1e9], [-1e9, 3], [7], [1, 2.5]])
def test_numbers_of_any_size_are_taken(values: list[float]) -> None:
    shape = LogShape()
    decisions = []
    for number, value in enumerate(values):
        decision = Decision(
            decision_id=f"d{number}", experiment="home", revision="", variant="v", unit="u",
            context=msgspec.json.encode({"n": value}), eligible=("x",),
            slate=(Placement(0, "x", 1.0),), policy="p", reason="policy",
        )  # fmt: skip
        decisions.append(decision)
        shape.add(decision, [])
    experiment = spec.from_raw(shape.content("home", "x"), "home.yaml")
    assert [feature.name for feature in experiment.context] == ["n"]
    for decision in decisions:
        experiment.context_encoder.encode(msgspec.json.decode(decision.context))


def test_slots_that_show_nothing_change_no_mean(tmp_path: Path) -> None:
    """Fewer actions than slots: VW leaves the lists of a slot empty."""
    lines = [ccb_line(number) for number in range(400)]
    nothing = {"_label_cost": 0, "_a": [], "_p": [], "_o": []}
    for number, line in enumerate(lines):
        shown = line["_outcomes"]
        filled = [[*shown, nothing], [nothing, shown[0]], [shown[0], nothing]][number % 3]
        lines[number] = line | {"_outcomes": filled}
    lines.append(ccb_line(400) | {"_outcomes": [nothing]})
    names = ("sips", "snsips", "rips", "snrips", "cascade-dr")
    import_log(write_lines(tmp_path / "x.dsjson", lines), tmp_path / "D", key="old")
    result = evaluate("old", "uniform", tmp_path / "D", estimators=names)
    costs = [slot["_label_cost"] for line in lines for slot in line["_outcomes"]]
    assert result.left_out == {"showed nothing": 1}
    assert result.logged.value == pytest.approx(-sum(costs) / 400)
    wrong = ccb_line(0) | {"_outcomes": [nothing | {"_label_cost": -1}]}
    with pytest.raises(BadData, match="a slot that shows nothing has a cost"):
        import_log(write_lines(tmp_path / "y.dsjson", [wrong]), tmp_path / "E")


def test_an_empty_text_is_an_actions_id(tmp_path: Path) -> None:
    lines = []
    for number in range(300):
        line = cb_line(number)
        line["c"]["_multi"][chosen(0)[0]]["_tag"] = ""
        lines.append(line)
    long = "x" * 300
    lines[0]["c"]["_multi"].append({"_tag": long})
    lines[0] |= {"a": [*lines[0]["a"], 4], "p": [*lines[0]["p"], 0.0]}
    import_log(write_lines(tmp_path / "x.dsjson", lines), tmp_path / "D", key="old")
    result = evaluate("old", "always ", tmp_path / "D", estimators=("snips",))
    (estimates,) = result.targets.values()
    shown = [line["_label_cost"] for n, line in enumerate(lines) if chosen(n)[0] == chosen(0)[0]]
    assert estimates["snips"].value == pytest.approx(-sum(shown) / len(shown))
    assert not result.left_out


def test_files_that_were_put_together_have_several_marks_of_order(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    lines = [json.dumps(cb_line(i)).encode() + b"\n" for i in range(9)]
    source = tmp_path / "x.dsjson"
    source.write_bytes(mark + b"".join(lines[:5]) + mark + b"".join(lines[5:]))
    assert import_log(source, tmp_path / "D") == 9


def csv_of(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(["timestamp,item_id,position,click,propensity_score", *rows]))
    return path


def test_a_column_of_floats_holds_the_items_and_positions_that_it_held(tmp_path: Path) -> None:
    rows = []
    for n in range(60):
        rows.append(f"2019-11-24 00:00:{n:02d}+00:00,{n % 12}.0,{n % 3}.0,{n % 2}.0,0.5")
    source = csv_of(tmp_path / "x.csv", rows)
    import_log(source, tmp_path / "D", key="old")
    decisions = [decision for decision, _ in read_rows(source, "old", 0, quiet, ReadNotes())]
    assert {decision.eligible for decision in decisions} == {tuple(map(str, range(12)))}
    positions = [msgspec.json.decode(decision.context)["position"] for decision in decisions]
    assert positions[:4] == ["0", "1", "2", "0"]


def test_rows_of_a_csv_that_cannot_be_read_may_be_left_out(tmp_path: Path) -> None:
    good = "2019-11-24 00:00:00+00:00,1,1,0,0.5"
    bad = ["2019-11-24 00:00:00+00:00,,1,0,0.5", "2019-11-24 00:00:00+00:00,1,1,0,1.5"]
    source = csv_of(tmp_path / "x.csv", [good, *bad, good])
    with pytest.raises(BadData, match="row 2: got no item_id"):
        import_log(source, tmp_path / "D", key="old")
    left_out: Counter[str] = Counter()
    assert import_log(source, tmp_path / "E", key="old", skip_bad=2, left_out=left_out) == 2
    assert left_out == {"unreadable rows": 2}


@pytest.mark.parametrize("slots", [1, 2])
def test_a_policy_that_always_earns_the_least_is_worth_that(tmp_path: Path, slots: int) -> None:
    """−1 is a reward that came, although it is 0 on the scale that policies learn by."""
    lines = []
    for number in range(600):
        action, _ = chosen(number)
        cost = (1.0, 0.0, -1.0)[action]
        line = cb_line(number, _label_cost=cost)
        if slots == 2:
            line = ccb_line(number)
            line["_outcomes"][0]["_label_cost"], line["_outcomes"][1]["_label_cost"] = cost, cost
        lines.append(line)
    import_log(write_lines(tmp_path / "x.dsjson", lines), tmp_path / "D", key="old")
    name = "snips" if slots == 1 else "snsips"
    worst = evaluate("old", "always rome", tmp_path / "D", estimators=(name,))
    assert worst.targets["always rome"][name].value == pytest.approx(-1.0 * slots)
    # Where no event came there is nothing to speak of.
    none = evaluate("old", "always oslo", tmp_path / "D", estimators=(name,))
    assert none.targets["always oslo"][name].reason == "no_rewards"
