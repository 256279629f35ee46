"""The public names: all there, sorted, documented, and what they promise to be."""

from __future__ import annotations

import enum
import inspect

import msgspec
import pytest

import webchat_fsm
from webchat_fsm import CommandRejected, ConfigError, State, TransportError, WaitTimeout, WebChatError, WebChatService
from webchat_fsm.lifecycle.commands import COMMANDS
from webchat_fsm.lifecycle.events import EVENTS

PROMISED = {
    "WebChatService", "Bus", "State", "Outcome", "ChatEvent", "BusEvent", "Config", "Message", "Participant",
    "Response", "Receipt", "SessionData", "Subscription", "MemoryStore", "FileStore", "ThreadDriver", "ManualDriver",
    "WebChatError", "CommandRejected", "TransportError", "ConfigError", "StoreError", "WaitTimeout", "ChatClosed",
    "HandlerWaitError",
}  # fmt: skip

PUBLIC = [getattr(webchat_fsm, name) for name in webchat_fsm.__all__]


def test_every_promised_name_is_there():
    assert set(webchat_fsm.__all__) >= PROMISED


def test_there_is_a_payload_struct_for_each_event_that_has_data():
    payloads = {event.payload.__name__ for event in EVENTS.values() if event.payload is not None}
    assert payloads <= set(webchat_fsm.__all__)


def test_all_is_sorted_and_complete():
    assert webchat_fsm.__all__ == sorted(webchat_fsm.__all__)
    bound = {
        name for name, value in vars(webchat_fsm).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert bound == set(webchat_fsm.__all__)


def members(cls: type) -> list[tuple[str, object]]:
    """The public functions and properties that a class or its bases in this package define."""
    return [
        (name, member)
        for base in cls.__mro__
        if base.__module__.startswith("webchat_fsm")
        for name, member in vars(base).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod))
    ]


@pytest.mark.parametrize("cls", [one for one in PUBLIC if inspect.isclass(one)], ids=lambda cls: cls.__name__)
def test_every_public_class_and_method_says_what_it_means(cls):
    assert vars(cls).get("__doc__"), cls
    undocumented = [name for name, member in members(cls) if not inspect.getdoc(member)]
    assert undocumented == []


def test_there_is_a_method_for_each_command_but_poll_and_configure():
    def snake(name: str) -> str:
        return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)

    for name in COMMANDS.keys() - {"poll", "configure"}:
        method = getattr(WebChatService, snake(name))
        assert inspect.isfunction(method), name
    assert not hasattr(WebChatService, "poll")
    assert not hasattr(WebChatService, "configure")


def test_the_other_promised_members_are_there():
    members = "open close state command can legal_commands explain subscribe wait_for events step health fetch"
    assert [name for name in members.split() if not hasattr(WebChatService, name)] == []


def test_signatures_keep_what_was_promised():
    assert [*inspect.signature(WebChatService).parameters][:4] == ["config", "store", "http", "driver"]
    assert inspect.signature(WebChatService.close).parameters["timeout"].default == 2.0
    assert inspect.signature(WebChatService.close).parameters["end"].kind is inspect.Parameter.KEYWORD_ONLY
    assert [*inspect.signature(WebChatService.wait_for).parameters] == ["self", "event", "timeout", "where"]
    assert inspect.signature(WebChatService.events).parameters["silence"].default is None


def test_states_are_texts():
    assert issubclass(State, enum.StrEnum)
    assert {str(state) for state in State} == {
        "idle", "starting", "active", "polling", "offline", "restoring", "async-dormant", "ended",
    }  # fmt: skip
    assert {state for state in State if state.has_session} == {"active", "polling", "offline"}


def test_errors_form_one_tree():
    errors = [one for one in PUBLIC if inspect.isclass(one) and issubclass(one, BaseException)]
    assert all(issubclass(one, WebChatError) for one in errors)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(WaitTimeout, TimeoutError)
    assert not issubclass(CommandRejected, TransportError)


FROZEN = ["Message", "Participant", "Response", "SessionData", "ChatEvent", "BusEvent", "Config"]


@pytest.mark.parametrize("name", FROZEN)
def test_what_is_handed_out_cannot_be_changed(name):
    struct = getattr(webchat_fsm, name)
    assert issubclass(struct, msgspec.Struct)
    assert struct.__struct_config__.frozen


def test_the_package_says_that_it_is_typed():
    from pathlib import Path

    assert (Path(webchat_fsm.__file__).parent / "py.typed").exists()
