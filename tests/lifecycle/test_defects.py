"""Check that an exception in the library, while it makes a request or handles a response, counts as a failed poll."""

from __future__ import annotations

import logging

import pytest

from tests.lifecycle import injection
from tests.lifecycle.environment import ChatEnvironment
from webchat_fsm import CommandRejected, TransportError
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.testing import TestServer, Timeline

KNOWN = injection.functions()
ROUNDS = 12.0
"""Seconds for which a function raises: several polls on each transport."""

EVERY = 8
"""Step of the sample: an eighth of the functions raises, another eighth on each transport; in the soak all of them."""

fewer_or_all = pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.soak)])


def sample(names: list[str], transport: Transport, every: int) -> list[str]:
    """Return each `every`-th of the sorted names, from another offset for each transport."""
    return sorted(names)[list(Transport).index(transport) % every :: every]


def started_chat(transport: Transport) -> ChatEnvironment:
    """Start a chat with an agent, and let its first polls be answered."""
    timeline = Timeline()
    env = ChatEnvironment(timeline, TestServer(timeline), transport)
    env.start(pollExceptionLimit=1)
    agent = env.agent()
    env.advance(5)
    env.joined_agent = agent
    return env


def converse(env: ChatEnvironment, text: str, seconds: float = ROUNDS) -> None:
    """Let the agent say something, and time pass."""
    env.joined_agent.say(text)
    env.advance(seconds)


def usual_state(transport: Transport) -> str:
    return "polling" if transport.polls else "active"


@fewer_or_all
@pytest.mark.parametrize("transport", Transport)
def test_defect_during_poll_loses_no_message(transport, every, caplog):
    caplog.set_level(logging.CRITICAL, "webchat_fsm")
    first = started_chat(transport)
    faulty = injection.called_in(lambda: converse(first, "clean"), KNOWN)
    assert len(faulty) > 15
    wrong = []
    for name in sample(faulty, transport, every):
        env = started_chat(transport)
        with injection.injected(KNOWN[name]):
            before = len(env.http.sent)
            converse(env, "during")
        requests, health = len(env.http.sent) - before, env.chat.health()
        errors = env.heard.all("error")
        converse(env, "after", 20)
        said = [text for text in env.heard.texts() if text in ("during", "after")]
        if (
            sorted(said) != ["after", "during"]
            or env.chat.state != usual_state(transport)
            or env.chat.health().failures
        ):
            wrong.append((name, said, str(env.chat.state), env.chat.health()))
        elif requests > 60 or health.defects != len(errors) or not (health.defects and health.failures):
            wrong.append((name, requests, health, errors))
        env.chat.close()
    assert not wrong, "\n".join(map(str, wrong))


def closed_chat(transport: Transport) -> ChatEnvironment:
    """Close a chat, and make another service that has not opened yet."""
    env = started_chat(transport)
    env.chat.close()
    env.advance(1)
    env.client()
    return env


def raised_by(act) -> Exception | None:
    """Return the exception that a call raises, or None."""
    try:
        act()
    except Exception as error:
        return error
    return None


@fewer_or_all
@pytest.mark.parametrize("transport", Transport)
def test_send_is_rejected_by_defect_and_next_send_delivered(transport, every, caplog):
    caplog.set_level(logging.CRITICAL, "webchat_fsm")
    first = started_chat(transport)
    rejected = []
    for name in sample(injection.called_in(lambda: first.chat.send_message("clean"), KNOWN), transport, every):
        env = started_chat(transport)
        with injection.injected(KNOWN[name]):
            error = raised_by(lambda chat=env.chat: chat.send_message("faulty"))
        if error is not None:
            rejected.append(name)
            assert isinstance(error, CommandRejected), name
            assert isinstance(error.__cause__, TransportError), name
        env.advance(15)
        env.chat.send_message("afterwards")
        env.advance(15)
        assert env.heard.texts().count("afterwards") == 1, name
        assert env.heard.texts().count("faulty") <= 1, name
        assert env.chat.state == usual_state(transport), name
        env.chat.close()
    assert len(rejected) > 5 // every


@fewer_or_all
@pytest.mark.parametrize("transport", Transport)
def test_start_is_rejected_by_defect_and_next_start_works(transport, every, caplog):
    caplog.set_level(logging.CRITICAL, "webchat_fsm")
    timeline = Timeline()
    first = ChatEnvironment(timeline, TestServer(timeline), transport).open()
    rejected = []
    for name in sample(injection.called_in(lambda: first.start_chat(nickname="Jonny"), KNOWN), transport, every):
        env = ChatEnvironment(timeline, TestServer(timeline), transport)
        chat = env.open()
        with injection.injected(KNOWN[name]):
            error = raised_by(lambda chat=chat: chat.start_chat(nickname="Jonny"))
            env.advance(1)
        if error is not None:
            rejected.append(name)
            assert isinstance(error, CommandRejected), name
            assert chat.state == "idle", name
            chat.start_chat(nickname="Jonny")
        env.advance(5)
        assert chat.state == usual_state(transport), name
        chat.close()
    assert len(rejected) > 5 // every


@fewer_or_all
@pytest.mark.parametrize("transport", Transport)
def test_restore_fails_by_defect_and_next_restore_works(transport, every, caplog):
    caplog.set_level(logging.CRITICAL, "webchat_fsm")
    failed = []
    for name in sample(injection.called_in(closed_chat(transport).chat.open, KNOWN), transport, every):
        env = closed_chat(transport)
        chat = env.chat
        with injection.injected(KNOWN[name]):
            chat.open()
            env.advance(1)
        if chat.state != usual_state(transport):
            failed.append(name)
            chat.close()
            chat = env.open()
        env.advance(5)
        assert chat.state == usual_state(transport), name
        chat.close()
    assert len(failed) > 5 // every


def test_defect_is_logged_once_and_counted_each_time(caplog):
    env = started_chat(Transport.V2)
    with injection.injected(KNOWN["webchat_fsm._core.on_poll.deliver"]):
        converse(env, "during")
    lines = [record for record in caplog.records if "a defect of webchat_fsm" in record.message]
    assert len(lines) == 1
    assert lines[0].exc_info is not None
    assert env.chat.health().defects > 1


def test_error_event_of_defect_has_server_response():
    env = started_chat(Transport.V2)
    with injection.injected(KNOWN["webchat_fsm._core.on_poll.deliver"]):
        converse(env, "during", 3)
    response = env.heard.all("error")[0].response
    assert response.status == 200
    assert response.body["messages"][-1]["text"] == "during"
    assert "InjectedError at" in response.errors[0]["text"]


def test_transport_exception_rejects_send_as_unconfirmed():
    env = started_chat(Transport.V2)

    def fail():
        raise ZeroDivisionError("below")

    env.http.during("send", fail)
    with pytest.raises(CommandRejected) as caught:
        env.chat.send_message("lost")
    assert isinstance(caught.value.__cause__, TransportError)
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)
    assert caught.value.receipt.status == "unknown"


def test_preprocessed_message_is_polled_again_after_defect():
    env = started_chat(Transport.V2)
    env.chat.register_pre_processor(lambda item: item)
    with injection.injected(KNOWN["webchat_fsm._core.saved_session.Prefilters.hide_any"]):
        converse(env, "during", 3)
    converse(env, "after", 60)
    assert [text for text in env.heard.texts() if text != "clean"][-2:] == ["during", "after"]
