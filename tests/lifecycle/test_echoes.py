"""Check that a receipt is settled by its message, also if the server masked, trimmed, escaped or emptied the text."""

from __future__ import annotations

import gc
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.harness import CoreHarness, bad, chat_message, good, silent
from tests.lifecycle.environment import ChatEnvironment
from tests.limits import examples
from webchat_fsm import CommandRejected
from webchat_fsm._core import receipts as receipts_of_sends
from webchat_fsm._core.receipts import UNMATCHED_AT_MOST
from webchat_fsm._core.steps import Delivered, Overtaken, ResponseKind
from webchat_fsm._runtime.outcome import Receipt


def send(env: ChatEnvironment, text: str, comes_as: str | None):
    """Send a text that the server accepts, and publish it as another text, or not at all."""
    env.server.faults.add(operation="send", server_status=0)
    receipt = env.chat.send_message(text)
    if comes_as is not None:
        echo(env, comes_as)
    return receipt


def echo(env: ChatEnvironment, text: str) -> None:
    """Add a message of the client's own participant, which any of its processes may have sent."""
    chat = env.server.core.current_chat()
    chat.add("Message", chat.client.sender, env.timeline.now(), text=text, message_type="text")


def send_unanswered(env: ChatEnvironment, text: str, **fault):
    """Send a text whose response is lost, and return its receipt."""
    env.server.faults.add(operation="send", **{"drop": True, **fault})
    with pytest.raises(CommandRejected) as caught:
        env.chat.send_message(text)
    return caught.value.receipt


def states(*receipts) -> list[tuple[str, int | None]]:
    return [(receipt.status, receipt.index) for receipt in receipts]


MASKED, PLAIN = ("4111", "****"), ("thank you", "thank you")
"""Pairs of a text sent and the text published for it."""


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
def test_message_changed_by_server_is_delivered(env, text, comes_as):
    env.start()
    receipt = send(env, text, comes_as)
    assert receipt.wait(5)
    assert states(receipt) == [("delivered", 2)]


@pytest.mark.parametrize("pair", [(MASKED, PLAIN), (PLAIN, MASKED), (MASKED, MASKED)], ids=["1st", "2nd", "both"])
def test_masked_messages_settle_receipts_in_order(env, pair):
    env.start()
    first, second = [send(env, *texts) for texts in pair]
    env.advance(3)
    assert states(first, second) == [("delivered", 2), ("delivered", 3)]


def test_message_received_before_send_settles_no_receipt(env):
    env.start()
    echo(env, "****")
    env.advance(3)
    receipt = send(env, "4111", None)
    env.advance(10)
    assert states(receipt) == [("sent", None)]


@pytest.mark.parametrize("kind", ["agent", "supervisor", "bot"])
def test_message_of_other_party_settles_no_send(env, kind):
    env.start()
    receipt = send(env, "4111", None)
    person = getattr(env.server, kind)("Sue").join()
    person.say("****")
    person.say("4111")
    env.advance(3)
    assert states(receipt) == [("sent", None)]


@pytest.mark.parametrize("comes_as", ["4111", "****"])
def test_message_before_send_response_settles_receipt(env, comes_as):
    chat = env.start()

    def come():
        echo(env, comes_as)
        chat.step()

    env.http.during("send", come)
    assert states(send(env, "4111", None)) == [("delivered", 2)]


def test_changed_message_before_lost_response_settles_none(env):
    chat = env.start()

    def come():
        echo(env, "****")
        chat.step()

    env.http.during("send", come)
    masked = send_unanswered(env, "4111")
    assert states(masked) == [("unknown", None)]
    later = send(env, "later", None)
    env.advance(3)
    assert states(later) == [("sent", None)], "the message was known before the send"


# -- several -----------------------------------------------------------------------------------------------------------


def test_send_is_unknown_after_later_one_is_delivered(env):
    env.start()
    lost, plain = send(env, "lost", None), send(env, "plain", "plain")
    assert plain.wait(5)
    before = env.timeline.now()
    assert lost.wait(100) is False
    assert env.timeline.now() == before, "wait() must return at once"
    assert states(lost, plain) == [("unknown", None), ("delivered", 2)]


def test_overtaken_send_with_late_message_is_delivered(env):
    env.start()
    late, plain = send(env, "late", None), send(env, "plain", "plain")
    env.advance(3)
    assert late.status == "unknown"
    echo(env, "late")
    env.advance(3)
    assert states(late, plain) == [("delivered", 3), ("delivered", 2)]
    assert late.wait(0)


def test_masked_message_settles_accepted_not_unanswered(env):
    env.start()
    lost = send_unanswered(env, "5500 0000")
    masked = send(env, "4111 1111", "**** ****")
    env.advance(3)
    assert states(lost, masked) == [("unknown", None), ("delivered", 2)]


def test_unanswered_send_is_settled_by_equal_text_only(env):
    env.start()
    receipt = send_unanswered(env, "4111")
    echo(env, "****")
    env.advance(3)
    assert states(receipt) == [("unknown", None)]
    echo(env, "4111")
    env.advance(3)
    assert states(receipt) == [("delivered", 3)]


def test_equal_text_settles_accepted_before_unanswered_send(env):
    env.start()
    unconfirmed, accepted = send_unanswered(env, "hi"), send(env, "hi", "hi")
    env.advance(3)
    assert states(unconfirmed, accepted) == [("unknown", None), ("delivered", 2)]
    echo(env, "hi")
    env.advance(3)
    assert states(unconfirmed, accepted) == [("delivered", 3), ("delivered", 2)]


def test_message_of_other_process_settles_one_send_only(env):
    """Settle only the oldest accepted send: on v2 such a message looks like an own one with a changed text."""
    env.start()
    unconfirmed, first, second = send_unanswered(env, "zero"), send(env, "one", None), send(env, "two", None)
    echo(env, "of the other process")
    env.advance(3)
    assert states(unconfirmed, first, second) == [("unknown", None), ("delivered", 2), ("sent", None)]
    echo(env, "two")
    env.advance(3)
    assert states(second) == [("delivered", 3)]


def test_rejected_send_is_settled_by_no_message(env):
    env.start()
    env.server.faults.add(operation="send", http_status=500)
    with pytest.raises(CommandRejected):
        env.chat.send_message("refused")
    masked = send(env, "4111", "****")
    env.advance(3)
    assert states(masked) == [("delivered", 2)]


def test_message_of_filtered_send_settles_no_other_send(env):
    env.start()
    env.server.faults.add(operation="send", server_status=0)
    env.chat.send_filtered_message("secret", re.compile("secret"))
    plain = send(env, "4111", None)
    for text in ("secret", "****"):
        echo(env, text)
    env.advance(3)
    assert states(plain) == [("delivered", 3)]


def test_concurrent_sends_in_other_order_are_both_delivered():
    """Deliver the sends of two threads also if the server accepts the second one first."""
    core = CoreHarness().start()
    one, two = (core.ask("sendMessage", {"message": text}) for text in ("one", "two"))
    for decision in (one, two):
        core.answer(decision, good())
    core.poll(good(chat_message(1, "two", "Client")))
    assert [type(effect) for effect in core.effects if isinstance(effect, Delivered | Overtaken)] == [Delivered]
    core.poll(good(chat_message(2, "one", "Client")))
    assert [effect.index for effect in core.effects if isinstance(effect, Delivered)] == [1, 2]


def test_delivered_receipt_is_final():
    receipt = Receipt(1, "sent", lambda receipt, timeout: receipt.settled)
    receipt._settle(Delivered(ticket=1, index=7))
    receipt._settle(Overtaken(ticket=1))
    assert states(receipt) == [("delivered", 7)]


# -- memory ------------------------------------------------------------------------------------------------------------


def test_undelivered_sends_are_bounded_in_number(env, monkeypatch):
    monkeypatch.setattr(receipts_of_sends, "OPEN_AT_MOST", 20)
    env.start()
    env.server.faults.add(operation="send", server_status=0, times=25)
    receipts = [env.chat.send_message(f"{n}") for n in range(25)]
    assert len(env.chat._engine.session.pending_sends) == 20
    assert [receipt.status for receipt in receipts[:6]] == ["unknown"] * 5 + ["sent"]
    assert receipts[0].wait(100) is False
    del receipts
    gc.collect()
    assert len(env.chat._engine.receipts._receipts) == 0


def test_interrupted_send_leaves_no_unmatched_message(env):
    chat = env.start()

    def come():
        echo(env, "****")
        chat.step()
        raise KeyboardInterrupt

    env.http.during("send", come)
    with pytest.raises(KeyboardInterrupt):
        chat.send_message("4111")
    assert chat._engine.session.unmatched == ()
    echo(env, "4111")
    env.advance(3)
    assert chat._engine.session.pending_sends == []


@pytest.mark.parametrize("answer", [good, silent, lambda: bad(ResponseKind.REFUSED)])
def test_unmatched_messages_are_bounded_and_then_dropped(answer):
    core = CoreHarness().start()
    decision = core.ask("sendMessage", {"message": "4111"})
    core.poll(good(*(chat_message(index, "****", "Client") for index in range(1, UNMATCHED_AT_MOST + 10))))
    assert len(core.session.unmatched) == UNMATCHED_AT_MOST
    core.answer(decision, answer())
    assert core.session.unmatched == ()


def test_equal_texts_settle_accepted_send_before_pending():
    core = CoreHarness().start()
    early, taken = (core.ask("sendMessage", {"message": "hi"}) for _ in range(2))
    core.answer(taken, good())
    core.poll(good(chat_message(1, "hi", "Client"), chat_message(2, "hi", "Client")))
    delivered = {one.ticket: one.index for one in core.effects if isinstance(one, Delivered)}
    assert delivered == {taken.call.ticket: 1, early.call.ticket: 2}


# -- any sequence of steps ---------------------------------------------------------------------------------------------

ANSWERS = {"accepted": good, "unconfirmed": silent, "rejected": lambda: bad(ResponseKind.REFUSED)}
TEXTS = st.sampled_from(["hi", "4111"])
STEPS = st.one_of(
    st.tuples(st.just("send"), TEXTS, st.sampled_from([*ANSWERS, "accepted", "later"])),
    st.tuples(st.just("answer"), st.integers(0, 3), st.sampled_from([*ANSWERS])),
    st.tuples(st.just("echo"), st.one_of(TEXTS, st.sampled_from(["****", "foreign"])), st.booleans()),
    st.tuples(st.just("agent"), TEXTS, st.none()),
)


class Model:
    """Applies the rules one by one, and holds the expected standing of each send."""

    def __init__(self):
        self.sends, self.strays, self.seen = [], [], 0  # "at" of a send: how many were made when it was answered

    def send(self, ticket, text):
        self.sends.append(
            {"ticket": ticket, "text": text, "seen": self.seen, "is": "unanswered", "index": None, "at": 0}
        )

    def open(self, *kinds):
        return [one for one in self.sends if one["is"] in kinds]

    def answer(self, ticket, how):
        (send,) = [one for one in self.sends if one["ticket"] == ticket]
        if send["is"] == "unanswered":
            send["is"], send["at"] = how, len(self.sends)
            mine = [stray for stray in self.strays if stray > send["seen"]]
            if how == "accepted" and mine:
                self.strays.remove(mine[0])
                self.settle(send, mine[0])
        if not self.open("unanswered"):
            self.strays = []

    def echo(self, index, text):
        self.seen = index
        candidates = [one for kind in ("accepted", "unanswered", "unconfirmed") for one in self.open(kind)]
        by_text = [one for one in candidates if one["text"] == text]
        chosen = by_text or self.open("accepted")
        if chosen:
            self.settle(chosen[0], index)
        elif self.open("unanswered"):
            self.strays.append(index)

    def settle(self, send, index):
        made = self.sends.index(send)
        for earlier in self.sends[:made]:
            if earlier["is"] == "accepted" and earlier["at"] <= made:
                earlier["is"] = "unconfirmed"
        send["is"], send["index"] = "delivered", index


def check_receipts(steps):
    core, model, waiting = CoreHarness().start(), Model(), []
    core.poll(good(chat_message(1, "", "Client", "ParticipantJoined")))
    model.seen = index = 1
    for kind, what, how in steps:
        if kind == "send":
            decision = core.ask("sendMessage", {"message": what})
            model.send(decision.call.ticket, what)
            waiting.append(decision)
            if how != "later":
                core.answer(waiting.pop(), ANSWERS[how]())
                model.answer(decision.call.ticket, how)
        elif kind == "answer" and what < len(waiting):
            decision = waiting.pop(what)
            core.answer(decision, ANSWERS[how]())
            model.answer(decision.call.ticket, how)
        elif kind in ("echo", "agent"):
            index += 1
            core.poll(good(chat_message(index, what, "Client" if kind == "echo" else "Agent")))
            if kind == "echo":
                model.echo(index, what)
            model.seen = index
    delivered = [(one.ticket, one.index) for one in core.effects if isinstance(one, Delivered)]
    assert len({place for _, place in delivered}) == len(delivered), "a message settles one send at most"
    assert sorted(delivered) == sorted((one["ticket"], one["index"]) for one in model.open("delivered"))
    overtaken = {one.ticket for one in core.effects if isinstance(one, Overtaken)} - {ticket for ticket, _ in delivered}
    assert overtaken <= {one["ticket"] for one in model.open("unconfirmed")}
    assert {one.ticket: str(one.status) for one in core.session.pending_sends} == {
        one["ticket"]: one["is"] for one in model.open("unanswered", "accepted", "unconfirmed")
    }


@settings(max_examples=examples(100))
@given(st.lists(STEPS, max_size=14))
def test_receipts_follow_the_model_in_any_order_of_steps(steps):
    check_receipts(steps)


@pytest.mark.soak
@settings(max_examples=5000, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_receipts_follow_the_model_in_long_sequences(steps):
    check_receipts(steps)
