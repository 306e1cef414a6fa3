"""Experiments in YAML: a file becomes a frozen `Experiment`, validated once, at the edge."""

from topbill.domain.features import Feature
from topbill.domain.metric import Metric
from topbill.spec.canonical import LEARNS_NOTHING, WITHOUT_FEATURES
from topbill.spec.conclusion import Conclusion
from topbill.spec.files import (
    audited,
    from_audit,
    from_raw,
    in_layers,
    load,
    load_all,
    marks,
    marks_of,
    readable,
    validate,
    with_lines,
    yaml_in,
)
from topbill.spec.launch import AdvanceIf, Gate, Hold, Launch
from topbill.spec.model import (
    Experiment,
    Guardrail,
    Override,
    PriorFrom,
    StartFrom,
    Status,
    Surface,
    Variant,
)
from topbill.spec.schema import json_schema

__all__ = [
    "LEARNS_NOTHING",
    "WITHOUT_FEATURES",
    "AdvanceIf",
    "Conclusion",
    "Experiment",
    "Feature",
    "Gate",
    "Guardrail",
    "Hold",
    "Launch",
    "Metric",
    "Override",
    "PriorFrom",
    "StartFrom",
    "Status",
    "Surface",
    "Variant",
    "audited",
    "from_audit",
    "from_raw",
    "in_layers",
    "json_schema",
    "load",
    "load_all",
    "marks",
    "marks_of",
    "readable",
    "validate",
    "with_lines",
    "yaml_in",
]
