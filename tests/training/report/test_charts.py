import math
import re

import pytest

from cyclegan_cli.training.report.charts import (
    HEIGHT,
    MAX_POINTS,
    WIDTH,
    Chart,
    downsample,
    draw,
    format_number,
    moving_mean,
    tick_label,
    ticks,
)

ONE = Chart("Loss", "Lower is better.", {"y": "the curve"})


def rows(values) -> list[dict[str, float]]:
    return [{"step": float(step), "y": float(y)} for step, y in enumerate(values, start=1)]


def points(html: str, kind: str) -> list[tuple[float, float]]:
    [path] = re.findall(rf'<path class="{kind}" d="([^"]*)"', html)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML]([\d.e+-]+) ([\d.e+-]+)", path)]


def test_path_of_curve_matches_values():
    html, data = draw(ONE, rows([0, 1, 2, 4]), last_step=8)
    found = points(html, "c0")
    assert [x for x, _ in found] == [WIDTH * step / 8 for step in (1, 2, 3, 4)]
    heights = [HEIGHT - y for _, y in found]
    assert heights[0] == 0
    assert heights[3] == pytest.approx(4 * heights[1], abs=0.5)
    assert 0.85 * HEIGHT < heights[3] <= HEIGHT
    assert data == {"steps": [1, 2, 3, 4], "values": [[0, 1, 2, 4]]}


@pytest.mark.parametrize("count", [1, MAX_POINTS, MAX_POINTS + 1, 7 * MAX_POINTS + 3])
def test_downsampling_keeps_mean_and_last_row(count):
    found = downsample(rows(range(count)), ["y"])
    assert len(found) <= MAX_POINTS
    assert found[-1]["step"] == count
    size = math.ceil(count / MAX_POINTS)
    assert found[0]["y"] == pytest.approx(sum(range(size)) / size)
    assert [row["step"] for row in found] == sorted(row["step"] for row in found)


def test_empty_table_gives_no_points():
    assert downsample([], ["y"]) == []
    html, data = draw(ONE, [], last_step=5)
    assert points(html, "c0") == []
    assert data == {"steps": [], "values": [[]]}


def test_moving_mean_of_constant_and_ramp():
    assert moving_mean([2.0] * 100) == [2.0] * 100
    ramp = [float(i) for i in range(200)]
    assert moving_mean(ramp)[20:180] == pytest.approx(ramp[20:180])


def test_moving_mean_smooths_noise():
    noisy = [1.0 + (-1) ** i for i in range(500)]
    assert all(0.85 < y < 1.15 for y in moving_mean(noisy))


def test_non_finite_value_interrupts_curve():
    html, data = draw(ONE, rows([1, math.nan, 1, math.inf]), last_step=4)
    assert len(points(html, "c0")) == 2
    assert "nan" not in html
    assert "inf" not in html.replace("finite", "")
    assert data["values"] == [[1, None, 1, None]]
    assert "not finite" in html


def test_noisy_chart_shows_moving_mean_and_clips_spikes():
    chart = Chart("Loss", "", {"y": "y"}, noisy=True)
    html, _ = draw(chart, rows([1.0] * 200 + [1000.0] + [1.0] * 200), last_step=401)
    calm = [HEIGHT - y for _, y in points(html, "raw c0")][:100]
    assert min(calm) > 0.005 * HEIGHT
    assert len(points(html, "c0")) == 401


def test_marks_are_drawn_at_their_values():
    chart = Chart("Diversity", "", {"y": "y"}, marked=1.0, best=2)
    html, _ = draw(chart, rows([0.25, 0.5]), last_step=4)
    across, down = re.findall(r'<line class="marked" ([^>]*)/>', html)
    y = float(re.search(r'y1="([\d.]+)"', across)[1])
    assert y == pytest.approx(HEIGHT * (1 - 1 / 1.08), abs=0.1)  # The mark is inside the drawing.
    assert f'x1="{WIDTH / 2:.1f}"' in down


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (1000, [0, 200, 400, 600, 800, 1000]),
        (33_000, [0, 10_000, 20_000, 30_000]),
        (0.13, [0, 0.05, 0.1]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_ticks_are_round(end, expected):
    assert ticks(end) == pytest.approx(expected)


@pytest.mark.parametrize("end", [1e-9, 3.7e-4, 7, 99, 101, 12_345, 1e9])
def test_ticks_are_few_and_inside(end):
    found = ticks(end)
    assert 2 <= len(found) <= 7
    assert 0.5 * end < found[-1] <= 1.001 * end


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.13, "0.130"), (136.2, "136"), (12345.6, "12,346"), (3.99e-7, "3.99e-7"),
     (0, "0.00"), (math.nan, "not finite")],
)  # fmt: skip
def test_numbers_have_three_significant_digits(value, text):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("tick", "text"),
    [(0, "0"), (200, "200"), (1000, "1k"), (2500, "2.5k"), (3e6, "3M"), (5e-05, "5e-5")],
)
def test_tick_labels_are_short(tick, text):
    assert tick_label(tick) == text


def test_chart_names_are_escaped():
    evil = '</svg><script>alert("x")</script>'
    html, _ = draw(Chart(evil, evil, {"y": evil}), rows([1]), last_step=1)
    assert "<script" not in html
    assert html.count("</svg>") == 1
