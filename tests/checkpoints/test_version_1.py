"""A run of format version 1, which every later version must load (docs/format.md)."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cyclegan_cli.checkpoints.header import TensorInfo, read_header, read_state_info
from cyclegan_cli.checkpoints.store import load_generator, restore_state
from cyclegan_cli.config import GeneratorConfig, Resampling
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.models.networks import ResnetGenerator

RUN = Path(__file__).parents[1] / "data" / "version_1"
DOCUMENT = Path(__file__).parents[2] / "docs" / "format.md"
SINCE_VERSION_2 = {"state.watch"}
SINCE_VERSION_3 = {"generator.resampling", "discriminator.scales"}
SINCE_VERSION_4 = {"generator.norms"}
SINCE_VERSION_5 = {"generator.skips"}
EXPECTED = [0.035206, -0.142229, -0.079751, 0.13371, 0.040092, -0.074231]


def test_version_1_generator_translates_the_same():
    image = torch.linspace(-1, 1, 3 * 8 * 12).view(1, 3, 8, 12)
    generator, info = load_generator(RUN / "model.safetensors", "a2b")
    assert (info.name_a, info.name_b, info.directions) == ("day", "night", ("a2b", "b2a"))
    found = generator(image).flatten()[::48].tolist()
    assert found == pytest.approx(EXPECTED, abs=1e-5)


def test_version_1_state_can_be_resumed():
    state = read_state_info(RUN / "state.safetensors")
    assert (state.step, state.seconds, state.images) == (1, 12.5, "digest")
    # It knew neither averages, held-out images nor antialiasing, and goes on without.
    config = state.train_config()
    assert (config.ema, config.val_fraction, state.watch) == (0, 0, {})
    assert config.resampling == state.model.generator.resampling == "strided"
    model = CycleGAN(state.train_config(), torch.device("cpu"), bf16=False)
    restore_state(RUN / "state.safetensors", model)
    assert model.generator_optimizer.state


def tables(heading: str) -> list[dict[str, str]]:
    """The tables below a heading of docs/format.md: first column to second."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    found: list[dict[str, str]] = []
    for line in text.partition("\n## ")[0].splitlines():
        if line.startswith("|---"):
            found.append({})
        elif found and (row := re.match(r"\| `([^`]+)` \| ([^|]+) \|", line)):
            found[-1][row[1]] = row[2].strip()
    return found


def shape_of(text: str, widths: dict[str, int]) -> tuple[int, ...]:
    """``4c, 2c, 3, 3`` with numbers for the letters."""
    parts = [part.strip() for part in text.partition("(")[0].split(",")]
    numbers = [re.fullmatch(r"(\d*)([a-z]?)", part) for part in parts]
    assert all(numbers), text
    return tuple(int(n[1] or 1) * widths.get(n[2], 1) for n in numbers if n)


def network_of(table: dict[str, str], blocks: int, **widths: int) -> dict[str, TensorInfo]:
    """A network's tensors as a table has them."""
    return {
        name.replace(".N.", f".{block}."): TensorInfo("F32", shape_of(text, widths))
        for name, text in table.items()
        for block in range(blocks if ".N." in name else 1)
    }


def specified(document: dict[str, Any]) -> dict[str, TensorInfo]:
    """All tensors of a state, as docs/format.md has them."""
    generator, _, _, discriminator = tables("Tensors")
    c, d = document["generator"]["base_channels"], document["discriminator"]["base_channels"]
    blocks, crop = document["generator"]["residual_blocks"], document["config"]["crop_size"]
    networks = {
        f"{network}_{end}.{name}": tensor
        for network, ends, tensors in (
            ("generator", ("a2b", "b2a"), network_of(generator, blocks, c=c, i=3, o=3)),
            ("discriminator", ("a", "b"), network_of(discriminator, blocks, d=d)),
        )
        for end in ends
        for name, tensor in tensors.items()
    }
    moments = {
        f"adam.{name}.{moment}": TensorInfo("F32", shape)
        for name, tensor in networks.items()
        for moment, shape in (("step", ()), ("exp_avg", tensor.shape), ("exp_avg_sq", tensor.shape))
    }
    pools = {
        f"pool_{end}.{name}": tensor
        for end in "ab"
        for name, tensor in (
            ("random", TensorInfo("U8", (5056,))),
            ("images", TensorInfo("F32", (1, 3, crop, crop))),
        )
    }
    return networks | moments | pools


def keys_of(document: dict[str, Any]) -> set[str]:
    """Dotted keys of a document; those of objects without fixed keys are left out."""
    inner = {
        f"{name}.{key}"
        for name, value in document.items()
        if isinstance(value, dict) and name not in ("training", "versions", "config")
        for key in value
    }
    return set(document) | inner


def test_state_tensors_match_the_specification():
    header = read_header(RUN / "state.safetensors")
    assert header.tensors == specified(header.document)


def test_model_tensors_match_the_specification():
    tensors = specified(read_header(RUN / "state.safetensors").document)
    generators = {n: t for n, t in tensors.items() if n.startswith("generator_")}
    assert read_header(RUN / "model.safetensors").tensors == generators


def test_version_1_documents_match_the_specification():
    model, more = map(set, tables("The document"))
    found = keys_of(read_header(RUN / "model.safetensors").document)
    assert found == model - SINCE_VERSION_3 - SINCE_VERSION_4 - SINCE_VERSION_5
    found = keys_of(read_header(RUN / "state.safetensors").document)
    newer = SINCE_VERSION_2 | SINCE_VERSION_3 | SINCE_VERSION_4 | SINCE_VERSION_5
    assert found == (model | more) - newer


def test_current_documents_match_the_specification(run_folder):
    model, more = map(set, tables("The document"))
    assert keys_of(read_header(run_folder / "model.safetensors").document) == model
    assert keys_of(read_header(run_folder / "state.safetensors").document) == model | more


def test_distributed_documents_match_the_specification(run_folder):
    [several] = map(set, tables("Distributed training"))
    info = read_state_info(run_folder / "state.safetensors")
    together = dataclasses.replace(info, ranks=2, items=2).to_document()
    assert keys_of(together) == keys_of(info.to_document()) | several


def test_options_of_a_state_are_those_of_train_config():
    """``config`` has no table in the specification."""
    state = read_state_info(RUN / "state.safetensors")
    assert state.config.keys() <= state.train_config().to_document().keys()


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (1, 3), (3, 1)])
@pytest.mark.parametrize("resampling", ["strided", "blur", "cut"])
def test_all_architectures_match_the_specification(
    affine: bool, inputs: int, outputs: int, resampling: Resampling
) -> None:
    generator, kinds, norms, _ = tables("Tensors")
    assert resampling in kinds
    if resampling == "cut":
        text = DOCUMENT.read_text(encoding="utf-8")
        shapes = re.search(
            r"`up.0.conv.weight` is ([^`]+), and `up.1.conv.weight` is (.+?)\.", text
        )
        assert shapes
        generator |= {"up.0.conv.weight": shapes[1], "up.1.conv.weight": shapes[2]}
    if affine:
        generator |= {f"{norm}.{end}": text for norm, text in norms.items()
                      for end in ("weight", "bias")}  # fmt: skip
    network = ResnetGenerator(GeneratorConfig(2, 3, inputs, outputs, affine, resampling))
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    expected = network_of(generator, 3, c=2, i=inputs, o=outputs)
    assert found == {name: tensor.shape for name, tensor in expected.items()}
