"""Links in the documents resolve."""

import ast
import re
from pathlib import Path

import pytest

from documents import DOCUMENTS, ROOT, anchors, links, name_of


def test_documents_are_found():
    assert ROOT / "README.md" in DOCUMENTS


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_relative_links_resolve(document):
    broken = []
    for link in links(document):
        if not link.is_relative:
            continue
        file, _, anchor = link.target.partition("#")
        path = document.parent / file if file else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link.target)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_linked_functions_exist(document):
    missing = []
    for link in links(document):
        names = re.findall(r"`([^`]+)`", link.text)
        if not (link.is_relative and link.target.endswith(".py") and names):
            continue
        path = document.parent / link.target
        missing += [name for name in names if not _has(path, name)]
    assert not missing


def _has(path: Path, name: str) -> bool:
    return name in _names(path) or path.resolve().as_posix().endswith(f"/{name}")


def _names(path: Path) -> set[str]:
    """Names of a module's functions, classes and constants, and of their members."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                found.add(prefix + node.name)
            elif isinstance(node, ast.ClassDef):
                found.add(prefix + node.name)
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(prefix + one.id for one in targets if isinstance(one, ast.Name))

    visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return found


def test_missing_function_is_detected():
    names = _names(ROOT / "src/cyclegan_cli/models/replay.py")
    assert {"ReplayPool", "ReplayPool.exchange"} <= names
    assert "ReplayPool.query" not in names


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_placeholder_text(document):
    text = document.read_text(encoding="utf-8")
    assert not re.findall(r"^[A-Z0-9]+_[A-Z_]+$|TODO|FIXME", text, flags=re.MULTILINE)
