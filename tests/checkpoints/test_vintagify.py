"""A CycleGAN generator from elsewhere, the PyPI package vintagify 0.1.2, computes the same here.

Runs where the package can be imported, or where VINTAGIFY names the folder that it was installed
into (docs/import.md); skipped elsewhere.
"""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.checkpoints.store import load_generator
from cyclegan_cli.config import GeneratorConfig


def package_folder() -> Path | None:
    if named := os.environ.get("VINTAGIFY"):
        return Path(named, "vintagify")
    spec = importlib.util.find_spec("vintagify")
    return Path(spec.origin).parent if spec and spec.origin else None


FOLDER = package_folder()


def module_of(file: Path) -> ModuleType:
    """The module by itself: the package's own imports need matplotlib."""
    spec = importlib.util.spec_from_file_location("vintagify_generator", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(FOLDER is None, reason="vintagify is not installed")
def test_vintagify_generator_computes_the_same():
    assert FOLDER is not None
    path = FOLDER / "resources" / "G_A2B_epoch33.pth"
    info = read_checkpoint(path).info
    assert (info.generator, info.directions) == (GeneratorConfig(affine_norm=True), ("a2b",))
    theirs = module_of(FOLDER / "generator.py").ResnetGenerator()
    theirs.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    ours, _ = load_generator(path, "a2b")
    images = torch.rand((2, 3, 64, 96), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        expected = theirs.eval()(images)
        assert expected.std() > 0.1
        for image, wanted in zip(images, expected, strict=True):
            torch.testing.assert_close(ours(image[None])[0], wanted, rtol=0, atol=1e-5)
