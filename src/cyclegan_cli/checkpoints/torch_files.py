"""What a file of ``torch.save`` holds, read without torch and without its tensors.

Two layouts exist. Since torch 1.6 it is a zip archive: ``data.pkl`` names the tensors, and
``data/KEY`` holds each storage, uncompressed. Before, it was five pickles one after the other (a
magic number, the protocol, the machine, the tensors, the storages' keys), then the storages, each
behind its number of elements.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclegan_cli.checkpoints.archives import ZIP_MAGIC, Span, open_archive
from cyclegan_cli.checkpoints.container import (
    DTYPE_BITS,
    Place,
    TensorInfo,
    file_size,
    refuse_special,
    unreadable,
)
from cyclegan_cli.checkpoints.pickles import (
    LONGEST_PICKLE,
    CodeInPickleError,
    StoredTensor,
    read_pickle,
)
from cyclegan_cli.errors import CheckpointError

LEGACY_START = b"\x80\x02\x8a\x0a"  # No safetensors file: its header would be too long.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DEEPEST_DICT = 4
MOST_VALUES = 200_000
MOST_NAMES_OF_ONE = 4  # A module may be registered more than once.
LONGEST_NAMES = 20_000_000  # Characters of all names together; those of four networks have 50,000.


def is_torch_file(path: Path) -> bool:
    """Whether a file is one of ``torch.save`` by its first bytes, or by its name.

    Raises:
        CheckpointError: It cannot be read.
    """
    first = _bytes_of(path, 4)
    named = path.suffix.lower() in (".pth", ".pt")
    return named or first in (ZIP_MAGIC, LEGACY_START)


def read_torch_file(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a file of ``torch.save``, by their dotted names; nothing is executed.

    Raises:
        CheckpointError: Another kind of file, a damaged one, or one that has code.
    """
    file_size(path)
    try:
        if _bytes_of(path, 4) == ZIP_MAGIC:
            content, storages = _read_zip(path)
        else:
            content, storages = _read_legacy(path)
        tensors = dict(_tensors(content))
        _check_storages(path, tensors, storages)
    except CodeInPickleError as error:
        raise CheckpointError(
            f"{path} names code ({error}), and only files of plain tensors are read",
            "Save the network's state_dict() by itself.",
        ) from error
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, KeyError, NotImplementedError, RuntimeError, EOFError,
            zipfile.BadZipFile) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} is not a file of torch.save, or a damaged one: {error}"
        ) from error
    return {name: _info(tensor, storages) for name, tensor in tensors.items()}


def _info(tensor: StoredTensor, storages: dict[str, Span]) -> TensorInfo:
    dtype = tensor.storage.dtype
    start = storages[tensor.storage.key].start + tensor.offset * DTYPE_BITS[dtype] // 8
    return TensorInfo(dtype, tensor.shape, Place(start, tensor.stride))


def _bytes_of(path: Path, count: int) -> bytes:
    refuse_special(path)
    try:
        with path.open("rb") as stream:
            return stream.read(count)
    except OSError as error:
        raise unreadable(path, error) from error


def _read_zip(path: Path) -> tuple[Any, dict[str, Span]]:
    """The pickled content, and where every storage is by its key."""
    with open_archive(path) as archive:
        root = _root(list(archive.entries))
        content = read_pickle(io.BytesIO(archive.read(f"{root}data.pkl", LONGEST_PICKLE)))
        order = f"{root}byteorder"  # Since torch 2.1.
        if order in archive.entries and archive.read(order, longest=10) != b"little":
            raise ValueError("it is of a big-endian machine")
        keys = f"{root}data/"
        names = [name for name in archive.entries if name.startswith(keys)]
        storages = {name.removeprefix(keys): archive.span(name) for name in names}
    return content, storages


def _root(names: list[str]) -> str:
    """The folder that everything in the archive is in, with its slash."""
    root = names[0].partition("/")[0] + "/" if names else ""
    if f"{root}constants.pkl" in names:
        raise ValueError("it is a TorchScript program")
    if f"{root}archive_format" in names:
        raise ValueError("it is an exported program (.pt2), not a checkpoint")
    if f"{root}data.pkl" not in names:
        raise ValueError("it is a zip file of something else")
    return root


def _read_legacy(path: Path) -> tuple[Any, dict[str, Span]]:
    """The same of a file of before torch 1.6."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = io.BytesIO(stream.read(LONGEST_PICKLE))
        if read_pickle(start) != LEGACY_MAGIC or read_pickle(start) != 1001:
            raise ValueError("it does not begin as one")
        machine = read_pickle(start)
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise ValueError("it is of a big-endian machine")
        content = read_pickle(start)
        keys = read_pickle(start)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("it has no list of its storages")
        described = {t.storage.key: t.storage for _, t in _tensors(content)}
        storages: dict[str, Span] = {}
        place = start.tell()
        for key in keys:
            bits = DTYPE_BITS[described[key].dtype]
            stream.seek(place)
            count = int.from_bytes(stream.read(8), "little")
            storages[key] = Span(place + 8, count * bits // 8)
            place += 8 + storages[key].size
        if len(storages) != len(keys) or place != size:
            raise ValueError("its storages do not fit the file")
    return content, storages


def _tensors(content: Any) -> Iterator[tuple[str, StoredTensor]]:
    """All tensors in dicts within dicts, by their dotted names."""
    visited = named = 0
    waiting: list[tuple[str, Any, int]] = [("", content, 0)]
    while waiting:
        prefix, value, depth = waiting.pop()
        visited += 1
        if isinstance(value, dict):
            # A name begins with those of all dicts around it.
            named += sum(len(prefix) + len(str(key)) for key in value)
        if visited > MOST_VALUES or named > LONGEST_NAMES:
            raise ValueError("it has too many entries")
        if isinstance(value, StoredTensor):
            yield prefix, value
        elif isinstance(value, dict) and depth < DEEPEST_DICT:
            items = reversed(value.items())
            waiting += [(f"{prefix}.{key}" if prefix else str(key), v, depth + 1)
                        for key, v in items]  # fmt: skip
            if len(waiting) > MOST_VALUES:
                raise ValueError("it has too many entries")


def _check_storages(
    path: Path, tensors: dict[str, StoredTensor], storages: dict[str, Span]
) -> None:
    """Refuse tensors that reach beyond their storages, or that need more than the file has."""
    sizes: dict[StoredTensor, int] = {}
    total = 0
    for name, tensor in tensors.items():
        storage, width = tensor.storage, DTYPE_BITS[tensor.storage.dtype] // 8
        numbers = (tensor.offset, *tensor.shape, *tensor.stride)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"{name} has an impossible shape")
        fits = storages[storage.key].size == storage.count * width
        if len(tensor.shape) != len(tensor.stride) or not fits:
            raise ValueError(f"{name} does not fit its storage")
        elements, last = 1, tensor.offset
        for size, stride in zip(tensor.shape, tensor.stride, strict=True):
            last += (size - 1) * stride
            elements = min(elements * size, storage.count + 1)
        if elements > storage.count or (elements and last >= storage.count):
            raise ValueError(f"{name} reaches beyond its storage")
        sizes[tensor] = elements * width
        total += elements * width
    most = path.stat().st_size
    if sum(sizes.values()) > most or total > MOST_NAMES_OF_ONE * most:
        raise ValueError("its tensors overlap")
