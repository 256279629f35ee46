"""The HTTP front: serves a `ChatServer` on a loopback port, from an event loop in one background thread.

It is the only place that knows aiohttp, and the only one in this package that reads the clock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType

import msgspec

try:
    from aiohttp import WSCloseCode, WSMsgType, web
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"the front of the embedded server needs {missing.name}: pip install 'webchat-fsm[server]', or '.[server]'"
        " in a checkout",
        name=missing.name,
    ) from missing

from webchat_fsm.lifecycle.encoding import utf8
from webchat_fsm.server.core import ChatServer
from webchat_fsm.server.exchange import Held, HttpAnswer, HttpRequest, Upgrade

_BODY_LIMIT = 256 * 1024 * 1024
_CLOSING_GRACE = 0.2


def wall_clock() -> float:
    """Seconds since the epoch."""
    return time.time()


class HttpFront:
    """A listening server; a context manager, after which its port, its thread and its connections are gone."""

    def __init__(self, server: ChatServer, host: str = "127.0.0.1", port: int = 0) -> None:
        self.server = server
        self._host = host
        self._port = port
        self._thread: threading.Thread | None = None
        self._running: _Running | None = None
        self._started = threading.Event()
        self._stopping = threading.Lock()
        self._failure: BaseException | None = None

    def start(self) -> HttpFront:
        """Listen; returns when the port is open and raises `OSError` where it cannot be had."""
        if self._thread is not None:
            raise RuntimeError("the front is already started")
        self._failure = None
        self._started.clear()
        self._thread = threading.Thread(target=self._run, name="webchat-server", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._running is None:
            self.stop()
        return self

    def stop(self) -> None:
        """Hang up on everybody and end the thread; without effect on a front that is not started. From any thread."""
        with self._stopping:
            if self._thread is not None:
                if self._running is not None:
                    self._running.ask_to_stop()
                self._thread.join()
            self._thread = self._running = None
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> HttpFront:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        if self._running is None:
            raise RuntimeError("the front is not started")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._running.port}"

    def data_url(self, service: str = "customer-support") -> str:
        """The v2 `dataURL` of a service."""
        return f"{self.url}/genesys/2/chat/{service}"

    @property
    def sessions_url(self) -> str:
        """The v3 `transport.dataURL`."""
        return f"{self.url}/nexus/v3/chat/sessions"

    @property
    def comet_url(self) -> str:
        """The `cometD.cometURL`."""
        return f"{self.url}/genesys/cometd"

    @property
    def comet_files_url(self) -> str:
        """The `cometD.apiURL`."""
        return f"{self.url}/genesys/2/chat-ntf"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # told to whoever called start()
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        running = _Running(self.server)
        await running.open(self._host, self._port)
        self._running = running
        self._started.set()
        await running.serve()


class _Running:
    """What lives inside the loop."""

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self._sockets: set[web.WebSocketResponse] = set()
        self.port = 0

    async def open(self, host: str, port: int) -> None:
        """Bind the port."""
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSING_GRACE
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        self.port = self._runner.addresses[0][1]

    async def serve(self) -> None:
        """Keep the server's own time until asked to stop, then close everything."""
        forget = self._server.on_change(self._wake_from_anywhere)
        had_clock = self._server.clock
        self._server.clock = had_clock or wall_clock
        ticking = asyncio.create_task(self._keep_time())
        try:
            await self._stop.wait()
        finally:
            forget()
            self._server.clock = had_clock
            ticking.cancel()
            self._wake()
            await asyncio.gather(ticking, return_exceptions=True)
            await self.hang_up()
            await self._runner.cleanup()

    def ask_to_stop(self) -> None:
        """End `serve`; callable from any thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def _wake_from_anywhere(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _until(self, due: float | None) -> None:
        """Wait for news, or for a moment."""
        news = self._news
        try:
            await asyncio.wait_for(news.wait(), None if due is None else max(0.0, due - self._now()))
        except TimeoutError:
            return

    def _now(self) -> float:
        return (self._server.clock or wall_clock)()

    async def _keep_time(self) -> None:
        while not self._stop.is_set():  # wait_for of Python 3.11 may swallow the cancellation when news comes with it
            due = self._server.tick(self._now())
            await self._until(due)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = HttpRequest.of(request.method, request.rel_url.raw_path_qs, dict(request.headers), await request.read())
        if asked.headers.get("upgrade", "").lower() == "websocket":
            upgrade = self._server.upgrade(asked, self._now())
            if upgrade is not None:
                return await self._upgrade(request, upgrade)
        outcome = self._server.begin(asked, self._now())
        answer = await self.wait_for(outcome) if isinstance(outcome, Held) else outcome
        if answer.delay:
            await asyncio.sleep(answer.delay)
        return await self._send(request, answer)

    async def _upgrade(self, request: web.Request, upgrade: Upgrade) -> web.StreamResponse:
        answer = upgrade.answer
        if answer.delay:
            await asyncio.sleep(answer.delay)
        if upgrade.frame is None or answer.fate != "whole":
            return await self._send(request, answer)
        socket = web.WebSocketResponse(timeout=_CLOSING_GRACE, max_msg_size=_BODY_LIMIT)
        socket.headers.update(answer.headers)
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await _Talk(self, socket, request, upgrade.frame).listen()
        finally:
            self._sockets.discard(socket)
            self.unplug(upgrade.frame.socket)
        return socket

    async def hang_up(self) -> None:
        """Close all websockets."""
        closing = (socket.close(code=WSCloseCode.GOING_AWAY) for socket in list(self._sockets))
        await asyncio.gather(*closing, return_exceptions=True)

    def begin(self, frame: HttpRequest) -> HttpAnswer | Held:
        """Hand a frame to the server."""
        return self._server.begin(frame, self._now())

    def news(self, socket: str) -> HttpAnswer | None:
        """What is to be sent over a websocket by itself."""
        return self._server.news(socket, self._now())

    def unplug(self, socket: str) -> None:
        """Keep the events for the clients of a websocket for their next connection, as this one ends."""
        self._server.unplug(socket, self._now())

    @property
    def changed(self) -> asyncio.Event:
        """Set when the server changes the next time."""
        return self._news

    async def wait_for(self, held: Held) -> HttpAnswer:
        """The answer to what is held, when it comes."""
        try:
            return await self._resumed(held)
        except asyncio.CancelledError:
            self._server.abandon(held, self._now())
            raise

    async def _resumed(self, held: Held) -> HttpAnswer:
        while True:
            news = self._news
            answer = self._server.resume(held, self._now())
            if answer is not None:
                return answer
            if self._stop.is_set():
                return HttpAnswer(503)
            try:
                await asyncio.wait_for(news.wait(), max(0.0, held.due - self._now()))
            except TimeoutError:
                continue

    async def _send(self, request: web.Request, answer: HttpAnswer) -> web.StreamResponse:
        if answer.fate == "drop":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if answer.fate == "tear":
            return await self._tear(request, answer)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _tear(self, request: web.Request, answer: HttpAnswer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        response.content_length = len(answer.body) + 1
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response


class _Talk:
    """One websocket: each frame is answered in its own time, and news are sent as they come."""

    def __init__(
        self, running: _Running, socket: web.WebSocketResponse, request: web.Request, frame: HttpRequest
    ) -> None:
        self._running, self._socket, self._request, self._frame = running, socket, request, frame
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Serve until either side closes."""
        self._begin(self._tell_news())
        try:
            async for message in self._socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                body = message.data if isinstance(message.data, bytes) else utf8(message.data)
                self._begin(self._answer(self._running.begin(msgspec.structs.replace(self._frame, body=body))))
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell_news(self) -> None:
        while not self._socket.closed:
            changed = self._running.changed
            answer = self._running.news(self._frame.socket)
            if answer is None:
                await changed.wait()
            else:
                await self._send(answer)

    async def _answer(self, outcome: HttpAnswer | Held) -> None:
        answer = await self._running.wait_for(outcome) if isinstance(outcome, Held) else outcome
        if answer.delay:
            await asyncio.sleep(answer.delay)
        await self._send(answer)

    async def _send(self, answer: HttpAnswer) -> None:
        """Send an answer as a frame; what only HTTP could say ends the websocket."""
        transport = self._request.transport
        if answer.fate != "whole":  # before another task sends events into a connection that is about to end
            self._running.unplug(self._frame.socket)
        with suppress(ConnectionError):
            if answer.fate == "whole" and answer.status == 200:
                await self._send_frame(answer.body)
            elif answer.fate == "whole":
                await self._socket.close(code=_CLOSING[answer.status >= 500])
            elif transport is not None and answer.fate == "tear":
                transport.write(_frame_begun(answer.body))
                transport.close()
            elif transport is not None:
                transport.abort()

    async def _send_frame(self, body: bytes) -> None:
        try:
            await self._socket.send_str(body.decode())
        except UnicodeDecodeError:
            await self._socket.send_bytes(body)


_CLOSING = {False: WSCloseCode.POLICY_VIOLATION, True: WSCloseCode.INTERNAL_ERROR}


def _frame_begun(body: bytes) -> bytes:
    """A text frame that announces all of a body and has half of it."""
    return b"\x81\x7f" + len(body).to_bytes(8, "big") + body[: len(body) // 2]
