"""The statistics that analysis and evaluation share: moments, intervals and sequences."""
