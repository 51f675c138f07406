"""Pickles of tensors are told without being run; any other pickle is refused."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.checkpoints import pickles
from cyclegan_cli.checkpoints.pickles import (
    CodeInPickleError,
    Storage,
    StoredTensor,
    read_pickle,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4) | st.integers(-3, 3), inner, max_size=4)
    | st.tuples(inner) | st.tuples(inner, inner, inner, inner),
    max_leaves=20,
)  # fmt: skip


@given(plain, st.sampled_from([1, 2, 4]))
def test_plain_values_are_what_pickle_makes_of_them(value: Any, protocol: int) -> None:
    assert read_pickle(io.BytesIO(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_told_with_their_places(tmp_path: Path, legacy: bool) -> None:
    whole = torch.arange(24, dtype=torch.float16).view(4, 6)
    content = collections.OrderedDict(
        view=whole[1:3, 2:], parameter=torch.nn.Parameter(torch.zeros(5)), epoch=7
    )
    torch.save(content, tmp_path / "x", _use_new_zipfile_serialization=not legacy)
    if legacy:
        stream = io.BytesIO((tmp_path / "x").read_bytes())
        for _ in range(3):
            read_pickle(stream)
    else:
        with zipfile.ZipFile(tmp_path / "x") as archive:
            [name] = [n for n in archive.namelist() if n.endswith("data.pkl")]
            stream = io.BytesIO(archive.read(name))
    found = read_pickle(stream)
    assert list(found) == ["view", "parameter", "epoch"]
    assert (found["view"].shape, found["view"].stride, found["view"].offset) == ((2, 4), (6, 1), 8)
    assert (found["view"].storage.dtype, found["view"].storage.count) == ("F16", 24)
    assert found["parameter"].shape == (5,)
    assert found["epoch"] == 7


class Hostile:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.reduced = call, arguments

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "hostile",
    [
        Hostile(os.system, "touch /tmp/never"),
        Hostile(eval, "1"),
        Hostile(getattr, "text", "upper"),
        Hostile(torch.load, "x"),
        {"weights": [Hostile(os.getcwd)]},
        os.getcwd,
        torch.nn.Linear,
        Path("x"),
    ],
    ids=["system", "eval", "getattr", "load", "nested", "function", "class", "path"],
)
def test_code_is_named_and_not_run(
    hostile: Any, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pickle.dumps(hostile, protocol)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("it was run"))
    with pytest.raises((CodeInPickleError, ValueError)):
        read_pickle(io.BytesIO(content))


@pytest.mark.parametrize(
    "content",
    [b"", b".", b"0.", b"e.", b"K\x01", b"(.", b"]K\x01s.", b"h\x00.", b"\x8a\xff", b"R.", b"Q.",
     b"}]K\x01s.", b"X\xff\xff\xff\xff", b"(K\x01u.", b"}b.", b"\x80\xff."],
)  # fmt: skip
def test_damage_is_damage_and_nothing_else(content: bytes) -> None:
    with suppress(CodeInPickleError, ValueError):
        read_pickle(io.BytesIO(content))


@given(st.binary(max_size=60))
def test_any_bytes_give_a_value_or_a_refusal(content: bytes) -> None:
    with suppress(CodeInPickleError, ValueError):
        read_pickle(io.BytesIO(content))


class TensorPickler(pickle.Pickler):
    """Writes STORAGE as torch.save writes a storage of four numbers."""

    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", 4) if value is STORAGE else None


STORAGE = object()
V1, V2 = torch._utils._rebuild_tensor, torch._utils._rebuild_tensor_v2
PARAMETER = torch._utils._rebuild_parameter
NO_HOOKS: Any = collections.OrderedDict()
TENSOR = Hostile(V2, STORAGE, 0, (4,), (1,), False, NO_HOOKS)


def read_again(value: Any) -> Any:
    content = io.BytesIO()
    TensorPickler(content, 2).dump({"w": value})
    content.seek(0)
    return read_pickle(content)["w"]


@pytest.mark.parametrize(
    "whole",
    [
        TENSOR,
        Hostile(V2, STORAGE, 0, (4,), (1,), False, NO_HOOKS, None),
        Hostile(V1, STORAGE, 0, (4,), (1,)),
        Hostile(PARAMETER, TENSOR, True, NO_HOOKS),
    ],
)
def test_a_tensor_of_all_its_arguments_is_told(whole: Hostile) -> None:
    assert read_again(whole) == StoredTensor(Storage("F32", "0", 4), 0, (4,), (1,))


@pytest.mark.parametrize(
    "damaged",
    [
        Hostile(V2, STORAGE, 0, (4,), (1,)),
        Hostile(V2, STORAGE, 0, (4,), (1,), False),
        Hostile(V2, STORAGE, 0, (4,), (1,), False, NO_HOOKS, None, None),
        Hostile(V2, 5, 0, (4,), (1,), False, NO_HOOKS),
        Hostile(V1, STORAGE, 0, (4,)),
        Hostile(V1, STORAGE, 0, (4,), (1,), False),
        Hostile(V1, "text", 0, (4,), (1,)),
        Hostile(PARAMETER, TENSOR),
        Hostile(PARAMETER, 7, True, NO_HOOKS),
        Hostile(torch.Size),
        Hostile(torch.device),
        Hostile(dict, (), ()),
    ],
)
def test_what_torch_could_not_make_is_damage(damaged: Hostile) -> None:
    with pytest.raises(ValueError, match="damaged pickle"):
        read_again(damaged)


def test_a_protocol_that_does_not_exist_is_damage() -> None:
    content = bytearray(pickle.dumps({"a": 1}, 2))
    content[1] = 82
    with pytest.raises(ValueError, match="damaged pickle"):
        read_pickle(io.BytesIO(bytes(content)))


def pickled_again_and_again(value: Any, again: bytes, times: int) -> bytes:
    """A list of a value, and of what is made of it again and again: the pickle remembers it."""
    remembered = pickle.dumps(value, 2)[2:-1] + b"r\xff\xff\xff\x00"  # LONG_BINPUT
    made = again.replace(b"VALUE", b"j\xff\xff\xff\x00")  # LONG_BINGET
    return b"\x80\x02](" + remembered + made * times + b"e."


COPY_OF_DICT = b"ccollections\nOrderedDict\nVALUE\x85R"
TENSOR_OF_SHAPE = (
    b"ctorch._utils\n_rebuild_tensor\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00VALUEVALUEtR"
)


@pytest.mark.parametrize(
    ("value", "again"),
    [
        (dict.fromkeys(range(10_000)), COPY_OF_DICT),
        ([1] * 10_000, TENSOR_OF_SHAPE),
        ((None,) * 10_000, b"VALUEQ"),
    ],
    ids=["dicts", "shapes", "identities"],
)
def test_a_value_copied_again_and_again_is_damage_before_it_fills_the_memory(
    value: Any, again: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[int] = []
    made = pickles._made
    monkeypatch.setattr(
        pickles, "_made", lambda name, given: copies.append(len(given)) or made(name, given)
    )
    with pytest.raises(ValueError, match="damaged pickle"):
        read_pickle(io.BytesIO(pickled_again_and_again(value, again, 20_000)))
    assert len(copies) <= pickles.MOST_COPIED // 10_000


def test_a_value_copied_a_few_times_is_read() -> None:
    content = pickled_again_and_again({"a": 1}, COPY_OF_DICT, 3)
    assert read_pickle(io.BytesIO(content)) == [{"a": 1}] * 4
