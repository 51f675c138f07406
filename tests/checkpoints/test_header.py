"""The description of a model in a header: round trips, and refusals."""

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cyclegan_cli.checkpoints.header import (
    METADATA_KEY,
    NEWEST_VERSION,
    Header,
    ModelInfo,
    StateInfo,
    model_info,
    state_info,
    to_metadata,
)
from cyclegan_cli.config import BandFormat, DiscriminatorConfig, GeneratorConfig, Resampling
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
    images="0123abcd",
)


# --- metadata --------------------------------------------------------------------------------


def test_metadata_does_not_depend_on_key_order():
    document = STATE.to_document()
    reversed_document = dict(reversed(document.items()))
    reversed_document["training"] = dict(reversed(document["training"].items()))
    assert list(reversed_document) != list(document)
    assert to_metadata(reversed_document) == to_metadata(document)


@pytest.mark.skipif(os.name == "nt", reason="names of files are Unicode there")
def test_non_unicode_names_can_be_stored():
    document = {"config": {"domain_a": os.fsdecode(b"caf\xe9")}}
    text = to_metadata(document)[METADATA_KEY]
    assert json.loads(text.encode()) == document  # the library writes UTF-8


# --- our document ----------------------------------------------------------------------------


def header_of(document: Any) -> Header:
    return Header({}, json.loads(json.dumps(document)))


def test_state_info_survives_a_round_trip():
    header = header_of(STATE.to_document())
    assert state_info(Path("x"), header) == STATE
    assert model_info(Path("x"), header) == STATE.model


def test_missing_architecture_keys_of_version_1_have_the_papers_values():
    document = MODEL.to_document()
    del document["directions"]
    for name in ("input_channels", "output_channels", "affine_norm", "resampling"):
        del document["generator"][name]
    assert model_info(Path("x"), header_of(document)) == MODEL
    assert MODEL.generator == GeneratorConfig(
        MODEL.generator.base_channels, MODEL.generator.residual_blocks, 3, 3, False
    )
    assert MODEL.directions == ("a2b", "b2a")


@pytest.mark.parametrize("directions", [("a2b",), ("b2a",)])
def test_other_architectures_and_single_directions_are_read(directions):
    generator = GeneratorConfig(8, 2, input_channels=1, output_channels=1, affine_norm=True)
    info = dataclasses.replace(MODEL, generator=generator, directions=directions)
    assert model_info(Path("x"), header_of(info.to_document())) == info


SATELLITE = BandFormat(5, "uint16", (1.0,), (2000.0,), (1, 2, 3, 4, 8), nodata=0.0)
HEIGHT = BandFormat(1, "float32", (-5.5,), (90.25,))
BANDS = dataclasses.replace(
    MODEL,
    generator=GeneratorConfig(2, 3, input_channels=5, output_channels=1),
    formats=(SATELLITE, HEIGHT),
)


@pytest.mark.parametrize("directions", [("a2b", "b2a"), ("a2b",), ("b2a",)])
def test_formats_of_domains_are_read(directions):
    info = BANDS.only(directions)
    document = json.loads(to_metadata(info.to_document())["cyclegan"])
    assert document["version"] == 3
    read = model_info(Path("x"), header_of(document))
    assert read == info
    assert read.formats_of("b2a") == (HEIGHT, SATELLITE)
    for direction in directions:
        generator = read.generator_of(direction)
        channels = (generator.input_channels, generator.output_channels)
        assert channels == ((5, 1) if direction == "a2b" else (1, 5))


@pytest.mark.parametrize(("dtype", "is_color"), [("uint8", True), ("uint16", False)])
def test_three_channels_of_older_files_are_colors_at_8_bits(dtype, is_color) -> None:
    colors = BandFormat(3, dtype, (0.0,), (255.0,), is_color=True)
    generator = GeneratorConfig(2, 3, input_channels=3, output_channels=1)
    info = dataclasses.replace(MODEL, generator=generator, formats=(colors, HEIGHT))
    document = info.to_document()
    assert model_info(Path("x"), header_of(document)) == info
    del document["bands"]["a"]["is_color"]
    read = model_info(Path("x"), header_of(document)).formats[0]
    assert read is not None
    assert read.is_color == is_color


def test_rgb_domains_keep_their_versions() -> None:
    assert MODEL.to_document()["version"] == 1
    assert "bands" not in MODEL.to_document()
    state = dataclasses.replace(STATE, model=BANDS)
    assert state.to_document()["version"] == 5


@pytest.mark.parametrize(
    "changed",
    [
        {"channels": 4}, {"channels": "5"}, {"dtype": "object"}, {"dtype": 5}, {"low": [3000.0]},
        {"low": "1"}, {"high": []}, {"bands": [1]}, {"bands": [0, 1, 2, 3, 4]}, {"nodata": "x"},
        {"low": [None]}, {"nodata": [1]}, {"is_color": 1}, {"is_color": True},
    ],
)  # fmt: skip
def test_damaged_formats_are_refused(changed: dict[str, Any]) -> None:
    document = BANDS.to_document()
    document["bands"] = {"a": document["bands"]["a"] | changed, "b": document["bands"]["b"]}
    with pytest.raises(CheckpointError, match="x has a damaged description"):
        model_info(Path("x"), header_of(document))


@pytest.mark.parametrize("bands", [{}, [], {"a": None}, {"b": {}}, 5, None, {"a": []}])
def test_channels_without_formats_are_refused(bands: Any) -> None:
    with pytest.raises(CheckpointError, match="x has a damaged description"):
        model_info(Path("x"), header_of(BANDS.to_document() | {"bands": bands}))


@pytest.mark.parametrize(("resampling", "version"), [("strided", 1), ("blur", 3), ("cut", 3)])
def test_models_carry_the_oldest_version_that_knows_their_resampling(
    resampling: Resampling, version: int
) -> None:
    generator = dataclasses.replace(MODEL.generator, resampling=resampling)
    info = dataclasses.replace(MODEL, generator=generator)
    document = info.to_document()
    assert (document["version"], document["generator"]["resampling"]) == (version, resampling)
    assert model_info(Path("x"), header_of(document)) == info
    state = dataclasses.replace(STATE, model=dataclasses.replace(info, kind="state"))
    assert state.to_document()["version"] == 5
    assert state_info(Path("x"), header_of(state.to_document())) == state
    for skips, version in ((False, 4), (True, 5)):
        generator = dataclasses.replace(generator, norms="residual", skips=skips)
        info = dataclasses.replace(info, generator=generator)
        document = info.to_document()
        assert (document["version"], document["generator"]["norms"]) == (version, "residual")
        assert document["generator"].get("skips", False) is skips
        assert model_info(Path("x"), header_of(document)) == info


@pytest.mark.parametrize("version", [1, 2, 3])
def test_state_without_the_option_resumes_as_strided(version: int) -> None:
    document = STATE.to_document() | {"version": version, "config": {}}
    config = state_info(Path("x"), header_of(document)).train_config()
    assert (config.resampling, config.norms, config.lambda_color) == ("strided", "all", 0)
    assert config.generator.skips is False


@pytest.mark.parametrize("document", [{}, {"format": "pt"}, {"format": None}, {"format": ["x"]}])
def test_file_of_another_program_is_refused(document):
    with pytest.raises(CheckpointError, match="x is .* but not a checkpoint of cyclegan"):
        model_info(Path("x"), header_of(document))


@pytest.mark.parametrize("version", [NEWEST_VERSION + 1, 10**6, 0, -1, True, "1", None, 1.0, [1]])
def test_unknown_format_version_is_refused(version):
    with pytest.raises(CheckpointError, match="x has format version") as refusal:
        model_info(Path("x"), header_of(MODEL.to_document() | {"version": version}))
    assert "newer version" in refusal.value.hint


def test_model_is_refused_as_a_state_with_a_hint():
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
    (("kind",), "picture"),
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
    (("generator", "resampling"), "bicubic"),
    (("generator", "resampling"), True),
    (("generator", "resampling"), ["blur"]),
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
    (("state", "seconds"), 10**400),
    (("state", "seconds"), float("nan")),
    (("state", "seconds"), float("inf")),
    (("state", "seconds"), -1.0),
    (("state", "pictures"), 5),
]


def place_and_value(parameter: Any) -> str:
    return ".".join(parameter) if isinstance(parameter, tuple) else repr(parameter)


@pytest.mark.parametrize(
    ("place", "value"), [*((place, None) for place in REQUIRED), *UNFIT], ids=place_and_value
)
def test_damaged_model_document_is_refused(place, value):
    document = changed(MODEL.to_document(), place, value)
    with pytest.raises(CheckpointError, match="^x has a damaged description of its model$"):
        model_info(Path("x"), header_of(document))


@pytest.mark.parametrize(
    ("place", "value"),
    [*((place, None) for place in REQUIRED_OF_A_STATE), *UNFIT_IN_A_STATE],
    ids=place_and_value,
)
def test_damaged_state_document_is_refused(place, value):
    document = changed(STATE.to_document(), place, value)
    with pytest.raises(CheckpointError, match="^x has a damaged description of its state$"):
        state_info(Path("x"), header_of(document))


# --- directions ------------------------------------------------------------------------------


def test_directions_have_source_and_target_domains():
    assert (MODEL.target("a2b"), MODEL.target("b2a")) == ("night", "día")
    assert (MODEL.direction_to("night"), MODEL.direction_to("día")) == ("a2b", "b2a")


@pytest.mark.parametrize(("held", "missing"), [("a2b", "b2a"), ("b2a", "a2b")])
def test_missing_direction_is_refused(held, missing):
    info = dataclasses.replace(MODEL, directions=(held,))
    assert info.require(held) == held
    with pytest.raises(CheckpointError, match=rf"\({held}\) only, not .* \({missing}\)"):
        info.require(missing)


@pytest.mark.parametrize("name", ["", "Night", "noon"])
def test_unknown_domain_is_refused(name):
    with pytest.raises(UsageError, match=f"--to {name}: .*'día' and 'night'"):
        MODEL.direction_to(name)
