"""The server: the page, its sessions, and what is refused before either."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any

from aiohttp import WSCloseCode, web

from wovr.serve.access import Access
from wovr.serve.engine import Engine
from wovr.serve.keeping import Keeper
from wovr.serve.session import PATIENCE, Session

PAGE = {
    "/": ("index.html", "text/html"),
    "/play.css": ("play.css", "text/css"),
    "/play.js": ("play.js", "text/javascript"),
}
"""Path -> (file of `page/`, its type)."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}

MOST_FRAME = 1 << 16
"""Bytes of a message at which the connection is cut; shorter ones that are too long are answered."""


def make_app(
    engine: Engine, keeper: Keeper, access: Access, most_sessions: int, seed: int | None = None
) -> web.Application:
    """The application; closes the engine when it ends.

    Args:
        engine: What all tabs share.
        keeper: Keeps what was played.
        access: Says who may talk to it.
        most_sessions: Tabs at a time.
        seed: Of the noise of every game; None for one drawn each time.
    """
    thread = ThreadPoolExecutor(1, "imagination")
    sessions: set[web.WebSocketResponse] = set()

    async def compute(function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(thread, function, *arguments)

    @web.middleware
    async def check(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        refusal = access.refusal(request.headers.get("Host"), request.headers.get("Origin"))
        if refusal:
            return web.Response(status=403, text=f"{refusal}\n", headers=HEADERS)
        return await handler(request)

    async def page(request: web.Request) -> web.Response:
        name, kind = PAGE[request.path]
        text = files("wovr.serve").joinpath("page", name).read_text("utf-8")
        return web.Response(text=text, content_type=kind, charset="utf-8", headers=HEADERS)

    async def kept(request: web.Request) -> web.StreamResponse:
        word, _, token = request.headers.get("Authorization", "").partition(" ")
        if not access.knows(token if word == "Bearer" else ""):
            return web.Response(status=403, text="the token is missing or wrong\n", headers=HEADERS)
        path = keeper.films.get(request.match_info["name"])
        if path is None or not path.is_file():
            return web.Response(status=404, text="there is nothing of that name\n", headers=HEADERS)
        return web.FileResponse(path, headers=HEADERS)

    async def session(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse(heartbeat=PATIENCE, max_msg_size=MOST_FRAME, compress=False)
        await ws.prepare(request)
        if len(sessions) >= most_sessions:
            text = f"{most_sessions} tabs play already; close one, or start the server with more --sessions"
            await ws.send_json({"say": "refused", "text": text})
            await ws.close()
            return ws
        sessions.add(ws)
        try:
            await Session(ws, engine, access, keeper, compute, seed).run()
        finally:
            sessions.discard(ws)
        return ws

    async def end(app: web.Application) -> None:
        for ws in list(sessions):
            await ws.close(code=WSCloseCode.GOING_AWAY, message=b"the server ends")

    async def close(app: web.Application) -> None:
        thread.shutdown()
        engine.close()

    app = web.Application(middlewares=[check])
    for path in PAGE:
        app.router.add_get(path, page)
    app.router.add_get("/session", session)
    app.router.add_get("/kept/{name}", kept)
    app.on_shutdown.append(end)
    app.on_cleanup.append(close)
    return app


async def serve(app: web.Application, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until cancelled.

    Args:
        app: The application.
        listening: From `wovr.serve.listening.open_port`.
        ready: Called once it answers.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        ready()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
