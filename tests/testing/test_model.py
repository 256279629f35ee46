"""A service and a model of it go side by side through any order of commands, answers, faults and time."""

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
from webchat_fsm.core import on_reply
from webchat_fsm.lifecycle.events import EVENTS
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
"""What can go wrong with the next request, and what that amounts to."""

CONTENT = frozenset(
    {"messageReceived", "agentTypingStarted", "agentTypingStopped"}
    | {f"{kind}{change}" for kind in KINDS.values() for change in ("Connected", "Disconnected")}
)
"""Events that the messages cause, and nothing else but the end."""

PEOPLE = ("agent", "supervisor", "bot")
ACTS = ("join", "leave", "typing", "stop_typing", "say")


class Chats(RuleBasedStateMachine):
    """The rules; each gives a command or lets something happen, and tells the model."""

    transport = "v2"

    def __init__(self):
        super().__init__()
        self.timeline = Timeline()
        self.server = TestServer(self.timeline)
        self.server.records = True
        self.store = MemoryStore()
        self.verdicts: list[str] = []
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

    def _asked(self) -> str:
        """What the next request amounts to; the fault that waits for it is spent by it."""
        return self.verdicts.pop() if self.verdicts else "good"

    def entries(self, *, restoring: bool = False) -> list[Entry]:
        """What the server shows: v3 echoes no own typing, has none in its history, and pages that where it is async."""
        known = [self._entry(event) for event in self.server.core.current_chat().transcript]
        if self.model.gms:
            return known
        typing = {one for one in known if one.type.startswith("Typing")}
        own = {one for one in typing if one.kind == "Client"}
        seen = [place for place, one in enumerate(known) if one.index in self.model.seen]
        if self.model.behind and not restoring:  # asked for is all behind the last one seen, typing too
            start = seen[-1] + 1 if seen else 0
            self.passed |= {one for one in known[:start] if one in typing}
            return [one for one in known[start:] if one not in own]
        self.passed |= typing if restoring else own  # a page has no typing
        shown = [one for one in known if one not in self.passed]
        return shown[-20:] if restoring and self.transport == "v3-async" else shown

    def _entry(self, event) -> Entry:
        sender = event.sender
        return Entry(event.index, event.type, "Bot" if sender.bot else sender.kind, sender.participant_id)

    @precondition(lambda self: not self.verdicts)
    @rule(fault=st.sampled_from(sorted(FAULTS)), times=st.integers(1, 7))
    def spoil(self, fault, times):
        """Let something go wrong with the next requests, whatever they are."""
        given, verdict = FAULTS["error" if fault == "unavailable" and self.transport != "v2" else fault]
        self.verdicts = [verdict] * times
        self.server.load_faults([{**given, "attempt": list(range(1, times + 1))}])

    @precondition(lambda self: self.in_session)
    @rule(kind=st.sampled_from(PEOPLE), act=st.sampled_from(ACTS))
    def somebody_acts(self, kind, act):
        person, chat = self.people[kind], self.server.core.current_chat()
        if not person.is_in(chat):
            person.join()
        elif act == "join":
            person.leave()
        else:
            getattr(person, act)(*(["Hello"] if act == "say" else []))

    @precondition(lambda self: self.in_session and not self.verdicts)
    @rule(fault=st.sampled_from(sorted(FAULTS)), times=st.integers(1, 7), more=st.integers(0, 3))
    def trouble(self, fault, times, more):
        """The next polls go wrong, and perhaps some after them go well."""
        self.spoil(fault, times)
        self.the_next_timers(times + more)

    # -- time ----------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.due)
    @rule(times=st.integers(1, 10))
    def the_next_timers(self, times):
        for _ in range(times if self.model.due else 0):
            self.the_next_timer()
            self.the_service_is_where_the_model_is()

    def the_next_timer(self):
        if not self.model.due:
            return
        due = self.model.due
        assert [name for _, name in self.timeline_due()] == [name for _, name in due]
        assert [moment for moment, _ in self.timeline_due()] == pytest.approx([moment for moment, _ in due], abs=1e-4)
        moment = self.timeline_due()[0][0]
        names = [name for one, name in self.timeline_due() if one <= moment + 2e-6]
        self._let_pass(max(0.0, moment - self.now), names)

    @precondition(lambda self: self.in_session and self.model.state != "active" and not self.verdicts)
    @rule()
    def the_server_ends_the_chat(self):
        self.model.typing_due = None
        self.chat._engine.session.timers.pop("typing countdown", None)
        self.server.end()
        due = next(moment for moment, name in self.timeline_due() if name == "poll")
        self._let_pass(max(0.0, due - self.now), ["poll"], ended=True)

    def timeline_due(self):
        return [(due, name) for due, name in self.timeline.pending()]

    def _let_pass(self, seconds, names, *, ended=False):
        for name in names:
            self._tick(name, self.now + seconds, ended=ended)
        self.timeline.advance(seconds)

    def _tick(self, name, moment, *, ended):
        if name == "typing countdown":
            self.model.typing_due = None
            self.model.say("clientTypingStopped")
            self._other(self._asked())
        else:
            verdict = self._asked()
            self.model.poll(verdict, self.entries() if verdict == "good" else [], moment, ended=ended)

    def _other(self, verdict):
        """A request that is no poll has come back."""
        self.model.contact(verdict)

    @rule(share=st.sampled_from([0.1, 0.5, 0.9]))
    def a_moment_passes(self, share):
        due = self.timeline.next_timer()
        left = 1.0 if due is None else due - self.timeline.now()
        if left > 1e-3:
            self.timeline.advance(left * share)

    # -- commands ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.state in ("idle", "ended"))
    @rule()
    def start(self):
        verdict = self._asked()
        self.passed.clear()
        self.chat.command("startChat", {"nickname": "Jonny"})
        self.model.start(verdict, self.entries() if verdict == "good" else [], self.now)

    @precondition(lambda self: self.in_session)
    @rule()
    def send(self):
        self.model.send()
        self.model.activity(self.now)
        verdict = self._asked()
        self._other(verdict)
        assert bool(self.chat.command("sendMessage", {"message": "hi"})) == (verdict == "good")

    @precondition(lambda self: self.in_session)
    @rule()
    def type(self):
        burst = self.model.typing_due is not None
        self.model.typing_due = self.now + 2
        if not burst:
            self.model.say("clientTypingStarted")
            self._other(self._asked())
        self.chat.command("sendTyping", {"message": "h"})

    @precondition(lambda self: self.in_session)
    @rule()
    def update_user_data(self):
        if self.model.polls:
            self._other(self._asked())
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
        self.model.leaving()
        self._other(self._asked())
        self.model.left()
        self.chat.command("endChat")

    @rule(away=st.sampled_from([0.0, 30.0, 59.999, 60.0, 100.0]))
    def close_and_come_back(self, away):
        restorable = self.model.saved_at is not None or self.in_session
        self.model.close(self.now)
        assert self.chat.close()
        self.timeline.advance(away)
        self._new_service()
        too_old = self.model.gms and restorable and self.now - self.model.saved_at >= 60
        verdict = self._asked() if restorable and not too_old else "good"
        if verdict == "good" and restorable and self.transport == "v3-async":
            verdict = self._asked()  # the first request takes the token, the second brings the messages
        self.model.open(verdict, self.entries(restoring=True) if restorable else [], self.now)
        self.chat.open()

    @rule()
    def a_command_that_is_refused_changes_nothing(self):
        for command in ("startChat", "endChat", "sendMessage", "stopPoll", "poll", "restore"):
            if not self.chat.can(command):
                assert not self.chat.command(command, {"message": "hi"})

    # -- what holds after each -----------------------------------------------------------------------------------------

    @invariant()
    def the_service_is_where_the_model_is(self):
        if hasattr(self, "model"):
            heard, self.heard[:] = list(self.heard), []
            assert heard == self.model.take()
            assert self.chat.state == self.model.state
            if self.in_session:
                assert self.chat.health().failures == self.model.failures

    @invariant()
    def what_is_legal_is_what_the_model_allows(self):
        if hasattr(self, "model"):
            state = self.model.state
            assert self.chat.can("startChat") == (state in ("idle", "ended"))
            assert self.chat.can("endChat") == (self.in_session or state == "async-dormant")
            assert self.chat.can("sendMessage") == self.in_session
            assert self.chat.can("stopPoll") == (self.model.polls and state in ("polling", "offline"))

    def teardown(self):
        """When all is well again nothing is missing, and the whole story can be replayed."""
        if hasattr(self, "model"):
            self._heal()
        for chat, _ in self.server.recorders:
            replay(self.server.recording(chat)).check()
        self.server.close()

    def _heal(self):
        self.server.clear_faults()
        self.verdicts.clear()
        if self.model.state == "active" and self.model.polls:
            self.start_poll()
        for _ in range(4):
            if self.model.due:
                self.the_next_timer()
                self.the_service_is_where_the_model_is()
        assert len(self.chat.get_transcript().messages) == len(self.model.seen)


class AsyncChats(Chats):
    transport = "v3-async"


class NexusChats(Chats):
    transport = "v3"


class PushedChats(Chats):
    """Over CometD it is the link's affair when it asks for what; foretold are the content and what holds at last."""

    transport = "cometd"

    def _new_service(self):
        super()._new_service()
        self.delivered: list[list[int]] = []
        self.chat.subscribe(
            "messageReceived", lambda event: self.delivered.append([message.index for message in event.data.messages])
        )

    def _follow(self):
        """Let the model take what was delivered, and the state that the events tell of."""
        heard, self.heard[:] = list(self.heard), []
        known = {one.index: one for one in self.entries()} if self.server.core.chats else {}
        chunks, self.delivered[:] = list(self.delivered), []
        if {"started", "restored"} & set(heard):
            self.model._clear()
        for chunk in chunks:
            assert not self.model.seen.intersection(chunk)
            self.model.content([known[index] for index in chunk])
        told = self.model.take()
        if "ended" in heard:
            self.model.left()
            told += self.model.take()
            told = [name for name in told if name in heard]  # who was told to have left is not told so again
        assert [name for name in heard if name in CONTENT] == [name for name in told if name in CONTENT]
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
    def the_next_timers(self, times):
        for _ in range(times):
            self.timeline.advance(max(0.0, (self.timeline.next_timer() or 0.0) - self.timeline.now()))
            self._follow()
        self.verdicts.clear()

    @precondition(lambda self: self.in_session)
    @rule(mishap=st.sampled_from(["forget_clients", "hang_up"]))
    def the_gateway_restarts(self, mishap):
        getattr(self.server.core, mishap)()

    @precondition(lambda self: self.in_session)
    @rule()
    def the_server_ends_the_chat(self):
        self.server.clear_faults()
        self.verdicts.clear()
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
    def close_and_come_back(self, away):
        restorable = self.in_session
        self.chat.close()
        self.timeline.advance(away)
        self._new_service()
        self.model._clear()
        self.chat.open()
        assert "restoreTimeout" not in self.heard or (restorable and away >= 60)
        assert not (restorable and away >= 60) or "restoreTimeout" in self.heard

    @invariant()
    def the_service_is_where_the_model_is(self):
        if hasattr(self, "model"):
            self._follow()

    def _heal(self):
        self.server.clear_faults()
        self.timeline.advance(200)
        self._follow()
        if self.in_session:
            assert self.model.state == "active"
            assert self.model.seen == {one.index for one in self.entries()}


MACHINES = {"v2": Chats, "cometd": PushedChats, "v3": NexusChats, "v3-async": AsyncChats}

LENGTH = 40
"""Steps of one story at most."""

ORDINARY = 300
"""Steps in the ordinary run, for each transport."""

STEPS = int(os.environ.get("WEBCHAT_MODEL_STEPS", "20000"))
"""Steps of the soak, over all transports; more on request."""


def go_side_by_side(transport, steps, **more):
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
def test_the_service_does_what_the_model_says(transport):
    go_side_by_side(transport, ORDINARY, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("transport", MACHINES)
def test_the_service_does_what_the_model_says_for_long(transport):
    go_side_by_side(transport, STEPS // len(MACHINES), print_blob=True)


def test_a_service_that_does_otherwise_is_found_out(monkeypatch):
    monkeypatch.setitem(on_reply.POLLED, on_reply.Verdict.UNAVAILABLE, on_reply.POLLED[on_reply.Verdict.THROTTLED])
    with pytest.raises(AssertionError):
        go_side_by_side("v2", 4000, derandomize=True, phases=[Phase.generate])
