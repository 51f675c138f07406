"""docs/man/cyclegan.1, the manual page, generated from the command line's parameters."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from command_reference import default, kind, panels, usage
from cyclegan_cli import __version__
from cyclegan_cli.cli.app import app

PAGE = Path(__file__).parent.parent / "docs" / "man" / "cyclegan.1"
EXIT_CODES = [
    ("0", "done"),
    ("1", "a bug"),
    ("2", "usage: an option or argument makes no sense"),
    ("3", "data: an image or folder cannot be read, or a file not written"),
    ("4", "checkpoint: none found, a damaged or a foreign one"),
    ("5", "device or memory"),
    ("6", "some inputs failed, the rest is written"),
    ("130, 143", "interrupted by Ctrl-C, by SIGTERM; what was done is saved"),
    ("141", "whoever read the output has closed it"),
]
ENVIRONMENT = [
    ("CYCLEGAN_CHECKPOINT", "The checkpoint of commands that are given none."),
    ("NO_COLOR", "If set, nothing is coloured."),
    ("TERM", "On a terminal called dumb, progress is lines of text instead of a bar."),
]
EXAMPLES = [
    ("cyclegan translate photo.jpg", "photo_night.jpg beside it, by the model in the package"),
    ("cyclegan train --domain-a day/ --domain-b night/", "learn from two folders of images"),
    ("cyclegan train --resume runs/day2night", "go on after Ctrl-C or a crash"),
    ("cyclegan translate photos/ -o out/ --to day --json", "a folder, a line of JSON an image"),
    ("cyclegan export runs/day2night --format onnx", "for other runtimes"),
]


def page() -> str:
    """The whole page, for man(1)."""
    program = typer.main.get_command(app)
    synopsis = [usage(name, command) for name, command in program.commands.items()]
    lines = [
        f'.TH CYCLEGAN 1 "" "cyclegan-cli {__version__}" "User Commands"',
        ".SH NAME",
        "cyclegan \\- unpaired image-to-image translation",
        ".SH SYNOPSIS",
        *(line for one in synopsis for line in (_text(one), ".br")),
        ".SH DESCRIPTION",
        _text(program.help),
    ]
    for name, command in program.commands.items():
        lines += [f'.SH "{f"cyclegan {name}".upper()}"', *_paragraphs(command.help)]
        lines += _options(command)
    lines += [".SH EXIT STATUS", *_terms(EXIT_CODES), ".SH ENVIRONMENT", *_terms(ENVIRONMENT)]
    lines += [".SH EXAMPLES", *_terms(EXAMPLES)]
    return "\n".join(lines) + "\n"


def _options(command: Any) -> Iterator[str]:
    for panel, parameters in panels(command).items():
        if panel:
            yield f'.SS "{_text(panel)}"'
        yield from _terms((_names(one), _help(one)) for one in parameters)


def _names(parameter: Any) -> str:
    if not parameter.opts[0].startswith("-"):
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join([*parameter.opts, *parameter.secondary_opts])
    return f"{names} {kind(parameter)}".strip()


def _help(parameter: Any) -> str:
    shown = default(parameter)
    return parameter.help.replace("\\[", "[") + (f" Default: {shown}." if shown else "")


def _terms(pairs: Any) -> Iterator[str]:
    for term, text in pairs:
        yield ".TP"
        yield f".B {_text(term)}"
        yield _text(text)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield ".PP"
        yield _text(paragraph)


def _text(text: str) -> str:
    """Text as roff takes it: backslashes and hyphens escaped, no line that looks like a request."""
    text = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
