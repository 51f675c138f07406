"""Every option that the method has, once: its name, type, default, bounds and help sentence.

The command line, ``config.toml`` and the checkpoints all read these dataclasses, so that an
option exists everywhere or nowhere.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclegan_cli.errors import UsageError

ResizeMode = Literal["short-side", "stretch"]
GanLossChoice = Literal["lsgan", "vanilla"]
PrecisionChoice = Literal["auto", "fp32", "tf32", "bf16"]
CompileChoice = Literal["auto", "on", "off"]
CacheChoice = Literal["auto", "ram", "none"]
# A number of steps, or a duration like "10m".
StepsOrTime = int | str

# The discriminator's last convolutions need something left to judge; the generator halves twice.
SMALLEST_CROP = 32
CROP_MULTIPLE = 4
# The paper has 6 residual blocks for 128×128 images, 9 for 256×256 (Zhu et al. 2017, sec. 7.2).
LARGEST_CROP_FOR_6_BLOCKS = 128
# However slow the steps, what is done at intervals of time must not take longer than they do.
LEAST_STEPS = 20


def option(
    default: Any,
    help: str,
    *,
    panel: str,
    minimum: float | None = None,
    maximum: float | None = None,
    shown_default: str | None = None,
    on_resume: bool = False,
    metavar: str | None = None,
) -> Any:
    """A dataclass field that is also an option.

    Args:
        default: Its default; None where it is derived from others, see ``shown_default``.
        help: One sentence.
        panel: The heading it stands under in ``--help``.
        minimum: The smallest value allowed.
        maximum: The largest value allowed.
        shown_default: What help says of the default, where that is not its value.
        on_resume: Whether a resumed run may change it.
        metavar: The placeholder shown in help.
    """
    return dataclasses.field(
        default=default,
        metadata={
            "help": help,
            "panel": panel,
            "minimum": minimum,
            "maximum": maximum,
            "shown_default": shown_default,
            "on_resume": on_resume,
            "metavar": metavar,
        },
    )


def option_name(field_name: str) -> str:
    """``crop_size`` to ``--crop-size``."""
    return "--" + field_name.replace("_", "-")


@dataclass(frozen=True)
class GeneratorConfig:
    """What a generator is: enough to build it.

    Attributes:
        base_channels: Channels of the first layer; the trunk has four times as many.
        residual_blocks: Blocks in the trunk.
        input_channels: 3 for RGB, 1 for grey images.
        output_channels: Likewise.
        affine_norm: Whether every norm has a learned scale and shift a channel. The paper's has
            none, and none is trained here; imported networks may have them.
    """

    base_channels: int = 64
    residual_blocks: int = 9
    input_channels: int = 3
    output_channels: int = 3
    affine_norm: bool = False


@dataclass(frozen=True)
class DiscriminatorConfig:
    """What a discriminator is: enough to build it.

    Attributes:
        base_channels: Channels of the first layer.
    """

    base_channels: int = 64


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training; the defaults are the paper's.

    Raises:
        UsageError: A value is out of bounds, or two values contradict each other.
    """

    domain_a: Path | None = option(
        None,
        "Folder of images of domain A, searched recursively.",
        panel="Data",
        on_resume=True,
        metavar="DIR",
    )
    domain_b: Path | None = option(
        None,
        "Folder of images of domain B, searched recursively.",
        panel="Data",
        on_resume=True,
        metavar="DIR",
    )
    name_a: str | None = option(
        None,
        "Name of domain A.",
        panel="Data",
        shown_default="the folder's name",
        metavar="NAME",
    )
    name_b: str | None = option(
        None,
        "Name of domain B.",
        panel="Data",
        shown_default="the folder's name",
        metavar="NAME",
    )
    val_a: Path | None = option(
        None,
        "Folder of held-out images of domain A to measure the quality on; needs --val-b.",
        panel="Validation",
        on_resume=True,
        shown_default="some of --domain-a, see --val-fraction",
        metavar="DIR",
    )
    val_b: Path | None = option(
        None,
        "Likewise of domain B.",
        panel="Validation",
        on_resume=True,
        shown_default="some of --domain-b",
        metavar="DIR",
    )
    val_fraction: float = option(
        0.05,
        "Images of each domain that are measured on instead of trained on, as a share of the "
        "smaller domain; 0 sets none aside.",
        panel="Validation",
        minimum=0,
        maximum=0.5,
    )
    val_pictures: int = option(
        16,
        "Held-out images a domain, at most.",
        panel="Validation",
        minimum=2,
        maximum=10_000,
    )
    validate_every: StepsOrTime = option(
        "10m",
        "Steps (500) or time (10m, 2h) between measurements of quality and health; 0 makes none.",
        panel="Validation",
        minimum=0,
        maximum=1_000_000_000,
        on_resume=True,
        metavar="N|TIME",
    )
    patience: int = option(
        0,
        "Stop after so many measurements (--validate-every) without a lower distance to the target "
        "domain; 0 goes on to the end.",
        panel="Validation",
        minimum=0,
        maximum=1_000_000,
        on_resume=True,
    )
    kid: bool = option(
        False,
        "Also measure the Kernel Inception Distance, with a network that is downloaded once; needs "
        "the extra [metrics].",
        panel="Validation",
        on_resume=True,
    )

    load_size: int = option(
        286,
        "Short side, in pixels, that images are resized to.",
        panel="Data",
        minimum=SMALLEST_CROP,
        maximum=8192,
    )
    crop_size: int = option(
        256,
        "Side, in pixels, of the random crops that are trained on; a multiple of 4.",
        panel="Data",
        minimum=SMALLEST_CROP,
        maximum=8192,
    )
    resize_mode: ResizeMode = option(
        "short-side",
        "Keep the aspect ratio (short-side), or resize to a square (stretch), "
        "as the original implementation does.",
        panel="Data",
    )
    strict: bool = option(
        False,
        "Refuse images that cannot be read or are tiny, instead of leaving them out; looks into "
        "every file before the first step.",
        panel="Data",
        on_resume=True,
    )
    flip: bool = option(True, "Mirror half of the images.", panel="Data")
    workers: int | None = option(
        None,
        "Threads that load images ahead; 0 loads them between the steps.",
        panel="Data",
        minimum=0,
        maximum=256,
        on_resume=True,
        shown_default="1 for every 2 cores, at most 4",
    )
    cache: CacheChoice = option(
        "auto",
        "Keep resized images in memory: if all fit in a quarter of what is free (auto), as many "
        "as there is room for (ram), or none.",
        panel="Data",
        on_resume=True,
    )

    epochs: int = option(
        100,
        "Epochs at the full learning rate; one is a pass over the larger domain.",
        panel="Length",
        minimum=0,
        maximum=1_000_000,
        on_resume=True,
    )
    decay_epochs: int = option(
        100,
        "Epochs after these, in which the rate falls linearly to zero.",
        panel="Length",
        minimum=0,
        maximum=1_000_000,
        on_resume=True,
    )
    steps: int | None = option(
        None,
        "Steps in all, instead of epochs.",
        panel="Length",
        minimum=1,
        maximum=1_000_000_000,
        on_resume=True,
        shown_default="given by the epochs",
    )
    decay_steps: int | None = option(
        None,
        "Last steps of --steps in which the rate falls linearly to zero.",
        panel="Length",
        minimum=0,
        maximum=1_000_000_000,
        on_resume=True,
        shown_default="half of --steps",
    )

    init_from: Path | None = option(
        None,
        "Begin with the generators of this run folder, checkpoint or model in the package, and "
        "with their architecture.",
        panel="Networks",
        metavar="CHECKPOINT",
        shown_default="random weights",
    )
    base_channels: int = option(
        64, "Channels of the generators' first layer.", panel="Networks", minimum=1, maximum=1024
    )
    residual_blocks: int | None = option(
        None,
        "Residual blocks of the generators.",
        panel="Networks",
        minimum=1,
        maximum=64,
        shown_default="9; 6 for crops of 128 and less",
    )
    discriminator_channels: int = option(
        64,
        "Channels of the discriminators' first layer.",
        panel="Networks",
        minimum=1,
        maximum=1024,
    )

    batch_size: int = option(
        1,
        "Images of each domain in a step, on each device.",
        panel="Objective",
        minimum=1,
        maximum=4096,
    )
    gan_loss: GanLossChoice = option(
        "lsgan",
        "Least squares, or the original GAN's log-likelihood with the non-saturating "
        "generator loss (vanilla).",
        panel="Objective",
    )
    lambda_cycle: float = option(
        10.0, "Weight of the cycle loss.", panel="Objective", minimum=0, maximum=1e6
    )
    lambda_identity: float = option(
        0.5,
        "Weight of the identity loss, as a share of --lambda-cycle; 0 leaves it out.",
        panel="Objective",
        minimum=0,
        maximum=1e6,
    )
    pool_size: int = option(
        50,
        "Earlier translations a domain that the discriminators go on learning from.",
        panel="Objective",
        minimum=0,
        maximum=100_000,
    )
    learning_rate: float = option(
        2e-4,
        "Learning rate of Adam.",
        panel="Objective",
        minimum=1e-12,
        maximum=10,
        on_resume=True,
    )
    beta1: float = option(
        0.5, "First moment's decay rate in Adam.", panel="Objective", minimum=0, maximum=0.9999
    )
    ema: float = option(
        0.999,
        "Decay of the moving average over the generators' weights, which model.safetensors then "
        "has; 0 turns it off.",
        panel="Objective",
        minimum=0,
        maximum=0.999999,
    )
    seed: int = option(
        0,
        "Seed of the weights, the order of images, the crops and the pools.",
        panel="Objective",
        minimum=0,
        maximum=2**31 - 1,
    )

    device: str = option(
        "auto",
        "Where to compute: auto, cpu, cuda, cuda:N or mps.",
        panel="Machine",
        on_resume=True,
        metavar="DEVICE",
    )
    precision: PrecisionChoice = option(
        "auto",
        "Number format of the convolutions: auto is bf16 where the hardware has it, else fp32, "
        "which is exact; tf32 needs an NVIDIA GPU from Ampere on.",
        panel="Machine",
        on_resume=True,
    )
    compile: CompileChoice = option(
        "auto",
        "Compile the networks, which takes a minute; auto does on a GPU where the run is long "
        "enough and there is a C++ compiler. CPUs gain nothing.",
        panel="Machine",
        on_resume=True,
    )

    run_dir: Path | None = option(
        None,
        "Folder for everything that the run leaves.",
        panel="Output",
        shown_default="runs/A2B with the domains' names, numbered if taken",
        metavar="DIR",
    )
    checkpoint_every: StepsOrTime = option(
        "10m",
        "Steps (500) or time (10m, 2h) between checkpoints.",
        panel="Output",
        minimum=1,
        maximum=1_000_000_000,
        on_resume=True,
        metavar="N|TIME",
    )
    keep_checkpoints: int = option(
        0,
        "Also keep the models of so many last checkpoints, in checkpoints/ of the run folder.",
        panel="Output",
        minimum=0,
        maximum=1_000_000,
        on_resume=True,
    )
    sample_every: StepsOrTime = option(
        "5m",
        "Steps (500) or time (5m, 2h) between sample grids, each with a new index.html; 0 draws "
        "none.",
        panel="Output",
        minimum=0,
        maximum=1_000_000_000,
        on_resume=True,
        metavar="N|TIME",
    )
    log_every: int = option(
        50,
        "Steps between rows of metrics.csv.",
        panel="Output",
        minimum=1,
        maximum=1_000_000_000,
        on_resume=True,
    )
    tensorboard: bool = option(
        False,
        "Also write curves and samples for TensorBoard; needs the extra [tensorboard].",
        panel="Output",
        on_resume=True,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_bounds(field, getattr(self, field.name))
        self._check_sizes()
        self._check_length()
        if (self.val_a is None) != (self.val_b is None):
            raise UsageError(
                "--val-a and --val-b need each other", "Name a folder for each domain, or none."
            )

    def _check_sizes(self) -> None:
        if self.crop_size > self.load_size:
            raise UsageError(
                f"--crop-size {self.crop_size} is larger than --load-size {self.load_size}",
                "Crops are cut from images of the load size: raise it or lower the crop size.",
            )
        if self.crop_size % CROP_MULTIPLE:
            raise UsageError(
                f"--crop-size {self.crop_size} is not a multiple of {CROP_MULTIPLE}",
                f"Use {self.crop_size // CROP_MULTIPLE * CROP_MULTIPLE}: "
                "the generator halves an image twice.",
            )

    def _check_length(self) -> None:
        if self.steps is None and self.decay_steps is not None:
            raise UsageError(
                "--decay-steps needs --steps", "With epochs, use --decay-epochs instead."
            )
        if (
            self.steps is not None
            and self.decay_steps is not None
            and self.decay_steps > self.steps
        ):
            raise UsageError(
                f"--decay-steps {self.decay_steps} is more than --steps {self.steps}",
                "The decay is the last part of the steps: make it as long or shorter.",
            )
        if self.steps is None and self.epochs + self.decay_epochs == 0:
            raise UsageError(
                "--epochs 0 and --decay-epochs 0 leave nothing to train", "Give one of them."
            )

    @property
    def generator_blocks(self) -> int:
        """Residual blocks, with the paper's choice for the crop size where none is given."""
        if self.residual_blocks is not None:
            return self.residual_blocks
        return 6 if self.crop_size <= LARGEST_CROP_FOR_6_BLOCKS else 9

    def total_steps(self, epoch_items: int, ranks: int = 1) -> int:
        """Steps of the whole run.

        Args:
            epoch_items: Images a domain in an epoch.
            ranks: Devices, each with a batch of its own.
        """
        if self.steps is not None:
            return self.steps
        items = (self.epochs + self.decay_epochs) * epoch_items
        return math.ceil(items / (self.batch_size * ranks))

    def falling_steps(self, epoch_items: int, ranks: int = 1) -> int:
        """Steps of the whole run, the last ones, in which the learning rate falls."""
        if self.steps is None:
            return math.ceil(self.decay_epochs * epoch_items / (self.batch_size * ranks))
        return self.steps // 2 if self.decay_steps is None else self.decay_steps

    def learning_rate_at(self, step: int, total: int, falling: int) -> float:
        """The rate of step ``step`` (0 is the first): constant, then linear towards zero.

        The last step still learns a little; the step after it would have rate zero
        (Zhu et al. 2017, sec. 4).

        Args:
            step: Which.
            total: Steps of the whole run, see :meth:`total_steps`.
            falling: The last of them in which the rate falls, see :meth:`falling_steps`.
        """
        return self.learning_rate * min(1.0, (total - step) / (falling + 1))

    def to_document(self) -> dict[str, Any]:
        """The options that are set, as plain values for TOML and JSON (paths as strings)."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], source: str) -> TrainConfig:
        """The reverse of :meth:`to_document`.

        Args:
            document: Field names and plain values.
            source: Where it comes from, for the error message.

        Raises:
            UsageError: An unknown name, a value of the wrong type, or one out of bounds.
        """
        return cls(**typed_values(document, source))


def layered(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``base`` with those that were ``given`` in their place.

    A length given in epochs also takes the place of one in steps.
    """
    if "steps" not in given and given.keys() & {"epochs", "decay_epochs"}:
        base = {k: v for k, v in base.items() if k not in ("steps", "decay_steps")}
    return {**base, **given}


def typed_values(document: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Check plain values against the types of :class:`TrainConfig` and convert paths.

    Raises:
        UsageError: An unknown name or a value of the wrong type.
    """
    return {name: _typed(name, value, source) for name, value in document.items()}


def _typed(name: str, value: Any, source: str) -> Any:
    if name not in field_types():
        raise UsageError(
            f"{source} sets {name!r}, which is not an option of this version",
            "See cyclegan train --help for the names (with _ for -).",
        )
    wanted = plain_type(field_types()[name])
    if isinstance(value, str) and "\0" in value:
        raise UsageError(f"{source} sets {name} to a text with a NUL character")
    if wanted is Path and isinstance(value, str) and value:
        return Path(value)
    if wanted is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if wanted == StepsOrTime and isinstance(value, str):
        return steps_or_time(value)
    if typing.get_origin(wanted) is Literal:
        wanted = str
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        kind = {
            str: "a text", int: "a whole number", float: "a number", bool: "true or false",
            StepsOrTime: "a number of steps or a duration",
        }  # fmt: skip
        raise UsageError(
            f"{source} sets {name} to {value!r}, but it must be {kind.get(wanted, 'a path')}"
        )
    return value


def duration_seconds(text: str) -> float | None:
    """``2h``, ``90m``, ``1h30m``, ``45s`` or a number of seconds; None if it is none of these."""
    number = r"(\d+(?:\.\d+)?)"
    pattern = rf"(?:{number}h)?(?:{number}m)?(?:{number}s?)?"
    match = re.fullmatch(pattern, text.replace(" ", ""), re.ASCII)
    parts = [float(part or 0) for part in match.groups()] if match else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    return seconds if 0 < seconds < math.inf else None


def steps_or_time(text: str) -> StepsOrTime:
    """An interval as the command line has it: ``500`` as a number, all else as it is."""
    return int(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else text


def is_domain_name(name: str) -> bool:
    """Whether a text can name a domain: it becomes a part of file names."""
    return bool(name.strip()) and name.isprintable() and not set(name) & set('/\\:*?"<>|')


def plain_type(hint: Any) -> Any:
    """``int | None`` to ``int``; other types as they are."""
    if isinstance(hint, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        return functools.reduce(operator.or_, parts)
    return hint


def _check_bounds(field: dataclasses.Field[Any], value: Any) -> None:
    if value is None:
        return
    name = option_name(field.name)
    choices = typing.get_args(_choices_of(field.name))
    if choices and value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, found {value!r}")
    if field_types()[field.name] == StepsOrTime and isinstance(value, str):
        # A number without a unit would be steps.
        if not value[-1:].isalpha() or duration_seconds(value) is None:
            raise UsageError(
                f"{name} must be a number of steps like 500 or a duration like 10m, 90s or 2h, "
                f"found {value!r}"
            )
        return
    minimum, maximum = field.metadata["minimum"], field.metadata["maximum"]
    if minimum is not None and not value >= minimum:  # also refuses nan
        raise UsageError(f"{name} must be at least {minimum}, found {value}")
    if maximum is not None and not value <= maximum:
        raise UsageError(f"{name} must be at most {maximum}, found {value}")


@functools.cache
def field_types() -> dict[str, Any]:
    """The type of every field of :class:`TrainConfig`, by name."""
    return typing.get_type_hints(TrainConfig)


def _choices_of(name: str) -> Any:
    hint = field_types()[name]
    return hint if typing.get_origin(hint) is Literal else None
