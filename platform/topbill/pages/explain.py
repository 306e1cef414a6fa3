"""Why a title stands where it stands on a stored page, or why it doesn't: which rule removed it,
and from where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import NotFound
from topbill.domain.records import Decision
from topbill.domain.slate import choices
from topbill.pages.compiled import CompiledPage


def explain_title(
    compiled_page: CompiledPage, page: Decision, titles: Sequence[Decision], title: str
) -> dict[str, Any]:
    """What the rules did with a title on a page: `barred` names those that kept it off the whole
    page, `rows` says row by row what became of it. `titles` are the page's decisions of that layer.

    Judged by the rules and the catalogue as they are now, at the page's own time. Raises NotFound
    for a title that the catalogue doesn't have.
    """
    catalog, index = compiled_page.catalog, compiled_page.catalog.index.get(title)
    if index is None:
        raise NotFound(f"title {title!r} is not in the catalogue {catalog.version}")
    facts = msgspec.json.decode(page.context)
    tired = [catalog.index[name] for name in facts["tired"] if name in catalog.index]
    lets = compiled_page.rules.allowed_by_rule(
        facts["region"], facts["age"], page.decided_at / 1e6, tired
    )
    barred = [rule for rule, let in lets.items() if not let[index]]
    rows = []
    above: str | None = None
    for decision in titles:
        found = _drawn(decision, title) or {
            "candidate": False,
            "because": _absent(compiled_page, decision, index, above, barred),
        }
        rows.append({"row": decision.place, **found})
        if "shown_at" in found:
            above = decision.place
    return {"page_id": page.decision_id, "title": title, "barred": barred, "rows": rows}


def _drawn(decision: Decision, title: str) -> dict[str, Any] | None:
    """What became of a candidate; None for what was none."""
    if title not in decision.eligible:
        return None
    told = _rules(decision, decision.eligible.index(title))
    shown = next((p for p in decision.slate if p.action == title), None)
    return (
        {"candidate": True, **told}
        if shown is None
        else {"shown_at": shown.position, "propensity": shown.propensity, **told}
    )


def _absent(
    compiled_page: CompiledPage,
    decision: Decision,
    index: int,
    above: str | None,
    barred: Sequence[str],
) -> str:
    """Why a title was not among a row's candidates."""
    if above is not None:
        return f"it stands in row {above} above"
    if barred:
        return f"{barred[0]} bars it from the page"
    pins = compiled_page.rules.pins
    if pinned := next(
        (row for row, held in pins.items() if index in held.values() and row != decision.place),
        None,
    ):
        return f"it is pinned in row {pinned}"
    everything = compiled_page.candidate_model.popular_only(
        np.ones(len(compiled_page.catalog), dtype=bool), ""
    )
    if index not in everything.members(compiled_page.file.sources[decision.place]):
        return "the row is not made of it"
    return "it was not among the candidates"


def _rules(decision: Decision, place: int) -> dict[str, Any]:
    """The positions at which the title could be drawn, and at which a rule kept it out."""
    rows = [decision.eligible.index(p.action) for p in decision.slate]
    could = [
        k
        for k in range(len(rows))
        if place in choices(decision.masks, len(decision.eligible), k, rows[:k])
    ]
    kept_out = [
        {"rule": mask.rule, "positions": [mask.start, mask.stop - 1]}
        for mask in decision.masks
        if (place in mask.rows) != mask.only
    ]
    return {"could_stand_at": could, "kept_out_by": kept_out}
