"""What a checkpoint of ours says of its model: one JSON document in its header, checked.

Its keys are sorted, so that equal states give equal files (docs/format.md specifies them).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.container import METADATA_KEY, Header, read_header
from cyclegan_cli.config import Direction as Direction
from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig, TrainConfig, is_domain_name
from cyclegan_cli.errors import CheckpointError, UsageError

BOTH_DIRECTIONS: tuple[Direction, ...] = ("a2b", "b2a")
FORMAT_NAME = "cyclegan-cli"
NEWEST_VERSION = 2
# Files are marked with the oldest version whose readers understand them.
MODEL_VERSION, STATE_VERSION = 1, 2
# What options that version 1 did not know have to be for its runs to go on as they were.
VERSION_1_OPTIONS: dict[str, Any] = {"ema": 0.0, "val_fraction": 0.0}


@dataclass(frozen=True)
class ModelInfo:
    """What a checkpoint says of its model: the document, checked.

    Attributes:
        kind: ``model`` (generators) or ``state`` (everything that resume needs).
        generator: Architecture of the generators.
        name_a: The user's name of domain A.
        name_b: The user's name of domain B.
        training: Facts of the training: step, epoch, crop and load size, loss weights, ...
        versions: Versions of the libraries that wrote it.
        directions: Whose generators it holds: both, or one alone.
    """

    kind: str
    generator: GeneratorConfig
    name_a: str
    name_b: str
    training: dict[str, Any]
    versions: dict[str, str]
    directions: tuple[Direction, ...] = BOTH_DIRECTIONS

    def source(self, direction: Direction) -> str:
        """Name of the domain that a direction comes from."""
        return self.name_a if direction == "a2b" else self.name_b

    def target(self, direction: Direction) -> str:
        """Name of the domain that a direction leads to."""
        return self.name_b if direction == "a2b" else self.name_a

    def direction_to(self, target: str) -> Direction:
        """The direction that leads to the domain named ``target``.

        Raises:
            UsageError: The model knows no such domain.
        """
        for direction in BOTH_DIRECTIONS:
            if self.target(direction) == target:
                return direction
        raise UsageError(
            f"--to {target}: this checkpoint knows {self.name_a!r} and {self.name_b!r}",
            "Name one of these two.",
        )

    def require(self, direction: Direction) -> Direction:
        """``direction``, which the checkpoint must hold.

        Raises:
            CheckpointError: It holds the other one alone.
        """
        if direction not in self.directions:
            held = self.directions[0]
            raise CheckpointError(
                f"this checkpoint translates {self.source(held)} to {self.target(held)} "
                f"({held}), and not the other way ({direction})",
                f"Leave the direction out, or use a checkpoint that holds {direction}.",
            )
        return direction

    def to_document(self) -> dict[str, Any]:
        """The JSON document that is written into files."""
        return {
            "format": FORMAT_NAME,
            "version": MODEL_VERSION,
            "kind": self.kind,
            "generator": asdict(self.generator),
            "directions": list(self.directions),
            "domains": {"a": self.name_a, "b": self.name_b},
            "training": self.training,
            "versions": self.versions,
        }


@dataclass(frozen=True)
class StateInfo:
    """What a ``state.safetensors`` says beyond :class:`ModelInfo`.

    Attributes:
        model: The model's own description.
        discriminator: Architecture of both discriminators.
        config: The options of the run, as :meth:`TrainConfig.to_document` gives them.
        step: Steps done.
        seconds: Seconds trained so far.
        images: Digest of the names of the images trained on.
        watch: What the measurements of quality and health remember; empty in version 1.
        items: Images a domain learned from; None: the batch size in each step.
        ranks: Processes that trained together, whose replay pools are in the file.
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
        """The options of the run.

        Raises:
            CheckpointError: They are not those of this version.
        """
        try:
            document = VERSION_1_OPTIONS | self.config
            return TrainConfig.from_document(document, "the training state")
        except UsageError as error:
            raise CheckpointError(error.message, "It may be of another version.") from error

    def to_document(self) -> dict[str, Any]:
        """The JSON document that is written into files."""
        # Only where they say something that the rest does not: most runs have one process.
        several: dict[str, Any] = {"ranks": self.ranks} if self.ranks > 1 else {}
        if self.items is not None:
            several["items"] = self.items
        return self.model.to_document() | {
            "discriminator": asdict(self.discriminator),
            "config": self.config,
            "version": STATE_VERSION,
            "state": {
                "step": self.step,
                "seconds": self.seconds,
                "pictures": self.images,
                "watch": self.watch,
                **several,
            },
        }


def to_metadata(document: dict[str, Any]) -> dict[str, str]:
    """Our document as safetensors metadata: equal documents give equal texts."""
    return {METADATA_KEY: json.dumps(document, sort_keys=True)}


def read_model_info(path: Path) -> ModelInfo:
    """What a checkpoint file says of its model.

    Raises:
        CheckpointError: It is damaged or foreign.
    """
    return model_info(path, read_header(path))


def model_info(path: Path, header: Header) -> ModelInfo:
    """The description of the model in a checkpoint of ours.

    Raises:
        CheckpointError: A file of another program, of a newer version, or with a damaged document.
    """
    document = header.document
    if document.get("format") != FORMAT_NAME:
        raise CheckpointError(
            f"{path} is a safetensors file, but not one of cyclegan's",
            "Use model.safetensors of a run folder.",
        )
    version = document.get("version")
    if type(version) is not int or not 1 <= version <= NEWEST_VERSION:
        raise CheckpointError(
            f"{path} has format version {version!r}; this program reads up to {NEWEST_VERSION}",
            "Install a newer version of cyclegan-cli.",
        )
    try:
        info = ModelInfo(
            kind=_kind(document["kind"]),
            generator=_generator_config(document["generator"]),
            directions=_directions(document.get("directions", list(BOTH_DIRECTIONS))),
            name_a=_domain_name(document["domains"]["a"]),
            name_b=_domain_name(document["domains"]["b"]),
            training=dict(document["training"]),
            versions=dict(document["versions"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a damaged description of its model") from error
    return info


def _generator_config(document: Any) -> GeneratorConfig:
    """The first files of version 1 have only the first two entries; the paper's rest applies."""
    given = {"input_channels": 3, "output_channels": 3, "affine_norm": False} | dict(document)
    if type(given["affine_norm"]) is not bool:
        raise ValueError(given["affine_norm"])
    return GeneratorConfig(
        base_channels=_count(given["base_channels"], 1024),
        residual_blocks=_count(given["residual_blocks"], 64),
        input_channels=_colours(given["input_channels"]),
        output_channels=_colours(given["output_channels"]),
        affine_norm=given["affine_norm"],
    )


def _colours(value: Any) -> int:
    if _count(value, 3) == 2:
        raise ValueError(value)
    return int(value)


def _directions(value: Any) -> tuple[Direction, ...]:
    found = tuple(direction for direction in BOTH_DIRECTIONS if direction in value)
    if not found or list(found) != value:
        raise ValueError(value)
    return found


def state_info(path: Path, header: Header) -> StateInfo:
    """The description of a training state.

    Raises:
        CheckpointError: Not a training state, or one with a damaged document.
    """
    model = model_info(path, header)
    if model.kind != "state":
        raise CheckpointError(
            f"{path} holds a model, not a training state", "Resume from a run folder."
        )
    try:
        state = header.document["state"]
        if model.directions != BOTH_DIRECTIONS:
            raise ValueError(model.directions)
        return StateInfo(
            model=model,
            discriminator=DiscriminatorConfig(
                _count(header.document["discriminator"]["base_channels"], 1024)
            ),
            config=dict(header.document["config"]),
            step=_count(state["step"], 10**12, smallest=0),
            seconds=_seconds(state["seconds"]),
            images=_text(state["pictures"]),
            watch=dict(state.get("watch", {})),
            items=_count(state["items"], 10**18, smallest=0) if "items" in state else None,
            ranks=_count(state.get("ranks", 1), 10**6),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} has a damaged description of its state") from error


def _count(value: Any, largest: int, smallest: int = 1) -> int:
    if type(value) is not int or not smallest <= value <= largest:
        raise ValueError(value)
    return value


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1e12:
        raise ValueError(value)
    return float(value)


def _domain_name(value: Any) -> str:
    # Outputs are named after domains: a foreign file must not choose their folder.
    if not is_domain_name(_text(value)):
        raise ValueError(value)
    return str(value)


def _kind(value: Any) -> str:
    if value not in ("model", "state"):
        raise ValueError(value)
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(value)
    return value
