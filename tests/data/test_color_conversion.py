"""Any colours to sRGB."""

import numpy as np
import pytest

from cyclegan_cli.data.decode import decode
from images import (
    Array,
    display_p3_profile,
    encoded,
    flat,
    lab_profile,
    noise,
    palette,
    saved,
    srgb_profile,
    written,
)


def display_p3_to_srgb(levels: tuple[int, ...]) -> Array:
    """By hand, from the matrices of both spaces (CSS Color 4, section 18)."""
    encoded = np.array(levels) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    matrix = [
        [1.2249401, -0.2249404, 0.0],
        [-0.0420569, 1.0420571, 0.0],
        [-0.0196376, -0.0786361, 1.0982735],
    ]
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return encoded * 255


P3_COLOUR = (200, 90, 110)


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("PNG", flat("RGB", P3_COLOUR)),
        ("JPEG", flat("RGB", P3_COLOUR)),
        ("TIFF", flat("RGB", P3_COLOUR)),
        ("WEBP", flat("RGB", P3_COLOUR)),
        ("PNG", flat("RGBA", (*P3_COLOUR, 50))),
        ("PNG", palette(*P3_COLOUR)),
    ],
)
def test_colours_of_another_profile_are_converted_to_srgb(tmp_path, kind, image):
    content = encoded(image, kind, icc_profile=display_p3_profile())
    found = decode(written(tmp_path / "x", content)).frames[0][4, 8]
    expected = display_p3_to_srgb(P3_COLOUR)
    assert np.abs(np.subtract(expected, P3_COLOUR)).max() > 10, "the test would show nothing"
    # JPEG and lossy WEBP are off by a little themselves.
    assert np.abs(np.subtract(found, expected)).max() <= 4


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(srgb_profile(), id="sRGB"),
        pytest.param(b"no profile at all", id="text"),
        pytest.param(display_p3_profile()[:200], id="truncated"),
        pytest.param(b"\0" * 600, id="zeros"),
        pytest.param(lab_profile(), id="LAB"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_unusable_icc_profile_is_ignored(tmp_path, mode, profile):
    image = noise().convert(mode)
    found = decode(saved(tmp_path / "x.png", image, icc_profile=profile)).frames[0]
    difference = np.subtract(found, image.convert("RGB"), dtype=np.int16)
    assert np.abs(difference).max() <= 1
