from __future__ import annotations

import math

import numpy as np

from wovr.commands.report.line_chart import _COLOURS, line_chart


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """(n, 2) rows and columns of a colour, the legend at the right left out."""
    return np.argwhere((picture[:, :660] == colour).all(-1))


def test_curves_lie_where_their_values_are() -> None:
    rising, falling = [0.0, 1, 2, 3, 4], [4.0, 3, 2, 1, 0]
    picture = np.asarray(line_chart("errors", "frame", "cm", {"up": rising, "down": falling}))
    up, down = (pixels(picture, colour) for colour in _COLOURS[:2])
    assert np.corrcoef(up.T)[0, 1] < -0.99, "upwards is to smaller rows"
    assert np.corrcoef(down.T)[0, 1] > 0.99


def test_gaps_and_infinities_are_left_out() -> None:
    values = [math.nan, 1.0, 1.0, math.inf, math.nan, 1.0, math.nan, 1.0]
    columns = np.unique(pixels(np.asarray(line_chart("", "", "", {"a": values})), _COLOURS[0])[:, 1])
    pieces = np.split(columns, np.flatnonzero(np.diff(columns) > 3) + 1)
    assert len(pieces) == 2, "a line from 1 to 2 and a dot at 5; the one at 7 is beyond the part looked at"


def test_nothing_to_draw_is_an_empty_chart() -> None:
    assert line_chart("empty", "x", "y", {}).size == line_chart("flat", "x", "y", {"a": [2.0]}).size
    assert len(pixels(np.asarray(line_chart("", "", "", {"a": [math.nan, math.nan]})), _COLOURS[0])) == 0
    assert line_chart("", "", "", {"a": [], "b": [1.0, 2.0]}).size == line_chart("", "", "", {}).size
