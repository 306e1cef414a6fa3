"""What the loader makes of experiment files: valid ones, and what it says about the others."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topbill.cli import app
from topbill.domain.errors import SpecError
from topbill.domain.objective import Objective
from topbill.pages.files import PAGE, page_schema
from topbill.policies import KINDS
from topbill.spec import Experiment, Metric, from_audit, json_schema, load, load_all, validate
from topbill.spec.alerts import ALERTS, alerts_schema
from topbill.spec.fields import JsonSchema, ListOf, MapOf, Section, Tagged
from topbill.spec.files import SMALLEST, from_raw
from topbill.spec.schema import EXPERIMENT, METRIC_LIBRARY, library_schema
from topbill.spec.yaml import parse

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "experiments").glob("*.yaml"))
PAGES = sorted((ROOT / "experiments" / "pages").glob("*.yaml"))
SAMPLE = ROOT / "tests" / "data" / "experiments" / "midnight-run.yaml"
STEADY = settings(suppress_health_check=list(HealthCheck))

File = Callable[[str | bytes], Path]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> File:
    path = tmp_path_factory.mktemp("spec") / "x.yaml"

    def write(content: str | bytes) -> Path:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture(scope="module")
def sample() -> str:
    return SAMPLE.read_text()


def problems(path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(path)
    # The lines are `test_places.py`'s.
    return [str(problem).removeprefix(f"{problem.place}: ") for problem in caught.value.problems]


# Valid files


def test_a_file_becomes_an_experiment(sample: str, file: File) -> None:
    e = load(file(sample))
    assert (e.key, e.surface, e.status, e.slots, e.unit) == (
        "home-artwork",
        "artwork",
        "running",
        1,
        "profile_id",
    )
    assert (e.traffic, e.layer, e.layer_start, e.holdout, e.source) == (
        1.0,
        "home",
        0.0,
        0.0,
        "x.yaml",
    )
    assert e.context_encoder.size == 3 + 2 + 6
    assert e.encoded_actions.ids == ("close-up", "chase")
    assert e.encoded_actions.features.tolist() == [[1, 1, 0, 0], [0, 0, 0, 1]]
    assert e.actions[0].payload == {"image": "midnight-run/close-up.svg"}
    assert [(m.name, m.window) for m in e.metrics[:3]] == [
        ("play", 1800),
        ("watched", 21600),
        ("returned", 172800),
    ]
    assert e.objective == {"play": 0.2, "watched": 1.0, "returned": 0.5}
    assert e.guardrails[0].margin == 0.1
    assert [(v.name, v.policy, v.share, v.min_probability) for v in e.variants] == [
        ("editorial", "fixed", 0.2, 0.0),
        ("thompson", "thompson", 0.4, 0.01),
        ("linucb", "linucb", 0.4, 0.02),
    ]
    assert e.control.name == "editorial"
    assert getattr(e.variants[2].params, "alpha", None) == 0.3


def test_what_is_left_out_follows_from_the_rest(sample: str, file: File) -> None:
    e = load(
        file(sample.replace("layer: home  ", "").replace("{policy: thompson, share", "{share"))
    )
    assert e.reward_delay == 1800.0, "the shortest window of the objective"
    assert e.layer == e.key, "a layer of its own"
    assert {m.name: m.better for m in e.metrics}["abandon"] == "lower", "only a guardrail"
    assert {m.name: m.better for m in e.metrics}["play"] == "higher"
    assert (e.variants[1].policy, e.variants[1].min_probability) == ("auto", 0.02 / len(e.actions))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_valid_and_their_pictures_are_there(path: Path) -> None:
    e = load(path)
    assert e.personalizer or {"fixed", "thompson", "linucb"} <= {
        variant.policy for variant in e.variants
    }
    assert e.control.policy == "fixed"
    for action in e.actions:
        if "image" in action.payload:
            assert (path.parent / "artwork" / action.payload["image"]).is_file()


def test_the_examples_show_each_surface_and_load_together() -> None:
    assert {e.surface for e in load_all([ROOT / "experiments"])} == {"rows", "titles", "artwork"}


def test_the_films_of_the_example_are_real() -> None:
    catalogue = (ROOT / "experiments" / "catalogue.csv").read_text().splitlines()
    rows = {tuple(line.rsplit(",", 2)[:2]) for line in catalogue}
    for action in load(ROOT / "experiments" / "home-titles.yaml").actions:
        assert (action.payload["title"], str(action.payload["year"])) in rows


def test_no_and_off_stay_text_since_only_true_and_false_are_booleans(
    sample: str, file: File
) -> None:
    assert load(file(sample.replace("[tv, mobile, web]", "[no, off, web]"))).context[0].values == (
        "no",
        "off",
        "web",
    )


# The objective and the metrics


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("binary", 1),
        ("count", 3),
        ("sum", 9),
        ("max", 5),
        ("mean", 3),
        ("last", 1),
        ("earliest", 3),
    ],
)
def test_a_metric_takes_the_events_of_its_window(kind: Any, value: float) -> None:
    metric = Metric("m", "e", kind, window=10.0)
    assert metric.value([(3, 0.0), (1, 10.0), (5, 9.0), (100, 10.1)]) == value
    assert metric.value([(100, 10.1)]) == 0.0


def test_without_an_event_a_metric_has_its_default() -> None:
    metric = Metric("m", "e", "max", window=10.0, default=0.3)
    assert (metric.value([]), metric.value([(1, 11.0)]), metric.value([(0, 1.0)])) == (
        0.3,
        0.3,
        0.0,
    )


def test_an_event_dated_a_little_before_its_decision_counts() -> None:
    assert Metric("m", "e", "binary", window=10.0).value([(1, -0.2)]) == 1.0


def test_last_among_events_of_one_time_is_the_one_that_came_last() -> None:
    assert Metric("m", "e", "last", window=10.0).value([(1, 5.0), (2, 5.0), (3, 4.0)]) == 2.0


def test_the_objective_weighs_capped_metrics(sample: str, file: File) -> None:
    e = load(file(sample.replace("kind: max, window: 6h", "kind: sum, window: 6h, cap: 10")))
    assert e.goal.value({}) == 0.0
    assert e.goal.value({"play": 1.0}) == pytest.approx(0.2 / 1.7)
    assert e.goal.value({"watched": 5.0}) == pytest.approx(0.5 / 1.7)
    assert e.goal.value(
        {"play": 1.0, "watched": 99.0, "returned": 1.0, "abandon": 1.0}
    ) == pytest.approx(1.0)


def test_a_metric_counts_from_its_floor(sample: str, file: File) -> None:
    at = "kind: sum, window: 6h, floor: -1, cap: 1.5"
    e = load(file(sample.replace("kind: max, window: 6h", at)))
    (watched,) = (m for m in e.goal.metrics if m.name == "watched")
    alone = Objective((watched,), {"watched": 1.0})
    assert [alone.value({"watched": x}) for x in (-2, -1, 0, 1.5, 9)] == [0, 0, 0.4, 1, 1]
    assert alone.default == 0.4, "no event is 0, wherever that stands between the ends"
    plain = load(file(sample.replace("kind: max, window: 6h", at.replace("floor: -1, ", ""))))
    zero = load(file(sample.replace("kind: max, window: 6h", at.replace("-1", "0"))))
    assert zero.fingerprint == plain.fingerprint != e.fingerprint
    assert zero.learning_fingerprint == plain.learning_fingerprint != e.learning_fingerprint


@pytest.mark.parametrize(
    ("floor", "cap", "says"),
    [(1, 1, "got 1.0; expected a number above the floor of 1"), (0, -5, "above the floor of 0")],
)
def test_a_floor_lies_below_the_cap(
    sample: str, file: File, floor: float, cap: float, says: str
) -> None:
    at = f"kind: sum, window: 6h, floor: {floor}, cap: {cap}"
    with pytest.raises(SpecError, match=f"metrics.watched.cap: .*{says}"):
        load(file(sample.replace("kind: max, window: 6h", at)))
    with pytest.raises(SpecError, match=r"metrics.play.floor: .*a binary is never below 0"):
        load(file(sample.replace("kind: binary", "kind: binary, floor: -1", 1)))


def test_a_penalty_takes_away_but_never_below_zero(sample: str, file: File) -> None:
    e = load(file(sample.replace("returned: 0.5}", "abandon: -0.5}")))
    assert e.goal.value({"play": 1.0, "watched": 1.0}) == pytest.approx(1.0)
    assert e.goal.value({"watched": 1.0, "abandon": 1.0}) == pytest.approx(0.5 / 1.2)
    assert e.goal.value({"abandon": 1.0}) == 0.0


@STEADY
@given(
    st.dictionaries(
        st.sampled_from(["play", "watched", "returned", "abandon"]), st.floats(-1e9, 1e9)
    )
)
def test_the_objective_stays_between_zero_and_one(values: dict[str, float]) -> None:
    assert 0.0 <= load(SAMPLE).goal.value(values) <= 1.0


# What is wrong: one line for each typical mistake, as its author would read it

MISTAKES: list[tuple[str, str, str, list[str]]] = [
    (
        "a misspelt key",
        "share: 20%",
        "shair: 20%",
        [
            "variants.editorial.shair: got an unknown key; expected one of policy, share, "
            "control, min_probability, evaluable, "
            "training, start_from, prior, order; did you mean share?"
        ],
    ),
    (
        "a misspelt key among many",
        "surface: artwork",
        "surfce: artwork",
        [
            "surfce: got an unknown key; expected one of the keys of docs/experiments.md, which "
            "`topbill schema` prints; did you mean surface?"
        ],
    ),
    (
        "shares beyond 100%",
        "share: 20%",
        "share: 60%",
        [
            "variants: got shares that sum to 140% (editorial 60%, thompson 40%, linucb 40%); "
            "expected shares that sum to 100%"
        ],
    ),
    (
        "a share without its sign",
        "share: 20%",
        "share: 20",
        ["variants.editorial.share: got 20; expected a percentage such as 20%; write 20%"],
    ),
    (
        "a window without its unit",
        "window: 6h",
        "window: 6",
        [
            "metrics.watched.window: got 6; expected a duration such as 10s, 30m, 6h or 7d; "
            "give it a unit, for example 6m"
        ],
    ),
    (
        "no control",
        ", control: true",
        "",
        [
            "variants: got no control; expected exactly one variant with control: true; the "
            "others are compared with it"
        ],
    ),
    (
        "two controls",
        "share: 40%}",
        "share: 40%, control: true}",
        [
            "variants: got editorial and thompson as controls; expected exactly one variant with "
            "control: true; "
            "the others are compared with it"
        ],
    ),
    (
        "an unknown policy",
        "{policy: thompson",
        "{policy: thomson",
        [
            f"variants.thompson.policy: got 'thomson'; expected one of {', '.join(KINDS)}; did "
            f"you mean thompson?"
        ],
    ),
    (
        "a parameter out of range",
        "alpha: 0.3",
        "alpha: -1",
        ["variants.linucb.alpha: got -1; expected a number >= 0.0"],
    ),
    (
        "a parameter of another type",
        "alpha: 0.3",
        "alpha: high",
        ["variants.linucb.alpha: got 'high'; expected a number"],
    ),
    (
        "a deterministic policy without min_probability",
        ", min_probability: 2%",
        "",
        [
            "variants.linucb.min_probability: got nothing; expected a min_probability above 0%, "
            "since linucb is deterministic and its log "
            "could not be evaluated; write min_probability: 2%, or evaluable: false to go without"
        ],
    ),
    (
        "a min_probability that leaves nothing to choose",
        "min_probability: 2%",
        "min_probability: 60%",
        ["variants.linucb.min_probability: got 60%; expected at most 50%: one of 2 actions"],
    ),
    (
        "an objective that names no metric",
        "watched: 1.0",
        "wached: 1.0",
        [
            "objective.wached: got an unknown metric; expected one of the metrics play, watched, "
            "returned, abandon; "
            "did you mean watched?"
        ],
    ),
    (
        "a guardrail that names no metric",
        "metric: abandon",
        "metric: abandoned",
        [
            "guardrails[0].metric: got 'abandoned'; expected one of the metrics play, watched, "
            "returned, abandon; "
            "did you mean abandon?"
        ],
    ),
    (
        "a guardrail without a direction",
        ", better: lower",
        "",
        [
            "metrics.abandon.better: got nothing; expected higher or lower, since only a "
            "guardrail watches it: no weight says which is good; "
            "for example better: lower"
        ],
    ),
    (
        "a sum without its cap",
        "kind: max",
        "kind: sum",
        [
            "metrics.watched.cap: got nothing; expected the value that counts as 1, since a sum "
            "has no upper end; "
            "for example cap: 10"
        ],
    ),
    (
        "more slots than actions",
        "slots: 1",
        "slots: 3",
        ["slots: got 3; expected at most 2, the number of actions"],
    ),
    (
        "an order that names no action",
        "order: [close-up, chase]",
        "order: [closeup, chase]",
        [
            "variants.editorial.order[0]: got 'closeup'; expected the id of one of the actions; "
            "did you mean close-up?"
        ],
    ),
    (
        "an id that is taken",
        "id: chase",
        "id: close-up",
        [
            "actions[1].id: got 'close-up'; expected an id of its own: actions[0] has this one "
            "already",
            "variants.editorial.order[1]: got 'chase'; expected the id of one of the actions",
        ],
    ),
    (
        "an action's feature of a value not declared",
        "tone: warm",
        "tone: wram",
        [
            "actions[0].features.tone: got 'wram'; expected one of warm, cold, dark; did you "
            "mean warm?"
        ],
    ),
    (
        "a feature without what it needs",
        "{type: cycle, period: 24}",
        "{type: cycle}",
        [
            "context.hour.period: got nothing; expected this key, which is required; "
            "After this it starts again: 24 for hours."
        ],
    ),
    (
        "yes for true",
        "control: true",
        "control: yes",
        ["variants.editorial.control: got 'yes'; expected true or false"],
    ),
    (
        "a key that is there twice",
        "owner: discovery",
        "owner: discovery\nowner: homepage",
        [
            "owner: got the key twice, in lines 3 and 4; expected every key once; remove one of "
            "the two"
        ],
    ),
    (
        "a colon in plain text",
        "title: Artwork",
        "title: Artwork: pictures",
        [
            "column 15: got broken YAML (mapping values are not allowed in this "
            "context); expected valid YAML; "
            "put text that holds a colon in quotes"
        ],
    ),
    (
        "a tab",
        "context:\n  device",
        "context:\n\tdevice",
        [
            "column 1: got broken YAML (found character that cannot start any token); "
            "expected valid YAML; "
            "indent with spaces, not tabs; put text with special characters in quotes"
        ],
    ),
]


@pytest.mark.parametrize(
    ("old", "new", "expected"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_mistake_is_named(
    sample: str, file: File, old: str, new: str, expected: list[str]
) -> None:
    assert old in sample
    assert problems(file(sample.replace(old, new, 1))) == expected


def test_all_mistakes_of_a_file_are_named_at_once(sample: str, file: File) -> None:
    alone = [
        m
        for m in MISTAKES
        if m[0] in ("a misspelt key", "a parameter out of range", "more slots than actions")
    ]
    broken = sample
    for _, old, new, _ in alone:
        broken = broken.replace(old, new, 1)
    assert sorted(problems(file(broken))) == sorted(line for m in alone for line in m[3])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", f"file: got an empty file; expected an experiment, such as{SMALLEST}"),
        (b"# later\n", "file: got an empty file; expected an experiment"),
        (b"[]", "file: got a list of 0; expected a mapping with experiment"),
        (b"- a", "file: got a list of 1; expected a mapping with experiment"),
        (b"\xff\xfe", "byte 0: got bytes that are not UTF-8"),
        (b"a: " + b"x" * 1_000_000, "file: got too many bytes; expected at most 1,000,000"),
        (b"[" * 100_000, "got more than 32 levels of nesting"),
        (
            b"a: &a [x]\nb: *a",
            "got an alias (*a); expected plain values; write the value out",
        ),
        (b"a: &a\n  b: *a", "got an alias"),
        (
            b"a: !!python/object:os.system x",
            "got a tag (tag:yaml.org,2002:python/object:os.system)",
        ),
        (b"? [a]\n: b", "got a key that is not text"),
        (b"a: 1\n---\nb: 2", "got a second document"),
        (b"a: \x00", "file: got unacceptable character"),
    ],
)
def test_what_is_no_plain_yaml_is_refused(file: File, content: bytes, said: str) -> None:
    (problem,) = problems(file(content))
    assert problem.startswith(said)


def test_the_smallest_experiment_is_one() -> None:
    """What somebody with an empty file is told to write."""
    experiment = from_raw(parse(SMALLEST.encode(), "smallest.yaml").value, "smallest.yaml")
    assert len(experiment.variants) == 2


def test_a_file_that_is_not_there_is_a_spec_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"x\.yaml: file: got No such file or directory"):
        load(tmp_path / "x.yaml")


# Laws


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


TREE = yaml.safe_load(SAMPLE.read_text())
PLACES = _places(TREE)[1:]
KEYS = [place for place in PLACES if isinstance(place[-1], str) and len(place[-1]) > 2]
FIXED_KEYS = [
    place
    for place in KEYS
    if place[:-1]
    not in {("context",), ("action_features",), ("metrics",), ("variants",), ("objective",)}
    and "payload" not in place
]


def _changed(place: tuple[Any, ...], change: Callable[[Any, Any], None]) -> dict[str, Any]:
    tree = copy.deepcopy(TREE)
    parent = tree
    for key in place[:-1]:
        parent = parent[key]
    change(parent, place[-1])
    assert isinstance(tree, dict)
    return tree


@STEADY
@given(place=st.sampled_from(FIXED_KEYS), at=st.integers(0, 30), drop=st.booleans())
def test_a_key_with_one_letter_wrong_is_named_with_the_key_that_was_meant(
    file: File, place: tuple[Any, ...], at: int, drop: bool
) -> None:
    key = place[-1]
    at %= len(key)
    misspelt = key[:at] + ("" if drop else "qq") + key[at + drop :]

    def rename(parent: Any, key: Any) -> None:
        parent[misspelt] = parent.pop(key)

    hint = f"did you mean {key}?"
    path = (
        ".".join(str(part) for part in (*place[:-1], misspelt))
        .replace(".0", "[0]")
        .replace(".1", "[1]")
    )
    found = problems(file(json.dumps(_changed(place, rename))))
    assert any(line.startswith(f"{path}: got an un") and line.endswith(hint) for line in found), (
        found
    )


_JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(
        ["20%", "200%", "-1%", "30m", "0s", "cycle", "thompson", "sum", "close-up", "play", ""]
    )
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@STEADY
@given(place=st.sampled_from(PLACES), junk=_JUNK, remove=st.booleans())
def test_any_value_anywhere_gives_a_usable_experiment_or_a_spec_error(
    file: File, place: tuple[Any, ...], junk: Any, remove: bool
) -> None:
    def change(parent: Any, key: Any) -> None:
        if remove:
            del parent[key]
        else:
            parent[key] = junk

    path = file(json.dumps(_changed(place, change)))
    try:
        e = load(path)
    except SpecError:
        pass
    else:
        assert len(e.fingerprint) == len(e.learning_fingerprint) == 12
        assert len(e.encoded_actions) == len(e.actions)
        assert e.context_encoder.encode({}).shape == (e.context_encoder.size,)


@STEADY
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text("{}[]:,-&*!|>'\"%@`#? \n\tab1", max_size=80).map(str.encode),
    )
)
def test_garbage_gives_nothing_but_a_spec_error(file: File, content: bytes) -> None:
    with pytest.raises(SpecError):
        load(file(content))


@STEADY
@given(st.lists(st.integers(1, 1_000_000), min_size=1, max_size=20))
def test_shares_are_accepted_exactly_when_they_sum_to_one(file: File, parts: list[int]) -> None:
    variants = {
        f"v{i}": {"policy": "uniform", "share": f"{n / 10_000:.4f}%", "control": i == 0}
        for i, n in enumerate(parts)
    }
    path = file(json.dumps({**TREE, "variants": variants}))
    if sum(parts) == 1_000_000:
        assert load(path)
    else:
        (problem,) = problems(path)
        assert "shares that sum to" in problem
    filled = {
        **variants,
        "rest": {"policy": "uniform", "share": f"{100 - sum(parts) / 10_000:.4f}%"},
    }
    if len(parts) < 20 and sum(parts) <= 1_000_000:
        assert load(file(json.dumps({**TREE, "variants": filled})))


# Fingerprints


def test_a_fingerprint_changes_with_what_the_file_says_and_not_with_how(
    sample: str, file: File
) -> None:
    first = load(file(sample)).fingerprint
    assert load(file("# a comment\n" + sample)).fingerprint == first
    assert load(file(json.dumps(TREE))).fingerprint == first
    for old, new in [
        ("discovery", "homepage"),
        ("share: 20%", "share: 20.0%"),
        ("30m", "31m"),
        ("running", "paused"),
    ]:
        changed = load(file(sample.replace(old, new))).fingerprint
        assert (changed == first) is (old == "share: 20%")


def test_the_learning_fingerprint_changes_only_with_what_learning_depends_on(
    sample: str, file: File
) -> None:
    first = load(file(sample)).learning_fingerprint
    for old, new in [
        ("discovery", "homepage"),
        ("running", "paused"),
        ("margin: 10%", "margin: 3%"),
        ("min_probability: 2%", "min_probability: 3%"),
    ]:
        assert load(file(sample.replace(old, new))).learning_fingerprint == first
    for old, new in [
        ("[tv, mobile, web]", "[mobile, tv, web]"),
        ("watched: 1.0", "watched: 0.9"),
        ("alpha: 0.3", "alpha: 0.4"),
        ("window: 6h", "window: 7h"),
    ]:
        assert load(file(sample.replace(old, new))).learning_fingerprint != first


# Several files


@pytest.fixture
def directory(tmp_path: Path) -> Callable[..., Path]:
    def write(**files: dict[str, Any]) -> Path:
        for name, changes in files.items():
            (tmp_path / f"{name}.yaml").write_text(
                json.dumps({**TREE, "experiment": name, **changes})
            )
        return tmp_path

    return write


def test_experiments_of_a_layer_get_disjoint_slices_in_the_order_of_their_keys(
    directory: Callable[..., Path],
) -> None:
    path = directory(
        b={"traffic": "30%"},
        a={"traffic": "20%", "status": "paused"},
        c={"traffic": "90%", "status": "draft"},
        d={"traffic": "50%"},
        other={"layer": "another"},
    )
    starts = {e.key: e.layer_start for e in load_all([path])}
    assert starts == {"a": 0.0, "b": 0.2, "c": 0.0, "d": 0.5, "other": 0.0}


def test_a_layer_that_is_full_takes_no_more(directory: Callable[..., Path]) -> None:
    path = directory(a={"traffic": "70%"}, b={"traffic": "40%"}, c={"traffic": "30%"})
    with pytest.raises(SpecError) as caught:
        load_all([path])
    assert str(caught.value) == (
        "b.yaml:1: traffic: got 40% where 30% of layer home is left; expected at most 100% in a "
        "layer; "
        "lower the traffic, stop another experiment of this layer, or choose another layer"
    )


def test_two_files_cannot_have_one_key(directory: Callable[..., Path]) -> None:
    path = directory(a={}, b={"experiment": "a"})
    with pytest.raises(
        SpecError, match=r"b\.yaml:1: experiment: got 'a'; expected a key of its own: a\.yaml has"
    ):
        load_all([path])


def test_names_differ_by_more_than_capitals_since_sql_does_not_see_them(
    file: File, directory: Callable[..., Path]
) -> None:
    with pytest.raises(SpecError, match="of its own"):
        load_all([directory(a={"layer": "one"}, b={"experiment": "A", "layer": "two"})])
    metrics = {**TREE["metrics"], "Play": TREE["metrics"]["play"]}
    assert problems(file(json.dumps({**TREE, "metrics": metrics}))) == [
        "metrics.Play: got a name; expected one that differs from play by more than its capitals"
    ]


def test_validate_gives_each_file_its_verdict(directory: Callable[..., Path]) -> None:
    path = directory(a={"layer": "one"}, b={"slots": 7})
    (path / "pages").mkdir()
    (path / "pages" / "ignored.yaml").write_text("not: an experiment")
    verdicts = {file.name: verdict for file, verdict in validate([path])}
    assert isinstance(verdicts["a.yaml"], Experiment)
    assert isinstance(verdicts["b.yaml"], SpecError)
    assert len(verdicts) == 2


def test_a_directory_without_experiments_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected at least one experiment file"):
        load_all([tmp_path])


# The JSON Schema


@pytest.mark.parametrize("path", [SAMPLE, *EXAMPLES], ids=lambda path: path.stem)
def test_valid_files_satisfy_the_schema(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    jsonschema.validate(
        yaml.safe_load(path.read_text()), json_schema(), jsonschema.Draft202012Validator
    )


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_valid_pages_satisfy_theirs(path: Path) -> None:
    jsonschema.validate(
        yaml.safe_load(path.read_text()), page_schema(), jsonschema.Draft202012Validator
    )


@pytest.mark.parametrize(
    "mistake",
    ["a misspelt key", "a share without its sign", "an unknown policy", "a parameter out of range"],
)
def test_the_schema_refuses_what_it_can_see(sample: str, mistake: str) -> None:
    _, old, new, _ = next(m for m in MISTAKES if m[0] == mistake)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            yaml.safe_load(sample.replace(old, new, 1)),
            json_schema(),
            jsonschema.Draft202012Validator,
        )


SCHEMAS: dict[str, tuple[Section, JsonSchema, int]] = {
    "experiment": (EXPERIMENT, json_schema(), 60),
    "page": (PAGE, page_schema(), 40),
    "metrics": (METRIC_LIBRARY, library_schema(), 0),
    "alerts": (ALERTS, alerts_schema(), 15),
}
"""By kind of file: what the loader reads it by, its schema, and more keys than this."""


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_key_that_the_loader_accepts_is_in_the_schema_with_a_description(kind: str) -> None:
    def check(field: Any, schema: Any) -> int:
        if isinstance(field, Section):
            assert set(schema["properties"]) - {"policy", "type", "rule"} == set(field.keys)
            assert all(part["description"] for part in schema["properties"].values())
            return len(field.keys) + sum(
                check(k.field, schema["properties"][name]) for name, k in field.keys.items()
            )
        if isinstance(field, Tagged):
            return sum(
                check(s, part)
                for s, part in zip(field.sections.values(), schema["anyOf"], strict=True)
            )
        if isinstance(field, MapOf):
            return check(field.field, schema["additionalProperties"])
        return check(field.field, schema["items"]) if isinstance(field, ListOf) else 0

    section, schema, least = SCHEMAS[kind]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert check(section, schema) > least


@pytest.mark.parametrize("kind", SCHEMAS)
def test_the_command_prints_it(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    app(["schema", kind], result_action="return_value")
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(SCHEMAS[kind][1]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_policy_can_be_written_down(file: File, kind: str) -> None:
    variants = {
        "control": {"policy": "fixed", "share": "50%", "control": True},
        "new": {"policy": kind, "share": "50%", "min_probability": "1%"},
    }
    tree = {**TREE, "variants": variants}
    if kind == "scored":
        variants["new"]["feature"] = "score"
        tree["action_features"] = {"score": {"type": "number"}}
        tree["actions"] = []
    assert load(file(json.dumps(tree))).variants[1].policy == kind


# The page about it


PAGE = (ROOT / "docs" / "experiments.md").read_text()


def test_the_page_shows_a_valid_file_and_it_is_the_one_tested_here(file: File, sample: str) -> None:
    shown = PAGE.partition("```yaml\n")[2].partition("```")[0]
    assert shown == sample


def test_the_page_quotes_only_what_the_loader_says(sample: str, tmp_path: Path) -> None:
    quoted = [line for line in PAGE.splitlines() if line.startswith("home-artwork.yaml:")]
    path = tmp_path / "home-artwork.yaml"
    said: set[str] = set()
    for _, old, new, _ in MISTAKES:
        path.write_text(sample.replace(old, new, 1))
        with pytest.raises(SpecError) as caught:
            load(path)
        said.update(str(problem) for problem in caught.value.problems)
    assert len(quoted) > 12
    assert set(quoted) <= said


def test_the_page_names_every_key_and_every_policy() -> None:
    def keys(field: Any) -> set[str]:
        if isinstance(field, Section):
            return set(field.keys).union(*(keys(key.field) for key in field.keys.values()))
        if isinstance(field, Tagged):
            return {field.tag}.union(
                field.sections, *(keys(section) for section in field.sections.values())
            )
        return keys(field.field) if isinstance(field, MapOf | ListOf) else set()

    everything = keys(EXPERIMENT)
    assert {"margin", "half_life", "thompson", "cycle"} <= everything
    assert [
        key for key in sorted(everything) if f"`{key}" not in PAGE and f" {key}:" not in PAGE
    ] == []


# An experiment that answers Personalizer's API

PERSONALIZER = ROOT / "experiments" / "personalizer.yaml"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "size: 32}",
            "size: 32}\n  device: {type: flag}",
            "context: got other features; expected features: {type: hashed",
        ),
        (
            "features: {type: hashed, size: 8}",
            "tone: {type: flag}",
            "action_features: got other features",
        ),
        (
            "actions: []",
            "actions: [{id: a}]",
            "actions: got actions; expected [], since personalizer: true",
        ),
        (
            "actions: []",
            "actions: []\nslots: 2",
            "slots: got 2; expected 1, since personalizer: true",
        ),
        (
            "event: reward",
            "event: play",
            "objective: got no metric of it; expected a metric of event reward",
        ),
        (
            "kind: earliest",
            "kind: binary",
            "default: got 0.0; expected no default: without an event a binary is 0",
        ),
        (
            "size: 8",
            "size: 0",
            "action_features.features.size: got 0; expected a whole number from 1 to 4,096",
        ),
    ],
)
def test_a_personalizer_experiment_declares_what_its_requests_need(
    file: File, old: str, new: str, expected: str
) -> None:
    with pytest.raises(SpecError) as wrong:
        load(file(PERSONALIZER.read_text().replace(old, new, 1)))
    assert any(expected in str(problem) for problem in wrong.value.problems), wrong.value


def test_only_one_running_experiment_answers_personalizers_api(tmp_path: Path) -> None:
    text = PERSONALIZER.read_text()
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(text.replace("experiment: personalizer", "experiment: second"))
    with pytest.raises(SpecError, match="one experiment with personalizer: true"):
        load_all([tmp_path])
    (tmp_path / "b.yaml").write_text(
        text.replace("experiment: personalizer", "experiment: second\nstatus: draft")
    )
    assert [e.key for e in load_all([tmp_path])] == ["personalizer", "second"]


def test_values_whose_sum_overflows_still_have_a_value() -> None:
    spend = Metric("spend", "spend", "sum", window=60.0, cap=10.0)
    assert spend.value([(1e308, 1.0), (1e308, 2.0)]) == math.inf
    assert spend.value([(-1e308, 1.0), (-1e308, 2.0)]) == -math.inf


# Keys that 0.1 called otherwise

OLD_FILE = """
experiment: old
surface: titles
learn_after: 1h
context: {minutes: {type: number}}
actions: [{id: a}, {id: b}]
metrics:
  play: {event: play, kind: binary, window: 1h, before: minutes}
  abandon: {event: abandon, kind: binary, window: 1h, better: lower}
objective: {play: 1.0}
guardrails: [{metric: abandon, worse_by_at_most: 2%}]
variants:
  first: {policy: fixed, share: 50%, control: true}
  second: {policy: linucb, share: 50%, floor: 2%, curves: 4}
"""
OLD_KEYS = {
    "learn_after": ("learn_after", "reward_delay"),
    "metrics.play.before": ("before", "covariate"),
    "guardrails[0].worse_by_at_most": ("worse_by_at_most", "margin"),
    "variants.second.floor": ("floor", "min_probability"),
    "variants.second.curves": ("curves", "fourier_features"),
}


def test_every_old_key_is_told_by_its_name_of_today_beside_all_other_problems(file: File) -> None:
    told = [
        f"{path}: got a key that has another name today; expected {name}; write {name} instead "
        f"of {old}"
        for path, (old, name) in OLD_KEYS.items()
    ]
    assert sorted(problems(file(OLD_FILE))) == sorted(told)
    others = OLD_FILE.replace("surface: titles", "surface: tiles").replace("floor: 2%", "floor: 2")
    assert sorted(problems(file(others))) == sorted(
        [
            *told,
            "surface: got 'tiles'; expected one of rows, titles, artwork; did you mean titles?",
            "variants.second.floor: got 2; expected a percentage such as 20%; write 2%",
        ]
    )


@pytest.mark.parametrize("path", OLD_KEYS)
def test_the_file_is_valid_once_they_are_renamed(file: File, path: str) -> None:
    text = OLD_FILE
    for other, (old, name) in OLD_KEYS.items():
        if other != path:
            text = text.replace(f"{old}:", f"{name}:")
    old, name = OLD_KEYS[path]
    assert problems(file(text)) == [
        f"{path}: got a key that has another name today; expected {name}; write {name} instead "
        f"of {old}"
    ]
    assert load(file(text.replace(f"{old}:", f"{name}:")))


def test_an_old_key_beside_the_new_one_is_told_and_the_new_one_holds(file: File) -> None:
    (problem,) = problems(
        file(json.dumps({**TREE, "reward_delay": "1h", "learn_after": "nonsense"}))
    )
    assert problem.startswith("learn_after: got a key that has another name today")


def test_an_audit_of_an_older_version_is_read_with_the_keys_that_it_had(file: File) -> None:
    new = OLD_FILE
    for old, name in OLD_KEYS.values():
        new = new.replace(f"{old}:", f"{name}:")
    audit = from_audit(json.dumps(yaml.safe_load(OLD_FILE)), "old (audit)")
    assert audit == replace(load(file(new)), source="old (audit)")
    assert audit.raw == yaml.safe_load(new)


def test_in_an_audit_a_guardrail_without_a_direction_was_better_when_lower(file: File) -> None:
    silent = OLD_FILE.replace(", better: lower", "")
    audits = [from_audit(json.dumps(yaml.safe_load(text)), "old") for text in (OLD_FILE, silent)]
    assert audits[0] == audits[1]


@pytest.mark.parametrize(
    "damaged",
    [
        '{"experiment": "old',
        "[1]",
        "[" * 2_000,
        '{"objective": {"play": "1"}, "metrics": {"play": {}}}',
        '{"objective": {}, "metrics": {}, "guardrails": [{"metric": [1]}]}',
    ],
)
def test_an_audit_that_is_damaged_is_refused_by_name(damaged: str) -> None:
    with pytest.raises(SpecError, match="old"):
        from_audit(damaged, "old (audit)")


@pytest.mark.parametrize(("weight", "better"), [("0.5", "higher"), ("-0.5", "lower")])
def test_a_weight_says_which_direction_is_good(file: File, weight: str, better: str) -> None:
    tree = {**TREE, "objective": {"play": 1.0, "watched": float(weight)}}
    experiment = load(file(json.dumps(tree)))
    assert {m.name: m.better for m in experiment.metrics}["watched"] == better


@pytest.mark.parametrize(("weight", "by_weight"), [(1.0, "higher"), (-1.0, "lower")])
@pytest.mark.parametrize("where", ["metric", "guardrail"])
def test_a_direction_that_the_weight_contradicts_is_refused(
    where: str, weight: float, by_weight: str, file: File
) -> None:
    """Else policies would raise what the report calls harm. An audit's goes by the weight."""
    calls = {"event": "call", "kind": "binary", "window": "1h"}
    rail = {"metric": "calls", "margin": "10%"}
    tree = {
        **TREE,
        "metrics": {**TREE["metrics"], "calls": calls},
        "objective": {**TREE["objective"], "calls": weight},
        "guardrails": [rail],
    }
    stated = calls if where == "metric" else rail
    stated["better"] = by_weight
    load(file(json.dumps(tree)))
    stated["better"] = "lower" if by_weight == "higher" else "higher"
    (problem,) = problems(file(json.dumps(tree)))
    assert f"expected {by_weight}, as its weight of {weight:g} in the objective says" in problem
    metrics = from_audit(json.dumps(tree), "as it was").metrics
    assert {m.name: m.better for m in metrics}["calls"] == by_weight


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_guardrail_may_say_which_direction_of_its_metric_is_good(file: File, better: str) -> None:
    metrics = {**TREE["metrics"], "calls": {"event": "call", "kind": "binary", "window": "1h"}}
    guardrails = [{"metric": "calls", "better": better, "margin": "10%"}]
    tree = {**TREE, "metrics": metrics, "guardrails": guardrails}
    experiment = load(file(json.dumps(tree)))
    assert {m.name: m.better for m in experiment.metrics}["calls"] == better
    metrics["calls"]["better"] = better
    del guardrails[0]["better"]
    assert load(file(json.dumps(tree))).fingerprint == experiment.fingerprint
    guardrails[0]["better"] = "lower" if better == "higher" else "higher"
    (problem,) = problems(file(json.dumps(tree)))
    assert problem.startswith("guardrails[0].better: got ")
    assert f"expected {better}, as the metric says" in problem


# --- Margins, and how the result is read


@pytest.mark.parametrize(
    ("written", "margin", "unit"),
    [("10%", 0.1, "relative"), ("2pp", 0.02, "points"), ("2.5pp", 0.025, "points")],
)
def test_a_margin_is_relative_or_in_points(
    sample: str, file: File, written: str, margin: float, unit: str
) -> None:
    (guardrail,) = load(file(sample.replace("margin: 10%", f"margin: {written}"))).guardrails
    assert (guardrail.margin, guardrail.margin_unit) == (margin, unit)


def test_a_margin_of_a_number_may_be_in_its_own_unit(file: File) -> None:
    metrics = {**TREE["metrics"], "minutes": {"event": "m", "kind": "max", "window": "1h"}}
    guardrails = [{"metric": "minutes", "better": "higher", "margin": 0.5}]
    tree = {**TREE, "metrics": metrics, "guardrails": guardrails}
    (guardrail,) = load(file(yaml.safe_dump(tree))).guardrails
    assert (guardrail.margin, guardrail.margin_unit) == (0.5, "absolute")
    guardrails[0]["margin"] = "2pp"
    (problem,) = problems(file(yaml.safe_dump(tree)))
    assert "got 2pp; expected a percentage of the control's value or a number" in problem


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0.02", "got 0.02; expected a percentage of the control's value or points of the rate"),
        ("-2%", "expected a margin of the control's value (10%)"),
        ("200%", "expected a margin of at most 100%"),
        ("wide", "expected a margin of the control's value (10%)"),
    ],
)
def test_a_margin_that_cannot_be_meant_says_what_one_is(
    sample: str, file: File, written: str, expected: str
) -> None:
    (problem,) = problems(file(sample.replace("margin: 10%", f"margin: {written}")))
    assert problem.startswith("guardrails[0].margin")
    assert expected in problem


def test_method_and_looks_are_part_of_the_file(sample: str, file: File) -> None:
    plain = load(file(sample))
    assert (plain.method, plain.looks) == ("sequential", (1.0,))
    written = load(file(sample + "\nmethod: group-sequential\nlooks: [25%, 50%, 100%]\n"))
    assert (written.method, written.looks) == ("group-sequential", (0.25, 0.5, 1.0))
    # They are for whoever reads the result: no policy learns anew, and the log shows a revision.
    assert written.learning_fingerprint == plain.learning_fingerprint
    assert written.fingerprint != plain.fingerprint


@pytest.mark.parametrize(
    ("written", "path", "expected"),
    [
        ("method: peeking", "method", "expected one of sequential, fixed"),
        ("looks: [50%, 100%]", "looks", "expected method: group-sequential beside them"),
        ("method: group-sequential\nlooks: [50%, 25%, 100%]", "looks", "end with 100%"),
        ("method: group-sequential\nlooks: [50%]", "looks", "end with 100%"),
        ("method: group-sequential\nlooks: [0.5]", "looks[0]", "a percentage such as 20%"),
    ],
)
def test_looks_that_cannot_be_meant_are_refused(
    sample: str, file: File, written: str, path: str, expected: str
) -> None:
    (problem,) = problems(file(f"{sample}\n{written}\n"))
    assert problem.startswith(f"{path}: ")
    assert expected in problem
