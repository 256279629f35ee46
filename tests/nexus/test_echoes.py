"""On v3 the answer to a send names the index of its message, by which the receipt is settled."""

from __future__ import annotations

from tests.nexus.stage import envelope
from tests.nexus.test_faults import LATER, said

OURS = "participantId"


def echo(stage, index, text, **fields):
    """A message of a customer on the wire: this one, unless another participant is named."""
    own = stage.chat.get_session_data().participant_id
    return said(index, text, **{"from": {"type": "Customer", OURS: own, "nickname": "Jonny"}, **fields})


def send(stage, text, index=None):
    stage.http.answer("send", envelope(**({} if index is None else {"index": index})))
    return stage.chat.send_message(text)


def poll(stage, *messages):
    stage.http.answer("refresh", envelope(messages=messages))
    stage.chat.step()


def state(receipt):
    return receipt.status, receipt.index


def test_the_index_of_an_answer_finds_a_message_of_any_text(nexus):
    nexus.start()
    first, second = send(nexus, "one", f"{LATER}-1"), send(nexus, "two", f"{LATER}-2")
    poll(nexus, echo(nexus, f"{LATER}-2", "****"))
    assert (state(first), state(second)) == (("unknown", None), ("delivered", f"{LATER}2"))
    poll(nexus, echo(nexus, f"{LATER}-3", "of another process"), echo(nexus, f"{LATER}-4", "one"))
    assert state(first) == ("unknown", None), "that text is another message's: ours has another index"


def test_a_foreign_message_settles_no_send_that_has_an_index(nexus):
    nexus.start()
    receipt = send(nexus, "4111", f"{LATER}-2")
    poll(nexus, echo(nexus, f"{LATER}-1", "of another process"), echo(nexus, f"{LATER}-2", "****"))
    assert state(receipt) == ("delivered", f"{LATER}2")


def test_a_send_with_a_later_index_is_not_overtaken(nexus):
    nexus.start()
    first, second = send(nexus, "one", f"{LATER}-2"), send(nexus, "two", f"{LATER}-1")
    poll(nexus, echo(nexus, f"{LATER}-1", "two"))
    assert (first.status, second.status) == ("sent", "delivered")


def test_an_index_of_another_form_is_no_hindrance(nexus):
    nexus.start()
    receipt = send(nexus, "4111", 7)
    poll(nexus, echo(nexus, f"{LATER}-1", "****"))
    assert receipt.status == "delivered"


def test_another_customer_settles_nothing(nexus):
    nexus.start()
    receipt = send(nexus, "4111")
    other = {"type": "Customer", OURS: "somebody else", "nickname": "Eve"}
    poll(nexus, echo(nexus, f"{LATER}-1", "4111", **{"from": other}), echo(nexus, f"{LATER}-2", "****"))
    assert state(receipt) == ("delivered", f"{LATER}2")


def test_a_file_that_was_sent_settles_no_text(nexus):
    nexus.start()
    receipt = send(nexus, "4111")
    image = [{"type": "image", "mime": "image/png", "url": "/sessions/s/images/i"}]
    poll(nexus, echo(nexus, f"{LATER}-1", "", content=image), echo(nexus, f"{LATER}-2", "****"))
    assert state(receipt) == ("delivered", f"{LATER}2")


def test_a_masked_message_before_its_answer_is_found_by_index(nexus):
    nexus.start()

    def come():
        poll(nexus, echo(nexus, f"{LATER}-1", "of another process"), echo(nexus, f"{LATER}-2", "****"))

    nexus.http.during("send", come)
    nexus.server.faults.add(operation="send", body=envelope(index=f"{LATER}-2"))
    assert state(nexus.chat.send_message("4111")) == ("delivered", f"{LATER}2")
