"""The worker: the one process that folds the log into policies and publishes the log to the
lake.
"""
