"""CometD over a websocket: one socket for all requests of a service, and long polling where it cannot be had.

The only importer of `websockets`, whose protocol without sockets is used over sockets of our own: their total deadlines
hold, closing cuts them, and no thread is started. Whoever waits for an answer reads, one thread at a time, and gives
the others what is theirs.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN, Event
from websockets.uri import parse_uri

from webchat_fsm.config import Config
from webchat_fsm.errors import TransportError
from webchat_fsm.runtime import clock, sockets
from webchat_fsm.runtime.http import BROKEN, CUT, LATE, LOST, TOO_LARGE, Urllib3Http, shown
from webchat_fsm.runtime.sockets import Flight, Flights, Stream
from webchat_fsm.wire.cometd import FILE_OPERATIONS, over_websocket
from webchat_fsm.wire.correspondence import HANDSHAKE, Correspondence, FrameError, Question
from webchat_fsm.wire.request import HttpAnswer, Request

log = logging.getLogger("webchat_fsm")

_frames = logging.getLogger("webchat_fsm.frames")
_frames.propagate = False
_frames.setLevel(sys.maxsize)
"""Where `websockets` would write each header and each frame, secrets included: nowhere."""

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r?\n")
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})

UNBOUNDED = sys.maxsize
"""Bytes that one reader may take in: it reads for others too, and what it gives them is bounded message by message."""

PONG = 1.0
"""Seconds within which a peer must take what the protocol says by itself, though the reader's own time may be over."""

SERVER_ERROR = 500
TOO_MANY = 429
"""Statuses, the first of many, that tell of trouble for a time rather than of a server that knows no websocket."""


LINES_AT_MOST = 2
"""Websockets that are tried for one message: the one that is open, which may have ended unnoticed, and a new one."""


class RefusedError(OSError):
    """The server has answered the upgrade, but not with a websocket."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answered {status}")
        self.for_good = status < SERVER_ERROR and status != TOO_MANY


class EndedError(OSError):
    """The line has ended; the text is for the user."""


class WebsocketHttp:
    """An `Http` that sends Bayeux messages over a websocket, and the rest over the one it is given.

    Where no websocket can be had, a message goes over the other one in the same call. After an answer that refuses the
    upgrade all do, for as long as this object lives; after a failure of the network those of the same client. Where a
    handshake is met by silence, or by a loss of a websocket over which nothing has come yet, the next one goes over the
    other.
    """

    def __init__(self, config: Config, plain: Urllib3Http) -> None:
        self._url = config.comet_d.comet_url.rstrip("/")
        self._most = config.client.max_answer_size
        self._plain = plain
        self._refused = self._fallen = self._mute = False
        self._begin()

    def _begin(self) -> None:
        self._flights = Flights()
        self._opening = threading.RLock()
        self._line: Line | None = None
        self._untold = False

    def after_fork(self) -> None:
        """Begin anew in a child of a fork, without a word over the line that is its parent's."""
        self._flights.leave()
        if self._line is not None:
            self._line.after_fork()
        self._begin()
        self._plain.after_fork()

    def send(self, request: Request) -> HttpAnswer:
        """Make the request; raises `TransportError` where no complete answer comes."""
        if request.operation in FILE_OPERATIONS:
            return self._plain.send(request)
        begun = clock.monotonic()
        told = self._by_socket(request, begun + (clock.LONGEST if request.timeout is None else request.timeout))
        if told is not None:
            body, line = told
            return HttpAnswer(status=200, body=body, line=line)
        answer = self._plain.send(request, begun)
        self._fallen = self._fallen or answer.status == 200
        return answer

    def cut(self) -> None:
        """Let every request in flight fail at once; later ones may be sent."""
        self._end_line()  # first, for all who share it to hear the same reason
        self._flights.cut()
        self._end_line()  # another may have been opened meanwhile
        self._plain.cut()

    def close(self) -> None:
        """Give up all connections."""
        self._end_line()
        self._plain.close()

    def _end_line(self) -> None:
        if (line := self._line) is not None:
            line.end(CUT)

    def _by_socket(self, request: Request, deadline: float) -> tuple[bytes, str] | None:
        """The answer, and how it came by the line; None where long polling is to bring it."""
        question, flight = Question(request.body), Flight(deadline, UNBOUNDED)
        try:
            self._flights.add(flight)
            if not request.wanted():
                raise EndedError(CUT)
            answer = self._asked(request, question, flight, deadline)
            held = "held" if question.sent else "unsent"
            return None if answer is None else (answer, held if question.early else "answered")
        except Exception as error:  # of `websockets`, ssl, a patched socket: of whatever kind
            silent = not flight.was_cut and self._line is not None and self._line.mute
            self._mute = self._mute or (silent and question.channel == HANDSHAKE)
            raise TransportError(f"{request.operation}: {_told(error, request, flight)}") from shown(error)
        finally:
            self._flights.discard(flight)

    def _asked(self, request: Request, question: Question, flight: Flight, deadline: float) -> bytes | None:
        for _ in range(LINES_AT_MOST):
            line = self._line_for(request, question, flight, deadline)
            if line is None:
                return None
            answer = line.ask(question, over_websocket(request.body), flight, deadline, request.listen)
            if answer is not None:
                if request.operation == "hangup":
                    line.leave(question)
                return answer
        log.info("no websocket (each one ended before anything was sent over it): long polling instead")
        return None

    def _line_for(self, request: Request, question: Question, flight: Flight, deadline: float) -> Line | None:
        """The line, opened where there is none. A loss of it that no connect was told of fails the next connect."""
        try:  # around the taking too: a signal may come between a call and what follows it
            if not self._opening.acquire(timeout=max(0.0, deadline - clock.monotonic())):
                raise TimeoutError
            if flight.was_cut:
                raise EndedError(CUT)
            if self._line is not None and self._line.ended:
                self._untold, self._line = self._untold or not self._line.told, None
            if question.channel == HANDSHAKE:
                self._untold, self._fallen, self._mute = False, self._mute, False
            if question.is_connect and self._untold:
                self._untold = False
                raise EndedError(LOST)
            return None if self._refused or self._fallen else self._line or self._open(request, flight, deadline)
        finally:
            try:  # noqa: SIM105  (`suppress` is a function in Python, at whose entry a signal may come)
                self._opening.release()
            except RuntimeError:
                pass  # it was not taken

    def _open(self, request: Request, flight: Flight, deadline: float) -> Line | None:
        """A new line, within half of the time that is left; None where it cannot be had."""
        request.repeated()  # the upgrade is a request of its own
        now = clock.monotonic()
        half = Flight(now + (deadline - now) / 2, UNBOUNDED)
        try:
            self._flights.add(half)
            self._line = self._upgraded(request, half)
        except (OSError, ValueError, WebSocketException) as error:
            if flight.was_cut:
                raise EndedError(CUT) from error
            self._refused = isinstance(error, RefusedError) and error.for_good
            why = error if isinstance(error, OSError) else type(error).__name__  # another may quote what was sent
            log.info("no websocket (%s): long polling %s", why, "from now on" if self._refused else "instead")
            return None
        finally:
            self._flights.discard(half)
        if flight.was_cut:
            self._line.end(CUT)
        return self._line

    def _upgraded(self, request: Request, flight: Flight) -> Line:
        parts = urlsplit(self._url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
        stream = sockets.connect(host, port, sockets.PROMPT, flight)
        try:
            if secure:
                stream = sockets.secured(stream, self._plain.tls, host, flight)
            protocol = ClientProtocol(parse_uri("ws" + self._url[4:]), max_size=self._most, logger=_frames)
            events, outgoing = _upgrade(stream, protocol, self._headers(request), flight)
            stream.split()
        except BaseException:
            stream.close()
            raise
        answer = events.pop(0)
        if isinstance(answer, Response):
            self._plain.remember(self._url, answer.headers.get_all("Set-Cookie"))
        return Line(stream, protocol, self._most, events, outgoing)

    def _headers(self, request: Request) -> dict[str, str]:
        cookie = self._plain.cookie(self._url)
        return {**request.headers, **({"Cookie": cookie} if cookie else {})}


def _upgrade(
    stream: Stream, protocol: ClientProtocol, headers: dict[str, str], flight: Flight
) -> tuple[list[Event], bytes]:
    """Make an HTTP connection a websocket; gives what came, from the answer on, and what is to be sent."""
    asking = protocol.connect()
    for name, value in headers.items():
        asking.headers[name] = value
    protocol.send_request(asking)
    stream.write(b"".join(protocol.data_to_send()), flight)
    head = bytearray()
    while protocol.state is not OPEN:
        data = stream.read(flight)
        head += data[: sockets.CHUNK - len(head)]
        if (status := _STATUS.match(head)) and int(status[1]) != 101:
            raise RefusedError(int(status[1]))  # whatever its body says, which may be long in coming
        if data:
            protocol.receive_data(data)
        else:
            protocol.receive_eof()
        if protocol.handshake_exc is not None and protocol.events_received():
            raise RefusedError(101) from protocol.handshake_exc
        if protocol.handshake_exc is not None or not data:
            raise EndedError("no answer that HTTP knows") from protocol.handshake_exc
    return protocol.events_received(), b"".join(protocol.data_to_send())


def _told(error: Exception, request: Request, flight: Flight) -> str:
    if flight.was_cut:
        return CUT
    if isinstance(error, TimeoutError):
        return LATE.format(timeout=f"{request.timeout or 0:g}")
    if isinstance(error, EndedError):
        return str(error)
    return LOST if isinstance(error, OSError) else BROKEN.format(kind=type(error).__name__)


class Line:
    """One open websocket, shared by threads that each wait for the answer to a message of their own.

    `_mutex` guards everything but the stream: one thread at a time reads that (`_being_read`), and one writes, for the
    request `_writer`. What a reader was in the midst of when its time was over stays in the protocol for the next.
    """

    def __init__(
        self, stream: Stream, protocol: ClientProtocol, most: int, events: list[Event], outgoing: bytes
    ) -> None:
        self._stream, self._protocol, self._most = stream, protocol, most
        self._letters = Correspondence(most)
        self._mutex = threading.RLock()  # held by itself: Ctrl-C may come between a condition and its lock
        self._changed = threading.Condition(self._mutex)
        self._writer: Flight | None = None
        self._being_read = False
        self._users: set[Flight] = set()
        self._readings = 0
        self._outgoing = bytearray(outgoing)
        self._message = bytearray()
        self.ended = ""
        """Why it ended, in words for the user; empty while it lives."""
        self.told = True
        """Whether no connect has to fail for its loss: one has failed with it, or nothing was ever sent over it."""
        with self._mutex:
            self._sort(events)

    # -- for the threads that ask ----------------------------------------------------------------------------------

    def ask(
        self, question: Question, frame: bytes, flight: Flight, deadline: float, listen: float = 0.0
    ) -> bytes | None:
        """The answer to a message; None where the line turns out to have ended before it was sent."""
        try:
            if not self._joined(flight):
                return None
            while clock.monotonic() < deadline and not flight.was_cut and self._read(self._stream.read_now):
                pass
            with self._mutex:
                if self.ended:
                    return None
                question.sent = not listen
                to_send, before = self._letters.ask(question), self._readings
                self._changed.notify_all()
            if to_send and listen and self._listened(question, clock.monotonic() + listen) is not None:
                return question.answer
            if to_send:
                self._send(frame, flight, deadline)
                return self._awaited(question, deadline, deadline, before)
            hold = clock.LONGEST if question.hold is None else question.hold
            return self._awaited(question, min(deadline, clock.monotonic() + hold), deadline, before)
        except OSError:
            self.told = self.told or (question.is_connect and bool(self.ended))
            raise
        finally:
            with self._mutex:
                self._users.discard(flight)  # first: a signal may come as a function is entered
                self._letters.forget(question)
                self._give_back()

    def _joined(self, flight: Flight) -> bool:
        with self._mutex:
            if not self.ended:
                self._users.add(flight)
            return not self.ended

    @property
    def mute(self) -> bool:
        """Whether nothing has ever come over it."""
        return not self._readings

    def leave(self, question: Question) -> None:
        """End the line after a farewell, unless somebody else uses it."""
        with self._mutex:
            if not self._letters.busy_beside(question.client_id):
                self._end(LOST)

    def after_fork(self) -> None:
        """Let go of the line in a child of a fork."""
        self._stream.leave()

    def end(self, why: str) -> None:
        """Let everybody who waits fail at once."""
        with self._mutex:
            self._end(why)

    def _listened(self, question: Question, until: float) -> bytes | None:
        """Return the answer that pushes give to a connect that is not sent before a moment; None once that has come."""
        while clock.monotonic() < until:
            with self._mutex:
                self._changed.wait_for(
                    lambda: question.answer is not None or self.ended or not self._being_read,
                    max(0.0, until - clock.monotonic()),
                )
                if question.answer is not None:
                    return question.answer
                if self.ended:
                    raise EndedError(self.ended)
            self._read(partial(self._stream.read, Flight(until, UNBOUNDED)))
        with self._mutex:
            question.sent = question.answer is None
            return question.answer

    def _awaited(self, question: Question, until: float, deadline: float, before: int) -> bytes:
        while True:
            with self._mutex:
                self._changed.wait_for(
                    lambda: question.answer is not None or self.ended or not self._being_read,
                    min(max(0.0, until - clock.monotonic()), clock.LONGEST),
                )
                if question.answer is None and not self.ended and clock.monotonic() >= until:
                    self._time_is_over(question, deadline, before)
                if question.answer is not None:
                    return question.answer
                if self.ended:
                    raise EndedError(self.ended)
            self._read(partial(self._stream.read, Flight(until, UNBOUNDED)))

    def _time_is_over(self, question: Question, deadline: float, before: int) -> None:
        """A connect was held for long enough, or the answer is late; where nothing came at all, the peer is gone."""
        if clock.monotonic() < deadline:
            self._letters.rest(question)
            return
        if question.channel.startswith("/meta/") and self._readings == before:
            self._end(LOST)
        raise TimeoutError

    # -- reading ---------------------------------------------------------------------------------------------------

    def _read(self, read: Callable[[], bytes | None]) -> bool:
        """Take in what comes, unless another thread does that; whether anything has come."""
        with self._mutex:
            if self._being_read or self.ended:
                return False
            self._being_read = True
        data: bytes | None = b""  # an interruption might have lost something: that ends the line
        try:
            data = read()
        except TimeoutError:
            data = None
        except OSError:
            pass
        finally:
            with self._mutex:
                self._being_read = False
                try:
                    if data is not None:
                        self._take(data)
                except BaseException:  # the rest of it is lost, and with it the beginning of the next frame
                    self._end(LOST)
                    raise
                self._changed.notify_all()
        self._answer_pings()
        return data is not None

    def _take(self, data: bytes) -> None:
        if self.ended:
            return
        if not data:
            self._end(LOST)
            return
        self._readings += 1
        self._protocol.receive_data(data)
        self._outgoing += b"".join(self._protocol.data_to_send())
        self._sort(self._protocol.events_received())
        if self._protocol.state is not OPEN:
            too_big = isinstance(self._protocol.parser_exc, PayloadTooBig)
            self._end(TOO_LARGE.format(most=self._most) if too_big else LOST)

    def _sort(self, events: list[Event]) -> None:
        try:
            for event in events:
                if isinstance(event, Frame) and event.opcode in _DATA:
                    self._message += event.data
                    if event.fin:
                        whole, self._message = bytes(self._message), bytearray()
                        self._letters.take(whole)
        except FrameError as error:
            self._end(str(error))

    # -- writing ---------------------------------------------------------------------------------------------------

    def _send(self, frame: bytes, flight: Flight, deadline: float) -> None:
        try:
            with self._mutex:
                left = min(max(0.0, deadline - clock.monotonic()), clock.LONGEST)
                if not self._changed.wait_for(lambda: self._writer is None or self.ended, left):
                    raise TimeoutError
                if self.ended:
                    return
                if clock.monotonic() >= deadline:
                    raise TimeoutError
                self._writer, self.told = flight, False
                self._protocol.send_text(frame)
                self._outgoing += b"".join(self._protocol.data_to_send())
            self._write(flight)
        finally:
            with self._mutex:
                if self._writer is flight:
                    self._writer = None
                    self._changed.notify_all()
        self._answer_pings()

    def _answer_pings(self) -> None:
        """Send what the protocol has to say; where another thread is writing, that one does it afterwards."""
        while self._outgoing and not self.ended:
            flight = Flight(clock.monotonic() + PONG, UNBOUNDED)
            try:
                with self._mutex:
                    if self._writer is not None:
                        return
                    self._writer = flight
                self._write(flight)
            except OSError:
                return
            finally:
                with self._mutex:
                    if self._writer is flight:
                        self._writer = None
                        self._changed.notify_all()

    def _write(self, flight: Flight) -> None:
        with self._mutex:
            data, self._outgoing = bytes(self._outgoing), bytearray()
        try:
            self._stream.write(data, flight)
        except BaseException:
            self.end(LOST)  # a part of a frame may be on its way, after which no other can be
            raise

    # -- the end ---------------------------------------------------------------------------------------------------

    def _end(self, why: str) -> None:
        if self.ended:
            return
        self.ended, self.told = why, self.told or self._letters.fetching
        self._say_farewell()
        self._stream.shut()
        self._changed.notify_all()
        self._give_back()

    def _say_farewell(self) -> None:
        """Send a close frame, where that can be done without waiting."""
        if self._protocol.state is OPEN:
            self._protocol.send_close(1000)
            self._outgoing += b"".join(self._protocol.data_to_send())
        if self._outgoing and self._writer is None:
            self._stream.write_now(bytes(self._outgoing))

    def _give_back(self) -> None:
        """Close the socket of a line that has ended, once nobody uses it."""
        if self.ended and not self._users:
            self._stream.close()
