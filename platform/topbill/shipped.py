"""Where the example experiments and the dashboards are: inside an installed wheel, or at the top of
the repository.
"""

from __future__ import annotations

from pathlib import Path

from topbill.domain.errors import NotFound


def shipped(folder: str) -> Path:
    """The path of `experiments` or `dashboards` as they came with Topbill.

    Raises NotFound where the installation has neither.
    """
    package = Path(__file__).resolve().parent
    repository = package.parents[1]
    for place in (package / "_shipped" / folder, repository / folder):
        if place.is_dir():
            return place
    raise NotFound(f"{package / 'shipped' / folder}: no such folder; install Topbill's wheel again")
