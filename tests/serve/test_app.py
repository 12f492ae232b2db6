"""The server: the page and its headers, who is refused, films."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.serve.tabs import TOKEN, Tab, played
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.serve import session as session_module
from wovr.serve.app import HEADERS
from wovr.serve.engine import Engine
from wovr.serve.listening import open_port


def test_the_page_and_its_headers(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        for path, word in (("/", "wovr play"), ("/play.js", "WebSocket"), ("/play.css", "prefers-color-scheme")):
            answer = await client.get(path)
            assert (answer.status, word in await answer.text()) == (200, True)
            assert all(answer.headers[name] == value for name, value in HEADERS.items())
        assert (await client.get("/../pyproject.toml")).status == 404
        assert (await client.get("/kept/nothing.mp4")).status == 404

    played(engine, part, tmp_path)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    folder = Path(session_module.__file__).with_name("page")
    for path in folder.iterdir():
        text = path.read_text()
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
        assert "eval(" not in text
        assert "innerHTML" not in text  # instructions and names are somebody's data


def test_saving_and_loading_a_film(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        tab = await open_tab()
        await tab.do("save", what="real")
        assert "nothing was played yet" in (await tab.word("error"))["text"]
        await tab.do("control", action=[0.5, 0.5], active=True)
        await tab.frame(3)
        await tab.do("control", action=[0.5, 0.5], active=False)
        places = {}
        for what in ("imagined", "real", "mp4"):
            await tab.do("save", what=what)
            places[what] = await tab.word("saved")
        assert len(EpisodeStore(places["real"]["path"]).read(0).actions) >= 3
        name = places["mp4"]["name"]
        assert (await client.get(f"/kept/{name}")).status == 403
        answer = await client.get(f"/kept/{name}", headers={"Authorization": f"Bearer {TOKEN}"})
        assert await answer.read() == Path(places["mp4"]["path"]).read_bytes()

    played(engine, part, tmp_path / "out", token=TOKEN)


def test_more_tabs_than_there_is_room_for(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        tab = await open_tab()
        more = Tab(await client.ws_connect("/session"))
        assert "1 tabs play already" in (await more.word("refused"))["text"]
        await tab.socket.close()
        await asyncio.sleep(0.5)
        await open_tab()

    played(engine, part, tmp_path, most=1)


def test_a_tab_without_the_token_is_refused(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        for hello in (
            {"do": "hello"},
            {"do": "hello", "token": TOKEN + "x"},
            {"do": "begin"},
            {"do": "hello", "token": "é"},
        ):
            tab = Tab(await client.ws_connect("/session"))
            await tab.socket.send_json(hello)
            assert "token is missing or wrong" in (await tab.word("refused"))["text"]
            with pytest.raises(ConnectionError):
                await tab.frame(0)
        await open_tab(TOKEN)

    played(engine, part, tmp_path, token=TOKEN)


def test_pages_of_others_and_other_names_are_refused(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        here = f"127.0.0.1:{client.port}"
        for headers, status in (
            ({"Host": "evil.example"}, 403),  # DNS rebinding: a name of theirs that leads here
            ({"Host": f"evil.example:{client.port}", "Origin": f"http://evil.example:{client.port}"}, 403),
            ({"Origin": "http://evil.example"}, 403),
            ({"Origin": "null"}, 403),
            ({"Host": here, "Origin": "http://localhost:1"}, 403),
            ({"Host": here, "Origin": f"http://{here}"}, 200),
            ({"Host": f"localhost:{client.port}"}, 200),
            ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, 200),  # a tunnel
        ):
            assert (await client.get("/", headers=headers)).status == status, headers
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await client.ws_connect("/session", headers={"Origin": "http://evil.example"})

    played(engine, part, tmp_path)


def test_a_port_in_use() -> None:
    with open_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: in use on 127.0.0.1; give another"):
            open_port("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host no\.such\.host\.invalid"):
        open_port("no.such.host.invalid", 0)
