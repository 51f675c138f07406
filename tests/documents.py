"""The documents, taken apart: their headings, links, code and commands."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
EXAMPLES = [path for path in ROOT.glob("examples/**/*.md") if "node_modules" not in path.parts]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *EXAMPLES])
SHELLS = ("console", "bash", "sh")
OPERATOR_CHARACTERS = "();<>|&"


@dataclass(frozen=True)
class Block:
    """A piece of code that stands by itself.

    Attributes:
        document: Where it is.
        line: Of the document, from 1, that its code begins at.
        language: What its fence says; empty for an indented one.
        text: The code.
    """

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """The lines that are typed, continued lines joined: those after a ``$``, if any are."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "make":
            return [line.strip() for line in lines if line.startswith("\t")]
        typed = [line[2:] for line in lines if line.startswith("$ ")]
        return typed or [line for line in lines if line.strip()]


@dataclass(frozen=True)
class Link:
    """A link or, without a text, an image.

    Attributes:
        target: The address as it is written.
        text: What is shown, as Markdown.
    """

    target: str
    text: str

    @property
    def is_relative(self) -> bool:
        return not re.match(r"[a-z]+:", self.target)


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def tokens(document: Path) -> list[Token]:
    markdown = MarkdownIt("commonmark").enable("table")
    return markdown.parse(document.read_text(encoding="utf-8"))


def blocks(document: Path) -> list[Block]:
    """All fenced and indented pieces of code."""
    return [
        Block(document, token.map[0] + 2, token.info.strip(), token.content)
        for token in tokens(document)
        if token.type in ("fence", "code_block") and token.map
    ]


def shell_blocks() -> list[Block]:
    """All pieces of code of all documents that a shell, or make, is to run."""
    return [
        block
        for document in DOCUMENTS
        for block in blocks(document)
        if block.language in (*SHELLS, "make")
    ]


def inline_codes(document: Path) -> list[str]:
    """Everything between backticks in running text."""
    inline = (child for token in tokens(document) for child in token.children or [])
    return [child.content for child in inline if child.type == "code_inline"]


def links(document: Path) -> list[Link]:
    """All links and images."""
    return [link for token in tokens(document) for link in _links_of(token.children or [])]


def _links_of(children: list[Token]) -> Iterator[Link]:
    target, text = None, ""
    for child in children:
        if child.type == "image":
            yield Link(str(child.attrGet("src")), "")
        elif child.type == "link_open":
            target, text = str(child.attrGet("href")), ""
        elif child.type == "link_close" and target is not None:
            yield Link(target, text)
            target = None
        else:
            text += f"`{child.content}`" if child.type == "code_inline" else child.content


def anchors(document: Path) -> set[str]:
    """What ``#...`` of a link to this document can be, by the rules of GitHub."""
    found: set[str] = set()
    parsed = tokens(document)
    for opening, inline in itertools.pairwise(parsed):
        if opening.type != "heading_open":
            continue
        heading = "".join(child.content for child in inline.children or [])
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", one) is not None for one in found)
        found.add(f"{slug}-{repeated}" if repeated else slug)
    return found


def first_cells(document: Path) -> list[str]:
    """The first column of all tables."""
    parsed = tokens(document)
    rows = [index for index, token in enumerate(parsed) if token.type == "tr_open"]
    return [parsed[row + 2].content for row in rows]


def words(command: str) -> list[str]:
    """A command line as a shell cuts it: words and operators; comments are left out."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=OPERATOR_CHARACTERS)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    return list(lexer)


def is_operator(word: str) -> bool:
    return bool(word) and set(word) <= set(OPERATOR_CHARACTERS)


def cyclegan_calls(command: str) -> list[list[str]]:
    """The arguments of every ``cyclegan`` in a command line, also behind xargs, parallel, ..."""
    found: list[list[str]] = []
    call: list[str] | None = None
    for before, word in itertools.pairwise(["", *words(command)]):
        if is_operator(word) or word.startswith(":::"):
            call = None
        elif call is not None:
            call.append(word)
        elif word in ("cyclegan", "cyclegan_cli") and before != "-t":  # The tag of an image.
            call = []
            found.append(call)
    return found
