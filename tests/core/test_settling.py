"""How requests and timers are settled in rare cases: put off, repeated, refused by the gateway, or by a defect."""

from __future__ import annotations

import pytest

from tests.core.harness import IDS, CoreHarness, bad, chat_message, good, silent
from webchat_fsm import State, Transport
from webchat_fsm._bayeux.frames import Answer, Notifications
from webchat_fsm._core import decide as decisions
from webchat_fsm._core.defects import defect_reply
from webchat_fsm._core.on_reply import exceeded
from webchat_fsm._core.steps import Delivered, Limits, ResponseKind, Save
from webchat_fsm._core.timers import Timer
from webchat_fsm._model import FileToSend
from webchat_fsm.lifecycle._table import Trigger
from webchat_fsm.testing._bench import CONFIGS

BURST = 200
"""More requests at one moment than the rate limit allows."""


def pushed(**config) -> CoreHarness:
    """Return a core whose chat over CometD was opened by a push beside the acknowledgement of its start."""
    core = CoreHarness(**CONFIGS[Transport.COMETD], **config)
    core.open()
    start = core.answer(core.ask("startChat", {"nickname": "Jonny"}), good(link=Answer(client_id="client-1")))
    core.answer(start, good(pushes=(good(chat_message(1), session_data=IDS),)))
    assert core.session.state is State.ACTIVE
    return core


# -- sends -------------------------------------------------------------------------------------------------------------


def test_message_that_came_early_settles_one_send():
    core = CoreHarness().start()
    first, second = (core.ask("sendMessage", {"message": text}) for text in ("4111", "4222"))
    core.poll(good(chat_message(1, "****", "Client")))
    core.answer(first, good())
    core.answer(second, good())
    delivered = [one.ticket for one in core.effects if isinstance(one, Delivered)]
    assert delivered == [first.call.ticket]
    core.poll(good(chat_message(2, "****", "Client")))
    delivered = [one.ticket for one in core.effects if isinstance(one, Delivered)]
    assert delivered == [first.call.ticket, second.call.ticket]


# -- timers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timer", [Timer.POLL, Timer.CONNECT, Timer.TYPING, Timer.USER_DATA])
def test_request_of_a_timer_beyond_the_rate_limit_is_put_off(timer):
    core = pushed() if timer is Timer.CONNECT else CoreHarness().start()
    core.ask("sendTyping", {"message": "h"})
    core.session.unsent_user_data = {"tier": "gold"}
    core.timer += 100
    for _ in range(BURST):
        core.session.allowance.take(core.timer)
    core.session.timers.pop(timer, None)
    assert core.due(timer).call is None
    assert core.session.timers[timer] > core.timer
    core.timer = core.session.timers[timer]
    decision = core.due(timer)
    assert (decision.call is not None, decision.call.pause) == (True, 0.0)


def test_user_data_given_during_a_start_is_sent_once():
    core = CoreHarness().start()
    core.session.unsent_user_data = {"tier": "gold"}
    decision = core.due(Timer.USER_DATA)
    assert decision.call.operation.user_data == {"tier": "gold"}
    assert core.session.unsent_user_data == {}


def test_answered_connect_saves_nothing_unchanged():
    core = pushed()
    core.answer(core.due(Timer.CONNECT), good(link=Answer()))
    saved = len(core.saved())
    core.answer(core.due(Timer.CONNECT), good(link=Answer()))
    assert len(core.saved()) == saved


@pytest.mark.parametrize(("delay", "pause"), [(0.25, 1.0), (7.0, 7.0)])
def test_timer_that_raises_is_set_again_a_second_later(monkeypatch, delay, pause):
    def raising(*given):
        raise RuntimeError("planted")

    core = CoreHarness().start()
    core.session.delay = delay
    core.timer += 10
    monkeypatch.setattr(decisions, "_due", raising)
    assert core.due(Timer.TYPING).defect is not None
    assert core.session.timers[Timer.TYPING] == core.timer + pause


@pytest.mark.parametrize(("silent", "first"), [(True, ["disconnected"]), (False, [])])
def test_poll_that_cannot_be_read_is_a_failed_one(silent, first):
    core = CoreHarness().start()
    core.answer(core.due(), defect_reply("refresh", ValueError("planted"), silent=silent))
    assert core.published() == [*first, "error", "connectionPending"]
    assert defect_reply("refresh", ValueError("planted")).kind is ResponseKind.BAD


# -- endChat in flight over CometD -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 5])
def test_connect_failing_during_end_chat_is_no_outage(limit):
    core = pushed(pollExceptionLimit=limit)
    connect = core.due(Timer.CONNECT)
    leave = core.ask("endChat")
    core.published()
    core.answer(connect, silent())
    assert (core.published(), core.session.state) == (["disconnected"], State.ACTIVE)
    core.answer(leave, good())
    assert (core.published(), core.session.state) == (["clientDisconnected", "ended"], State.ENDED)


def test_connect_that_ends_an_outage_saves_the_session():
    core = pushed(pollExceptionLimit=0)
    core.answer(core.due(Timer.CONNECT), silent())
    assert core.session.state is State.OFFLINE
    core.move(core.session.timers[Timer.CONNECT] - core.timer)
    decision = core.answer(core.due(Timer.CONNECT), good())
    assert core.session.state is State.ACTIVE
    assert [one.document.last_contact for one in decision.effects if isinstance(one, Save)] == [core.wall]


# -- starts and restores over CometD -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "trigger"),
    [
        (bad(ResponseKind.REFUSED), Trigger.START_NOT_TAKEN),
        (silent(), Trigger.START_FAILED),
        (bad(ResponseKind.BAD, 500), Trigger.START_FAILED),
    ],
)
def test_start_not_taken_by_gateway_differs_from_failed(reply, trigger):
    core = CoreHarness(**CONFIGS[Transport.COMETD])
    core.open()
    start = core.answer(core.ask("startChat", {"nickname": "Jonny"}), good(link=Answer(client_id="client-1")))
    decision = core.answer(start, reply)
    assert [row.trigger for row in decision.transitions] == [trigger]
    assert (decision.settled.resolved, core.session.state) == (False, State.IDLE)


def test_restore_refused_by_the_gateway_is_badly_answered():
    core = pushed()
    saved = core.session.saved
    core = CoreHarness(**CONFIGS[Transport.COMETD])
    asking = core.answer(core.open(saved), good(link=Answer(client_id="client-2")))
    assert isinstance(asking.call.operation, Notifications)
    decision = core.answer(asking, bad(ResponseKind.REFUSED))
    assert [row.trigger for row in decision.transitions] == [Trigger.RESTORE_MISANSWERED]
    assert (decision.defect, core.session.state, core.session.saved) == (None, State.IDLE, saved)


@pytest.mark.parametrize("kind", [ResponseKind.GOOD, ResponseKind.REFUSED])
def test_send_behind_a_forbidden_handshake_is_rejected(kind):
    core = pushed()
    handshake = core.answer(core.ask("sendMessage", {"message": "hi"}), bad(ResponseKind.UNKNOWN_CLIENT))
    assert handshake.call.operation.name == "handshake"
    settled = core.answer(handshake, bad(kind, link=Answer(reconnect="none"))).settled
    assert settled.resolved is False
    assert "forbids to reconnect" in settled.reason
    assert (settled.response.status, settled.response.errors[-1]["code"]) == (200, 0)
    assert core.session.pending_sends == []


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "files", "allowed"), [(10, 1, True), (11, 1, False), (5, 2, True), (5, 3, False)])
def test_files_up_to_the_limits_are_allowed_where_none_is_used(size, files, allowed):
    """Count nothing as used where a server names its limits alone."""
    limits = Limits(max_files=2, max_total_size=10)
    given = [FileToSend(name=f"{n}.txt", size=size, content_type="text/plain", source=b"") for n in range(files)]
    assert (exceeded(given, limits) is None) is allowed


# -- the typing preview input ------------------------------------------------------------------------------------------


def test_input_is_watched_in_a_session_alone():
    core = CoreHarness()
    core.open()
    core.ask("registerTypingPreviewInput", {"fits": True})
    assert Timer.PREVIEW not in core.session.timers
    core.answer(core.ask("startChat", {"nickname": "Jonny"}), good(session_data=IDS))
    assert Timer.PREVIEW in core.session.timers
    assert Timer.PREVIEW not in CoreHarness().start().session.timers
