"""Config dataclasses as Typer options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.cli.completion import complete_checkpoint, complete_target
from cyclegan_cli.config import (
    StepsOrTime,
    duration_seconds,
    field_types,
    option_name,
    plain_type,
    steps_or_time,
)
from cyclegan_cli.errors import UsageError

COMPLETIONS = {"checkpoint": complete_checkpoint, "target": complete_target, None: None}

Command = Callable[..., None]


def config_options(
    config_class: type[Any], *, partial: bool = False
) -> Callable[[Command], Command]:
    """Give a command an option for every field of ``config_class``.

    Args:
        config_class: A dataclass whose fields are made by :func:`cyclegan_cli.config.option`.
            The command receives an instance as its first argument.
        partial: Pass a dict of the options given on the command line instead, for a config that
            other sources complete. Every flag then has a negative form, and bounds are checked
            by the config alone.
    """

    def decorate(command: Command) -> Command:
        hints = typing.get_type_hints(command, include_extras=True)
        _, *own = inspect.signature(command).parameters.values()
        types = field_types(config_class)
        parameters = [
            _parameter(field, plain_type(types[field.name]), partial)
            for field in dataclasses.fields(config_class)
        ]
        names = [parameter.name for parameter in parameters]
        parameters += [
            one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for one in own
        ]

        @functools.wraps(command)
        def wrapper(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            given = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in given.items()
                if value is not None
            }
            command(given if partial else config_class(**given), **values)

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


def chosen_direction(info: ModelInfo, to: str | None, direction: Direction | None) -> Direction:
    """Return the direction that ``--to`` or ``--direction`` selects; by default the first.

    Raises:
        UsageError: The model has no domain of this name.
        CheckpointError: The checkpoint contains only the other direction.
    """
    return info.require(
        info.direction_to(to) if to is not None else direction or info.directions[0]
    )


def parse_duration(text: str) -> float:
    """Return a duration such as ``2h``, ``90m``, ``1h30m``, ``45s`` or ``600`` in seconds.

    Raises:
        UsageError: It is not a duration, or not positive.
    """
    seconds = duration_seconds(text)
    if seconds is None:
        raise UsageError(
            f"--time-limit must be a duration like 2h, 90m or 1h30m, found {text!r}",
            "A number alone is seconds.",
        )
    return seconds
