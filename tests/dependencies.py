"""docs/dependencies.md: every package that an installation brings, with its licence.

    python tests/dependencies.py

writes it anew from what is installed here.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "dependencies.md"
HEAD = """\
# Dependencies

What `pip install .` and its extras ask for, with the licence that each package states of itself. \
Made by `python tests/dependencies.py`; a test holds the names to `pyproject.toml`. What these \
packages ask for in turn is not listed; `pip list` in your environment says what was installed.

| package | asked for by | licence |
|---|---|---|
"""
# Extras of people who work on the project itself.
OWN = ("test", "dev")


def asked_for() -> dict[str, str]:
    """The packages in pyproject.toml, each with the extra that asks for it; empty for all."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, str] = {}
    for extra, requirements in lists.items():
        for requirement in requirements:
            name = re.match(r"[\w.-]+", requirement)[0]
            if extra not in OWN and name != project["name"]:
                found.setdefault(name, extra)
    return found


def licence(name: str) -> str:
    """What an installed package says of its licence, in a few words."""
    found = metadata.metadata(name)
    if expression := found.get("License-Expression"):
        return expression
    classifiers = found.get_all("Classifier") or []
    named = [one.rsplit(" :: ", 1)[1] for one in classifiers if one.startswith("License :: OSI")]
    return ", ".join(named) or (found.get("License") or "not stated").splitlines()[0]


def page() -> str:
    """The whole page."""
    rows = [
        f"| [{name}](https://pypi.org/project/{name}/) | {extra and f'the extra `{extra}`'} "
        f"| {licence(name)} |"
        for name, extra in asked_for().items()
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
