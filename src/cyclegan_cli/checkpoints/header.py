"""The header of a safetensors checkpoint, and the document in it that describes the model.

A safetensors file is eight bytes (the header's length, little-endian), the header (JSON: dtype,
shape and offsets of each tensor), and the tensors' bytes without gaps
(https://huggingface.co/docs/safetensors). Its metadata is ``str -> str``; this program stores one
JSON document under the key ``cyclegan``, with sorted keys, so that equal states give equal files
(docs/format.md). Only the header is read here, in pure Python and within bounds, so that
``cyclegan inspect`` needs neither torch nor numpy.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from cyclegan_cli.config import BOTH_DIRECTIONS as BOTH_DIRECTIONS
from cyclegan_cli.config import (
    MAX_CHANNELS,
    BandFormat,
    BandFormats,
    DiscriminatorConfig,
    GeneratorConfig,
    Norms,
    Resampling,
    TrainConfig,
    is_domain_name,
)
from cyclegan_cli.config import Direction as Direction
from cyclegan_cli.errors import CheckpointError, UsageError
from cyclegan_cli.files import is_lfs_pointer

FORMAT_NAME = "cyclegan-cli"
NEWEST_VERSION = 5
# Files carry the oldest version whose readers understand them: models with skip connections are of
# version 5, others with norms in the residual blocks alone 4, others 3; of RGB domains with strided
# resampling, 1.
MODEL_VERSION, BLUR_VERSION, NORMS_VERSION, STATE_VERSION = 1, 3, 4, 5
# Values of options that older versions lack, so that their runs resume unchanged.
OLDER_OPTIONS: dict[str, Any] = {
    "ema": 0.0,
    "val_fraction": 0.0,
    "resampling": "strided",
    "norms": "all",
    "skips": False,
    "lambda_color": 0.0,
}

METADATA_KEY = "cyclegan"
MAX_HEADER_BYTES = 100_000_000  # The limit of the safetensors library itself.
MAX_LFS_POINTER_BYTES = 1024  # By its specification.
MAX_ELEMENTS = 2**63 - 1  # Per tensor, in every library.
DTYPE_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
WEIGHT_DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class TensorInfo:
    """Type and shape of a stored tensor.

    Attributes:
        dtype: The safetensors name of the type, e.g. ``F32``.
        shape: The tensor's size.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """The header of a safetensors file.

    Attributes:
        tensors: Types and shapes by name, in the order of the file.
        document: This program's JSON document; empty in a file of another program.
    """

    tensors: dict[str, TensorInfo]
    document: dict[str, Any]


def read_header(path: Path) -> Header:
    """Read and check a safetensors header, and nothing beyond it.

    Raises:
        CheckpointError: The file is not a safetensors file, is truncated or inconsistent.
    """
    size = file_size(path)
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
                raise CheckpointError(f"{path} is not a safetensors file, or a truncated one")
            raw = stream.read(length)
    except OSError as error:
        raise read_error(path, error) from error
    try:
        content = json.loads(raw)
        metadata = content.pop("__metadata__", {})
        end = 0
        tensors = {}
        for name, entry in sorted(content.items(), key=lambda item: item[1]["data_offsets"]):
            tensors[name], end = _checked_tensor(entry, start=end)
        document = parse_document(metadata.get(METADATA_KEY, "{}"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} has a damaged safetensors header") from error
    if end != size - 8 - length:
        raise CheckpointError(
            f"{path} is truncated or damaged: its header describes {end} bytes of tensors, "
            f"found {size - 8 - length}"
        )
    return Header(tensors, document)


def _checked_tensor(entry: dict[str, Any], start: int) -> tuple[TensorInfo, int]:
    """Return a tensor's description and its end offset; raise ValueError if they do not match."""
    shape = tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if any(type(n) is not int or n < 0 for n in (*shape, first, last)):
        raise ValueError("sizes and offsets must be non-negative integers")
    bits = 8 * (last - first)
    if first != start or count_elements(shape, limit=bits) * DTYPE_BITS[entry["dtype"]] != bits:
        raise ValueError("a tensor's offsets do not fit its shape")
    return TensorInfo(entry["dtype"], shape), last


def count_elements(shape: tuple[int, ...], limit: int = MAX_ELEMENTS) -> int:
    """Return the number of elements of a shape that may be hostile.

    Raises:
        ValueError: A size is negative, or there are more elements than ``limit``; the product is
            not computed further, because huge sizes in a small file would take hours.
    """
    if any(size < 0 for size in shape):
        raise ValueError("a negative size")
    if 0 in shape:
        return 0
    product = 1
    for size in shape:
        product *= size
        if product > limit:
            raise ValueError("more elements than bytes")
    return product


def check_tensor(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    name: str,
    shape: tuple[int, ...],
    dtypes: tuple[str, ...] = WEIGHT_DTYPES,
) -> None:
    """Check that a file has a tensor of this name, shape and dtype.

    Raises:
        CheckpointError: It does not.
    """
    if name not in tensors:
        raise CheckpointError(f"{path} has no tensor {name}, which its architecture needs")
    found = tensors[name]
    if found.shape != shape or found.dtype not in dtypes:
        raise CheckpointError(
            f"{path}: {name} is {found.dtype} {list(found.shape)}, "
            f"but its architecture needs {dtypes[0]} {list(shape)}"
        )


def check_network(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    prefix: str,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Check that the tensors under ``prefix`` are exactly those of ``shapes``.

    Raises:
        CheckpointError: A tensor is missing, surplus, or of another shape or dtype.
    """
    expected = {prefix + name: shape for name, shape in shapes.items()}
    for name, shape in expected.items():
        check_tensor(path, tensors, name, shape)
    if surplus := sorted({name for name in tensors if name.startswith(prefix)} - set(expected)):
        raise CheckpointError(
            f"{path} has a tensor {surplus[0]}, which its architecture does not have"
        )


def parse_document(text: str | bytes) -> dict[str, Any]:
    """Parse a JSON object whose numbers are finite, so that it can be written as JSON again.

    Returns:
        The object; an empty one for any other JSON value.

    Raises:
        ValueError: The text is not JSON.
        RecursionError: It is nested too deeply.
    """
    document = json.loads(text, parse_constant=_finite, parse_float=_finite)
    return document if isinstance(document, dict) else {}


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not JSON")
    return value


def require_regular_file(path: Path) -> os.stat_result:
    """Return the status of a regular file; opening a pipe could block forever.

    Raises:
        CheckpointError: It is a folder, pipe or device, or cannot be accessed.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise read_error(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"cannot read {path}: it is not a file, but a folder, pipe or device")
    return found


def file_size(path: Path) -> int:
    """Return the size of a checkpoint or model file in bytes.

    Raises:
        CheckpointError: It is not a regular file, cannot be accessed, or is a Git LFS pointer.
    """
    size = require_regular_file(path).st_size
    if size < MAX_LFS_POINTER_BYTES:
        try:
            with path.open("rb") as stream:
                head = stream.read(64)
        except OSError as error:
            raise read_error(path, error) from error
        if is_lfs_pointer(head):
            message = f"{path} is a Git LFS pointer, not the file itself"
            raise CheckpointError(message, "Fetch it: git lfs pull.")
    return size


def read_error(path: Path, error: OSError) -> CheckpointError:
    """Return the error for a file that cannot be read."""
    return CheckpointError(f"cannot read {path}: {(error.strerror or str(error)).lower()}")


@dataclass(frozen=True)
class ModelInfo:
    """The description of the model in a checkpoint.

    Attributes:
        kind: ``model`` (generators) or ``state`` (everything that resuming needs).
        generator: Architecture of the generators.
        name_a: The user's name of domain A.
        name_b: The user's name of domain B.
        training: Facts about the training: step, epoch, crop and load size, loss weights, ...
        versions: Versions of the libraries that wrote the file.
        directions: The directions whose generators the file holds.
        formats: How images of domain A and of domain B are read and written; None: as RGB, or as
            gray images if the generators have one channel.
    """

    kind: str
    generator: GeneratorConfig
    name_a: str
    name_b: str
    training: dict[str, Any]
    versions: dict[str, str]
    directions: tuple[Direction, ...] = BOTH_DIRECTIONS
    formats: BandFormats = (None, None)

    def generator_of(self, direction: Direction) -> GeneratorConfig:
        """Return the architecture of a direction: ``generator`` is that of the first one."""
        if direction == self.directions[0]:
            return self.generator
        return self.generator.reversed()

    def only(self, directions: tuple[Direction, ...]) -> ModelInfo:
        """Return the description of a model with only these directions."""
        generator = self.generator_of(directions[0])
        return replace(self, directions=directions, generator=generator)

    def formats_of(self, direction: Direction) -> BandFormats:
        """Return the formats of the source and the target domain of a direction."""
        return self.formats if direction == "a2b" else self.formats[::-1]

    def source(self, direction: Direction) -> str:
        """Return the name of the source domain of a direction."""
        return self.name_a if direction == "a2b" else self.name_b

    def target(self, direction: Direction) -> str:
        """Return the name of the target domain of a direction."""
        return self.name_b if direction == "a2b" else self.name_a

    def direction_to(self, target: str) -> Direction:
        """Return the direction whose target domain is named ``target``.

        Raises:
            UsageError: The model has no such domain.
        """
        for direction in BOTH_DIRECTIONS:
            if self.target(direction) == target:
                return direction
        raise UsageError(
            f"--to {target}: the domains of this checkpoint are {self.name_a!r} and "
            f"{self.name_b!r}",
            "Name one of these two.",
        )

    def require(self, direction: Direction) -> Direction:
        """Return ``direction`` if the checkpoint holds it.

        Raises:
            CheckpointError: It holds only the other one.
        """
        if direction not in self.directions:
            held = self.directions[0]
            raise CheckpointError(
                f"this checkpoint translates {self.source(held)} to {self.target(held)} "
                f"({held}) only, not in the other direction ({direction})",
                f"Omit the direction, or use a checkpoint that holds {direction}.",
            )
        return direction

    def choose_direction(self, to: str | None, direction: Direction | None) -> Direction:
        """Return the direction that ``--to`` or ``--direction`` selects; by default the first.

        Raises:
            UsageError: The model has no domain named ``to``.
            CheckpointError: The checkpoint holds only the other direction.
        """
        if to is not None:
            direction = self.direction_to(to)
        return self.require(direction or self.directions[0])

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document that is written into files."""
        bands = {
            domain: band_format.to_document()
            for domain, band_format in zip("ab", self.formats, strict=True)
            if band_format is not None
        }
        generator, version = asdict(self.generator), NEWEST_VERSION
        if not self.generator.skips:
            del generator["skips"]
            version = NORMS_VERSION
        if self.generator.norms == "all":
            del generator["norms"]
            is_old = not bands and self.generator.resampling == "strided"
            version = MODEL_VERSION if is_old else BLUR_VERSION
        return {
            **({"bands": bands} if bands else {}),
            "format": FORMAT_NAME,
            "version": version,
            "kind": self.kind,
            "generator": generator,
            "directions": list(self.directions),
            "domains": {"a": self.name_a, "b": self.name_b},
            "training": self.training,
            "versions": self.versions,
        }


@dataclass(frozen=True)
class StateInfo:
    """The description of a training state (``state.safetensors``).

    Attributes:
        model: The description of the model.
        discriminator: Architecture of both discriminators.
        config: The options of the run, as returned by :meth:`TrainConfig.to_document`.
        step: Completed steps.
        seconds: Training time so far.
        images: Digest of the names of the training images.
        watch: State of the quality and health measurements; empty in version 1.
        items: Images of each domain seen so far; None: steps times batch size.
        ranks: Number of processes whose replay pools are in the file.
    """

    model: ModelInfo
    discriminator: DiscriminatorConfig
    config: dict[str, Any]
    step: int
    seconds: float
    images: str
    watch: dict[str, Any] = field(default_factory=dict)
    items: int | None = None
    ranks: int = 1

    def train_config(self) -> TrainConfig:
        """Return the options of the run.

        Raises:
            CheckpointError: They are not valid in this version.
        """
        try:
            document = OLDER_OPTIONS | self.config
            return TrainConfig.from_document(document, "the training state")
        except UsageError as error:
            hint = "The state may have been written by another version."
            raise CheckpointError(error.message, hint) from error

    def to_document(self) -> dict[str, Any]:
        """Return the JSON document that is written into files."""
        # Optional keys are omitted at their defaults: most runs have one process.
        optional: dict[str, Any] = {"ranks": self.ranks} if self.ranks > 1 else {}
        if self.items is not None:
            optional["items"] = self.items
        return self.model.to_document() | {
            "discriminator": {
                "base_channels": self.discriminator.base_channels,
                "scales": self.discriminator.scales,
            },
            "config": self.config,
            "version": STATE_VERSION,
            "state": {
                "step": self.step,
                "seconds": self.seconds,
                "pictures": self.images,
                "watch": self.watch,
                **optional,
            },
        }


def to_metadata(document: dict[str, Any]) -> dict[str, str]:
    """Return a document as safetensors metadata; equal documents give equal text."""
    return {METADATA_KEY: json.dumps(document, sort_keys=True)}


def read_model_info(path: Path) -> ModelInfo:
    """Read the description of the model in a checkpoint of this program.

    Raises:
        CheckpointError: The file is damaged, or of another program or a newer version.
    """
    return model_info(path, read_header(path))


def read_state_info(path: Path) -> StateInfo:
    """Read the description of a training state.

    Raises:
        CheckpointError: The file is not a training state, or is damaged.
    """
    return state_info(path, read_header(path))


def model_info(path: Path, header: Header) -> ModelInfo:
    """Return the description of the model in a header.

    Raises:
        CheckpointError: The file is of another program or a newer version, or its document is
            damaged.
    """
    document = header.document
    if document.get("format") != FORMAT_NAME:
        raise CheckpointError(
            f"{path} is a safetensors file, but not a checkpoint of cyclegan",
            "Use model.safetensors of a run folder.",
        )
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= NEWEST_VERSION:
        raise CheckpointError(
            f"{path} has format version {version!r}; this program reads up to {NEWEST_VERSION}",
            "Install a newer version of cyclegan-cli.",
        )
    try:
        # Outputs are named after domains: a file of another program must not choose their folder.
        names = [_checked(document["domains"][key], is_domain_name) for key in ("a", "b")]
        return ModelInfo(
            kind=_checked(document["kind"], ("model", "state").__contains__),
            generator=_generator_config(document["generator"]),
            directions=_directions(document.get("directions", list(BOTH_DIRECTIONS))),
            name_a=names[0],
            name_b=names[1],
            training=dict(document["training"]),
            versions=dict(document["versions"]),
            formats=_formats(document),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a damaged description of its model") from error


def state_info(path: Path, header: Header) -> StateInfo:
    """Return the description of the training state in a header.

    Raises:
        CheckpointError: The file is not a training state, or its document is damaged.
    """
    model = model_info(path, header)
    if model.kind != "state":
        raise CheckpointError(
            f"{path} holds a model, not a training state", "Resume from a run folder."
        )
    try:
        state = header.document["state"]
        seconds = state["seconds"]
        if type(seconds) not in (int, float) or not 0 <= seconds < 1e12:
            raise ValueError(seconds)
        if model.directions != BOTH_DIRECTIONS:
            raise ValueError(model.directions)
        return StateInfo(
            model=model,
            discriminator=_discriminator_config(header.document["discriminator"]),
            config=dict(header.document["config"]),
            step=_integer(state["step"], 0, 10**12),
            seconds=float(seconds),
            images=_checked(state["pictures"]),
            watch=dict(state.get("watch", {})),
            items=_integer(state["items"], 0, 10**18) if "items" in state else None,
            ranks=_integer(state.get("ranks", 1), 1, 10**6),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a damaged description of its state") from error


def _generator_config(document: Any) -> GeneratorConfig:
    """Return the architecture; the first files of version 1 have only the first two entries.

    ``resampling`` is new in version 3, ``norms`` in version 4, ``skips`` in version 5.
    """
    older: dict[str, Any] = {"input_channels": 3, "output_channels": 3, "affine_norm": False}
    older |= {"resampling": "strided", "norms": "all", "skips": False}
    given: dict[str, Any] = older | dict(document)
    channels = [
        _integer(given[f"{side}_channels"], 1, MAX_CHANNELS) for side in ("input", "output")
    ]
    if not all(type(given[name]) is bool for name in ("affine_norm", "skips")):
        raise ValueError(given)
    if given["skips"] and given["norms"] != "residual":
        raise ValueError(given)
    return GeneratorConfig(
        base_channels=_integer(given["base_channels"], 1, 1024),
        residual_blocks=_integer(given["residual_blocks"], 1, 64),
        input_channels=channels[0],
        output_channels=channels[1],
        affine_norm=given["affine_norm"],
        resampling=_one_of(Resampling, given["resampling"]),
        norms=_one_of(Norms, given["norms"]),
        skips=given["skips"],
    )


def _formats(document: Mapping[str, Any]) -> BandFormats:
    """Return the formats of both domains, which must fit the channels of the generators."""
    bands = dict(document.get("bands", {}))
    format_a, format_b = (_format(bands[d]) if d in bands else None for d in "ab")
    generator = _generator_config(document["generator"])
    channels = [generator.input_channels, generator.output_channels]
    if document.get("directions", ["a2b"])[0] == "b2a":
        channels.reverse()
    if not any((format_a, format_b)):
        if not {1, 3}.issuperset(channels):
            raise ValueError(channels)
        return None, None
    for band_format, count in zip((format_a, format_b), channels, strict=True):
        if (band_format.channels if band_format else 3) != count:
            raise ValueError(bands)
    return format_a, format_b


def _format(given: Mapping[str, Any]) -> BandFormat:
    nodata = given["nodata"]
    if not all(isinstance(given[name], list) for name in ("low", "high", "bands")):
        raise ValueError(given)
    channels, dtype = _integer(given["channels"], 1, MAX_CHANNELS), _checked(given["dtype"])
    # Files written before there was such an entry.
    is_color = given.get("is_color", (channels, dtype) == (3, "uint8"))
    if not isinstance(is_color, bool):
        raise ValueError(given)
    return BandFormat(
        channels=channels,
        dtype=dtype,
        low=tuple(map(float, given["low"])),
        high=tuple(map(float, given["high"])),
        bands=tuple(_integer(band, 1, 2**16) for band in given["bands"]),
        nodata=None if nodata is None else float(nodata),
        is_color=is_color,
    )


def _discriminator_config(document: Any) -> DiscriminatorConfig:
    """Return the architecture; ``scales`` is new in version 3."""
    given = {"scales": 1} | dict(document)
    return DiscriminatorConfig(
        _integer(given["base_channels"], 1, 1024), _integer(given["scales"], 1, 3)
    )


def _one_of(choices: Any, value: Any) -> Any:
    """Return a value of a ``Literal`` type."""
    if value not in get_args(choices):
        raise ValueError(value)
    return value


def _directions(value: Any) -> tuple[Direction, ...]:
    found = tuple(direction for direction in BOTH_DIRECTIONS if direction in value)
    if not found or list(found) != value:
        raise ValueError(value)
    return found


def _integer(value: Any, smallest: int, largest: int) -> int:
    if type(value) is not int or not smallest <= value <= largest:
        raise ValueError(value)
    return value


def _checked(value: Any, is_valid: Callable[[str], bool] = lambda _: True) -> str:
    if not isinstance(value, str) or not is_valid(value):
        raise ValueError(value)
    return value
