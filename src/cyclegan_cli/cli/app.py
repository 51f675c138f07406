"""The command ``cyclegan`` and its four subcommands."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from cyclegan_cli import __version__
from cyclegan_cli.cli.console import reports_errors
from cyclegan_cli.cli.export import export_command
from cyclegan_cli.cli.inspect import inspect_command
from cyclegan_cli.cli.train import train_command
from cyclegan_cli.cli.translate import translate_command

app = typer.Typer(
    name="cyclegan",
    help="Translate images from one domain into another, learned from two folders without pairs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 done, 1 a bug, 2 usage, 3 data, 4 checkpoint, 5 device or memory, "
        "6 some inputs failed, 130/143 interrupted."
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cyclegan {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Translate images from one domain into another, learned from two folders without pairs."""


class Command(TyperCommand):
    """A command whose help shows defaults as they are, where Typer puts texts in parentheses."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help; the process, or this object, has no other use afterwards."""
        parameters: list[Any] = self.params
        for parameter in parameters:
            shown = getattr(parameter, "show_default", None)
            if isinstance(shown, str):
                text = shown.replace("[", r"\[")
                parameter.help = rf"{parameter.help} [dim]\[default: {text}][/dim]"
                parameter.show_default = False
        super().format_help(ctx, formatter)


app.command("train", cls=Command)(reports_errors(train_command))
app.command("translate", cls=Command)(reports_errors(translate_command))
app.command("export", cls=Command)(reports_errors(export_command))
app.command("inspect", cls=Command)(reports_errors(inspect_command))
