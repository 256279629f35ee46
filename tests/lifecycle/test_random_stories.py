"""Run random sequences of commands, participants, faults, closes and delays.

The laws hold in each of them, every outcome is that of `explain`, and after the faults no message is lost or repeated.
"""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws import LawWatcher
from tests.lifecycle.environment import ChatEnvironment
from tests.limits import examples
from webchat_fsm.testing import TestServer, Timeline

COMMANDS = {
    "startChat": {"nickname": "Jonny"},
    "endChat": None,
    "sendMessage": {"message": "mine"},
    "sendTyping": {"message": "m"},
    "startPoll": None,
    "stopPoll": None,
    "resetPollExceptions": None,
    "updateUserData": {"page": "/help"},
    "verifySession": None,
    "restore": None,
    "poll": None,
}

FAULTS = (
    {"drop": True},
    {"drop": True, "takes_effect": True},
    {"tear": True},
    {"delay": 10.0},
    {"server_status": 1},
    {"server_status": 2, "chat_ended": False},
    {"http_status": 500},
    {"http_status": 429, "retry_after": 2},
    {"body": b"<html>"},
    {"duplicate": True},
    {"reorder": True},
    {"member": "$.messages[0].text", "value": {"a": 1}},
    {"member": "$.messages[1].utcTime", "remove": True},
    {"member": "$.messages[0].from", "value": None},
    {"member": "$.alias", "value": 117},
    {"member": "$.nextPosition", "value": "x"},
)
"""Faults that do not end a chat."""

STEPS = st.one_of(
    st.tuples(st.just("command"), st.sampled_from(sorted(COMMANDS))),
    st.tuples(st.just("person"), st.sampled_from(["join", "leave", "typing", "say", "bot"])),
    st.tuples(
        st.just("fault"), st.tuples(st.sampled_from(FAULTS), st.sampled_from(["refresh", None]), st.integers(1, 8))
    ),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.3, 1.0, 2.0, 5.0, 20.0])),
    st.tuples(st.just("away"), st.sampled_from([0.0, 10.0, 59.0, 60.0, 100.0])),
    st.tuples(st.just("crash"), st.sampled_from([0.0, 30.0, 100.0])),
    st.tuples(st.just("server ends"), st.none()),
    st.tuples(st.just("poll by hand"), st.none()),
)


class Scenario:
    """Runs one service after another with one store, on a server of its own."""

    def __init__(self):
        self.timeline = Timeline()
        self.server = TestServer(self.timeline)
        self.env = ChatEnvironment(self.timeline, self.server)
        self.people = {}
        self.watchers = []
        self.said = 0
        self._new()

    def _new(self) -> None:
        self.env.client()
        self.watchers.append(LawWatcher().attach(self.env.chat))
        self._open()

    def _open(self) -> None:
        self.watchers[-1].opened()
        self.env.chat.open()

    def run(self, step) -> None:
        kind, what = step
        getattr(self, "_" + kind.replace(" ", "_"))(what)

    def _command(self, name) -> None:
        chat = self.env.chat
        explained, state = chat.explain(name), chat.state
        outcome = chat.command(name, COMMANDS[name])
        assert explained.legal or outcome.reason == explained.reason, (name, state)
        assert explained.legal or chat.state == state
        assert explained.legal is (state in explained.legal_in) or name == "poll"

    def _person(self, what) -> None:
        if not self.server.core.chats or self.server.core.current_chat().ended:
            return
        chat = self.server.core.current_chat()
        name = "Robo" if what == "bot" else "Ann"
        person = self.people.setdefault(name, self.server.bot(name) if what == "bot" else self.server.agent(name))
        if what in ("join", "bot") or not person.is_in(chat):
            person.join(chat)
        elif what == "say":
            self.said += 1
            person.say(f"text {self.said}", chat)
        else:
            getattr(person, what)(chat)

    def _fault(self, what) -> None:
        fault, operation, times = what
        self.server.faults.add(operation=operation, times=times, **fault)

    def _pass(self, seconds) -> None:
        self.timeline.advance(seconds)

    def _away(self, seconds) -> None:
        self.env.chat.close()
        self.watchers[-1].closed = True
        self.timeline.advance(seconds)
        self._open()

    def _crash(self, seconds) -> None:
        self.env.crash()
        self.timeline.advance(seconds)
        self._new()

    def _server_ends(self, _) -> None:
        if self.server.core.chats:
            self.server.end()

    def _poll_by_hand(self, _) -> None:
        if self.env.chat.state.has_session:
            self.env.chat.step()

    def heal(self) -> None:
        """Remove all faults, turn polling on, and let the chat recover."""
        self.server.faults.clear()
        if self.env.chat.state.has_session:
            self.env.chat.start_poll()
        self.timeline.advance(400)


@pytest.fixture(scope="module")
def no_log():
    """Turn the log off, to which each of the many faults would write."""
    logging.getLogger("webchat_fsm").setLevel(logging.CRITICAL + 1)
    yield
    logging.getLogger("webchat_fsm").setLevel(logging.NOTSET)


@given(st.lists(STEPS, min_size=1, max_size=25))
@settings(max_examples=examples(80))
def test_random_steps_keep_the_laws_and_lose_no_message(no_log, steps):
    scenario = Scenario()
    try:
        scenario.run(("command", "startChat"))
        for step in steps:
            scenario.run(step)
        scenario.heal()
        _check_nothing_is_lost(scenario)
    finally:
        scenario.server.close()
    broken = [law for watcher in scenario.watchers for law in watcher.broken]
    assert not broken


def _check_nothing_is_lost(scenario: Scenario) -> None:
    chat = scenario.env.chat
    if not chat.state.has_session:
        return
    there = scenario.server.core.chats
    session = next(one for one in there if one.chat_id == chat.get_session_data().session_id)
    assert chat.state == "polling"
    assert [message.index for message in chat.get_transcript().messages] == [
        event.index for event in session.transcript
    ]
    assert chat.health().failures == 0
