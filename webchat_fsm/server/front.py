"""The HTTP front: serves a `ChatServer` on a loopback port, from an event loop in one background thread.

Only this module imports aiohttp, and only this module of the package reads the clock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType

import msgspec

from webchat_fsm._errors import missing_extra
from webchat_fsm._json import utf8

try:
    from aiohttp import WSCloseCode, WSMsgType, web
except ImportError as _missing:
    raise missing_extra("the HTTP front of the embedded server", "server", "aiohttp") from _missing

from webchat_fsm.server._core import ChatServer
from webchat_fsm.server._http import Held, HttpRequest, ServerAnswer, Upgrade

# aiohttp's own limits, 1 MiB of a body and 4 MiB of a frame, are less than an upload may have.
_BODY_LIMIT = 256 * 1024 * 1024
# Seconds for requests that are still running at the stop; aiohttp's default is a minute.
_CLOSING_GRACE = 0.2


def wall_clock() -> float:
    """Return the time of the machine in seconds since the epoch."""
    return time.time()


class HttpFront:
    """A listening server; a context manager that releases its port, its thread and its connections on exit."""

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
        """Listen; returns when the port is open, raises `OSError` where it cannot be bound."""
        if self._thread is not None:
            raise RuntimeError("the front is already started: stop it before another start")
        self._failure = None
        self._started.clear()
        # A daemon: a program that ends without `stop` must not wait for its server.
        self._thread = threading.Thread(target=self._run, name="webchat-server", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._running is None:
            self.stop()
        return self

    def stop(self) -> None:
        """Close all connections and end the thread; callable from any thread, without effect if not started."""
        with self._stopping:
            if self._thread is not None:
                if self._running is not None:
                    self._running.request_stop()
                self._thread.join()
            self._thread = self._running = None
        # Outside the lock; every caller sees why the front has failed.
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
        """Return scheme, host and port, `http://127.0.0.1:8080`; raises `RuntimeError` before `start`."""
        if self._running is None:
            raise RuntimeError("the front is not started: call start(), or use it in a with statement")
        # A URL has an IPv6 address in brackets.
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._running.port}"

    def data_url(self, service: str = "customer-support") -> str:
        """Return the URL of a v2 service, the `dataURL` of a configuration."""
        return f"{self.url}/genesys/2/chat/{service}"

    @property
    def sessions_url(self) -> str:
        """Return the URL of the v3 sessions, the `transport.dataURL` of a configuration."""
        return f"{self.url}/nexus/v3/chat/sessions"

    @property
    def comet_url(self) -> str:
        """Return the URL of the Bayeux gateway, the `cometD.cometURL` of a configuration."""
        return f"{self.url}/genesys/cometd"

    @property
    def comet_files_url(self) -> str:
        """Return the URL of the file form, the `cometD.apiURL` of a configuration."""
        return f"{self.url}/genesys/2/chat-ntf"

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # raised in the thread that called start()
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
    """The part of a front that runs in the event loop."""

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._sockets: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def open(self, host: str, port: int) -> None:
        """Bind the port, 0 for a free one; raises `OSError` where it cannot be bound."""
        application = web.Application(client_max_size=_BODY_LIMIT)
        application.router.add_route("*", "/{path:.*}", self._handle)
        # Without cancellation a held poll would outlive its client and take the next events with it.
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=_CLOSING_GRACE)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner, self.port = runner, runner.addresses[0][1]

    async def serve(self) -> None:
        """Keep the server's own time until asked to stop, then close everything."""
        unregister = self._server.on_change(self._wake_from_any_thread)
        previous_clock = self._server.clock
        # The core has no clock of its own; people who are moved from a test act by it while the front runs.
        self._server.clock = previous_clock or wall_clock
        ticking = asyncio.create_task(self._keep_time())
        try:
            await self._stop.wait()
        finally:
            unregister()
            self._server.clock = previous_clock
            ticking.cancel()
            self._wake()
            await asyncio.gather(ticking, return_exceptions=True)
            await self.close_sockets()
            if self._runner is not None:
                await self._runner.cleanup()

    def request_stop(self) -> None:
        """Let `serve` end; callable from any thread."""
        self._loop.call_soon_threadsafe(self._stop.set)

    def _wake_from_any_thread(self) -> None:
        # A change in another thread may still call this watcher although it has been unregistered.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        # A new event for the next change: clearing this one could lose the wake-up of a waiter that has not run yet.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _until(self, due: float | None) -> None:
        """Wait for a change of the server, or until `due` in seconds since the epoch; None waits for a change alone."""
        await _set_within(self._changed, None if due is None else max(0.0, due - self._now()))

    def _now(self) -> float:
        return (self._server.clock or wall_clock)()

    async def _keep_time(self) -> None:
        while True:
            await self._until(self._server.tick(self._now()))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        # The raw path: the dialects decode it themselves, as they do without sockets.
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
        # Refused, or hit by a fault: the client sees a plain HTTP answer, or none.
        if upgrade.frame is None or answer.fate != "whole":
            return await self._send(request, answer)
        socket = web.WebSocketResponse(timeout=_CLOSING_GRACE, max_msg_size=_BODY_LIMIT)
        socket.headers.update(answer.headers)
        await socket.prepare(request)
        self._sockets.add(socket)
        try:
            await _Socket(self, socket, request, upgrade.frame).listen()
        finally:
            self._sockets.discard(socket)
            self.socket_closed(upgrade.frame.socket)
        return socket

    async def close_sockets(self) -> None:
        """Close all websockets with status 1001, going away."""
        closing = (socket.close(code=WSCloseCode.GOING_AWAY) for socket in list(self._sockets))
        await asyncio.gather(*closing, return_exceptions=True)

    def begin(self, frame: HttpRequest) -> ServerAnswer | Held:
        """Answer the messages of a frame, or hold the connect among them."""
        return self._server.begin(frame, self._now())

    def pushes(self, socket: str) -> ServerAnswer | None:
        """Return the events to push over a websocket now, or None."""
        return self._server.pushes(socket, self._now())

    def socket_closed(self, socket: str) -> None:
        """Keep the events for the clients of a websocket for their next connection, as this one ends."""
        self._server.socket_closed(socket, self._now())

    @property
    def changed(self) -> asyncio.Event:
        """Return the event that is set by the next change of the server; each change has a new one."""
        return self._changed

    async def wait_for(self, held: Held) -> ServerAnswer:
        """Return the answer to a held request when it comes; a cancellation releases the request."""
        try:
            return await self._resumed(held)
        except asyncio.CancelledError:
            self._server.abandon(held, self._now())
            raise

    async def _resumed(self, held: Held) -> ServerAnswer:
        while True:
            changed = self._changed
            answer = self._server.resume(held, self._now())
            if answer is not None:
                return answer
            # A held poll would keep the connection, and with it `cleanup`, until its time is over.
            if self._stop.is_set():
                return ServerAnswer(503)
            await _set_within(changed, max(0.0, held.due - self._now()))

    async def _send(self, request: web.Request, answer: ServerAnswer) -> web.StreamResponse:
        if answer.fate == "drop":
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if answer.fate == "tear":
            return await self._tear(request, answer)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _tear(self, request: web.Request, answer: ServerAnswer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        # One byte more than there is, so that even an empty body is incomplete.
        response.content_length = len(answer.body) + 1
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response


class _Socket:
    """One websocket: what is held or delayed has a task of its own, and events are pushed as they come."""

    def __init__(
        self, running: _Running, socket: web.WebSocketResponse, request: web.Request, frame: HttpRequest
    ) -> None:
        self._running, self._socket, self._request, self._frame = running, socket, request, frame
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    async def listen(self) -> None:
        """Read frames until either side closes, and then cancel what is still held."""
        self._begin(self._push_events())
        try:
            async for message in self._socket:
                if self._ended or message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                body = message.data if isinstance(message.data, bytes) else utf8(message.data)
                outcome = self._running.begin(msgspec.structs.replace(self._frame, body=body))
                # In a task of its own: a held connect, or a slow answer, must not keep the frames behind it.
                if isinstance(outcome, Held) or outcome.delay:
                    self._begin(self._answer(outcome))
                else:
                    # Not in a task, as another one may push the events of this very frame first.
                    await self._send(outcome)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _push_events(self) -> None:
        while not self._socket.closed:
            changed = self._running.changed
            answer = self._running.pushes(self._frame.socket)
            if answer is None:
                await changed.wait()
            else:
                await self._send(answer)

    async def _answer(self, outcome: ServerAnswer | Held) -> None:
        answer = await self._running.wait_for(outcome) if isinstance(outcome, Held) else outcome
        if answer.delay:
            await asyncio.sleep(answer.delay)
        await self._send(answer)

    async def _send(self, answer: ServerAnswer) -> None:
        """Send an answer as a frame; an answer without a frame, such as an HTTP status, closes the websocket."""
        transport = self._request.transport
        if _ends(answer):  # before another task pushes events into a connection that is about to end
            self._ended = True
            self._running.socket_closed(self._frame.socket)
        # The client has gone; its events stay queued for the next connection.
        with suppress(ConnectionError):
            if not _ends(answer):
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
            # The body of a fault may be any bytes, which a text frame must not carry.
            await self._socket.send_bytes(body)


async def _set_within(event: asyncio.Event, seconds: float | None) -> None:
    """Wait for an event for so many seconds at most, None for ever; being cancelled always raises `CancelledError`."""
    # `asyncio.wait_for` of Python 3.11 swallows a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _ends(answer: ServerAnswer) -> bool:
    """Return whether an answer to a frame is the end of the websocket."""
    return answer.fate != "whole" or answer.status != 200


_CLOSING = {False: WSCloseCode.POLICY_VIOLATION, True: WSCloseCode.INTERNAL_ERROR}


def _frame_begun(body: bytes) -> bytes:
    """Return a text frame that announces all of a body and has half of it."""
    # 0x81 is the final text frame, 0x7f a length of 64 bits; frames of a server are not masked.
    return b"\x81\x7f" + len(body).to_bytes(8, "big") + body[: len(body) // 2]
