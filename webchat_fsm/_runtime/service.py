"""`WebChatService`: the customer side of a web chat, with a synchronous API on the state machine of the lifecycle."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import Struct

import webchat_fsm  # for its `Plugin`: imported when a type hint is read, as few services are mounted on a bus
from webchat_fsm._config import Config
from webchat_fsm._core.on_command import refusal
from webchat_fsm._core.steps import Asked, Call, Settled
from webchat_fsm._core.timers import Timer
from webchat_fsm._errors import CommandRejected, WebChatError, nearest
from webchat_fsm._model import Json, Response
from webchat_fsm._runtime.clock import Driver, ManualDriver, moment_of
from webchat_fsm._runtime.commands import COMMANDS, POLL, ServiceCommand, UnsendableError, bus_value
from webchat_fsm._runtime.delivery import AnyEvent, Handler, Subscription
from webchat_fsm._runtime.engine import Engine
from webchat_fsm._runtime.failures import UNRECORDED, Guarded, Health, Recorder
from webchat_fsm._runtime.http import Http, http_for
from webchat_fsm._runtime.locks import Uncopied, release_logging
from webchat_fsm._runtime.methods import CommandMethods, EventMethods
from webchat_fsm._runtime.outcome import Outcome, Reader, Receipt
from webchat_fsm._runtime.store import MemoryStore, SessionStore, StoreWriter
from webchat_fsm._runtime.store_hooks import store_for
from webchat_fsm._runtime.thread_driver import ThreadDriver
from webchat_fsm.lifecycle._events import EVENTS
from webchat_fsm.lifecycle._legality import NOT_READY, By
from webchat_fsm.lifecycle._table import State

log = logging.getLogger("webchat_fsm")

_WITH_TEXT: Json = {"message": "text"}
"""The data of a command that is only asked for: a send is refused without a text, which its caller may give later."""


class Explanation(Struct, frozen=True):
    """Whether a command is legal now, the literal reason if not, and the states in which it would be."""

    command: str
    legal: bool
    reason: str
    legal_in: frozenset[State]


T = TypeVar("T")


class WebChatService(CommandMethods, EventMethods, Uncopied):
    """One customer, one chat at a time. Every method may be called from any thread, and inside handlers.

    `config` is the documented object (see `Config`); `store` keeps the session between openings; `http` replaces the
    HTTP client, one for each service; `driver` runs the timers, by default in threads of its own; `recorder` records
    the session (see `webchat_fsm.testing`). Nothing is opened, and no thread started, before `open()`. Raises
    `ConfigError`, and `TypeError` for an argument of the wrong type.

    A command method raises `CommandRejected` where the command is rejected, and `TypeError` for an argument that cannot
    be serialised, such as bytes in user data.
    """

    _instead = "open another one on the same store, after this one is closed"

    def __init__(
        self,
        config: Mapping[str, Any] | Config,
        *,
        store: SessionStore | None = None,
        http: Http | None = None,
        driver: Driver | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.config: Config = Config.read(config)
        _demand("store", store, SessionStore, "a SessionStore such as FileStore(path)")
        _demand("http", http, Http, "an Http, which carries requests")
        if not isinstance(driver, ThreadDriver | ManualDriver):  # first, as the check of a protocol takes longer
            _demand("driver", driver, Driver, "a Driver such as ManualDriver()")
        _demand("recorder", recorder, Recorder, "a Recorder such as webchat_fsm.testing.Recorder(path)")
        guarded = UNRECORDED if recorder is None else Guarded(recorder)
        store_writer = StoreWriter(store_for(self.config, MemoryStore() if store is None else store))
        self._engine = Engine(
            self.config, http_for(self.config) if http is None else http, store_writer, driver, guarded
        )
        guarded.begun(self.config)
        self._reader = Reader(self._engine)

    def __repr__(self) -> str:
        session = self._engine.session
        return f"<WebChatService {session.transport} {session.state}{'' if session.opened else ' closed'}>"

    # -- opening and closing ---------------------------------------------------------------------------------------

    def open(self) -> None:
        """Publish `ready` and restore what is saved; returns when the restore is settled.

        Does nothing while open, and waits for a `close()` of another thread. Raises `StoreError` where what is saved
        cannot be read; the service then stays closed, as it does where it is closed while that is read, and inside a
        handler for which another thread's `close()` waits.
        """
        try:
            if self._engine.session.opened:
                self._await_restore()
            elif self._engine.open():
                self._await_restore()
                self._drain()
        except BaseException as error:
            _release_locks(error)
            raise

    def close(self, timeout: float = 2.0, *, end: bool = False) -> bool:
        """Stop timers, threads and requests; the session stays saved, to be restored. `end=True` ends the chat first.

        May be called from any thread, inside a handler, and twice. Returns True when nothing runs any more; False after
        `timeout` seconds, or inside a handler, where the rest ends as the handler returns. Publishes nothing. The
        timeout counts from the end of the chat, whose request takes `ajaxTimeout` at most; a handler or a store that is
        called in this very thread is waited for. Where another thread is held up in a log handler, nothing is logged
        here.
        """
        self._engine.announce_close()
        if end:
            self._end_first()
        try:
            return self._engine.close(timeout)
        except BaseException as error:
            _release_locks(error)
            raise

    def _end_first(self) -> None:
        if self.can("endChat"):
            outcome = self.command("endChat")
            if not outcome:
                log.warning("endChat failed at the server (%r); the chat is closed locally", outcome)

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- asking ----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Return the state of the session; read without a lock."""
        return self._engine.session.state

    def can(self, name: str) -> bool:
        """Return whether a command, by its documented name, is legal now."""
        return not self._refusal(_command(name))

    def legal_commands(self) -> tuple[str, ...]:
        """Return the documented names of the commands that are legal now."""
        session = self._engine.session
        with self._engine.lock:
            return tuple([name for name, command in COMMANDS.items() if not refusal(session, command.rule, _WITH_TEXT)])

    def _refusal(self, command: ServiceCommand[Any]) -> str:
        """Return the text with which a command is refused now, its arguments apart; empty where it is legal."""
        with self._engine.lock:
            return refusal(self._engine.session, command.rule, _WITH_TEXT)

    def explain(self, name: str) -> Explanation:
        """Explain whether a command is legal now, and in which states it would be."""
        command = _command(name)
        reason = self._refusal(command)
        return Explanation(name, not reason, reason, command.rule.legal_in(self._engine.session.transport))

    def health(self) -> Health:
        """Return the condition of polling, threads and store, for a watchdog."""
        engine, session = self._engine, self._engine.session
        with engine.lock:
            now = moment_of(engine.driver.clock)
            due = session.timers.get(Timer.POLL)
            return Health(
                last_poll=max(0.0, now.wall - session.last_contact) if session.state.has_session else None,
                failures=session.failures,
                poll_in_flight=now.timer - session.poll_since if session.poll_ticket else None,
                next_poll=None if due is None else max(0.0, due - now.timer),
                threads=tuple(thread.name for thread in getattr(self._engine.driver, "threads", ())),
                store_failure=engine.store_writer.failure,
                misread=engine.requests.misreadings.counts(),
                defects=engine.defects.count,
                warnings=dict(session.warnings),
                stalled=engine.stalled(now.timer),
            )

    # -- commands --------------------------------------------------------------------------------------------------

    def command(self, name: str, data: Mapping[str, Any] | None = None) -> Outcome:
        """Give any documented command by its documented name and data; a rejection is returned, not raised.

        When it returns the outcome is settled, and its events have been delivered too, unless it was called inside a
        handler, or another thread is delivering for longer than `client.deliveryTimeout`. An unknown name is a
        `ValueError`.
        """
        command = _command(name)
        try:
            settled, _ = self._give(command, data)
        except UnsendableError as error:
            settled = self._unsendable(command, error)
        transport = self._engine.session.transport
        if settled.resolved:
            return Outcome(resolved=True, value=bus_value(command, settled.value, transport))
        reason = settled.reason if settled.response is None else settled.response.item()
        return Outcome(resolved=False, reason=reason, error=self._rejection(command, settled))

    def _unsendable(self, command: ServiceCommand[Any], error: UnsendableError) -> Settled:
        """Return the rejection of a command with unserialisable data; a refusal by the state comes first."""
        return Settled(resolved=False, reason=self._refusal(command) or error.reason, state=self.state)

    def _result(self, command: ServiceCommand[T], data: Mapping[str, Any] | None = None) -> T:
        settled, _ = self._give(command, data)
        if not settled.resolved:
            raise self._rejection(command, settled) from settled.fault
        value: T = settled.value
        return value

    def _rejection(self, command: ServiceCommand[Any], settled: Settled) -> CommandRejected:
        closed = settled.reason == NOT_READY
        rejected = CommandRejected(
            command.name,
            settled.reason,
            state=settled.state,
            response=settled.response,
            legal_in=() if closed else command.rule.legal_in(self._engine.session.transport),
            advice="; call open() first" if closed else "",
        )
        rejected.__cause__ = settled.fault
        return rejected

    def _give(self, command: ServiceCommand[Any], data: Mapping[str, Any] | None) -> tuple[Settled, Call | None]:
        """Give a command: returns its outcome, and the first request that it has made."""
        try:
            # the type first: a look-up in an abstract class takes as long as a small command does
            if data is not None and type(data) is not dict and not isinstance(data, Mapping):
                raise TypeError(f"the data of {command.name} must be a mapping, not {type(data).__name__}")
            asked = Asked(command=command, data=command.prepare(self._engine, self.config, data or {}))
            if command.awaits_restore:
                self._await_restore()
            settled, call = self._engine.run(asked)
            if settled is None:
                raise WebChatError(f"{command.name} was not settled")
            if settled.resolved and command.finish is not None:
                settled = command.finish(self._engine, self.config, asked.data, settled)
            self._drain()
        except BaseException as error:
            _release_locks(error)
            raise
        return settled, call

    def _await_restore(self) -> None:
        """Wait for a restore that another thread has in flight; inside a handler, or without threads, it cannot end."""
        if not self._engine.settled and not self._engine.inside and self._engine.driver.threaded:
            self._reader.wait_until(lambda: self._engine.settled, math.inf)

    def _drain(self) -> None:
        """Deliver what was published; inside a handler, the thread that called it delivers, and is not waited for."""
        if not self._engine.event_queue.pending:
            return
        if self._engine.user_code.depth:
            self._engine.event_queue.drain(wait=False)
        elif not self._engine.event_queue.drain():
            log.warning(
                "events wait for the handler %s, which blocks their delivery",
                self._engine.subscribers.running or "(none)",
            )

    def _send(self, command: ServiceCommand[Response], data: Json) -> Receipt:
        settled, call = self._give(command, data)
        if settled.resolved:
            return self._receipt(call, "sent")
        rejected = self._rejection(command, settled)
        if settled.fault is not None:  # without an answer the message may have arrived all the same
            rejected.receipt = self._receipt(call, "unknown")
        raise rejected from settled.fault

    def _receipt(self, call: Call | None, status: str) -> Receipt:
        return self._engine.receipts.add(call.ticket if call else 0, status, self._reader.wait_delivered)

    # -- events ----------------------------------------------------------------------------------------------------

    def _subscribe(self, event: str, handler: Handler) -> Subscription:
        return self._engine.subscribers.subscribe(event, handler)

    def mount(self, plugin: webchat_fsm.Plugin) -> None:
        """Register the commands and events on a plugin of the bus; called by `Bus.register`."""
        for name in COMMANDS:
            plugin.register_command(name, lambda call: self.command(call.command, call.data))
        plugin.register_events(list(EVENTS))
        plugin.ready()
        self._engine.subscribers.add_plugin(plugin)

    def _wait_for(self, event: str, timeout: float, where: Callable[[AnyEvent], bool] | None) -> AnyEvent:
        return self._reader.wait_for(event, timeout, where)

    def events(self, silence: float | None = None) -> Iterator[AnyEvent]:
        """Yield the published events from the reading position, until `silence` seconds without one.

        Ends after `ended` and at `close()` too. Raises `HandlerWaitError` inside a handler.
        """
        return self._reader.events(silence)

    def step(self) -> bool:
        """Poll once, for a service on a `ManualDriver`; True where the server answered well.

        Raises `CommandRejected` where there is no session to poll, and `WebChatError` on another driver.
        """
        if not isinstance(self._engine.driver, ManualDriver):
            raise WebChatError("step() is for a service on a ManualDriver; this one's driver polls by itself")
        # Asked before the step: the outcome of the timer does not tell a refusal from a poll that has failed.
        with self._engine.lock:
            reason = refusal(self._engine.session, POLL.rule, {}, By.SERVICE)
        if reason:
            raise self._rejection(POLL, Settled(resolved=False, reason=reason, state=self.state))
        answered = self._engine.run_timer(Timer.POLL, by_hand=True)
        self._drain()
        return bool(answered)


def _release_locks(error: BaseException) -> None:
    """Release the locks of logging that an interruption has left taken in this thread."""
    if not isinstance(error, Exception):
        release_logging()


def _demand(argument: str, given: object, protocol: type, wanted: str) -> None:
    if given is not None and not (isinstance(given, protocol) and not isinstance(given, type)):
        raise TypeError(f"{argument} must be {wanted}, not {_called(given)}")


def _called(given: object) -> str:
    return f"the class {given.__name__} itself" if isinstance(given, type) else type(given).__name__


def _command(name: str) -> ServiceCommand[Any]:
    command = COMMANDS.get(name)
    if command is None:
        raise ValueError(f"there is no command {name!r}{nearest(name, COMMANDS)}")
    return command
