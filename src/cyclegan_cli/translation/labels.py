"""Copy the labels of translated images: YOLO, Pascal VOC, masks and COCO."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from cyclegan_cli.config import TranslateConfig
from cyclegan_cli.data.masks import images_with_stem
from cyclegan_cli.data.open_image import probe
from cyclegan_cli.errors import DataError, OutputError, UsageError
from cyclegan_cli.files import is_temporary, write_bytes
from cyclegan_cli.translation.inputs import InputImage
from cyclegan_cli.translation.outputs import TranslationJob, TranslationPlan, labels_folder

TEXT_EXTENSIONS = (".txt", ".xml")
COCO_EXTENSION = ".json"
# Elements of a VOC annotation that name its image.
VOC_FILENAME = re.compile(rb"(<filename>)[^<]*(</filename>)")
VOC_PATH = re.compile(rb"(<path>)[^<]*(</path>)")
VOC_SIZE = re.compile(
    rb"<size>\s*<width>\s*(\d+)\s*</width>\s*<height>\s*(\d+)\s*</height>", re.DOTALL
)


@dataclass(frozen=True)
class CopiedLabels:
    """The labels of one image.

    Attributes:
        files: Paths of the copies, also of those that existed.
        warnings: One sentence for each difficulty.
    """

    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelCopier:
    """Copies the labels of images that were translated. Called from several threads.

    Attributes:
        source: The folder with the labels.
        target: The folder of their copies.
        images: The output folder of the images.
        has_coco: Whether ``source`` has COCO files, which label any of the images.
    """

    source: Path
    target: Path
    images: Path
    has_coco: bool = False

    def copy(
        self, job: TranslationJob, replace: bool, size: tuple[int, int] | None = None
    ) -> CopiedLabels:
        """Copy the label files of one image, under the name of its translation.

        Args:
            job: The image, whose output exists.
            replace: Whether to replace existing copies.
            size: Width and height of the translation, which are compared with those in labels.

        Raises:
            DataError: A label cannot be read.
            OutputError: A copy cannot be written.
        """
        stem = os.path.splitext(job.relative_path or os.path.basename(job.input))[0]
        name = os.path.relpath(os.path.splitext(job.output)[0], self.images)
        copied: list[str] = []
        warnings: list[str] = []
        for label in self._labels_of(stem):
            target = self.target / f"{name}{label.suffix}"
            if os.path.realpath(target) == os.path.realpath(job.output):
                raise OutputError(
                    f"cannot copy {label}: {target} is the translation of its image",
                    "Choose another folder with --labels-output.",
                )
            warnings += _copy(label, target, job, replace, size)
            copied.append(str(target))
        if not copied and not self.has_coco:
            warnings.append(f"has no label in {self.source}")
        return CopiedLabels(tuple(copied), tuple(warnings))

    def _labels_of(self, stem: str) -> list[Path]:
        """Return the label files of an image, by its relative path without extension."""
        texts = [self.source / f"{stem}{extension}" for extension in TEXT_EXTENSIONS]
        return [path for path in texts if path.is_file()] + images_with_stem(self.source, stem)

    def write_coco(self, outputs: Iterable[tuple[InputImage, str]]) -> Iterator[str]:
        """Write the COCO files again, with those images only whose translation exists.

        Args:
            outputs: Each image and the path of its translation.

        Yields:
            A sentence for each file, once it is written.

        Raises:
            DataError: A file cannot be read.
            OutputError: A file cannot be written.
        """
        files = json_files(self.source) if self.has_coco else []
        pairs = [] if len(files) < 2 else list(_existing(outputs, self.images))
        for file in files:
            document = read_coco(file)
            if document is None:
                continue
            matches = CocoMatches(document["images"])
            for relative, output in pairs or _existing(outputs, self.images):
                matches.add(relative, output)
            kept = matches.rewritten(document)
            write_bytes(self.target / file.name, _json_bytes(kept))
            counts = [
                f"{len(kept[key])} of {len(document[key])} {key}"
                for key in ("images", "annotations")
            ]
            also = ""
            if matches.ambiguous:
                names = f"{len(matches.ambiguous)} names match several images"
                also += f"; {names}, e.g. {min(matches.ambiguous)}"
            if matches.unlisted:
                also += f"; {matches.unlisted} translated images are not in it"
            yield f"{self.target / file.name}: {' and '.join(counts)} kept{also}"


def _copy(
    label: Path, target: Path, job: TranslationJob, replace: bool, size: tuple[int, int] | None
) -> list[str]:
    """Copy one label file; returns warnings."""
    exists = target.is_file()
    if exists and not replace:
        return []
    try:
        content = label.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {label}: {(error.strerror or '').lower()}") from error
    warnings, found = [], None
    if label.suffix == ".xml":
        content, is_voc = _renamed_voc(content, job.output)
        if not is_voc:
            warnings.append(f"its label {label} has no <filename> element and was copied as it is")
        numbers = VOC_SIZE.search(content)
        found = numbers and (int(numbers[1]), int(numbers[2]))
    elif label.suffix != ".txt" and size:
        try:
            header = probe(label)
            found = header.width, header.height
        except DataError as error:
            warnings.append(f"its mask was copied, but {error.message}")
    if size and found and found != size:
        warnings.append(
            f"its label {label} is for {found[0]}x{found[1]} pixels, and the translation, which "
            f"is upright, has {size[0]}x{size[1]}"
        )
    if exists:
        if target.read_bytes() == content:
            return warnings
        warnings.append(f"the label {target} existed with other contents and was replaced")
    write_bytes(target, content)
    return warnings


def _renamed_voc(content: bytes, output: str) -> tuple[bytes, bool]:
    """Return a VOC annotation with the name of the output, and whether it has a name."""

    def element(text: str) -> Any:
        # Character references are valid in every encoding that extends ASCII.
        value = escape(text, quote=False).encode("ascii", "xmlcharrefreplace")
        return lambda match: match[1] + value + match[2]

    content, count = VOC_FILENAME.subn(element(os.path.basename(output)), content, count=1)
    return VOC_PATH.sub(element(output), content, count=1), bool(count)


# --- COCO -------------------------------------------------------------------------------------


def json_files(folder: Path) -> list[Path]:
    """Return the JSON files directly in a folder, sorted by name."""
    found = sorted(folder.glob(f"*{COCO_EXTENSION}"))
    return [one for one in found if not is_temporary(one.name)]


def read_coco(file: Path) -> dict[str, Any] | None:
    """Read a COCO file; returns None for JSON of another kind.

    Raises:
        DataError: It cannot be read, or is not JSON.
    """
    try:
        document = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {file}: {(error.strerror or '').lower()}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot read {file}: it is not valid JSON", "Remove or repair it.") from (
            error
        )
    if not isinstance(document, dict):
        return None
    for key in ("images", "annotations"):
        entries = document.get(key)
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            return None
    return document


def _json_bytes(document: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(document, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # A name is not UTF-8, or a text has half of a surrogate pair.
        return (json.dumps(document) + "\n").encode()


def _existing(outputs: Iterable[tuple[InputImage, str]], folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the relative path of each image whose output exists, and of that output."""
    for source, output in outputs:
        if os.path.isfile(output):
            relative = os.path.relpath(output, folder)
            yield source.relative_path.replace(os.sep, "/"), relative.replace(os.sep, "/")


@dataclass
class CocoMatches:
    """Which entries of a COCO file are which images.

    An entry is an image if one of its ``file_name`` and the image's relative path ends with the
    other. If several images match, one with an equal path is taken, else none.

    Attributes:
        entries: ``images`` of the file.
        ambiguous: Names of entries that match several images.
        unlisted: Number of images that match no entry.
    """

    entries: list[dict[str, Any]]
    ambiguous: set[str] = field(default_factory=set)
    unlisted: int = 0

    def __post_init__(self) -> None:
        self._by_name: dict[str, list[str]] = {}
        for name in {_file_name(entry) for entry in self.entries} - {""}:
            self._by_name.setdefault(name.rpartition("/")[2], []).append(name)
        self._exact: dict[str, str] = {}
        self._similar: dict[str, str] = {}

    def add(self, relative: str, output: str) -> None:
        """Add an image by its relative path, with that of its output."""
        names = self._by_name.get(relative.rpartition("/")[2], ())
        matching = [name for name in names if _is_end(name, relative)]
        self.unlisted += not matching
        for name in matching:
            if name == relative:
                self._exact[name] = output
            elif self._similar.setdefault(name, output) != output:
                self.ambiguous.add(name)

    def rewritten(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the file's document with the names of the outputs, without other images."""
        self.ambiguous -= self._exact.keys()
        known = self._similar | self._exact
        kept, names = [], {}
        for entry in self.entries:
            name = _file_name(entry)
            if name in known and name not in self.ambiguous:
                kept.append(entry | {"file_name": known[name]})
                names[str(entry.get("id"))] = (name, known[name])
        annotations = [
            _renamed_mask(one, *names[key])
            for one in document["annotations"]
            if (key := str(one.get("image_id"))) in names
        ]
        return document | {"images": kept, "annotations": annotations}


def _file_name(entry: dict[str, Any]) -> str:
    return str(entry.get("file_name") or "").replace("\\", "/").removeprefix("./")


def _is_end(one: str, other: str) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return shorter == longer or longer.endswith(f"/{shorter}")


def _renamed_mask(annotation: dict[str, Any], name: str, output: str) -> dict[str, Any]:
    """Return an annotation; its mask, if it names one (panoptic COCO), is named as the output."""
    mask = annotation.get("file_name")
    if not isinstance(mask, str):
        return annotation
    stem, extension = os.path.splitext(mask)
    if os.path.basename(stem) != os.path.basename(os.path.splitext(name)[0]):
        return annotation
    return annotation | {"file_name": os.path.splitext(output)[0] + extension}


# --- options ----------------------------------------------------------------------------------


def choose_labels(
    config: TranslateConfig, jobs: TranslationPlan | list[TranslationJob]
) -> LabelCopier | None:
    """Return the copier of ``--copy-labels``, if it is given.

    Args:
        config: The options.
        jobs: The plan of the outputs.

    Raises:
        UsageError: There is no output folder, or the copies would overwrite the labels.
        DataError: The folder of labels does not exist, or a JSON file in it is damaged.
    """
    if config.copy_labels is None:
        return None
    source = config.copy_labels
    folder = None if isinstance(jobs, list) else jobs.folder
    if folder is None:
        raise UsageError("--copy-labels needs an output folder", "Name one with -o.")
    if not source.is_dir():
        found = "a file" if source.exists() else "nothing"
        raise DataError(
            f"--copy-labels {source} is not a folder: found {found}", "Name a folder of labels."
        )
    target = config.labels_output or Path(labels_folder(folder, source))
    if os.path.realpath(target) == os.path.realpath(source):
        raise UsageError(
            f"the labels in {source} would be copied onto themselves",
            "Name another folder with --labels-output.",
        )
    # Reads all of them: a damaged file is refused before anything is translated.
    kinds = [read_coco(file) is not None for file in json_files(source)]
    return LabelCopier(source, target, Path(folder), any(kinds))
