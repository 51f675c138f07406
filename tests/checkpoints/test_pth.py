"""The original implementation's files: generators are loaded from them, or refused."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cyclegan_cli.checkpoints.locate import checkpoint_file, read_checkpoint
from cyclegan_cli.checkpoints.pth import (
    direction_of,
    domains_of,
    generator_files,
    original_filters,
    original_names,
)
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import BandFormat, GeneratorConfig
from cyclegan_cli.errors import CheckpointError
from original import OriginalGenerator, original_generator

Weights = dict[str, Tensor]


def image(channels: int = 3) -> Tensor:
    return torch.rand((1, channels, 24, 32), generator=torch.Generator().manual_seed(3)) * 2 - 1


def assert_the_same(path: Path, network: OriginalGenerator, direction: Any = "a2b") -> None:
    ours, _ = load_generator(path, direction)
    channels = ours.config.input_channels
    expected = network(image(channels))
    assert expected.std() > 0.05
    torch.testing.assert_close(ours(image(channels)), expected, rtol=0, atol=1e-5)


# --- architectures ---------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blocks": 6},
        {"blocks": 9, "width": 2},
        {"width": 7},
        {"dropout": True},
        {"affine": True},
        {"affine": True, "dropout": True},
        {"channels": (1, 1)},
        {"channels": (1, 3)},
        {"channels": (3, 1), "affine": True},
        {"antialias": True},
        {"antialias": True, "blocks": 9, "width": 2},
        {"antialias": True, "blocks": 6, "affine": True},
        {"antialias": True, "dropout": True, "width": 5},
        {"antialias": True, "channels": (1, 3)},
    ],
    ids=str,
)
def test_loaded_pth_generator_computes_the_same(tmp_path, options, legacy):
    network = original_generator(**options)
    path = tmp_path / "latest_net_G_A.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert read_checkpoint(path).info.generator == GeneratorConfig(
        options.get("width", 4),
        options.get("blocks", 2),
        *options.get("channels", (3, 3)),
        affine_norm=options.get("affine", False),
        resampling="cut" if options.get("antialias") else "strided",
    )
    assert_the_same(path, network)


def renamed(change: Callable[[str], str]) -> Callable[[Weights], Any]:
    return lambda weights: {change(name): tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "change",
    [
        renamed(lambda name: f"module.{name}"),
        renamed(lambda name: f"_orig_mod.{name}"),
        renamed(lambda name: f"module._orig_mod.{name}"),
        renamed(lambda name: f"netG_A.{name}"),
        renamed(lambda name: f"netG_A.module.{name}"),
        renamed(lambda name: f"model.{name}"),
        renamed(lambda name: name.replace("conv_block", "block")),
        lambda weights: {"state_dict": weights, "epoch": 7},
        lambda weights: {"G_A2B": weights, "optimizer": {"state": {}, "lr": 0.1}},
        lambda weights: {name: nn.Parameter(tensor) for name, tensor in weights.items()},
        lambda weights: {name: tensor.double() for name, tensor in weights.items()},
        lambda weights: (
            weights
            | {f"model.2.{name}": torch.ones(4) for name in ("running_mean", "running_var")}
            | {"model.2.num_batches_tracked": torch.tensor(1)}
        ),
    ],
)
def test_prefixes_wrappers_and_running_statistics_are_accepted(tmp_path, change):
    network = original_generator()
    torch.save(change(dict(network.state_dict())), tmp_path / "x.pth")
    assert_the_same(tmp_path / "x.pth", network)


def tied(*names: str) -> Callable[[Weights], Any]:
    return lambda weights: {
        f"{first}{name}": tensor for first in names for name, tensor in weights.items()
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "change", [tied("", "same."), tied("netG.", "net."), tied("a.", "b.", "c.")]
)
def test_tied_generators_are_one(tmp_path, change, legacy):
    network = original_generator()
    content = change(dict(network.state_dict()))
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    assert_the_same(tmp_path / "x.pth", network)


def test_two_generators_of_one_direction_are_refused(tmp_path):
    weights = [original_generator(seed).state_dict() for seed in (1, 2)]
    content = {f"{name}.{key}": tensor for name, one in zip("xy", weights, strict=True)
               for key, tensor in one.items()}  # fmt: skip
    torch.save(content, tmp_path / "both.pth")
    with pytest.raises(CheckpointError, match="several generators of one direction"):
        read_checkpoint(tmp_path / "both.pth")


def test_views_of_one_storage_are_loaded(tmp_path):
    network = original_generator()
    whole = torch.cat([tensor.flatten() for tensor in network.state_dict().values()])
    views, start = {}, 0
    for name, tensor in network.state_dict().items():
        views[name] = whole[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    torch.save(views, tmp_path / "x.pth")
    assert_the_same(tmp_path / "x.pth", network)


@pytest.mark.parametrize("blocks", [6, 9])
def test_original_names_cover_the_original_generator(blocks):
    """And those are the ones that the networks of the paper's sizes are known to have."""
    names = original_names(GeneratorConfig(64, blocks)).values()
    numbers = {int(name.split(".")[1]) for name in names}
    heads = {9: {19, 22, 26}, 6: {16, 19, 23}}
    assert numbers == {1, 4, 7} | set(range(10, 10 + blocks)) | heads[blocks]
    assert set(names) == set(original_generator(blocks=blocks, width=1).state_dict())


@pytest.mark.parametrize("blocks", [4, 6, 9])
def test_original_names_cover_cut_generator(blocks: int) -> None:
    """Its convolutions have the numbers by which CUT names its layers: 4, 8, 12, ..."""
    config = GeneratorConfig(3, blocks, resampling="cut")
    network = original_generator(blocks=blocks, width=3, antialias=True)
    filters = original_filters(config)
    assert {*original_names(config).values(), *filters} == set(network.state_dict())
    for name, found in filters.items():
        assert torch.equal(found, network.state_dict()[name])
    numbers = {int(name.split(".")[1]) for name in original_names(config).values()}
    last = 12 + blocks
    assert numbers == {1, 4, 8, last + 1, last + 5, last + 9, *range(12, last)}


def test_half_precision_filters_are_accepted(tmp_path: Path) -> None:
    network = original_generator(antialias=True).half()
    torch.save(network.state_dict(), tmp_path / "x.pth")
    assert_the_same(tmp_path / "x.pth", network.float())


def test_both_generators_of_cut_are_one_checkpoint(tmp_path: Path) -> None:
    networks = [original_generator(seed, antialias=True) for seed in (1, 2)]
    for letter, network in zip("AB", networks, strict=True):
        torch.save(network.state_dict(), tmp_path / f"latest_net_G_{letter}.pth")
    assert_the_same(tmp_path, networks[0], "a2b")
    assert_the_same(tmp_path, networks[1], "b2a")


# --- directions and domains ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("latest_net_G_A", "a2b"), ("latest_net_G_B", "b2a"), ("200_net_G_B", "b2a"),
        ("G_A2B_epoch33", "a2b"), ("netG_B2A", "b2a"), ("netG_A.", "a2b"), ("G_BA", "b2a"),
        ("G_AB", "a2b"), ("latest_net_G", None), ("horse2zebra", None), ("G_ABC", None),
        ("latest_net_D_A", None), ("netG_A.module.", "a2b"), ("flag_b", None),
        ("generator_B2A", "b2a"), ("gen_B2A", "b2a"), ("G_BtoA", "b2a"), ("G_AtoB", "a2b"),
        ("genB2A.", "b2a"), ("generator_ab", "a2b"), ("netG_B_to_A", "b2a"), ("G_AB_100", "a2b"),
        ("net_G_B", "b2a"), ("netG_A_best", "a2b"), ("generator", None), ("degenerate_b", None),
        ("discriminator_B2A", None), ("gen_beta", None),
    ],
)  # fmt: skip
def test_direction_of_names(name, direction):
    assert direction_of(name) == direction


@pytest.mark.parametrize(
    ("path", "domains"),
    [
        ("horse2zebra.pth", ("horse", "zebra")),
        ("horse2zebra/latest_net_G_B.pth", ("horse", "zebra")),
        ("summer2winter_yosemite/latest_net_G_A.pth", ("summer", "winter")),
        ("monet2photo_pretrained/latest_net_G.pth", ("monet", "photo")),
        ("weights/latest_net_G.pth", ("A", "B")),
        ("2/latest_net_G.pth", ("A", "B")),
        ("x/G_A2B_epoch33.pth", ("A", "B")),
    ],
)
def test_domains_of_paths(path, domains):
    assert domains_of(Path("/somewhere") / path) == domains


def test_file_of_one_direction(tmp_path):
    torch.save(original_generator().state_dict(), tmp_path / "latest_net_G_B.pth")
    info = read_checkpoint(tmp_path / "latest_net_G_B.pth", ("day", "night")).info
    assert (info.directions, info.name_a, info.name_b) == (("b2a",), "day", "night")
    assert info.training == {"imported_from": "latest_net_G_B.pth"}
    with pytest.raises(CheckpointError, match=r"night to day \(b2a\) only, not in the other"):
        load_generator(tmp_path / "latest_net_G_B.pth", "a2b", ("day", "night"))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["5_net_G_A", "5_net_G_B", "10_net_G_A", "10_net_G_B"], ["10_net_G_A", "10_net_G_B"]),
        (["5_net_G_A", "10_net_G_A"], ["10_net_G_A"]),
        (["5_net_G_A", "5_net_G_B", "10_net_G_A"], ["5_net_G_A", "5_net_G_B"]),
        (["latest_net_G_A", "200_net_G_A"], ["latest_net_G_A"]),
        (["netG_A2B"], ["netG_A2B"]),
        (["netG_A2B", "netG_B2A", "netD_A", "netD_B"], ["netG_A2B", "netG_B2A"]),
        (["G_AB_0", "G_BA_0", "G_AB_9", "G_BA_9", "D_A_9"], ["G_AB_9", "G_BA_9"]),
        (["iter_500_net_G", "iter_1000_net_G"], ["iter_1000_net_G"]),
        (["netG_A2B_epoch3", "netG_A2B"], ["netG_A2B"]),
        (["D_A", "optimizer"], []),
    ],
)
def test_newest_generators_of_a_folder_are_chosen(tmp_path, names, chosen):
    for name in names:
        (tmp_path / f"{name}.pth").touch()
    (tmp_path / "G_A.txt").touch()
    assert [file.stem for file in generator_files(tmp_path)] == chosen


def test_ambiguous_generators_of_a_folder_are_refused(tmp_path):
    for name in ("G_A", "G_A2B"):
        (tmp_path / f"{name}.pth").touch()
    with pytest.raises(CheckpointError, match=r"one direction: G_A\.pth and G_A2B\.pth"):
        checkpoint_file(tmp_path)


def test_folder_of_both_directions_is_one_checkpoint(tmp_path):
    folder = tmp_path / "day2night"
    folder.mkdir()
    networks = {"A": original_generator(1), "B": original_generator(2)}
    for letter, network in networks.items():
        torch.save(network.state_dict(), folder / f"latest_net_G_{letter}.pth")
    (folder / "latest_net_D_A.pth").write_bytes(b"not looked at")
    assert checkpoint_file(folder) == folder
    info = read_checkpoint(folder).info
    assert (info.directions, info.name_a, info.name_b) == (("a2b", "b2a"), "day", "night")
    assert_the_same(folder, networks["A"], "a2b")
    assert_the_same(folder, networks["B"], "b2a")


def test_file_of_both_directions(tmp_path):
    one, other = original_generator(1), original_generator(2)
    torch.save({"netG_A": one.state_dict(), "netG_B": other.state_dict()}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth").info.directions == ("a2b", "b2a")
    assert_the_same(tmp_path / "x.pth", one, "a2b")
    assert_the_same(tmp_path / "x.pth", other, "b2a")


# --- refusals --------------------------------------------------------------------------------


def unet() -> Mapping[str, Tensor]:
    names = ["model.model.0.weight", "model.model.1.model.1.weight", "model.model.3.weight"]
    return dict.fromkeys(names, torch.zeros(1)) | {names[0]: torch.zeros(4, 3, 4, 4)}


def discriminator() -> Mapping[str, Tensor]:
    shapes = {0: (4, 3), 2: (8, 4), 5: (16, 8), 8: (32, 16), 11: (1, 32)}
    return {f"model.{n}.weight": torch.zeros(*shape, 4, 4) for n, shape in shapes.items()}


def pix2pix() -> Mapping[str, Tensor]:
    network = original_generator(norm=nn.BatchNorm2d, affine=True)
    biases = {f"model.{n}.bias" for n in (1, 4, 7)}
    return {name: t for name, t in network.state_dict().items() if name not in biases}


def cut(**changes: Any) -> Mapping[str, Tensor]:
    """CUT's generator with other tensors; None: without that tensor."""
    weights = original_generator(antialias=True).state_dict() | changes
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


def other_padding() -> Mapping[str, Tensor]:
    return {n.replace("conv_block.1", "conv_block.0"): t
            for n, t in original_generator().state_dict().items()}  # fmt: skip


def without(name: str) -> Mapping[str, Tensor]:
    return {n: t for n, t in original_generator().state_dict().items() if n != name}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (unet, "U-Net"),
        (discriminator, "discriminator"),
        (pix2pix, "batch norm"),
        (lambda: original_generator(norm=nn.BatchNorm2d, affine=True).state_dict(), "batch norm"),
        (lambda: original_generator(antialias=True, antialias_up=False).state_dict(),
         "another architecture"),
        (lambda: original_generator(antialias_up=True).state_dict(), "another architecture"),
        (lambda: cut(**{"model.7.filt": None}), "no tensor model.7.filt: only some"),
        (lambda: cut(**{"model.11.filt": torch.ones(16, 1, 3, 3) / 9}),
         "model.11.filt is another resampling filter"),
        (lambda: cut(**{"model.14.filt": torch.ones(16, 1, 2, 2)}),
         "model.14.filt is another resampling filter"),
        (lambda: cut(**{"model.3.filt": torch.ones(16, 1, 2, 2)}), "a tensor model.3.filt"),
        (lambda: original_generator().state_dict() | {"model.7.filt": torch.zeros(8, 1, 3, 3)},
         "another architecture"),
        (other_padding, "padding"),
        (lambda: {"conv1.weight": torch.zeros(2)}, "conv1.weight"),
        (dict, "none at all"),
        (lambda: original_generator(channels=(257, 3)).state_dict(), "another architecture"),
        (lambda: original_generator(blocks=0).state_dict(), "another architecture"),
        (lambda: without("model.4.bias"), "no tensor model.4.bias"),
        (lambda: original_generator().state_dict() | {"model.4.bias": torch.zeros(3)},
         "model.4.bias is F32"),
        (lambda: original_generator().state_dict() | {"model.99.bias": torch.zeros(3)},
         "a tensor model.99.bias"),
        (lambda: original_generator().state_dict() | {"model.4.bias": torch.zeros(8).long()},
         "model.4.bias is I64"),
        (lambda: {name: original_generator().state_dict() for name in ("one", "ema")},
         "several generators"),
        (lambda: {"netG_A": original_generator().state_dict(),
                  "netG_B": original_generator(width=2).state_dict()}, "different architectures"),
    ],
)  # fmt: skip
def test_unsupported_networks_are_refused_by_name(tmp_path, content, word):
    torch.save(content(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=word) as refusal:
        read_checkpoint(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in refusal.value.message


def test_generators_of_other_channels_translate_arrays(tmp_path: Path) -> None:
    for name, channels in (("A", (5, 3)), ("B", (3, 5))):
        network = original_generator(channels=channels)
        torch.save(network.state_dict(), tmp_path / f"latest_net_G_{name}.pth")
    info = read_checkpoint(tmp_path).info
    assert info.formats == (BandFormat(5, "float32", (-1.0,), (1.0,)), None)
    for direction, network in (
        ("a2b", original_generator(channels=(5, 3))),
        ("b2a", original_generator(channels=(3, 5))),
    ):
        generator, _ = load_generator(tmp_path, direction)
        image = torch.rand(1, generator.config.input_channels, 16, 16) * 2 - 1
        with torch.inference_mode():
            assert torch.allclose(generator(image), network(image), atol=1e-5)


def test_unsupported_pickle_is_refused_without_torchs_advice(tmp_path):
    """Torch warns of the protocol first, and then advises to load without ``weights_only``."""
    torch.save(original_generator().state_dict(), tmp_path / "x.pth", pickle_protocol=4)
    with pytest.raises(CheckpointError, match="more than torch loads without running") as refusal:
        load_generator(tmp_path / "x.pth", "a2b")
    assert "weights_only" not in refusal.value.message


@pytest.mark.parametrize("error", [TypeError, IndexError, AttributeError, AssertionError])
def test_any_exception_of_torch_load_is_a_damaged_file(tmp_path, monkeypatch, error):
    """Seen: a call of its tensor maker with too few arguments, out of damaged bytes."""

    def stumble(*arguments, **options):
        raise error("missing 2 required positional arguments")

    torch.save(original_generator().state_dict(), tmp_path / "x.pth")
    monkeypatch.setattr(torch, "load", stumble)
    with pytest.raises(CheckpointError, match="x.pth is not .* or a damaged one: missing 2"):
        load_generator(tmp_path / "x.pth", "a2b")
