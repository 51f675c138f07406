"""Choice of the precision."""

import pytest
import torch

from cyclegan_cli.models.networks import ResnetGenerator
from cyclegan_cli.runtime.devices import CPU_FEATURES_VARIABLE
from cyclegan_cli.translation.precision import build_strip_generator
from generators import generator

pytestmark = pytest.mark.cpu_features

CPU = torch.device("cpu")


@pytest.fixture
def native(monkeypatch):
    monkeypatch.setenv(CPU_FEATURES_VARIABLE, "avx512_bf16")


def tame(network: ResnetGenerator) -> ResnetGenerator:
    """One whose output is small, as is its error."""
    network.head.weight.mul_(0.01)
    return network


@pytest.mark.usefixtures("native")
def test_auto_is_bf16_if_probe_reaches_psnr():
    settled, sentence = build_strip_generator(tame(generator(4, 1)), "auto", CPU)
    assert settled.generator.head.weight.dtype == torch.bfloat16
    assert sentence.startswith("precision: bf16 (a probe image has a PSNR of ")


@pytest.mark.usefixtures("native")
def test_auto_is_fp32_if_probe_misses_psnr():
    network = generator(4, 2)
    network.head.weight.mul_(20)
    settled, sentence = build_strip_generator(network, "auto", CPU)
    assert settled.generator is network
    assert settled.generator.head.weight.dtype == torch.float32
    assert sentence.startswith("precision: fp32 (in bf16, a probe image has a PSNR of ")


@pytest.mark.usefixtures("native")
def test_non_finite_weights_miss_psnr():
    network = generator(4, 1)
    network.head.weight.fill_(torch.nan)
    assert build_strip_generator(network, "auto", CPU)[0].generator is network


def test_auto_is_fp32_without_native_bf16(monkeypatch):
    monkeypatch.setenv(CPU_FEATURES_VARIABLE, "")
    settled, sentence = build_strip_generator(tame(generator(4, 1)), "auto", CPU)
    assert (settled.generator.head.weight.dtype, sentence) == (torch.float32, "")


def test_bf16_uses_winograd_only_if_probe_reaches_psnr(each_cpu):
    near, _ = build_strip_generator(tame(generator(16, 1)), "bf16", CPU)
    assert near.is_winograd is (each_cpu != "amx")
    far = generator(16, 1)
    far.head.weight.mul_(20)
    settled, _ = build_strip_generator(far, "bf16", CPU)
    assert not settled.is_winograd
    assert settled.generator.head.weight.dtype == torch.bfloat16


@pytest.mark.usefixtures("fp32_settings")
def test_tf32_enables_tf32(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    settled, sentence = build_strip_generator(generator(4, 2), "tf32", torch.device("cuda"))
    assert (settled.generator.head.weight.dtype, sentence) == (torch.float32, "")
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32


def test_explicit_precision_is_used():
    assert (
        build_strip_generator(generator(4, 2), "fp32", CPU)[0].generator.head.weight.dtype
        == torch.float32
    )
    settled, sentence = build_strip_generator(generator(4, 2), "bf16", CPU)
    assert (settled.generator.head.weight.dtype, sentence) == (torch.bfloat16, "")
