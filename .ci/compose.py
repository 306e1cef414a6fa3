"""As much of `docker compose --file FILE config --quiet` as the tests use, over the Compose
specification's own rules: `compose-config FILE`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from compose_spec import PyCompose

_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?(?::?\?([^}]*))?\}|\$\$")


def _filled(value: Any) -> Any:
    """The same with the environment's variables, or their defaults, in the place of their names."""
    if isinstance(value, dict):
        return {key: _filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    return _VARIABLE.sub(_variable, value) if isinstance(value, str) else value


def _variable(match: re.Match[str]) -> str:
    name, default, demand = match.groups()
    if name is None:
        return "$"
    if demand is not None and not os.environ.get(name):
        raise ValueError(f"${{{name}}}: {demand}")
    return os.environ.get(name) or default or ""


def main() -> int:
    # Here, as Compose reads it, merges (`<<`) are YAML's own.
    content = _filled(yaml.safe_load(Path(sys.argv[1]).read_text()))
    try:
        PyCompose.from_yaml(yaml.safe_dump(content)).validate()
    except ValueError as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
