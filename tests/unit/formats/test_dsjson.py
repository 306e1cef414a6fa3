"""dsjson: round trips of any decision, lines of other makers, the real parser of VW, and errors
that name the line.
"""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats import ccb
from topbill.formats.dsjson import dump, dump_line, load, parse_line, reason_to_skip

IDS = ("close-up", "chase", "road")
FEATURES: dict[str, dict[str, Any]] = {
    "close-up": {"faces": 2, "tone": "warm"},
    "chase": {"faces": 0, "tone": "dark", "mood": {"action": 1.0}},
    "road": {"faces": 0},
}
text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
value = st.one_of(st.booleans(), st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), text)


@st.composite
def decisions(draw: st.DrawFn) -> tuple[Decision, list[RewardEvent]]:
    weights = draw(st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3))
    p = tuple(w / sum(weights) for w in weights)
    chosen = draw(st.integers(0, 2))
    whole = draw(st.booleans())
    context = draw(
        st.dictionaries(
            text, st.one_of(value, st.dictionaries(text, value, max_size=3)), max_size=4
        )
    )
    at = draw(st.integers(0, 2**52))
    decision = Decision(
        decision_id=draw(text),
        experiment="home",
        revision="0f",
        variant=draw(st.one_of(st.none(), text)),
        unit=draw(text),
        context=msgspec.Raw(msgspec.json.encode(context)),
        eligible=IDS,
        slate=(Placement(0, IDS[chosen], p[chosen]),),
        propensity=p[chosen],
        probabilities=(p,) if whole else None,
        policy="thompson",
        policy_version=draw(st.integers(0, 9)),
        reason="policy",
        decided_at=at,
        row_weight=draw(st.one_of(st.none(), st.floats(0.01, 1e6))),
    )
    names = draw(st.lists(text, max_size=3, unique=True))
    events = [
        RewardEvent(
            decision_id=decision.decision_id,
            event_id=e,
            event="play",
            value=draw(st.floats(-5, 5)),
            received_at=at,
        )
        for e in names
    ]
    return decision, events


@given(decisions())
def test_what_is_exported_comes_back(row: tuple[Decision, list[RewardEvent]]) -> None:
    assert parse_line(dump_line(*row, FEATURES)) == row


def test_actions_that_the_caller_sent_come_back_too() -> None:
    sent = msgspec.json.encode([{"id": "x", "features": {"faces": 1}}, {"id": "y", "features": {}}])
    decision = Decision(
        decision_id="d",
        experiment="home",
        revision="",
        variant="v",
        unit="u",
        actions=msgspec.Raw(sent),
        eligible=("x", "y"),
        slate=(Placement(0, "y", 0.5),),
        propensity=0.5,
        policy="vw",
        reason="policy",
    )
    back, _ = parse_line(dump_line(decision, [], {}))
    assert back == decision
    with pytest.raises(BadData, match="d: got action 'z' without features"):
        dump_line(msgspec.structs.replace(decision, eligible=("y", "z")), [], {})


def foreign(**changes: Any) -> bytes:
    line: dict[str, Any] = {
        "_label_cost": -1.0,
        "_label_probability": 0.7,
        "_label_Action": 2,
        "_labelIndex": 1,
        "o": [{"v": 1.0, "EventId": "13118d9b4c114f8485d9dec417e3aefe", "ActionTaken": False}],
        "Timestamp": "2021-02-04T16:31:29.2460000Z",
        "Version": "1",
        "EventId": "13118d9b4c114f8485d9dec417e3aefe",
        "a": [2, 1],
        "c": {
            "FromUrl": [{"timeofday": "Afternoon", "weather": "Sunny"}],
            "_multi": [{"i": {"id": "a"}}, {"_tag": "b"}],
        },
        "p": [0.7, 0.3],
        "VWState": {"m": "ff0744c1aa494e1ab39ba0c78d048146/550c12cbd3aa47f09fbed3387fb9c6ec"},
    }
    return msgspec.json.encode(line | changes)


def test_a_line_of_another_maker_is_read() -> None:
    decision, events = parse_line(foreign(), experiment="news")
    assert (decision.experiment, decision.eligible) == ("news", ("a1", "b"))
    assert decision.slate == (Placement(0, "b", 0.7),)
    assert decision.probabilities == ((0.3, 0.7),)
    assert decision.decided_at == 1612456289246000
    assert msgspec.json.decode(decision.context) == {
        "FromUrl": [{"timeofday": "Afternoon", "weather": "Sunny"}]
    }
    assert [(e.event, e.value) for e in events] == [("reward", 1.0)]
    assert parse_line(foreign(_label_cost=0))[1] == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "line 3: got no dsjson"),
        (b'{"c": {}, "a": [1], "p": [1]}', "line 3: got no dsjson of a contextual bandit"),
        (foreign(a=[3, 1]), r"got a=\[3, 1\] and p=\[0.7, 0.3\] for 2 actions"),
        (foreign(p=[0.7]), "expected as many of each"),
        (foreign(p=[0.0, 1.0]), r"got probability 0.0; expected one in \(0, 1\]"),
        (foreign(Timestamp="yesterday"), "got Timestamp 'yesterday'; expected ISO 8601"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(line: bytes, says: str) -> None:
    with pytest.raises(BadData, match=says):
        list(load([foreign(), b"\n", line]))


def test_rankings_do_not_fit() -> None:
    decision, _ = parse_line(foreign())
    two = msgspec.structs.replace(decision, slate=(Placement(0, "b", 0.7), Placement(1, "a1", 1.0)))
    with pytest.raises(BadData, match="got a slate of 2"):
        dump_line(two, [], {})


def test_vws_own_parser_reads_the_export() -> None:
    rows = []
    for i, (action, p) in enumerate([("chase", 0.25), ("road", 0.5)]):
        decision = Decision(
            decision_id=f"d{i}",
            experiment="home",
            revision="",
            variant="v",
            unit="u",
            context=msgspec.Raw(
                b'{"device": "tv", "hour": 20, "kids": false, "taste": {"crime": 0.5}}'
            ),
            eligible=IDS,
            slate=(Placement(0, action, p),),
            propensity=p,
            probabilities=((0.25, 0.25, 0.5),),
            policy="thompson",
            reason="policy",
        )
        rows.append(
            (
                decision,
                [RewardEvent(decision_id=f"d{i}", event_id="e", event="play", value=1.0)] * i,
            )
        )
    text_ = b"".join(dump(rows, FEATURES)).decode()
    vw = pytest.importorskip("vowpal_wabbit_next", reason="it has no wheel for this Python")
    workspace = vw.Workspace(["--cb_explore_adf", "--quiet"])
    with vw.DSJsonFormatReader(workspace, io.StringIO(text_)) as reader:
        read = list(reader)
    assert [len(examples) for examples in read] == [4, 4]  # one shared, three actions
    held = [
        getattr(example.get_label(), "label", None) for examples in read for example in examples
    ]
    assert [label[1:] for label in held if label] == [
        (0.0, 0.25),
        (-1.0, 0.5),
    ]  # cost and probability of the chosen
    for examples in read:
        workspace.learn_one(examples)
        assert sum(p for _, p in workspace.predict_one(examples)) == pytest.approx(1.0)


def test_probabilities_that_rounding_took_past_one_are_one() -> None:
    decision, _ = parse_line(foreign(p=[1.0000001192092896, 0.0]))
    assert decision.propensity == 1.0
    assert decision.probabilities == ((0.0, 1.0),)
    with pytest.raises(BadData, match=r"got probability 1\.00001"):
        parse_line(foreign(p=[1.00001, 0.0]))


# Logs as joiners and other makers write them
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (foreign(_skipLearn=True), "deferred decisions"),
        (foreign(_skipLearn=False), None),
        (foreign(_deferred=True), "deferred decisions"),
        (foreign(DeferredAction=True), "deferred decisions"),
        (foreign(DeferredAction=True, o=[{"v": 1.0, "ActionTaken": True}]), None),
        (foreign(c={"_multi": [{"_skipLearn": True}, {}]}), None),
        (b"[CHECKPOINT INFO LINE]\n", "checkpoint lines"),
        (b'{"RewardValue":1.0,"EventId":"zz"}', "rewards without a decision"),
        (b'{"RewardValue', None),
    ],
)
def test_what_is_no_decision_to_count_has_a_reason(line: bytes, reason: str | None) -> None:
    assert reason_to_skip(line) == reason


def test_a_slate_that_was_deferred_is_no_decision_to_count() -> None:
    assert reason_to_skip(slate(_skipLearn=True)) == "deferred decisions"
    taken = [{"_a": [0], "_p": [1.0], "_o": [{"ActionTaken": True}], "_label_cost": 0.0}]
    assert reason_to_skip(slate(DeferredAction=True, _outcomes=taken)) is None


@pytest.mark.parametrize("absent", [{}, {"_tag": None}])
@pytest.mark.parametrize(
    ("name", "text_"),
    [(0, "0"), (False, "False"), ("", ""), (7.0, "7"), (7.5, "7.5"), ("7.0", "7.0")],
)
def test_an_id_that_is_false_to_python_is_an_id(name: Any, text_: str, absent: Any) -> None:
    """Its identity may not change with its place."""
    multi = [{"_tag": name}, {**absent, "id": name}, absent]
    for order in ([0, 2], [2, 0], [2, 1]):
        decision, _ = parse_line(foreign(c={"_multi": [multi[i] for i in order]}))
        assert decision.eligible[order.index(2)] == f"a{order.index(2) + 1}"
        assert decision.eligible[1 - order.index(2)] == text_
    ccb_row = ccb.parse_line(slate(c={"_multi": [{"_tag": name}, {"id": "x"}]}, EventId=name or 0))
    assert ccb_row[0].eligible == (text_, "x")
    assert ccb_row[0].decision_id == (text_ if name else "0")


def test_the_words_of_newer_and_older_makers_are_read() -> None:
    plain = parse_line(foreign())[0]
    line = msgspec.json.decode(foreign())
    line["_p"], line["_a"] = line.pop("p"), line.pop("a")
    assert parse_line(msgspec.json.encode(line))[0] == plain
    assert parse_line(foreign(a=[1, 0]))[0] == plain, "counted from 0"
    few = foreign(a=[1], p=[0.7], _labelIndex=1)
    assert parse_line(few)[0].slate == plain.slate, "the label's place tells where a starts"
    assert parse_line(foreign(a=[1], p=[0.7], _labelIndex=0))[0].slate[0].action == "a1"


def test_names_with_a_leading_underscore_are_the_maker_s_own() -> None:
    multi = [{"_tag": "a"}, {"_tag": "b"}]
    context = {"_synthetic": False, "device": "tv", "_multi": multi}
    assert bytes(parse_line(foreign(c=context))[0].context) == b'{"device":"tv"}'
    shared = {"_synthetic": False, "shared": {"device": "tv", "_note": 1}, "_multi": multi}
    assert bytes(parse_line(foreign(c=shared))[0].context) == b'{"device":"tv"}'


def slate(**changes: Any) -> bytes:
    line: dict[str, Any] = {
        "Timestamp": "2021-02-04T16:31:29Z",
        "EventId": "s1",
        "c": {"_multi": [{"_tag": "a"}, {"_tag": "b"}], "_slots": [{}, {}]},
        "_outcomes": [
            {"_label_cost": -1.0, "_a": [1, 0], "_p": [0.7, 0.3]},
            {"_label_cost": 0.0, "_a": [0], "_p": [1.0]},
        ],
    }
    return msgspec.json.encode(line | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"c": {"_multi": [{"_slot_id": 0}, {"_slot_id": 1}], "_slots": [{}, {}]}},
        {
            "_label_cost": -1.0,
            "_outcomes": [{"_a": [0], "_p": [1.0]}, {"_a": [1], "_p": [1.0]}],
        },
    ],
)
def test_vws_slates_are_refused_by_name(changes: dict[str, Any]) -> None:
    assert [event.value for event in ccb.parse_line(slate())[1]] == [1.0]
    with pytest.raises(BadData, match="VW's slates"):
        ccb.parse_line(slate(**changes), number=3)


@pytest.mark.parametrize(("pdrop", "weight"), [(0.9, 10.0), (0.5, 2.0), (0, None), (None, None)])
def test_a_line_stands_for_those_that_were_dropped(pdrop: Any, weight: float | None) -> None:
    decision, _ = parse_line(foreign(pdrop=pdrop))
    assert decision.row_weight == (None if weight is None else pytest.approx(weight))
    written = msgspec.json.decode(dump_line(decision, [], {}))
    assert written.get("pdrop") == (pytest.approx(pdrop) if pdrop else None)
    # Whoever samples our export again says another number, which counts.
    again, _ = parse_line(msgspec.json.encode(written | {"pdrop": 0.75}))
    assert again.row_weight == 4.0


@pytest.mark.parametrize("pdrop", [1.0, 1, -0.1, 2, "0.5", True, [0.5], {}])
def test_a_pdrop_that_is_no_probability_is_refused_with_its_line(pdrop: Any) -> None:
    with pytest.raises(BadData, match=r"line 1: got pdrop .*expected the probability in \[0, 1\)"):
        list(load([foreign(pdrop=pdrop)]))
    with pytest.raises(BadData, match="line 7: got pdrop"):
        ccb.parse_line(slate_line(pdrop=pdrop), number=7)


def test_a_slate_stands_for_those_that_were_dropped() -> None:
    row = ccb.parse_line(slate_line(pdrop=0.75))
    assert row[0].row_weight == 4.0
    assert msgspec.json.decode(ccb.dump_line(*row, {}))["pdrop"] == 0.75
    assert ccb.parse_line(ccb.dump_line(*row, {})) == row


def slate_line(**changes: Any) -> bytes:
    """A line of CCB by another maker."""
    line: dict[str, Any] = {
        "EventId": "e",
        "c": {"_multi": [{"_tag": "a"}, {"_tag": "b"}], "_slots": [{}, {}]},
        "_outcomes": [
            {"_label_cost": -1.0, "_a": [1, 0], "_p": [0.75, 0.25]},
            {"_label_cost": 0, "_a": [0], "_p": [1.0]},
        ],
    }
    return msgspec.json.encode(line | changes)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (foreign(_skipLearn=1), "deferred decisions"),
        (foreign(_skipLearn=0), None),
        (foreign(_skipLearn="true"), "deferred decisions"),
        (foreign(DeferredAction=1), "deferred decisions"),
        (b'{"EventId": "e", "ActionTaken": true}', "rewards without a decision"),
        (b'{"EventId": "e", "v": 1.0, "EnqueuedTimeUtc": "x"}', "rewards without a decision"),
        (b'{"EventId": "e", "Observations": [{"v": 1}]}', "rewards without a decision"),
        (b'{"EventId": "e"}', None),
        (b'{"name": "Ada", "v": 1}', None),
    ],
)
def test_flags_and_dangling_lines_come_in_several_forms(line: bytes, reason: str | None) -> None:
    assert reason_to_skip(line) == reason


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (foreign(_labelIndex=0), r"got _labelIndex 0 and a=\[2, 1\]; expected the labelled action"),
        (b'{"_label_ca": {"cost": 1}, "c": {"x": 1}}', "got a continuous action .* is not read"),
        (b'{"pdf": [{"left": 0, "right": 1, "pdf_value": 1}], "c": {"x": 1}}', "a continuous act"),
        (foreign(c={"_multi": [{"__aid": 5}, {"__aid": 6}]}), r"stand elsewhere \(__aid\)"),
        (foreign(_label_cost="-1"), "line 1: got no dsjson"),
        (foreign().replace(b"0.7", b"NaN"), "line 1: got no dsjson"),
    ],
)
def test_what_means_something_else_is_refused_by_name(line: bytes, says: str) -> None:
    with pytest.raises(BadData, match=says):
        list(load([line]))


def test_notes_of_the_maker_are_no_features_of_actions() -> None:
    multi = [{"_tag": "a", "_note": 1, "i": {"x": 1}}, {"_tag": "b"}]
    decision, _ = parse_line(foreign(c={"_multi": multi}))
    assert msgspec.json.decode(decision.actions) == [
        {"id": "a", "features": {"i": {"x": 1}}},
        {"id": "b", "features": {}},
    ]


@pytest.mark.parametrize("time", ["2021-02-04t16:31:29.246z", "2021-02-04 16:31:29.246+00:00"])
def test_times_come_in_several_forms(time: str) -> None:
    decision, _ = parse_line(foreign(Timestamp=time))
    assert decision.decided_at == 1612456289246000
