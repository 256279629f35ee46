"""Check messages sent while no client was open: all of them are delivered, or some are reported missing."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.lifecycle.environment import HeardOnBus
from tests.limits import examples
from tests.nexus.environment import HookRecorder, envelope
from tests.nexus.test_faults import said
from webchat_fsm import CommandRejected, FileStore, MemoryStore
from webchat_fsm._core.paging import PAGES_AT_MOST, WHOLE_TRANSCRIPT
from webchat_fsm._core.steps import rank
from webchat_fsm._wire.request import HttpAnswer
from webchat_fsm.lifecycle._transports import Transport
from webchat_fsm.server._nexus_wire import index_of
from webchat_fsm.testing import TestServer, Timeline

PAGE = 20
DORMANT = "async-dormant"


class Absence:
    """Close and reopen a chat, with a number of texts sent meanwhile, and collect the delivered ones by their flags."""

    def __init__(self, number, size, faults, *, before=1, crash=False):
        self.timeline, self.store = Timeline(), MemoryStore()
        self.server = TestServer(self.timeline)
        self.restored, self.history, self.unmarked, self.reports = [], [], [], []
        self.config = {"transport": {"maxMessagePageSize": size}}
        self._open().start_chat(nickname="Jonny")
        agent = self.server.agent("Ann").join()
        for n in range(before):
            agent.say(f"before {n}")
        self.timeline.advance(5)
        if crash:
            self.timeline.driver.detach(self.chat._engine, 0)
        else:
            self.chat.close()
        self.said = {agent.say(f"missed {n}").text for n in range(number)}
        self.server.load_faults(faults)
        self._open()
        for _ in faults:
            with suppress(CommandRejected):
                self.chat.restore()

    def _open(self):
        self.chat = self.server.client("v3-async", self.config, self.store)
        self.chat.subscribe("messageReceived", self._note)
        self.chat.subscribe("restored", lambda event: self.reports.append(event.data.missing))
        self.chat.open()
        return self.chat

    def _note(self, event):
        marked = self.restored if event.data.restoring else self.unmarked
        delivered = self.history if event.data.old_messages else marked
        delivered.extend(message.text for message in event.data.messages if message.text.startswith("missed"))

    def fetch_the_rest(self):
        self.server.clear_faults()
        while not self.chat.get_transcript().complete:
            self.chat.fetch_history()


def left(env, agent, number: int, *, crash: bool = False):
    """Leave the chat, let the agent send a number of texts meanwhile, and return them."""
    env.crash() if crash else env.chat.close()
    return [agent.say(f"missed {n}").text for n in range(number)]


def page(first: int, last: int, **data) -> bytes:
    return envelope(messages=[said(f"{n}-0", f"text {n}") for n in range(first, last + 1)], **data)


def scripted(env, *bodies: bytes, seen: int = 5):
    """Restore a chat, which has delivered up to an index, with these pages; later pages are the server's own."""
    env.start()
    env.chat.close()
    env.store.save(replace(env.store.load(), last_index=f"{seen}-0"))
    env.client()
    for body in bodies:
        env.http.answer("restore", body)
    env.chat.open()
    return env.chat


def played(env, everything, *, seen, odd=None, inclusive=True):
    """Restore a chat, which has delivered up to an index, from a server with these messages, some with an odd index."""
    shown = {f"{place}-0": {**everything[place - 1], "index": index} for place, index in (odd or {}).items()}

    def answer():
        before = rank(env.queries()[-1].get("index", "9" * 20))
        upto = [
            one for one in everything if rank(one["index"]) < before or (inclusive and rank(one["index"]) == before)
        ]
        return HttpAnswer(status=200, body=envelope(messages=[shown.get(one["index"], one) for one in upto[-PAGE:]]))

    env.start()
    env.chat.close()
    env.store.save(replace(env.store.load(), last_index=f"{seen}-0"))
    env.client()
    for _ in range(PAGES_AT_MOST):
        env.http.during("restore", answer)
    env.chat.open()


def history_result(env) -> tuple[int | None, bool]:
    """Return what `restored` and the transcript report as missing, which must be equal."""
    transcript = env.chat.get_transcript()
    assert env.heard.last("restored").missing == transcript.missing
    return transcript.missing, transcript.complete


# -- pages of a restore ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
def test_sixty_missed_messages_are_restored_in_order(v3_async, crash):
    agent = v3_async.chatting("first")
    missed = left(v3_async, agent, 60, crash=crash)
    v3_async.open()
    assert v3_async.heard.names[:2] == ["ready", "restored"]
    (received,) = v3_async.heard.all("messageReceived")
    assert [m.text for m in received.messages if m.text in missed] == missed
    assert {m.restoring for m in received.messages} == {received.restoring} == {True}
    assert history_result(v3_async) == (0, True)
    assert v3_async.http.operations() == ["resume", *["restore"] * 4]


def test_each_page_request_names_oldest_index_of_previous(v3_async):
    agent = v3_async.chatting("first")
    left(v3_async, agent, 45)
    events = [index_of(event) for event in v3_async.server.core.current_chat().transcript]
    v3_async.open()
    assert v3_async.queries() == [
        {"count": "20"}, {"index": events[-20], "count": "20"}, {"index": events[-39], "count": "20"},
    ]  # fmt: skip


def test_restore_without_missed_messages_requests_one_page(v3_async):
    v3_async.chatting(*map(str, range(50)))
    v3_async.away(1)
    assert v3_async.http.operations() == ["resume", "restore"]
    assert history_result(v3_async) == (0, True)


def test_chat_closed_before_first_poll_is_restored_whole(v3_async):
    v3_async.open().start_chat(nickname="Jonny")
    v3_async.bulk(30)
    v3_async.away(1)
    assert len(v3_async.chat.get_transcript().messages) == 30
    assert history_result(v3_async) == (0, True)


def test_paging_stops_though_last_index_is_omitted_typing(v3_async):
    """Compare indexes by order, as the server omits typing from pages and its index does not occur again."""
    agent = v3_async.chatting("first")
    agent.typing()
    v3_async.advance(3)
    missed = left(v3_async, agent, 25)
    v3_async.open()
    assert v3_async.heard.texts() == ["first", *missed]
    assert history_result(v3_async) == (0, True)
    assert v3_async.http.operations().count("restore") == 2


def test_gap_beyond_ten_pages_is_reported_until_fetched(v3_async):
    agent = v3_async.chatting("first")
    missed = left(v3_async, agent, 300)
    v3_async.open()
    assert v3_async.http.operations().count("restore") == PAGES_AT_MOST
    assert v3_async.heard.texts() == missed[300 - (PAGE * 10 - 9) :]
    assert history_result(v3_async) == (None, False)
    while not v3_async.chat.get_transcript().complete:
        v3_async.chat.fetch_history()
    assert set(v3_async.heard.texts()) >= set(missed)
    assert v3_async.chat.get_transcript().missing == 0
    v3_async.crash()
    v3_async.open()
    assert history_result(v3_async) == (0, True), "the closed gap was saved at once"


def test_open_gap_is_fetched_or_reported_by_next_restore(v3_async):
    agent = v3_async.chatting("first")
    left(v3_async, agent, 300)
    v3_async.open()
    v3_async.advance(10)
    v3_async.away(1)
    assert history_result(v3_async) == (None, False)
    missed = v3_async.away(1, maxMessagePageSize=100) and v3_async.heard.texts()
    assert history_result(v3_async) == (0, True)
    assert missed[-300:] == [f"missed {n}" for n in range(300)]


def test_bus_event_has_missing_in_asynchronous_chat_only(nexus):
    nexus.start().close()
    nexus.client()
    bus = HeardOnBus(nexus.chat)
    nexus.chat.open()
    asynchronous = nexus.transport is Transport.V3_ASYNC
    assert bus.last("restored") == ({"async": True, "missing": 0} if asynchronous else {"async": False})
    assert set(bus.command("getTranscript").value) == {"messages", "originalMessages"}


def test_preprocessors_see_each_visible_message_once(v3_async):
    agent = v3_async.chatting("first")
    missed = left(v3_async, agent, 60)
    seen = []

    def shout(item):
        seen.append(item["text"])
        return {**item, "text": item["text"].upper()}

    chat = v3_async.client()
    chat.register_pre_processor(shout)
    chat.add_prefilter(re.compile("^missed [0-9]$"))
    chat.open()
    assert sorted(text for text in seen if text) == sorted(["first", *missed[10:]])
    assert v3_async.heard.texts() == ["FIRST", *(text.upper() for text in missed[10:])]
    assert history_result(v3_async) == (0, True)


# -- faulty pages ------------------------------------------------------------------------------------------------------

WRONG = {
    "drop": {"drop": True},
    "torn": {"tear": True},
    "late": {"delay": 100.0},
    "500": {"http_status": 500},
    "429": {"http_status": 429},
    "403": {"http_status": 403},
    "unreadable": {"body": b"<html>"},
}


@pytest.mark.parametrize("fault", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("failing", [2, 3])
def test_failed_page_keeps_messages_and_is_reported(fault, failing):
    absence = Absence(60, PAGE, [{"operation": "restore", "attempt": failing, **fault}])
    assert absence.chat.state == "polling"
    assert absence.chat.get_transcript().missing is None
    assert len(absence.restored) == 20 + 19 * (failing - 2)
    absence.fetch_the_rest()
    assert set(absence.restored + absence.history) == absence.said


@pytest.mark.parametrize("fault", [{"http_status": 404, "code": "INVALID_SESSION"}, {"http_status": 401}])
def test_session_loss_on_later_page_discards_session(v3_async, fault):
    agent = v3_async.chatting("first")
    left(v3_async, agent, 60)
    v3_async.server.faults.add(operation="refresh", skip=1, **fault)
    v3_async.open()
    assert (v3_async.chat.state, v3_async.heard.names) == ("idle", ["ready", "restoreFailed", "error"])
    assert v3_async.store.load() is None


def test_end_between_pages_is_detected_by_poll(v3_async):
    agent = v3_async.chatting("first")
    missed = left(v3_async, agent, 30)
    chat = v3_async.client()

    def end():
        agent.say("bye")
        v3_async.server.end()

    v3_async.http.during("restore", lambda: None)
    v3_async.http.during("restore", end)
    chat.open()
    assert (chat.state, history_result(v3_async)) == ("polling", (0, True))
    v3_async.advance(3)
    assert chat.state == "ended"
    assert v3_async.heard.texts() == ["first", *missed, "bye"]


def test_closing_between_pages_publishes_nothing_and_saves(v3_async):
    agent = v3_async.chatting("first")
    missed = left(v3_async, agent, 60)
    chat = v3_async.client()
    v3_async.http.during("restore", lambda: None)
    v3_async.http.during("restore", lambda: chat.close() and None)
    chat.open()
    assert (chat.state, v3_async.heard.names) == (DORMANT, ["ready"])
    chat.open()
    assert v3_async.heard.texts() == ["first", *missed]
    assert history_result(v3_async) == (0, True)


def test_restore_after_interrupt_between_pages_is_complete(v3_async):
    agent = v3_async.chatting("first")
    missed = left(v3_async, agent, 60)
    chat = v3_async.client()

    v3_async.http.during("restore", lambda: None)
    v3_async.http.interrupt("restore")
    with pytest.raises(KeyboardInterrupt):
        chat.open()
    assert chat.state == "idle"
    v3_async.open()
    assert v3_async.heard.texts() == ["first", *missed]


def test_repeated_page_ends_paging_with_gap_reported(v3_async):
    chat = scripted(v3_async, page(40, 59), page(40, 59))
    assert v3_async.http.operations().count("restore") == 2
    assert history_result(v3_async) == (None, False)
    v3_async.http.answer("history", page(40, 59))
    chat.fetch_history()
    assert chat.get_transcript().complete is False


@pytest.mark.parametrize("newer", [page(66, 85), page(66, 66)], ids=["many", "one"])
def test_newer_messages_on_older_page_are_left_to_poll(v3_async, newer):
    """Leave newer messages to the poll, if a server ignores the index and sends them on an older page."""
    scripted(v3_async, page(40, 59), newer, newer)
    assert [m.text for m in v3_async.chat.get_transcript().messages] == [f"text {n}" for n in range(40, 60)]
    assert history_result(v3_async) == (None, False)


@pytest.mark.parametrize("seen", [25, 0])
def test_pages_of_exclusive_index_are_complete(v3_async, seen):
    """Accept pages that end before the requested message, after a request by the next oldest index."""
    played(v3_async, [said(f"{n}-0", f"text {n}") for n in range(1, 60)], seen=seen, inclusive=False)
    texts = [message.text for message in v3_async.chat.get_transcript().messages]
    assert texts == [f"text {n}" for n in range(60 - len(texts), 60)]
    assert len(texts) >= 59 - seen
    assert history_result(v3_async) == (0, True)


ANCHOR = said("40-0", "text 40")


def test_empty_older_pages_report_unknown_gap(v3_async):
    scripted(v3_async, page(40, 59), envelope(), envelope(messages=None))
    assert history_result(v3_async) == (None, False)


@pytest.mark.parametrize("last", [[ANCHOR], [ANCHOR, ANCHOR]], ids=["itself", "itself twice"])
def test_page_with_anchor_alone_ends_paging_as_complete(v3_async, last):
    scripted(v3_async, page(40, 59), envelope(messages=last), seen=0)
    assert history_result(v3_async) == (0, True)


def test_history_start_after_delivered_index_is_a_gap(v3_async):
    """Report a gap, as the server has dropped or omitted older messages that were never delivered."""
    chat = scripted(v3_async, page(40, 59), envelope(messages=[ANCHOR]), seen=5)
    assert history_result(v3_async) == (None, False)
    v3_async.http.answer("history", envelope(messages=[ANCHOR]))
    chat.command("fetchHistory")
    assert not chat.get_transcript().complete


def test_pages_in_newest_first_order_are_reversed(v3_async):
    newest_first = [
        envelope(messages=[said(f"{n}-0", f"text {n}") for n in range(last, first - 1, -1)])
        for first, last in ((40, 59), (21, 40), (3, 21))
    ]
    chat = scripted(v3_async, *newest_first)
    assert history_result(v3_async) == (0, True)
    assert [m.text for m in chat.get_transcript().messages] == [f"text {n}" for n in range(3, 60)]


def test_message_between_two_pages_is_polled_by_index(v3_async):
    """Poll by index, as a server may move its cursor with each page and skip a message between two pages."""
    scripted(v3_async, page(40, 59), page(5, 40))
    v3_async.advance(1)
    assert v3_async.queries()[-1] == {"index": "59-0"}
    v3_async.advance(5)
    assert "refresh" in v3_async.http.operations()[-1]
    v3_async.http.answer("history", page(1, 5))
    v3_async.chat.fetch_history()
    polled = len(v3_async.queries())
    v3_async.advance(5)
    assert "index" in v3_async.queries()[polled]


ODD = ["1-0", "3-0", "24-0", "25-1", "35-0", "35-7", "0", "99-0", str(2**53), "", None]


@pytest.mark.parametrize("place", [40, 41, 50, 59, 22, 30])
@pytest.mark.parametrize("index", ODD)
def test_wrong_index_of_one_message_hides_no_other(v3_async, place, index):
    """Deliver the other messages, or report them as missing, if one message always has a wrong index."""
    everything = [said(f"{n}-0", f"text {n}") for n in range(1, 60)]
    played(v3_async, everything, seen=25, odd={place: index})
    delivered = {message.text for message in v3_async.chat.get_transcript().messages}
    missed = {f"text {n}" for n in range(26, 60)} - {f"text {place}"}
    twin = set() if index is None else {f"text {index.partition('-')[0]}"}  # one of two messages with one index
    assert missed - twin <= delivered or not v3_async.chat.get_transcript().complete
    assert len(missed - delivered) < 20


def test_wrong_index_on_history_page_closes_no_gap(v3_async):
    everything = [said(f"{n}-0", f"text {n}") for n in range(1, 400)]
    played(v3_async, everything, seen=5)
    assert history_result(v3_async) == (None, False)
    oldest = {**everything[206], "index": "3-0"}
    v3_async.http.answer("history", envelope(messages=[*everything[190:206], oldest]))
    v3_async.chat.fetch_history()
    assert not v3_async.chat.get_transcript().complete
    for page_of_the_odd_one in (everything[:3], everything[:1]):
        v3_async.http.answer("history", envelope(messages=page_of_the_odd_one))
        v3_async.chat.command("fetchHistory")
        assert not v3_async.chat.get_transcript().complete


def test_empty_page_after_delivered_messages_is_a_gap(v3_async):
    scripted(v3_async, page(1, 0))
    assert history_result(v3_async) == (None, False)


def test_poll_after_empty_restore_keeps_last_poll_index(v3_async):
    """Name the last index after a failed poll, as index 0 would deliver all messages as new."""
    polled = v3_async.chatting("first") and v3_async.chat._engine.session.cursor
    v3_async.chat.close()
    v3_async.client()
    v3_async.http.answer("restore", page(1, 0))
    v3_async.chat.open()
    v3_async.http.answer("refresh", b"<html>")
    v3_async.advance(10)
    assert {"index": polled} in v3_async.queries()
    assert v3_async.heard.texts() == []


# -- saved position ----------------------------------------------------------------------------------------------------


def test_session_file_without_last_index_reports_unknown_gap(v3_async, tmp_path):
    store = FileStore(tmp_path / "session.json")
    v3_async.start(store=store).close()
    document = json.loads(store.path.read_text())
    del document["session"]["last_index"]
    store.path.write_text(json.dumps(document))
    v3_async.bulk(60)
    v3_async.open(store=store)
    assert v3_async.chat.state == "polling"
    assert v3_async.http.operations() == ["resume", "restore"]
    assert history_result(v3_async) == (None, False)
    while not v3_async.chat.get_transcript().complete:
        v3_async.chat.fetch_history()
    assert len(v3_async.chat.get_transcript().messages) == 60
    v3_async.away(1, store=store)
    assert history_result(v3_async) == (0, True)


@pytest.mark.parametrize("kept", ["as handed out", "without", "null", "no index", "a number", "other form"])
def test_last_index_of_functions_decides_completeness(v3_async, kept):
    recorder = HookRecorder()
    v3_async.start(hooks=recorder.hooks)
    agent = v3_async.agent()
    v3_async.advance(3)
    v3_async.chat.close()
    data = json.loads(recorder.kept)
    assert data["lastIndex"] == index_of(v3_async.server.core.current_chat().transcript[-1])
    known = {"as handed out": data["lastIndex"], "null": None, "no index": "x", "a number": 1, "other form": "9" * 14}
    data = {**data, "lastIndex": known[kept]} if kept in known else {k: v for k, v in data.items() if k != "lastIndex"}
    recorder.kept = data
    missed = [agent.say(f"missed {n}").text for n in range(60)]
    v3_async.open(store=MemoryStore(), hooks=recorder.hooks)
    complete = kept in ("as handed out", "a number", "other form")
    assert history_result(v3_async) == ((0, True) if complete else (None, False))
    assert (missed[0] in v3_async.heard.texts()) is complete


def test_history_completes_chat_restored_by_token_alone(v3_async):
    v3_async.chatting("first")
    v3_async.bulk(60)
    token = v3_async.token()
    v3_async.chat.close()
    chat = v3_async.open(store=MemoryStore())
    chat.restore(token)
    assert history_result(v3_async) == (None, False)
    while chat.command("fetchHistory"):
        pass
    assert len(chat.get_transcript().messages) == 60
    assert chat.get_transcript().complete


# -- the whole transcript: v2 and plain v3 -----------------------------------------------------------------------------


def test_10001_messages_are_restored_in_two_pages(v3):
    whole = page(2, WHOLE_TRANSCRIPT + 1)
    chat = scripted(v3, whole, page(1, 2), seen=WHOLE_TRANSCRIPT)
    assert v3.queries() == [{"count": "10000"}, {"index": "2-0", "count": "10000"}]
    assert len(chat.get_transcript().messages) == WHOLE_TRANSCRIPT + 1
    assert history_result(v3) == (0, True)


def test_failed_second_page_of_synchronous_v3_is_reported(v3):
    scripted(v3, page(2, WHOLE_TRANSCRIPT + 1), b"<html>", seen=WHOLE_TRANSCRIPT)
    assert history_result(v3) == (None, False)


def test_page_below_requested_count_is_followed_by_next(v3):
    chat = scripted(v3, page(101, 200), page(1, 101), seen=50)
    assert len(chat.get_transcript().messages) == 200
    assert history_result(v3) == (0, True)


# -- as a property -----------------------------------------------------------------------------------------------------

SPOILT = [{"drop": True}, {"tear": True}, {"http_status": 503}, {"http_status": 429}, {"delay": 50.0}, {"body": b"[]"}]
HARMLESS = [{"duplicate": True}, {"reorder": True}]
STORIES = {
    "number": st.integers(0, 300),
    "size": st.integers(16, 50),
    "before": st.integers(0, 3),
    "crash": st.booleans(),
    "faults": st.dictionaries(st.integers(1, 10), st.sampled_from(SPOILT + HARMLESS), max_size=2),
}


def check_absence(number, size, before, crash, faults):
    """Check that every message is restored, or reported as missing and part of the history, and none is new."""
    listed = [{"operation": "restore", "attempt": attempt, **fault} for attempt, fault in faults.items()]
    absence = Absence(number, size, listed, before=before, crash=crash)
    transcript = absence.chat.get_transcript()
    assert absence.chat.state == "polling"
    assert absence.reports == [transcript.missing], "a restore without its first page has published nothing"
    assert len(absence.restored) == len(set(absence.restored))
    if transcript.complete:
        assert set(absence.restored) == absence.said
    else:
        too_many = number + before + 1 > size + (PAGES_AT_MOST - 1) * (size - 1)
        assert too_many or any(fault in SPOILT for fault in faults.values())
    absence.timeline.advance(10)
    absence.fetch_the_rest()
    assert set(absence.restored + absence.history) == absence.said
    assert absence.unmarked == [], "no message was sent after the restore"
    absence.server.close()


@settings(max_examples=examples(40))
@given(**STORIES)
def test_every_message_is_delivered_or_reported_missing(number, size, before, crash, faults):
    check_absence(number, size, before, crash, faults)


@pytest.mark.soak
@settings(max_examples=3000, deadline=None)
@given(**STORIES)
def test_every_message_is_delivered_or_reported_in_soak(number, size, before, crash, faults):
    check_absence(number, size, before, crash, faults)
