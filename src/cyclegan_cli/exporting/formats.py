"""The formats that models are exported to, and what makes sense with which. Loads no torch.

A format is one entry here and one module with a function ``convert`` that makes a
:class:`~cyclegan_cli.exporting.draft.Draft`; everything else is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from cyclegan_cli.checkpoints.header import Direction, ModelInfo
from cyclegan_cli.checkpoints.locate import Which
from cyclegan_cli.config import LOWEST_OPSET as LOWEST_OPSET
from cyclegan_cli.config import OPSET as OPSET
from cyclegan_cli.config import ExportFormat, ExportPrecision
from cyclegan_cli.errors import UsageError

Precision = ExportPrecision
FormatName = ExportFormat
Directions = tuple[Direction, ...]


def named_by_domains(info: ModelInfo, directions: Directions, which: Which) -> str:
    """``day2night``; ``day-night`` for a file with both directions."""
    del which
    if len(directions) == 1:
        return f"{info.source(directions[0])}2{info.target(directions[0])}"
    return f"{info.name_a}-{info.name_b}"


def named_as_the_original(info: ModelInfo, directions: Directions, which: Which) -> str:
    """``latest_net_G_A`` for A to B, ``latest_net_G_B`` for B to A."""
    del info
    return f"{which}_net_G_{'A' if directions[0] == 'a2b' else 'B'}"


@dataclass(frozen=True)
class Format:
    """What there is to know of a format before anything is loaded.

    Attributes:
        name: As in ``--format``.
        module: Where its ``convert`` is.
        suffixes: Endings of its files; the first is that of the file that is named.
        precisions: In which it can be written.
        packages: What must be installed, by the names they are imported and distributed under.
        extra: The extra of this package that installs them.
        image_io: Whether ``--image-io`` is possible.
        holds_both: Whether one file can hold both directions.
        stem: The name, without ending, of a file that the user does not name.
    """

    name: FormatName
    module: str
    suffixes: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    packages: tuple[str, ...] = ()
    extra: str = ""
    image_io: bool = False
    holds_both: bool = False
    stem: Callable[[ModelInfo, Directions, Which], str] = named_by_domains

    def require_packages(self) -> None:
        """Check that the extra is installed.

        Raises:
            UsageError: It is not.
        """
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise UsageError(
                f"--format {self.name} needs the package {missing[0]}, which is not installed",
                f"Install the extra [{self.extra}]: pip install {' '.join(self.packages)}",
            )

    def require_precision(self, precision: Precision) -> None:
        """Check that the format can be written in a precision.

        Raises:
            UsageError: It cannot.
        """
        if precision not in self.precisions:
            raise UsageError(
                f"--precision {precision}: {self.name} is not written in it",
                f"It can be {', '.join(self.precisions)}.",
            )


# Of ONNX. The newest is the first with a native instance norm for every type, and in every runtime
# of the last years. The graph of a network has had the same operators since the lowest, those
# around it (with pixels, in int8) since the middle one.
LOWEST_OPSET_OF_MORE = 18
# How to get to other programs' files.
BY_TRTEXEC = "Export .onnx, and build the engine where it will run: trtexec --onnx=FILE."
BY_TENSORFLOW = "Export .onnx, and convert that with onnx2tf."
BY_COREMLTOOLS = "Export .pt2, and convert that with coremltools."
ELSEWHERE = {
    ".engine": BY_TRTEXEC, ".plan": BY_TRTEXEC, ".trt": BY_TRTEXEC,
    ".tflite": BY_TENSORFLOW, ".pb": BY_TENSORFLOW, ".h5": BY_TENSORFLOW, ".keras": BY_TENSORFLOW,
    ".mlpackage": BY_COREMLTOOLS, ".mlmodel": BY_COREMLTOOLS,
}  # fmt: skip
ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        Format(
            name="onnx",
            module="cyclegan_cli.exporting.onnx",
            suffixes=(".onnx",),
            precisions=("fp32", "fp16", "int8"),
            packages=ONNX_PACKAGES,
            extra="onnx",
            image_io=True,
        ),
        Format(
            name="pt2",
            module="cyclegan_cli.exporting.pt2",
            suffixes=(".pt2",),
        ),
        Format(
            name="safetensors",
            module="cyclegan_cli.exporting.safetensors",
            suffixes=(".safetensors",),
            precisions=("fp32", "fp16", "bf16"),
            holds_both=True,
        ),
        Format(
            name="pth",
            module="cyclegan_cli.exporting.pth",
            suffixes=(".pth",),
            stem=named_as_the_original,
        ),
        Format(
            name="openvino",
            module="cyclegan_cli.exporting.openvino",
            suffixes=(".xml", ".bin"),
            packages=(*ONNX_PACKAGES, "openvino"),
            extra="openvino",
            image_io=True,
        ),
    )
}
