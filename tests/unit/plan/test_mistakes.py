"""Edits of a running experiment: every mistake is found, and nothing harmless is called one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from topbill.plan import WhatRuns, plan_against

Edit = Callable[[Path], None]
ARTWORK, HERO = "home-artwork.yaml", "home-hero.yaml"


def write(old: str, new: str, file: str = ARTWORK) -> Edit:
    """An edit that writes `new` in the place of `old`, which stands there once."""

    def edit(folder: Path) -> None:
        text = (folder / file).read_text()
        assert text.count(old) == 1, f"{old!r} stands there {text.count(old)} times"
        (folder / file).write_text(text.replace(old, new))

    return edit


def several(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def remove(file: str) -> Edit:
    return lambda folder: (folder / file).unlink()


def rename(old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / old).rename(folder / new)

    return edit


def add(file: str, text: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / file).write_text(text)

    return edit


def another(key: str, **lines: str) -> str:
    """A small experiment's file; any line may be given."""
    fields = {
        "experiment": key,
        "surface": "artwork",
        "unit": "profile_id",
        "status": "running",
        "actions": "[{id: x}, {id: y}]",
        "metrics": "{play: {event: play, kind: binary, window: 30m}}",
        "objective": "{play: 1.0}",
        "variants": "{a: {policy: uniform, share: 50%, control: true}, "
        "b: {policy: thompson, share: 50%}}",
        **lines,
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


CLOSE_UP = (
    "  - {id: close-up,  features: {faces: 2, tone: warm, mood: {comedy: 0.6, drama: 0.4}}, "
    "payload: {image: midnight-run/close-up.svg}}\n"
)
CLOCK = (
    "  - {id: clock,     features: {faces: 0, tone: dark, mood: {action: 0.4, crime: 0.6}}, "
    "payload: {image: midnight-run/clock.svg}}\n"
)
LAUNCH = "launch: {shadow: 24h, ramp: [1%, 50%], hold: {at_least: 24h, units: 10}}\n"
CONTROL = "  editorial: {policy: fixed, order: [close-up], share: 20%, control: true}\n"
THOMPSON = "  thompson:  {policy: thompson, share: 40%}\n"
LINUCB = "  linucb:    {policy: linucb, share: 20%, alpha: 0.3, min_probability: 2%}\n"
UNIFORM = "  uniform:   {policy: uniform, share: 20%}"

MISTAKES: dict[str, tuple[Edit, str]] = {
    "shares moved": (
        several(
            write("thompson, share: 40%", "thompson, share: 50%"),
            write("linucb, share: 20%", "linucb, share: 10%"),
        ),
        "units_move",
    ),
    "variants in another order": (
        several(write(THOMPSON, ""), write(CONTROL, THOMPSON + CONTROL)),
        "units_move",
    ),
    "a variant taken out": (
        several(write(UNIFORM, "  #"), write("thompson, share: 40%", "thompson, share: 60%")),
        "units_move",
    ),
    "a variant renamed": (write("  thompson:  {", "  learned:  {"), "units_move"),
    "a variant added from the control's share": (
        write(
            CONTROL,
            CONTROL.replace("20%", "10%") + "  greedy: {policy: epsilon_greedy, share: 10%}\n",
        ),
        "units_move",
    ),
    "the winner for everybody, with nothing said": (
        several(
            write(CONTROL, CONTROL.replace("20%", "1%")),
            write(THOMPSON, THOMPSON.replace("40%", "99%")),
            write(LINUCB, ""),
            write(UNIFORM, "  #"),
        ),
        "units_move",
    ),
    "one variant left": (
        several(
            write(CONTROL, CONTROL.replace("20%", "100%")),
            write(THOMPSON, THOMPSON.replace("40%", "0%")),
            write(LINUCB, LINUCB.replace("share: 20%", "share: 0%")),
            write(UNIFORM, UNIFORM.replace("20%", "0%")),
        ),
        "comparison_ends",
    ),
    "only a fixed order gets units": (
        several(
            write(CONTROL, CONTROL.replace("20%", "100%")),
            write(THOMPSON, THOMPSON.replace("40%", "0%")),
            write(LINUCB, LINUCB.replace("share: 20%", "share: 0%")),
            write(UNIFORM, UNIFORM.replace("20%", "0%")),
        ),
        "action_never_drawn",
    ),
    "objective weighed otherwise": (write("{play: 0.2,", "{play: 0.5,"), "objective_changed"),
    "a metric out of the objective": (
        write("objective: {play: 0.2, watched: 1.0}", "objective: {watched: 1.0}"),
        "objective_changed",
    ),
    "an objective's metric with a longer window": (
        write("kind: max, window: 6s", "kind: max, window: 60s"),
        "metric_changed",
    ),
    "an objective's metric with another kind": (
        write("event: watch_fraction, kind: max", "event: watch_fraction, kind: sum, cap: 2.0"),
        "metric_changed",
    ),
    "a mistyped event": (
        write("event: watch_fraction", "event: watch_fractions"),
        "event_never_seen",
    ),
    "a guardrail taken out": (
        write("guardrails:\n  - {metric: abandon, margin: 50%}", ""),
        "guardrail_removed",
    ),
    "a guardrail widened": (
        write("abandon, margin: 50%", "abandon, margin: 90%"),
        "guardrail_changed",
    ),
    "a guardrail without a direction": (
        write("window: 4s, better: lower}", "window: 4s}"),
        "invalid",
    ),
    "a guardrail in the other direction": (
        write("better: lower", "better: higher"),
        "guardrail_changed",
    ),
    "a guardrail that can never be shown": (
        write("abandon, margin: 50%", "abandon, margin: 0.01%"),
        "guardrail_never_shown",
    ),
    "a guardrail of no margin in a draft": (
        write("abandon, margin: 10%", "abandon, margin: 0%", HERO),
        "guardrail_never_shown",
    ),
    "another control": (
        several(
            write(", control: true}", "}"),
            write("uniform, share: 20%}", "uniform, share: 20%, control: true}"),
        ),
        "control_changed",
    ),
    "another order for the control": (
        write("order: [close-up]", "order: [chase]"),
        "control_changed",
    ),
    "the control's action taken out": (write(CLOSE_UP, ""), "invalid"),
    "the control's action and its order taken out": (
        several(write(CLOSE_UP, ""), write("order: [close-up], ", "")),
        "action_removed",
    ),
    "another picture under the same id": (
        write("midnight-run/chase.svg", "midnight-run/chase-2.svg"),
        "action_redefined",
    ),
    "another policy under the same name": (
        write("thompson:  {policy: thompson,", "thompson:  {policy: epsilon_greedy,"),
        "treatment_changed",
    ),
    "another parameter of a policy": (write("alpha: 0.3", "alpha: 1.0"), "treatment_changed"),
    "a policy that learns from all": (
        write("thompson, share: 40%}", "thompson, share: 40%, training: shared}"),
        "treatment_changed",
    ),
    "less exploration": (
        write("min_probability: 2%", "min_probability: 0.1%"),
        "treatment_changed",
    ),
    "a draft whose policy tries nothing": (
        write("epsilon: 10%", "epsilon: 0%, min_probability: 0%", HERO),
        "explores_nothing",
    ),
    "a feature that services send taken out": (
        write("  hour:   {type: cycle, period: 24}\n", ""),
        "requests_refused",
    ),
    "a value that services send taken out": (
        write("values: [tv, mobile, web]", "values: [tv, mobile]"),
        "learns_anew",
    ),
    "a feature of another type": (
        write("hour:   {type: cycle, period: 24}", "hour:   {type: category, values: [day]}"),
        "requests_refused",
    ),
    "a feature's scale": (
        write("faces: {type: number, min: 0, max: 2}", "faces: {type: number, min: 0, max: 4}"),
        "learns_anew",
    ),
    "units told apart by something else": (
        write("unit: profile_id", "unit: account_id"),
        "unit_changed",
    ),
    "a holdout while it runs": (write("slots: 1", "slots: 1\nholdout: 10%"), "holdout_changed"),
    "back to draft": (write("status: running", "status: draft"), "back_to_draft"),
    "the file taken away": (remove(ARTWORK), "experiment_removed"),
    "another key": (
        write("experiment: home-artwork", "experiment: midnight-run"),
        "experiment_removed",
    ),
    "another method": (write("slots: 1", "slots: 1\nmethod: fixed"), "reading_changed"),
    "no traffic": (write("traffic: 50%", "traffic: 0%"), "nobody_takes_part"),
    "traffic for which nobody lives long enough": (
        write("traffic: 50%", "traffic: 0.01%"),
        "never_decided",
    ),
    "an audience that nobody is of": (
        write("slots: 1", "slots: 1\naudience: {device: [console]}"),
        "nobody_takes_part",
    ),
    "everybody excluded": (
        write("slots: 1", "slots: 1\nexclude: {context: {device: [tv, mobile, web]}}"),
        "nobody_takes_part",
    ),
    "a device left out after numbers were seen": (
        write("slots: 1", "slots: 1\nexclude: {context: {device: [web]}}"),
        "units_leave",
    ),
    "an audience after numbers were seen": (
        write("slots: 1", "slots: 1\naudience: {device: [tv]}"),
        "units_leave",
    ),
    "another layer": (write("layer: artwork ", "layer: home "), "units_leave"),
    "a neighbour that takes its place in the layer": (
        add("a-first.yaml", another("a-first", layer="artwork", traffic="30%")),
        "units_leave",
    ),
    "a layer that is overfull": (
        add("a-first.yaml", another("a-first", layer="artwork", traffic="60%")),
        "invalid",
    ),
    "a second file of the same key": (add("twin.yaml", another("home-artwork")), "invalid"),
    "shares that do not sum up": (
        write("thompson, share: 40%", "thompson, share: 30%"),
        "invalid",
    ),
    "more slots": (write("slots: 1", "slots: 3"), "treatment_changed"),
    "another time to learn": (write("reward_delay: 6s", "reward_delay: 30s"), "learns_anew"),
    "no time to answer": (write("slots: 1", "slots: 1\nbudget_ms: 0.01"), "too_little_time"),
    "an event that nobody sends, guarded": (
        several(
            write("  abandon:", "  paid: {event: paid, kind: binary, window: 4s}\n  abandon:"),
            write(
                "  - {metric: abandon, margin: 50%}",
                "  - {metric: abandon, margin: 50%}\n"
                "  - {metric: paid, margin: 10%, better: higher}",
            ),
        ),
        "event_never_seen",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name: str, files: Path, runs: WhatRuns) -> None:
    edit, code = MISTAKES[name]
    edit(files)
    plan = plan_against(files, runs, evaluates=False)
    assert code in [finding.code for finding in plan.harms]
    for finding in plan.harms:
        assert finding.file.endswith(".yaml")
        assert "" not in (finding.path, finding.got, finding.sentence)
        assert finding.instead or finding.code == "invalid"


ACTION = CLOCK + CLOCK.replace("clock", "train").replace("train.svg", "train.svg")

HARMLESS: dict[str, Edit] = {
    "nothing": several(),
    "a title": write("title: Artwork for Midnight Run", "title: Pictures of Midnight Run"),
    "an owner": write("owner: discovery", "owner: artwork-team"),
    "a hypothesis": write("wins more completed plays than", "wins more finished plays than"),
    "a comment": write("slots: 1\n", "slots: 1  # one picture\n"),
    "a comment taken out": write("      # pure chance", "  # chance"),
    "empty lines": write("action_features: ", "\n\naction_features: "),
    "keys in another order": several(
        write("owner: discovery\n", ""), write("slots: 1\n", "slots: 1\nowner: discovery\n")
    ),
    "quotes": write("owner: discovery", "owner: 'discovery'"),
    "a default written out": write("slots: 1\n", "slots: 1\nbudget_ms: 50\nfeedback: item\n"),
    "a share written otherwise": write("thompson, share: 40%", "thompson, share: 40.0%"),
    "a longer budget": write("slots: 1\n", "slots: 1\nbudget_ms: 80\n"),
    "more traffic": write("traffic: 50%", "traffic: 80%"),
    "all traffic": write("traffic: 50%", "traffic: 100%"),
    "a little less traffic": write("traffic: 50%", "traffic: 45%"),
    "paused": write("status: running", "status: paused"),
    "stopped": write("status: running", "status: stopped"),
    "another name of the file": rename(ARTWORK, "artwork-of-midnight-run.yml"),
    "another file that is no experiment": add("NOTES.md", "what we learned\n"),
    "an action more": write(CLOCK, ACTION),
    "an action that only policies draw, gone": write(CLOCK, ""),
    "a stricter guardrail": write("abandon, margin: 50%", "abandon, margin: 49%"),
    "actions in another order": several(write(CLOCK, ""), write(CLOSE_UP, CLOSE_UP + CLOCK)),
    "a metric more": write(
        "  abandon:", "  ends: {event: abandon, kind: count, window: 4s}\n  abandon:"
    ),
    "a guardrail more": several(
        write("  abandon:", "  plays: {event: play, kind: binary, window: 4s}\n  abandon:"),
        write(
            "  - {metric: abandon, margin: 50%}",
            "  - {metric: abandon, margin: 50%}\n  - {metric: plays, margin: 90%, better: higher}",
        ),
    ),
    "testers": write(
        "slots: 1\n", "slots: 1\noverrides: {qa: {units: [tester-1], variant: thompson}}\n"
    ),
    "what units did before, to adjust by": write(
        "watched: {event: watch_fraction, kind: max, window: 6s}",
        "watched: {event: watch_fraction, kind: max, window: 6s, covariate: 28d}",
    ),
    "weights in another order": write("{play: 0.2, watched: 1.0}", "{watched: 1.0, play: 0.2}"),
    "features in another order": several(
        write("  device: {type: category, values: [tv, mobile, web]}\n", ""),
        write(
            "period: 24}\n", "period: 24}\n  device: {type: category, values: [web, tv, mobile]}\n"
        ),
        write(
            "mood:  {type: vector, keys: [action, comedy,",
            "mood:  {type: vector, keys: [comedy, action,",
        ),
    ),
    "metrics in another order": several(
        write("  play:    {event: play, kind: binary, window: 4s}               #", "  #"),
        write("  abandon: {", "  play: {event: play, kind: binary, window: 4s}\n  abandon: {"),
    ),
    "what runs launched": write("slots: 1\n", f"slots: 1\n{LAUNCH}"),
    "metrics said in a library": several(
        write("{event: play, kind: binary, window: 4s}               #", "library  #"),
        add("metrics.yaml", "metrics:\n  play: {event: play, kind: binary, window: 4s}\n"),
    ),
    "a bot excluded": write("slots: 1\n", "slots: 1\nexclude: {units: [bot-7]}\n"),
    "learned anew each night": write("slots: 1\n", "slots: 1\nrefit: daily\n"),
    "a new draft": add("new.yaml", another("new", status="draft")),
    "a new experiment in a layer of its own": add("new.yaml", another("new", layer="new")),
    "a new experiment behind it in its layer": add(
        "z-last.yaml", another("z-last", layer="artwork", traffic="30%")
    ),
    "a draft taken away": remove(HERO),
    "a draft's shares": several(
        write("order: [still], share: 50%", "order: [still], share: 40%", HERO),
        write("epsilon: 10%, share: 50%", "epsilon: 10%, share: 60%", HERO),
    ),
    "a draft's objective": write("objective: {play: 1.0}", "objective: {play: 2.0}", HERO),
    "a draft's policy": write("policy: epsilon_greedy, epsilon: 10%", "policy: thompson", HERO),
    "a draft's guardrail": write("abandon, margin: 10%", "abandon, margin: 20%", HERO),
    "a draft's unit": write("unit: profile_id", "unit: account_id", HERO),
    "a draft's actions": write("{id: loop}", "{id: loop}, {id: trailer}", HERO),
    "a draft launched": write("status: draft", "status: running", HERO),
    "a draft's variants renamed": write("  draws: {", "  learned: {", HERO),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_is_called_so(name: str, files: Path, runs: WhatRuns) -> None:
    HARMLESS[name](files)
    assert plan_against(files, runs, evaluates=False).harms == []


def test_there_are_as_many_as_were_asked_for() -> None:
    assert len(MISTAKES) >= 30
    assert len(HARMLESS) >= 30
