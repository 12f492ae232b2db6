"""Charts: where things lie, read back from the SVG, and that the same numbers give the same bytes."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from wovr.commands.report.charts import COLOURS, INK, Bar, as_svg, bar_chart, line_chart, write_png

SVG = "{http://www.w3.org/2000/svg}"
CURVES = {"up": [0.0, 1, 2, 3, 4], "down": [4.0, 3, 2, 1, 0]}


def paths(svg: bytes, colour: str) -> list[np.ndarray]:
    """The points of each path of a colour, (n, 2)."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        if colour in path.attrib.get("style", "") and path.attrib["d"].count("L"):
            numbers = re.findall(r"[ML] (\S+) (\S+)", path.attrib["d"])
            found.append(np.array(numbers, np.float64))
    return found


def texts(svg: bytes) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_bars_are_as_long_as_their_rates() -> None:
    svg = bar_chart([Bar("a & b", 0.5, 0.4, 0.6), Bar("c", 1.0, 0.9, 1.0)])
    short, long = (np.ptp(bar[:, 0]) for bar in paths(svg, f"fill: {COLOURS[0]}"))
    assert long == pytest.approx(2 * short)
    assert {"a & b", "50.0", "c", "100.0"} <= set(texts(svg))


def test_curves_lie_where_their_values_are() -> None:
    svg = as_svg(line_chart("errors", "frame", "cm", CURVES))
    up, down = (paths(svg, f"stroke: {colour}")[0] for colour in COLOURS[:2])
    assert (np.diff(up[:, 0]) > 0).all()
    assert (np.diff(up[:, 1]) < 0).all(), "upwards is to smaller ordinates"
    np.testing.assert_allclose(up[:, 1], down[::-1, 1])
    assert {"errors", "frame", "cm", "up", "down"} <= set(texts(svg))


def test_gaps_and_infinities_are_left_out() -> None:
    values = [math.nan, 1.0, 1.0, math.inf, math.nan, 1.0, math.nan, 1.0, 1.0]
    svg = as_svg(line_chart("", "", "", {"a": values}))
    [curve, _legend] = paths(svg, f"stroke: {COLOURS[0]}; stroke-width: 2")
    step = curve[1, 0] - curve[0, 0]
    np.testing.assert_allclose((curve[:, 0] - curve[0, 0]) / step, [0, 1, 4, 6, 7], atol=1e-3)


@pytest.mark.parametrize("series", [{}, {"a": []}, {"a": [2.0]}, {"a": [math.nan, math.nan]}])
def test_nothing_to_draw_is_an_empty_chart(series: dict[str, list[float]]) -> None:
    assert as_svg(line_chart("empty", "x", "y", series)).startswith(b"<svg")


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for index in range(2):
        path = tmp_path / f"{index}.png"
        write_png(line_chart("t", "x", "y", CURVES), path)
        found.append(
            (as_svg(line_chart("t", "x", "y", CURVES)), bar_chart([Bar("a", 0.5, 0.4, 0.6)]), path.read_bytes())
        )
    assert found[0] == found[1]


def test_an_svg_is_in_the_colour_of_the_page_and_a_png_on_white(tmp_path: Path) -> None:
    svg = as_svg(line_chart("t", "x", "y", CURVES)).decode()
    assert "currentColor" in svg
    assert INK not in svg
    assert not re.search(r"fill: (#fff|white)", svg)
    write_png(line_chart("t", "x", "y", CURVES), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").convert("RGB").getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["_hidden", "$x^2$", "$", "a\x1b[31m", "\u65e5\u672c", "<b>&amp;", "\ud800"])
def test_whatever_a_name_holds_is_shown(name: str) -> None:
    shown = name.replace("\x1b", "\\x1b").replace("\ud800", "\\ud800")
    assert shown in texts(as_svg(line_chart(name, name, name, {name: [1.0, 2.0]})))
    assert texts(as_svg(line_chart("", "", "", {name: [1.0, 2.0]}))).count(shown) == 1
    assert shown in texts(bar_chart([Bar(name, 0.5, 0.4, 0.6)]))


def test_a_style_of_the_user_changes_nothing() -> None:
    before = as_svg(line_chart("t", "x", "y", CURVES))
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red"}):
        assert as_svg(line_chart("t", "x", "y", CURVES)) == before
