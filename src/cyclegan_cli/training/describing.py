"""What a run's files say of it."""

from __future__ import annotations

from typing import Any

from cyclegan_cli.checkpoints.header import ModelInfo, StateInfo
from cyclegan_cli.checkpoints.store import library_versions
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training.plan import Plan


def state_info(
    plan: Plan, model: CycleGAN, step: int, seconds: float, watch: dict[str, Any]
) -> StateInfo:
    """The description of a run after ``step`` steps.

    Args:
        plan: What is done.
        model: What it is done to.
        step: Steps done.
        seconds: Trained so far.
        watch: What the measurements remember.
    """
    config = plan.config
    facts = {
        "step": step,
        "epoch": round(plan.epoch_of(step), 4),
        "crop_size": config.crop_size,
        "load_size": config.load_size,
        "gan_loss": config.gan_loss,
        "lambda_cycle": config.lambda_cycle,
        "lambda_identity": config.lambda_identity,
        "ema": config.ema,
        "pictures_a": len(plan.images_a),
        "pictures_b": len(plan.images_b),
    }
    generator = model.generator_a2b.config
    items = plan.items_of(step)
    described = ModelInfo("state", generator, plan.name_a, plan.name_b, facts, library_versions())
    return StateInfo(
        model=described,
        discriminator=model.discriminator_a.config,
        config=config.to_document(),
        step=step,
        seconds=seconds,
        images=plan.images_digest,
        watch=watch,
        items=items if items != step * config.batch_size else None,
        ranks=plan.env.world_size,
    )
