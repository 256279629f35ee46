"""The oldest releases that the project supports: what pip is to install for the lower bounds in pyproject.toml.

`python -m tests.oldest` prints them as constraints for `pip install --constraint`.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def constraints() -> list[str]:
    """Return `name==version` for each dependency, those of all extras included, sorted.

    Raise `ValueError` for one without a lower bound.
    """
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return sorted({_oldest(one) for one in named if not one.startswith(project["name"])})


def _oldest(requirement: str) -> str:
    bound = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\d.]+)", requirement)
    if bound is None:
        raise ValueError(f"{requirement!r} has no lower bound; write it as NAME>=VERSION in pyproject.toml")
    return f"{bound[1]}=={bound[2]}"


if __name__ == "__main__":
    print("\n".join(constraints()))
