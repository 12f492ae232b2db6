"""A report as one HTML file that needs nothing else, and the same as Markdown with its pictures beside it."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from wovr.errors import UserError
from wovr.printing import markdown, markdown_code, printable
from wovr.runs import atomic_write, explain_os_error

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.7em; } h2 { font-size: 1.25em; margin-top: 2.2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px; }
th, td { padding: 3px 12px 3px 0; text-align: left; border-bottom: 1px solid #eee; vertical-align: top; }
th { border-bottom: 2px solid #999; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.strong td { font-weight: 600; } img, svg { max-width: 100%; } code { font-size: 12px; }
.videos { display: flex; flex-wrap: wrap; gap: 14px; } figure { margin: 0; max-width: 520px; }
figcaption { font-size: 12px; color: #555; max-width: 34em; } video { max-width: 100%; background: #eee; }
.chart { display: inline-block; width: 49%; min-width: 420px; }
.missing { color: #a33; } .wide { overflow-x: auto; }
"""


@dataclass(frozen=True)
class Paragraph:
    """Text; `missing` marks what a reader will look for in vain."""

    text: str
    missing: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        headings: One a column; those that end with a space stand right, over numbers.
        rows: Cells.
        strong: Rows to set off, by number.
        code: Columns of code, by number.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Sequence[int] = ()
    code: Sequence[int] = ()


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: Of its file beside the Markdown; .png or .svg.
        data: The file.
        caption: What it shows.
    """

    name: str
    data: bytes
    caption: str


@dataclass(frozen=True)
class Videos:
    """Videos that play in the page: (file, caption)."""

    items: Sequence[tuple[Path, str]]


Block = Paragraph | Grid | Picture | Videos


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


def write_html(path: Path, title: str, sections: Sequence[Section]) -> None:
    """Write the report as one file: pictures and videos are part of it.

    Raises:
        UserError: A video cannot be read, or the file cannot be written.
    """
    parts = [
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(title)}</h1>",
    ]
    for section in sections:
        parts.append(f"<h2>{_text(section.title)}</h2>")
        parts += [_block_html(block) for block in section.blocks]
    parts.append("</body></html>\n")
    with atomic_write(path) as file:
        file.write("\n".join(parts).encode())


def write_markdown(path: Path, title: str, sections: Sequence[Section], pictures: Path) -> None:
    """Write the report as Markdown; pictures go to a folder beside it, videos stay where they are.

    Raises:
        UserError: It cannot be written.
    """
    parts = [f"# {markdown(title)}"]
    for section in sections:
        parts.append(f"## {markdown(section.title)}")
        for block in section.blocks:
            if isinstance(block, Picture):
                with atomic_write(pictures / block.name) as file:
                    file.write(block.data)
            parts.append(_block_markdown(block, path.parent, pictures))
    with atomic_write(path) as file:
        file.write(("\n\n".join(part for part in parts if part) + "\n").encode())


@dataclass(frozen=True)
class Bar:
    """A rate with its interval, all in [0, 1]."""

    label: str
    rate: float
    low: float
    high: float


def bar_chart(bars: Sequence[Bar]) -> bytes:
    """Rates as bars with their intervals, as SVG."""
    left, width, height = 330, 520, 34
    bottom = height * len(bars) + 10
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {left + width + 90} {bottom + 30}' "
        f"width='{left + width + 90}' font-family='sans-serif' font-size='13'>"
    ]
    for tick in range(0, 101, 20):
        x = left + width * tick / 100
        parts.append(f"<line x1='{x}' y1='4' x2='{x}' y2='{bottom}' stroke='#ddd'/>")
        parts.append(f"<text x='{x}' y='{bottom + 18}' text-anchor='middle' fill='#555'>{tick} %</text>")
    for number, bar in enumerate(bars):
        y = height * number + 10
        low, high, end = (left + width * value for value in (bar.low, bar.high, bar.rate))
        middle = y + 11
        parts.append(f"<text x='{left - 10}' y='{middle + 5}' text-anchor='end'>{_text(bar.label)}</text>")
        parts.append(f"<rect x='{left}' y='{y}' width='{max(1.0, end - left):.1f}' height='22' fill='#7aa6d6'/>")
        parts.append(f"<path d='M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10' ")
        parts.append("stroke='#222' fill='none'/>")
        parts.append(f"<text x='{max(high, end) + 8:.1f}' y='{middle + 5}'>{100 * bar.rate:.1f}</text>")
    parts.append("</svg>")
    return "".join(parts).encode()


def _block_html(block: Block) -> str:
    if isinstance(block, Paragraph):
        mark = " class='missing'" if block.missing else ""
        return f"<p{mark}>{_text(block.text)}</p>"
    if isinstance(block, Grid):
        return _grid_html(block)
    if isinstance(block, Picture):
        caption = f"<figcaption>{_text(block.caption)}</figcaption>"
        if block.name.endswith(".svg"):
            return f"<div>{block.data.decode()}{caption}</div>"
        data = base64.b64encode(block.data).decode()
        picture = f"<img src='data:image/png;base64,{data}' alt='{_text(block.caption)}'>"
        return f"<div class='chart'>{picture}{caption}</div>"
    figures = []
    for path, caption in block.items:
        try:
            data = base64.b64encode(path.read_bytes()).decode()
        except OSError as error:
            raise UserError(f"{path}: a video of the report cannot be read", "remove its stage's folder") from error
        figures.append(
            f"<figure><video autoplay loop muted playsinline controls src='data:video/mp4;base64,{data}'></video>"
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )
    return f"<div class='videos'>{''.join(figures)}</div>"


def _grid_html(grid: Grid) -> str:
    right = [heading.endswith(" ") for heading in grid.headings]

    def cells(tag: str, row: Sequence[str]) -> str:
        shown = []
        for column, text in enumerate(row):
            inner = _text(text.strip())
            inner = f"<code>{inner}</code>" if tag == "td" and column in grid.code else inner
            shown.append(f"<{tag}{' class=n' if right[column] else ''}>{inner}</{tag}>")
        return "".join(shown)

    rows = [
        f"<tr{' class=strong' if number in grid.strong else ''}>{cells('td', row)}</tr>"
        for number, row in enumerate(grid.rows)
    ]
    return f"<div class='wide'><table><tr>{cells('th', grid.headings)}</tr>{''.join(rows)}</table></div>"


def _block_markdown(block: Block, folder: Path, pictures: Path) -> str:
    if isinstance(block, Paragraph):
        return markdown(block.text)
    if isinstance(block, Picture):
        return f"![{markdown(block.caption)}]({quote(pictures.name)}/{quote(block.name)})"
    if isinstance(block, Videos):
        return "\n".join(f"- [{markdown(caption)}]({quote(_relative(path, folder))})" for path, caption in block.items)
    rule = ["---:" if heading.endswith(" ") else "---" for heading in block.headings]
    rows = [
        [markdown_code(cell) if column in block.code else markdown(cell) for column, cell in enumerate(row)]
        for row in block.rows
    ]
    for number in block.strong:
        rows[number] = [f"**{cell}**" if cell else cell for cell in rows[number]]
    return "\n".join(
        "| " + " | ".join(row) + " |"
        for row in [[markdown(heading.strip()) for heading in block.headings], rule, *rows]
    )


def _relative(path: Path, folder: Path) -> str:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError as error:
        raise explain_os_error(OSError(str(error)), path) from error


def _text(text: str) -> str:
    return html.escape(printable(text))
