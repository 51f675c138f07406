"""The page in a real browser, from the disk: look, slide, point, and no request or complaint."""

import datetime
import re

import pytest
from PIL import Image

from browser import needs_chromium, new_page
from cyclegan_cli.training.plan import Plan
from cyclegan_cli.training.report.page import RunPage
from run_folders import fill, renamed, write_health

pytestmark = needs_chromium
SHOWN = "document.getElementById('step').textContent"
# The middle of the first translation, drawn.
GREY = """(async () => {
  const image = document.querySelectorAll("#a img")[1];
  await image.decode();
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 16;
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.getContext("2d").getImageData(8, 8, 1, 1).data[0];
})()"""


@pytest.fixture
def page(plan):
    """A tab that shows a run of 400 of 800 steps; afterwards nothing must have gone wrong."""
    fill(plan)
    write_health(plan.run_dir)
    RunPage(plan).write(400)
    with new_page() as page:
        page.look(1200, 900)
        page.open(address(plan))
        yield page
        page.run("1")  # Waits for pending events.
        assert page.problems == []
        assert {line for line in page.requests if "data:" not in line} == {f"GET {address(plan)}"}


def address(plan: Plan) -> str:
    return f"file://{plan.run_dir}/index.html"


def test_slider_selects_samples_by_keyboard(page):
    assert page.run(SHOWN) == "step 400 · 4 of 4"
    assert page.run(GREY) == pytest.approx(100, abs=6)
    page.run("document.getElementById('slider').focus()")
    page.press("ArrowLeft", 37)
    assert page.run(SHOWN) == "step 300 · 3 of 4"
    assert page.run(GREY) == pytest.approx(75, abs=6)
    page.press("Home", 36)
    assert page.run(SHOWN) == "step 100 · 1 of 4"
    assert page.run(GREY) == pytest.approx(25, abs=6)
    assert (
        page.run("document.getElementById('slider').getAttribute('aria-valuetext')") == "step 100"
    )


def test_charts_follow_the_slider(page):
    shown = "document.querySelector('#losses .shown').getAttribute('x1')"
    assert page.run(shown) == "1000"
    page.run("document.getElementById('slider').focus()")
    page.press("Home", 36)
    assert page.run(shown) == "250"


def test_playback_ends_at_the_last_sample(page):
    page.run("document.getElementById('play').click()")
    assert page.run(SHOWN).startswith("step ")
    page.wait_for(f"{SHOWN} === 'step 400 · 4 of 4'")
    page.wait_for("document.getElementById('play').textContent === '▶'")


def test_images_have_alt_texts(page):
    assert page.run("[...document.querySelectorAll('#b img')].slice(3, 6).map((i) => i.alt)") == [
        "image 2 of night: night, real",
        "image 2 of night: translated to day",
        "image 2 of night: translated to day and back to night",
    ]


def test_legend_shows_values_under_the_pointer(page):
    legend = "document.querySelector('#losses .legend').textContent"
    before = page.run(legend)
    assert before == "day → night 4.00night → day 4.00"
    page.run("document.querySelector('#losses svg').scrollIntoView()")
    box = page.run(
        "(({x, y, width, height}) => [x, y, width, height])"
        "(document.querySelector('#losses svg').getBoundingClientRect())"
    )
    page.point(box[0] + box[2] / 2, box[1] + box[3] / 2)
    assert page.run(legend) == "day → night 2.00night → day 2.00at step 200"
    page.point(1, 1)
    assert page.run(legend) == before


def test_copy_button_copies_command(page):
    page.call(
        "Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"]
    )
    page.run("document.querySelector('.command button').click()")
    button = "document.querySelector('.command button').textContent"
    page.wait_for(f"{button} !== 'Copy'")
    assert page.run(button) in ("Copied", "Selected")
    selected = page.run("getSelection().toString().trim()")
    assert selected.startswith("cyclegan translate photo.jpg --to night --checkpoint /")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 390, 768, 1600])
def test_layout_fits_every_width_in_light_and_dark(page, tmp_path, width, dark):
    page.look(width, 800, dark=dark, phone=width < 500)
    page.run("document.querySelector('details').open = true")
    assert page.run("document.documentElement.scrollWidth") <= width
    page.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        corner = image.convert("L").getpixel((2, 2))
    assert (corner < 60) if dark else (corner > 200)


def test_long_names_fit_a_phone(page, plan):
    long = renamed(plan, "photographs_of_the_harbour_at_noon" * 2, "n" * 90)
    RunPage(long).write(400)
    page.look(390, 800, phone=True)
    page.open(address(plan))
    assert page.run("document.documentElement.scrollWidth") <= 390


def test_names_that_look_like_markup_are_text(page, plan):
    evil = renamed(plan, "<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>")
    RunPage(evil).write(400, "stopped", "<script>alert(1)</script>")
    page.open(address(plan))
    assert page.run("document.title") == f"{evil.name_a} ⇄ {evil.name_b}"
    assert page.run("document.querySelector('#a b').textContent") == evil.name_a
    assert page.run("document.querySelectorAll('script').length") == 2


def test_one_sample_needs_no_slider(page, plan):
    RunPage(plan).write(100)
    page.open(address(plan))
    assert page.run(SHOWN) == "step 100 · 1 of 1"
    assert page.run(
        "document.getElementById('slider').hidden && document.getElementById('play').hidden"
    )


@pytest.mark.parametrize(("hours", "late"), [(0, False), (2, True)])
def test_overdue_report_shows_notice(page, plan, hours, late):
    path = plan.run_dir / "index.html"
    text = path.read_text(encoding="utf-8")
    written = datetime.datetime.now().astimezone() - datetime.timedelta(hours=hours)
    path.write_text(
        re.sub('datetime="[^"]*"', f'datetime="{written.isoformat()}"', text), encoding="utf-8"
    )
    page.open(address(plan))
    words = page.run("document.querySelector('.state').innerText")
    assert ("The next update is overdue" in words) == late
    assert ("2 hours ago" if hours else "just now") in words


def test_open_report_reloads_unless_in_use(page, plan):
    assert not page.run("isInUse()")
    page.run("document.getElementById('slider').focus()")
    page.press("ArrowLeft", 37)
    page.run("lastUsed = 0")
    assert page.run("isInUse()")  # An earlier sample is looked at.
    page.press("End", 35)
    assert page.run("isInUse()")  # A key was pressed just now.
    page.run("lastUsed = 0")
    assert not page.run("isInUse()")
    page.run("document.querySelector('details').open = true")
    assert page.run("isInUse()")


def test_report_without_samples_or_rows(page, plan):
    for path in sorted((plan.run_dir / "samples").iterdir()):
        path.unlink()
    (plan.run_dir / "metrics.csv").unlink()
    RunPage(plan).write(0)
    page.open(address(plan))
    assert page.run("document.getElementById('samples').hidden")
    assert "Use it" in page.run("document.body.innerText")
