"""The original implementation's ``.pth`` files: its names for our parameters, and back.

Architecture, directions and domains are read off names and shapes; no file says them otherwise.
The original numbers the layers of one ``nn.Sequential``: 9 blocks have their convolutions at
``model.{1,4,7}``, ``model.10..18.conv_block.{1,5}`` and ``model.{19,22,26}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cyclegan_cli.checkpoints.container import TensorInfo, check_tensor
from cyclegan_cli.checkpoints.header import BOTH_DIRECTIONS, Direction, ModelInfo
from cyclegan_cli.checkpoints.original_names import direction_of
from cyclegan_cli.config import GeneratorConfig, is_domain_name
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.models.shapes import generator_shapes

DTYPES = ("F32", "F16", "BF16", "F64")
FIRST_BLOCK = 10  # Number of the first residual block in the original's nn.Sequential.
STEM = re.compile(r"^(.*?)model\.1\.weight$")
BLOCK = re.compile(r"model\.(\d+)\.(conv_block|block)\.(\d+)\.weight")
RUNNING = ("running_mean", "running_var", "num_batches_tracked")
DOMAINS = re.compile(r"^([^\W\d_][^\W\d_-]*)2([^\W\d_][^\W\d_-]*)(?:[_-].*)?$")
WHAT_IS_READ = "Read are generators of residual blocks with instance norm and reflection padding."


@dataclass(frozen=True)
class ReferenceGenerator:
    """A generator found in a file of the original implementation.

    Attributes:
        prefix: What its names begin with: mostly nothing, ``module.`` or ``netG_A.``.
        config: Its architecture.
        names: The file's full name of every parameter, by our name.
    """

    prefix: str
    config: GeneratorConfig
    names: dict[str, str]


def reference_names(
    config: GeneratorConfig, block: str = "conv_block", second: int = 5
) -> dict[str, str]:
    """The original's name of every parameter of a generator, by our name.

    Args:
        config: The architecture.
        block: The original's name of a residual block's layers.
        second: Number of the second convolution in a block; 6 where dropout comes before it.
    """
    last = FIRST_BLOCK + config.residual_blocks
    modules = {"stem.conv": 1, "stem.norm": 2, "down.0.conv": 4, "down.0.norm": 5,
               "down.1.conv": 7, "down.1.norm": 8, "up.0.conv": last, "up.0.norm": last + 1,
               "up.1.conv": last + 3, "up.1.norm": last + 4, "head": last + 7}  # fmt: skip
    places = {module: f"model.{number}" for module, number in modules.items()}
    for index in range(config.residual_blocks):
        layers = f"model.{FIRST_BLOCK + index}.{block}"
        places[f"trunk.{index}.first.conv"] = f"{layers}.1"
        places[f"trunk.{index}.first.norm"] = f"{layers}.2"
        places[f"trunk.{index}.second"] = f"{layers}.{second}"
        places[f"trunk.{index}.norm"] = f"{layers}.{second + 1}"
    return {name: _renamed(name, places) for name in generator_shapes(config)}


def _renamed(name: str, places: Mapping[str, str]) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{places[module]}.{parameter}"


def find_generators(
    path: Path, tensors: Mapping[str, TensorInfo]
) -> dict[Direction, ReferenceGenerator]:
    """The generators in a file, by their directions.

    Raises:
        CheckpointError: There is none that this program can build; the reason is named.
    """
    _refuse_other_networks(path, tensors)
    prefixes = [match[1] for name in tensors if (match := STEM.match(name))]
    found: dict[Direction, ReferenceGenerator] = {}
    for prefix in prefixes:
        direction = direction_of(prefix) or direction_of(path.stem) or "a2b"
        generator = _generator(path, tensors, prefix)
        if direction in found:
            if _is_the_same(tensors, found[direction], generator):
                continue  # A module that is registered twice.
            raise CheckpointError(
                f"{path} holds several generators of one direction: "
                f"{found[direction].prefix or 'one without a prefix'} and {prefix}",
                "Save the one that is wanted in a file of its own.",
            )
        found[direction] = generator
    if not found:
        first = next(iter(tensors), "none at all")
        raise CheckpointError(
            f"{path} has no generator of CycleGAN's original implementation: its tensors are "
            f"named {first} and so on",
            WHAT_IS_READ,
        )
    return found


def _is_the_same(
    tensors: Mapping[str, TensorInfo], one: ReferenceGenerator, other: ReferenceGenerator
) -> bool:
    """Whether two generators are the same bytes of a file."""
    return one.names.keys() == other.names.keys() and all(
        tensors[name].place == tensors[other.names[ours]].place for ours, name in one.names.items()
    )


def _refuse_other_networks(path: Path, tensors: Mapping[str, TensorInfo]) -> None:
    def refuse(what: str) -> None:
        raise CheckpointError(f"{path} holds {what}, which is not supported", WHAT_IS_READ)

    if any(name.endswith(".filt") for name in tensors):
        refuse("an antialiased network (its filters are named .filt)")
    if any("model.1.model." in name for name in tensors):
        refuse("a U-Net")
    firsts = [t for name, t in tensors.items() if name.endswith("model.0.weight")]
    if any(len(tensor.shape) == 4 and tensor.shape[2:] == (4, 4) for tensor in firsts) and not any(
        STEM.match(name) for name in tensors
    ):
        refuse("a discriminator")
    if any("conv_block.0.weight" in name for name in tensors):
        refuse("a generator with another padding than reflection")


def _generator(path: Path, tensors: Mapping[str, TensorInfo], prefix: str) -> ReferenceGenerator:
    """One generator, all of its tensors checked."""
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix + "model.")}
    _refuse_batch_norm(path, own)
    config, names = _architecture(path, own)
    shapes = generator_shapes(config)
    for ours, theirs in names.items():
        check_tensor(path, own, theirs, shapes[ours], DTYPES)
    known = set(names.values())
    surplus = sorted(n for n in own if n not in known and n.rpartition(".")[2] not in RUNNING)
    if surplus:
        raise CheckpointError(
            f"{path} has a tensor {prefix}{surplus[0]}, which its architecture does not have",
            WHAT_IS_READ,
        )
    return ReferenceGenerator(prefix, config, {ours: prefix + n for ours, n in names.items()})


def _refuse_batch_norm(path: Path, own: Mapping[str, TensorInfo]) -> None:
    if "model.2.weight" not in own:
        return
    if "model.1.bias" not in own or "model.2.running_mean" in own:
        raise CheckpointError(
            f"{path} holds a generator with batch norm (pix2pix has it), which is not supported",
            WHAT_IS_READ,
        )


def _architecture(
    path: Path, own: Mapping[str, TensorInfo]
) -> tuple[GeneratorConfig, dict[str, str]]:
    """What the names and shapes tell; whether all tensors fit it is checked afterwards."""
    matches = [match for name in own if (match := BLOCK.fullmatch(name))]
    blocks = {int(match[1]) for match in matches}
    stem = own["model.1.weight"].shape
    head = own.get(f"model.{FIRST_BLOCK + len(blocks) + 7}.weight", TensorInfo("", ()))
    channels = (stem[1], head.shape[0]) if len(stem) == len(head.shape) == 4 else (0, 0)
    fits = set(channels) <= {1, 3} and 1 <= len(blocks) <= 64 and 1 <= stem[0] <= 1024
    if not fits or blocks != set(range(FIRST_BLOCK, FIRST_BLOCK + len(blocks))):
        raise CheckpointError(
            f"{path} holds a generator of another architecture: {len(blocks)} residual blocks, "
            f"first weights {list(stem)}, last weights {list(head.shape)}",
            WHAT_IS_READ,
        )
    config = GeneratorConfig(stem[0], len(blocks), *channels, "model.2.weight" in own)
    second = 6 if f"model.{FIRST_BLOCK}.{matches[0][2]}.6.weight" in own else 5
    if second == 6 and len(own[f"model.{FIRST_BLOCK}.{matches[0][2]}.6.weight"].shape) != 4:
        second = 5  # That was the norm's scale.
    return config, reference_names(config, matches[0][2], second)


def reference_info(
    path: Path, generators: Iterable[tuple[Direction, ReferenceGenerator]]
) -> ModelInfo:
    """The description of a file of the original implementation.

    Args:
        path: The file; it and its folder may be named after the domains (``horse2zebra``).
        generators: What was found in it.

    Raises:
        CheckpointError: Its two generators are of different architectures.
    """
    found = dict(generators)
    configs = {generator.config for generator in found.values()}
    if len(configs) > 1:
        raise CheckpointError(f"{path} holds two generators of different architectures")
    name_a, name_b = domains_of(path)
    return ModelInfo(
        kind="model",
        generator=configs.pop(),
        name_a=name_a,
        name_b=name_b,
        training={"imported_from": path.name},
        versions={},
        directions=tuple(direction for direction in BOTH_DIRECTIONS if direction in found),
    )


def domains_of(path: Path) -> tuple[str, str]:
    """The domains that a file or its folder is named after, else A and B."""
    for name in (path.stem, path.absolute().parent.name):
        match = DOMAINS.match(name)
        if match and all(map(is_domain_name, match.groups())):
            return match[1], match[2]
    return "A", "B"
