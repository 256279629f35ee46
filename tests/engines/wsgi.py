"""Provide a WSGI application that holds one chat for each request."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from tests.engines.talk import whole_chat


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Respond with the result of the chat as JSON."""
    result = whole_chat(json.loads(os.environ["CHAT_CONFIG"]), environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(result).encode()]
