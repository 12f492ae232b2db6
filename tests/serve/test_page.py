"""The page in a browser, served by the command: keys, rewinding, branches, a policy, phone width, garbage."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import browser, needs_browser
from tests.commands.point_world import POINT
from tests.serve.tiny_play import write_parts

pytestmark = needs_browser

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-nobody-guesses"
SIZES = {"desktop": (1280, 860), "phone": (390, 844)}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server that runs in a process of its own, and ends when it is told to."""
    folder = write_parts(tmp_path_factory.mktemp("play"))
    names = {"world_model": "wm.ckpt", "reward": "reward.ckpt", "value": "value.ckpt", "policy": "policy.ckpt"}
    flags = [word for name, file in {**names, "data": "data"}.items() for word in (f"--{name}", str(folder / file))]
    flags += ["--keyframes", "", "--env", POINT, "--env_args.size", "16", "--out", str(folder / "out")]
    flags += ["--port", "0", "--token", TOKEN, "--seed", "3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "wovr", "play", *flags],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("play at "):
            break
    assert said[-1].startswith("play at http://127.0.0.1:"), "".join(said)
    yield said[-1].removeprefix("play at ").strip()
    process.terminate()  # not SIGINT, which who runs in the background may have been told to ignore
    rest = process.communicate(timeout=60)[0]
    assert "Traceback" not in rest, rest


@pytest.fixture(params=SIZES)
def page(address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page that shows its first frame; whatever it complains of fails the test."""
    width, height = SIZES[request.param]
    scheme = "dark" if request.param == "phone" else "light"
    with browser() as started:
        context = started.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=request.param == "phone"
        )
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("request", lambda asked: complaints.append(asked.url) if not ours(asked.url, address) else None)
        page.goto(address)
        page.wait_for_selector('body[data-at="0"]')
        yield page
        assert complaints == []


def ours(url: str, address: str) -> bool:
    """Whether the page asked its own server, or itself."""
    return url.startswith((address.partition("#")[0], "data:", "blob:"))


def at(page: Any) -> int:
    return int(page.evaluate("document.body.dataset.at"))


def picture(page: Any, name: str) -> str:
    found: str = page.evaluate(f"document.getElementById('{name}').toDataURL()")
    return found


def wait_for(page: Any, frame: int) -> None:
    for _ in range(600):
        if at(page) >= frame:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"frame {frame} did not come; it stands at {at(page)}")


def test_driving_rewinding_branching_and_letting_a_policy_drive(page: Any, tmp_path: Path) -> None:
    first = picture(page, "imagined"), picture(page, "real")
    page.keyboard.down("d")
    wait_for(page, 10)
    page.keyboard.up("d")
    assert picture(page, "imagined") != first[0]
    assert picture(page, "real") != first[1]
    assert "%" in page.inner_text("#apart-number")
    assert page.inner_text("#driven") == "driven by hand"
    page.wait_for_timeout(600)
    stood = at(page)
    page.wait_for_timeout(500)
    assert at(page) == stood  # nothing is touched: time stands still

    page.keyboard.press("Home")
    page.wait_for_selector('body[data-at="0"]')
    assert (picture(page, "imagined"), picture(page, "real")) == first
    page.keyboard.down("w")
    wait_for(page, 4)
    page.keyboard.up("w")
    page.wait_for_selector("#branches button:nth-child(2)")
    assert "from frame 0 of 0" in page.inner_text("#branches")

    page.click("[data-driver=policy]")
    page.wait_for_selector("[data-driver=policy][aria-pressed=true]")
    wait_for(page, at(page) + 5)
    assert page.inner_text("#driven") == "driven by policy"
    page.keyboard.down("a")  # taking over
    page.wait_for_selector("[data-driver=hand][aria-pressed=true]")
    wait_for(page, at(page) + 2)
    page.keyboard.up("a")
    page.click("#redraw")
    page.wait_for_selector("#branches button:nth-child(3)")

    page.click("[data-save=mp4]")
    page.wait_for_selector("#kept button")
    with page.expect_download() as load:
        page.click("#kept button")
    film = tmp_path / "film.mp4"
    load.value.save_as(film)
    assert film.stat().st_size > 500

    page.click("#begin")
    page.wait_for_selector('body[data-at="0"]')
    # What a person sees fits the width and is not covered.
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    box = page.locator("#imagined").bounding_box()
    assert box["width"] >= 0.35 * page.viewport_size["width"]
    assert abs(box["width"] - box["height"]) < 2
    page.screenshot(path=tmp_path / "page.png", full_page=True)


def test_dragging_in_the_picture_and_pressing_the_pad(page: Any) -> None:
    box = page.locator("#imagined").bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + box["width"] / 3, middle[1])
    wait_for(page, 3)
    page.mouse.up()
    page.wait_for_timeout(300)
    stood = at(page)
    button = page.locator("#pad button").nth(0)
    button.scroll_into_view_if_needed()
    spot = button.bounding_box()
    page.mouse.move(spot["x"] + 5, spot["y"] + 5)
    page.mouse.down()
    wait_for(page, stood + 3)
    page.mouse.up()


def test_the_page_without_the_token(address: str) -> None:
    with browser() as started:
        page = started.new_page()
        page.goto(address.partition("#")[0])
        page.wait_for_selector("#notes p.error")
        assert "token is missing or wrong" in page.inner_text("#notes")
