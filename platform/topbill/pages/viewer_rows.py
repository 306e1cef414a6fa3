"""Rows that are made of what each viewer did: what one began, wants to watch, has watched, and what
is like a title that one liked. Which titles those are on one page, and why a row has none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np

from topbill.candidates import CandidateModel, RowSource
from topbill.catalog import Bools, Catalog
from topbill.domain.records import Indices
from topbill.pages.viewing_history import KnownViewer

EXEMPT: Mapping[str, frozenset[str]] = {
    "unfinished": frozenset({"fatigue"}),
    "list": frozenset({"fatigue"}),
    "again": frozenset({"seen"}),
}
"""Source → the rules that do not hold in its rows: what viewers put there themselves does not tire
them, and what was watched is what `again` is for.
"""
KEPT = frozenset({"unfinished", "list", "again", "external"})
"""Sources whose first titles rows above leave alone: the viewer knows of them, or the team that
brings them means them to stand there.
"""
MOST_OWN = 500
"""Titles that such a row is made of at most, the latest ones: each page's log has them."""
_OF_VIEWERS = frozenset({"fatigue", "seen"})
"""Rules that say when a title is shown, not whether the viewer may see it."""
_NONE: Mapping[str, str] = {
    "trending": "nothing that may be shown to this viewer is trending",
    "new": "nothing that may be shown to this viewer is new",
    "similar": "nothing is like what this viewer watched",
    "watched": "nothing was watched together with what this viewer watched",
    "unfinished": "this viewer has begun nothing that is unfinished",
    "list": "this viewer's list is empty",
    "again": "this viewer has watched nothing so long ago",
    "external": "there is no candidate for this viewer that the catalogue has",
}
_encode = msgspec.json.Encoder().encode


def own_titles(
    sources: Mapping[str, RowSource],
    catalog: Catalog,
    known: KnownViewer,
    again_after: float,
    just_watched: Collection[str],
) -> dict[str, tuple[int, ...]]:
    """Row → what it is made of for a viewer, before any rule, first choice first; rows of other
    sources are left out.

    Args:
        sources: The page's rows.
        catalog: Its titles.
        known: What is known of the viewer.
        again_after: Seconds after which a watched title may come again, where a row doesn't say it.
        just_watched: What the request says to have been watched.
    """
    own: dict[str, tuple[int, ...]] = {}
    for row, source in sources.items():
        if source.source == "unfinished":
            titles = [title for title, age in known.unfinished if age < source.within]
        elif source.source == "list":
            titles = list(known.listed)
        elif source.source == "again":
            after = again_after if source.after is None else source.after
            long_ago = [each for each in known.finished if each[1] >= after]
            titles = [title for title, _ in sorted(long_ago, key=itemgetter(1))]
        else:
            continue
        if source.source != "list":
            titles = [title for title in titles if title not in just_watched]
        own[row] = tuple(catalog.rows_of(titles)[:MOST_OWN])
    return own


def holding_in(source: RowSource, allowed_by_rule: Mapping[str, Bools]) -> dict[str, Bools]:
    """What each rule lets through, (T,) each, of the rules that hold in a row of that source."""
    exempt = EXEMPT.get(source.source, frozenset())
    return {rule: mask for rule, mask in allowed_by_rule.items() if rule not in exempt}


def keeps_titles(source: RowSource, members: int, count: int) -> bool:
    """Whether rows above leave alone the first titles of a row of that source, which is made of so
    many and shows `count`. Where there are few, they would leave it empty.
    """
    if source.source in KEPT:
        return True
    return members <= count and (source.source == "because" or source.by_region)


class ViewerRows:
    """The viewer's own rows of one page, under its rules.

    Attributes:
        members: Source → its titles, first choice first.
        seeds: Row → the title that the viewer liked and that the row is about.
    """

    def __init__(
        self,
        sources: Mapping[str, RowSource],
        own: Mapping[str, Sequence[int]],
        liked: Sequence[int],
        allowed_by_rule: Mapping[str, Bools],
    ) -> None:
        """`own` is what `own_titles` says; `liked` are titles that the viewer liked, the last one
        first.
        """
        self._sources, self._own, self._allowed_by_rule = sources, own, allowed_by_rule
        self.members: dict[RowSource, Indices] = {}
        for row, titles in own.items():
            allowed = reduce(np.logical_and, holding_in(sources[row], allowed_by_rule).values())
            listed = np.array(titles, dtype=np.intp)
            self.members[sources[row]] = listed[allowed[listed]]
        # A heading names the seed: so it must be a title that the viewer may be shown.
        masks = [mask for rule, mask in allowed_by_rule.items() if rule not in _OF_VIEWERS]
        may_see = reduce(np.logical_and, masks)
        named = [title for title in liked if may_see[title]]
        self.seeds: dict[str, int] = {}
        for row, source in sources.items():
            if source.source == "because" and source.seed < len(named):
                self.seeds[row] = named[source.seed]

    def add_alike(self, model: CandidateModel, allowed: Bools) -> None:
        """What is like each seed, of the allowed titles."""
        for row, title in self.seeds.items():
            self.members[self._sources[row]] = model.like(title, allowed)

    def why_none(self, row: str, catalog: Catalog) -> str:
        """Why a row has no title."""
        source = self._sources[row].source
        if self._own.get(row):
            own = list(self._own[row])
            rules = holding_in(self._sources[row], self._allowed_by_rule).items()
            barring = [rule for rule, allowed in rules if not allowed[own].all()]
            reason = f"rules keep all {len(own)} of its titles away: {', '.join(barring)}"
        elif source == "because" and row in self.seeds:
            reason = f"nothing is like {catalog.names[self.seeds[row]]}"
        elif source == "because":
            reason = "this viewer has liked too few titles that a heading may name"
        else:
            reason = _NONE.get(source, "none of its titles may be shown to this viewer")
        return f"row {row}: {reason}"


def about(payload: msgspec.Raw, seed: str, name: str) -> msgspec.Raw:
    """A row's payload with the title that the row is about: `{title}` in any of its texts is the
    title's name, and an object has both as `because`.
    """
    content = _filled(msgspec.json.decode(payload), name)
    if content is None:
        content = {}
    if isinstance(content, dict):
        content["because"] = {"id": seed, "title": name}
    return msgspec.Raw(_encode(content))


def _filled(content: Any, name: str) -> Any:
    if isinstance(content, str):
        return content.replace("{title}", name)
    if isinstance(content, list):
        return [_filled(item, name) for item in content]
    if isinstance(content, dict):
        return {key: _filled(value, name) for key, value in content.items()}
    return content
