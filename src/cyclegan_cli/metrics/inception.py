"""Inception features by clean-fid's protocol (Parmar et al. 2022); needs the extra ``metrics``.

Images are resized to 299×299 by Pillow's antialiased bicubic filter, in floating point and without
rounding, and passed through the Inception network of the original FID up to the last pooling. The
network is torch-fidelity's conversion of the same TensorFlow weights that clean-fid uses.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan_cli.checkpoints.pth import read_torch_file
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.tensors import to_pixel_values
from cyclegan_cli.errors import CheckpointError, DataError, UsageError

SIZE = 299
FEATURES = 2048
# As for files of torch hub, the file name contains the beginning of the SHA-256 digest.
WEIGHTS_DIGEST = "6726825d"
URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
DOWNLOAD_TIMEOUT = 20  # In seconds without an answer.


@dataclass(frozen=True, eq=False)
class Inception:
    """The Inception network.

    Attributes:
        network: ``[B, 3, 299, 299]`` fp32 in [-1, 1) to features, ``[B, 2048]``.
        weights: The file that the weights were read from.
        digest: SHA-256 of that file.
    """

    network: nn.Module
    weights: Path
    digest: str

    @property
    def is_standard(self) -> bool:
        """Whether the weights are those that published KID and FID are computed with."""
        return self.digest.startswith(WEIGHTS_DIGEST)

    @torch.no_grad()
    def features(self, pixels: PixelArray) -> Tensor:
        """Return the features of an image.

        Args:
            pixels: ``[H, W, 3]`` uint8, of any size.

        Returns:
            ``[2048]`` fp32, on the CPU.
        """
        device = next(self.network.parameters()).device
        images = (resize(pixels)[None].to(device) - 128) / 128
        found: Tensor = self.network(images)
        return found[0].float().cpu()

    def features_of(self, images: Tensor) -> Tensor:
        """Return the features of ``[N, 3, H, W]`` in [-1, 1]: ``[N, 2048]`` fp32, on the CPU."""
        pixels = to_pixel_values(images).permute(0, 2, 3, 1).cpu().numpy()
        return torch.stack([self.features(one) for one in pixels])


def resize(pixels: PixelArray) -> Tensor:
    """Resize an image as clean-fid does: ``[H, W, 3]`` uint8 to ``[3, 299, 299]`` fp32.

    The values are in [0, 255], with overshoots.
    """
    channels = [
        Image.fromarray(pixels[..., channel].astype(np.float32)).resize(
            (SIZE, SIZE), Image.Resampling.BICUBIC
        )
        for channel in range(3)
    ]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))


def load_inception(
    weights: Path | None = None,
    device: torch.device | None = None,
    log: Callable[[str], None] = lambda _message: None,
) -> Inception:
    """Load the Inception network.

    Args:
        weights: The file with its weights; None: torch hub's cache, into which they are
            downloaded if necessary.
        device: Where to compute features; None: the CPU.
        log: Receives a message before a download.

    Raises:
        UsageError: torch-fidelity is not installed.
        DataError: The weights cannot be downloaded or read, or a cached file is damaged.
    """
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UsageError(
            "KID and FID need the package torch-fidelity", "Install the extra [metrics]."
        )
    path = weights or _cached_weights(log)
    state, digest = _read(path)
    if weights is None and not digest.startswith(WEIGHTS_DIGEST):
        raise DataError(
            f"the weights of the Inception network, {path}, are damaged: their digest is wrong",
            f"Delete the file, or download it from {URL}.",
        )
    return Inception(_build(state, path).to(device or torch.device("cpu")), path, digest)


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file and its SHA-256 digest; no code in the file is executed."""
    try:
        # Other kinds of files, such as pipes, are refused when they are opened.
        state = dict(read_torch_file(path))
    except CheckpointError as error:
        if not os.access(path, os.R_OK):
            reason = "permission denied" if path.exists() else "no such file"
            raise DataError(f"cannot read the Inception weights {path}: {reason}") from error
        raise _not_inception(path) from error
    with path.open("rb") as stream:
        return state, hashlib.file_digest(stream, "sha256").hexdigest()


def _build(state: dict[str, Tensor], path: Path) -> nn.Module:
    """Return the network up to the last pooling, in evaluation mode."""
    from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415 an extra
        FeatureExtractorInceptionV3,
    )

    # torch-fidelity unpickles the file that it is given; this one holds tensors alone.
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    try:
        extractor: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=stream
        )
    except (RuntimeError, TypeError, AttributeError) as error:
        raise _not_inception(path) from error
    # Without its head the network is a sequence. Its own forward pass would round the pixel values.
    layers = [layer for name, layer in extractor.named_children() if name != "fc"]
    return nn.Sequential(*layers, nn.Flatten(1)).requires_grad_(False).eval()


def _not_inception(path: Path) -> DataError:
    return DataError(
        f"{path} does not hold the weights of the Inception network",
        f"Download them from {URL}.",
    )


def _cached_weights(log: Callable[[str], None]) -> Path:
    """Return the file with the weights in torch hub's cache, downloading it if necessary."""
    path = Path(torch.hub.get_dir(), "checkpoints", URL.rpartition("/")[2])
    if path.exists():
        return path
    log(f"downloading the weights of the Inception network (91 MB) to {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _timeout(DOWNLOAD_TIMEOUT):
            torch.hub.download_url_to_file(
                URL, str(path), hash_prefix=WEIGHTS_DIGEST, progress=False
            )
    except (OSError, RuntimeError) as error:
        # urllib wraps the error of the operating system.
        reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
        raise DataError(
            f"the weights of the Inception network, {path}, cannot be downloaded: {reason}",
            f"Download them from {URL}.",
        ) from error
    return path


@contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
