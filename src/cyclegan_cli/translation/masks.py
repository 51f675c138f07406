"""The mask of each image: a file, a folder of files by name, or the image's own alpha channel."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cyclegan_cli.config import ALPHA, STDIN_NAMES, BandFormat, TranslateConfig
from cyclegan_cli.data.image import DecodedImage, PixelArray, to_depth
from cyclegan_cli.data.masks import Masking, mask_beside, read_mask, weights_of_mask
from cyclegan_cli.data.video_formats import VIDEO_EXTENSIONS, is_video
from cyclegan_cli.errors import DataError, UsageError
from cyclegan_cli.translation.outputs import TranslationJob


@dataclass
class Masks:
    """Finds and reads the mask of each image. Its methods may be called from several threads.

    Attributes:
        source: ``alpha``, a file for all images, or a folder with one mask per image.
        invert: Whether black instead of white is translated.
        feather: Width in pixels over which the translation fades in, inside of the mask.
    """

    source: str
    invert: bool = False
    feather: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _known: dict[tuple[tuple[int, int], ...], tuple[PixelArray, ...]] = field(
        default_factory=dict, repr=False
    )

    def __post_init__(self) -> None:
        if self.source != ALPHA and not os.path.exists(self.source):
            raise DataError(
                f"--mask {self.source}: there is no such file or folder",
                "Name a mask, a folder of masks, or alpha.",
            )

    @property
    def is_folder(self) -> bool:
        """Whether each image has its own mask file."""
        return self.source != ALPHA and os.path.isdir(self.source)

    def file_of(self, job: TranslationJob) -> Path | None:
        """Return the mask file of an image; None if the mask is its alpha channel.

        In a folder it has the image's name, with the extension of any image format; that of a
        video may also be a video.

        Raises:
            DataError: There is none, or there are several.
        """
        if self.source == ALPHA:
            return None
        if not self.is_folder:
            return Path(self.source)
        stem = os.path.splitext(job.relative_path or os.path.basename(job.input))[0]
        videos = VIDEO_EXTENSIONS if is_video(job.input) else ()
        return mask_beside(Path(self.source), stem, job.input, videos)

    def weights(
        self, job: TranslationJob, sizes: list[tuple[int, int]], image: DecodedImage | None = None
    ) -> tuple[PixelArray, ...]:
        """Return the weight of each pixel, see :class:`~cyclegan_cli.data.masks.Masking`.

        Args:
            job: The image's job.
            sizes: Width and height of each frame.
            image: The image, whose alpha channel may be the mask.

        Raises:
            DataError: The mask is missing or cannot be read, has another size, or selects nothing.
        """
        file = self.file_of(job)
        if file is None or self.is_folder:
            return self._read(job, file, sizes, image)
        with self._lock:  # All images share one mask, which is read once.
            key = tuple(sizes)
            if key not in self._known:
                self._known = {key: self._read(job, file, sizes, image)}
            return self._known[key]

    def _read(
        self,
        job: TranslationJob,
        file: Path | None,
        sizes: list[tuple[int, int]],
        image: DecodedImage | None,
    ) -> tuple[PixelArray, ...]:
        if file is not None and is_video(str(file)):
            raise DataError(
                f"the mask {file} is a video, and {job.input} is translated as an image",
                "Name an image as its mask.",
            )
        name = f"the alpha channel of {job.input}" if file is None else f"the mask {file}"
        masks = _alphas(image, job) if file is None else read_mask(file)
        if len(masks) not in (1, len(sizes)):
            raise DataError(
                f"{name} has {len(masks)} frames, and {job.input} has {len(sizes)}",
                "Use a mask with one frame, or with as many as its image.",
            )
        weights = [
            weights_of_mask(masks[index], size, name, job.input, self.invert, self.feather)
            for index, size in enumerate(sizes[: len(masks)])
        ]
        if len(masks) == 1:
            others = {size for size in sizes[1:] if size != sizes[0]}
            if others:
                raise DataError(f"{job.input} has pages of several sizes, and {name} has one page")
            weights *= len(sizes)
        return tuple(weights)

    def attached(self, job: TranslationJob, image: DecodedImage) -> DecodedImage:
        """Return the image with its mask, so that its writer composites the translation.

        Raises:
            DataError: See :meth:`weights`.
        """
        sizes = [(frame.shape[1], frame.shape[0]) for frame in image.frames]
        weights = self.weights(job, sizes, image)
        return image.with_masking(Masking(image.frames, image.stored, weights))


def _alphas(image: DecodedImage | None, job: TranslationJob) -> tuple[PixelArray, ...]:
    if image is None or not image.alphas:
        raise DataError(
            f"{job.input} has no alpha channel, which --mask alpha needs",
            "Name a mask file, or a folder of masks.",
        )
    opaque = [
        np.full(frame.shape[:2], 65535, np.uint16) if alpha is None else to_depth(alpha, 16)
        for frame, alpha in zip(image.frames, image.alphas, strict=True)
    ]
    return tuple(opaque)


def choose_masks(
    config: TranslateConfig,
    source_format: BandFormat | None,
    target_format: BandFormat | None,
) -> Masks | None:
    """Return the masks that the options select, if any.

    Args:
        config: The options.
        source_format: How images of the source domain are read; None: as RGB.
        target_format: How images of the target domain are written; None: as RGB.

    Raises:
        UsageError: The model's domains or standard input exclude them.
        DataError: The file or folder does not exist.
    """
    if config.mask is None:
        return None
    masks = Masks(config.mask, config.mask_invert, config.mask_feather)
    if masks.is_folder and config.is_stream and config.inputs[0] in STDIN_NAMES:
        raise UsageError(
            f"--mask {config.mask} is a folder, and an image on standard input has no name",
            "Name a mask file.",
        )
    if source_format or target_format:
        _refuse_different_values(config.mask, source_format, target_format)
    return masks


def _refuse_different_values(
    mask: str, source: BandFormat | None, target: BandFormat | None
) -> None:
    """Refuse domains between which a pixel cannot keep its values."""
    if mask == ALPHA:
        raise UsageError(
            "--mask alpha is for models between RGB domains", "Name a mask file or a folder."
        )
    kinds = [(one.channels, one.dtype, one.nodata) if one else None for one in (source, target)]
    if kinds[0] != kinds[1]:
        raise UsageError(
            f"--mask: the source domain has {source or 'RGB'} and the target domain "
            f"{target or 'RGB'}, so a pixel outside of the mask cannot keep its values",
            "Leave --mask out.",
        )
