"""A virtual timeline: time moves only when a test says so, from timer to timer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from webchat_fsm.runtime.clock import ManualClock
from webchat_fsm.runtime.delivery import AnyEvent
from webchat_fsm.runtime.driver import ManualDriver
from webchat_fsm.runtime.service import WebChatService


class Timeline:
    """One clock and one driver for every service of a test; handlers run in the test's thread."""

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.driver = ManualDriver(self.clock)

    def now(self) -> float:
        """Wall-clock seconds of the timeline."""
        return self.clock.wall()

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass, running every timer that falls due at its own moment, in order of time."""
        if seconds < 0:
            raise ValueError("time moves forward only")
        self.driver.wait(seconds)

    def next_timer(self) -> float | None:
        """The moment of the earliest timer, None where nothing waits."""
        return self.driver.next_due()

    def run_until(self, chat: WebChatService, event: str, limit: float = 3600.0) -> AnyEvent:
        """Let time pass until a service has published an event; raises `WaitTimeout` after `limit` seconds."""
        return chat.wait_for(event, limit)

    @contextmanager
    def expect(self, chat: WebChatService, event: str) -> Iterator[list[AnyEvent]]:
        """Fail unless a service publishes an event inside the block; the list holds what came."""
        came: list[AnyEvent] = []
        subscription = chat.subscribe(event, came.append)
        try:
            yield came
        finally:
            subscription.cancel()
        if not came:
            raise AssertionError(f"{event} was expected and did not come; the state is {chat.state}")
