"""Test outcomes of commands: callbacks that run at once, and the exception of a rejection."""

from __future__ import annotations

import re

import pytest

from webchat_fsm import CommandRejected, ManualDriver, Outcome, TransportError, WebChatService


@pytest.fixture
def chat(wire, service, by_hand):
    with service(wire(), driver=by_hand) as opened:
        yield opened


def test_resolved_outcome_is_true_and_calls_back(chat):
    seen: list[object] = []
    outcome = chat.command("startChat", {"nickname": "Jonny"})
    chained = outcome.done(lambda value: seen.append(value["chatId"])).fail(seen.append).always(seen.append)
    assert chained is outcome
    assert (bool(outcome), outcome.status, outcome.reason) == (True, "resolved", None)
    assert seen == ["chat-1", outcome.value]
    assert outcome.result() is outcome.value


def test_rejected_outcome_is_false_and_calls_back(chat):
    seen: list[object] = []
    outcome = chat.command("endChat").done(seen.append).fail(seen.append).always(seen.append)
    assert (bool(outcome), outcome.status, outcome.value) == (False, "rejected", None)
    assert seen == ["There is no active chat session"] * 2
    with pytest.raises(CommandRejected, match="There is no active chat session"):
        outcome.result()


def test_then_accepts_both_callbacks(chat):
    seen: list[str] = []
    chat.command("getTranscript").then(lambda value: seen.append("done"), lambda reason: seen.append("fail"))
    chat.command("endChat").then(lambda value: seen.append("done"), lambda reason: seen.append("fail"))
    chat.command("getTranscript").then(None, lambda reason: seen.append("fail"))
    assert seen == ["done", "fail"]


def test_exception_of_a_callback_reaches_the_caller(chat):
    with pytest.raises(ZeroDivisionError):
        chat.command("getTranscript").done(lambda value: 1 / 0)


def test_unknown_command_raises_value_error_with_nearest(chat):
    with pytest.raises(ValueError, match="there is no command 'startChatt'; did you mean 'startChat'"):
        chat.command("startChatt")


@pytest.mark.parametrize("data", ["text", 5, ["a"]])
def test_data_that_is_no_mapping_raises_type_error(chat, data):
    with pytest.raises(TypeError, match="the data of startChat must be a mapping"):
        chat.command("startChat", data)


def test_rejection_has_command_reason_state_and_legal_states(chat):
    with pytest.raises(CommandRejected) as caught:
        chat.end_chat()
    rejected = caught.value
    assert (rejected.command, rejected.reason, rejected.state) == ("endChat", "There is no active chat session", "idle")
    assert rejected.response is None
    assert rejected.legal_in == {"active", "polling", "offline"}
    assert str(rejected) == (
        "endChat rejected in state idle: There is no active chat session; legal in: active, offline, polling"
    )


def test_network_error_is_the_cause_of_the_rejection(wire, service, by_hand, no_answer):
    with service(wire(start=no_answer), driver=by_hand) as chat:
        with pytest.raises(CommandRejected) as caught:
            chat.start_chat(nickname="Jonny")
        assert isinstance(caught.value.__cause__, TransportError)
        outcome = chat.command("startChat", {"nickname": "Jonny"})
        assert outcome.reason == {
            "status": 0,
            "body": None,
            "errors": [{"code": 0, "text": "start: the connection was lost"}],
            "url": "http://chat.test/chat/",
        }
        with pytest.raises(CommandRejected) as again:
            outcome.result()
        assert isinstance(again.value.__cause__, TransportError)


def test_rejection_holds_the_response_of_the_server(wire, service, by_hand):
    refused = {"statusCode": 2, "errors": [{"code": 306, "advice": "no such service"}]}
    with service(wire(start=lambda request: refused), driver=by_hand) as chat:
        with pytest.raises(CommandRejected, match="no such service") as caught:
            chat.start_chat(nickname="Jonny")
        assert caught.value.response.status == 200
        assert caught.value.response.errors[0]["code"] == 306
        assert chat.command("startChat", {}).reason["statusCode"] == 2


def test_outcome_repr_shows_status_and_text_but_no_value():
    assert repr(Outcome(resolved=True, value={"secureKey": "x"})) == "Outcome(resolved)"
    assert repr(Outcome(resolved=False, reason="No")) == "Outcome(rejected: No)"
    assert repr(Outcome(resolved=False, reason={"secureKey": "x"})) == "Outcome(rejected)"


def test_can_and_explain_agree_with_the_legal_commands(chat):
    assert not chat.can("endChat")
    explained = chat.explain("endChat")
    assert (explained.legal, explained.reason) == (False, "There is no active chat session")
    assert "polling" in explained.legal_in
    chat.start_chat(nickname="Jonny")
    assert chat.can("endChat")
    for name in chat.legal_commands():
        assert chat.explain(name).reason == ""
    with pytest.raises(ValueError, match="no command"):
        chat.can("fly")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"store": "session.json"}, "store must be a SessionStore such as FileStore(path), not str"),
        ({"http": "x"}, "http must be an Http, which carries requests, not str"),
        ({"driver": "x"}, "driver must be a Driver such as ManualDriver(), not str"),
        ({"driver": ManualDriver}, "driver must be a Driver such as ManualDriver(), not the class ManualDriver itself"),
        ({"recorder": "x"}, "recorder must be a Recorder such as webchat_fsm.testing.Recorder(path), not str"),
    ],
)
def test_argument_of_the_wrong_type_raises_at_once(arguments, message):
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        WebChatService({"dataURL": "http://chat.test/x"}, **arguments)
