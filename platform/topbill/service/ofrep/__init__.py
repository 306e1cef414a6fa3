"""OFREP, the OpenFeature Remote Evaluation Protocol (0.3), over the same engine and log: an
experiment is a flag.

A package of its own because it is a contract of somebody else's, and changes when that does.
`bodies` are its requests and answers, `context` reads an evaluation context as an experiment
declares it, `flags` evaluates, `app` says which request is what and how it is refused, and
`openapi` describes it.
"""

from topbill.service.ofrep.app import Ofrep, route_of

__all__ = ["Ofrep", "route_of"]
