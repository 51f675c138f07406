"""README on a package index: no broken images or links."""

import re
import tomllib

from documents import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOOK = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def on_the_index() -> str:
    """README as the build rewrites it."""
    text = "".join((ROOT / part["path"]).read_text("utf-8") for part in HOOK["fragments"])
    for one in HOOK["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"], text)
    return text


def test_package_readme_has_no_relative_links_or_images():
    text = on_the_index()
    assert re.findall(r"\]\((?!https://)", text) == []
    assert "![" not in text
    assert "<!--" not in text


def test_package_readme_is_otherwise_complete():
    shown = re.sub(r"(?s)<!-- images -->.*?<!-- /images -->\n*", "", README)
    without_targets = re.sub(r"\]\([^)]*\)", "", shown).replace("[", "")
    assert re.sub(r"\]\([^)]*\)", "", on_the_index()).replace("[", "") == without_targets
    assert "## Quick start" in on_the_index()
