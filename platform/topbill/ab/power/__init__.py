"""How long an experiment must run, and what textbooks say of power and proportions."""
