"""DICOM, NIfTI and .npz files as arrays."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import imagecodecs
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from cyclegan_cli.data import dicom, nifti
from cyclegan_cli.data import volumes as volumes_module
from cyclegan_cli.data.band_facts import describe_bands
from cyclegan_cli.data.bands import probe_bands, read_bands, write_bands
from cyclegan_cli.data.decode import decode
from cyclegan_cli.data.dicom_write import OUTDATED
from cyclegan_cli.data.encode import encode
from cyclegan_cli.data.folder import SkippedFiles, list_images
from cyclegan_cli.data.open_image import limit_pixels, probe
from cyclegan_cli.data.volumes import list_parts, open_volume
from cyclegan_cli.errors import DataError
from volumes import dataset, hounsfield, save_dicom

DCMTK = Path(__file__).parent / "dicom"
RAMP = 20 * np.arange(192).reshape(12, 16)
# Of pydicom and nibabel, for irregular headers.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def values_of(path: Path) -> np.ndarray:
    image = read_bands(path, str(path))
    assert str(image.values.dtype) == image.probe.dtype
    return image.values[..., 0]


@pytest.mark.parametrize(
    "name", ["plain", "jpeg-lossless", "jpeg-ls", "rle", "deflated", "big-endian", "implicit"]
)
def test_files_of_dcmtk_are_in_hounsfield_units(name):
    path = DCMTK / f"{name}.dcm"
    assert np.array_equal(values_of(path), RAMP - 1024)
    found = probe_bands(path, name)
    assert (found.dtype, found.width, found.height, found.is_color) == ("int16", 16, 12, False)
    assert dict(found.details)["spacing"] == "0.5 x 0.5 mm"
    stream = io.BytesIO(path.read_bytes())
    assert np.array_equal(read_bands(stream, name).values[..., 0], RAMP - 1024)


def test_monochrome1_is_inverted():
    assert np.array_equal(values_of(DCMTK / "inverted.dcm"), 4095 - RAMP - 1024)


@pytest.mark.parametrize("name", ["color", "color-jpeg-ls"])
def test_color_is_rgb(name):
    path = DCMTK / f"{name}.dcm"
    expected = (np.arange(576) % 251).reshape(12, 16, 3)
    assert np.array_equal(decode(path).frames[0], expected)
    assert probe(path).mode == "color"


def test_types_are_those_of_the_values(tmp_path):
    unsigned = np.array([[0, 5], [4000, 4095]], np.uint16)
    cases = {
        "ct": ({}, unsigned.astype(np.int32) - 1024, "int16"),
        "mr": ({"Modality": "MR", "RescaleIntercept": 0}, unsigned, "uint16"),
        "slope": ({"RescaleSlope": "0.5", "Modality": "PT"}, unsigned * 0.5 - 1024, "float32"),
        "overlay": ({"BitsStored": 12, "HighBit": 11}, unsigned.astype(np.int32) - 1024, "int16"),
    }
    for name, (elements, expected, dtype) in cases.items():
        stored = unsigned | (0xF000 if name == "overlay" else 0)
        path = save_dicom(tmp_path / f"{name}.dcm", stored.astype(np.uint16), **elements)
        assert np.array_equal(values_of(path), expected), name
        assert probe_bands(path, name).dtype == dtype
    signed = np.array([[-2000, -5], [0, 1000]], np.int16)
    path = save_dicom(tmp_path / "x.dcm", signed, Modality="MR", RescaleIntercept=0)
    assert np.array_equal(values_of(path), signed)
    eight = np.array([[0, 200]], np.uint8)
    path = save_dicom(tmp_path / "y.dcm", eight, Modality="US", RescaleIntercept=0)
    assert (probe_bands(path, "y").dtype, values_of(path).tolist()) == ("uint8", [[0, 200]])


def test_padding_is_without_data(tmp_path):
    stored = np.array([[-2000, -1999], [0, 1000]], np.int16)
    path = save_dicom(tmp_path / "x.dcm", stored, PixelPaddingValue=-2000)
    image = read_bands(path, "x")
    assert image.probe.nodata == -3024
    assert np.array_equal(image.values[..., 0], stored - 1024)
    path = save_dicom(
        tmp_path / "y.dcm", stored, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1999,
        RescaleSlope="0.5",
    )  # fmt: skip
    values = values_of(path)
    assert np.isnan(values[0]).all()
    assert values[1].tolist() == [-1024, -524]
    facts = describe_bands(path)
    assert (facts["without_data"], facts["modality"]) == (0.5, "CT")
    assert "Jane" not in str(facts)


def test_frames_are_slices(tmp_path):
    random = np.random.default_rng(0)
    frames = np.stack([hounsfield(random, 8, 10) for _ in range(3)])
    path = save_dicom(tmp_path / "x.dcm", frames, RescaleIntercept=0)
    parts = list_parts([path, tmp_path / "other.png"])
    assert parts[:3] == [path / f"frame000{i}" for i in (1, 2, 3)]
    assert parts[3:] == [tmp_path / "other.png"]
    for part, frame in zip(parts, frames, strict=False):
        assert np.array_equal(values_of(part), frame)
        assert probe(part).frames == 1
    assert probe(path).frames == 3
    with pytest.raises(DataError, match="is a volume of 3 slices"):
        read_bands(path, "x")
    for name in ("frame0000", "frame0004", "k0001", "words"):
        with pytest.raises(DataError, match="there is no slice"):
            read_bands(path / name, "x")


def test_functional_groups_have_the_rescale_of_each_frame(tmp_path):
    frames = np.array([[[1, 2]], [[3, 4]]], np.int16)
    header = dataset(frames, Modality="MR")
    groups = []
    for slope in (1, 2):
        scale, group = Dataset(), Dataset()
        scale.RescaleSlope, scale.RescaleIntercept, scale.RescaleType = slope, 10, "US"
        group.PixelValueTransformationSequence = [scale]
        groups.append(group)
    header.PerFrameFunctionalGroupsSequence = groups
    pydicom.dcmwrite(tmp_path / "x.dcm", header, enforce_file_format=True)
    read = [values_of(part).tolist() for part in list_parts([tmp_path / "x.dcm"])]
    assert read == [[[11, 12]], [[16, 18]]]


def test_content_tells_a_dicom_file_without_extension(tmp_path):
    path = tmp_path / "IM0001"
    path.write_bytes((DCMTK / "plain.dcm").read_bytes())
    assert np.array_equal(values_of(path), RAMP - 1024)
    assert probe(path).format == "DICOM"
    skipped = SkippedFiles()
    assert list_images(tmp_path, skipped) == []
    assert skipped.counts == {"without extension": 1}


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_nifti(name, axis, tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "KEPT_BYTES", 100)
    values = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    for index, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        nibabel.save(nibabel.Nifti1Image(values + index, np.eye(4)), tmp_path / folder / name)
    for _ in range(2):
        for index, folder in enumerate(("a", "b")):
            path = tmp_path / folder / name
            parts = list_parts([path], axis)
            assert [part.name for part in parts[:2]] == [f"{'ijk'[axis]}000{i}" for i in (0, 1)]
            assert len(parts) == values.shape[axis]
            expected = np.take(values + index, 2, axis).T
            assert np.array_equal(values_of(parts[2]), expected)
            volume = open_volume(io.BytesIO(path.read_bytes()), "stream", axis)
            assert np.array_equal(volume.read(2).values[..., 0], expected)


def test_scaling_and_types_of_nifti(tmp_path):
    plain = np.arange(8).reshape(2, 2, 2)
    cases = [
        ("<i2", (1, -1000), "int16"), ("<i2", (0.5, 1), "float32"), ("<u1", (1, 0), "uint8"),
        (">i4", (1, 0), "float64"), ("<i1", (1, 0), "int16"), (">f4", (3, 0), "float32"),
        ("<i4", (1, -1), "float64"),
    ]  # fmt: skip
    for stored, (slope, intercept), dtype in cases:
        header = nibabel.Nifti1Header(endianness=stored[0] if stored[0] == ">" else "<")
        image = nibabel.Nifti1Image(plain.astype(stored), np.eye(4), header)
        image.set_data_dtype(np.dtype(stored))
        image.header.set_slope_inter(1, 0)
        nibabel.save(image, tmp_path / "x.nii")
        content = bytearray((tmp_path / "x.nii").read_bytes())
        order = image.header.endianness
        content[112:120] = np.array([slope, intercept], f"{order}f4").tobytes()
        (tmp_path / "x.nii").write_bytes(content)
        [_, part] = list_parts([tmp_path / "x.nii"])
        read = values_of(part)
        assert (stored, str(read.dtype)) == (stored, dtype)
        assert np.allclose(read, plain[:, :, 1].T * slope + intercept)
        assert np.allclose(nibabel.load(tmp_path / "x.nii").get_fdata()[:, :, 1].T, read)


def test_nifti_2_and_two_dimensions(tmp_path):
    values = np.arange(20, dtype=np.float32).reshape(4, 5)
    nibabel.save(nibabel.Nifti2Image(values, np.diag([2, 3, 4, 1])), tmp_path / "x.nii")
    found = probe_bands(tmp_path / "x.nii", "x")
    assert (found.width, found.height, found.frames) == (4, 5, 1)
    assert dict(found.details)["affine"] == "2 0 0 0; 0 3 0 0; 0 0 4 0"
    assert np.array_equal(values_of(tmp_path / "x.nii"), values.T)


def test_what_is_no_volume_is_refused(tmp_path):
    cases = {
        "time.nii": (np.zeros((2, 2, 2, 3), np.int16), r"has 4 dimensions \(2 x 2 x 2 x 3\)"),
        "wide.nii": (np.zeros((2, 2, 2), np.int64), "of type int64, which is not supported"),
    }
    for name, (values, sentence) in cases.items():
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4), dtype=values.dtype), tmp_path / name)
        with pytest.raises(DataError, match=sentence):
            probe_bands(tmp_path / name, name)
    refused = {
        "are not supported": {"BitsAllocated": 32},
        "Modality LUT": {"ModalityLUTSequence": [Dataset()]},
        "rescale slope is 0": {"RescaleSlope": 0},
        "it declares one frame of 500x2 pixels": {"Columns": 500},
        "it declares 1000000000 frames of 2x2 pixels": {"NumberOfFrames": 10**9},
    }
    for sentence, elements in refused.items():
        path = save_dicom(tmp_path / "x.dcm", np.zeros((2, 2), np.uint16), **elements)
        with pytest.raises(DataError, match=sentence):
            probe_bands(path, "x")
    header = dataset(np.zeros((2, 2), np.uint16))
    header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    del header.PixelData
    pydicom.dcmwrite(tmp_path / "video.dcm", header, enforce_file_format=True)
    with pytest.raises(DataError, match=r"transfer syntax MPEG2 .*4\.100\) is not supported"):
        probe_bands(tmp_path / "video.dcm", "x")
    del header.Rows
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.5"
    pydicom.dcmwrite(tmp_path / "plan.dcm", header, enforce_file_format=True)
    with pytest.raises(DataError, match=r"without pixels: RT Plan Storage"):
        probe_bands(tmp_path / "plan.dcm", "x")


def nifti_that_claims(*sides: int) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"] = [3, *sides, 1, 1, 1, 1]
    header["vox_offset"], header["magic"] = 352, b"n+1"
    return header.binaryblock + bytes(4)


def test_hostile_volumes_are_refused_without_being_decompressed(tmp_path, monkeypatch):
    """Neither memory nor time depends on what a header declares."""
    head = nifti_that_claims(30000, 30000, 30000)
    files = {
        "huge.nii": head + bytes(1000),
        "huge.nii.gz": gzip.compress(head + bytes(10**6)),
        "cut.nii.gz": gzip.compress(nifti_that_claims(100, 100, 10) + bytes(200_000))[:-40],
        "damaged.nii.gz": gzip.compress(nifti_that_claims(9, 9, 9))[:200] + bytes(50),
        "offset.nii": head[:108] + np.float32(1e9).tobytes() + head[112:],
        "pair.nii": head[:344] + b"ni1\0" + bytes(4),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        volume = None
        with pytest.raises(DataError, match=name):
            volume = open_volume(tmp_path / name, name)
            volume.read(0)
        assert (volume is None) == (not name.startswith(("cut", "damaged")))
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(np.zeros((300, 300))))
    content = bytearray((tmp_path / "x.npz").read_bytes())
    place = content.rfind(b"PK\x01\x02")
    content[place + 24 : place + 28] = (2**31).to_bytes(4, "little")
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="declares more data than it holds"):
        read_bands(tmp_path / "x.npz", "x")
    plain = (DCMTK / "deflated.dcm").read_bytes()
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = plain[: plain.index(b"1.2.276.0.7230010.3.0.3.6.7")] or plain
    start = 132 + 12 + int.from_bytes(bomb[140:144], "little")
    bomb = plain[:start] + deflater.compress(bytes(5 * 10**6)) + deflater.flush()
    (tmp_path / "bomb.dcm").write_bytes(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    limit_pixels(10**6)
    with pytest.raises(DataError, match=r"its content exceeds 2,000,000 bytes"):
        read_bands(tmp_path / "bomb.dcm", "x")


def test_a_file_that_ends_within_its_header_is_truncated(tmp_path):
    path = save_dicom(tmp_path / "x.dcm", np.ones((4, 4), np.uint16))
    content = path.read_bytes()
    cuts = {150: "lacks Rows", 700: "lacks Rows", 970: "lacks Columns",
            len(content) - 1: "truncated: it declares one frame of 4x4"}  # fmt: skip
    for end, sentence in cuts.items():
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match=sentence):
            read_bands(path, "x")


def test_every_cut_of_a_file_is_refused(tmp_path):
    files = {name: (DCMTK / f"{name}.dcm").read_bytes() for name in ("plain", "jpeg-ls", "rle")}
    for name, content in files.items():
        for share in (0.2, 0.5, 0.8, 0.95):
            path = tmp_path / f"{name}.dcm"
            path.write_bytes(content[: int(len(content) * share)])
            with pytest.raises(DataError):
                read_bands(path, name)


def test_a_compressed_image_that_claims_another_size_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom, "_decode_by_imagecodecs", pytest.fail)
    for name, marker in (("jpeg-ls", b"\xff\xf7"), ("jpeg-lossless", b"\xff\xc3")):
        content = (DCMTK / f"{name}.dcm").read_bytes()
        place = content.index(marker + b"\x00\x0b") + 5
        changed = content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :]
        (tmp_path / "x.dcm").write_bytes(changed)
        with pytest.raises(DataError, match="another size than its header"):
            read_bands(tmp_path / "x.dcm", "x")
    values = np.zeros((30, 20), np.uint8)
    assert dicom.coded_size(imagecodecs.jpeg2k_encode(values)) == (30, 20)
    assert dicom.coded_size(imagecodecs.jpeg8_encode(values)) == (30, 20)
    assert dicom.coded_size(b"\xff\xd8" + b"\xff" * 9) is None


def npy(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


def test_arrays_of_npz(tmp_path):
    values = np.arange(24, dtype=np.int16).reshape(4, 6)
    np.savez(tmp_path / "one.npz", ct=values)
    np.savez_compressed(tmp_path / "two.npz", ct=values, mr=np.stack([values] * 5, axis=2))
    assert np.array_equal(values_of(tmp_path / "one.npz"), values)
    assert list_parts([tmp_path / "two.npz"], array="mr") == [tmp_path / "two.npz" / "mr"]
    image = read_bands(tmp_path / "two.npz" / "mr", "x")
    assert (image.values.shape, image.format, image.array) == ((4, 6, 5), "NPZ", "mr")
    for path, sentence in (
        (tmp_path / "two.npz", r"has 2 arrays: ct, mr .*--array"),
        (tmp_path / "one.npz" / "x", "1 array: ct, and none is named x"),
    ):
        with pytest.raises(DataError, match=sentence):
            read_bands(path, "x")
    write_bands(image, tmp_path / "new.npz", "NPZ", "new.npz")
    with np.load(tmp_path / "new.npz") as written:
        assert np.array_equal(written["mr"], image.values)
    np.savez(tmp_path / "pickled.npz", np.array([{}], dtype=object))
    with pytest.raises(DataError, match="not an image"):
        read_bands(tmp_path / "pickled.npz", "x")
    np.savez(tmp_path / "color.npz", np.zeros((4, 6, 3), np.uint8))
    assert decode(tmp_path / "color.npz").frames[0].shape == (4, 6, 3)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    import builtins

    find = builtins.__import__

    def without(name, *arguments, **options):
        if name.partition(".")[0] in ("pydicom", "nibabel"):
            raise ImportError(name)
        return find(name, *arguments, **options)

    (tmp_path / "x.nii").write_bytes(nifti_that_claims(2, 2, 2) + bytes(16))
    monkeypatch.setattr(builtins, "__import__", without)
    for path, package in ((DCMTK / "plain.dcm", "pydicom"), (tmp_path / "x.nii", "nibabel")):
        with pytest.raises(DataError) as caught:
            probe_bands(path, "x")
        assert caught.value.hint == f"Install it: pip install {package}."


def test_a_header_declares_no_more_than_the_file_holds(tmp_path):
    """pydicom requests as many bytes as an element declares."""
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    with dicom._SizedFile(path) as file:
        assert len(file.read(2**40)) == 100
        assert file.read(1) == b""


def damaged_copies(content: bytes, count: int) -> list[bytes]:
    random = np.random.default_rng(0)
    copies = []
    for _ in range(count):
        copy = bytearray(content)
        for place in random.integers(0, min(len(content), 1200), random.integers(1, 6)):
            copy[place] = random.integers(0, 256)
        copies.append(bytes(copy))
    return copies


@pytest.mark.parametrize("kind", ["plain", "jpeg-ls", "rle", "color", "nii", "nii.gz"])
def test_a_damaged_volume_is_read_or_refused(kind, tmp_path):
    if kind.startswith("nii"):
        path = tmp_path / f"x.{kind}"
        nibabel.save(nibabel.Nifti1Image(np.ones((8, 9, 3), np.int16), np.eye(4)), path)
    else:
        path = DCMTK / f"{kind}.dcm"
    read = 0
    for index, copy in enumerate(damaged_copies(path.read_bytes(), 30)):
        damaged = tmp_path / f"{index}{''.join(path.suffixes)}"
        damaged.write_bytes(copy)
        for part in list_parts([damaged])[:2]:
            try:
                image = read_bands(part, "x")
            except DataError as error:
                assert "\n" not in error.message
            else:
                read += image.values.shape == (
                    image.probe.height, image.probe.width, image.probe.channels
                )  # fmt: skip
    assert read


def test_packages_are_loaded_for_volumes_alone(tmp_path):
    Image.new("RGB", (9, 8)).save(tmp_path / "x.png")
    script = (
        "import sys, pathlib\n"
        "from cyclegan_cli.data.decode import decode\n"
        "import cyclegan_cli.data.bands, cyclegan_cli.data.domain\n"
        "decode(pathlib.Path(sys.argv[1]))\n"
        "print({'pydicom', 'nibabel', 'torch'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_number_of_frames_is_found_without_the_header(tmp_path):
    random = np.random.default_rng(0)
    two = save_dicom(tmp_path / "2.dcm", np.stack([hounsfield(random, 8, 9)] * 2))
    one = save_dicom(tmp_path / "1.dcm", hounsfield(random, 8, 9)[None], PatientName="(\0\x08\0")
    for name in ("plain", "jpeg-ls", "implicit"):
        assert volumes_module._has_one_frame(DCMTK / f"{name}.dcm")
    for path in (two, one, DCMTK / "deflated.dcm", DCMTK / "big-endian.dcm"):
        assert not volumes_module._has_one_frame(path)
    assert len(list_parts([two, one, DCMTK / "deflated.dcm", DCMTK / "big-endian.dcm"])) == 5


def test_rgb_models_write_npz():
    image = decode(DCMTK / "color.dcm")
    stream = io.BytesIO()
    encode(image, stream, "NPZ")
    with np.load(io.BytesIO(stream.getvalue())) as written:
        assert np.array_equal(written["arr_0"], image.frames[0])


def test_attributes_that_are_left_out_exist():
    from pydicom.datadict import tag_for_keyword

    assert [keyword for keyword in OUTDATED if tag_for_keyword(keyword) is None] == []
