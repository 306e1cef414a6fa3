"""Forms made of forms: lists, mappings, and the sections of a file with their keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from topbill.spec.forms import BAD, At, Choice, Form, Name, Said, Schema, Text, listed, nearest


@dataclass(frozen=True)
class ListOf:
    """A list → tuple."""

    form: Form
    most: int
    least: int = 0
    unique: bool = False

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, list):
            return at.wrong(value, "a list")
        if not self.least <= len(value) <= self.most:
            return at.wrong(value, f"a list of {self.least:,} to {self.most:,}")
        items = [self.form.read(item, at.item(i)) for i, item in enumerate(value)]
        if self.unique:
            first: dict[Any, int] = {}
            for i, item in enumerate(items):
                if item is not BAD and first.setdefault(item, i) != i:
                    at.item(i).wrong(item, f"every value once: it is at [{first[item]}] already")
        return BAD if any(item is BAD for item in items) else tuple(items)

    def schema(self) -> Schema:
        unique = {"uniqueItems": True} if self.unique else {}
        return {
            "type": "array",
            "items": self.form.schema(),
            "minItems": self.least,
            "maxItems": self.most,
        } | unique


@dataclass(frozen=True)
class MapOf:
    """A mapping from names of one's own to one form → dict of what could be read."""

    form: Form
    most: int
    least: int = 0
    name: Text = Name

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, "a mapping from name to value")
        if not self.least <= len(value) <= self.most:
            return at.wrong(value, f"a mapping of {self.least:,} to {self.most:,} names")
        items = {
            key: self.form.read(item, at.key(key))
            for key, item in value.items()
            if self.name.read(key, at.key(key)) is not BAD
        }
        return {key: item for key, item in items.items() if item is not BAD}

    def schema(self) -> Schema:
        names = {"propertyNames": self.name.schema()}
        sizes = {"minProperties": self.least, "maxProperties": self.most}
        return {"type": "object", "additionalProperties": self.form.schema()} | names | sizes


@dataclass(frozen=True)
class Key:
    """A key of a section: its form, what it is for, whether it must be there."""

    form: Form
    about: str
    required: bool = False


@dataclass(frozen=True)
class Section:
    """A mapping with fixed keys → dict of the keys that are there and could be read; BAD when it is
    no mapping. `renamed` says what a key of an older version is called today.
    """

    keys: Mapping[str, Key]
    renamed: Mapping[str, str] = field(default_factory=dict)

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, "a mapping with " + listed(self.keys))
        value, written = self._todays_names(value, at)
        missing = {name for name, key in self.keys.items() if key.required and name not in value}
        for name in [name for name in value if name not in self.keys]:
            hint = nearest(name, self.keys)
            missing -= {key for key in missing if hint == f"did you mean {key}?"}
            at.key(name[:64]).wrong(Said("an unknown key"), "one of " + listed(self.keys), hint)
        for name in [name for name in self.keys if name in missing]:
            at.key(name).wrong(
                Said("nothing"), "this key, which is required", self.keys[name].about
            )
        read = {
            name: key.form.read(value[name], at.key(written.get(name, name)))
            for name, key in self.keys.items()
            if name in value
        }
        return {name: item for name, item in read.items() if item is not BAD}

    def _todays_names(self, value: dict[str, Any], at: At) -> tuple[dict[str, Any], dict[str, str]]:
        """The mapping under today's names, after a problem for each old one; and by which old name
        a key was written.

        What stands at an old key is read as if it stood at the new one, so that the one mistake
        isn't followed by others that renaming would repair.
        """
        modern = dict(value)
        written: dict[str, str] = {}
        for old, name in self.renamed.items():
            if old not in value or name not in self.keys:
                continue
            at.key(old).wrong(
                Said("a key that has another name today"), name, f"write {name} instead of {old}"
            )
            item = modern.pop(old)
            if name not in value:
                modern[name] = item
                written[name] = old
        return modern, written

    def schema(self) -> Schema:
        return {
            "type": "object",
            "properties": {
                name: key.form.schema() | {"description": key.about}
                for name, key in self.keys.items()
            },
            "required": [name for name, key in self.keys.items() if key.required],
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Tagged:
    """A section whose keys depend on the word at `tag`, which may be left out where there is a
    `default`.
    """

    tag: str
    sections: Mapping[str, Section]
    about: str
    default: str = ""

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, f"a mapping with {self.tag} and more")
        if self.tag not in value and (
            slip := get_close_matches(self.tag, self._unknown(value), n=1)
        ):
            return at.key(slip[0]).wrong(
                Said("an unknown key"), self.tag, f"did you mean {self.tag}?"
            )
        word = value.get(self.tag, self.default)
        if word == "" and self.tag not in value:
            return at.key(self.tag).wrong(Said("nothing"), "one of " + listed(self.sections))
        if Choice(tuple(self.sections)).read(word, at.key(self.tag)) is BAD:
            return BAD
        rest = {name: item for name, item in value.items() if name != self.tag}
        section = self.sections[word]
        known = Section(
            {self.tag: Key(Choice(tuple(self.sections)), self.about), **section.keys},
            section.renamed,
        )
        return known.read({self.tag: word, **rest}, at)

    def _unknown(self, value: Mapping[str, Any]) -> list[str]:
        return [
            name
            for name in value
            if not any(name in section.keys for section in self.sections.values())
        ]

    def schema(self) -> Schema:
        def one(word: str, section: Section) -> Schema:
            schema = section.schema()
            schema["properties"] = {self.tag: {"const": word, "description": self.about}} | schema[
                "properties"
            ]
            schema["required"] = ([] if word == self.default else [self.tag]) + schema["required"]
            return schema

        return {"anyOf": [one(word, section) for word, section in self.sections.items()]}
