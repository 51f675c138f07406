"""Decode image files."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageFile, JpegImagePlugin

from cyclegan_cli.data import icc
from cyclegan_cli.data.color import (
    SIXTEEN_BIT_MODES,
    Pixels,
    expand_limited_range,
    is_adobe_rgb,
    profile_applies,
    read_color_space,
    to_srgb,
    unpack,
)
from cyclegan_cli.data.containers import is_lossless_webp, pixels_alone, repair_png, whole_file
from cyclegan_cli.data.formats import ANIMATED_FORMATS, NPY_HEAD
from cyclegan_cli.data.image import Animation, DecodedImage, Mode, PixelArray, to_depth
from cyclegan_cli.data.metadata import orientation, read_metadata
from cyclegan_cli.data.open_image import (
    count_frames,
    format_of,
    go_to,
    hidden_planes,
    max_pixels,
    open_image,
    too_many_pixels,
)
from cyclegan_cli.data.tiff import is_reduced, may_be_stack
from cyclegan_cli.data.tiff_pixels import (
    TiffPageReader,
    missing_planes,
    read_planes,
    tiff_is_16_bit,
)
from cyclegan_cli.data.volumes import (
    GZIP_HEAD,
    VOLUME_HEAD_BYTES,
    ZIP_HEAD,
    is_array_file,
    volume_format,
)
from cyclegan_cli.errors import DataError

PNG_BIT_DEPTH = 24  # Offset in the file: PNG specification, 11.2.2.
SGI_BYTES_PER_CHANNEL = 3  # Offset in the file: SGI image file format 1.00, header.
JPEG2000_SIZES = b"\xff\x4f\xff\x51"  # ISO/IEC 15444-1, A.5.1; depth of component 0 is at 42.
AV1_CONFIGURATION = b"av1C"  # AV1 in ISO media files, 2.3.3: two flags in the third byte.
# How to make an image upright, by its EXIF orientation (EXIF 2.32, table 4).
TRANSPOSE: dict[int, Callable[[PixelArray], PixelArray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}
SWAPS_SIDES = (5, 6, 7, 8)
BAD_PROFILE = "its colour profile is damaged or of another kind and was ignored"
# Pillow's modes that are converted to RGB.
CONVERTED_MODES = frozenset({"LAB", "YCbCr", "HSV"})
ANIMATED_INPUT_FORMATS = ANIMATED_FORMATS | {"FLI"}


def decode(
    source: Path | BinaryIO,
    shrink_to: int | None = None,
    name: str = "standard input",
    first_only: bool = False,
    keep_stored: bool = False,
) -> DecodedImage:
    """Decode an image: upright, in sRGB, at full bit depth, with all frames or pages.

    Args:
        source: A file, or a stream with the contents of one, which is read to its end.
        shrink_to: Length in pixels to which the short side will be resized later. A JPEG may be
            decoded at a reduced scale, down to this length; ``DecodedImage.full_size`` is set then.
        name: Name of a stream in error messages; a file is named by its path.
        first_only: Whether to decode only the first frame or page.
        keep_stored: Whether to also return the pixels in the colors of the file.

    Raises:
        DataError: The file is missing, damaged, not an image, or claims more pixels than
            :func:`~cyclegan_cli.data.open_image.limit_pixels` allows.
    """
    name = str(source) if isinstance(source, Path) else name
    if is_array(source):
        return _decoded_array(source, name)
    with open_image(source, name) as image:
        # A HEIC file opens at its main image, which is not always the first.
        pages = [image.tell()] if first_only else _pages(image, name)
        return _decoded(image, pages, shrink_to, keep_stored)


def _decoded(
    image: Any, pages: list[int], shrink_to: int | None, keep_stored: bool = False
) -> DecodedImage:
    remarks_on_file: tuple[str, ...] = getattr(image.fp, "remarks", ())
    # First, because Pillow loads and closes a PNG to find its orientation.
    space = read_color_space(image)
    _fix_transparent_color(image)
    stack = _stack(image)
    tiff = TiffPageReader(image)
    first = None if stack else _read_16_bit(image, pages[0], tiff)
    ignored = () if first or stack else _reduced_bit_depth(image)
    ignored += _ignored_content(image)
    altered = _alteration(image, space.is_limited_range, bool(first or stack))
    swaps_sides = orientation(image) in SWAPS_SIDES
    stored_size = image.size
    if shrink_to:
        _shrink(image, shrink_to)
    full_size = None
    if image.size != stored_size:
        full_size = stored_size[::-1] if swaps_sides else stored_size
    metadata, remarks = read_metadata(image, swaps_sides)
    encoding = _encoding_of(image)
    pixels, own_profiles, durations = [], [], []
    for index, page in enumerate(pages):
        if stack:
            pixels.append(_upright(stack[index], TRANSPOSE.get(orientation(image))))
        else:
            pixels.append(_pixels(image, page, first if page == pages[0] else None, tiff))
        own_profiles.append(None if space.overrules else image.info.get("icc_profile") or None)
        durations.append(float(image.info.get("duration") or 0))
    if space.is_limited_range:
        pixels = [expand_limited_range(page) for page in pixels]
    applied = [
        _applicable_profile(page, (profile, space.profile))
        for page, profile in zip(pixels, own_profiles, strict=True)
    ]
    if any((own or space.profile) != used for own, used in zip(own_profiles, applied, strict=True)):
        remarks = (*remarks, BAD_PROFILE)
    elif "icc_profile" in image.info and not image.info["icc_profile"]:
        remarks = (*remarks, BAD_PROFILE)  # Found damaged by Pillow.
    modes = {page.mode for page in pixels}
    with_profiles = [replace(page, profile=one) for page, one in zip(pixels, applied, strict=True)]
    return DecodedImage(
        frames=tuple(map(to_srgb, pixels, applied)),
        alphas=_alphas(pixels),
        format=format_of(image),
        mode=modes.pop() if len(modes) == 1 else "RGB",
        # Pages with different profiles cannot be converted back to one; they stay in sRGB.
        profile=applied[0] if len(set(applied)) == 1 else icc.srgb(),
        metadata=metadata,
        animation=_read_animation(image, durations) if len(pages) > 1 else None,
        encoding=encoding,
        full_size=full_size,
        remarks=remarks_on_file + space.remarks + remarks + ignored,
        stored=tuple(with_profiles) if keep_stored else (),
        altered=altered,
    )


def _applicable_profile(pixels: Pixels, profiles: Iterable[bytes | None]) -> bytes | None:
    """Return the first profile whose colour space is that of the pixels."""
    return next(
        (profile for profile in profiles if profile and profile_applies(pixels, profile)), None
    )


def decode_opaque(path: Path, shrink_to: int) -> tuple[PixelArray, tuple[int, int]]:
    """Decode the first frame or page as :func:`decode` does, composited on white, at 8 bits.

    Takes half the time of :func:`decode` for a JPEG photo, or less at a reduced scale.

    Args:
        path: A file.
        shrink_to: See :func:`decode`.

    Returns:
        ``[H, W, 3]`` uint8, and width and height of the whole image, which are larger if it was
        decoded at a reduced scale. The last row and column may then reach beyond the image.

    Raises:
        DataError: The file cannot be read.
    """
    if is_array(path):
        decoded = decode(path)
        return decoded.frames[0], decoded.size
    with open_image(path, str(path)) as image:
        if _is_plain_jpeg(image):
            turn, size = orientation(image), image.size
            _shrink(image, shrink_to)
            pixels = np.asarray(image.convert("RGB"))
            if turn in TRANSPOSE:
                pixels = np.ascontiguousarray(TRANSPOSE[turn](pixels))
            return pixels, size[::-1] if turn in SWAPS_SIDES else size
    decoded = decode(path, shrink_to, first_only=True)
    return to_depth(decoded.on_white(0), 8), decoded.size


def is_array(source: Path | BinaryIO) -> bool:
    """Return whether a file or, by its first bytes, a stream is an array or a volume."""
    if isinstance(source, Path):
        return is_array_file(source)
    if not source.seekable():
        return False
    position = source.tell()
    head = source.read(VOLUME_HEAD_BYTES)
    source.seek(position)
    return head.startswith((NPY_HEAD, ZIP_HEAD, GZIP_HEAD)) or volume_format(head) is not None


def _decoded_array(source: Path | BinaryIO, name: str) -> DecodedImage:
    from cyclegan_cli.data.bands import read_bands

    image = read_bands(source, name)
    if image.values.shape[2] == 1 and image.values.dtype == np.uint8:
        return DecodedImage((np.repeat(image.values, 3, axis=2),), format=image.format)
    if not image.probe.is_color:
        raise DataError(
            f"{name} is an array with {image.probe.kind}, and RGB images are needed here",
            "Use an array of shape [H, W, 3] and type uint8, in sRGB.",
        )
    return DecodedImage((image.values,), format=image.format)


def _is_plain_jpeg(image: Image.Image) -> bool:
    """Return whether the image is a JPEG whose stored pixels are already in sRGB."""
    if format_of(image) != "JPEG" or image.mode not in ("RGB", "L"):
        return False
    profile = image.info.get("icc_profile")
    if not profile:
        return not is_adobe_rgb(image)
    return image.mode == "RGB" and icc.space_of(profile) == "RGB" and icc.is_srgb(profile)


def _shrink(image: Image.Image, shrink_to: int) -> None:
    """Decode a JPEG at half, quarter or eighth scale if its short side stays long enough.

    If a side is not a multiple of the scale, the last row or column reaches beyond the image.
    Callers expect it at the end, so an image that must be transposed is then decoded whole.
    """
    if format_of(image) != "JPEG":
        return
    transposed = orientation(image) in TRANSPOSE
    for scale in (8, 4, 2):
        if min(image.size) // scale < shrink_to:
            continue
        if transposed and any(side % scale for side in image.size):
            continue
        image.draft(None, (image.width // scale, image.height // scale))
        return


def from_pillow(image: Image.Image) -> tuple[PixelArray, PixelArray | None]:
    """Convert a Pillow image to arrays: upright, in sRGB.

    Returns:
        Colours, ``[H, W, 3]`` uint8, or uint16 for 16-bit grey; and alpha, ``[H, W]`` of the same
        dtype, or None.

    Raises:
        ValueError: The range of its pixel values is unknown, its file is damaged, it is an HDR
            image, or it is a TIFF page with a reduced version of another image.
        OSError: Its file is damaged or truncated.
    """
    stream = getattr(image, "fp", None)
    if image.format == "PNG" and stream is not None:
        # Pillow does not verify the checksums of pixel data.
        position = stream.tell()
        repair_png(stream)
        stream.seek(position)
    if image.format == "TIFF" and is_reduced(getattr(image, "tag_v2", {})):
        raise ValueError("the page is a reduced version of another image: seek to that one")
    space = read_color_space(image)
    _fix_transparent_color(image)
    _load(image)  # Applies the orientation of a TIFF and removes it.
    pixels = _upright(unpack(image), TRANSPOSE.get(orientation(image)))
    pixels = expand_limited_range(pixels) if space.is_limited_range else pixels
    own = None if space.overrules else image.info.get("icc_profile")
    return to_srgb(pixels, _applicable_profile(pixels, (own, space.profile))), pixels.alpha


def pixel_bytes(path: Path) -> int:
    """Return the size in bytes of an image's decoded pixels, from its header.

    Raises:
        DataError: The file is not an image.
    """
    if is_array(path):
        from cyclegan_cli.data.bands import probe_bands

        found = probe_bands(path, str(path))
        return found.width * found.height * found.channels * np.dtype(found.dtype).itemsize
    with open_image(path, str(path), head_only=True) as image:
        channels = 4 if image.has_transparency_data else 3
        bytes_each = 2 if _is_16_bit(image) or image.mode in SIXTEEN_BIT_MODES else 1
        return image.width * image.height * count_frames(image) * channels * bytes_each


def _ignored_content(image: Any) -> tuple[str, ...]:
    """Return remarks on further images of a HEIC file and planes missing from a TIFF file."""
    count = getattr(image, "n_frames", 1) if image.format == "HEIF" else 1
    if count > 1:
        return (f"it holds {count} images, of which the main one was translated",)
    is_stack = image.format == "TIFF" and may_be_stack(image.tag_v2)
    missing = missing_planes(image) if is_stack else 0
    if missing:
        return (f"its description lists {missing} more planes than the file contains",)
    return ()


def _alteration(image: Any, is_limited_range: bool, is_at_full_depth: bool) -> str:
    """Return how decoded pixels differ from those in the file; empty if they do not."""
    if image.mode in CONVERTED_MODES:
        return f"its {image.mode} colors are read as RGB"
    if is_limited_range:
        return "its pixel values of limited range are expanded to full range"
    if not is_at_full_depth and _stored_bits(image) > 8:
        return f"only 8 of its {_stored_bits(image)} bits per channel are read"
    return ""


def _stack(image: Any) -> list[Pixels]:
    """Return the planes of a TIFF with more planes than directories; else an empty list."""
    return read_planes(image) if hidden_planes(image) else []


def _alphas(pixels: list[Pixels]) -> tuple[PixelArray | None, ...]:
    alphas = tuple(page.alpha for page in pixels)
    return alphas if any(alpha is not None for alpha in alphas) else ()


def _pages(image: Any, name: str) -> list[int]:
    """Return the indices of the frames or pages to decode, without previews in a TIFF."""
    count, start = count_frames(image), image.tell()
    if hidden_planes(image):
        if count * image.width * image.height > max_pixels():
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
        if pixels > max_pixels():
            raise too_many_pixels(name)
    go_to(image, start)
    return pages


def _pixels(
    image: Image.Image, page: int, at_16_bit: Pixels | None, tiff: TiffPageReader
) -> Pixels:
    """Load a frame or page, unless it was already read at 16 bits, and make it upright."""
    go_to(image, page)
    turn = TRANSPOSE.get(orientation(image))
    pixels = at_16_bit or (_read_16_bit(image, page, tiff) if page else None)
    if pixels is None:
        _load(image)
        pixels = unpack(image)
        turn = turn if image.format != "TIFF" else None  # Pillow transposes a TIFF itself.
    return _upright(pixels, turn)


def _load(image: Image.Image) -> None:
    """Load the pixels without mapping the file into memory.

    Pillow 13 maps an uncompressed TIFF that has to be transposed with exchanged width and height.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return  # Not opened from a file, so already loaded.
    name = image.filename
    image.filename = ""
    try:
        image.load()
    finally:
        image.filename = name


def _upright(pixels: Pixels, turn: Callable[[PixelArray], PixelArray] | None) -> Pixels:
    if turn is None:
        return pixels
    # Copy: a mirrored column counts as contiguous but has strides that encoders reject.
    alpha = None if pixels.alpha is None else turn(pixels.alpha).copy()
    return Pixels(turn(pixels.colors).copy(), alpha, pixels.mode)


def _encoding_of(image: Image.Image) -> dict[str, Any]:
    """Return save options with which Pillow reaches the quality of the file."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.mode in ("L", "RGB"):
        if not image.quantization:
            return {}  # Lossless JPEG.
        # The quantization tables of luma and chroma, by the index that each component names. A
        # grey file has one component, but a colour JPEG needs two tables.
        tables = [image.quantization[component[3]] for component in image.layer[:2]]
        tables = tables * 2 if len(tables) == 1 else tables
        sampling = JpegImagePlugin.get_sampling(image)
        return {"qtables": tables, "subsampling": max(sampling, 0)}
    if image.format == "TIFF":
        return {"compressed": image.info.get("compression", "raw") != "raw"}
    if image.format == "WEBP" and is_lossless_webp(whole_file(image)):
        return {"lossless": True}
    return {}


def _read_16_bit(image: Any, page: int, tiff: TiffPageReader) -> Pixels | None:
    """Read a page of a PNG or TIFF with more than 8 bits per channel, which Pillow cuts to 8.

    Args:
        image: The file opened by Pillow at this page, not loaded.
        page: Index of the page.
        tiff: Reader of a TIFF file.

    Returns:
        uint16 pixels over the full range, or None for any other image.
    """
    if not _is_16_bit(image):
        return None
    return _read_png(image) if image.format == "PNG" else tiff.read(page)


def _is_16_bit(image: Any) -> bool:
    """Return whether :func:`_read_16_bit` reads the current page; only the header is read."""
    if image.format == "PNG":
        is_animated = getattr(image, "is_animated", False)
        return bool(image.tile) and "16" in str(image.tile[0].args) and not is_animated
    return image.format == "TIFF" and tiff_is_16_bit(image)


def _reduced_bit_depth(image: Any) -> tuple[str, ...]:
    """Return a remark if Pillow reads 8 bits per channel of a file that has more."""
    bits = _stored_bits(image)
    return (f"only 8 of its {bits} bits per channel were read",) if bits > 8 else ()


def _stored_bits(image: Any) -> int:
    if image.mode in SIXTEEN_BIT_MODES:
        return 0  # Pillow reads grey images at 16 bits.
    if image.format == "HEIF":
        return int(image.info.get("bit_depth") or 8)
    if image.format == "PPM" and image.tile:
        highest = image.tile[0].args[-1]
        return highest.bit_length() if isinstance(highest, int) else 8
    if image.format == "SGI":
        return 8 * whole_file(image, 4)[SGI_BYTES_PER_CHANNEL]
    if image.format == "PNG":
        return whole_file(image, 25)[PNG_BIT_DEPTH]
    if image.format == "JPEG2000":
        head = whole_file(image, 4096)
        place = head.find(JPEG2000_SIZES)
        return 1 + (head[place + 42] & 0x7F) if 0 <= place < len(head) - 42 else 8
    if image.format == "AVIF":
        head = whole_file(image, 4096)
        place = head.find(AV1_CONFIGURATION)
        flags = head[place + 6] if 0 <= place < len(head) - 6 else 0
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return 8


def _fix_transparent_color(image: Any) -> None:
    """Scale the transparent colour of a PNG to the pixel values that Pillow makes.

    Pillow scales pixels of 2 and 4 bits to 8, but not the transparent grey value, of which only the
    bits of the depth count (PNG specification, third edition, 11.3.1.1).
    """
    transparent = image.info.get("transparency")
    if image.format != "PNG" or image.fp is None or image.mode not in ("1", "L", "RGB"):
        return
    depth = int(whole_file(image)[PNG_BIT_DEPTH])
    if isinstance(transparent, int) and image.mode == "L":
        image.info["transparency"] = (transparent & (2**depth - 1)) * (255 // (2**depth - 1))
    elif isinstance(transparent, tuple):
        # Pillow keeps the upper 8 of 16 bits.
        image.info["transparency"] = tuple(
            value >> 8 if depth == 16 else value & 255 for value in transparent
        )


def _read_png(image: Any) -> Pixels:
    import imagecodecs

    samples = imagecodecs.png_decode(pixels_alone(whole_file(image)))
    samples = samples if samples.ndim == 3 else samples[..., None]
    has_alpha = samples.shape[2] in (2, 4)
    colors = samples[..., :-1] if has_alpha else samples
    alpha = np.ascontiguousarray(samples[..., -1]) if has_alpha else None
    mode: Mode = "RGB" if colors.shape[2] == 3 else "L"
    return Pixels(np.ascontiguousarray(colors[..., 0] if mode == "L" else colors), alpha, mode)


def _read_animation(image: Image.Image, durations: Sequence[float]) -> Animation | None:
    """Return how the frames are shown, or None if they are pages.

    Args:
        image: Their file, opened by Pillow.
        durations: Duration of each frame in milliseconds.
    """
    if image.format not in ANIMATED_INPUT_FORMATS:
        return None
    loop = image.info.get("loop")
    plays = int(loop) if isinstance(loop, int) else 0
    if image.format == "GIF":
        # A GIF stores the number of repetitions, if any.
        plays = 1 if loop is None else plays + 1 if plays else 0
    return Animation(tuple(durations), plays, bool(image.info.get("default_image")))
