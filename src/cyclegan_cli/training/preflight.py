"""Checks before the first step: the images and the disk space.

Large data sets are sampled, so that every training starts quickly; ``--dry-run`` checks more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclegan_cli.config import BandFormat, TrainConfig
from cyclegan_cli.data.dataset import (
    check_training_size,
    load_training_image,
    mask_of,
)
from cyclegan_cli.data.domain import clipped_fraction
from cyclegan_cli.data.folder import SkippedFiles, Survey, duplicates, subsample, survey
from cyclegan_cli.errors import DataError
from cyclegan_cli.runtime.threads import available_cores, single_threaded_pool
from cyclegan_cli.training.callbacks.base import TrainingCallback
from cyclegan_cli.training.domain_gap import (
    MAX_IMAGES,
    DomainSample,
    color_warning,
    framing_warning,
)
from cyclegan_cli.training.estimate import DiskSpace, disk_space
from cyclegan_cli.training.plan import Plan

MAX_NAMED = 3  # In a warning; the JSON of a dry run names all.


@dataclass(frozen=True)
class ScanLimits:
    """How many images to check; None for all.

    Attributes:
        headers: Images per domain whose header is read, evenly spaced.
        pixels: How many of these are decoded, which detects truncated files.
        duplicates: Total number of images up to which duplicates are searched for.
    """

    headers: int | None
    pixels: int | None
    duplicates: int | None


START = ScanLimits(headers=500, pixels=0, duplicates=2_000)
STRICT_START = ScanLimits(headers=None, pixels=0, duplicates=2_000)
DRY_RUN = ScanLimits(headers=2_000, pixels=200, duplicates=20_000)
FULL = ScanLimits(None, None, None)


@dataclass(frozen=True)
class DomainReport:
    """The results for one domain.

    Attributes:
        option: The option that names the folder.
        val_option: The option that names the folder of the validation images.
        name: Name of the domain.
        folder: Folder of the images.
        images: Number of training images.
        val_images: Number of validation images.
        checked: Number of images whose header was read.
        decoded: Number of images that were decoded.
        survey: Formats and sizes from the headers.
        unusable: Images that the training leaves out, each with the reason.
        enlarged: Number of checked images whose short side is below the load size.
        skipped: Counts image files in the folder that are not read.
        unusable_val: Validation images that cannot be read, each with the reason. All are decoded.
        validates_on_training_images: Whether the validation folder is the training folder.
        sample: Some of the decoded images; empty unless both domains are RGB.
        format: How the images are read; None: as RGB.
        clipped: Fraction of the values in a sample that are outside the range; None: not measured.
    """

    option: str
    val_option: str
    name: str
    folder: Path
    images: int
    val_images: int
    checked: int
    decoded: int
    survey: Survey
    unusable: dict[Path, str]
    enlarged: int
    skipped: SkippedFiles
    unusable_val: dict[Path, str]
    validates_on_training_images: bool
    sample: DomainSample
    format: BandFormat | None = None
    clipped: float | None = None

    @property
    def named(self) -> list[str]:
        """The reasons for the images that :meth:`warning` names."""
        return list(self.unusable.values())[:MAX_NAMED]

    def val_warnings(self) -> list[str]:
        """Return the warnings about the validation images."""
        sentences = []
        if self.unusable_val:
            sentences.append(
                f"{self.val_option}: {len(self.unusable_val)} of {self.val_images} validation "
                f"images cannot be used: {_some(self.unusable_val.values())}"
            )
        if self.validates_on_training_images:
            sentences.append(
                f"{self.val_option} and {self.option} are the same folder: results on training "
                "images do not show how well the model generalizes"
            )
        return sentences

    def warning(self) -> str:
        """Return a warning about unusable images, or an empty string."""
        if not self.unusable:
            return ""
        return (
            f"{self.option}: {len(self.unusable)} of {self.checked} checked images will be left "
            f"out: {_some(self.unusable.values())}"
        )

    def _band_facts(self) -> dict[str, Any]:
        if self.format is None:
            return {}
        return {"bands": self.format.to_document(), "clipped": self.clipped}

    def to_document(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "pictures": self.images,
            "held_out": self.val_images,
            "looked_at": self.checked,
            "decoded": self.decoded,
            **self.survey.facts(),
            "enlarged": self.enlarged,
            "passed_over": self.skipped.counts,
            **(
                {"bands": self.format.to_document(), "clipped": self.clipped} if self.format else {}
            ),
            "useless": _listed(self.unusable),
            "unreadable_held_out": _listed(self.unusable_val),
        }


@dataclass(frozen=True)
class Duplicates:
    """Groups of files with the same bytes.

    Attributes:
        a: Duplicates in domain A.
        b: Duplicates in domain B.
        across: One group for each content that both domains have.
    """

    a: list[list[Path]]
    b: list[list[Path]]
    across: list[list[Path]]

    def warnings(self) -> list[str]:
        """Return a warning for each kind of duplicate."""
        sentences = []
        for option, groups in (("--domain-a", self.a), ("--domain-b", self.b)):
            if groups:
                copies = sum(len(group) - 1 for group in groups)
                counted = f"{copies} exact " + ("copy" if copies == 1 else "copies")
                sentences.append(f"{option} has {counted}: {_some(map(_equal, groups))}")
        if self.across:
            counted = f"{len(self.across)} image" + ("" if len(self.across) == 1 else "s")
            sentences.append(
                f"{counted} in both domains, which teach the networks nothing: "
                f"{_some(map(_equal, self.across))}"
            )
        return sentences

    def to_document(self) -> dict[str, list[list[str]]]:
        """Return plain values for JSON."""
        return {name: [list(map(str, group)) for group in groups]
                for name, groups in vars(self).items()}  # fmt: skip


@dataclass(frozen=True)
class Preflight:
    """The results of all checks.

    Attributes:
        a: Results for domain A.
        b: Results for domain B.
        duplicates: Duplicates; None if there are too many images to search for them.
        disk: Disk space.
        run_dir: The run folder.
        differences: Warnings about differences between the domains other than their content.
    """

    a: DomainReport
    b: DomainReport
    duplicates: Duplicates | None
    disk: DiskSpace
    run_dir: Path
    differences: tuple[str, ...] = ()

    def warnings(self) -> list[str]:
        """Return all warnings."""
        sentences = [self.a.warning(), self.b.warning()]
        sentences += [one.skipped.sentence(one.option) for one in (self.a, self.b)]
        sentences += [*self.a.val_warnings(), *self.b.val_warnings()]
        if self.duplicates:
            sentences += self.duplicates.warnings()
        sentences += self.differences
        sentences.append(self.disk.warning(self.run_dir))
        return [sentence for sentence in sentences if sentence]

    def check_strict(self) -> None:
        """Check that every image can be used, for ``--strict``.

        Raises:
            DataError: An image would be left out.
        """
        for report in (self.a, self.b):
            if report.unusable or report.unusable_val:
                raise DataError(
                    f"--strict: {report.warning() or report.val_warnings()[0]}",
                    "Repair or remove them, or train without them: --no-strict.",
                )


def check_before_training(plan: Plan, callbacks: Sequence[TrainingCallback]) -> list[str]:
    """Check the images and the disk, and pass warnings to the callbacks.

    Returns:
        The reasons for single images that the warnings name.

    Raises:
        DataError: An image cannot be used, and ``--strict`` is set.
        OutputError: The disk is too small for a checkpoint.
    """
    found = preflight(plan, STRICT_START if plan.config.strict else START)
    if plan.config.strict:
        found.check_strict()
    found.disk.check(plan.run_dir)
    for warning in found.warnings():
        for callback in callbacks:
            callback.on_warning(warning)
    return [*found.a.named, *found.b.named]


def preflight(plan: Plan, limits: ScanLimits) -> Preflight:
    """Check the images of both domains and the disk space.

    Args:
        plan: The training.
        limits: How many images to check.
    """
    split, config = plan.split, plan.config
    all_a = [*split.images_a, *(() if config.val_a else split.val_a)]
    all_b = [*split.images_b, *(() if config.val_b else split.val_b)]
    a = _check_domain(plan, "a", all_a, limits)
    b = _check_domain(plan, "b", all_b, limits)
    return Preflight(
        a,
        b,
        _find_duplicates(all_a, all_b, limits.duplicates),
        disk_space(plan),
        plan.run_dir,
        tuple(_differences(a, b, config.load_size)),
    )


def _differences(a: DomainReport, b: DomainReport, load_size: int) -> Iterator[str]:
    """Yield warnings about the domains, if images have been decoded."""
    if not a.sample.crops or not b.sample.crops:
        return
    names = a.name, b.name
    sizes_a, sizes_b = (
        [(one.width, one.height) for one in report.survey.probes.values()] for report in (a, b)
    )
    yield color_warning(names, a.sample, b.sample)
    yield framing_warning(names, (sizes_a, sizes_b), (a.sample, b.sample), load_size)


def _check_domain(
    plan: Plan, domain: str, images: Sequence[Path], limits: ScanLimits
) -> DomainReport:
    config = plan.config
    band_format = plan.formats["ab".index(domain)]
    val_images: list[Path] = getattr(plan.split, f"val_{domain}")
    found = survey(subsample(images, limits.headers))
    unusable = dict(found.problems)
    for path, header in found.probes.items():
        try:
            check_training_size(path, header.width, header.height, config)
            if path not in val_images:
                mask_of(path, config, domain)
        except DataError as error:
            unusable[path] = error.message
    decoded: Sequence[Path] = ()
    sample = DomainSample()
    if limits.pixels != 0:
        decoded = subsample([path for path in found.probes if path not in unusable], limits.pixels)
        # Differences between RGB domains are reported.
        chosen = None if any(plan.formats) else sample
        unusable |= _undecodable(decoded, config, band_format, chosen)
    folder: Path = getattr(config, f"domain_{domain}")
    val_folder: Path | None = getattr(config, f"val_{domain}")
    unusable_val = {path: unusable[path] for path in val_images if path in unusable}
    unusable_val |= _undecodable(
        [path for path in val_images if path not in unusable], config, band_format
    )
    return DomainReport(
        option=f"--domain-{domain}",
        val_option=f"--domain-{domain}" if val_folder is None else f"--val-{domain}",
        name=getattr(plan, f"name_{domain}"),
        folder=folder,
        images=len(images) - (len(val_images) if val_folder is None else 0),
        val_images=len(val_images),
        checked=len(found.probes) + len(found.problems),
        decoded=len(decoded),
        survey=found,
        unusable=unusable,
        skipped=getattr(plan.split, f"skipped_{domain}"),
        enlarged=sum(min(o.width, o.height) < config.load_size for o in found.probes.values()),
        unusable_val=unusable_val,
        validates_on_training_images=val_folder is not None
        and val_folder.resolve() == folder.resolve(),
        format=band_format,
        clipped=clipped_fraction(band_format, decoded) if band_format and decoded else None,
        sample=sample,
    )


def _undecodable(
    images: Sequence[Path],
    config: TrainConfig,
    band_format: BandFormat | None,
    sample: DomainSample | None = None,
) -> dict[Path, str]:
    """Decode images; return the error messages of those that fail, and sample the others."""
    sampled = set(subsample(images, MAX_IMAGES)) if sample else set()

    def problem(path: Path) -> str:
        try:
            image = load_training_image(path, config, band_format)
        except DataError as error:
            return error.message
        if sample and path in sampled:
            sample.add(path, image, config.crop_size)
        return ""

    pool = single_threaded_pool(available_cores(), "preflight")
    try:
        problems = list(pool.map(problem, images))
    finally:
        pool.shutdown(cancel_futures=True)
    return {path: sentence for path, sentence in zip(images, problems, strict=True) if sentence}


def _find_duplicates(
    all_a: Sequence[Path], all_b: Sequence[Path], limit: int | None
) -> Duplicates | None:
    if limit is not None and len(all_a) + len(all_b) > limit:
        return None
    in_a, in_b = set(all_a), set(all_b)
    # Where one folder lies in the other, the files themselves are in both domains.
    found = Duplicates([], [], [[path] for path in all_a if path in in_b])
    for group in duplicates(dict.fromkeys([*all_a, *all_b])):
        of_a, of_b = ([path for path in group if path in domain] for domain in (in_a, in_b))
        found.a.extend([of_a] if len(of_a) > 1 else [])
        found.b.extend([of_b] if len(of_b) > 1 else [])
        found.across.extend([[of_a[0], of_b[0]]] if of_a and of_b and of_a != of_b else [])
    return found


def _listed(problems: Mapping[Path, str]) -> list[dict[str, str]]:
    return [{"path": str(path), "reason": reason} for path, reason in problems.items()]


def _equal(group: Sequence[Path]) -> str:
    return " = ".join(map(str, group))


def _some(sentences: Iterable[str]) -> str:
    texts = list(sentences)
    shown = "; ".join(texts[:MAX_NAMED])
    return shown + (f"; and {len(texts) - MAX_NAMED} more" if len(texts) > MAX_NAMED else "")
