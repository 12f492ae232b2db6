"""The documentation site: what it shows of the sources, what its navigation lists, and how it is built."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.commands.point_world import write_checkpoint
from tests.data.synthetic import write_dataset
from tests.extras import needs
from tests.models.world_model.tiny_world import tiny_world
from tests.test_structure import ROOMS, SOURCES, module_name

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


def script(name: str) -> ModuleType:
    """A script of docs/, imported."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generated = script("generated")


def settings() -> dict:
    """mkdocs.yml."""
    return yaml.safe_load((ROOT / "mkdocs.yml").read_text())


def listed(entries: list) -> list[str]:
    """Pages of a navigation, from top to bottom."""
    values = [value for entry in entries for value in (entry.values() if isinstance(entry, dict) else [entry])]
    return [page for value in values for page in (listed(value) if isinstance(value, list) else [value])]


# --- what needs no MkDocs ---------------------------------------------------------------------------------------------


def test_the_navigation_lists_every_page_once() -> None:
    pages = listed(settings()["nav"])
    assert sorted(pages) == sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def test_the_tree_names_every_file_and_says_what_it_is_for() -> None:
    entries = generated.tree()
    paths = [path for _, path, _ in entries]
    assert sorted(path for path in paths if path.suffix == ".py") == [
        path for path in SOURCES if path.name != "__init__.py"
    ]
    assert sorted(path for path in paths if path.suffix == ".yaml") == sorted((ROOT / "conf").rglob("*.yaml"))
    silent = [path for _, path, words in entries if not words and (path.is_file() or "src" in path.parts)]
    assert silent == []


def test_the_tree_stands_in_the_order_of_imports() -> None:
    package = ROOT / "src" / "wovr"
    rooms = [
        path.name for depth, path, _ in generated.tree() if depth == 1 and path.is_dir() and path.parent == package
    ]
    assert rooms == [room for room in ROOMS if (package / room).is_dir()]


def test_a_tree_line_is_nested_below_its_folder() -> None:
    lines = generated.tree_block("concepts/tree.md").splitlines()
    place = lines.index(next(line for line in lines if "`functional/`" in line))
    assert lines[place].startswith("    - `functional/` ")
    assert lines[place + 1].startswith("        - [`")
    assert "](../reference/wovr/functional/index.md#wovr.functional." in lines[place + 1]


def test_the_reference_names_every_module_once() -> None:
    pages = [generated.reference_page(folder) for folder in generated.folders(generated.PACKAGE)]
    named = [name for page in pages for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)]
    assert sorted(named) == sorted(module_name(path) for path in SOURCES if path.name != "__init__.py")


def test_the_navigation_of_the_reference_lists_every_package_once() -> None:
    rooms = [generated.PACKAGE, *generated.below(generated.PACKAGE)]
    pages = listed([generated.reference_navigation(folder) for folder in rooms])
    assert sorted(pages) == sorted(map(generated.reference_path, generated.folders(generated.PACKAGE)))


def test_what_a_yaml_is_for_ends_before_its_command(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("# Two lines that say\n# what it is. Needs --out.\n#   wovr fit --config x.yaml\nseed: 0\n")
    assert generated.subject(path) == "Two lines that say what it is."
    path.write_text("# Something for anybody; a second file says which:\n#   wovr pace --config x.yaml\nseed: 0\n")
    assert generated.subject(path) == "Something for anybody"


def test_the_moving_picture_is_made(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", size=(16, 16))
    write_checkpoint(tmp_path / "wm.ckpt", tiny_world(action_dim=4))
    picture = script("moving_picture")
    picture.main(str(tmp_path / "wm.ckpt"), str(tmp_path / "data"), str(tmp_path / "imagined.webp"))
    with Image.open(tmp_path / "imagined.webp") as image:
        assert image.n_frames > 1
        first = np.asarray(image.convert("RGB")).astype(int)
        image.seek(image.n_frames - 1)
        last = np.asarray(image.convert("RGB")).astype(int)
    half = (first.shape[0] - picture.GAP * picture.ENLARGED) // 2
    assert np.abs(first[:half] - first[-half:]).mean() < 3, "imagination begins with the real frame"
    assert np.abs(last[:half] - last[-half:]).mean() > 3, "and goes its own way"


def test_the_moving_picture_of_the_pages_is_small() -> None:
    assert (DOCS / "imagined.webp").stat().st_size < 1_500_000
    with Image.open(DOCS / "imagined.webp") as image:
        assert image.n_frames > 30


# --- the site itself --------------------------------------------------------------------------------------------------


class Requests(HTMLParser):
    """Addresses that a browser asks for when it shows a page. Links that a reader may follow are none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what the tag fetches."""
        values = dict(attrs)
        names = [] if tag == "a" else ["src", "srcset", "data", "poster"]
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            names.append("href")
        self.found += [value for name in names if (value := values.get(name))]


def requests(page: str) -> list[str]:
    """What a page of HTML asks for."""
    parser = Requests()
    parser.feed(page)
    return parser.found


def elsewhere(address: str) -> bool:
    """Whether an address leads out of the site."""
    return re.match(r"(?:[a-z]+:)?//", address) is not None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder


@needs("docs")
def test_every_page_is_built(site: Path) -> None:
    pages = [*listed(settings()["nav"])]
    pages += [generated.reference_path(folder) for folder in generated.folders(generated.PACKAGE)]
    assert [page for page in pages if not (site / page).with_suffix(".html").is_file()] == []


@needs("docs")
def test_the_reference_shows_docstrings(site: Path) -> None:
    page = (site / "reference" / "wovr" / "envs" / "index.html").read_text()
    assert 'id="wovr.envs.base.SimulatorEnv"' in page
    assert "what a simulator offers" in page


@needs("docs")
def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for path in pages:
        found = requests(path.read_text())
        assert found, path
        assert [address for address in found if elsewhere(address)] == [], path
    for path in site.rglob("*.css"):
        fetched = re.findall(r"(?:url\(\s*|@import\s+)[\"']?([^\"')]+)", path.read_text())
        assert [address for address in fetched if elsewhere(address)] == [], path


def test_a_request_elsewhere_would_be_noticed() -> None:
    page = '<link rel="stylesheet" href="https://a.b/c.css"><a href="https://d.e"></a><img src="//f.g/h.png">'
    page += '<script src="own.js"></script><link rel="canonical" href="https://a.b/">'
    assert [address for address in requests(page) if elsewhere(address)] == ["https://a.b/c.css", "//f.g/h.png"]
