"""A WSGI application that holds a whole chat for each of its requests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from tests.engines.talk import whole_chat


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer with what came of the chat, as JSON."""
    told = whole_chat(json.loads(os.environ["CHAT_CONFIG"]), environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
