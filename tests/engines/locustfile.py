"""Defines users for Locust, each of which holds one chat after another."""

from __future__ import annotations

import json
import os
import time

from locust import User, constant, task

from tests.engines.talk import whole_chat

CONFIG = json.loads(os.environ["CHAT_CONFIG"])


class Customer(User):
    """Reports each chat to Locust as a request; an undelivered message or a chat not ended is a failure."""

    wait_time = constant(0.1)

    @task
    def chat(self) -> None:
        began, fault = time.monotonic(), None
        try:
            result = whole_chat(CONFIG, "from Locust")
            if not (result["delivered"] and result["state"] == "ended"):
                fault = AssertionError(f"{result}")
        except Exception as error:
            fault = error
        took = (time.monotonic() - began) * 1000
        self.environment.events.request.fire(
            request_type="chat", name="whole chat", response_time=took, response_length=0, exception=fault, context={}
        )
