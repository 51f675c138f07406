"""Quality of a folder of translations: distances to the target domain and to ground truth."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.data.folder import SkippedFiles, list_images, subsample
from cyclegan_cli.errors import CycleGANError, DataError
from cyclegan_cli.inspection.pairing import match_names
from cyclegan_cli.inspection.summary import SCHEMA, Facts
from cyclegan_cli.metrics import paired
from cyclegan_cli.metrics.bootstrap import RESAMPLES, interval, mean_interval, resample_counts
from cyclegan_cli.metrics.distances import SlicedWasserstein
from cyclegan_cli.metrics.features import (
    frechet_distance,
    kernel_distance,
    resampled_frechet_distance,
    resampled_kernel_distance,
)
from cyclegan_cli.metrics.inception import FEATURES, Inception, load_inception
from cyclegan_cli.metrics.loading import center_square, decode_whole

DEFAULT_SIZE = 256
# Bounds of memory and time.
MAX_SWD_IMAGES = 500
MAX_FID_RESAMPLED = 1000  # Each bootstrap sample requires a singular value decomposition.
PAIRED = {"l1": paired.l1, "psnr": paired.psnr, "ssim": paired.ssim}
TRANSLATIONS, INPUTS, HALVES = "translations", "inputs", "target_halves"
SEED, TARGET_SEED = 1, 2  # Of bootstrap samples.


@dataclass(frozen=True)
class MeasureRequest:
    """What is compared, and how.

    Attributes:
        translations: Folder of translations.
        target: Folder of images of the target domain.
        inputs: Folder of the images that were translated, if any.
        truth: Folder of ground truth, if any.
        size: Side in pixels to which center squares are resized.
        inception: Whether to compute KID and FID.
        inception_weights: File with the weights of the Inception network; None: torch hub's cache
            or a download.
    """

    translations: Path
    target: Path
    inputs: Path | None = None
    truth: Path | None = None
    size: int = DEFAULT_SIZE
    inception: bool = True
    inception_weights: Path | None = None


@dataclass(frozen=True)
class Measurement:
    """The result.

    Attributes:
        facts: Plain values by name, fit for JSON (docs/inspect.md).
        problems: Messages about images that cannot be read.
    """

    facts: Facts
    problems: list[str]

    def to_document(self) -> Facts:
        """Return plain values for JSON."""
        return {"schema": SCHEMA, "kind": "translations", **self.facts}


@dataclass
class _ImageSet:
    """A folder of images as it is compared.

    Attributes:
        paths: Images that were read.
        squares: uint8 center squares of at most 500 of them, ``[N, 3, size, size]``.
        features: Inception features of all, ``[M, 2048]``, or ``[0, 2048]`` without the network.
        pairs: Images that have a ground truth, each with its metrics.
    """

    paths: list[Path]
    squares: Tensor
    features: Tensor
    pairs: list[Facts] = field(default_factory=list)

    def part(self, start: int) -> _ImageSet:
        """Return every second image, beginning at ``start``."""
        parts = self.squares[start::2], self.features[start::2]
        return _ImageSet(self.paths[start::2], *parts)


def measure(request: MeasureRequest, log: Callable[[str], None]) -> Measurement:
    """Measure the distance of translations to the target domain.

    Args:
        request: The folders and options.
        log: Receives messages, for example before a download.

    Raises:
        DataError: A folder is missing, has no readable image, or no translation has a ground truth;
            or the given Inception weights cannot be read.
        UsageError: Inception weights are given, but torch-fidelity is not installed.
    """
    folders = {
        name: folder
        for name, folder in {
            TRANSLATIONS: request.translations,
            "target": request.target,
            INPUTS: request.inputs,
            "truth": request.truth,
        }.items()
        if folder is not None
    }
    listed = {name: _listed(folder) for name, folder in folders.items()}
    pairings = _pairings(folders, listed)
    inception, reason = _inception(request, log)
    reader = _Reader(request.size, inception)
    sets = {
        name: reader.read(folder, listed[name], pairings.get(name, {}))
        for name, folder in folders.items()
        if name != "truth"
    }
    target = sets.pop("target")
    columns = {name: (images, target) for name, images in sets.items()}
    if len(target.squares) > 1:
        columns[HALVES] = (target.part(0), target.part(1))
    facts: Facts = {
        "path": str(request.translations),
        "against": str(request.target),
        "size": request.size,
        "resamples": RESAMPLES,
        "images": {name: len(one.paths) for name, one in {**sets, "target": target}.items()},
        "swd": {name: _swd(*pair) for name, pair in columns.items()},
        **{
            name: None if inception is None else {
                column: function(*pair) for column, pair in columns.items()
            }
            for name, function in {"kid": _kid, "fid": _fid}.items()
        },
        "inception": _inception_facts(inception, reason),
    }  # fmt: skip
    if request.truth is not None:
        facts["pairs"] = _pair_facts(sets, listed[TRANSLATIONS], pairings[TRANSLATIONS])
    facts["warnings"] = _warnings(facts, inception)
    facts["problems"] = reader.problems
    return Measurement(facts, reader.problems)


def _listed(folder: Path) -> list[Path]:
    """Return the images of a folder.

    Raises:
        DataError: It is missing, or has none.
    """
    skipped = SkippedFiles()
    images = list_images(folder, skipped)
    if not images:
        sentence = skipped.sentence()
        raise DataError(f"{folder} has no images", f"{sentence}." if sentence else "")
    return images


def _pairings(
    folders: dict[str, Path], listed: dict[str, list[Path]]
) -> dict[str, dict[Path, Path]]:
    """Return the ground truth of translations and inputs.

    Raises:
        DataError: No translation has one.
    """
    if "truth" not in folders:
        return {}
    found = {
        name: match_names(listed[name], folders[name], listed["truth"], folders["truth"])
        for name in (TRANSLATIONS, INPUTS)
        if name in folders
    }
    if not found[TRANSLATIONS]:
        raise DataError(
            f"no image in {folders[TRANSLATIONS]} has a ground truth of the same name in "
            f"{folders['truth']}",
            "photo.png, photo.jpg or photo_night.jpg belongs to photo.jpg.",
        )
    return found


def _inception(
    request: MeasureRequest, log: Callable[[str], None]
) -> tuple[Inception | None, str | None]:
    """Return the Inception network, or the reason why there is none."""
    if not request.inception:
        return None, "--no-inception is given"
    try:
        return load_inception(request.inception_weights, log=log), None
    except CycleGANError as error:
        if request.inception_weights is not None:
            raise
        return None, error.message


class _Reader:
    """Reads folders image by image.

    Args:
        size: Side of the center squares.
        inception: Computes the features, if given.

    Attributes:
        problems: Messages about images that cannot be read.
    """

    def __init__(self, size: int, inception: Inception | None) -> None:
        self.size, self.inception = size, inception
        self.problems: list[str] = []

    def read(self, folder: Path, images: Sequence[Path], truth: dict[Path, Path]) -> _ImageSet:
        """Read a folder.

        Raises:
            DataError: None of its images can be read.
        """
        sampled = set(subsample(images, MAX_SWD_IMAGES))
        paths, squares, features, pairs = [], [], [torch.empty(0, FEATURES)], []
        for path in images:
            try:
                pixels = decode_whole(path)
            except DataError as error:
                self._add(error.message)
                continue
            square = center_square(pixels, self.size)
            paths.append(path)
            if path in sampled:
                squares.append(square)
            if self.inception is not None:
                features.append(self.inception.features(pixels)[None])
            if path in truth and (metrics := self._compared(square, truth[path])):
                pairs.append({"path": str(path), "truth": str(truth[path]), **metrics})
        if not squares:
            raise DataError(f"no image in {folder} can be read: {self.problems[-1]}")
        return _ImageSet(paths, torch.stack(squares), torch.cat(features), pairs)

    def _compared(self, square: Tensor, truth: Path) -> Facts:
        """Return the metrics of an image with ground truth; empty if that cannot be read."""
        try:
            other = center_square(decode_whole(truth), self.size)
        except DataError as error:
            self._add(error.message)
            return {}
        return {name: float(metric(square[None], other[None])) for name, metric in PAIRED.items()}

    def _add(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _value(estimate: float, resampled: Tensor | None, lowest: float | None = None) -> Facts:
    if resampled is None:
        return {"value": estimate, "low": None, "high": None}
    low, high = interval(estimate, resampled)
    low = low if lowest is None else max(lowest, low)
    return {"value": estimate, "low": low, "high": high}


def _counts(own: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    return resample_counts(len(own), SEED), resample_counts(len(other), TARGET_SEED)


def _swd(images: _ImageSet, target: _ImageSet) -> Facts:
    own, other = images.squares, target.squares
    sliced = SlicedWasserstein(own, other)
    levels = sliced.levels()
    is_enough = min(len(own), len(other)) > 1
    resampled = sliced.resampled(*_counts(own, other)) if is_enough else None
    return {**_value(statistics.mean(levels), resampled, 0), "levels": levels}


def _kid(images: _ImageSet, target: _ImageSet) -> Facts | None:
    own, other = images.features, target.features
    if min(len(own), len(other)) < 2:
        return None
    return _value(
        kernel_distance(own, other), resampled_kernel_distance(own, other, *_counts(own, other))
    )


def _fid(images: _ImageSet, target: _ImageSet) -> Facts | None:
    own, other = images.features, target.features
    if min(len(own), len(other)) < 2:
        return None
    resampled = None
    if max(len(own), len(other)) <= MAX_FID_RESAMPLED:
        resampled = resampled_frechet_distance(own, other, *_counts(own, other))
    return _value(frechet_distance(own, other), resampled, 0)


def _inception_facts(inception: Inception | None, reason: str | None) -> Facts:
    if inception is None:
        return {"weights": None, "sha256": None, "standard": None, "reason": reason}
    return {
        "weights": str(inception.weights),
        "sha256": inception.digest,
        "standard": inception.is_standard,
        "reason": None,
    }


def _pair_facts(
    sets: dict[str, _ImageSet], listed: Sequence[Path], pairing: dict[Path, Path]
) -> Facts:
    facts: Facts = {"count": len(sets[TRANSLATIONS].pairs)}
    for metric in PAIRED:
        facts[metric] = {}
        for name, images in sets.items():
            if images.pairs:
                values = torch.tensor([pair[metric] for pair in images.pairs], dtype=torch.float64)
                mean, low, high = mean_interval(values, SEED)
                is_enough = len(values) > 1
                facts[metric][name] = {
                    "value": mean,
                    "low": low if is_enough else None,
                    "high": high if is_enough else None,
                }
    facts["missing"] = [str(image) for image in listed if image not in pairing]
    facts["images"] = sets[TRANSLATIONS].pairs
    return facts


def _warnings(facts: Facts, inception: Inception | None) -> list[str]:
    found = []
    counts = facts["images"]
    fewest = min(counts[TRANSLATIONS], counts["target"])
    if inception is not None and fewest < FEATURES:
        found.append(
            f"FID: {fewest} images are fewer than the {FEATURES:,} features, so that the "
            "covariance matrix is rank-deficient and FID depends on the number of images: "
            "compare KID instead"
        )
    if inception is not None and not inception.is_standard:
        found.append(
            f"{inception.weights} does not hold the standard Inception weights, so that KID and "
            "FID are not comparable with published values"
        )
    sampled = [name for name, count in counts.items() if count > MAX_SWD_IMAGES]
    if sampled:
        found.append(
            f"SWD is computed from at most {MAX_SWD_IMAGES} images, evenly spaced, of: "
            f"{', '.join(sampled)}"
        )
    if missing := facts.get("pairs", {}).get("missing"):
        names = [Path(path).name for path in missing[:20]]
        rest = f" and {len(missing) - 20} others" if len(missing) > 20 else ""
        found.append(
            f"{len(missing)} of the translations have no ground truth: {', '.join(names)}{rest}"
        )
    return found
