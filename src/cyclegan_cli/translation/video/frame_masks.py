"""The mask of each frame of a video: one image for all frames, an animation, or a video."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import repeat, takewhile

from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.masks import FULL, check_mask_size, feathered, mask_of_frame, read_mask
from cyclegan_cli.data.video_formats import is_video
from cyclegan_cli.errors import DataError
from cyclegan_cli.translation.masks import Masks
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.selection import Selection
from cyclegan_cli.translation.video.reader import Frame, FrameSource, VideoReader
from cyclegan_cli.translation.video.settings import StopRequested


class FrameMasks:
    """Reads the masks of the frames of one video; those of a video one at a time.

    The n-th frame of a mask with several frames belongs to the n-th frame of the video, whatever
    their timestamps.

    Args:
        masks: How masks are found and read.
        job: The video's job.
        source: The video.

    Raises:
        DataError: The video has no mask, or several.
    """

    def __init__(self, masks: Masks, job: TranslationJob, source: FrameSource) -> None:
        self._masks, self._job, self._source = masks, job, source
        self._file = masks.file_of(job)
        self._constant: PixelArray | None = None
        self._images: tuple[PixelArray, ...] = ()
        self._mask_times: list[int] = []  # Timestamps in a mask video.
        self._times: list[int] = []  # Timestamps in the video.

    def match(self, stop_requested: StopRequested) -> bool:
        """Find the mask of each frame.

        Numbers of frames in headers are estimates, so that all frames are decoded.

        Returns:
            False if ``stop_requested`` has ended it.

        Raises:
            DataError: The mask cannot be read, has another size or number of frames than the
                video, or is a single image that selects nothing.
        """
        info, file = self._source.info, self._file
        size = (info.width, info.height)

        def times(of: FrameSource) -> list[int]:
            return list(takewhile(lambda _: stop_requested() is None, of.timestamps()))

        if file is not None and is_video(str(file)):
            with closing(VideoReader(str(file))) as video:
                self._check_size((video.info.width, video.info.height), size)
                self._mask_times = times(video)
        else:
            images = () if file is None else read_mask(file)
            if len(images) <= 1:
                self._constant = self._masks.weights(self._job, [size])[0]
                return True
            for image in images:
                self._check_size((image.shape[1], image.shape[0]), size)
            self._images = images
        self._times = times(self._source)
        if stop_requested() is not None:
            return False
        count = len(self._images or self._mask_times)
        if count != len(self._times):
            raise DataError(
                f"the mask {file} has {count} frames, and {self._job.input} has {len(self._times)}",
                "Use a mask with one frame for each frame of the video, or an image.",
            )
        return True

    def _check_size(self, found: tuple[int, int], size: tuple[int, int]) -> None:
        check_mask_size(found, size, f"the mask {self._file}", self._job.input)

    def attached(
        self, frames: Iterable[Frame], selection: Selection, after: int | None
    ) -> Iterator[Frame]:
        """Yield frames with their weights.

        Args:
            frames: The frames of the video that ``selection`` and ``after`` select.
            selection: See :meth:`VideoReader.frames`.
            after: See :meth:`VideoReader.frames`.

        Raises:
            DataError: A frame of the mask that was decoded before cannot be decoded again.
        """
        weights = self._weights(selection, after)
        for frame in frames:
            one = next(weights, None)
            if one is None:
                raise DataError(f"the mask {self._file} has changed, or cannot be read to its end")
            yield frame._replace(weights=one)

    def _weights(self, selection: Selection, after: int | None) -> Iterator[PixelArray]:
        if self._constant is not None:
            yield from repeat(self._constant)
        if after is None:
            index = bisect_left(self._times, selection.bounds(self._source.info)[0])
        else:
            index = bisect_left(self._times, after) + selection.every
        for mask in self._read(index, selection.every):
            yield feathered(FULL - mask if self._masks.invert else mask, self._masks.feather)

    def _read(self, index: int, every: int) -> Iterator[PixelArray]:
        """Yield the masks from an index on, ``[H, W]`` uint16."""
        yield from self._images[index::every]
        if index >= len(self._mask_times):
            return
        with closing(VideoReader(str(self._file))) as video:
            start = (self._mask_times[index] - video.info.start) * video.info.time_base
            for frame in video.frames(Selection(float(start), every=every)):
                yield mask_of_frame(frame.pixels, video.is_lossy)
