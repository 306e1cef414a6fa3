"""A look at a variant, for developers of the app: `topbill override`."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import EXPERIMENTS, Experiments, app, own_or_examples, say
from topbill.domain.errors import NotFound

_LONGEST = timedelta(days=30)


def _check_span(_type: object, span: timedelta) -> None:
    if not timedelta(0) < span <= _LONGEST:
        raise ValueError(f"{span}; expected more than 0s and 30d at most, such as 1h")


@app.command
def override(
    key: str,
    variant: str,
    *,
    override_secret: Path,
    span: Annotated[
        timedelta,
        Parameter(name="--for", validator=_check_span, help="How long it is good, such as 1h."),
    ] = timedelta(hours=1),
    experiments: Experiments = EXPERIMENTS,
    output: Output = TEXT,
) -> None:
    """Print the header with which requests see a variant, whatever their unit's own is. What is
    decided with it is never learned from nor counted.

    Args:
        key: The experiment's key.
        variant: The variant to see.
        override_secret: The file that the service has as its --override-secret.
    """
    from topbill import pages
    from topbill.domain.suggestion import nearest
    from topbill.service.override_header import HEADER, read_secret, signed
    from topbill.spec.fields import listed

    by_key = {each.key: each for each in pages.load_experiments(own_or_examples(experiments))}
    if key not in by_key:
        hint = nearest(key, by_key)
        expected = f"expected one of {listed(by_key)}" + f"; {hint}" * bool(hint)
        raise NotFound(f"experiment {key!r} is not there; {expected}")
    names = [each.name for each in by_key[key].variants]
    if variant not in names:
        hint = nearest(variant, names)
        expected = f"expected one of {listed(names)}" + f"; {hint}" * bool(hint)
        raise NotFound(f"{key} has no variant {variant!r}; {expected}")
    expires = int(time.time() + span.total_seconds())
    value = signed({key: variant}, expires, read_secret(override_secret))
    found = {"header": HEADER, "value": value, "expires": datetime.fromtimestamp(expires, UTC)}
    output.show(found, lambda: say(f"{HEADER}: {value}"))
