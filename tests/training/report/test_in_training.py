"""The page as trainings leave it."""

import json
import re
from pathlib import Path

import pytest

from cyclegan_cli.errors import DivergedError, InterruptedRunError
from cyclegan_cli.models.cyclegan import CycleGAN
from cyclegan_cli.training.callbacks import health
from cyclegan_cli.training.plan import plan_new, plan_resumed
from cyclegan_cli.training.trainer import train
from run_folders import write_health
from runs import Recorder, make_config, stop_after, train_until


class Reader(Recorder):
    """Reads the report after every step."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run = run
        self.seen: list[tuple[str, list[int]]] = []

    def on_step_end(self, run, losses):
        super().on_step_end(run, losses)
        self.seen.append(look_at(self.run))


def look_at(run: Path) -> tuple[str, list[int]]:
    """The status on the page and the steps of its samples."""
    page = (run / "index.html").read_text(encoding="utf-8")
    assert page.endswith("</html>\n")
    [state] = re.findall(r'<b class="pill \w+">(\w+)</b>', page)
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return state, [frame["step"] for frame in json.loads(data)["frames"]]


def test_report_is_updated_during_training(config):
    reader = Reader(config.run_dir)
    train(plan_new(config), [reader])
    assert reader.seen == [("training", [])] * 4 + [("training", [4])] * 3
    assert look_at(config.run_dir) == ("finished", [4, 7])


def test_report_shows_stopped_until_resume(config):
    reader = Reader(config.run_dir)
    with pytest.raises(InterruptedRunError):
        train(plan_new(config), [reader], stop_after(reader, 5))
    assert look_at(config.run_dir) == ("stopped", [4])
    assert "stopped after step 5 of 7; the run was saved" in page_of(config.run_dir)
    again = Reader(config.run_dir)
    train(plan_resumed(config.run_dir, {}), [again])
    assert again.seen == [("training", [4])] * 2
    assert look_at(config.run_dir) == ("finished", [4, 7])


def test_report_shows_time_limit(config):
    train(plan_new(config), time_limit=0)
    assert look_at(config.run_dir) == ("stopped", [])
    assert "time limit reached after step 1 of 7" in page_of(config.run_dir)


def test_report_shows_failure(config, monkeypatch):
    answers = iter([True])  # When the first state is saved; from then on no more.
    monkeypatch.setattr(CycleGAN, "is_finite", lambda self: next(answers, False))
    with pytest.raises(DivergedError):
        train(plan_new(config))
    assert look_at(config.run_dir) == ("failed", [4, 7])
    assert "the weights are not finite at step 7; the previous checkpoint is kept" in page_of(
        config.run_dir
    )


def test_report_shows_current_verdicts(config, tmp_path, monkeypatch):
    monkeypatch.setattr(health, "WON_FOR_STEPS", 2)
    monkeypatch.setitem(health.WON_BELOW, "lsgan", 1e9)
    config = make_config(tmp_path, run_dir=tmp_path / "run", log_every=1, sample_every=1)
    pages: list[str] = []

    class Collector(Recorder):
        def on_step_end(self, run, losses):
            super().on_step_end(run, losses)
            pages.append(page_of(config.run_dir))

    recorder = Collector()
    with pytest.raises(InterruptedRunError):
        train(plan_new(config), [recorder], stop_after(recorder, 4))
    assert "No problems detected up to step 1." in pages[1]
    verdict = "Step 2: the discriminator of day has won"
    assert verdict in pages[2]
    assert "Use more images, fewer --discriminator-channels" in pages[2]
    assert verdict in page_of(config.run_dir)
    monkeypatch.setitem(health.WON_BELOW, "lsgan", 0.0)
    train(plan_resumed(config.run_dir, {}), [recorder])
    assert verdict in pages[4]  # The first page of the resumed run.
    assert "No problems detected up to step 7." in page_of(config.run_dir)


def test_resume_drops_verdicts_of_lost_steps(config):
    train_until(config, 4)
    write_health(
        config.run_dir, {"kind": "collapse", "step": 6, "sentence": "lost", "advice": "Wait."}
    )
    recorder = Recorder()
    with pytest.raises(InterruptedRunError):
        train(plan_resumed(config.run_dir, {}), [recorder], stop_after(recorder, 1))
    assert "lost" not in page_of(config.run_dir)


def test_report_shows_unexpected_exception(config):
    class Faulty(Recorder):
        def on_step_end(self, run, losses):
            raise RuntimeError("<no> memory\nand a long report")

    with pytest.raises(RuntimeError):
        train(plan_new(config), [Faulty()])
    assert look_at(config.run_dir) == ("failed", [])
    assert "RuntimeError: &lt;no&gt; memory</span>" in page_of(config.run_dir)


def page_of(run: Path) -> str:
    return (run / "index.html").read_text(encoding="utf-8")
