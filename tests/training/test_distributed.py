"""Several processes that train one model, on the CPU with gloo."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cyclegan_cli.config import TrainConfig
from cyclegan_cli.runtime.distributed_env import DistributedEnv
from cyclegan_cli.training.plan import Plan, plan_new, plan_restarted, plan_resumed
from cyclegan_cli.training.trainer import train
from together import agree, learn_by_adam, learn_by_sgd, together, train_by_own_clock
from trainings import free_port

SMALL = TrainConfig(
    crop_size=32, load_size=32, base_channels=4, residual_blocks=2, discriminator_channels=4,
    pool_size=0,
)  # fmt: skip


@pytest.mark.parametrize("lambda_identity", [0.5, 0.0])
@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch_size(tmp_path, lambda_identity):
    # Without a replay pool: two small pools would hand out other images than a large one.
    config = TrainConfig(**{**vars(SMALL), "lambda_identity": lambda_identity})
    gradients, weights = learn_by_sgd(0, config, 1, 8)
    for found_gradients, found_weights in together(learn_by_sgd, tmp_path, 2, config, 2, 8):
        for network in ("generator_a2b", "generator_b2a", "discriminator_a", "discriminator_b"):
            expected, found = (whole(found, network) for found in (gradients, found_gradients))
            assert float((found - expected).norm()) <= 1e-12 * float(expected.norm())
            expected, found = (whole(found, network) for found in (weights, found_weights))
            assert float((found - expected).abs().max()) <= 1e-12


def whole(tensors: dict[str, Tensor], network: str) -> Tensor:
    """All of a network's numbers: ``[n]``."""
    return torch.cat(
        [tensor.flatten() for name, tensor in tensors.items() if name.startswith(f"{network}.")]
    )


@pytest.mark.slow
def test_ranks_have_identical_weights_after_20_steps(tmp_path):
    config = TrainConfig(**{**vars(SMALL), "pool_size": 4})
    first, second = together(learn_by_adam, tmp_path, 2, config, 20)
    assert first == second


@pytest.mark.slow
def test_collectives(tmp_path):
    first, second = together(agree, tmp_path, 2, 2, free_port())
    assert first["mean"] == second["mean"] == {"x": 0.5, "y": 2.0}
    assert first["highest"] == second["highest"] == [1, 5, 0]
    assert [one["mine"].tolist() for one in first["gathered"]] == [[0], [1, 1]]
    assert second["gathered"] == []
    assert first["of_first"] == second["of_first"] == Path("from-0")
    assert (first.get("worked"), second.get("worked")) == (True, None)
    assert (first["failed"], second["failed"]) == ("DataError", "CollectiveStopError")
    assert (first["left_by"], second["left_by"]) == ("DataError", "CollectiveStopError")


@pytest.mark.slow
def test_clock_of_rank_zero_decides(tmp_path, config):
    timed = TrainConfig(**{
        **vars(config), "steps": 50, "sample_every": "10m", "validate_every": "11m",
        "checkpoint_every": "12m", "val_fraction": 0.5,
    })  # fmt: skip
    first, _ = together(train_by_own_clock, tmp_path, 2, timed, 2, free_port())
    assert first == {"drawn": [20, 40, 50], "validated": [22, 44, 50]}


def of_two(rank: int, local: tuple[int, int] | None = None) -> DistributedEnv:
    return DistributedEnv(rank, 2, *(local or (rank, 2)))


def test_steps_and_epochs_with_several_ranks(config):
    by_epochs = TrainConfig(**{**vars(config), "steps": None, "epochs": 3, "decay_epochs": 1})
    alone, one, other = (
        plan_new(by_epochs, rank) for rank in (DistributedEnv(), of_two(0), of_two(1))
    )
    assert (alone.total_steps, one.total_steps, other.total_steps) == (20, 10, 10)
    assert (alone.constant_steps, one.constant_steps) == (15, 7)
    assert one.epoch_of(10) == alone.epoch_of(20) == 4
    assert one.learning_rate_at(9) == pytest.approx(config.learning_rate / 4)
    assert plan_new(config, of_two(1)).total_steps == config.steps


def trained(config: TrainConfig) -> Plan:
    plan = plan_new(config)
    train(plan)
    return plan


def test_resume_with_other_number_of_ranks(config):
    by_epochs = TrainConfig(**{**vars(config), "steps": None, "epochs": 1, "decay_epochs": 0})
    run = trained(by_epochs).run_dir
    two = plan_resumed(run, {"epochs": 3}, of_two(0))
    assert (two.first_step, two.first_item, two.step_items) == (5, 5, 2)
    assert two.total_steps == 5 + 5
    assert two.epoch_of(two.total_steps) == 3
    [sentence] = two.warnings
    assert "was saved by 1 processes and continues with 2" in sentence


def test_restart_resumes_only_run_with_same_options(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    unnamed = TrainConfig(**{**vars(config), "run_dir": None, "steps": 2})
    assert plan_restarted(unnamed, DistributedEnv()).resumed is None
    first, second = trained(unnamed).run_dir, trained(unnamed).run_dir
    assert (first.name, second.name) == ("day2night", "day2night-2")
    found = plan_restarted(TrainConfig(**{**vars(unnamed), "steps": 9}), DistributedEnv())
    assert (found.resumed, found.run_dir.name) == (None, "day2night-3")
    assert plan_restarted(unnamed, DistributedEnv()).is_complete
