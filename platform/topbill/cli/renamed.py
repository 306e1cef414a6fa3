"""Verbs and options that 0.1 called otherwise: scripts that still use them are told what to
write.
"""

from __future__ import annotations

from collections.abc import Sequence

VERBS = {"keep": "worker", "rebuild": "verify", "page": "report"}
OPTIONS = {("serve", "--workers"): "--processes", ("up", "--workers"): "--processes"}


def todays_name(arguments: Sequence[str]) -> str | None:
    """What to write instead of the old name in these arguments of `topbill`; None where there is
    none.
    """
    if not arguments:
        return None
    verb = arguments[0]
    if verb in VERBS:
        return f"topbill {verb} is called topbill {VERBS[verb]} today; write that instead"
    for argument in arguments[1:]:
        option = argument.partition("=")[0]
        if (verb, option) in OPTIONS:
            name = OPTIONS[verb, option]
            return f"topbill {verb}: {option} is called {name} today; write that instead"
    return None
