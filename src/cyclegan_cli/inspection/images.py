"""Images, and folders of them: formats and sizes of all, colors of a sample."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
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
from cyclegan_cli.data.open_image import (
    TIFF_EXTENSIONS,
    Probe,
    count_frames,
    format_of,
    is_array,
    open_image,
    probe,
)
from cyclegan_cli.data.volumes import is_array_file
from cyclegan_cli.errors import DataError
from cyclegan_cli.inspection.summary import Facts, Request, Summary

MOST_LISTED = 20
SAMPLE = 100  # Images decoded for color statistics, evenly spaced over the folder.
# How the values of a channel in several images are summarized.
SUMMARIES: dict[str, Callable[[Iterable[float]], float]] = {
    "smallest": min,
    "percentile_0.5": statistics.fmean,
    "percentile_99.5": statistics.fmean,
    "largest": max,
}
MEASURED = ("sampled", "without_data", "channels")  # Facts that are averaged; others are counted.
THUMBNAIL = 64  # Short side in pixels of decoded images; averages need no more.


def describe_image(path: Path) -> Summary:
    """Describe an image by its header, and by the problem of its pixel data, if there is one.

    Raises:
        DataError: It is not an image.
    """
    facts: Facts = {"bytes": path.stat().st_size}
    header = _array_header(path)
    if header is not None:
        problems: dict[Path, str] = {}
        facts |= vars(header) | _array_facts([path], problems)
        facts |= {"problem": problems[path]} if problems else {}
        return Summary(path, "picture", facts)
    try:
        with open_image(path, str(path)) as image:
            frames = count_frames(image)
            facts |= vars(Probe(format_of(image), image.mode, image.width, image.height, frames))
            image.load()
    except DataError as error:
        # Of a damaged image the header alone may still be readable.
        facts |= vars(probe(path)) | {"problem": error.message}
    return Summary(path, "picture", facts)


def _array_header(path: Path) -> Probe | None:
    """Return the header of an image that only :mod:`cyclegan_cli.data.bands` reads, else None."""
    if path.suffix.lower() not in TIFF_EXTENSIONS and not is_array_file(path):
        return None
    with suppress(DataError):
        header = probe(path, any_size=True)
        return header if is_array(header) else None
    return None


def _array_facts(paths: Sequence[Path], problems: dict[Path, str]) -> Facts:
    """Return the values of arrays: by kind, and of each channel if all are of one kind.

    Add files that cannot be read to ``problems``.
    """
    from cyclegan_cli.data.band_facts import describe_bands  # Needs numpy.

    described: list[Facts] = []
    for path in paths:
        try:
            described.append(describe_bands(path))
        except DataError as error:
            problems[path] = error.message
    facts: Facts = {}
    if not described:
        return facts
    kinds = Counter(one.pop("kind") for one in described)
    facts["values"] = {"sampled": len(described), "kinds": dict(kinds.most_common())}
    if (pixels := statistics.fmean(one["sampled"] for one in described)) < 1:
        facts["values"]["sampled_pixels"] = pixels
    for name in dict.fromkeys(name for one in described for name in one if name not in MEASURED):
        found = Counter(str(one[name]) for one in described if one.get(name) is not None)
        if found:
            facts["values"][name] = dict(found.most_common())
    facts["values"]["without_data"] = statistics.fmean(one["without_data"] for one in described)
    # Images without data have no smallest and largest value.
    described = [one for one in described if one["without_data"] < 1]
    if len(kinds) == 1 and described:
        columns = zip(*(one["channels"] for one in described), strict=True)
        facts["values"]["channels"] = [
            {
                name: round(summarize(one[name] for one in column), 6)
                for name, summarize in SUMMARIES.items()
            }
            for column in map(list, columns)
        ]
    return facts


def describe_images(path: Path, request: Request) -> Summary:
    """Describe a folder of images, i.e. a domain.

    Raises:
        DataError: It cannot be listed.
    """
    skipped = SkippedFiles()
    images = list_images(path, skipped)
    found = survey(images, any_size=True)
    facts: Facts = {"pictures": len(images), **found.facts()}
    if found.probes:
        limit = None if request.full else SAMPLE
        arrays = [path for path, header in found.probes.items() if is_array(header)]
        images_in_color = [path for path in found.probes if path not in set(arrays)]
        facts |= _color_facts(subsample(images_in_color, limit), found.problems)
        facts |= _array_facts(subsample(arrays, limit), found.problems) if arrays else {}
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
