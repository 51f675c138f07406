"""The header of a safetensors file, against the safetensors library and against damage."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from cyclegan_cli.checkpoints.header import (
    FORMAT_VERSION,
    METADATA_KEY,
    Direction,
    Header,
    ModelInfo,
    StateInfo,
    TensorInfo,
    model_info,
    read_header,
    read_model_info,
    state_info,
    to_metadata,
)
from cyclegan_cli.config import DiscriminatorConfig, GeneratorConfig
from cyclegan_cli.errors import CheckpointError, UsageError

MODEL = ModelInfo(
    kind="model",
    generator=GeneratorConfig(base_channels=2, residual_blocks=3),
    name_a="día",
    name_b="night",
    training={"step": 7, "lambda_cycle": 10.0, "nested": {"b": 1, "a": None}},
    versions={"torch": "2.14"},
)
STATE = StateInfo(
    model=ModelInfo("state", MODEL.generator, "día", "night", MODEL.training, MODEL.versions),
    discriminator=DiscriminatorConfig(base_channels=5),
    config={"seed": 3, "domain_a": "a folder"},
    step=7,
    seconds=1.5,
    pictures="0123abcd",
)


def file_of(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    """A file with these parts; ``length`` is what it claims of its header, if not the truth."""
    claimed = len(header) if length is None else length
    path.write_bytes(claimed.to_bytes(8, "little") + header + data)
    return path


def entry(dtype: Any, shape: Any, first: Any, last: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def refused(path: Path) -> str:
    """The one sentence with which a file is refused."""
    with pytest.raises(CheckpointError) as refusal:
        read_header(path)
    assert refusal.value.exit_code == 4
    assert str(path) in refusal.value.message
    assert "\n" not in refusal.value.message
    return refusal.value.message


# --- metadata --------------------------------------------------------------------------------


def test_equal_documents_give_equal_metadata_in_whatever_order_they_were_made() -> None:
    document = STATE.to_document()
    reversed_document = dict(reversed(document.items()))
    reversed_document["training"] = dict(reversed(document["training"].items()))
    assert list(reversed_document) != list(document)
    assert to_metadata(reversed_document) == to_metadata(document)


def test_metadata_is_one_json_document_under_one_key() -> None:
    metadata = to_metadata(MODEL.to_document())
    assert list(metadata) == [METADATA_KEY]
    assert json.loads(metadata[METADATA_KEY]) == MODEL.to_document()


@pytest.mark.skipif(os.name == "nt", reason="names of files are Unicode there")
def test_a_folder_whose_name_is_not_unicode_can_be_described() -> None:
    document = {"config": {"domain_a": os.fsdecode(b"caf\xe9")}}
    text = to_metadata(document)[METADATA_KEY]
    assert json.loads(text.encode()) == document  # the library writes UTF-8


# --- whole files -----------------------------------------------------------------------------

DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16",
    torch.int32: "I32", torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float32: "F32", torch.float64: "F64", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64",
}  # fmt: skip


def test_every_number_format_of_the_library_is_read(tmp_path: Path) -> None:
    save_file(
        {name: torch.zeros(2, 3, dtype=dtype) for dtype, name in DTYPES.items()}, tmp_path / "x"
    )
    header = read_header(tmp_path / "x")
    assert header.tensors == {name: TensorInfo(name, (2, 3)) for name in DTYPES.values()}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e8m0fnu, torch.float8_e4m3fnuz])
def test_rarer_number_formats_are_not_called_damage(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"x": torch.zeros(2, 3).to(dtype)}, tmp_path / "x")
    assert read_header(tmp_path / "x").tensors["x"].shape == (2, 3)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (4, 3, 2, 1)])
def test_every_shape_of_the_library_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save_file({"a": torch.zeros(2), "x": torch.zeros(shape), "z": torch.zeros(2)}, tmp_path / "x")
    assert read_header(tmp_path / "x").tensors["x"] == TensorInfo("F32", shape)


@pytest.mark.parametrize(
    ("metadata", "document"),
    [
        (None, {}),
        ({"format": "pt"}, {}),
        ({METADATA_KEY: "{}", "other": "x"}, {}),
        ({METADATA_KEY: "[1]"}, {}),
        (to_metadata(MODEL.to_document()), MODEL.to_document()),
    ],
)
def test_the_document_is_read_where_there_is_one(
    tmp_path: Path, metadata: dict[str, str] | None, document: dict[str, Any]
) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x", metadata)
    assert read_header(tmp_path / "x").document == document


def test_a_file_without_tensors_is_read(tmp_path: Path) -> None:
    save_file({}, tmp_path / "x")
    assert read_header(tmp_path / "x") == Header({}, {})


def test_only_the_header_is_read(tmp_path: Path) -> None:
    """A file of a terabyte, all of it a hole."""
    header = json.dumps({"x": entry("U8", [2**40], 0, 2**40)}).encode()
    path = file_of(tmp_path / "x", header)
    try:
        os.truncate(path, 8 + len(header) + 2**40)
    except OSError as error:
        pytest.skip(f"no such file here: {error}")
    assert read_header(path).tensors["x"].shape == (2**40,)


# --- damage ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint of ours with two small tensors."""
    path = tmp_path_factory.mktemp("whole") / "x"
    tensors = {"a": torch.arange(5, dtype=torch.int16), "b": torch.ones(2, 2)}
    save_file(tensors, path, to_metadata(STATE.to_document()))
    return path.read_bytes()


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path, whole: bytes) -> None:
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        refused(tmp_path / "cut")


def test_a_file_with_something_behind_its_tensors_is_refused(tmp_path: Path, whole: bytes) -> None:
    (tmp_path / "x").write_bytes(whole + b"\0")
    assert "found 27" in refused(tmp_path / "x")


@pytest.mark.parametrize("length", [0, 1, 3, 100_000_001, 2**32, 2**63, 2**64 - 1])
def test_a_header_that_claims_another_length_is_refused(tmp_path: Path, length: int) -> None:
    assert "truncated" in refused(file_of(tmp_path / "x", b"{}", length=length))


def test_a_header_of_gigabytes_is_refused_though_the_file_is_as_long(tmp_path: Path) -> None:
    path = file_of(tmp_path / "x", b"{}", length=2**32)
    try:
        os.truncate(path, 2**33)
    except OSError as error:
        pytest.skip(f"no such file here: {error}")
    assert "not a safetensors file" in refused(path)


DEEP = 100_000


@pytest.mark.parametrize(
    "header",
    [
        b"{ ",
        b"  ",
        b"not json",
        b"\xff\xfe\xfd\xfc",
        b"[]",
        b"12",
        b"null",
        b'"text"',
        b"[" * DEEP,
        b'{"x":' * DEEP,
        b'{"x":' + b"[" * DEEP + b"]" * DEEP + b"}",
        b'{"x": ' + b"9" * 5000 + b"}",
        b'{"x": 1}',
        b'{"x": {}}',
        b'{"x": null}',
        b'{"x": []}',
        b'{"__metadata__": 1}',
        b'{"__metadata__": null}',
        b'{"__metadata__": []}',
        b'{"__metadata__": {"cyclegan": 1}}',
        b'{"__metadata__": {"cyclegan": {}}}',
        b'{"__metadata__": {"cyclegan": "not json"}}',
        b'{"__metadata__": {"cyclegan": "' + b"[" * DEEP + b'"}}',
    ],
    ids=lambda header: header[:40].decode(errors="replace"),
)
def test_a_header_that_is_no_description_of_tensors_is_refused(
    tmp_path: Path, header: bytes
) -> None:
    assert "damaged" in refused(file_of(tmp_path / "x", header))


@pytest.mark.parametrize(
    "tensors",
    [
        pytest.param({"x": entry("F32", [1], 4, 8)}, id="gap before the first"),
        pytest.param({"x": entry("F32", [1], 0, 4), "y": entry("U8", [2], 6, 8)}, id="gap"),
        pytest.param({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], 0, 4)}, id="same place"),
        pytest.param({"x": entry("F32", [1], 0, 4), "y": entry("U8", [6], 2, 8)}, id="overlap"),
        pytest.param({"x": entry("F32", [2], 8, 0)}, id="backwards"),
        pytest.param({"x": entry("F32", [2], -8, 0)}, id="before the file"),
        pytest.param({"x": entry("F32", [3], 0, 8)}, id="shape too large"),
        pytest.param({"x": entry("F32", [1], 0, 8)}, id="shape too small"),
        pytest.param({"x": entry("F31", [2], 0, 8)}, id="unknown dtype"),
        pytest.param({"x": entry("f32", [2], 0, 8)}, id="dtype in lower case"),
        pytest.param({"x": entry(32, [2], 0, 8)}, id="dtype a number"),
        pytest.param({"x": entry(["F32"], [2], 0, 8)}, id="dtype a list"),
        pytest.param({"x": entry(None, [2], 0, 8)}, id="dtype null"),
        pytest.param({"x": entry("F32", [-2], 0, 8)}, id="negative size"),
        pytest.param({"x": entry("F32", [-2, -1], 0, 8)}, id="negative sizes"),
        pytest.param({"x": entry("F32", [2.0], 0, 8)}, id="fractional size"),
        pytest.param({"x": entry("F32", [True, 2], 0, 8)}, id="true for a size"),
        pytest.param({"x": entry("F32", ["2"], 0, 8)}, id="text for a size"),
        pytest.param({"x": entry("F32", "2", 0, 8)}, id="text for a shape"),
        pytest.param({"x": entry("F32", None, 0, 8)}, id="no shape"),
        pytest.param({"x": entry("F32", 2, 0, 8)}, id="number for a shape"),
        pytest.param({"x": entry("F32", [2**64], 0, 8)}, id="huge size"),
        pytest.param({"x": entry("F32", [10**4000] * 50, 0, 8)}, id="astronomical sizes"),
        pytest.param({"x": entry("F32", [2], False, 8)}, id="false for a place"),
        pytest.param({"x": entry("F32", [2], 0, 8.0)}, id="fractional place"),
        pytest.param({"x": entry("F32", [2], 0, None)}, id="no end"),
        pytest.param({"x": entry("F32", [2], "0", "8")}, id="text for places"),
        pytest.param({"x": entry("F32", [1], 0, 4), "y": entry("F32", [1], "4", 8)}, id="mixed"),
        pytest.param({"x": entry("F32", [2], 0, 8) | {"data_offsets": [0, 8, 8]}}, id="3 places"),
        pytest.param({"x": entry("F32", [2], 0, 8) | {"data_offsets": [0]}}, id="one place"),
        pytest.param({"x": entry("F32", [2], 0, 8) | {"data_offsets": 8}}, id="places a number"),
        *(
            pytest.param(
                {"x": {k: v for k, v in entry("F32", [2], 0, 8).items() if k != missing}},
                id=f"no {missing}",
            )
            for missing in ("dtype", "shape", "data_offsets")
        ),
    ],
)
def test_tensors_that_do_not_fit_the_file_are_refused(
    tmp_path: Path, tensors: dict[str, Any]
) -> None:
    assert "damaged" in refused(file_of(tmp_path / "x", json.dumps(tensors).encode(), bytes(8)))


def test_the_same_file_with_a_fitting_tensor_is_read(tmp_path: Path) -> None:
    header = json.dumps({"x": entry("F32", [2], 0, 8)}).encode()
    path = file_of(tmp_path / "x", header, bytes(8))
    assert read_header(path).tensors == {"x": TensorInfo("F32", (2,))}


def test_a_missing_file_a_folder_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert "no such file" in refused(tmp_path / "missing")
    assert "director" in refused(tmp_path)
    assert "not a safetensors file" in refused(tmp_path / "empty")
    assert "not a directory" in refused(tmp_path / "empty" / "below")
    assert "name too long" in refused(tmp_path / ("n" * 300))


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *arguments: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    (tmp_path / "x").write_bytes(whole)
    monkeypatch.setattr(Path, "open", refuse)
    assert refused(tmp_path / "x").endswith("permission denied")


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_changed_bytes_give_a_header_or_a_refusal_and_nothing_else(
    data: st.DataObject, whole: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated"
    changed = bytearray(whole)
    places = st.integers(0, 8 + int.from_bytes(whole[:8], "little") - 1)
    values = st.one_of(st.integers(0, 255), st.sampled_from(b'{}[]",:0123456789-.etfn\\ '))
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        changed[place] = data.draw(values)
    path.write_bytes(changed)
    try:
        header = read_header(path)
        model_info(path, header)
        state_info(path, header)
    except CheckpointError as error:
        assert "\n" not in error.message


# --- our document ----------------------------------------------------------------------------


def header_of(document: Any) -> Header:
    return Header({}, json.loads(json.dumps(document)))


def test_a_model_is_described_by_the_document_that_it_gives() -> None:
    assert model_info(Path("x"), header_of(MODEL.to_document())) == MODEL


def test_a_state_is_described_by_the_document_that_it_gives() -> None:
    header = header_of(STATE.to_document())
    assert state_info(Path("x"), header) == STATE
    assert model_info(Path("x"), header) == STATE.model


def test_a_description_survives_a_file(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x", to_metadata(MODEL.to_document()))
    assert read_model_info(tmp_path / "x") == MODEL


def test_the_first_files_of_version_1_are_of_the_papers_architecture() -> None:
    document = MODEL.to_document()
    del document["directions"]
    for name in ("input_channels", "output_channels", "affine_norm"):
        del document["generator"][name]
    assert model_info(Path("x"), header_of(document)) == MODEL
    assert MODEL.generator == GeneratorConfig(
        MODEL.generator.base_channels, MODEL.generator.residual_blocks, 3, 3, False
    )
    assert MODEL.directions == ("a2b", "b2a")


@pytest.mark.parametrize("directions", [("a2b",), ("b2a",)])
def test_other_architectures_and_single_directions_are_described(
    directions: tuple[Direction, ...],
) -> None:
    generator = GeneratorConfig(8, 2, input_channels=1, output_channels=1, affine_norm=True)
    info = dataclasses.replace(MODEL, generator=generator, directions=directions)
    assert model_info(Path("x"), header_of(info.to_document())) == info


@pytest.mark.parametrize("document", [{}, {"format": "pt"}, {"format": None}, {"format": ["x"]}])
def test_a_file_of_another_program_is_called_that(document: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"x is a safetensors file, but not one of cyclegan"):
        model_info(Path("x"), header_of(document))


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 10**6, 0, -1, True, "1", None, 1.0, [1]])
def test_another_version_of_the_format_is_refused_with_a_hint(version: Any) -> None:
    with pytest.raises(CheckpointError, match="x has format version") as refusal:
        model_info(Path("x"), header_of(MODEL.to_document() | {"version": version}))
    assert "newer version" in refusal.value.hint


def test_a_model_is_refused_as_a_state_with_a_hint() -> None:
    with pytest.raises(CheckpointError, match="x holds a model, not a training state") as refusal:
        state_info(Path("x"), header_of(MODEL.to_document()))
    assert "run folder" in refusal.value.hint


Place = tuple[str, ...]


def changed(document: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy of a document with another value at a place, or (None) nothing there."""
    document = copy.deepcopy(document)
    parent = document
    for key in place[:-1]:
        parent = parent[key]
    if value is None:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return document


REQUIRED = [
    ("kind",), ("generator",), ("generator", "base_channels"), ("generator", "residual_blocks"),
    ("domains",), ("domains", "a"), ("domains", "b"), ("training",), ("versions",),
]  # fmt: skip
REQUIRED_OF_A_STATE = [
    ("discriminator",), ("discriminator", "base_channels"), ("config",), ("state",),
    ("state", "step"), ("state", "seconds"), ("state", "pictures"),
]  # fmt: skip
UNFIT = [
    (("kind",), 1),
    (("generator",), []),
    (("generator",), "text"),
    (("generator", "base_channels"), 0),
    (("generator", "base_channels"), 1025),
    (("generator", "base_channels"), True),
    (("generator", "base_channels"), 2.0),
    (("generator", "residual_blocks"), 65),
    (("generator", "residual_blocks"), "9"),
    (("generator", "input_channels"), 2),
    (("generator", "input_channels"), True),
    (("generator", "output_channels"), 4),
    (("generator", "output_channels"), "3"),
    (("generator", "affine_norm"), 1),
    (("directions",), []),
    (("directions",), "a2b"),
    (("directions",), ["a2b", "a2b"]),
    (("directions",), ["b2a", "a2b"]),
    (("directions",), ["c2a"]),
    (("directions",), 5),
    (("domains",), "ab"),
    (("domains", "a"), 1),
    (("domains", "b"), ["night"]),
    (("domains", "a"), "../../etc"),
    (("domains", "b"), "red\x1b[31m"),
    (("domains", "b"), ""),
    (("training",), 5),
    (("training",), "text"),
    (("versions",), [1]),
]
UNFIT_IN_A_STATE = [
    (("directions",), ["a2b"]),
    (("discriminator",), 5),
    (("discriminator", "base_channels"), 0),
    (("discriminator", "base_channels"), 10**9),
    (("config",), 5),
    (("state",), []),
    (("state", "step"), -1),
    (("state", "step"), 10**13),
    (("state", "step"), 1.0),
    (("state", "seconds"), "long"),
    (("state", "seconds"), []),
    (("state", "pictures"), 5),
]


def place_and_value(parameter: Any) -> str:
    return ".".join(parameter) if isinstance(parameter, tuple) else repr(parameter)


@pytest.mark.parametrize(
    ("place", "value"), [*((place, None) for place in REQUIRED), *UNFIT], ids=place_and_value
)
def test_a_damaged_description_of_a_model_is_refused(place: Place, value: Any) -> None:
    document = changed(MODEL.to_document(), place, value)
    with pytest.raises(CheckpointError, match="^x has a damaged description of its model$"):
        model_info(Path("x"), header_of(document))


@pytest.mark.parametrize(
    ("place", "value"),
    [*((place, None) for place in REQUIRED_OF_A_STATE), *UNFIT_IN_A_STATE],
    ids=place_and_value,
)
def test_a_damaged_description_of_a_state_is_refused(place: Place, value: Any) -> None:
    document = changed(STATE.to_document(), place, value)
    with pytest.raises(CheckpointError, match="^x has a damaged description of its state$"):
        state_info(Path("x"), header_of(document))


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(
            10**400,
            id="10**400",
        ),
        pytest.param(float("nan"), id="nan"),
        pytest.param(float("inf"), id="inf"),
        pytest.param(-1.0, id="-1"),
        pytest.param("1.5", id="text"),
    ],
)
def test_seconds_that_are_no_finite_number_are_refused(seconds: Any) -> None:
    document = changed(STATE.to_document(), ("state", "seconds"), seconds)
    with pytest.raises(CheckpointError):
        state_info(Path("x"), header_of(document))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**13), 10**13) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from([*REQUIRED, *REQUIRED_OF_A_STATE, ("version",)]), value=json_values)
def test_any_value_anywhere_gives_a_description_or_a_refusal(place: Place, value: Any) -> None:
    header = header_of(changed(STATE.to_document(), place, value))
    try:
        assert isinstance(state_info(Path("x"), header), StateInfo)
    except CheckpointError as error:
        assert error.message.startswith("x ")


# --- directions ------------------------------------------------------------------------------


def test_each_direction_leads_to_the_other_domain_by_its_name() -> None:
    assert (MODEL.target("a2b"), MODEL.target("b2a")) == ("night", "día")
    assert (MODEL.direction_to("night"), MODEL.direction_to("día")) == ("a2b", "b2a")


@pytest.mark.parametrize(("held", "missing"), [("a2b", "b2a"), ("b2a", "a2b")])
def test_a_direction_that_the_file_does_not_hold_is_refused(
    held: Direction, missing: Direction
) -> None:
    info = dataclasses.replace(MODEL, directions=(held,))
    assert info.require(held) == held
    with pytest.raises(CheckpointError, match=rf"\({held}\), and not the other way \({missing}\)"):
        info.require(missing)


@pytest.mark.parametrize("name", ["", "Night", "noon"])
def test_a_domain_that_the_model_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--to {name}: .*'día' and 'night'"):
        MODEL.direction_to(name)


# --- start-up --------------------------------------------------------------------------------


def test_a_header_is_read_without_the_heavy_libraries(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "x", to_metadata(STATE.to_document()))
    script = (
        "import sys; from pathlib import Path\n"
        "from cyclegan_cli.checkpoints.header import read_header, state_info\n"
        "path = Path(sys.argv[1]); print(state_info(path, read_header(path)).step)\n"
        "print(sorted({'torch', 'numpy', 'PIL', 'safetensors', 'torchvision'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n", 1) == ["7", "[]\n"]
