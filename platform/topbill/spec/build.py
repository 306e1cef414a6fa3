"""What was read of a file → `Experiment`, after checking what no single key can show: sums,
references, fits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from topbill.domain.embedding import LONGEST_UNPROJECTED
from topbill.domain.exclusion import Exclusion, TargetAudience
from topbill.domain.features import REST, Encoder, Feature
from topbill.domain.metric import METRIC_KINDS, Metric
from topbill.domain.reading import ONE_LOOK, are_looks
from topbill.domain.records import Action
from topbill.domain.suggestion import nearest
from topbill.policies import KINDS, policy_class
from topbill.spec.alerts import experiment_alerts
from topbill.spec.canonical import LEARNS_NOTHING, WITHOUT_FEATURES
from topbill.spec.conclusion import read_conclusion
from topbill.spec.entities import features_of, read_entities, with_looked_up
from topbill.spec.exploration import default_min_probability
from topbill.spec.fields import Location, Verbatim, listed, percent
from topbill.spec.launch import read_launch
from topbill.spec.model import Experiment, Guardrail, Override, PriorFrom, StartFrom, Variant
from topbill.spec.schema import DEFAULT_POLICY
from topbill.spec.unit_scope import is_of_units, read_unit_scope

_COMMON = (
    *("policy", "share", "control", "min_probability", "evaluable", "training", "start_from"),
    "prior",
)
"""Keys that every variant may have; its others are parameters of its policy."""
_AS_READ = (
    *(
        "surface",
        "title",
        "owner",
        "hypothesis",
        "unit",
        "time_zone",
        "status",
        "traffic",
        "holdout",
        "slots",
    ),
    *("feedback", "click_model", "refit", "learn_share", "personalizer", "budget_ms", "method"),
)
"""Keys that become fields of the experiment without more ado."""
_AS_SAID = ("values", "keys", "period", "size", "encoder", "tokenizer", "sha256")
"""Keys that become fields of a feature without more ado."""
LARGEST_COVARIANCES = 2**28
"""Numbers that a variant's policy may hold of how its weights vary together: 2 GiB."""
_MOST_TOLD = 10
"""Unknown actions of one list that are told one by one."""

Content = Mapping[str, Any]
"""What could be read of a section: a key that is missing here was left out, or could not be read,
which was told then.
"""


def build(content: Content, raw: dict[str, Any], at: Location) -> Experiment | None:
    """The experiment, or None after noting problems. `content` holds what the schema could read,
    maybe not all; `raw` what the file says.
    """
    context = _features(content.get("context", {}), at.key("context"))
    action_features = _features(content.get("action_features", {}), at.key("action_features"))
    actions = _actions(content.get("actions", ()), action_features, at.key("actions"))
    entities = read_entities(content, _features, at)
    context += features_of(entities, is_actions=False)
    action_features += features_of(entities, is_actions=True)
    content = with_looked_up(content)
    every_metric = _metrics(content, at)
    metrics = tuple(metric for metric in every_metric if metric.scope == "decision")
    _check_objective(content, at)
    _check_guardrails(content, at)
    _check_looks(content, at)
    _check_conditions(content, at)
    _check_overrides(content, at)
    launch = read_launch(content, at)
    conclusion = read_conclusion(content, at)
    variants = _variants(content, raw, at.key("variants"))
    _check_slots(content, at)
    _check_personalizer(content, at)
    if content.get("learn_share") == 0.0:
        expected = (
            "more than 0%: a variant that shall not learn has policy fixed, uniform or scored"
        )
        at.key("learn_share").wrong(Verbatim("0%"), expected)
    # Only now: each check tells what it finds, so that a file is mended in one go.
    if not at.problems:
        sizes = Encoder(context).size, Encoder(action_features).size, len(actions)
        _check_memory(variants, *sizes, at.key("variants"))
    if at.problems:
        return None
    objective: dict[str, float] = content["objective"]
    # Where no delay is said, a decision is learned when the objective's shortest window is over.
    shortest = min(metric.window for metric in metrics if metric.name in objective)
    return Experiment(
        key=content["experiment"],
        source=at.file,
        raw=raw,
        layer=content.get("layer", content["experiment"]),
        context=context,
        action_features=action_features,
        actions=actions,
        entities=entities,
        metrics=metrics,
        unit_metrics=tuple(metric for metric in every_metric if metric.scope == "unit"),
        objective=objective,
        guardrails=_guardrails(content),
        looks=tuple(content.get("looks", ONE_LOOK)),
        variants=variants,
        exclude=Exclusion.of(content.get("exclude", {})),
        audience=TargetAudience.of(content.get("audience", {})),
        overrides=_overrides(content),
        launch=launch,
        conclusion=conclusion,
        alerts=experiment_alerts(content.get("alerts")),
        reward_delay=content.get("reward_delay", shortest),
        **{name: content[name] for name in _AS_READ if name in content},
    )


def _features(content: Content, at: Location) -> tuple[Feature, ...]:
    features = []
    for name, parts in content.items():
        low, high = parts.get("min"), parts.get("max")
        if (low is None) != (high is None):
            at.key(name).wrong(
                Verbatim("only one of min and max"), "both, to scale the number, or neither"
            )
        elif low is not None and low >= high:
            at.key(name).wrong(Verbatim(f"min {low:g} and max {high:g}"), "min below max")
        elif name == REST and parts.get("type", "hashed") != "hashed":
            at.key(name).key("type").wrong(parts["type"], "hashed, which any names fit")
        elif parts.get("type") == "embedding":
            features += _embedding(name, parts, at.key(name))
        elif "type" in parts:
            rest = {key: parts[key] for key in _AS_SAID if key in parts}
            if "encoder" not in parts and rest.keys() & {"tokenizer", "sha256"}:
                at.key(name).wrong(Verbatim("no encoder"), "one, or neither tokenizer nor sha256")
            features.append(Feature(name, parts["type"], low=low, high=high, **rest))
    return tuple(features)


def _embedding(name: str, parts: Content, at: Location) -> list[Feature]:
    """The feature; none after a problem."""
    if "length" not in parts:
        return []
    length = parts["length"]
    dimension = parts.get("dimension", length)
    if "dimension" not in parts and length > LONGEST_UNPROJECTED:
        expected = f"to how many numbers a vector of {length} is projected"
        at.key("dimension").wrong(Verbatim("nothing"), expected, "for example dimension: 16")
    elif dimension > length:
        at.key("dimension").wrong(dimension, f"at most {length}, its length")
    return [Feature(name, "embedding", length=length, dimension=dimension)]


def _actions(
    content: Sequence[Content], features: tuple[Feature, ...], at: Location
) -> tuple[Action, ...]:
    _check_ids(content, at)
    # Where the features themselves are wrong, every action would be said to be wrong as well.
    if not any(problem.path.startswith("action_features") for problem in at.problems):
        encoder = Encoder(features)
        for index, parts in enumerate(content):
            _check_features(parts.get("features", {}), features, encoder, at.item(index))
    return tuple(Action(**parts) for parts in content if "id" in parts)


def _check_ids(actions: Sequence[Content], at: Location) -> None:
    """Every id once."""
    first: dict[str, int] = {}
    for index, parts in enumerate(actions):
        if "id" not in parts:
            continue
        earlier = first.setdefault(parts["id"], index)
        if earlier != index:
            expected = f"an id of its own: actions[{earlier}] has this one already"
            at.item(index).key("id").wrong(parts["id"], expected)


def _check_features(
    values: Content, features: tuple[Feature, ...], encoder: Encoder, at: Location
) -> None:
    """Stricter than for requests: in the file, a value or key that its feature doesn't list is a
    slip of the pen.
    """
    for problem in encoder.problems(values):
        where = at.key(f"features{problem.path}")
        where.wrong(Verbatim(problem.got), problem.expected, problem.hint)
    for feature in features:
        _check_words(values.get(feature.name), feature, at.key("features").key(feature.name))


def _check_words(value: Any, feature: Feature, at: Location) -> None:
    """A category's value, or a vector's keys, are among those that the feature lists."""
    is_word = feature.kind == "category" and isinstance(value, str)
    if is_word and value not in feature.values:
        at.wrong(value, "one of " + listed(feature.values), nearest(str(value), feature.values))
    if feature.kind != "vector" or not isinstance(value, dict):
        return
    for key in value:
        if key not in feature.keys:
            expected = "one of " + listed(feature.keys)
            at.key(key[:64]).wrong(Verbatim("an unknown key"), expected, nearest(key, feature.keys))


def _metrics(content: Content, at: Location) -> tuple[Metric, ...]:
    objective = content.get("objective", {})
    # A guardrail may say which direction is good; the direction is the metric's all the same.
    guarded: dict[Any, Any] = {}
    for guardrail in content.get("guardrails", ()):
        guarded.setdefault(guardrail.get("metric"), guardrail.get("better"))
    metrics = []
    # DuckDB's columns, one a metric, don't tell capitals from small letters.
    first: dict[str, str] = {}
    for name, parts in content.get("metrics", {}).items():
        where = at.key("metrics").key(name)
        other = first.setdefault(name.lower(), name)
        if other != name:
            where.wrong(
                Verbatim("a name"), f"one that differs from {other} by more than its capitals"
            )
        if "kind" in parts:
            _check_kind(parts, name in objective, where)
            _check_winsorise(parts, name in objective, where)
            _check_made_of(parts, content["metrics"], where)
        covariate = parts.get("covariate")
        if isinstance(covariate, str):
            _check_covariate(covariate, content.get("context", {}), where.key("covariate"))
        own_better, guardrail_better = parts.get("better"), guarded.get(name)
        unstated = name in guarded and name not in objective
        if unstated and not (own_better or guardrail_better or where.has_problem("better")):
            # A direction that is guessed wrong would let the harm ship that the guardrail is for.
            where.key("better").wrong(
                Verbatim("nothing"),
                "higher or lower, since only a guardrail watches it: no weight says which is good",
                "for example better: lower",
            )
        # The objective says which way is good: who weighs a metric below 0 wants less of it.
        weight = objective.get(name, 0.0)
        better = "lower" if weight < 0.0 else "higher"
        stated = own_better or guardrail_better or better
        if weight and stated != better:
            where.key("better").wrong(
                stated,
                f"{better}, as its weight of {weight:g} in the objective says",
                "leave it out, or take the metric out of the objective",
            )
        better = guardrail_better or better
        if is_of_units(parts):
            parts = read_unit_scope(name, parts, content, at)
        metric = _metric(name, {"better": better} | parts, content["metrics"])
        if metric is not None:
            metrics.append(metric)
    return tuple(metrics)


def _metric(name: str, parts: Content, metrics: Content) -> Metric | None:
    """The metric that its parts say, or None where some could not be read."""
    sources = [metrics.get(source, {}) for source in _made_of(parts)]
    if any(not {"event", "kind", "window"} <= source.keys() for source in (sources or [parts])):
        return None
    if not sources:
        return Metric(name, **parts, capped=not {"cap", "floor"}.isdisjoint(parts))
    # It is read when the last of its metrics is, of what they are read of.
    return Metric(
        name,
        event=sources[0]["event"],
        window=max(source["window"] for source in sources),
        per=sources[0].get("per", "decision"),
        of_kind=sources[0]["kind"] if "of" in parts else None,
        **parts,
    )


def _made_of(parts: Content) -> list[str]:
    """The names of the metrics that a metric is made of."""
    kind = METRIC_KINDS[parts["kind"]] if "kind" in parts else None
    return [parts[key] for key in kind.made_of if key in parts] if kind else []


def _check_made_of(parts: Content, metrics: Content, at: Location) -> None:
    """A metric of other metrics names such as have events, and two that go together."""
    sources = []
    for key in METRIC_KINDS[parts["kind"]].made_of:
        source = parts.get(key)
        if source is None:
            continue
        own = {n: m for n, m in metrics.items() if not (_made_of(m) or is_of_units(m))}
        if source not in own:
            expected = f"a metric of decisions' events in this file ({listed(own)})"
            at.key(key).wrong(source, expected, nearest(source, own))
            continue
        sources.append((key, own[source]))
    pers = [source.get("per", "decision") for _, source in sources]
    if len(set(pers)) > 1:
        expected = f"two metrics per {pers[0]}, or two per {pers[1]}"
        at.key(sources[1][0]).wrong(Verbatim(f"one per {pers[1]}"), expected)
    for key, source in sources:
        if "winsorise" in source and source.get("per") == "unit":
            expected = "one whose units are not winsorised"
            at.key(key).wrong(parts[key], expected, "winsorise it per decision, or not at all")


def _check_winsorise(parts: Content, in_objective: bool, at: Location) -> None:
    """A metric is cut off at one place, and where policies learn from it at their own."""
    if "winsorise" not in parts:
        return
    reason = ""
    if METRIC_KINDS[parts["kind"]].is_proportion:
        reason = f"a {parts['kind']} metric is 0 or 1 already"
    elif in_objective:
        reason = "policies learn from values up to the cap, so the report judges by those"
    elif "cap" in parts:
        reason = "the cap says already where values are cut off"
    if reason:
        at.key("winsorise").wrong(Verbatim("one"), f"no winsorise: {reason}")


def _check_kind(parts: Content, in_objective: bool, at: Location) -> None:
    """A metric's `cap` and `default` fit what its kind computes."""
    name = parts["kind"]
    kind = METRIC_KINDS[name]
    # The objective needs values in [0, 1]: a sum or count has to be told what counts as 1.
    if kind.cap == "required" and kind.is_learned and in_objective and "cap" not in parts:
        expected = f"the value that counts as 1, since a {name} has no upper end"
        at.key("cap").wrong(Verbatim("nothing"), expected, "for example cap: 10")
    if kind.cap == "fixed" and parts.get("cap", 1.0) != 1.0:
        at.key("cap").wrong(parts["cap"], f"no cap: a {name} metric is 0 or 1 already")
    if not kind.takes_value and "floor" in parts:
        at.key("floor").wrong(parts["floor"], f"no floor: a {name} is never below 0")
    floor, cap = parts.get("floor", 0.0), parts.get("cap", 1.0)
    if floor >= cap:
        at.key("cap").wrong(cap, f"a number above the floor of {floor:g}")
    if not kind.takes_value and "default" in parts:
        expected = f"no default: without an event a {name} is 0"
        at.key("default").wrong(parts["default"], expected)


def _check_covariate(feature: str, context: Content, at: Location) -> None:
    """A metric's `covariate` is a number of the context, unless it is a duration."""
    numbers = [name for name, parts in context.items() if parts.get("type") == "number"]
    if feature in numbers:
        return
    if numbers:
        expected = f"one of the numbers in context ({listed(numbers)})"
    else:
        expected = "a number in context: there is none"
    at.wrong(feature, f"{expected}, or a duration such as 28d", nearest(feature, numbers))


def _check_objective(content: Content, at: Location) -> None:
    """The objective names metrics, and there is something to win."""
    metrics = content.get("metrics", {})
    objective = content.get("objective", {})
    for name in objective:
        # Without any readable metric every name would be unknown, which says nothing.
        if metrics and name not in metrics:
            at.key("objective").key(name).wrong(
                Verbatim("an unknown metric"), _one_of_metrics(metrics), nearest(name, metrics)
            )
        kind = metrics.get(name, {}).get("kind")
        if kind is not None and not METRIC_KINDS[kind].is_learned:
            expected = "a metric that each decision has a number of, since policies learn from it"
            hint = "let a guardrail watch it, or only the report"
            at.key("objective").key(name).wrong(Verbatim(f"a {kind}"), expected, hint)
    if objective and not any(weight > 0 for weight in objective.values()):
        at.key("objective").wrong(Verbatim("no weight above 0"), "at least one metric to raise")


def _guardrails(content: Content) -> tuple[Guardrail, ...]:
    # `better` has gone to the metric: the direction is kept in one place.
    return tuple(
        Guardrail(guardrail["metric"], guardrail["margin"].value, guardrail["margin"].unit)
        for guardrail in content.get("guardrails", ())
    )


def _check_guardrails(content: Content, at: Location) -> None:
    """Guardrails name metrics, each another one."""
    metrics = content.get("metrics", {})
    earlier: set[str] = set()
    for index, guardrail in enumerate(content.get("guardrails", ())):
        name = guardrail.get("metric")
        where = at.key("guardrails").item(index).key("metric")
        if name and metrics and name not in metrics:
            where.wrong(name, _one_of_metrics(metrics), nearest(name, metrics))
        elif name in earlier:
            where.wrong(name, "one guardrail a metric")
        earlier.add(name)
        _check_direction(guardrail, metrics.get(name), at.key("guardrails").item(index))
        _check_margin(guardrail, metrics.get(name), at.key("guardrails").item(index))


def _check_margin(guardrail: Content, metric: Content | None, at: Location) -> None:
    """Percentage points are of rates, and a rate's own margin is told in them."""
    margin, kind = guardrail.get("margin"), METRIC_KINDS.get((metric or {}).get("kind", ""))
    if margin is None or kind is None:
        return
    if kind.is_proportion and margin.unit == "absolute":
        expected = "a percentage of the control's value or points of the rate"
        at.key("margin").wrong(Verbatim(str(margin)), expected, "for example 10% or 2pp")
    if not kind.is_proportion and margin.unit == "points":
        expected = "a percentage of the control's value or a number in the metric's unit"
        at.key("margin").wrong(Verbatim(str(margin)), expected, "points are of rates")


def _check_looks(content: Content, at: Location) -> None:
    """Looks are planned by one method only, and end with the end."""
    looks = content.get("looks")
    is_planned = content.get("method") == "group-sequential"
    if looks is None or at.has_problem("method"):
        return
    if not is_planned:
        at.key("looks").wrong(
            Verbatim("looks"), "method: group-sequential beside them", "no other method plans looks"
        )
    elif not are_looks(looks) or looks[-1] != 1.0:
        shown = ", ".join(percent(look) for look in looks)
        at.key("looks").wrong(Verbatim(shown), "percentages that grow and end with 100%")


def _check_direction(guardrail: Content, metric: Content | None, at: Location) -> None:
    """A guardrail that says which direction is good says what its metric says."""
    better = (metric or {}).get("better")
    if better and guardrail.get("better", better) != better:
        at.key("better").wrong(
            guardrail["better"], f"{better}, as the metric says", "say it in one of the two places"
        )


def _check_conditions(content: Content, at: Location) -> None:
    """Whoever is left out by context, or let in, is so by a feature that requests may send."""
    declared = content.get("context", {})
    # A feature of this name takes whatever no other one is declared for.
    if REST in declared or at.has_problem("context"):
        return
    excluded = content.get("exclude", {}).get("context", {})
    _check_declared(excluded, declared, at.key("exclude").key("context"))
    _check_declared(content.get("audience", {}), declared, at.key("audience"))


def _check_declared(conditions: Content, declared: Content, at: Location) -> None:
    for name in conditions:
        if name not in declared:
            at.key(name).wrong(
                Verbatim("an undeclared feature"),
                f"one of context: {listed(declared)}" if declared else "a feature of context:",
                nearest(name, declared) or f"declare it there: {name}: {{type: flag}}",
            )


def _check_overrides(content: Content, at: Location) -> None:
    """A tester sees one variant, which is there."""
    variants = content.get("variants", {})
    seen: dict[str, str] = {}
    for name, parts in content.get("overrides", {}).items():
        where = at.key("overrides").key(name)
        variant = parts.get("variant")
        if variant is not None and variants and variant not in variants:
            expected = f"one of the variants {listed(variants)}"
            where.key("variant").wrong(variant, expected, nearest(variant, variants))
        for index, unit in enumerate(parts.get("units", ())):
            if unit in seen:
                expected = f"each unit once: it stands in overrides.{seen[unit]} too"
                where.key("units").item(index).wrong(unit, expected)
            seen[unit] = name


def _overrides(content: Content) -> tuple[Override, ...]:
    overrides = []
    for name, parts in content.get("overrides", {}).items():
        overrides.append(Override(name, tuple(parts["units"]), parts["variant"]))
    return tuple(overrides)


def _one_of_metrics(metrics: Content) -> str:
    return "one of the metrics " + listed(metrics)


def _check_slots(content: Content, at: Location) -> None:
    slots = content.get("slots", 1)
    actions = content.get("actions", ())
    if actions and slots > len(actions):
        at.key("slots").wrong(slots, f"at most {len(actions)}, the number of actions")


def _check_personalizer(content: Content, at: Location) -> None:
    """Personalizer's requests bring their actions and features of any shape, and rewards called
    `reward`.
    """
    if not content.get("personalizer"):
        return
    since = "since personalizer: true"
    for section in ("context", "action_features"):
        declared = {name: parts.get("type") for name, parts in content.get(section, {}).items()}
        if declared != {"features": "hashed"}:
            expected = f"features: {{type: hashed, size: 32}} and nothing else, {since}"
            hint = "its requests declare no features"
            at.key(section).wrong(Verbatim("other features"), expected, hint)
    if content.get("actions"):
        hint = "its requests bring their own"
        at.key("actions").wrong(Verbatim("actions"), f"[], {since}", hint)
    slots = content.get("slots", 1)
    if slots != 1:
        at.key("slots").wrong(slots, f"1, {since}", "multi-slot requests say their own slots")
    events = _objective_events(content)
    if events and "reward" not in events:
        expected = f"a metric of event reward, {since}"
        at.key("objective").wrong(Verbatim("no metric of it"), expected)


def _objective_events(content: Content) -> set[str | None]:
    """The events that the metrics of the objective are computed of."""
    objective = content.get("objective", {})
    events = set()
    for name, parts in content.get("metrics", {}).items():
        if name in objective:
            events.add(parts.get("event"))
    return events


def _variants(content: Content, raw: Content, at: Location) -> tuple[Variant, ...]:
    sections = content.get("variants", {})
    ids = [parts.get("id", "") for parts in content.get("actions", ())]
    variants = []
    for name, parts in sections.items():
        variant = _variant(name, parts, ids, at.key(name))
        if variant is not None:
            variants.append(variant)
            _check_earlier(variant, content.get("experiment"), at.key(name))
    # Of a variant that could not be read, nobody knows the share or whether it is the control.
    if sections and len(sections) == len(raw["variants"]):
        _check_control(sections, raw["variants"], at)
        _check_shares_of_controls(sections, at)
        _check_shares(sections, at)
    return tuple(variants)


def _check_control(variants: Content, raw: Content, at: Location) -> None:
    """One control; silent where a `control` was unreadable: that was told."""
    controls = [name for name, parts in variants.items() if parts.get("control")]
    readable = all(
        "control" in parts or "control" not in raw[name] for name, parts in variants.items()
    )
    if len(controls) != 1 and readable:
        got = f"{' and '.join(controls)} as controls" if controls else "no control"
        expected = "exactly one variant with control: true"
        at.wrong(Verbatim(got), expected, "the others are compared with it")


def _check_shares_of_controls(variants: Content, at: Location) -> None:
    """Some units see the control, or nothing can be compared with it."""
    for name, parts in variants.items():
        if parts.get("control") and parts.get("share") == 0.0:
            expected = "a share above 0%, since this is the control"
            at.key(name).key("share").wrong(Verbatim("0%"), expected)


def _check_shares(variants: Content, at: Location) -> None:
    """Shares sum to 100%; silent where one was unreadable, which was told."""
    if not all("share" in parts for parts in variants.values()):
        return
    # In whole millionths, since floats such as 0.1 and 0.2 don't sum to 0.3.
    millionths = sum(round(parts["share"] * 1_000_000) for parts in variants.values())
    if millionths != 1_000_000:
        total = percent(millionths / 1_000_000)
        shares = ", ".join(f"{name} {percent(parts['share'])}" for name, parts in variants.items())
        got = Verbatim(f"shares that sum to {total} ({shares[:200]})")
        at.wrong(got, "shares that sum to 100%")


def _variant(name: str, parts: Content, ids: Sequence[str], at: Location) -> Variant | None:
    # The name may stand for any policy; what its parameters mean only that policy knows.
    kind = parts.get("policy", DEFAULT_POLICY)
    min_probability = _min_probability(parts, kind, ids, at)
    _check_order(parts.get("order", ()), ids, at.key("order"))
    own = {key: value for key, value in parts.items() if key not in _COMMON}
    try:
        params = msgspec.convert(own, policy_class(kind).Params)
    except Exception as error:  # whatever a package's own checks raise
        # A missing parameter was told when the section was read; this is what only all of them
        # together can show.
        if "missing required field" not in str(error):
            at.wrong(Verbatim(str(error)), f"parameters that {kind} can work with")
        return None
    common = {key: parts[key] for key in ("control", "evaluable", "training") if key in parts}
    share = parts.get("share", 0.0)
    start = _start_from(parts, kind, at.key("start_from"))
    prior = _prior(parts, kind, params, at.key("prior"))
    least = min_probability
    return Variant(
        name, kind, params, share, min_probability=least, start_from=start, prior=prior, **common
    )


def _start_from(parts: Content, kind: str, at: Location) -> StartFrom | None:
    """Where a variant's policy starts; None where it says nothing, or after a problem."""
    start: Content | None = parts.get("start_from")
    if start is None or any(problem.path.startswith(at.path) for problem in at.problems):
        return None
    if kind in (*LEARNS_NOTHING, *WITHOUT_FEATURES):
        at.wrong(Verbatim(f"one of {kind}"), f"none: {kind} learns nothing it could start from")
        return None
    if ("snapshot" in start) == ("log" in start):
        both = Verbatim("both" if "log" in start else "neither of them")
        at.wrong(both, "one of snapshot (a trained policy's file) and log (an experiment's key)")
        return None
    if "log" in start and "until" not in start:
        at.key("until").wrong(
            Verbatim("nothing"),
            "the time before which decisions count, so that it starts from the same ever after",
            "for example until: 2026-03-02",
        )
    for key, of in (("until", "log"), ("sha256", "snapshot")):
        if key in start and of not in start:
            at.key(key).wrong(start[key], f"none without {of}")
    return StartFrom(**start)


def _prior(parts: Content, kind: str, params: msgspec.Struct, at: Location) -> PriorFrom | None:
    """Which experiments a variant's prior is from; None where it says none, or after a problem."""
    prior: Content | None = parts.get("prior")
    if prior is None or any(problem.path.startswith(at.path) for problem in at.problems):
        return None
    if not hasattr(policy_class(kind), "begin"):
        able = [name for name, policy in KINDS.items() if hasattr(policy, "begin")]
        expected = f"none, or a variant of {' or '.join(able)}"
        at.wrong(Verbatim(f"one of {kind}"), expected, "it has no prior of actions that it shares")
        return None
    # A disjoint model has no base rate that its actions share, and a linear link another scale.
    if getattr(params, "model", None) == "disjoint" or getattr(params, "link", None) == "linear":
        got = "model: disjoint" if getattr(params, "model", None) == "disjoint" else "link: linear"
        at.wrong(Verbatim(f"one of {got}"), "a logistic model that is hybrid or shared")
        return None
    if "start_from" in parts:
        at.wrong(Verbatim("both prior and start_from"), "one of them", "a log is told more of")
        return None
    return PriorFrom(prior["from"], prior.get("until", 0.0))


def _check_earlier(variant: Variant, key: str | None, at: Location) -> None:
    """No experiment is earlier than itself."""
    if variant.prior is not None and key in variant.prior.experiments:
        place = variant.prior.experiments.index(key)
        at.key("prior").key("from").item(place).wrong(key, "earlier experiments, not this one")


def _check_memory(
    variants: Sequence[Variant], context_size: int, action_size: int, actions: int, at: Location
) -> None:
    """No policy needs more memory than a machine has: the service would not start with it."""
    for variant in variants:
        # Policies that hold no covariances stay small.
        count = getattr(policy_class(variant.policy), "covariances", None)
        if count is None:
            continue
        numbers = count(variant.params, context_size, action_size, actions)
        if numbers > LARGEST_COVARIANCES:
            got = (
                f"{variant.policy} over {context_size:,} context numbers × {action_size:,} action "
                f"numbers and {actions:,} actions, which is {8 * numbers / 2**30:,.0f} GiB"
            )
            expected = f"at most {8 * LARGEST_COVARIANCES / 2**30:.0f} GiB"
            hint = "declare fewer keys, values or columns"
            at.key(variant.name).wrong(Verbatim(got), expected, hint)


def _min_probability(parts: Content, kind: str, ids: Sequence[str], at: Location) -> float:
    """A variant's least probability of any action: what it says, or what its policy needs so that
    its log can be evaluated.
    """
    evaluable = parts.get("evaluable", True)
    default = default_min_probability(kind, len(ids)) if evaluable else 0.0
    least: float = parts.get("min_probability", default)
    _check_min_probability(least, kind, evaluable, at)
    # At exactly 1 ÷ K all actions are equally probable; above, no probabilities would sum to 1.
    if ids and least * len(ids) > 1.0:
        most = percent(1 / len(ids))
        expected = f"at most {most}: one of {len(ids)} actions"
        at.key("min_probability").wrong(Verbatim(percent(least)), expected)
    return least


def _check_min_probability(least: float, kind: str, evaluable: bool, at: Location) -> None:
    """A deterministic policy explores only by it."""
    # The control's fixed order is what others are compared with; nobody evaluates from its log.
    needs_it = policy_class(kind).deterministic and kind != "fixed" and evaluable
    unreadable = at.has_problem("min_probability") or at.has_problem("floor")
    if needs_it and least == 0.0 and not unreadable:
        at.key("min_probability").wrong(
            Verbatim("nothing"),
            f"a min_probability above 0%, since {kind} is deterministic "
            "and its log could not be evaluated",
            "write min_probability: 2%, or evaluable: false to go without",
        )


def _check_order(order: Sequence[str], ids: Sequence[str], at: Location) -> None:
    """A fixed order names actions of the file, where the file has any."""
    actions = set(ids)
    # Without actions of its own the file can't tell: requests bring them.
    if not actions:
        return
    unknown = [(index, action) for index, action in enumerate(order) if action not in actions]
    for index, action in unknown[:_MOST_TOLD]:
        at.item(index).wrong(action, "the id of one of the actions", nearest(action, ids))
