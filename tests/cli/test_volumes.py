"""DICOM and NIfTI, from the training to the translated files."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from cyclegan_cli import Translator
from cyclegan_cli.checkpoints.header import read_model_info
from cyclegan_cli.data.bands import read_bands
from volumes import draw_volumes

TINY = [
    "--load-size", "34", "--crop-size", "32", "--base-channels", "4", "--residual-blocks", "1",
    "--discriminator-channels", "2", "--device", "cpu", "--precision", "fp32", "--pool-size", "2",
    "--val-fraction", "0.5", "--decay-steps", "0", "--workers", "0", "-q",
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def domains(tmp_path_factory) -> Path:
    return draw_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture
def train(domains, cyclegan):
    def run(source: str, target: str, steps: int, *options) -> Path:
        folder = domains / "runs" / f"{source}-{steps}"
        if not folder.exists():
            answer = cyclegan(
                "train", "--domain-a", domains / source, "--domain-b", domains / target,
                *TINY, *options, "--steps", steps, "--lambda-color", "0", "--run-dir", folder,
            )  # fmt: skip
            assert answer.code == 0, answer.err
        return folder

    return run


def test_a_resumed_run_on_dicom_equals_one_that_was_not_interrupted(train, cyclegan, tmp_path):
    whole = train("ct-scans", "mr-scans", 4)
    part = shutil.copytree(train("ct-scans", "mr-scans", 2), tmp_path / "part")
    answer = cyclegan("train", "--resume", part, "--steps", "4", "-q")
    assert answer.code == 0, answer.err
    models = [(folder / "model.safetensors").read_bytes() for folder in (whole, part)]
    assert models[0] == models[1]
    formats = read_model_info(whole / "model.safetensors").formats
    assert [found.dtype for found in formats] == ["int16", "int16"]
    assert formats[0].low[0] < -200


def test_ct_is_translated_to_derived_dicom(train, cyclegan, domains, tmp_path):
    run = train("ct-scans", "mr-scans", 4)
    answer = cyclegan("translate", domains / "ct-scans", "--checkpoint", run, "-o", tmp_path)
    assert answer.code == 0, answer.err
    translator = Translator.load(run, device="cpu")
    for name in ("0.dcm", "1.dcm"):
        source, output = (pydicom.dcmread(folder / name)
                          for folder in (domains / "ct-scans", tmp_path))  # fmt: skip
        values = pydicom.pixels.apply_rescale(output.pixel_array, output)
        expected = translator(read_bands(domains / "ct-scans" / name, name).values)
        assert np.array_equal(values, expected[..., 0])
        assert output.SOPInstanceUID != source.SOPInstanceUID
        assert output.PatientName == "Doe^Jane"
    assert len({pydicom.dcmread(file).SeriesInstanceUID for file in tmp_path.iterdir()}) == 1


@pytest.mark.slow
def test_export_to_onnx_is_verified(train, cyclegan, tmp_path):
    run = train("ct-scans", "mr-scans", 4)
    answer = cyclegan("export", run, "--to", "mr-scans", "-o", tmp_path / "x.onnx")
    assert answer.code == 0, answer.err
    [document] = cyclegan("inspect", "--json", tmp_path / "x.onnx").documents
    assert document["cyclegan"]["bands"]["b"]["dtype"] == "int16"


def test_slices_of_nifti_are_trained_on_and_translated(train, cyclegan, domains, tmp_path):
    run = train("t1", "t2", 2, "--slice-axis", "2")
    info = read_model_info(run / "model.safetensors")
    assert (info.training["slice_axis"], info.training["pictures_a"]) == (2, 2)
    source = domains / "t1" / "head.nii.gz"
    output = tmp_path / "new" / "head.nii.gz"
    for path, options in ((output, ()), (tmp_path / "y.nii", ("--bit-depth", "16"))):
        answer = cyclegan("translate", source, "--checkpoint", run, "-o", path, *options)
        assert answer.code == 0, answer.err
    image, before = nibabel.load(output), nibabel.load(source)
    assert (image.shape, image.get_data_dtype()) == ((44, 40, 4), np.float32)
    assert np.array_equal(image.affine, before.affine)
    assert image.header["descrip"] == before.header["descrip"] == b"Jane"
    translator = Translator.load(run, device="cpu")
    expected = translator(np.asarray(before.dataobj)[:, :, 3].T.copy())
    assert np.array_equal(image.get_fdata()[:, :, 3].T, expected[..., 0])
    low, high = (translator.target_format.low[0], translator.target_format.high[0])
    mapped = np.rint((image.get_fdata() - low) / (high - low) * 65535)
    other = nibabel.load(tmp_path / "y.nii")
    assert other.get_data_dtype() == np.uint16
    assert np.abs(other.get_fdata() - mapped).max() <= 1
    answer = cyclegan("translate", source, "--checkpoint", run, "-o", tmp_path / "x.tif")
    assert answer.code == 6
    assert "is a volume of 4 slices, and a TIFF file holds one image" in answer.err.replace(
        "\n", " "
    )


def test_inspect_shows_what_identifies_no_patient(cyclegan, domains, tmp_path):
    [folder] = cyclegan("inspect", "--json", domains / "ct-scans").documents
    values = folder["values"]
    assert values["kinds"] == {"1 channel of int16": 4}
    assert values["modality"] == {"CT": 4}
    assert values["spacing"] == {"0.7 x 0.7 x 2.5 mm": 4}
    assert -700 < values["channels"][0]["smallest"] < 0
    [volume] = cyclegan("inspect", "--json", domains / "t2" / "head.nii").documents
    assert (volume["frames"], volume["format"]) == (4, "NIFTI")
    assert volume["values"]["affine"] == {"0.9 0 0 0; 0 0.9 0 0; 0 0 3 0": 1}
    np.savez(tmp_path / "x.npz", ct=np.arange(600, dtype=np.int16).reshape(20, 30))
    [array] = cyclegan("inspect", "--json", tmp_path / "x.npz").documents
    assert array["values"]["channels"][0]["largest"] == 599
    answer = cyclegan("inspect", domains / "ct-scans", domains / "t2")
    assert "Jane" not in answer.out


def test_options_without_effect_are_refused(train, cyclegan, domains, tmp_path):
    run = train("ct-scans", "mr-scans", 4)
    np.save(tmp_path / "x.npy", np.zeros((40, 40), np.int16))
    cases = {
        ("--slice-axis", "1"): "--slice-axis is for NIFTI files",
        ("--array", "x"): "--array is for NPZ files",
        ("--anonymize",): "--anonymize is for DICOM and NIFTI files",
    }
    for options, sentence in cases.items():
        command = ("translate", tmp_path / "x.npy", "--checkpoint", run, *options)
        answer = cyclegan(*command, "-o", tmp_path / "y.npy")
        assert answer.code == 6
        assert sentence in answer.err.replace("\n", " ")
    for options, sentence in (
        (("--range", "auto"), "is an option of train"),
        (("--range", "-5,300", "--bit-depth", "8"), "outside of the values of uint8"),
    ):
        answer = cyclegan("translate", tmp_path / "x.npy", "--checkpoint", run, *options)
        assert answer.code == 2
        assert sentence in answer.err.replace("\n", " ")
    answer = cyclegan(
        "translate", tmp_path / "x.npy", "--checkpoint", run, "-o", tmp_path / "y.dcm"
    )
    assert answer.code == 6
    assert "a DICOM file needs the header of an input of the same format" in answer.err.replace(
        "\n", " "
    )
    for option in (("--slice-axis", "0"), ("--array", "x")):
        answer = cyclegan(
            "train", "--domain-a", domains / "ct-scans", "--domain-b", domains / "mr-scans", *option
        )
        assert (answer.code, len(answer.errors)) == (2, 1)
        assert f"{option[0]} is for" in answer.err
