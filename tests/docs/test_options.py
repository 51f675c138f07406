"""Every option that a document names is one that the command line has."""

import re

import pytest
import typer

from cyclegan_cli.cli.app import app
from documents import (
    DOCUMENTS,
    SHELLS,
    Block,
    blocks,
    cyclegan_calls,
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
    """Read a command line as ``cyclegan`` does, without doing what it says."""
    with CLI.make_context("cyclegan", list(arguments), resilient_parsing="--help" in arguments) as c:
        name, command, rest = CLI.resolve_command(c, list(arguments))
        command.make_context(name, rest, parent=c, resilient_parsing="--help" in rest)


@pytest.mark.parametrize("call", CALLS)
def test_every_command_is_understood(call):
    parse(call)


@pytest.mark.parametrize("wrong", [["translate", "--chekpoint", "x"], ["train", "--steps", "x"]])
def test_a_wrong_command_would_be_found(wrong):
    with pytest.raises(Exception, match="No such option|valid integer"):
        parse(wrong)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_option_in_running_text_is_there(document):
    codes = [code for code in inline_codes(document) if code.startswith(("--", "cyclegan "))]
    named = {one for code in codes for one in re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", code)}
    assert named - foreign_options(document.name) <= OPTIONS


def foreign_options(name: str) -> set[str]:
    return set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_commands_are_marked_as_such(document):
    """Else nothing would look at them."""
    unmarked = [
        str(block)
        for block in blocks(document)
        if block.language not in (*SHELLS, "make") and _has_commands(block)
    ]
    assert not unmarked


def _has_commands(block: Block) -> bool:
    return re.search(r"^(\$ |    )?cyclegan [a-z]", block.text, flags=re.MULTILINE) is not None
