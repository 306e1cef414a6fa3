"""A published log, walked once in its order by those policies that are to be evaluated."""
