"""The options: their rules, their schedule, and their way to a document and back."""

import dataclasses
import json
import math
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cyclegan_cli.config import (
    StepsOrTime,
    TrainConfig,
    layered,
    option_name,
    plain_type,
    typed_values,
)
from cyclegan_cli.errors import UsageError

# No deadlines: other work may run on the same cores.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

FIELDS = dataclasses.fields(TrainConfig)
BOUNDS = [
    pytest.param(field.name, bound, field.metadata[bound], id=f"{field.name}-{bound}")
    for field in FIELDS
    for bound in ("minimum", "maximum")
    if field.metadata[bound] is not None
]
# What else has to be set for a field to take the value at its bound.
COMPANIONS: dict[str, dict[str, Any]] = {
    "load_size": {"crop_size": 32},
    "crop_size": {"load_size": 8192},
    "decay_steps": {"steps": 1_000_000_000},
    "mask_weight": {"mask_a": Path("a"), "mask_b": Path("b")},
}


def rates(config: TrainConfig, epoch_items: int) -> list[float]:
    """The learning rates of all steps of a run."""
    return [
        config.learning_rate_at(
            step, config.total_steps(epoch_items), config.num_decay_steps(epoch_items)
        )
        for step in range(config.total_steps(epoch_items))
    ]


# Length and learning rate


@pytest.mark.parametrize(
    ("options", "epoch_items", "steps"),
    [
        ({}, 1000, 200_000),
        ({"epochs": 1, "decay_epochs": 1, "batch_size": 4}, 5, 3),
        ({"steps": 7, "epochs": 50, "batch_size": 3}, 1000, 7),
        ({"epochs": 0, "decay_epochs": 0, "steps": 5}, 1000, 5),
    ],
)
def test_total_steps_follow_epochs_or_steps(options, epoch_items, steps):
    assert TrainConfig(**options).total_steps(epoch_items) == steps


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 2, "decay_epochs": 2}, [7, 7, 7, 7, 7, 7, 6, 5, 4, 3, 2, 1]),
        ({"epochs": 2, "decay_epochs": 2, "batch_size": 2}, [4, 4, 4, 3, 2, 1]),
        ({"steps": 7, "decay_steps": 4}, [5, 5, 5, 4, 3, 2, 1]),
        ({"steps": 7}, [4, 4, 4, 4, 3, 2, 1]),  # The last half decays by default.
        ({"epochs": 2, "decay_epochs": 0}, [0.5] * 6),
        ({"steps": 6, "decay_steps": 0}, [0.5] * 6),
        ({"epochs": 0, "decay_epochs": 1}, [3, 2, 1]),
        ({"steps": 3, "decay_steps": 3}, [3, 2, 1]),
    ],
)
def test_learning_rate_is_constant_then_decays_linearly(options, expected):
    decays_only = expected == [3, 2, 1]
    config = TrainConfig(**options, learning_rate=4 if decays_only else expected[0])
    assert rates(config, 3) == pytest.approx(expected)
    assert config.learning_rate_at(10, 10, 5) == 0


def test_domains_of_different_channels_have_no_color_loss():
    assert TrainConfig(lambda_cycle=4, lambda_color=0.5).color_weight == 2
    assert TrainConfig(channels_a=3, channels_b=1).color_weight == 0


@unhurried
@given(
    epochs=st.integers(0, 5),
    decay_epochs=st.integers(1, 5),
    epoch_items=st.integers(1, 20),
    batch_size=st.integers(1, 7),
)
def test_learning_rate_decreases_and_stays_positive(epochs, decay_epochs, epoch_items, batch_size):
    config = TrainConfig(epochs=epochs, decay_epochs=decay_epochs, batch_size=batch_size)
    found = rates(config, epoch_items)
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0
    constant = epochs * epoch_items // batch_size
    assert found[:constant] == [config.learning_rate] * constant


# Residual blocks


@pytest.mark.parametrize(("crop_size", "blocks"), [(32, 6), (128, 6), (132, 9), (256, 9)])
def test_residual_blocks_depend_on_the_crop_size_unless_given(crop_size, blocks):
    assert TrainConfig(crop_size=crop_size).generator_blocks == blocks
    assert TrainConfig(crop_size=crop_size, residual_blocks=3).generator_blocks == 3


# Refusals


@pytest.mark.parametrize(("name", "bound", "limit"), BOUNDS)
def test_out_of_bounds_value_is_rejected(name, bound, limit):
    past = math.nextafter(limit, -math.inf if bound == "minimum" else math.inf)
    if isinstance(limit, int):
        past = limit - 1 if bound == "minimum" else limit + 1
    word = "at least" if bound == "minimum" else "at most"
    with pytest.raises(UsageError, match=f"^{option_name(name)} must be {word} ") as caught:
        TrainConfig(**COMPANIONS.get(name, {}) | {name: past})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("name", "bound", "limit"), BOUNDS)
def test_value_at_its_bound_is_accepted(name, bound, limit):
    config = TrainConfig(**COMPANIONS.get(name, {}) | {name: limit})
    assert getattr(config, name) == limit


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("crop_size", 28), ("load_size", 31), ("batch_size", 0), ("steps", 0), ("epochs", -1),
        ("workers", -1), ("pool_size", -1), ("residual_blocks", 0), ("lambda_cycle", -0.1),
        ("learning_rate", 0.0), ("learning_rate", math.inf), ("beta1", 1.0), ("seed", -1),
        ("seed", 2**31), ("seed", 10**400), ("checkpoint_every", 0), ("log_every", 0),
        ("sample_every", -1), ("validate_every", -1), ("val_fraction", 0.6), ("ema", 1.0),
        ("ema", -0.1),
    ],
)  # fmt: skip
def test_invalid_value_is_rejected(name, value):
    with pytest.raises(UsageError, match=option_name(name)):
        TrainConfig(**{name: value})


def test_large_values_are_shown_in_full():
    with pytest.raises(UsageError, match="at most 1000000, found 1000001"):
        TrainConfig(epochs=1_000_001)


INTERVALS = ["checkpoint_every", "sample_every", "validate_every"]


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize("value", [500, "10m", "90s", "2h", "1h30m", "0.5h"])
def test_interval_in_documents_is_steps_or_duration(name, value):
    config = TrainConfig.from_document({name: value}, "run.toml")
    assert getattr(config, name) == value
    assert TrainConfig.from_document(config.to_document(), "run.toml") == config


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize(
    "value",
    ["", "m", "10", "1.5", "10x", "m10", "-10m", "0m", "1e3", "ten minutes", "٥m", "9" * 400],
)
def test_invalid_interval_is_rejected(name, value):
    sentence = f"^{option_name(name)} must be a number of steps like 500 or a duration like 10m"
    with pytest.raises(UsageError, match=sentence):
        TrainConfig(**{name: value})


def test_quoted_steps_are_steps():
    assert TrainConfig.from_document({"sample_every": "500"}, "run.toml").sample_every == 500
    with pytest.raises(UsageError, match="run.toml sets sample_every to 1.5, but it must be a num"):
        TrainConfig.from_document({"sample_every": 1.5}, "run.toml")


@pytest.mark.parametrize("name", ["lambda_cycle", "lambda_identity", "learning_rate", "beta1"])
def test_nan_is_rejected(name):
    with pytest.raises(UsageError, match=option_name(name)):
        TrainConfig(**{name: math.nan})


@pytest.mark.parametrize("name", ["resize_mode", "gan_loss", "precision"])
@pytest.mark.parametrize("value", ["other", "", "LSGAN", "fp"])
def test_unknown_choice_lists_the_choices(name, value):
    with pytest.raises(UsageError, match=f"^{option_name(name)} must be one of ") as caught:
        TrainConfig(**{name: value})
    default = getattr(TrainConfig(), name)
    assert default in caught.value.message
    assert repr(value) in caught.value.message


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"crop_size": 288, "load_size": 286}, ["--crop-size 288", "--load-size 286"]),
        ({"crop_size": 254}, ["--crop-size 254", "multiple of 4"]),
        ({"decay_steps": 5}, ["--decay-steps", "--steps"]),
        ({"steps": 5, "decay_steps": 6}, ["--decay-steps 6", "--steps 5"]),
        ({"epochs": 0, "decay_epochs": 0}, ["--epochs 0", "--decay-epochs 0"]),
    ],
)
def test_contradicting_options_are_rejected(options, named):
    with pytest.raises(UsageError) as caught:
        TrainConfig(**options)
    assert all(words in caught.value.message for words in named)
    assert caught.value.hint


@pytest.mark.parametrize("crop_size", [33, 34, 35, 254, 255])
def test_crop_size_hint_is_a_valid_size(crop_size):
    with pytest.raises(UsageError) as caught:
        TrainConfig(crop_size=crop_size)
    suggested = int(caught.value.hint.split()[1].rstrip(":"))
    assert TrainConfig(crop_size=suggested).crop_size == suggested
    assert crop_size - 4 < suggested < crop_size


# To a document and back


def values_of(field: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    """Any value that a field may have."""
    hint = typing.get_type_hints(TrainConfig)[field.name]
    wanted, low, high = plain_type(hint), field.metadata["minimum"], field.metadata["maximum"]
    if wanted is int:
        values: st.SearchStrategy[Any] = st.integers(low, high)
    elif wanted is float:
        values = st.floats(low, high)
    elif wanted == StepsOrTime:
        values = st.integers(low, high) | st.sampled_from(["10m", "90s", "1h30m"])
    elif typing.get_origin(wanted) is typing.Literal:
        values = st.sampled_from(typing.get_args(wanted))
    else:
        texts = st.text().filter(lambda text: "\0" not in text)
        values = {str: texts, bool: st.booleans(), Path: texts.map(Path)}[wanted]
    return values if wanted == hint else st.none() | values


@st.composite
def configurations(draw: st.DrawFn) -> TrainConfig:
    """Any configuration: all fields drawn by themselves, then the contradictions resolved."""
    values = {field.name: draw(values_of(field)) for field in FIELDS}
    values["crop_size"] = min(values["crop_size"], values["load_size"]) // 4 * 4
    values["epochs"] = max(values["epochs"], 1)
    values["val_b"] = values["val_a"] and Path("held out")
    values["mask_b"] = values["mask_a"] and Path("masks")
    if values["mask_a"] is None:
        values["mask_weight"] = TrainConfig.mask_weight
    if values["steps"] is None:
        values["decay_steps"] = None
    elif values["decay_steps"] is not None:
        values["decay_steps"] %= values["steps"] + 1
    if values["norms"] == "all":
        values["skips"] = None
    if values["crop_size"] < 128:
        values["discriminator_scales"] = 1
    values["nodata"] = draw(st.none() | st.floats(allow_nan=False, allow_infinity=False))
    values["show_bands"] = draw(st.sampled_from([None, "2", "4,3,2"]))
    for domain in "ab":
        values[f"range_{domain}"] = draw(st.sampled_from([None, "auto", "per-channel", "-1.5,3"]))
        values[f"bands_{domain}"] = draw(st.sampled_from([None, "4,3,2", "1"]))
        if values[f"bands_{domain}"]:
            values[f"channels_{domain}"] = None
    return TrainConfig(**values)


def test_skips_follow_the_norms_unless_they_are_given():
    for norms, skips, expected in (
        (None, None, True), ("residual", None, True), ("all", None, False),
        ("residual", False, False), ("all", False, False),
    ):  # fmt: skip
        assert TrainConfig(norms=norms, skips=skips).generator.skips is expected
    with pytest.raises(UsageError, match="--skips requires --norms residual, found --norms all"):
        TrainConfig(norms="all", skips=True)


@unhurried
@given(configurations())
@pytest.mark.slow
def test_config_round_trip_through_json_and_toml(config):
    for document in (
        json.loads(json.dumps(config.to_document())),
        tomllib.loads(tomli_w.dumps(config.to_document())),
    ):
        assert TrainConfig.from_document(document, "the file") == config


def test_document_omits_unset_options():
    document = TrainConfig(domain_a=Path("day"), steps=5).to_document()
    assert document["domain_a"] == "day"
    assert document["steps"] == 5
    assert "domain_b" not in document
    assert "decay_steps" not in document


def test_empty_document_gives_the_defaults():
    assert TrainConfig.from_document({}, "the file") == TrainConfig()


def test_integer_is_accepted_for_float():
    value = TrainConfig.from_document({"lambda_cycle": 5}, "the file").lambda_cycle
    assert (value, type(value)) == (5.0, float)


def test_unknown_name_names_the_source():
    with pytest.raises(UsageError, match=r"^run/config\.toml sets 'crop-size'"):
        TrainConfig.from_document({"crop-size": 256}, "run/config.toml")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("crop_size", "256", "a whole number"),
        ("crop_size", 256.0, "a whole number"),
        ("crop_size", True, "a whole number"),
        ("steps", [1], "a whole number"),
        ("lambda_cycle", "10", "a number"),
        ("lambda_cycle", True, "a number"),
        ("flip", 1, "true or false"),
        ("flip", "yes", "true or false"),
        ("gan_loss", 1, "a text"),
        ("name_a", {}, "a text"),
        ("device", False, "a text"),
        ("domain_a", 7, "a path"),
        ("run_dir", ["runs"], "a path"),
        ("seed", None, "a whole number"),
    ],
)
def test_wrong_type_is_rejected(name, value, kind):
    with pytest.raises(UsageError) as caught:
        typed_values({name: value}, "the file")
    assert caught.value.message == f"the file sets {name} to {value!r}, but it must be {kind}"


def test_out_of_bounds_document_is_rejected():
    with pytest.raises(UsageError, match="--gan-loss must be one of lsgan, vanilla"):
        TrainConfig.from_document({"gan_loss": "wgan"}, "the file")


# What help is made of


def test_every_option_has_help_and_a_panel():
    for field in FIELDS:
        sentence = field.metadata["help"]
        assert sentence[0].isupper(), field.name
        assert sentence.endswith("."), field.name
        assert field.metadata["panel"], field.name


def test_derived_defaults_are_described():
    derived = {field.name for field in FIELDS if field.default is None}
    derived -= {"domain_a", "domain_b", "mask_a", "mask_b"}
    assert derived == {field.name for field in FIELDS if field.metadata["shown_default"]}


@pytest.mark.parametrize("name", ["run_dir", "name_a"])
def test_nul_character_is_rejected(name):
    with pytest.raises(UsageError, match=f"sets {name} to a text with a NUL character"):
        TrainConfig.from_document({name: "a\0b"}, "the file")


def test_given_epochs_override_steps_of_the_base():
    base = {"steps": 5, "decay_steps": 2, "epochs": 1, "seed": 3}
    assert layered(base, {"epochs": 7}) == {"epochs": 7, "seed": 3}
    assert layered(base, {"decay_epochs": 7})["decay_epochs"] == 7
    assert layered(base, {"seed": 4}) == base | {"seed": 4}
    assert layered(base, {"steps": 6, "epochs": 2}) == base | {"steps": 6, "epochs": 2}
