"""Whose row of a foreign log it is and of which variant, where fields of the log's own say so: the
export of an A/B test that ran elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from topbill.domain.errors import BadData
from topbill.domain.records import Decision
from topbill.domain.suggestion import nearest
from topbill.formats.rows import ReadNotes, Row, text_of
from topbill.spec import Experiment
from topbill.spec.fields import NAME, listed

ACTION = "action"
"""Names what was shown, where no field is called so: in a plain A/B test each arm is an action."""
MOST_VARIANTS = 20
"""Different values of a field that may say the variant; one with more is an id or a measurement."""
_WITHOUT = {"variant": "rows without a variant", "unit": "rows without a unit"}
_UNKNOWN = "rows of a variant that the file does not have"
_PREFIXES = ("c.shared.", "c.", "shared.")
"""How people write where a context's field stands in a line of dsjson."""
_NO_FEATURES = ("_multi", "_slots")


class AssignmentFields:
    """Takes variant and unit of rows from the fields that a caller named."""

    def __init__(
        self, variant: str | None, unit: str | None, experiments: Sequence[Experiment]
    ) -> None:
        """A field is one of the context or of the line: `group`, `user.plan`, `EventId`.

        Args:
            variant: The field that says the variant; None: what the format says.
            unit: The field that says the unit; None: what the format says.
            experiments: Those with a file, whose variants are the ones that there may be.
        """
        self._variant, self._unit = variant, unit
        self._experiments = {experiment.key: experiment for experiment in experiments}
        # Experiment → a value of the log → the variant that it is.
        self._variants: dict[str, dict[str, str]] = {}
        self._seen: set[str] = set()
        self._of_actions = False

    def read(self, rows: Iterator[Row], notes: ReadNotes) -> Iterator[Row]:
        """The rows with variant and unit; those that lack one are left out as `notes` allow.

        Raises:
            BadData: Naming the row that says no variant or no unit, or one that cannot be.
        """
        if self._variant is None and self._unit is None:
            yield from rows
            return
        last: BadData | None = None
        for number, row in enumerate(rows):
            where = f"line {notes.line}" if notes.line else f"row {number}"
            try:
                read = self._assigned(row, _Fields(row[0], notes.content), where)
            except _LeftOut as left_out:
                last = left_out.error
                notes.leave_out(left_out.reason, last)
                continue
            yield read
        # A name that no row knows is a mistake, however many rows may be left out.
        if last is not None and not {self._variant, self._unit} - {None} <= self._seen:
            raise last

    def _assigned(self, row: Row, fields: _Fields, where: str) -> Row:
        decision, events = row
        changes: dict[str, Any] = {}
        if self._unit is not None:
            changes["unit"] = self._value(fields, self._unit, "unit", where)
        if self._variant is not None:
            value = self._value(fields, self._variant, "variant", where)
            changes["variant"] = self._variant_of(decision.experiment, value, where)
            # Revisions say what the variants of their own log were.
            changes["revision"] = ""
            if self._variant == ACTION and fields.shown_is_variant:
                changes |= _certain(decision)
                self._of_actions = True
        # As features they would tell the report's segments and models what they are to find out.
        context = fields.context_without([self._variant, self._unit])
        changes["context"] = msgspec.Raw(msgspec.json.encode(context))
        unit = changes.get("unit")
        if unit == decision.decision_id:
            # The id is the viewer's, who may come again. Told apart by what the row says, the same
            # row twice is still the same.
            content = msgspec.json.encode(row)
            changes["decision_id"] = f"{unit}-{blake2b(content, digest_size=8).hexdigest()}"
            name = changes["decision_id"]
            events = [msgspec.structs.replace(event, decision_id=name) for event in events]
        return msgspec.structs.replace(decision, **changes), events

    def _value(self, fields: _Fields, name: str, role: str, where: str) -> str:
        """A field's value as text; what is missing, null or empty is none."""
        value = fields.get(name)
        if value is None or value == "":
            hint = nearest(name, fields.names())
            raise _LeftOut(
                _WITHOUT[role],
                BadData(
                    where,
                    f"got no {name!r}, which is to say the {role}; there are "
                    f"{listed(fields.names())}{hint and f'; {hint}'}; or leave such rows out "
                    "with --skip-bad",
                ),
            )
        self._seen.add(name)
        if isinstance(value, list | dict):
            raise BadData(where, f"got a {type(value).__name__} as {name!r}; expected a text")
        if isinstance(value, bool):
            return "true" if value else "false"
        return text_of(value)

    def _variant_of(self, key: str, value: str, where: str) -> str:
        """The variant that a value is of: the file's, where there is one, else a name for it."""
        known = self._variants.setdefault(key, {})
        if value not in known:
            experiment = self._experiments.get(key)
            if experiment is not None:
                known[value] = self._declared_variant(experiment, value, where)
            else:
                known[value] = self._new_variant(known, value, where)
        return known[value]

    def _declared_variant(self, experiment: Experiment, value: str, where: str) -> str:
        names = [variant.name for variant in experiment.variants]
        for name in (value, _name_for(value)):
            if name in names:
                return name
        if self._variant == ACTION:
            # `fixed` with this action first is the variant that shows it.
            of_action = [
                variant.name
                for variant in experiment.variants
                if getattr(variant.params, "order", [])[:1] == [value]
            ]
            if len(of_action) == 1:
                return of_action[0]
        hint = nearest(value, names)
        raise _LeftOut(
            _UNKNOWN,
            BadData(
                where,
                f"got variant {value!r}; expected one that {experiment.source or experiment.key} "
                f"has: {listed(names)}{hint and f'; {hint}'}; call them alike",
            ),
        )

    def _new_variant(self, known: Mapping[str, str], value: str, where: str) -> str:
        if len(known) >= MOST_VARIANTS:
            raise BadData(
                where,
                f"got {value!r}, the {MOST_VARIANTS + 1}st value of {self._variant!r}; expected a "
                f"field that says the variant, of which there are at most {MOST_VARIANTS}",
            )
        name = _name_for(value) or f"variant-{len(known) + 1}"
        for other, taken in known.items():
            if taken == name:
                raise BadData(
                    where,
                    f"got variants {other!r} and {value!r}, which would both be called {name!r}; "
                    "expected names that differ in letters and digits",
                )
        return name

    def remarks(self) -> list[str]:
        """A sentence for each variant that is not called as its log calls it, and one on what the
        import is not for.
        """
        sentences = []
        for key, known in self._variants.items():
            for value, name in known.items():
                if value != name:
                    sentences.append(f"{key}: {value!r} is variant {name}")
        if self._of_actions:
            sentences.append(
                "each variant shows its action with probability 1; to evaluate policies on this "
                "log, import it without --variant, into another folder"
            )
        return sentences


class _LeftOut(Exception):
    """A row that cannot be counted, and why; `error` is for where none may be left out."""

    def __init__(self, reason: str, error: BadData) -> None:
        super().__init__(reason)
        self.reason, self.error = reason, error


class _Fields:
    """The fields of a row by name: those of the context, of the line, and what was shown."""

    def __init__(self, decision: Decision, content: bytes) -> None:
        self._context: dict[str, Any] = msgspec.json.decode(decision.context)
        line = msgspec.json.decode(content) if content else {}
        self._line: dict[str, Any] = line if isinstance(line, dict) else {}
        shown = [placed.action for placed in decision.slate]
        self._shown = {ACTION: shown[0]} if len(shown) == 1 else {}
        # Read before anything is taken out of the context.
        self.shown_is_variant = bool(self._shown) and self.get(ACTION) is shown[0]

    def get(self, name: str) -> Any:
        """The field's value; None where there is none."""
        for mapping, path in (
            (self._context, _path(name)),
            (self._line, name.split(".")),
            (self._shown, [name]),
        ):
            value = _at(mapping, path)
            if value is not None:
                return value
        return None

    def names(self) -> list[str]:
        """What there is, for messages."""
        line = {name: value for name, value in self._line.items() if not isinstance(value, list)}
        line.pop("c", None)
        names = [*_leaves(self._context, ""), *_leaves(line, ""), *self._shown]
        return list(dict.fromkeys(names))

    def context_without(self, names: Sequence[str | None]) -> dict[str, Any]:
        """The context's features but these."""
        for name in names:
            *outer, last = _path(name or "")
            mapping = _at(self._context, outer) if outer else self._context
            if isinstance(mapping, dict):
                mapping.pop(last, None)
        return self._context


def _certain(decision: Decision) -> dict[str, Any]:
    """What was drawn was the variant, and that shows its action always: the propensities of the
    log are the variant's share."""
    (placed,) = decision.slate
    row = tuple(float(name == placed.action) for name in decision.eligible)
    return {
        "slate": (msgspec.structs.replace(placed, propensity=1.0),),
        "propensity": 1.0,
        "probabilities": (row,),
    }


def _path(name: str) -> list[str]:
    """The way to a context's field, by whatever name people call it."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).split(".")
    return name.split(".")


def _at(mapping: Any, path: Sequence[str]) -> Any:
    """What stands at a path; names may hold dots, and joiners wrap namespaces in lists of one."""
    if isinstance(mapping, list) and len(mapping) == 1:
        mapping = mapping[0]
    if not path:
        return mapping
    if not isinstance(mapping, dict):
        return None
    whole = ".".join(path)
    if whole in mapping:
        return mapping[whole]
    return _at(mapping[path[0]], path[1:]) if path[0] in mapping else None


def _leaves(mapping: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """The names of what stands in a mapping, `outer.inner` for what is nested."""
    for name, value in mapping.items():
        inner = _at(value, ())
        if isinstance(inner, dict) and name not in _NO_FEATURES:
            yield from _leaves(inner, f"{prefix}{name}.")
        elif not isinstance(inner, dict):
            yield prefix + name


def _name_for(value: str) -> str:
    """A variant's name made of a value; empty where nothing of it can stand in a name."""
    if re.fullmatch(NAME, value):
        return value
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", value).strip("-_")
    if name and not name[0].isalpha():
        name = f"variant-{name}"
    return name[:64].rstrip("-_")
