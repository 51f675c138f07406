"""docs/dependencies.md: each dependency, with its purpose, licence and size.

    python tests/dependencies.py

rewrites its table from what is installed.
"""

import re
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "dependencies.md"
HEADER = "| package | extra | licence | size, MB | purpose |\n|---|---|---|---|---|\n"
PURPOSES = {
    "imagecodecs": "16-bit PNG, ICC conversion at 16 bits, compressed TIFF for tifffile",
    "numpy": "pixel arrays",
    "pillow": "image formats at 8 bits, ICC conversion at 8 bits",
    "psutil": "free memory",
    "rich": "progress display and tables",
    "safetensors": "checkpoints",
    "tifffile": "TIFF: 16-bit pages, stacks, writing",
    "tomli-w": "configuration file of a run",
    "torch": "networks, training, inference",
    "torchvision": "resize, crop and flip in the data set; sample grids",
    "typer": "command line",
    "pydicom": "DICOM images",
    "pillow-heif": "HEIC images",
    "nibabel": "headers of NIfTI volumes",
    "onnx": "ONNX export",
    "onnxruntime": "verification of ONNX exports, int8 quantization",
    "onnxscript": "ONNX export",
    "openvino": "OpenVINO export",
    "torch-fidelity": "Inception network for `train --kid` and `inspect --against`",
    "tensorboard": "TensorBoard logs",
}
# Extras for developers of the project.
OWN = ("test", "dev")


def asked_for() -> dict[str, str]:
    """Return the packages in pyproject.toml, each with its extra, or empty."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, str] = {}
    for extra, requirements in lists.items():
        for requirement in requirements:
            name = re.match(r"[\w.-]+", requirement)[0]
            if extra not in OWN and name != project["name"]:
                found.setdefault(name, extra)
    return found


def licence(name: str) -> str:
    """Return the licence that an installed package states, in a few words."""
    found = metadata.metadata(name)
    if expression := found.get("License-Expression"):
        return expression
    classifiers = found.get_all("Classifier") or []
    named = [one.rsplit(" :: ", 1)[1] for one in classifiers if one.startswith("License :: OSI")]
    return ", ".join(named) or (found.get("License") or "not stated").splitlines()[0]


def size(name: str) -> str:
    """Return the size of an installed package in MB, to two digits."""
    files = [file.locate() for file in metadata.files(name) or ()]
    total = sum(Path(file).stat().st_size for file in files if Path(file).is_file()) / 1e6
    return f"{float(f'{total:.2g}'):g}"


def table() -> str:
    """Return the table of dependencies."""
    rows = [
        f"| [{name}](https://pypi.org/project/{name}/) | {extra and f'`{extra}`'} "
        f"| {licence(name)} | {size(name)} | {PURPOSES[name]} |\n"
        for name, extra in asked_for().items()
    ]
    return HEADER + "".join(rows)


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    old = re.search(r"^\| package \|.*?\n(?=\n)", text, flags=re.MULTILINE | re.DOTALL)[0]
    PAGE.write_text(text.replace(old, table()), encoding="utf-8")
