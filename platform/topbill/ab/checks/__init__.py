"""May an analysis be believed: the split, the guardrails, the segments."""
