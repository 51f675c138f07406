"""Pictures and folders of them: formats and sizes of all, colours of a sample."""

from __future__ import annotations

import hashlib
import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageStat

from cyclegan_cli.data.listing import list_pictures
from cyclegan_cli.data.opening import Probe, probe
from cyclegan_cli.errors import DataError
from cyclegan_cli.inspection.summary import Facts, Request, Summary

MOST_LISTED = 20
SAMPLE = 100  # Pictures decoded for the statistics of colours, evenly over the folder.
THUMBNAIL = 64  # Their short side in pixels; averages need no more.


def describe_picture(path: Path) -> Summary:
    """One picture, from its header.

    Raises:
        DataError: It is none.
    """
    found = probe(path)
    return Summary(path, "picture", {"bytes": path.stat().st_size, **vars(found)})


def describe_pictures(path: Path, request: Request) -> Summary:
    """A folder of pictures: a domain.

    Raises:
        DataError: It cannot be listed.
    """
    pictures = list_pictures(path)
    probes: dict[Path, Probe] = {}
    problems: dict[Path, str] = {}
    for picture in pictures:
        try:
            probes[picture] = probe(picture)
        except DataError as error:
            problems[picture] = error.message
    facts: Facts = {"pictures": len(pictures)}
    if probes:
        facts |= _header_facts(probes.values())
        facts |= _colour_facts(list(probes), None if request.full else SAMPLE, problems)
    duplicates = _duplicates(path, list(probes))
    facts |= {"unreadable": len(problems), "duplicates": sum(len(g) - 1 for g in duplicates)}
    if problems:
        facts["problems"] = list(problems.values())[:MOST_LISTED]
    if duplicates:
        facts["same"] = [" = ".join(group) for group in duplicates[:MOST_LISTED]]
    return Summary(path, "pictures", facts)


def _header_facts(probes: Iterable[Probe]) -> Facts:
    found = list(probes)
    sizes = [(one.width, one.height) for one in found]
    return {
        "formats": dict(Counter(one.format for one in found).most_common()),
        "modes": dict(Counter(one.mode for one in found).most_common()),
        "short_side": _spread([min(size) for size in sizes]),
        "long_side": _spread([max(size) for size in sizes]),
    }


def _spread(values: Sequence[float], digits: int | None = None) -> Facts:
    measures: dict[str, Callable[[Sequence[float]], float]] = {
        "smallest": min, "median": statistics.median, "largest": max
    }  # fmt: skip
    return {name: round(measure(values), digits) for name, measure in measures.items()}


def _colour_facts(pictures: list[Path], limit: int | None, problems: dict[Path, str]) -> Facts:
    """Averages over thumbnails, in 0..255; pictures that cannot be decoded become problems."""
    step = 1 if limit is None else max(1, -(-len(pictures) // limit))
    chosen = pictures[::step]
    rows: list[list[float]] = []
    for picture in chosen:
        try:
            rows.append(_colours(picture))
        except DataError as error:
            problems[picture] = error.message
    if not rows:
        return {}
    columns = list(zip(*rows, strict=True))
    names = ("brightness", "contrast", "saturation")
    colours: Facts = {"sampled": len(rows)}
    colours |= {name: _spread(column, 1) for name, column in zip(names, columns, strict=False)}
    means = (round(statistics.fmean(column), 1) for column in columns[3:])
    return {"colours": colours | dict(zip(("red", "green", "blue"), means, strict=True))}


def _colours(path: Path) -> list[float]:
    """Brightness, contrast (standard deviation), saturation, red, green and blue of a picture.

    Raises:
        DataError: It cannot be decoded.
    """
    from cyclegan_cli.data.decoding import decode  # Needs numpy, which headers do not.

    levels = decode(path, shrink_to=THUMBNAIL).frames[0]
    image = Image.fromarray(levels if levels.itemsize == 1 else (levels >> 8).astype("uint8"))
    image.thumbnail((4 * THUMBNAIL, 4 * THUMBNAIL))
    grey = ImageStat.Stat(image.convert("L"))
    saturation = ImageStat.Stat(image.convert("HSV")).mean[1]
    return [grey.mean[0], grey.stddev[0], saturation, *ImageStat.Stat(image).mean]


def _duplicates(folder: Path, pictures: list[Path]) -> list[list[str]]:
    """Groups of files with the same bytes; only files of one size are read."""
    by_size: dict[int, list[Path]] = {}
    for picture in pictures:
        by_size.setdefault(picture.stat().st_size, []).append(picture)
    by_content: dict[bytes, list[str]] = {}
    for group in by_size.values():
        for picture in group if len(group) > 1 else []:
            name = os.fspath(picture.relative_to(folder))
            by_content.setdefault(_digest(picture), []).append(name)
    return [group for group in by_content.values() if len(group) > 1]


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
