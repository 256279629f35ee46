"""The request of a decision: from a `Call` over the dialect and `Http` to a `Reply`.

Nothing that goes wrong here ends a chat. A fault of the network is a silent reply, a defect of this library or of a
user's `Http` a bad one; both are counted for `health()`.

Steps are generators, so that the same code waits in a thread or is parked by a driver: a command runs in the thread of
its caller, which waits (`finished`); the job of a timer yields where it would wait, and goes on later (`ParkedSteps`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace

from webchat_fsm._config import Config
from webchat_fsm._core.defects import defect_reply
from webchat_fsm._core.operations import SendFile
from webchat_fsm._core.session import Session
from webchat_fsm._core.steps import Call, Reply, ResponseKind
from webchat_fsm._errors import TransportError
from webchat_fsm._model import Response
from webchat_fsm._runtime.clock import LONGEST, Driver, ManualDriver, moment_of, monotonic
from webchat_fsm._runtime.delivery import EventQueue
from webchat_fsm._runtime.failures import Defects, Guarded, Misreadings
from webchat_fsm._runtime.http import Exchange, Http, SplitHttp, Waiting
from webchat_fsm._runtime.job_queue import Parked
from webchat_fsm._wire import dialect_of
from webchat_fsm._wire.request import CUT, HttpAnswer, Request, answered, bare, silent

T = TypeVar("T")
Steps = Generator[Waiting | str, None, T]
"""Steps that follow from one another: yields what is to be waited for, or the host to which a connection is opened."""


def finished(steps: Steps[T]) -> T:
    """Return the result of steps that wait by themselves, and so yield nothing."""
    try:
        next(steps)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("steps that do not park have yielded")


def resumed(steps: Steps[T], error: Exception | None = None) -> T | ParkedSteps:
    """Continue steps, with an error of what they wait for; returns their result, or the steps as they wait again."""
    try:
        return ParkedSteps(steps, next(steps) if error is None else steps.throw(error))
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]


class ParkedSteps(Parked):
    """Steps that wait, as a job that a `ThreadDriver` parks."""

    def __init__(self, steps: Steps[Any], waiting: Waiting | str) -> None:
        self._steps = steps
        self._waiting = None if isinstance(waiting, str) else waiting
        self.connects_to = waiting if isinstance(waiting, str) else ""
        self.until = LONGEST if self._waiting is None else self._waiting.until

    def fileno(self) -> int:
        """Return the descriptor that they wait for."""
        return -1 if self._waiting is None else self._waiting.fileno()

    def when_ready(self, function: Callable[[], None]) -> None:
        """Have a function called by another thread that has brought the answer."""
        if self._waiting is not None:
            self._waiting.on_ready = function

    def is_ready(self) -> bool:
        """Return whether another thread has brought the answer."""
        waiting = self._waiting  # read once, as a worker that has taken the job may go on meanwhile
        return waiting is not None and waiting.is_ready()

    def resume(self) -> object:
        """Go on, or return itself where nothing has come that allows that."""
        failed: Exception | None = None
        try:
            if self._waiting is not None and not self._waiting.proceed(0.0):
                self.until = self._waiting.until  # a connect that has listened long enough waits for its answer now
                return self
        except Exception as error:  # the steps are to see it: raised from here, they would be lost half done
            failed = error
        # It knows this job by `on_ready`. Such a cycle for each request would make full collections of garbage frequent
        # where thousands of chats wait, and each of them stops all chats.
        self._waiting = None
        return resumed(self._steps, failed)

    def cancel(self) -> None:
        """End them as a cut of their request does: it counts as unanswered, and its connection is closed.

        Runs no code of the user, as nothing has come: it is called in the thread that closes the service.
        """
        self._waiting = None
        try:
            self._steps.throw(TransportError(CUT))
        except StopIteration:
            return
        self._steps.close()  # they would begin another request, in a session that is closed


PARK_AFTER = 0.001
"""Seconds for which a worker waits for an answer before it parks the job: most answers of a near server are there.

A connect is parked at once, as the server is to hold it: else a few workers could renew no more than some thousand a
second, and a push would wait behind them.
"""


class Pause:
    """A wait before a repeated attempt, as an exchange in which nothing comes."""

    def __init__(self, until: float, is_over: Callable[[], bool]) -> None:
        self.until, self.is_ready = until, is_over
        self.on_ready: Callable[[], None] | None = None

    def fileno(self) -> int:
        """Return -1: there is no socket."""
        return -1

    def proceed(self, seconds: float) -> bool:
        """Return whether the pause is over."""
        return self.is_ready() or monotonic() >= self.until


class Requests:
    """Makes the requests of one session, in the thread that asks for them or on a driver that parks them."""

    __slots__ = (
        "_defects",
        "_dialect",
        "_driver",
        "_event_queue",
        "_http",
        "_pauses",
        "_recorder",
        "_session",
        "_split",
        "misreadings",
    )

    def __init__(
        self,
        config: Config,
        session: Session,
        http: Http,
        driver: Driver,
        event_queue: EventQueue,
        recorder: Guarded,
        defects: Defects,
    ) -> None:
        self.misreadings: Misreadings = Misreadings()
        self._dialect = dialect_of(config)
        self._session, self._http, self._driver = session, http, driver
        self._event_queue, self._recorder, self._defects = event_queue, recorder, defects
        self._split = http if isinstance(http, SplitHttp) else None
        self._pauses: list[Pause] = []  # no set, as an empty one takes four times the memory

    def perform(self, call: Call, *, parks: bool) -> Steps[Reply]:
        """Make the request of a call and read its answer; raises only what is a defect of this library.

        Where it `parks` it yields instead of waiting, to be continued once the exchange may proceed.
        """
        if call.pause:
            if parks:
                yield from self._parked_pause(call)
            else:
                self._pause(call)
        if call.number != self._session.number:  # after the pause, in which the chat may have ended
            return silent("", TransportError(f"{call.operation.name}: not sent, as the session was left meanwhile"))
        if isinstance(call.operation, SendFile):
            call, refused = self._with_content(call, call.operation)
            if refused is not None:
                return refused
        request = self._request(call)
        if isinstance(request, Reply):
            return request
        repeats: list[str] = []
        wanted, repeated = partial(self._wanted, call), partial(repeats.append, call.operation.name)
        reply = yield from self._exchange(call, replace(request, wanted=wanted, repeated=repeated), parks=parks)
        # Each repetition counts against the rate limit of the session, as the server sees it as a request of its own.
        return replace(reply, repeats=len(repeats)) if repeats else reply

    def _request(self, call: Call) -> Request | Reply:
        """Build the request of a call, or the reply that refuses it because an argument cannot be serialised."""
        try:
            request = self._dialect.request(call)
        except (ValueError, TypeError, RecursionError) as error:
            if call.command is None:  # no user has given an argument, so it is a defect of this library
                raise
            refusal = {
                "code": 0,
                "text": f"{call.operation.name}: what was given cannot be sent: {type(error).__name__}",
            }
            return Reply(kind=ResponseKind.BAD, response=Response(errors=[refusal]))
        if self._recorder.active:
            self._recorder.requested(call, request, moment_of(self._driver.clock))
        return request

    def _exchange(self, call: Call, request: Request, *, parks: bool) -> Steps[Reply]:
        try:
            if parks and self._split is not None:
                after = 0.0 if call.operation.held else PARK_AFTER
                answer = yield from self._parked(self._split.exchange(request), after)
            else:
                answer = self._http.send(request)
        except TransportError as error:
            # Without its frames: they hold what comes of the reply, and so the error, a cycle as in `resume`.
            return silent(request.url, error.with_traceback(None))
        except MemoryError:
            raise
        except Exception as error:  # the `Http` may be the user's, and the libraries below ours may raise anything
            self._defects.note(error)
            return defect_reply(call.operation.name, error, Response(url=bare(request.url)), silent=True)
        if self._recorder.active:
            self._recorder.answered(call, answer)
        url = bare(request.url)
        try:
            reply = self._dialect.reply(call, answer, url)
        except Exception as error:
            self._defects.note(error)
            return defect_reply(call.operation.name, error, answered(answer, url))
        if reply.misread or reply.pushes:
            self.misreadings.note(reply)
        return reply

    def _parked(self, exchange: Exchange, patience: float) -> Steps[HttpAnswer]:
        """Make an exchange without waiting for longer than so many seconds."""
        try:
            if not exchange.is_admitted():
                yield exchange
            if host := exchange.connects_to:
                yield host
            exchange.begin()
            if not (patience and exchange.proceed(patience)):
                yield exchange
        except GeneratorExit:  # the driver is gone, or this is a forked child, which has closed the descriptors
            raise
        except BaseException:
            exchange.abandon()
            raise
        return exchange.finish()

    def _parked_pause(self, call: Call) -> Steps[None]:
        pause = Pause(monotonic() + call.pause, lambda: call.number != self._session.number)
        self._pauses.append(pause)
        try:
            yield pause
        except TransportError:  # cancelled: the session was left
            pass
        finally:
            self._pauses.remove(pause)

    def end_pauses(self) -> None:
        """Go on with each pause whose session was left."""
        for pause in list(self._pauses):
            if pause.on_ready is not None and pause.is_ready():
                pause.on_ready()

    def _wanted(self, call: Call) -> bool:
        """Return whether the session of a call is still open; `Http` asks before it repeats a request."""
        return call.number == self._session.number and self._session.opened

    def _pause(self, call: Call) -> None:
        """Wait before a repeated attempt; leaving the session cuts the wait short."""
        if isinstance(self._driver, ManualDriver):
            self._driver.wait(call.pause)
        elif self._driver.threaded:
            # Read before each look at the session: what changes in between makes the wait return at once.
            deadline, changes = monotonic() + call.pause, self._event_queue.changes
            while call.number == self._session.number and (left := deadline - monotonic()) > 0:
                self._event_queue.wait_change(changes, left)
                changes = self._event_queue.changes

    def _with_content(self, call: Call, upload: SendFile) -> tuple[Call, Reply | None]:
        """Read the file of an upload; one that cannot be read rejects the command and is no fault of the network."""
        file = upload.file
        try:
            content = file.source()
        except (OSError, ValueError) as error:  # reading a closed file is a ValueError
            why = getattr(error, "strerror", None) or error
            refusal = {"code": 0, "text": f"{file.name}: cannot be read: {why}", "filename": file.name}
            return call, Reply(kind=ResponseKind.BAD, response=Response(errors=[refusal]))
        return replace(call, operation=replace(upload, content=content)), None
