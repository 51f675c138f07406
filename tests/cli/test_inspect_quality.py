"""``cyclegan inspect OUT --against TARGET``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch import nn

from cyclegan_cli.data.tensors import to_unit_range
from cyclegan_cli.inspection import translations
from cyclegan_cli.metrics.distances import sliced_wasserstein_distance
from cyclegan_cli.metrics.features import frechet_distance, kernel_distance
from cyclegan_cli.metrics.inception import FEATURES, WEIGHTS_DIGEST, Inception
from inception_weights import save_random_weights

Cyclegan = Callable[..., Any]
QUICK = ("--size", "32", "--no-inception")


def noise(seed: int, brightness: float, size: tuple[int, int] = (32, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).uniform(0, brightness, (*size, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Bright inputs, darker translations, dark target images, and the ground truth."""
    monkeypatch.chdir(tmp_path)
    for folder, suffix, brightness, count in [
        ("day", "", 250, 4), ("out", "_night", 120, 4), ("truth", "", 110, 4), ("night", "x", 80, 6)
    ]:  # fmt: skip
        Path(folder).mkdir()
        for index in range(count):
            # The target domain shows other images.
            seed = index + 100 * (folder == "night")
            noise(seed, brightness).save(f"{folder}/{index}{suffix}.png")
    return tmp_path


class MeanColor(nn.Module):
    """Stands in for the Inception network: features that depend on the mean color alone."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Linear(3, FEATURES).requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.projection(images.mean(dim=(2, 3)))
        return features


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Inception:
    torch.manual_seed(0)
    inception = Inception(MeanColor(), Path("weights.pth"), WEIGHTS_DIGEST)
    monkeypatch.setattr(translations, "load_inception", lambda *_args, **_kwargs: inception)
    return inception


def pixels_of(folder: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted(Path(folder).iterdir())]


def test_translations_lie_between_the_inputs_and_the_target(
    cyclegan: Cyclegan, folders: Path
) -> None:
    answer = cyclegan("inspect", "out", "--against", "night", "--inputs", "day", *QUICK, "--json")
    assert (answer.code, answer.err) == (0, "")
    [document] = answer.documents
    assert (document["schema"], document["kind"]) == (1, "translations")
    assert document["images"] == {"translations": 4, "inputs": 4, "target": 6}
    swd = document["swd"]
    assert swd["target_halves"]["value"] < swd["translations"]["value"] < swd["inputs"]["value"]
    for column in swd.values():
        assert column["low"] <= column["value"] <= column["high"]
        assert column["value"] == pytest.approx(np.mean(column["levels"]))
    assert (document["kid"], document["fid"]) == (None, None)
    assert document["inception"]["reason"] == "--no-inception is given"
    images = [
        to_unit_range(torch.from_numpy(np.stack(pixels_of(one))).permute(0, 3, 1, 2))
        for one in ("out", "night")
    ]
    assert swd["translations"]["levels"] == pytest.approx(sliced_wasserstein_distance(*images))


def test_results_are_reproducible(cyclegan: Cyclegan, folders: Path) -> None:
    arguments = ("inspect", "out", "--against", "night", "--pairs", "truth", *QUICK, "--json")
    assert cyclegan(*arguments).out == cyclegan(*arguments).out


def test_kid_and_fid(cyclegan: Cyclegan, folders: Path, network: Inception) -> None:
    answer = cyclegan("inspect", "out", "--against", "night", "--size", "32", "--json")
    assert answer.code == 0
    assert "warning: FID: 4 images are fewer than the 2,048 features" in answer.err
    [document] = answer.documents
    features = [torch.stack([network.features(one) for one in pixels_of(f)]) for f in
                ("out", "night")]  # fmt: skip
    kid, fid = document["kid"]["translations"], document["fid"]["translations"]
    assert kid["value"] == pytest.approx(kernel_distance(*features))
    assert fid["value"] == pytest.approx(frechet_distance(*features))
    assert kid["low"] < kid["value"] < kid["high"]
    assert fid["low"] < fid["value"] < fid["high"]
    assert document["inception"] == {
        "weights": "weights.pth", "sha256": WEIGHTS_DIGEST, "standard": True, "reason": None
    }  # fmt: skip
    assert [warning[:4] for warning in document["warnings"]] == ["FID:"]


def test_ground_truth_is_found_by_name(cyclegan: Cyclegan, folders: Path) -> None:
    noise(9, 100).save("out/extra_night.png")
    answer = cyclegan(
        "inspect", "out", "--against", "night", "--pairs", "truth", "--inputs", "day", *QUICK,
        "--json",
    )  # fmt: skip
    assert answer.code == 0
    assert "1 of the translations have no ground truth: extra_night.png" in answer.err
    pairs = answer.documents[0]["pairs"]
    assert (pairs["count"], pairs["missing"]) == (4, ["out/extra_night.png"])
    assert [one["truth"] for one in pairs["images"]] == [f"truth/{i}.png" for i in range(4)]
    expected = [
        peak_signal_noise_ratio(true, made)
        for true, made in zip(pixels_of("truth"), pixels_of("out")[:4], strict=True)
    ]
    assert [one["psnr"] for one in pairs["images"]] == pytest.approx(expected)
    assert pairs["psnr"]["translations"]["value"] == pytest.approx(np.mean(expected))
    assert pairs["l1"]["translations"]["value"] < pairs["l1"]["inputs"]["value"]


def test_table(cyclegan: Cyclegan, folders: Path, network: Inception) -> None:
    answer = cyclegan(
        "inspect", "out", "--against", "night", "--pairs", "truth", "--inputs", "day", "--size",
        "32",
    )  # fmt: skip
    assert answer.code == 0
    first, *lines = answer.out.splitlines()
    assert first.rstrip() == "out against night"
    header = " ".join(lines[:4])
    for title in ("translations (4)", "inputs unchanged (4)", "target halves (6)"):
        assert title in header
    names = [line.split()[0] for line in lines if line[2:3].isupper()]
    assert names == ["SWD", "KID", "FID", "L1", "PSNR,", "SSIM"]


def test_missing_weights_are_explained(
    cyclegan: Cyclegan, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(folders / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    answer = cyclegan("inspect", "out", "--against", "night", "--size", "32")
    assert answer.code == 0
    assert "KID and FID are not computed: the weights of the Inception network" in answer.out
    assert "cannot be downloaded: no route to host." in answer.out
    assert "downloading the weights" in answer.err


@pytest.mark.slow
def test_weights_from_a_file(cyclegan: Cyclegan, folders: Path) -> None:
    save_random_weights(folders / "weights.pth")
    answer = cyclegan(
        "inspect", "out", "--against", "night", "--size", "32", "--inception-weights",
        "weights.pth", "--json",
    )  # fmt: skip
    assert answer.code == 0
    assert "does not hold the standard Inception weights" in answer.err
    [document] = answer.documents
    assert document["inception"]["standard"] is False
    assert document["kid"]["translations"]["value"] > document["kid"]["target_halves"]["value"]


def test_unreadable_images_are_named(cyclegan: Cyclegan, folders: Path) -> None:
    Path("out/0_night.png").write_bytes(b"damaged")
    Path("night/2x.png").write_bytes(b"")
    answer = cyclegan("inspect", "out", "--against", "night", *QUICK, "--json")
    assert answer.code == 6
    assert answer.documents[0]["images"] == {"translations": 3, "target": 5}
    assert len(answer.documents[0]["problems"]) == 2
    assert "error: out/0_night.png is not an image" in answer.err
    assert "error: night/2x.png is empty" in answer.err
    assert answer.errors[-1] == "error: 2 of the images could not be read, and were left out"


def test_images_of_any_size_and_kind(cyclegan: Cyclegan, folders: Path) -> None:
    noise(3, 90, (70, 41)).save("out/wide_night.jpg")
    noise(4, 90, (20, 90)).convert("L").save("out/high_night.webp")
    noise(5, 90).convert("RGBA").save("out/clear_night.png")
    Image.fromarray(np.full((40, 40), 9000, np.uint16)).save("out/deep_night.png")
    answer = cyclegan("inspect", "out", "--against", "night", *QUICK, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.documents[0]["images"]["translations"] == 8


def test_a_single_image_has_no_interval(
    cyclegan: Cyclegan, folders: Path, network: Inception
) -> None:
    for path in sorted(Path("night").iterdir())[1:]:
        path.unlink()
    answer = cyclegan("inspect", "out", "--against", "night", "--size", "32", "--json")
    assert answer.code == 0
    [document] = answer.documents
    assert document["swd"].keys() == {"translations"}
    assert document["swd"]["translations"]["low"] is None
    assert document["kid"] == {"translations": None}
    assert document["fid"] == {"translations": None}


def test_large_folders_are_sampled(
    cyclegan: Cyclegan, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translations, "MAX_SWD_IMAGES", 5)
    answer = cyclegan("inspect", "out", "--against", "night", *QUICK)
    assert answer.code == 0
    assert "SWD is computed from at most 5 images, evenly spaced, of: target" in answer.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("out --pairs truth", 2, "--pairs requires --against"),
        ("out --inputs day", 2, "--inputs requires --against"),
        ("out --size 64", 2, "--size requires --against"),
        ("out --no-inception", 2, "--no-inception requires --against"),
        ("out --inception-weights x", 2, "--inception-weights requires --against"),
        ("out day --against night", 2, "--against takes one PATH"),
        ("--against night", 2, "--against takes one PATH"),
        ("out --against night --weights", 2, "--against and --weights exclude each other"),
        ("out --against night --full", 2, "--against and --full exclude each other"),
        ("out --against night --no-inception --inception-weights x", 2, "exclude each other"),
        ("out --against nothing", 3, "nothing is not a folder"),
        ("out/0_night.png --against night", 3, "out/0_night.png is not a folder: found a file"),
        ("out --against empty", 3, "empty has no images"),
        ("out --against damaged", 3, "no image in damaged can be read"),
        ("out --against night --pairs night", 3, "no image in out has a ground truth"),
        ("out --against night --pairs nothing", 3, "nothing is not a folder"),
        ("out --against night --inputs nothing", 3, "nothing is not a folder"),
    ],
)
def test_refusals(
    cyclegan: Cyclegan, folders: Path, arguments: str, code: int, message: str
) -> None:
    Path("empty").mkdir()
    Path("damaged").mkdir()
    Path("damaged/a.png").write_bytes(b"damaged")
    quick = () if "inception" in arguments or code == 2 else ("--no-inception",)
    answer = cyclegan("inspect", *arguments.split(), *quick)
    assert answer.code == code
    assert len(answer.errors) == 1
    assert message in answer.errors[0]
    assert answer.out == ""


def test_unusable_weights_are_refused(cyclegan: Cyclegan, folders: Path) -> None:
    Path("weights.pth").write_bytes(b"other")
    answer = cyclegan(
        "inspect", "out", "--against", "night", "--inception-weights", "weights.pth", *QUICK[:2]
    )
    assert answer.code == 3
    assert "weights.pth does not hold the weights of the Inception network" in answer.err
