"""Test the values that commands return and events carry: hashes, copies, user data, changes by a preprocessor."""

from __future__ import annotations

import copy
import pickle

import pytest

from webchat_fsm import (
    ChatEvent,
    Message,
    MessageReceived,
    Participant,
    ParticipantChanged,
    Response,
    Sender,
    SessionData,
    Stats,
    Transcript,
)
from webchat_fsm._model import unsendable

SENDER = Sender(id=7, type="Agent", name="Kim", participant_id="p-7")
MESSAGE = Message(index=3, text="hi", sender=SENDER, user_data={"tier": ["gold"]}, extra={"a": {}})
AGENT = Participant(id=7, name="Kim", type="Agent", connected=True)

VALUES = [
    SENDER,
    MESSAGE,
    AGENT,
    Response(status=200, body={"a": [1]}, errors=[{"code": 1}], url="https://host/x"),
    SessionData(session_id="s", token="t"),
    Stats(agents={7: AGENT}, start_time=1),
    Transcript(messages=(MESSAGE,), original_messages=({"a": []}, 5)),
    MessageReceived(messages=(MESSAGE,), original_messages=({"a": []},)),
    ParticipantChanged(message=MESSAGE, agents={7: AGENT}),
    ChatEvent("messageReceived", MessageReceived(messages=(MESSAGE,), original_messages=({},)), 1.0),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_equal_values_have_equal_hashes(value):
    again = copy.deepcopy(value)
    assert again == value
    assert {value: "found"}[again] == "found"


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_values_can_be_copied_and_pickled(value, copied):
    assert copied(value) == value


@pytest.mark.parametrize("bad", [b"x", bytearray(b"x"), object()])
def test_user_data_without_text_form_are_named(bad):
    place = type(bad).__name__
    assert [*unsendable({"a": [1, bad]}, "userData")] == [f"userData.a[1] is of type {place}"]


@pytest.mark.parametrize("key", [b"x", object()])
def test_user_data_keys_without_text_form_are_named(key):
    assert [*unsendable({key: 1}, "userData")] == [f"userData has a key of type {type(key).__name__}"]


def test_preprocessor_keeps_index_and_participant_id():
    item = {**MESSAGE.item(), "text": "HI", "index": 99, "from": {"id": 7, "participantId": "other"}}
    altered = MESSAGE.altered(item)
    assert (altered.index, altered.text) == (3, "HI")
    assert altered.sender == SENDER


def test_preprocessor_may_change_sender_and_add_fields():
    altered = MESSAGE.altered({"text": "hi", "from": {"id": "x", "name": "Bo", "type": "Bot"}, "mood": "good"})
    assert altered.sender == Sender(id="x", type="Bot", name="Bo", participant_id="p-7")
    assert altered.extra == {"mood": "good"}


def test_session_data_repr_masks_secrets():
    shown = repr(SessionData(session_id="s-1", secure_key="sEcReT", token="sEcReT"))
    assert "sEcReT" not in shown
    assert "s-1" in shown


def test_response_repr_hides_its_body():
    assert "sEcReT" not in repr(Response(status=200, body={"token": "sEcReT"}))
