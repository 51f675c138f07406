"""Translate a TIFF that is larger than memory: rows are read, translated and written in turn."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cyclegan_cli import files
from cyclegan_cli.data.bands import BandImage, BandProbe, avoid_value, nodata_value
from cyclegan_cli.data.image import BitDepth, PixelArray
from cyclegan_cli.data.masks import composite_values
from cyclegan_cli.data.raster import BandRaster, open_raster, write_raster
from cyclegan_cli.errors import DeviceError, OutputError
from cyclegan_cli.models.padding import padded_size
from cyclegan_cli.runtime.memory import memory_errors
from cyclegan_cli.translation.memory import HALO, MemoryEstimate
from cyclegan_cli.translation.pixel_rows import PixelRows, to_pixels
from cyclegan_cli.translation.strips import StripPlan
from cyclegan_cli.translation.translator import Translator

# Copies of a window in fp64 while its values are mapped to [-1, 1].
CONVERSIONS = 4
# Of an output that is compressed, the fraction of its values' size that must be free.
COMPRESSED_FRACTION = 0.5
OPAQUE = 255


@dataclass(frozen=True)
class RasterJob:
    """A TIFF to be translated in windows.

    Attributes:
        path: The file.
        output: The file to be written.
        probe: Facts from its header.
        weights: ``[H, W]`` uint16: where the translation replaces the values, see
            :class:`~cyclegan_cli.data.masks.Masking`; None: everywhere.
        bit_depth: Bits per channel of an RGB output.
        remarks: Sentences about the image.
    """

    path: Path
    output: Path
    probe: BandProbe
    weights: PixelArray | None = None
    bit_depth: BitDepth = 8
    remarks: tuple[str, ...] = ()

    @property
    def format(self) -> str:
        """Name of the format of the input."""
        return self.probe.format


def output_probe(
    translator: Translator, source: BandProbe | None, size: tuple[int, int], lacks_data: bool
) -> BandProbe:
    """Return the header of a translation into a domain that is not RGB.

    Args:
        translator: The translator.
        source: Facts about the input if it has bands.
        size: Width and height.
        lacks_data: Whether any pixel lacks data.
    """
    target, domain = translator.target_format, translator.source_format
    assert target is not None
    declared = source.nodata if source else None
    known = declared if domain is None or domain.nodata is None else domain.nodata
    has_nodata = lacks_data or target.nodata is not None
    return BandProbe(
        source.format if source else "PNG",
        *size,
        target.channels,
        target.dtype,
        is_color=target.is_color,
        nodata=nodata_value(target, known) if has_nodata else None,
    )


def translate_raster(translator: Translator, job: RasterJob) -> None:
    """Translate a TIFF and write the result, atomically, in memory for some rows.

    Args:
        translator: The translator.
        job: The input and the output.

    Raises:
        DataError: The input cannot be read.
        OutputError: The output cannot be written, or its disk has too little space.
        DeviceError: There is not enough memory, or too little space for the feature maps.
    """
    source, size = translator.source_format, (job.probe.width, job.probe.height)
    subject = f"translating {size[0]}x{size[1]} pixels"
    with memory_errors(subject, "Use a smaller image."), open_raster(job.path, source) as raster:
        width, height = raster.probe.width, raster.probe.height
        image = PixelRows(
            raster, translator.generator.config.input_channels, translator.like, source
        )
        pixel_bytes = _window_bytes(translator, raster)
        plan = translator.plan(image.height, padded_size(width), pixel_bytes)
        # Before the pass over the file that finds pixels without data.
        _refuse_full_disk(
            translator, plan, _output(translator, raster, False, job.bit_depth), job.output
        )
        lacks_data = source is not None and image.fill(raster.probe.nodata)
        output = _output(translator, raster, lacks_data, job.bit_depth)
        if job.weights is not None and raster.probe.nodata is not None:
            # Pixels outside of the mask have the value of the input.
            kept = replace(output.probe, nodata=raster.probe.nodata)
            output = replace(output, probe=kept)
        rows = _translated_rows(translator, image, plan, output, lacks_data, job.weights)
        with files.atomic_path(job.output) as temporary, closing(rows):
            write_raster(temporary, output, height, width, rows)


def _output(
    translator: Translator, raster: BandRaster, lacks_data: bool, bit_depth: BitDepth
) -> BandImage:
    """Return the layout, tags and type of the output, without rows."""
    size = (raster.probe.width, raster.probe.height)
    if translator.target_format is None:
        channels = 4 if lacks_data else 3
        nodata = raster.probe.nodata if translator.source_format is None else None
        probe = BandProbe("TIFF", *size, channels, f"uint{bit_depth}", is_color=True, nodata=nodata)
    else:
        probe = output_probe(translator, raster.probe, size, lacks_data)
    values = np.empty((0, size[0], probe.channels), probe.dtype)
    keeps_all = translator.source_format is None and translator.target_format is None
    tags = raster.tags + (raster.descriptions if keeps_all else ())
    return BandImage(values, probe, tags, raster.layout)


def _window_bytes(translator: Translator, raster: BandRaster) -> float:
    """Return the bytes of the rows that are read and written at a time.

    Raises:
        DeviceError: They do not fit into memory.
    """
    probe, target = raster.probe, translator.target_format
    config = translator.generator.config
    best = MemoryEstimate(config, probe.height, padded_size(probe.width), 4).best_rows()
    rows = min(4 * best + 2 * HALO[config.resampling], probe.height)
    itemsize = np.dtype(target.dtype).itemsize if target else 2
    output_row = probe.width * ((target.channels if target else 4) * itemsize)
    converted = CONVERSIONS * 8 * rows * probe.width * config.input_channels
    tile = raster.layout.tile[0] if raster.layout.tile else 1
    written = 3 * (tile + rows) * output_row
    held = 2 * raster.window_bytes(rows)
    if held + written > (budget := translator.host_budget()):
        raise DeviceError(
            f"{raster.name} is stored in tiles or strips of {raster.block_rows} rows, which need "
            f"{held / 1e9:.2g} GB of memory, found {max(budget, 0) / 1e9:.2g} GB",
            "Store it in smaller tiles, e.g. with gdal_translate -co TILED=YES.",
        )
    return float(held + converted + written)


def _refuse_full_disk(
    translator: Translator, plan: StripPlan, output: BandImage, path: Path
) -> None:
    """Refuse to start where the disk has too little space for the output and the feature maps."""
    probe = output.probe
    size = probe.width * probe.height * probe.channels * output.values.dtype.itemsize
    needed = size * (COMPRESSED_FRACTION if output.layout.compression else 1)
    folder = Path(os.path.realpath(path)).parent
    while not folder.exists():
        folder = folder.parent
    sentence = f"the output needs about {needed / 1e9:.3g} GB"
    if plan.location == "disk" and _same_disk(folder, Path(tempfile.gettempdir())):
        config = translator.generator.config
        padded = padded_size(probe.height), padded_size(probe.width)
        maps = MemoryEstimate(config, *padded, translator.like.itemsize).half_map
        needed += maps
        sentence += f", the feature maps in {tempfile.gettempdir()} {maps / 1e9:.3g} GB"
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"cannot write {path}: {sentence}, and {free / 1e9:.3g} GB are free",
            "Free some space, or set TMPDIR to a folder on another disk.",
        )


def _same_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


@torch.inference_mode()
def _translated_rows(
    translator: Translator,
    image: PixelRows,
    plan: StripPlan,
    output: BandImage,
    lacks_data: bool,
    weights: PixelArray | None = None,
) -> Generator[PixelArray]:
    """Yield consecutive rows of the output: ``[h, W, C]`` of its type."""
    height, width, _ = image.pixels.shape
    target = translator.target_format
    with closing(translator.translated(image, width, plan)) as strips:
        for top, rows in strips:
            bottom = min(top + rows.shape[2], height)
            if bottom <= top:
                continue
            depth: BitDepth = 16 if output.values.itemsize == 2 else 8
            values = to_pixels(rows[:, :, : bottom - top, :width], depth, target)
            missing = image.missing(top, bottom) if lacks_data else None
            if missing is not None:
                if target is None:
                    alpha = np.where(missing, 0, OPAQUE).astype(np.uint8)
                    values = np.dstack([values, alpha])
                else:
                    nodata = output.probe.nodata
                    assert nodata is not None
                    avoid_value(values, nodata)
                    values[missing] = nodata
            if weights is not None:
                values = composite_values(
                    image.pixels[top:bottom], values, weights[top:bottom], missing,
                    output.probe.nodata,
                )  # fmt: skip
            yield values
