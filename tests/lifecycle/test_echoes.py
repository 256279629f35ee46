"""A receipt finds its message, also where the server has changed the text: masked, trimmed, escaped, emptied."""

from __future__ import annotations

import gc
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.play import Play, bad, good, said, silent
from tests.lifecycle.stage import Stage
from webchat_fsm import CommandRejected
from webchat_fsm.core import receipts as receipts_of_sends
from webchat_fsm.core.facts import Verdict
from webchat_fsm.core.receipts import STRAYS_AT_MOST
from webchat_fsm.lifecycle.effects import Delivered, Overtaken
from webchat_fsm.runtime.receipt import Receipt


def send(stage: Stage, text: str, comes_as: str | None):
    """Send a text that the server takes; it comes back as another one, or not at all."""
    stage.server.faults.add(operation="send", server_status=0)
    receipt = stage.chat.send_message(text)
    if comes_as is not None:
        echo(stage, comes_as)
    return receipt


def echo(stage: Stage, text: str) -> None:
    """A message of the participant that this client is, from whichever process."""
    chat = stage.server.core.current_chat()
    chat.add("Message", chat.client.sender, stage.timeline.now(), text=text, message_type="text")


def doubtful(stage: Stage, text: str, **fault):
    """Send a text whose answer is lost, and give its receipt."""
    stage.server.faults.add(operation="send", **{"drop": True, **fault})
    with pytest.raises(CommandRejected) as caught:
        stage.chat.send_message(text)
    return caught.value.receipt


def states(*receipts) -> list[tuple[str, int | None]]:
    return [(receipt.status, receipt.index) for receipt in receipts]


MASKED, PLAIN = ("4111", "****"), ("thank you", "thank you")
"""What is sent, and as what it comes back."""


# -- one message -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "comes_as"),
    [
        ("my card is 4111 1111 1111 1111", "my card is **** **** **** ****"),
        ("with a space behind ", "with a space behind"),
        ("<b>bold</b> & more", "&lt;b&gt;bold&lt;/b&gt; &amp; more"),
        ("4111", ""),
        ("line\r\nline", "line\nline"),
    ],
    ids=["masked", "trimmed", "escaped", "emptied", "other line ends"],
)
def test_a_message_that_the_server_has_changed_is_delivered(stage, text, comes_as):
    stage.start()
    receipt = send(stage, text, comes_as)
    assert receipt.wait(5)
    assert states(receipt) == [("delivered", 2)]


@pytest.mark.parametrize("pair", [(MASKED, PLAIN), (PLAIN, MASKED), (MASKED, MASKED)], ids=["1st", "2nd", "both"])
def test_of_two_messages_masked_ones_keep_their_order(stage, pair):
    stage.start()
    first, second = [send(stage, *texts) for texts in pair]
    stage.advance(3)
    assert states(first, second) == [("delivered", 2), ("delivered", 3)]


def test_a_message_known_before_the_send_settles_nothing(stage):
    stage.start()
    echo(stage, "****")
    stage.advance(3)
    receipt = send(stage, "4111", None)
    stage.advance(10)
    assert states(receipt) == [("sent", None)]


@pytest.mark.parametrize("kind", ["agent", "supervisor", "bot"])
def test_nobody_else_settles_a_send(stage, kind):
    stage.start()
    receipt = send(stage, "4111", None)
    person = getattr(stage.server, kind)("Sue").join()
    person.say("****")
    person.say("4111")
    stage.advance(3)
    assert states(receipt) == [("sent", None)]


@pytest.mark.parametrize("comes_as", ["4111", "****"])
def test_a_message_that_overtakes_the_answer_to_its_send(stage, comes_as):
    chat = stage.start()

    def come():
        echo(stage, comes_as)
        chat.step()

    stage.http.during("send", come)
    assert states(send(stage, "4111", None)) == [("delivered", 2)]


def test_a_message_before_a_lost_answer_settles_by_text_alone(stage):
    chat = stage.start()

    def come():
        echo(stage, "****")
        chat.step()

    stage.http.during("send", come)
    masked = doubtful(stage, "4111")
    assert states(masked) == [("unknown", None)]
    later = send(stage, "later", None)
    stage.advance(3)
    assert states(later) == [("sent", None)], "the message was known before the send"


# -- several -----------------------------------------------------------------------------------------------------------


def test_a_lost_send_is_unknown_once_a_later_one_has_come_back(stage):
    stage.start()
    lost, plain = send(stage, "lost", None), send(stage, "plain", "plain")
    assert plain.wait(5)
    before = stage.timeline.now()
    assert lost.wait(100) is False
    assert stage.timeline.now() == before, "it is not waited for"
    assert states(lost, plain) == [("unknown", None), ("delivered", 2)]


def test_an_overtaken_send_whose_text_comes_late_is_delivered(stage):
    stage.start()
    late, plain = send(stage, "late", None), send(stage, "plain", "plain")
    stage.advance(3)
    assert late.status == "unknown"
    echo(stage, "late")
    stage.advance(3)
    assert states(late, plain) == [("delivered", 3), ("delivered", 2)]
    assert late.wait(0)


def test_a_masked_message_settles_the_accepted_of_two_sends(stage):
    stage.start()
    lost = doubtful(stage, "5500 0000")
    masked = send(stage, "4111 1111", "**** ****")
    stage.advance(3)
    assert states(lost, masked) == [("unknown", None), ("delivered", 2)]


def test_an_unconfirmed_send_is_settled_by_its_text_alone(stage):
    stage.start()
    receipt = doubtful(stage, "4111")
    echo(stage, "****")
    stage.advance(3)
    assert states(receipt) == [("unknown", None)]
    echo(stage, "4111")
    stage.advance(3)
    assert states(receipt) == [("delivered", 3)]


def test_of_equal_texts_the_accepted_one_comes_first(stage):
    stage.start()
    unconfirmed, accepted = doubtful(stage, "hi"), send(stage, "hi", "hi")
    stage.advance(3)
    assert states(unconfirmed, accepted) == [("unknown", None), ("delivered", 2)]
    echo(stage, "hi")
    stage.advance(3)
    assert states(unconfirmed, accepted) == [("delivered", 3), ("delivered", 2)]


def test_an_echo_of_another_process_settles_one_send_at_most(stage):
    """Nothing on v2 tells it from our own text, changed: it settles the oldest accepted send, and no more than that."""
    stage.start()
    unconfirmed, first, second = doubtful(stage, "zero"), send(stage, "one", None), send(stage, "two", None)
    echo(stage, "of the other process")
    stage.advance(3)
    assert states(unconfirmed, first, second) == [("unknown", None), ("delivered", 2), ("sent", None)]
    echo(stage, "two")
    stage.advance(3)
    assert states(second) == [("delivered", 3)]


def test_a_refused_send_takes_no_message(stage):
    stage.start()
    stage.server.faults.add(operation="send", http_status=500)
    with pytest.raises(CommandRejected):
        stage.chat.send_message("refused")
    masked = send(stage, "4111", "****")
    stage.advance(3)
    assert states(masked) == [("delivered", 2)]


def test_a_filtered_send_takes_the_message_that_is_its_own(stage):
    stage.start()
    stage.server.faults.add(operation="send", server_status=0)
    stage.chat.send_filtered_message("secret", re.compile("secret"))
    plain = send(stage, "4111", None)
    for text in ("secret", "****"):
        echo(stage, text)
    stage.advance(3)
    assert states(plain) == [("delivered", 3)]


def test_of_two_sends_at_once_neither_overtakes_the_other():
    """Two threads: the server may take the second send first, so that its message comes first."""
    play = Play().start()
    one, two = (play.ask("sendMessage", {"message": text}) for text in ("one", "two"))
    for decision in (one, two):
        play.answer(decision, good())
    play.poll(good(said(1, "two", "Client")))
    assert [type(effect) for effect in play.effects if isinstance(effect, Delivered | Overtaken)] == [Delivered]
    play.poll(good(said(2, "one", "Client")))
    assert [effect.index for effect in play.effects if isinstance(effect, Delivered)] == [1, 2]


def test_a_delivered_receipt_stays_so_whatever_comes_later():
    receipt = Receipt(1, "sent", lambda receipt, timeout: receipt.settled)
    receipt.settle(Delivered(ticket=1, index=7))
    receipt.settle(Overtaken(ticket=1))
    assert states(receipt) == [("delivered", 7)]


# -- memory ------------------------------------------------------------------------------------------------------------


def test_sends_that_never_come_back_are_bounded(stage, monkeypatch):
    monkeypatch.setattr(receipts_of_sends, "OPEN_AT_MOST", 20)
    stage.start()
    stage.server.faults.add(operation="send", server_status=0, times=25)
    receipts = [stage.chat.send_message(f"{n}") for n in range(25)]
    assert len(stage.chat._engine.session.sendings) == 20
    assert [receipt.status for receipt in receipts[:6]] == ["unknown"] * 5 + ["sent"]
    assert receipts[0].wait(100) is False
    del receipts
    gc.collect()
    assert len(stage.chat._receipts) == 0


def test_an_interrupted_send_keeps_no_message_waiting(stage):
    chat = stage.start()

    def come():
        echo(stage, "****")
        chat.step()
        raise KeyboardInterrupt

    stage.http.during("send", come)
    with pytest.raises(KeyboardInterrupt):
        chat.send_message("4111")
    assert chat._engine.session.strays == []
    echo(stage, "4111")
    stage.advance(3)
    assert chat._engine.session.sendings == []


@pytest.mark.parametrize("answer", [good, silent, lambda: bad(Verdict.REFUSED)])
def test_messages_waiting_for_an_answer_are_bounded_and_dropped(answer):
    play = Play().start()
    decision = play.ask("sendMessage", {"message": "4111"})
    play.poll(good(*(said(index, "****", "Client") for index in range(1, STRAYS_AT_MOST + 10))))
    assert len(play.session.strays) == STRAYS_AT_MOST
    play.answer(decision, answer())
    assert play.session.strays == []


def test_of_equal_texts_accepted_comes_before_unanswered():
    play = Play().start()
    early, taken = (play.ask("sendMessage", {"message": "hi"}) for _ in range(2))
    play.answer(taken, good())
    play.poll(good(said(1, "hi", "Client"), said(2, "hi", "Client")))
    delivered = {one.ticket: one.index for one in play.effects if isinstance(one, Delivered)}
    assert delivered == {taken.call.ticket: 1, early.call.ticket: 2}


# -- the property ------------------------------------------------------------------------------------------------------

ANSWERS = {"accepted": good, "unconfirmed": silent, "rejected": lambda: bad(Verdict.REFUSED)}
TEXTS = st.sampled_from(["hi", "4111"])
STEPS = st.one_of(
    st.tuples(st.just("send"), TEXTS, st.sampled_from([*ANSWERS, "accepted", "later"])),
    st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from([*ANSWERS])),
    st.tuples(st.just("echo"), st.one_of(TEXTS, st.sampled_from(["****", "foreign"])), st.booleans()),
    st.tuples(st.just("agent"), TEXTS, st.none()),
)


class Model:
    """The rules, one by one: what each send must have come to."""

    def __init__(self):
        self.sends, self.strays, self.seen = [], [], 0  # a send and the number of those made when it was accepted

    def send(self, ticket, text):
        self.sends.append({"ticket": ticket, "text": text, "seen": self.seen, "is": "asked", "index": None, "at": 0})

    def open(self, *kinds):
        return [one for one in self.sends if one["is"] in kinds]

    def answer(self, ticket, how):
        (send,) = [one for one in self.sends if one["ticket"] == ticket]
        if send["is"] == "asked":
            send["is"], send["at"] = how, len(self.sends)
            mine = [stray for stray in self.strays if stray > send["seen"]]
            if how == "accepted" and mine:
                self.strays.remove(mine[0])
                self.settle(send, mine[0])
        if not self.open("asked"):
            self.strays = []

    def echo(self, index, text):
        self.seen = index
        candidates = [one for kind in ("accepted", "asked", "unconfirmed") for one in self.open(kind)]
        by_text = [one for one in candidates if one["text"] == text]
        chosen = by_text or self.open("accepted")
        if chosen:
            self.settle(chosen[0], index)
        elif self.open("asked"):
            self.strays.append(index)

    def settle(self, send, index):
        made = self.sends.index(send)
        for earlier in self.sends[:made]:
            if earlier["is"] == "accepted" and earlier["at"] <= made:
                earlier["is"] = "unconfirmed"
        send["is"], send["index"] = "delivered", index


def check_receipts(steps):
    play, model, waiting = Play().start(), Model(), []
    play.poll(good(said(1, "", "Client", "ParticipantJoined")))
    model.seen = index = 1
    for kind, what, how in steps:
        if kind == "send":
            decision = play.ask("sendMessage", {"message": what})
            model.send(decision.call.ticket, what)
            waiting.append(decision)
            if how != "later":
                play.answer(waiting.pop(), ANSWERS[how]())
                model.answer(decision.call.ticket, how)
        elif kind == "answer" and what < len(waiting):
            decision = waiting.pop(what)
            play.answer(decision, ANSWERS[how]())
            model.answer(decision.call.ticket, how)
        elif kind in ("echo", "agent"):
            index += 1
            play.poll(good(said(index, what, "Client" if kind == "echo" else "Agent")))
            if kind == "echo":
                model.echo(index, what)
            model.seen = index
    delivered = [(one.ticket, one.index) for one in play.effects if isinstance(one, Delivered)]
    assert len({place for _, place in delivered}) == len(delivered), "a message settles one send at most"
    assert sorted(delivered) == sorted((one["ticket"], one["index"]) for one in model.open("delivered"))
    overtaken = {one.ticket for one in play.effects if isinstance(one, Overtaken)} - {ticket for ticket, _ in delivered}
    assert overtaken <= {one["ticket"] for one in model.open("unconfirmed")}
    assert {one.ticket: str(one.standing) for one in play.session.sendings} == {
        one["ticket"]: one["is"] for one in model.open("asked", "accepted", "unconfirmed")
    }


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=14))
def test_receipts_keep_the_rules_in_any_order_of_things(steps):
    check_receipts(steps)


@pytest.mark.soak
@settings(max_examples=5000, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_receipts_keep_the_rules_at_length(steps):
    check_receipts(steps)
