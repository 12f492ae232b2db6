"""The server with tabs of a test client: what it says, refuses, survives, and does not keep."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from tests.serve.tiny_play import engine_of, write_parts
from wovr.data.store.reader import EpisodeStore
from wovr.errors import UserError
from wovr.serve import session as session_module
from wovr.serve.access import Access
from wovr.serve.app import HEADERS, make_app
from wovr.serve.engine import Engine
from wovr.serve.keeping import Keeper
from wovr.serve.listening import open_port

TOKEN = "a-token-nobody-guesses"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_parts(tmp_path_factory.mktemp("play"))


@pytest.fixture
def engine(parts: Path) -> Iterator[Engine]:
    with engine_of(parts) as engine:
        yield engine


class Tab:
    """A page as seen from the other side."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[dict[str, Any]] = []
        self.pictures: list[list[bytes]] = []
        self.said: list[dict[str, Any]] = []

    async def do(self, do: str, **values: Any) -> None:
        await self.socket.send_json({"do": do, **values})

    async def hear(self, wanted: Callable[[dict[str, Any]], bool], seconds: float = 30) -> dict[str, Any]:
        """Read up to a message or frame that is wanted."""
        async with asyncio.timeout(seconds):
            while True:
                message = await self.socket.receive()
                if message.type is WSMsgType.BINARY:
                    length = int.from_bytes(message.data[:4], "big")
                    said = json.loads(message.data[4 : 4 + length])
                    rest, pictures = message.data[4 + length :], []
                    for size in said["pictures"]:
                        pictures.append(rest[:size])
                        rest = rest[size:]
                    assert not rest
                    self.frames.append(said)
                    self.pictures.append(pictures)
                elif message.type is WSMsgType.TEXT:
                    said = json.loads(message.data)
                    self.said.append(said)
                else:
                    raise ConnectionError(message)
                if wanted(said):
                    return said

    async def frame(self, at: int) -> dict[str, Any]:
        return await self.hear(lambda said: said["say"] == "frame" and said["at"] == at)

    async def word(self, say: str) -> dict[str, Any]:
        return await self.hear(lambda said: said["say"] == say)


def played(engine: Engine, part: Callable[[TestClient[Any, Any], Callable[..., Awaitable[Tab]]], Awaitable[None]],
           out: Path, token: str = "", most: int = 8) -> None:  # fmt: skip
    """Run a part against a server; `open_tab(token)` opens a tab that has said hello and seen its first frame."""

    async def run() -> None:
        app = make_app(engine, Keeper(out, "abc"), Access("127.0.0.1", token), most, seed=3)
        app.on_cleanup.clear()  # the fixture closes the engine
        async with TestClient(TestServer(app)) as client:

            async def open_tab(given: str = token) -> Tab:
                tab = Tab(await client.ws_connect("/session"))
                await tab.do("hello", token=given)
                await tab.frame(0)
                return tab

            await part(client, open_tab)

    asyncio.run(run())


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


def test_a_tab_drives_and_its_controls_are_answered(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        tab = await open_tab()
        [welcome] = [said for said in tab.said if said["say"] == "welcome"]
        assert welcome["drivers"] == ["clone", "expert"]
        assert [task["task"] for task in welcome["tasks"]] == [0, 1, 2]
        assert len(welcome["controls"]["axes"]) == 2
        await tab.do("control", action=[1.0, 0.0], active=True, number=7)
        frame = await tab.frame(10)
        assert (frame["control"], frame["driver"], frame["action"]) == (7, "hand", [1.0, 0.0])
        assert set(frame["values"]) == {"success_probability", "value", "success", "apart", "real_success"}
        await tab.do("control", action=[1.0, 0.0], active=False, number=8)
        with pytest.raises(TimeoutError):
            await tab.hear(lambda said: said["say"] == "frame" and said["at"] > tab.frames[-1]["at"] + 1, 1.5)
        imagined, real = tab.pictures[-1]
        for picture in (imagined, real):
            assert np.asarray(Image.open(BytesIO(picture))).shape == (16, 16, 3)

    played(engine, part, tmp_path)


def test_rewinding_branching_and_playing_again(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        tab = await open_tab()
        await tab.do("control", action=[0.5, 0.5], active=True)
        await tab.frame(12)
        await tab.do("control", action=[0.5, 0.5], active=False)
        await tab.do("rewind", at=0)
        await tab.frame(0)
        first = {frame["at"]: pictures for frame, pictures in zip(tab.frames, tab.pictures, strict=True)}
        del tab.frames[:], tab.pictures[:]
        await tab.do("again", on=True)
        await tab.frame(12)
        for frame, pictures in zip(tab.frames, tab.pictures, strict=True):
            # Earlier frames of the open chunk were held on: those of finished ones cannot have changed.
            assert pictures == first[frame["at"]]
        await tab.do("rewind", at=4)
        await tab.frame(4)
        await tab.do("control", action=[-1.0, 0.0], active=True)
        frame = await tab.frame(6)
        assert frame["branch"] == 1
        await tab.do("control", action=[-1.0, 0.0], active=False)
        await tab.do("redraw")
        said = await tab.hear(lambda said: said["say"] == "course" and said["branch"] == 2)
        assert [branch["parent"] for branch in said["branches"]] == [-1, 0, 1]
        await tab.do("rewind", at=9, branch=5)
        assert "there is no branch 5" in (await tab.word("error"))["text"]

    played(engine, part, tmp_path)


def test_a_policy_drives_until_the_hand_takes_over(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        tab = await open_tab()
        await tab.do("drive", driver="clone", temperature=0.5)
        assert (await tab.frame(11))["driver"] == "clone"
        await tab.do("drive", driver="hand")
        await tab.do("control", action=[0.25, 0.0], active=True, number=4)
        frame = await tab.hear(lambda said: said["say"] == "frame" and said["driver"] == "hand")
        assert frame["control"] == 4
        await tab.do("drive", driver="nobody")
        assert "nobody here is called 'nobody'" in (await tab.word("error"))["text"]

    played(engine, part, tmp_path)


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


def test_tabs_share_nothing(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        alone = await open_tab()
        await alone.do("control", action=[0.5, -0.5], active=True)
        await alone.frame(9)
        expected = {frame["at"]: alone.pictures[i] for i, frame in enumerate(alone.frames)}
        await alone.socket.close()
        one, other = await open_tab(), await open_tab()
        await other.do("begin", suite="spatial", task=1, episode=0, frame=2, seed=8)
        await other.word("begun")
        await one.do("control", action=[0.5, -0.5], active=True)
        await other.do("control", action=[-1.0, 1.0], active=True)
        await asyncio.gather(one.frame(9), other.frame(9))
        assert all(one.pictures[i] == expected[frame["at"]] for i, frame in enumerate(one.frames))
        assert one.pictures[-1] != other.pictures[-1]

    played(engine, part, tmp_path)


GARBAGE = [
    ("\x00\xff{", "not JSON"),
    ("[" * 3000, "not JSON"),
    ('"do"', "without the key 'do'"),
    ('{"do": 3}', "without the key 'do'"),
    ('{"do": "format"}', "unknown message 'format'"),
    ('{"do": "rewnd"}', "did you mean rewind?"),
    ('{"do": "control", "action": [1.0]}', "give 2 numbers"),
    ('{"do": "control", "action": [NaN, 0]}', "action is"),
    ('{"do": "control", "action": [1e99, 0]}', "action is"),
    ('{"do": "control", "action": [2, 0]}', "out of range"),
    ('{"do": "control", "action": "left"}', "action is"),
    ('{"do": "control", "action": [0, 0], "number": -1}', "number is"),
    ('{"do": "rewind", "at": true}', "at is true"),
    ('{"do": "rewind", "at": 100}', "has no frame 100"),
    ('{"do": "begin", "suite": "../x", "task": 0}', "no episode of task ../x"),
    ('{"do": "begin", "task": 0, "episode": 99}', "no episode 99"),
    ('{"do": "begin", "keyframe": 0}', "no keyframe 0"),
    ('{"do": "save", "what": "/etc/passwd"}', "what is"),
    ('{"do": "save", "path": "/etc/passwd"}', "unknown key 'path'"),
    ('{"do": "hello"}', "said already"),
    ('{"do": "drive", "temperature": Infinity}', "temperature is"),
    ('{"do": "begin", "x": "' + "a" * 5000 + '"}', "more than 4096 bytes"),
]


def test_garbage_is_answered_and_nothing_is_lost(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        tab, other = await open_tab(), await open_tab()
        await other.do("control", action=[0.5, 0.5], active=True)
        await tab.do("control", action=[0.5, 0.5], active=True)
        await tab.frame(3)
        await tab.do("control", action=[0.5, 0.5], active=False)
        for text, expected in GARBAGE:
            await tab.socket.send_str(text)
            said = await tab.word("error")
            assert expected in said["text"], text
            assert "\n" not in said["text"]
        await tab.socket.send_bytes(b"\x00" * 100)
        assert "not text" in (await tab.word("error"))["text"]
        at = tab.frames[-1]["at"]
        assert at >= 3
        await tab.do("control", action=[0.5, 0.5], active=True)
        await tab.frame(at + 4)
        await other.frame(max(frame["at"] for frame in other.frames) + 4)

    played(engine, part, tmp_path)


def test_a_flood_is_slowed_down_and_the_newest_control_counts(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "MOST_MESSAGES", 60)

    async def part(client: Any, open_tab: Any) -> None:
        tab, other = await open_tab(), await open_tab()
        count = 150
        await other.do("control", action=[1.0, 0.0], active=True)
        for number in range(1, count + 1):
            await tab.do("control", action=[number / count, 0.0], active=True, number=number)
        said = await tab.word("error")
        assert "sends faster than anybody can drive" in said["text"]
        await tab.hear(lambda said: said["say"] == "frame" and said["control"] == count)
        controls = [frame["control"] for frame in tab.frames if frame["control"]]
        assert controls == sorted(controls)
        assert len(set(controls)) < count
        await other.frame(5)
        for _ in range(40):
            await tab.do("redraw")
        assert "others wait already" in (await tab.word("error"))["text"]

    played(engine, part, tmp_path)


def sessions() -> list[session_module.Session]:
    """Those that are in memory."""
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is session_module.Session]


def test_a_slow_tab_sees_fewer_frames_and_holds_nobody_up(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        tab = await open_tab()
        [slow] = sessions()
        reads = asyncio.Event()
        send = slow.socket.send_bytes

        async def once_it_reads(data: bytes) -> None:
            await reads.wait()
            await send(data)

        slow.socket.send_bytes = once_it_reads  # type: ignore[method-assign,assignment]
        other = await open_tab()
        for one in (tab, other):
            await one.do("control", action=[1.0, 0.0], active=True)
        await other.frame(20)
        assert slow._game is not None
        assert slow._game.at > 5  # its game goes on, and of its frames there is one at most
        assert len(slow._words) <= session_module.MOST_TOLD
        reads.set()
        await tab.hear(lambda said: said["say"] == "frame" and said["at"] > 5)
        assert len(tab.frames) <= 3

    played(engine, part, tmp_path)


def test_closed_tabs_leave_nothing_behind(engine: Engine, tmp_path: Path) -> None:
    async def part(client: Any, open_tab: Any) -> None:
        kept: list[weakref.ref[Any]] = []
        for how in ("politely", "abruptly", "at once"):
            tab = Tab(await client.ws_connect("/session"))
            await tab.do("hello")
            if how != "at once":
                await tab.frame(0)
                await tab.do("control", action=[1.0, 0.0], active=True)
                await tab.frame(2)
            kept += [weakref.ref(one) for one in sessions()]
            if how == "politely":
                await tab.socket.close()
            else:
                tab.socket._response.connection.transport.abort()  # type: ignore[union-attr]
            del tab
        for _ in range(100):
            await asyncio.sleep(0.05)
            gc.collect()
            if not any(ref() for ref in kept):
                break
        assert kept
        assert not any(ref() for ref in kept)
        tasks = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}  # type: ignore[union-attr]
        assert not any(name.startswith("Session.") for name in tasks)

    played(engine, part, tmp_path, most=1)


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
