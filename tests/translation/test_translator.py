"""Translator: images, arrays and tensors of any size."""

import copy
import functools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.errors import DeviceError, UsageError
from cyclegan_cli.models.networks import ResnetGenerator, initialize_weights
from cyclegan_cli.translation import translator as module
from cyclegan_cli.translation.strips import StripPlan
from cyclegan_cli.translation.translator import Translator, TranslatorOptions
from generators import generator

pytestmark = pytest.mark.cpu_features

FP32 = TranslatorOptions("cpu", "fp32")
# No deadline: other processes may run on the same cores.
unhurried = settings(deadline=None, max_examples=25)


@pytest.fixture(scope="module")
def translator(checkpoint):
    return Translator.load(checkpoint, "a2b", options=FP32)


def network_translator(network: ResnetGenerator, **options: Any) -> Translator:
    info = ModelInfo("model", network.config, "day", "night", {}, {})
    options = {"precision": "fp32"} | options
    return Translator(network, info, "a2b", torch.device("cpu"), TranslatorOptions(**options))


def random_images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


# Sizes


@unhurried
@given(batch=st.integers(1, 3), height=st.integers(1, 90), width=st.integers(1, 90))
def test_batch_keeps_shape_and_range(translator, batch, height, width):
    translated = translator.translate(random_images(batch, 3, height, width))
    assert translated.shape == (batch, 3, height, width)
    assert translated.dtype == torch.float32
    assert translated.abs().max() <= 1


# The result


def test_translation_equals_generator_output(translator, tiny_model):
    images = random_images(2, 3, 16, 24)
    with torch.no_grad():
        expected = tiny_model.generator_a2b(images)
    torch.testing.assert_close(translator.translate(images), expected, rtol=0, atol=1e-4)


def test_odd_size_is_padded_and_cropped(translator, tiny_model):
    images = random_images(1, 3, 15, 22)
    padded = np.pad(images.numpy(), [(0, 0), (0, 0), (0, 1), (0, 2)], mode="reflect")
    with torch.no_grad():
        expected = tiny_model.generator_a2b(torch.from_numpy(padded))[..., :15, :22]
    torch.testing.assert_close(translator.translate(images), expected, rtol=0, atol=1e-4)


def test_input_is_not_modified(translator):
    images = random_images(1, 3, 8, 8)
    translator.translate(images)
    assert torch.equal(images, random_images(1, 3, 8, 8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "1", "I;16"])
def test_pillow_image_of_any_mode_becomes_rgb(translator, mode):
    translated = translator(Image.effect_noise((13, 7), 60).convert(mode))
    assert (translated.mode, translated.size) == ("RGB", (13, 7))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_kept(translator, mode):
    opacity = Image.effect_noise((13, 7), 90)
    image = Image.effect_noise((13, 7), 60).convert(mode)
    image.putalpha(opacity)
    translated = translator(image)
    assert translated.mode == "RGBA"
    assert np.array_equal(np.asarray(translated.getchannel("A")), np.asarray(opacity))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((5, 4, 4), np.uint8),
        np.zeros((5, 4), np.uint8),
        np.zeros((5, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        torch.zeros(3, 5, 4),
        torch.zeros(1, 4, 5, 4),
        torch.zeros(1, 3, 0, 4),
        torch.zeros(1, 3, 5, 4, dtype=torch.uint8),
    ],
)
def test_wrong_shape_or_dtype_raises_value_error(translator, image):
    with pytest.raises(ValueError, match="must be .*, found ") as refused:
        translator(image)
    assert str(list(image.shape)) in str(refused.value)
    assert str(image.dtype) in str(refused.value)


def test_pixel_values_reach_generator_unchanged(translator):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    expected = ((translator.translate(images)[0] + 1) * 127.5).round().permute(1, 2, 0)
    assert np.array_equal(np.asarray(translator(Image.fromarray(pixels))), expected)


# How it computes


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), None]
)
def test_out_of_memory_raises_device_error_with_size(error):
    translator = network_translator(generator(2, 1))

    def fail(*_):
        raise error or RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")

    translator.strips.translate = fail
    with pytest.raises(DeviceError, match="translating 20x16 pixels: not enough memory"):
        translator.translate(random_images(1, 3, 16, 20))


# Loading


def test_to_without_checkpoint_is_refused():
    translator = network_translator(generator(4, 1))
    assert translator.to(translator.target) is translator
    source = translator.info.source("a2b")
    with pytest.raises(UsageError, match=f"translates to {translator.target}, not {source}"):
        translator.to(source)


@pytest.mark.parametrize(
    ("direction", "network", "target"),
    [("a2b", "generator_a2b", "night"), ("b2a", "generator_b2a", "day")],
)
def test_direction_selects_generator_and_target(checkpoint, tiny_model, direction, network, target):
    translator = Translator.load(checkpoint, direction, options=FP32)
    expected = tiny_model.networks()[network].state_dict()
    assert translator.target == target
    for name, weight in translator.generator.state_dict().items():
        assert torch.equal(weight, expected[name])


def grey_translator(channels_in: int, channels_out: int) -> Translator:
    config = GeneratorConfig(4, 1, input_channels=channels_in, output_channels=channels_out)
    network = ResnetGenerator(config).eval().requires_grad_(False)
    initialize_weights(network, torch.Generator().manual_seed(0))
    network.head.weight.mul_(20)
    return network_translator(network)


def test_grey_network_receives_grey_image():
    translator = grey_translator(1, 3)
    images = random_images(2, 3, 16, 20)
    red, green, blue = images.unbind(dim=1)
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]  # ITU-R BT.601.
    expected = translator.generator(grey)
    assert expected.std() > 0.1
    torch.testing.assert_close(translator.translate(images), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("channels_in", [1, 3])
def test_grey_output_becomes_rgb(channels_in):
    translated = grey_translator(channels_in, 1).translate(random_images(2, 3, 13, 18))
    assert translated.shape == (2, 3, 13, 18)
    assert torch.equal(translated[:, 0], translated[:, 1])
    assert torch.equal(translated[:, 0], translated[:, 2])
    assert translated.std() > 0.1


# Kinds of images


def test_array_keeps_bit_depth(translator):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    eight = translator(pixels)
    assert (eight.shape, eight.dtype) == ((9, 14, 3), np.uint8)
    sixteen = translator(pixels.astype(np.uint16) * 257)
    assert (sixteen.shape, sixteen.dtype) == ((9, 14, 3), np.uint16)
    assert abs(sixteen / 257 - eight).max() <= 0.51


def test_tensor_gives_tensor(translator):
    images = random_images(2, 3, 8, 12)
    assert torch.equal(translator(images), translator.translate(images))


# Directions


def test_to_selects_domain_by_name(checkpoint):
    night = Translator.load(checkpoint, device="cpu").to("night")
    day = night.to("day")
    assert (night.target, day.target) == ("night", "day")
    images = random_images(1, 3, 8, 8)
    expected = Translator.load(checkpoint, "b2a", "cpu").translate(images)
    assert torch.equal(day.translate(images), expected)
    assert day.to("day") is day


# Memory


def test_memory_limit_does_not_change_pixels(monkeypatch):
    network = generator(8, 2)
    pixels = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    plans = []
    whole = network_translator(copy.deepcopy(network))
    limited = network_translator(network, max_memory=1)
    work = limited.strips.translate
    limited.strips.translate = lambda image, plan, *others: (
        plans.append(plan), work(image, plan, *others)
    )  # fmt: skip
    monkeypatch.setattr(module, "memory_budget", lambda device, limit: 3.2e6 if limit else 1e9)
    expected, found = whole(pixels), limited(pixels)
    assert plans == [StripPlan(1)]
    assert abs(found.astype(int) - expected).max() <= 1


# Scale


def test_resize_restores_original_size():
    network = generator(4, 1)
    plain = network_translator(copy.deepcopy(network))
    resizing = network_translator(network, resize=16)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    small = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1,
        (16, 32), mode="bicubic", antialias=True,
    ).clamp(-1, 1)  # fmt: skip
    large = torch.nn.functional.interpolate(
        plain.translate(small), (32, 64), mode="bicubic", antialias=True
    ).clamp(-1, 1)
    expected = ((large[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    found = resizing(pixels)
    assert found.shape == pixels.shape
    assert abs(found - expected).max() <= 0.6


def test_resize_does_not_affect_smaller_images():
    network = generator(4, 1)
    plain = network_translator(copy.deepcopy(network))
    resizing = network_translator(network, resize=16)
    pixels = np.random.default_rng(0).integers(0, 256, (15, 40, 3), dtype=np.uint8)
    assert np.array_equal(resizing(pixels), plain(pixels))


def test_image_decoded_at_reduced_scale_is_restored_to_full_size():
    translator = network_translator(generator(4, 1), resize=16)
    pixels = np.zeros((20, 30, 3), np.uint8)
    assert translator.translate_array(pixels, size=(61, 41)).shape == (41, 61, 3)


@pytest.mark.parametrize(("width", "height"), [(65, 64), (71, 69), (64, 72), (8 * 9 + 1, 67)])
def test_excess_rows_of_reduced_scale_are_cropped(width, height):
    """The last row and column of an eighth cover more than the image has."""
    translator = network_translator(generator(4, 1), resize=16)
    translator._translate_array = lambda small, _: small  # An identity network:
    rows, columns = math.ceil(height / 8), math.ceil(width / 8)
    small = np.zeros((rows, columns, 3), np.uint16)
    small[:, columns // 2 :] = 65535
    found = translator.translate_array(small, bit_depth=8, size=(width, height))
    assert found.shape == (height, width, 3)
    # an edge stays where it was, to the pixel.
    edge = 8 * (columns // 2)
    assert (found[:, : edge - 8] < 20).all()
    assert (found[:, edge + 8 :] > 235).all()
    assert np.array_equal(found[:, edge - 1] < 128, np.ones((height, 3), bool))
    assert np.array_equal(found[:, edge] < 128, np.zeros((height, 3), bool))


# Compiled


@pytest.fixture
def repays(monkeypatch):
    """As if a compiled network were faster than strips here."""
    monkeypatch.setattr(module, "is_compiling_faster", lambda _: True)
    return monkeypatch


@pytest.mark.slow
def test_compiled_network_gives_same_pixels(repays):
    # torch's own, with all but the compiler: a network so wrapped is not quite like one that isn't.
    repays.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    network = generator(4, 1)
    plain = network_translator(copy.deepcopy(network))
    translator = network_translator(network, compile=True)
    calls: list[int] = []
    translator.generator.register_forward_hook(lambda *_: calls.append(1))
    images = random_images(2, 3, 17, 20)
    torch.testing.assert_close(
        translator.translate(images), plain.translate(images), rtol=0, atol=1e-4
    )
    pixels = np.random.default_rng(0).integers(0, 256, (21, 30, 3), dtype=np.uint8)
    difference = translator(pixels).astype(int) - plain(pixels)
    assert np.abs(difference).max() <= 1
    assert len(calls) == 2
    assert translator.remarks == ()


def test_compile_on_cpu_has_no_effect_and_is_reported(monkeypatch):
    monkeypatch.setattr(torch, "compile", None)
    translator = network_translator(generator(4, 1), compile=True)
    assert translator.remarks == ("--compile has no effect on a CPU, where strips are faster",)
    assert translator.translate(random_images(1, 3, 16, 16)).shape == (1, 3, 16, 16)


def test_failing_compilation_raises_device_error(repays):
    def without_compiler(_, **__):
        def fail(_):
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nmany more lines")

        return fail

    repays.setattr(torch, "compile", without_compiler)
    with pytest.raises(DeviceError, match=r"compiled here: InvalidCxxCompiler: .* compiler$"):
        network_translator(generator(4, 1), compile=True)


# The scale of the training


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(4000, 1600, "5 times the training scale"), (4000, 1280, ""), (300, 200, "")],
)
def test_image_far_above_training_scale_gets_remark(width, height, expected):
    translator = network_translator(generator(2, 1))
    translator.info = replace(translator.info, training={"load_size": 320})
    remark = translator.scale_remark(width, height)
    assert (expected in remark and "--resize 320" in remark) if expected else remark == ""


def test_no_scale_remark_with_resize_or_unknown_training():
    assert network_translator(generator(2, 1)).scale_remark(9000, 9000) == ""
    resizing = network_translator(generator(2, 1), resize=100)
    resizing.info = replace(resizing.info, training={"load_size": 100})
    assert resizing.scale_remark(9000, 9000) == ""
