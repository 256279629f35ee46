"""Check that a receipt is settled by the message index that the v3 response to its send names."""

from __future__ import annotations

from tests.nexus.environment import envelope
from tests.nexus.test_faults import LATER, said

OURS = "participantId"


def echo(env, index, text, **fields):
    """Return a message of a customer in wire format: of this one, unless another participant is named."""
    own = env.chat.get_session_data().participant_id
    return said(index, text, **{"from": {"type": "Customer", OURS: own, "nickname": "Jonny"}, **fields})


def send(env, text, index=None):
    env.http.answer("send", envelope(**({} if index is None else {"index": index})))
    return env.chat.send_message(text)


def poll(env, *messages):
    env.http.answer("refresh", envelope(messages=messages))
    env.chat.step()


def state(receipt):
    return receipt.status, receipt.index


def test_response_index_identifies_message_of_any_text(nexus):
    nexus.start()
    first, second = send(nexus, "one", f"{LATER}-1"), send(nexus, "two", f"{LATER}-2")
    poll(nexus, echo(nexus, f"{LATER}-2", "****"))
    assert (state(first), state(second)) == (("unknown", None), ("delivered", f"{LATER}2"))
    poll(nexus, echo(nexus, f"{LATER}-3", "of another process"), echo(nexus, f"{LATER}-4", "one"))
    assert state(first) == ("unknown", None), "the text alone does not settle a receipt whose index differs"


def test_foreign_message_settles_no_send_with_index(nexus):
    nexus.start()
    receipt = send(nexus, "4111", f"{LATER}-2")
    poll(nexus, echo(nexus, f"{LATER}-1", "of another process"), echo(nexus, f"{LATER}-2", "****"))
    assert state(receipt) == ("delivered", f"{LATER}2")


def test_send_with_later_index_stays_sent(nexus):
    nexus.start()
    first, second = send(nexus, "one", f"{LATER}-2"), send(nexus, "two", f"{LATER}-1")
    poll(nexus, echo(nexus, f"{LATER}-1", "two"))
    assert (first.status, second.status) == ("sent", "delivered")


def test_response_index_of_other_form_is_ignored(nexus):
    nexus.start()
    receipt = send(nexus, "4111", 7)
    poll(nexus, echo(nexus, f"{LATER}-1", "****"))
    assert receipt.status == "delivered"


def test_message_of_other_customer_settles_no_receipt(nexus):
    nexus.start()
    receipt = send(nexus, "4111")
    other = {"type": "Customer", OURS: "somebody else", "nickname": "Eve"}
    poll(nexus, echo(nexus, f"{LATER}-1", "4111", **{"from": other}), echo(nexus, f"{LATER}-2", "****"))
    assert state(receipt) == ("delivered", f"{LATER}2")


def test_file_message_settles_no_text_receipt(nexus):
    nexus.start()
    receipt = send(nexus, "4111")
    image = [{"type": "image", "mime": "image/png", "url": "/sessions/s/images/i"}]
    poll(nexus, echo(nexus, f"{LATER}-1", "", content=image), echo(nexus, f"{LATER}-2", "****"))
    assert state(receipt) == ("delivered", f"{LATER}2")


def test_masked_message_before_response_is_found_by_index(nexus):
    nexus.start()

    def poll_both():
        poll(nexus, echo(nexus, f"{LATER}-1", "of another process"), echo(nexus, f"{LATER}-2", "****"))

    nexus.http.during("send", poll_both)
    nexus.server.faults.add(operation="send", body=envelope(index=f"{LATER}-2"))
    assert state(nexus.chat.send_message("4111")) == ("delivered", f"{LATER}2")
