"""What each word on the pages means, in a sentence for people: of numbers and charts, of tables'
columns, and of how a decision came about. The words stand in Topbill's `domain/terms.yaml`.
"""

from __future__ import annotations

from topbill.domain.terms import load_terms

_TERMS = load_terms()
TERMS = _TERMS.meanings()
"""Of numbers, charts and headings."""
COLUMNS = _TERMS.columns
"""Of tables' columns; a column that is not here is a name of the experiment's own, such as a
metric.
"""
ENDED = _TERMS.reasons
"""How a decision came about."""
