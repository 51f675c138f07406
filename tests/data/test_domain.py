import numpy as np
import pytest
from PIL import Image

from bands import draw_domains
from cyclegan_cli.config import BandFormat, TrainConfig
from cyclegan_cli.data.dataset import UnpairedDataset, load_training_image
from cyclegan_cli.data.domain import clipped_fraction, find_format
from cyclegan_cli.data.folder import list_images
from cyclegan_cli.errors import DataError, UsageError

SMALL = {"load_size": 34, "crop_size": 32}


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    return draw_domains(tmp_path_factory.mktemp("bands"), 3)


def found(folder, **options):
    return find_format(TrainConfig(**options), "a", list_images(folder))


def test_color_images_stay_rgb(domains, draw, tmp_path):
    assert found(domains / "rgb") is None
    assert found(domains / "rgb", channels_a=3) is None
    # As before: images that all can be shown as color are one domain.
    draw(tmp_path / "1.png", mode="L")
    draw(tmp_path / "2.jpg")
    draw(tmp_path / "3.png", mode="RGBA")
    Image.new("1", (40, 40)).save(tmp_path / "4.tif")
    assert found(tmp_path) is None


def test_the_hint_for_color_that_does_not_become_gray(draw, tmp_path):
    draw(tmp_path / "1.png", mode="RGBA")
    with pytest.raises(DataError, match="have color, and none has 1 channel") as error:
        found(tmp_path, channels_a=1)
    assert "remove their transparency or palette" in error.value.hint


def test_other_images_are_taken_as_they_are(domains, draw, tmp_path):
    draw(tmp_path / "1.png", mode="L")
    assert found(tmp_path) == BandFormat(1, "uint8", (0.0,), (255.0,))
    assert found(tmp_path, channels_a=3) is None
    for name, channels, dtype, nodata in (
        ("thermal", 1, "uint16", None),
        ("satellite", 5, "uint16", 0.0),
        ("height", 1, "float32", None),
        ("ct", 1, "int16", None),
    ):
        one = found(domains / name)
        assert (one.channels, one.dtype, one.nodata) == (channels, dtype, nodata)


def test_ranges(domains):
    [low], [high] = (getattr(found(domains / "satellite"), end) for end in ("low", "high"))
    assert 1400 <= low < 2000 < 4000 < high <= 4600
    per_channel = found(domains / "satellite", range_a="per-channel")
    assert len(per_channel.low) == len(per_channel.high) == 5
    explicit = found(domains / "ct", range_a="-1000,3000")
    assert (explicit.low, explicit.high) == ((-1000.0,), (3000.0,))
    as_array = found(domains / "rgb", range_a="0,255")
    assert as_array == BandFormat(3, "uint8", (0.0,), (255.0,), is_color=True)
    assert not found(domains / "satellite", bands_a="4,3,2").is_color


def test_clipped_values_are_counted(domains):
    images = list_images(domains / "ct")
    half = find_format(TrainConfig(range_a="-200,20000"), "a", images)
    values = np.concatenate([np.load(path).ravel() for path in images])
    assert clipped_fraction(half, images) == pytest.approx((values < -200).mean())
    assert clipped_fraction(find_format(TrainConfig(), "a", images), images) <= 0.011


def test_bands_and_channels(domains):
    assert found(domains / "satellite", bands_a="4,3,2").bands == (4, 3, 2)
    assert found(domains / "rgb", channels_a=1) == BandFormat(1, "uint8", (0.0,), (255.0,))
    with pytest.raises(DataError, match=r"the images have 5 channels of uint16, and none has band"):
        found(domains / "satellite", bands_a="6")
    with pytest.raises(DataError, match=r"5 channels of uint16, and none has 4 channels"):
        found(domains / "satellite", channels_a=4)


def test_mixed_domains_are_refused_with_the_counts(domains, tmp_path):
    np.save(tmp_path / "1.npy", np.zeros((40, 40, 5), np.uint16))
    np.save(tmp_path / "2.npy", np.zeros((40, 40, 5), np.uint16))
    np.save(tmp_path / "3.npy", np.zeros((40, 40, 2), np.uint16))
    Image.new("RGB", (40, 40)).save(tmp_path / "4.png")
    with pytest.raises(
        DataError, match="2 with 5 channels of uint16, 1 with 2 channels of uint16, 1 with color"
    ):
        found(tmp_path)
    chosen = found(tmp_path, channels_a=5)
    assert chosen.channels == 5
    with pytest.raises(DataError, match="has 2 channels, and its domain 5"):
        load_training_image(tmp_path / "3.npy", TrainConfig(**SMALL), chosen)


def test_images_are_resized_without_8_bits_on_the_way(tmp_path):
    gradient = np.linspace(1000, 1100, 100 * 100).reshape(100, 100).astype(np.uint16)
    np.save(tmp_path / "x.npy", gradient)
    chosen = BandFormat(1, "uint16", (0.0,), (65535.0,))
    image = load_training_image(tmp_path / "x.npy", TrainConfig(**SMALL), chosen)
    assert image.shape == (1, 34, 34)
    assert len(image.unique()) > 100


def test_values_without_data_do_not_bleed_into_their_neighbors(tmp_path):
    values = np.full((68, 68, 2), 500, np.uint16)
    values[:34] = 0
    np.save(tmp_path / "x.npy", values)
    chosen = BandFormat(2, "uint16", (400.0,), (600.0,), nodata=0.0)
    image = load_training_image(tmp_path / "x.npy", TrainConfig(**SMALL), chosen)
    missing = image.isnan()
    assert missing[:, :16].all()
    assert not missing[:, 20:].any()
    assert image[~missing].abs().max() < 1e-6


def test_crops_of_two_domains(domains):
    config = TrainConfig(**SMALL, batch_size=1)
    images = list_images(domains / "satellite"), list_images(domains / "rgb")
    formats = (find_format(config, "a", images[0]), None)
    batch = UnpairedDataset(*images, config, formats=formats)[3]
    assert (batch.real_a.shape, str(batch.real_a.dtype)) == ((1, 5, 32, 32), "torch.float32")
    assert (batch.real_b.shape, str(batch.real_b.dtype)) == ((1, 3, 32, 32), "torch.uint8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands_a": "4,3", "channels_a": 3}, "selects 2 bands, and --channels-a is 3"),
        ({"bands_a": "0,1"}, "not a list of bands"),
        ({"range_b": "3,1"}, "--range-b '3,1' is not a range"),
        ({"range_a": "some"}, "not a range"),
        ({"show_bands": "1,2"}, "one or three bands"),
        ({"nodata": float("nan")}, "not a finite number"),
        ({"channels_b": 0}, "at least 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(UsageError, match=message):
        TrainConfig(**options)
