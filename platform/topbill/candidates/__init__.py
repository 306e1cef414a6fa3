"""The first stage of a page: which titles come into question, from the catalogue and from what the
log says of them.

What is popular, trending and watched together comes from the log (`Signals`, made by the keeper);
what is alike comes from the catalogue.
"""

from topbill.candidates.signals import (
    EVIDENCE,
    HALF_LIFE,
    Play,
    Recall,
    Signals,
    count,
    signals_path,
)
from topbill.candidates.stage import NEW_FOR, SOURCES, Row, Sight, Stage
from topbill.candidates.tuning import Held, hold_out, learn, recall

__all__ = [
    "EVIDENCE",
    "HALF_LIFE",
    "NEW_FOR",
    "SOURCES",
    "Held",
    "Play",
    "Recall",
    "Row",
    "Sight",
    "Signals",
    "Stage",
    "count",
    "hold_out",
    "learn",
    "recall",
    "signals_path",
]
