"""Name the outputs, and plan which image is written where before anything is translated.

Paths of millions of images do not fit in memory, so the plan keeps 16-byte digests of them:
planning takes 40 bytes per image, and 25 of them remain during the translation.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from cyclegan_cli.config import (
    ALPHA,
    COLOR_KINDS,
    STDIN_NAMES,
    STDOUT_NAMES,
    STREAM,
    BandFormat,
    TranslateConfig,
)
from cyclegan_cli.data.bands import can_hold
from cyclegan_cli.data.folder import SkippedFiles
from cyclegan_cli.data.formats import encode_options, extension_of, writable_format
from cyclegan_cli.data.image import EncodeOptions
from cyclegan_cli.data.video_formats import (
    FALLBACK_CONTAINER,
    container_of,
    is_video,
)
from cyclegan_cli.errors import UsageError
from cyclegan_cli.runtime.distributed_env import SINGLE_SHARD, Shard
from cyclegan_cli.translation.inputs import (
    InputImage,
    Inputs,
    PathList,
    ignores_case,
    refuse_missing,
)

# The format of outputs whose input format is read-only.
FALLBACK_EXTENSION = ".png"
BANDS_EXTENSION = ".tif"
IMAGES_FOLDER = "images"
IN_FOLDER = "{stem}{ext}"
BESIDE_INPUT = "{stem}_{domain}{ext}"
PLACEHOLDERS = ("stem", "ext", "domain", "parent")
DIGEST_BYTES = 16
HASH_BYTES = 8
RECORD_BYTES = 2 * DIGEST_BYTES + HASH_BYTES
CHUNK = 1 << 16
Digests = np.ndarray[Any, np.dtype[np.void]]  # [N], 16 bytes each.
Words = np.ndarray[Any, np.dtype[np.uint64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class TranslationJob(NamedTuple):
    """One image to translate.

    Attributes:
        input: Path of the image.
        output: Path of its translation.
        relative_path: Path of the image below its input folder, or its name.
    """

    input: str
    output: str
    relative_path: str = ""


@dataclass(frozen=True)
class Template:
    """A pattern of file names, see ``--name-template``.

    Attributes:
        text: The pattern, with placeholders in braces.
    """

    text: str

    def __post_init__(self) -> None:
        try:
            fields = [part[1:] for part in string.Formatter().parse(self.text)]
        except ValueError as error:
            raise self._refusal(f"has unpaired braces: {error}") from error
        for name, spec, conversion in fields:
            if name is not None and (name not in PLACEHOLDERS or spec or conversion):
                raise self._refusal(f"has an unknown placeholder {{{name}}}")
        if not any(name == "stem" for name, *_ in fields):
            raise self._refusal("has no {stem}, so all outputs would have the same name")
        if not self.text.endswith("{ext}") and not _kind_of(extension_of(self.text)):
            raise self._refusal("must end in {ext} or an extension such as .png")

    def fill(self, **values: str) -> str:
        """Return the name for an image: a path inside the output folder.

        Raises:
            UsageError: The path would lead out of it.
        """
        name = self.text.format(**values)
        parts = name.replace(os.sep, "/").split("/")
        if any(part in ("", os.curdir, os.pardir) for part in parts) or os.path.splitdrive(name)[0]:
            raise self._refusal(
                f"results in {name!r}, which is not a path inside the output folder"
            )
        return name

    def _refusal(self, reason: str) -> UsageError:
        known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        return UsageError(f"--name-template {self.text!r} {reason}", f"Placeholders: {known}.")


@dataclass(frozen=True)
class OutputNaming:
    """The path of each output.

    Attributes:
        target: Name of the target domain.
        folder: The output folder; None: each output is written beside its input.
        file: The only output.
        template: The pattern of file names.
        extension: The extension of all outputs; None: that of each input, if it is writable.
        format: How images of the target domain are written; None: as RGB. An extension whose
            format cannot hold them is replaced by that of a TIFF.
    """

    target: str
    folder: str | None = None
    file: str | None = None
    template: Template = Template(BESIDE_INPUT)
    extension: str | None = None
    format: BandFormat | None = None

    def output_of(self, source: InputImage) -> str:
        """Return the path of an image's translation.

        Raises:
            UsageError: The image was found in a folder, and there is no output folder.
        """
        if self.file is not None:
            return self.file
        if self.folder is None:
            if source.folder is not None:
                raise UsageError(
                    f"{source.folder} is a folder, which requires -o DIR",
                    "Name a folder for the translated images.",
                )
            return os.path.join(os.path.dirname(source.path), self._name_of(source))
        return os.path.join(
            self.folder, os.path.dirname(source.relative_path), self._name_of(source)
        )

    def _name_of(self, source: InputImage) -> str:
        name = os.path.basename(source.path)
        # As in pathlib, and unlike in os.path.splitext, " .jpg" has an extension.
        dot = len(name) - len(extension_of(name))
        stem, extension = (name[:dot], name[dot:]) if 0 < dot < len(name) - 1 else (name, "")
        if is_video(name):
            kept = extension if container_of(extension) else FALLBACK_CONTAINER
            chosen = self.extension if is_video(self.extension or "") else None
            return self.template.fill(
                stem=stem, ext=chosen or kept, domain=self.target, parent=self._parent_of(source)
            )
        kept = extension if writable_format(extension) else FALLBACK_EXTENSION
        if self.format is not None and not can_hold(writable_format(kept), self.format):
            kept = BANDS_EXTENSION
        chosen = None if is_video(self.extension or "") else self.extension
        return self.template.fill(
            stem=stem, ext=chosen or kept, domain=self.target, parent=self._parent_of(source)
        )

    def _parent_of(self, source: InputImage) -> str:
        if "{parent}" not in self.template.text:
            return ""
        return os.path.basename(os.path.dirname(os.path.abspath(source.path)))


def _kind_of(extension: str) -> str | None:
    """Return the format of an image or the container of a video; None: it is not written."""
    return writable_format(extension) or container_of(extension)


def resolve_naming(
    output: str | None,
    first_two: Sequence[InputImage],
    target: str,
    template: str | None = None,
    suffix: str | None = None,
    extension: str | None = None,
) -> OutputNaming:
    """Return the naming that the options select.

    Args:
        output: A file (for one input file), a folder, or None: beside each input.
        first_two: The first two inputs, or fewer.
        target: Name of the target domain.
        template: ``--name-template``.
        suffix: ``--suffix``.
        extension: The extension of all outputs, selected by ``--format``.

    Raises:
        UsageError: The options are invalid or contradict each other.
    """
    template = _template_text(template, suffix, extension)
    if output is None or _means_folder(output, first_two):
        default = BESIDE_INPUT if output is None else IN_FOLDER
        return OutputNaming(
            target, output, None, Template(default if template is None else template), extension
        )
    if template is not None:
        raise UsageError(
            f"-o {output} names a file, which excludes --suffix and --name-template",
            "Leave them out, or name a folder with a trailing /.",
        )
    if extension is not None and _kind_of(extension) != _kind_of(extension_of(output)):
        raise UsageError(
            f"-o {output} does not have the extension of --format {extension[1:]}",
            "Leave --format out.",
        )
    return OutputNaming(target, file=str(Path(output)))


def _template_text(template: str | None, suffix: str | None, extension: str | None) -> str | None:
    """Return the template that the options select; None for the default."""
    if suffix is not None and template is not None:
        raise UsageError("--suffix and --name-template exclude each other", "Give one of them.")
    if suffix is not None:
        if "/" in suffix or os.sep in suffix:
            raise UsageError(f"--suffix {suffix!r} contains a folder", "Use --name-template.")
        escaped = suffix.replace("{", "{{").replace("}", "}}")
        return f"{{stem}}{escaped}{{ext}}"
    if extension is not None and template is not None and not template.endswith("{ext}"):
        raise UsageError(
            f"--name-template {template!r} has its own extension, which excludes --format",
            "End the template in {ext}.",
        )
    return template


def _means_folder(output: str, first_two: Sequence[InputImage]) -> bool:
    """Return whether ``-o`` names a folder: an existing one, a trailing slash, or several inputs.

    Raises:
        UsageError: It names a file although a folder is required, or a file of an unknown format.
    """
    if not output:
        raise UsageError("-o is empty", "Name a file or a folder.")
    path, extension = Path(output), extension_of(Path(output).name)
    if path.is_dir() or output.endswith(("/", os.sep)):
        return True
    needs_folder = len(first_two) > 1 or any(source.folder is not None for source in first_two)
    if needs_folder and (path.is_file() or _kind_of(extension)):
        raise UsageError(
            f"-o {output} names a file, but these inputs need a folder",
            "Name a folder, with a trailing / if it looks like a file.",
        )
    if needs_folder or not (extension or path.is_file()):
        return True
    if not _kind_of(extension):
        raise UsageError(
            f"-o {output}: {extension!r} is not the extension of a format that can be written",
            "Use .png or .jpg, for example.",
        )
    return False


class TranslationPlan:
    """The jobs of this process, in the order of the inputs, without duplicates.

    The inputs are listed twice: at once, to check all of them and to keep their digests, and
    again during the translation. Files that appear in between are left for another run.

    Args:
        inputs: The images.
        naming: The paths of their translations.
        replace: Whether existing outputs may be replaced.
        shard: The shard of this process.

    Attributes:
        images: Number of images in all shards.
        skipped: A sentence about image files in folders that are not read, or empty.

    Raises:
        UsageError: Two inputs have the same output, or an output is an input, in any shard.
        DataError: An input does not exist, or a folder contains no images.
    """

    def __init__(
        self,
        inputs: Inputs,
        naming: OutputNaming,
        replace: bool = False,
        shard: Shard = SINGLE_SHARD,
    ) -> None:
        self._inputs, self._naming = inputs, naming
        self._real_folder = functools.lru_cache(maxsize=4096)(os.path.realpath)
        self._folder_ignores_case = functools.lru_cache(maxsize=4096)(ignores_case)
        builder, skipped = LedgerBuilder(), SkippedFiles()
        for source in inputs.checked(skipped):
            output = naming.output_of(source)
            # The path as written: its absolute form may differ between machines.
            path = os.path.normpath(source.path).replace(os.sep, "/")
            builder.add(self._key(source.path), self._key(output), shard_hash(os.fsencode(path)))
        self.skipped = skipped.sentence()
        # `translate photos/*.jpg` can be repeated although its outputs now match the glob, as can
        # `translate photos -o photos --suffix _night`: they are skipped. With --overwrite they
        # would be replaced, and they cannot be told from the user's own images.
        skip_outputs = naming.file is None and not replace
        self._ledger, conflicts = builder.build(skip_outputs)
        if conflicts:
            self._refuse(conflicts)
        self.images = len(self._ledger)
        self._ledger.keep_shard(shard.index, shard.count)

    def __len__(self) -> int:
        return len(self._ledger)

    def __iter__(self) -> Iterator[TranslationJob]:
        """Yield each job once, over all iterations together."""
        for source in self._inputs:
            output = self._naming.output_of(source)
            if self._ledger.take(self._key(output)):
                yield TranslationJob(source.path, output, source.relative_path)

    @property
    def folder(self) -> str | None:
        """The output folder; None if each output is written beside its input, or to a file."""
        return self._naming.folder

    def outputs(self) -> Iterator[tuple[InputImage, str]]:
        """Yield every input with its output, of all shards, also those that are not translated."""
        for source in self._inputs:
            yield source, self._naming.output_of(source)

    def _refuse(self, conflicts: Conflicts) -> NoReturn:
        """Raise an error about the first conflict."""
        writers: dict[bytes, str] = {}
        for source in self._inputs:
            output = self._naming.output_of(source)
            key = self._key(output)
            if key in conflicts.inputs:
                raise UsageError(
                    f"{output} is an input, which the output would overwrite",
                    "Name another output with -o.",
                )
            first = writers.setdefault(key, source.path) if key in conflicts.shared else source.path
            if self._key(first) != self._key(source.path):
                raise UsageError(
                    f"{first} and {source.path} would both be written to {output}",
                    "Keep their folders with --root, distinguish them with --name-template, or "
                    "translate them into two folders.",
                )
        raise UsageError("the inputs change while they are being listed", "Run the command again.")

    def _key(self, path: str) -> bytes:
        """Return a digest of the real path: the same for every path of the same file."""
        real = self._real(path)
        if self._folder_ignores_case(os.path.dirname(real)):
            real = real.casefold()
        return digest(os.fsencode(real))

    def _real(self, path: str) -> str:
        """Return the same as :func:`os.path.realpath`, which resolves every parent each time."""
        folder, name = os.path.split(path)
        if name in ("", os.curdir, os.pardir) or os.path.islink(path):
            return os.path.realpath(path)
        return os.path.join(self._real_folder(folder), name)


def plan_outputs(
    config: TranslateConfig,
    target: str,
    extension: str | None,
    listed: PathList | None = None,
    shard: Shard = SINGLE_SHARD,
    band_format: BandFormat | None = None,
) -> tuple[TranslationPlan | list[TranslationJob], EncodeOptions]:
    """Return the jobs of this process, and how their outputs are encoded.

    Args:
        config: The options. The path of standard input or output in a job is ``-``.
        target: Name of the target domain.
        extension: The extension of all outputs, selected by ``--format``.
        listed: The paths of ``--files-from``.
        shard: The shard of this process.
        band_format: How images of the target domain are written; None: as RGB.

    Raises:
        UsageError: The options are invalid or contradict each other or the inputs.
        DataError: An input does not exist, or a folder contains no images.
    """
    _refuse_for_bands(config, band_format)
    mask = None if config.mask == ALPHA else config.mask
    named = [config.output, mask, config.copy_labels, config.labels_output]
    if config.output and config.copy_labels:
        named.append(labels_folder(config.output, config.copy_labels))
    excluded = frozenset(os.path.realpath(one) for one in named if one is not None)
    root = None if config.root is None else str(config.root)
    inputs = Inputs(config.inputs, listed, config.recursive, root, excluded)
    is_piped = config.is_stream and config.inputs[0] in STDIN_NAMES
    if config.is_stream and not is_piped:
        refuse_missing(config.inputs[0], config.inputs[0])
    if config.is_stream and (config.output is None or config.output in STDOUT_NAMES):
        naming = OutputNaming(target, file=STREAM)
    else:
        first_two = [InputImage(STREAM, STREAM)] if config.is_stream else inputs.first_two()
        naming = resolve_naming(
            config.output, first_two, target, config.name_template, config.suffix, extension
        )
    naming = replace(naming, format=band_format)
    if config.is_stream and naming.file is None:
        raise UsageError(
            f"-o {config.output} names a folder, but an image on standard input has no name",
            "Name a file.",
        )
    _refuse_for_video(config, naming.file or "")
    # The format of arrays already has the bit depth.
    options = config if band_format is None else dataclasses.replace(config, bit_depth=None)
    encoding = encode_options(options, extension_of(naming.file or "") or extension)
    if config.is_stream:
        source = STREAM if is_piped else config.inputs[0]
        return [TranslationJob(source, naming.file or STREAM)], encoding
    return TranslationPlan(inputs, naming, config.existing != "skip", shard), encoding


def output_format(config: TranslateConfig, target: BandFormat | None) -> BandFormat | None:
    """Return how images of the target domain are written, by ``--bit-depth`` and ``--range``.

    Args:
        config: The options.
        target: How the checkpoint writes them; None: as RGB.

    Raises:
        UsageError: The options do not fit the domain or each other.
    """
    given, depth = config.output_range, config.bit_depth
    if target is None:
        for option, is_given in (("--range", given), ("--bit-depth 32f", depth == "32f")):
            if is_given:
                raise UsageError(
                    f"{option} is for domains that are not RGB, and the target domain is RGB",
                    "Leave it out.",
                )
        return None
    if given is None and depth is None:
        return target
    dtype = _dtype_of(target.dtype, depth, given)
    low, high = target.low, target.high
    is_float = dtype.startswith("float")
    if given is not None:
        low, high = (given[0],), (given[1],)
    elif dtype != target.dtype and not is_float:
        low, high = (0.0,), (float(np.iinfo(dtype).max),)
    if not is_float and not np.iinfo(dtype).min <= min(low) < max(high) <= np.iinfo(dtype).max:
        raise UsageError(
            f"--range {config.range} is outside of the values of {dtype}",
            "Choose another range, or --bit-depth 16 or 32f.",
        )
    nodata = target.nodata
    if nodata is not None and (low, high, dtype) != (target.low, target.high, target.dtype):
        nodata = None if is_float else float(np.iinfo(dtype).min)
    is_color = target.is_color and (target.channels, dtype) in COLOR_KINDS
    return replace(target, dtype=dtype, low=low, high=high, nodata=nodata, is_color=is_color)


def _dtype_of(own: str, depth: str | None, given: tuple[float, float] | None) -> str:
    """Return the type of ``--bit-depth``; of 16 bits the domain's own, if the range fits it."""
    if depth is None or (depth == "32f" and own.startswith("float")):
        return own
    if depth != "16":
        return {"8": "uint8", "32f": "float32"}[depth]
    is_signed = given is not None and given[0] < 0
    if own in ("int16", "uint16"):
        limits = np.iinfo(own)
        if given is None or limits.min <= given[0] < given[1] <= limits.max:
            return own
    return "int16" if is_signed else "uint16"


def labels_folder(output: str, labels: Path) -> str:
    """Return the folder to which labels are copied by default: of the same name as theirs.

    It is below the output folder, or beside it if that is named ``images``, as YOLO expects.
    """
    name = os.path.basename(os.path.realpath(labels))
    is_images = os.path.basename(os.path.normpath(output)) == IMAGES_FOLDER
    return os.path.join(os.path.dirname(os.path.normpath(output)) if is_images else output, name)


def _refuse_for_bands(config: TranslateConfig, band_format: BandFormat | None) -> None:
    """Refuse options for RGB outputs where the target domain is not RGB."""
    given = {
        "--quality": config.quality is not None,
        "--keep-profile": config.keep_profile,
        "--keep-mode": config.keep_mode,
    }
    for option, is_given in given.items():
        if band_format is not None and is_given:
            raise UsageError(
                f"{option} is for RGB outputs, and the target domain has {band_format}",
                "Leave it out.",
            )


def _refuse_for_video(config: TranslateConfig, file: str) -> None:
    """Refuse options for images if the only output is a video."""
    given = {
        "--bit-depth": config.bit_depth is not None,
        "--quality": config.quality is not None,
        "--keep-profile": config.keep_profile,
        "--keep-mode": config.keep_mode,
    }
    for option, is_given in given.items():
        if is_video(file) and is_given:
            raise UsageError(
                f"{option} is for images, and {file} is a video",
                "Leave it out; --codec and --crf select how videos are encoded.",
            )


def digest(path: bytes) -> bytes:
    """Return a 16-byte digest of a path."""
    return blake2b(path, digest_size=DIGEST_BYTES).digest()


def shard_hash(path: bytes) -> int:
    """Return a 64-bit hash of a path that is the same on every machine."""
    return int.from_bytes(blake2b(path, digest_size=HASH_BYTES, person=b"share").digest(), "big")


@dataclass(frozen=True)
class Conflicts:
    """Digests of outputs that must not be written.

    Attributes:
        shared: Outputs of two different inputs.
        inputs: Outputs that are inputs.
    """

    shared: frozenset[bytes]
    inputs: frozenset[bytes]

    def __bool__(self) -> bool:
        return bool(self.shared or self.inputs)


class LedgerBuilder:
    """Collect pairs of input and output, in any order."""

    def __init__(self) -> None:
        self._records = bytearray()

    def add(self, source: bytes, output: bytes, hash_value: int) -> None:
        """Add the digests of an input and its output, and the hash that selects the shard."""
        self._records += output + source + hash_value.to_bytes(HASH_BYTES, "big")

    def build(self, skip_outputs: bool) -> tuple[Ledger, Conflicts]:
        """Return the ledger and its conflicts.

        Args:
            skip_outputs: Whether to leave out inputs that are another input's output.
        """
        records = np.frombuffer(self._records, dtype=f"V{RECORD_BYTES}")
        # In place, by output, then input, then hash: the smallest hash of a pair comes first.
        records.sort()
        words = records.view(">u8").reshape(-1, RECORD_BYTES // 8)
        is_new = _differs_from_previous(words[:, 0:4])
        words = words if is_new.all() else words[is_new]
        if skip_outputs:
            words = words[~_are_outputs(words)]
        outputs, inputs = _digests(words[:, 0:2]), _digests(words[:, 2:4])
        inputs.sort()
        is_input = _found_in(outputs, inputs)
        is_first = _differs_from_previous(words[:, 0:2])
        conflicts = Conflicts(
            frozenset(key.tobytes() for key in outputs[~is_first]),
            frozenset(key.tobytes() for key in outputs[is_input]),
        )
        return Ledger(outputs[is_first], words[is_first, 4].astype(np.uint64)), conflicts


class Ledger:
    """The outputs to be written.

    Args:
        outputs: Sorted digests.
        hashes: Their shard hashes.
    """

    def __init__(self, outputs: Digests, hashes: Words) -> None:
        self._outputs, self._hashes = outputs, hashes
        self._taken = np.zeros(len(outputs), dtype=bool)

    def __len__(self) -> int:
        return len(self._outputs)

    def keep_shard(self, index: int, count: int) -> None:
        """Keep only shard ``index`` of ``count``."""
        mine = self._hashes % np.uint64(count) == index
        self._outputs, self._hashes = self._outputs[mine], self._hashes[mine]
        self._taken = self._taken[mine]

    def take(self, output: bytes) -> bool:
        """Mark an output as taken; return whether it is in the ledger and was not taken before."""
        position = int(self._outputs.searchsorted(np.void(output)))
        if (
            position == len(self)
            or self._outputs[position].tobytes() != output
            or self._taken[position]
        ):
            return False
        self._taken[position] = True
        return True


def _digests(words: Words) -> Digests:
    """Return words ``[N, 2]`` as digests ``[N]``."""
    return np.ascontiguousarray(words).view(f"V{DIGEST_BYTES}").reshape(-1)


def _differs_from_previous(words: Words) -> Mask:
    """Return which rows of ``[N, W]`` differ from the row before; the first does."""
    differs = np.ones(len(words), dtype=bool)
    differs[1:] = (words[1:] != words[:-1]).any(axis=1)
    return differs


def _are_outputs(words: Words) -> Mask:
    """Return which inputs are the output of another input; words are ``[N, 5]``, sorted."""
    is_own = (words[:, 0:2] == words[:, 2:4]).all(axis=1)
    return _found_in(_digests(words[:, 2:4]), _digests(words[~is_own, 0:2]))


def _found_in(sought: Digests, ordered: Digests) -> Mask:
    """Return which of ``sought`` are in ``ordered``, which is sorted."""
    if not len(ordered):
        return np.zeros(len(sought), dtype=bool)
    found = np.empty(len(sought), dtype=bool)
    for start in range(0, len(sought), CHUNK):
        part = sought[start : start + CHUNK]
        positions = np.minimum(ordered.searchsorted(part), len(ordered) - 1)
        same = ordered[positions].view("u8") == part.view("u8")
        found[start : start + CHUNK] = same.reshape(-1, 2).all(axis=1)
    return found
