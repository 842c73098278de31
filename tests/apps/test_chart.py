import math

import numpy as np
import pytest

from my3dgen.apps.chart import COLOURS, Curve, chart, ticks


def ink(page, colour) -> np.ndarray:
    """(x, y) of the pixels that are nearly of a colour."""
    off = np.abs(np.asarray(page).astype(int) - colour).max(-1)
    rows, columns = np.where(off < 40)
    return np.stack([columns, rows], 1)


def test_a_curve_runs_where_its_values_are():
    page = chart([Curve("", [0.0, 1.0, 2.0], [0.0, 1.0, 0.0])], title="a hill", width=400, height=200)
    line = ink(page, COLOURS[0])
    top = line[line[:, 1].argmin()]
    left, right = line[line[:, 0].argmin()], line[line[:, 0].argmax()]
    assert abs(top[0] - (left[0] + right[0]) / 2) <= 2
    assert abs(left[1] - right[1]) <= 2 and left[1] - top[1] > 100


def test_gaps_legends_and_dots():
    x, gap = [0.0, 1.0, 2.0, 3.0], [1.0, math.nan, 1.0, 1.0]
    plain = ink(chart([Curve("", x, gap)], title=""), COLOURS[0])
    across = np.unique(plain[:, 0])
    assert across.min() < 50 and across.max() > 650  # a lone point is a dot
    assert not ((across > 60) & (across < 430)).any()  # no line across the gap
    both = chart([Curve("one", x, gap, dots=True), Curve("two", x, [0.0] * 4)], title="")
    assert len(ink(both, COLOURS[0])) > len(plain) and len(ink(both, COLOURS[1])) > 300


def test_ticks_are_round_and_cover():
    assert ticks(0.0, 1.0) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(-0.013, 0.021)[0] <= -0.013 and ticks(-0.013, 0.021)[-1] >= 0.021
    assert len(ticks(3.0, 3.0)) > 1


def test_what_cannot_be_drawn():
    with pytest.raises(ValueError, match="finite"):
        chart([Curve("", [0.0], [math.nan])], title="")
    with pytest.raises(ValueError, match="as many"):
        chart([Curve("", [0.0, 1.0], [0.0])], title="")
