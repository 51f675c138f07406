"""The moving average of the generators' weights, against numbers computed by hand."""

import pytest
import torch

from cyclegan_cli.config import GeneratorConfig
from cyclegan_cli.models.ema import GeneratorAverages
from cyclegan_cli.models.networks import ResnetGenerator


def constant_generator(value: float) -> ResnetGenerator:
    generator = ResnetGenerator(GeneratorConfig(1, 1))
    set_weights(generator, value)
    return generator


def set_weights(generator: ResnetGenerator, value: float) -> None:
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.fill_(value)


def weights(averages: GeneratorAverages) -> set[float]:
    found = averages.generators["a"].parameters()
    return {round(value, 6) for parameter in found for value in parameter.flatten().tolist()}


def test_ema_follows_the_formula():
    trained = constant_generator(5.0)
    averages = GeneratorAverages({"a": trained}, 0.15)
    assert weights(averages) == {5.0}
    set_weights(trained, 1.0)
    averages.update(1)  # Decay 1/10: 0.1 · 5 + 0.9 · 1.
    assert weights(averages) == {1.4}
    averages.update(2)  # 2/11 would be more than 0.15: 0.15 · 1.4 + 0.85 · 1.
    assert weights(averages) == {1.06}


def test_ema_warm_up_forgets_the_initialization():
    """With the full decay from the start, 0.37 of them would still be there after 1000 steps."""
    trained = constant_generator(100.0)
    averages = GeneratorAverages({"a": trained}, 0.999)
    set_weights(trained, 0.0)
    for step in range(1, 1001):
        averages.update(step)
    assert max(weights(averages)) < 1e-6


def test_ema_generators_share_no_parameters():
    trained = constant_generator(1.0)
    averages = GeneratorAverages({"a": trained}, 0.9)
    set_weights(trained, 2.0)
    assert weights(averages) == {1.0}
    assert not any(p.requires_grad for p in averages.generators["a"].parameters())
    averages.restart()
    assert weights(averages) == {2.0}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_ema_keeps_the_memory_format(memory_format):
    trained = ResnetGenerator(GeneratorConfig(2, 1)).to(memory_format=memory_format)
    averages = GeneratorAverages({"a": trained}, 0.9)
    averages.update(1)
    assert (
        averages.generators["a"].trunk[0].second.weight.is_contiguous(memory_format=memory_format)
    )
