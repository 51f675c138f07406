"""Read the frames of a video through PyAV, in order, with their timestamps."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple, Protocol

from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.open_image import max_pixels
from cyclegan_cli.data.video_formats import INSTALL
from cyclegan_cli.errors import DataError
from cyclegan_cli.translation.selection import Selection
from cyclegan_cli.translation.video.color import (
    HD_TAGS,
    HDR_TRANSFERS,
    ColorTags,
    bits_of,
    frame_to_rgb,
    tags_of,
    upright,
)

SIXTEEN_BITS = 16
UPRIGHT = (1, 0, 0, 1)
MISSING_SECONDS = 1.0  # Of the duration in a header, which also counts other streams.
MAX_NAMED = 5
REFERRING_FORMATS = frozenset({"hls", "concat", "dash", "imf", "sdp"})
MOST_PENDING = 64  # Frames that a decoder holds for reordering.


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        pts: Presentation time, in units of the video's time base.
        duration: In the same units; 0 if unknown.
        pixels: ``[H, W, 3]``, uint8 or uint16, upright.
        weights: ``[H, W]`` uint16: where it is translated, see
            :func:`~cyclegan_cli.data.masks.composite`; None: everywhere.
    """

    pts: int
    duration: int
    pixels: PixelArray
    weights: PixelArray | None = None


@dataclass(frozen=True)
class VideoInfo:
    """What the output of a video shares with its input.

    Attributes:
        width: In pixels, upright.
        height: In pixels, upright.
        bits: Bits per channel.
        time_base: Unit of timestamps in seconds.
        rate: Frames per second on average.
        pixel_aspect: Width of a pixel divided by its height, upright.
        tags: How values are to be understood.
        frames: Number of frames, estimated; 0 if unknown.
        start: Timestamp of the first frame.
        remarks: Sentences about properties that the output does not have.
    """

    width: int
    height: int
    bits: int
    time_base: Fraction
    rate: Fraction
    pixel_aspect: Fraction = Fraction(1)
    tags: ColorTags = HD_TAGS
    frames: int = 0
    start: int = 0
    remarks: tuple[str, ...] = ()


class FrameSource(Protocol):
    """A video, or an animation, whose frames can be read.

    Attributes:
        info: What its output shares with it.
        damage: Sentences about what could not be read, after its frames have been read.
        damaged_at: Times of frames that cannot be decoded, in seconds, so far; reading adds to it.
    """

    info: VideoInfo
    damage: list[str]
    damaged_at: list[float]

    def frames(self, selection: Selection, after: int | None = None) -> Iterator[Frame]:
        """Yield the selected frames; with ``after``, those behind that selected timestamp."""

    def timestamps(self) -> Iterator[int]:
        """Yield the timestamp of each frame."""

    def close(self) -> None:
        """Close the file."""


def import_av(name: str) -> ModuleType:
    """Return PyAV.

    Raises:
        DataError: It is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise DataError(f"{name} is a video, which needs the package av: {INSTALL}") from error
    return av


def open_input(path: str) -> Any:
    """Open a file for reading, and no other: a playlist could name any address.

    Raises:
        OSError, ValueError: It cannot be opened.
    """
    # An absolute path: "a:b.mp4" would be an address.
    return import_av(path).open(
        os.path.abspath(path),
        metadata_errors="replace",
        container_options={"protocol_whitelist": "file"},
    )


@dataclass
class _Damage:
    """What cannot be decoded.

    Attributes:
        times: Time of each frame in seconds.
        begin: Frames up to this time are not counted; None: all are.
        end: A sentence about the end of the file, if it is missing.
    """

    times: list[float]
    begin: float | None = None
    end: str = ""

    def add(self, seconds: float | None) -> None:
        """Count a frame; without a time it is taken for a neighbor of the one before."""
        if seconds is None:
            seconds = self.times[-1] if self.times else 0.0
        if self.begin is None or seconds > self.begin:
            self.times.append(seconds)


class VideoReader:
    """The first video stream of a file.

    Args:
        path: The file.

    Attributes:
        info: What its output shares with it.
        damage: Sentences about what could not be read, after its frames have been read.
        damaged_at: Times of frames that cannot be decoded, in seconds, so far; reading adds to it.

    Raises:
        DataError: It has no video, or one that cannot be translated.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._av = import_av(path)
        self.damage: list[str] = []
        self.damaged_at: list[float] = []
        self._container = self._open()
        try:
            self._first, self._display = self._probe()
            self.info = self._info()
        except BaseException:
            self.close()
            raise

    def _open(self) -> Any:
        try:
            container = open_input(self.path)
        except OSError as error:
            raise DataError(
                f"cannot read {self.path}: {(error.strerror or str(error)).lower()}"
            ) from error
        except (self._av.FFmpegError, ValueError) as error:
            raise DataError(f"cannot read {self.path}: it is damaged, or no video") from error
        if container.format.name.split(",")[0] in REFERRING_FORMATS:
            container.close()
            raise DataError(f"{self.path} is a playlist, not a video", "Name the video itself.")
        pictures = self._av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & pictures]
        if not streams:
            container.close()
            raise DataError(f"{self.path} has no video stream")
        self._stream: Any = streams[0]
        width, height = self._stream.codec_context.width, self._stream.codec_context.height
        if width * height > max_pixels():  # Before a frame is decoded.
            container.close()
            raise DataError(
                f"{self.path} has {width}x{height} pixels, more than --max-megapixels", "Raise it."
            )
        # A decoder with a thread per frame reports errors late, and drops frames after them. It
        # runs beside the network, which takes longer.
        self._stream.thread_type = "SLICE"
        return container

    def _probe(self) -> tuple[Any, tuple[int, int, int, int]]:
        """Decode the first frame, and refuse videos that cannot be translated."""
        first = next((frame for frame in self._decoded(_Damage([]))), None)
        if first is None:
            raise DataError(f"cannot read {self.path}: none of its frames can be decoded")
        if first.color_trc in HDR_TRANSFERS:
            kind = HDR_TRANSFERS[first.color_trc]
            raise DataError(
                f"{self.path} is an HDR video ({kind}), and models are for SDR: convert it first, "
                "as docs/video.md shows"
            )
        if first.interlaced_frame:
            raise DataError(
                f"{self.path} is interlaced: deinterlace it first, e.g. with ffmpeg -i {self.path} "
                "-vf bwdif OUT.mp4"
            )
        if (bits := bits_of(first)) > SIXTEEN_BITS:
            raise DataError(
                f"{self.path} has pixels of {bits} bits ({first.format.name}), and at most "
                f"{SIXTEEN_BITS} are read"
            )
        return first, _display_of(first)

    def _info(self) -> VideoInfo:
        first, stream = self._first, self._stream
        size, aspect = (first.width, first.height), stream.sample_aspect_ratio or Fraction(1)
        if self._display[1]:  # Rotated by a quarter.
            size, aspect = size[::-1], 1 / aspect
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        # The decoders of VP8 and VP9 leave out alpha, which is a stream within the stream.
        names = {name.lower(): value for name, value in stream.metadata.items()}
        alpha = names.get("alpha_mode") == "1" or any(
            component.is_alpha for component in first.format.components
        )
        return VideoInfo(
            *size,
            bits_of(first),
            stream.time_base,
            rate,
            aspect,
            tags_of(first),
            stream.frames or round((self._seconds() or 0) * rate),
            first.pts or 0,
            ("its transparency is lost: videos are written without",) if alpha else (),
        )

    @property
    def is_lossy(self) -> bool:
        """Whether the codec may have changed pixels."""
        return bool(self._stream.codec_context.codec.lossy)

    def _seconds(self) -> float | None:
        """Return the duration of the video stream in seconds, or None."""
        if self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self, selection: Selection, after: int | None = None) -> Iterator[Frame]:
        """Yield the selected frames in order of presentation.

        Args:
            selection: The frames.
            after: The timestamp of a selected frame: only those behind it are yielded.
        """
        first, end = selection.bounds(self.info)
        index = 0  # Of frames since the first, or since ``after``.
        begin = first if after is None else after
        is_part = begin > self.info.start
        damage = _Damage(self.damaged_at, float(begin * self.info.time_base) if is_part else None)
        last: int | None = None
        for frame in self._from(begin, damage):
            pts, duration = self._timestamp(frame, last), frame.duration or 0
            last = pts
            if pts < begin:
                continue
            if end is not None and pts >= end:
                break
            if index % selection.every == 0 and pts != after:
                pixels = frame_to_rgb(frame, tags_of(frame))
                yield Frame(pts, duration * selection.every, upright(pixels, self._display))
            index += 1
        else:
            self._find_end(last, damage)
        self.damage = _sentences(damage)

    def timestamps(self) -> Iterator[int]:
        """Yield the timestamp of each frame that can be decoded, without converting its pixels."""
        last: int | None = None
        for frame in self._from(self.info.start, _Damage([])):
            last = self._timestamp(frame, last)
            yield last

    def _timestamp(self, frame: Any, last: int | None) -> int:
        """Return a frame's timestamp; those that are missing or go back follow from the last."""
        if frame.pts is not None and (last is None or frame.pts > last):
            return int(frame.pts)
        if last is None:
            return self.info.start
        if frame.pts is not None:
            return last + 1
        return last + max(round(1 / (self.info.rate * self.info.time_base)), 1)

    def _from(self, begin: int, damage: _Damage) -> Iterator[Any]:
        """Decode from the key frame before a timestamp."""
        self.close()
        self._container = self._open()
        frames = self._decoded(damage)
        if begin > self.info.start:
            with suppress(self._av.FFmpegError):  # The format cannot seek: decode all.
                self._container.seek(begin, stream=self._stream, backward=True)
            first = next(frames, None)
            if first is None or (first.pts or 0) > begin:  # Seeking has led too far.
                self.close()
                self._container = self._open()
                frames = self._decoded(damage)
            else:
                yield first
        yield from frames

    def _decoded(self, damage: _Damage) -> Iterator[Any]:
        """Yield all frames that can be decoded."""
        size, pending = None, list[int]()  # Timestamps sent to the decoder.
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (self._av.FFmpegError, OSError) as error:
                damage.end = f"reading stops: {error}"
                return
            if packet is None:
                return
            if packet.pts is not None:
                pending = [*pending[-MOST_PENDING:], packet.pts]
            try:
                frames = packet.decode()
            except (self._av.FFmpegError, OSError):
                damage.add(float(pending.pop(0) * self._stream.time_base) if pending else None)
                continue
            for frame in frames:
                if frame.pts in pending:
                    pending.remove(frame.pts)
                size = size or (frame.width, frame.height)
                if frame.is_corrupt or size != (frame.width, frame.height):
                    damage.add(frame.time)
                else:
                    yield frame

    def _find_end(self, last: int | None, damage: _Damage) -> None:
        """Compare the last timestamp with the duration in the header."""
        seconds = self._seconds()
        if last is None or seconds is None or damage.end:
            return
        missing = seconds - float((last - self.info.start) * self.info.time_base)
        if missing > MISSING_SECONDS + 2 / self.info.rate:
            damage.end = f"the last {missing:.1f} seconds are missing"


def _sentences(damage: _Damage) -> list[str]:
    found = []
    if damage.times:
        named = ", ".join(_clock(seconds) for seconds in damage.times[:MAX_NAMED])
        more = ", ..." if len(damage.times) > MAX_NAMED else ""
        frames = "1 frame" if len(damage.times) == 1 else f"{len(damage.times)} frames"
        found.append(f"{frames} cannot be decoded (at {named}{more})")
    if damage.end:
        found.append(damage.end)
    return found


def _clock(seconds: float) -> str:
    """Format a time as ``1:02:05.25``."""
    minutes, second = divmod(max(seconds, 0.0), 60)
    hours, minute = divmod(int(minutes), 60)
    return f"{hours}:{minute:02d}:{second:05.2f}"


def _display_of(frame: Any) -> tuple[int, int, int, int]:
    """Return the signs of the elements a, b, c, d of a frame's display matrix."""
    try:
        data = bytes(frame.side_data["DISPLAYMATRIX"])
    except KeyError:
        return UPRIGHT
    a, b, _, c, d = struct.unpack_from("<5i", data)
    if abs(a) + abs(d) < abs(b) + abs(c):
        a = d = 0
    else:
        b = c = 0
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    return UPRIGHT if not any(signs) else signs
