"""What the site shows of the sources themselves: the reference, a page a room, and the tree, a line a file.

MkDocs calls the functions `on_...` while it builds (`hooks` in mkdocs.yml). Sources are read, never imported, and a
file is described by what its docstring begins with, so there is no second list to keep.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "wovr"
CONF = ROOT / "conf"

ROOMS = ("functional", "models", "data", "metrics", "envs", "tasks", "callbacks", "serve", "commands")
"""Folders of the package from the ground up: imports point from a later one to itself and earlier ones."""

REFERENCE = "reference"
"""Folder of the site that the generated pages go to, and the section of the navigation."""

TREE_MARK = "<!-- tree -->"
"""Stands in a page where the tree goes."""


def subject(path: Path) -> str:
    """What a file is for: what a module's docstring begins with, or the first sentence of a YAML's first comment."""
    text = path.read_text()
    if path.suffix == ".py":
        lines = (ast.get_docstring(ast.parse(text)) or "").splitlines()
        last = next((index for index, line in enumerate(lines) if line.endswith((".", "?"))), 0)
        return " ".join(lines[: last + 1])
    comment = re.match(r"(?:#.*\n)+?(?=#   |#?\n|[^#])", text)  # up to the command that uses it
    words = re.sub(r"\n?# ?", " ", comment.group() if comment else "").strip()
    return re.split(r"(?<=[.?]) (?=[A-Z])|;", words)[0].rstrip(":;")


def below(folder: Path) -> list[Path]:
    """The packages directly below one; rooms in their order."""
    found = sorted(path.parent for path in folder.glob("*/__init__.py"))
    return sorted(found, key=lambda room: ROOMS.index(room.name)) if folder == PACKAGE else found


def folders(top: Path) -> list[Path]:
    """A package and every package below it, each before those below it."""
    return [top, *(folder for package in below(top) for folder in folders(package))]


def modules(folder: Path) -> list[Path]:
    """The modules of a package itself, `__init__.py` left out."""
    return sorted(path for path in folder.glob("*.py") if path.name != "__init__.py")


def dotted(path: Path) -> str:
    """`src/wovr/envs/base.py` -> `wovr.envs.base`; a folder -> its package."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)


def tree() -> list[tuple[int, Path, str]]:
    """(depth, path, what it is for) of every folder and file of the package, and of every configuration."""
    return [
        (depth, path, subject(path / "__init__.py" if path.is_dir() else path)) for depth, path in _package(PACKAGE)
    ] + [
        (
            depth,
            path,
            "Numbers: one YAML a training or a chain." if path == CONF else "" if path.is_dir() else subject(path),
        )
        for depth, path in _yaml(CONF)
    ]


def _package(folder: Path, depth: int = 0) -> Iterator[tuple[int, Path]]:
    yield depth, folder
    yield from ((depth + 1, path) for path in modules(folder))
    for package in below(folder):
        yield from _package(package, depth + 1)


def _yaml(folder: Path, depth: int = 0) -> Iterator[tuple[int, Path]]:
    yield depth, folder
    yield from ((depth + 1, path) for path in sorted(folder.glob("*.yaml")))
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        yield from _yaml(inner, depth + 1)


def tree_block(page: str) -> str:
    """The tree as a nested list in Markdown, modules linked to their reference.

    Args:
        page: Where the list stands, relative to the folder of the site's pages.
    """
    up = "../" * page.count("/")
    lines = []
    for depth, path, words in tree():
        name = f"`{path.relative_to(ROOT) if depth == 0 else path.name}{'/' if path.is_dir() else ''}`"
        if path.suffix == ".py":
            name = f"[{name}]({up}{reference_path(path.parent)}#{dotted(path)})"
        lines.append(f"{'    ' * depth}- {name} {words}".rstrip())
    return "\n".join(['<div class="tree" markdown>', "", *lines, "", "</div>"])


def reference_path(folder: Path) -> str:
    """Where the page of a package goes: as its section's index, so that the navigation nests like the packages."""
    path = f"{REFERENCE}/{folder.relative_to(PACKAGE.parent)}"
    return f"{path}.md" if folder == PACKAGE else f"{path}/index.md"


def reference_navigation(folder: Path) -> dict[str, Any]:
    """The page of a package and those below it, as an entry of the navigation."""
    inner = [] if folder == PACKAGE else [reference_navigation(package) for package in below(folder)]
    page = reference_path(folder)
    return {folder.name: [page, *inner] if inner else page}


def reference_page(folder: Path) -> str:
    """The page of a room: every module of it, from their docstrings."""
    parts = [f"# {dotted(folder)}", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""]
    parts += [f"::: {dotted(path)}" for path in modules(folder)]
    return "\n\n".join(parts) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation, after those of the same section that are written by hand."""
    [section] = [entry for entry in config.nav or [] if "Reference" in entry]
    section["Reference"] += [reference_navigation(folder) for folder in (PACKAGE, *below(PACKAGE))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for folder in folders(PACKAGE):
        files.append(File.generated(config, reference_path(folder), content=reference_page(folder)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the tree; have a search find what is written for readers before the reference."""
    if page.file.generated_by is not None:
        page.meta["search"] = {"boost": 1e-3}  # a heading there counts as much as a word here
    if TREE_MARK in markdown:
        page.meta["search"] = {"exclude": True}  # it repeats the reference
    return markdown.replace(TREE_MARK, tree_block(page.file.src_uri))
