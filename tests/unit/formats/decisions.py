"""Hypothesis strategies for what a log may hold: any decision with its events."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from topbill.domain.records import NULL, Decision, Mask, Placement, RewardEvent

IDS = ("close-up", "chase", "road", "clock")
FEATURES: dict[str, dict[str, Any]] = {
    "close-up": {"faces": 2, "tone": "warm"},
    "chase": {"faces": 0, "tone": "dark", "mood": {"action": 1.0}},
    "road": {"faces": 0},
    "clock": {"lit": True},
}
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12
)
VALUE = st.one_of(st.booleans(), st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), TEXT)
TIMES = st.integers(0, 2**50)


@st.composite
def logged(
    draw: st.DrawFn, slots: int = 1, names: st.SearchStrategy[str] = TEXT
) -> tuple[Decision, list[RewardEvent]]:
    """A decision of at most `slots` placements, drawn position by position, and its reward
    events.
    """
    order = draw(st.permutations(range(len(IDS))))[: draw(st.integers(1, slots))]
    whole = draw(st.booleans())
    slate, matrix, joint = [], [], 1.0
    for k, row in enumerate(order):
        rest = [i for i in range(len(IDS)) if i not in order[:k]]
        weights = draw(st.lists(st.floats(0.01, 1.0), min_size=len(rest), max_size=len(rest)))
        p = {i: w / sum(weights) for i, w in zip(rest, weights, strict=True)}
        slate.append(Placement(k, IDS[row], p[row]))
        matrix.append(tuple(p.get(i, 0.0) for i in range(len(IDS))))
        joint *= p[row]
    key = draw(TEXT)
    context = draw(
        st.dictionaries(
            names, st.one_of(VALUE, st.dictionaries(names, VALUE, max_size=3)), max_size=4
        )
    )
    offered = [{"id": name, "features": FEATURES[name]} for name in IDS]
    decision = Decision(
        decision_id=key,
        experiment=draw(st.sampled_from(["home", "rows"])),
        revision="0f",
        variant=draw(st.one_of(st.none(), TEXT)),
        unit=draw(TEXT),
        context=msgspec.Raw(msgspec.json.encode(context)),
        actions=msgspec.Raw(msgspec.json.encode(offered)) if draw(st.booleans()) else NULL,
        eligible=IDS,
        slate=tuple(slate),
        propensity=joint,
        probabilities=tuple(matrix) if whole else None,
        policy=draw(st.sampled_from(["thompson", "vw"])),
        policy_version=draw(st.integers(0, 9)),
        reason=draw(st.sampled_from(["policy", "fallback", "holdout"])),
        decided_at=draw(TIMES),
        latency_us=draw(st.integers(0, 9)),
        page=draw(st.sampled_from(["", "page-1"])),
        masks=draw(st.sampled_from([(), (Mask("pins", 0, 1, (0, 2), only=True),)])),
        row_weight=draw(st.one_of(st.none(), st.floats(0.01, 1e6))),
    )
    count = draw(st.integers(0, 3))
    events = [
        RewardEvent(
            decision_id=key,
            event_id=f"e{i}",
            event=draw(st.sampled_from(["play", "watched"])),
            value=draw(st.floats(-100, 100)),
            position=draw(st.one_of(st.none(), st.integers(0, len(slate) - 1))),
            occurred_at=draw(st.one_of(st.none(), TIMES)),
            received_at=draw(TIMES),
        )
        for i in range(count)
    ]
    return decision, events
