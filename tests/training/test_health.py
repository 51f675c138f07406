"""Each verdict is provoked by a training that is really broken; a healthy one raises none."""

import csv
import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from cyclegan_cli.config import TrainConfig, TranslateConfig, option_name
from cyclegan_cli.errors import DivergedError, InterruptedRunError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training import domain_gap
from cyclegan_cli.training.callbacks import health
from cyclegan_cli.training.callbacks.base import TrainingCallback
from cyclegan_cli.training.callbacks.health import HealthMonitor
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import train
from cyclegan_cli.training.validation import ValidationBatch
from documents import ROOT
from runs import Recorder, draw_blocks, draw_discs, make_config, stop_after, train_until


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of tiny tensors only wait for each other when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def configure(a: Path, b: Path, **changes: Any) -> TrainConfig:
    options = {
        "domain_a": a, "domain_b": b, "run_dir": a.parent / "run", "base_channels": 8,
        "discriminator_channels": 4, "learning_rate": 1e-3, "pool_size": 50, "log_every": 25,
        "sample_every": 0, "validate_every": 50, "val_fraction": 0.0, "resampling": "strided",
    }  # fmt: skip
    return make_config(a.parent, **options | changes)


def blocks(tmp_path: Path, **changes: Any) -> TrainConfig:
    return configure(draw_blocks(tmp_path / "a", 0), draw_blocks(tmp_path / "b", 1), **changes)


def health_document(config: TrainConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((config.run_dir / "health.json").read_text())
    return found


def kinds(config: TrainConfig) -> set[str]:
    return {verdict["kind"] for verdict in health_document(config)["verdicts"]}


def column(config: TrainConfig) -> list[str]:
    with (config.run_dir / "metrics.csv").open(newline="") as stream:
        return [row["health"] for row in csv.DictReader(stream)]


@pytest.mark.slow
def test_healthy_run_has_no_verdicts(tmp_path):
    # Brighter than the ground in both domains: a negative is no solution.
    red = draw_discs(tmp_path / "red", 0, (220, 60, 40), (40, 40, 40))
    blue = draw_discs(tmp_path / "blue", 1, (60, 90, 220), (40, 40, 40))
    config = configure(red, blue, steps=250)
    recorder = Recorder()
    train(plan_new(config), [recorder])
    assert recorder.warnings == []
    assert health_document(config) == {"schema": 1, "step": 250, "verdicts": []}
    assert set(column(config)) == {"ok"}


@pytest.mark.slow
def test_discriminator_won_is_detected(tmp_path, monkeypatch):
    """The adversarial terms drown in the cycle's: white discs stay white."""
    monkeypatch.setattr(health, "WON_FOR_STEPS", 100)
    white = draw_discs(tmp_path / "white", 0, (220, 220, 220), (40, 40, 40))
    black = draw_discs(tmp_path / "black", 1, (40, 40, 40), (220, 220, 220))
    config = configure(white, black, steps=500, lambda_cycle=1000.0, base_channels=4)
    recorder = Recorder()
    train(plan_new(config), [recorder])
    assert "discriminator-won" in kinds(config)
    sentence = next(s for s in recorder.warnings if "has won" in s)
    assert "steps its loss has been below 0.01" in sentence
    assert "--lambda-cycle" in sentence
    assert column(config)[-1] == "discriminator-won"


def test_collapse_is_detected(tmp_path):
    """A rate of 0.5 throws the weights where every image becomes the same."""
    config = blocks(tmp_path, steps=30, learning_rate=0.5, validate_every=10, log_every=5)
    recorder = Recorder()
    train(plan_new(config), [recorder])
    assert "collapse" in kinds(config)
    assert any("its translations of different images are alike" in s for s in recorder.warnings)
    assert "collapse" not in column(config)[0]
    assert "collapse" in column(config)[-1]


@pytest.fixture
def negatives(monkeypatch):
    """Trainings whose first steps happened to lead both generators to negatives."""
    real = CycleGAN.__init__

    def unlucky(self, *arguments, **options):
        real(self, *arguments, **options)
        random = torch.Generator().manual_seed(0)
        for generator in self.generators().values():
            adam = torch.optim.Adam(generator.parameters(), 5e-3)
            for _ in range(150):
                levels = torch.randint(0, 2, (2, 1, 6, 6), generator=random) * 1.4 - 0.7
                x = levels.repeat_interleave(6, 2).repeat_interleave(6, 3)[..., :32, :32]
                x = x.expand(-1, 3, -1, -1)
                adam.zero_grad()
                (generator(x) + x).abs().mean().backward()
                adam.step()

    monkeypatch.setattr(CycleGAN, "__init__", unlucky)


@pytest.mark.usefixtures("negatives")
@pytest.mark.slow
def test_inversion_is_detected(tmp_path):
    """Translating by negatives satisfies every term but the color loss."""
    config = blocks(tmp_path, steps=100, lambda_identity=0.0, learning_rate=1e-4, ema=0.0)
    recorder = Recorder()
    train(plan_new(config), [recorder])
    assert kinds(config) == {"inversion"}
    assert health_document(config)["verdicts"][0]["step"] == 50
    assert any("produces negatives" in s and "--lambda-color" in s for s in recorder.warnings)


@pytest.mark.slow
def test_unchanged_images_are_detected(tmp_path):
    config = blocks(tmp_path, steps=500, lambda_identity=100.0, learning_rate=1e-3, ema=0.0)
    recorder = Recorder()
    train(plan_new(config), [recorder])
    assert kinds(config) == {"identity"}
    assert any("changes almost nothing" in s and "Lower --lambda" in s for s in recorder.warnings)


def test_non_finite_gradients_stop_run(tmp_path, monkeypatch):
    config = blocks(tmp_path, steps=40, checkpoint_every=10, log_every=5)
    recorder = Recorder()
    real = CycleGAN.__init__

    def poisoned(self, *arguments, **options):
        real(self, *arguments, **options)
        self.generator_a2b.head.weight.register_hook(
            lambda gradient: gradient * float("inf") if len(recorder.steps) >= 22 else gradient
        )

    monkeypatch.setattr(CycleGAN, "__init__", poisoned)
    with pytest.raises(DivergedError) as caught:
        train(plan_new(config), [recorder])
    assert "the gradients of 10 steps are not finite at step 32" in caught.value.message
    assert "the previous checkpoint is kept" in caught.value.message
    assert "--learning-rate 0.0005 --precision fp32" in caught.value.hint
    [verdict] = health_document(config)["verdicts"]
    assert (verdict["kind"], verdict["step"]) == ("non-finite", 32)
    assert verdict["advice"] == caught.value.hint
    assert plan_resumed(config.run_dir, {}).first_step == 30


def poison(monkeypatch: pytest.MonkeyPatch, factors: dict[int, float]) -> Recorder:
    """Multiply a gradient by a factor in some steps; returns the recorder that counts them."""
    recorder = Recorder()
    real = CycleGAN.__init__

    def poisoned(self: CycleGAN, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        self.generator_a2b.head.weight.register_hook(
            lambda gradient: gradient * factors.get(len(recorder.steps), 1.0)
        )

    monkeypatch.setattr(CycleGAN, "__init__", poisoned)
    return recorder


def test_non_finite_steps_are_skipped_counted_and_reported(tmp_path, monkeypatch):
    config = blocks(tmp_path, steps=30, log_every=10)
    recorder = poison(monkeypatch, {4: float("inf"), 12: float("nan"), 13: float("nan")})
    train(plan_new(config), [recorder])
    with (config.run_dir / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["skipped_steps"] for row in rows] == ["1", "2", "0"]
    assert [s for s in recorder.warnings if "the step is skipped; 2 steps so far" in s]
    assert len([s for s in recorder.warnings if "is skipped" in s]) == 1
    assert "3, gradients not finite" in (config.run_dir / "index.html").read_text()


def test_skipped_steps_are_resumed_exactly(tmp_path, monkeypatch):
    found = []
    for stop in (8, None):
        folder = tmp_path / str(stop)
        folder.mkdir()
        config = blocks(folder, steps=12, log_every=3)
        recorder = poison(monkeypatch, {4: float("inf"), 7: float("nan"), 9: float("nan")})
        if stop:
            with pytest.raises(InterruptedRunError):
                train(plan_new(config), [recorder], stop_after(recorder, stop))
            train(plan_resumed(config.run_dir, {}), [recorder])
        else:
            train(plan_new(config), [recorder])
        lines = (config.run_dir / "metrics.csv").read_text().splitlines()
        table = [line.split(",")[:14] for line in lines]
        found.append(((config.run_dir / "model.safetensors").read_bytes(), table))
        monkeypatch.undo()
    assert found[0][1] == found[1][1]
    assert (
        found[0][0][-2000:] == found[1][0][-2000:]
    )  # Weights only: the header has the training time.


def test_gradient_spike_verdict_appears_once_and_expires(tmp_path):
    watch = HealthMonitor(plan_new(blocks(tmp_path)), {})
    for row in range(1, 8):
        norms = {"generators": 50.0 + row, "discriminators": 2.0}
        assert watch.check_gradients(50 * row, norms) == health.Change([], [])
    norms = {"generators": 2e4, "discriminators": 9.0}
    [found] = watch.check_gradients(400, norms).found
    assert found.kind == "gradient-spike"
    assert "the generators jumped to a norm of 2e+04; 5" in found.sentence
    again = HealthMonitor(plan_new(blocks(tmp_path / "again")), watch.state_dict())
    norms = {"generators": 55.0, "discriminators": 2.0}
    assert again.check_gradients(450, norms) == health.Change([], [])
    assert again.summary == "gradient-spike"
    assert [v.kind for v in again.check_gradients(2500, norms).over] == ["gradient-spike"]


def test_large_initial_gradients_are_not_a_spike(tmp_path):
    watch = HealthMonitor(plan_new(blocks(tmp_path)), {})
    for step, norm in ((1, 1.0), (2, 500.0), (3, 2000.0)):
        assert watch.check_gradients(step, {"generators": norm}).found == []


def test_divergence_is_detected(tmp_path):
    config = blocks(tmp_path, steps=60, learning_rate=10.0, log_every=20)
    recorder = Recorder()
    train(plan_new(config), [recorder])
    assert "diverged" in kinds(config)
    assert any("has diverged" in s and "--learning-rate" in s for s in recorder.warnings)


def test_stalled_networks_get_a_verdict(tmp_path):
    config = blocks(tmp_path, steps=24, log_every=4)

    class FillMoments(TrainingCallback):
        def on_step_end(self, run, losses):
            if run.step == 3:
                for state in run.model.generator_optimizer.state.values():
                    state["exp_avg_sq"] += 1e12

    train(plan_new(config), [FillMoments()])
    [verdict] = health_document(config)["verdicts"]
    assert (verdict["kind"], verdict["step"]) == ("stall", 12)
    assert "the generators have stalled" in verdict["sentence"]


def test_low_learning_rate_is_not_a_stall(tmp_path):
    watch = HealthMonitor(plan_new(blocks(tmp_path, learning_rate=1e-3)), {})
    for step in range(1, 9):
        assert watch.check_updates(step, {"generators": 0.0}, rate=1e-6).found == []


# --- what is remembered, and what is over -------------------------------------------------------


def seen(negative: float) -> ValidationBatch:
    """Everything is kept as it is, or turned into its negative."""
    random = torch.Generator().manual_seed(0)
    real_a, real_b = torch.rand((2, 4, 3, 32, 32), generator=random) * 2 - 1
    fakes = {"fake_b": negative * real_a, "fake_a": negative * real_b}
    kept = {"idt_a": negative * real_a, "idt_b": negative * real_b}
    return ValidationBatch(real_a, real_b, rec_a=real_a, rec_b=real_b, **fakes, **kept)


def test_verdict_is_reported_once_and_resolved(tmp_path):
    watch = HealthMonitor(plan_new(blocks(tmp_path)), {})
    assert [v.kind for v in watch.check_translations(1, seen(-1)).found] == ["inversion"] * 2
    assert watch.summary == "inversion"
    assert watch.check_translations(2, seen(-1)).found == []
    assert [v.kind for v in watch.check_translations(3, seen(0.5)).over] == ["inversion"] * 2
    assert (watch.summary, watch.document(3)) == ("ok", {"schema": 1, "step": 3, "verdicts": []})


def test_darker_target_domain_is_not_an_inversion(tmp_path):
    """The identity pass of the darker domain keeps dark pixels dark."""
    inverted = seen(-1)
    night = ValidationBatch(**vars(inverted) | {"idt_b": inverted.real_b})
    found = HealthMonitor(plan_new(blocks(tmp_path)), {}).check_translations(1, night).found
    assert [v.sentence.split()[2] for v in found] == ["b"]


def test_health_monitor_state_round_trip(tmp_path):
    plan = plan_new(blocks(tmp_path))
    cycle = {"cycle_a": 0.2, "cycle_b": 0.2}
    means = cycle | {"discriminator_a": 0.001, "discriminator_b": 0.2}
    watch = HealthMonitor(plan, {})
    watch.check_losses(300, means, 300)
    watch.check_translations(300, seen(1))
    again = HealthMonitor(plan, json.loads(json.dumps(watch.state_dict())))
    assert [v.kind for v in again.check_losses(500, means, 200).found] == ["discriminator-won"]
    again.check_translations(600, seen(1))
    assert [v.kind for v in again.check_translations(700, seen(1)).found] == ["identity"] * 2
    last = HealthMonitor(plan, json.loads(json.dumps(again.state_dict())))
    assert last.summary == "discriminator-won identity"


def test_uniform_domains_have_no_verdicts(tmp_path):
    flat = torch.zeros(4, 3, 32, 32)
    found = HealthMonitor(plan_new(blocks(tmp_path)), {}).check_translations(
        1, ValidationBatch(flat, flat, flat, flat, flat, flat, flat, flat)
    )
    assert found.found == []


def settle(watch: HealthMonitor) -> None:
    """Losses that fall, and then no longer."""
    names = ("discriminator_a", "discriminator_b")
    for step, cycle in ((500, 0.3), (1000, 0.2), (1500, 0.19)):
        means = dict.fromkeys(names, 0.2) | {"cycle_a": cycle, "cycle_b": cycle}
        assert watch.check_losses(step, means, 500).found == []


def dotted(amplitude: float) -> ValidationBatch:
    """Smooth images; translations to B have columns of alternating brightness."""
    random = torch.Generator().manual_seed(0)
    small = torch.rand((8, 3, 4, 4), generator=random) - 0.5
    smooth = torch.nn.functional.interpolate(small, size=64, mode="bicubic")
    smooth = smooth + torch.randn(smooth.shape, generator=random) / 127.5
    a, b = smooth[:4], smooth[4:]
    dots = amplitude / 127.5 * torch.tensor([1.0, -1.0]).repeat(32)
    return ValidationBatch(
        a, b, fake_b=0.5 * a + dots, rec_a=a, fake_a=0.5 * b, rec_b=b, idt_a=a, idt_b=b
    )


def test_checkerboard_is_detected_after_losses_have_settled(tmp_path: Path) -> None:
    watch = HealthMonitor(plan_new(blocks(tmp_path)), {})
    for step in (100, 200, 300):
        assert watch.check_translations(step, dotted(4)).found == []
    settle(watch)
    assert watch.check_translations(1550, dotted(4)).found == []
    again = HealthMonitor(watch.plan, json.loads(json.dumps(watch.state_dict())))
    [verdict] = again.check_translations(1600, dotted(4)).found
    assert verdict.kind == "checkerboard"
    assert verdict.sentence.startswith("the translations a -> b have a checkerboard pattern")
    assert [v.kind for v in again.check_translations(1650, dotted(0)).over] == ["checkerboard"]


def test_checkerboard_verdict_has_hysteresis(tmp_path: Path, monkeypatch: Any) -> None:
    watch = HealthMonitor(plan_new(blocks(tmp_path)), {})
    settle(watch)
    ratios = iter([6.0, 1, 6, 1, 4, 1, 4, 1, 2, 1, 4, 1, 4, 1])
    monkeypatch.setattr(health, "pattern_ratio", lambda fake, real: next(ratios))
    found = []
    for step in range(2000, 2007):
        watch.check_translations(step, dotted(0))
        found.append(watch.summary)
    assert found == ["ok", *["checkerboard"] * 3, "ok", "ok", "ok"]


def test_checkerboard_is_detected_at_the_end_of_a_run(tmp_path: Path) -> None:
    """Even if the losses still fall; but not in a run of a few steps."""
    for steps, kinds_found in ((999, []), (1000, ["checkerboard"])):
        plan = plan_new(blocks(tmp_path / str(steps), steps=steps))
        watch = HealthMonitor(plan, {})
        found = watch.check_translations(steps, dotted(4)).found
        assert [v.kind for v in found] == kinds_found


def distances(step: int, a2b: float, b2a: float) -> dict[str, float]:
    return {"step": step, "swd_a2b": a2b, "swd_b2a": b2a}


def test_plateau_is_detected_in_both_directions_only(tmp_path: Path) -> None:
    plan = plan_new(blocks(tmp_path, steps=10_000))
    falling, flat = HealthMonitor(plan, {}), HealthMonitor(plan, {})
    random = torch.Generator().manual_seed(0)
    found = []
    for i in range(40):
        noise = 1 + 0.01 * float(torch.randn((), generator=random))
        falling.check_distances(distances(100 * i, 300 * noise, 300 - 5 * i))
        found += flat.check_distances(distances(100 * i, 300 * noise, 200)).found
    assert falling.summary == "ok"
    [verdict] = found
    assert verdict.kind == "plateau"
    assert "no longer falls: since step 1,0" in verdict.sentence
    assert "resume with fewer --steps" in verdict.advice
    over = [flat.check_distances(distances(100 * i, 500 - 5 * i, 200)).over for i in range(40, 90)]
    assert [v.kind for change in over for v in change] == ["plateau"]


@pytest.mark.slow
def test_plateau_is_the_same_in_a_resumed_run(tmp_path: Path) -> None:
    """A learning rate of almost 0: distances stay. A resumed run reads them from the table."""
    config = configure(
        draw_blocks(tmp_path / "a", 0), draw_blocks(tmp_path / "b", 1),
        steps=24, validate_every=1, val_fraction=0.2, learning_rate=1e-9, log_every=5,
    )  # fmt: skip
    recorder = Recorder()
    with pytest.raises(InterruptedRunError):
        train(plan_new(config), [recorder], stop_after(recorder, 15))
    assert kinds(config) - {"stall"} == set()
    again = Recorder()
    train(plan_resumed(config.run_dir, {}), [again])
    assert "plateau" in kinds(config)
    [sentence] = [s for s in again.warnings if "no longer falls" in s]
    assert "since step 11 (11 validations)" in sentence
    assert "no longer falls" in (config.run_dir / "index.html").read_text()
    assert "plateau" in column(config)[-1]


def test_options_in_advice_exist() -> None:
    names = {option_name(field.name) for field in dataclasses.fields(TrainConfig)}
    names |= {option_name(field.name) for field in dataclasses.fields(TranslateConfig)}
    source = "".join(Path(module.__file__).read_text() for module in (health, domain_gap))
    named = set(re.findall(r"--[a-z][a-z-]+", source))
    assert {"--steps", "--lambda-cycle", "--which"} <= named
    assert named <= names


def test_every_verdict_is_documented() -> None:
    table = (ROOT / "docs" / "training.md").read_text()
    for kind in get_args(health.Kind):
        assert f"\n| `{kind}` |" in table


@pytest.mark.usefixtures("negatives")
@pytest.mark.slow
def test_verdicts_are_resumed(tmp_path):
    config = blocks(tmp_path, steps=60, lambda_identity=0.0, learning_rate=1e-4, ema=0.0)
    train_until(config, 55)
    before = health_document(config)["verdicts"]
    assert before
    again = Recorder()
    train(plan_resumed(config.run_dir, {"validate_every": 1000}), [again])
    assert health_document(config)["verdicts"][: len(before)] == before
    assert not any(verdict["sentence"] in s for verdict in before for s in again.warnings)
