"""Files to images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin

from cyclegan_cli.data import png, profiles
from cyclegan_cli.data.animation import read_animation
from cyclegan_cli.data.colour import SIXTEEN_BIT_MODES, Pixels, suits, to_srgb, unpack
from cyclegan_cli.data.colour_space import (
    from_narrow_range,
    read_colour_space,
    says_adobe_rgb,
)
from cyclegan_cli.data.deep import is_deep, lost_depth, mend_transparency, read_deep
from cyclegan_cli.data.image import DecodedImage, Levels, to_depth
from cyclegan_cli.data.metadata import orientation, read_metadata, whole_file
from cyclegan_cli.data.opening import (
    count_frames,
    format_of,
    go_to,
    hidden_planes,
    most_pixels,
    opened,
    too_many_pixels,
)
from cyclegan_cli.data.tiff_directories import is_reduced, may_be_stack
from cyclegan_cli.data.webp import is_lossless_webp

# What makes the image upright, by its EXIF orientation (EXIF 2.32, table 4).
TURNS: dict[int, Callable[[Levels], Levels]] = {
    2: lambda levels: levels[:, ::-1],
    3: lambda levels: levels[::-1, ::-1],
    4: lambda levels: levels[::-1],
    5: lambda levels: levels.swapaxes(0, 1),
    6: lambda levels: np.rot90(levels, -1),
    7: lambda levels: levels[::-1, ::-1].swapaxes(0, 1),
    8: lambda levels: np.rot90(levels, 1),
}
TURNED = (5, 6, 7, 8)  # Width becomes height.
BAD_PROFILE = "its colour profile is damaged or of another kind and was ignored"


def decode(
    source: Path | BinaryIO,
    shrink_to: int | None = None,
    name: str = "standard input",
    first_only: bool = False,
) -> DecodedImage:
    """Read an image: upright, in sRGB, alpha apart, at its full depth; all frames or pages.

    Args:
        source: A file, or a stream of the bytes of one, which is read to its end.
        shrink_to: Pixels that the short side will be reduced to anyway: frames may be smaller
            than the image, but not below that (``DecodedImage.full_size`` is set then).
        name: What error messages call a stream; files are called by their path.
        first_only: Whether to read the first frame or page alone.

    Raises:
        DataError: It cannot be read: missing, damaged, not an image, or too large to be honest
            (`opening.limit_pixels`).
    """
    name = str(source) if isinstance(source, Path) else name
    with opened(source, name) as image:
        # A HEIC opens at its main image, which need not be the first.
        return _decoded(image, [image.tell()] if first_only else _pages(image, name), shrink_to)


def _decoded(image: Any, pages: list[int], shrink_to: int | None) -> DecodedImage:
    remarks_on_file: tuple[str, ...] = getattr(image.fp, "remarks", ())
    # At first: of a PNG Pillow loads and closes all of it to find out its orientation.
    space = read_colour_space(image)
    mend_transparency(image)
    stack = _stack(image)
    first = None if stack else read_deep(image, pages[0])
    lost = () if first or stack else lost_depth(image)
    lost += _left_aside(image)
    turned = orientation(image) in TURNED
    stored_size = image.size
    if shrink_to:
        _shrink(image, shrink_to)
    full_size = None
    if image.size != stored_size:
        full_size = stored_size[::-1] if turned else stored_size
    metadata, remarks = read_metadata(image, turned)
    encoding = _encoding_of(image)
    pixels, own_profiles, durations = [], [], []
    for number, page in enumerate(pages):
        if stack:
            pixels.append(_upright(stack[number], TURNS.get(orientation(image))))
        else:
            pixels.append(_pixels(image, page, first if page == pages[0] else None))
        own_profiles.append(None if space.overrules else image.info.get("icc_profile") or None)
        durations.append(float(image.info.get("duration") or 0))
    if space.is_narrow:
        pixels = [from_narrow_range(page) for page in pixels]
    fitting = [
        _fitting(page, (profile, space.profile))
        for page, profile in zip(pixels, own_profiles, strict=True)
    ]
    if any((own or space.profile) != used for own, used in zip(own_profiles, fitting, strict=True)):
        remarks = (*remarks, BAD_PROFILE)
    elif "icc_profile" in image.info and not image.info["icc_profile"]:
        remarks = (*remarks, BAD_PROFILE)  # Pillow itself has found it damaged or incomplete.
    modes = {page.mode for page in pixels}
    return DecodedImage(
        frames=tuple(map(to_srgb, pixels, fitting)),
        alphas=_alphas(pixels),
        format=format_of(image),
        mode=modes.pop() if len(modes) == 1 else "RGB",
        # Of pages with different ones there is none to go back to, but they are in sRGB now.
        profile=fitting[0] if len(set(fitting)) == 1 else profiles.srgb(),
        metadata=metadata,
        animation=read_animation(image, durations) if len(pages) > 1 else None,
        encoding=encoding,
        full_size=full_size,
        remarks=remarks_on_file + space.remarks + remarks + lost,
    )


def _fitting(pixels: Pixels, profiles: Iterable[bytes | None]) -> bytes | None:
    """The first of the profiles that says what the pixels look like."""
    return next((profile for profile in profiles if profile and suits(pixels, profile)), None)


def decode_opaque(path: Path, shrink_to: int) -> tuple[Levels, tuple[int, int]]:
    """The first frame or page as ``decode`` gives it, laid on white, at 8 bits; and nothing else.

    A JPEG photo takes half the time that ``decode`` takes, or far less where it is shrunk.

    Args:
        path: A file.
        shrink_to: As for ``decode``.

    Returns:
        ``[H, W, 3]`` uint8, and width and height of the whole image, which are more where it was
        decoded at a reduced scale. Of an upright image the last row and column then may reach
        beyond it.

    Raises:
        DataError: It cannot be read.
    """
    with opened(path, str(path)) as image:
        if _is_plain_jpeg(image):
            turn, size = orientation(image), image.size
            _shrink(image, shrink_to)
            levels = np.asarray(image.convert("RGB"))
            if turn in TURNS:
                levels = np.ascontiguousarray(TURNS[turn](levels))
            return levels, size[::-1] if turn in TURNED else size
    decoded = decode(path, shrink_to, first_only=True)
    return to_depth(decoded.on_white(0), 8), decoded.size


def _is_plain_jpeg(image: Image.Image) -> bool:
    """Whether it is one whose pixels, but for being turned, are in sRGB as they are stored."""
    if format_of(image) != "JPEG" or image.mode not in ("RGB", "L"):
        return False
    profile = image.info.get("icc_profile")
    if not profile:
        return not says_adobe_rgb(image)
    return image.mode == "RGB" and profiles.space_of(profile) == "RGB" and profiles.is_srgb(profile)


def _shrink(image: Image.Image, shrink_to: int) -> None:
    """Have a JPEG decoded at a half, quarter or eighth, if its short side stays that long.

    Its decoder does that at less cost. Where a side is no multiple, the last row or column
    reaches beyond the image; that must be at the end, so such an image that is to be turned
    stays as it is.
    """
    if format_of(image) != "JPEG":
        return
    turned = orientation(image) in TURNS
    for scale in (8, 4, 2):
        if min(image.size) // scale < shrink_to or (turned and any(s % scale for s in image.size)):
            continue
        image.draft(None, (image.width // scale, image.height // scale))
        return


def from_pillow(image: Image.Image) -> tuple[Levels, Levels | None]:
    """An image that Pillow holds, or has opened: upright, in sRGB, opacity apart.

    Returns:
        Colours, ``[H, W, 3]``, uint8 or (of 16-bit grey) uint16; and opacity, ``[H, W]`` of the
        same type, or None.

    Raises:
        ValueError: Its pixels are numbers of unknown range, its file is damaged, or it is an HDR
            image or, of a TIFF, a reduced version of another.
        OSError: Its file is damaged or cut off.
    """
    _check_file(image)
    if image.format == "TIFF" and is_reduced(getattr(image, "tag_v2", {})):
        raise ValueError("the page is a reduced version of another image: seek to that one")
    space = read_colour_space(image)
    mend_transparency(image)
    _load(image)  # Of a TIFF this applies the orientation and forgets it.
    pixels = _upright(unpack(image), TURNS.get(orientation(image)))
    pixels = from_narrow_range(pixels) if space.is_narrow else pixels
    own = None if space.overrules else image.info.get("icc_profile")
    return to_srgb(pixels, _fitting(pixels, (own, space.profile))), pixels.alpha


def _check_file(image: Image.Image) -> None:
    """Refuse a PNG, not yet loaded, that is damaged: Pillow looks at no checksums of pixels."""
    stream = getattr(image, "fp", None)
    if image.format == "PNG" and stream is not None:
        place = stream.tell()
        png.mended(stream)
        stream.seek(place)


def pixel_bytes(path: Path) -> int:
    """The bytes that an image's pixels take once it is decoded, from its header.

    Raises:
        DataError: Not an image.
    """
    with opened(path, str(path), head_only=True) as image:
        channels = 4 if image.has_transparency_data else 3
        depth = 2 if is_deep(image) or image.mode in SIXTEEN_BIT_MODES else 1
        return image.width * image.height * count_frames(image) * channels * depth


def _left_aside(image: Any) -> tuple[str, ...]:
    """Remarks on a HEIC of several images, and a TIFF that lacks some of its planes."""
    count = getattr(image, "n_frames", 1) if image.format == "HEIF" else 1
    if count > 1:
        return (f"it holds {count} images, of which the main one was translated",)
    if image.format == "TIFF" and may_be_stack(image.tag_v2):
        from cyclegan_cli.data.stacks import missing_planes

        if missing := missing_planes(image):
            return (f"its description tells of {missing} planes more, which are not in the file",)
    return ()


def _stack(image: Any) -> list[Pixels]:
    """The planes of a TIFF that has more of them than directories; none of anything else."""
    if not hidden_planes(image):
        return []
    from cyclegan_cli.data.stacks import read_planes  # Few need tifffile.

    return read_planes(image)


def _alphas(pixels: list[Pixels]) -> tuple[Levels | None, ...]:
    alphas = tuple(page.alpha for page in pixels)
    return alphas if any(alpha is not None for alpha in alphas) else ()


def _pages(image: Any, name: str) -> list[int]:
    """Which frames or pages to read; previews that a TIFF has beside its pages are none."""
    count, start = count_frames(image), image.tell()
    if hidden_planes(image):
        if count * image.width * image.height > most_pixels():
            raise too_many_pixels(name)
        return [start] * count
    pages, pixels = [], 0
    for page in range(count) if count > 1 else [start]:
        if count > 1:
            go_to(image, page)
        if image.format == "TIFF" and is_reduced(image.tag_v2):
            continue
        pages.append(page)
        pixels += image.width * image.height
        if pixels > most_pixels():
            raise too_many_pixels(name)
    go_to(image, start)
    return pages


def _pixels(image: Image.Image, page: int, deep: Pixels | None) -> Pixels:
    """Load a frame or page, unless it has been read at its full depth: upright."""
    go_to(image, page)
    turn = TURNS.get(orientation(image))
    pixels = deep or (read_deep(image, page) if page else None)
    if pixels is None:
        _load(image)
        pixels = unpack(image)
        turn = turn if image.format != "TIFF" else None  # Pillow itself turns TIFF.
    return _upright(pixels, turn)


def _load(image: Image.Image) -> None:
    """Have Pillow read the pixels, but never map a file into memory.

    Pillow 13 maps uncompressed TIFF files that are to be turned with width and height exchanged.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return  # Not opened from a file: it is loaded.
    name = image.filename
    image.filename = ""
    try:
        image.load()
    finally:
        image.filename = name


def _upright(pixels: Pixels, turn: Callable[[Levels], Levels] | None) -> Pixels:
    if turn is None:
        return pixels
    # Copies: a mirrored column counts as contiguous, but has strides that encoders refuse.
    alpha = None if pixels.alpha is None else turn(pixels.alpha).copy()
    return Pixels(turn(pixels.colours).copy(), alpha, pixels.mode)


def _encoding_of(image: Image.Image) -> dict[str, Any]:
    """How the file is compressed, as save options that give comparable quality."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("L", "RGB"):
        if not image.quantization:
            return {}  # A lossless one.
        # Of each component the file says which table is its own. A grey file has one component;
        # colour needs a second table for chrominance.
        tables = [image.quantization[component[3]] for component in image.layer[:2]]
        tables = tables * 2 if len(tables) == 1 else tables
        sampling = JpegImagePlugin.get_sampling(image)
        return {"qtables": tables, "subsampling": max(sampling, 0)}
    if image.format == "TIFF":
        return {"compressed": image.info.get("compression", "raw") != "raw"}
    if image.format == "WEBP" and is_lossless_webp(whole_file(image)):
        return {"lossless": True}
    return {}
