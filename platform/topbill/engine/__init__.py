"""The only place that decides: assign → eligible → score → probabilities → draw → the decision to
log.
"""

from topbill.engine.adoption import Adoption, adopt_newest, adopt_newest_of
from topbill.engine.api import (
    Answer,
    AnswerItem,
    DecideRequest,
    DecisionInput,
    Id,
    OfferedAction,
    decode,
    made_at,
    new_id,
)
from topbill.engine.compiled import CompiledExperiment, logged_actions, offered, payloads_of
from topbill.engine.decide import Asked, Engine, Turns
from topbill.engine.examples import examples, teach
from topbill.engine.lookup import EntityLookup
from topbill.engine.shadow import Candidate

__all__ = [
    "Adoption",
    "Answer",
    "AnswerItem",
    "Asked",
    "Candidate",
    "CompiledExperiment",
    "DecideRequest",
    "DecisionInput",
    "Engine",
    "EntityLookup",
    "Id",
    "OfferedAction",
    "Turns",
    "adopt_newest",
    "adopt_newest_of",
    "decode",
    "examples",
    "logged_actions",
    "made_at",
    "new_id",
    "offered",
    "payloads_of",
    "teach",
]
