"""A command that is refused for its arguments or for the age of what is saved is settled, and makes no request."""

from __future__ import annotations

import re

import pytest
from msgspec.structs import replace

from tests.core.harness import BEGIN, SAVED, CoreHarness
from webchat_fsm._core.session import State

REFUSED = {
    "user data of no mapping": ("startChat", {"userData": "gold"}, "idle"),
    "filters of no pattern": ("addPrefilter", {"filters": "x"}, "idle"),
    "own filters of no pattern": ("sendFilteredMessage", {"message": "hi", "regex": "x"}, "polling"),
    "message too long": ("sendMessage", {"message": "123456"}, "polling"),
    "filtered message too long": ("sendFilteredMessage", {"message": "123456", "regex": re.compile("x")}, "polling"),
    "no files": ("sendFile", {}, "polling"),
    "no file id": ("downloadFile", {}, "polling"),
    "poll in flight": ("poll", {}, "polling"),
    "nothing saved": ("restore", {}, "idle"),
    "session data of no session": ("restore", {"trouble": "malformed"}, "idle"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_command_is_rejected_and_makes_no_request(case):
    command, data, state = REFUSED[case]
    core = CoreHarness(maxMessageLength=5)
    if state == "idle":
        core.open()
    else:
        core.start()
        core.due()
    before, filters = core.session.state, list(core.session.prefilters.custom)
    decision = core.ask(command, data, by_service=command in ("poll", "restore"))
    assert decision.settled.resolved is False
    assert decision.settled.reason
    assert (decision.call, decision.transitions, decision.effects) == (None, [], [])
    assert (core.session.state, list(core.session.prefilters.custom)) == (before, filters)


def test_restore_of_a_session_too_old_makes_no_request():
    core = CoreHarness()
    core.open()
    core.session.saved = replace(SAVED, last_contact=BEGIN - 60, closed=True)
    decision = core.ask("restore", by_service=True)
    assert (decision.settled.resolved, decision.settled.reason) == (False, "No chat session found to restore.")
    assert (decision.call, core.published()[-1:]) == (None, ["restoreTimeout"])
    assert (core.session.state, core.session.saved) == (State.IDLE, None)
