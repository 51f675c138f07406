"""The verification refuses files that compute anything else than the network."""

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cyclegan_cli.errors import ExportError
from cyclegan_cli.exporting.converted import PixelGenerator
from cyclegan_cli.exporting.verify import CHECKED_SIZES, Tolerance, photo, tolerance_for, verify
from cyclegan_cli.models.networks import ResnetGenerator

Model = Callable[[Tensor], Tensor]
FP32 = tolerance_for("fp32", image_io=False, min_psnr=35)


@pytest.fixture
def generator(tiny_model):
    return tiny_model.generator_a2b


def compare(run: Model, reference: Model, tolerance: Tolerance = FP32, **options):
    return verify(run, reference, 3, options.pop("image_io", False), tolerance, **options)


def wrong_at(size: tuple[int, ...], generator: ResnetGenerator) -> Model:
    """A model that is wrong in a single pixel, at a single size."""

    def run(images: Tensor) -> Tensor:
        translated = generator(images).clone()
        if (images.shape[0], *images.shape[2:]) == size:
            translated[0, 0, 0, 0] += 2e-4
        return translated

    return run


def test_identical_model_has_no_difference(generator):
    verification = compare(generator, generator)
    assert (verification.largest_difference, verification.psnr) == (0, None)
    assert [check.size for check in verification.checks] == [
        *CHECKED_SIZES, (1, 83, 125), (1, 48, 64),
    ]  # fmt: skip


def test_verification_reports_differences(generator):
    verification = compare(lambda images: generator(images) + 5e-5, generator)
    assert verification.largest_difference == pytest.approx(5e-5, rel=0.01)
    assert verification.mean_difference == pytest.approx(5e-5, rel=0.01)
    assert verification.psnr == pytest.approx(92.04, abs=0.1)  # 20 log10(2 / 5e-5)


def test_checked_sizes_include_other_than_multiples_of_4():
    assert len(CHECKED_SIZES) >= 4
    assert len({batch for batch, _, _ in CHECKED_SIZES}) > 1
    assert any(height % 4 and width % 4 for _, height, width in CHECKED_SIZES)


def test_verification_photo_is_smooth(generator):
    assert photo().shape == (1, 3, 83, 125)
    assert photo().std() > 0.3
    # Neighbours are alike, as in no noise.
    assert (photo()[..., 1:] - photo()[..., :-1]).abs().mean() < 0.15


@pytest.mark.parametrize("size", [*CHECKED_SIZES, (1, 83, 125)])
def test_single_wrong_pixel_is_refused(generator, size):
    with pytest.raises(ExportError, match=rf"by 0\.0002 on \w+ of {size[2]}x{size[1]}, more"):
        compare(wrong_at(size, generator), generator)


def test_non_finite_output_is_refused(generator):
    with pytest.raises(ExportError, match="not finite"):
        compare(lambda images: generator(images) * torch.nan, generator)


@pytest.mark.parametrize(
    ("shape", "model"),
    [
        ("rows", lambda translated: translated[..., 1:, :]),
        ("batch", lambda translated: translated[:1].expand(3, -1, -1, -1)),
        ("no batch", lambda translated: translated[0]),
    ],
)
def test_wrong_output_shape_is_refused(generator, shape, model):
    with pytest.raises(ExportError, match=r"the exported model maps \[.*nothing is written"):
        compare(lambda images: model(generator(images)), generator)


def test_low_psnr_is_refused(generator):
    tolerance = tolerance_for("fp16", image_io=False, min_psnr=35)
    random = torch.Generator().manual_seed(0)

    def noisy(images):
        translated = generator(images)
        return translated + torch.randn(translated.shape, generator=random) * 0.004

    assert compare(wrong_at((1, 64, 64), generator), generator, tolerance).psnr > 60
    with pytest.raises(ExportError, match=r"on noise of 64x64: PSNR 5\d\.\d dB"):
        compare(noisy, generator, tolerance)


def test_only_held_out_images_decide(generator):
    tolerance = tolerance_for("int8", image_io=False, min_psnr=35)
    held_out = {"held-out 1": photo()[..., :20, :24]}

    def good_there_alone(images):
        return generator(images) * (images.shape[-1] == 24)

    verification = compare(good_there_alone, generator, tolerance, held_out=held_out)
    assert verification.psnr is None
    assert len(verification.checks) == 7
    with pytest.raises(ExportError, match="on held-out 1 of 24x20: PSNR .* less than 35"):
        compare(lambda images: -generator(images), generator, tolerance, held_out=held_out)


def test_pixel_values_may_differ_by_one(generator):
    tolerance = tolerance_for("fp32", image_io=True, min_psnr=35)
    pixels = PixelGenerator(generator)

    def off_by(offset):
        return lambda given: (pixels(given).int() + offset).clamp(0, 255).to(torch.uint8)

    assert compare(off_by(1), pixels, tolerance, image_io=True).largest_difference == 1
    with pytest.raises(ExportError, match="differs from the network by 2 on noise"):
        compare(off_by(2), pixels, tolerance, image_io=True)


def test_inputs_are_reproducible_and_fill_the_range(generator):
    seen: list[Tensor] = []

    def run(images):
        seen.append(images)
        return generator(images)

    compare(run, generator)
    compare(run, generator)
    for first, second in zip(seen[:6], seen[6:], strict=True):
        assert torch.equal(first, second)
    for first in seen[:5]:
        assert first.min() < -0.9
        assert first.max() > 0.9


def test_verification_is_plain_json(generator):
    document = json.loads(json.dumps(compare(generator, generator).to_document()))
    assert document["judged"] == ["noise"] * 4 + ["photo", "a single colour"]
    assert document["checks"][0] == {
        "what": "noise", "size": [1, 64, 64], "largest_difference": 0.0, "mean_difference": 0.0,
        "psnr": None,
    }  # fmt: skip
