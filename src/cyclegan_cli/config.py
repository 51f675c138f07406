"""Configuration dataclasses: each field defines an option's name, type, default, bounds and help.

The command line, ``config.toml`` and checkpoints all use these dataclasses.
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

Direction = Literal["a2b", "b2a"]
BOTH_DIRECTIONS: tuple[Direction, ...] = ("a2b", "b2a")
Which = Literal["latest", "best"]
Domains = tuple[str, str]
ResizeMode = Literal["short-side", "stretch"]
GanLossChoice = Literal["lsgan", "vanilla"]
Resampling = Literal["strided", "blur", "cut"]
Norms = Literal["all", "residual"]
PrecisionChoice = Literal["auto", "fp32", "tf32", "bf16"]
CompileChoice = Literal["auto", "on", "off"]
CacheChoice = Literal["auto", "ram", "none"]
BitDepthChoice = Literal["8", "16", "32f"]
ExportFormat = Literal["onnx", "pt2", "safetensors", "pth", "openvino"]
ExportPrecision = Literal["fp32", "fp16", "bf16", "int8"]
ExportDirection = Literal["a2b", "b2a", "both"]
RecipeChoice = Literal["default", "paper", "cpu"]
VideoCodec = Literal["h264", "hevc", "av1", "prores", "ffv1"]
# The share of earlier frames in the statistics of instance norms, or fixed between scene cuts.
Smoothing = float | Literal["shot"]
# A number of steps, or a duration like "10m".
StepsOrTime = int | str

# Smaller inputs leave no output of the discriminator. The generator downsamples twice by 2.
SMALLEST_CROP = 32
CROP_MULTIPLE = 4
# The paper has 6 residual blocks for 128×128 images, 9 for 256×256 (Zhu et al. 2017, sec. 7.2).
LARGEST_CROP_FOR_6_BLOCKS = 128
# Larger weights had no advantage in short trainings (docs/masks.md).
DEFAULT_MASK_WEIGHT = 1.0
# Of new runs. Runs and models of older versions have strided.
DEFAULT_RESAMPLING: Resampling = "blur"
DEFAULT_NORMS: Norms = "residual"
# With slow steps, work at time intervals must not take longer than the training itself.
LEAST_STEPS = 20
# ONNX opset versions that can be exported.
OPSET, LOWEST_OPSET = 20, 13
BYTE_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
              "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}  # fmt: skip
# Named sets of options (docs/training-your-own.md). Options and configuration files override them.
RECIPES: dict[RecipeChoice, dict[str, Any]] = {
    "default": {},
    # Zhu et al. 2017, sec. 4 and 7: no blurs, skips, moving average or color loss.
    "paper": {
        "ema": 0.0,
        "resampling": "strided",
        "norms": "all",
        "skips": False,
        "lambda_identity": 0.5,  # Sec. 5.2.
        "lambda_color": 0.0,
    },
    "cpu": {
        "load_size": 143,
        "crop_size": 128,
        "base_channels": 32,
        "discriminator_channels": 32,
        "residual_blocks": 6,
        "steps": 20_000,
    },
}
# The names under which operating systems open standard input and output.
STREAM = "-"
# The mask of an image that is its own alpha channel.
ALPHA = "alpha"
STDIN_NAMES = frozenset({STREAM, "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})
STDOUT_NAMES = frozenset({STREAM, "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})


def option(
    default: Any,
    help: str,
    *,
    panel: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    shown_default: str | None = None,
    on_resume: bool = False,
    metavar: str | None = None,
    short: str | None = None,
    argument: bool = False,
    complete: str | None = None,
) -> Any:
    """Declare a dataclass field that is also a command-line option.

    Args:
        default: The default; None if it is derived from other options, see ``shown_default``;
            ``dataclasses.MISSING`` if the option is required.
        help: One sentence.
        panel: The heading in ``--help``.
        minimum: The smallest allowed value.
        maximum: The largest allowed value.
        shown_default: The default as help shows it, if not by its value.
        on_resume: Whether a resumed run may change it.
        metavar: The placeholder in help.
        short: The one-letter flag, for example ``-o``.
        argument: Whether it is a positional argument.
        complete: What the shell completes: ``checkpoint`` or ``target``.
    """
    metadata = locals()  # All arguments, by name.
    return dataclasses.field(default=metadata.pop("default"), metadata=metadata)


# Options under one heading of ``--help``.
_data = functools.partial(option, panel="Data")
_validation = functools.partial(option, panel="Validation")
_length = functools.partial(option, panel="Length")
_networks = functools.partial(option, panel="Networks")
_objective = functools.partial(option, panel="Objective")
_machine = functools.partial(option, panel="Machine")
_output = functools.partial(option, panel="Output")
_run = functools.partial(option, panel="Run")
_inputs = functools.partial(option, panel="Inputs")
_outputs = functools.partial(option, panel="Outputs")
_computing = functools.partial(option, panel="Computing")
_pixels = functools.partial(option, panel="Pixels")
_mask = functools.partial(option, panel="Mask")
_many_images = functools.partial(option, panel="Many images")
_report = functools.partial(option, panel="Report")
_channels = functools.partial(option, panel="Channels")
_video = functools.partial(option, panel="Video")


def which_option() -> Any:
    """Return the field of ``--which``."""
    return option("latest", "Which model of a run folder.")


def to_option() -> Any:
    """Return the field of ``--to``."""
    return option(None, "Target domain, by name.", metavar="NAME", complete="target")


def direction_option() -> Any:
    """Return the field of ``--direction``."""
    return option(None, "Direction of the translation.", shown_default="a2b")


def domains_option() -> Any:
    """Return the field of ``--domains``."""
    return option(
        None,
        "Names of domains A and B, replacing the checkpoint's; the original implementation's .pth "
        "files contain none.",
        metavar="A,B",
        shown_default="the checkpoint's names, else from a name like horse2zebra, else A,B",
    )


def slice_axis_option(shown_default: str) -> Any:
    """Return the field of ``--slice-axis``."""
    return _channels(
        None,
        "Axis of NIfTI volumes along which slices are taken.",
        minimum=0,
        maximum=2,
        shown_default=shown_default,
        metavar="0|1|2",
    )


def array_option() -> Any:
    """Return the field of ``--array``."""
    return _channels(
        None,
        "Name of the array in .npz files.",
        shown_default="the only one",
        metavar="NAME",
    )


def option_name(field_name: str) -> str:
    """Return the option of a field: ``crop_size`` to ``--crop-size``."""
    return "--" + field_name.replace("_", "-")


@dataclass(frozen=True)
class GeneratorConfig:
    """Architecture of a generator.

    Attributes:
        base_channels: Output channels of the first convolution; residual blocks have four times
            as many.
        residual_blocks: Number of residual blocks.
        input_channels: 3 for RGB, 1 for grayscale images.
        output_channels: 3 for RGB, 1 for grayscale images.
        affine_norm: Whether instance norms have learned affine parameters. Only imported networks
            have them; the paper's architecture does not.
        resampling: How stages change the size. ``strided``: strided and transposed convolutions
            alone, as in the paper. ``blur``: a 3×3 binomial blur before each strided and after
            each transposed convolution (Zhang 2019). ``cut``: convolutions of stride 1, followed
            by a blur and subsampling, or preceded by bilinear upsampling (Park et al. 2020).
        norms: Where instance norms are. ``all``: after each convolution but the last, as in the
            paper; the output then does not depend on the mean and contrast of the input's
            channels. ``residual``: in the residual blocks alone.
        skips: Whether the feature maps before the residual blocks are added to those of equal size
            after them (Ronneberger et al. 2015, who concatenate them). Requires norms in the
            residual blocks alone.
    """

    base_channels: int = 64
    residual_blocks: int = 9
    input_channels: int = 3
    output_channels: int = 3
    affine_norm: bool = False
    resampling: Resampling = "strided"
    norms: Norms = "all"
    skips: bool = False

    def reversed(self) -> GeneratorConfig:
        """Return the architecture of the other direction: input and output channels exchanged."""
        return dataclasses.replace(
            self, input_channels=self.output_channels, output_channels=self.input_channels
        )


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Architecture of a discriminator.

    Attributes:
        base_channels: Output channels of the first convolution.
        scales: Number of PatchGANs; each sees images at half the size of the one before (Wang et
            al. 2018, sec. 3.2).
        input_channels: Channels of the images of its domain.
    """

    base_channels: int = 64
    scales: int = 1
    input_channels: int = 3


BAND_TYPES = ("uint8", "uint16", "int16", "float32", "float64")
MAX_CHANNELS = 256
COLOR_KINDS = ((3, "uint8"), (3, "uint16"))


@dataclass(frozen=True)
class BandFormat:
    """The images of a domain that are not 8-bit RGB: arrays ``[H, W, channels]`` of one type.

    Attributes:
        channels: Number of channels.
        dtype: Type of the values, one of ``BAND_TYPES``.
        low: Values that the networks see as -1: one for all channels, or one per channel.
        high: Values that the networks see as 1, likewise.
        bands: Bands of the file that are read, from 1; empty: all.
        nodata: Value of pixels without data; NaN always is one.
        is_color: Whether the three channels of uint8 or uint16 are red, green and blue.
    """

    channels: int
    dtype: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    bands: tuple[int, ...] = ()
    nodata: float | None = None
    is_color: bool = False

    def __post_init__(self) -> None:
        counts = {len(self.low), len(self.high)}
        pairs = zip(self.low, self.high, strict=False)
        if (
            not 1 <= self.channels <= MAX_CHANNELS
            or self.dtype not in BAND_TYPES
            or counts not in ({1}, {self.channels})
            or not all(math.isfinite(high - low) and low < high for low, high in pairs)
            or (self.bands and len(self.bands) != self.channels)
            or not all(1 <= band <= 2**16 for band in self.bands)
            or (self.nodata is not None and not math.isfinite(self.nodata))
            or (self.is_color and (self.channels, self.dtype) not in COLOR_KINDS)
        ):
            raise ValueError(self)

    @property
    def is_float(self) -> bool:
        """Whether the values are floating-point numbers, which may be NaN."""
        return self.dtype.startswith("float")

    def to_document(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = vars(self).items()
        return {name: list(one) if isinstance(one, tuple) else one for name, one in values}

    def __str__(self) -> str:
        ranges = [f"{a:g} to {b:g}" for a, b in zip(self.low, self.high, strict=True)]
        bands = f" (bands {', '.join(map(str, self.bands))})" if self.bands else ""
        nodata = "" if self.nodata is None else f", no data {self.nodata:g}"
        return f"{count_channels(self.channels)}{bands} of {self.dtype}, " + (
            f"range {'; '.join(ranges)}{nodata}"
        )


def count_channels(count: int) -> str:
    """Return ``1 channel`` or ``5 channels``."""
    return f"{count} channel{'' if count == 1 else 's'}"


# Of domain A and B; None for RGB images, which are read at 8 bits and in sRGB.
BandFormats = tuple[BandFormat | None, BandFormat | None]


@dataclass(frozen=True)
class TrainConfig:
    """Options of ``cyclegan train``.

    Raises:
        UsageError: A value is out of bounds, or two options contradict each other.
    """

    domain_a: Path | None = _data(
        None,
        "Directory of training images of domain A, searched recursively.",
        on_resume=True,
        metavar="DIR",
    )
    domain_b: Path | None = _data(
        None,
        "Directory of training images of domain B, searched recursively.",
        on_resume=True,
        metavar="DIR",
    )
    mask_a: Path | None = _data(
        None,
        "Directory of masks of domain A, named as the images: white where they are translated; "
        "requires --mask-b.",
        on_resume=True,
        metavar="DIR",
    )
    mask_b: Path | None = _data(
        None,
        "Directory of masks of domain B; requires --mask-a.",
        on_resume=True,
        metavar="DIR",
    )
    name_a: str | None = _data(
        None, "Name of domain A.", shown_default="the directory's name", metavar="NAME"
    )
    name_b: str | None = _data(
        None, "Name of domain B.", shown_default="the directory's name", metavar="NAME"
    )
    val_a: Path | None = _validation(
        None,
        "Directory of validation images of domain A; requires --val-b.",
        on_resume=True,
        shown_default="a part of --domain-a, see --val-fraction",
        metavar="DIR",
    )
    val_b: Path | None = _validation(
        None,
        "Directory of validation images of domain B; requires --val-a.",
        on_resume=True,
        shown_default="a part of --domain-b, see --val-fraction",
        metavar="DIR",
    )
    val_fraction: float = _validation(
        0.05,
        "Fraction of images held out for validation, relative to the smaller domain; 0 disables "
        "validation.",
        minimum=0,
        maximum=0.5,
    )
    val_pictures: int = _validation(
        16, "Maximum number of held-out images per domain.", minimum=2, maximum=10_000
    )
    validate_every: StepsOrTime = _validation(
        "10m",
        "Interval between validations, in steps (500) or time (10m, 2h); 0 disables validation.",
        minimum=0,
        maximum=1_000_000_000,
        on_resume=True,
        metavar="N|TIME",
    )
    patience: int = _validation(
        0,
        "Early stopping: number of validations without improvement after which training stops; "
        "0 disables early stopping.",
        minimum=0,
        maximum=1_000_000,
        on_resume=True,
    )
    kid: bool = _validation(
        False,
        "Also compute the Kernel Inception Distance (KID); downloads Inception weights once. "
        "Requires the extra [metrics].",
        on_resume=True,
    )

    load_size: int = _data(
        286,
        "Length of the short side, in pixels, to which images are resized.",
        minimum=SMALLEST_CROP,
        maximum=8192,
    )
    crop_size: int = _data(
        256,
        "Size of the random crops, in pixels; a multiple of 4.",
        minimum=SMALLEST_CROP,
        maximum=8192,
    )
    resize_mode: ResizeMode = _data(
        "short-side",
        "Resize the short side and keep the aspect ratio (short-side), or resize to a square "
        "as the original implementation does (stretch).",
    )
    strict: bool = _data(
        False,
        "Exit with an error on unreadable or tiny images instead of skipping them; checks every "
        "file before the first step.",
        on_resume=True,
    )
    flip: bool = _data(True, "Random horizontal flips.")
    workers: int | None = _data(
        None,
        "Number of threads that load images; 0 loads them in the main thread.",
        minimum=0,
        maximum=256,
        on_resume=True,
        shown_default="half the number of cores, at most 4",
    )
    cache: CacheChoice = _data(
        "auto",
        "Cache resized images in memory: if all fit into a quarter of the free memory (auto), as "
        "many as fit (ram), or none.",
        on_resume=True,
    )

    epochs: int = _length(
        100,
        "Number of epochs at the initial learning rate; an epoch is one pass over the larger "
        "domain.",
        minimum=0,
        maximum=1_000_000,
        on_resume=True,
    )
    decay_epochs: int = _length(
        100,
        "Number of epochs of the linear decay of the learning rate to zero, after --epochs.",
        minimum=0,
        maximum=1_000_000,
        on_resume=True,
    )
    steps: int | None = _length(
        None,
        "Total number of steps, instead of epochs.",
        minimum=1,
        maximum=1_000_000_000,
        on_resume=True,
        shown_default="from --epochs and --decay-epochs",
    )
    decay_steps: int | None = _length(
        None,
        "Number of steps of the linear decay of the learning rate to zero, at the end of --steps.",
        minimum=0,
        maximum=1_000_000_000,
        on_resume=True,
        shown_default="half of --steps",
    )

    init_from: Path | None = _networks(
        None,
        "Fine-tune: initialize the generators from a run directory, checkpoint or pretrained "
        "model, and use its architecture.",
        metavar="CHECKPOINT",
        shown_default="random initialization",
    )
    base_channels: int = _networks(64, "Base channels of the generators.", minimum=1, maximum=1024)
    residual_blocks: int | None = _networks(
        None,
        "Number of residual blocks of the generators.",
        minimum=1,
        maximum=64,
        shown_default="6 for crops up to 128 pixels, else 9",
    )
    resampling: Resampling | None = _networks(
        None,
        "Downsampling and upsampling of the generators: strided and transposed convolutions as in "
        "the paper (strided); the same with blurs, which prevent checkerboard patterns (blur); or "
        "the layers of CUT, which take more time (cut).",
        shown_default=f"{DEFAULT_RESAMPLING}; with --init-from, that of the checkpoint",
    )
    norms: Norms | None = _networks(
        None,
        "Instance norms of the generators: after each convolution as in the paper, which hides "
        "the brightness of the input from them (all), or in the residual blocks alone (residual).",
        shown_default=f"{DEFAULT_NORMS}; with --init-from, those of the checkpoint",
    )
    skips: bool | None = _networks(
        None,
        "Skip connections past the residual blocks, which carry details of the input to the "
        "output. Not with --norms all.",
        shown_default="on with --norms residual; with --init-from, as in the checkpoint",
    )
    discriminator_channels: int = _networks(
        64, "Base channels of the discriminators.", minimum=1, maximum=1024
    )
    discriminator_scales: int = _networks(
        1,
        "Number of PatchGANs per discriminator; each additional one sees images at half the size, "
        "and thereby larger structures.",
        minimum=1,
        maximum=3,
    )

    channels_a: int | None = _channels(
        None,
        "Number of channels of the images of domain A.",
        minimum=1,
        maximum=MAX_CHANNELS,
        shown_default="that of all images; 3 for color images",
        metavar="N",
    )
    channels_b: int | None = _channels(
        None,
        "Number of channels of the images of domain B.",
        minimum=1,
        maximum=MAX_CHANNELS,
        shown_default="that of all images; 3 for color images",
        metavar="N",
    )
    bands_a: str | None = _channels(
        None,
        "Bands of domain A to read, in this order, e.g. 4,3,2.",
        shown_default="all",
        metavar="N,N,...",
    )
    bands_b: str | None = _channels(
        None,
        "Bands of domain B to read, in this order.",
        shown_default="all",
        metavar="N,N,...",
    )
    range_a: str | None = _channels(
        None,
        "Range of values of domain A that is mapped to [-1, 1]; values outside are clipped. auto: "
        "0 to 255 for 8-bit images, else the percentiles 0.5 and 99.5 of a sample; per-channel: "
        "these percentiles of each channel.",
        shown_default="auto",
        metavar="LOW,HIGH|auto|per-channel",
    )
    range_b: str | None = _channels(
        None,
        "The same for domain B.",
        shown_default="auto",
        metavar="LOW,HIGH|auto|per-channel",
    )
    nodata: float | None = _channels(
        None,
        "Value of pixels without data, which are left out of the cycle and identity losses; NaN "
        "always is one.",
        shown_default="GDAL_NODATA of the TIFF files",
        metavar="VALUE",
    )
    slice_axis: int | None = slice_axis_option("2")
    array: str | None = array_option()
    show_bands: str | None = _channels(
        None,
        "Bands that sample grids show as red, green and blue, or one as gray, of domains that are "
        "not RGB.",
        on_resume=True,
        shown_default="1,2,3, or 1 of fewer than 3 channels",
        metavar="N,N,N",
    )

    batch_size: int = _objective(
        1, "Batch size: images of each domain per step and device.", minimum=1, maximum=4096
    )
    gan_loss: GanLossChoice = _objective(
        "lsgan",
        "GAN objective: least squares (lsgan), or binary cross-entropy with the non-saturating "
        "generator loss (vanilla).",
    )
    lambda_cycle: float = _objective(
        10.0, "Weight of the cycle-consistency loss.", minimum=0, maximum=1e6
    )
    lambda_identity: float = _objective(
        0.0,
        "Weight of the identity loss, relative to --lambda-cycle, 0.5 in the paper; 0 disables it, "
        "which saves a fifth of the time.",
        minimum=0,
        maximum=1e6,
    )
    lambda_color: float = _objective(
        0.5,
        "Weight of the color loss, relative to --lambda-cycle; it decays with the cube of the "
        "learning rate; 0 disables it. The loss is the L1 distance of 8x8-pixel means of "
        "translations to colors that optimal transport matches between the domains.",
        minimum=0,
        maximum=1e6,
    )
    mask_weight: float = _objective(
        DEFAULT_MASK_WEIGHT,
        "Weight of the cycle and identity losses outside of the masks, relative to that inside; "
        "needs --mask-a and --mask-b.",
        minimum=0,
        maximum=1e6,
    )
    pool_size: int = _objective(
        50,
        "Size of each domain's replay pool of generated images; 0 disables it.",
        minimum=0,
        maximum=100_000,
    )
    learning_rate: float = _objective(
        2e-4, "Initial learning rate of Adam.", minimum=1e-12, maximum=10, on_resume=True
    )
    beta1: float = _objective(0.5, "Adam's beta1.", minimum=0, maximum=0.9999)
    ema: float = _objective(
        0.999,
        "Decay of the exponential moving average (EMA) of the generators' weights, which "
        "model.safetensors contains; 0 disables it.",
        minimum=0,
        maximum=0.999999,
    )
    seed: int = _objective(
        0,
        "Seed for weight initialization, data order, augmentation and replay pools.",
        minimum=0,
        maximum=2**31 - 1,
    )

    device: str = _machine(
        "auto", "Device: auto, cpu, cuda, cuda:N or mps.", on_resume=True, metavar="DEVICE"
    )
    precision: PrecisionChoice = _machine(
        "auto",
        "Precision of the networks: auto is mixed precision with bf16 where the hardware supports "
        "it natively, else fp32; tf32 requires an NVIDIA GPU (Ampere or later).",
        on_resume=True,
    )
    compile: CompileChoice = _machine(
        "auto",
        "CUDA graphs and torch.compile: auto uses the former on an NVIDIA GPU; on uses both, which "
        "takes a minute or two at the start and needs a C++ compiler; off uses neither. On a CPU "
        "only on has an effect, and no benefit.",
        on_resume=True,
    )

    run_dir: Path | None = _output(
        None,
        "Run directory, to which all outputs are written.",
        shown_default="runs/A2B with the names of the domains, numbered if it exists",
        metavar="DIR",
    )
    checkpoint_every: StepsOrTime = _output(
        "10m",
        "Interval between checkpoints, in steps (500) or time (10m, 2h).",
        minimum=1,
        maximum=1_000_000_000,
        on_resume=True,
        metavar="N|TIME",
    )
    keep_checkpoints: int = _output(
        0,
        "Number of recent models to keep in checkpoints/ of the run directory.",
        minimum=0,
        maximum=1_000_000,
        on_resume=True,
    )
    sample_every: StepsOrTime = _output(
        "5m",
        "Interval between sample grids and updates of index.html, in steps (500) or time "
        "(5m, 2h); 0 disables samples.",
        minimum=0,
        maximum=1_000_000_000,
        on_resume=True,
        metavar="N|TIME",
    )
    log_every: int = _output(
        50,
        "Interval between rows of metrics.csv, in steps.",
        minimum=1,
        maximum=1_000_000_000,
        on_resume=True,
    )
    tensorboard: bool = _output(
        False,
        "Also log metrics and samples to TensorBoard. Requires the extra [tensorboard].",
        on_resume=True,
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        self._check_sizes()
        self._check_length()
        self._check_masks()
        self._check_channels()
        if self.skips and self.norms == "all":
            raise UsageError(
                "--skips requires --norms residual, found --norms all",
                "Use --norms residual or --no-skips.",
            )
        if (self.val_a is None) != (self.val_b is None):
            raise UsageError(
                "--val-a and --val-b require each other",
                "Give a directory for each domain, or neither.",
            )

    def _check_sizes(self) -> None:
        if self.crop_size > self.load_size:
            raise UsageError(
                f"--crop-size {self.crop_size} is larger than --load-size {self.load_size}",
                "Crops come from images of the load size: increase it, or use smaller crops.",
            )
        if self.crop_size % CROP_MULTIPLE:
            raise UsageError(
                f"--crop-size {self.crop_size} is not a multiple of {CROP_MULTIPLE}",
                f"Use {self.crop_size // CROP_MULTIPLE * CROP_MULTIPLE}: "
                "the generator downsamples twice by a factor of 2.",
            )
        smallest = SMALLEST_CROP * 2 ** (self.discriminator_scales - 1)
        if self.crop_size < smallest:
            raise UsageError(
                f"--discriminator-scales {self.discriminator_scales} needs crops of at least "
                f"{smallest} pixels, found --crop-size {self.crop_size}",
                "Use fewer scales or larger crops.",
            )

    def _check_channels(self) -> None:
        for domain in "ab":
            bands = parse_bands(getattr(self, f"bands_{domain}"), f"--bands-{domain}")
            channels: int | None = getattr(self, f"channels_{domain}")
            if bands and channels not in (None, len(bands)):
                raise UsageError(
                    f"--bands-{domain} selects {len(bands)} bands, and --channels-{domain} is "
                    f"{channels}",
                    f"Omit --channels-{domain}.",
                )
            parse_range(getattr(self, f"range_{domain}"), f"--range-{domain}")
        if len(parse_bands(self.show_bands, "--show-bands")) not in (0, 1, 3):
            raise UsageError(
                f"--show-bands {self.show_bands} must be one or three bands",
                "Name the bands of red, green and blue, such as 4,3,2, or one that is shown gray.",
            )
        if self.nodata is not None and not math.isfinite(self.nodata):
            raise UsageError(
                f"--nodata {self.nodata:g} is not a finite number",
                "Omit it: NaN is always treated as no data.",
            )

    def channels(self, domain: str) -> int:
        """Number of channels of domain ``a`` or ``b``: 3 unless it is set."""
        chosen: int | None = getattr(self, f"channels_{domain}")
        return chosen or 3

    def generator_config(self, direction: Direction = "a2b") -> GeneratorConfig:
        """Architecture of the generator of a direction."""
        source, target = map(self.channels, direction.split("2"))
        return dataclasses.replace(self.generator, input_channels=source, output_channels=target)

    def discriminator_config(self, domain: str) -> DiscriminatorConfig:
        """Architecture of the discriminator of domain ``a`` or ``b``."""
        return dataclasses.replace(self.discriminator, input_channels=self.channels(domain))

    @property
    def identity_weight(self) -> float:
        """Weight of the identity loss; 0 if the domains have different numbers of channels."""
        return self._relative_weight(self.lambda_identity)

    @property
    def color_weight(self) -> float:
        """Initial weight of the color loss; 0 if the domains have different channel numbers."""
        return self._relative_weight(self.lambda_color)

    def _relative_weight(self, weight: float) -> float:
        """Return a weight relative to the cycle loss, of a loss that compares both domains."""
        return self.lambda_cycle * weight if self.channels("a") == self.channels("b") else 0.0

    def _check_masks(self) -> None:
        if (self.mask_a is None) != (self.mask_b is None):
            given, missing = ("a", "b") if self.mask_a else ("b", "a")
            raise UsageError(
                f"--mask-{given} needs --mask-{missing}",
                "The discriminators compare only what is inside of masks, in both domains.",
            )
        if self.mask_a is None and self.mask_weight != DEFAULT_MASK_WEIGHT:
            raise UsageError("--mask-weight needs masks", "Give --mask-a and --mask-b.")

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
                "The decay is part of --steps.",
            )
        if self.steps is None and self.epochs + self.decay_epochs == 0:
            raise UsageError(
                "--epochs 0 and --decay-epochs 0 leave nothing to train", "Give one of them."
            )

    @property
    def generator_blocks(self) -> int:
        """Number of residual blocks; by default the paper's choice for the crop size."""
        if self.residual_blocks is not None:
            return self.residual_blocks
        return 6 if self.crop_size <= LARGEST_CROP_FOR_6_BLOCKS else 9

    @property
    def discriminator(self) -> DiscriminatorConfig:
        """Architecture of the discriminators."""
        return DiscriminatorConfig(self.discriminator_channels, self.discriminator_scales)

    @property
    def generator(self) -> GeneratorConfig:
        """Architecture of the generators."""
        norms = self.norms or DEFAULT_NORMS
        return GeneratorConfig(
            self.base_channels,
            self.generator_blocks,
            resampling=self.resampling or DEFAULT_RESAMPLING,
            norms=norms,
            skips=norms == "residual" if self.skips is None else self.skips,
        )

    def total_steps(self, epoch_items: int, ranks: int = 1) -> int:
        """Total number of steps of the run.

        Args:
            epoch_items: Images of each domain per epoch.
            ranks: Number of processes, each of which has its own batch.
        """
        if self.steps is not None:
            return self.steps
        items = (self.epochs + self.decay_epochs) * epoch_items
        return math.ceil(items / (self.batch_size * ranks))

    def num_decay_steps(self, epoch_items: int, ranks: int = 1) -> int:
        """Number of steps, at the end of the run, during which the learning rate decays."""
        if self.steps is None:
            return math.ceil(self.decay_epochs * epoch_items / (self.batch_size * ranks))
        return self.steps // 2 if self.decay_steps is None else self.decay_steps

    def learning_rate_at(self, step: int, total: int, decay: int) -> float:
        """Learning rate schedule: constant, then linear decay to zero (Zhu et al. 2017, sec. 4).

        The rate would reach zero one step after the last.

        Args:
            step: Zero-based step.
            total: Total number of steps, see :meth:`total_steps`.
            decay: Number of decay steps, see :meth:`num_decay_steps`.
        """
        return self.learning_rate * min(1.0, (total - step) / (decay + 1))

    def to_document(self) -> dict[str, Any]:
        """Return the options that are not None, as values for TOML and JSON (paths as strings)."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], source: str) -> TrainConfig:
        """Build a configuration from a document, the inverse of :meth:`to_document`.

        Args:
            document: Values by field name.
            source: Origin of the document, for error messages.

        Raises:
            UsageError: An unknown name, a value of the wrong type, or one out of bounds.
        """
        return cls(**typed_values(document, source))


@dataclass(frozen=True)
class TrainRunConfig:
    """The options of ``cyclegan train`` that are not part of a run's configuration.

    Raises:
        UsageError: Options exclude each other, or ``time_limit`` is not a duration.
    """

    config: Path | None = _run(
        None, "TOML file with options; options on the command line take precedence.", metavar="FILE"
    )
    recipe: RecipeChoice = _run(
        "default",
        "Named set of options, overridden by --config and by options on the command line: paper is "
        "the original method; cpu trains a small model at 128 pixels, in hours instead of days.",
    )
    resume: Path | None = _run(
        None, "Resume this run from its last checkpoint. Needs no other option.", metavar="RUN"
    )
    time_limit: str | None = _run(
        None,
        "Save and stop after this time, such as 2h or 90m. Continue with --resume.",
        metavar="TIME",
        shown_default="none",
    )
    dry_run: bool = _run(
        False,
        "Check the images and the disk, run a few steps, and report the settings, memory, time and "
        "disk space of the training. Writes nothing.",
    )
    full: bool = _run(False, "With --dry-run, check every image instead of a sample.")
    json: bool = _run(False, "With --dry-run, print JSON.")
    quiet: bool = _run(False, "Show no progress.", short="-q")
    verbose: bool = _run(False, "Also show the device, the networks and the caching.", short="-v")

    def __post_init__(self) -> None:
        refuse_both("--verbose", "--quiet", self.verbose and self.quiet)
        if self.time_limit is not None and duration_seconds(self.time_limit) is None:
            raise UsageError(
                f"--time-limit must be a duration like 2h, 90m or 1h30m, found {self.time_limit!r}",
                "A number alone is seconds.",
            )
        for name, is_given in (("--full", self.full), ("--json", self.json)):
            if is_given and not self.dry_run:
                raise UsageError(f"{name} needs --dry-run", "Give both, or omit it.")
        for name, is_given in (
            ("--config", self.config is not None),
            ("--recipe", self.recipe != "default"),
        ):
            if is_given and self.resume is not None:
                raise UsageError(
                    f"--resume and {name} exclude each other", "A run has its own options."
                )

    @property
    def time_limit_seconds(self) -> float:
        """``time_limit`` in seconds; infinity if there is none."""
        seconds = None if self.time_limit is None else duration_seconds(self.time_limit)
        return math.inf if seconds is None else seconds


# Skip existing outputs, replace them, or replace those that are older than their input.
Existing = Literal["skip", "overwrite", "if-newer"]


class _NamesDomains:
    domains: str | None

    @functools.cached_property
    def domain_names(self) -> Domains | None:
        """The two names in ``--domains``."""
        return parse_domains(self.domains)


@dataclass(frozen=True)
class TranslateConfig(_NamesDomains):
    """The options of ``cyclegan translate``.

    Raises:
        UsageError: A value is out of bounds, or two values contradict each other.
    """

    inputs: tuple[str, ...] = option(
        (), "Images, folders or globs; - for standard input.", metavar="INPUT", argument=True
    )
    checkpoint: Path | None = option(
        None,
        "A checkpoint file, a run folder, a model in the package (cyclegan inspect --models), or a "
        ".pth file of the original implementation.",
        metavar="FILE|RUN|NAME",
        shown_default="$CYCLEGAN_CHECKPOINT, else the newest run under ./runs, else day2night",
        complete="checkpoint",
    )
    which: Which = which_option()
    to: str | None = to_option()
    direction: Direction | None = direction_option()
    domains: str | None = domains_option()
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps.", metavar="DEVICE")

    files_from: str | None = _inputs(
        None,
        "File with further inputs, one path per line, without globs; - for standard input.",
        metavar="LIST",
    )
    null: bool = _inputs(
        False, "Paths in LIST are separated by NUL bytes, as find -print0 writes them.", short="-0"
    )
    recursive: bool = _inputs(True, "Search folders recursively.")
    root: Path | None = _inputs(
        None,
        "Reproduce the folders below DIR in the output folder.",
        metavar="DIR",
        shown_default="the input folder",
    )

    output: str | None = _outputs(
        None,
        "Output file for a single image, else output folder (required if an input is a folder); "
        "- for standard output.",
        metavar="FILE|DIR",
        shown_default="beside the input, as photo_DOMAIN.jpg",
        short="-o",
    )
    suffix: str | None = _outputs(
        None,
        "Text appended to file names, before the extension.",
        metavar="TEXT",
        shown_default="none in an output folder, else _DOMAIN",
    )
    name_template: str | None = _outputs(
        None, "Pattern of file names, e.g. '{parent}-{stem}_{domain}{ext}'.", metavar="TEMPLATE"
    )
    copy_labels: Path | None = _outputs(
        None,
        "Copy the labels of each translated image from DIR, by its name: YOLO .txt, Pascal VOC "
        ".xml, masks, and COCO .json files without the images that were not translated.",
        metavar="DIR",
    )
    labels_output: Path | None = _outputs(
        None,
        "Output folder of the labels.",
        metavar="DIR",
        shown_default="labels in the output folder; beside it if that is named images",
    )
    overwrite: bool = _outputs(False, "Replace existing outputs instead of skipping them.")
    if_newer: bool = _outputs(False, "Replace existing outputs that are older than their input.")

    precision: PrecisionChoice = _computing(
        "auto",
        "Floating-point format. auto: bf16 if the hardware supports it and a probe image reaches "
        "a PSNR of 40 dB against fp32, else fp32, which is exact. tf32 needs an NVIDIA GPU from "
        "Ampere on.",
    )
    max_memory: str | None = _computing(
        None,
        "Limit for the memory of this process or of the GPU, e.g. 4GB.",
        metavar="SIZE",
        shown_default="the free memory",
    )
    max_megapixels: float | None = _computing(
        None,
        "Refuse images with more pixels, all frames counted: a small file can declare more than "
        "any memory holds.",
        minimum=0.01,
        maximum=1_000_000,
        metavar="N",
        shown_default="179",
    )
    resize: int | None = _computing(
        None,
        "Translate larger images at this short side and scale the result back up.",
        minimum=8,
        maximum=100_000,
        metavar="PIXELS",
    )
    compile: bool = _computing(
        False,
        "Compile the network, which pays off for many images on a GPU; needs a C++ compiler. No "
        "effect on a CPU.",
    )

    format: str | None = _pixels(
        None,
        "Format of all outputs: jpg, png, webp, tiff, ...",
        metavar="NAME",
        shown_default="the input's, or png if that is read-only",
    )
    quality: int | None = _pixels(
        None,
        "Quality for lossy formats (jpg, webp, avif, heic).",
        minimum=1,
        maximum=100,
        metavar="1..100",
        shown_default="that of a JPEG input, else 85 to 92",
    )
    bit_depth: BitDepthChoice | None = _pixels(
        None,
        "Bits per channel; 16 for png and tiff. 32f: floating-point numbers, in domains that are "
        "not RGB.",
        shown_default="the input's, if the format supports it; else that of the target domain",
    )
    keep_profile: bool = _pixels(False, "Write in the input's color profile instead of sRGB.")
    keep_mode: bool = _pixels(
        False, "Keep gray, CMYK or palette images in their mode instead of RGB."
    )

    range: str | None = _channels(
        None,
        "Values to which the range of the target domain is mapped; with --bit-depth, by default "
        "all values of 8 or 16 bits.",
        shown_default="the range of the domain",
        metavar="LOW,HIGH",
    )
    slice_axis: int | None = slice_axis_option("that of the training, else 2")
    array: str | None = array_option()
    anonymize: bool = _channels(
        False,
        "Remove from DICOM and NIfTI outputs what identifies the patient; text in the pixels "
        "stays.",
    )

    smooth: str = _video(
        "0.9",
        "Share of earlier frames in the statistics of each frame, 0 to 1, or shot: they are the "
        "same between two scene cuts. Less flickers more; 0 translates frame by frame.",
        metavar="0..1|shot",
    )
    codec: VideoCodec | None = _video(
        None, "Codec of videos.", shown_default="h264, or av1 in .webm"
    )
    crf: int | None = _video(
        None,
        "Quality of h264, hevc (0 to 51) and av1 (0 to 63): less is better and larger.",
        minimum=0,
        maximum=63,
        metavar="N",
        shown_default="18, 20 or 24",
    )
    start: str | None = _video(
        None, "Translate from this time on: seconds, M:SS or H:MM:SS.", metavar="TIME"
    )
    end: str | None = _video(None, "Translate up to this time.", metavar="TIME")
    every: int = _video(
        1, "Translate only the first of every N frames.", minimum=1, maximum=1_000_000, metavar="N"
    )

    mask: str | None = _mask(
        None,
        "Translate only where this image is white: a file for all images, a folder of masks with "
        "the names of the images, or alpha for each image's own alpha channel. The mask of a video "
        "may be a video. Elsewhere, pixels equal the input bit for bit in lossless formats.",
        metavar="FILE|DIR|alpha",
    )
    mask_invert: bool = _mask(False, "Translate where the mask is black instead.")
    mask_feather: int = _mask(
        0,
        "Fade the translation in over this distance, inside of the mask and in linear light.",
        minimum=0,
        maximum=500,
        metavar="PX",
    )

    workers: int | None = _many_images(
        None,
        "Number of decoding threads, and of encoding threads.",
        minimum=1,
        maximum=64,
        metavar="N",
        shown_default="1 on a CPU, else half the cores up to 8",
    )
    shard: str | None = _many_images(
        None, "Translate the K-th of N disjoint shards of the images, K from 1.", metavar="K/N"
    )
    fail_fast: bool = _many_images(False, "Stop at the first image that fails.")

    min_structure: float | None = _outputs(
        None,
        "Do not write translations whose structure score is lower: 1 if all edges are kept in "
        "place, about 0 if none is.",
        minimum=-1.0,
        maximum=1.0,
        metavar="S",
    )

    json: bool = _report(
        False, "Print one JSON object per image on stdout as images complete, then a summary."
    )
    json_frames: bool = _report(
        False, "Also print one JSON object per translated frame of a video."
    )
    cycle_error: bool = _report(
        False,
        "Also translate each image back, and report the mean difference to the input in --json.",
    )
    ordered: bool = _report(False, "Report images in the order of the inputs.")
    quiet: bool = _report(False, "Report failures only.", short="-q")
    verbose: bool = _report(
        False, "Also report the device, the precision and the time per image.", short="-v"
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        refuse_both("--verbose", "--quiet", self.verbose and self.quiet)
        refuse_both("--overwrite", "--if-newer", self.overwrite and self.if_newer)
        refuse_both("--to", "--direction", bool(self.to is not None and self.direction))
        # Refuses invalid texts now.
        _ = self.domain_names, self.max_memory_bytes, self.output_range, self.smoothing
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0):
            raise UsageError(f"--end {self.end} is not behind --start", "Give a later time.")
        if self.json_frames and not self.json:
            raise UsageError("--json-frames needs --json", "Give both.")
        if not self.inputs and self.files_from is None:
            raise UsageError("INPUT is missing", "Name an image, a folder or a glob.")
        if self.root is not None and self.output is None:
            raise UsageError("--root needs an output folder", "Name one with -o.")
        if self.mask is None and (self.mask_invert or self.mask_feather):
            given = "--mask-invert" if self.mask_invert else "--mask-feather"
            raise UsageError(f"{given} needs a mask", "Name one with --mask.")
        if self.labels_output is not None and self.copy_labels is None:
            raise UsageError("--labels-output needs labels", "Name them with --copy-labels.")
        if self.cycle_error and not self.json:
            raise UsageError("--cycle-error is reported in --json", "Give both.")
        if self.null and self.files_from is None:
            raise UsageError("--null needs a list of paths", "Give it with --files-from.")

    @functools.cached_property
    def max_memory_bytes(self) -> int | None:
        """``--max-memory`` in bytes."""
        return None if self.max_memory is None else parse_memory(self.max_memory)

    @functools.cached_property
    def output_range(self) -> tuple[float, float] | None:
        """``--range`` as two numbers."""
        if self.range in ("auto", "per-channel"):
            raise UsageError(f"--range {self.range} is an option of train", "Give two numbers.")
        return parse_range(self.range, "--range")

    @functools.cached_property
    def start_seconds(self) -> float | None:
        """``--start`` in seconds."""
        return parse_time(self.start, "--start")

    @functools.cached_property
    def end_seconds(self) -> float | None:
        """``--end`` in seconds."""
        return parse_time(self.end, "--end")

    @functools.cached_property
    def smoothing(self) -> Smoothing:
        """``--smooth`` as a number, or ``shot``."""
        return parse_smoothing(self.smooth)

    @property
    def existing(self) -> Existing:
        """What to do about existing outputs."""
        return "overwrite" if self.overwrite else "if-newer" if self.if_newer else "skip"

    @property
    def is_stream(self) -> bool:
        """Whether an image is read from standard input or written to standard output."""
        return not STDIN_NAMES.isdisjoint(self.inputs) or self.output in STDOUT_NAMES


@dataclass(frozen=True)
class ExportConfig(_NamesDomains):
    """The options of ``cyclegan export``.

    Raises:
        UsageError: A value is out of bounds, or two values contradict each other.
    """

    checkpoint: Path = option(
        dataclasses.MISSING,
        "A checkpoint file, a run folder, a model in the package, or a .pth file of the original "
        "implementation.",
        metavar="CHECKPOINT",
        argument=True,
        complete="checkpoint",
    )
    output: str | None = option(
        None,
        "Output file; a folder if each direction is written to its own file.",
        metavar="FILE|DIR",
        shown_default="day2night.onnx, by the domains",
        short="-o",
    )
    format: ExportFormat = option(
        "onnx", "Output format; onnx needs the extra [onnx], openvino [openvino]."
    )
    to: str | None = to_option()
    direction: ExportDirection | None = direction_option()
    domains: str | None = domains_option()
    precision: ExportPrecision = option(
        "fp32",
        "Data type of the weights. onnx: fp32, fp16, int8; pt2, pth and openvino: fp32, fp16; "
        "safetensors: fp32, fp16, bf16.",
    )
    which: Which = which_option()
    image_io: bool = option(
        False, "Take and return uint8 pixel values of shape [B, H, W, 3]. For onnx and openvino."
    )
    opset: int | None = option(
        None,
        "ONNX opset version, for older runtimes: 13 to 20; 18 to 20 with --image-io or int8.",
        minimum=LOWEST_OPSET,
        maximum=OPSET,
        metavar="N",
        shown_default=str(OPSET),
    )
    calibration: Path | None = option(
        None,
        "Folder of at least 8 images of the source domain; int8 is calibrated on three quarters "
        "of them and verified on the rest.",
        metavar="DIR",
    )
    min_psnr: float | None = option(
        None,
        "Minimum PSNR of an int8 model against the network, in dB; a worse model is not written.",
        minimum=0.0,
        maximum=100.0,
        metavar="DB",
        shown_default="35",
    )
    overwrite: bool = option(False, "Replace existing files.")
    json: bool = option(False, "Print one JSON object per file on stdout.")

    def __post_init__(self) -> None:
        check_bounds(self)
        refuse_both("--to", "--direction", bool(self.to is not None and self.direction))
        _ = self.domain_names  # Refuses an invalid text now.


QUALITY = "Quality of translations"


@dataclass(frozen=True)
class InspectConfig:
    """The options of ``cyclegan inspect``.

    Raises:
        UsageError: Neither a path nor ``--models`` is given, or both are; or an option requires or
            excludes ``--against``.
    """

    paths: tuple[Path, ...] = option(
        (),
        "Run folders, checkpoints (.safetensors, .pth), exported models (.onnx, .xml, .pt2), "
        "folders of images, images; names of models in the package.",
        metavar="PATH",
        argument=True,
    )
    models: bool = option(False, "List the models in the package.")
    weights: bool = option(
        False, "List all tensors: name, dtype, shape, and statistics of their elements."
    )
    receptive_field: bool = option(
        False, "Show the receptive field, and GFLOP and memory per megapixel."
    )
    full: bool = option(
        False, "Compute the colors of a folder from all images instead of a sample of 100."
    )
    json: bool = option(False, "Print JSON on stdout, one object per path or comparison.")
    against: Path | None = option(
        None,
        "Measure the distance of PATH, a folder of translations, to this folder of images of the "
        "target domain: SWD, KID and FID.",
        panel=QUALITY,
        metavar="DIR",
    )
    pairs: Path | None = option(
        None,
        "Folder with the ground truth of each translation, matched by file name: also compute L1, "
        "PSNR and SSIM.",
        panel=QUALITY,
        metavar="DIR",
    )
    inputs: Path | None = option(
        None,
        "Folder of the images that were translated: also measure them unchanged.",
        panel=QUALITY,
        metavar="DIR",
    )
    size: int | None = option(
        None,
        "Side in pixels to which center squares are resized for SWD, L1, PSNR and SSIM.",
        panel=QUALITY,
        minimum=16,
        maximum=2048,
        shown_default="256",
    )
    inception: bool = option(
        True,
        "Compute KID and FID; downloads Inception weights once. Requires the extra [metrics].",
        panel=QUALITY,
    )
    inception_weights: Path | None = option(
        None,
        "File with the Inception weights, instead of the downloaded ones.",
        panel=QUALITY,
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        self._check_quality_options()
        if self.models == bool(self.paths):
            raise UsageError(
                "--models lists the models in the package and takes no PATH"
                if self.models
                else "PATH is missing",
                "Name a file or folder, or use --models alone.",
            )

    def _check_quality_options(self) -> None:
        """Check the options that ``--against`` requires or excludes.

        Raises:
            UsageError: One is given without it, or with it.
        """
        if self.against is None:
            needing = ("pairs", "inputs", "size", "inception_weights")
            given = [name for name in needing if getattr(self, name) is not None]
            given += [] if self.inception else ["no_inception"]
            if given:
                raise UsageError(
                    f"{option_name(given[0])} requires --against",
                    "Name a folder of images of the target domain with --against.",
                )
            return
        for name in ("models", "weights", "receptive_field", "full"):
            if getattr(self, name):
                raise UsageError(
                    f"--against and {option_name(name)} exclude each other", "Give one of them."
                )
        if len(self.paths) != 1:
            raise UsageError(
                f"--against takes one PATH, a folder of translations, not {len(self.paths)}",
                "Run the command once for each folder.",
            )
        if self.inception_weights is not None and not self.inception:
            raise UsageError(
                "--inception-weights and --no-inception exclude each other", "Give one of them."
            )


def layered(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Override options of ``base`` by those in ``given``.

    A length in epochs also overrides a length in steps.
    """
    if "steps" not in given and given.keys() & {"epochs", "decay_epochs"}:
        base = {k: v for k, v in base.items() if k not in ("steps", "decay_steps")}
    return {**base, **given}


def typed_values(document: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Check plain values against the types of :class:`TrainConfig` and convert paths.

    Raises:
        UsageError: An unknown name or a value of the wrong type.
    """
    hints = field_types(TrainConfig)
    return {name: _typed(hints, name, value, source) for name, value in document.items()}


def _typed(hints: Mapping[str, Any], name: str, value: Any, source: str) -> Any:
    if name not in hints:
        raise UsageError(
            f"{source} sets {name!r}, which is not an option of this version",
            "See cyclegan train --help for the names (with _ for -).",
        )
    wanted = plain_type(hints[name])
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
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(hint) if part is not types.NoneType]
        return functools.reduce(operator.or_, parts)
    return hint


def check_bounds(config: Any) -> None:
    """Check every field of a config against its choices and bounds.

    Raises:
        UsageError: A value is none of the choices, or out of bounds.
    """
    hints = field_types(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            _check_value(field, plain_type(hints[field.name]), value)


def _check_value(field: dataclasses.Field[Any], kind: Any, value: Any) -> None:
    name = option_name(field.name)
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    if choices and value not in choices:
        raise UsageError(f"{name} must be one of {', '.join(choices)}, found {value!r}")
    if kind == StepsOrTime and isinstance(value, str):
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


def field_types(config_class: type[Any]) -> dict[str, Any]:
    """Return the type of every field of a config class, by name."""
    return typing.get_type_hints(config_class)


def parse_domains(text: str | None) -> Domains | None:
    """Return the two names in ``--domains``; None if it is not given.

    Raises:
        UsageError: There are not two different names.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or names[0] == names[1] or not all(map(is_domain_name, names)):
        raise UsageError(
            f"--domains {text}: expected two different names",
            "Name domain A and domain B, separated by a comma: --domains day,night.",
        )
    return names[0], names[1]


def parse_bands(text: str | None, option: str) -> tuple[int, ...]:
    """Return the numbers in a list of bands such as ``4,3,2``; empty if it is not given.

    Raises:
        UsageError: It is not a list of different numbers from 1.
    """
    if text is None:
        return ()
    numbers = [part.strip() for part in text.split(",")]
    bands = [int(part) for part in numbers if re.fullmatch(r"[1-9]\d{0,3}", part, re.ASCII)]
    if len(bands) != len(numbers) or len(bands) > MAX_CHANNELS:
        raise UsageError(
            f"{option} {text!r} is not a list of bands", "Number them from 1, as in 4,3,2."
        )
    return tuple(bands)


def parse_range(text: str | None, option: str) -> tuple[float, float] | None:
    """Return the two values of a range ``LOW,HIGH``; None for ``auto`` and ``per-channel``.

    Raises:
        UsageError: It is none of them.
    """
    if text in (None, "auto", "per-channel"):
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(high - low) and low < high):
        raise UsageError(
            f"{option} {text!r} is not a range",
            "Give two numbers such as -1000,3000, auto, or per-channel.",
        )
    return low, high


def parse_time(text: str | None, option: str) -> float | None:
    """Return a time such as ``90``, ``1:30`` or ``0:01:30.5`` in seconds; None if not given.

    Raises:
        UsageError: It is not a time.
    """
    if text is None:
        return None
    if not re.fullmatch(r"(\d+:)?(\d+:)?\d+(\.\d+)?", text, re.ASCII):
        raise UsageError(
            f"{option} {text!r} is not a time", "Give seconds, M:SS or H:MM:SS, as in 1:30."
        )
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def parse_smoothing(text: str) -> Smoothing:
    """Return ``--smooth`` as a number in [0, 1], or ``shot``.

    Raises:
        UsageError: It is neither.
    """
    if text == "shot":
        return "shot"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UsageError(f"--smooth {text!r} is neither shot nor a number from 0 to 1")
    return value


def parse_memory(text: str) -> int:
    """Return a size such as ``4GB``, ``800MB``, ``4GiB`` or ``65536`` in bytes.

    Raises:
        UsageError: It is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMGT]?I?)B?", text.strip().upper())
    size = float(match[1]) * BYTE_UNITS.get(match[2], 0) if match else 0
    if size < 1:
        raise UsageError(
            f"--max-memory must be a size like 4GB or 800MB, found {text!r}",
            "GB are 10^9 bytes, GiB 2^30.",
        )
    return int(size)


def refuse_both(first: str, second: str, given: bool) -> None:
    """Refuse two options that exclude each other.

    Raises:
        UsageError: Both are given.
    """
    if given:
        raise UsageError(f"{first} and {second} exclude each other", "Give one of them.")
