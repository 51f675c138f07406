"""Render README's image: a photo beside its translation by the pretrained model.

Run it from the repository's root after the model has changed.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cyclegan_cli import Translator

PHOTO = Path("examples/photos/summer-palace.jpg")
IMAGE = Path("docs/images/front.jpg")
GAP = 8


def main() -> None:
    """Write both images side by side."""
    photo = Image.open(PHOTO).convert("RGB")
    night = Translator.load("day2night").to("night")(photo)
    both = Image.new("RGB", (2 * photo.width + GAP, photo.height), "white")
    both.paste(photo, (0, 0))
    both.paste(night, (photo.width + GAP, 0))
    both.save(IMAGE, quality=88, optimize=True)


if __name__ == "__main__":
    main()
