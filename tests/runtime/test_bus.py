"""Test the bus of the vendor reference: plugins that command, subscribe and publish, synchronously."""

from __future__ import annotations

import threading

import pytest

from tests.limits import LONG
from webchat_fsm import Bus, Outcome


@pytest.fixture
def bus():
    return Bus()


@pytest.fixture
def mine(bus):
    return bus.register_plugin("MyPlugin")


@pytest.fixture
def other(bus):
    return bus.register_plugin("Other")


@pytest.fixture
def chat(bus, wire, service, by_hand):
    made = service(wire(), driver=by_hand)
    bus.register(made)
    return made


# -- plugins -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MyPlugin", "", "a.b", 5, None])
def test_register_plugin_rejects_used_or_invalid_names(bus, mine, name):
    with pytest.raises(ValueError, match="plugin"):
        bus.register_plugin(name)


def test_plugin_has_the_documented_members(mine):
    documented = {
        "command", "subscribe", "unsubscribe", "publish", "republish", "publish_direct", "before", "register_command",
        "register_events", "registry", "subscribers", "namespace", "data", "ready",
    }  # fmt: skip
    assert documented <= set(dir(mine))
    assert mine.namespace == "MyPlugin"


def test_plugin_lists_its_commands_and_events(mine, other):
    mine.register_command("open", lambda call: None)
    mine.register_events(["opened", "closed"])
    mine.register_events("moved")
    assert other.command("MyPlugin.COMMANDS").value == ["COMMANDS", "EVENTS", "open"]
    assert other.command("MyPlugin.EVENTS").value == ["closed", "moved", "opened"]
    assert other.registry()["MyPlugin"] == {
        "commands": ["COMMANDS", "EVENTS", "open"],
        "events": ["closed", "moved", "opened"],
    }


def test_ready_is_idempotent_and_publishes_nothing(mine, other):
    heard = []
    other.subscribe("MyPlugin.ready", heard.append)
    mine.ready()
    mine.ready()
    assert mine.is_ready
    assert heard == []


# -- commands ----------------------------------------------------------------------------------------------------------


def test_command_handler_gets_commander_time_and_options(mine, other):
    calls = []
    mine.register_command("open", lambda call: calls.append(call) or "value")
    outcome = other.command("MyPlugin.open", {"a": 1})
    assert outcome.value == "value"
    (call,) = calls
    assert (call.command, call.commander, call.data) == ("open", "Other", {"a": 1})
    assert call.time > 1_600_000_000_000


def test_command_without_a_dot_is_the_plugins_own(mine, other):
    mine.register_command("open", lambda call: "mine")
    other.register_command("open", lambda call: "other's")
    assert mine.command("open").value == "mine"
    assert other.command("open").value == "other's"


@pytest.mark.parametrize("options", [None, {}])
def test_options_are_an_empty_object_by_default(mine, options):
    mine.register_command("open", lambda call: call.data)
    assert mine.command("open", options).value == {}


@pytest.mark.parametrize("options", ["text", 5, True, [1], len])
def test_options_that_are_no_object_are_rejected(mine, options):
    mine.register_command("open", lambda call: pytest.fail("must not run"))
    assert mine.command("open", options).reason == "Command options must be an object."


def test_handlers_do_not_change_the_callers_options(mine):
    given = {"a": {"b": 1}}
    mine.register_command("open", lambda call: call.data.clear())
    mine.before("open", lambda options: options.update(c=2) or options)
    mine.command("open", given)
    assert given == {"a": {"b": 1}}


def test_unknown_plugin_or_command_has_the_documented_reason(mine):
    missing = "Could not load plugin file in given location. Check your plugins path option."
    assert mine.command("Missing.open").reason == missing
    assert mine.command("cx.plugin.MyPlugin.open").reason == missing
    assert mine.command("MyPlugin.open").reason == "Command does not exist"
    assert mine.command("open").reason == "Command does not exist"


def test_handler_may_return_an_outcome(mine):
    mine.register_command("open", lambda call: Outcome(resolved=False, reason="Already opened"))
    assert mine.command("open").reason == "Already opened"


def test_command_runs_before_ready_is_called(mine, other):
    mine.register_command("open", lambda call: "early")
    assert other.command("MyPlugin.open").value == "early"


# -- before hooks ------------------------------------------------------------------------------------------------------


def test_before_hooks_run_in_order_and_chain_their_results(mine, other):
    mine.register_command("open", lambda call: call.data)
    other.before("MyPlugin.open", lambda options: {**options, "seen": ["first"]})
    other.before("MyPlugin.open", lambda options: {**options, "seen": [*options["seen"], "second"]})
    assert other.command("MyPlugin.open", {"a": 1}).value == {"a": 1, "seen": ["first", "second"]}


@pytest.mark.parametrize("returned", [False, None, "text", 0])
def test_before_hook_returning_no_object_cancels_command(mine, other, returned):
    mine.register_command("open", lambda call: pytest.fail("must not run"))
    other.before("MyPlugin.open", lambda options: returned)
    other.before("MyPlugin.open", lambda options: pytest.fail("must not run either"))
    assert other.command("MyPlugin.open").reason == "Command was cancelled by a 'before' function."


def test_before_hook_applies_to_its_command_only(mine):
    mine.register_command("open", lambda call: "opened")
    mine.register_command("close", lambda call: "closed")
    mine.before("close", lambda options: False)
    assert mine.command("open").value == "opened"


# -- events ------------------------------------------------------------------------------------------------------------


def test_subscriber_gets_name_data_time_and_publisher(mine, other):
    heard = []
    assert other.subscribe("MyPlugin.opened", heard.append) == "MyPlugin.opened"
    assert mine.publish("opened", {"a": 1})
    (event,) = heard
    assert (event.name, event.event, event.publisher, event.data) == (
        "MyPlugin.opened",
        "MyPlugin.opened",
        "MyPlugin",
        {"a": 1},
    )
    assert isinstance(event.time, int)
    mine.publish_direct("opened")
    assert heard[1].data == {}


def test_subscription_may_precede_the_publishing_plugin(bus, mine):
    heard = []
    mine.subscribe("Late.opened", heard.append)
    bus.register_plugin("Late").publish("opened")
    assert len(heard) == 1


def test_subscribers_of_one_plugin_run_in_subscription_order(mine, other):
    heard = []
    for name in "abc":
        other.subscribe("MyPlugin.opened", lambda event, name=name: heard.append(name))
    mine.publish("opened")
    assert heard == ["a", "b", "c"]
    assert other.subscribers("MyPlugin.opened") == ["Other"] * 3
    assert mine.subscribers("opened") == ["Other"] * 3


def test_event_names_are_matched_exactly(mine, other):
    heard = []
    for name in ("MyPlugin.*", "MyPlugin.open", "MyPlugin.Opened", "opened"):
        other.subscribe(name, heard.append)
    mine.publish("opened")
    assert heard == []


def test_raising_subscriber_does_not_stop_others(mine, other, caplog):
    heard = []

    def broken(event):
        raise ValueError("broken")

    other.subscribe("MyPlugin.opened", broken)
    other.subscribe("MyPlugin.opened", heard.append)
    assert mine.publish("opened")
    assert len(heard) == 1
    assert "a subscriber of Other to MyPlugin.opened failed" in caplog.text


def test_subscriber_must_be_callable(mine):
    with pytest.raises(TypeError, match="callable"):
        mine.subscribe("Other.opened", "handler")


def test_unsubscribe_removes_own_callbacks_only(mine, other):
    heard = []
    mine.subscribe("Other.opened", lambda event: heard.append("mine"))
    mine.subscribe("Other.opened", lambda event: heard.append("mine again"))
    other.subscribe("opened", lambda event: heard.append("other's"))
    assert mine.unsubscribe("Other.opened")
    other.publish("opened")
    assert heard == ["other's"]
    assert not mine.unsubscribe("Other.never")


def test_latest_republished_event_is_replayed_once(mine, other):
    heard = []
    mine.republish("ready", {"number": 1})
    mine.republish("ready", {"number": 2})
    mine.publish("opened")
    other.subscribe("MyPlugin.ready", lambda event: heard.append(event.data["number"]))
    other.subscribe("MyPlugin.opened", heard.append)
    assert heard == [2]
    mine.republish("ready", {"number": 3})
    assert heard == [2, 3]


def test_bus_holds_no_lock_while_a_handler_runs(mine, other, in_threads):
    heard = []

    def handler(event):
        other.subscribe("MyPlugin.later", heard.append)
        (thread,) = in_threads(lambda: mine.publish("later"))
        thread.join(LONG)
        assert not thread.is_alive()

    other.subscribe("MyPlugin.opened", handler)
    mine.publish("opened")
    assert len(heard) == 1


# -- data --------------------------------------------------------------------------------------------------------------


def test_data_is_readable_by_owner_and_other_plugins(mine, other):
    assert mine.data("open", True) is True
    mine.data("count", 2)
    assert mine.data("open") is True
    assert mine.data() == {"open": True, "count": 2}
    assert other.data("MyPlugin.open") is True
    assert other.data("MyPlugin.nothing") is None
    assert other.data("Missing.open") is None
    assert other.data() == {}


@pytest.mark.parametrize(
    ("value", "spelled"), [("a b", "'a b'"), (True, "true"), (False, "false"), (3, "3"), (None, "null")]
)
def test_changed_data_publishes_three_events_once(mine, other, value, spelled):
    heard = []
    mine.data("open", "before")
    for name in ("data", "data.open", f"data.open:{spelled}"):
        other.subscribe(f"MyPlugin.{name}", lambda event, name=name: heard.append((name, event.data)))
    mine.data("open", value)
    mine.data("open", value)
    assert [name for name, _ in heard] == ["data", "data.open", f"data.open:{spelled}"]
    for _, payload in heard:
        assert (payload["last"], payload["value"]) == ("before", value)


# -- the service on the bus --------------------------------------------------------------------------------------------


def test_documented_start_command_starts_a_chat(bus, mine, chat):
    seen = []
    chat.open()
    mine.command(
        "WebChatService.startChat",
        {
            "nickname": "Jonny",
            "firstname": "Johnathan",
            "lastname": "Smith",
            "email": "jon.smith@mail.com",
            "subject": "product questions",
            "userData": {},
        },
    ).done(lambda e: seen.append(e["chatId"])).fail(lambda e: pytest.fail(str(e)))
    assert seen == ["chat-1"]
    assert chat.state == "polling"


def test_ready_reaches_late_subscribers_and_late_registration(bus, mine, chat, wire, service, by_hand):
    heard = []
    chat.open()
    mine.subscribe("WebChatService.ready", lambda e: heard.append((e.name, e.data, e.publisher)))
    assert heard == [("WebChatService.ready", {}, "WebChatService")]
    later = service(wire(), driver=by_hand)
    later.open()
    mine.subscribe("Second.ready", lambda e: heard.append(e.name))
    bus.register(later, "Second")
    assert heard[1:] == ["Second.ready"]


def test_bus_events_have_documented_keys_and_service_time(mine, chat, v2_message, by_hand):
    heard = []
    chat._engine._http.operations["refresh"] = lambda request: {"messages": [v2_message(1, "hi")]}
    for name in ("started", "pollingStarted", "messageReceived"):
        mine.subscribe(f"WebChatService.{name}", heard.append)
    chat.open()
    mine.command("WebChatService.startChat", {"nickname": "Jonny"})
    by_hand.run_due()
    started, polling, received = heard
    assert started.data == {"sessionID": "chat-1", "secureKey": "sEcReT-kEy", "alias": "117", "userId": "user-1"}
    assert polling.data == {}
    assert received.data["messages"][0]["from"] == {"id": 2, "type": "Agent", "name": "Ann"}
    assert received.data["sessionData"]["secureKey"] == "sEcReT-kEy"
    assert {event.time for event in heard} == {round(by_hand.clock.wall() * 1000)}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("configure", "Access Denied to private command. Only WebChatService is allowed to invoke this command."),
        ("endChat", "There is no active chat session"),
        ("startPoll", "No active chat session"),
        ("requestChat", "Command does not exist"),
    ],
)
def test_rejections_have_the_reasons_of_the_reference(mine, chat, command, reason):
    chat.open()
    assert mine.command(f"WebChatService.{command}").reason == reason


def test_before_hook_changes_start_chat_options(mine, chat):
    chat.open()
    mine.before("WebChatService.startChat", lambda options: {**options, "nickname": "Changed"})
    mine.command("WebChatService.startChat", {"nickname": "Jonny"})
    assert b"nickname=Changed" in chat._engine._http.requests[0].body


def test_send_cancelled_by_a_hook_makes_no_request(mine, chat):
    chat.open()
    chat.start_chat(nickname="Jonny")
    mine.before("WebChatService.sendMessage", lambda options: False)
    assert mine.command("WebChatService.sendMessage", {"message": "hi"}).reason.startswith("Command was cancelled")
    assert chat._engine._http.count("send") == 0


def test_registry_lists_every_documented_command_and_event(mine, chat):
    from webchat_fsm.lifecycle._events import EVENTS
    from webchat_fsm.lifecycle._legality import COMMANDS

    known = mine.registry()["WebChatService"]
    assert set(known["commands"]) == {*COMMANDS, "COMMANDS", "EVENTS"}
    assert known["events"] == sorted(EVENTS)


def test_raising_bus_subscriber_stops_neither_chat_nor_others(mine, chat, caplog):
    heard = []

    def broken(event):
        raise ValueError("broken")

    mine.subscribe("WebChatService.started", broken)
    mine.subscribe("WebChatService.started", heard.append)
    chat.open()
    assert mine.command("WebChatService.startChat", {"nickname": "Jonny"})
    assert len(heard) == 1
    assert "a subscriber of MyPlugin to WebChatService.started failed" in caplog.text


def test_nothing_is_published_on_the_bus_after_close(mine, chat, by_hand):
    heard = []
    chat.open()
    chat.start_chat(nickname="Jonny")
    for name in ("pollingStopped", "ended", "messageReceived"):
        mine.subscribe(f"WebChatService.{name}", heard.append)
    chat.close()
    by_hand.wait(60.0)
    assert heard == []


def test_plugins_may_be_used_from_many_threads(bus, in_threads):
    heard, meet = [], threading.Barrier(8)

    def work(number):
        plugin = bus.register_plugin(f"P{number}")
        plugin.subscribe("P0.tick", lambda event: heard.append(number))
        meet.wait(LONG)
        for _ in range(50):
            plugin.publish("tick")

    in_threads(*[lambda number=number: work(number) for number in range(8)], join=True)
    assert sorted(heard) == sorted(list(range(8)) * 50)
