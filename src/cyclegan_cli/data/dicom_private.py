"""Remove what identifies a patient from the header of a DICOM image.

The rules follow the Basic Application Level Confidentiality Profile (PS3.15, E): they go by the
value representation and the group of an element, so that elements that are not known are removed
as well. Text in the pixels stays.
"""

from __future__ import annotations

from typing import Any

# Texts that describe the device, the acquisition and codes, and not a person.
KEPT_TEXTS = frozenset(
    {"Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel",
     "SequenceName", "FilterType", "RescaleType", "CodeValue", "CodingSchemeDesignator",
     "CodingSchemeVersion", "CodeMeaning", "LongCodeValue",
     "ReceiveCoilName", "TransmitCoilName", "ContrastBolusAgent", "Radiopharmaceutical",
     "DimensionDescriptionLabel"}
)  # fmt: skip
# Elements that images must have, though perhaps empty (type 2).
EMPTIED = frozenset(
    {"StudyDate", "StudyTime", "ContentDate", "ContentTime", "AccessionNumber",
     "ReferringPhysicianName", "StudyID", "PatientBirthDate", "PatientSex", "SeriesNumber",
     "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime"}
)  # fmt: skip
# Sequences of codes that name persons, institutions, and diagnoses.
IDENTIFYING_SEQUENCES = frozenset(
    {"InstitutionCodeSequence", "InstitutionalDepartmentTypeCodeSequence",
     "ReferringPhysicianIdentificationSequence", "ConsultingPhysicianIdentificationSequence",
     "PhysiciansOfRecordIdentificationSequence", "PerformingPhysicianIdentificationSequence",
     "PhysiciansReadingStudyIdentificationSequence", "OperatorIdentificationSequence",
     "ContentCreatorIdentificationCodeSequence", "AdmittingDiagnosesCodeSequence",
     "ReferencedPatientSequence", "ContributingEquipmentSequence"}
)  # fmt: skip
PSEUDONYM = "ANONYMOUS"
TEXTS = frozenset({"AE", "LO", "SH", "ST", "LT", "UC", "UT", "UR", "PN", "AS"})
TIMES = frozenset({"DA", "TM", "DT"})
BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
# Groups about the patient, trials, the visit, the request and procedure, signatures, and results.
IDENTIFYING_GROUPS = frozenset({0x0010, 0x0012, 0x0032, 0x0038, 0x0040, 0x0400, 0x4000, 0x4008})
STANDARD_ROOT = "1.2.840.10008."
METHOD = "cyclegan-cli --anonymize (PS3.15 Annex E); pixels not checked"


def replacement_uid(uid: str) -> str:
    """Return the UID that replaces another: always the same, so that references stay valid.

    UIDs of the standard, such as those of SOP classes, stay.
    """
    from pydicom.uid import generate_uid

    if not uid or uid.startswith(STANDARD_ROOT):
        return uid
    return str(generate_uid(entropy_srcs=["cyclegan-cli anonymize", uid]))


def anonymize_dataset(header: Any) -> None:
    """Remove or replace what identifies the patient, in place."""
    _clean(header)
    header.PatientName = header.PatientID = PSEUDONYM
    for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
                    "ReferringPhysicianName", "StudyID"):  # fmt: skip
        if keyword not in header:
            setattr(header, keyword, "")
    header.PatientIdentityRemoved = "YES"
    header.DeidentificationMethod = METHOD
    header.LongitudinalTemporalInformationModified = "REMOVED"


def _clean(dataset: Any) -> None:
    """Clean a data set and the sequences in it."""
    for element in list(dataset):
        tag, keyword, kind = element.tag, element.keyword, element.VR
        if tag.is_private or not keyword:
            del dataset[tag]
        elif keyword in EMPTIED:
            element.value = None
        elif (
            tag.group in IDENTIFYING_GROUPS
            or keyword in IDENTIFYING_SEQUENCES
            or kind in (*TIMES, *BINARY)
            or (kind in TEXTS and keyword not in KEPT_TEXTS)
        ):
            del dataset[tag]
        elif kind == "SQ":
            for item in element.value:
                _clean(item)
        elif kind == "UI":
            many = element.value if element.VM > 1 else [element.value]
            replaced = [replacement_uid(str(uid)) for uid in many if uid]
            element.value = replaced if len(replaced) != 1 else replaced[0]
