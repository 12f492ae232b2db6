"""`wovr play` under load: time to the first imagined frame, frames and latency of tabs, memory after many of them.

    python benchmarks/play.py --tabs 1,8 --connects 1000 -- --world_model runs/wm/checkpoints/last.ckpt

What stands after `--` goes to the command. Every tab changes its action every 0.3 s, three frames at 10 Hz, so that a
chunk is imagined again and again: the worst a hand does. Latency is from sending a control to the arrival of the first
frame that it led to. The result is printed as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

CHANGE = 0.3
"""Seconds between two actions of a tab."""


class Tab:
    """One tab: what it sent when, what came back when.

    Attributes:
        frames: Times at which frames arrived.
        latencies: Seconds from a control to its first frame.
        chunks: Milliseconds that imagining took, as the server says with each frame.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list[float] = []
        self.latencies: list[float] = []
        self.chunks: list[float] = []
        self._sent: dict[int, float] = {}

    async def open(self) -> int:
        """Say hello and wait for the first frame; returns the dimensions of an action."""
        await self.socket.send_json({"do": "hello"})
        dims = 0
        while True:
            message = await self.socket.receive()
            if message.type is aiohttp.WSMsgType.BINARY:
                return dims
            if message.type is not aiohttp.WSMsgType.TEXT:
                raise ConnectionError(f"the server says {message}")
            said = json.loads(message.data)
            dims = len(said["controls"]["axes"]) if said["say"] == "welcome" else dims

    async def drive(self, dims: int, seconds: float, seed: int) -> None:
        """Drive at random."""
        reading = asyncio.create_task(self._read())
        generator, end, number = random.Random(seed), time.perf_counter() + seconds, 0
        await asyncio.sleep(generator.random() * CHANGE)
        while time.perf_counter() < end:
            number += 1
            self._sent[number] = time.perf_counter()
            action = [round(generator.uniform(-1, 1), 2) for _ in range(dims)]
            await self.socket.send_json({"do": "control", "action": action, "active": True, "number": number})
            await asyncio.sleep(CHANGE)
        reading.cancel()

    async def _read(self) -> None:
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                now = time.perf_counter()
                length = int.from_bytes(message.data[:4], "big")
                said: dict[str, Any] = json.loads(message.data[4 : 4 + length])
                self.frames.append(now)
                self.chunks.append(said["milliseconds"])
                if (sent := self._sent.pop(said["control"], None)) is not None:
                    self.latencies.append(now - sent)
                if said["over"]:
                    await self.socket.send_json({"do": "begin"})


async def load(address: str, tabs: int, seconds: float) -> dict[str, Any]:
    """Frames and latency with so many tabs."""
    async with aiohttp.ClientSession() as client:
        opened = [Tab(await client.ws_connect(f"{address}session", max_msg_size=0)) for _ in range(tabs)]
        dims = [await tab.open() for tab in opened]
        await asyncio.gather(*(tab.drive(dims[i], seconds, i) for i, tab in enumerate(opened)))
    latencies = np.array([latency for tab in opened for latency in tab.latencies]) * 1000
    return {
        "tabs": tabs,
        "frames_per_second_of_a_tab": round(float(np.mean([len(tab.frames) for tab in opened])) / seconds, 2),
        "latency_ms_median": round(float(np.median(latencies)), 1),
        "latency_ms_p99": round(float(np.quantile(latencies, 0.99)), 1),
        "chunk_ms_median": round(float(np.median([chunk for tab in opened for chunk in tab.chunks])), 1),
        "controls": len(latencies),
    }


async def connect(address: str, count: int, pid: int) -> dict[str, Any]:
    """Memory before and after so many tabs that come, see a frame, and go: half of them without a word."""

    async def one(client: aiohttp.ClientSession, number: int) -> None:
        socket = await client.ws_connect(f"{address}session", max_msg_size=0)
        await Tab(socket).open()
        response = socket._response.connection
        if number % 2 and response is not None and response.transport is not None:
            response.transport.abort()
        else:
            await socket.close()

    found = {}
    async with aiohttp.ClientSession() as client:
        for number in range(count):
            if number == count // 10:  # whatever is made once is made by then
                found["megabytes_after_a_tenth"] = round(memory(pid), 1)
            await one(client, number)
        await asyncio.sleep(2)
    return {**found, "megabytes_after_all": round(memory(pid), 1), "connects": count, "open_files": files(pid)}


def memory(pid: int) -> float:
    """Resident memory of a process, MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def files(pid: int) -> int:
    """Open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def first_frame(address: str) -> None:
    """Open a tab, drive, and wait for the first imagined frame."""
    async with aiohttp.ClientSession() as client:
        tab = Tab(await client.ws_connect(f"{address}session", max_msg_size=0))
        dims = await tab.open()
        await tab.socket.send_json({"do": "control", "action": [0.0] * dims, "active": True})
        while (await tab.socket.receive()).type is not aiohttp.WSMsgType.BINARY:
            pass


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tabs", default="1,8", help="numbers of tabs")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each")
    parser.add_argument("--connects", type=int, default=1000, help="tabs that come and go")
    parser.add_argument("flags", nargs="*", help="of wovr play")
    given = parser.parse_args()
    begun = time.perf_counter()
    command = [sys.executable, "-m", "wovr", "play", "--port", "0", *given.flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = ""
    for line in process.stdout:
        if line.startswith("play at "):
            address = line.removeprefix("play at ").partition("#")[0].strip()
            break
    if not address:
        raise SystemExit(process.wait())
    try:
        result: dict[str, Any] = {"seconds_to_the_address": round(time.perf_counter() - begun, 2)}
        asyncio.run(first_frame(address))
        result["seconds_to_the_first_imagined_frame"] = round(time.perf_counter() - begun, 2)
        result["load"] = [asyncio.run(load(address, int(tabs), given.seconds)) for tabs in given.tabs.split(",")]
        result["machine_load"] = os.getloadavg()[0]
        result["memory"] = asyncio.run(connect(address, given.connects, process.pid))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
