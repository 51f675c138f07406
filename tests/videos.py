"""Small videos, written and read with PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

MILLISECOND = Fraction(1, 1000)


def moving_square(count: int, size: tuple[int, int] = (48, 32), seed: int = 0) -> list[Any]:
    """Frames ``[H, W, 3]`` of a square that moves over a gradient with some texture."""
    width, height = size
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    ground = np.dstack([x * 200 / width, y * 200 / height, (x + y) % 64])
    ground += random.integers(0, 30, (height // 4, width // 4, 1)).repeat(4, 0).repeat(4, 1)
    frames = []
    for index in range(count):
        frame = ground.astype(np.uint8)
        left = 2 + index * 2 % (width - 12)
        frame[6:16, left : left + 10] = (230, 200, 40)
        frames.append(frame)
    return frames


def write_video(
    path: Path | str,
    frames: Sequence[Any],
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    times: Sequence[int] | None = None,
    time_base: Fraction = MILLISECOND,
    options: dict[str, str] | None = None,
    audio: bool = False,
    rotation: int = 0,
    tags: dict[str, Any] | None = None,
    raw: bool = False,
) -> Path:
    """Write a video.

    Args:
        path: The file; its folder is created.
        frames: ``[H, W, 3]`` uint8 each, or with ``raw`` frames of PyAV.
        codec: The encoder.
        pixel_format: FFmpeg's name of the pixel format.
        times: Timestamp of each frame; by default 25 frames per second.
        time_base: Unit of the timestamps.
        options: Options of the encoder.
        audio: Whether to add a tone.
        rotation: Degrees that players rotate it by, counterclockwise.
        tags: Further attributes of the encoder.
        raw: Whether ``frames`` are frames of PyAV.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    times = times or range(0, 40 * len(frames), 40)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream(codec, rate=25, options=options or {})
        first = frames[0]
        stream.width, stream.height = (
            (first.width, first.height) if raw else (first.shape[1], first.shape[0])
        )
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        sound: Any = output.add_stream("aac", rate=8000, layout="mono") if audio else None
        output.metadata["title"] = "a square"
        for time, pixels in zip(times, frames, strict=True):
            frame = pixels if raw else av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if not raw:
                frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = time, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            seconds = float(times[-1] * time_base)
            wave = np.sin(np.arange(int(8000 * seconds) + 1024) / 4).astype(np.float32)
            chunk = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            chunk.sample_rate, chunk.pts = 8000, 0
            output.mux(sound.encode(chunk))
            output.mux(sound.encode(None))
    return path


def frames_of(path: Path | str) -> list[Any]:
    """All frames of a video, as PyAV decodes them."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times_of(path: Path | str) -> list[Fraction]:
    """The presentation times of all frames in seconds."""
    return [frame.pts * frame.time_base for frame in frames_of(path)]


def pixels_of(path: Path | str) -> Any:
    """All frames as ``[N, H, W, 3]`` uint8."""
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames_of(path)])


def packets_of(path: Path | str, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time and content of all packets of the first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [
            (packet.pts * packet.time_base, bytes(packet))
            for packet in container.demux(stream)
            if packet.pts is not None
        ]
