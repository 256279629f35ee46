"""A start, a restore or a chat that is over leaves nothing open here, by whichever row of the table it has ended."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from tests.core.harness import IDS, SAVED, CoreHarness, bad, chat_message, good, silent
from webchat_fsm import Response, SessionData, State, Transport
from webchat_fsm._bayeux.frames import Answer
from webchat_fsm._core.context import DecisionContext
from webchat_fsm._core.steps import Closed, Interrupted, ReceivedMessage, Reply, ResponseKind
from webchat_fsm._core.timers import Timer
from webchat_fsm.testing._bench import CONFIGS

V2, COMETD, V3, ASYNC = Transport

BLANK = {
    "flags": frozenset(),
    "failures": 0,
    "session_data": SessionData(),
    "unsent_user_data": {},
    "pending_sends": [],
    "unmatched": (),
    "pages": None,
    "poll_ticket": 0,
    "catching_up": False,
    "timers": {},
}
"""What belongs to an open chat alone, and its value without one."""


COUNTS = ("failures", "number", "tickets", "order", "missing", "poll_ticket")


def test_new_session_has_counted_nothing():
    session = CoreHarness().session
    assert {name: getattr(session, name) for name in COUNTS} == dict.fromkeys(COUNTS, 0)
    assert (session.cursor, session.last_contact, session.poll_since) == (1, 0.0, 0.0)


def left_open(core: CoreHarness) -> dict[str, object]:
    """Return what is open, empty where nothing is."""
    session = core.session
    found = {name: getattr(session, name) for name, value in BLANK.items() if getattr(session, name) != value}
    if session.participants.connected or session.participants.holds("Bot"):
        found["participants"] = session.participants.agents
    return found


def starting(transport: Transport = V2):
    """Return a core whose start waits for its answer, with user data given meanwhile, and that request."""
    core = CoreHarness(**CONFIGS[transport])
    core.open()
    request = core.ask("startChat", {"nickname": "Jonny"})
    if transport is COMETD:
        request = core.answer(request, good(link=Answer(client_id="client-1")))
    core.ask("updateUserData", {"tier": "gold"})
    return core, request


def restoring(transport: Transport = V2, *, ended_here: bool = False):
    """Return a core whose restore waits for its answer, with user data given meanwhile, and that request."""
    core = CoreHarness(**CONFIGS[transport])
    if ended_here:
        core.start()
        core.answer(core.ask("endChat"), good())
        core.take(Closed())
    request = core.open(replace(SAVED, transport=transport, address=core.session.config.address, last_index="0-0"))
    core.ask("updateUserData", {"tier": "gold"})
    return core, request


def restoring_dormant():
    """Return a core that restores a dormant chat once more, and that request."""
    core, request = restoring(ASYNC)
    core.answer(request, silent())
    request = core.ask("restore")
    core.ask("updateUserData", {"tier": "silver"})
    return core, request


def answered(opening, reply: Reply, *given, **named) -> Callable[[], tuple[CoreHarness, Callable]]:
    """Return a case that ends a start or a restore by a reply."""

    def case():
        core, request = opening(*given, **named)
        return core, lambda: core.answer(request, reply)

    return case


def closed(opening, *given) -> Callable[[], tuple[CoreHarness, Callable]]:
    def case():
        core, _ = opening(*given)
        return core, lambda: core.take(Closed())

    return case


def interrupted(opening, *given, **named) -> Callable[[], tuple[CoreHarness, Callable]]:
    def case():
        core, request = opening(*given, **named)
        return core, lambda: core.take(Interrupted(call=request.call))

    return case


OVER = good(chat_ended=True)
REFUSED_AND_OVER = Reply(
    kind=ResponseKind.REFUSED, response=Response(status=200, errors=[{"code": 249}]), chat_ended=True
)

OPENINGS = {
    "start failed": (answered(starting, silent()), State.IDLE),
    "start refused": (answered(starting, bad(ResponseKind.UNAVAILABLE)), State.IDLE),
    "start not taken": (answered(starting, bad(ResponseKind.REFUSED), COMETD), State.IDLE),
    "start closed": (closed(starting), State.IDLE),
    "start interrupted": (interrupted(starting), State.IDLE),
    "found ended, v2": (answered(restoring, OVER), State.IDLE),
    "found ended, v3": (answered(restoring, OVER, V3), State.IDLE),
    "found ended, with errors": (answered(restoring, REFUSED_AND_OVER), State.IDLE),
    "lost": (answered(restoring, bad(ResponseKind.LOST, 404)), State.IDLE),
    "unanswered": (answered(restoring, silent()), State.IDLE),
    "unanswered, asynchronous": (answered(restoring, silent(), ASYNC), State.DORMANT),
    "badly answered": (answered(restoring, bad(ResponseKind.BAD, 500)), State.IDLE),
    "badly answered, asynchronous": (answered(restoring, bad(ResponseKind.BAD, 500), ASYNC), State.DORMANT),
    "restore closed": (closed(restoring), State.IDLE),
    "restore closed, asynchronous": (closed(restoring, ASYNC), State.DORMANT),
    "restore interrupted": (interrupted(restoring), State.IDLE),
    "restore interrupted, ended": (interrupted(restoring, ended_here=True), State.ENDED),
    "restore interrupted, dormant": (interrupted(restoring_dormant), State.DORMANT),
}


@pytest.mark.parametrize("name", OPENINGS)
def test_failed_start_or_restore_leaves_nothing_open(name):
    case, state = OPENINGS[name]
    core, end = case()
    assert left_open(core), "user data wait for the answer"
    end()
    assert (core.session.state, left_open(core)) == (state, {})


def busy(transport: Transport, state: State, *, ending: bool = False):
    """Return a core in an open state with participants, a send, typing and a poll in flight; and that poll."""
    core = CoreHarness(**CONFIGS[transport]).start()
    joined = [
        chat_message(2, kind="Agent", type="ParticipantJoined"),
        chat_message(3, kind="Bot", type="ParticipantJoined"),
    ]
    core.poll(good(*joined))
    for _ in range(6 if state is State.OFFLINE else 1):
        core.poll(silent())
    core.timer = core.session.timers[Timer.POLL]
    poll = core.due()
    core.ask("sendMessage", {"message": "hi"})
    core.ask("sendTyping", {"message": "h"})
    if state is State.ACTIVE:
        core.ask("endChat" if ending else "stopPoll")
    assert core.session.state is state
    return core, poll


OPEN = {
    "active": (State.ACTIVE, False),
    "active, endChat in flight": (State.ACTIVE, True),
    "polling": (State.POLLING, False),
    "offline": (State.OFFLINE, False),
}
ENDS = {"ended": OVER, "refused and ended": REFUSED_AND_OVER, "lost": bad(ResponseKind.LOST, 404)}


@pytest.mark.parametrize("end", [*ENDS, "closed"])
@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("transport", [V2, V3, ASYNC])
def test_chat_that_is_over_leaves_nothing_open(transport, name, end):
    state, ending = OPEN[name]
    core, poll = busy(transport, state, ending=ending)
    assert {"pending_sends", "poll_ticket", "timers", "participants"} <= left_open(core).keys()
    if end == "closed":
        core.take(Closed())
        assert core.session.state is (State.DORMANT if transport is ASYNC else State.IDLE)
    else:
        core.answer(poll, ENDS[end])
        assert core.session.state is State.ENDED
    assert left_open(core) == {}


def test_left_chat_leaves_nothing_open():
    core = CoreHarness().start()
    core.poll(good(chat_message(2, type="ParticipantJoined")))
    core.ask("sendMessage", {"message": "hi"})
    core.answer(core.ask("endChat"), good())
    assert (core.session.state, left_open(core)) == (State.ENDED, {})


def test_closed_dormant_chat_awaits_no_end():
    core, request = restoring(ASYNC)
    core.answer(request, silent())
    end = core.ask("endChat")
    assert left_open(core)
    core.take(Closed())
    assert left_open(core) == {}
    assert core.answer(end, good()).transitions == []
    assert core.session.state is State.DORMANT


# -- pages of a restore ------------------------------------------------------------------------------------------------


def page(*indexes: int) -> Reply:
    """Return a page of messages whose indexes are those of v3."""
    received = tuple(
        ReceivedMessage(chat_message(index, f"text {index}"), {"index": f"{index}-0"}, (index, 0)) for index in indexes
    )
    return Reply(kind=ResponseKind.GOOD, response=Response(status=200), session_data=IDS, received=received)


@pytest.mark.parametrize("end", ["closed", "interrupted", "lost"])
def test_pages_of_an_abandoned_restore_are_dropped(end):
    core, resume = restoring(ASYNC)
    core.session.saved = saved = replace(core.session.saved, last_index="1-0")
    second = core.answer(core.answer(resume, good(session_data=IDS)), page(8, 9))
    assert second.call.operation.before == "8-0"
    if end == "closed":
        core.take(Closed())
    elif end == "interrupted":
        core.take(Interrupted(call=second.call))
    else:
        core.answer(second, bad(ResponseKind.LOST, 404))
    assert left_open(core) == {}
    core.take(Closed())
    core.published()
    again = core.answer(core.open(saved), good(session_data=IDS))
    assert again.call.operation.before is None
    core.answer(again, page(1, 2, 20))
    assert core.published() == ["ready", "restored", "messageReceived", "pollingStarted"]
    assert [message.text for message in core.session.transcript.read().messages] == ["text 1", "text 2", "text 20"]


def test_page_whose_step_is_interrupted_is_taken_again(monkeypatch):
    core, resume = restoring(ASYNC)
    core.session.saved = replace(core.session.saved, last_index="1-0")
    second = core.answer(core.answer(resume, good(session_data=IDS)), page(8, 9))
    call = DecisionContext.call

    def interrupted_once(*given, **named):
        monkeypatch.setattr(DecisionContext, "call", call)
        raise KeyboardInterrupt

    monkeypatch.setattr(DecisionContext, "call", interrupted_once)
    with pytest.raises(KeyboardInterrupt):
        core.answer(second, page(6, 7, 8))
    assert (core.session.pages.fetched, len(core.session.pages.received)) == (1, 2)
    third = core.answer(second, page(6, 7, 8))
    assert third.call.operation.before == "6-0"
    core.answer(third, page(1, 2, 6))
    assert [message.index for message in core.session.transcript.read().messages] == [1, 2, 6, 7, 8, 9]
