"""Translations and the images that they belong to, matched by file name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cyclegan_cli.errors import DataError


def match_names(
    images: Sequence[Path], folder: Path, others: Iterable[Path], other_folder: Path
) -> dict[Path, Path]:
    """Match images of two folders by their relative paths without extensions.

    A suffix that the names of the first folder have in common, such as ``_night`` in
    ``photo_night.jpg`` for ``photo.jpg``, is found and ignored.

    Args:
        images: Images in ``folder``.
        folder: For example the folder of translations.
        others: Images in ``other_folder``.
        other_folder: For example the folder of the ground truth.

    Returns:
        The matching image of each image that has one.

    Raises:
        DataError: Two images of the other folder have the same name.
    """
    by_name: dict[str, Path] = {}
    for other in others:
        name = _name(other, other_folder)
        if name in by_name:
            raise DataError(
                f"{by_name[name]} and {other} have the same name, so that a translation would "
                "match both",
                "Remove one of them.",
            )
        by_name[name] = other
    names = {image: _name(image, folder) for image in images}
    suffix = _common_suffix(names.values(), by_name)
    matches = {
        image: by_name.get(name.removesuffix(suffix))
        for image, name in names.items()
        if name.endswith(suffix)
    }
    return {image: other for image, other in matches.items() if other is not None}


def _name(image: Path, folder: Path) -> str:
    return image.relative_to(folder).with_suffix("").as_posix()


def _common_suffix(names: Iterable[str], known: Iterable[str]) -> str:
    """Return the suffix without which most names are known; of several, the shortest.

    A suffix does not begin with a letter or digit: ``photo10`` does not belong to ``photo1``.
    """
    known, found = set(known), Counter({"": 0})
    for name in names:
        for end in range(1, len(name) + 1):
            suffix = name[end:]
            if name[:end] in known and not suffix[:1].isalnum() and "/" not in suffix:
                found[suffix] += 1
    return min(found, key=lambda suffix: (-found[suffix], len(suffix), suffix))
