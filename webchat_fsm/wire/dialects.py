"""Which dialect a configuration speaks."""

from __future__ import annotations

from collections.abc import Callable

from webchat_fsm.config import Config
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.wire.cometd import CometD
from webchat_fsm.wire.gms_v2 import GmsV2
from webchat_fsm.wire.nexus_v3 import NexusV3
from webchat_fsm.wire.request import Dialect

_DIALECTS: dict[Transport, Callable[[Config], Dialect]] = {
    Transport.V2: GmsV2,
    Transport.COMETD: CometD,
    Transport.V3: NexusV3,
    Transport.V3_ASYNC: NexusV3,
}


def dialect_of(config: Config) -> Dialect:
    """The dialect of a configuration."""
    return _DIALECTS[config.way](config)
