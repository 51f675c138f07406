"""DICOM and NIfTI files that tests make for themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from bands import smooth

PATIENT = "Doe^Jane"


def dataset(pixels: Any, **elements: Any) -> Any:
    """A CT image with values ``pixels`` as they are stored: ``[H, W]``, or ``[N, H, W]``."""
    header: Any = Dataset()
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = generate_uid(entropy_srcs=["instance", str(pixels.tobytes())])
    header.StudyInstanceUID = generate_uid(entropy_srcs=["study"])
    header.SeriesInstanceUID = generate_uid(entropy_srcs=["series"])
    header.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame"])
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.Modality, header.StudyDate, header.StudyTime = "CT", "20240102", "101112"
    header.PatientName, header.PatientID, header.PatientBirthDate = PATIENT, "4711", "19700101"
    header.InstitutionName, header.SeriesDescription = "Hospital of Jane", "Thorax of Jane"
    header.SeriesNumber, header.InstanceNumber = 3, 1
    header.PixelSpacing, header.SliceThickness = [0.7, 0.7], 2.5
    header.ImagePositionPatient = [1.0, 2.0, 3.0]
    header.add_new((0x0009, 0x0010), "LO", "JANE PRIVATE")
    header.add_new((0x0009, 0x1001), "LO", "Jane's secret")
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = pixels.shape[-2:]
    header.BitsAllocated = header.BitsStored = 8 * pixels.dtype.itemsize
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    header.RescaleIntercept, header.RescaleSlope = -1024, 1
    if pixels.ndim == 3:
        header.NumberOfFrames = len(pixels)
    for name, value in elements.items():
        setattr(header, name, value)
    header.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header


def save_dicom(path: Path, pixels: Any, **elements: Any) -> Path:
    pydicom.dcmwrite(path, dataset(pixels, **elements), enforce_file_format=True)
    return path


def hounsfield(random: np.random.Generator, height: int = 48, width: int = 56) -> Any:
    """``[H, W]`` int16 of smooth values from -600 to 600."""
    return np.rint(smooth(random, 1, height, width)[..., 0] * 300).astype(np.int16)


def draw_volumes(folder: Path, count: int = 4) -> Path:
    """Write ``ct-scans`` and ``mr-scans``, ``t1`` and ``t2`` below a folder."""
    random = np.random.default_rng(1)
    for name in ("ct-scans", "mr-scans", "t1", "t2"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        stored = (hounsfield(random) + 1024).astype(np.uint16)
        save_dicom(folder / "ct-scans" / f"{i}.dcm", stored, BitsStored=12, HighBit=11)
        signed = hounsfield(random) + np.int16(1024)
        save_dicom(folder / "mr-scans" / f"{i}.dcm", signed, Modality="MR", RescaleIntercept=0)
    for name, file, dtype in (("t1", "head.nii.gz", "int16"), ("t2", "head.nii", "f4")):
        slices = np.stack([hounsfield(random, 40, 44) for _ in range(count)], axis=2)
        values = slices.transpose(1, 0, 2).astype(dtype)
        image = nibabel.Nifti1Image(values, np.diag([0.9, 0.9, 3.0, 1.0]))
        image.header["descrip"] = b"Jane"
        nibabel.save(image, folder / name / file)
    return folder
