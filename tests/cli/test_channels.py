"""Domains that are not 8-bit RGB, from the training to the translated files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from bands import GEO_CODES, GEO_TAGS, draw_domains, nodata_tag
from cyclegan_cli import Translator
from cyclegan_cli.checkpoints.header import read_model_info
from cyclegan_cli.data.bands import read_bands, to_unit
from cyclegan_cli.translation import file_stages

TINY = [
    "--load-size", "34", "--crop-size", "32", "--base-channels", "2", "--residual-blocks", "1",
    "--discriminator-channels", "2", "--device", "cpu", "--precision", "fp32", "--pool-size", "2",
    "--val-fraction", "0.4", "--decay-steps", "0",
]  # fmt: skip
CASES = {
    "thermal": "rgb",
    "satellite": "height",
    "ct": "mr",
}
# The weight of the color loss depends on the number of steps, which a test changes.
OPTIONS = {
    "ct": ["--range-a", "-1024,1500", "--lambda-color", "0"],
    "satellite": ["--show-bands", "4,3,2"],
}
CHANNELS = {"thermal": (1, 3), "satellite": (5, 1), "ct": (1, 1)}


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> Path:
    return draw_domains(tmp_path_factory.mktemp("bands"))


@pytest.fixture(scope="module")
def runs(domains) -> Path:
    """A folder of runs, which the first test of each case trains."""
    return domains / "runs"


@pytest.fixture
def train(domains, runs, cyclegan):
    def run(source: str, steps: int, name: str) -> Path:
        folder = runs / name
        if not folder.exists():
            answer = cyclegan(
                "train", "--domain-a", domains / source, "--domain-b", domains / CASES[source],
                *TINY, *OPTIONS.get(source, []), "--steps", steps, "--run-dir", folder, "-q",
            )  # fmt: skip
            assert answer.code == 0, answer.err
        return folder

    return run


@pytest.mark.parametrize("source", CASES)
def test_a_resumed_run_equals_one_that_was_not_interrupted(source, train, cyclegan, tmp_path):
    whole = train(source, 4, source)
    train(source, 2, f"{source}-part")
    part = shutil.copytree(whole.parent / f"{source}-part", tmp_path / "part")
    answer = cyclegan("train", "--resume", part, "--steps", "4", "-q")
    assert answer.code == 0, answer.err
    models = [(folder / "model.safetensors").read_bytes() for folder in (whole, part)]
    assert models[0] == models[1]
    info = read_model_info(whole / "model.safetensors")
    generator = info.generator
    assert (generator.input_channels, generator.output_channels) == CHANNELS[source]
    assert info.training["step"] == 4
    [grid, *_] = sorted((whole / "samples").iterdir())
    with Image.open(grid) as image:
        assert image.mode == "RGB"
    assert (whole / "index.html").exists()
    rows = (whole / "validation.csv").read_text().splitlines()
    assert len(rows) > 1
    assert "nan" not in rows[1]


def test_thermal_to_color_and_back(train, cyclegan, domains, tmp_path):
    run = train("thermal", 4, "thermal")
    assert (
        cyclegan("translate", domains / "thermal", "--checkpoint", run, "-o", tmp_path / "b").code
        == 0
    )
    assert read_bands(tmp_path / "b" / "0.png", "0").values.shape == (48, 56, 3)
    back = ("--checkpoint", run, "--to", "thermal", "-o", tmp_path / "a")
    assert cyclegan("translate", domains / "rgb", *back).code == 0
    image = read_bands(tmp_path / "a" / "0.png", "0")
    assert (image.values.shape, image.values.dtype) == ((48, 56, 1), np.uint16)
    target = read_model_info(run / "model.safetensors").formats[0]
    assert target is not None
    assert target.low[0] - 1 <= image.values.min() < image.values.max() <= target.high[0] + 1


def test_pixels_without_data_are_transparent_in_color(train, cyclegan, tmp_path):
    run = train("thermal", 4, "thermal")
    values = np.full((40, 44), 20000, np.uint16)
    values[:10] = 7
    values[30:] = 21000
    tags = [nodata_tag("7")]
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", extratags=tags)
    answer = cyclegan(
        "translate", tmp_path / "x.tif", "--checkpoint", run, "-o", tmp_path / "x.png"
    )
    assert answer.code == 0, answer.err
    with Image.open(tmp_path / "x.png") as image:
        assert image.mode == "RGBA"
        alpha = np.asarray(image)[..., 3]
    assert np.array_equal(alpha == 0, values == 7)
    assert (alpha[10:] == 255).all()


def test_satellite_to_height_keeps_place_and_gaps(train, cyclegan, domains, tmp_path):
    run = train("satellite", 4, "satellite")
    answer = cyclegan("translate", domains / "satellite", "--checkpoint", run, "-o", tmp_path / "b")
    assert answer.code == 0
    with tifffile.TiffFile(tmp_path / "b" / "1.tif") as file:
        [page] = file.pages
        values = page.asarray()
        tags = {tag.code: tag.value for tag in page.tags}
        assert (page.compression, page.is_tiled, tags[317]) == (5, True, 3)
    assert (values.shape, values.dtype) == ((48, 56), np.float32)
    assert np.isnan(values[:6]).all()
    assert np.isfinite(values[6:]).all()
    assert [tags[code] for code in GEO_CODES] == [tag[3] for tag in GEO_TAGS]
    assert tags[42113] == "nan"
    back = ("--checkpoint", run, "--to", "satellite", "-o", tmp_path / "a")
    assert cyclegan("translate", domains / "height", *back).code == 0
    image = read_bands(tmp_path / "a" / "0.tif", "0")
    assert (image.values.shape, image.values.dtype) == ((48, 56, 5), np.uint16)
    assert (image.values[:, :5] == 0).all()
    assert (image.values[:, 5:] > 0).all()
    assert image.probe.nodata == 0


def test_ct_to_mr_equals_the_network(train, cyclegan, domains, tmp_path):
    run = train("ct", 4, "ct")
    assert (
        cyclegan("translate", domains / "ct", "--checkpoint", run, "-o", tmp_path / "b").code == 0
    )
    translator = Translator.load(run, device="cpu")
    source, target = translator.source_format, translator.target_format
    assert source is not None
    assert target is not None
    assert (source.low, source.high) == ((-1024.0,), (1500.0,))
    values = np.load(domains / "ct" / "0.npy")
    unit = torch.from_numpy(to_unit(values[..., None], source)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = translator.generator(unit)[0, 0].double().numpy()
    [low], [high] = target.low, target.high
    written = np.load(tmp_path / "b" / "0.npy")
    assert written.dtype == np.int16
    assert np.abs(written - ((expected + 1) / 2 * (high - low) + low)).max() <= 0.51
    assert np.array_equal(translator(values)[..., 0], written)
    assert torch.allclose(translator(unit)[0, 0], torch.from_numpy(expected).float(), atol=1e-4)


def test_values_outside_of_a_mask_are_kept(train, cyclegan, domains, tmp_path, monkeypatch):
    run = train("ct", 4, "ct")
    mask = np.zeros((48, 56), dtype=bool)
    mask[10:40, 10:50] = True
    Image.fromarray(mask).save(tmp_path / "mask.png")
    options = [
        "--checkpoint",
        run,
        "--mask",
        tmp_path / "mask.png",
        "--mask-feather",
        "2",
        "--json",
    ]
    [source, whole, masked] = [domains / "ct" / "0.npy", tmp_path / "a.npy", tmp_path / "b.npy"]
    assert cyclegan("translate", source, "--checkpoint", run, "-o", whole).code == 0
    answer = cyclegan("translate", source, "-o", masked, "--json", "--cycle-error", *options)
    assert answer.code == 0, answer.err
    assert answer.documents[0]["mask_share"] == mask.mean()
    assert 0 < answer.documents[0]["cycle_error"] < 1
    assert -1 <= answer.documents[0]["structure"] <= 1
    values, translated, found = (np.load(path) for path in (source, whole, masked))
    assert np.array_equal(found[~mask], values[~mask])
    inner = (slice(12, 38), slice(12, 48))
    assert np.array_equal(found[inner], translated[inner])
    # The first pixels inside have a weight of 1/3.
    thirds = values[10, 20:40] + (translated[10, 20:40].astype(float) - values[10, 20:40]) / 3
    assert np.abs(found[10, 20:40] - thirds).max() <= 1
    # The same in windows, of a TIFF.
    tifffile.imwrite(tmp_path / "ct.tif", values, tile=(16, 16), extratags=[nodata_tag("77")])
    results = []
    for name, limit in (("whole", file_stages.WHOLE_BYTES), ("windows", 0)):
        monkeypatch.setattr(file_stages, "WHOLE_BYTES", limit)
        output = tmp_path / f"{name}.tif"
        answer = cyclegan("translate", tmp_path / "ct.tif", "-o", output, "--json", *options)
        assert answer.code == 0, answer.err
        assert ("structure" in answer.documents[0]) == (name == "whole")
        assert answer.documents[0]["mask_share"] == mask.mean()
        results.append(tifffile.imread(output))
    assert np.array_equal(*results)
    assert np.array_equal(results[0][~mask], values[~mask])
    np.save(tmp_path / "wide.npy", values.astype(np.uint16))
    answer = cyclegan("translate", tmp_path / "wide.npy", "-o", tmp_path / "c.npy", *options)
    assert answer.code == 6
    assert "type uint16, which pixels outside of the mask cannot keep" in answer.err
    thermal = train("thermal", 4, "thermal")
    answer = cyclegan("translate", source, "--checkpoint", thermal, "--mask", tmp_path / "mask.png")
    assert answer.code == 2
    assert "a pixel outside of the mask cannot keep its values" in " ".join(answer.err.split())


def test_what_cannot_be_translated_is_refused_before_the_network_runs(
    train, cyclegan, domains, tmp_path
):
    run = train("ct", 4, "ct")
    refused = {
        (domains / "ct" / "0.npy", tmp_path / "x.jpg"): "JPEG does not hold 1 channel of int16",
        (domains / "satellite" / "0.tif", tmp_path / "x.tif"): "has 5 channels, and its domain 1",
        (domains / "height" / "0.tif", tmp_path / "x.tif"): "of type float32, and the domain ct of",
    }
    for (source, output), sentence in refused.items():
        answer = cyclegan("translate", source, "--checkpoint", run, "-o", output)
        assert answer.code == 6
        assert sentence in answer.err.replace("\n", " ")
        assert not output.exists()
    for option in (["--resize", "16"], ["--keep-mode"], ["--quality", "9"]):
        command = ("translate", domains / "ct" / "0.npy", "--checkpoint", run)
        answer = cyclegan(*command, "-o", tmp_path / "x.npy", *option)
        assert (answer.code, len(answer.errors)) == (2, 1)
        assert option[0] in answer.err


def test_options_without_effect_are_refused(cyclegan, domains, tmp_path):
    rgb = ["--domain-a", domains / "rgb", "--domain-b", domains / "ct", "--run-dir", tmp_path / "r"]
    for option, sentence in (
        (["--kid"], "--kid measures RGB images"),
        (["--show-bands", "3,2,1"], "no domain besides RGB has 3 channels"),
        (["--bands-b", "2"], "none has band 2"),
    ):
        answer = cyclegan("train", *rgb, *TINY, "--steps", "1", *option)
        assert answer.code in (2, 3)
        assert sentence in answer.err.replace("\n", " ")
    assert not (tmp_path / "r").exists()


def test_integers_of_32_bits_are_not_read_at_8_bits(cyclegan, domains, tmp_path):
    folder = tmp_path / "int32"
    folder.mkdir()
    for i in range(2):
        tifffile.imwrite(folder / f"{i}.tif", np.full((48, 56), 3000 + i, np.int32))
    Image.new("RGB", (56, 48)).save(folder / "2.png")
    command = ("train", "--domain-a", folder, "--domain-b", domains / "rgb", *TINY, "--steps", "1")
    answer = cyclegan(*command, "--run-dir", tmp_path / "run")
    assert (answer.code, len(answer.errors)) == (3, 1)
    found = " ".join(answer.err.split())
    assert "--domain-a: 2 of 3 images cannot be read, such as:" in found
    assert "0.tif has values of type int32, which is not supported" in found


def test_inspect_names_truncated_rasters(cyclegan, domains, tmp_path):
    for i in range(2):
        content = (domains / "height" / f"{i}.tif").read_bytes()
        (tmp_path / f"{i}.tif").write_bytes(content[: -1000 * i or None])
    [folder] = cyclegan("inspect", "--json", tmp_path).documents
    assert (folder["pictures"], folder["unreadable"]) == (2, 1)
    assert "1.tif: it is truncated" in folder["problems"][0]


def test_inspect_leaves_out_images_without_data(cyclegan, tmp_path):
    for name, value in (("0", np.nan), ("1", 5.0)):
        np.save(tmp_path / f"{name}.npy", np.full((40, 40), value, np.float32))
    [folder] = cyclegan("inspect", "--json", tmp_path).documents
    [channel] = folder["values"]["channels"]
    assert (channel["smallest"], channel["percentile_0.5"]) == (5, 5)
    assert folder["values"]["without_data"] == 0.5
    [image] = cyclegan("inspect", "--json", tmp_path / "0.npy").documents
    assert "channels" not in image["values"]


def test_inspect_shows_channels_and_values(train, cyclegan, domains):
    run = train("satellite", 4, "satellite")
    [model] = cyclegan("inspect", "--json", run / "model.safetensors").documents
    assert model["bands"]["a"]["channels"] == 5
    assert model["bands"]["a"]["dtype"] == "uint16"
    assert model["bands"]["b"]["dtype"] == "float32"
    assert model["format_version"] == 5
    [folder] = cyclegan("inspect", "--json", domains / "satellite").documents
    values = folder["values"]
    assert values["kinds"] == {"5 channels of uint16": 5}
    assert values["crs"] == {"EPSG:32633": 5}
    assert values["without_data"] == pytest.approx(6 / 48)
    assert len(values["channels"]) == 5
    assert folder["unreadable"] == 0
    [image] = cyclegan("inspect", "--json", domains / "ct" / "0.npy").documents
    stored = np.load(domains / "ct" / "0.npy")
    assert image["values"]["channels"][0]["smallest"] == stored.min()
    assert image["values"]["channels"][0]["largest"] == stored.max()


def test_dry_run_reports_the_range_and_clipped_values(cyclegan, known_cost, domains, tmp_path):
    answer = cyclegan(
        "train", "--domain-a", domains / "ct", "--domain-b", domains / "mr", *TINY, "--steps", "2",
        "--range-a", "-200,300", "--run-dir", tmp_path / "r", "--dry-run", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    [document] = answer.documents
    assert document["domains"]["a"]["bands"]["low"] == [-200.0]
    assert 0.2 < document["domains"]["a"]["clipped"] < 1
    assert document["domains"]["b"]["clipped"] < 0.02
    assert "ct: 1 channel of int16, range -200 to 300" in answer.err


@pytest.mark.slow
def test_export_to_onnx_has_the_channels_and_ranges(
    traced_once, train, cyclegan, domains, tmp_path
):
    import onnxruntime

    run = train("satellite", 4, "satellite")
    for to, channels in (("height", (5, 1)), ("satellite", (1, 5))):
        path = tmp_path / f"{to}.onnx"
        answer = cyclegan("export", run, "--to", to, "-o", path)
        assert answer.code == 0, answer.err
        session = onnxruntime.InferenceSession(path)
        unit = np.zeros((1, channels[0], 32, 32), np.float32)
        [result] = session.run(None, {session.get_inputs()[0].name: unit})
        assert result.shape == (1, channels[1], 32, 32)
    [document] = cyclegan("inspect", "--json", path).documents
    assert document["cyclegan"]["bands"]["a"]["channels"] == 5
    answer = cyclegan("export", run, "-o", tmp_path / "x.onnx", "--image-io")
    assert answer.code == 2
    assert "--image-io takes and returns uint8" in answer.err


def test_int8_export_is_calibrated_with_images_of_the_domain(
    traced_once, train, cyclegan, domains, tmp_path
):
    run = train("satellite", 4, "satellite")
    (tmp_path / "typical").mkdir()
    for index in range(8):
        shutil.copy(domains / "satellite" / f"{index % 4}.tif", tmp_path / f"typical/{index}.tif")
    answer = cyclegan(
        "export", run, "--to", "height", "--precision", "int8", "--min-psnr", "15",
        "--calibration", tmp_path / "typical", "-o", tmp_path / "x.onnx",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    [document] = cyclegan("inspect", "--json", tmp_path / "x.onnx").documents
    assert document["cyclegan"]["export"]["int8"]["calibrated_on"] == 6


def test_export_of_one_direction_translates_like_the_run(train, cyclegan, domains, tmp_path):
    run = train("satellite", 4, "satellite")
    path = tmp_path / "x.safetensors"
    answer = cyclegan("export", run, "--to", "satellite", "--format", "safetensors", "-o", path)
    assert answer.code == 0, answer.err
    values = tifffile.imread(domains / "height" / "0.tif")
    whole, one = (Translator.load(file, "b2a", device="cpu")(values) for file in (run, path))
    assert one.shape == (48, 56, 5)
    assert np.array_equal(whole, one)


def test_fine_tuning_takes_the_formats_of_the_checkpoint(train, cyclegan, domains, tmp_path):
    run = train("ct", 4, "ct")
    answer = cyclegan(
        "train", "--domain-a", domains / "mr", "--domain-b", domains / "ct", "--init-from", run,
        *TINY[:4], *TINY[8:], "--steps", "1", "--run-dir", tmp_path / "tuned", "-q",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    # The same domains in the other order.
    before = read_model_info(run / "model.safetensors").formats
    assert read_model_info(tmp_path / "tuned" / "model.safetensors").formats == before[::-1]
