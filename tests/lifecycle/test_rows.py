"""Run scenarios that take every row of the table that a v2 chat can take, and check the events of each row."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.core.harness import SAVED, CoreHarness, bad, chat_message, good, silent
from tests.lifecycle.environment import INTO, LIMIT, ChatEnvironment
from tests.lifecycle.reach import possible_rows
from webchat_fsm import State
from webchat_fsm._core import machine
from webchat_fsm._core.operations import NoRequest
from webchat_fsm._core.steps import Call, Decision, Interrupted, Publish, ResponseKind
from webchat_fsm._errors import IllegalTransition
from webchat_fsm._runtime import transaction
from webchat_fsm.lifecycle._table import CONTENT, Transition, Trigger
from webchat_fsm.lifecycle._transports import Transport

CONTENT_EVENTS = {
    "messageReceived", "agentTypingStarted", "agentTypingStopped",
    *(f"{who}{how}" for who in ("client", "agent", "supervisor", "bot") for how in ("Connected", "Disconnected")),
}  # fmt: skip
"""Events that the messages of a response may publish, in a row with `CONTENT`."""


@pytest.fixture
def decisions(monkeypatch) -> list[Decision]:
    """Return the list to which each decision of the services of a test is appended."""
    taken, decide = [], transaction.decide

    def recording(*given):
        taken.append(decide(*given))
        return taken[-1]

    monkeypatch.setattr(transaction, "decide", recording)
    return taken


def rows_of(decisions: list[Decision]) -> list[Transition]:
    return [row for decision in decisions for row in decision.transitions]


# -- scenarios of a real service ---------------------------------------------------------------------------------------


def _in_each_state(act: Callable) -> Callable:
    """Return a scenario that calls a function in every state with a session."""

    def scenario(make):
        for state in (State.ACTIVE, State.POLLING, State.OFFLINE):
            env = make()
            INTO[Transport.V2][state](env, lambda chat, env=env: act(env, chat))

    return scenario


def _poll_with(**fault) -> Callable:
    def act(env, chat):
        env.server.faults.add(operation="refresh", **fault)
        chat.step()

    return _in_each_state(act)


def _typing(env, chat):
    chat.send_typing("h")
    chat.send_message("hi")


def _end(env, chat):
    chat.command("endChat")


def _close(make):
    for into in INTO[Transport.V2].values():
        into(make(), lambda chat: chat.close())


def _switch_polling(make):
    env = make()
    chat = env.start()
    chat.start_poll()
    chat.stop_poll()
    chat.start_poll()
    env.fail_polls(LIMIT + 1)
    chat.start_poll()
    chat.stop_poll()


def _next_chat(make):
    chat = make().start()
    chat.end_chat()
    chat.start_chat(nickname="Again")


def _starts_that_fail(make):
    env = make()
    chat = env.open()
    for fault in ({"server_status": 2}, {"http_status": 500}):
        env.server.faults.add(operation="start", **fault)
        chat.command("startChat", {"nickname": "Jonny"})


def _interrupted(make):
    env = make()
    chat = env.open()
    env.http.interrupt("start")
    with pytest.raises(KeyboardInterrupt):
        chat.start_chat(nickname="Jonny")
    chat.start_chat(nickname="Jonny")
    chat.close()
    later = env.client()
    env.http.interrupt("restore")
    with pytest.raises(KeyboardInterrupt):
        later.open()


def _restores(make):
    answers = (
        None,
        {"server_status": 1},
        {"server_status": 2, "chat_ended": True},
        {"server_status": 2, "chat_ended": True, "errors": (249,)},
        {"drop": True},
        {"http_status": 500},
    )
    for fault in (*answers, {"http_status": 404, "server_status": 2, "chat_ended": True}):
        env = make()
        env.start().close()
        if fault:
            env.server.faults.add(operation="refresh", **fault)
        env.open().close()


def _found_ended(make):
    env = make()
    env.start().close()
    env.server.end()
    env.open()


def _too_late(make):
    env = make()
    env.start()
    env.away(60)


def _verified_too_late(make):
    env = make()
    env.start().close()
    env.server.faults.add(operation="refresh", drop=True)
    chat = env.open()
    env.advance(60)
    assert chat.verify_session() is False


def _ended_and_opened_again(make):
    """Open a service again whose chat has ended, with a chat of another service in its store."""
    env = make()
    over = env.start()
    over.end_chat()
    over.close()
    over.open()
    over.close()
    env.start()
    env.chat.close()
    over.open()
    assert over.state == "polling"


SERVICE_SCENARIOS = {
    "good polls": _in_each_state(lambda env, chat: chat.step()),
    "polls without an answer": _poll_with(drop=True),
    "polls answered badly": _poll_with(http_status=500),
    "polls of an unavailable server": _poll_with(server_status=1),
    "polls that find the chat ended": _poll_with(server_status=2, chat_ended=True),
    "polls that find no chat": _poll_with(http_status=404, server_status=2, chat_ended=True),
    "typing and sending": _in_each_state(_typing),
    "leaving": _in_each_state(_end),
    "closing": _close,
    "polling off and on": _switch_polling,
    "one chat after another": _next_chat,
    "starts that fail": _starts_that_fail,
    "interruptions": _interrupted,
    "restores": _restores,
    "a restore that finds the chat ended": _found_ended,
    "a restore too late": _too_late,
    "a check too late": _verified_too_late,
    "an ended chat opened again": _ended_and_opened_again,
}


# -- scenarios with two requests in flight, which need the core alone --------------------------------------------------


def _while_leaving(reply) -> CoreHarness:
    core = CoreHarness().start()
    poll, _ = core.due(), core.ask("endChat")
    core.answer(poll, reply)
    return core


def _restored_by_the_service(before: CoreHarness) -> CoreHarness:
    before.session.saved = SAVED
    before.answer(before.ask("restore", by_service=True), good(chat_message(1)))
    return before


def _idle() -> CoreHarness:
    core = CoreHarness()
    core.open()
    return core


def _ended() -> CoreHarness:
    core = CoreHarness().start()
    core.answer(core.ask("endChat"), good())
    return core


def _interrupted_where_it_had_ended() -> CoreHarness:
    core = _ended()
    core.session.saved = SAVED
    restore = core.ask("restore", by_service=True)
    core.take(Interrupted(call=restore.call))
    core.move(60)
    core.ask("verifySession")
    return core


def _interrupted_without_a_request(core: CoreHarness) -> CoreHarness:
    core.take(Interrupted(call=Call(operation=NoRequest(), number=core.session.number, ticket=-1)))
    return core


CORE_SCENARIOS = {
    "interrupted while idle": lambda: _interrupted_without_a_request(_idle()),
    "interrupted after the end": lambda: _interrupted_without_a_request(_ended()),
    "the end found while leaving": lambda: _while_leaving(good(chat_message(2), chat_ended=True)),
    "the loss found while leaving": lambda: _while_leaving(bad(ResponseKind.LOST, 404)),
    "a fault while leaving": lambda: _while_leaving(silent()),
    "restored by the service, idle": lambda: _restored_by_the_service(_idle()),
    "restored by the service, ended": lambda: _restored_by_the_service(_ended()),
    "interrupted where it had ended": _interrupted_where_it_had_ended,
}


@pytest.fixture
def make(webchat_server, webchat_timeline):
    """Return a function that makes environments on the same server, each with a store of its own."""
    return lambda: ChatEnvironment(webchat_timeline, webchat_server)


def test_scenarios_take_every_row_that_a_v2_chat_can_take(make, decisions, webchat_server):
    for scenario in SERVICE_SCENARIOS.values():
        scenario(make)
        webchat_server.close()
    taken = rows_of(decisions)
    for scenario in CORE_SCENARIOS.values():
        taken += scenario().transitions
    missing = [row for row in possible_rows(Transport.V2) if row not in taken]
    assert not missing, "\n".join(f"{row.source} --{row.trigger}--> {row.dest} {row.guards}" for row in missing)


def in_order(decision: Decision) -> bool:
    """Return whether the events of a step are those of its rows, in the order of the rows."""
    publishes = [publication for row in decision.transitions for publication in row.publishes]
    may_bring_content = CONTENT in publishes
    left = iter(publication.event for publication in publishes if publication is not CONTENT)
    published = [effect.event for effect in decision.effects if isinstance(effect, Publish)]
    return all((may_bring_content and name in CONTENT_EVENTS) or name in left for name in published)


@pytest.mark.parametrize("scenario", SERVICE_SCENARIOS)
def test_scenario_publishes_events_of_its_rows_in_order(make, decisions, scenario):
    SERVICE_SCENARIOS[scenario](make)
    assert rows_of(decisions)
    assert [decision for decision in decisions if not in_order(decision)] == []


def test_trigger_without_a_row_raises_illegal_transition():
    core = CoreHarness()
    with pytest.raises(IllegalTransition, match="no transition for startPoll in state idle"):
        machine.fire(core.session, Trigger.START_POLL)
    assert core.session.state is State.IDLE
