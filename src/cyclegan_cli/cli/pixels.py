"""The options of ``cyclegan translate`` that say how pixels are written, checked together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan_cli.errors import UsageError

if TYPE_CHECKING:
    from cyclegan_cli.cli.translation import Request
    from cyclegan_cli.data.image import EncodeOptions

COMMON = "jpg, png, webp, tiff, gif, avif, bmp, heic"
DEEP = "Use --format png or tiff, or leave --bit-depth out."


def ending_of(request: Request) -> str | None:
    """The ending that all outputs get, e.g. ``.png``; None: each its input's.

    Raises:
        UsageError: ``--format`` names none that can be written.
    """
    from cyclegan_cli.data.formats import HEIF_EXTENSIONS, writable_format

    if request.format is None:
        return None
    ending = "." + request.format.lower().removeprefix(".")
    if writable_format(ending):
        return ending
    if ending in HEIF_EXTENSIONS:
        hint = "It needs another package: pip install pillow-heif."
    else:
        hint = f"There are {COMMON}, among others."
    raise UsageError(f"--format {request.format} is not a format that can be written", hint)


def encode_options(request: Request, ending: str | None) -> EncodeOptions:
    """How pixels are written.

    Args:
        request: The options.
        ending: What all outputs end in, where that is known.

    Raises:
        UsageError: That format cannot do what they ask for.
    """
    from cyclegan_cli.data.formats import QUALITY_FORMATS, SIXTEEN_BIT_FORMATS, writable_format
    from cyclegan_cli.data.image import EncodeOptions

    kind = writable_format(ending) if ending else None
    if kind and request.bit_depth == "16" and kind not in SIXTEEN_BIT_FORMATS:
        raise UsageError(f"--bit-depth 16: {kind} has 8 bits a channel", DEEP)
    if kind and request.quality is not None and kind not in QUALITY_FORMATS:
        raise UsageError(
            f"--quality {request.quality}: {kind} has no such setting", "Leave it out."
        )
    return EncodeOptions(
        quality=request.quality,
        bit_depth={"8": 8, "16": 16}[request.bit_depth] if request.bit_depth else None,  # type: ignore[arg-type]
        keep_profile=request.keep_profile,
        keep_mode=request.keep_mode,
    )


def known_ending(file: str | Path | None, ending: str | None) -> str | None:
    """What all outputs end in, where that is known: that of the only one, or of the format."""
    return ending if file is None else Path(file).suffix
