"""Encode frames, and write encoded packets together with the other streams of the input."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from cyclegan_cli.config import VideoCodec
from cyclegan_cli.errors import DataError
from cyclegan_cli.translation.video.color import BT601, RGB, ColorTags, rgb_to_frame
from cyclegan_cli.translation.video.reader import Frame, Selection, VideoInfo, import_av

ENCODERS = {
    "h264": "libx264", "hevc": "libx265", "av1": "libsvtav1", "prores": "prores_ks", "ffv1": "ffv1",
}  # fmt: skip
DEFAULT_CRF = {"h264": 18, "hevc": 20, "av1": 24}
HIGHEST_CRF = {"h264": 51, "hevc": 51, "av1": 63}
OPTIONS = {
    "h264": {"preset": "medium", "g": "250"},
    "hevc": {"preset": "medium", "g": "250", "x265-params": "log-level=error"},
    "av1": {"preset": "8", "g": "250"},
    "prores": {"profile": "hq"},
    "ffv1": {"level": "3", "slices": "4", "slicecrc": "1"},
}  # fmt: skip
# Of the container, not of its contents.
OWN_METADATA = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})


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
        context = self._av.CodecContext.create(ENCODERS[video.codec], "w")
        video.configure(context)
        context.options = video.options
        context.flags |= self._av.codec.context.Flags.global_header
        try:
            context.open()
        except self._av.FFmpegError as error:
            size = f"{video.info.width}x{video.info.height}"
            raise DataError(
                f"the codec {video.codec} cannot encode a video of {size} pixels",
                "Choose another with --codec.",
            ) from error
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


def decoding_times(pts: Sequence[int]) -> list[int]:
    """Return decoding times for packets: increasing, and none after its presentation time.

    Encoders number the segments of a video as if each began a video, so their decoding times
    overlap where frames have different durations.

    Args:
        pts: Presentation times in decoding order, all different.
    """
    ordered = sorted(pts)
    rank = {value: index for index, value in enumerate(ordered)}
    delay = max((index - rank[value] for index, value in enumerate(pts)), default=0)
    step = max(ordered[1] - ordered[0], 1) if len(ordered) > 1 else 1
    early = [ordered[0] - step * (delay - index) for index in range(min(delay, len(pts)))]
    return early + ordered[: len(ordered) - len(early)]


def _gaps(pts: Sequence[int], decoding: Sequence[int], end: int) -> dict[int, int]:
    """Return the durations of packets by their presentation times, in decoding order.

    Args:
        pts: Presentation times in decoding order.
        decoding: Decoding times.
        end: When the last frame ends.
    """
    total = end - min(pts, default=0)
    following = [*decoding[1:], max(decoding[0] + total, decoding[-1] + 1)] if pts else []
    return {one: after - now for one, now, after in zip(pts, decoding, following, strict=True)}


class MuxedStreams:
    """The streams of an input beside its video that an output can hold.

    Args:
        path: The input; None: it has none.
        output: The output, open for writing.
        selection: The part of the input.
        info: Properties of its video.

    Attributes:
        remarks: A sentence about streams that the output does not hold.
    """

    def __init__(
        self, path: str | None, output: Any, selection: Selection, info: VideoInfo
    ) -> None:
        self.remarks: tuple[str, ...] = ()
        self._input: Any = None
        self._streams: dict[int, Any] = {}
        if path is None:
            return
        av = import_av(path)
        self._input = av.open(path, metadata_errors="replace")
        first = float(info.start * info.time_base)
        self._start = first + selection.start if selection.start else None
        self._end = None if selection.end is None else first + selection.end
        self._copy_metadata(output, selection)
        held, dropped = output.supported_codecs, []
        video_seen = False
        for stream in self._input.streams:
            is_picture = bool(stream.disposition & av.stream.Disposition.attached_pic)
            if stream.type == "video" and not is_picture and not video_seen:
                video_seen = True
                continue
            name = _codec_name(stream)
            if stream.type not in ("audio", "subtitle") or name not in held:
                dropped.append(f"{stream.type} ({name})" if name else stream.type)
                continue
            try:
                copy = output.add_stream_from_template(stream)
            except (av.FFmpegError, ValueError):
                dropped.append(f"{stream.type} ({name})")
                continue
            copy.metadata.update(stream.metadata)
            copy.disposition = stream.disposition
            self._streams[stream.index] = copy
        if dropped:
            self.remarks = (f"the output does not hold these streams: {', '.join(dropped)}",)

    def _copy_metadata(self, output: Any, selection: Selection) -> None:
        known = self._input.metadata.items()
        output.metadata.update({key: v for key, v in known if key not in OWN_METADATA})
        if not selection.start and selection.end is None:
            with suppress(ValueError, TypeError):
                output.set_chapters(self._input.chapters())

    def packets(self) -> Iterator[tuple[float, Any]]:
        """Yield packets with their times in seconds, as the output counts them."""
        if not self._streams:
            return
        av = import_av("the input")
        demuxed = self._input.demux(*(self._input.streams[index] for index in self._streams))
        while True:
            try:
                packet = next(demuxed, None)
            except (av.FFmpegError, OSError):
                return  # The video's reader names the damage.
            if packet is None:
                return
            if packet.dts is None or packet.pts is None:
                continue
            seconds = float(packet.pts * packet.time_base)
            if self._start is not None and seconds < self._start:
                continue
            if self._end is not None and seconds >= self._end:
                continue
            if self._start is not None:
                shift = round(Fraction(self._start).limit_denominator(10**6) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            time = float(packet.dts * packet.time_base)
            packet.stream = self._streams[packet.stream.index]
            yield time, packet

    def close(self) -> None:
        """Close the input."""
        if self._input is not None:
            self._input.close()


def _codec_name(stream: Any) -> str:
    try:
        return str(stream.codec_context.name if stream.codec_context else "")
    except (AttributeError, ValueError):
        return ""


@dataclass(frozen=True)
class VideoFile:
    """An output to be written.

    Attributes:
        video: How its frames are encoded.
        source: The input with further streams, or None.
        selection: The part of the input.
        shift: Subtracted from timestamps, with ``--start``.
        has_gaps: Whether the container stores the time from packet to packet in decoding order,
            as MP4 does, instead of the duration of each frame.
    """

    video: VideoFormat
    source: str | None
    selection: Selection
    shift: int = 0
    has_gaps: bool = False

    def write(
        self,
        target: Path,
        container: str,
        times: Sequence[int],
        durations: dict[int, int],
        packets: Iterable[Packet],
    ) -> tuple[str, ...]:
        """Write the packets of all segments and the other streams of the input.

        Args:
            target: The file, which is overwritten.
            container: FFmpeg's name of its format.
            times: Presentation times of all packets in decoding order.
            durations: Duration of each frame by its timestamp.
            packets: The packets.

        Returns:
            Sentences about streams that are lost.
        """
        av = import_av("the output")
        options = {"movflags": "+faststart"} if container in ("mp4", "mov") else {}
        with av.open(str(target), "w", format=container, container_options=options) as output:
            stream = output.add_stream(ENCODERS[self.video.codec], options=self.video.options)
            self.video.configure(stream.codec_context)
            stream.time_base = self.video.info.time_base
            others = MuxedStreams(self.source, output, self.selection, self.video.info)
            try:
                output.start_encoding()
                own = self._timed(stream, times, durations, packets)
                for _, packet in heapq.merge(own, others.packets(), key=lambda item: item[0]):
                    output.mux(packet)
            finally:
                others.close()
        return others.remarks

    def _timed(
        self,
        stream: Any,
        times: Sequence[int],
        durations: dict[int, int],
        packets: Iterable[Packet],
    ) -> Iterator[tuple[float, Any]]:
        av = import_av("the output")
        time_base = self.video.info.time_base
        decoding = decoding_times(times)
        if self.has_gaps:
            shown = max(times, default=0)
            durations = _gaps(times, decoding, shown + durations.get(shown, 0))
        for time, one in zip(decoding, packets, strict=True):
            packet = av.Packet(one.data)
            packet.pts, packet.dts = one.pts - self.shift, time - self.shift
            packet.time_base, packet.duration = time_base, durations.get(one.pts, 0)
            packet.is_keyframe = one.is_key
            packet.stream = stream
            yield float(packet.dts * time_base), packet
