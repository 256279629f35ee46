"""Which ids go with the deletion of a saved session, for the function that a lost one is reported to."""

from __future__ import annotations

from msgspec.structs import replace

from tests.core.harness import IDS, SAVED, CoreHarness, bad, good
from webchat_fsm._core.steps import Forget, ResponseKind

LOST = bad(ResponseKind.LOST, 404)


def forgotten(core: CoreHarness) -> list[Forget]:
    return [effect for effect in core.effects if isinstance(effect, Forget)]


def test_lost_session_is_forgotten_with_its_newest_ids():
    core, renewed = CoreHarness().start(), replace(IDS, alias="118")
    core.answer(core.ask("sendMessage", {"message": "hi"}), good(session_data=renewed))
    core.poll(LOST)
    assert [(effect.session_data, effect.lost) for effect in forgotten(core)] == [(renewed, LOST.response)]


def test_session_lost_before_its_restore_has_the_saved_ids():
    core = CoreHarness()
    core.answer(core.open(SAVED), LOST)
    assert [(effect.session_data, effect.lost) for effect in forgotten(core)] == [(SAVED.session_data, LOST.response)]
