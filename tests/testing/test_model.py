"""Run a service and its model through the same random commands, answers, faults and times, and compare them."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.testing.model import IN_SESSION, KINDS, Entry, Lifecycle
from webchat_fsm import MemoryStore
from webchat_fsm._core import on_poll
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.testing import TestServer, Timeline, replay

FAULTS = {
    "drop": ({"drop": True}, "silent"),
    "arrived": ({"drop": True, "takes_effect": True}, "silent"),
    "tear": ({"tear": True}, "silent"),
    "error": ({"http_status": 503}, "bad"),
    "forbidden": ({"http_status": 403}, "bad"),
    "garbage": ({"body": b"<html>"}, "bad"),
    "throttled": ({"http_status": 429, "retry_after": 7}, "throttled"),
    "unavailable": ({"server_status": 1}, "refused"),
}
"""Faults of the next request, each with the kind of its result."""

CONTENT = frozenset(
    {"messageReceived", "agentTypingStarted", "agentTypingStopped"}
    | {f"{kind}{change}" for kind in KINDS.values() for change in ("Connected", "Disconnected")}
)
"""Events that only messages cause, apart from those of the end of the chat."""

PEOPLE = ("agent", "supervisor", "bot")
ACTS = ("join", "leave", "typing", "stop_typing", "say")


class Chats(RuleBasedStateMachine):
    """Define the rules: each runs a command or causes an event at the server, and updates the model."""

    transport = "v2"

    def __init__(self):
        super().__init__()
        self.timeline = Timeline()
        self.server = TestServer(self.timeline)
        self.server.records = True
        self.store = MemoryStore()
        self.planned_kinds: list[str] = []
        self.passed: set[Entry] = set()
        self.people = {kind: getattr(self.server, kind)(kind.title()) for kind in PEOPLE}

    @initialize(limit=st.sampled_from([0, 1, 5]))
    def begin(self, limit):
        self.limit = limit
        self.model = Lifecycle(self.transport, limit)
        self._new_service()
        self.model.open("good", [], self.now)
        self.chat.open()

    def _new_service(self):
        self.heard: list[str] = []
        self.chat = self.server.client(self.transport, {"pollExceptionLimit": self.limit}, self.store)
        for name in EVENTS:
            self.chat.subscribe(name, lambda event: self.heard.append(event.name))

    @property
    def now(self):
        return self.timeline.clock.timer()

    @property
    def in_session(self):
        return self.model.state in IN_SESSION

    # -- the server's side ---------------------------------------------------------------------------------------------

    def _next_kind(self) -> str:
        """Return the kind of the next request's result, and remove the fault planned for it."""
        return self.planned_kinds.pop() if self.planned_kinds else "good"

    def entries(self, *, restoring: bool = False) -> list[Entry]:
        """Return what the server shows: v3 echoes no own typing, its history has none, and async history is paged."""
        known = [self._entry(event) for event in self.server.core.current_chat().transcript]
        if self.model.gms:
            return known
        typing = {one for one in known if one.type.startswith("Typing")}
        own = {one for one in typing if one.kind == "Client"}
        seen = [place for place, one in enumerate(known) if one.index in self.model.seen]
        if self.model.behind and not restoring:  # the request is for all after the last one seen, typing included
            start = seen[-1] + 1 if seen else 0
            self.passed |= {one for one in known[:start] if one in typing}
            return [one for one in known[start:] if one not in own]
        self.passed |= typing if restoring else own  # a page has no typing
        shown = [one for one in known if one not in self.passed]
        return shown[-20:] if restoring and self.transport == "v3-async" else shown

    def _entry(self, event) -> Entry:
        sender = event.sender
        return Entry(event.index, event.type, "Bot" if sender.bot else sender.kind, sender.participant_id)

    @precondition(lambda self: not self.planned_kinds)
    @rule(fault=st.sampled_from(sorted(FAULTS)), times=st.integers(1, 7))
    def plan_faults(self, fault, times):
        """Plan a fault for each of the next requests."""
        given, kind = FAULTS["error" if fault == "unavailable" and self.transport != "v2" else fault]
        self.planned_kinds = [kind] * times
        self.server.load_faults([{**given, "attempt": list(range(1, times + 1))}])

    @precondition(lambda self: self.in_session)
    @rule(kind=st.sampled_from(PEOPLE), act=st.sampled_from(ACTS))
    def person_acts(self, kind, act):
        person, chat = self.people[kind], self.server.core.current_chat()
        if not person.is_in(chat):
            person.join()
        elif act == "join":
            person.leave()
        else:
            getattr(person, act)(*(["Hello"] if act == "say" else []))

    @precondition(lambda self: self.in_session and not self.planned_kinds)
    @rule(fault=st.sampled_from(sorted(FAULTS)), times=st.integers(1, 7), more=st.integers(0, 3))
    def polls_fail(self, fault, times, more):
        """Let the next polls fail, and some after them succeed."""
        self.plan_faults(fault, times)
        self.timers_run(times + more)

    # -- time ----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.due)
    @rule(times=st.integers(1, 10))
    def timers_run(self, times):
        for _ in range(times if self.model.due else 0):
            self.timer_runs()
            self.service_agrees_with_model()

    def timer_runs(self):
        if not self.model.due:
            return
        due = self.model.due
        assert [name for _, name in self.timeline_due()] == [name for _, name in due]
        assert [moment for moment, _ in self.timeline_due()] == pytest.approx([moment for moment, _ in due], abs=1e-4)
        moment = self.timeline_due()[0][0]
        names = [name for one, name in self.timeline_due() if one <= moment + 2e-6]
        self._advance(max(0.0, moment - self.now), names)

    @precondition(lambda self: self.in_session and self.model.state != "active" and not self.planned_kinds)
    @rule()
    def server_ends_chat(self):
        self.model.typing_due = None
        self.chat._engine.session.timers.pop("typing countdown", None)
        self.server.end()
        due = next(moment for moment, name in self.timeline_due() if name == "poll")
        self._advance(max(0.0, due - self.now), ["poll"], ended=True)

    def timeline_due(self):
        return [(due, name) for due, name in self.timeline.pending()]

    def _advance(self, seconds, names, *, ended=False):
        for name in names:
            self._tick(name, self.now + seconds, ended=ended)
        self.timeline.advance(seconds)

    def _tick(self, name, moment, *, ended):
        if name == "typing countdown":
            self.model.typing_due = None
            self.model.publish("clientTypingStopped")
            self._contact(self._next_kind())
        else:
            kind = self._next_kind()
            self.model.poll(kind, self.entries() if kind == "good" else [], moment, ended=ended)

    def _contact(self, kind):
        """Update the model by the result of a request that is no poll."""
        self.model.contact(kind)

    @rule(share=st.sampled_from([0.1, 0.5, 0.9]))
    def time_passes(self, share):
        due = self.timeline.next_timer()
        left = 1.0 if due is None else due - self.timeline.now()
        if left > 1e-3:
            self.timeline.advance(left * share)

    # -- commands ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.state in ("idle", "ended"))
    @rule()
    def start(self):
        kind = self._next_kind()
        self.passed.clear()
        self.chat.command("startChat", {"nickname": "Jonny"})
        self.model.start(kind, self.entries() if kind == "good" else [], self.now)

    @precondition(lambda self: self.in_session)
    @rule()
    def send(self):
        self.model.send()
        self.model.activity(self.now)
        kind = self._next_kind()
        self._contact(kind)
        assert bool(self.chat.command("sendMessage", {"message": "hi"})) == (kind == "good")

    @precondition(lambda self: self.in_session)
    @rule()
    def type(self):
        burst = self.model.typing_due is not None
        self.model.typing_due = self.now + 2
        if not burst:
            self.model.publish("clientTypingStarted")
            self._contact(self._next_kind())
        self.chat.command("sendTyping", {"message": "h"})

    @precondition(lambda self: self.in_session)
    @rule()
    def update_user_data(self):
        if self.model.polls:
            self._contact(self._next_kind())
        self.chat.command("updateUserData", {"page": "/"})

    @precondition(lambda self: self.in_session and self.model.polls)
    @rule()
    def start_poll(self):
        self.model.start_poll(self.now)
        assert self.chat.command("startPoll")

    @precondition(lambda self: self.model.state in ("polling", "offline") and self.model.polls)
    @rule()
    def stop_poll(self):
        self.model.stop_poll()
        assert self.chat.command("stopPoll")

    @precondition(lambda self: self.in_session)
    @rule(sure=st.sampled_from([False, False, True]))
    def end(self, sure):
        if not sure:
            return
        self.model.end_requested()
        self._contact(self._next_kind())
        self.model.end_settled()
        self.chat.command("endChat")

    @rule(away=st.sampled_from([0.0, 30.0, 59.999, 60.0, 100.0]))
    def close_and_reopen(self, away):
        restorable = self.model.saved_at is not None or self.in_session
        self.model.close(self.now)
        assert self.chat.close()
        self.timeline.advance(away)
        self._new_service()
        too_old = self.model.gms and restorable and self.now - self.model.saved_at >= 60
        kind = self._next_kind() if restorable and not too_old else "good"
        if kind == "good" and restorable and self.transport == "v3-async":
            kind = self._next_kind()  # the first request gets the token, the second the messages
        self.model.open(kind, self.entries(restoring=True) if restorable else [], self.now)
        self.chat.open()

    @rule()
    def illegal_command_is_rejected(self):
        for command in ("startChat", "endChat", "sendMessage", "stopPoll", "poll", "restore"):
            if not self.chat.can(command):
                assert not self.chat.command(command, {"message": "hi"})

    # -- invariants ----------------------------------------------------------------------------------------------------

    @invariant()
    def service_agrees_with_model(self):
        if hasattr(self, "model"):
            heard, self.heard[:] = list(self.heard), []
            assert heard == self.model.take()
            assert self.chat.state == self.model.state
            if self.in_session:
                assert self.chat.health().failures == self.model.failures

    @invariant()
    def state_allows_the_legal_commands(self):  # checked after the above, by the order of names
        if hasattr(self, "model"):
            state = self.model.state
            assert self.chat.can("startChat") == (state in ("idle", "ended"))
            assert self.chat.can("endChat") == (self.in_session or state == "async-dormant")
            assert self.chat.can("sendMessage") == self.in_session
            assert self.chat.can("stopPoll") == (self.model.polls and state in ("polling", "offline"))

    def teardown(self):
        """Check that nothing is missing after the faults, and that the recordings replay."""
        if hasattr(self, "model"):
            self._recover()
        for chat, _ in self.server.recorders:
            replay(self.server.recording(chat)).check()
        self.server.close()

    def _recover(self):
        self.server.clear_faults()
        self.planned_kinds.clear()
        if self.model.state == "active" and self.model.polls:
            self.start_poll()
        for _ in range(4):
            if self.model.due:
                self.timer_runs()
                self.service_agrees_with_model()
        assert len(self.chat.get_transcript().messages) == len(self.model.seen)


class AsyncChats(Chats):
    transport = "v3-async"


class NexusChats(Chats):
    transport = "v3"


class PushedChats(Chats):
    """Check CometD, whose link decides when it requests: only the content and the final state are compared."""

    transport = "cometd"

    def _new_service(self):
        super()._new_service()
        self.delivered: list[list[int]] = []
        self.chat.subscribe(
            "messageReceived", lambda event: self.delivered.append([message.index for message in event.data.messages])
        )

    def _follow(self):
        """Update the model by the delivered messages and by the state after the events."""
        heard, self.heard[:] = list(self.heard), []
        known = {one.index: one for one in self.entries()} if self.server.core.chats else {}
        chunks, self.delivered[:] = list(self.delivered), []
        if {"started", "restored"} & set(heard):
            self.model._clear()
        for chunk in chunks:
            assert not self.model.seen.intersection(chunk)
            self.model.content([known[index] for index in chunk])
        expected = self.model.take()
        if "ended" in heard:
            self.model.end_settled()
            expected += self.model.take()
            expected = [name for name in expected if name in heard]  # no participant is reported as gone twice
        assert [name for name in heard if name in CONTENT] == [name for name in expected if name in CONTENT]
        self._settle(heard)

    def _settle(self, heard):
        self.model.state = self.chat.state.value
        if self.model.state == "ended":
            self.model.saved_at = None
        elif self.in_session:
            offline = self.model.state == "offline"
            restored_offline = "restoredOffline" in heard or offline
            assert offline == (self.chat.health().failures > self.limit) or restored_offline
            self.model.saved_at = self.now

    # -- rules that differ ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.timeline.next_timer() is not None)
    @rule(times=st.integers(1, 10))
    def timers_run(self, times):
        for _ in range(times):
            self.timeline.advance(max(0.0, (self.timeline.next_timer() or 0.0) - self.timeline.now()))
            self._follow()
        self.planned_kinds.clear()

    @precondition(lambda self: self.in_session)
    @rule(failure=st.sampled_from(["forget_clients", "hang_up"]))
    def gateway_restarts(self, failure):
        getattr(self.server.core, failure)()

    @precondition(lambda self: self.in_session)
    @rule()
    def server_ends_chat(self):
        self.server.clear_faults()
        self.planned_kinds.clear()
        self.server.end()
        self.timeline.advance(200)
        assert self.chat.state == "ended"

    @precondition(lambda self: self.model.state in ("idle", "ended"))
    @rule()
    def start(self):
        outcome = self.chat.command("startChat", {"nickname": "Jonny"})
        assert self.chat.state == ("active" if outcome else "idle")

    @precondition(lambda self: self.in_session)
    @rule()
    def send(self):
        self.chat.command("sendMessage", {"message": "hi"})
        assert "typing countdown" not in [name for _, name in self.timeline.pending()]

    @precondition(lambda self: self.in_session)
    @rule()
    def type(self):
        self.chat.command("sendTyping", {"message": "h"})
        assert "typing countdown" in [name for _, name in self.timeline.pending()]

    @precondition(lambda self: self.in_session)
    @rule(sure=st.sampled_from([False, False, True]))
    def end(self, sure):
        if not sure:
            return
        self.chat.command("endChat")
        assert self.chat.state == "ended"

    @rule(away=st.sampled_from([0.0, 30.0, 59.999, 60.0, 100.0]))
    def close_and_reopen(self, away):
        restorable = self.in_session
        self.chat.close()
        self.timeline.advance(away)
        self._new_service()
        self.model._clear()
        self.chat.open()
        assert "restoreTimeout" not in self.heard or (restorable and away >= 60)
        assert not (restorable and away >= 60) or "restoreTimeout" in self.heard

    @invariant()
    def service_agrees_with_model(self):
        if hasattr(self, "model"):
            self._follow()

    def _recover(self):
        self.server.clear_faults()
        self.timeline.advance(200)
        self._follow()
        if self.in_session:
            assert self.model.state == "active"
            assert self.model.seen == {one.index for one in self.entries()}


MACHINES = {"v2": Chats, "cometd": PushedChats, "v3": NexusChats, "v3-async": AsyncChats}

LENGTH = 40
"""Most steps of one example."""

ORDINARY = 300
"""Steps in the ordinary run, for each transport."""

STEPS = int(os.environ.get("WEBCHAT_MODEL_STEPS", "20000"))
"""Steps of the soak, over all transports; more on request."""


def run_machine(transport, steps, **more):
    run_state_machine_as_test(
        MACHINES[transport],
        settings=settings(
            max_examples=max(1, steps // LENGTH),
            stateful_step_count=LENGTH,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("transport", MACHINES)
def test_service_agrees_with_the_model(transport):
    run_machine(transport, ORDINARY, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("transport", MACHINES)
def test_service_agrees_with_the_model_in_long_runs(transport):
    run_machine(transport, STEPS // len(MACHINES), print_blob=True)


def test_difference_from_the_model_is_found(monkeypatch):
    monkeypatch.setitem(
        on_poll.POLLED, on_poll.ResponseKind.UNAVAILABLE, on_poll.POLLED[on_poll.ResponseKind.THROTTLED]
    )
    with pytest.raises(AssertionError):
        run_machine("v2", 4000, derandomize=True, phases=[Phase.generate])
