"""What is published and dropped where this side ends a chat: by endChat, or by a poll that finds the end meanwhile."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from tests.core.harness import SAVED, CoreHarness, bad, chat_message, good, silent
from webchat_fsm import State, Transport
from webchat_fsm._core import decide as decisions
from webchat_fsm._core.saved_session import SavedSession
from webchat_fsm._core.steps import Closed, Forget, ReceivedMessage, ResponseKind
from webchat_fsm.testing._bench import CONFIGS

PEOPLE = {"Supervisor": 2, "Agent": 3, "Bot": 4}
LEAVING = ["supervisorDisconnected", "agentDisconnected", "botDisconnected", "clientDisconnected", "ended"]

ENDS = {
    "the answer to endChat": None,
    "a poll that finds the end": good(chat_ended=True),
    "a poll that finds no chat": bad(ResponseKind.LOST, 404),
}


def by(kind: str, number: int, index: int, type: str):  # noqa: A002
    message = chat_message(index, kind=kind, type=type)
    message = replace(message, sender=replace(message.sender, id=number))
    return ReceivedMessage(message, {"index": index}, (index,))


def ended(people: dict[str, int], end: str, *, client_left: bool = False) -> CoreHarness:
    """Return a core whose chat, with filters and these people in it, was ended while endChat was in flight."""
    core = CoreHarness().start()
    received = [by(kind, number, 10 + number, "ParticipantJoined") for kind, number in people.items()]
    if client_left:
        received.append(by("Client", 1, 20, "ParticipantLeft"))
    core.poll(replace(good(), received=tuple(received)))
    core.ask("addPrefilter", {"filters": re.compile("secret")})
    poll, leave = core.due(), core.ask("endChat")
    core.published()
    core.answer(*((leave, good()) if ENDS[end] is None else (poll, ENDS[end])))
    assert core.session.state is State.ENDED
    return core


@pytest.mark.parametrize("end", ENDS)
def test_all_who_are_connected_leave_in_order(end):
    assert ended(PEOPLE, end).published() == LEAVING


@pytest.mark.parametrize("missing", [*PEOPLE, "Client"])
@pytest.mark.parametrize("end", ENDS)
def test_one_who_is_not_connected_does_not_leave(end, missing):
    people = {kind: number for kind, number in PEOPLE.items() if kind != missing}
    core = ended(people, end, client_left=missing == "Client")
    assert core.published() == [event for event in LEAVING if not event.startswith(missing.lower())]


@pytest.mark.parametrize("end", ENDS)
def test_end_while_leaving_drops_filters_and_saved_session(end):
    core = ended(PEOPLE, end)
    assert list(core.session.prefilters.custom) == []
    assert core.session.saved is None
    assert isinstance(core.effects[-1], Forget)


@pytest.mark.parametrize("state", [State.ACTIVE, State.POLLING, State.OFFLINE])
def test_no_command_is_sent_while_end_chat_is_in_flight(state):
    core = CoreHarness().start()
    for _ in range(6 if state is State.OFFLINE else 0):
        core.poll(silent())
    if state is State.ACTIVE:
        core.ask("stopPoll")
    assert core.session.state is state
    core.ask("endChat")
    for command, data in (("sendMessage", {"message": "hi"}), ("sendTyping", {}), ("endChat", {}), ("startChat", {})):
        decision = core.ask(command, data)
        assert (decision.settled.resolved, decision.call) == (False, None), command


# -- a dormant chat ----------------------------------------------------------------------------------------------------


def dormant() -> tuple[CoreHarness, SavedSession]:
    """Return a core whose asynchronous chat is dormant, as its restore had no answer, and what is saved of it."""
    core = CoreHarness(**CONFIGS[Transport.V3_ASYNC])
    saved = replace(SAVED, transport=Transport.V3_ASYNC, address=core.session.config.address)
    core.answer(core.open(saved), silent())
    assert core.session.state is State.DORMANT
    core.published()
    return core, saved


@pytest.mark.parametrize("reply", [good(), silent(), bad(ResponseKind.BAD, 500)])
def test_end_of_a_dormant_chat_publishes_user_and_end(reply):
    core, _ = dormant()
    core.ask("addPrefilter", {"filters": re.compile("secret")})
    core.answer(core.ask("endChat"), reply)
    assert (core.published(), core.session.state) == (["clientDisconnected", "ended"], State.ENDED)
    assert list(core.session.prefilters.custom) == []
    assert core.session.saved is None


def test_defective_opening_beside_foreign_session_stays_dormant(monkeypatch):
    """Restore nothing where the store has a session of another server and opening raises: there is none to ask for."""

    def raising(*given):
        raise RuntimeError("planted")

    core, saved = dormant()
    core.take(Closed())
    monkeypatch.setattr(decisions, "_open", raising)
    core.open(replace(saved, address="http://other.test/nexus/v3"))
    assert (core.published(), core.session.state, core.session.opened) == (["ready"], State.DORMANT, True)
