"""Line charts with Pillow: curves over frames, for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from wovr.printing import printable

_SIZE = (880, 520)
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 24, 56, 52  # pixels around the plot
_INK, _GRID, _PAPER = (40, 40, 40), (222, 222, 222), (255, 255, 255)
_COLOURS = ((31, 98, 180), (214, 96, 28), (60, 145, 70), (160, 60, 150))


def line_chart(title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[float]]) -> Image.Image:
    """Draw curves.

    Args:
        title: Above the plot.
        x_label: Below the horizontal axis, which counts 0, 1, 2, ...
        y_label: Above the vertical axis.
        series: Name -> values; where one is not finite the curve has a gap.

    Returns:
        An RGB picture.
    """
    finite = [value for values in series.values() for value in values if math.isfinite(value)]
    low, high = (min(0.0, *finite), max(0.0, *finite)) if finite else (0.0, 1.0)
    ticks = _ticks(low, high if high > low else low + 1)
    low, high = ticks[0], ticks[-1]
    last = max((len(values) for values in series.values()), default=1) - 1
    image = Image.new("RGB", _SIZE, _PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default()
    right, bottom = _SIZE[0] - _RIGHT, _SIZE[1] - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (right - _LEFT) * x / max(1, last),
            bottom - (bottom - _TOP) * (y - low) / (high - low),
        )

    draw.text((_LEFT, 10), printable(title), _INK, ImageFont.load_default(16))
    draw.text((8, _TOP - 20), y_label, _INK, font)
    draw.text(((right + _LEFT) / 2, bottom + 26), x_label, _INK, font, anchor="mt")
    for tick in ticks:
        _, y = place(0, tick)
        draw.line((_LEFT, y, right, y), _GRID)
        draw.text((_LEFT - 8, y), f"{tick:g}", _INK, font, anchor="rm")
    for tick in _ticks(0, max(1, last)):
        if tick <= max(1, last):
            x, _ = place(tick, low)
            draw.line((x, bottom, x, bottom + 4), _INK)
            draw.text((x, bottom + 8), f"{tick:g}", _INK, font, anchor="mt")
    draw.line((_LEFT, _TOP, _LEFT, bottom, right, bottom), _INK)
    for index, (name, values) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        _curve(draw, [place(x, y) if math.isfinite(y) else None for x, y in enumerate(values)], colour)
        draw.line((right - 190, _TOP + 12 + 18 * index, right - 166, _TOP + 12 + 18 * index), colour, 3)
        draw.text((right - 158, _TOP + 12 + 18 * index), printable(name), _INK, font, anchor="lm")
    return image


def _curve(
    draw: ImageDraw.ImageDraw, places: Sequence[tuple[float, float] | None], colour: tuple[int, int, int]
) -> None:
    """Connect neighbouring points; one between two gaps is a dot."""
    for before, point, after in zip([None, *places], places, [*places[1:], None], strict=False):  # there may be none
        if point is None:
            continue
        if after is not None:
            draw.line((*point, *after), colour, 3)
        elif before is None:
            draw.ellipse((point[0] - 2, point[1] - 2, point[0] + 2, point[1] + 2), colour)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`, four to nine of them."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (factor * step) <= 7)
    first = math.floor(low / step)
    return [round(index * step, 10) for index in range(first, math.ceil(high / step - 1e-9) + 1)]
