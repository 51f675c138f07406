"""The original implementation's ``.pth`` files: how they are read, and its parameter names.

Files are read by ``torch.load(weights_only=True)``, which executes nothing; what a file claims is
compared with its size first. Architecture, directions and domains are inferred from names and
shapes, because no file states them. The original numbers the layers of one ``nn.Sequential``: 9
blocks have their convolutions at ``model.{1,4,7}``, ``model.10..18.conv_block.{1,5}`` and
``model.{19,22,26}``. CUT's antialiased generators have resampling layers among them, whose kernels
are buffers named ``filt``. torch is imported where it is needed: file and parameter names do not
need it.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_cli.checkpoints.header import (
    BOTH_DIRECTIONS,
    Direction,
    ModelInfo,
    TensorInfo,
    check_tensor,
    file_size,
    read_error,
    require_regular_file,
)
from cyclegan_cli.config import (
    MAX_CHANNELS,
    BandFormat,
    BandFormats,
    GeneratorConfig,
    is_domain_name,
)
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.models.shapes import generator_shapes

if TYPE_CHECKING:
    from torch import Tensor

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = b"\x80\x02\x8a\x0a"  # As a safetensors header length it would exceed the limit.
MAX_DEPTH = 4  # Of nested dicts.
MAX_NAME_BYTES = 20_000_000  # Of all entries together; four networks have 50,000.
ENTRY_BYTES = 100  # What an entry costs beside its name.
MAX_ALIASES = 4  # A module may be registered more than once.
DTYPE_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64",
    "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
GENERATOR_DTYPES = ("F32", "F16", "BF16", "F64")

LATEST = re.compile(r"latest_net_G(?:_[AB])?\.pth")
NUMBERED = re.compile(r"(?:iter_)?\d+_net_G\.pth")
# G_A, netG_A2B, G_AB, gen_A2B, generator_AtoB, ... and the same for the other direction.
DIRECTION = re.compile(
    r"(?:^|[._-])(?:net_?)?(?:G|gen|generator)_?(A_?(?:2|to)?_?B|A|B_?(?:2|to)?_?A|B)(?:[._-]|$)",
    re.IGNORECASE,
)
EPOCH = re.compile(r"(?:^|[._-])(?:epoch|iter)?(\d+)(?=[._-]|$)", re.IGNORECASE)
DOMAINS = re.compile(r"^([^\W\d_][^\W\d_-]*)2([^\W\d_][^\W\d_-]*)(?:[_-].*)?$")
# Kernels of CUT's resampling in one direction. Upsampling doubles the sum of the kernel.
DOWNSAMPLING_FILTER = (1 / 4, 2 / 4, 1 / 4)
UPSAMPLING_FILTER = (1 / 4, 3 / 4, 3 / 4, 1 / 4)
STEM = re.compile(r"^(.*?)model\.1\.weight$")
BLOCK = re.compile(r"model\.(\d+)\.(conv_block|block)\.(\d+)\.weight")
RUNNING_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
SUPPORTED = "Supported are ResNet generators with instance norm and reflection padding."
FILTER_SUFFIX = ".filt"
FILTER_TOLERANCE = 1e-3


@dataclass(frozen=True)
class PthGenerator:
    """A generator found in a file of the original implementation.

    Attributes:
        file: The file.
        prefix: The prefix of its names: mostly none, ``module.`` or ``netG_A.``.
        config: Its architecture.
        names: The name in the file of every parameter, by our name.
        tensors: The tensors of the file, mapped into memory where its layout allows.
    """

    file: Path
    prefix: str
    config: GeneratorConfig
    names: dict[str, str]
    tensors: Mapping[str, Tensor]


# --- files of torch.save ---------------------------------------------------------------------


def is_torch_file(path: Path) -> bool:
    """Return whether a file was written by ``torch.save``, by its first bytes or its extension.

    Raises:
        CheckpointError: It cannot be read.
    """
    magic = _first_bytes(path)
    return path.suffix.lower() in (".pth", ".pt") or magic in (ZIP_MAGIC, LEGACY_MAGIC)


def _first_bytes(path: Path) -> bytes:
    require_regular_file(path)
    try:
        with path.open("rb") as stream:
            return stream.read(4)
    except OSError as error:
        raise read_error(path, error) from error


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of ``torch.save`` by their dotted names, on the CPU.

    The layout since torch 1.6, a zip archive, is mapped into memory: only tensors that are used
    are read. The older one is read twice, without its data first.

    Raises:
        CheckpointError: The file is damaged or of another kind, or its pickle names code.
    """
    file_size(path)
    try:
        if _first_bytes(path) == ZIP_MAGIC:
            records = _check_archive(path)
            tensors = dict(_named_tensors(_load(path, map_location="cpu", mmap=True)))
            storages = {
                storage.data_ptr(): storage.nbytes()
                for storage in (tensor.untyped_storage() for tensor in tensors.values())
            }
            if Counter(filter(None, storages.values())) - Counter(records):
                raise ValueError("a tensor does not fit its storage")
        else:
            _check_claims(path, dict(_named_tensors(_load(path, map_location="meta"))))
            tensors = dict(_named_tensors(_load(path, map_location="cpu")))
        _check_claims(path, tensors)
    except OSError as error:
        raise read_error(path, error) from error
    except pickle.UnpicklingError as error:
        # torch's own message advises to run the pickle.
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path} names code ({named[1]}); only files of plain tensors are read",
                "Save the network's state_dict() by itself.",
            ) from error
        raise CheckpointError(
            f"{path} is not a file of torch.save, or needs more than torch loads without "
            "running code",
            "Save its state_dict() again with torch.save and its default options.",
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        # Damaged bytes make torch's unpickler raise exceptions of any type.
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path} is not a file of torch.save, or a damaged one: {reason}"
        ) from error
    return tensors


def _load(path: Path, **options: Any) -> Any:
    import torch

    with warnings.catch_warnings():
        # Of pickle protocols other than the default, and of TypedStorage in old files.
        warnings.simplefilter("ignore")
        return torch.load(os.fspath(path), weights_only=True, **options)


def _check_archive(path: Path) -> list[int]:
    """Return the sizes of the storages in a zip archive of torch; refuse other archives.

    Raises:
        ValueError: An entry is compressed, which torch never does, or it is another archive.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = {entry.filename for entry in entries}
    root = entries[0].filename.partition("/")[0] + "/" if entries else ""
    if f"{root}constants.pkl" in names:
        raise ValueError("it is a TorchScript program")
    if f"{root}archive_format" in names:
        raise ValueError("it is an exported program (.pt2), not a checkpoint")
    if f"{root}data.pkl" not in names:
        raise ValueError("it is a zip file of another program")
    if any(entry.compress_type or entry.file_size != entry.compress_size for entry in entries):
        raise ValueError("its entries are compressed")
    return [entry.file_size for entry in entries if entry.filename.startswith(f"{root}data/")]


def _named_tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the dense tensors in nested dicts by their dotted names, in the order of the file.

    Raises:
        ValueError: There are too many entries; a few bytes of pickle can nest them exponentially.
    """
    import torch

    size = 0
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        name, value, depth = waiting.pop()
        if isinstance(value, torch.Tensor):
            if value.layout == torch.strided and not value.is_quantized:
                yield name, value.detach()
        elif isinstance(value, dict) and depth < MAX_DEPTH:
            for key, inner in reversed(value.items()):
                if isinstance(key, str | int | float):
                    full = f"{name}.{key}" if name else str(key)
                    size += len(full) + ENTRY_BYTES
                    if size > MAX_NAME_BYTES:
                        raise ValueError("it has too many entries")
                    waiting.append((full, inner, depth + 1))


def _check_claims(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Compare what tensors claim with the size of their file, before memory is allocated.

    Raises:
        ValueError: A storage is larger than the file, or the tensors together are, by overlap.
    """
    size = path.stat().st_size
    total = 0
    for name, tensor in tensors.items():
        needed = tensor.numel() * tensor.element_size()
        total += needed
        if max(needed, tensor.untyped_storage().nbytes()) > size:
            raise ValueError(f"{name} is larger than the file")
    if total > MAX_ALIASES * size:
        raise ValueError("its tensors overlap")


def tensor_infos(tensors: Mapping[str, Tensor]) -> dict[str, TensorInfo]:
    """Return types and shapes by name."""
    infos = {}
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        infos[name] = TensorInfo(DTYPE_NAMES.get(dtype, dtype.upper()), tuple(tensor.shape))
    return infos


# --- names of files --------------------------------------------------------------------------


def direction_of(name: str) -> Direction | None:
    """Return the direction in a file or network name of the original: ``netG_B`` is ``b2a``."""
    match = DIRECTION.search(name)
    return None if match is None else "a2b" if match[1][0] in "Aa" else "b2a"


def generator_files(folder: Path) -> list[Path]:
    """Return the newest generators of the original implementation, or a derived one, in a folder.

    They are ``latest_net_G_A.pth`` and ``latest_net_G_B.pth``, else the files of one epoch
    (``5_net_G_A.pth``, ``G_AB_5.pth``) or of none (``netG_A2B.pth``, which counts as the last):
    the last epoch with both directions, else the last with one.

    Raises:
        CheckpointError: Two files of one direction are equally new.
    """
    files = sorted(file for file in folder.iterdir() if file.suffix in (".pth", ".pt"))
    if latest := [file for file in files if LATEST.fullmatch(file.name)]:
        return latest
    by_epoch: dict[float, dict[Direction, Path]] = {}
    for file in files:
        direction = direction_of(file.stem) or ("a2b" if NUMBERED.fullmatch(file.name) else None)
        if direction is None:
            continue
        epoch = max((int(number) for number in EPOCH.findall(file.stem)), default=math.inf)
        of_epoch = by_epoch.setdefault(epoch, {})
        if direction in of_epoch:
            raise CheckpointError(
                f"the folder {folder} has several generators of one direction: "
                f"{of_epoch[direction].name} and {file.name}",
                "Name one of the files instead of the folder.",
            )
        of_epoch[direction] = file
    if not by_epoch:
        return []
    return list(by_epoch[max(by_epoch, key=lambda epoch: (len(by_epoch[epoch]), epoch))].values())


def domains_of(path: Path) -> tuple[str, str]:
    """Return the domains in the name of a file or its folder (``horse2zebra``), else A and B."""
    for name in (path.stem, path.absolute().parent.name):
        match = DOMAINS.match(name)
        if match and all(map(is_domain_name, match.groups())):
            return match[1], match[2]
    return "A", "B"


# --- generators in them ----------------------------------------------------------------------


def _first_block(config: GeneratorConfig) -> int:
    """Return the index of the first residual block in the original's nn.Sequential."""
    return 12 if config.resampling == "cut" else 10


def original_names(
    config: GeneratorConfig, block: str = "conv_block", second: int = 5
) -> dict[str, str]:
    """Return the original's name of every parameter of a generator, by our name.

    Args:
        config: The architecture; ``strided``, or ``cut`` for the names of CUT.
        block: The original's name of a residual block's layers.
        second: Index of the second convolution in a block; 6 if dropout precedes it.
    """
    first = _first_block(config)
    last = first + config.residual_blocks
    if config.resampling == "cut":
        modules = {"stem.conv": 1, "down.0.conv": 4, "down.1.conv": 8,
                   "up.0.conv": last + 1, "up.1.conv": last + 5, "head": last + 9}  # fmt: skip
    else:
        modules = {"stem.conv": 1, "down.0.conv": 4, "down.1.conv": 7,
                   "up.0.conv": last, "up.1.conv": last + 3, "head": last + 7}  # fmt: skip
    theirs = {}
    for module, number in modules.items():
        theirs[module] = f"model.{number}"
        theirs[module.replace(".conv", ".norm")] = f"model.{number + 1}"
    theirs["head"] = f"model.{modules['head']}"
    for index in range(config.residual_blocks):
        layers = f"model.{first + index}.{block}"
        theirs[f"trunk.{index}.first.conv"] = f"{layers}.1"
        theirs[f"trunk.{index}.first.norm"] = f"{layers}.2"
        theirs[f"trunk.{index}.second"] = f"{layers}.{second}"
        theirs[f"trunk.{index}.norm"] = f"{layers}.{second + 1}"
    names = {}
    for name in generator_shapes(config):
        module, _, parameter = name.rpartition(".")
        names[name] = f"{theirs[module]}.{parameter}"
    return names


def original_filters(config: GeneratorConfig) -> dict[str, Tensor]:
    """Return the buffers of CUT's resampling by their names: ``[C, 1, n, n]`` each, fp32.

    Only generators with ``cut`` resampling have any.
    """
    import torch

    if config.resampling != "cut":
        return {}
    c, last = config.base_channels, _first_block(config) + config.residual_blocks
    layers = {7: (2 * c, DOWNSAMPLING_FILTER), 11: (4 * c, DOWNSAMPLING_FILTER),
              last: (4 * c, UPSAMPLING_FILTER), last + 4: (2 * c, UPSAMPLING_FILTER)}  # fmt: skip
    filters = {}
    for number, (channels, line) in layers.items():
        kernel = torch.outer(torch.tensor(line), torch.tensor(line))
        filters[f"model.{number}{FILTER_SUFFIX}"] = kernel.repeat(channels, 1, 1, 1)
    return filters


def read_pth(path: Path) -> tuple[ModelInfo, dict[Direction, PthGenerator]]:
    """Return the description and the generators of a ``.pth`` file, or of a folder of them.

    Raises:
        CheckpointError: There is no supported generator, or a file is damaged.
    """
    found: dict[Direction, PthGenerator] = {}
    files = generator_files(path) if path.is_dir() else [path]
    for file in sorted(files, key=lambda file: direction_of(file.stem) is None):
        found = find_generators(file, read_torch_file(file)) | found
    if not found:
        raise CheckpointError(f"the folder {path} has no generator like latest_net_G_A.pth")
    info = info_of(path, found)
    return info, {direction: found[direction] for direction in info.directions}


def info_of(path: Path, generators: Mapping[Direction, PthGenerator]) -> ModelInfo:
    """Return the description of the generators in a file or folder.

    Raises:
        CheckpointError: They are of different architectures.
    """
    directions = tuple(direction for direction in BOTH_DIRECTIONS if direction in generators)
    first = generators[directions[0]]
    if any(generators[one].config != first.config.reversed() for one in directions[1:]):
        raise CheckpointError(f"{first.file} holds two generators of different architectures")
    name_a, name_b = domains_of(first.file)
    return ModelInfo(
        kind="model",
        generator=first.config,
        name_a=name_a,
        name_b=name_b,
        training={"imported_from": path.name},
        versions={},
        directions=directions,
        formats=_formats(first.config, directions[0]),
    )


def _formats(config: GeneratorConfig, direction: Direction) -> BandFormats:
    """Return the formats of both domains of a generator.

    Generators of 1 and 3 channels translate gray and RGB images, as in the original. The files do
    not contain the range of other images, so these have the networks' own.
    """
    counts = [config.input_channels, config.output_channels]
    if {1, 3}.issuperset(counts):
        return None, None
    source, target = (
        None if count == 3 else BandFormat(count, "float32", (-1.0,), (1.0,)) for count in counts
    )
    return (source, target) if direction == "a2b" else (target, source)


def find_generators(path: Path, tensors: Mapping[str, Tensor]) -> dict[Direction, PthGenerator]:
    """Return the generators in a file by their directions.

    Raises:
        CheckpointError: There is none that is supported; the message names the reason.
    """
    infos = tensor_infos(tensors)
    _refuse_other_networks(path, infos)
    found: dict[Direction, PthGenerator] = {}
    for prefix in [match[1] for name in tensors if (match := STEM.match(name))]:
        direction = direction_of(prefix) or direction_of(path.stem) or "a2b"
        config, names = _architecture(path, infos, prefix)
        _check_filters(path, tensors, prefix, config)
        generator = PthGenerator(path, prefix, config, names, tensors)
        if direction in found:
            if _is_same(found[direction], generator):
                continue  # A module that is registered twice.
            raise CheckpointError(
                f"{path} holds several generators of one direction: "
                f"{found[direction].prefix or 'one without a prefix'} and {prefix}",
                "Save the wanted one in a file of its own.",
            )
        found[direction] = generator
    if not found:
        first = next(iter(tensors), "none at all")
        raise CheckpointError(
            f"{path} has no generator of CycleGAN's original implementation; the first of its "
            f"tensors: {first}",
            SUPPORTED,
        )
    return found


def _is_same(one: PthGenerator, other: PthGenerator) -> bool:
    """Return whether two generators share their memory."""
    return one.names.keys() == other.names.keys() and all(
        one.tensors[name].data_ptr() == other.tensors[other.names[ours]].data_ptr()
        for ours, name in one.names.items()
    )


def _refuse_other_networks(path: Path, infos: Mapping[str, TensorInfo]) -> None:
    stems = [t for name, t in infos.items() if name.endswith("model.0.weight")]
    kind = ""
    if any("model.1.model." in name for name in infos):
        kind = "a U-Net"
    elif any(tensor.shape[2:] == (4, 4) for tensor in stems) and not any(map(STEM.match, infos)):
        kind = "a discriminator"
    elif any("conv_block.0.weight" in name for name in infos):
        kind = "a generator without reflection padding"
    if kind:
        raise CheckpointError(f"{path} holds {kind}, which is not supported", SUPPORTED)


def _architecture(
    path: Path, infos: Mapping[str, TensorInfo], prefix: str
) -> tuple[GeneratorConfig, dict[str, str]]:
    """Return the architecture under a prefix, and the file's names by ours; check all tensors."""
    own = {n.removeprefix(prefix): t for n, t in infos.items() if n.startswith(prefix + "model.")}
    if "model.2.weight" in own and ("model.1.bias" not in own or "model.2.running_mean" in own):
        raise CheckpointError(
            f"{path} holds a generator with batch norm (as in pix2pix), which is not supported",
            SUPPORTED,
        )
    matches = [match for name in own if (match := BLOCK.fullmatch(name))]
    blocks = {int(match[1]) for match in matches}
    stem = own["model.1.weight"].shape
    is_cut = any(name.endswith(FILTER_SUFFIX) for name in own)
    config = GeneratorConfig(
        stem[0] if stem else 0,
        len(blocks),
        affine_norm="model.2.weight" in own,
        resampling="cut" if is_cut else "strided",
    )
    first = _first_block(config)
    last = own.get(f"model.{first + len(blocks) + (9 if is_cut else 7)}.weight")
    head = last.shape if last else ()
    channels = (stem[1], head[0]) if len(stem) == len(head) == 4 else (0, 0)
    fits = all(1 <= count <= MAX_CHANNELS for count in channels)
    fits = fits and 1 <= len(blocks) <= 64 and 1 <= stem[0] <= 1024
    if not fits or blocks != set(range(first, first + len(blocks))):
        raise CheckpointError(
            f"{path} holds a generator of another architecture: {len(blocks)} residual blocks, "
            f"first weights {list(stem)}, last weights {list(head)}",
            SUPPORTED,
        )
    config = replace(config, input_channels=channels[0], output_channels=channels[1])
    # With dropout the second convolution has index 6, which is otherwise the norm's scale.
    sixth = own.get(f"model.{first}.{matches[0][2]}.6.weight", TensorInfo("", ()))
    names = original_names(config, matches[0][2], second=6 if len(sixth.shape) == 4 else 5)
    shapes = generator_shapes(config)
    for ours, theirs in names.items():
        check_tensor(path, own, theirs, shapes[ours], GENERATOR_DTYPES)
    known = set(names.values()) | set(original_filters(config))
    surplus = [name for name in sorted(own.keys() - known)
               if name.rpartition(".")[2] not in RUNNING_STATISTICS]  # fmt: skip
    if surplus:
        raise CheckpointError(
            f"{path} has a tensor {prefix}{surplus[0]}, which its architecture does not have",
            SUPPORTED,
        )
    return config, {ours: prefix + theirs for ours, theirs in names.items()}


def _check_filters(
    path: Path, tensors: Mapping[str, Tensor], prefix: str, config: GeneratorConfig
) -> None:
    """Check that the resampling filters of a generator under a prefix are those of CUT.

    Raises:
        CheckpointError: One is missing or has other values.
    """
    import torch

    for name, expected in original_filters(config).items():
        found = tensors.get(prefix + name)
        if found is None:
            raise CheckpointError(
                f"{path} has no tensor {prefix}{name}: only some of its layers are antialiased",
                "Supported are CUT's default generators, and those without any antialiasing.",
            )
        if found.shape != expected.shape or not torch.allclose(
            found.float(), expected, rtol=0, atol=FILTER_TOLERANCE
        ):
            raise CheckpointError(
                f"{path}: {prefix}{name} is another resampling filter than CUT's",
                "Supported are CUT's default generators, and those without any antialiasing.",
            )
