"""The transports of the reference and their capabilities, by which code branches instead of by name."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace


class Transport(StrEnum):
    """The ways to reach a chat server that the reference documents; asynchronous v3 is one of its own."""

    V2 = "v2"
    COMETD = "cometd"
    V3 = "v3"
    V3_ASYNC = "v3-async"

    # annotations without values: an enumeration would take an assignment for a member
    can: Capabilities
    """The capabilities of the transport."""
    polls: bool
    """False where the server pushes."""
    gms: bool
    """True where the data of the bus have the shape that the reference calls v2."""
    asynchronous: bool
    """True where a session outlives its window and can become dormant."""


class Capabilities(Struct, frozen=True):
    """The capabilities of a transport: the data by which the code distinguishes transports, one record for each.

    With `polls` the client asks for messages, else the server pushes them. `gms` gives events and session data the
    shape of v2. `asynchronous` sessions become dormant. `numbered` events are counted from 1, and the position of the
    next one is named; others are read in pages by an index of their own. With `upload_limits` the server names them
    before an upload. `restore_timeout` makes a saved session too old to be asked for. `stable_keys` are not expected to
    change within a chat.
    """

    polls: bool
    gms: bool
    asynchronous: bool
    numbered: bool
    upload_limits: bool
    restore_timeout: bool
    stable_keys: bool


_GMS = Capabilities(
    polls=True,
    gms=True,
    asynchronous=False,
    numbered=True,
    upload_limits=True,
    restore_timeout=True,
    stable_keys=True,
)
_NEXUS = Capabilities(
    polls=True,
    gms=False,
    asynchronous=False,
    numbered=False,
    upload_limits=False,
    restore_timeout=False,
    stable_keys=False,  # the token is renewed with each resume
)
_CAPABILITIES: dict[Transport, Capabilities] = {
    Transport.V2: _GMS,
    Transport.COMETD: replace(_GMS, polls=False),  # the v2 API over another carrier, with files over REST
    Transport.V3: _NEXUS,
    Transport.V3_ASYNC: replace(_NEXUS, asynchronous=True),
}
for _transport, _can in _CAPABILITIES.items():
    # plain attributes, as a decision reads them some ten times
    _transport.can = _can
    _transport.polls, _transport.gms, _transport.asynchronous = _can.polls, _can.gms, _can.asynchronous
