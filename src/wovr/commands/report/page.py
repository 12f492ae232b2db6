"""A report as one HTML file that needs nothing else, and the same as Markdown with its pictures beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from markupsafe import Markup

from wovr.errors import UserError
from wovr.printing import markdown, markdown_code, printable
from wovr.runs import atomic_write, explain_os_error


@dataclass(frozen=True)
class Paragraph:
    """Text; `missing` marks what a reader will look for in vain."""

    text: str
    missing: bool = False
    kind: ClassVar[str] = "paragraph"


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
    kind: ClassVar[str] = "grid"


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: Of its file beside the Markdown.
        data: An SVG, drawn by `wovr.commands.report.charts`, which becomes part of the page as it is.
        caption: What it shows.
    """

    name: str
    data: bytes
    caption: str


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side, where there is room."""

    items: Sequence[Picture]
    kind: ClassVar[str] = "pictures"


@dataclass(frozen=True)
class Videos:
    """Videos that play in the page: (file, caption)."""

    items: Sequence[tuple[Path, str]]
    kind: ClassVar[str] = "videos"


Block = Paragraph | Grid | Pictures | Videos


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
    environment = _environment(autoescape=True)
    environment.globals["right"] = lambda heading: Markup(' class="n"') if heading.endswith(" ") else ""
    environment.filters["base64"] = _base64
    _write(path, environment.get_template("report.html.jinja"), title=title, sections=sections)


def write_markdown(path: Path, title: str, sections: Sequence[Section], pictures: Path) -> None:
    """Write the report as Markdown; pictures go to a folder beside it, videos stay where they are.

    Raises:
        UserError: It cannot be written.
    """
    environment = _environment(autoescape=False)
    environment.filters |= {
        "markdown": markdown,
        "markdown_code": markdown_code,
        "beside": lambda file: _relative(file, path.parent),
    }
    for block in (block for section in sections for block in section.blocks if isinstance(block, Pictures)):
        for picture in block.items:
            with atomic_write(pictures / picture.name) as file:
                file.write(picture.data)
    template = environment.get_template("report.md.jinja")
    _write(path, template, title=title, sections=sections, pictures=pictures.name)


def _environment(autoescape: bool) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("wovr.commands.report"),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if autoescape and type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _write(path: Path, template: jinja2.Template, **values: Any) -> None:
    text = template.render(values)
    with atomic_write(path) as file:
        file.write(text.strip().encode() + b"\n")


def _base64(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise UserError(f"{path}: a video of the report cannot be read", "remove its stage's folder") from error


def _relative(path: Path, folder: Path) -> str:
    try:
        return path.relative_to(folder).as_posix()
    except ValueError as error:
        raise explain_os_error(OSError(str(error)), path) from error
