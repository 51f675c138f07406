"""The fields of a dataclass as Typer options, and the options that several commands share."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.locate import Domains, Which
from cyclegan_cli.cli.completion import complete_checkpoint, complete_target
from cyclegan_cli.config import (
    StepsOrTime,
    TrainConfig,
    duration_seconds,
    field_types,
    is_domain_name,
    option_name,
    plain_type,
    steps_or_time,
)
from cyclegan_cli.errors import UsageError

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="Domain to translate to, by its name.",
        metavar="NAME",
        autocompletion=complete_target,
    ),
]
DirectionOption = Annotated[
    Direction | None,
    typer.Option("--direction", help="The same without names.", show_default="a2b"),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        readable=False,  # Whoever opens it says what is wrong.
        help="A checkpoint file, a run folder, or a model in the package (cyclegan inspect "
        "--models); also a .pth file of the original implementation.",
        metavar="FILE|RUN|NAME",
        autocompletion=complete_checkpoint,
        show_default="$CYCLEGAN_CHECKPOINT, else the newest run under ./runs, else day2night",
    ),
]
WhichOption = Annotated[Which, typer.Option("--which", help="Which model of a run folder.")]
DomainsOption = Annotated[
    str | None,
    typer.Option(
        "--domains",
        help="Names of the domains A and B in place of the checkpoint's own; for .pth files of "
        "the original implementation, which have none.",
        metavar="A,B",
        show_default="those of the checkpoint, else of a file or folder like horse2zebra, else A,B",
    ),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")
]

Command = Callable[..., None]
UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
         "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip


def with_config_options(command: Command) -> Command:
    """Give ``command`` an option for every field of :class:`TrainConfig`.

    The command is called with one argument ``given`` in their place: a dict of the fields that
    the user set, and nothing of those left at their defaults.
    """
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "given"]
    hints = typing.get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in own
    ]
    options = _options_of_train_config()
    names = [parameter.name for parameter in options]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        given = {name: values.pop(name) for name in names}
        command(given={k: v for k, v in given.items() if v is not None}, **values)

    parameters = [*options, *own]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapper


def _options_of_train_config() -> list[inspect.Parameter]:
    return [
        _parameter(field, field_types()[field.name]) for field in dataclasses.fields(TrainConfig)
    ]


def _parameter(field: dataclasses.Field[Any], hint: Any) -> inspect.Parameter:
    shown = field.metadata["shown_default"] or _shown(field.default)
    names = [option_name(field.name)]
    kind = plain_type(hint)
    if kind is bool:
        names = [f"{names[0]}/--no-{names[0][2:]}"]
    # Typer's default is None for all, so that the command knows what the user typed.
    option = typer.Option(
        *names,
        readable=False,  # Whoever opens it says what is wrong.
        help=field.metadata["help"].replace("[", r"\["),  # Text, no markup.
        show_default=shown,
        metavar=field.metadata["metavar"],
        rich_help_panel=field.metadata["panel"],
        parser=steps_or_time if kind == StepsOrTime else None,
    )
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[(str if kind == StepsOrTime else kind) | None, option],
    )


def _shown(default: Any) -> str | bool:
    if default is None:
        return False
    if isinstance(default, bool):
        return "on" if default else "off"
    return f"{default:g}" if isinstance(default, float) else str(default)


def parse_domains(text: str | None) -> Domains | None:
    """The two names that ``--domains`` gives.

    Raises:
        UsageError: They are not two different names.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or names[0] == names[1] or not all(map(is_domain_name, names)):
        raise UsageError(
            f"--domains {text}: these are not two names",
            "Give those of domain A and B with a comma between: --domains day,night.",
        )
    return names[0], names[1]


def chosen_direction(info: ModelInfo, to: str | None, direction: Direction | None) -> Direction:
    """The direction that ``--to`` or ``--direction`` asks for.

    Raises:
        UsageError: Both were given, or the model knows no such domain.
        CheckpointError: The checkpoint holds the other direction alone.
    """
    if to is None:
        return info.require(direction or info.directions[0])
    if direction is not None:
        raise UsageError("--to and --direction exclude each other", "Give one of them.")
    return info.require(info.direction_to(to))


def parse_duration(text: str) -> float:
    """``2h``, ``90m``, ``1h30m``, ``45s`` or a number of seconds, as seconds.

    Raises:
        UsageError: It is none of these, or no time at all.
    """
    seconds = duration_seconds(text)
    if seconds is None:
        raise UsageError(
            f"--time-limit must be a duration like 2h, 90m or 1h30m, found {text!r}",
            "A number alone is seconds.",
        )
    return seconds


def parse_memory(text: str) -> int:
    """``4GB``, ``800MB``, ``4GiB`` or a number of bytes, as bytes.

    Raises:
        UsageError: It is none of these.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?I?)B?", text.strip().upper())
    size = float(match[1]) * UNITS.get(match[2], 0) if match else 0
    if size < 1:
        raise UsageError(
            f"--max-memory must be a size like 4GB or 800MB, found {text!r}",
            "GB are 10^9 bytes, GiB 2^30.",
        )
    return int(size)
