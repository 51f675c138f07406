"""Artifacts of translated images: periodic patterns and halos, beside those of real images.

    python benchmarks/artifacts.py --outputs out --target test/night [--json]

- pattern: peak of the power spectrum of even areas at the frequencies of the generator's strides
  (1/2 and 1/4 cycles per pixel), relative to neighboring frequencies. 1 is none; checkerboard
  artifacts of transposed convolutions (Odena et al. 2016) have 3 and more.
- halo: mean overshoot beside strong edges of the luminance, relative to the contrast of the edge.
- luminance: mean, in 8-bit pixel values.

Images are measured at their own size.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.folder import list_images
from cyclegan_cli.data.image import LUMA
from cyclegan_cli.metrics.spectrum import TILE, even_spectrum, stride_peaks

# Of a bright edge, in 8-bit pixel values; plateaus are compared over PLATEAU pixels beyond NEAR.
CONTRAST, NEAR, PLATEAU = 60.0, 4, 4


def luminance_of(path: Path) -> Tensor:
    """Return the luminance of an image in 8-bit pixel values: ``[H, W]``, fp32."""
    pixels = torch.from_numpy(decode(path).frames[0].copy()).float()[..., :3]
    return pixels @ torch.tensor(LUMA)


def overshoots(luminance: Tensor) -> Iterator[Tensor]:
    """Yield the overshoot of all strong edges of ``[H, W]``, along rows and along columns."""
    reach = NEAR + PLATEAU
    for image in (luminance, luminance.T):
        if image.shape[1] < 2 * reach:
            continue
        profiles = image.unfold(1, 2 * reach, 1).flatten(0, 1)
        before, after = profiles[:, :PLATEAU].mean(dim=1), profiles[:, -PLATEAU:].mean(dim=1)
        steps = (after - before).abs()
        # Centered edges between even plateaus alone.
        centered = profiles[:, reach] - profiles[:, reach - 1]
        is_even = (profiles[:, :PLATEAU].std(dim=1) < 6) & (profiles[:, -PLATEAU:].std(dim=1) < 6)
        chosen = (steps > CONTRAST) & (centered.abs() > steps / 4) & is_even
        near = profiles[chosen, PLATEAU:-PLATEAU]
        low = torch.minimum(before, after)[chosen]
        high = torch.maximum(before, after)[chosen]
        beyond = (near.amax(dim=1) - high).clamp(min=0) + (low - near.amin(dim=1)).clamp(min=0)
        yield beyond / steps[chosen]


def measure(paths: list[Path]) -> dict[str, float]:
    """Return all measures of a set of images."""
    images = [luminance_of(path) for path in paths]
    spectrum = torch.stack([even_spectrum(image) for image in images if min(image.shape) >= TILE])
    halos = torch.cat([found for image in images for found in overshoots(image)])
    return {
        "images": len(images),
        "pattern": float(stride_peaks(spectrum.mean(dim=0)).max()),
        "halo": float(halos.mean()) if len(halos) else float("nan"),
        "edges": len(halos),
        "luminance": statistics.mean(float(image.mean()) for image in images),
    }


def main() -> None:
    """Parse arguments, measure both sets and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--outputs", type=Path, nargs="+", required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = {
        str(folder): measure(list_images(folder))
        for folder in (*arguments.outputs, arguments.target)
    }
    if arguments.json:
        print(json.dumps(found))
        return
    print("| images | number | pattern | halo | edges | luminance |\n" + "|---" * 6 + "|")
    for folder, one in found.items():
        print(
            f"| {folder} | {one['images']} | {one['pattern']:.2f} | {one['halo']:.3f} "
            f"| {one['edges']} | {one['luminance']:.1f} |"
        )


if __name__ == "__main__":
    main()
