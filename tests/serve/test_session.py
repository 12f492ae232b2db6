"""Tabs at a server: driving, rewinding, garbage, floods, slow and closed ones."""

from __future__ import annotations

import asyncio
import gc
import weakref
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.serve.tabs import Tab, played
from wovr.serve import session as session_module
from wovr.serve.engine import Engine


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
    ('{"do": "begin", "suite": "../x", "task": 0}', "no start state of task ../x"),
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
