"""Binary values in commands: what has no text form is refused by its type, in whichever class of bytes it is given."""

from __future__ import annotations

import pytest

from webchat_fsm import CommandRejected
from webchat_fsm._json import json_to_keep, read_json

BINARY = [b"secret", bytearray(b"secret")]


@pytest.mark.parametrize("value", BINARY, ids=["bytes", "bytearray"])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [{"key": value}]], ids=["plain", "nested"])
def test_binary_user_data_are_rejected_and_send_nothing(env, value, wrap):
    chat = env.start()
    sent = len(env.http.sent)
    with pytest.raises(TypeError, match=f"is of type {type(value).__name__}"):
        chat.update_user_data({"tier": wrap(value)})
    assert len(env.http.sent) == sent


@pytest.mark.parametrize("value", BINARY, ids=["bytes", "bytearray"])
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value]], ids=["alone", "in a list"])
def test_content_given_as_a_file_is_rejected_with_a_hint(env, value, wrap):
    expected = f"files must be paths or open files, not {type(value).__name__}; for content wrap it in io.BytesIO"
    with pytest.raises(CommandRejected, match=expected):
        env.start().send_file(wrap(value))


@pytest.mark.parametrize("value", BINARY, ids=["bytes", "bytearray"])
def test_binary_value_beside_a_surrogate_is_kept_as_base64(value):
    assert read_json(json_to_keep({"\ud83d": value})) == {"\ud83d": "c2VjcmV0"}
