"""How the original implementation and its kin name their generators. No torch here."""

from __future__ import annotations

import math
import re
from pathlib import Path

from cyclegan_cli.checkpoints.header import Direction
from cyclegan_cli.errors import CheckpointError

LATEST = re.compile(r"latest_net_G(?:_[AB])?\.pth")
NUMBERED = re.compile(r"(?:iter_)?\d+_net_G\.pth")
# G_A, netG_A2B, G_AB, gen_A2B, generator_AtoB, ... and the same for the other direction.
DIRECTION = re.compile(
    r"(?:^|[._-])(?:net_?)?(?:G|gen|generator)_?(A_?(?:2|to)?_?B|A|B_?(?:2|to)?_?A|B)(?:[._-]|$)",
    re.IGNORECASE,
)
EPOCH = re.compile(r"(?:^|[._-])(?:epoch|iter)?(\d+)(?=[._-]|$)", re.IGNORECASE)


def direction_of(name: str) -> Direction | None:
    """The direction that a name of the original's kind tells: ``netG_B`` is ``b2a``."""
    match = DIRECTION.search(name)
    return None if match is None else "a2b" if match[1][0] in "Aa" else "b2a"


def generator_files(folder: Path) -> list[Path]:
    """The newest generators of the original implementation or its kin in a folder.

    They are the ``latest_net_G_A.pth`` and ``latest_net_G_B.pth``, else the files of one epoch
    (``5_net_G_A.pth``, ``G_AB_5.pth``) or without one (``netG_A2B.pth``, which counts as the
    last): of those with both directions, or if there are none of those with one, the last.

    Raises:
        CheckpointError: Two files of one direction are equally new.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix in (".pth", ".pt"))
    if latest := [file for file in files if LATEST.fullmatch(file.name)]:
        return latest
    by_epoch: dict[float, dict[Direction, Path]] = {}
    for file in files:
        direction = direction_of(file.stem) or ("a2b" if NUMBERED.fullmatch(file.name) else None)
        if direction is None:
            continue
        of_epoch = by_epoch.setdefault(_epoch(file.stem), {})
        if direction in of_epoch:
            raise CheckpointError(
                f"the folder {folder} has several generators of one direction: "
                f"{of_epoch[direction].name} and {file.name}",
                "Name the one that is wanted instead of the folder.",
            )
        of_epoch[direction] = file
    if not by_epoch:
        return []
    return list(by_epoch[max(by_epoch, key=lambda epoch: (len(by_epoch[epoch]), epoch))].values())


def _epoch(stem: str) -> float:
    return max((int(number) for number in EPOCH.findall(stem)), default=math.inf)
