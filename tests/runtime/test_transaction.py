"""Test that a transaction finishes or rolls back when Ctrl-C interrupts any function entry."""

from __future__ import annotations

import pytest

from tests.runtime.test_interruptions import Interruption
from webchat_fsm import ManualClock, ManualDriver, MemoryStore
from webchat_fsm._core.steps import Asked, Closed, Due, Opened, Publish, Replied, Reply, ResponseKind
from webchat_fsm._core.timers import Timer
from webchat_fsm._runtime import transaction
from webchat_fsm._runtime.commands import COMMANDS
from webchat_fsm._runtime.transaction import Transaction


class CountingStore(MemoryStore):
    """Count the writes and deletions."""

    writes = 0

    def save(self, document):
        self.writes += 1
        super().save(document)

    def delete(self):
        self.writes += 1
        super().delete()


class CountingDriver(ManualDriver):
    """Count the wake-ups."""

    wakes = 0

    def wake(self, service):
        self.wakes += 1


def poll(engine):
    return Due(timer=Timer.POLL, by_hand=True)


def lose(engine):
    call = engine.commit(poll(engine)).call
    return Replied(call=call, reply=Reply(kind=ResponseKind.LOST))


def close(engine):
    return Closed()


def end(engine):
    return Asked(command=COMMANDS["endChat"])


def reopen(engine):
    engine.commit(Closed())
    return Opened(saved=None)


STEPS = [poll, lose, close, end, reopen]


class PreparedStep:
    """Hold a polling chat and the next step of its engine."""

    def __init__(self, chat, engine, step, store, driver):
        self.chat, self.engine, self.step, self.store, self.driver = chat, engine, step, store, driver
        self.before, self.position = chat.state, engine.event_queue.position

    def run(self):
        self.transaction = Transaction(self.engine, self.step, wait=True)
        return self.transaction.run()

    @property
    def published(self):
        """Deliver all events and return the names of those of the step."""
        self.engine.event_queue.drain()
        return [event.name for _, event in self.engine.event_queue.after(self.position)]


@pytest.fixture
def prepare(wire, service):
    """Make a polling chat and its next step of the given kind."""

    def begin(kind):
        store, driver = CountingStore(), CountingDriver(ManualClock())
        chat = service(wire(), store=store, driver=driver)
        chat.open()
        chat.start_chat(nickname="Jonny")
        engine = chat._engine
        step = kind(engine)
        store.writes = driver.wakes = 0
        return PreparedStep(chat, engine, step, store, driver)

    return begin


@pytest.mark.parametrize("kind", STEPS)
def test_uninterrupted_step_publishes_all_and_wakes_once(prepare, kind):
    case = prepare(kind)
    decision = case.run()
    assert case.driver.wakes == 1
    assert case.published == [effect.event for effect in decision.effects if isinstance(effect, Publish)]
    assert not case.engine.lock.locked()


@pytest.mark.parametrize("kind", STEPS)
def test_interrupted_step_is_finished_or_rolled_back(prepare, kind):
    whole = prepare(kind)
    whole.run()
    complete = whole.published
    for number in range(1, 10_000):
        case = prepare(kind)
        interruption = Interruption(number)
        try:
            with interruption:
                case.run()
        except KeyboardInterrupt:
            pass
        if not interruption.where:
            assert number > 10
            return
        try:
            check(case, kind, complete, entered=number > 2)
        except AssertionError as error:
            error.add_note(interruption.where)
            raise


def check(case, kind, complete, *, entered):
    session, queue = case.engine.session, case.engine.event_queue
    assert not case.engine.lock.locked()
    assert queue.drain()
    assert not queue.pending
    if kind is not lose:  # its poll was sent before the step; the engine abandons that poll later
        assert not session.poll_ticket or not entered
    assert case.chat.state not in ("starting", "restoring")
    if case.chat.state != case.before:  # decided: published completely and once
        assert case.published[: len(complete)] == complete
        assert len(set(case.published)) == len(case.published)
    if case.chat.state == "ended":
        assert case.store.load() is None
    if entered:
        assert case.driver.wakes >= 1


def test_repeated_effects_are_written_once(prepare):
    case = prepare(lose)
    decision = case.run()
    assert case.store.writes == 1
    case.transaction._carry_out(decision)
    assert case.store.writes == 1


def test_store_raising_system_exit_still_wakes_waiters(prepare):
    case = prepare(lose)

    def leave():
        raise SystemExit

    case.store.delete = leave
    with pytest.raises(SystemExit):
        case.run()
    assert case.driver.wakes >= 1
    assert "ended" in case.published


def test_repeated_enqueue_publishes_no_event_twice(prepare):
    case = prepare(lose)
    decision = case.run()
    complete = case.published
    case.transaction._enqueue(decision)
    assert case.published == complete != []


def test_events_of_a_lost_session_wait_for_the_store(prepare):
    case = prepare(lose)
    order = []
    for name in ("ended", "error"):
        case.chat.subscribe(name, lambda event: order.append(event.name))
    delete = case.store.delete
    case.store.delete = lambda: (case.engine.event_queue.drain(), order.append("deleted"), delete())
    case.run()
    case.engine.event_queue.drain()
    assert order[0] == "deleted"
    assert "ended" in order


def test_exception_of_the_core_reaches_the_caller(prepare, monkeypatch):
    case = prepare(poll)
    decided = []

    def decide(session, step, now):
        decided.append(type(step).__name__)
        if len(decided) == 1:
            raise ZeroDivisionError
        return real(session, step, now)

    real = transaction.decide
    monkeypatch.setattr(transaction, "decide", decide)
    with pytest.raises(ZeroDivisionError):
        case.run()
    assert decided[:2] == ["Due", "Interrupted"]
    assert not case.engine.lock.locked()
