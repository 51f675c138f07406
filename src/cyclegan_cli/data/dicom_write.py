"""Write derived DICOM images: the header of the source, with other pixels."""

from __future__ import annotations

import hashlib
import io
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from cyclegan_cli.config import BandFormat
from cyclegan_cli.data.dicom import DicomVolume
from cyclegan_cli.data.dicom_private import anonymize_dataset, replacement_uid
from cyclegan_cli.data.image import PixelArray
from cyclegan_cli.data.volumes import Derivation, as_output_error, temporary_file

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
# SOP classes of images that no longer fit the class of their source (PS3.4, B.5).
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SECONDARY_CAPTURES = {8: f"{SECONDARY_CAPTURE}.2", 16: f"{SECONDARY_CAPTURE}.3",
                      24: f"{SECONDARY_CAPTURE}.4"}  # fmt: skip
PIXEL_DATA = 0x7FE00010
UTF_8 = "ISO_IR 192"
# Of float values: one of the 65536 stored values marks pixels without data, and the others are
# evenly spaced over the range.
FLOAT_STEPS = 2**16 - 2
# Elements that describe the pixels of the source.
OUTDATED = (
    "SmallestImagePixelValue", "LargestImagePixelValue", "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence",
    "VOILUTSequence", "VOILUTFunction", "WindowCenter", "WindowWidth",
    "WindowCenterWidthExplanation", "PresentationLUTShape", "PresentationLUTSequence",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
    "SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData",
    "SegmentedBluePaletteColorLookupTableData", "PaletteColorLookupTableUID",
    "IconImageSequence", "ICCProfile", "ColorSpace",
    "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "RealWorldValueMappingSequence",
    "InstanceCreationDate", "InstanceCreationTime", "InstanceCreatorUID", "PlanarConfiguration",
    "DigitalSignaturesSequence", "MACParametersSequence",
)  # fmt: skip
OVERLAYS, CURVES = range(0x6000, 0x6020), range(0x5000, 0x5020)
PREAMBLE_BYTES = 128
MAX_DESCRIPTION = 64  # Characters of the VR LO.


@dataclass(frozen=True)
class StoredForm:
    """How the values of a domain are stored.

    Attributes:
        samples: 1 of a gray image, 3 of an RGB image.
        bits: Number of bits of a value.
        is_signed: Whether they are a two's complement.
        slope: Difference of the values of neighboring stored values, as written.
        intercept: Value of the stored value 0, as written.
        window: Center and width of the range of values; None of RGB images.
    """

    samples: int
    bits: int
    is_signed: bool = False
    slope: str = "1"
    intercept: str = "0"
    window: tuple[float, float] | None = None

    @property
    def is_scaled(self) -> bool:
        """Whether the stored values are not the values themselves."""
        return (self.slope, self.intercept) != ("1", "0")

    @property
    def stored_type(self) -> Any:
        """The type of stored values."""
        return np.dtype(f"<{'i' if self.is_signed else 'u'}{self.bits // 8}")

    def padding(self, nodata: float) -> int:
        """Return the stored value of pixels without data."""
        return 0 if self.is_scaled else int(nodata)

    def store(self, values: PixelArray) -> PixelArray:
        """Return stored values of ``[H, W, C]`` values; NaN is without data."""
        if not self.is_scaled:
            return values.astype(self.stored_type)
        steps = (values.astype(np.float64) - float(self.intercept)) / float(self.slope)
        missing = np.isnan(steps)
        steps = np.clip(np.rint(np.where(missing, 0, steps)), 1, 2**self.bits - 1)
        return np.where(missing, 0, steps).astype(self.stored_type)


def stored_form(target: BandFormat | None, source_bits: int) -> StoredForm:
    """Return how images of a domain are stored.

    Args:
        target: The domain; None: RGB.
        source_bits: Bits allocated for a value in the source, whose class may require them.
    """
    if target is None or target.channels == 3:
        return StoredForm(3, 8)
    low, high = target.low[0], target.high[0]
    window = (low + high) / 2, high - low
    if target.is_float:
        # The text is what readers compute with.
        slope = f"{(high - low) / FLOAT_STEPS:.10g}"
        intercept = f"{low - float(slope):.10g}"
        return StoredForm(1, 16, False, slope, intercept, window)
    bits = 8 if target.dtype == "uint8" and source_bits == 8 else 16
    return StoredForm(1, bits, target.dtype == "int16", window=window)


class FrameWriter:
    """Collects the frames of a derived image: in memory, or in a temporary file if there are more.

    Args:
        volume: The source.
        target: The target domain; None: RGB.

    Raises:
        OutputError: The temporary file cannot be written.
    """

    def __init__(self, volume: DicomVolume, target: BandFormat | None) -> None:
        self.volume = volume
        self.form = stored_form(target, int(volume.header.BitsAllocated))
        self.file: Any = io.BytesIO() if volume.probe.frames == 1 else temporary_file()
        self.frames = 0
        self.padding: int | None = None
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, values: PixelArray, nodata: float | None) -> None:
        """Append a frame.

        Args:
            values: ``[H, W, C]``.
            nodata: Value of pixels without data; None: none.
        """
        content = self.form.store(values).tobytes()
        if nodata is not None:
            self.padding = self.form.padding(nodata)
        with as_output_error():
            self.file.write(content)
        self.digest.update(content)
        self.frames += 1
        self.size += len(content)

    def save(
        self,
        stream: BinaryIO,
        derivation: Derivation,
        compress: bool,  # noqa: ARG002 - of other formats
        anonymize: bool,
    ) -> None:
        """Write the image, with the header of its source."""
        import pydicom
        from pydicom.dataelem import DataElement
        from pydicom.dataset import FileMetaDataset

        dataset = derived_header(self.volume, self, derivation, anonymize)
        if self.size % 2:
            self.file.write(b"\0")  # Values have an even length (PS3.5, 7.1.1).
        self.file.seek(0)
        dataset.add(DataElement(PIXEL_DATA, "OB" if self.form.bits == 8 else "OW", self.file))
        meta: Any = FileMetaDataset()
        meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        meta.TransferSyntaxUID = EXPLICIT_LITTLE_ENDIAN
        dataset.file_meta = meta
        # That of the source may hold the header of another format, or any text.
        dataset.preamble = bytes(PREAMBLE_BYTES)
        pydicom.dcmwrite(
            stream, dataset, enforce_file_format=True, implicit_vr=False, little_endian=True
        )

    def close(self) -> None:
        """Remove the temporary file."""
        self.file.close()


def derived_header(
    volume: DicomVolume, frames: FrameWriter, derivation: Derivation, anonymize: bool
) -> Any:
    """Return the header of a derived image (PS3.3, C.7.6.1.1.2 and C.12.4)."""
    source = volume.header
    header = deepcopy(source)
    for keyword in OUTDATED:
        if keyword in header:
            del header[keyword]
    for tag in [tag for tag in header.keys() if tag.group in (*OVERLAYS, *CURVES)]:  # noqa: SIM118
        del header[tag]
    if anonymize:
        anonymize_dataset(header)
    _describe_pixels(header, volume, frames)
    _describe_values(header, frames)
    _set_class(header, source, frames)
    kept = list(source.get("ImageType") or ())[2:]
    header.ImageType = ["DERIVED", "SECONDARY", *kept]
    header.DerivationDescription = (
        f"Translated from the domain {derivation.source} to {derivation.target} by a CycleGAN "
        f"generator ({derivation.program}). Synthetic: not for diagnosis."
    )
    described = "" if anonymize else str(source.get("SeriesDescription", ""))
    header.SeriesDescription = f"{derivation.target} (synthetic) {described}".strip()[
        :MAX_DESCRIPTION
    ]
    _set_identity(header, source, frames, derivation, anonymize)
    _fit_character_set(header, f"{derivation.source} {derivation.target}")
    return header


def _fit_character_set(header: Any, text: str) -> None:
    """Change the character set to UTF-8 if that of the header lacks characters of a text."""
    from pydicom.charset import convert_encodings

    declared = header.get("SpecificCharacterSet")
    try:
        text.encode(convert_encodings(declared)[0] if declared else "ascii")
    except (UnicodeEncodeError, LookupError):
        header.decode()  # By the old character set.
        header.SpecificCharacterSet = UTF_8


def _describe_pixels(header: Any, volume: DicomVolume, frames: FrameWriter) -> None:
    form = frames.form
    header.Rows, header.Columns = volume.probe.height, volume.probe.width
    header.SamplesPerPixel = form.samples
    header.BitsAllocated = header.BitsStored = form.bits
    header.HighBit = form.bits - 1
    header.PixelRepresentation = int(form.is_signed)
    header.PhotometricInterpretation = "RGB" if form.samples == 3 else "MONOCHROME2"
    if form.samples == 3:
        header.PlanarConfiguration = 0
    if frames.frames > 1 or "NumberOfFrames" in header:
        header.NumberOfFrames = frames.frames
    if form.samples == 1 and frames.padding is not None:
        header.add_new("PixelPaddingValue", "SS" if form.is_signed else "US", frames.padding)


def _describe_values(header: Any, frames: FrameWriter) -> None:
    """Set the rescale and the window, in the functional groups of enhanced images as well."""
    from pydicom.dataset import Dataset

    form = frames.form
    scale, window = Dataset(), Dataset()
    if form.samples == 1:
        scale.RescaleIntercept, scale.RescaleSlope = form.intercept, form.slope
        scale.RescaleType = "US"  # Unspecified: the unit is that of the target domain.
    if form.window:
        window.WindowCenter, window.WindowWidth = (f"{value:.10g}" for value in form.window)
    shared = header.get("SharedFunctionalGroupsSequence")
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if not shared or not per_frame:
        header.update(scale)
        header.update(window)
        return
    for item in (*per_frame, *shared):
        for keyword in ("PixelValueTransformationSequence", "FrameVOILUTSequence",
                        "RealWorldValueMappingSequence"):  # fmt: skip
            if keyword in item:
                del item[keyword]
        for element in item:
            if element.VR == "SQ" and element.value and "FrameType" in element.value[0]:
                frame_type = element.value[0]
                frame_type.FrameType = ["DERIVED", "SECONDARY", *list(frame_type.FrameType)[2:]]
    if form.samples == 1:
        shared[0].PixelValueTransformationSequence = [scale]
        shared[0].FrameVOILUTSequence = [window]


def _set_class(header: Any, source: Any, frames: FrameWriter) -> None:
    """Keep the SOP class, unless it does not allow such pixels."""
    form = frames.form
    fits = (
        form.samples == int(source.SamplesPerPixel)
        and (form.samples == 3 or str(source.PhotometricInterpretation).startswith("MONO"))
        and form.bits <= int(source.BitsAllocated)
    )
    if fits and "SOPClassUID" in source:
        return
    kinds = SECONDARY_CAPTURES if frames.frames > 1 else {}
    header.SOPClassUID = kinds.get(form.bits * form.samples, SECONDARY_CAPTURE)
    header.ConversionType = "WSD"  # Workstation.


def _set_identity(
    header: Any, source: Any, frames: FrameWriter, derivation: Derivation, anonymize: bool
) -> None:
    """Set new UIDs, which depend on the source and the model alone, and refer to the source."""
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid

    instance, series = (str(source.get(name, "")) for name in ("SOPInstanceUID",
                                                               "SeriesInstanceUID"))  # fmt: skip
    entropy = [series, derivation.target, derivation.model, str(anonymize)]
    # The images of a series stay together, also if several processes translate them.
    header.SeriesInstanceUID = generate_uid(entropy_srcs=entropy)
    header.SOPInstanceUID = generate_uid(
        entropy_srcs=[*entropy, instance, frames.digest.hexdigest()]
    )
    if not instance:
        return
    purpose, item = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item.ReferencedSOPClassUID = source.get("SOPClassUID", SECONDARY_CAPTURE)
    item.ReferencedSOPInstanceUID = replacement_uid(instance) if anonymize else instance
    item.PurposeOfReferenceCodeSequence = [purpose]
    header.SourceImageSequence = [item]
