"""The training and validation images of both domains."""

from __future__ import annotations

import hashlib
import heapq
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cyclegan_cli.config import TrainConfig, option_name
from cyclegan_cli.data.folder import SkippedFiles, list_images
from cyclegan_cli.data.volumes import DEFAULT_AXIS, list_parts
from cyclegan_cli.errors import DataError, UsageError

MIN_VALIDATION_IMAGES = 2  # A single image has no diversity.


@dataclass(frozen=True)
class DataSplit:
    """Paths of the training and validation images.

    Attributes:
        images_a: Training images of domain A, in listing order.
        images_b: The same for domain B.
        val_a: Validation images of domain A; empty without validation.
        val_b: The same for domain B.
        skipped_a: Counts the image files below the folder of domain A that are not read.
        skipped_b: The same for domain B.
    """

    images_a: list[Path]
    images_b: list[Path]
    val_a: list[Path]
    val_b: list[Path]
    skipped_a: SkippedFiles = field(default_factory=SkippedFiles, compare=False)
    skipped_b: SkippedFiles = field(default_factory=SkippedFiles, compare=False)


def split_images(config: TrainConfig) -> DataSplit:
    """List the folders and hold out the validation images.

    Raises:
        UsageError: A folder is missing from the options, is named for both domains, or its name
            is not valid UTF-8.
        DataError: A folder does not exist or has no images.
    """
    for name in ("mask_a", "mask_b"):
        masks: Path | None = getattr(config, name)
        if masks is not None and not masks.is_dir():
            found = "a file" if masks.exists() else "nothing"
            raise DataError(
                f"{option_name(name)} {masks} is not a folder: found {found}",
                "Name a folder of masks.",
            )
    images_a, skipped_a = _list_images(config, "domain_a")
    images_b, skipped_b = _list_images(config, "domain_b")
    _refuse_without_effect(config, [*images_a, *images_b])
    folder_a, folder_b = config.domain_a, config.domain_b
    if folder_a and folder_b and folder_a.resolve() == folder_b.resolve():
        raise UsageError(
            f"--domain-a and --domain-b are the same folder {folder_a}",
            "Name one folder for each domain.",
        )
    if config.val_a and config.val_b:
        val_a, val_b = (
            _choose(_list_images(config, name)[0], folder, config.val_pictures)
            for folder, name in ((config.val_a, "val_a"), (config.val_b, "val_b"))
        )
    else:
        smaller = min(len(images_a), len(images_b))
        count = min(int(smaller * config.val_fraction), config.val_pictures)
        if count < MIN_VALIDATION_IMAGES or not config.validate_every:
            count = 0
        val_a, val_b = _choose(images_a, folder_a, count), _choose(images_b, folder_b, count)
        images_a, images_b = _without(images_a, val_a), _without(images_b, val_b)
    return DataSplit(images_a, images_b, val_a, val_b, skipped_a, skipped_b)


def _choose(images: Sequence[Path], folder: Path | None, count: int) -> list[Path]:
    """Choose images by the digests of their names.

    The choice depends neither on the seed nor on other images in the folder: runs are comparable,
    and a folder that grows keeps most of its validation images.
    """
    return heapq.nsmallest(count, images, key=lambda path: name_digest(path, folder))


def name_digest(path: Path, folder: Path | None) -> bytes:
    """Return the SHA-256 of the name of an image relative to its folder."""
    return hashlib.sha256(relative_name(path, folder)).digest()


def relative_name(path: Path, folder: Path | None) -> bytes:
    """Return the name of an image relative to its folder, the same on every system."""
    name = path.as_posix()
    if folder:
        prefix = f"{folder.as_posix()}/"
        # relative_to is slow: with many images it would dominate the start of a run.
        if name.startswith(prefix):
            name = name.removeprefix(prefix)
        else:
            name = path.relative_to(folder).as_posix()
    return name.encode(errors="surrogateescape")


def _without(images: Sequence[Path], excluded: Sequence[Path]) -> list[Path]:
    names = set(excluded)
    return [path for path in images if path not in names]


def _refuse_without_effect(config: TrainConfig, images: Sequence[Path]) -> None:
    """Refuse options for files that no domain has.

    Raises:
        UsageError: One is given.
    """
    for option, value, extensions in (
        ("--slice-axis", config.slice_axis, (".nii", ".nii.gz")),
        ("--array", config.array, (".npz",)),
    ):
        if value is not None and not any(
            path.parent.name.lower().endswith(extensions) for path in images
        ):
            raise UsageError(
                f"{option} is for {' and '.join(extensions)} files, and no domain has any",
                "Leave it out.",
            )


def _list_images(config: TrainConfig, field_name: str) -> tuple[list[Path], SkippedFiles]:
    """Return the images in a folder, with the slices of volumes in place of their files."""
    folder: Path | None = getattr(config, field_name)
    name = option_name(field_name)
    if folder is None:
        raise UsageError(f"{name} is missing", "Name a folder of images for each domain.")
    if not is_utf8(folder):
        raise UsageError(f"{name}: the name {str(folder)!r} is not valid UTF-8", "Rename it.")
    skipped = SkippedFiles()
    try:
        masks = (config.mask_a, config.mask_b)
        excluded = {os.path.realpath(one) for one in masks if one}
        images = list_images(folder, skipped, excluded)
    except DataError as error:
        raise DataError(f"{name}: {error.message}", error.hint) from error
    if not images:
        raise DataError(
            f"{name}: {folder} has no images",
            skipped.sentence() or "Folders are searched recursively for images.",
        )
    axis = DEFAULT_AXIS if config.slice_axis is None else config.slice_axis
    return list_parts(images, axis, config.array or ""), skipped


def is_utf8(path: Path) -> bool:
    """Return whether a path can be written to config.toml and to checkpoints."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
