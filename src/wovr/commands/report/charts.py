"""Charts by matplotlib: bars of rates, curves over frames. Whatever is drawn again from the same numbers is the same.

Importing this imports matplotlib, which only commands that draw should pay for.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from wovr.printing import printable
from wovr.runs import atomic_write

COLOURS = ("#2f7bd0", "#d9702c", "#3f9a55", "#a855b8")
"""Of bars and curves, told apart on white and on black."""

INK = "#010203"
"""Of text and axes in a figure: a colour that nothing else has, so that an SVG can take that of the page for it."""

_STYLE: dict[Any, Any] = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": "#8888884d",
    "font.size": 10,
    "legend.frameon": False,
    "text.parse_math": False,  # texts come out of data: a dollar is a dollar
    "svg.fonttype": "none",  # letters stay letters, in the font of the page
    "svg.hashsalt": "wovr",  # or ids would differ from one drawing to the next
}


@dataclass(frozen=True)
class Bar:
    """A rate with its interval, all in [0, 1]."""

    label: str
    rate: float
    low: float
    high: float


def bar_chart(bars: Sequence[Bar]) -> bytes:
    """Rates as bars with their intervals, each below its name, as SVG."""
    with _style():
        figure = Figure(figsize=(5.6, 0.55 * len(bars) + 0.5), layout="constrained")
        axes = figure.subplots()
        for row, bar in enumerate(bars):
            reach = [[max(0.0, bar.rate - bar.low)], [max(0.0, bar.high - bar.rate)]]
            axes.barh(row, bar.rate, 0.42, color=COLOURS[0])
            axes.errorbar(bar.rate, row, xerr=reach, ecolor=INK, elinewidth=1, capsize=3)
            axes.text(0.0, row - 0.3, printable(bar.label), va="bottom")
            axes.text(max(bar.high, bar.rate) + 0.012, row, f"{100 * bar.rate:.1f}", va="center")
        axes.set(xlim=(0, 1.08), ylim=(len(bars) - 0.7, -0.8), xticks=[tick / 5 for tick in range(6)], yticks=[])
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        return _svg(figure)


def line_chart(title: str, x_label: str, y_label: str, series: Mapping[str, Sequence[float]]) -> Figure:
    """Curves.

    Args:
        title: Above the plot.
        x_label: Below the horizontal axis, which counts 0, 1, 2, ...
        y_label: Beside the vertical axis.
        series: Name -> values; where one is not finite the curve has a gap, and between two gaps it is a dot.
    """
    with _style():
        figure = Figure(figsize=(5.6, 3.5), layout="constrained")
        axes = figure.subplots()
        for number, values in enumerate(series.values()):
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(values, color=colour, linewidth=2, marker="o", markersize=2.5, label=str(number))
        axes.set(title=printable(title), xlabel=printable(x_label), ylabel=printable(y_label))
        axes.update_datalim([(0, 0), (1, 0)])  # zero belongs to it: how much, not only how it changes
        axes.autoscale_view()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid()
        if series:
            # Put in afterwards: a name that begins with an underscore would be left out.
            for text, name in zip(axes.legend().get_texts(), series, strict=True):
                text.set_text(printable(name))
    return figure


def as_svg(figure: Figure) -> bytes:
    """A figure as a part of a page: letters and axes in the colour of the text around it."""
    with _style():
        return _svg(figure)


def write_png(figure: Figure, path: Path) -> None:
    """Write a figure as a file, whole or not at all.

    Raises:
        UserError: It cannot be written.
    """
    data = io.BytesIO()
    with _style():
        figure.savefig(data, format="png", dpi=140, facecolor="white", metadata={"Software": None})
    with atomic_write(path) as file:
        file.write(data.getvalue())


def _svg(figure: Figure) -> bytes:
    data = io.StringIO()
    figure.savefig(data, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = data.getvalue()
    return text[text.index("<svg") :].replace(INK, "currentColor").encode()


@contextmanager
def _style() -> Iterator[None]:
    """Our style, whatever a matplotlibrc of the user says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the page's fonts may have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield
