"""One generator in use: pictures of any size in, translations of exactly that size out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from cyclegan_cli.checkpoints import store
from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.errors import CheckpointError, DeviceError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator, initialise_weights
from cyclegan_cli.translation import translator as module
from cyclegan_cli.translation.strips import translate_in_strips
from cyclegan_cli.translation.translator import Translator

# Time tells nothing here: other work may run on the same cores.
unhurried = settings(deadline=None, max_examples=25)


@pytest.fixture(scope="module")
def translator(checkpoint: Path) -> Translator:
    return Translator.load(checkpoint, "a2b", "cpu")


def random_pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


# Sizes


@pytest.mark.parametrize("height", range(1, 21))
def test_the_output_has_the_size_of_the_input(translator: Translator, height: int) -> None:
    for width in (1, 2, 3, 4, 7, 8, 13, 20):
        pictures = random_pictures(1, 3, height, width)
        assert translator.translate(pictures).shape == pictures.shape


@unhurried
@given(batch=st.integers(1, 3), height=st.integers(1, 90), width=st.integers(1, 90))
def test_any_batch_of_any_size_keeps_its_shape_and_range(
    translator: Translator, batch: int, height: int, width: int
) -> None:
    translated = translator.translate(random_pictures(batch, 3, height, width))
    assert translated.shape == (batch, 3, height, width)
    assert translated.dtype == torch.float32
    assert translated.abs().max() <= 1


# The result


def test_the_translation_is_the_generators_output(
    translator: Translator, tiny_model: CycleGAN
) -> None:
    pictures = random_pictures(2, 3, 16, 24)
    with torch.no_grad():
        expected = tiny_model.generator_a2b(pictures)
    assert torch.equal(translator.translate(pictures), expected)


def test_an_odd_size_is_reflected_translated_and_cropped(
    translator: Translator, tiny_model: CycleGAN
) -> None:
    pictures = random_pictures(1, 3, 15, 22)
    padded = np.pad(pictures.numpy(), [(0, 0), (0, 0), (0, 1), (0, 2)], mode="reflect")
    with torch.no_grad():
        expected = tiny_model.generator_a2b(torch.from_numpy(padded))[..., :15, :22]
    assert torch.equal(translator.translate(pictures), expected)


def test_the_input_is_left_as_it_was(translator: Translator) -> None:
    pictures = random_pictures(1, 3, 8, 8)
    translator.translate(pictures)
    assert torch.equal(pictures, random_pictures(1, 3, 8, 8))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P", "1"])
def test_a_picture_of_any_mode_becomes_rgb_of_the_same_size(
    translator: Translator, mode: str
) -> None:
    translated = translator(Image.effect_noise((13, 7), 60).convert(mode))
    assert (translated.mode, translated.size) == ("RGB", (13, 7))


def test_a_picture_goes_through_the_generator_in_its_own_levels(translator: Translator) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    pictures = torch.from_numpy(levels).permute(2, 0, 1)[None] / 127.5 - 1
    expected = ((translator.translate(pictures)[0] + 1) * 127.5).round().permute(1, 2, 0)
    assert np.array_equal(np.asarray(translator(Image.fromarray(levels))), expected)


# How it computes


def test_it_computes_in_inference_mode(translator: Translator) -> None:
    assert translator.translate(random_pictures(1, 3, 8, 8)).is_inference()


def test_the_generator_is_ready_for_nothing_but_inference(translator: Translator) -> None:
    assert not translator.generator.training
    assert not any(p.requires_grad for p in translator.generator.parameters())


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), None]
)
def test_too_little_memory_is_a_device_error_that_names_the_size(error: Exception | None) -> None:
    class Generator:
        config = GeneratorConfig()

        def __call__(self, pictures: Tensor) -> Tensor:
            raise error or RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")

    with pytest.raises(DeviceError, match="translating 20x16 pixels: not enough memory"):
        Translator(Generator(), "night", torch.device("cpu")).translate(  # type: ignore[arg-type]
            random_pictures(1, 3, 16, 20)
        )


# Loading


@pytest.mark.parametrize(
    ("direction", "network", "target"),
    [("a2b", "generator_a2b", "night"), ("b2a", "generator_b2a", "day")],
)
def test_each_direction_has_its_own_generator_and_target(
    checkpoint: Path, tiny_model: CycleGAN, direction: Any, network: str, target: str
) -> None:
    translator = Translator.load(checkpoint, direction, "cpu")
    expected = tiny_model.networks()[network].state_dict()
    assert translator.target == target
    for name, weight in translator.generator.state_dict().items():
        assert torch.equal(weight, expected[name])


def test_the_two_directions_translate_differently(checkpoint: Path) -> None:
    pictures = random_pictures(1, 3, 16, 16)
    there, back = (
        Translator.load(checkpoint, direction, "cpu").translate(pictures)
        for direction in ("a2b", "b2a")
    )
    assert (there - back).abs().max() > 0.01


def grey_translator(channels_in: int, channels_out: int) -> Translator:
    config = GeneratorConfig(4, 1, input_channels=channels_in, output_channels=channels_out)
    network = ResnetGenerator(config).eval().requires_grad_(False)
    initialise_weights(network, torch.Generator().manual_seed(0))
    network.head.weight.mul_(20)
    return Translator(network, "grey", torch.device("cpu"))


def test_a_network_of_grey_pictures_is_shown_the_grey_picture() -> None:
    translator = grey_translator(1, 3)
    pictures = random_pictures(2, 3, 16, 20)
    red, green, blue = pictures.unbind(dim=1)
    grey = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]  # ITU-R BT.601.
    expected = translator.generator(grey)
    assert expected.std() > 0.1
    torch.testing.assert_close(translator.translate(pictures), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("channels_in", [1, 3])
def test_a_grey_translation_is_rgb_of_equal_channels(channels_in: int) -> None:
    translated = grey_translator(channels_in, 1).translate(random_pictures(2, 3, 13, 18))
    assert translated.shape == (2, 3, 13, 18)
    assert torch.equal(translated[:, 0], translated[:, 1])
    assert torch.equal(translated[:, 0], translated[:, 2])
    assert translated.std() > 0.1


@pytest.mark.parametrize("direction", ["a2b", "b2a"])
def test_only_the_tensors_of_that_direction_are_read(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, direction: Any
) -> None:
    read: list[str] = []

    class Spy:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            self.file = real_open(*arguments, **options)

        def __enter__(self) -> Spy:
            self.file.__enter__()
            return self

        def __exit__(self, *exception: Any) -> None:
            self.file.__exit__(*exception)

        def get_tensor(self, name: str) -> Tensor:
            read.append(name)
            return self.file.get_tensor(name)

    real_open = store.safe_open
    monkeypatch.setattr(store, "safe_open", Spy)
    Translator.load(checkpoint, direction, "cpu")
    assert read
    assert all(name.startswith(f"generator_{direction}.") for name in read)


def test_a_run_folder_stands_for_its_model(run_folder: Path, checkpoint: Path) -> None:
    pictures = random_pictures(1, 3, 8, 8)
    of_folder = Translator.load(run_folder, "a2b", "cpu").translate(pictures)
    assert torch.equal(of_folder, Translator.load(checkpoint, "a2b", "cpu").translate(pictures))


def test_a_training_state_can_be_translated_with_too(run_folder: Path, checkpoint: Path) -> None:
    pictures = random_pictures(1, 3, 8, 8)
    of_state = Translator.load(run_folder / "state.safetensors", "b2a", "cpu")
    of_model = Translator.load(checkpoint, "b2a", "cpu")
    assert torch.equal(of_state.translate(pictures), of_model.translate(pictures))


def test_a_checkpoint_of_half_precision_is_translated_with_in_single(
    tmp_path: Path, tiny_model: CycleGAN, tiny_info: ModelInfo
) -> None:
    tensors = {
        f"generator_a2b.{name}": tensor.half()
        for name, tensor in tiny_model.generator_a2b.state_dict().items()
    }
    metadata = store.to_metadata(tiny_info.to_document())
    store.save_file(tensors, tmp_path / "half.safetensors", metadata)
    translated = Translator.load(tmp_path / "half.safetensors", "a2b", "cpu").translate(
        random_pictures(1, 3, 8, 8)
    )
    assert translated.dtype == torch.float32


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        Translator.load(tmp_path / "nothing.safetensors")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        Translator.load(tmp_path)


def test_the_public_api_has_it(checkpoint: Path, draw: Callable[..., Path], tmp_path: Path) -> None:
    import cyclegan_cli

    translator = cyclegan_cli.Translator.load(checkpoint, device="cpu")
    with Image.open(draw(tmp_path / "photo.png")) as photo:
        assert translator(photo).size == photo.size


def test_a_large_picture_is_translated_in_strips_to_the_same_pixels(
    run_folder: Path, draw: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translator = Translator.load(run_folder, device="cpu")
    with Image.open(draw(tmp_path / "photo.png", (61, 47))) as photo:
        whole = np.asarray(translator(photo), dtype=int)
        called = []
        monkeypatch.setattr(module, "STRIPS_FROM_PIXELS", 48 * 64)
        monkeypatch.setattr(module, "STRIP_ROWS", 3)
        monkeypatch.setattr(
            module,
            "translate_in_strips",
            lambda *arguments: called.append(arguments[2]) or translate_in_strips(*arguments),
        )
        in_strips = np.asarray(translator(photo), dtype=int)
    assert called == [3]
    assert abs(in_strips - whole).max() <= 1
