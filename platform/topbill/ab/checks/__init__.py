"""May an analysis be believed: the split of units, and segments whose effects differ."""
