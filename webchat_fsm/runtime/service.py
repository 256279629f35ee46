"""`WebChatService`: the customer side of a web chat, synchronous, on the state machine of the lifecycle."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self
from weakref import WeakValueDictionary

from msgspec import Struct

from webchat_fsm.config import Config
from webchat_fsm.core.facts import Asked, Closed, Opened, Timer
from webchat_fsm.core.on_command import refusal
from webchat_fsm.errors import CommandRejected, WebChatError, nearest
from webchat_fsm.lifecycle.commands import COMMANDS, NOT_READY, By, Rule
from webchat_fsm.lifecycle.effects import Call, Delivered, Overtaken, Settled
from webchat_fsm.lifecycle.events import EVENTS
from webchat_fsm.lifecycle.table import State
from webchat_fsm.lifecycle.words import Json
from webchat_fsm.runtime import files, forks, log_locks
from webchat_fsm.runtime.arguments import UnsendableError, bus_value, prepared
from webchat_fsm.runtime.bus import Plugin
from webchat_fsm.runtime.carrier import carrier
from webchat_fsm.runtime.clock import LONGEST, monotonic
from webchat_fsm.runtime.command_face import CommandFace
from webchat_fsm.runtime.delivery import AnyEvent, Handler, Outbox, Subscription
from webchat_fsm.runtime.driver import Driver, ManualDriver, ThreadDriver
from webchat_fsm.runtime.engine import Engine
from webchat_fsm.runtime.event_face import EventFace
from webchat_fsm.runtime.hooks import kept_by
from webchat_fsm.runtime.http import Http
from webchat_fsm.runtime.keeper import Keeper
from webchat_fsm.runtime.outcome import Outcome
from webchat_fsm.runtime.receipt import Receipt
from webchat_fsm.runtime.recorder import Guarded, Recorder
from webchat_fsm.runtime.store import MemoryStore, SessionStore
from webchat_fsm.runtime.waiting import Reader, check_event

log = logging.getLogger("webchat_fsm")

JUST_BEGUN = 0.1
"""Seconds after which close() cuts once more, for a request that a thread was about to make at the first time."""

RECENT = 1000
"""How many deliveries of own messages are remembered for receipts that are not there yet."""


class Explanation(Struct, frozen=True):
    """Whether a command is legal now, the literal text of its refusal if not, and the states in which it would be."""

    command: str
    legal: bool
    reason: str
    legal_in: frozenset[State]


class Health(Struct, frozen=True, kw_only=True):
    """How a service does.

    In seconds: `last_poll` since the last answered one, `poll_in_flight` since one went out that is not answered yet,
    `next_poll` until the next. `failures` in a row, the names of live `threads`, and what hinders the store. `misread`
    counts the answers of which a part could not be read, by kind: place, expected and found type, never a value.
    `defects` counts what this library itself has raised while requests were made and answers read: please report them.
    `warnings` counts what else was odd, by the text that was logged: pushes of another chat, ids that changed,
    intervals that cannot be kept. `stalled` are the seconds without a poll where that is longer than its deadline and
    pause, None while all is well.
    """

    last_poll: float | None
    failures: int
    poll_in_flight: float | None
    next_poll: float | None
    threads: tuple[str, ...]
    store_failure: str
    misread: Mapping[str, int] = {}
    defects: int = 0
    warnings: Mapping[str, int] = {}
    stalled: float | None = None


class WebChatService(CommandFace, EventFace):
    """One customer, one chat at a time. Every method may be called from any thread, and inside handlers.

    `config` is the documented object (see `Config`); `store` keeps the session between openings; `http` replaces how
    requests travel, one for each service; `driver` runs the timers, by default in threads of its own; `recorder` writes
    the session down (see `webchat_fsm.testing`). Nothing is opened, and no thread started, before `open()`. Raises
    `ConfigError`, and `TypeError` for an argument that is something else.

    A command method raises `CommandRejected` where the command is refused, and `TypeError` where it was given what
    cannot be sent, such as bytes in user data.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | Config,
        *,
        store: SessionStore | None = None,
        http: Http | None = None,
        driver: Driver | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.config = Config.read(config)
        _demand("store", store, SessionStore, "a SessionStore such as FileStore(path)")
        _demand("http", http, Http, "an Http, which carries requests")
        _demand("driver", driver, Driver, "a Driver such as ManualDriver()")
        _demand("recorder", recorder, Recorder, "a Recorder such as webchat_fsm.testing.Recorder(path)")
        self._own_driver = ThreadDriver() if driver is None else None
        self._driver: Driver = driver or self._own_driver or ManualDriver()
        outbox = Outbox(self._deliver, self.config.client.delivery_timeout / 1000)
        keeper = Keeper(kept_by(self.config, MemoryStore() if store is None else store))
        self._engine = Engine(self.config, http or carrier(self.config), keeper, self._driver, outbox)
        self._engine.on_delivered = self._delivered
        if recorder is not None:
            self._engine.recorder = Guarded(recorder)
            self._engine.recorder.begun(self.config)
        self._reader = Reader(self._engine)
        self._subscriptions: dict[str, tuple[Subscription, ...]] = {}
        self._plugins: tuple[Plugin, ...] = ()
        self._ready: AnyEvent | None = None
        self._handling = ""
        self._receipts: WeakValueDictionary[int, Receipt] = WeakValueDictionary()  # one that is dropped needs no word
        self._came_back: dict[int, Delivered | Overtaken] = {}
        self._closings = 0
        self._door = threading.RLock()
        forks.prepare(self)

    def after_fork(self) -> None:
        """Be closed in a child of a fork, with locks that nobody holds; called there by itself."""
        self._door = threading.RLock()
        self._reader = Reader(self._engine)
        self._ready = None
        self._engine.after_fork()

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
            self._open()
        except BaseException as error:
            _calm(error)
            raise

    def _open(self) -> None:
        engine = self._engine
        if engine.session.opened:
            self._await_restore()
            return
        closings = self._closings
        saved = engine.load()
        try:  # around the taking too: a signal may come between a call and what follows it
            if not self._door.acquire(blocking=not self._inside) or self._closings != closings:
                return
            self._driver.attach(engine)
            decision = engine.commit(Opened(saved=saved))
        finally:
            try:  # noqa: SIM105  (`suppress` is a function in Python, at whose entry a signal may come)
                self._door.release()
            except RuntimeError:
                pass  # it was not taken
        try:
            engine.follow(decision)
        except BaseException:
            engine.forsake(decision)
            raise
        self._await_restore()
        self._drain()

    def close(self, timeout: float = 2.0, *, end: bool = False) -> bool:
        """Stop timers, threads and requests; the session stays saved, to be restored. `end=True` ends the chat first.

        From any thread, inside a handler, twice. True when everything is gone; False after the timeout, or inside a
        handler, where the rest ends as the handler returns. Publishes nothing. The timeout counts from the end of the
        chat, whose request takes `ajaxTimeout` at most; a handler or a store that is called in this very thread is
        waited for. Where another thread is held up in a handler of logging, nothing is logged here.
        """
        self._closings += 1
        if end:
            self._end_first()
        try:
            return self._close(timeout)
        except BaseException as error:
            _calm(error)
            raise

    def _close(self, timeout: float) -> bool:
        deadline = monotonic() + min(timeout, LONGEST)
        left: Callable[[], float] = lambda: max(0.0, deadline - monotonic())  # noqa: E731
        try:
            if not self._door.acquire(timeout=max(JUST_BEGUN, 0.0 if self._inside else left())):
                self._engine.commit(Closed(), wait=False)  # another thread is closing, and ends the rest
                return False
            return self._leave(left)
        finally:
            try:  # noqa: SIM105  (as in `open`)
                self._door.release()
            except RuntimeError:
                pass

    def _leave(self, left: Callable[[], float]) -> bool:
        """Close what is open; no other thread opens it again before that is done."""
        engine, inside = self._engine, self._inside
        if not inside:
            engine.outbox.drain(at_most=left())
        engine.commit(Closed(), wait=False)
        with engine.lock:
            self._ready = None
        engine.cut()
        gone = self._driver.detach(engine, min(JUST_BEGUN, left()))
        if not (gone or inside):
            engine.cut()
            gone = self._driver.detach(engine, left())
        engine.give_up_connections()
        if self._own_driver is not None:
            gone = self._own_driver.close(left()) and gone
        return not inside and engine.outbox.wait_idle(left()) and engine.keeper.idle(left()) and gone

    def _end_first(self) -> None:
        if self.can("endChat"):
            outcome = self.command("endChat")
            if not outcome:
                log.warning("the chat is over here, but its server said otherwise: %r", outcome)

    @property
    def _inside(self) -> bool:
        return self._engine.outbox.delivering_here or bool(self._engine.user_code.depth)

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
        """Where the session is; a lock-free read."""
        return self._engine.session.state

    def can(self, name: str) -> bool:
        """Whether a command, by its documented name, is legal now."""
        return self.explain(name).legal

    def legal_commands(self) -> tuple[str, ...]:
        """The documented names of the commands that are legal now."""
        return tuple(rule.name for rule in COMMANDS.values() if self.can(rule.name))

    def explain(self, name: str) -> Explanation:
        """Why a command is legal or not now, and in which states it would be."""
        rule, session = _rule(name), self._engine.session
        with self._engine.lock:
            reason = refusal(session, Asked(command=name, data={"message": "text"}))
        return Explanation(name, not reason, reason, rule.legal_in(session.transport))

    def health(self) -> Health:
        """Return the state of polling, threads and store, for a watchdog of yours."""
        engine, session = self._engine, self._engine.session
        with engine.lock:
            now = engine.moment()
            due = session.timers.get(Timer.POLL)
            return Health(
                last_poll=max(0.0, now.wall - session.last_contact) if session.state.has_session else None,
                failures=session.failures,
                poll_in_flight=now.timer - session.poll_since if session.poll_out else None,
                next_poll=None if due is None else max(0.0, due - now.timer),
                threads=tuple(thread.name for thread in getattr(self._driver, "threads", ())),
                store_failure=engine.keeper.failure,
                misread=engine.misreadings.counts(),
                defects=engine.defects.count,
                warnings=dict(session.warnings),
                stalled=engine.stalled(now.timer),
            )

    # -- commands --------------------------------------------------------------------------------------------------

    def command(self, name: str, data: Mapping[str, Any] | None = None) -> Outcome:
        """Give any documented command by its documented name and with its documented data; a rejection raises nothing.

        When it returns the outcome is settled, and its events have been delivered too, unless it was called inside a
        handler, or another thread is delivering for longer than `client.deliveryTimeout`. An unknown name is a
        `ValueError`.
        """
        rule = _rule(name)
        try:
            settled, _ = self._give(rule, data)
        except UnsendableError as error:
            settled = self._unsendable(rule, error)
        transport = self._engine.session.transport
        if settled.resolved:
            return Outcome(resolved=True, value=bus_value(rule.name, settled.value, transport))
        reason = settled.reason if settled.response is None else settled.response.item()
        return Outcome(resolved=False, reason=reason, error=self._rejection(rule, settled))

    def _unsendable(self, rule: Rule, error: UnsendableError) -> Settled:
        """The rejection of a command that was given what cannot be sent, behind what its state refuses."""
        with self._engine.lock:
            refused = refusal(self._engine.session, Asked(command=rule.name, data={"message": "text"}))
        return Settled(resolved=False, reason=refused or error.reason, state=self.state)

    def _result(self, command: str, data: Mapping[str, Any] | None = None) -> Any:
        rule = _rule(command)
        settled, _ = self._give(rule, data)
        if not settled.resolved:
            raise self._rejection(rule, settled) from settled.fault
        return settled.value

    def _rejection(self, rule: Rule, settled: Settled) -> CommandRejected:
        closed = settled.reason == NOT_READY
        rejected = CommandRejected(
            rule.name,
            settled.reason,
            state=settled.state,
            response=settled.response,
            legal_in=() if closed else rule.legal_in(self._engine.session.transport),
            advice="; call open() first" if closed else "",
        )
        rejected.__cause__ = settled.fault
        return rejected

    def _give(self, rule: Rule, data: Mapping[str, Any] | None) -> tuple[Settled, Call | None]:
        try:
            return self._given(rule, data)
        except BaseException as error:
            _calm(error)
            raise

    def _given(self, rule: Rule, data: Mapping[str, Any] | None, by: By = By.USER) -> tuple[Settled, Call | None]:
        if data is not None and not isinstance(data, Mapping):
            raise TypeError(f"the data of {rule.name} must be a mapping, not {type(data).__name__}")
        asked = Asked(command=rule.name, data=prepared(self._engine, self.config, rule.name, data or {}), by=by)
        if rule.name == "verifySession":
            self._await_restore()
        settled, call = self._engine.run(asked)
        if settled is None:
            raise WebChatError(f"{rule.name} was not settled")
        if settled.resolved and rule.name in _AFTERWARDS:
            settled = _AFTERWARDS[rule.name](self, asked.data, settled)
        self._drain()
        return settled, call

    def _await_restore(self) -> None:
        """Wait for a restore that another thread has in flight; not inside a handler, nor without threads."""
        if not self._engine.settled and not self._inside and self._driver.threaded:
            self._reader.wait_until(lambda: self._engine.settled, math.inf)

    def _drain(self) -> None:
        if self._engine.user_code.depth:
            self._engine.outbox.drain(wait=False)
        elif not self._engine.outbox.drain():
            log.warning("events wait for the handler %s, which blocks their delivery", self._handling or "(none)")

    def _remember_input(self, data: Json, settled: Settled) -> Settled:
        self._engine.preview_input = data["input"]
        return settled

    def _remember_preprocessor(self, data: Json, settled: Settled) -> Settled:
        self._engine.preprocessors.append(data["preprocessor"])
        return settled

    def _put_download(self, data: Json, settled: Settled) -> Settled:
        """Write what was fetched, under the name of the request, of the answer or of the transcript."""
        content, disposition = settled.value
        file_id = str(data.get("fileId") or data.get("field"))
        name = files.named_in(disposition) or self._name_of_file(file_id) or file_id
        to, folder = data.get("to"), self.config.client.download_dir
        try:
            path = files.put(content, to, name) if to else files.put_into(folder, content, name)
        except OSError as error:
            return Settled(resolved=False, reason=f"the file could not be written: {error}", state=settled.state)
        return Settled(resolved=True, value=path, state=settled.state)

    def _name_of_file(self, file_id: str) -> str:
        for message in self._engine.session.transcript.read().messages:
            details = message.file_details or {}
            if file_id == details.get("file-id"):
                return str(details.get("file-name") or "")
        return ""

    # -- receipts --------------------------------------------------------------------------------------------------

    def _send(self, command: str, data: Json) -> Receipt:
        rule = _rule(command)
        settled, call = self._give(rule, data)
        if settled.resolved:
            return self._receipt(call, "sent")
        rejected = self._rejection(rule, settled)
        if settled.fault is not None:
            rejected.receipt = self._receipt(call, "unknown")
        raise rejected from settled.fault

    def _receipt(self, call: Call | None, status: str) -> Receipt:
        receipt = Receipt(call.ticket if call else 0, status, self._await_receipt)
        with self._engine.lock:
            self._receipts[receipt.ticket] = receipt
            came_back = self._came_back.get(receipt.ticket)
            if came_back is not None:
                receipt.settle(came_back)
        return receipt

    def _delivered(self, effect: Delivered | Overtaken) -> None:
        """Settle a receipt, or remember how for one that is not there yet."""
        with self._engine.lock:
            if not isinstance(self._came_back.get(effect.ticket), Delivered):
                self._came_back[effect.ticket] = effect
            if len(self._came_back) > RECENT:
                del self._came_back[next(iter(self._came_back))]
            receipt = self._receipts.get(effect.ticket)
            if receipt is not None:
                receipt.settle(effect)
        if receipt is not None:
            self._engine.outbox.nudge()

    def _await_receipt(self, receipt: Receipt, timeout: float) -> bool:
        self._reader.wait_until(lambda: receipt.settled, timeout)
        return receipt.status == "delivered"

    # -- events ----------------------------------------------------------------------------------------------------

    def _subscribe(self, event: str, handler: Handler) -> Subscription:
        check_event(event)
        if not callable(handler):
            raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
        subscription = Subscription(event, handler, self._unsubscribe)
        with self._engine.lock:
            self._subscriptions[event] = (*self._subscriptions.get(event, ()), subscription)
            replayed = self._ready if event == "ready" else None
        if replayed is not None:
            self._call(handler, replayed)
        return subscription

    def _unsubscribe(self, subscription: Subscription) -> None:
        with self._engine.lock:
            known = self._subscriptions.get(subscription.event, ())
            self._subscriptions[subscription.event] = tuple(one for one in known if one is not subscription)

    def _deliver(self, event: AnyEvent) -> None:
        with self._engine.lock:
            if event.name == "ready":
                self._ready = event
            subscriptions, plugins = self._subscriptions.get(event.name, ()), self._plugins
        for subscription in subscriptions:
            if subscription in self._subscriptions.get(event.name, ()) and self._engine.outbox.to_be_heard:
                self._call(subscription.handler, event)
        for plugin in plugins:
            if self._engine.outbox.to_be_heard:
                self._publish(plugin, event)

    def _call(self, handler: Handler, event: AnyEvent) -> None:
        self._handling = name = getattr(handler, "__qualname__", None) or repr(handler)
        self._engine.user_code.call(self._handle, handler, event, name)
        self._handling = ""

    def _handle(self, handler: Handler, event: AnyEvent, name: str) -> None:
        try:
            handler(event)
        except Exception as error:
            log.exception("the handler %s of %s failed", name, event.name)
            self._report(error, event)

    def _report(self, error: Exception, event: AnyEvent) -> None:
        report = self.config.client.on_handler_error
        if report is not None:
            try:
                report(error, event)
            except Exception:
                log.exception("client.onHandlerError failed")

    def _publish(self, plugin: Plugin, event: AnyEvent) -> None:
        try:
            data = None if event.data is None else event.data.item(self._engine.session.transport)
        except Exception as error:  # a defect, in the thread of a command or a poll: the handlers have heard the event
            self._engine.defects.note(error)
            self._engine.defects.report()
            return
        self._handling = f"(a subscriber on the bus to {event.name})"
        publish = partial(plugin.publish_service_event, replay=event.name == "ready")
        self._engine.user_code.call(publish, event.name, data, round(event.time * 1000))
        self._handling = ""

    def mount(self, plugin: Plugin) -> None:
        """Put the commands and events on a plugin of the bus; called by `Bus.register`."""
        for name in COMMANDS:
            plugin.register_command(name, lambda call: self.command(call.command, call.data))
        plugin.register_events(list(EVENTS))
        plugin.ready()
        with self._engine.lock:
            self._plugins = (*self._plugins, plugin)
            replayed = self._ready
        if replayed is not None:
            self._publish(plugin, replayed)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _wait_for(self, event: str, timeout: float, where: Callable[[AnyEvent], bool] | None) -> AnyEvent:
        return self._reader.wait_for(event, timeout, where)

    def events(self, silence: float | None = None) -> Iterator[AnyEvent]:
        """What is published, one by one from the reading position, until `silence` seconds without any.

        Ends after `ended` and at `close()` too. Raises `HandlerWaitError` inside a handler.
        """
        return self._reader.events(silence)

    def step(self) -> bool:
        """Poll once by hand, for a driver without threads; True where the server answered well.

        Raises `CommandRejected` where there is no session to poll.
        """
        if not isinstance(self._driver, ManualDriver):
            raise WebChatError("step() is for a service on a ManualDriver; this one's driver polls by itself")
        rule = COMMANDS["poll"]
        with self._engine.lock:
            reason = refusal(self._engine.session, Asked(command="poll", by=By.SERVICE))
        if reason:
            raise self._rejection(rule, Settled(resolved=False, reason=reason, state=self.state))
        answered = self._engine.run_timer(Timer.POLL, by_hand=True)
        self._drain()
        return bool(answered)


def _calm(error: BaseException) -> None:
    """Release the locks of logging that this thread holds after an interruption."""
    if not isinstance(error, Exception):
        log_locks.give_back()


def _demand(argument: str, given: object, protocol: type, wanted: str) -> None:
    if given is not None and not (isinstance(given, protocol) and not isinstance(given, type)):
        raise TypeError(f"{argument} must be {wanted}, not {_called(given)}")


def _called(given: object) -> str:
    return f"the class {given.__name__} itself" if isinstance(given, type) else type(given).__name__


def _rule(name: str) -> Rule:
    rule = COMMANDS.get(name)
    if rule is None:
        raise ValueError(f"there is no command {name!r}{nearest(name, COMMANDS)}")
    return rule


_AFTERWARDS: dict[str, Callable[[WebChatService, Json, Settled], Settled]] = {
    "registerTypingPreviewInput": WebChatService._remember_input,
    "registerPreProcessor": WebChatService._remember_preprocessor,
    "downloadFile": WebChatService._put_download,
}
