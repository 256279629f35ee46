"""Test how many objects a chat takes: a process holds thousands of chats, and each collection looks at all of them."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

import pytest

from webchat_fsm import ManualDriver, WebChatService
from webchat_fsm.server import ChatServer
from webchat_fsm.server.front import HttpFront

POLL_RATE = 600_000
"""Milliseconds between two polls, so that none changes a chat while its objects are counted."""

SHARED = (FunctionType, ModuleType, ManualDriver, type)
"""What a chat refers to and does not own; its objects are not looked for there."""

MOST_TRACKED = 80
"""Objects of a chat that polls at which the garbage collector looks; a second chat is counted, beside a first one."""


def reachable(root):
    """Return all objects below one by their ids, without what is shared by all chats."""
    found, left = {}, [root]
    while left:
        one = left.pop()
        if id(one) not in found and not isinstance(one, SHARED):
            found[id(one)] = one
            left.extend(gc.get_referents(one))
    return found


@pytest.fixture(autouse=True)
def laws():
    """Watch no law here, as the objects of the watcher would be counted."""


@pytest.fixture
def chats():
    """Start two chats over HTTP, of which both have polled once."""
    with HttpFront(ChatServer()) as server:
        config = {"dataURL": server.data_url(), "dynamicPolling": False, "pollRate": POLL_RATE}
        driver = ManualDriver()
        pair = [WebChatService(config, driver=driver) for _ in range(2)]
        for chat in pair:
            chat.open()
            chat.start_chat(nickname="Jonny")
            chat.step()
        yield pair
        for chat in pair:
            chat.close()


def own(chats):
    """Return the objects that the second chat has beside those that it shares with the first."""
    gc.collect()  # which stops to look at tuples of plain values
    first, second = map(reachable, chats)
    return [one for key, one in second.items() if key not in first]


def with_dict(objects):
    """Return the classes of this package whose objects have a dict of attributes; the service is the user's to use."""
    kinds = {type(one) for one in objects} - {WebChatService}
    ours = [kind for kind in kinds if kind.__module__.startswith("webchat_fsm")]
    return sorted(kind.__qualname__ for kind in ours if kind.__dictoffset__)


def test_objects_of_a_chat_have_no_attribute_dicts(chats):
    found = own(chats)
    assert {"Engine", "Connection", "Stream"} <= {type(one).__name__ for one in found}
    assert with_dict(found) == []


def test_object_with_an_attribute_dict_is_found(chats):
    class Plain:
        __module__ = "webchat_fsm.plain"

    chats[1].note = [Plain()]
    assert with_dict(own(chats)) == ["test_object_with_an_attribute_dict_is_found.<locals>.Plain"]


def test_collector_looks_at_few_objects_of_a_chat(chats):
    assert 20 < sum(map(gc.is_tracked, own(chats))) <= MOST_TRACKED
