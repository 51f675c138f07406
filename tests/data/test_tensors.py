"""PixelArray to tensors, and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cyclegan_cli.data.tensors import (
    array_to_tensor,
    tensor_to_array,
    to_pixel_values,
    to_unit_range,
)
from images import noise

ALL_LEVELS = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 3, 16, 16)


def test_unit_range_round_trip():
    images = to_unit_range(ALL_LEVELS)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (-1, 1)
    assert torch.equal(to_pixel_values(images), ALL_LEVELS)


def test_pixel_values_are_rounded_and_clamped():
    near = torch.tensor([-1.5, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0.999, 1.0, 7.0])
    assert to_pixel_values(near).tolist() == [0, 0, 0, 1, 255, 255, 255]


@pytest.mark.parametrize(
    ("convert", "dtype"), [(to_unit_range, torch.uint8), (to_pixel_values, torch.float32)]
)
def test_conversions_do_not_modify_their_input(convert, dtype):
    images = torch.ones(1, 3, 2, 2, dtype=dtype)
    convert(images)
    assert torch.equal(images, torch.ones(1, 3, 2, 2, dtype=dtype))


@settings(deadline=None)
@given(width=st.integers(1, 40), height=st.integers(1, 40), seed=st.integers(0, 100))
def test_tensor_round_trip(width, height, seed):
    image = noise(width, height, seed)
    tensor = array_to_tensor(np.asarray(image))
    assert (tensor.shape, tensor.dtype) == ((1, 3, height, width), torch.float32)
    assert tensor_to_array(tensor).tobytes() == image.tobytes()


def test_tensor_dimension_order():
    image = Image.new("RGB", (3, 2))
    image.putpixel((2, 0), (255, 0, 0))
    tensor = array_to_tensor(np.asarray(image))
    assert (tensor == 1).nonzero().tolist() == [[0, 0, 0, 2]]


def test_16_bit_tensor_round_trip():
    levels = np.arange(65536, dtype=np.uint16).repeat(3).reshape(256, 256, 3)
    tensor = array_to_tensor(levels)
    assert (tensor.dtype, tensor.min(), tensor.max()) == (torch.float32, -1, 1)
    assert np.array_equal(tensor_to_array(tensor, 16), levels)


def test_8_and_16_bit_pixel_values_map_to_same_tensor_value():
    eight = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    sixteen = eight.astype(np.uint16) * 257
    assert torch.allclose(array_to_tensor(eight), array_to_tensor(sixteen), atol=1e-6)
    assert np.array_equal(tensor_to_array(array_to_tensor(eight), 16), sixteen)
    assert np.array_equal(tensor_to_array(array_to_tensor(sixteen)), eight)
