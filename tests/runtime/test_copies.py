"""Objects of a running chat refuse to be copied, and show no secret in their repr."""

from __future__ import annotations

import copy
import pickle

import pytest

from webchat_fsm import Bus, FileStore, ManualClock, ManualDriver, MemoryStore, ThreadDriver
from webchat_fsm._runtime.clock import SystemClock, WallClock

COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": pickle.dumps}


@pytest.fixture
def objects(wire, service, by_hand):
    chat = service(wire(), driver=by_hand, store=MemoryStore())
    chat.open()
    chat.start_chat(nickname="Jonny")
    bus = Bus()
    return {
        "WebChatService": chat,
        "ManualDriver": by_hand,
        "ThreadDriver": ThreadDriver(),
        "Bus": bus,
        "Plugin": bus.register(chat),
        "Subscription": chat.subscribe("ended", print),
        "Receipt": chat.send_message("hi"),
    }


NAMES = ["WebChatService", "ManualDriver", "ThreadDriver", "Bus", "Plugin", "Subscription", "Receipt"]


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", NAMES)
def test_copying_a_running_object_raises_type_error(objects, name, way):
    with pytest.raises(TypeError, match=f"a {name} cannot be copied or pickled, as it belongs to a running chat; "):
        COPIES[way](objects[name])


def test_copied_file_store_uses_the_same_file(tmp_path):
    store = FileStore(tmp_path / "session.json")
    assert pickle.loads(pickle.dumps(store)).path == copy.deepcopy(store).path == store.path


def test_reprs_show_state_but_no_secret(objects, tmp_path):
    chat = objects["WebChatService"]
    store = MemoryStore()
    shown = [repr(one) for one in objects.values()]
    assert shown == [
        "<WebChatService v2 polling>",
        "<ManualDriver ManualClock(1750000000.0) services=1>",
        "<ThreadDriver services=0 threads=0>",
        "<Bus WebChatService>",
        "Plugin('WebChatService')",
        "Subscription('ended', print)",
        "Receipt(sent)",
    ]
    assert repr(store) == "<MemoryStore empty>"
    store.save(chat._engine.load())
    assert repr(store) == "<MemoryStore with a session>"
    assert repr(SystemClock()) == "SystemClock()"
    assert repr(WallClock()) == "WallClock()"
    assert repr(ManualDriver(ManualClock(2.5))) == "<ManualDriver ManualClock(2.5) services=0>"
    assert "sEcReT" not in "".join([*shown, repr(store), repr(chat.health()), repr(chat.explain("endChat"))])
