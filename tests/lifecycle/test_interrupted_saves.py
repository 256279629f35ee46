"""An interruption inside a session store: the save is carried out again, unless a later one was faster."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from tests.core.harness import SAVED
from webchat_fsm._core.steps import Save
from webchat_fsm._runtime.store import StoreWriter

FIRST, SECOND = (Save(document=replace(SAVED, cursor=order), order=order) for order in (1, 2))


class InterruptedStore:
    """Keeps the cursors of the documents that it saves; the first save is interrupted once `before` has run."""

    def __init__(self, before):
        self.before, self.saved = before, []

    def save(self, document):
        before, self.before = self.before, None
        if before is not None:
            before()
            raise KeyboardInterrupt
        self.saved.append(document.cursor)


def saved_after_interruption(before) -> list[int]:
    store = InterruptedStore(lambda: before(writer))
    writer = StoreWriter(store)
    with pytest.raises(KeyboardInterrupt):
        writer.carry_out(FIRST)
    writer.carry_out(FIRST)
    writer.carry_out(FIRST)
    return store.saved


def test_interrupted_save_is_carried_out_again_once():
    assert saved_after_interruption(lambda writer: None) == [1]


def test_save_interrupted_behind_a_later_one_is_dropped():
    assert saved_after_interruption(lambda writer: writer.carry_out(SECOND)) == [2]
