"""Every row of the table that a v2 chat can take is taken by one of these stories, and says what the story expects."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.core.play import SAVED, Play, bad, good, said, silent
from tests.lifecycle.reach import takable
from tests.lifecycle.stage import INTO, LIMIT, Stage
from webchat_fsm import State
from webchat_fsm.core import machine
from webchat_fsm.core.facts import Interrupted, Verdict
from webchat_fsm.errors import IllegalTransition
from webchat_fsm.lifecycle.effects import Decision, Publish
from webchat_fsm.lifecycle.table import CONTENT, Row, Transport, Trigger
from webchat_fsm.runtime import engine

CONTENT_EVENTS = {
    "messageReceived", "agentTypingStarted", "agentTypingStopped",
    *(f"{who}{how}" for who in ("client", "agent", "supervisor", "bot") for how in ("Connected", "Disconnected")),
}  # fmt: skip
"""What the messages of an answer may publish, where a row has a place for content."""


@pytest.fixture
def decisions(monkeypatch) -> list[Decision]:
    """The decisions that the services of the test take, in order."""
    taken, decide = [], engine.decide

    def recording(*given):
        taken.append(decide(*given))
        return taken[-1]

    monkeypatch.setattr(engine, "decide", recording)
    return taken


def rows_of(decisions: list[Decision]) -> list[Row]:
    return [row for decision in decisions for row in decision.rows]


# -- stories through the real service ----------------------------------------------------------------------------------


def _in_each_state(act: Callable) -> Callable:
    """Do the same in every state that has a session."""

    def story(make):
        for state in (State.ACTIVE, State.POLLING, State.OFFLINE):
            stage = make()
            INTO[Transport.V2][state](stage, lambda chat, stage=stage: act(stage, chat))

    return story


def _poll_with(**fault) -> Callable:
    def act(stage, chat):
        stage.server.faults.add(operation="refresh", **fault)
        chat.step()

    return _in_each_state(act)


def _typing(stage, chat):
    chat.send_typing("h")
    chat.send_message("hi")


def _end(stage, chat):
    chat.command("endChat")


def _close(make):
    for into in INTO[Transport.V2].values():
        into(make(), lambda chat: chat.close())


def _switch_polling(make):
    stage = make()
    chat = stage.start()
    chat.start_poll()
    chat.stop_poll()
    chat.start_poll()
    stage.fail_polls(LIMIT + 1)
    chat.start_poll()
    chat.stop_poll()


def _next_chat(make):
    chat = make().start()
    chat.end_chat()
    chat.start_chat(nickname="Again")


def _starts_that_fail(make):
    stage = make()
    chat = stage.open()
    for fault in ({"server_status": 2}, {"http_status": 500}):
        stage.server.faults.add(operation="start", **fault)
        chat.command("startChat", {"nickname": "Jonny"})


def _interrupted(make):
    def interrupt():
        raise KeyboardInterrupt

    stage = make()
    chat = stage.open()
    stage.http.during("start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        chat.start_chat(nickname="Jonny")
    chat.start_chat(nickname="Jonny")
    chat.close()
    later = stage.client()
    stage.http.during("restore", interrupt)
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
        stage = make()
        stage.start().close()
        if fault:
            stage.server.faults.add(operation="refresh", **fault)
        stage.open().close()


def _found_ended(make):
    stage = make()
    stage.start().close()
    stage.server.end()
    stage.open()


def _too_late(make):
    stage = make()
    stage.start()
    stage.away(60)


def _looked_at_too_late(make):
    stage = make()
    stage.start().close()
    stage.server.faults.add(operation="refresh", drop=True)
    chat = stage.open()
    stage.advance(60)
    assert chat.verify_session() is False


def _ended_and_opened_again(make):
    """A service whose chat is over, and whose store another service has put a chat into."""
    stage = make()
    over = stage.start()
    over.end_chat()
    over.close()
    over.open()
    over.close()
    stage.start()
    stage.chat.close()
    over.open()
    assert over.state == "polling"


SERVICE_STORIES = {
    "good polls": _in_each_state(lambda stage, chat: chat.step()),
    "polls without an answer": _poll_with(drop=True),
    "polls answered badly": _poll_with(http_status=500),
    "polls of a server that is away": _poll_with(server_status=1),
    "polls that are told of the end": _poll_with(server_status=2, chat_ended=True),
    "polls that find nothing": _poll_with(http_status=404, server_status=2, chat_ended=True),
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
    "a look too late": _looked_at_too_late,
    "an ended chat opened again": _ended_and_opened_again,
}


# -- stories of two things at a time, which a single thread cannot tell to a service -----------------------------------


def _while_leaving(reply) -> Play:
    play = Play().start()
    poll, _ = play.due(), play.ask("endChat")
    play.answer(poll, reply)
    return play


def _restored_by_the_service(before: Play) -> Play:
    before.session.saved = SAVED
    before.answer(before.ask("restore", by_service=True), good(said(1)))
    return before


def _idle() -> Play:
    play = Play()
    play.open()
    return play


def _ended() -> Play:
    play = Play().start()
    play.answer(play.ask("endChat"), good())
    return play


def _interrupted_where_it_had_ended() -> Play:
    play = _ended()
    play.session.saved = SAVED
    restore = play.ask("restore", by_service=True)
    play.take(Interrupted(call=restore.call))
    play.move(60)
    play.ask("verifySession")
    return play


DECIDED_STORIES = {
    "the end found while leaving": lambda: _while_leaving(good(said(2), chat_ended=True)),
    "the loss found while leaving": lambda: _while_leaving(bad(Verdict.LOST, 404)),
    "a fault while leaving": lambda: _while_leaving(silent()),
    "restored by the service, idle": lambda: _restored_by_the_service(_idle()),
    "restored by the service, ended": lambda: _restored_by_the_service(_ended()),
    "interrupted where it had ended": _interrupted_where_it_had_ended,
}


@pytest.fixture
def make(webchat_server, webchat_timeline):
    """Make one stage after another on the same server, each with a store of its own."""
    return lambda: Stage(webchat_timeline, webchat_server)


def test_every_row_that_a_v2_chat_can_take_is_taken(make, decisions, webchat_server):
    for story in SERVICE_STORIES.values():
        story(make)
        webchat_server.close()
    taken = rows_of(decisions)
    for story in DECIDED_STORIES.values():
        taken += story().rows
    missing = [row for row in takable(Transport.V2) if row not in taken]
    assert not missing, "\n".join(f"{row.source} --{row.trigger}--> {row.dest} {row.guards}" for row in missing)


def in_order(decision: Decision) -> bool:
    """Whether the events of a step are those of its rows, in the order in which the rows say them."""
    says = [say for row in decision.rows for say in row.says]
    may_bring_content = CONTENT in says
    left = iter(say.event for say in says if say is not CONTENT)
    published = [effect.event for effect in decision.effects if isinstance(effect, Publish)]
    return all((may_bring_content and name in CONTENT_EVENTS) or name in left for name in published)


@pytest.mark.parametrize("story", SERVICE_STORIES)
def test_a_story_publishes_what_its_rows_say_in_their_order_and_nothing_else(make, decisions, story):
    SERVICE_STORIES[story](make)
    assert rows_of(decisions)
    assert [decision for decision in decisions if not in_order(decision)] == []


def test_a_fact_without_a_row_is_a_defect_and_says_where():
    play = Play()
    with pytest.raises(IllegalTransition, match="no row for startPoll in state idle"):
        machine.fire(play.session, Trigger.START_POLL)
    assert play.session.state is State.IDLE
