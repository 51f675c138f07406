"""A plateau is claimed of flat curves, and not of falling, short or uncertain ones."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyclegan_cli.training.trend import MIN_VALIDATIONS, trend

LIMIT = 0.05


def noisy(curve: Callable[[float], float], count: int, noise: float, seed: int) -> list[float]:
    """A curve over [0, 1] with normally distributed relative errors."""
    rng = random.Random(seed)
    return [curve(i / count) * max(0.1, 1 + noise * rng.gauss(0, 1)) for i in range(count)]


@given(st.lists(st.floats(1, 1000), max_size=MIN_VALIDATIONS - 1))
def test_short_series_have_no_trend(values):
    assert trend(values) is None


@given(st.integers(MIN_VALIDATIONS, 90), st.floats(1, 1000))
def test_constant_series_do_not_fall(count, value):
    found = trend([value] * count)
    assert found is not None
    assert (found.start, found.start + found.count) == (count // 2, count)
    assert found.fall == 0


@given(st.integers(MIN_VALIDATIONS, 90), st.floats(0.1, 0.9))
def test_fall_of_a_straight_line_is_exact(count, slope):
    """Averages of long series cover slightly less than the whole half."""
    values = [100 * (1 - slope * i / count) for i in range(count)]
    found = trend(values)
    later = values[count // 2 :]
    true = (later[0] - later[-1]) / later[len(later) // 2]
    assert found.fall == pytest.approx(true, rel=0.15)


@given(st.integers(MIN_VALIDATIONS, 90), st.floats(0.1, 0.9))
def test_rising_series_do_not_fall(count, slope):
    assert trend([100 * (1 + slope * i / count) for i in range(count)]).fall == 0


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
@pytest.mark.parametrize(
    "curve", [lambda t: 1 - 0.25 * t, lambda t: math.exp(-3 * t), lambda t: (t + 0.02) ** -0.3]
)
def test_false_alarm_rate_of_falling_curves(curve, noise):
    """The later half falls by 14 % or more; the limit of 95 % is for a fall of just 5 %."""
    alarms = [trend(noisy(curve, 40, noise, seed)).fall < LIMIT for seed in range(100)]
    assert sum(alarms) <= 2


def test_false_alarm_rate_at_the_limit():
    """One in twenty, for a fall that is just the limit: the stated confidence."""
    # Over the later half, relative to its median: 5 %.
    slope = 0.1 / (1 + 0.075)
    alarms = [
        trend(noisy(lambda t: 1 - slope * t, 40, 0.02, seed)).fall < LIMIT * 0.93
        for seed in range(200)
    ]
    assert sum(alarms) <= 20


def test_flat_curves_are_recognized():
    """Power: with errors of 2 %, nine of ten flat curves of 40 values."""
    found = [trend(noisy(lambda t: 1.0, 40, 0.02, seed)).fall < LIMIT for seed in range(100)]
    assert sum(found) >= 90


def test_curve_that_falls_and_then_stays_is_recognized():
    values = noisy(lambda t: 1 + 2 * math.exp(-12 * t), 60, 0.01, 0)
    assert trend(values).fall < LIMIT


def test_slopes_are_relative_to_steps():
    """Many validations of the last steps do not hide a fall: it is that of the steps between."""
    steps = [*range(0, 1000, 50), *range(1000, 1020)]
    line = [1000 - 0.5 * step for step in steps]
    assert trend(line, steps).fall == pytest.approx(0.5 * 19 / 495, rel=0.01)
    assert trend(line, [2 * step for step in steps]).fall == pytest.approx(trend(line, steps).fall)


def test_correlated_errors_widen_the_limit():
    """A slow wave is not mistaken for many independent values."""
    wave = [100 + 4 * math.sin(i / 3) for i in range(40)]
    rng = random.Random(0)
    shuffled = wave[:20] + rng.sample(wave[20:], 20)
    assert trend(wave).fall > trend(shuffled).fall
