"""Alarms worth waking for: an experiment's record is looked at hour by hour for faults, and whoever
`alerts.yaml` names is told of each once, and once more when it is over.

`measuring` makes the sums of an hour from the record, `rules` judge those of the last hours,
`watching` raises and resolves, `outbox` tells the channels; `watcher` runs them beside the worker.
"""
