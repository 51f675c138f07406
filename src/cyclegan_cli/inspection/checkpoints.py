"""Checkpoints described from their headers: ours, other safetensors files, files of torch.save."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclegan_cli.checkpoints.header import (
    FORMAT_NAME,
    Header,
    ModelInfo,
    TensorInfo,
    model_info,
    read_header,
    state_info,
)
from cyclegan_cli.checkpoints.locate import read_checkpoint
from cyclegan_cli.checkpoints.pth import find_generators, info_of, read_torch_file, tensor_infos
from cyclegan_cli.errors import CheckpointError
from cyclegan_cli.inspection.summary import Facts, Request, Summary
from cyclegan_cli.models.shapes import (
    activation_bytes,
    discriminator_flops,
    discriminator_layers,
    generator_flops,
    generator_layers,
    generator_shapes,
    receptive_field,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from cyclegan_cli.inspection.statistics import ReadElements

MEGAPIXEL = (1000, 1000)


def describe_safetensors(path: Path, request: Request) -> Summary:
    """Describe a safetensors file, of this or another program.

    Raises:
        CheckpointError: It is damaged.
    """
    header = read_header(path)
    facts: Facts = {"bytes": path.stat().st_size}
    if header.document.get("format") != FORMAT_NAME:
        facts |= _tensor_facts(header.tensors) | listed_weights(path, header.tensors, request)
        return Summary(path, "safetensors", facts)
    info = model_info(path, header)
    facts |= model_facts(info, header, request)
    if info.kind == "state":
        state = state_info(path, header)
        facts["discriminator"] = {
            "base_channels": state.discriminator.base_channels,
            "scales": state.discriminator.scales,
            "parameters": count_parameters(header.tensors, "discriminator_a."),
        }
        if request.receptive_field:
            flops = discriminator_flops(state.discriminator, *MEGAPIXEL)
            facts["discriminator"] |= {
                "receptive_field": receptive_field(discriminator_layers(state.discriminator)),
                "gflop_per_megapixel": round(flops / 1e9, 1),
            }
        facts["trained_seconds"] = round(state.seconds, 1)
    return Summary(path, info.kind, facts | listed_weights(path, header.tensors, request))


def describe_torch_file(path: Path, request: Request) -> Summary:
    """Describe a file of torch.save: a generator of the original implementation, or another file.

    Raises:
        CheckpointError: It is damaged, or names code.
    """
    tensors = read_torch_file(path)
    infos = tensor_infos(tensors)
    facts: Facts = {"bytes": path.stat().st_size}
    try:
        info = info_of(path, find_generators(path, tensors))
    except CheckpointError as error:
        kind = "torch"
        facts |= _tensor_facts(infos) | {"problem": error.message}
    else:
        kind = "reference"
        facts |= _generator_facts(info, _count_generator_parameters(info), request)
    facts["dtypes"] = _dtypes(infos)
    facts |= _listed_elements(tensors, request)
    return Summary(path, kind, facts)


def describe_pth_folder(path: Path, request: Request) -> Summary:
    """Describe a folder with the original implementation's generators.

    Raises:
        CheckpointError: One is damaged or not supported.
    """
    checkpoint = read_checkpoint(path)
    generators = {generator.file: generator for generator in checkpoint.generators.values()}
    facts: Facts = {"bytes": sum(file.stat().st_size for file in generators)}
    info = checkpoint.info
    facts |= _generator_facts(info, _count_generator_parameters(info), request)
    if request.weights:
        facts["weights"] = [
            listed | {"name": f"{file.name}: {listed['name']}"}
            for file, generator in generators.items()
            for listed in _listed_elements(generator.tensors, request)["weights"]
        ]
    return Summary(path, "reference", facts)


def model_facts(info: ModelInfo, header: Header, request: Request) -> Facts:
    """Return the facts in a checkpoint's description of its model."""
    parameters = count_parameters(header.tensors, f"generator_{info.directions[0]}.")
    return _generator_facts(info, parameters, request) | {
        "dtypes": _dtypes(header.tensors),
        "training": info.training,
        "format_version": header.document["version"],
        "versions": info.versions,
    }


def _generator_facts(info: ModelInfo, parameters: int, request: Request) -> Facts:
    generator: Facts = vars(info.generator) | {"parameters": parameters}
    if request.receptive_field:
        # The cost is that of a megapixel translated whole, in fp32.
        config = info.generator
        generator |= {
            "receptive_field": receptive_field(generator_layers(config)),
            "gflop_per_megapixel": round(generator_flops(config, *MEGAPIXEL) / 1e9, 1),
            "memory_mb_per_megapixel": round(activation_bytes(config, *MEGAPIXEL) / 1e6, 1),
        }
    return {
        "directions": list(info.directions),
        "domains": {"a": info.name_a, "b": info.name_b},
        **({"bands": _band_facts(info)} if any(info.formats) else {}),
        "generator": generator,
    }


def _band_facts(info: ModelInfo) -> Facts:
    """Return the formats of the domains that are not RGB."""
    return {
        domain: one.to_document()
        for domain, one in zip("ab", info.formats, strict=True)
        if one is not None
    }


def _count_generator_parameters(info: ModelInfo) -> int:
    return sum(map(math.prod, generator_shapes(info.generator).values()))


def listed_weights(path: Path, tensors: Mapping[str, TensorInfo], request: Request) -> Facts:
    """Return the list of a safetensors file's tensors, if it is requested.

    Raises:
        CheckpointError: The file cannot be read.
    """
    if not request.weights:
        return {}
    from cyclegan_cli.checkpoints.store import open_tensors

    with open_tensors(path) as read:
        return listed_tensors(tensors, lambda name: _elements(read(name)), request)


def _listed_elements(tensors: Mapping[str, Tensor], request: Request) -> Facts:
    return listed_tensors(tensor_infos(tensors), lambda name: _elements(tensors[name]), request)


def listed_tensors(
    tensors: Mapping[str, TensorInfo], read: ReadElements | None, request: Request
) -> Facts:
    """Return the list of tensors, if it is requested; see :func:`.statistics.list_tensors`."""
    if not request.weights:
        return {}
    from cyclegan_cli.inspection.statistics import list_tensors

    return {"weights": list_tensors(tensors, read)}


def _elements(tensor: Tensor) -> NDArray[Any]:
    """Return a tensor as an array; BF16, which numpy does not support, as F32."""
    import torch

    elements: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return elements


def _tensor_facts(tensors: Mapping[str, TensorInfo]) -> Facts:
    return {"tensors": len(tensors), "parameters": count_parameters(tensors)}


def _dtypes(tensors: Mapping[str, TensorInfo]) -> list[str]:
    return sorted({tensor.dtype for tensor in tensors.values()})


def count_parameters(tensors: Mapping[str, TensorInfo], prefix: str = "") -> int:
    """Return the number of elements of all tensors whose names begin with ``prefix``."""
    return sum(math.prod(t.shape) for name, t in tensors.items() if name.startswith(prefix))
