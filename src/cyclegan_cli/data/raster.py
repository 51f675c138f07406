"""TIFF files that are larger than memory: read and written a few rows at a time.

Only the tiles or strips of the rows in use are decoded. The values are those of
:func:`cyclegan_cli.data.bands.read_bands`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cyclegan_cli.config import COLOR_KINDS, BandFormat
from cyclegan_cli.data.bands import (
    DESCRIPTIONS,
    SEPARATE_PLANES,
    BandImage,
    Tag,
    black_is_zero,
    geo_tags,
    refuse_overstated,
    select,
    tiff_header,
    tiff_layout,
    tiff_options,
)
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.open_image import require_file
from cyclegan_cli.data.tiff_pixels import tiff_file
from cyclegan_cli.data.volumes import as_data_error
from cyclegan_cli.errors import DataError

# Compressions whose tiles depend on tables in the page's tags.
JPEG_COMPRESSIONS = (6, 7, 33007, 34892)
COMPRESSIONS = {"lzw": 5, "zlib": 8, "zstd": 50000}
PREDICTORS = {"u": 2, "i": 2, "f": 3}  # By the kind of type
ORIENTATION, COLOR_TAGS = 274, (700, 34665, 34675)  # XMP, EXIF and ICC profiles
# Of tiles, strips or rows that are sampled.
SAMPLED_BLOCKS, SAMPLED_ROWS, GOLDEN_RATIO = 64, 16, (math.sqrt(5) - 1) / 2
LARGEST_BLOCK = 2**30
STRIP_BYTES = 2**18  # Of a strip that is written, as tifffile's default.


class BandRaster:
    """A TIFF whose rows are decoded when they are read.

    Args:
        file: The file.
        tiff: The same, opened by tifffile.
        name: Its name in error messages.
        chosen: The channels to read; None: all.
        any_size: Whether it may have more pixels than ``--max-megapixels``.

    Attributes:
        probe: Facts from its header.
        tags: TIFF tags that place it on the Earth.
        descriptions: TIFF tags with its description, date, author and copyright.
        layout: How it stores its pixels.
        shape: Height, width and number of selected channels.
        block_rows: Rows that are decoded at once.

    Raises:
        DataError: It is not a single image of values, or claims more pixels than it can hold.
    """

    def __init__(
        self,
        file: BinaryIO,
        tiff: Any,
        name: str,
        chosen: BandFormat | None = None,
        any_size: bool = False,
    ) -> None:
        self._file, self.name, self.chosen = file, name, chosen
        self._page, self.probe = tiff_header(tiff, name, any_size=any_size)
        refuse_overstated(self._page, self.probe, file, name)
        self.tags, self.layout = geo_tags(self._page), tiff_layout(self._page)
        self.descriptions = geo_tags(self._page, DESCRIPTIONS)
        page = self._page
        self._is_separate = page.planarconfig == SEPARATE_PLANES and self.probe.channels > 1
        # Uncompressed rows in one piece are read without the rest of their strip.
        self._is_plain = bool(page.is_final)
        rows = page.tilelength if page.is_tiled else page.rowsperstrip
        self.block_rows = 1 if self._is_plain else min(int(rows), self.probe.height)
        is_tiled = page.is_tiled and not self._is_plain
        self._block_width = int(page.tilewidth) if is_tiled else self.probe.width
        self._across = math.ceil(self.probe.width / self._block_width)
        self._blocks: dict[int, PixelArray] = {}
        channels = chosen.channels if chosen else self.probe.channels
        self.shape = (self.probe.height, self.probe.width, channels)

    @property
    def row_bytes(self) -> int:
        """Size of a row of all channels in bytes."""
        return self.probe.width * self.probe.channels * np.dtype(self.probe.dtype).itemsize

    def window_bytes(self, rows: int) -> int:
        """Return the bytes of decoded tiles or strips that are held to read rows at once."""
        blocks = math.ceil((rows - 1) / self.block_rows) + 1
        return min(blocks * self.block_rows, self.probe.height) * self.row_bytes

    @property
    def is_plain_color(self) -> bool:
        """Whether its three channels are sRGB, upright, and described by nothing further."""
        page = self._page
        return (
            (self.probe.channels, self.probe.dtype) in COLOR_KINDS
            and self.probe.is_color
            and page.bitspersample in (8, 16)
            and page.tags.valueof(ORIENTATION, 1) == 1
            and not any(code in page.tags for code in COLOR_TAGS)
        )

    def __getitem__(self, rows: slice) -> PixelArray:
        """Return consecutive rows: ``[h, W, C]``.

        Raises:
            DataError: They cannot be decoded.
        """
        top, bottom, _ = rows.indices(self.probe.height)
        if bottom <= top:
            return self._selected(
                np.empty((0, self.shape[1], self.probe.channels), self.probe.dtype)
            )
        with as_data_error(self.name):
            values = self._plain_rows(top, bottom) if self._is_plain else self._rows(top, bottom)
        return self._selected(values)

    def tile(self, index: int, column: int) -> PixelArray:
        """Return a tile or strip: ``[h, w, C]``.

        Raises:
            DataError: It cannot be decoded.
        """
        height, width, _ = self.shape
        size = (
            min(self.block_rows, height - index * self.block_rows),
            min(self._block_width, width - column * self._block_width),
        )
        values = np.empty((*size, self.probe.channels), self.probe.dtype)
        with as_data_error(self.name):
            self._decode(index, column, values)
        return self._selected(values)

    def _selected(self, values: PixelArray) -> PixelArray:
        values = black_is_zero(values, self._page)
        if self.chosen is None:
            return values
        return select(BandImage(values, self.probe), self.chosen, self.name)

    def _plain_rows(self, top: int, bottom: int) -> PixelArray:
        """Read uncompressed rows, which are stored one after the other."""
        page, (height, width, _) = self._page, self.shape
        dtype = np.dtype(page.parent.byteorder + page._dtype.char)
        planes = self.probe.channels if self._is_separate else 1
        samples = 1 if self._is_separate else self.probe.channels
        size = width * samples * dtype.itemsize
        parts = []
        for plane in range(planes):
            self._file.seek(page.dataoffsets[0] + (plane * height + top) * size)
            content = self._file.read((bottom - top) * size)
            parts.append(np.frombuffer(content, dtype).reshape(bottom - top, width, samples))
        values = parts[0] if planes == 1 else np.concatenate(parts, axis=2)
        return values.astype(self.probe.dtype, copy=False)

    def _rows(self, top: int, bottom: int) -> PixelArray:
        """Decode rows; the tiles or strips that contain them are kept for the next window."""
        size = self.block_rows
        needed = range(top // size, math.ceil(bottom / size))
        self._blocks = {i: block for i, block in self._blocks.items() if i in needed}
        for i in needed:
            if i not in self._blocks:
                self._blocks[i] = self._block(i)
        blocks = [self._blocks[i] for i in needed]
        first = needed.start * size
        if len(blocks) == 1:
            return blocks[0][top - first : bottom - first]
        blocks[0] = blocks[0][top - first :]
        blocks[-1] = blocks[-1][: bottom - (needed.stop - 1) * size]
        return np.concatenate(blocks)

    def _block(self, index: int) -> PixelArray:
        """Decode one row of tiles, or a strip: ``[h, W, C]``."""
        height, width, _ = self.shape
        rows = min(self.block_rows, height - index * self.block_rows)
        block = np.empty((rows, width, self.probe.channels), self.probe.dtype)
        for column in range(self._across):
            left = column * self._block_width
            target = block[:, left : left + self._block_width]
            self._decode(index, column, target)
        return block

    def _decode(self, index: int, column: int, target: PixelArray) -> None:
        """Decode a tile or strip of all channels into ``[h, w, C]``."""
        down = math.ceil(self.probe.height / self.block_rows)
        for plane in range(self.probe.channels if self._is_separate else 1):
            channels = slice(plane, plane + 1) if self._is_separate else slice(None)
            segment = self._segment((plane * down + index) * self._across + column)
            if segment is None:
                target[..., channels] = self._page.nodata
            else:
                target[..., channels] = segment[: target.shape[0], : target.shape[1]]

    def _segment(self, index: int) -> PixelArray | None:
        """Decode a tile or strip: ``[h, w, C]``, or None if it has no bytes."""
        page = self._page
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        options = {}
        if page.compression in JPEG_COMPRESSIONS:
            options = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        content = None
        if offset and count:
            self._file.seek(offset)
            content = self._file.read(count)
        segment, _, _ = page.decode(content, index, **options)
        return None if segment is None else segment[0]

    def sample(self, limit: int) -> PixelArray:
        """Return values of some tiles or strips, which are spread over the image: ``[1, n, C]``.

        Args:
            limit: Number of pixels.

        Raises:
            DataError: They cannot be decoded.
        """
        block = self._block_width * self.block_rows * self.row_bytes // self.probe.width
        if block > LARGEST_BLOCK:
            raise DataError(
                f"{self.name} is stored in pieces of {block / 1e9:.2g} GB, too large to be sampled",
                "Store it in tiles, e.g. with gdal_translate -co TILED=YES.",
            )
        plain_rows = max(1, min(SAMPLED_ROWS, LARGEST_BLOCK // self.row_bytes))
        rows = plain_rows if self._is_plain else self.block_rows
        down = math.ceil(self.probe.height / rows)
        count = min(SAMPLED_BLOCKS, down * self._across)
        parts = []
        for i in range(count):
            index = int((i + 0.5) / count * down)
            if self._is_plain:
                values = self[index * rows : (index + 1) * rows]
            else:
                # Multiples of the golden ratio are spread evenly.
                values = self.tile(index, int(i * GOLDEN_RATIO % 1 * self._across))
            flat = values.reshape(-1, values.shape[2])
            parts.append(flat[:: max(1, -(-len(flat) * count // limit))].copy())
        return np.concatenate(parts)[None]


@contextmanager
def open_raster(
    path: Path, chosen: BandFormat | None = None, any_size: bool = False
) -> Iterator[BandRaster]:
    """Open a TIFF for reading some of its rows at a time.

    Args:
        path: The file.
        chosen: The channels to read; None: all.
        any_size: Whether it may have more pixels than ``--max-megapixels``.

    Raises:
        DataError: It cannot be read.
    """
    require_file(path, str(path))
    with ExitStack() as stack:
        with as_data_error(str(path)):
            file = stack.enter_context(path.open("rb"))
            tiff = stack.enter_context(tiff_file(file))
            raster = BandRaster(file, tiff, str(path), chosen, any_size)
        yield raster


def read_place(path: Path) -> tuple[Tag, ...]:
    """Return the tags that place a TIFF on the Earth; none if it is not upright.

    Raises:
        DataError: It cannot be read.
    """
    with as_data_error(str(path)), path.open("rb") as file, tiff_file(file) as tiff:
        page = tiff.pages[0]
        return geo_tags(page) if page.tags.valueof(ORIENTATION, 1) == 1 else ()


def write_raster(
    path: Path, image: BandImage, height: int, width: int, rows: Iterable[PixelArray]
) -> None:
    """Write a TIFF whose rows are computed while it is written.

    Args:
        path: The file.
        image: The type and channels of its values, and their layout and tags; it has no rows.
        height: Height in pixels.
        width: Width in pixels.
        rows: Consecutive rows ``[h, width, C]``, of any height.
    """
    import tifffile

    channels, dtype = image.values.shape[2], image.values.dtype
    row_bytes = width * channels * dtype.itemsize
    options = tiff_options(image, height * row_bytes)
    tile = options["tile"]
    pieces: Iterator[PixelArray]
    strip = min(max(STRIP_BYTES // row_bytes, 1), height)
    encode = _encoder(image)
    if tile:
        pieces = (piece for block in _blocks(rows, tile[0]) for piece in _tiles(block, tile))
    else:
        options["rowsperstrip"] = strip
        pieces = _blocks(rows, strip)
    tifffile.imwrite(
        path,
        map(encode, pieces),
        shape=(height, width, channels) if channels > 1 else (height, width),
        dtype=dtype,
        maxworkers=1,
        **options,
    )


def _encoder(image: BandImage) -> Callable[[PixelArray], bytes]:
    """Return the function that encodes a tile or strip ``[h, w, C]``."""
    import tifffile

    layout = image.layout
    if layout.compression is None:
        return lambda values: values.tobytes()
    compress = tifffile.TIFF.COMPRESSORS[COMPRESSIONS[layout.compression]]
    if not layout.predictor:
        return lambda values: bytes(compress(np.ascontiguousarray(values)))
    predict = tifffile.TIFF.PREDICTORS[PREDICTORS[image.values.dtype.kind]]
    return lambda values: bytes(compress(predict(np.ascontiguousarray(values), axis=-2)))


def _blocks(rows: Iterable[PixelArray], height: int) -> Iterator[PixelArray]:
    """Divide consecutive rows into blocks of a height; the last may be lower."""
    waiting: list[PixelArray] = []
    count = 0
    for part in rows:
        waiting.append(part)
        count += len(part)
        if count >= height:
            joined = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
            whole = count - count % height
            for top in range(0, whole, height):
                yield joined[top : top + height]
            waiting, count = [joined[whole:].copy()], count - whole
    if count:
        yield np.concatenate(waiting)


def _tiles(block: PixelArray, tile: tuple[int, int]) -> Iterator[PixelArray]:
    """Divide rows ``[h, W, C]`` into tiles; those at the margin are filled up with zeros."""
    height, width = tile
    for left in range(0, block.shape[1], width):
        piece = block[:, left : left + width]
        missing = [(0, height - piece.shape[0]), (0, width - piece.shape[1]), (0, 0)]
        yield np.pad(piece, missing) if piece.shape[:2] != tile else piece
