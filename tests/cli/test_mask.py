"""``cyclegan translate --mask``: only the masked part changes."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cyclegan_cli.data.decode import decode
from images import display_p3_profile, grey_profile, noise, with_orientation

SIZE = (24, 16)
INSIDE = np.zeros((16, 24), dtype=bool)
INSIDE[4:12, 6:18] = True


@pytest.fixture
def masked(here):
    """``photos`` is empty, and ``mask.png`` is a rectangle."""
    for path in Path("photos").rglob("*.*"):
        path.unlink()
    Image.fromarray(INSIDE).save("mask.png")
    return here


def stored(path: Path | str) -> np.ndarray:
    """The pixels in a file, as Pillow or tifffile reads them."""
    if str(path).endswith(".tif"):
        return np.asarray(tifffile.imread(path))
    with Image.open(path) as image:
        return np.asarray(image)


def changes(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    different = before != after
    return different.any(axis=2) if different.ndim == 3 else different


def save_rgb16(path: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (16, 24, 3)).astype(np.uint16)
    tifffile.imwrite(path, values, photometric="rgb")


def save_hidden_colors(path: str, **options) -> None:
    image = noise()
    image.putalpha(Image.fromarray(np.tile(np.uint8([0, 255, 99, 255]), (16, 6))))
    image.save(path, **options)


SOURCES = {
    "rgb.png": lambda path: noise().save(path),
    "rgb.bmp": lambda path: noise().save(path),
    "lossless.webp": lambda path: noise().save(path, lossless=True),
    "hidden.webp": lambda path: save_hidden_colors(path, lossless=True, exact=True),
    "deep.tif": save_rgb16,
    "p3.png": lambda path: noise().save(path, icc_profile=display_p3_profile()),
    "rgba.png": save_hidden_colors,
    "rgba.tif": save_hidden_colors,
    "jpeg2000.jp2": lambda path: noise().save(path),
    "tga.tga": save_hidden_colors,
}


@pytest.mark.parametrize("name", SOURCES)
def test_outside_is_identical_bit_for_bit(masked, cyclegan, name):
    SOURCES[name](f"photos/{name}")
    done = cyclegan("translate", f"photos/{name}", "-o", f"out/{name}", "--mask", "mask.png",
                    "--json", "--mask-feather", "1")  # fmt: skip
    assert done.code == 0, done.err
    before, after = stored(f"photos/{name}"), stored(f"out/{name}")
    assert before.shape == after.shape
    assert before[~INSIDE].tobytes() == after[~INSIDE].tobytes()
    assert changes(before, after)[INSIDE].mean() > 0.9
    assert done.documents[0]["mask_share"] == pytest.approx(INSIDE.mean())
    if "p3" in name:
        with Image.open(f"out/{name}") as image:
            assert image.info["icc_profile"] == display_p3_profile()


KEPT_MODES = {
    "gray.png": lambda path: noise().convert("L").save(path),
    "gray_profile.png": lambda path: noise().convert("L").save(path, icc_profile=grey_profile()),
    "bits.png": lambda path: noise().convert("1").save(path),
    "cmyk.tif": lambda path: noise().convert("CMYK").save(path),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT_MODES)
def test_modes_that_are_kept_are_identical_outside(masked, cyclegan, name):
    KEPT_MODES[name](f"photos/{name}")
    done = cyclegan("translate", f"photos/{name}", "-o", f"out/{name}", "--mask", "mask.png",
                    "--keep-mode")  # fmt: skip
    assert done.code == 0, done.err
    before, after = stored(f"photos/{name}"), stored(f"out/{name}")
    assert before.shape == after.shape
    assert np.array_equal(before[~INSIDE], after[~INSIDE])
    assert changes(before, after)[INSIDE].any()


def test_gray_and_palette_are_identical_in_rgb(masked, cyclegan):
    noise().convert("L").save("photos/gray.png")
    noise().convert("RGB").quantize(20).save("photos/palette.png")
    assert cyclegan("translate", "photos", "-o", "out", "--mask", "mask.png").code == 0
    for name in ("gray.png", "palette.png"):
        with Image.open(f"photos/{name}") as image:
            before = np.asarray(image.convert("RGB"))
        after = stored(f"out/{name}")
        assert np.array_equal(before[~INSIDE], after[~INSIDE])
        assert changes(before, after)[INSIDE].all()


@pytest.mark.parametrize(
    ("source", "output", "options", "reason"),
    [
        ("a.gif", "a.gif", [], "GIF gets a new palette"),
        ("p.png", "p.png", ["--keep-mode"], "PNG gets a new palette"),
        ("deep.tif", "deep.png", ["--bit-depth", "8"], "8 of its 16 bits"),
        ("deep.tif", "deep.bmp", [], "8 of its 16 bits"),
        ("c.tif", "c.png", [], "its pixels are CMYK, and those written RGB"),
        ("g.png", "g.png", [], "its pixels are grey, and those written RGB"),
        ("p3.png", "p3.bmp", [], "its color profile is not kept"),
        ("alpha.png", "alpha.bmp", [], "BMP does not keep its transparent pixels"),
    ],
)
def test_formats_that_change_pixels_are_refused(masked, cyclegan, source, output, options, reason):
    drawn = {
        "a.gif": lambda path: noise().save(path),
        "p.png": lambda path: noise().quantize(9).save(path),
        "deep.tif": save_rgb16,
        "c.tif": KEPT_MODES["cmyk.tif"],
        "g.png": KEPT_MODES["gray_profile.png"],
        "p3.png": SOURCES["p3.png"],
        "alpha.png": save_hidden_colors,
    }
    drawn[source](f"photos/{source}")
    done = cyclegan("translate", f"photos/{source}", "-o", output, "--mask", "mask.png", *options)
    assert done.code == 6
    assert f"cannot write {output}: pixels outside of the mask must not change" in done.err
    assert reason in done.err
    assert not Path(output).exists()


def test_jpeg_and_orientation(masked, cyclegan):
    noise(16, 24).save("photos/side.png", exif=with_orientation(6))
    noise().save("photos/photo.jpg", quality=95)
    done = cyclegan("translate", "photos", "-o", "out", "--mask", "mask.png", "--json")
    assert done.code == 0, done.err
    upright = decode(Path("photos/side.png")).frames[0]
    assert np.array_equal(upright[~INSIDE], stored("out/side.png")[~INSIDE])
    assert stored("out/photo.jpg").shape == (16, 24, 3)


def test_resized_translation_keeps_the_outside(masked, cyclegan):
    noise(48, 32).resize((480, 320)).save("photos/large.jpg", quality=95)
    Image.new("L", (480, 320)).save("large_mask.png")
    mask = np.zeros((320, 480), np.uint8)
    mask[100:200, 100:300] = 255
    Image.fromarray(mask).save("large_mask.png")
    done = cyclegan("translate", "photos/large.jpg", "-o", "large.png", "--resize", "40",
                    "--mask", "large_mask.png")  # fmt: skip
    assert done.code == 0, done.err
    before, after = stored("photos/large.jpg"), stored("large.png")
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert changes(before, after)[mask > 0].mean() > 0.9


def test_invert_and_alpha(masked, cyclegan):
    image = noise()
    image.putalpha(Image.fromarray(INSIDE.astype(np.uint8) * 255))
    image.save("photos/cut.png")
    Image.fromarray(~INSIDE).save("inverse.png")
    outputs = []
    for number, options in enumerate((["alpha"], ["mask.png"], ["inverse.png", "--mask-invert"])):
        done = cyclegan("translate", "photos/cut.png", "-o", f"{number}.png", "--mask", *options)
        assert done.code == 0, done.err
        outputs.append(stored(f"{number}.png"))
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])
    assert np.array_equal(outputs[0][~INSIDE], stored("photos/cut.png")[~INSIDE])
    assert np.array_equal(outputs[0][..., 3], stored("photos/cut.png")[..., 3])


def test_folder_of_masks_by_name_inside_the_inputs(masked, cyclegan):
    for name in ("a.png", "sub/b.jpg"):
        Path(f"photos/{name}").parent.mkdir(exist_ok=True)
        noise().save(f"photos/{name}")
    Path("photos/masks/sub").mkdir(parents=True)
    Image.fromarray(INSIDE).save("photos/masks/a.TIF")
    Image.fromarray(~INSIDE).save("photos/masks/sub/b.png")
    done = cyclegan("translate", "photos", "-o", "out", "--mask", "photos/masks", "--format", "png")
    assert done.code == 0, done.err
    # The masks are no inputs.
    assert sorted(str(one) for one in Path("out").rglob("*.png")) == ["out/a.png", "out/sub/b.png"]
    assert not changes(stored("photos/a.png"), stored("out/a.png"))[~INSIDE].any()
    assert not changes(stored("photos/sub/b.jpg"), stored("out/sub/b.png"))[INSIDE].any()


def test_faulty_masks_fail_their_image_alone(masked, cyclegan):
    Path("masks").mkdir()
    for name in "abcdefg":
        noise().save(f"photos/{name}.png")
        Image.fromarray(INSIDE).save(f"masks/{name}.png")
    Path("masks/b.png").unlink()
    Image.fromarray(INSIDE.T).save("masks/c.png")
    Image.fromarray(INSIDE.astype(np.uint8)).save("masks/d.png")
    Path("masks/e.png").write_bytes(b"no image")
    Image.fromarray(INSIDE).save("masks/f.bmp")
    Image.new("L", SIZE, 255).save("masks/g.png")
    done = cyclegan("translate", "photos", "-o", "out", "--mask", "masks", "--ordered")
    assert done.code == 6
    assert sorted(os.listdir("out")) == ["a.png", "g.png"]
    for sentence in (
        "photos/b.png has no mask: found no masks/b.png, nor with the extension",
        "the mask masks/c.png has 16x24 pixels, and photos/c.png has 24x16; a mask belongs to the "
        "upright image",
        "the mask masks/d.png has no white, which marks the pixels to translate: its largest value "
        "is 1 of 255",
        "masks/e.png is not an image",
        "photos/f.png has two masks, masks/f.bmp and masks/f.png",
    ):
        assert sentence in " ".join(done.err.split())
    done = cyclegan("translate", "photos/g.png", "-o", "g.png", "--mask", "masks/g.png",
                    "--mask-invert")  # fmt: skip
    assert "has no black" in done.err
    done = cyclegan("translate", "photos/a.png", "-o", "g.png", "--mask", "alpha")
    assert "photos/a.png has no alpha channel, which --mask alpha needs" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--mask", "gone"], 3, "--mask gone: there is no such file or folder"),
        (["--mask-invert"], 2, "--mask-invert needs a mask"),
        (["--mask-feather", "3"], 2, "--mask-feather needs a mask"),
    ],
)
def test_options_that_contradict_each_other(masked, cyclegan, arguments, code, sentence):
    noise().save("photos/a.png")
    done = cyclegan("translate", "photos/a.png", *arguments)
    assert done.code == code
    assert sentence in done.err


def test_masks_of_animations_and_newer_masks(masked, cyclegan):
    frames = [noise(seed=seed) for seed in (1, 2)]
    frames[0].save("photos/move.png", save_all=True, append_images=frames[1:], duration=40)
    command = ["translate", "photos/move.png", "-o", "out.png", "--if-newer", "--json"]
    assert cyclegan(*command, "--mask", "mask.png").documents[0]["status"] == "ok"
    after = decode(Path("out.png")).frames
    for frame, found in zip(frames, after, strict=True):
        assert np.array_equal(np.asarray(frame)[~INSIDE], found[~INSIDE])
    assert cyclegan(*command, "--mask", "mask.png").documents[0]["status"] == "skipped"
    later = Path("out.png").stat().st_mtime + 5
    os.utime("mask.png", (later, later))
    assert cyclegan(*command, "--mask", "mask.png").documents[0]["status"] == "ok"


def test_folder_of_masks_excludes_standard_input(masked, cyclegan):
    Path("masks").mkdir()
    done = cyclegan("translate", "-", "-o", "-", "--mask", "masks")
    assert done.code == 2
    assert "--mask masks is a folder, and an image on standard input has no name" in done.err
