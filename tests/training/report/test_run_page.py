import dataclasses
import html
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cyclegan_cli.errors import OutputError
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.report.page import RunPage
from run_folders import fill, renamed, write_health, write_samples


def write(plan: Plan, step: int = 400, *ended: str) -> str:
    RunPage(plan).write(step, *ended)
    return (plan.run_dir / "index.html").read_text(encoding="utf-8")


def data_in(page: str) -> dict:
    [content] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(content)


def words_in(page: str) -> str:
    """What can be read on the page, spaces made one."""
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


class Checker(HTMLParser):
    """Every tag that opens closes, in order."""

    VOID = frozenset({"meta", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "srcset", "action")]

    def handle_startendtag(self, tag, attributes):
        assert tag in ("path", "line")  # Only SVG has such tags.

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_shows_progress(plan):
    fill(plan)
    words = words_in(write(plan))
    for sentence in (
        "day ⇄ night", "training", "step 400 of 800 (50%)", "epoch 40.0 of 80.0",
        "training time 3 min", "speed 2.00 images/s", "remaining time 3 min",
        "best model step 200", "images 10 + 10", "device cpu, fp32",
    ):  # fmt: skip
        assert sentence in words


def test_charts_have_last_values_and_best_step(plan):
    fill(plan)
    words = words_in(write(plan))
    assert "lower is better, best at step 200. day → night 300 night → day 300" in words
    assert "while the discriminators detect the translations. day → night 4.00" in words
    charts = data_in(write(plan))["charts"]
    assert charts[0] == {"steps": [100, 200, 300, 400], "values": [[200, 100, 200, 300]] * 2}
    assert charts[4]["steps"] == list(range(10, 401, 10))


def test_report_omits_unavailable_charts(plan):
    fill(plan)
    (plan.run_dir / "validation.csv").unlink()
    object.__setattr__(plan.config, "lambda_identity", 0.5)
    assert "Identity loss" in words_in(write(plan))
    assert "Color loss" in words_in(write(plan))
    object.__setattr__(plan.config, "lambda_color", 0.0)
    assert "Color" not in words_in(write(plan))
    assert "Quality" not in words_in(write(plan))
    object.__setattr__(plan.config, "lambda_identity", 0.0)
    assert "Identity" not in words_in(write(plan))


def test_report_without_data(plan):
    page = write(plan, step=0)
    assert "step 0 of 800 (0%)" in words_in(page)
    assert data_in(page)["frames"] == []
    assert data_in(page)["charts"] == []


def test_report_contains_the_samples(plan):
    fill(plan)
    data = data_in(write(plan))
    assert [frame["step"] for frame in data["frames"]] == [100, 200, 300, 400]
    assert data["names"] == ["day", "night"]


@pytest.mark.parametrize(
    ("step", "state", "reason"),
    [(400, "training", ""), (800, "finished", ""), (400, "stopped", "by a signal"),
     (800, "failed", "the losses are not finite")],
)  # fmt: skip
def test_report_shows_status(plan, step, state, reason):
    page = write(plan, step, state, reason)
    assert f'<b class="pill {state}">{state}</b>' in page
    assert data_in(page)["training"] == (state == "training")
    assert f"{state} {reason}".rstrip() + " written" in words_in(page)
    assert ("cyclegan train --resume" in words_in(page)) == (step < 800)


def test_report_commands(plan):
    fill(plan)
    words = words_in(write(plan))
    run = plan.run_dir
    assert "Translate day to night, after the first checkpoint (step 100) cyc" in words
    assert "best.safetensors" not in words
    assert f"Resume after an interruption cyclegan train --resume {run}" in words
    for name in ("model", "best"):
        (run / f"{name}.safetensors").touch()
    words = words_in(write(plan, 400, "stopped"))
    translate = "cyclegan translate photo.jpg --to"
    assert f"Translate day to night {translate} night --checkpoint {run} " in words
    assert f"Translate night to day {translate} day --checkpoint {run} " in words
    assert f"the best model so far {translate} night --checkpoint {run}/best.safetensors " in words
    assert f"Resume cyclegan train --resume {run}" in words


@pytest.mark.parametrize(
    ("changes", "seconds"),
    # Two images a second.
    [
        ({}, 2),
        ({"sample_every": 900}, 200),
        ({"sample_every": 0}, 200),
        ({"batch_size": 3}, 6),
        ({"sample_every": "100s"}, 100),
        ({"sample_every": "1s"}, 10),
        ({"sample_every": "1h"}, 200),
    ],
)
def test_report_contains_next_update_time(plan, changes, seconds):
    fill(plan)
    plan = dataclasses.replace(plan, config=dataclasses.replace(plan.config, **changes))
    assert data_in(write(plan))["dueIn"] == seconds
    assert data_in(write(plan, 400, "stopped"))["dueIn"] is None
    (plan.run_dir / "metrics.csv").unlink()
    assert data_in(write(plan))["dueIn"] is None


def test_report_shows_verdicts_with_advice(plan):
    write_health(plan.run_dir)
    assert "No problems detected up to step 400." in words_in(write(plan))
    trouble = {"kind": "collapse", "step": 1200, "sentence": "all alike", "advice": "Lower it."}
    write_health(plan.run_dir, trouble)
    words = words_in(write(plan))
    assert "Step 1,200: all alike. Lower it." in words
    assert "No problems" not in words


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"step": 1}', '{"step": 1, "verdicts": [3]}', "\0",
     '{"step": "x", "verdicts": []}'],
)  # fmt: skip
def test_damaged_health_file_is_ignored(plan, content):
    (plan.run_dir / "health.json").write_text(content)
    words = words_in(write(plan))
    assert "Step" not in words
    assert "trouble" not in words


def test_report_commands_are_shell_quoted(plan, tmp_path):
    run = tmp_path / "my run's"
    run.mkdir()
    object.__setattr__(plan, "run_dir", run)
    object.__setattr__(plan.config, "name_b", "late night")
    words = words_in(write(plan))
    quoted = f"'{tmp_path}/my run'\"'\"'s'"
    assert f"cyclegan translate photo.jpg --to 'late night' --checkpoint {quoted}" in words
    assert f"cyclegan translate photo.jpg --to day --checkpoint {quoted}" in words


def test_report_groups_options_and_marks_changed_ones(plan):
    page = write(plan)
    assert len(re.findall(r"<h3>Data</h3>", page)) == 1
    assert re.search(r'<div class="changed" title="[^"]*"><dt>crop size</dt><dd>32</dd>', page)
    assert re.search(r'<div title="[^"]*"><dt>lambda cycle</dt><dd>10</dd>', page)
    assert re.search(r'<div title="[^"]*"><dt>flip</dt><dd>yes</dd>', page)


EVIL = "</script><script>alert(1)</script><b a=\"'&"


def test_report_escapes_user_text(plan):
    fill(plan)
    evil = renamed(plan, EVIL, "b" + EVIL)
    object.__setattr__(plan.config, "domain_a", Path(EVIL))
    trouble = {"kind": "collapse", "step": 1, "sentence": EVIL, "advice": EVIL}
    write_health(plan.run_dir, trouble)
    page = write(evil, 400, "stopped", EVIL)
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "alert(1)</" not in page
    assert EVIL in words_in(page)
    assert data_in(page)["names"] == [EVIL, "b" + EVIL]
    check(page)


def check(page: str) -> None:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert all(link.startswith("data:") for link in checker.links)


def test_report_is_well_formed_html_without_external_links(plan):
    fill(plan)
    page = write(plan)
    check(page)
    assert "{{" not in page
    assert not re.search(r"@import|url\(", page)


def test_non_utf8_parent_folder_is_omitted(plan, tmp_path, monkeypatch):
    above = Path(os.fsdecode(bytes(tmp_path) + b"/\xff"))
    above.mkdir()
    plan.run_dir.rename(above / "run")
    monkeypatch.chdir(above)
    words = words_in(write(dataclasses.replace(plan, run_dir=Path("run"))))
    assert "cyclegan train --resume run " in words


def test_report_includes_earlier_sessions(plan):
    fill(plan, 300)
    write(plan, 300, "stopped")
    fill(plan, 400)
    page = write(plan, 400)
    assert [frame["step"] for frame in data_in(page)["frames"]] == [100, 200, 300, 400]
    assert data_in(page)["charts"][4]["steps"][0] == 10


def test_incomplete_row_and_missing_sample_are_ignored(plan):
    fill(plan)
    with (plan.run_dir / "metrics.csv").open("a") as stream:
        stream.write("410,4")
    (plan.run_dir / "samples" / "step_00000200.jpg").unlink()
    data = data_in(write(plan))
    assert [frame["step"] for frame in data["frames"]] == [100, 300, 400]
    assert data["charts"][4]["steps"][-1] == 400


def test_unwritable_report_is_an_output_error(plan):
    (plan.run_dir / "index.html").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*index\.html"):
        RunPage(plan).write(1)


def test_report_size_is_limited(plan, monkeypatch):
    from cyclegan_cli.training.report import page

    monkeypatch.setattr(page, "MAX_IMAGE_CHARACTERS", 20_000)
    for step in range(1, 40):
        write_samples(plan.run_dir, step)
    data = data_in(write(plan, 40))
    sizes = [len(text) for f in data["frames"] for k, c in f.items() if "_" in k for text in c]
    assert 5_000 < sum(sizes) <= 20_000
    assert data["frames"][0]["step"] == 1
    assert data["frames"][-1]["step"] == 39
