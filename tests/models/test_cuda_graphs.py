"""Steps as CUDA graphs equal steps without; on a machine with a GPU that tests may use."""

import math

import pytest
import torch

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.models.cuda_graphs import CUDAGraphFunction
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.runtime.devices import set_fp32_precision

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: set CUDA_VISIBLE_DEVICES to run this"
)

SIZE = 64
OPTIONS = [
    {},
    {"norms": "all", "resampling": "strided", "lambda_identity": 0.5, "lambda_color": 0.0},
    {"discriminator_scales": 2, "batch_size": 2, "resampling": "cut", "pool_size": 0},
    {"gan_loss": "vanilla", "ema": 0.0},
]


def build(**options) -> CycleGAN:
    config = TrainConfig(
        load_size=SIZE, crop_size=SIZE, base_channels=4, discriminator_channels=4,
        residual_blocks=2, **{"pool_size": 3, **options},
    )  # fmt: skip
    set_fp32_precision("fp32")
    return CycleGAN(config, torch.device("cuda"), bf16=False)


def batches(count, batch_size=1, channels=3):
    random = torch.Generator().manual_seed(count)
    images = torch.rand((count, 2, batch_size, channels, SIZE, SIZE), generator=random) * 2 - 1
    return images.cuda()


@pytest.fixture(autouse=True)
def deterministic():
    """The same kernels for both models."""
    cudnn = torch.backends.cudnn
    with cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
        yield


def assert_equal_training(plain, captured, images):
    for step, (real_a, real_b) in enumerate(images):
        found = []
        for model in (plain, captured):
            model.set_learning_rate(2e-4 / (1 + step))
            model.set_color_weight(3.0 / (1 + step))
            losses = model.step(real_a, real_b)
            found.append((losses.stacked(), torch.tensor(losses.gradient_norms)))
        # Those of later steps depend on all updates before.
        torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_captured_steps_equal_others(options):
    plain, captured = build(**options), build(**options)
    images = batches(6, plain.config.batch_size)
    for model in (plain, captured):
        model.match_colors(images[:2].cpu())
    captured.capture_graphs(*batches(1, plain.config.batch_size)[0])
    for name, network in captured.networks().items():  # Capturing does not train.
        for key, weight in network.state_dict().items():
            assert torch.equal(weight, plain.networks()[name].state_dict()[key])
    assert_equal_training(plain, captured, images)


def test_masks_and_missing_data_change_from_step_to_step():
    plain, captured = build(), build()
    images = batches(4, channels=4)
    images[:, :, :, :3, :5] = math.nan  # The masks are noise.
    for model in (plain, captured):
        model.may_lack_data = (True, True)
    captured.capture_graphs(*batches(1, channels=4)[0])
    assert_equal_training(plain, captured, images)


def test_losses_of_a_step_outlive_the_next_one():
    model = build()
    images = batches(2)
    model.capture_graphs(*images[0])
    first = model.step(*images[0])
    before = first.stacked().clone()
    model.step(*images[1])
    assert torch.equal(first.stacked(), before)


def test_step_without_finite_gradients_is_skipped():
    model = build()
    images = batches(2)
    model.capture_graphs(*images[0])
    model.step(*images[0])
    weights = [one.clone() for one in model.generator_a2b.parameters()]
    broken = images[1].clone()
    broken[0, 0, 0, 0, 0] = math.nan
    assert not model.step(*broken).is_applied
    assert all(map(torch.equal, weights, model.generator_a2b.parameters()))
    assert model.step(*images[1]).is_applied


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 3, SIZE, SIZE)])
def test_another_shape_is_refused(shape):
    model = build(batch_size=2)
    model.capture_graphs(*batches(1, 2)[0])
    with pytest.raises(ValueError, match="captured for"):
        model.step(*torch.zeros(2, *shape, device="cuda"))


def test_failed_capture_leaves_the_stream():
    before = torch.cuda.current_stream()
    images = batches(1)[0]
    with pytest.raises(RuntimeError, match="captur"):
        CUDAGraphFunction(lambda real: real * real.sum().item(), (images[0],))
    assert torch.cuda.current_stream() == before
