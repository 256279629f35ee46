"""What carries the requests of a configuration: HTTP, and a websocket where CometD is to use one and can."""

from __future__ import annotations

import logging

from webchat_fsm.config import Config
from webchat_fsm.runtime.http import Http, Urllib3Http

log = logging.getLogger("webchat_fsm")


def carrier(config: Config) -> Http:
    """The `Http` that a configuration asks for; where a websocket cannot be had the log tells why."""
    plain = Urllib3Http(config)
    if not (config.comet_d.enabled and config.comet_d.websocket_enabled):
        return plain
    if config.client.proxy:
        log.warning("cometD.websocketEnabled has no effect with client.proxy: long polling instead")
        return plain
    try:
        from webchat_fsm.runtime.websocket import WebsocketHttp
    except ImportError:
        log.warning(
            "cometD.websocketEnabled needs the extra: pip install 'webchat-fsm[websocket]'; long polling instead"
        )
        return plain
    return WebsocketHttp(config, plain)
