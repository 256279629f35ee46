"""Users of Locust, each of which holds one whole chat after the other."""

from __future__ import annotations

import json
import os
import time

from locust import User, constant, task

from tests.engines.talk import whole_chat

CONFIG = json.loads(os.environ["CHAT_CONFIG"])


class Customer(User):
    """Counts a chat as a request; one that did not go as it should is a failure."""

    wait_time = constant(0.1)

    @task
    def chat(self) -> None:
        began, fault = time.monotonic(), None
        try:
            told = whole_chat(CONFIG, "from Locust")
            if not (told["delivered"] and told["state"] == "ended"):
                fault = AssertionError(f"{told}")
        except Exception as error:
            fault = error
        took = (time.monotonic() - began) * 1000
        self.environment.events.request.fire(
            request_type="chat", name="whole chat", response_time=took, response_length=0, exception=fault, context={}
        )
