"""Random chats on the embedded server, in virtual time: commands, faults, people, closes, crashes and interruptions.

They are drawn from a seed, and call for no result: only what the core did is of interest.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tests.exports.tracing import Tracer
from tests.lifecycle.environment import ChatEnvironment
from tests.lifecycle.test_random_stories import COMMANDS as EVERY_COMMAND
from webchat_fsm import MemoryStore
from webchat_fsm.lifecycle._table import State
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline

COMMANDS = {name: data for name, data in EVERY_COMMAND.items() if name != "poll"}  # which no user may give
FAULTS: tuple[dict[str, Any], ...] = (
    {"drop": True},
    {"drop": True, "takes_effect": True},
    {"tear": True},
    {"http_status": 500},
    {"http_status": 429, "retry_after": 2},
    {"http_status": 404},
    {"body": b"<html>"},
)
V2_FAULTS: tuple[dict[str, Any], ...] = (
    {"server_status": 1},
    {"server_status": 2, "chat_ended": False},
    {"server_status": 2, "chat_ended": True},
    {"server_status": 2, "chat_ended": True, "errors": (249,)},
    {"http_status": 404, "server_status": 2, "chat_ended": True},
)
PUSHED_FAULTS: tuple[dict[str, Any], ...] = ({"refused": "402::Unknown client"}, {"refused": "403::no"}, {"mute": True})
V3_FAULTS: tuple[dict[str, Any], ...] = ({"http_status": 401}, {"http_status": 403}, {"http_status": 400})
SERVED = ("refresh", "start", "send", "disconnect", "connect", "handshake", "requestNotifications", "updateData")
"""Operations by the names of the server, for faults."""
REQUESTED = ("refresh", "start", "restore", "resume", "send", "disconnect", "connect", "handshake", "notifications")
"""Operations by the names of the library, for interruptions."""
ACTS = ("join", "leave", "typing", "stop_typing", "say")
PEOPLE = ("agent", "supervisor", "bot")
STEPS_A_CHAT = 150


class RandomChat:
    """One service after another with one store, on a server of its own."""

    def __init__(self, transport: Transport, seed: int) -> None:
        self.draw = random.Random(f"{transport} {seed}")
        self.timeline = Timeline()
        self.server = TestServer(self.timeline)
        self.env = ChatEnvironment(self.timeline, self.server, transport)
        self.transport = transport
        self.people = {kind: getattr(self.server, kind)(kind.title()) for kind in PEOPLE}
        more = V2_FAULTS if transport.gms else V3_FAULTS
        self.faults = (*FAULTS, *more, *(() if transport.polls else PUSHED_FAULTS))
        self._new()

    def _new(self) -> None:
        self.env.client(pollExceptionLimit=self.draw.choice([0, 1, 1, 5]))
        self._guarded(self.env.chat.open)

    def _guarded(self, act: Callable[[], object]) -> None:
        with suppress(KeyboardInterrupt):  # planned by `_interruption`
            act()

    def run(self) -> None:
        """Do one random thing."""
        acts = (
            (self._command, 6), (self._start, 2), (self._pass, 6), (self._fault, 3), (self._person, 3), (self._poll, 2),
            (self._away, 1), (self._crash, 0.5), (self._end, 0.3), (self._clear, 1), (self._interruption, 0.7),
            (self._forget, 0.3), (self._lose, 0.2), (self._forbid, 0.2), (self._while_ending, 0.4),
        )  # fmt: skip
        (act,) = self.draw.choices([act for act, _ in acts], [weight for _, weight in acts])
        self._guarded(act)

    def _start(self) -> None:
        if not self.env.chat.state.has_session:
            self.server.clear_faults()
            self.env.chat.command("startChat", COMMANDS["startChat"])

    def _command(self) -> None:
        name = self.draw.choice([one for one in COMMANDS if one != "endChat" or self.draw.random() < 0.3])
        self.env.chat.command(name, COMMANDS[name])

    def _pass(self) -> None:
        self.timeline.advance(self.draw.choice([0.0, 0.3, 1.0, 2.0, 5.0, 20.0]))

    def _fault(self) -> None:
        operation = self.draw.choice([*SERVED, None, None])
        times = self.draw.choice([1, 1, 2, 8])
        self.server.faults.add(operation=operation, times=times, **self.draw.choice(self.faults))

    def _clear(self) -> None:
        self.server.clear_faults()

    def _person(self) -> None:
        if not self.server.core.chats or self.server.core.current_chat().ended:
            return
        chat, kind, act = self.server.core.current_chat(), self.draw.choice(PEOPLE), self.draw.choice(ACTS)
        person = self.people[kind]
        if not person.is_in(chat):
            person.join(chat)
        elif act != "join":
            getattr(person, act)(*(["Hello"] if act == "say" else []))

    def _poll(self) -> None:
        if self.env.chat.state.has_session and self.transport.polls:
            self.env.chat.step()

    def _away(self) -> None:
        self.env.chat.close()
        self.timeline.advance(self.draw.choice([0.0, 10.0, 59.0, 60.0, 100.0]))
        if self.draw.random() < 0.2:
            self.env.store.delete()
        self.env.chat.open()

    def _crash(self) -> None:
        self.env.crash()
        self.timeline.advance(self.draw.choice([0.0, 30.0, 100.0]))
        if self.draw.random() < 0.3:
            self.env.store = MemoryStore()
        self._new()

    def _end(self) -> None:
        if self.server.core.chats:
            self.server.end()

    def _interruption(self) -> None:
        self.env.http.interrupt(self.draw.choice(REQUESTED))

    def _forget(self) -> None:
        if not self.transport.polls:
            self.draw.choice([self.server.core.forget_clients, self.server.core.hang_up])()

    def _lose(self) -> None:
        """Let the server lose all chats, as after a restart."""
        self.server.core.chats.clear()

    def _forbid(self) -> None:
        if not self.transport.polls:
            body = b'[{"channel":"/meta/connect","successful":false,"advice":{"reconnect":"none"}}]'
            self.env.http.answer("connect", body)

    def _while_ending(self) -> None:
        """Let something happen while endChat waits for its answer."""
        chat = self.env.chat
        if chat.state.has_session or chat.state is State.DORMANT:
            act = self.draw.choice([chat.close, self._poll, self._end, self._poll_badly])
            self.env.http.during("disconnect", act)
            chat.command("endChat")

    def _poll_badly(self) -> None:
        self.server.faults.add(operation="refresh", **self.draw.choice(self.faults))
        self._poll()


def run_chats(tracer: Tracer, transport: Transport, steps: int) -> None:
    """Run random chats on a transport until their sessions have made a number of steps."""
    wanted, seed = tracer.steps + steps, 0
    while tracer.steps < wanted:
        seed += 1
        tracer.name = f"random chat {seed} on {transport}"
        chat, end = RandomChat(transport, seed), tracer.steps + STEPS_A_CHAT
        for _ in range(10 * STEPS_A_CHAT):
            if tracer.steps >= min(end, wanted):
                break
            chat.run()
        chat.server.close()
