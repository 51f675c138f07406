"""Checkpoints, told from their headers: ours, other safetensors files, and files of torch.save."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cyclegan_cli.checkpoints.container import (
    DTYPE_BITS,
    Header,
    TensorInfo,
    count_elements,
    read_header,
)
from cyclegan_cli.checkpoints.header import FORMAT_NAME, ModelInfo, model_info, state_info
from cyclegan_cli.checkpoints.original_names import generator_files
from cyclegan_cli.checkpoints.reading import read_model
from cyclegan_cli.checkpoints.torch_files import read_torch_file
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.networks import discriminator_facts, generator_facts
from cyclegan_cli.inspection.summary import Facts, Request, Summary
from cyclegan_cli.models.shapes import generator_shapes

MOST_READINGS = 4


def describe_safetensors(path: Path, request: Request) -> Summary:
    """A safetensors file, ours or another program's.

    Raises:
        CheckpointError: It is damaged.
    """
    header = read_header(path)
    facts: Facts = {"bytes": path.stat().st_size}
    if header.document.get("format") != FORMAT_NAME:
        facts |= _tensor_facts(header.tensors) | listed(path, header.tensors, request)
        return Summary(path, "safetensors", facts)
    info = model_info(path, header)
    facts |= model_facts(path, header, request)
    if info.kind == "state":
        state = state_info(path, header)
        facts["discriminator"] = vars(state.discriminator) | {
            "parameters": count(header.tensors, "discriminator_a.")
        }
        if request.receptive_field:
            facts["discriminator"] |= discriminator_facts(state.discriminator)
        facts["trained_seconds"] = round(state.seconds, 1)
    return Summary(path, info.kind, facts | listed(path, header.tensors, request))


def describe_torch_file(path: Path, request: Request) -> Summary:
    """A file of torch.save: a generator of the original implementation, or something else.

    Raises:
        CheckpointError: It is damaged, or has code.
    """
    tensors = read_torch_file(path)
    facts: Facts = {"bytes": path.stat().st_size}
    try:
        facts |= _reference_facts(read_model(path), request)
        kind = "reference"
    except CheckpointError as error:
        facts |= _tensor_facts(tensors) | {"problem": error.message}
        kind = "torch"
    facts |= {"dtypes": _dtypes(tensors)} | listed(path, tensors, request)
    return Summary(path, kind, facts)


def describe_reference_folder(path: Path, request: Request) -> Summary:
    """A folder with the original implementation's generators of both directions.

    Raises:
        CheckpointError: One is damaged, or none of a kind that is read.
    """
    facts: Facts = {"bytes": sum(file.stat().st_size for file in generator_files(path))}
    facts |= _reference_facts(read_model(path), request)
    if request.weights:
        facts["weights"] = [
            tensor | {"name": f"{file.name}: {tensor['name']}"}
            for file in generator_files(path)
            for tensor in listed(file, read_torch_file(file), request)["weights"]
        ]
    return Summary(path, "reference", facts)


def _reference_facts(info: ModelInfo, request: Request) -> Facts:
    parameters = sum(map(math.prod, generator_shapes(info.generator).values()))
    facts: Facts = {
        "directions": list(info.directions),
        "domains": {"a": info.name_a, "b": info.name_b},
        "generator": vars(info.generator) | {"parameters": parameters},
    }
    if request.receptive_field:
        facts["generator"] |= generator_facts(info.generator)
    return facts


def model_facts(path: Path, header: Header, request: Request) -> Facts:
    """What a checkpoint of ours says of its model.

    Raises:
        CheckpointError: Its description is damaged.
    """
    info = model_info(path, header)
    facts: Facts = {
        "directions": list(info.directions),
        "domains": {"a": info.name_a, "b": info.name_b},
        "generator": vars(info.generator)
        | {"parameters": count(header.tensors, f"generator_{info.directions[0]}.")},
        "dtypes": _dtypes(header.tensors),
        "training": info.training,
        "format_version": header.document["version"],
        "versions": info.versions,
    }
    if request.receptive_field:
        facts["generator"] |= generator_facts(info.generator)
    return facts


def listed(path: Path, tensors: Mapping[str, TensorInfo], request: Request) -> Facts:
    """All tensors of a file by name, with statistics of their numbers, where they are wanted.

    Raises:
        CheckpointError: The file cannot be read, or a tensor reaches beyond its end.
    """
    if not request.weights:
        return {}
    from cyclegan_cli.inspection.statistics import statistics_of  # Needs numpy.

    statistics = statistics_of(path, tensors)
    return {
        "weights": [
            {"name": name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
            | {"statistics": statistics[name]}
            for name, tensor in tensors.items()
        ]
    }


def without_repetition(tensors: Mapping[str, TensorInfo], size: int) -> dict[str, TensorInfo]:
    """Tensors whose places together have no more than four times their file's bytes.

    In formats whose tensors may share their bytes, a small file can describe any number of them;
    later ones have no place then.
    """
    kept, left = {}, MOST_READINGS * size
    for name, tensor in tensors.items():
        left -= count_elements(tensor.shape) * DTYPE_BITS.get(tensor.dtype, 0) // 8
        kept[name] = tensor if left >= 0 else replace(tensor, place=None)
    return kept


def _tensor_facts(tensors: Mapping[str, TensorInfo]) -> Facts:
    return {"tensors": len(tensors), "parameters": count(tensors, "")}


def _dtypes(tensors: Mapping[str, TensorInfo]) -> list[str]:
    return sorted({tensor.dtype for tensor in tensors.values()})


def count(tensors: Mapping[str, TensorInfo], prefix: str) -> int:
    """Numbers in all tensors whose names begin with ``prefix``."""
    return sum(math.prod(t.shape) for name, t in tensors.items() if name.startswith(prefix))
