"""Why a title stands where it stands on a stored page, or why it doesn't: which rule removed it,
and from where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.candidates import GIVEN
from topbill.domain.errors import NotFound
from topbill.domain.records import Decision
from topbill.domain.slate import choices
from topbill.pages.compiled import CompiledPage
from topbill.pages.viewer_rows import EXEMPT


def explain_title(
    compiled_page: CompiledPage,
    page: Decision,
    titles: Sequence[Decision],
    title: str,
    row_above: str | None = None,
) -> dict[str, Any]:
    """What the rules did with a title on a page, judged by the rules and the catalogue as they are
    now, at the page's own time.

    Args:
        compiled_page: The page file over its catalogue.
        page: The page's own decision.
        titles: The page's decisions of the layer titles, from top to bottom.
        title: Which title.
        row_above: The row of a page above in which it stands.

    Returns:
        `barred` names the rules that kept it off the whole page, `rows` says row by row what became
        of it.

    Raises:
        NotFound: The catalogue has no such title.
    """
    catalog = compiled_page.catalog
    index = catalog.index.get(title)
    if index is None:
        raise NotFound(f"title {title!r} is not in the catalogue {catalog.version}")
    facts = msgspec.json.decode(page.context)  # what CompiledPage.facts wrote
    barred = _barred_by(compiled_page, page, facts, index)
    boosts = compiled_page.boosts.at(page.decided_at / 1e6)
    boost = {} if boosts is None or not boosts[index] else {"boost": float(boosts[index])}
    made_of = facts.get("made_of", {})
    rows: list[dict[str, Any]] = []
    for decision in titles:
        outcome = _as_candidate(decision, title)
        if outcome is None:
            own = made_of.get(decision.place)
            reason = _why_absent(compiled_page, decision, index, row_above, barred, own)
            outcome = {"candidate": False, "because": reason}
        else:
            # It stands in a row for which such a rule makes an exception.
            barred = _holding(compiled_page, decision.place, barred)
        rows.append({"row": decision.place, **outcome, **_end(decision), **boost})
        # No title stands on a page twice: for the rows below, this is the reason.
        if "shown_at" in outcome:
            row_above = decision.place
    return {"page_id": page.decision_id, "title": title, "barred": barred, "rows": rows}


def _barred_by(
    compiled_page: CompiledPage, page: Decision, viewer: dict[str, Any], index: int
) -> list[str]:
    """The rules that kept a title off the whole page."""
    # Pages of 0.1 told only of those that were shown too often.
    resting = viewer.get("resting") or {"fatigue": viewer.get("tired", ())}
    allowed_by_rule = compiled_page.rules.allowed_by_rule(
        viewer["region"],
        viewer["age"],
        page.decided_at / 1e6,
        {rule: compiled_page.catalog.rows_of(titles) for rule, titles in resting.items()},
    )
    return [rule for rule, allowed in allowed_by_rule.items() if not allowed[index]]


def _as_candidate(decision: Decision, title: str) -> dict[str, Any] | None:
    """What became of a candidate; None for what was none."""
    if title not in decision.eligible:
        return None
    rules = _what_rules_did(decision, decision.eligible.index(title))
    for placement in decision.slate:
        if placement.action == title:
            return {
                "shown_at": placement.position,
                "propensity": placement.propensity,
                **rules,
            }
    return {"candidate": True, **rules}


def _end(decision: Decision) -> dict[str, Any]:
    """Where a row ended by chance: what one more title was expected to be worth, and its cost."""
    if not decision.stops or decision.stops[-1].position < len(decision.slate):
        return {}
    stop = decision.stops[-1]
    told = {"titles": stop.position, "one_more": stop.worth, "cost": stop.cost}
    return {"ended": {**told, "propensity": stop.probability}}


def _why_absent(
    compiled_page: CompiledPage,
    decision: Decision,
    index: int,
    row_above: str | None,
    barred: Sequence[str],
    own: Sequence[str] | None,
) -> str:
    """Why a title was not among a row's candidates: the first reason that composing would meet.
    `own` are the titles that the row was made of for this viewer alone, None for other rows.
    """
    if row_above is not None:
        return f"it stands in row {row_above} above"
    barred = _holding(compiled_page, decision.place, barred)
    if barred:
        return f"{barred[0]} bars it from the page"
    for row, pins in compiled_page.rules.pins.items():
        if row != decision.place and index in pins.values():
            return f"it is pinned in row {row}"
    catalog = compiled_page.catalog
    source = compiled_page.file.sources.get(decision.place)
    if source is None:
        return "the page has no such row any more"
    if own is not None:
        is_member = catalog.ids[index] in own
    else:
        model = compiled_page.candidate_model
        everything = model.popular_only(np.ones(len(catalog), dtype=bool), "")
        # What a viewer's own row was made of is told where it was a list.
        is_member = source.source not in GIVEN and index in everything.members(source)
    if not is_member:
        return "the row is not made of it"
    return "it was not among the candidates"


def _holding(compiled_page: CompiledPage, row: str, rules: Sequence[str]) -> list[str]:
    """Those of the rules that hold in a row."""
    source = compiled_page.file.sources.get(row)
    exempt = EXEMPT.get(source.source, ()) if source is not None else ()
    return [rule for rule in rules if rule not in exempt]


def _what_rules_did(decision: Decision, place: int) -> dict[str, Any]:
    """The positions at which the title could be drawn, and at which a rule kept it out."""
    slate = [decision.eligible.index(placement.action) for placement in decision.slate]
    could_stand_at: list[int] = []
    for position in range(len(slate)):
        above = slate[:position]
        if place in choices(decision.masks, len(decision.eligible), position, above):
            could_stand_at.append(position)
    # An `only` mask keeps out what it doesn't list, any other one what it lists.
    kept_out_by = [
        {"rule": mask.rule, "positions": [mask.start, mask.stop - 1]}
        for mask in decision.masks
        if (place in mask.rows) != mask.only
    ]
    return {"could_stand_at": could_stand_at, "kept_out_by": kept_out_by}
