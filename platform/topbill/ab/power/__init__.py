"""How long an experiment must run."""
