"""Images of any size become images that a generator takes, by reflection."""

import numpy as np
import pytest
import torch
from torch import Tensor

from cyclegan_cli.models.padding import reflect_to_multiple


def random_images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("size", range(5, 25))  # Below, numpy.pad would have to reflect twice.
def test_padding_equals_numpy_reflect(size):
    images = random_images(1, 2, size, 8)
    wanted = max(8, (size + 3) // 4 * 4)
    padding = [(0, 0), (0, 0), (0, wanted - size), (0, 0)]
    expected = np.pad(images.numpy(), padding, mode="reflect")
    assert np.array_equal(reflect_to_multiple(images).numpy(), expected)
    assert np.array_equal(reflect_to_multiple(images.mT).mT.numpy(), expected)


@pytest.mark.parametrize(
    ("row", "continued"),
    [
        ([5], [5, 5, 5, 5, 5, 5, 5, 5]),
        ([1, 2], [1, 2, 1, 2, 1, 2, 1, 2]),
        ([1, 2, 3], [1, 2, 3, 2, 1, 2, 3, 2]),
        ([1, 2, 3, 4], [1, 2, 3, 4, 3, 2, 1, 2]),
    ],
)
def test_padding_larger_than_the_image_reflects_repeatedly(row, continued):
    images = torch.tensor(row).reshape(1, 1, 1, -1)
    assert reflect_to_multiple(images).tolist() == [[[continued] * 8]]


@pytest.mark.parametrize("size", [8, 12, 64])
def test_multiples_of_4_are_not_padded(size):
    images = random_images(2, 3, size, 8)
    assert torch.equal(reflect_to_multiple(images), images)
