"""Messages that were said while nobody was there: all of them come, or it is said that some are missing."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.lifecycle.stage import HeardOnBus
from tests.nexus.stage import Cupboard, envelope
from tests.nexus.test_faults import said
from webchat_fsm import CommandRejected, FileStore, MemoryStore
from webchat_fsm.core.facts import rank
from webchat_fsm.core.paging import PAGES_AT_MOST, WHOLE_TRANSCRIPT
from webchat_fsm.lifecycle.table import Transport
from webchat_fsm.server.nexus_wire import index_of
from webchat_fsm.testing import TestServer, Timeline
from webchat_fsm.wire.request import HttpAnswer

PAGE = 20
DORMANT = "async-dormant"


class Absence:
    """A chat that was left and opened again, with so many texts said meanwhile, and what came of them, by its mark."""

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
        came = self.history if event.data.old_messages else marked
        came.extend(message.text for message in event.data.messages if message.text.startswith("missed"))

    def fetch_the_rest(self):
        self.server.clear_faults()
        while not self.chat.get_transcript().complete:
            self.chat.fetch_history()


def left(stage, agent, number: int, *, crash: bool = False):
    """Leave the chat and let the agent say so many texts meanwhile."""
    stage.crash() if crash else stage.chat.close()
    return [agent.say(f"missed {n}").text for n in range(number)]


def page(first: int, last: int, **data) -> bytes:
    return envelope(messages=[said(f"{n}-0", f"text {n}") for n in range(first, last + 1)], **data)


def scripted(stage, *bodies: bytes, seen: int = 5):
    """A chat that has delivered up to an index, restored with these pages; later ones are the server's own."""
    stage.start()
    stage.chat.close()
    stage.store.save(replace(stage.store.load(), last_index=f"{seen}-0"))
    stage.client()
    for body in bodies:
        stage.http.answer("restore", body)
    stage.chat.open()
    return stage.chat


def played(stage, everything, *, seen, odd=None, inclusive=True):
    """A chat that has delivered up to an index, restored from a server that has all this, some with an odd index."""
    shown = {f"{place}-0": {**everything[place - 1], "index": index} for place, index in (odd or {}).items()}

    def answer():
        before = rank(stage.queries()[-1].get("index", "9" * 20))
        upto = [
            one for one in everything if rank(one["index"]) < before or (inclusive and rank(one["index"]) == before)
        ]
        return HttpAnswer(status=200, body=envelope(messages=[shown.get(one["index"], one) for one in upto[-PAGE:]]))

    stage.start()
    stage.chat.close()
    stage.store.save(replace(stage.store.load(), last_index=f"{seen}-0"))
    stage.client()
    for _ in range(PAGES_AT_MOST):
        stage.http.during("restore", answer)
    stage.chat.open()


def told(stage) -> tuple[int | None, bool]:
    """What `restored` and the transcript say is missing, which must be the same."""
    transcript = stage.chat.get_transcript()
    assert stage.heard.last("restored").missing == transcript.missing
    return transcript.missing, transcript.complete


# -- a restore pages back ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", [False, True])
def test_sixty_missed_messages_all_come_in_order(lasting, crash):
    agent = lasting.chatting("first")
    missed = left(lasting, agent, 60, crash=crash)
    lasting.open()
    assert lasting.heard.names[:2] == ["ready", "restored"]
    (received,) = lasting.heard.all("messageReceived")
    assert [m.text for m in received.messages if m.text in missed] == missed
    assert {m.restoring for m in received.messages} == {received.restoring} == {True}
    assert told(lasting) == (0, True)
    assert lasting.http.operations() == ["resume", *["restore"] * 4]


def test_each_page_ends_with_the_oldest_of_the_page_before(lasting):
    agent = lasting.chatting("first")
    left(lasting, agent, 45)
    events = [index_of(event) for event in lasting.server.core.current_chat().transcript]
    lasting.open()
    assert lasting.queries() == [
        {"count": "20"}, {"index": events[-20], "count": "20"}, {"index": events[-39], "count": "20"},
    ]  # fmt: skip


def test_a_restore_that_missed_nothing_fetches_one_page(lasting):
    lasting.chatting(*map(str, range(50)))
    lasting.away(1)
    assert lasting.http.operations() == ["resume", "restore"]
    assert told(lasting) == (0, True)


def test_a_chat_left_before_its_first_poll_comes_whole(lasting):
    lasting.open().start_chat(nickname="Jonny")
    lasting.bulk(30)
    lasting.away(1)
    assert len(lasting.chat.get_transcript().messages) == 30
    assert told(lasting) == (0, True)


def test_a_typing_notice_as_last_message_is_met_by_order(lasting):
    """The server leaves typing out of pages, so that its index never comes again."""
    agent = lasting.chatting("first")
    agent.typing()
    lasting.advance(3)
    missed = left(lasting, agent, 25)
    lasting.open()
    assert lasting.heard.texts() == ["first", *missed]
    assert told(lasting) == (0, True)
    assert lasting.http.operations().count("restore") == 2


def test_beyond_ten_pages_missing_is_reported_and_history_helps(lasting):
    agent = lasting.chatting("first")
    missed = left(lasting, agent, 300)
    lasting.open()
    assert lasting.http.operations().count("restore") == PAGES_AT_MOST
    assert lasting.heard.texts() == missed[300 - (PAGE * 10 - 9) :]
    assert told(lasting) == (None, False)
    while not lasting.chat.get_transcript().complete:
        lasting.chat.fetch_history()
    assert set(lasting.heard.texts()) >= set(missed)
    assert lasting.chat.get_transcript().missing == 0
    lasting.crash()
    lasting.open()
    assert told(lasting) == (0, True), "that the gap is closed was saved at once"


def test_a_gap_that_is_left_open_is_fetched_or_reported_again(lasting):
    agent = lasting.chatting("first")
    left(lasting, agent, 300)
    lasting.open()
    lasting.advance(10)
    lasting.away(1)
    assert told(lasting) == (None, False)
    missed = lasting.away(1, maxMessagePageSize=100) and lasting.heard.texts()
    assert told(lasting) == (0, True)
    assert missed[-300:] == [f"missed {n}" for n in range(300)]


def test_the_bus_carries_missing_on_asynchronous_chat_alone(nexus):
    nexus.start().close()
    nexus.client()
    bus = HeardOnBus(nexus.chat)
    nexus.chat.open()
    lasting = nexus.transport is Transport.V3_ASYNC
    assert bus.last("restored") == ({"async": True, "missing": 0} if lasting else {"async": False})
    assert set(bus.command("getTranscript").value) == {"messages", "originalMessages"}


def test_preprocessors_see_each_visible_message_once(lasting):
    agent = lasting.chatting("first")
    missed = left(lasting, agent, 60)
    seen = []

    def shout(item):
        seen.append(item["text"])
        return {**item, "text": item["text"].upper()}

    chat = lasting.client()
    chat.register_pre_processor(shout)
    chat.add_prefilter(re.compile("^missed [0-9]$"))
    chat.open()
    assert sorted(text for text in seen if text) == sorted(["first", *missed[10:]])
    assert lasting.heard.texts() == ["FIRST", *(text.upper() for text in missed[10:])]
    assert told(lasting) == (0, True)


# -- pages that go wrong -----------------------------------------------------------------------------------------------

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
def test_a_page_that_fails_leaves_what_came_and_a_report(fault, failing):
    absence = Absence(60, PAGE, [{"operation": "restore", "attempt": failing, **fault}])
    assert absence.chat.state == "polling"
    assert absence.chat.get_transcript().missing is None
    assert len(absence.restored) == 20 + 19 * (failing - 2)
    absence.fetch_the_rest()
    assert set(absence.restored + absence.history) == absence.said


@pytest.mark.parametrize("fault", [{"http_status": 404, "code": "INVALID_SESSION"}, {"http_status": 401}])
def test_a_session_lost_on_a_page_is_a_lost_session(lasting, fault):
    agent = lasting.chatting("first")
    left(lasting, agent, 60)
    lasting.server.faults.add(operation="refresh", skip=1, **fault)
    lasting.open()
    assert (lasting.chat.state, lasting.heard.names) == ("idle", ["ready", "restoreFailed", "error"])
    assert lasting.store.load() is None


def test_a_chat_that_ends_between_two_pages_ends_by_its_poll(lasting):
    agent = lasting.chatting("first")
    missed = left(lasting, agent, 30)
    chat = lasting.client()

    def end():
        agent.say("bye")
        lasting.server.end()

    lasting.http.during("restore", lambda: None)
    lasting.http.during("restore", end)
    chat.open()
    assert (chat.state, told(lasting)) == ("polling", (0, True))
    lasting.advance(3)
    assert chat.state == "ended"
    assert lasting.heard.texts() == ["first", *missed, "bye"]


def test_closing_between_pages_publishes_nothing_and_saves(lasting):
    agent = lasting.chatting("first")
    missed = left(lasting, agent, 60)
    chat = lasting.client()
    lasting.http.during("restore", lambda: None)
    lasting.http.during("restore", lambda: chat.close() and None)
    chat.open()
    assert (chat.state, lasting.heard.names) == (DORMANT, ["ready"])
    chat.open()
    assert lasting.heard.texts() == ["first", *missed]
    assert told(lasting) == (0, True)


def test_an_interruption_between_pages_is_as_before(lasting):
    agent = lasting.chatting("first")
    missed = left(lasting, agent, 60)
    chat = lasting.client()

    def interrupt():
        raise KeyboardInterrupt

    lasting.http.during("restore", lambda: None)
    lasting.http.during("restore", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chat.open()
    assert chat.state == "idle"
    lasting.open()
    assert lasting.heard.texts() == ["first", *missed]


def test_a_server_that_ignores_the_index_ends_the_paging(lasting):
    chat = scripted(lasting, page(40, 59), page(40, 59))
    assert lasting.http.operations().count("restore") == 2
    assert told(lasting) == (None, False)
    lasting.http.answer("history", page(40, 59))
    chat.fetch_history()
    assert chat.get_transcript().complete is False


@pytest.mark.parametrize("newer", [page(66, 85), page(66, 66)], ids=["many", "one"])
def test_newer_messages_on_an_older_page_leave_no_hole(lasting, newer):
    """A server that ignores the index and has grown: what is newer comes by poll, all of it."""
    scripted(lasting, page(40, 59), newer, newer)
    assert [m.text for m in lasting.chat.get_transcript().messages] == [f"text {n}" for n in range(40, 60)]
    assert told(lasting) == (None, False)


@pytest.mark.parametrize("seen", [25, 0])
def test_a_server_that_leaves_the_last_message_out_is_believed(lasting, seen):
    """Each page ends before the message that was asked for: the next oldest one is tried, and its page taken."""
    played(lasting, [said(f"{n}-0", f"text {n}") for n in range(1, 60)], seen=seen, inclusive=False)
    texts = [message.text for message in lasting.chat.get_transcript().messages]
    assert texts == [f"text {n}" for n in range(60 - len(texts), 60)]
    assert len(texts) >= 59 - seen
    assert told(lasting) == (0, True)


ANCHOR = said("40-0", "text 40")


def test_pages_without_messages_say_nothing_about_the_beginning(lasting):
    scripted(lasting, page(40, 59), envelope(), envelope(messages=None))
    assert told(lasting) == (None, False)


@pytest.mark.parametrize("last", [[ANCHOR], [ANCHOR, ANCHOR]], ids=["itself", "itself twice"])
def test_the_beginning_of_the_chat_ends_the_paging(lasting, last):
    scripted(lasting, page(40, 59), envelope(messages=last), seen=0)
    assert told(lasting) == (0, True)


def test_a_beginning_behind_what_was_delivered_leaves_a_gap(lasting):
    """The server has dropped its older messages, or left them out of the page: what lies between never came."""
    chat = scripted(lasting, page(40, 59), envelope(messages=[ANCHOR]), seen=5)
    assert told(lasting) == (None, False)
    lasting.http.answer("history", envelope(messages=[ANCHOR]))
    chat.command("fetchHistory")
    assert not chat.get_transcript().complete


def test_pages_that_come_newest_first_are_turned_round(lasting):
    newest_first = [
        envelope(messages=[said(f"{n}-0", f"text {n}") for n in range(last, first - 1, -1)])
        for first, last in ((40, 59), (21, 40), (3, 21))
    ]
    chat = scripted(lasting, *newest_first)
    assert told(lasting) == (0, True)
    assert [m.text for m in chat.get_transcript().messages] == [f"text {n}" for n in range(3, 60)]


def test_a_message_said_between_two_pages_is_polled_by_its_index(lasting):
    """A server may move its own cursor with each page, so that a poll without an index would not bring it."""
    scripted(lasting, page(40, 59), page(5, 40))
    lasting.advance(1)
    assert lasting.queries()[-1] == {"index": "59-0"}
    lasting.advance(5)
    assert "refresh" in lasting.http.operations()[-1]
    lasting.http.answer("history", page(1, 5))
    lasting.chat.fetch_history()
    polled = len(lasting.queries())
    lasting.advance(5)
    assert "index" in lasting.queries()[polled]


ODD = ["1-0", "3-0", "24-0", "25-1", "35-0", "35-7", "0", "99-0", str(2**53), "", None]


@pytest.mark.parametrize("place", [40, 41, 50, 59, 22, 30])
@pytest.mark.parametrize("index", ODD)
def test_one_odd_index_hides_no_other_message(lasting, place, index):
    """A message comes with a wrong index whenever it is asked for: the others come, or are reported as missing."""
    everything = [said(f"{n}-0", f"text {n}") for n in range(1, 60)]
    played(lasting, everything, seen=25, odd={place: index})
    came = {message.text for message in lasting.chat.get_transcript().messages}
    missed = {f"text {n}" for n in range(26, 60)} - {f"text {place}"}
    twin = set() if index is None else {f"text {index.partition('-')[0]}"}  # one of two messages with one index
    assert missed - twin <= came or not lasting.chat.get_transcript().complete
    assert len(missed - came) < 20


def test_an_odd_index_does_not_close_a_gap_by_history(lasting):
    everything = [said(f"{n}-0", f"text {n}") for n in range(1, 400)]
    played(lasting, everything, seen=5)
    assert told(lasting) == (None, False)
    oldest = {**everything[206], "index": "3-0"}
    lasting.http.answer("history", envelope(messages=[*everything[190:206], oldest]))
    lasting.chat.fetch_history()
    assert not lasting.chat.get_transcript().complete
    for page_of_the_odd_one in (everything[:3], everything[:1]):
        lasting.http.answer("history", envelope(messages=page_of_the_odd_one))
        lasting.chat.command("fetchHistory")
        assert not lasting.chat.get_transcript().complete


def test_an_empty_chat_where_messages_were_is_not_complete(lasting):
    scripted(lasting, page(1, 0))
    assert told(lasting) == (None, False)


def test_a_restore_without_messages_polls_on_from_the_last_poll(lasting):
    """Once a poll has failed it names an index: not the one before all messages, which would bring them unmarked."""
    polled = lasting.chatting("first") and lasting.chat._engine.session.cursor
    lasting.chat.close()
    lasting.client()
    lasting.http.answer("restore", page(1, 0))
    lasting.chat.open()
    lasting.http.answer("refresh", b"<html>")
    lasting.advance(10)
    assert {"index": polled} in lasting.queries()
    assert lasting.heard.texts() == []


# -- what is saved -----------------------------------------------------------------------------------------------------


def test_an_older_session_file_restores_with_missing_unknown(lasting, tmp_path):
    store = FileStore(tmp_path / "session.json")
    lasting.start(store=store).close()
    document = json.loads(store.path.read_text())
    del document["session"]["last_index"]
    store.path.write_text(json.dumps(document))
    lasting.bulk(60)
    lasting.open(store=store)
    assert lasting.chat.state == "polling"
    assert lasting.http.operations() == ["resume", "restore"]
    assert told(lasting) == (None, False)
    while not lasting.chat.get_transcript().complete:
        lasting.chat.fetch_history()
    assert len(lasting.chat.get_transcript().messages) == 60
    lasting.away(1, store=store)
    assert told(lasting) == (0, True)


@pytest.mark.parametrize("kept", ["as handed out", "without", "null", "no index", "a number", "other form"])
def test_the_last_index_travels_with_the_three_functions(lasting, kept):
    cupboard = Cupboard()
    lasting.start(hooks=cupboard.hooks)
    agent = lasting.agent()
    lasting.advance(3)
    lasting.chat.close()
    data = json.loads(cupboard.kept)
    assert data["lastIndex"] == index_of(lasting.server.core.current_chat().transcript[-1])
    known = {"as handed out": data["lastIndex"], "null": None, "no index": "x", "a number": 1, "other form": "9" * 14}
    data = {**data, "lastIndex": known[kept]} if kept in known else {k: v for k, v in data.items() if k != "lastIndex"}
    cupboard.kept = data
    missed = [agent.say(f"missed {n}").text for n in range(60)]
    lasting.open(store=MemoryStore(), hooks=cupboard.hooks)
    complete = kept in ("as handed out", "a number", "other form")
    assert told(lasting) == ((0, True) if complete else (None, False))
    assert (missed[0] in lasting.heard.texts()) is complete


def test_history_completes_a_chat_known_by_its_token_alone(lasting):
    lasting.chatting("first")
    lasting.bulk(60)
    token = lasting.token()
    lasting.chat.close()
    chat = lasting.open(store=MemoryStore())
    chat.restore(token)
    assert told(lasting) == (None, False)
    while chat.command("fetchHistory"):
        pass
    assert len(chat.get_transcript().messages) == 60
    assert chat.get_transcript().complete


# -- the whole transcript: v2 and plain v3 -----------------------------------------------------------------------------


def test_ten_thousand_and_one_messages_come_in_two_pages(v3):
    whole = page(2, WHOLE_TRANSCRIPT + 1)
    chat = scripted(v3, whole, page(1, 2), seen=WHOLE_TRANSCRIPT)
    assert v3.queries() == [{"count": "10000"}, {"index": "2-0", "count": "10000"}]
    assert len(chat.get_transcript().messages) == WHOLE_TRANSCRIPT + 1
    assert told(v3) == (0, True)


def test_a_second_page_of_plain_v3_that_fails_is_reported(v3):
    scripted(v3, page(2, WHOLE_TRANSCRIPT + 1), b"<html>", seen=WHOLE_TRANSCRIPT)
    assert told(v3) == (None, False)


def test_a_server_that_gives_less_than_asked_is_asked_on(v3):
    chat = scripted(v3, page(101, 200), page(1, 101), seen=50)
    assert len(chat.get_transcript().messages) == 200
    assert told(v3) == (0, True)


# -- the property ------------------------------------------------------------------------------------------------------

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
    """Every message comes marked, or is reported as missing and comes with the history; none comes twice unmarked."""
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
    assert absence.unmarked == [], "nothing was said after the restore"
    absence.server.close()


@settings(max_examples=40)
@given(**STORIES)
def test_every_message_comes_or_is_reported_missing(number, size, before, crash, faults):
    check_absence(number, size, before, crash, faults)


@pytest.mark.soak
@settings(max_examples=3000, deadline=None)
@given(**STORIES)
def test_every_message_comes_or_is_reported_at_length(number, size, before, crash, faults):
    check_absence(number, size, before, crash, faults)
