"""How the images of a domain are read: as RGB, or as arrays of one type and number of channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cyclegan_cli.config import (
    BAND_TYPES,
    COLOR_KINDS,
    BandFormat,
    TrainConfig,
    count_channels,
    parse_bands,
    parse_range,
)
from cyclegan_cli.data.band_facts import sampled_bands
from cyclegan_cli.data.bands import (
    GRAY_TYPES,
    BandProbe,
    UnsupportedTypeError,
    missing_values,
    probe_bands,
    select,
)
from cyclegan_cli.data.folder import subsample
from cyclegan_cli.data.formats import VOLUME_FORMATS
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.errors import DataError

PROBED_IMAGES = 200
MEASURED_IMAGES = 32
VALUES_PER_CHANNEL = 65_536  # Of an image.
PERCENTILES = (0.5, 99.5)


def find_format(config: TrainConfig, domain: str, images: Sequence[Path]) -> BandFormat | None:
    """Return how the images of a domain are read; None: as RGB.

    Args:
        config: The options.
        domain: ``a`` or ``b``.
        images: All images of the domain.

    Raises:
        DataError: The images differ in their number of channels or their type, have no band that
            is selected, or have values of a type that is not supported.
    """
    channels: int | None = getattr(config, f"channels_{domain}")
    bands = parse_bands(getattr(config, f"bands_{domain}"), f"--bands-{domain}")
    range_text: str | None = getattr(config, f"range_{domain}")
    probes = _with_common_type(_probe_all(domain, subsample(images, PROBED_IMAGES)))
    if not probes:
        return None  # The survey reports why none can be read.
    kinds = Counter(_kind(probe) for probe in probes.values())
    is_rgb = all(kind is None or _is_gray(kind) for kind in kinds)
    is_mixed = len(kinds) > 1
    wants_rgb = channels in (None, 3) and not bands and range_text is None
    if wants_rgb and is_rgb and (None in kinds or is_mixed or channels == 3):
        return None
    if channels is None and not bands and is_mixed:
        raise _mixed(domain, probes)
    count = channels or len(bands)
    usable = {
        path: probe for path, probe in probes.items() if not count or _can_give(probe, count, bands)
    }
    if not usable:
        error = _mixed(domain, probes, f", and none has {_wanted(count, bands)}")
        if bands or not all(probe.is_color for probe in probes.values()):
            raise error
        raise DataError(
            error.message,
            f"Leave out --channels-{domain} to read them as RGB, or remove their transparency or "
            "palette first, for example: magick IN.png -background white -alpha remove OUT.png",
        )
    dtypes = Counter(probe.dtype for probe in usable.values())
    if len(dtypes) > 1:
        raise _mixed(domain, probes)
    first = next(iter(usable.values()))
    found = BandFormat(
        count or first.channels,
        first.dtype,
        (0.0,),
        (1.0,),
        bands,
        _nodata(config, list(usable.values())),
        is_color=not bands
        and (count or first.channels, first.dtype) in COLOR_KINDS
        and all(probe.is_color for probe in usable.values()),
    )
    low, high = _range(found, range_text, list(usable))
    return replace(found, low=low, high=high)


def _probe_all(domain: str, images: Sequence[Path]) -> dict[Path, BandProbe]:
    found: dict[Path, BandProbe] = {}
    unsupported: list[UnsupportedTypeError] = []
    for path in images:
        try:
            found[path] = probe_bands(path, str(path))
        except UnsupportedTypeError as error:
            unsupported.append(error)
        except DataError:
            continue  # The survey reports it.
    if unsupported:  # Pillow would read such images at 8 bits.
        count = f"{len(unsupported)} of {len(images)} images"
        first = unsupported[0]
        raise DataError(
            f"--domain-{domain}: {count} cannot be read, such as: {first.message}", first.hint
        )
    return found


def _with_common_type(probes: dict[Path, BandProbe]) -> dict[Path, BandProbe]:
    """Give volumes a type that holds the values of all of them.

    Their values are in the unit of the header, whatever the type in which each file stores them.
    """
    volumes = {
        path: probe
        for path, probe in probes.items()
        if probe.format in VOLUME_FORMATS and not probe.is_color
    }
    if not volumes:
        return probes
    common = str(np.result_type(*(probe.dtype for probe in volumes.values())))
    dtype = common if common in BAND_TYPES else "float32"
    return probes | {path: replace(probe, dtype=dtype) for path, probe in volumes.items()}


def _kind(probe: BandProbe) -> tuple[int, str] | None:
    """Return the number of channels and the type; None of a color image."""
    return None if probe.is_color else (probe.channels, probe.dtype)


def _is_gray(kind: tuple[int, str]) -> bool:
    return kind[0] == 1 and kind[1] in GRAY_TYPES


def _can_give(probe: BandProbe, count: int, bands: tuple[int, ...]) -> bool:
    """Return whether :func:`cyclegan_cli.data.bands.select` returns channels of an image."""
    if bands:
        return probe.channels >= max(bands)
    converts = (probe.channels, count) in ((3, 1), (1, 3)) and (count == 3 or probe.is_color)
    return probe.channels == count or converts


def _wanted(count: int, bands: tuple[int, ...]) -> str:
    return f"band {max(bands)}" if bands else count_channels(count)


def _mixed(domain: str, probes: dict[Path, BandProbe], more: str = "") -> DataError:
    counts = Counter(probe.kind for probe in probes.values())
    listed = ", ".join(f"{count} with {kind}" for kind, count in counts.most_common())
    return DataError(
        f"--domain-{domain}: the images differ in channels or type: {listed}{more}"
        if len(counts) > 1
        else f"--domain-{domain}: the images have {listed.partition(' with ')[2]}{more}",
        f"Keep images of one kind, or select with --channels-{domain} or --bands-{domain}.",
    )


def _nodata(config: TrainConfig, probes: Sequence[BandProbe]) -> float | None:
    """Return ``--nodata``, else the most common GDAL_NODATA of the files."""
    if config.nodata is not None:
        return config.nodata
    declared = Counter(probe.nodata for probe in probes if probe.nodata is not None)
    return declared.most_common(1)[0][0] if declared else None


def _range(
    found: BandFormat, text: str | None, images: Sequence[Path]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    given = parse_range(text, "--range")
    if given is not None:
        return (given[0],), (given[1],)
    if found.dtype == "uint8" and text != "per-channel":
        return (0.0,), (255.0,)
    samples = sample_values(found, images)
    if text != "per-channel":
        samples = [np.concatenate(samples)]
    pairs = [_percentiles(values) for values in samples]
    return tuple(low for low, _ in pairs), tuple(high for _, high in pairs)


def sample_values(
    found: BandFormat, images: Sequence[Path], limit: int = MEASURED_IMAGES
) -> list[PixelArray]:
    """Return values with data of a sample of images, fp64, one array per channel.

    Images that cannot be read are left out.
    """
    parts: list[list[PixelArray]] = [[] for _ in range(found.channels)]
    for path in subsample(images, limit):
        try:
            image, _ = sampled_bands(path)
            values = select(image, found, str(path))
        except DataError:
            continue
        step = max(1, -(-values.shape[0] * values.shape[1] // VALUES_PER_CHANNEL))
        values = values.reshape(-1, found.channels)[::step]
        valid = ~missing_values(values, found.nodata, image.probe.nodata)
        for channel, part in enumerate(parts):
            part.append(values[valid[:, channel], channel].astype(np.float64))
    return [np.concatenate(part) if part else np.empty(0) for part in parts]


def _percentiles(values: PixelArray) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    low, high = (float(f"{value:.6g}") for value in np.percentile(values, PERCENTILES))
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def clipped_fraction(found: BandFormat, images: Sequence[Path]) -> float:
    """Return the fraction of sampled values outside the range."""
    samples = sample_values(found, images)
    low, high = (
        np.broadcast_to(np.array(ends), found.channels) for ends in (found.low, found.high)
    )
    outside = sum(
        int(((values < low[i]) | (values > high[i])).sum()) for i, values in enumerate(samples)
    )
    return outside / max(sum(values.size for values in samples), 1)
