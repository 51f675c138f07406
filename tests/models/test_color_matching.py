"""Colors that optimal transport matches between two domains."""

import pytest
import torch
from torch import Tensor

from cyclegan_cli.models.color_matching import ColorMatching, patch_features


def smooth_images(count: int, seed: int = 0, channels: int = 3) -> Tensor:
    """Images of one color per patch, in [-1, 1]."""
    random = torch.Generator().manual_seed(seed)
    colors = torch.rand(count, channels, 8, 8, generator=random) * 2 - 1
    return colors.repeat_interleave(8, 2).repeat_interleave(8, 3)


def patches(images: Tensor, count: int = 512) -> Tensor:
    return patch_features(images).flatten(0, 2)[:count]


def test_patch_features_equal_the_definition():
    image = torch.rand(2, 3, 20, 17) * 2 - 1
    features = patch_features(image)
    assert features.shape == (2, 2, 2, 4)  # Incomplete patches are left out.
    patch = image[1, :, 8:16, :8].flatten(1)
    expected = [*patch.mean(1).tolist(), float(patch.var(1, correction=0).sum().sqrt())]
    assert features[1, 1, 0].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_domain_matches_itself():
    images = smooth_images(16)
    found = ColorMatching(patches(images), patches(smooth_images(16, seed=1)))(images)
    assert found.shape == (16, 3, 8, 8)
    error = (found - patch_features(images)[..., :3].permute(0, 3, 1, 2)).abs().mean()
    assert error < 0.15  # Of colors in [-1, 1]: the samples differ.


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_known_change_of_colors_is_found(channels):
    images = smooth_images(16, channels=channels)
    change = torch.linspace(0.2, 0.8, channels).view(1, -1, 1, 1)
    changed = smooth_images(16, seed=1, channels=channels) * change - 0.2
    found = ColorMatching(patches(images), patches(changed))(images)
    expected = (images * change - 0.2)[:, :, ::8, ::8]
    assert (found - expected).abs().mean() < 0.15 * float(changed.std()) ** 0.5
    assert (found - images[:, :, ::8, ::8]).abs().mean() > 0.2


def test_matched_colors_have_the_distribution_of_the_target_domain():
    source, target = patches(smooth_images(16)), patches(smooth_images(16, seed=1) ** 3)
    matching = ColorMatching(source, target)
    found = matching(smooth_images(16)).permute(1, 0, 2, 3).flatten(1)
    wanted = target[:, :3].T
    assert (found.mean(1) - wanted.mean(1)).abs().max() < 0.03
    assert (found.std(1) / wanted.std(1) - 1).abs().max() < 0.2
    assert found.min() >= wanted.min() - 1e-5
    assert found.max() <= wanted.max() + 1e-5


@pytest.mark.parametrize("which", ["source", "target", "both"])
def test_domains_of_one_color_give_finite_colors(which):
    one = torch.full((4, 3, 64, 64), 0.25)
    images = {"source": smooth_images(4), "target": smooth_images(4)}
    images |= {name: one for name in images if which in (name, "both")}
    found = ColorMatching(patches(images["source"]), patches(images["target"]))(images["source"])
    assert found.isfinite().all()
    if which != "source":
        torch.testing.assert_close(found, torch.full_like(found, 0.25))


def test_colors_do_not_depend_on_the_number_of_threads():
    images = smooth_images(16)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            matching = ColorMatching(patches(images), patches(smooth_images(16, seed=1)))
            found.append(matching(images))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
