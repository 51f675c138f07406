"""Volumes through the stages of the pipeline, with networks that are not trained."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale

from cyclegan_cli.checkpoints.header import ModelInfo
from cyclegan_cli.config import BandFormat, GeneratorConfig
from cyclegan_cli.data import dicom
from cyclegan_cli.data import volumes as volume_files
from cyclegan_cli.data.bands import read_bands
from cyclegan_cli.data.dicom_private import replacement_uid
from cyclegan_cli.data.volumes import Derivation, list_parts
from cyclegan_cli.errors import DataError, OutputError
from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.translation.file_stages import FileStages
from cyclegan_cli.translation.measuring import Measuring
from cyclegan_cli.translation.outputs import TranslationJob
from cyclegan_cli.translation.translator import Translator, TranslatorOptions
from cyclegan_cli.translation.volume_stages import VolumeOptions
from volumes import PATIENT, dataset, hounsfield, save_dicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CT = BandFormat(1, "int16", (-700.0,), (700.0,))
FLOAT = BandFormat(1, "float32", (-0.123456,), (7.891,))
NAMES = ("Doe", "Jane", "4711", "secret", "Hospital", "1970", "20240102", "101112")


def translator_of(source: BandFormat | None, target: BandFormat | None) -> Translator:
    torch.manual_seed(0)
    counts = [one.channels if one else 3 for one in (source, target)]
    network = ResnetGenerator(GeneratorConfig(4, 1, *counts))
    with torch.no_grad():
        network.head.weight.mul_(20)
    info = ModelInfo("model", network.config, "ct", "mr", {}, {}, formats=(source, target))
    return Translator(network, info, "a2b", torch.device("cpu"), TranslatorOptions("cpu", "fp32"))


def translate(translator: Translator, source: Path, output: Path, **options: Any) -> Path:
    job = TranslationJob(str(source), str(output))
    stages = FileStages(translator, volumes=VolumeOptions(**options))
    assert stages.pixel_bytes(job) > 0
    stages.encode(job, stages.translate(stages.decode(job)))
    return output


def frames_of(random_seed: int, count: int) -> Any:
    random = np.random.default_rng(random_seed)
    return np.stack([hounsfield(random, 20, 24) for _ in range(count)])


@pytest.mark.parametrize("target", [CT, FLOAT, BandFormat(1, "uint8", (0.0,), (255.0,))], ids=str)
def test_frames_have_the_values_of_the_translator(target, tmp_path):
    frames = frames_of(0, 3)
    path = save_dicom(tmp_path / "x.dcm", frames, RescaleIntercept=0)
    translator = translator_of(CT, target)
    output = pydicom.dcmread(translate(translator, path, tmp_path / "out" / "y.dcm"))
    expected = np.stack([translator(frame)[..., 0] for frame in frames])
    values = apply_rescale(output.pixel_array, output)
    step = (target.high[0] - target.low[0]) / 65534 if target.is_float else 0
    assert np.abs(values - expected).max() <= step * 0.51
    assert output.NumberOfFrames == 3
    assert float(output.WindowWidth) == pytest.approx(target.high[0] - target.low[0])
    parts = list_parts([tmp_path / "out" / "y.dcm"])
    again = np.stack([read_bands(part, "y").values[..., 0] for part in parts])
    assert np.allclose(again, expected, atol=max(step, 0.001))


def test_a_derived_image_refers_to_its_source(tmp_path):
    source = dataset(frames_of(0, 1)[0], WindowCenter=40, WindowWidth=400)
    source.add_new(0x60000010, "US", 20)
    pydicom.dcmwrite(tmp_path / "x.dcm", source, enforce_file_format=True)
    found = pydicom.dcmread(
        translate(translator_of(CT, CT), tmp_path / "x.dcm", tmp_path / "y.dcm")
    )
    assert found.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
    [reference] = found.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == found.SOPClassUID == source.SOPClassUID
    for name in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientName", "ImagePositionPatient",
                 "PixelSpacing", "Modality", "StudyDate"):  # fmt: skip
        assert found[name].value == source[name].value
    for name in ("SOPInstanceUID", "SeriesInstanceUID"):
        assert found[name].value != source[name].value
    assert found.file_meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID
    assert "from the domain ct to mr" in found.DerivationDescription
    assert found.SeriesDescription == "mr (synthetic) Thorax of Jane"
    assert (float(found.WindowCenter), float(found.WindowWidth)) == (0, 1400)
    assert 0x60000010 not in found
    assert found[0x00091001].value == "Jane's secret"


@pytest.mark.parametrize("declared", ["ISO_IR 100", None])
def test_names_of_domains_are_in_the_character_set(declared, tmp_path):
    item = Dataset()
    item.RequestedProcedureDescription = "Zürich" if declared else "Zurich"
    path = save_dicom(
        tmp_path / "x.dcm", frames_of(0, 1)[0], SpecificCharacterSet=declared,
        PatientName="Müller^Åsa" if declared else PATIENT, RequestAttributesSequence=[item],
    )  # fmt: skip
    volume = dicom.DicomVolume(path, "x")
    for target, charset in (("Höhe" if declared else "height", declared), ("夜", "ISO_IR 192")):
        stream = io.BytesIO()
        writer = volume.writer(CT)
        writer.write(np.zeros((8, 8, 1), np.int16), None)
        writer.save(stream, Derivation("ct", target, "program", "model"), False, False)
        stream.seek(0)
        found = pydicom.dcmread(stream)
        assert (found.get("SpecificCharacterSet") or None) == charset
        assert found.SeriesDescription == f"{target} (synthetic) Thorax of Jane"
        assert found.PatientName == volume.header.PatientName
        [request] = found.RequestAttributesSequence
        assert request.RequestedProcedureDescription == item.RequestedProcedureDescription


def test_anonymized_images_do_not_identify_the_patient(tmp_path):
    request, item = Dataset(), Dataset()
    request.RequestedProcedureDescription = "For Jane"
    item.ReferencedSOPInstanceUID, item.InstitutionName = "1.2.3.4", "Hospital"
    item.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    item.PatientName = PATIENT
    code = Dataset()
    code.CodeMeaning = "Hospital of Jane"
    person = Dataset()
    person.InstitutionCodeSequence = [code]
    frame = frames_of(0, 1)[0]
    path = save_dicom(
        tmp_path / "x.dcm", frame, RequestAttributesSequence=[request],
        ReferencedImageSequence=[item], OperatorsName="Doe", PatientComments="Jane",
        AcquisitionDateTime="20240102101112", DeviceSerialNumber="4711", KVP="120",
        StationName="Jane", ConvolutionKernel="B30f", Manufacturer="Maker",
        InstitutionCodeSequence=[code], OperatorIdentificationSequence=[person],
    )  # fmt: skip
    stored = bytearray(path.read_bytes())
    stored[:4] = b"Jane"
    path.write_bytes(stored)
    translator = translator_of(CT, CT)
    output = translate(translator, path, tmp_path / "y.dcm", anonymize=True)
    content = output.read_bytes()
    assert [name for name in NAMES if name.encode() in content] == []
    found, source = pydicom.dcmread(output), pydicom.dcmread(path)
    assert not any(element.tag.is_private for element in found.iterall())
    assert (found.PatientName, found.PatientIdentityRemoved) == ("ANONYMOUS", "YES")
    assert (found.KVP, found.ConvolutionKernel, found.Manufacturer) == (120, "B30f", "Maker")
    for name in ("StudyInstanceUID", "FrameOfReferenceUID"):
        assert found[name].value == replacement_uid(source[name].value) != source[name].value
    [reference] = found.ReferencedImageSequence
    assert reference.ReferencedSOPInstanceUID == replacement_uid("1.2.3.4")
    assert reference.ReferencedSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    kept = pydicom.dcmread(translate(translator, path, tmp_path / "z.dcm"))
    assert np.array_equal(found.pixel_array, kept.pixel_array)
    assert all(len(element.value) <= 64 for element in found if element.VR == "LO")


def test_padding_stays_without_data(tmp_path):
    frames = frames_of(0, 2)
    frames[1, :5] = -2000
    path = save_dicom(tmp_path / "x.dcm", frames, PixelPaddingValue=-2000, RescaleIntercept=0)
    for target in (CT, FLOAT):
        output = translate(translator_of(CT, target), path, tmp_path / f"{target.dtype}.dcm")
        found = pydicom.dcmread(output)
        missing = found.pixel_array == found.PixelPaddingValue
        assert missing[1, :5].all()
        assert not missing[0].any()
        assert not missing[1, 5:].any()
        values = read_bands(output / "frame0002", "y").values[..., 0]
        assert np.isnan(values[:5]).all() if target is FLOAT else (values[:5] == -2000).all()


def test_values_of_frames_with_data_are_not_the_padding(tmp_path):
    frames = frames_of(0, 2)
    frames[1, :5] = 100
    frames[0][frames[0] == 100] = 101
    path = save_dicom(tmp_path / "x.dcm", frames, PixelPaddingValue=100, RescaleIntercept=0)
    # Of few values, so that the network's output has the one of the padding.
    target = BandFormat(1, "int16", (97.0,), (103.0,))
    found = pydicom.dcmread(translate(translator_of(CT, target), path, tmp_path / "y.dcm"))
    missing = found.pixel_array == found.PixelPaddingValue
    assert (missing[1, :5].all(), missing.sum()) == (True, missing[1, :5].size)


def test_functional_groups_get_the_new_rescale(tmp_path):
    header = dataset(frames_of(0, 2), Modality="MR")
    scale, kind, measures = Dataset(), Dataset(), Dataset()
    scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = 2, 10, "US"
    kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    measures.PixelSpacing = [2, 3]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [Dataset(), Dataset()]
    for group in header.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence = [scale]
        group.MRImageFrameTypeSequence = [kind]
    pydicom.dcmwrite(tmp_path / "x.dcm", header, enforce_file_format=True)
    translator = translator_of(CT, FLOAT)
    output = translate(translator, tmp_path / "x.dcm", tmp_path / "y.dcm")
    values = read_bands(tmp_path / "x.dcm" / "frame0002", "x").values
    expected = translator(values.astype(np.int16))
    assert np.allclose(read_bands(output / "frame0002", "y").values, expected, atol=1e-3)
    found = pydicom.dcmread(output)
    [group] = found.SharedFunctionalGroupsSequence
    assert group.PixelMeasuresSequence[0].PixelSpacing == [2, 3]
    for frame in found.PerFrameFunctionalGroupsSequence:
        assert "PixelValueTransformationSequence" not in frame
        assert frame.MRImageFrameTypeSequence[0].FrameType[:2] == ["DERIVED", "SECONDARY"]


def test_color_becomes_color_or_values(tmp_path):
    path = Path(__file__).parents[1] / "data" / "dicom" / "color.dcm"
    pixels = read_bands(path, "x").values
    translator = translator_of(None, None)
    found = pydicom.dcmread(translate(translator, path, tmp_path / "rgb.dcm"))
    assert found.PhotometricInterpretation == "RGB"
    assert np.array_equal(found.pixel_array, translator(pixels))
    translator.options = TranslatorOptions("cpu", "fp32", resize=8)
    small = pydicom.dcmread(translate(translator, path, tmp_path / "small.dcm")).pixel_array
    assert np.array_equal(small, translator(pixels))
    translator = translator_of(None, CT)
    found = pydicom.dcmread(translate(translator, path, tmp_path / "ct.dcm"))
    assert found.SOPClassUID.name == "Secondary Capture Image Storage"
    assert np.array_equal(apply_rescale(found.pixel_array, found), translator(pixels)[..., 0])
    output = translate(translator_of(None, None), path, tmp_path / "x.png")
    assert output.read_bytes()[:4] == b"\x89PNG"


def test_standard_input_and_output(tmp_path):
    path = save_dicom(tmp_path / "x.dcm", frames_of(0, 2), RescaleIntercept=0)
    translator = translator_of(CT, CT)
    expected = translate(translator, path, tmp_path / "y.dcm").read_bytes()
    stdout = io.BytesIO()
    job = TranslationJob("-", "-")
    stages = FileStages(translator, stdin=io.BytesIO(path.read_bytes()), stdout=stdout)
    stages.encode(job, stages.translate(stages.decode(job)))
    assert stdout.getvalue() == expected


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_keeps_its_geometry_along_every_axis(axis, tmp_path):
    random = np.random.default_rng(0)
    values = np.rint(random.normal(size=(12, 16, 20)) * 300).astype(">i2")
    affine = np.array([[0, -2, 0, 5], [1.5, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    header = nibabel.Nifti1Header(endianness=">")
    image = nibabel.Nifti1Image(values, affine, header)
    image.set_data_dtype(values.dtype)
    image.header["descrip"] = image.header["data_type"] = b"Jane"
    image.header.set_xyzt_units("mm")
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane"))
    nibabel.save(image, tmp_path / "x.nii.gz")
    translator = translator_of(CT, FLOAT)
    source, new = tmp_path / "x.nii.gz", tmp_path / "y.nii"
    found = nibabel.load(translate(translator, source, new, slice_axis=axis))
    assert np.allclose(found.affine, affine)
    assert (found.header.get_xyzt_units()[0], found.header["descrip"]) == ("mm", b"Jane")
    assert [one.get_content() for one in found.header.extensions] == [b"Jane"]
    got = found.get_fdata()
    for index in range(values.shape[axis]):
        expected = translator(np.take(values, index, axis).T.astype(np.int16))
        assert np.array_equal(np.take(got, index, axis).T, expected[..., 0])
    output = translate(translator, source, tmp_path / "z.nii.gz", anonymize=True)
    assert b"Jane" not in nibabel.load(output).header.binaryblock
    assert len(nibabel.load(output).header.extensions) == 0
    again = translate(translator, source, tmp_path / "again.nii.gz", anonymize=True)
    assert again.read_bytes() == output.read_bytes()


def test_what_does_not_fit_is_refused_before_the_network_runs(tmp_path):
    path = save_dicom(tmp_path / "x.dcm", frames_of(0, 2))
    nibabel.save(nibabel.Nifti1Image(frames_of(0, 2), np.eye(4)), tmp_path / "x.nii")
    five = BandFormat(5, "uint16", (0.0,), (9.0,))
    cases = [
        (None, None, path, "y.dcm", DataError, "and the domain ct RGB images"),
        (CT, five, path, "y.dcm", OutputError, "DICOM does not hold 5 channels of uint16"),
        (CT, None, tmp_path / "x.nii", "y.nii", OutputError, "NIFTI does not hold RGB images"),
        (CT, CT, path, "y.nii", OutputError, "needs the header of an input of the same format"),
        (CT, CT, path, "y.tif", DataError, "is a volume of 2 slices"),
    ]
    for source, target, file, output, error, sentence in cases:
        stages = FileStages(translator_of(source, target))
        with pytest.raises(error, match=sentence):
            stages.decode(TranslationJob(str(file), str(tmp_path / output)))


def test_measures_and_masks_of_images_are_refused(tmp_path):
    path = save_dicom(tmp_path / "x.dcm", frames_of(0, 2))
    translator = translator_of(CT, CT)
    stages = FileStages(translator, measuring=Measuring(translator, 0.5))
    with pytest.raises(DataError, match="--min-structure and --cycle-error are for images"):
        stages.decode(TranslationJob(str(path), str(tmp_path / "y.dcm")))
    stages = FileStages(translator, measuring=Measuring(translator))  # For --json.
    job = TranslationJob(str(path), str(tmp_path / "y.dcm"))
    outcome = stages.encode(job, stages.translate(stages.decode(job)))
    assert (outcome.status, outcome.width, outcome.structure) == ("ok", 24, None)


def test_a_full_disk_is_an_error_of_the_output(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    nibabel.save(nibabel.Nifti1Image(frames_of(0, 2), np.eye(4)), tmp_path / "x.nii")
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match="temporary file: no space left") as caught:
        translate(translator_of(CT, CT), tmp_path / "x.nii", tmp_path / "y.nii")
    assert "TMPDIR" in caught.value.hint
    assert not (tmp_path / "y.nii").exists()


def test_memory_holds_one_frame(tmp_path, monkeypatch):
    """Frames are read one by one, and written to a temporary file."""
    path = save_dicom(tmp_path / "x.dcm", frames_of(0, 3), RescaleIntercept=0)
    sizes: list[int] = []
    read = dicom._SizedFile.read

    def counted(file, size=-1):
        content = read(file, size)
        sizes.append(len(content))
        return content

    made: list[Any] = []
    temporary = volume_files.temporary_file
    monkeypatch.setattr(dicom._SizedFile, "read", counted)
    monkeypatch.setattr(
        "cyclegan_cli.data.dicom_write.temporary_file", lambda: made.append(temporary()) or made[0]
    )
    translate(translator_of(CT, CT), path, tmp_path / "y.dcm")
    assert max(sizes) <= 20 * 24 * 2
    assert len(made) == 1
    assert made[0].closed
