"""What the pages ask of the report: shares add up, the funnel ends at the verdict's own numbers,
worths are right.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from topbill import reporting, spec
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.lake import Lake
from topbill.ope import Evaluation
from topbill.reporting.experiment.regret import regret
from topbill.reporting.experiment.wording import alarms, standing
from topbill.reporting.queries import (
    action_values,
    database,
    decisions,
    drift,
    exposure,
    history,
    preview,
    series,
    what_if,
)

KEY, ROWS = "home-artwork", "home-rows"


def test_a_unit_has_its_decisions_and_as_many_events_as_they_count(demo: Path) -> None:
    unit = decisions.latest(demo, KEY, 200).query("events > 0")["unit"].iloc[0]
    of_unit = decisions.of_unit(demo, unit)
    events = decisions.events_of_unit(demo, unit)
    counted = events.groupby("decision_id").size().to_dict()
    wanted = of_unit[of_unit["events"] > 0].set_index("decision_id")["events"].to_dict()
    assert counted == wanted
    assert events["occurred_at"].is_monotonic_decreasing
    assert decisions.events_of_unit(demo, "nobody").empty


def test_the_funnel_ends_where_the_verdict_stands(demo: Path) -> None:
    for key in (KEY, ROWS):
        ab = reporting.load_experiment_report(key, demo).ab
        assert ab is not None
        curve = series.progress(demo, key)
        # The objective of a few decisions too: no value, and no end of an interval, lies beyond 1.
        assert curve[["low", "high"]].stack().between(0.0, 1.0).all()
        last = curve.groupby("variant").tail(1).set_index("variant")
        for c in ab.comparisons:
            if c.metric == ab.primary:
                for ours, theirs in (("relative", c.relative), ("relative_low", c.relative_low)):
                    value = last.loc[str(c.variant), ours]
                    assert (
                        np.isnan(value)
                        if theirs is None
                        else value == pytest.approx(theirs, rel=1e-9)
                    )


def test_decisions_of_all_buckets_are_all_decisions(demo: Path) -> None:
    found = {v.variant: v for v in reporting.load_experiment_report(KEY, demo).variants}
    progress = series.progress(demo, KEY).groupby("variant")
    traffic = series.traffic(demo, KEY).groupby("variant")["decisions"].sum()
    units = series.units_over_time(demo, KEY).groupby("variant")["units"].max()
    for name, line in found.items():
        assert progress["decisions"].sum()[name] == line.reward.decisions
        assert traffic[name] == line.decisions
        assert units[name] == line.units


def test_shares_add_up_to_one_within_what_they_are_shares_of(demo: Path) -> None:
    tables = {
        "till": exposure.shares_over_time(demo, ROWS, "thompson"),
        "position": exposure.positions(demo, ROWS, "thompson"),
        "segment": exposure.by_segment(demo, ROWS, "thompson", "taste"),
    }
    for within, table in tables.items():
        assert table.groupby(within)["share"].sum().to_numpy() == pytest.approx(1.0)


def test_the_rarest_actions_are_taken_together(demo: Path) -> None:
    found = exposure.shares_over_time(demo, ROWS, "thompson", most=4)
    assert set(found["action"]) >= {exposure.OTHERS}
    assert found["action"].nunique() == 4


def test_the_rest_of_the_actions_comes_last() -> None:
    assert exposure.others_last(["b", exposure.OTHERS, "a"]) == ["b", "a", exposure.OTHERS]
    assert exposure.others_last(["b", "a"]) == ["b", "a"]


def test_a_fixed_order_explores_nothing_and_uniform_everything(demo: Path) -> None:
    now = exposure.explored_lately(exposure.exploration(demo, KEY, "uniform"))
    assert now == pytest.approx((8.0, 7 / 8))
    explored = exposure.explored_by_position(demo, KEY).set_index("variant")["explored"]
    assert explored["editorial"] == 0.0
    assert explored["uniform"] == pytest.approx(7 / 8)
    assert exposure.exploration(demo, KEY, "uniform")["effective"].to_numpy() == pytest.approx(8.0)


def test_groups_of_viewers_follow_from_the_schema(demo: Path) -> None:
    groups = action_values.groups(demo, ROWS)
    assert set(groups["device"]) == {"tv", "mobile", "web"}
    assert set(groups["hour"]) == {"0–6", "6–12", "12–18", "18–24"}
    assert set(groups["weekend"]) == {"yes", "no"}
    assert set(groups["taste"]) <= {
        "action",
        "comedy",
        "crime",
        "drama",
        "family",
        "scifi",
        "(none)",
    }
    assert set(groups["days_away"]) <= {"0–10", "10–20", "20–30"}


def test_worths_of_groups_speak_of_their_viewers_alone(demo: Path) -> None:
    whole = action_values.action_values(demo, KEY, "uniform")["shown"].sum()
    parts = [
        action_values.action_values(demo, KEY, "uniform", "device", g)["shown"].sum()
        for g in ("tv", "mobile", "web")
    ]
    assert sum(parts) == whole


def test_a_share_of_decisions_has_one_denominator_on_every_page(demo: Path) -> None:
    """All decisions of the variant, young ones and fallbacks too."""
    positions = exposure.positions(demo, KEY, "thompson")
    first = positions[positions["position"] == 1].set_index("action")["share"]
    values = action_values.action_values(demo, KEY, "thompson").set_index("action")["share"]
    assert values.to_dict() == pytest.approx(first.to_dict())


TWO = """
experiment: art-{}
surface: artwork
layer: l{}
context: {{kids: {{type: flag}}}}
actions: [{{id: a}}, {{id: b}}]
metrics: {{play: {{event: play, kind: binary, window: 1s}}}}
objective: {{play: 1}}
variants: {{only: {{policy: thompson, share: 100%, control: true}}}}
"""


def test_intervals_of_worths_hold_although_a_learner_chose(tmp_path: Path) -> None:
    """40 intervals of 95% on logs of a greedy learner: fewer than 33 right ones would be a chance
    of 1 in 300.
    """
    truth = {"a": 0.3, "b": 0.2}
    for i in range(20):
        (tmp_path / f"{i}.yaml").write_text(TWO.format(i, i))
    experiments = spec.load_all([tmp_path])
    rng, decisions, events = np.random.default_rng(3), [], []
    for experiment in experiments:
        paid, drawn = {"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 2.0}
        for _ in range(1_500):
            best = max(paid, key=lambda action: paid[action] / drawn[action])
            p = {action: 0.9 if action == best else 0.1 for action in truth}
            action = str(rng.choice(list(truth), p=list(p.values())))
            number = len(decisions) + 1
            decision = Decision(
                decision_id=f"d{number}",
                experiment=experiment.key,
                revision=experiment.fingerprint,
                variant="only",
                unit=f"u{number}",
                eligible=("a", "b"),
                slate=(Placement(0, action, p[action]),),
                propensity=p[action],
                probabilities=(tuple(p.values()),),
                policy="thompson",
                policy_version=number,
                reason="policy",
                decided_at=1_790_000_000_000_000 + number,
            )
            won = rng.random() < truth[action]
            paid[action], drawn[action] = paid[action] + won, drawn[action] + 1
            decisions.append((number, decision))
            if won:
                event = RewardEvent(
                    decision_id=decision.decision_id,
                    event_id="p",
                    event="play",
                    received_at=decision.decided_at,
                )
                events.append((len(events) + 1, event, Origin.of(decision)))
    lake = Lake(tmp_path / "data")
    lake.append("decisions", decision_rows(decisions), len(decisions))
    lake.append("rewards", reward_rows(events), len(events))
    lake.write_database(experiments, 1_790_000_100_000_000)
    right = 0
    for experiment in experiments:
        for row in action_values.action_values(
            tmp_path / "data", experiment.key, "only"
        ).itertuples():
            right += row.low <= truth[row.action] <= row.high
    assert 33 <= right <= 40


def test_an_action_without_enough_draws_has_no_interval_but_a_reason(hushed: Path) -> None:
    found = action_values.action_values(hushed, KEY, "thompson")
    assert len(found)
    assert found[found["reason"] != ""]["value"].isna().all()
    assert set(found["reason"]) <= set(action_values.REASONS)


def test_a_decision_is_found_with_its_rewards_and_chances(demo: Path) -> None:
    found = decisions.find(demo, f"{KEY}-3")
    assert found is not None
    assert found.probabilities["probability"].sum() == pytest.approx(1.0)
    assert found.probabilities["shown"].sum() == 1
    assert set(found.context) == {"device", "hour", "taste"}
    assert decisions.find(demo, "nothing") is None
    mine = decisions.of_unit(demo, found.decision["unit"])
    assert {f"{KEY}-3", f"{ROWS}-3"} <= set(mine["decision_id"])
    assert decisions.latest(demo, KEY, 5)["decision_id"].iloc[0] == f"{KEY}-1199"


def test_viewers_who_stay_the_same_do_not_drift(demo: Path) -> None:
    found = drift.drift(demo, KEY)
    assert set(found["feature"]) == {"device", "hour", "taste"}
    assert (found["psi"] < drift.MOVED).all()


def test_another_half_of_viewers_is_drift(tmp_path: Path, examples) -> None:
    experiment = examples[KEY]
    decisions = []
    for number in range(1, 401):
        device = "tv" if number <= 250 or number % 2 else "web"
        decisions.append(
            (
                number,
                Decision(
                    decision_id=f"d{number}",
                    experiment=KEY,
                    revision="r",
                    variant="uniform",
                    unit=f"u{number}",
                    context=f'{{"device":"{device}","hour":1,"taste":{{"crime":1}}}}'.encode(),
                    policy="uniform",
                    reason="policy",
                    decided_at=1_790_000_000_000_000 + number,
                ),
            )
        )
    lake = Lake(tmp_path)
    lake.append("decisions", decision_rows(decisions), 400)
    lake.write_database([experiment], 1_790_000_100_000_000)
    found = drift.drift(tmp_path, KEY).set_index("feature")
    assert found.loc["device", "verdict"] == "changed"
    assert found.loc["taste", "verdict"] == "stable"


def test_preview_asks_the_newest_policies_and_logs_nothing(demo: Path) -> None:
    live = preview.load_policies(demo, KEY)
    assert live.version == 6
    context = {"device": "tv", "hour": 20.0, "taste": {"crime": 1.0}}
    first, again = preview.preview(live, context), preview.preview(live, context)
    assert first == again
    assert [s.variant for s in first.variants] == ["editorial", "thompson", "linucb", "uniform"]
    for answer in first.variants:
        assert sum(answer.probabilities.values()) == pytest.approx(1.0)
        assert answer.slate[0] in answer.probabilities
    assert first.variants[0].slate == ["close-up"]
    assert first.variants[1].why
    with pytest.raises(BadRequest, match="device"):
        preview.preview(live, {"device": 3})


def test_parameters_of_a_candidate_are_read_as_in_the_file() -> None:
    assert what_if.parameters("linucb", "alpha: 0.7, model: shared").alpha == 0.7  # type: ignore[attr-defined]
    with pytest.raises(BadRequest, match=r"expected some of: .*alpha"):
        what_if.parameters("linucb", "alfa: 1")
    with pytest.raises(BadRequest, match="write fourier_features instead of curves"):
        what_if.parameters("linucb", "curves: 4")


def test_a_sample_of_units_is_evaluated_whole_and_told(drawn: Path) -> None:
    def evaluated(most: int) -> Evaluation:
        candidate = what_if.CandidatePolicy(what_if.UNIFORM, most=most)
        return what_if.evaluate_candidate(drawn, KEY, candidate)

    whole, part = evaluated(1_000), evaluated(500)
    assert (whole.sampled, part.sampled) == (1.0, 0.5)
    assert part == evaluated(500)
    seen = part.decisions + sum(part.left_out.values())
    assert 380 < seen < 620  # 500 are expected of 1,000 in some 800 units: six standard deviations
    assert part.units < whole.units
    assert whole.logged.value is not None
    assert part.logged.low is not None
    assert part.logged.high is not None
    assert part.logged.low < whole.logged.value < part.logged.high
    with database.open_database(drawn) as opened:
        lines = opened.row(
            """SELECT count(*) AS n FROM decisions
            WHERE variant = 'uniform' AND md5(unit) < '8'"""
        )
    assert lines["n"] == part.decisions


def test_the_lost_reward_of_the_best_is_nothing(demo: Path) -> None:
    found = regret(reporting.load_experiment_report(ROWS, demo)).set_index("variant")
    best = found["per_decision"].idxmin()
    assert found.loc[best, "regret"] == 0.0
    assert (found["low"] <= found["regret"]).all()
    assert (found["regret"] <= found["high"]).all()


def test_a_mismatch_is_an_alarm_and_withholds_the_word(uneven: Path, demo: Path) -> None:
    found = reporting.load_experiment_report(KEY, uneven)
    assert standing(found).word == "Not trustworthy (SRM)"
    assert "sample_ratio_mismatch" in {a.code for a in alarms(found)}
    assert alarms(reporting.load_experiment_report(KEY, demo)) == []


def test_the_version_changes_with_the_record_and_not_without(
    demo: Path, empty: Path, tmp_path: Path
) -> None:
    assert database.version(demo) == database.version(demo)
    assert database.version(demo) != database.version(empty)
    with pytest.raises(NotFound):
        database.version(tmp_path)


def test_an_unknown_experiment_is_named(demo: Path) -> None:
    with pytest.raises(NotFound, match="'nothing'"):
        database.load_experiment(demo, "nothing")


def test_an_empty_lake_gives_empty_tables(empty: Path) -> None:
    assert database.experiments(empty) == []
    assert decisions.latest(empty, KEY).empty
    assert history.revision_lines(empty, KEY) == []
