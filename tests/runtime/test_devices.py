"""Choosing a device and a number format, and torch's memory errors in our words."""

import pytest
import torch

from cyclegan_cli.errors import DeviceError, UsageError
from cyclegan_cli.runtime.devices import (
    CPU_FEATURES_VARIABLE,
    choose_device,
    choose_precision,
    has_amx,
    has_native_bf16,
    set_fp32_precision,
)

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch):
    """As if there were no accelerator and nothing were forced, wherever the tests run."""
    monkeypatch.delenv(CPU_FEATURES_VARIABLE, raising=False)
    have_cuda(monkeypatch, 0)
    have_mps(monkeypatch, False)


def have_cuda(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def have_mps(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: available)


def have_cpu_features(monkeypatch: pytest.MonkeyPatch, *features: str) -> None:
    found = dict.fromkeys(features, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)


# Devices


@pytest.mark.parametrize(
    ("name", "mps", "gpus", "expected"),
    [
        ("auto", False, 0, "cpu"),
        ("auto", True, 0, "mps"),
        ("auto", True, 1, "cuda"),
        ("cpu", False, 1, "cpu"),
        ("cuda", False, 2, "cuda"),
        ("cuda:1", False, 2, "cuda:1"),
    ],
)
def test_device_by_name_and_auto(monkeypatch, name, mps, gpus, expected):
    have_mps(monkeypatch, mps)
    have_cuda(monkeypatch, gpus)
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    "name", ["", "gpu", "CPU", "0", "cuda:", "cuda:x", "cuda:-1", "cuda:01", "meta", "xpu", "é"]
)
def test_invalid_device_name_is_a_usage_error(name):
    with pytest.raises(UsageError, match="--device") as caught:
        choose_device(name)
    assert repr(name) in caught.value.message


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3", "mps"])
def test_missing_device_is_a_device_error(name):
    with pytest.raises(DeviceError, match=f"--device {name}: ") as caught:
        choose_device(name)
    assert caught.value.exit_code == 5
    assert "cpu" in caught.value.hint


@pytest.mark.parametrize("name", ["cuda:2", "cuda:256"])
def test_cuda_index_out_of_range_is_refused(monkeypatch, name):
    have_cuda(monkeypatch, 2)
    with pytest.raises((DeviceError, UsageError), match="found"):
        choose_device(name)


# Number formats


@pytest.mark.parametrize("choice", ["fp32", "bf16"])
@pytest.mark.parametrize("device", [CPU, CUDA, torch.device("mps")], ids=str)
def test_explicit_precision_is_kept(choice, device):
    assert choose_precision(choice, device) == choice


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0)])
def test_tf32_on_ampere(monkeypatch, capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("tf32", CUDA) == "tf32"


def test_tf32_without_support_is_a_device_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for device, found in ((CPU, "cpu"), (CUDA, "cuda of capability 7.5")):
        with pytest.raises(DeviceError, match=f"--precision tf32 needs .*, found {found}$"):
            choose_precision("tf32", device)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "auto", "tf32"])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.usefixtures("fp32_settings")
def test_only_tf32_enables_tf32(precision, before):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = before
    set_fp32_precision(precision)
    expected = precision == "tf32"
    assert torch.backends.cudnn.allow_tf32 is expected
    assert torch.backends.cuda.matmul.allow_tf32 is expected


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_precision_on_cuda(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", CUDA) == expected


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16"])
def test_auto_precision_on_cpu_with_native_bf16(monkeypatch, feature):
    have_cpu_features(monkeypatch, feature)
    assert choose_precision("auto", CPU) == "bf16"


def test_auto_precision_on_cpu_without_native_bf16(monkeypatch):
    have_cpu_features(monkeypatch, "avx2", "avx512_f")
    assert choose_precision("auto", CPU) == "fp32"


@pytest.mark.parametrize(
    ("forced", "native", "amx"),
    [("", False, False), ("avx2", False, False), ("avx512_bf16", True, False),
     ("avx2,amx_bf16", True, True)],
)  # fmt: skip
@pytest.mark.parametrize("real", [(), ("avx512_bf16", "amx_bf16")])
def test_environment_variable_overrides_cpu_features(monkeypatch, forced, native, amx, real):
    have_cpu_features(monkeypatch, *real)
    monkeypatch.setenv(CPU_FEATURES_VARIABLE, forced)
    assert (has_native_bf16(CPU), has_amx()) == (native, amx)


@pytest.mark.parametrize("supported", ["_is_avx512_bf16_supported", "_is_amx_tile_supported", ""])
def test_cpu_features_of_older_torch(monkeypatch, supported):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        answer = name == supported
        monkeypatch.setattr(torch.cpu, name, lambda answer=answer: answer, raising=False)
    assert has_native_bf16(CPU) == bool(supported)


def test_older_torch_without_feature_detection_gives_fp32(monkeypatch):
    for name in ("get_capabilities", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert choose_precision("auto", CPU) == "fp32"


def test_cpu_features_of_this_machine():
    assert choose_precision("auto", CPU) in ("fp32", "bf16")


# Memory
