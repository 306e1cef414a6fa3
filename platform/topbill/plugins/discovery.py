"""Which entry points the installed packages have, and the classes that they name."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, TypeVar

import msgspec

from topbill.domain.errors import PolicyError

POLICIES = "topbill.policies"
"""The group of entry points that name policies."""
SIGNALS = "topbill.signals"
"""The group of entry points that name candidate signals."""
_T = TypeVar("_T")


class InstalledEntry(NamedTuple):
    """An entry point, and the package that brings it, with its version: `acme-models 1.2`."""

    point: EntryPoint
    package: str


@cache
def installed(group: str) -> dict[str, InstalledEntry]:
    """The entry points of a group by name, as they were when this process first asked. Where two
    packages have one of the same name, the first by its package's name counts.
    """
    entries: dict[str, InstalledEntry] = {}
    for point in entry_points(group=group):
        package = "?" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        entry = InstalledEntry(point, package)
        known = entries.setdefault(point.name, entry)
        # Whatever order the folders of the path are listed in: every process takes the same one.
        if (package, point.value) < (known.package, known.point.value):
            entries[point.name] = entry
    return dict(sorted(entries.items()))


@cache
def load(group: str, name: str, base: type[_T]) -> type[_T]:
    """The class that the entry point `name` names. Raises PolicyError where it can't be loaded, or
    is no `base`.
    """
    point, package = installed(group)[name]
    try:
        loaded = point.load()
    except (Exception, SystemExit) as error:
        raise PolicyError(f"{package}: {point.value}: {type(error).__name__}: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise PolicyError(
            f"{package}: {point.value} is {_what(loaded)}; expected a class that extends "
            f"topbill.plugins.{base.__name__}"
        )
    return loaded


def checked_params(package: str, name: str, params: Any) -> type[msgspec.Struct]:
    """The class of a model's parameters. Raises PolicyError for one that no file can fill."""
    try:
        # Any other class has no fields, and a field that no file can say has no schema.
        msgspec.structs.fields(params)
        msgspec.json.schema(params)
    except (TypeError, ValueError) as error:
        why = f"{error}; expected a msgspec.Struct of fields that YAML can say"
        raise PolicyError(f"{package}: {name}: Params: {why}") from error
    found: type[msgspec.Struct] = params
    return found


def _what(thing: object) -> str:
    if isinstance(thing, type):
        return f"class {thing.__name__}"
    return f"a {type(thing).__name__}"
