"""What an experiment's tables say of the ids that a call names.

Features of the context are written into the decision, as if the call had sent them: there are a few
numbers of one viewer, and they are all that is needed to learn, to evaluate and to erase. Features
of actions are not, since a decision has hundreds of actions: it names the version of the table,
which is kept as long as a decision names it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from topbill.domain.entity import UNIT, EntitySource
from topbill.domain.errors import BadRequest
from topbill.domain.features import Encoder
from topbill.domain.records import Actions, EntityUse
from topbill.entities import EntityStore, EntityTable
from topbill.spec import Experiment

Tables: TypeAlias = tuple[tuple[EntitySource, EntityTable], ...]
"""Tables of actions, each in one version, in the order of the experiment's."""
NOTHING: Tables = ()
_AT_HAND = 4
"""Versions for which the experiment's own actions are kept encoded."""


class _OwnActions(NamedTuple):
    """Actions of a file, and the same with what tables say."""

    of: Actions
    actions: Actions
    uses: tuple[EntityUse, ...]


class EntityLookup:
    """Looks features up for one experiment.

    Attributes:
        sent_actions_encoder: Encodes what calls may say of actions: what no table gives.
    """

    def __init__(
        self, experiment: Experiment, tables: EntityStore, ignored: Iterable[str] = ()
    ) -> None:
        """`ignored`: features of actions that calls may send and that add nothing."""
        self._context, self._actions = experiment.context_entities, experiment.action_entities
        self._looked_up = experiment.looked_up
        self._tables = tables
        self.sent_actions_encoder = experiment.action_encoder
        if self._actions or ignored:
            self.sent_actions_encoder = Encoder(experiment.sent_action_features, ignored)
        self._own: OrderedDict[tuple[Any, ...], _OwnActions] = OrderedDict()

    @property
    def looks_up(self) -> bool:
        """Whether there is anything that tables say."""
        return bool(self._context or self._actions)

    # ------------------------------------------------------------------ context

    @property
    def has_context(self) -> bool:
        """Whether any table gives something to the context. Away from a data folder, in a
        simulation, none does, and what is known of a viewer comes with the call.
        """
        return bool(self._context) and self._tables.has_data

    def context(
        self, sent: Any, unit: str | None, path: str = "$.context"
    ) -> tuple[Any, tuple[EntityUse, ...]]:
        """The context with what is known by id, and what was looked up. An unknown id adds nothing.

        Args:
            sent: The context as it was sent.
            unit: The unit's id as it is stored; None where nobody asked for one.
            path: Where the context stands in the request.

        Raises:
            BadRequest: The call sends a feature that a table gives.
        """
        if not self.has_context or not isinstance(sent, dict):
            return sent, ()
        for name in sent:
            if name in self._looked_up:
                raise BadRequest(
                    f"{path}.{name}", "is looked up by id; expected it not to be sent: leave it out"
                )
        found: dict[str, Any] = {}
        uses = []
        for source in self._context:
            asked = unit if source.of == UNIT else sent.get(source.of)
            table = self._tables.current(source)
            if not isinstance(asked, str):
                uses.append(EntityUse(source.name, table.version))
                continue
            row = int(table.rows((asked,))[0])
            if row >= 0:
                found |= table.values(row)
            uses.append(EntityUse(source.name, table.version, 1, int(row < 0)))
        return {**sent, **found}, tuple(uses)

    # ------------------------------------------------------------------ actions

    def of_actions(self) -> Tables:
        """The tables of actions as they are now: taken once for a decision."""
        if not self._actions:
            return NOTHING
        return tuple([(source, self._tables.current(source)) for source in self._actions])

    def of_actions_at(self, uses: Iterable[EntityUse]) -> Tables:
        """The tables as a decision saw them. Raises MissingVersion."""
        if not self._actions:
            return NOTHING
        versions = {use.table: use.version for use in uses}
        tables = []
        for source in self._actions:
            # A decision that names no version was made before there was the table.
            tables.append((source, self._tables.at(versions.get(source.name, ""))))
        return tuple(tables)

    def own_actions(
        self, actions: Actions, tables: Tables
    ) -> tuple[Actions, tuple[EntityUse, ...]]:
        """The experiment's own actions with what these versions say of them: one object for each
        set of versions, so that policies can keep what they derive from it."""
        if not tables:
            return actions, ()
        key = (id(actions), *[table.version for _, table in tables])
        known = self._own.get(key)
        if known is None or known.of is not actions:
            # What tables give stands last, and is 0 as long as nobody looked.
            sent = self.sent_actions_encoder.size
            plain = Actions(actions.ids, actions.features[:, :sent])
            known = self._own[key] = _OwnActions(actions, *self.with_features(plain, tables))
            if len(self._own) > _AT_HAND:
                self._own.popitem(last=False)
        return known.actions, known.uses

    def with_features(
        self, actions: Actions, tables: Tables
    ) -> tuple[Actions, tuple[EntityUse, ...]]:
        """Actions, encoded by what calls say of them, with what tables say; and what was looked
        up."""
        if not tables:
            return actions, ()
        matrices = [actions.features]
        uses = []
        for source, table in tables:
            rows = table.rows(actions.ids)
            matrices.append(table.encoded(source.features)[rows])
            unknown = int(np.count_nonzero(rows < 0))
            uses.append(EntityUse(source.name, table.version, len(rows), unknown))
        together = np.concatenate(matrices, axis=1, dtype=np.float64)
        return Actions(actions.ids, together), tuple(uses)
