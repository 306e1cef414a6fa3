"""An experiment's report: what was earned, by whom, and whether that can be believed."""
