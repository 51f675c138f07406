"""Shell completion, which reads only headers and ignores errors."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any

import typer

from cyclegan_cli.errors import CycleGANError


def complete_checkpoint(incomplete: str) -> list[str]:
    """Complete names of pretrained models, files and folders."""
    from cyclegan_cli.checkpoints.locate import pretrained_models

    names = [model.name for model in pretrained_models() if model.name.startswith(incomplete)]
    paths = sorted(glob.glob(f"{glob.escape(incomplete)}*"))
    return names + [f"{path}/" if os.path.isdir(path) else path for path in paths]


def complete_target(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the target domains of the checkpoint given on the command line."""
    from cyclegan_cli.checkpoints.locate import checkpoint_file, default_checkpoint, read_checkpoint
    from cyclegan_cli.config import parse_domains

    given: dict[str, Any] = ctx.params
    try:
        named = given.get("checkpoint")
        file = checkpoint_file(Path(named)) if named else default_checkpoint()
        info = read_checkpoint(file, parse_domains(given.get("domains"))).info
    except CycleGANError:
        return []
    names = [info.target(direction) for direction in info.directions]
    return [name for name in names if name.startswith(incomplete)]
