"""Images, and folders of them: formats and sizes of all, colors of a sample."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageStat

from cyclegan_cli.data.folder import (
    SkippedFiles,
    duplicates,
    list_images,
    spread,
    subsample,
    survey,
)
from cyclegan_cli.data.open_image import Probe, count_frames, format_of, open_image, probe
from cyclegan_cli.errors import DataError
from cyclegan_cli.inspection.summary import Facts, Request, Summary

MOST_LISTED = 20
SAMPLE = 100  # Images decoded for color statistics, evenly spaced over the folder.
THUMBNAIL = 64  # Short side in pixels of decoded images; averages need no more.


def describe_image(path: Path) -> Summary:
    """Describe an image by its header, and by the problem of its pixel data, if there is one.

    Raises:
        DataError: It is not an image.
    """
    facts: Facts = {"bytes": path.stat().st_size}
    try:
        with open_image(path, str(path)) as image:
            frames = count_frames(image)
            facts |= vars(Probe(format_of(image), image.mode, image.width, image.height, frames))
            image.load()
    except DataError as error:
        # Of a damaged image the header alone may still be readable.
        facts |= vars(probe(path)) | {"problem": error.message}
    return Summary(path, "picture", facts)


def describe_images(path: Path, request: Request) -> Summary:
    """Describe a folder of images, i.e. a domain.

    Raises:
        DataError: It cannot be listed.
    """
    skipped = SkippedFiles()
    images = list_images(path, skipped)
    found = survey(images)
    facts: Facts = {"pictures": len(images), **found.facts()}
    if found.probes:
        limit = None if request.full else SAMPLE
        facts |= _color_facts(subsample(list(found.probes), limit), found.problems)
    same = duplicates(found.probes)
    problems = list(found.problems.values())
    facts |= {"unreadable": len(problems), "duplicates": sum(len(group) - 1 for group in same)}
    if skipped.counts:
        facts["passed_over"] = skipped.counts
    if problems:
        facts["problems"] = problems[:MOST_LISTED]
    if same:
        facts["same"] = [
            " = ".join(os.fspath(image.relative_to(path)) for image in group)
            for group in same[:MOST_LISTED]
        ]
    return Summary(path, "pictures", facts)


def _color_facts(chosen: Sequence[Path], problems: dict[Path, str]) -> Facts:
    """Return averages over thumbnails, in 0..255; add undecodable images to ``problems``."""
    rows: list[list[float]] = []
    for image in chosen:
        try:
            rows.append(_colors(image))
        except DataError as error:
            problems[image] = error.message
    if not rows:
        return {}
    columns = list(zip(*rows, strict=True))
    names = ("brightness", "contrast", "saturation")
    colors: Facts = {"sampled": len(rows)}
    colors |= {name: spread(column, 1) for name, column in zip(names, columns, strict=False)}
    means = (round(statistics.fmean(column), 1) for column in columns[3:])
    return {"colours": colors | dict(zip(("red", "green", "blue"), means, strict=True))}


def _colors(path: Path) -> list[float]:
    """Return brightness, contrast (standard deviation), saturation, and mean red, green and blue.

    Raises:
        DataError: It cannot be decoded.
    """
    from cyclegan_cli.data.decode import decode  # Needs numpy, which headers do not.

    pixels = decode(path, shrink_to=THUMBNAIL).frames[0]
    image = Image.fromarray(pixels if pixels.itemsize == 1 else (pixels >> 8).astype("uint8"))
    image.thumbnail((4 * THUMBNAIL, 4 * THUMBNAIL))
    gray = ImageStat.Stat(image.convert("L"))
    saturation = ImageStat.Stat(image.convert("HSV")).mean[1]
    return [gray.mean[0], gray.stddev[0], saturation, *ImageStat.Stat(image).mean]
