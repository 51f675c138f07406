"""Extensions of video files, and which containers hold which codecs."""

from __future__ import annotations

import os
import re

from cyclegan_cli.config import VideoCodec

# Containers that can be written, by extension, as FFmpeg's libraries call them.
CONTAINERS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm",
}  # fmt: skip
CODECS_OF: dict[str, tuple[VideoCodec, ...]] = {
    "mp4": ("h264", "hevc", "av1"),
    "mov": ("h264", "hevc", "prores"),
    "matroska": ("h264", "hevc", "av1", "ffv1", "prores"),
    "webm": ("av1",),
}
HIGHEST_CRF = {"h264": 51, "hevc": 51, "av1": 63}
# Searched for in folders. Not .ts, which is also the extension of TypeScript.
FOLDER_EXTENSIONS = (
    *CONTAINERS, ".3gp", ".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".wmv",
    ".vob",
)  # fmt: skip
VIDEO_EXTENSIONS = (*FOLDER_EXTENSIONS, ".asf", ".f4v", ".m2v", ".nut", ".ts", ".y4m")
FALLBACK_CONTAINER = ".mp4"
# The pattern of the names of an image sequence, such as %05d.png.
SEQUENCE = re.compile(r"%0?\d*d")
INSTALL = "pip install 'cyclegan-cli[video]'"


def is_video(path: str) -> bool:
    """Return whether a path has the extension of a video."""
    return path.lower().endswith(VIDEO_EXTENSIONS)


def is_sequence(path: str) -> bool:
    """Return whether the name of an output is the pattern of an image sequence."""
    # A video may be called "50%discount.mp4".
    return SEQUENCE.search(os.path.basename(path)) is not None and not is_video(path)


def frame_path(pattern: str, number: int) -> str:
    """Return the path of a frame in an image sequence."""
    folder, name = os.path.split(pattern)
    return os.path.join(folder, SEQUENCE.sub(lambda found: found[0] % number, name))


def container_of(extension: str) -> str | None:
    """Return the container that is written under an extension, or None."""
    return CONTAINERS.get(extension.lower())
