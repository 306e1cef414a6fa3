"""As much of Helm's command line as the tests use, over its library:
`helm lint CHART --values FILE` and `helm template NAME CHART --values FILE`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import helm_python
from helm_python.chart import Chart, lint, values_from_yaml


def main() -> int:
    parser = argparse.ArgumentParser(prog="helm")
    parser.add_argument("verb", choices=["lint", "template"])
    parser.add_argument("places", nargs="+")
    parser.add_argument("--values", required=True)
    arguments = parser.parse_args()
    values = values_from_yaml(Path(arguments.values).read_text())
    chart = arguments.places[-1]
    if arguments.verb == "lint":
        report = lint(chart, values, strict=True)
        for line in [*report["messages"], *report["errors"]]:
            print(line)
        return 1 if report["errors"] else 0
    with Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        manifests = loaded.render(values, name=arguments.places[0], namespace="default")
    for path, text in manifests.items():
        if path.endswith(".yaml") and text.strip():
            print(f"---\n# Source: {path}\n{text}")
    return 0


try:
    sys.exit(main())
except helm_python.HelmError as error:
    sys.exit(f"Error: {error}")
