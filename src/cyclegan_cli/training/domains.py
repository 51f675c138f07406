"""The images of both domains: which are trained on, and which are held out to measure on."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cyclegan_cli.config import TrainConfig, option_name
from cyclegan_cli.data.folder import SkippedFiles, list_images
from cyclegan_cli.errors import DataError, UsageError

FEWEST_HELD_OUT = 2  # A single image has no diversity.


@dataclass(frozen=True)
class Domains:
    """Paths of all images.

    Attributes:
        images_a: Of domain A, to train on, in listing order.
        images_b: Of domain B.
        held_out_a: Of domain A, to measure on, in the order of choice; empty if there are none.
        held_out_b: Of domain B.
    """

    images_a: list[Path]
    images_b: list[Path]
    held_out_a: list[Path]
    held_out_b: list[Path]


def find_images(config: TrainConfig) -> Domains:
    """List the folders and set images aside.

    Raises:
        UsageError: A folder is not named, named for both domains, or its name cannot be written
            down.
        DataError: A folder is missing or has no images.
    """
    images_a = _listed(config.domain_a, "domain_a")
    images_b = _listed(config.domain_b, "domain_b")
    _refuse_one_folder(config)
    if config.val_a and config.val_b:
        held_out = [
            _chosen(_listed(folder, name), folder, config.val_pictures)
            for folder, name in ((config.val_a, "val_a"), (config.val_b, "val_b"))
        ]
        return Domains(images_a, images_b, *held_out)
    fewer = min(len(images_a), len(images_b))
    count = min(int(fewer * config.val_fraction), config.val_pictures)
    if count < FEWEST_HELD_OUT or not config.validate_every:
        return Domains(images_a, images_b, [], [])
    held_out_a = _chosen(images_a, config.domain_a, count)
    held_out_b = _chosen(images_b, config.domain_b, count)
    return Domains(
        _without(images_a, held_out_a), _without(images_b, held_out_b), held_out_a, held_out_b
    )


def _refuse_one_folder(config: TrainConfig) -> None:
    folder_a, folder_b = config.domain_a, config.domain_b
    if folder_a and folder_b and folder_a.resolve() == folder_b.resolve():
        raise UsageError(
            f"--domain-a and --domain-b are the same folder {folder_a}",
            "Name one folder for each domain.",
        )


def _chosen(images: Sequence[Path], folder: Path | None, count: int) -> list[Path]:
    """Some images by the digests of their names.

    Neither the seed nor other images in the folder have a say: runs can be compared, and a
    folder that has grown keeps (mostly) the ones that were held out before.
    """
    return heapq.nsmallest(count, images, key=lambda path: name_digest(path, folder))


def name_digest(path: Path, folder: Path | None) -> bytes:
    """SHA-256 of an image's name below its folder."""
    return hashlib.sha256(relative_name(path, folder)).digest()


def relative_name(path: Path, folder: Path | None) -> bytes:
    """An image's name below its folder, the same on every system."""
    name = path.as_posix()
    if folder:
        below = f"{folder.as_posix()}/"
        # relative_to would take most of the time that a run with many images needs to start.
        name = name[len(below) :] if name.startswith(below) else path.relative_to(folder).as_posix()
    return name.encode(errors="surrogateescape")


def _without(images: Sequence[Path], taken: Sequence[Path]) -> list[Path]:
    left_out = set(taken)
    return [path for path in images if path not in left_out]


def _listed(folder: Path | None, field_name: str) -> list[Path]:
    name = option_name(field_name)
    if folder is None:
        raise UsageError(f"{name} is missing", "Name a folder of images for each domain.")
    if not is_utf8(folder):
        raise UsageError(f"{name}: the name {str(folder)!r} is not valid UTF-8", "Rename it.")
    try:
        passed_over = SkippedFiles()
        images = list_images(folder, passed_over)
    except DataError as error:
        raise DataError(f"{name}: {error.message}", error.hint) from error
    if not images:
        raise DataError(
            f"{name}: {folder} has no images",
            passed_over.sentence() or "Folders are searched recursively for images.",
        )
    return images


def is_utf8(path: Path) -> bool:
    """Whether a path can be written into config.toml and the checkpoints."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
