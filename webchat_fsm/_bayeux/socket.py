"""Carry Bayeux messages over one websocket, sans-I/O: bytes in, bytes out.

The only importer of `websockets`, whose sans-I/O protocol does upgrade, framing, pings and the closing handshake. No
thread, no lock, no clock and no socket: the caller moves the bytes, so threads or one selector may drive it.

`Carrier` chooses between the websocket and long polling: a state machine in five states.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import OPEN, Event
from websockets.uri import parse_uri

from webchat_fsm._bayeux.matcher import FrameError, PendingRequest, ReplyMatcher
from webchat_fsm._wire.cometd import over_websocket
from webchat_fsm._wire.request import LOST, TOO_LARGE

# `websockets` logs each header and each frame, credentials included, at level DEBUG. Its logger is ours, and silent.
_frames = logging.getLogger("webchat_fsm.frames")
_frames.propagate = False
_frames.setLevel(sys.maxsize)

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r?\n")
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})
"""Frames of a message; pings and close frames are answered by `websockets` itself."""

HEAD_LIMIT = 65536
"""Bytes of the upgrade's answer in which its status line is looked for."""

SERVER_ERROR = 500
TOO_MANY_REQUESTS = 429


class UpgradeError(Exception):
    """The upgrade did not give a websocket; `permanent` is true where another attempt would end alike."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class BayeuxSocket:
    """Client side of one websocket: pending requests and received bytes become answers and bytes to send.

    In order: `data_to_send` gives the upgrade, `receive_data` takes its answer until `is_open`, then requests are
    registered with `add` and sent with `send`. After `closed` is set nothing is sent or received any more.
    """

    def __init__(self, url: str, headers: Mapping[str, str], limit: int) -> None:
        """Queue the upgrade to an http(s) URL; raises `UpgradeError`, or `ValueError` for a header that cannot be sent.

        `limit` bounds one message, and the undelivered pushes together, in bytes.
        """
        try:
            self._protocol = ClientProtocol(parse_uri("ws" + url[4:]), max_size=limit, logger=_frames)
            upgrade = self._protocol.connect()
            for name, value in headers.items():
                upgrade.headers[name] = value
            self._protocol.send_request(upgrade)
        except WebSocketException as error:  # only the class: the text may quote the URL with its credentials
            raise UpgradeError(type(error).__name__) from None
        self._limit = limit
        self._head = bytearray()
        self._message = bytearray()
        self._outgoing = bytearray()
        self._collect()
        self.matcher = ReplyMatcher(limit)
        self.cookies: list[str] = []
        """Set-Cookie headers of the upgrade's answer."""
        self.reads = 0
        """How often bytes came since it is open."""
        self.used = False
        """Whether a request was ever sent, so that a loss may have cost a push."""
        self.closed = ""
        """Why it is closed, as a text for the user; empty while it is open."""
        self.loss_unreported = False
        """Whether it closed while no connect waited, so that a later connect has to fail for it."""

    # -- the upgrade -----------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Return whether the upgrade is done."""
        return self._protocol.state is OPEN

    def receive_upgrade(self, data: bytes) -> None:
        """Take bytes of the upgrade's answer, empty at the end of the stream; raises `UpgradeError`."""
        self._head += data[: HEAD_LIMIT - len(self._head)]
        if (status := _STATUS.match(self._head)) and int(status[1]) != 101:
            # Decided by the status line alone: `websockets` would wait for a body, which may be long in coming.
            raise UpgradeError(f"the server answered {int(status[1])}", permanent=_is_permanent(int(status[1])))
        self._feed(data)
        events = self._protocol.events_received()
        if self._protocol.handshake_exc is not None and events:  # a 101 for another protocol, or with a wrong key
            raise UpgradeError("the server answered 101", permanent=True) from self._protocol.handshake_exc
        if self._protocol.handshake_exc is not None or not data:
            raise UpgradeError("no answer that HTTP knows") from self._protocol.handshake_exc
        if self.is_open:
            self._collect()
            if isinstance(events[0], Response):
                self.cookies = events[0].headers.get_all("Set-Cookie")
            self._receive_events(events[1:])  # frames that came in one piece with the answer

    # -- requests --------------------------------------------------------------------------------------------------

    def add(self, request: PendingRequest) -> bool:
        """Register a request; return whether it is to be sent with `send`."""
        request.reads_before = self.reads
        return self.matcher.add(request)

    def send(self, body: bytes) -> None:
        """Queue the frame of a request's body."""
        self.used = True
        self._protocol.send_text(over_websocket(body))
        self._collect()

    def silent_since(self, request: PendingRequest) -> bool:
        """Return whether nothing at all came since a request was registered."""
        return self.reads == request.reads_before

    # -- bytes -----------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> None:
        """Take received bytes, empty at the end of the stream; answers, pushes and `closed` follow from them."""
        if self.closed:
            return
        if not data:  # the peer has closed without a close frame
            self.close(LOST)
            return
        self.reads += 1
        self._feed(data)
        self._collect()  # a pong, or the reply to a close frame
        self._receive_events(self._protocol.events_received())
        if not self.is_open:  # by a close frame, or by a frame that `websockets` has refused
            too_large = isinstance(self._protocol.parser_exc, PayloadTooBig)
            self.close(TOO_LARGE.format(most=self._limit) if too_large else LOST)

    @property
    def has_data_to_send(self) -> bool:
        """Return whether bytes are queued."""
        return bool(self._outgoing)

    def data_to_send(self) -> bytes:
        """Take the queued bytes, which are to be sent in this order."""
        data, self._outgoing = bytes(self._outgoing), bytearray()
        return data

    def close(self, reason: str) -> None:
        """Close for a reason, with a close frame where one can be sent; does nothing when closed."""
        if self.closed:
            return
        self.closed = reason
        # A connect that waits now fails with the socket, and the core learns of the loss from it.
        self.loss_unreported = self.used and not self.matcher.connect_waiting
        if self.is_open:
            self._protocol.send_close(1000)  # the peer's reply to it is not waited for
            self._collect()

    def _feed(self, data: bytes) -> None:
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()

    def _collect(self) -> None:
        self._outgoing += b"".join(self._protocol.data_to_send())

    def _receive_events(self, events: Iterable[Event]) -> None:
        try:
            for event in events:
                if isinstance(event, Frame) and event.opcode in _DATA:
                    self._message += event.data  # `websockets` bounds the sum of the fragments
                    if event.fin:
                        message, self._message = bytes(self._message), bytearray()
                        self.matcher.receive(message)
        except FrameError as error:  # what follows cannot be trusted either
            self.close(str(error))


def _is_permanent(status: int) -> bool:
    """Return whether a refusal will not change: 5xx and 429 stand for trouble that passes."""
    return status < SERVER_ERROR and status != TOO_MANY_REQUESTS


class Carrier(StrEnum):
    """State of the choice; it says how the next message travels."""

    WEBSOCKET = "websocket"
    """Use the open websocket, or try to open one."""

    LOSS_UNREPORTED = "loss unreported"
    """As WEBSOCKET, but one was lost while no connect waited: the next connect fails, without being sent."""

    UNANSWERED = "unanswered"
    """As WEBSOCKET, but it carried a handshake that nothing answered: the next handshake travels by long polling."""

    LONG_POLLING = "long polling"
    """Use long polling until the next handshake."""

    NO_WEBSOCKET = "no websocket"
    """Use long polling for as long as the service lives."""

    @property
    def tries_websocket(self) -> bool:
        """Return whether a message travels over a websocket, if one can be opened."""
        return self not in (Carrier.LONG_POLLING, Carrier.NO_WEBSOCKET)


class CarrierEvent(StrEnum):
    """What may change the choice."""

    HANDSHAKE = "handshake"
    """A handshake is about to be sent."""

    HANDSHAKE_UNANSWERED = "handshake unanswered"
    """A websocket over which nothing has ever come was lost, or silent, under a handshake."""

    UPGRADE_REFUSED = "upgrade refused"
    """The server answered the upgrade with a status that will not change."""

    LONG_POLLING_ANSWERED = "long polling answered"
    """Long polling brought a status of 200 for a message that no websocket could carry."""

    LOSS = "loss"
    """A websocket was lost while no connect waited on it."""

    LOSS_REPORTED = "loss reported"
    """A connect fails for the loss."""


class CarrierRow(Struct, frozen=True):
    """One change of state, and the reason for it."""

    source: Carrier
    event: CarrierEvent
    dest: Carrier
    reason: str


ROWS = (
    CarrierRow(
        Carrier.WEBSOCKET,
        CarrierEvent.UPGRADE_REFUSED,
        Carrier.NO_WEBSOCKET,
        "a server without websockets would cost a connection and a refusal before each message",
    ),
    CarrierRow(
        Carrier.WEBSOCKET,
        CarrierEvent.LONG_POLLING_ANSWERED,
        Carrier.LONG_POLLING,
        "a Bayeux client keeps its carrier: the server delivers its pushes where its connects come from",
    ),
    CarrierRow(
        Carrier.WEBSOCKET,
        CarrierEvent.HANDSHAKE_UNANSWERED,
        Carrier.UNANSWERED,
        "some proxies accept the upgrade and then swallow the frames, or close on the first one",
    ),
    CarrierRow(
        Carrier.WEBSOCKET,
        CarrierEvent.LOSS,
        Carrier.LOSS_UNREPORTED,
        "pushes may be missing; the core asks for them only after a connect that failed",
    ),
    CarrierRow(
        Carrier.LOSS_UNREPORTED,
        CarrierEvent.LOSS_REPORTED,
        Carrier.WEBSOCKET,
        "a loss is reported once",
    ),
    CarrierRow(
        Carrier.LOSS_UNREPORTED,
        CarrierEvent.HANDSHAKE,
        Carrier.WEBSOCKET,
        "after a handshake the core asks for missed messages in any case",
    ),
    CarrierRow(
        Carrier.UNANSWERED,
        CarrierEvent.HANDSHAKE,
        Carrier.LONG_POLLING,
        "a second handshake into the same silence would use up the time of the start",
    ),
    CarrierRow(
        Carrier.UNANSWERED,
        CarrierEvent.UPGRADE_REFUSED,
        Carrier.NO_WEBSOCKET,
        "a refusal says more than the silence before it",
    ),
    CarrierRow(
        Carrier.LONG_POLLING,
        CarrierEvent.HANDSHAKE,
        Carrier.WEBSOCKET,
        "a new client may choose again, as the network's trouble may be over",
    ),
)

# NO_WEBSOCKET has no row that leaves it: a status that will not change is asked for once in the life of a service
_DEST = {(row.source, row.event): row.dest for row in ROWS}


def after(carrier: Carrier, event: CarrierEvent) -> Carrier:
    """Return the state after an event."""
    return _DEST.get((carrier, event), carrier)
