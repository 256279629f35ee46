"""A defect of the library while a request is made, or an answer is read or decided on, counts as a failed poll."""

from __future__ import annotations

import logging

import pytest

from tests.lifecycle import planted
from tests.lifecycle.stage import Stage
from webchat_fsm import CommandRejected, TransportError
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.testing import TestServer, Timeline

KNOWN = planted.functions()
ROUNDS = 12.0
"""Seconds for which a function raises: several polls on each transport."""

EVERY = 4
"""The ordinary tests strike each fourth of the functions that a transport calls, on each transport others; the soak
strikes all of them on all transports."""

fewer_or_all = pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.soak)])


def some(names: list[str], transport: Transport, every: int) -> list[str]:
    """Every so manyth of the names of functions, sorted so that transports which call the same ones share them out."""
    return sorted(names)[list(Transport).index(transport) % every :: every]


def on(transport: Transport) -> Stage:
    """A chat with an agent, whose first polls have been answered."""
    timeline = Timeline()
    stage = Stage(timeline, TestServer(timeline), transport)
    stage.start(pollExceptionLimit=1)
    agent = stage.agent()
    stage.advance(5)
    stage.speaker = agent
    return stage


def converse(stage: Stage, text: str, seconds: float = ROUNDS) -> None:
    """Let the agent say something, and time pass."""
    stage.speaker.say(text)
    stage.advance(seconds)


def at_home(transport: Transport) -> str:
    return "polling" if transport.polls else "active"


@fewer_or_all
@pytest.mark.parametrize("transport", Transport)
def test_no_defect_makes_a_chat_deaf(transport, every, caplog):
    caplog.set_level(logging.CRITICAL, "webchat_fsm")
    first = on(transport)
    struck = planted.called_in(lambda: converse(first, "clean"), KNOWN)
    assert len(struck) > 15
    wrong = []
    for name in some(struck, transport, every):
        stage = on(transport)
        with planted.planted(KNOWN[name]):
            before = len(stage.http.sent)
            converse(stage, "during")
            requests, health = len(stage.http.sent) - before, stage.chat.health()
            errors = stage.heard.all("error")
        converse(stage, "after", 20)
        said = [text for text in stage.heard.texts() if text in ("during", "after")]
        if (
            sorted(said) != ["after", "during"]
            or stage.chat.state != at_home(transport)
            or stage.chat.health().failures
        ):
            wrong.append((name, said, str(stage.chat.state), stage.chat.health()))
        elif requests > 60 or health.defects != len(errors) or not (health.defects and health.failures):
            wrong.append((name, requests, health, errors))
        stage.chat.close()
    assert not wrong, "\n".join(map(str, wrong))


def away(transport: Transport) -> Stage:
    """A chat that was left, and a service that has not come back yet."""
    stage = on(transport)
    stage.chat.close()
    stage.advance(1)
    stage.client()
    return stage


def raised_by(act) -> Exception | None:
    """The exception of an act, None where it has none."""
    try:
        act()
    except Exception as error:
        return error
    return None


@fewer_or_all
@pytest.mark.parametrize("transport", Transport)
def test_a_command_is_rejected_where_a_defect_strikes(transport, every, caplog):
    caplog.set_level(logging.CRITICAL, "webchat_fsm")
    first = on(transport)
    rejected = []
    for name in some(planted.called_in(lambda: first.chat.send_message("clean"), KNOWN), transport, every):
        stage = on(transport)
        with planted.planted(KNOWN[name]):
            error = raised_by(lambda chat=stage.chat: chat.send_message("struck"))
        if error is not None:
            rejected.append(name)
            assert isinstance(error, CommandRejected), name
            assert isinstance(error.__cause__, TransportError), name
        stage.advance(15)
        stage.chat.send_message("afterwards")
        stage.advance(15)
        assert stage.heard.texts().count("afterwards") == 1, name
        assert stage.heard.texts().count("struck") <= 1, name
        assert stage.chat.state == at_home(transport), name
        stage.chat.close()
    assert len(rejected) > 5 // every


@fewer_or_all
@pytest.mark.parametrize("transport", Transport)
def test_a_start_is_rejected_where_a_defect_strikes(transport, every, caplog):
    caplog.set_level(logging.CRITICAL, "webchat_fsm")
    timeline = Timeline()
    first = Stage(timeline, TestServer(timeline), transport).open()
    rejected = []
    for name in some(planted.called_in(lambda: first.start_chat(nickname="Jonny"), KNOWN), transport, every):
        stage = Stage(timeline, TestServer(timeline), transport)
        chat = stage.open()
        with planted.planted(KNOWN[name]):
            error = raised_by(lambda chat=chat: chat.start_chat(nickname="Jonny"))
            stage.advance(1)
        if error is not None:
            rejected.append(name)
            assert isinstance(error, CommandRejected), name
            assert chat.state == "idle", name
            chat.start_chat(nickname="Jonny")
        stage.advance(5)
        assert chat.state == at_home(transport), name
        chat.close()
    assert len(rejected) > 5 // every


@fewer_or_all
@pytest.mark.parametrize("transport", Transport)
def test_a_restore_fails_where_a_defect_strikes_and_works_again(transport, every, caplog):
    caplog.set_level(logging.CRITICAL, "webchat_fsm")
    failed = []
    for name in some(planted.called_in(away(transport).chat.open, KNOWN), transport, every):
        stage = away(transport)
        chat = stage.chat
        with planted.planted(KNOWN[name]):
            chat.open()
            stage.advance(1)
        if chat.state != at_home(transport):
            failed.append(name)
            chat.close()
            chat = stage.open()
        stage.advance(5)
        assert chat.state == at_home(transport), name
        chat.close()
    assert len(failed) > 5 // every


def test_a_defect_is_logged_once_for_its_place_and_counted(caplog):
    stage = on(Transport.V2)
    with planted.planted(KNOWN["webchat_fsm.core.content.take"]):
        converse(stage, "during")
    lines = [record for record in caplog.records if "a defect of webchat_fsm" in record.message]
    assert len(lines) == 1
    assert lines[0].exc_info is not None
    assert stage.chat.health().defects > 1


def test_an_error_event_carries_the_response_of_the_answer():
    stage = on(Transport.V2)
    with planted.planted(KNOWN["webchat_fsm.core.content.take"]):
        converse(stage, "during", 3)
    response = stage.heard.all("error")[0].response
    assert response.status == 200
    assert response.body["messages"][-1]["text"] == "during"
    assert "PlantedError at" in response.errors[0]["text"]


def test_what_a_way_to_the_server_raises_is_no_answer():
    stage = on(Transport.V2)

    def fail():
        raise ZeroDivisionError("below")

    stage.http.during("send", fail)
    with pytest.raises(CommandRejected) as caught:
        stage.chat.send_message("lost")
    assert isinstance(caught.value.__cause__, TransportError)
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)
    assert caught.value.receipt.status == "unknown"


def test_a_failing_preprocessed_message_is_asked_for_again():
    stage = on(Transport.V2)
    stage.chat.register_pre_processor(lambda item: item)
    with planted.planted(KNOWN["webchat_fsm.core.transcript.Prefilters.hide"]):
        converse(stage, "during", 3)
    converse(stage, "after", 60)
    assert [text for text in stage.heard.texts() if text != "clean"][-2:] == ["during", "after"]
