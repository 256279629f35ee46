"""The dialects of the wire: which one a configuration speaks."""

from __future__ import annotations

from webchat_fsm._config import Config
from webchat_fsm._wire.request import Dialect
from webchat_fsm.lifecycle._transports import Transport


def dialect_of(config: Config) -> Dialect:
    """Build the dialect of a configuration."""
    # Imported here, as a chat speaks one of them, and need not wait for the modules of the others.
    match config.way:
        case Transport.V2:
            from webchat_fsm._wire.gms_v2 import GmsV2

            return GmsV2(config)
        case Transport.COMETD:
            from webchat_fsm._wire.cometd import CometD

            return CometD(config)
        case Transport.V3 | Transport.V3_ASYNC:
            from webchat_fsm._wire.nexus_v3 import NexusV3

            return NexusV3(config)
