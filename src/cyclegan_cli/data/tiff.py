"""TIFF files: pages of any kind of pixels, at 8 or 16 bits a channel."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image

from cyclegan_cli.data import exif as exif_block
from cyclegan_cli.data.colour import Pixels
from cyclegan_cli.data.metadata import Metadata

XMP, BYTE = 700, 1  # Adobe's XMP specification, part 3; TIFF 6.0
PHOTOMETRIC = {"RGB": "rgb", "L": "minisblack", "CMYK": "separated", "P": "palette",
               "1": "minisblack"}  # fmt: skip
INCH = 2


def tiff_bytes(
    pages: Sequence[Pixels], profile: bytes | None, metadata: Metadata, compressed: bool
) -> bytes:
    """A whole file.

    Args:
        pages: What is on them.
        profile: The colour profile that all of them are in.
        metadata: Goes with the first.
        compressed: Whether pixels are deflated (nothing is lost) or written as they are.

    Raises:
        ValueError: The EXIF block is damaged.
    """
    import tifffile

    order: Literal[">", "<"] = ">" if metadata.exif.startswith(b"MM") else "<"
    stream = io.BytesIO()
    with tifffile.TiffWriter(stream, byteorder=order) as file:
        for number, page in enumerate(pages):
            xmp = metadata.xmp if number == 0 else b""
            file.write(
                **_samples(page),
                compression="zlib" if compressed and page.mode != "1" else None,
                predictor=compressed and page.mode not in ("P", "1"),
                iccprofile=profile,
                resolution=metadata.dpi,
                resolutionunit=INCH if metadata.dpi else None,
                extratags=[(XMP, BYTE, len(xmp), xmp, True)] if xmp else (),
                metadata=None,
                software=False,
                maxworkers=1,
            )
    content = stream.getvalue()
    return exif_block.into_tiff(content, metadata.exif) if metadata.exif else content


def _samples(page: Pixels) -> dict[str, Any]:
    """As ``tifffile`` takes them."""
    options: dict[str, Any] = {"photometric": PHOTOMETRIC[page.mode], "data": page.colours}
    if page.mode == "1":
        black_and_white = Image.fromarray(page.colours).convert("1")
        options["data"] = np.asarray(black_and_white)
    elif page.mode == "P":
        indexed = Image.fromarray(page.colours).quantize()
        options["data"] = np.asarray(indexed)
        options["colormap"] = _colour_map(indexed)
    elif page.alpha is not None:
        options["data"] = np.dstack([page.colours, page.alpha])
        options["extrasamples"] = ["unassalpha"]
    if options["data"].ndim == 3:
        options["planarconfig"] = "contig"
    return options


def _colour_map(indexed: Image.Image) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """``[3, 256]`` at 16 bits."""
    palette = np.array(indexed.getpalette("RGB") or [], dtype=np.uint16).reshape(-1, 3)
    return np.pad(palette, ((0, 256 - len(palette)), (0, 0))).T * np.uint16(257)
