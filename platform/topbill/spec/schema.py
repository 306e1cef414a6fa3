"""What an experiment file may say: every key, what may stand there, and what it is for.

The loader and the JSON Schema (for completion in editors) both read these tables; policies add
their own parameters from their `Params`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from topbill.domain.embedding import LONGEST_UNPROJECTED
from topbill.domain.entity import MOST_NUMBERS
from topbill.domain.errors import PolicyError
from topbill.domain.features import LARGEST
from topbill.domain.metric import METRIC_KINDS, event_kinds
from topbill.domain.reading import METHODS
from topbill.domain.rewards import CLICK_MODELS
from topbill.domain.suggestion import nearest
from topbill.policies import KINDS, own_kinds, policy_class
from topbill.policies.onnx.texts import TOKENIZER_NAME
from topbill.policies.scored import MODEL_NAME
from topbill.policies.trained import SNAPSHOT_NAME
from topbill.spec import renames
from topbill.spec.alerts import EXPERIMENT_ALERTS
from topbill.spec.conclusion import CONCLUSION
from topbill.spec.fields import (
    DURATION,
    INVALID,
    PERCENT,
    Choice,
    Covariate,
    Duration,
    FeatureName,
    Flag,
    Id,
    Json,
    JsonSchema,
    Key,
    Level,
    ListOf,
    Location,
    MapOf,
    MarginField,
    Moment,
    Name,
    Number,
    Percent,
    Section,
    Tagged,
    Text,
    TimeZone,
    Values,
    listed,
    schema_document,
)
from topbill.spec.launch import LAUNCH
from topbill.spec.model import Status, Surface
from topbill.spec.unit_scope import has_day

DEFAULT_POLICY = "auto" if "auto" in KINDS else "thompson"
MAX_ACTIONS = 5000
_MEANS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "null": "nothing",
}
"""msgspec's words for types → a file's reader's."""


@dataclass(frozen=True)
class Param:
    """A policy's parameter, checked against the type that its `Params` declares.

    A number may be written as a percentage; one whose name ends in `_seconds` as a duration.
    """

    name: str
    type: Any

    @property
    def _shorthand(self) -> Duration | Percent | None:
        """How a number may be written besides as a number."""
        if float not in _leaves(self.type):
            return None
        return Duration() if self.name.endswith("_seconds") else Percent()

    def read(self, value: Any, at: Location) -> Any:
        shorthand = self._shorthand
        pattern = DURATION if isinstance(shorthand, Duration) else PERCENT
        if shorthand and isinstance(value, str) and re.fullmatch(pattern, value):
            value = shorthand.read(value, at)
            if value is INVALID:
                return INVALID
        # The policy's own type decides, with its bounds: nothing about parameters is said twice.
        try:
            return msgspec.convert(value, self.type)
        except msgspec.ValidationError as error:
            message = str(error)
        # Of a list msgspec names the item that is wrong: that one is the place, and the value.
        item = re.search(r"at `\$\[(\d+)\]`", message)
        if item and isinstance(value, list):
            index = int(item[1])
            at, value = at.item(index), value[index]
        expected = _meaning(message, self.type)
        if isinstance(shorthand, Duration):
            expected += ", in seconds, or a duration such as 7d"
        return at.wrong(value, expected, self._hint(value))

    def _hint(self, value: Any) -> str:
        if not isinstance(value, str):
            return ""
        if re.fullmatch(DURATION, value) and not isinstance(self._shorthand, Duration):
            return f"a duration goes into {self.name}_seconds, where the policy has it"
        words = [word for word in _leaves(self.type) if isinstance(word, str)]
        return nearest(value, words) if words else ""

    def schema(self) -> JsonSchema:
        schema = msgspec.json.schema(self.type)
        if self._shorthand is None:
            return schema
        return {"anyOf": [schema, self._shorthand.schema()]}


def _leaves(kind: Any) -> list[Any]:
    """The types of a union and the words of a Literal, inside annotations too."""
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) is Annotated:
        return _leaves(get_args(kind)[0])
    if get_origin(kind) not in (Union, UnionType):
        return [kind]
    leaves = []
    for part in get_args(kind):
        leaves += _leaves(part)
    return leaves


def _description(kind: Any) -> str:
    """What `Annotated[…, msgspec.Meta(description=…)]` says of itself."""
    for part in get_args(kind):
        if isinstance(part, msgspec.Meta) and part.description:
            return part.description
    return ""


def _meaning(message: str, kind: Any) -> str:
    """What msgspec expected, in words: "Expected `float` >= 0.0, got `str`" → "a number >= 0.0"."""
    if message.startswith("Invalid enum value"):
        return "one of " + ", ".join(str(word) for word in _leaves(kind) if isinstance(word, str))
    expected = re.sub(r"^Expected |, got .*$| - at .*$|`| \| null", "", message)
    expected = expected.replace(" | ", " or ")
    return re.sub(r"\w+", lambda word: _MEANS.get(word[0], word[0]), expected)


def _params(policy: str) -> dict[str, Key]:
    """A policy's own parameters as keys of a variant."""
    keys = {}
    for field in msgspec.structs.fields(policy_class(policy).Params):
        name = field.encode_name
        # A key of every variant would hide a parameter of the same name.
        if name not in _VARIANT:
            about = f"Parameter of {policy}: {_description(field.type)}."
            keys[name] = Key(Param(name, field.type), about, required=field.required)
    return keys


MOST_EARLIER = 1_000
"""Experiments that a prior may be estimated from."""
# What every variant may say, whatever its policy; the policy's own parameters stand beside it.
_VARIANT: dict[str, Key] = {
    "share": Key(
        Percent(), "Share of the experiment's units; all shares sum to 100%.", required=True
    ),
    "control": Key(Flag(), "true for the one variant that the others are compared with."),
    "min_probability": Key(
        Percent(),
        "The least probability that any action gets, so that other policies can be evaluated.",
    ),
    "evaluable": Key(
        Flag(),
        "false lets a deterministic policy run without a min_probability; nobody can evaluate from "
        "its log.",
    ),
    "training": Key(
        Choice(("own", "shared")),
        "Whose decisions it learns from: its own (default) or every variant's.",
    ),
    "start_from": Key(
        Section(
            {
                "snapshot": Key(
                    Text(
                        200,
                        SNAPSHOT_NAME,
                        "a file beside the experiment's, or in a folder beside it",
                    ),
                    "The file of a trained policy, as `topbill train --out` writes it, beside the "
                    "experiment's or in a folder beside it.",
                ),
                "sha256": Key(
                    Text(64, "[0-9a-f]{64}", "64 hexadecimal digits"),
                    "The SHA-256 that the snapshot's file must have.",
                ),
                "log": Key(Name, "The experiment of the same record whose log it learns first."),
                "until": Key(
                    Moment(),
                    "Of that log, the time before which decisions count (UTC unless it says "
                    "another zone).",
                ),
            }
        ),
        "What its policy has learned before its first decision: a snapshot, or a log.",
    ),
    "prior": Key(
        Section(
            {
                "from": Key(
                    ListOf(Name, MOST_EARLIER, 1, unique=True),
                    "Experiments of the same record that ended.",
                    True,
                ),
                "until": Key(
                    Moment(),
                    "The time before which their decisions count (UTC unless it says another "
                    "zone); by default those whose rewards were in when this experiment was first "
                    "read.",
                ),
            }
        ),
        "The earlier experiments that tell how much actions differ, and which features told.",
    ),
}

# The same bounds as for numbers in requests: their squares must still add up exactly enough.
_BOUND = Number(-LARGEST, LARGEST)
FEATURE = Tagged(
    "type",
    {
        "category": Section(
            {"values": Key(ListOf(Text(), 1000, 1, unique=True), "The values that may come.", True)}
        ),
        "number": Section(
            {
                "min": Key(_BOUND, "With max: scales to [-1, 1] and clips."),
                "max": Key(_BOUND, "With min: scales and clips."),
            }
        ),
        "cycle": Section(
            {
                "period": Key(
                    Number(0, LARGEST, above=True),
                    "After this it starts again: 24 for hours.",
                    True,
                )
            }
        ),
        "vector": Section(
            {"keys": Key(ListOf(Text(), 1000, 1, unique=True), "Its numbers' names.", True)}
        ),
        "flag": Section({}),
        "hashed": Section(
            {
                "size": Key(
                    Number(1, 4096, whole=True), "How many columns any JSON is hashed into.", True
                )
            }
        ),
        "text": Section(
            {
                "size": Key(
                    Number(1, 4096, whole=True),
                    "How many columns its words, and pairs of words, are hashed into; or to how "
                    "many numbers the encoder's vectors are projected.",
                    True,
                ),
                "encoder": Key(
                    Text(200, MODEL_NAME, "an ONNX file beside the experiment's"),
                    "A model that makes a vector of a text, in place of hashed words.",
                ),
                "tokenizer": Key(
                    Text(200, TOKENIZER_NAME, "a tokenizer.json beside the experiment's"),
                    "The tokenizer's file of an encoder that takes tokens.",
                ),
                "sha256": Key(
                    Text(64, "[0-9a-f]{64}", "64 hexadecimal digits"),
                    "The SHA-256 that the encoder must have.",
                ),
            }
        ),
        "embedding": Section(
            {
                "length": Key(
                    Number(1, 16_384, whole=True), "How many numbers each vector has.", True
                ),
                "dimension": Key(
                    Number(1, MOST_NUMBERS, whole=True),
                    "To how many numbers it is projected at random (default: its length, up to "
                    f"{LONGEST_UNPROJECTED}).",
                ),
            }
        ),
        "id": Section({}),
    },
    "What kind of feature it is.",
)
_COLUMN_NAME = Text(128)
ENTITY = Section(
    {
        "file": Key(
            Text(
                200,
                r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*",
                "a path below folder tables of the data folder, such as titles.parquet",
            ),
            "A Parquet, CSV or DuckDB file, or the folder of a Delta table, in folder tables of "
            "the data folder.",
            True,
        ),
        "table": Key(
            Text(130, r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", "the name of a table, or SCHEMA.TABLE"),
            "Of a DuckDB file: the table or view in it.",
        ),
        "key": Key(_COLUMN_NAME, "The column of the ids, each there once.", True),
        "of": Key(
            Name,
            "Whose ids they are: unit, action, or the name of a feature of the context of type id.",
            True,
        ),
        "features": Key(
            MapOf(FEATURE, 100, 1, name=Name),
            "The columns that are read, with their types as in context.",
            True,
        ),
    }
)
_BETTER = Key(
    Choice(("higher", "lower")),
    "Which direction is good: by default its weight's in the objective, else higher. What "
    "only a guardrail watches must say it.",
)
# `kind` comes from the table of metric kinds, so a kind that is added there can be written here.
_OF_EVENTS = Section(
    {
        "event": Key(
            Text(64, r"^[A-Za-z][A-Za-z0-9_.:-]*$", "an event name"),
            "The reward event it is computed of.",
            True,
        ),
        "kind": Key(Choice(METRIC_KINDS), "How the events of a decision become one number.", True),
        "window": Key(
            Duration(),
            "How long after the decision an event still counts.",
            True,
            unless=has_day,
        ),
        "day": Key(
            Number(1, 399, whole=True),
            "Of kind retention, in place of a window: on which day after the unit's first decision "
            "an event counts.",
        ),
        "cap": Key(
            Number(-1e12, 1e12),
            "The value of a decision that counts as 1 in the objective (default 1), above the "
            "floor; the report counts larger ones as it too.",
        ),
        "floor": Key(
            Number(-1e12, 1e12),
            "The value that counts as 0 in the objective (default 0): -1 where rewards go from -1 "
            "to 1.",
        ),
        "per": Key(
            Choice(("decision", "unit")),
            "What the report reads it of: each decision (default), or each unit, with the events "
            "of all its decisions together.",
        ),
        "scope": Key(
            Choice(("decision", "unit")),
            "What its events belong to: a decision (rewards, the default), or the unit, whatever "
            "was decided (POST /v1/event): those after its first decision count. Policies learn "
            "from decisions alone.",
        ),
        "default": Key(Number(-1e12, 1e12), "Its value where no event came (default 0)."),
        "winsorise": Key(
            Level(),
            "The quantile of all variants' values together above which the report counts values as "
            "it.",
        ),
        "better": _BETTER,
        "covariate": Key(
            Covariate(),
            "What a unit did before its first decision, to take noise out of comparisons (CUPED): "
            "how long to look back for the metric's own events (28d), or a number in context.",
        ),
    },
    renames.METRIC,
)
_COLUMN = Text(200)


def _has_sql(source: Mapping[str, Any]) -> bool:
    return "sql" in source


TABLE_SOURCE = Section(
    {
        "file": Key(
            Text(
                200,
                r"[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)*\.(parquet|csv|duckdb)",
                "a file in folder tables of the data folder: NAME.parquet, .csv or .duckdb",
            ),
            "A Parquet, CSV or DuckDB file in folder tables of the data folder.",
            True,
            unless=_has_sql,
        ),
        "sql": Key(
            Text(20_000, r"[\s\S]*\S[\s\S]*", "one SELECT over the lake's views"),
            "In place of a file: one SELECT over the lake's views (decisions, rewards, events, "
            "units …).",
        ),
        "table": Key(
            Text(130, r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", "the name of a table, or SCHEMA.TABLE"),
            "Of a DuckDB file: the table or view in it.",
        ),
        "unit": Key(
            _COLUMN,
            "The column of the units' ids, as services send them; of SQL unit, unless it says so.",
            True,
            unless=_has_sql,
        ),
        "value": Key(
            _COLUMN,
            "The column of numbers; left out where rows are counted; of SQL value, unless it says "
            "so.",
        ),
        "at": Key(
            _COLUMN,
            "The column of times or days: rows count after the unit's first decision. Left out: "
            "every row of a unit counts.",
        ),
    }
)
_OF_TABLE = Section(
    {
        "from": Key(
            TABLE_SOURCE, "The table of a warehouse, or the SQL, that it is computed of.", True
        ),
        **{name: key for name, key in _OF_EVENTS.keys.items() if name != "event"},
    },
    renames.METRIC,
)
_OF_METRICS = {
    "ratio": Section(
        {
            "kind": Key(Choice(METRIC_KINDS), "A ratio of two other metrics' totals.", True),
            "numerator": Key(Name, "The metric of this file whose total is divided.", True),
            "denominator": Key(Name, "The metric of this file that it is divided by.", True),
            "better": _BETTER,
        }
    ),
    "quantile": Section(
        {
            "kind": Key(Choice(METRIC_KINDS), "A quantile of another metric.", True),
            "of": Key(
                Name,
                "The metric of this file whose values it is taken of, where there was an event.",
                True,
            ),
            "q": Key(Level(), "Which quantile: 90% has 90% of the values below it.", True),
            "better": _BETTER,
        }
    ),
}
LIBRARY = "library"
"""What stands for a metric that the library of the folder defines."""


class MetricField:
    """A metric: of events, or of other metrics of the file."""

    def read(self, value: Any, at: Location) -> Any:
        if isinstance(value, str):
            hint = f"did you mean {LIBRARY}?" if value.casefold() in LIBRARY else ""
            return at.wrong(value, f"a mapping with {listed(_OF_EVENTS.keys)}, or {LIBRARY}", hint)
        kind = value.get("kind") if isinstance(value, dict) else None
        section = _OF_METRICS.get(kind, _OF_EVENTS) if isinstance(kind, str) else _OF_EVENTS
        if section is _OF_EVENTS and isinstance(value, dict) and "from" in value:
            section = _OF_TABLE
        return section.read(value, at)

    def schema(self) -> JsonSchema:
        sections = []
        for kinds, section in (
            (event_kinds(), _OF_EVENTS),
            (event_kinds(), _OF_TABLE),
            *(([kind], section) for kind, section in _OF_METRICS.items()),
        ):
            schema = section.schema()
            schema["properties"]["kind"]["enum"] = kinds
            sections.append(schema)
        about = "As metrics.yaml in this folder defines it."
        return {"anyOf": [*sections, {"const": LIBRARY, "description": about}]}


METRIC = MetricField()


ACTION = Section(
    {
        "id": Key(Id, "Its id, unique in the file.", True),
        "features": Key(MapOf(Json(), 200), "Values of the action_features."),
        "payload": Key(Json(), "What the caller needs to show it; returned as it is."),
    }
)
GUARDRAIL = Section(
    {
        "metric": Key(Name, "A metric that must not get worse.", True),
        "margin": Key(
            MarginField(),
            "How much worse is still acceptable: 10% of the control's value, 2pp (percentage "
            "points of a rate), or a number in the metric's own unit.",
            True,
        ),
        "better": Key(
            Choice(("higher", "lower")),
            "Which direction of the metric is good, where the metric does not say it itself.",
        ),
    },
    renames.GUARDRAIL,
)


class _PolicySections(Mapping[str, Section]):
    """One section a policy: a parameter of another policy is an unknown key, told with the nearest
    one. Packages are asked what they bring only where a file names what Topbill does not ship.
    """

    def __init__(self) -> None:
        self._shipped = {kind: _variant_section(kind) for kind in KINDS}

    def __getitem__(self, kind: str) -> Section:
        return self._shipped.get(kind) or _variant_section(kind)

    def __contains__(self, kind: object) -> bool:
        return kind in self._shipped or kind in own_kinds()

    def __iter__(self) -> Iterator[str]:
        yield from self._shipped
        yield from own_kinds()

    def __len__(self) -> int:
        return len(self._shipped) + len(own_kinds())


def _variant_section(kind: str) -> Section:
    documented = "the keys of a variant (docs/experiments.md) and the policy's (docs/policies.md)"
    return Section(_VARIANT | _params(kind), renames.VARIANT, documented)


class VariantField(Tagged):
    """A variant: a policy, its parameters, and what any variant may say."""

    def read(self, value: Any, at: Location) -> Any:
        kind = value.get("policy") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind not in KINDS:
            problem = _unusable(kind)
            if problem is not None:
                return at.key("policy").wrong(kind, *problem)
        return super().read(value, at)


def _unusable(kind: str) -> tuple[str, str] | None:
    """What was expected in place of a policy that Topbill does not ship, and a hint; None where an
    installed package brings it.
    """
    own = own_kinds()
    if kind not in own:
        brought = ", ".join(f"{name} ({package})" for name, package in own.items())
        known = f"one of {listed(KINDS)}"
        known += f"; of installed packages: {brought}" if brought else ""
        hint = nearest(kind, [*KINDS, *own])
        return known, hint or "no installed package brings it"
    try:
        policy_class(kind)
    except PolicyError as error:
        return f"a policy that can be loaded ({error})", "mend the package, or install another"
    return None


VARIANT = VariantField(
    "policy", _PolicySections(), "The policy that decides.", default=DEFAULT_POLICY
)
EXCLUDE = Section(
    {
        "context": Key(
            MapOf(Values(), 100, name=FeatureName),
            "Feature of the context to the value, or the values, of those who are left out.",
        ),
        "units": Key(ListOf(Text(256), 10_000, unique=True), "Units that are left out, by id."),
    }
)
OVERRIDE = Section(
    {
        "units": Key(ListOf(Text(256), 10_000, 1, unique=True), "Who sees it, by id.", True),
        "variant": Key(Name, "The variant that they see.", True),
    }
)
EXPERIMENT = Section(
    {
        "experiment": Key(
            Name, "Its key, unique among all files: the id that services send.", True
        ),
        "title": Key(Text(), "What people call it."),
        "owner": Key(Text(), "Who to ask."),
        "hypothesis": Key(
            Text(2000), "What you believe will happen, written before the data comes in."
        ),
        "surface": Key(
            Choice(get_args(Surface)),
            "What is decided: rows, titles in a row, or artwork of a title.",
            True,
        ),
        "unit": Key(
            Name,
            "What is randomised, for people to read. Left out: every decision is its own unit.",
        ),
        "time_zone": Key(
            TimeZone(),
            "In whose days reports and retention are counted, such as Europe/Berlin (default UTC).",
        ),
        "status": Key(
            Choice(get_args(Status)),
            "draft and stopped decide nothing; paused keeps its place (default running).",
        ),
        "traffic": Key(Percent(), "Share of its layer that takes part (default 100%)."),
        "personalizer": Key(
            Flag(),
            "true: it answers Azure Personalizer's HTTP API, at /personalizer/. One running file "
            "may.",
        ),
        "layer": Key(
            Name, "Experiments of one layer never share a unit (default: a layer of its own)."
        ),
        "holdout": Key(
            Percent(),
            "Share of units that is set aside: in no variant, they get the control's order, so "
            "that the whole of the experiment can be judged (default 0%).",
        ),
        "exclude": Key(
            EXCLUDE,
            "Who is not counted: bots, staff, test devices. They get the control's order.",
        ),
        "audience": Key(
            MapOf(Values(), 100, name=FeatureName),
            "Feature of the context to the value, or the values, of those whom it is for: all "
            "features have to fit. The others get the control's order.",
        ),
        "overrides": Key(
            MapOf(OVERRIDE, 20),
            "Testers: units that see a variant, even before it is running. What they do is never "
            "learned from nor counted.",
        ),
        "launch": Key(
            LAUNCH,
            "How it is launched: what its log says first, unseen, then step by step, and back when "
            "it harms. Left out: to all of its traffic at once.",
        ),
        "conclusion": Key(
            CONCLUSION,
            "How it ended: its report is kept as it stands, and everybody gets the winner.",
        ),
        "alerts": Key(
            EXPERIMENT_ALERTS,
            "Who is told of its alarms: kinds that are muted, channels of alerts.yaml.",
        ),
        "slots": Key(Number(1, 100, whole=True), "How many positions are filled (default 1)."),
        "context": Key(
            MapOf(FEATURE, 100, name=FeatureName),
            "Features of the viewer and the moment, sent with each request.",
        ),
        "action_features": Key(MapOf(FEATURE, 100, name=FeatureName), "Features of the actions."),
        "entities": Key(
            MapOf(ENTITY, 20),
            "Tables of features by id: calls name ids only, the features are looked up.",
        ),
        "actions": Key(
            ListOf(ACTION, MAX_ACTIONS),
            "What may be shown; [] when every request brings its own.",
            True,
        ),
        "metrics": Key(
            MapOf(METRIC, 50, 1),
            "What is computed of the reward events; `NAME: library` takes it from metrics.yaml.",
            True,
        ),
        "objective": Key(
            MapOf(Number(-1000, 1000), 50, 1),
            "Weight per metric: what policies learn to raise.",
            True,
        ),
        "guardrails": Key(ListOf(GUARDRAIL, 50), "Metrics that must not get worse."),
        "method": Key(
            Choice(METHODS),
            "How its result is read: at any look (sequential, the default), at one (fixed), at "
            "planned looks (group-sequential), or by credible intervals (bayes).",
        ),
        "looks": Key(
            ListOf(Percent(), 50, 1),
            "With method: group-sequential, the shares of the planned units at which one looks, "
            "the last being 100%.",
        ),
        "variants": Key(
            MapOf(VARIANT, 20, 1),
            "The variants of the A/B test: policies, and the share of units of each.",
            True,
        ),
        "feedback": Key(
            Choice(("item", "slate")),
            "Whether rewards belong to a shown item (default) or to the slate.",
        ),
        "click_model": Key(
            Choice(CLICK_MODELS),
            "At what viewers looked. independent: at everything (default). cascade: not below the "
            "last click. examined: where events seen say so.",
        ),
        "reward_delay": Key(
            Duration(),
            "Age at which a decision is learned (default: the objective's shortest window).",
        ),
        "refit": Key(
            Choice(("never", "daily")),
            "daily: learn the recent log again with late rewards (default never).",
        ),
        "learn_share": Key(
            Percent(),
            "Share of the decisions that policies learn from, drawn by their ids (default 100%): "
            "where more is decided than one worker can learn.",
        ),
        "budget_ms": Key(
            Number(0, 10_000, above=True),
            "Milliseconds a policy may take before the control steps in.",
        ),
    },
    renames.EXPERIMENT,
    "the keys of docs/experiments.md, which `topbill schema` prints",
)


METRIC_LIBRARY = Section({"metrics": Key(MapOf(METRIC, 500, 1), "Metrics by name.", True)})
"""What metrics.yaml, the library of a folder of experiments, may say."""


def json_schema() -> JsonSchema:
    """JSON Schema 2020-12 of an experiment file (its YAML read as JSON)."""
    about = (
        "One experiment on a streaming homepage: a surface, its actions, its variants, its metrics."
    )
    return schema_document("Topbill experiment", about, EXPERIMENT)


def library_schema() -> JsonSchema:
    """JSON Schema 2020-12 of metrics.yaml."""
    return schema_document("Topbill metrics", "Metrics of a folder's files.", METRIC_LIBRARY)
