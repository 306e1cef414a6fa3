"""What happens to an experiment from its file to its end: who is in which variant, since when."""

from topbill.launch.assignment import SeenVariant, UnitAssignment, unit_assignment

__all__ = ["SeenVariant", "UnitAssignment", "unit_assignment"]
