"""Config dataclasses as Typer options, and the completion of their values."""

from __future__ import annotations

import dataclasses
import functools
import glob
import inspect
import os
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cyclegan_cli.config import (
    StepsOrTime,
    field_types,
    option_name,
    parse_domains,
    plain_type,
    steps_or_time,
)
from cyclegan_cli.errors import CycleGANError

# Completion reads only headers, and ignores errors.


def complete_checkpoint(incomplete: str) -> list[str]:
    """Complete names of pretrained models, files and folders."""
    from cyclegan_cli.checkpoints.locate import pretrained_models

    names = [model.name for model in pretrained_models() if model.name.startswith(incomplete)]
    paths = sorted(glob.glob(f"{glob.escape(incomplete)}*"))
    return names + [f"{path}/" if os.path.isdir(path) else path for path in paths]


def complete_target(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the target domains of the checkpoint given on the command line."""
    from cyclegan_cli.checkpoints.locate import checkpoint_file, default_checkpoint, read_checkpoint

    given: dict[str, Any] = ctx.params
    try:
        named = given.get("checkpoint")
        file = checkpoint_file(Path(named)) if named else default_checkpoint()
        info = read_checkpoint(file, parse_domains(given.get("domains"))).info
    except CycleGANError:
        return []
    names = [info.target(direction) for direction in info.directions]
    return [name for name in names if name.startswith(incomplete)]


COMPLETIONS = {"checkpoint": complete_checkpoint, "target": complete_target, None: None}

CommandFunction = Callable[..., None]


def config_options(
    *config_classes: type[Any], partial: type[Any] | None = None
) -> Callable[[CommandFunction], CommandFunction]:
    """Give a command an option for every field of ``config_classes``.

    Args:
        config_classes: Dataclasses whose fields are made by :func:`cyclegan_cli.config.option`.
            The command receives an instance of each.
        partial: One of them, which other sources complete: the command receives a dict of the
            options given on the command line instead. Every flag then has a negative form, and
            bounds are checked by the config alone.
    """

    def decorate(command: CommandFunction) -> CommandFunction:
        parameters = [
            _parameter(field, plain_type(field_types(one)[field.name]), one is partial)
            for one in config_classes
            for field in dataclasses.fields(one)
        ]

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            given = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in values.items()
                if value is not None
            }
            arguments = []
            for one in config_classes:
                names = {field.name for field in dataclasses.fields(one)}
                own = {name: value for name, value in given.items() if name in names}
                arguments.append(own if one is partial else one(**own))
            command(*arguments)

        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _parameter(field: dataclasses.Field[Any], kind: Any, partial: bool) -> inspect.Parameter:
    """Return a field as a parameter that Typer understands; its default is always None."""
    metadata = field.metadata
    is_many = typing.get_origin(kind) is tuple
    annotation = list[typing.get_args(kind)[0]] if is_many else kind  # type: ignore[misc]
    settings: dict[str, Any] = {
        "help": metadata["help"].replace("[", r"\["),  # Plain text, not rich's markup.
        "metavar": metadata["metavar"],
        "rich_help_panel": metadata["panel"],
        "autocompletion": COMPLETIONS[metadata["complete"]],
        "readable": False,  # The code that opens a file reports errors.
    }
    if not partial and plain_type(annotation) in (int, float):
        settings |= {"min": metadata["minimum"], "max": metadata["maximum"]}
    if kind == StepsOrTime:
        settings["parser"], annotation = steps_or_time, str
    if metadata["argument"]:
        option = typer.Argument(**settings, show_default=False)
    else:
        name, is_flag = option_name(field.name), kind is bool
        is_negatable = is_flag and (partial or field.default is True)
        names = [f"{name}/--no-{name[2:]}" if is_negatable else name]
        names += filter(None, [metadata["short"]])
        shown = metadata["shown_default"] or _shown(field.default)
        option = typer.Option(
            *names, **settings, show_default=False if is_flag and not is_negatable else shown
        )
    is_required = field.default is dataclasses.MISSING
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if is_required else None,
        annotation=Annotated[annotation if is_required else annotation | None, option],
    )


def _shown(default: Any) -> str | bool:
    if default is None:
        return False
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)
