"""Looked at before the first step: what is wrong with the images, and is the disk large enough.

At every start this takes a moment however many images there are; ``--dry-run`` looks longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.data.dataset import check_training_size, load_training_image, single_threaded
from cyclegan_cli.data.folder import (
    SkippedFiles,
    Survey,
    duplicates,
    list_images,
    subsample,
    survey,
)
from cyclegan_cli.errors import DataError
from cyclegan_cli.runtime.threads import available_cores
from cyclegan_cli.training.disk import DiskNeed, disk_need
from cyclegan_cli.training.plan import Plan

MOST_NAMED = 3  # In a sentence; the JSON of a dry run names all.


@dataclass(frozen=True)
class Depth:
    """How closely to look; None: at all.

    Attributes:
        headers: Images a domain whose header is read, evenly over it.
        pixels: Of these, images that are decoded, which finds those that are cut off.
        duplicates: Images in all among which equal ones are searched for; among more, none are.
    """

    headers: int | None
    pixels: int | None
    duplicates: int | None


START = Depth(headers=500, pixels=0, duplicates=2_000)
STRICT_START = Depth(headers=None, pixels=0, duplicates=2_000)
DRY_RUN = Depth(headers=2_000, pixels=200, duplicates=20_000)
FULL = Depth(None, None, None)


@dataclass(frozen=True)
class DomainReport:
    """What was found in one domain.

    Attributes:
        option: What names its folder on the command line.
        held_out_option: What names the folder of its held-out images.
        name: The domain's.
        folder: Where its images are.
        images: How many are trained on.
        held_out: How many are measured on.
        looked_at: Of how many the header was read.
        decoded: How many were decoded.
        survey: What the headers say.
        useless: Images that will be left out, each with a sentence why.
        enlarged: How many, of those looked at, have a short side below the load size.
        passed_over: Counts image files in the folder that are not read.
        unmeasured: Held-out images that cannot be read, each with a sentence why; all are decoded.
        is_measured_on_itself: Whether ``--val-a`` or ``--val-b`` names the folder trained on.
    """

    option: str
    held_out_option: str
    name: str
    folder: Path
    images: int
    held_out: int
    looked_at: int
    decoded: int
    survey: Survey
    useless: dict[Path, str]
    enlarged: int
    passed_over: SkippedFiles
    unmeasured: dict[Path, str]
    is_measured_on_itself: bool

    @property
    def named(self) -> list[str]:
        """Why images will be left out, of those that :meth:`warning` names."""
        return list(self.useless.values())[:MOST_NAMED]

    def held_out_warnings(self) -> list[str]:
        """A sentence for each thing that is wrong with the images to measure on."""
        sentences = []
        if self.unmeasured:
            sentences.append(
                f"{self.held_out_option}: of {self.held_out} held-out images, "
                f"{len(self.unmeasured)} will not be measured on: "
                f"{_some(list(self.unmeasured.values()))}"
            )
        if self.is_measured_on_itself:
            sentences.append(
                f"{self.held_out_option} and {self.option} are the same folder: what is measured "
                "on images that are trained on says little of others"
            )
        return sentences

    def warning(self) -> str:
        """A sentence that names images which will be left out; empty where there are none."""
        if not self.useless:
            return ""
        return (
            f"{self.option}: of {self.looked_at} images looked at, {len(self.useless)} will be "
            f"left out: {_some(list(self.useless.values()))}"
        )

    def to_document(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "pictures": self.images,
            "held_out": self.held_out,
            "looked_at": self.looked_at,
            "decoded": self.decoded,
            **self.survey.facts(),
            "enlarged": self.enlarged,
            "passed_over": self.passed_over.counts,
            "useless": [
                {"path": str(path), "reason": reason} for path, reason in self.useless.items()
            ],
            "unreadable_held_out": [
                {"path": str(path), "reason": reason} for path, reason in self.unmeasured.items()
            ],
        }


@dataclass(frozen=True)
class SameFiles:
    """Files with the same bytes.

    Attributes:
        a: Groups of them in domain A.
        b: Likewise in domain B.
        across: A group for each content that both domains have.
    """

    a: list[list[Path]]
    b: list[list[Path]]
    across: list[list[Path]]

    def warnings(self) -> list[str]:
        """A sentence for each kind that there is."""
        sentences = []
        for option, groups in (("--domain-a", self.a), ("--domain-b", self.b)):
            if groups:
                copies = sum(len(group) - 1 for group in groups)
                counted = f"{copies} exact " + ("copy" if copies == 1 else "copies")
                sentences.append(f"{option} has {counted}: {_some(_as_texts(groups))}")
        if self.across:
            counted = f"{len(self.across)} image" + ("" if len(self.across) == 1 else "s")
            sentences.append(
                f"{counted} in both domains, of which nothing can be learned: "
                f"{_some(_as_texts(self.across))}"
            )
        return sentences

    def to_document(self) -> dict[str, list[list[str]]]:
        """As plain values for JSON."""
        return {name: [list(map(str, group)) for group in groups]
                for name, groups in vars(self).items()}  # fmt: skip


@dataclass(frozen=True)
class Preflight:
    """What was found before the first step.

    Attributes:
        a: In domain A.
        b: In domain B.
        same: Equal files; None where there are too many to search for them.
        disk: What the run needs of it.
        run_dir: The run folder.
    """

    a: DomainReport
    b: DomainReport
    same: SameFiles | None
    disk: DiskNeed
    run_dir: Path

    def warnings(self) -> list[str]:
        """A sentence for everything that is not as it should be."""
        sentences = [self.a.warning(), self.b.warning()]
        sentences += [one.passed_over.sentence(one.option) for one in (self.a, self.b)]
        sentences += [*self.a.held_out_warnings(), *self.b.held_out_warnings()]
        if self.same:
            sentences += self.same.warnings()
        sentences.append(self.disk.warning(self.run_dir))
        return [sentence for sentence in sentences if sentence]

    def refuse_useless(self) -> None:
        """What ``--strict`` asks for.

        Raises:
            DataError: An image would be left out.
        """
        for report in (self.a, self.b):
            if report.useless or report.unmeasured:
                raise DataError(
                    f"--strict: {report.warning() or report.held_out_warnings()[0]}",
                    "Mend or remove them, or train without them: --no-strict.",
                )


def preflight(plan: Plan, depth: Depth) -> Preflight:
    """Look at both domains and at the disk.

    Args:
        plan: What is to be done.
        depth: How closely to look.
    """
    domains, config = plan.domains, plan.config
    all_a = [*domains.images_a, *(() if config.val_a else domains.held_out_a)]
    all_b = [*domains.images_b, *(() if config.val_b else domains.held_out_b)]
    return Preflight(
        _report(plan, "a", all_a, depth),
        _report(plan, "b", all_b, depth),
        _same_files(all_a, all_b, depth.duplicates),
        disk_need(plan),
        plan.run_dir,
    )


def _report(plan: Plan, domain: str, images: Sequence[Path], depth: Depth) -> DomainReport:
    config = plan.config
    found = survey(subsample(images, depth.headers))
    useless = dict(found.problems)
    for path, one in found.probes.items():
        try:
            check_training_size(path, one.width, one.height, config)
        except DataError as error:
            useless[path] = error.message
    chosen: Sequence[Path] = ()
    if depth.pixels != 0:
        chosen = subsample([path for path in found.probes if path not in useless], depth.pixels)
        useless |= _undecodable(chosen, config)
    folder, passed_over = getattr(config, f"domain_{domain}"), SkippedFiles()
    list_images(folder, passed_over)
    val = getattr(config, f"val_{domain}")
    to_measure = getattr(plan.domains, f"held_out_{domain}")
    unmeasured = {path: useless[path] for path in to_measure if path in useless}
    unmeasured |= _undecodable([path for path in to_measure if path not in useless], config)
    return DomainReport(
        option=f"--domain-{domain}",
        held_out_option=f"--domain-{domain}" if val is None else f"--val-{domain}",
        name=getattr(plan, f"name_{domain}"),
        folder=folder,
        images=len(images) - (len(to_measure) if val is None else 0),
        held_out=len(to_measure),
        looked_at=len(found.probes) + len(found.problems),
        decoded=len(chosen),
        survey=found,
        useless=useless,
        passed_over=passed_over,
        enlarged=sum(min(o.width, o.height) < config.load_size for o in found.probes.values()),
        unmeasured=unmeasured,
        is_measured_on_itself=val is not None and val.resolve() == folder.resolve(),
    )


def _undecodable(images: Sequence[Path], config: TrainConfig) -> dict[Path, str]:
    def problem(path: Path) -> str:
        try:
            load_training_image(path, config)
        except DataError as error:
            return error.message
        return ""

    pool = ThreadPoolExecutor(available_cores(), "preflight", initializer=single_threaded)
    try:
        problems = list(pool.map(problem, images))
    finally:
        pool.shutdown(cancel_futures=True)
    return {path: sentence for path, sentence in zip(images, problems, strict=True) if sentence}


def _same_files(
    all_a: Sequence[Path], all_b: Sequence[Path], limit: int | None
) -> SameFiles | None:
    if limit is not None and len(all_a) + len(all_b) > limit:
        return None
    in_a, in_b = set(all_a), set(all_b)
    # Where one folder lies in the other, the files themselves are in both domains.
    found = SameFiles([], [], [[path] for path in all_a if path in in_b])
    for group in duplicates(dict.fromkeys([*all_a, *all_b])):
        of_a, of_b = ([path for path in group if path in domain] for domain in (in_a, in_b))
        found.a.extend([of_a] if len(of_a) > 1 else [])
        found.b.extend([of_b] if len(of_b) > 1 else [])
        found.across.extend([[of_a[0], of_b[0]]] if of_a and of_b and of_a != of_b else [])
    return found


def _as_texts(groups: Sequence[Sequence[Path]]) -> list[str]:
    return [" = ".join(map(str, group)) for group in groups]


def _some(texts: Sequence[str]) -> str:
    shown = "; ".join(texts[:MOST_NAMED])
    return shown + (f"; and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else "")
