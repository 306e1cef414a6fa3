"""Azure Personalizer's HTTP API over the same engine and log.

A package of its own because it is a contract of somebody else's: its paths, words, status codes and
errors follow the published reference (v1.0 and v1.1-preview) and change when that does, not when
Topbill's do. `bodies` are its requests and answers, `events` what they are to the engine, `app` the
ASGI application, `openapi` the description, and `matching` keeps its slots fillable.
"""

from topbill.service.personalizer.app import Personalizer

__all__ = ["Personalizer"]
