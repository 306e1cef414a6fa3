"""The only place that decides: assign → eligible → score → probabilities → draw → the decision to
log.
"""

from topbill.engine.bodies import (
    Answer,
    AnswerItem,
    DecideRequest,
    Id,
    OfferedAction,
    Question,
    at_path,
    decode_context,
    new_id,
)
from topbill.engine.deciding import Engine
from topbill.engine.live import Live, offered, payloads_of

__all__ = [
    "Answer",
    "AnswerItem",
    "DecideRequest",
    "Engine",
    "Id",
    "Live",
    "OfferedAction",
    "Question",
    "at_path",
    "decode_context",
    "new_id",
    "offered",
    "payloads_of",
]
