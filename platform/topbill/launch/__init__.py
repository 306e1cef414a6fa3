"""What happens to an experiment from its file to its end: who is in which variant, since when."""

from topbill.launch.assignment import (
    SeenVariant,
    UnitAssignment,
    experiments_beside,
    unit_assignment,
)
from topbill.launch.concluding import conclude, keep_reports

__all__ = [
    "SeenVariant",
    "UnitAssignment",
    "conclude",
    "experiments_beside",
    "keep_reports",
    "unit_assignment",
]
