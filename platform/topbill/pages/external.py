"""Candidates and scores that a page's own team brings: in the request, by row and by title, or in a
table. Rules hold for them as for all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from topbill.candidates import RowSource
from topbill.catalog import Catalog
from topbill.domain.errors import BadRequest
from topbill.domain.suggestion import nearest
from topbill.pages.candidate_table import CandidateTable
from topbill.pages.request import PageRequest, ScoredTitle
from topbill.spec.fields import listed

_TOLD = 3
"""Ids that are told one by one."""
_DIGITS = 6
"""Significant digits of a score, for policies and in the log: more would be noise."""


class External(NamedTuple):
    """What a request, or a table, brings of one page's titles, by their rows in the catalogue.

    Attributes:
        rows: Row → its candidates, the highest score first and those without one last.
        scores: Title → its score in any row; `scores_in` says those that hold in one row only.
        notes: What was set aside.
    """

    rows: dict[str, tuple[int, ...]]
    scores: dict[int, float]
    scores_in: dict[str, dict[int, float]]
    notes: tuple[str, ...]

    def scores_of(self, row: str) -> Mapping[int, float]:
        """Title → its score in a row."""
        own = self.scores_in.get(row)
        return {**self.scores, **own} if own else self.scores

    def with_row(self, row: str, scores: Mapping[int, float]) -> External:
        """The same with a row's candidates, the highest score first."""
        own = {title: _rounded(score) for title, score in scores.items()}
        rows = {**self.rows, row: tuple(own)}
        return self._replace(rows=rows, scores_in={**self.scores_in, row: own})


NOTHING = External({}, {}, {}, ())


def external(
    request: PageRequest,
    sources: Mapping[str, RowSource],
    catalog: Catalog,
    tables: Mapping[str, CandidateTable],
) -> External:
    """What a request brings, as the catalogue knows it; and of rows for which it brings nothing,
    what a table has.

    Args:
        request: What was asked for, with the unit's id as services send it.
        sources: The page's rows.
        catalog: Its titles.
        tables: Row → its table of candidates, where it has one.

    Raises:
        BadRequest: It has candidates for a row that takes none.
    """
    takes = [row for row, source in sources.items() if source.source == "external"]
    lists = request.candidates or {}
    _refuse_other_rows(lists, takes)
    if not takes and not request.scores:
        return NOTHING
    index = catalog.index
    given = request.scores or {}
    scores = {index[title]: _rounded(score) for title, score in given.items() if title in index}
    notes = _set_aside("scores", [title for title in given if title not in index])
    rows: dict[str, tuple[int, ...]] = {}
    scores_in: dict[str, dict[int, float]] = {}
    for row in takes:
        candidates: Sequence[ScoredTitle] = lists.get(row, ())
        if row not in lists and row in tables:
            candidates = tables[row].of(request.unit)
        rows[row], scores_in[row] = _ranked(candidates, scores, index)
        unknown = [candidate.title for candidate in candidates if candidate.title not in index]
        notes += _set_aside(f"row {row}", unknown)
    return External(rows, scores, scores_in, tuple(notes))


def _refuse_other_rows(lists: Iterable[str], takes: Sequence[str]) -> None:
    """Raises BadRequest for candidates of a row that takes none."""
    for row in lists:
        if row not in takes:
            expected = (
                f"one of {listed(takes)}" if takes else "no candidates: no row has that source"
            )
            hint = nearest(row, takes)
            message = f"no row of source external; expected {expected}"
            raise BadRequest(f"$.candidates.{row[:64]}", f"{message}; {hint}" if hint else message)


def _ranked(
    candidates: Iterable[ScoredTitle], scores: Mapping[int, float], index: Mapping[str, int]
) -> tuple[tuple[int, ...], dict[int, float]]:
    """The candidates that the catalogue has, the highest score first and those without one last,
    and the score of each. One that is there twice has its higher score; `scores` are those of
    titles without one of their own.
    """
    own: dict[int, float] = {}
    in_turn: list[int] = []
    for candidate in candidates:
        title = index.get(candidate.title)
        if title is None:
            continue
        in_turn.append(title)
        score = scores.get(title) if candidate.score is None else _rounded(candidate.score)
        if score is not None:
            own[title] = max(score, own.get(title, score))
    # Sorting is stable: equal scores keep the order in which they came.
    in_turn.sort(key=lambda title: own.get(title, -math.inf), reverse=True)
    return tuple(dict.fromkeys(in_turn)), own


def _rounded(score: float) -> float:
    # Adding 0 turns -0.0 into 0.0: JSON would keep the sign.
    return float(f"{score:.{_DIGITS}g}") + 0.0


def _set_aside(where: str, unknown: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    names = ", ".join(unknown[:_TOLD]) + (", …" if len(unknown) > _TOLD else "")
    are = "id is" if len(unknown) == 1 else "ids are"
    return [f"{where}: {len(unknown)} {are} not in the catalogue and set aside: {names}"]
