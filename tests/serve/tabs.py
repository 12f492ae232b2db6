"""Tabs of a test client, and a server for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import WSMsgType
from aiohttp.test_utils import TestClient, TestServer

from wovr.serve.access import Access
from wovr.serve.app import make_app
from wovr.serve.engine import Engine
from wovr.serve.keeping import Keeper

TOKEN = "a-token-nobody-guesses"


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
