"""Averages of instance-norm statistics over frames, and scene cuts."""

import numpy as np
import pytest
import torch
from torch import nn

from cyclegan_cli.data.image import Animation, DecodedImage
from cyclegan_cli.errors import DataError
from cyclegan_cli.models.networks import InstanceNorm
from cyclegan_cli.translation.animations import FrameSmoother, select_frames
from cyclegan_cli.translation.selection import Selection
from cyclegan_cli.translation.smoothing import (
    CutDetector,
    NormStatistics,
    cut_distance,
    luma_histogram,
    sample_shot,
)
from cyclegan_cli.translation.translator import Translator
from videos import moving_square

pytestmark = pytest.mark.cpu_features


@pytest.fixture(scope="module")
def translator(checkpoint):
    return Translator.load(checkpoint, "a2b", "cpu")


@pytest.fixture
def frames():
    return [torch.randn(1, 3, 6, 8) * (index + 1) + index for index in range(3)]


def test_exponential_average(frames):
    norm = InstanceNorm(3, affine=False)
    statistics = NormStatistics(nn.Sequential(norm))
    mean = variance = None
    with statistics.exponential(0.75):
        for x in frames:
            new_variance, new_mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
            mean = new_mean if mean is None else 0.75 * mean + 0.25 * new_mean
            variance = new_variance if variance is None else 0.75 * variance + 0.25 * new_variance
            torch.testing.assert_close(norm(x), (x - mean) / (variance + 1e-5).sqrt())
    x = frames[0]
    torch.testing.assert_close(norm(x), InstanceNorm(3, affine=False)(x))


def test_accumulated_and_fixed_statistics(frames):
    norm = InstanceNorm(3, affine=True)
    nn.init.constant_(norm.weight, 2.0)
    statistics = NormStatistics(nn.Sequential(norm))
    with statistics.accumulating():
        for x in frames:
            torch.testing.assert_close(norm(x), InstanceNorm(3, affine=False)(x) * 2)
    pairs = [torch.var_mean(x[0], dim=(1, 2), correction=0) for x in frames]
    variance, mean = (sum(part) / 3 for part in zip(*pairs, strict=True))
    expected = torch.stack((mean, variance)).numpy()
    assert np.allclose(statistics.moments, expected, rtol=1e-5)
    other = NormStatistics(nn.Sequential(norm))
    other.moments = statistics.moments
    with other.fixed():
        for x in frames:
            scaled = (x - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
            torch.testing.assert_close(norm(x), scaled * 2)
    assert np.array_equal(other.moments, statistics.moments)


def test_filters_are_removed_after_an_error(translator):
    statistics = NormStatistics(translator.generator)
    with pytest.raises(KeyError), statistics.fixed():
        raise KeyError
    norms = [m for m in translator.generator.modules() if isinstance(m, InstanceNorm)]
    assert norms
    assert all(norm.moments_filter is None for norm in norms)


def test_strips_and_whole_images_agree(translator):
    first, second = (torch.rand(1, 3, 32, 48) * scale for scale in (1, 0.5))
    generator = translator.generator
    like = next(generator.parameters())
    results = []
    for translate in (
        translator.translate,
        lambda x: generator(x.to(like).contiguous(memory_format=torch.channels_last)).float(),
    ):
        with NormStatistics(generator).exponential(0.5), torch.inference_mode():
            translate(first)
            results.append(translate(second))
    torch.testing.assert_close(*results, rtol=0, atol=0.1 if like.dtype != torch.float32 else 1e-3)
    assert not torch.allclose(results[0], translator.translate(second), atol=0.02)


def test_smoothing_reduces_flicker(translator):
    bright = [moving_square(1, (160, 32))[0] for _ in range(6)]
    for frame in bright[1::2]:
        frame[:, 120:] = 255  # The far end of every other frame, which is not compared.
    changes = {}
    for smoothing in (0.0, 0.9, "shot"):
        smoother = FrameSmoother(translator.generator, smoothing)
        translated = smoother.apply(translator.translate_array, bright, is_animated=True)
        means = [float(frame[:, :16].mean()) for frame in translated]
        changes[smoothing] = np.abs(np.diff(means)).mean()
    assert changes[0.9] < changes[0.0] / 3
    assert changes["shot"] < changes[0.0] / 3


def test_pages_are_independent(translator):
    frames = moving_square(3)
    smoother = FrameSmoother(translator.generator, 0.9)
    pages = smoother.apply(translator.translate_array, frames, is_animated=False)
    assert np.array_equal(pages, [translator.translate_array(frame) for frame in frames])


def test_cuts():
    scene = moving_square(5)
    other = [255 - frame for frame in scene]
    detector = CutDetector()
    found = [detector.is_cut(frame) for frame in [*scene, *other, *scene]]
    assert [index for index, is_cut in enumerate(found) if is_cut] == [0, 5, 10]


def test_cut_distance():
    black, white = (np.full((8, 8, 3), value, np.uint8) for value in (0, 255))
    assert cut_distance(luma_histogram(black), luma_histogram(black)) == 0
    assert cut_distance(luma_histogram(black), luma_histogram(white)) == pytest.approx(1)
    deep = luma_histogram(white.astype(np.uint16) * 257)
    assert np.array_equal(deep, luma_histogram(white))
    assert luma_histogram(black[:1, :1]).shape == luma_histogram(black).shape


@pytest.mark.parametrize("bounds", [(0, 1), (3, 8), (5, 13), (10, 510)])
def test_samples_lie_evenly_in_their_shot(bounds):
    samples = sample_shot(*bounds)
    assert len(samples) == len(set(samples)) == min(bounds[1] - bounds[0], 8)
    assert bounds[0] <= samples[0] <= samples[-1] < bounds[1]
    assert abs(samples[0] - bounds[0] - (bounds[1] - 1 - samples[-1])) <= 1


def test_selected_frames_keep_the_total_duration():
    frames = tuple(np.full((2, 2, 3), index, np.uint8) for index in range(5))
    image = DecodedImage(frames, animation=Animation((10.0, 20.0, 30.0, 40.0, 50.0)))
    kept = select_frames(image, Selection(start=0.01, end=0.1, every=2))
    assert [int(frame[0, 0, 0]) for frame in kept.frames] == [1, 3]
    assert kept.animation.durations == (50.0, 40.0)
    assert select_frames(image, Selection()) is image
    with pytest.raises(DataError, match="no frames between --start and --end"):
        select_frames(image, Selection(start=9))
