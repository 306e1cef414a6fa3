"""The first stage of a page: which titles come into question, from the catalogue and from what the
log says of them.

What is popular, trending and watched together comes from the log (`Signals`, made by the worker);
what is alike comes from the catalogue. What the evidence is worth is fitted by `fitting`, which
only a worker needs.
"""

from topbill.candidates.cowatching import CoWatching, taste_worth
from topbill.candidates.model import (
    GIVEN,
    NEW_FOR,
    SOURCES,
    CandidateModel,
    Candidates,
    RowSource,
)
from topbill.candidates.signals import (
    EVIDENCE,
    HALF_LIFE,
    Play,
    Recall,
    Signals,
    count,
    signals_path,
)

__all__ = [
    "EVIDENCE",
    "GIVEN",
    "HALF_LIFE",
    "NEW_FOR",
    "SOURCES",
    "CandidateModel",
    "Candidates",
    "CoWatching",
    "Play",
    "Recall",
    "RowSource",
    "Signals",
    "count",
    "signals_path",
    "taste_worth",
]
