"""Write encoded packets together with the other streams of the input."""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from cyclegan_cli.translation.selection import Selection
from cyclegan_cli.translation.video.encoder import ENCODERS, Packet, VideoFormat
from cyclegan_cli.translation.video.reader import VideoInfo, import_av, open_input

LARGEST_TIMESCALE = 2**31 - 1
# Of the container, not of its contents.
OWN_METADATA = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})


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
        damaged: Number of packets that are left out because they are damaged.
    """

    def __init__(
        self, path: str | None, output: Any, selection: Selection, info: VideoInfo
    ) -> None:
        self.remarks: tuple[str, ...] = ()
        self.damaged = 0
        self._input: Any = None
        self._streams: dict[int, Any] = {}
        if path is None:
            return
        av = import_av(path)
        self._input = open_input(path)
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
            if stream.type == "data" and self._input.chapters():
                continue  # MP4 stores the titles of chapters as a stream.
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
        last: dict[int, int] = {}
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
            if packet.dts <= last.get(packet.stream.index, packet.dts - 1):
                self.damaged += 1  # Containers require increasing times.
                continue
            last[packet.stream.index] = packet.dts
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
        packets: Callable[[], Iterable[Packet]],
    ) -> tuple[str, ...]:
        """Write the packets of all segments and the other streams of the input.

        Args:
            target: The file, which is overwritten.
            container: FFmpeg's name of its format.
            times: Presentation times of all packets in decoding order.
            durations: Duration of each frame by its timestamp.
            packets: Returns the packets.

        Returns:
            Sentences about streams that are lost.

        Raises:
            OSError: It cannot be written.
        """
        try:
            return self._write(target, container, times, durations, packets())
        except OSError as error:
            if self.source is None or error.errno != errno.EINVAL:
                raise
        alone = replace(self, source=None)
        alone._write(target, container, times, durations, packets())
        return ("its sound and subtitles are damaged, and left out",)

    def _write(
        self,
        target: Path,
        container: str,
        times: Sequence[int],
        durations: dict[int, int],
        packets: Iterable[Packet],
    ) -> tuple[str, ...]:
        av = import_av("the output")
        options = {}
        if container in ("mp4", "mov"):
            # The start of each stream is stored in units of the movie, by default milliseconds.
            scale = min(self.video.info.time_base.denominator, LARGEST_TIMESCALE)
            options = {"movflags": "+faststart", "movie_timescale": str(scale)}
        others = None
        try:
            with av.open(str(target), "w", format=container, container_options=options) as output:
                stream = output.add_stream(ENCODERS[self.video.codec], options=self.video.options)
                self.video.configure(stream.codec_context)
                stream.time_base = self.video.info.time_base
                others = MuxedStreams(self.source, output, self.selection, self.video.info)
                output.start_encoding()
                own = self._timed(stream, times, durations, packets)
                self._mux(output, stream, own, others)
        except av.FFmpegError as error:
            raise OSError(error.errno or errno.EIO, error.strerror, str(target)) from error
        finally:
            if others is not None:
                others.close()
        damaged = f"{others.damaged} packets of its sound or subtitles are damaged, and left out"
        return (*others.remarks, *([damaged] if others.damaged else []))

    def _mux(
        self, output: Any, stream: Any, own: Iterator[tuple[float, Any]], others: MuxedStreams
    ) -> None:
        """Write all packets in order of time."""
        av = import_av("the output")
        for _, packet in heapq.merge(own, others.packets(), key=lambda item: item[0]):
            is_own = packet.stream is stream
            try:
                output.mux(packet)
            except av.FFmpegError as error:
                if is_own or error.errno != errno.EINVAL:
                    raise
                others.damaged += 1

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
