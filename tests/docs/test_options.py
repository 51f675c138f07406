"""Every option that a document names is one that the command line has."""

import dataclasses
import re

import pytest
import typer

from cyclegan_cli.cli.app import app
from cyclegan_cli.config import TrainConfig
from documents import (
    DOCUMENTS,
    ROOT,
    SHELLS,
    Block,
    blocks,
    cyclegan_calls,
    first_cells,
    inline_codes,
    name_of,
    shell_blocks,
)

CLI = typer.main.get_command(app)
OPTIONS = {
    option
    for command in (CLI, *CLI.commands.values())
    for parameter in command.params
    for option in (*parameter.opts, *parameter.secondary_opts)
} | {"--help"}
CALLS = [
    pytest.param(call, id=f"{block}-{' '.join(call)}"[:150])
    for block in shell_blocks()
    for command in block.commands()
    for call in cyclegan_calls(command)
]


def parse(arguments: list[str]) -> None:
    """Read a command line as ``cyclegan`` does, without running it."""
    only_help = bool({"--help", "--version"} & set(arguments))
    context = CLI.make_context("cyclegan", list(arguments), resilient_parsing=only_help)
    if only_help:
        return
    name, command, rest = CLI.resolve_command(context, list(arguments))
    given = command.make_context(name, rest, parent=context).params
    if name == "train":
        options = {one.name for one in dataclasses.fields(TrainConfig)}
        TrainConfig(**{k: v for k, v in given.items() if k in options and v is not None})


@pytest.mark.parametrize("call", CALLS)
def test_commands_parse(call):
    parse(call)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("translate --chekpoint x", "No such option"),
        ("train --steps x", "valid integer"),
        ("train --crop-size 510", "is larger than --load-size"),
        ("convert x", "No such command"),
    ],
)
def test_wrong_command_is_detected(wrong, why):
    with pytest.raises(Exception, match=why):
        parse(wrong.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_options_in_prose_exist(document):
    codes = [code for code in inline_codes(document) if code.startswith(("--", "cyclegan "))]
    named = {one for code in codes for one in re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", code)}
    assert named - foreign_options(document.name) <= OPTIONS


def foreign_options(document: str) -> set[str]:
    """Options of other programs, in documents about those: what stands left in its tables."""
    page = ROOT / "docs" / "from-the-original.md"
    if document != page.name:
        return set()
    return {one for cell in first_cells(page) for one in re.findall(r"--[a-zA-Z][\w-]*", cell)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_are_in_console_blocks(document):
    """Else nothing would look at them."""
    unmarked = [
        str(block)
        for block in blocks(document)
        if block.language not in (*SHELLS, "make") and _has_commands(block)
    ]
    assert not unmarked


def _has_commands(block: Block) -> bool:
    return re.search(r"^(\$ |    )?cyclegan [a-z]", block.text, flags=re.MULTILINE) is not None
