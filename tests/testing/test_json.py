"""Test any text in any place: a recorder changes nothing, and its recording reads back and replays."""

from __future__ import annotations

import io
import json
import logging
import math
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.limits import examples
from webchat_fsm import Bus, FileStore, WebChatService
from webchat_fsm._json import json_to_keep, json_to_read, json_to_send, jsonable, read_json, spelling, utf8
from webchat_fsm.lifecycle._events import EVENTS, MessageReceived
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server import HttpRequest
from webchat_fsm.server._http import read_fields
from webchat_fsm.testing import Recorder, Recording, TestServer, Timeline, replay
from webchat_fsm.testing._bench import CONFIGS

ODD = "half \ud83d, \udc80, \x00, \u2028, \x85, \ufeff, \U0001f642, \r\n"
TEXTS = st.text(st.characters() | st.sampled_from('\ud83d\udc80\udcff\x00\u2028\x85\ufeff\r\n"\\{}[]'), max_size=12)
KEYS = st.text(max_size=5) | st.integers() | st.none() | st.floats()
LEAVES = TEXTS | st.integers() | st.floats() | st.booleans() | st.none() | st.binary(max_size=4)
VALUES = st.recursive(
    LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(KEYS, one, max_size=3), max_leaves=8
)


class Named(io.BytesIO):
    """Give a small file a name."""

    name = ""


def run_chat(transport: Transport, text: str, store: FileStore | None, recorder: Recorder | None) -> list:
    """Run a chat with a text in every place that takes one; return the events that it published on the bus."""
    timeline = Timeline()
    server = TestServer(timeline)
    store = store if store is None else FileStore(store.path.with_name(f"{recorder is None}-{store.path.name}"))
    http = server.http()
    chat = WebChatService(CONFIGS[transport], store=store, http=http, driver=timeline.driver, recorder=recorder)
    heard: list = []
    bus = Bus()
    plugin = bus.register_plugin("Listener")
    for name in EVENTS:
        plugin.subscribe(f"WebChatService.{name}", lambda event: heard.append((event.name, event.time, event.data)))
    bus.register(chat)
    with chat:
        chat.start_chat(nickname=f"N {text}", subject=text, user_data={text: text, "nested": [{text: [text]}]})
        agent = server.agent(f"Ann {text}").join()
        timeline.advance(3)
        chat.add_prefilter(re.compile(re.escape(text) or "never to be seen"))
        for act in (
            lambda: chat.send_message(f"said {text}"),
            lambda: chat.send_typing(text),
            lambda: chat.update_user_data({text: [text], "k": text}),
            lambda: chat.command("sendCustomNotice", {"message": text, "eventAttributes": {text: text}}),
            lambda: chat.command("sendFile", {"files": [named(f"{text}.png")]}),
            lambda: agent.say(f"agent {text}"),
        ):
            act()
            timeline.advance(2)
        chat.end_chat()
    server.close()
    return heard


def named(name: str) -> Named:
    file = Named(b"x")
    file.name = name
    return file


def comparable(heard: list) -> list:
    """Return the events without the ids that each run draws anew."""
    return [(name, time, [_content(message) for message in data.get("messages", ())]) for name, time, data in heard]


def _content(message: dict) -> tuple:
    return message["type"], message["text"], message["from"]["name"], repr(message["userData"])


@pytest.mark.parametrize("transport", Transport)
def test_recorder_changes_nothing_in_a_chat_with_any_text(transport, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    numbers = iter(range(10_000))

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @example(ODD)
    @example("\ud83d")
    @example("")
    @example("APIKEY")  # a key of the user's that is named like a secret is masked alike in a command and a request
    @example("token")
    @example("userData")
    @given(TEXTS)
    def check(text):
        number = next(numbers)
        recorder = Recorder(folder / f"{number}.jsonl")
        recorded = run_chat(transport, text, FileStore(folder / f"{number}.json"), recorder)
        assert comparable(recorded) == comparable(run_chat(transport, text, FileStore(folder / f"{number}.json"), None))
        recording = Recording.read(folder / f"{number}.jsonl")
        assert recording.torn is None
        assert replay(recording).check().same

    check()


@settings(max_examples=examples(100))
@example({"half": "\ud83d", "big": 10**5000, "nan": math.nan, (1, 2): {3}, None: object()})
@given(VALUES)
def test_encoder_accepts_any_value(value):
    for encode in (json_to_keep, json_to_send, json_to_read):
        encoded = encode(value)
        json.loads(encoded)
        assert b"\n" not in encoded or encode is json_to_read
    json_to_send(value).decode()


JSON = st.recursive(
    TEXTS | st.integers(-(2**53), 2**53) | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(TEXTS, one, max_size=3),
)


@settings(max_examples=examples(100))
@given(JSON)
def test_kept_value_reads_back_unchanged(value):
    assert read_json(json_to_keep(value)) == value
    assert read_json(json_to_read(value)) == value
    assert read_json(json_to_keep(value).decode()) == value


def cyclic():
    value = {}
    value["self"] = [value]
    return value


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def doubling(levels):
    value = []
    for _ in range(levels):
        value = [value, value]
    return value


class Hostile:
    """Raise in `__str__` and `__repr__`."""

    def __str__(self):
        raise ZeroDivisionError

    __repr__ = __str__


@pytest.mark.parametrize(
    "value", [cyclic(), deep(5000), Hostile(), {Hostile(): 1}, [10**5000, "\ud83d"], {"a": cyclic()}]
)
def test_cyclic_deep_or_hostile_value_is_truncated(value):
    assert read_json(json_to_keep(value)) is not None
    assert read_json(json_to_send(value)) is not None
    assert spelling(value)


def test_value_that_doubles_at_each_level_is_truncated():
    assert read_json(json_to_keep(jsonable(["\ud83d", doubling(60)])))


def test_unwritable_user_data_are_rejected(webchat):
    for given_data in (cyclic(), {"a": deep(5000)}, {"a": doubling(60)}, {"n": 10**5000}):
        with pytest.raises(ValueError, match="cannot be written down"):
            webchat.update_user_data(given_data)


@pytest.mark.parametrize("text", ["\ud83d", "a\udc80b", ODD])
def test_sent_text_has_no_lone_surrogates(text):
    sent = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert utf8(text).decode() == sent
    assert json.loads(json_to_send({text: text})) == {sent: sent}


def test_server_reads_a_lone_surrogate_in_json():
    request = HttpRequest("POST", "/", {"content-type": "application/json"}, rb'{"message": "\ud83d"}')
    assert read_fields(request) == {"message": "\ud83d"}


# -- exceptions of user code -------------------------------------------------------------------------------------------


class Colour(StrEnum):
    RED = "red \ud83d"


class HostileText(str):
    def __str__(self):
        raise ZeroDivisionError("str")

    __eq__ = __str__  # type: ignore[assignment]
    __hash__ = str.__hash__

    def encode(self, *given):
        raise ZeroDivisionError("encode")


class HostileMapping(Mapping):
    def __getitem__(self, key):
        raise ZeroDivisionError("getitem")

    def __iter__(self):
        return iter(["a"])

    def __len__(self):
        return 1


class HostileList(list):
    def __iter__(self):
        raise ZeroDivisionError("iter")


class HostileSpelling:
    def __str__(self):
        raise ZeroDivisionError("spelling")


WITH_TEXT_FORM = [
    Colour.RED,
    HostileText("x"),
    UUID(int=1),
    Decimal("1.50"),
    date(2026, 7, 1),
    10**400,
    True,
]
FAILING = [HostileMapping(), HostileList([1]), HostileSpelling(), [HostileSpelling()], {"a": {"b": HostileList([1])}}]


@pytest.mark.parametrize("value", WITH_TEXT_FORM, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("transport", Transport)
def test_value_with_a_text_form_is_sent_and_replays(transport, value, tmp_path):
    timeline = Timeline()
    server, recorder = TestServer(timeline), Recorder()
    store, http = FileStore(tmp_path / "session.json"), server.http()
    chat = WebChatService(CONFIGS[transport], store=store, http=http, driver=timeline.driver, recorder=recorder)
    with chat:
        chat.start_chat(nickname=value, user_data={"k": value, "l": [value]})
        chat.update_user_data({"again": value})
        chat.command("sendMessage", {"message": value})
        timeline.advance(3)
    assert chat.health().defects == 0
    assert replay(Recording.of(recorder)).check().same


@pytest.mark.parametrize("value", FAILING, ids=lambda value: type(value).__name__)
def test_value_that_fails_on_reading_is_rejected(webchat, value):
    webchat.start_chat(nickname="Jonny")
    with pytest.raises(ValueError, match=r"cannot be (written down|sent)"):
        webchat.update_user_data({"k": value})
    outcome = webchat.command("sendCustomNotice", {"message": "x", "eventAttributes": {"a": value}})
    assert not outcome
    assert webchat.send_message("after").wait(5)
    assert webchat.health().defects == 0


@pytest.mark.parametrize("value", [*FAILING, *WITH_TEXT_FORM], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("transport", Transport)
def test_no_value_of_a_preprocessor_fails_a_poll(transport, value):
    places = ("text", "timestamp", "userData", "from", "isTyping", "fileDetails", "type", "more")
    timeline = Timeline()
    server, recorder = TestServer(timeline), Recorder()
    chat = WebChatService(CONFIGS[transport], http=server.http(), driver=timeline.driver, recorder=recorder)
    with chat:
        for place in places:
            chat.register_pre_processor(lambda item, place=place: {**item, place: value})
        chat.start_chat(nickname="Jonny")
        agent = server.agent("Ann").join()
        agent.say("one")
        timeline.advance(3)
        assert (chat.health().failures, chat.health().defects) == (0, 0)
        assert len(chat.get_transcript().messages) >= 2
    assert replay(Recording.of(recorder)).check().same


# -- exceptions of diagnostics -----------------------------------------------------------------------------------------

METHODS = ("begun", "stepped", "requested", "answered", "flush")


class Failing(Recorder):
    """Raise in one method of a recorder."""

    def __init__(self, method: str, error: Exception) -> None:
        super().__init__()

        def fail(*given):
            raise error

        setattr(self, method, fail)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("transport", Transport)
def test_raising_recorder_stops_and_the_chat_continues(transport, method, caplog):
    recorder = Failing(method, RuntimeError("broken"))
    assert comparable(run_chat(transport, "x", None, recorder)) == comparable(run_chat(transport, "x", None, None))
    lines = [record for record in caplog.records if f"the recorder failed in {method}" in record.message]
    assert len(lines) == 1


def test_recorder_without_its_file_stops_with_one_log_line(tmp_path, caplog):
    path = tmp_path / "folder" / "chat.jsonl"
    path.parent.mkdir()
    recorder = Recorder(path)
    path.unlink()
    path.parent.rmdir()
    assert run_chat(Transport.V2, "x", None, recorder)
    assert len([record for record in caplog.records if "the recording ends here" in record.message]) == 1


class RaisingHandler(logging.Handler):
    def handle(self, record):
        raise ZeroDivisionError("handler")


class RaisingFilter(logging.Filter):
    def filter(self, record):
        raise ZeroDivisionError("filter")


@pytest.mark.parametrize("transport", Transport)
@pytest.mark.parametrize("kind", ["handler", "filter", "root"])
def test_log_handler_that_raises_does_not_affect_the_chat(transport, kind, capsys):
    log = logging.getLogger() if kind == "root" else logging.getLogger("webchat_fsm")
    handler, raising, level = RaisingHandler(), RaisingFilter(), log.level
    log.setLevel(logging.DEBUG)
    log.addFilter(raising) if kind == "filter" else log.addHandler(handler)
    try:
        heard = run_chat(transport, "x", None, None)
    finally:
        log.setLevel(level)
        log.removeFilter(raising)
        log.removeHandler(handler)
    assert heard[-1][0] == "WebChatService.ended"
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_hook_that_raises_does_not_affect_the_chat():
    def fail(*given):
        raise ZeroDivisionError("hook")

    timeline = Timeline()
    server = TestServer(timeline)
    chat = server.client(config={"client": {"onHandlerError": fail}})
    chat.subscribe("messageReceived", fail)
    with chat:
        chat.register_pre_processor(fail)
        chat.start_chat(nickname="Jonny")
        server.agent("Ann").join().say("Hello")
        timeline.advance(5)
        assert [message.text for message in chat.get_transcript().messages if message.text] == ["Hello"]
        assert chat.health().failures == 0


def test_event_without_a_bus_form_does_not_affect_the_chat(monkeypatch, webchat_server, webchat_timeline):
    def fail(*given):
        raise ZeroDivisionError("no form")

    chat = webchat_server.client()
    bus = Bus()
    bus.register(chat)
    monkeypatch.setattr(MessageReceived, "item", fail)
    with chat:
        chat.start_chat(nickname="Jonny")
        webchat_server.agent("Ann").join().say("Hello")
        webchat_timeline.advance(5)
        assert chat.state == "polling"
        assert chat.health().defects == 1
        assert chat.health().failures == 0
