"""Encode frames into segments of packets."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from cyclegan_cli.config import VideoCodec
from cyclegan_cli.errors import DataError
from cyclegan_cli.translation.video.color import BT601, RGB, ColorTags, rgb_to_frame
from cyclegan_cli.translation.video.reader import Frame, VideoInfo, import_av

ENCODERS = {
    "h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "prores": "prores_ks", "ffv1": "ffv1",
}  # fmt: skip
DEFAULT_CRF = {"h264": 18, "hevc": 20, "av1": 24}
OPTIONS = {
    "h264": {"preset": "medium", "g": "250"},
    "hevc": {"preset": "medium", "g": "250", "x265-params": "log-level=error"},
    "av1": {"preset": "8", "g": "250"},
    "prores": {"profile": "hq"},
    "ffv1": {"level": "3", "slices": "4", "slicecrc": "1"},
}  # fmt: skip
# Shortest side. libx265 4.2 writes outside of its memory below a width of 64.
SMALLEST = {"hevc": 64}


class Packet(NamedTuple):
    """An encoded frame.

    Attributes:
        pts: Its presentation time.
        is_key: Whether decoding can start with it.
        data: Its bytes.
    """

    pts: int
    is_key: bool
    data: bytes


@dataclass(frozen=True)
class VideoFormat:
    """How the frames of a video are encoded.

    Attributes:
        codec: The codec.
        crf: The quality; None: the codec has none.
        pixel_format: FFmpeg's name of the pixel format.
        info: Properties of the video.
        tags: How its values are to be understood.
    """

    codec: VideoCodec
    crf: int | None
    pixel_format: str
    info: VideoInfo
    tags: ColorTags

    def configure(self, context: Any) -> None:
        """Set the properties of an encoder that is not open yet."""
        info, tags = self.info, self.tags
        context.width, context.height = info.width, info.height
        context.pix_fmt = self.pixel_format
        context.time_base, context.framerate = info.time_base, info.rate
        context.sample_aspect_ratio = info.pixel_aspect
        context.colorspace, context.color_range = tags.matrix, tags.range
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        if self.codec == "hevc":
            context.codec_tag = "hvc1"  # The only one that Apple's players accept.

    @property
    def options(self) -> dict[str, str]:
        """Options of the encoder."""
        options = dict(OPTIONS[self.codec])
        if self.crf is not None:
            options["crf"] = str(self.crf)
        return options

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about properties of the input that the output does not have."""
        remarks = list(self.info.remarks)
        if self.pixel_format.startswith("yuv444") and self.codec in ("h264", "hevc"):
            remarks.append(
                f"its size {self.info.width}x{self.info.height} is odd, so it is written with full "
                "chroma (4:4:4), which some players cannot show"
            )
        if self.info.bits > 8 and "10" not in self.pixel_format and self.codec != "ffv1":
            remarks.append("it is written with 8 bits per channel")
        return tuple(remarks)


def choose_format(info: VideoInfo, codec: VideoCodec, crf: int | None) -> VideoFormat:
    """Return how a video is encoded.

    Args:
        info: Properties of the input.
        codec: The codec.
        crf: The quality; None: the codec's default.
    """
    is_odd = info.width % 2 or info.height % 2
    deep = "10le" if info.bits > 8 else ""
    tags = info.tags
    if tags.matrix == RGB:
        tags = ColorTags(BT601 if info.height < 720 else 1, 1, tags.primaries, tags.transfer)
    if codec == "ffv1":
        tags = ColorTags(RGB, 2, info.tags.primaries, info.tags.transfer)
        name = "bgr0" if info.bits <= 8 else f"gbrp{_rgb_bits(info.bits)}le"
    elif codec == "prores":
        name = "yuv422p10le"
        tags = ColorTags(tags.matrix, 1, tags.primaries, tags.transfer)
    else:
        chroma = "444" if is_odd and codec != "av1" else "420"
        name = f"yuv{chroma}p{deep}"
    return VideoFormat(codec, DEFAULT_CRF.get(codec) if crf is None else crf, name, info, tags)


def _rgb_bits(bits: int) -> int:
    return next(known for known in (10, 12, 14, 16) if known >= bits)


class SegmentEncoder:
    """An encoder whose packets can be decoded without those of other segments.

    Args:
        video: How frames are encoded.

    Attributes:
        packets: The packets so far, in decoding order.
        durations: Duration of each frame by its timestamp.
        extradata: Headers of the codec; complete after :meth:`finish`.
    """

    def __init__(self, video: VideoFormat) -> None:
        self._av = import_av("the output")
        os.environ.setdefault("SVT_LOG", "1")  # Its library prints settings otherwise.
        self._video = video
        self.packets: list[Packet] = []
        self.durations: dict[int, int] = {}
        size = f"{video.info.width}x{video.info.height}"
        refusal = DataError(
            f"the codec {video.codec} cannot encode a video of {size} pixels: choose another with "
            "--codec"
        )
        if min(video.info.width, video.info.height) < SMALLEST.get(video.codec, 1):
            raise refusal
        context = self._av.CodecContext.create(ENCODERS[video.codec], "w")
        video.configure(context)
        context.options = video.options
        context.flags |= self._av.codec.context.Flags.global_header
        try:
            context.open()
        except self._av.FFmpegError as error:
            raise refusal from error
        self._context: Any = context

    @property
    def extradata(self) -> bytes:
        """Headers of the codec."""
        return bytes(self._context.extradata or b"")

    def write(self, frame: Frame) -> None:
        """Encode a frame."""
        encoded = rgb_to_frame(frame.pixels, self._video.pixel_format, self._video.tags)
        encoded.pts, encoded.time_base = frame.pts, self._video.info.time_base
        self.durations[frame.pts] = frame.duration
        self._take(self._context.encode(encoded))

    def finish(self) -> None:
        """Encode the frames that the encoder still holds."""
        self._take(self._context.encode(None))

    def _take(self, packets: Iterable[Any]) -> None:
        self.packets.extend(Packet(p.pts, p.is_keyframe, bytes(p)) for p in packets)
