"""Where an image's translation goes."""

from __future__ import annotations

import os
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cyclegan_cli.data.formats import writable_format
from cyclegan_cli.errors import UsageError
from cyclegan_cli.translation.inputs import Source

# What images are written as when their own format can only be read.
FALLBACK_ENDING = ".png"
IN_FOLDER = "{stem}{ext}"
BESIDE_INPUT = "{stem}_{domain}{ext}"
PLACEHOLDERS = {
    "stem": "the input's name without its ending",
    "ext": "the ending that fits the format",
    "domain": "the name of the domain translated to",
    "parent": "the name of the folder that the input is in",
}


@dataclass(frozen=True)
class Template:
    """A pattern of names, as ``--name-template`` gives it.

    Attributes:
        text: With placeholders in braces.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            fields = [part[1:] for part in string.Formatter().parse(self.text)]
        except ValueError as error:
            raise self._refusal(f"has unpaired braces: {error}") from error
        for name, spec, conversion in fields:
            if name is not None and (name not in PLACEHOLDERS or spec or conversion):
                raise self._refusal(f"has an unknown placeholder {{{name}}}")
        if not any(name == "stem" for name, *_ in fields):
            raise self._refusal("has no {stem}, so that all images would have one name")
        ending = os.path.splitext(self.text)[1]
        if not self.text.endswith("{ext}") and not writable_format(ending):
            raise self._refusal("must end in {ext} or in an ending of a format, as .png")

    def fill(self, **values: str) -> str:
        """The name for an image: a relative path that stays in its folder.

        Raises:
            UsageError: It would not.
        """
        name = self.text.format(**values)
        parts = name.replace(os.sep, "/").split("/")
        if any(part in ("", os.curdir, os.pardir) for part in parts) or os.path.splitdrive(name)[0]:
            raise self._refusal(f"gives {name!r}, which is no name in the output folder")
        return name

    def _refusal(self, reason: str) -> UsageError:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        return UsageError(f"--name-template {self.text!r} {reason}", f"There are {known}.")


@dataclass(frozen=True)
class Naming:
    """Where translations go.

    Attributes:
        target: Name of the domain translated to.
        folder: The output folder; None: beside each input.
        file: The only output.
        template: Of the names in the folder or beside the input.
        ending: That of the format that all are written in; None: each input's own, if it can be.
    """

    target: str
    folder: str | None = None
    file: str | None = None
    template: Template = Template(BESIDE_INPUT)
    ending: str | None = None

    def output_of(self, source: Source) -> str:
        """The path of an image's translation.

        Raises:
            UsageError: It was found in a folder, and there is no folder for its translation.
        """
        if self.file is not None:
            return self.file
        if self.folder is None:
            if source.folder is not None:
                raise UsageError(
                    f"{source.folder} is a folder, which needs -o DIR",
                    "Name a folder for the translated images.",
                )
            return os.path.join(os.path.dirname(source.path), self._name_of(source))
        return os.path.join(self.folder, os.path.dirname(source.place), self._name_of(source))

    def _name_of(self, source: Source) -> str:
        # Not os.path.splitext: to pathlib and to us " .jpg" has an ending.
        stem, ending = _split_ending(os.path.basename(source.path))
        return self.template.fill(
            stem=stem,
            ext=self.ending or (ending if writable_format(ending) else FALLBACK_ENDING),
            domain=self.target,
            parent=_parent_of(source.path) if "{parent}" in self.template.text else "",
        )


def _parent_of(path: str) -> str:
    return os.path.basename(os.path.dirname(os.path.abspath(path)))


def _split_ending(name: str) -> tuple[str, str]:
    dot = name.rfind(".")
    return (name[:dot], name[dot:]) if 0 < dot < len(name) - 1 else (name, "")


def plan_naming(
    output: str | None,
    first_two: Sequence[Source],
    target: str,
    template: str | None = None,
    suffix: str | None = None,
    ending: str | None = None,
) -> Naming:
    """What the user's options mean for these inputs.

    Args:
        output: A file (for one input file), a folder, or None: beside each input.
        first_two: The first two inputs, or as many as there are.
        target: Name of the domain translated to.
        template: ``--name-template``.
        suffix: ``--suffix``, what is added to each name.
        ending: That of the format that all are written in, if it is not the inputs'.

    Raises:
        UsageError: They make no sense, alone or together.
    """
    template = _template_text(template, suffix, ending)
    if output is None or _means_folder(output, first_two):
        default = BESIDE_INPUT if output is None else IN_FOLDER
        return Naming(
            target, output, None, Template(default if template is None else template), ending
        )
    if template is not None:
        raise UsageError(
            f"-o {output} names a file, so there is nothing to name",
            "Leave out --suffix and --name-template, or name a folder with a / at its end.",
        )
    if ending is not None and writable_format(ending) != writable_format(Path(output).suffix):
        raise UsageError(
            f"-o {output} does not end as --format {ending[1:]} does", "Leave --format out."
        )
    return Naming(target, file=str(Path(output)))


def _template_text(template: str | None, suffix: str | None, ending: str | None) -> str | None:
    """The template that the options make, or None: the default one."""
    if suffix is not None and template is not None:
        raise UsageError("--suffix and --name-template exclude each other", "Give one of them.")
    if suffix is not None:
        return f"{{stem}}{_escaped(suffix)}{{ext}}"
    if ending is not None and template is not None and not template.endswith("{ext}"):
        raise UsageError(
            f"--name-template {template!r} has an ending of its own, and --format another",
            "End the template in {ext}.",
        )
    return template


def _escaped(suffix: str) -> str:
    if "/" in suffix or os.sep in suffix:
        raise UsageError(f"--suffix {suffix!r} has a folder in it", "Use --name-template.")
    return suffix.replace("{", "{{").replace("}", "}}")


def _means_folder(output: str, first_two: Sequence[Source]) -> bool:
    """Whether ``-o`` names a folder: it is one, is written like one, or must be one.

    Raises:
        UsageError: It names a file where only a folder will do, or one that cannot be written.
    """
    if not output:
        raise UsageError("-o is empty", "Name a file or a folder.")
    path = Path(output)
    if path.is_dir() or output.endswith(("/", os.sep)):
        return True
    needs_folder = len(first_two) > 1 or any(source.folder is not None for source in first_two)
    if needs_folder and (path.is_file() or writable_format(path.suffix)):
        raise UsageError(
            f"-o {output} names a file, but these inputs need a folder",
            "Name a folder; with a / at its end where it looks like a file.",
        )
    if needs_folder or not (path.suffix or path.is_file()):
        return True
    if not writable_format(path.suffix):
        raise UsageError(
            f"-o {output}: {path.suffix!r} is not an ending of a format that can be written",
            "Use .png or .jpg, for example.",
        )
    return False
