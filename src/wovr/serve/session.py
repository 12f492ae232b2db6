"""A tab: what it says, when its next frame is due, what it is sent.

Three coroutines. `_listen` reads and never waits for anything but the tab: of controls it keeps the newest, of orders a
few. `_play` keeps the time: it looks at the control as late as imagining lets it, so that a frame is of what the hand
does now. `_tell` sends: of frames only the newest, so a slow tab sees fewer of them and holds nothing up.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
from aiohttp import WSMsgType, web
from PIL import Image

from wovr.errors import UserError
from wovr.serve.access import Access
from wovr.serve.engine import Beginning, Engine
from wovr.serve.game import HAND, Game, Seen
from wovr.serve.keeping import Keeper
from wovr.serve.messages import MOST_SEED, Control, read_control, read_message

PATIENCE = 20.0
"""Seconds a tab may take to say who it is, and to read one message."""

MOST_ORDERS, MOST_TOLD = 8, 32
"""Orders that wait, and words that wait to be read, a tab."""

MOST_MESSAGES = 240
"""Messages a second that are read of a tab; the rest waits on its own side of the line."""

Compute = Callable[..., Awaitable[Any]]
T = TypeVar("T")


class Session:
    """One tab's connection, from its first word to its end.

    Args:
        socket: The connection.
        engine: What all tabs share.
        access: Says whether the tab may play.
        keeper: Keeps what was played.
        compute: Runs a function in the thread that asks the engine, and waits for it.
        seed: Of the noise of games whose page asks for none; None to draw one.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        engine: Engine,
        access: Access,
        keeper: Keeper,
        compute: Compute,
        seed: int | None = None,
    ) -> None:
        self.socket, self.engine, self.access, self.keeper = socket, engine, access, keeper
        self._compute, self._seed = compute, seed
        self._control = Control(engine.controls.rest.astype(np.float32), False, 0)
        self._orders: deque[dict[str, Any]] = deque()
        self._words: deque[str] = deque(maxlen=MOST_TOLD)
        self._frame: bytes | None = None
        self._changed, self._to_tell = asyncio.Event(), asyncio.Event()
        self._driver, self._temperature, self._always, self._again = HAND, 0.0, False, False
        self._due = 0.0
        self._needed = 0.0
        self._game: Game | None = None

    async def run(self) -> None:
        """Serve the tab to its end, whichever of the two leaves first."""
        if not await self._greet():
            return
        tasks = [asyncio.create_task(part()) for part in (self._listen, self._play, self._tell)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except (ConnectionError, TimeoutError):
            pass  # it has gone, or reads nothing any more
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.socket.close()

    async def _greet(self) -> bool:
        """Hear the token and say what there is; whether the tab may play."""
        try:
            first = await asyncio.wait_for(self.socket.receive(), PATIENCE)
            said = read_message(first.data) if first.type is WSMsgType.TEXT else {}
        except (UserError, TimeoutError):
            said = {}
        if said.get("do") != "hello" or not self.access.knows(str(said.get("token", ""))):
            await asyncio.sleep(0.5)  # guessing is slow
            text = "the token is missing or wrong; open the address that `wovr play` printed"
            with suppress(ConnectionError):
                await self.socket.send_str(json.dumps({"say": "refused", "text": text}))
                await self.socket.close()
            return False
        self._say("welcome", **self.engine.described())
        self._orders.append({"do": "begin"})
        self._changed.set()
        return True

    async def _listen(self) -> None:
        """Read what the tab says."""
        clock = asyncio.get_running_loop().time
        count, since, warned = 0, clock(), False
        async for message in self.socket:
            if message.type is WSMsgType.TEXT:
                try:
                    self._hear(message.data)
                except UserError as error:
                    self._say("error", text=str(error))
            elif message.type is WSMsgType.BINARY:
                self._say("error", text="a message that is not text; send an object with the key 'do'")
            count += 1
            if count >= MOST_MESSAGES:
                rest = since + 1.0 - clock()
                if rest > 0:
                    if not warned:
                        text = "this page sends faster than anybody can drive: only the newest control counts"
                        self._say("error", text=text)
                    warned = True
                    await asyncio.sleep(rest)
                count, since = 0, clock()

    def _hear(self, text: str) -> None:
        """Take a message in.

        Raises:
            UserError: It says nothing that can be done, or too much at once.
        """
        message = read_message(text)
        if message["do"] == "control":
            self._control = read_control(message, self.engine.env.action_dim)
        elif message["do"] == "hello":
            raise UserError("message hello: was said already", "say what to do")
        else:
            waiting = self._orders[-1] if self._orders else {}
            if message["do"] == waiting.get("do") == "rewind":
                self._orders.pop()  # a slider that is dragged: only where it is now counts
            if len(self._orders) >= MOST_ORDERS:
                raise UserError(
                    f"message {message['do']}: {MOST_ORDERS} others wait already", "wait for the next frame"
                )
            self._orders.append(message)
        self._changed.set()

    async def _play(self) -> None:
        """Carry out orders, and go on with the game when a frame is due."""
        while True:
            self._changed.clear()
            try:
                while self._orders:
                    await self._obey(self._orders.popleft())
                if self._game is not None and self._runs(self._game):
                    await self._go_on(self._game)
                    continue
            except UserError as error:
                self._driver, self._again = HAND, False
                self._say("error", text=str(error))
                self._say_state()
            self._due = 0.0
            if not self._orders:
                await self._changed.wait()

    def _runs(self, game: Game) -> bool:
        """Whether time goes on."""
        if game.over:
            if self._again or self._driver != HAND:
                self._again, self._driver = False, HAND
                self._say_state()
            return False
        if self._again and game.at >= game.branch.length:
            self._again = False
            self._say_state()
        return self._again or self._driver != HAND or self._always or self._control.active

    async def _go_on(self, game: Game) -> None:
        """Show the next frame when it is due."""
        clock = asyncio.get_running_loop().time
        due = self._due or clock()
        await self._sleep_until(due - self._needed)
        if self._orders:
            return
        begun, branch = clock(), game.branch
        control = self._control
        if self._again:
            if game.at >= game.branch.length:
                return
        elif self._driver != HAND:
            if not game.decided(self._driver):
                await self._compute(game.decide, self._driver, self._temperature)
                self._needed = self._learn(clock() - begun)
        elif self._always or control.active:
            if not game.foresees(control.action):
                await self._compute(game.prepare, control.action)
                self._needed = self._learn(clock() - begun)
        else:
            return
        await self._sleep_until(due)
        if self._orders:
            return
        game.advance()
        # After a frame that was late the next ones come a little sooner, but each can be seen.
        self._due = max(due + 1.0 / self.engine.fps, clock() + 0.5 / self.engine.fps)
        number = control.number if self._driver == HAND and not self._again else 0
        await self._show(game, number)
        if game.at % self.engine.chunk == 0 or game.over or game.branch is not branch:
            self._say("course", **game.course())

    def _learn(self, seconds: float) -> float:
        """How long before a frame is due its imagining has to begin; never more than a frame."""
        return min(1.0 / self.engine.fps, 1.1 * max(seconds, 0.8 * self._needed))

    async def _sleep_until(self, when: float) -> None:
        """Sleep, but not on when there are orders."""
        clock = asyncio.get_running_loop().time
        while not self._orders and (rest := when - clock()) > 0:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), rest)
            except TimeoutError:
                return

    async def _obey(self, order: dict[str, Any]) -> None:
        """Carry out an order.

        Raises:
            UserError: It cannot be.
        """
        game = self._game
        if order["do"] == "begin":
            await self._begin(order)
            return
        if order["do"] == "drive":
            driver = order.get("driver", self._driver)
            if driver != HAND and driver not in self.engine.drivers:
                raise UserError(
                    f"nobody here is called '{driver[:40]}'", f"there are: hand, {', '.join(self.engine.drivers)}"
                )
            self._driver, self._again = driver, False
            self._temperature = float(order.get("temperature", self._temperature))
            self._always = order.get("always", self._always)
            self._say_state()
            return
        if game is None:
            raise UserError(f"message {order['do']}: nothing has begun", "begin first")
        if order["do"] == "again":
            self._again = order.get("on", True)
            if self._again and game.at >= game.branch.length:
                game.rewind(0)
            self._say_state()
            return
        if order["do"] == "save":
            what = order.get("what", "imagined")
            place = await self._compute(self.keeper.keep, game, what)
            self._say("saved", what=what, path=str(place), name=place.name if what == "mp4" else "")
            return
        if order["do"] == "rewind":
            game.rewind(order.get("at", game.at), order.get("branch"))
        else:
            await self._compute(game.redraw)
        self._driver, self._again = HAND, False
        self._say_state()
        self._say("course", **game.course())
        await self._show(game)

    async def _begin(self, order: dict[str, Any]) -> None:
        starts = self.engine.starts
        seed = order.get("seed", self._seed)
        seed = secrets.randbelow(MOST_SEED) if seed is None else int(seed)

        def begin() -> tuple[Beginning, dict[str, Any]]:
            if "keyframe" in order:
                start = starts.keyframe(order["keyframe"])
            else:
                first = starts.tasks[0]
                suite, task = order.get("suite", first.suite), order.get("task", first.index)
                memory = self.engine.memory
                start = starts.start(suite, task, order.get("episode", 0), order.get("frame", 0), memory)
            found = self.engine.begin(start, seed)
            return found, {"suite": start.suite, "task": start.task, "note": found.note, "seed": seed}

        beginning, told = await self._compute(begin)
        self._game = Game(self.engine, beginning, seed)
        self._driver, self._again, self._due = HAND, False, 0.0
        begun = {name: order[name] for name in ("episode", "frame", "keyframe") if name in order}
        instruction = starts.instruction(told["suite"], told["task"])
        self._say("begun", **told, **begun, instruction=instruction)
        self._say_state()
        self._say("course", **self._game.course())
        await self._show(self._game)

    async def _show(self, game: Game, control: int = 0) -> None:
        """Have the frame that a game stands at sent."""
        seen = game.seen()
        about = {
            "say": "frame",
            "at": seen.at,
            "branch": game.branch.number,
            "length": game.branch.length,
            "values": {name: round(value, 4) for name, value in seen.values.items()},
            "action": None if seen.action is None else [round(float(value), 3) for value in seen.action],
            "driver": seen.driver,
            "control": control,
            "milliseconds": round(1000 * game.seconds),
            "over": game.over,
        }
        self._frame = pack(about, seen)
        self._to_tell.set()

    def _say_state(self) -> None:
        self._say("state", driver=self._driver, temperature=self._temperature, always=self._always, again=self._again)

    def _say(self, say: str, **values: Any) -> None:
        self._words.append(json.dumps({"say": say, **values}))
        self._to_tell.set()

    async def _tell(self) -> None:
        """Send what there is to send."""
        while not self.socket.closed:
            await self._to_tell.wait()
            self._to_tell.clear()
            while self._words:
                await asyncio.wait_for(self.socket.send_str(self._words.popleft()), PATIENCE)
            if (frame := self._frame) is not None:
                self._frame = None
                await asyncio.wait_for(self.socket.send_bytes(frame), PATIENCE)


def pack(about: dict[str, Any], seen: Seen) -> bytes:
    """A frame as it travels: 4 bytes that say how long the JSON is, the JSON, then its `pictures` as PNG.

    Args:
        about: JSON values about it; `pictures` (bytes of each) is added.
        seen: Imagined and, where there is one, real.
    """
    pictures = [_png(picture) for picture in (seen.frame, seen.real) if picture is not None]
    head = json.dumps({**about, "pictures": [len(picture) for picture in pictures]}).encode()
    return b"".join([len(head).to_bytes(4, "big"), head, *pictures])


def _png(frame: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(frame).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
