"""docs/commands.md, made from what the command line says of itself."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cyclegan_cli.cli.app import app

PAGE = Path(__file__).parent.parent / "docs" / "commands.md"
HEAD = """\
# All commands and options

What `cyclegan --help`, `cyclegan train --help` and so on say. This page is made from the program \
itself (`python tests/cli/test_help.py`), and a test holds it to it.
"""


def page() -> str:
    """The whole page."""
    program = typer.main.get_command(app)
    parts = [HEAD, f"{program.help}\n", *_tables(program)]
    for name, command in program.commands.items():
        parts += [f"## cyclegan {name}\n", f"`{usage(name, command)}`\n", _text(command.help)]
        parts += _tables(command)
    return "\n".join([*parts, f"{program.epilog}\n"])


def usage(name: str, command: Any) -> str:
    """How a command is called."""
    arguments = [
        f"{p.metavar or p.name.upper()}{'...' if p.nargs == -1 else ''}"
        for p in command.params
        if p.opts[0][0] != "-"
    ]
    return " ".join(["cyclegan", name, "[OPTIONS]", *arguments])


def _text(help_text: str) -> str:
    paragraphs = re.split(r"\n\s*\n", help_text.strip())
    return "\n\n".join(" ".join(one.split()) for one in paragraphs) + "\n"


def _tables(command: Any) -> Iterator[str]:
    """A table for every heading that the options stand under."""
    for panel, parameters in panels(command).items():
        rows = "\n".join(map(_row, parameters))
        heading = f"**{panel}**\n\n" if panel else ""
        yield f"{heading}| option | | default |\n|---|---|---|\n{rows}\n"


def panels(command: Any) -> dict[str, list[Any]]:
    """The arguments and options under each heading, in their order; the empty one is no heading."""
    found: dict[str, list[Any]] = {}
    for parameter in command.params:
        found.setdefault(parameter.rich_help_panel or "", []).append(parameter)
    return found


def _row(parameter: Any) -> str:
    is_argument = not parameter.opts[0].startswith("-")
    names = [parameter.metavar or parameter.name.upper()] if is_argument else parameter.opts
    shown = ", ".join(f"`{one}`" for one in (*names, *parameter.secondary_opts))
    if not is_argument and (what := kind(parameter)):
        shown += f" {what}"
    cells = (shown, parameter.help.replace("\\[", "["), default(parameter))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def kind(parameter: Any) -> str:
    """What the option takes: its placeholder, its choices or its type; nothing for a switch."""
    annotation = parameter.type_descriptor.annotation
    if parameter.metavar:
        return str(parameter.metavar)
    if choices := typing.get_args(annotation):
        return ", ".join(str(one) for one in choices)
    names = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
    return names.get(annotation, "")


def default(parameter: Any) -> str:
    """What the help says of an option's default; empty where there is nothing to say."""
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    is_shown = parameter.show_default and not isinstance(parameter.default, bool | None)
    return str(parameter.default) if is_shown else ""
