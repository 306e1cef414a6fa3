"""The first stage of a page: which titles come into question, from the catalogue and from what the log says of them.

What is popular, trending and watched together comes from the log (`Signals`, made by the keeper); what is alike comes
from the catalogue.
"""

from topbill.candidates.signals import HALF_LIFE, Play, Signals, learn, signals_path
from topbill.candidates.stage import NEW_FOR, SOURCES, Row, Sight, Stage, recall

__all__ = [
    "HALF_LIFE",
    "NEW_FOR",
    "SOURCES",
    "Play",
    "Row",
    "Sight",
    "Signals",
    "Stage",
    "learn",
    "recall",
    "signals_path",
]
