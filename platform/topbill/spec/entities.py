"""What an experiment file says of its tables of features by id, `entities`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from topbill.domain.entity import ACTION, MOST_NUMBERS, UNIT, EntitySource
from topbill.domain.features import Feature
from topbill.domain.suggestion import nearest
from topbill.domain.table_source import DATABASES
from topbill.spec.fields import Location, Verbatim, listed

Content = Mapping[str, Any]
_FILES = (".parquet", ".csv", *DATABASES)


def read_entities(
    content: Content, features: Callable[[Content, Location], tuple[Feature, ...]], at: Location
) -> tuple[EntitySource, ...]:
    """The tables, after noting what is wrong with them.

    Args:
        content: What could be read of the file.
        features: Reads a mapping of features.
        at: The file's place.
    """
    sources = []
    context, actions = content.get("context", {}), content.get("action_features", {})
    _check_ids(actions, at.key("action_features"))
    # Which table, or part of the file, a feature's name is of.
    owners = {
        False: dict.fromkeys(context, "context"),
        True: dict.fromkeys(actions, "action_features"),
    }
    for name, parts in content.get("entities", {}).items():
        where = at.key("entities").key(name)
        _check_of(parts, content, where)
        _check_file(parts, where)
        own = features(parts.get("features", {}), where.key("features"))
        _check_features(name, own, owners[parts.get("of") == ACTION], where.key("features"))
        # What could not be read of it was told, and then there is no experiment.
        if {"file", "key", "of"} <= parts.keys():
            given = {key: parts[key] for key in ("file", "key", "of", "table") if key in parts}
            sources.append(EntitySource(name, features=own, **given))
    return tuple(sources)


def features_of(sources: tuple[EntitySource, ...], *, is_actions: bool) -> tuple[Feature, ...]:
    """The features that tables give to the actions, or to the context."""
    found: list[Feature] = []
    for source in sources:
        if (source.of == ACTION) == is_actions:
            found += source.features
    return tuple(found)


def with_looked_up(content: Content) -> Content:
    """The content with what tables give to the context among its features: a metric's covariate, or
    who is excluded, may be said by it."""
    context = dict(content.get("context", {}))
    for parts in content.get("entities", {}).values():
        if parts.get("of") != ACTION:
            context |= parts.get("features", {})
    return {**content, "context": context}


def _check_ids(actions: Content, at: Location) -> None:
    for name, parts in actions.items():
        if parts.get("type") == "id":
            expected = "another type: an action's own id is what tables of actions are looked up by"
            at.key(name).key("type").wrong("id", expected)


def _check_of(parts: Content, content: Content, at: Location) -> None:
    """Whose ids they are is known of each call."""
    if "of" not in parts:
        return
    of = parts["of"]
    context = content.get("context", {})
    ids = [name for name, feature in context.items() if feature.get("type") == "id"]
    if of == UNIT and "unit" not in content and not at.has_problem("unit"):
        expected = "a unit: in this file, by whose ids its table is looked up"
        at.key("of").wrong(UNIT, expected, "for example unit: profile_id")
    elif of not in (UNIT, ACTION, *ids):
        words = [UNIT, ACTION, *ids]
        expected = f"one of {listed(words)}, or a feature of the context of type id"
        at.key("of").wrong(of, expected, nearest(of, words))


def _check_file(parts: Content, at: Location) -> None:
    if "file" not in parts:
        return
    file = parts["file"]
    is_database = file.endswith(DATABASES)
    last = file.rpartition("/")[2]
    if "." in last and not file.endswith(_FILES):
        expected = f"a file ending in {listed(_FILES)}, or the folder of a Delta table"
        at.key("file").wrong(file, expected)
    elif is_database and "table" not in parts and not at.has_problem("table"):
        at.key("table").wrong(Verbatim("nothing"), "the table of the database", "table: titles")
    elif not is_database and "table" in parts:
        at.key("table").wrong(parts["table"], f"no table, since {file} is one itself")


def _check_features(
    name: str, features: tuple[Feature, ...], owners: dict[str, str], at: Location
) -> None:
    numbers = 0
    for feature in features:
        owner = owners.setdefault(feature.name, f"entities.{name}")
        if owner != f"entities.{name}":
            expected = f"a name of its own: {owner} has this one already"
            at.key(feature.name).wrong(Verbatim("a name"), expected)
        if feature.kind in ("hashed", "id"):
            expected = "category, number, cycle, vector, flag, text or embedding"
            at.key(feature.name).key("type").wrong(feature.kind, expected)
        numbers += len(feature.columns)
    if numbers > MOST_NUMBERS:
        expected = f"at most {MOST_NUMBERS} of one table"
        at.wrong(Verbatim(f"features of {numbers:,} numbers"), expected, "project its embeddings")
